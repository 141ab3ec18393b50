"""What trust.py is made of: tools, models, a noisy neighbour, the order of work, tables."""

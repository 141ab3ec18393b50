"""Structured pruning: which channels depend on each other, which matter, how many stay."""

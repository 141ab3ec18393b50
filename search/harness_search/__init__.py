"""The search: the most accurate network that meets the budget."""

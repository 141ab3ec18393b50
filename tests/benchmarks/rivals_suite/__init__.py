"""Rivals of the search, each a process of its own with the same time."""

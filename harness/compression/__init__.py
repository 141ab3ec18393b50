"""Compression steps; each is a function from a network to a new, smaller one."""

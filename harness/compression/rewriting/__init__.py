"""Exact rewrites: a network, or a file, that computes the same and is easier to prune or run."""

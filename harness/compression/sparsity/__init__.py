"""Sparsity: single weights that are zero and stay so."""

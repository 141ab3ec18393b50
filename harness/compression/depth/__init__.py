"""Depth: residual blocks that can be left out, and which of them matter."""

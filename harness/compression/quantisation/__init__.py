"""Number formats: what an exported file computes in, and networks trained to bear it."""

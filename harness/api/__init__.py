"""The Python API: what the commands do, without the printing; `harness` re-exports it."""

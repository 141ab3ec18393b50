"""Where candidates run: backends, targets, and the process that times."""

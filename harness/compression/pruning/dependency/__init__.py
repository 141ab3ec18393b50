"""Which channels depend on each other: found by one labelled run, verified by cutting copies."""

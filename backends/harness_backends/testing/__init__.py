"""For tests, also of other distributions' backends: a fake clock and the contract suite."""

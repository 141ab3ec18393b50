"""How a latency becomes trustworthy: rounds, statistics, flags, environment, host lock."""

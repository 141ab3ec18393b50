"""How a latency becomes trustworthy.

`rounds` is the engine, `intervals` and `series` its statistics, `flags` what a measurement
suffered, `startup` what a model costs before its first answer, `hostlock` what keeps other work
away. `offline` and `server` are scenarios, `compare` says faster or slower; `selftest`, `granule`
and the frozen `reference` say what the machine itself is like.
"""

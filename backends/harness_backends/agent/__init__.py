"""What runs on the device: one supervisor per connection, and a fresh worker for each timing.

The modules of this package, and `harness.measurement.lockfile`, are sent over standard input to a
bare `python3` (see `harness_backends.bundle`): they need nothing but the standard library and the
runtime, and stay valid on Python 3.8.

The *supervisor* imports no runtime. It starts workers, passes requests on to them and says how
they died; it keeps the models that were sent, holds the device's lock, and ends everything when
its standard input does, or when nothing was heard for long. A *worker* is a process of its own,
started and not forked: a fork would lie in memory as its parent does, and where code and data lie
is a part of what makes one process faster than another.

Frames, both ways: two big-endian uint32 (header length, blob length), a JSON header, a blob. A
process first writes MAGIC, so that the other side can skip what a shell printed. Every request has
an "id", which its reply repeats. Every reply has "ok"; a failure is {"ok": false, "kind",
"message"}: the process goes on.

Where a latency comes from: `runtimes.OnnxRuntime.call` makes the call, `timing.time_block` times
it, `worker.Worker.time` sends the figures; `harness.measurement.rounds` asks for them and
`harness.measurement.intervals` turns them into an estimate.
"""

"""A worker: one process that loads models, runs them and owns the clock.

Requests: pin, load, reload, infer, time, arrive, profile, memory, state.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import platform
import sys
import tempfile
import threading
import time
from typing import IO, Any, Dict, Optional

from harness_backends.agent import frames
from harness_backends.agent.counting import InstructionCounter, count_block
from harness_backends.agent.frames import Header, Reply, pack, unpack
from harness_backends.agent.machine import machine_facts, machine_state
from harness_backends.agent.process import (
    be_first_to_go,
    end_with,
    forget_peak_memory,
    leave_no_core_file,
    peak_memory,
)
from harness_backends.agent.runtimes import RUNTIMES, node_times
from harness_backends.agent.store import Store
from harness_backends.agent.timing import repeated, serve_arrivals, time_block, timer_facts


class Loaded:
    """A model that was sent, and its present session."""

    def __init__(self, model: IO[bytes], feed: Header, header: Header) -> None:
        self.model, self.feed, self.options = model, feed, header["options"]
        self.threads, self.repeat = self.options["threads"], header["repeat"]
        self.session: Any = None
        self.call: Any = None

    def start(self, runtime: Any) -> Header:
        """Create a session in place of the present one and run it once; return both times."""
        self.call = self.session = None
        start = time.perf_counter()
        self.session = runtime.create(path_of(self.model), self.options)
        created = time.perf_counter()
        call = runtime.call(self.session, self.feed)
        first = time.perf_counter()
        call()
        done = time.perf_counter()
        self.call = repeated(call, self.repeat)
        return {"session_create_s": created - start, "first_inference_s": done - first}


class Worker:
    """Answers requests; holds the loaded models."""

    def __init__(self, runtime: str, store: Store, counts: Optional[str]) -> None:
        self.runtime = RUNTIMES[runtime]()
        self.np, self.store = self.runtime.np, store
        self.counter = None if counts is None else InstructionCounter(counts)
        self.models: Dict[str, Loaded] = {}

    def hello(self) -> Header:
        """Return facts about this process, its runtime and its machine."""
        return {
            "python": platform.python_version(),
            "pid": os.getpid(),
            "runtime_version": self.runtime.version,
            "quantity": "time" if self.counter is None else "instructions",
            "machine": self._machine(),
            "timer": timer_facts(self.np),
        }

    def _machine(self) -> Header:
        """Return the machine's facts; an emulated one has no memory or kernel of its own."""
        facts = machine_facts()
        return facts if self.counter is None else dict(facts, memory_bytes=None, kernel=None)

    def pin(self, header: Header, blob: bytes) -> Reply:
        """Keep this process, and the threads that it will start, on the given CPUs."""
        os.sched_setaffinity(0, header["cpus"])
        got = sorted(os.sched_getaffinity(0))
        if got != sorted(header["cpus"]):  # the system leaves out what is not there in silence
            raise ValueError("only CPUs %s of them are there" % got)
        return {}, b""

    def load(self, header: Header, blob: bytes) -> Reply:
        """Create a session, run it once, and keep it under the key.

        "repeat" inferences make one timed call: above 1 a known slow-down is planted.
        """
        model = self.store.open(header["model"])
        loaded = Loaded(model, unpack(self.np, header["inputs"], blob), header)
        forget_peak_memory()
        times = loaded.start(self.runtime)
        self.models[header["key"]] = loaded
        return times, b""

    def reload(self, header: Header, blob: bytes) -> Reply:
        """Create a session anew from what was sent, and run it once."""
        return self.models[header["key"]].start(self.runtime), b""

    def infer(self, header: Header, blob: bytes) -> Reply:
        """Run the model on N samples, `batch` at a time; return all outputs, stacked.

        The samples are the blob, or what was put under the hash "samples".
        """
        session = self.models[header["key"]].session
        if "samples" in header:
            with self.store.open(header["samples"]) as file:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    feed = unpack(self.np, header["inputs"], data)
        else:
            feed = unpack(self.np, header["inputs"], blob)
        batch, n = header["batch"], len(next(iter(feed.values())))
        chunks = []
        for at in range(0, n, batch):
            part = {name: array[at : at + batch] for name, array in feed.items()}
            chunks.append(self.runtime.call(session, part)())
        outputs = [self.np.concatenate(column) for column in zip(*chunks)]
        return pack(self.np, [("", array) for array in outputs])

    def time(self, header: Header, blob: bytes) -> Reply:
        """Time blocks of calls; return int64 [3, calls] per block: wall, CPU, switches.

        Under an emulator that counts: instructions, the same, and zeros.
        """
        taken = []
        gc.disable()
        try:
            for key, calls in header["blocks"]:
                loaded = self.models[key]
                if self.counter is not None:
                    taken.append(count_block(self.np, self.counter, loaded.call, calls))
                else:
                    taken.append(time_block(self.np, loaded.call, calls, loaded.threads == 1))
        finally:
            gc.enable()
        return {}, b"".join(block.tobytes() for block in taken)

    def arrive(self, header: Header, blob: bytes) -> Reply:
        """Serve requests that arrive when they are due; return int64 [3, n]: due, begun, done."""
        call = self.models[header["key"]].call
        due = self.np.frombuffer(blob, "<i8").tolist()
        gc.disable()
        try:
            return {}, serve_arrivals(self.np, call, due).tobytes()
        finally:
            gc.enable()

    def profile(self, header: Header, blob: bytes) -> Reply:
        """Run a model under the runtime's own profiler; return microseconds per node.

        A node inside a loop has several entries per run. Slow models get fewer runs than asked.
        """
        feed = unpack(self.np, header["inputs"], blob)
        with self.store.open(header["model"]) as model, tempfile.TemporaryDirectory() as folder:
            options = dict(header["options"], profile=os.path.join(folder, "profile"))
            session = self.runtime.create(path_of(model), options)
            call = self.runtime.call(session, feed)
            runs, began = 0, time.perf_counter()
            while runs < header["runs"] and (runs < 3 or time.perf_counter() - began < 20.0):
                call()
                runs += 1
            with open(session.end_profiling()) as file:
                events = json.load(file)
        return {"nodes": node_times(events), "runs": runs}, b""

    def memory(self, header: Header, blob: bytes) -> Reply:
        """Return the peak of this process's resident memory since the last load; None: unknown."""
        return {"peak_bytes": peak_memory()}, b""

    def state(self, header: Header, blob: bytes) -> Reply:
        """Return what may change a latency and can be read; None is unknown.

        An emulated machine has no state: what could be read there is the host's.
        """
        state = machine_state()
        return (state if self.counter is None else dict.fromkeys(state)), b""


def path_of(model: IO[bytes]) -> str:
    """Return a path at which an open file can be opened, though its name may be gone."""
    return "/proc/self/fd/%d" % model.fileno()


def main(setup: Header) -> None:
    """Answer requests until standard input ends.

    Args:
        setup: Has "id" of the request for this worker, "runtime", the store's "folder" and
            "limit_bytes", "counts", the file of an emulator's counts or None, and "parent", the
            supervisor's process.
    """
    be_first_to_go()
    leave_no_core_file()
    stdin, mouth = frames.Ear(sys.stdin.buffer), frames.Mouth(frames.take_stdout())
    watch = threading.Thread(target=end_with, args=(setup["parent"],))
    watch.daemon = True
    watch.start()
    mouth.begin()
    try:
        store = Store(setup["folder"], setup["limit_bytes"])
        worker = Worker(setup["runtime"], store, setup["counts"])
    except Exception as error:
        mouth.say(dict(frames.failure(error), id=setup["id"]))
        return
    mouth.say(dict(worker.hello(), ok=True, id=setup["id"]))
    while True:
        frame = frames.read_frame(stdin.read)
        if frame is None:
            return
        header, blob = frame
        try:
            reply, data = getattr(worker, header["op"])(header, blob)
        except Exception as error:
            reply, data = frames.failure(error), b""
        mouth.say(dict({"ok": True}, **dict(reply, id=header["id"])), data)

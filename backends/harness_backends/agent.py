"""The timing agent: one process that loads models, runs them and owns the clock.

It is sent over standard input to a bare `python3` (see BOOT in transport), so it is one file, needs
nothing but the standard library and the runtime, and stays valid on Python 3.8.

Frames, both ways: two big-endian uint32 (header length, blob length), a JSON header, a blob. The
agent first writes MAGIC, so that the other side can skip what a shell printed. It ends when its
standard input does.

Requests: load, infer, time, state. Every reply has "ok"; a failure is {"ok": false, "kind",
"message"}: the agent goes on.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import resource
import struct
import sys
import threading
import time
from typing import Any, BinaryIO, Callable, Dict, Iterable, List, Optional, Tuple

Header = Dict[str, Any]
Reply = Tuple[Header, bytes]

MAGIC = b"\x00HARNESS-AGENT-1\n"
SIZES = struct.Struct(">II")


class OnnxRuntime:
    """ONNX Runtime on the CPU."""

    def __init__(self) -> None:
        # Wheels from 1.29 on report usage unless told not to, before the import.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import numpy
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        onnxruntime.set_default_logger_severity(4)
        self.np, self.ort, self.version = numpy, onnxruntime, onnxruntime.__version__

    def create(self, blob: bytes, options: Header) -> Any:
        """Return a session for the model in `blob`."""
        opts = self.ort.SessionOptions()
        opts.intra_op_num_threads = options["threads"]
        opts.inter_op_num_threads = 1
        opts.execution_mode = self.ort.ExecutionMode.ORT_SEQUENTIAL
        opts.log_severity_level = 4
        return self.ort.InferenceSession(blob, opts, providers=["CPUExecutionProvider"])

    def call(self, session: Any, feed: Header) -> Callable[[], Any]:
        """Return a function of no arguments that runs one inference and returns its outputs."""
        names = [out.name for out in session.get_outputs()]
        return lambda: session.run(names, feed)


RUNTIMES = {"onnxruntime": OnnxRuntime}


class Agent:
    """Answers requests; holds the loaded models."""

    def __init__(self, runtime: str) -> None:
        self.runtime = RUNTIMES[runtime]()
        self.np = self.runtime.np
        self.models: Dict[str, Tuple[Any, Callable[[], Any], int]] = {}

    def hello(self) -> Header:
        """Return facts about this process, its runtime and its machine."""
        return {
            "python": platform.python_version(),
            "pid": os.getpid(),
            "runtime_version": self.runtime.version,
            "machine": machine_facts(),
        }

    def load(self, header: Header, blob: bytes) -> Reply:
        """Create a session, run it once, and keep it under the key."""
        size = header["model_bytes"]
        start = time.perf_counter()
        session = self.runtime.create(blob[:size], header["options"])
        created = time.perf_counter()
        feed = unpack(self.np, header["inputs"], blob[size:])
        call = self.runtime.call(session, feed)
        first = time.perf_counter()
        call()
        done = time.perf_counter()
        self.models[header["key"]] = (session, call, header["options"]["threads"])
        return {"session_create_s": created - start, "first_inference_s": done - first}, b""

    def infer(self, header: Header, blob: bytes) -> Reply:
        """Run the model on N samples, `batch` at a time; return all outputs, stacked."""
        session = self.models[header["key"]][0]
        feed = unpack(self.np, header["inputs"], blob)
        batch, n = header["batch"], len(next(iter(feed.values())))
        chunks = []
        for at in range(0, n, batch):
            part = {name: array[at : at + batch] for name, array in feed.items()}
            chunks.append(self.runtime.call(session, part)())
        outputs = [self.np.concatenate(column) for column in zip(*chunks)]
        return pack(self.np, [("", array) for array in outputs])

    def time(self, header: Header, blob: bytes) -> Reply:
        """Time blocks of calls; return int64 [3, calls] per block: wall, CPU, switches."""
        taken = []
        gc.disable()
        try:
            for key, calls in header["blocks"]:
                _, call, threads = self.models[key]
                taken.append(time_block(self.np, call, calls, threads == 1))
        finally:
            gc.enable()
        return {}, b"".join(block.tobytes() for block in taken)

    def state(self, header: Header, blob: bytes) -> Reply:
        """Return what may change a latency and can be read; None is unknown."""
        return machine_state(), b""


def time_block(np: Any, call: Callable[[], Any], calls: int, one_thread: bool) -> Any:
    """Time `calls` calls one by one.

    With one thread its own CPU time and context switches say which calls were preempted; with
    several, the process-wide counters do.
    """
    who = resource.RUSAGE_THREAD if one_thread else resource.RUSAGE_SELF
    cpu_clock = time.thread_time_ns if one_thread else time.process_time_ns
    clock, usage = time.perf_counter_ns, resource.getrusage
    rows = []
    for _ in range(calls):
        switches, cpu, wall = usage(who).ru_nivcsw, cpu_clock(), clock()
        call()
        wall_end, cpu_end = clock(), cpu_clock()
        rows.append((wall_end - wall, cpu_end - cpu, usage(who).ru_nivcsw - switches))
    return np.ascontiguousarray(np.array(rows, dtype="<i8").T)


def pack(np: Any, named: Iterable[Tuple[str, Any]]) -> Reply:
    """Return a header and a blob for named arrays."""
    arrays = [(name, np.ascontiguousarray(array)) for name, array in named]
    specs = [{"name": n, "dtype": str(a.dtype), "shape": list(a.shape)} for n, a in arrays]
    return {"arrays": specs}, b"".join(array.tobytes() for _, array in arrays)


def unpack(np: Any, specs: List[Header], blob: bytes) -> Dict[str, Any]:
    """Return the named arrays of a blob."""
    arrays: Dict[str, Any] = {}
    at = 0
    for spec in specs:
        dtype = np.dtype(spec["dtype"])
        count = int(np.prod(spec["shape"], dtype="int64"))
        array = np.frombuffer(blob, dtype, count, at).reshape(spec["shape"])
        arrays[spec["name"]] = array.copy()
        at += count * dtype.itemsize
    return arrays


def read_text(path: str) -> Optional[str]:
    """Return a file's stripped text, or None where it can't be read."""
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None


def machine_facts() -> Header:
    """Return what identifies the machine: CPU model, count, ISA flags, memory."""
    model: Optional[str] = None
    flags: List[str] = []
    for line in (read_text("/proc/cpuinfo") or "").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in ("model name", "CPU part", "Model") and model is None:
            model = value
        if key in ("flags", "Features") and not flags:
            flags = sorted(value.split())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu_model": model,
        "cpu_count": os.cpu_count(),
        "cpu_flags": flags,
        "architecture": platform.machine(),
        "memory_bytes": memory,
        "kernel": platform.release(),
        "boot_id": read_text("/proc/sys/kernel/random/boot_id"),
    }


def machine_state() -> Header:
    """Return governor, frequency limit, throttle count, steal and load."""
    cpu = "/sys/devices/system/cpu/cpu0/"
    ticks = [int(t) for t in (read_text("/proc/stat") or "").split("\n")[0].split()[1:9]]
    max_khz = read_text(cpu + "cpufreq/scaling_max_freq")
    throttles = read_text(cpu + "thermal_throttle/core_throttle_count")
    load = read_text("/proc/loadavg")
    return {
        "governor": read_text(cpu + "cpufreq/scaling_governor"),
        "max_khz": int(max_khz) if max_khz else None,
        "throttle_count": int(throttles) if throttles else None,
        "cpu_ticks": sum(ticks) if ticks else None,
        "steal_ticks": ticks[7] if len(ticks) > 7 else None,
        "load_1min": float(load.split()[0]) if load else None,
        "pressure": read_text("/proc/pressure/cpu"),
    }


def read_frame(stream: BinaryIO) -> Optional[Reply]:
    """Return the next header and blob; None at the end of the stream."""
    head = stream.read(SIZES.size)
    if len(head) < SIZES.size:
        return None
    header_size, blob_size = SIZES.unpack(head)
    header, blob = stream.read(header_size), stream.read(blob_size)
    if len(header) < header_size or len(blob) < blob_size:
        return None
    return json.loads(header.decode()), blob


def write_frame(stream: BinaryIO, header: Header, blob: bytes = b"") -> None:
    """Write one frame and flush it."""
    text = json.dumps(header).encode()
    stream.write(SIZES.pack(len(text), len(blob)) + text + blob)
    stream.flush()


def take_stdout() -> BinaryIO:
    """Move the protocol off descriptor 1, so that a library's print can't corrupt it."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return out


def end_with(parent: int) -> None:
    """End this process when `parent`, the process that started it, is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


def serve(runtime: str) -> None:
    """Answer requests until standard input ends."""
    stdin, stdout = sys.stdin.buffer, take_stdout()
    watch = threading.Thread(target=end_with, args=(os.getppid(),))
    watch.daemon = True
    watch.start()
    stdout.write(MAGIC)
    try:
        agent = Agent(runtime)
    except Exception as error:
        write_frame(stdout, {"ok": False, "kind": type(error).__name__, "message": str(error)})
        return
    write_frame(stdout, dict(agent.hello(), ok=True))
    while True:
        frame = read_frame(stdin)
        if frame is None:
            return
        header, blob = frame
        try:
            reply, data = getattr(agent, header["op"])(header, blob)
        except Exception as error:
            reply, data = {"ok": False, "kind": type(error).__name__, "message": str(error)}, b""
        write_frame(stdout, dict({"ok": True}, **reply), data)


if __name__ == "__main__":
    serve(sys.argv[-1])

"""The timing agent: one process that loads models, runs them and owns the clock.

It is sent over standard input to a bare `python3` (see BOOT in transport), so it is one file, needs
nothing but the standard library and the runtime, and stays valid on Python 3.8.

Frames, both ways: two big-endian uint32 (header length, blob length), a JSON header, a blob. The
agent first writes MAGIC, so that the other side can skip what a shell printed. It ends when its
standard input does.

Requests: pin, load, reload, infer, time, arrive, profile, memory, state. Every reply has "ok"; a
failure is {"ok": false, "kind", "message"}: the agent goes on.

Where a latency comes from: `OnnxRuntime.call` makes the call, `time_block` times it, `Agent.time`
sends the figures; `harness.measurement.rounds` asks for them and `harness.measurement.intervals`
turns them into an estimate.
"""

from __future__ import annotations

import gc
import glob
import json
import os
import platform
import re
import resource
import struct
import sys
import tempfile
import threading
import time
from typing import IO, Any, BinaryIO, Callable, Dict, Iterable, List, Optional, Tuple

Header = Dict[str, Any]
Reply = Tuple[Header, bytes]
Frame = Tuple[Header, Optional[IO[bytes]], bytes]

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

    def create(self, path: str, options: Header) -> Any:
        """Return a session for the model in a file.

        Options: threads, provider, provider_options, session_config (the runtime's own keys) and
        profile, a file name's beginning, where the session is to be profiled.
        """
        provider = options["provider"]
        known = self.ort.get_available_providers()
        if provider not in known:  # ONNX Runtime would fall back to another and only warn
            raise ValueError("no provider %r here, only %s" % (provider, ", ".join(known)))
        opts = self.ort.SessionOptions()
        opts.intra_op_num_threads = options["threads"]
        opts.inter_op_num_threads = 1
        opts.execution_mode = self.ort.ExecutionMode.ORT_SEQUENTIAL
        opts.log_severity_level = 4
        for key, value in options["session_config"].items():
            opts.add_session_config_entry(key, value)
        if "profile" in options:
            opts.enable_profiling = True
            opts.profile_file_prefix = options["profile"]
        chosen = [(provider, options["provider_options"])]
        session = self.ort.InferenceSession(path, opts, providers=chosen)
        if session.get_providers()[0] != provider:
            raise ValueError("provider %r did not take the model" % provider)
        return session

    def call(self, session: Any, feed: Header) -> Callable[[], Any]:
        """Return a function of no arguments that runs one inference and returns its outputs."""
        names = [out.name for out in session.get_outputs()]
        return lambda: session.run(names, feed)


RUNTIMES = {"onnxruntime": OnnxRuntime}


class Loaded:
    """A model that was sent, and its present session."""

    def __init__(self, model: Optional[IO[bytes]], feed: Header, header: Header) -> None:
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


class Agent:
    """Answers requests; holds the loaded models."""

    def __init__(self, runtime: str) -> None:
        self.runtime = RUNTIMES[runtime]()
        self.np = self.runtime.np
        self.models: Dict[str, Loaded] = {}

    def hello(self) -> Header:
        """Return facts about this process, its runtime and its machine."""
        return {
            "python": platform.python_version(),
            "pid": os.getpid(),
            "runtime_version": self.runtime.version,
            "machine": machine_facts(),
            "timer": timer_facts(self.np),
        }

    def pin(self, header: Header, model: Optional[IO[bytes]], blob: bytes) -> Reply:
        """Keep this process, and the threads that it will start, on the given CPUs."""
        os.sched_setaffinity(0, header["cpus"])
        got = sorted(os.sched_getaffinity(0))
        if got != sorted(header["cpus"]):  # the system leaves out what is not there in silence
            raise ValueError("only CPUs %s of them are there" % got)
        return {}, b""

    def load(self, header: Header, model: Optional[IO[bytes]], blob: bytes) -> Reply:
        """Create a session, run it once, and keep it under the key.

        "repeat" inferences make one timed call: above 1 a known slow-down is planted.
        """
        loaded = Loaded(model, unpack(self.np, header["inputs"], blob), header)
        forget_peak_memory()
        times = loaded.start(self.runtime)
        self.models[header["key"]] = loaded
        return times, b""

    def reload(self, header: Header, model: Optional[IO[bytes]], blob: bytes) -> Reply:
        """Create a session anew from what was sent, and run it once."""
        return self.models[header["key"]].start(self.runtime), b""

    def infer(self, header: Header, model: Optional[IO[bytes]], blob: bytes) -> Reply:
        """Run the model on N samples, `batch` at a time; return all outputs, stacked."""
        session = self.models[header["key"]].session
        feed = unpack(self.np, header["inputs"], blob)
        batch, n = header["batch"], len(next(iter(feed.values())))
        chunks = []
        for at in range(0, n, batch):
            part = {name: array[at : at + batch] for name, array in feed.items()}
            chunks.append(self.runtime.call(session, part)())
        outputs = [self.np.concatenate(column) for column in zip(*chunks)]
        return pack(self.np, [("", array) for array in outputs])

    def time(self, header: Header, model: Optional[IO[bytes]], blob: bytes) -> Reply:
        """Time blocks of calls; return int64 [3, calls] per block: wall, CPU, switches."""
        taken = []
        gc.disable()
        try:
            for key, calls in header["blocks"]:
                loaded = self.models[key]
                taken.append(time_block(self.np, loaded.call, calls, loaded.threads == 1))
        finally:
            gc.enable()
        return {}, b"".join(block.tobytes() for block in taken)

    def arrive(self, header: Header, model: Optional[IO[bytes]], blob: bytes) -> Reply:
        """Serve requests that arrive when they are due; return int64 [3, n]: due, begun, done."""
        call = self.models[header["key"]].call
        due = self.np.frombuffer(blob, "<i8").tolist()
        gc.disable()
        try:
            return {}, serve_arrivals(self.np, call, due).tobytes()
        finally:
            gc.enable()

    def profile(self, header: Header, model: Optional[IO[bytes]], blob: bytes) -> Reply:
        """Run a model under the runtime's own profiler; return microseconds per node.

        A node inside a loop has several entries per run. Slow models get fewer runs than asked.
        """
        feed = unpack(self.np, header["inputs"], blob)
        with tempfile.TemporaryDirectory() as folder:
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

    def memory(self, header: Header, model: Optional[IO[bytes]], blob: bytes) -> Reply:
        """Return the peak of this process's resident memory since the last load; None: unknown."""
        return {"peak_bytes": peak_memory()}, b""

    def state(self, header: Header, model: Optional[IO[bytes]], blob: bytes) -> Reply:
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


def unpack_blocks(np: Any, data: bytes, schedule: Iterable[Tuple[Any, int]]) -> Iterable[Any]:
    """Return int64 [3, calls] per entry of a schedule, from what `Agent.time` replied."""
    values, at = np.frombuffer(data, "<i8"), 0
    for _, calls in schedule:
        yield values[at : at + 3 * calls].reshape(3, calls)
        at += 3 * calls


def serve_arrivals(np: Any, call: Callable[[], Any], due_ns: List[int]) -> Any:
    """Serve one request after the other, each not before it is due; a late one waits its turn.

    Args:
        np: numpy.
        call: One inference.
        due_ns: When each arrives, nanoseconds after the beginning, ascending.
    """
    clock, rows = time.perf_counter_ns, []
    begin = clock() + 1000000
    for offset in due_ns:
        due = begin + offset
        wait = due - clock()
        if wait > 500000:  # sleep most of a long wait, and watch the clock for the rest
            time.sleep((wait - 300000) * 1e-9)
        while clock() < due:
            pass
        begun = clock()
        call()
        rows.append((offset, begun - begin, clock() - begin))
    return np.ascontiguousarray(np.array(rows, dtype="<i8").reshape(-1, 3).T)


def timer_facts(np: Any) -> Header:
    """Return the clock's smallest step, and what timing adds to each call, nanoseconds."""
    ticks = [time.perf_counter_ns() for _ in range(2000)]
    steps = [after - before for before, after in zip(ticks, ticks[1:]) if after > before]
    empty = time_block(np, lambda: None, 200, True)[0]
    return {"resolution_ns": min(steps, default=None), "overhead_ns": float(np.median(empty))}


def repeated(call: Callable[[], Any], times: int) -> Callable[[], Any]:
    """Return a function that makes `times` calls."""
    if times == 1:
        return call

    def unit() -> None:
        for _ in range(times):
            call()

    return unit


def node_times(events: List[Header]) -> List[Header]:
    """Return name, operator and microseconds of every execution, per node of a profile."""
    nodes: Dict[str, Header] = {}
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            own = {"name": name[: -len("_kernel_time")], "op": event["args"]["op_name"], "us": []}
            nodes.setdefault(name, own)["us"].append(event["dur"])
    return list(nodes.values())


def path_of(model: Optional[IO[bytes]]) -> str:
    """Return a path at which a received model can be opened, though its file has no name."""
    if model is None:
        raise ValueError("the request has no model")
    return "/proc/self/fd/%d" % model.fileno()


def forget_peak_memory() -> None:
    """Begin to measure the peak of the resident memory anew."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass  # the peak then counts from the process's start, when less was loaded


def peak_memory() -> Optional[int]:
    """Return the peak of the resident memory, bytes; None where the system doesn't tell."""
    for line in (read_text("/proc/self/status") or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


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
    """Return what may change a latency: governor, limits, throttling, heat, steal, load, waiting.

    Sensors and ticks are those of the CPUs that this process may use; heat, load and waiting are
    the machine's. None is unknown, never fine.
    """
    own = sorted(os.sched_getaffinity(0))
    cpus = ["/sys/devices/system/cpu/cpu%d/" % n for n in own]
    ticks = cpu_ticks(read_text("/proc/stat") or "", own)
    governors = sorted(set(texts("cpufreq/scaling_governor", cpus)))
    load = read_text("/proc/loadavg")
    temperatures = numbers("temp", sorted(glob.glob("/sys/class/thermal/thermal_zone*/")))
    stalled = re.search(r"some .*total=(\d+)", read_text("/proc/pressure/cpu") or "")
    return {
        "governor": ",".join(governors) if governors else None,
        "max_khz": min(numbers("cpufreq/scaling_max_freq", cpus), default=None),
        "khz": min(numbers("cpufreq/scaling_cur_freq", cpus), default=None),
        "throttle_count": total(numbers("thermal_throttle/core_throttle_count", cpus)),
        "temperature_c": max(temperatures) / 1000.0 if temperatures else None,
        "cpu_ticks": sum(ticks) if ticks else None,
        "steal_ticks": ticks[7] if len(ticks) > 7 else None,
        "load_1min": float(load.split()[0]) if load else None,
        "stalled_us": int(stalled.group(1)) if stalled else None,
        "clock_s": time.monotonic(),
    }


def cpu_ticks(stat: str, cpus: List[int]) -> List[int]:
    """Return the ticks of some CPUs by kind (user, nice, ..., steal), added up."""
    names = ["cpu%d" % n for n in cpus]
    rows = [line.split() for line in stat.splitlines()]
    own = [[int(tick) for tick in row[1:9]] for row in rows if row and row[0] in names]
    return [sum(kind) for kind in zip(*own)]


def texts(name: str, folders: List[str]) -> List[str]:
    """Return the texts of a file in several folders, where it can be read."""
    return [text for text in (read_text(folder + name) for folder in folders) if text]


def numbers(name: str, folders: List[str]) -> List[int]:
    """Return the whole numbers of a file in several folders, where it can be read."""
    return [int(text) for text in texts(name, folders) if text.lstrip("-").isdigit()]


def total(values: List[int]) -> Optional[int]:
    """Return the sum of what could be read; None where nothing could."""
    return sum(values) if values else None


def read_frame(stream: BinaryIO) -> Optional[Frame]:
    """Return the next header, model and blob; None at the end of the stream.

    A frame's blob begins with the model's bytes where its header has "model_bytes". They go to a
    file without a name: it is gone with the process, and the model is not held in memory twice.
    """
    head = stream.read(SIZES.size)
    if len(head) < SIZES.size:
        return None
    header_size, blob_size = SIZES.unpack(head)
    text = stream.read(header_size)
    if len(text) < header_size:
        return None
    header, model = json.loads(text.decode()), None
    if "model_bytes" in header:
        model = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the model is forgotten
        left = header["model_bytes"]
        while left:
            part = stream.read(min(left, 1 << 20))
            if not part:
                return None
            model.write(part)
            left -= len(part)
        model.flush()
        blob_size -= header["model_bytes"]
    blob = stream.read(blob_size)
    return (header, model, blob) if len(blob) == blob_size else None


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


def be_first_to_go() -> None:
    """Have the system end this process, not the one that searches, when memory runs out."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass  # not Linux, or not allowed


def serve(runtime: str) -> None:
    """Answer requests until standard input ends."""
    be_first_to_go()
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
        header, model, blob = frame
        try:
            reply, data = getattr(agent, header["op"])(header, model, blob)
        except Exception as error:
            reply, data = {"ok": False, "kind": type(error).__name__, "message": str(error)}, b""
        write_frame(stdout, dict({"ok": True}, **reply), data)


if __name__ == "__main__":
    serve(sys.argv[-1])

"""The clock: blocks of calls, and requests that arrive."""

from __future__ import annotations

import resource
import time
from typing import Any, Callable, Iterable, List, Tuple

from harness_backends.agent.frames import Header


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
    """Return int64 [3, calls] per entry of a schedule, from what `Worker.time` replied."""
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

"""ONNX Runtime, in a process of its own; this process never imports it."""

from __future__ import annotations

import importlib.metadata
import itertools
import re
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from harness.errors import (
    BackendError,
    BackendUnavailable,
    ConfigError,
    ConnectionLost,
    DeviceLost,
)
from harness.measurement.types import Block, OperatorTime, Place
from harness_backends.agent.frames import pack, unpack
from harness_backends.agent.timing import unpack_blocks
from harness_backends.base import Backend, Busy, Session, Worker
from harness_backends.emulation.root import find_root
from harness_backends.transport.channel import Channel
from harness_backends.transport.device import Device
from harness_backends.transport.emulated import emulated
from harness_backends.transport.launch import local
from harness_backends.transport.ssh import over_ssh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from harness.candidate import OnnxModel
    from harness.measurement.hostlock import HostLock
    from harness.target import Target
    from harness_backends.base import DeviceLock

_THREADS_PER_CORE = 8
"""More only wait for each other, and starting thousands takes minutes."""
OLDEST = (1, 12)
"""The first that knows operator set 17, which models are exported in."""


class OnnxRuntimeSession(Session):
    """A model in the agent, known there by its key."""

    def __init__(
        self,
        worker: OnnxRuntimeWorker,
        key: str,
        what: str,
        repeat: int,
        reply: Mapping[str, float],
    ) -> None:
        self._worker = worker
        self.what, self.key, self._repeat = what, key, repeat
        self.take(reply)

    @property
    def call_s(self) -> float:
        """About how long one timed call takes, seconds: rather too long than too short."""
        return self.first_inference_s * self._repeat

    def take(self, reply: Mapping[str, float]) -> None:
        """Take the start-up times of a load or a reload."""
        self.session_create_s = reply["session_create_s"]
        self.first_inference_s = reply["first_inference_s"]

    def infer(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the model on N samples, `batch` of the target at a time."""
        batch = self._worker.target.batch
        header, blob = pack(np, list(inputs.items()))
        request = {"op": "infer", "key": self.key, "inputs": header["arrays"], "batch": batch}
        expected_s = self.first_inference_s * len(next(iter(inputs.values()))) / batch
        channel = self._worker.channel
        with _mapped(self._worker.target, self.what):
            if channel.link.launch.far:  # every candidate is scored on the same samples
                reply, data = channel.request_with({"samples": blob}, request, b"", expected_s)
            else:
                reply, data = channel.request(request, blob, expected_s)
        specs = [{**spec, "name": str(i)} for i, spec in enumerate(reply["arrays"])]
        return list(unpack(np, specs, data).values())


class OnnxRuntimeWorker(Worker):
    """The agent's process with ONNX Runtime in it.

    Args:
        target: What it is to be.
        device: Where it is started.
    """

    def __init__(self, target: Target, device: Device) -> None:
        self.target = target
        self._device = device  # what it keeps has to last as long as this worker
        self.channel = _opened(target, device)
        self.facts = {**self.channel.hello, **({"where": device.name} if target.hosts else {})}
        self._keys = itertools.count()
        self._check_threads()
        if target.affinity:
            self._pin(target.affinity)

    def _check_threads(self) -> None:
        most = _THREADS_PER_CORE * self.facts["machine"]["cpu_count"]
        if self.target.threads > most:
            self.close()
            raise ConfigError(
                f"Target {self.target.name!r}: threads must be at most {most}, {_THREADS_PER_CORE} "
                f"to a core of that machine. Received: {self.target.threads}."
            )

    def _pin(self, cpus: Sequence[int]) -> None:
        try:
            self.channel.request({"op": "pin", "cpus": list(cpus)})
        except (DeviceLost, ConnectionLost):
            self.close()
            raise
        except BackendError as exc:
            self.close()
            raise ConfigError(
                f"Target {self.target.name!r}: affinity {list(cpus)} is not possible there "
                f"({exc}). Name CPUs that the machine has and that this process may use."
            ) from exc

    def load(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], repeat: int = 1
    ) -> OnnxRuntimeSession:
        """Send the file's bytes and one batch of inputs."""
        key = str(next(self._keys))
        reply = self._with_model({"op": "load", "key": key, "repeat": repeat}, model, inputs)
        return OnnxRuntimeSession(self, key, model.path.name, repeat, reply)

    def reload(self, session: Any) -> None:
        """Have the agent make a session again from what it was sent."""
        with _mapped(self.target, session.what):
            session.take(self.channel.request({"op": "reload", "key": session.key})[0])

    def time(self, schedule: Sequence[tuple[Any, int]]) -> list[Block]:
        """Time the whole schedule in one request: no pipe traffic between blocks."""
        what = ", ".join(dict.fromkeys(session.what for session, _ in schedule))
        with _mapped(self.target, what):
            _, data = self.channel.request(
                {"op": "time", "blocks": [(session.key, calls) for session, calls in schedule]},
                expected_s=sum(session.call_s * calls for session, calls in schedule),
            )
        return [Block(*rows) for rows in unpack_blocks(np, data, schedule)]

    def arrive(self, session: Any, due_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Have the agent serve all arrivals in one request."""
        with _mapped(self.target, "requests that arrive"):
            _, data = self.channel.request(
                {"op": "arrive", "key": session.key}, due_ns.astype("<i8").tobytes(),
                expected_s=float(due_ns[-1]) * 1e-9,
            )  # fmt: skip
        return np.frombuffer(data, "<i8").reshape(3, -1)

    def profile(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], runs: int
    ) -> list[OperatorTime]:
        """Run a session of its own under ONNX Runtime's profiler."""
        reply = self._with_model({"op": "profile", "runs": runs}, model, inputs)
        return [
            OperatorTime(node["name"], node["op"], _by_run(node["us"], reply["runs"]))
            for node in reply["nodes"]
        ]

    def peak_memory_bytes(self) -> int | None:
        """Return the peak as the agent's system counts it."""
        peak: int | None = self.channel.request({"op": "memory"})[0]["peak_bytes"]
        return peak

    def _with_model(
        self, request: dict[str, Any], model: OnnxModel, inputs: Mapping[str, NDArray[Any]]
    ) -> dict[str, Any]:
        header, data = pack(np, list(inputs.items()))
        request |= {
            "inputs": header["arrays"],
            "options": {
                "threads": self.target.threads,
                "provider": self.target.provider,
                "provider_options": dict(self.target.provider_options),
                "session_config": dict(self.target.session_config),
            },
        }
        with _mapped(self.target, model.path.name):
            return self.channel.request_with({"model": model.read()}, request, data)[0]

    def state(self) -> dict[str, Any]:
        """Return the machine's state as the agent reads it."""
        return self.channel.request({"op": "state"})[0]

    def close(self) -> None:
        """End the agent."""
        self.channel.close()


class OnnxRuntimeBackend(Backend):
    """ONNX Runtime's CPU execution provider, here or on a board."""

    name: ClassVar[str] = "onnxruntime"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "int8")

    def __init__(self, target: Target) -> None:
        super().__init__(target)

    @cached_property
    def _devices(self) -> list[Device]:
        """The machines, none of them connected to yet."""
        target = self.target
        if target.emulated_cpu:
            return [Device(emulated(target.emulated_cpu))]
        boards = [over_ssh(target.name, host, target.python) for host in target.hosts]
        return [Device(launch) for launch in boards or [local()]]

    def check_available(self) -> str | None:
        """Return the installed version, without importing it; None of a board's."""
        if self.target.hosts:
            return None
        if self.target.emulated_cpu:
            return find_root().runtime_version(self.target.emulated_cpu)
        try:
            return importlib.metadata.version("onnxruntime")
        except importlib.metadata.PackageNotFoundError as exc:
            raise BackendUnavailable(
                "ONNX Runtime is not installed. Run `pip install onnxruntime`."
            ) from exc

    def open(self) -> OnnxRuntimeWorker:
        """Start a fresh worker."""
        return OnnxRuntimeWorker(self.target, self._devices[0])

    def report_to(self, tell: Callable[[str], None]) -> None:
        """Have it told when the machine is waited for."""
        for device in self._devices:
            device.tell = tell

    def more_places(self) -> list[Place]:
        """Return the target's other boards."""
        return [
            Place(partial(OnnxRuntimeWorker, self.target, device), device.exclusive, device.name)
            for device in self._devices[1:]
        ]

    def device_lock(self, host: HostLock) -> DeviceLock:
        """Return the board's lock, or the host's for what runs on it."""
        if self.target.emulated_cpu:
            return Busy(host)
        return self._devices[0] if self.target.hosts else host


def _opened(target: Target, device: Device) -> Channel:
    """Start a worker; say what to do where its runtime is missing or too old.

    Raises:
        BackendUnavailable: If it is.
    """
    try:
        channel = Channel(device.link(), "onnxruntime")
    except (DeviceLost, ConnectionLost):
        raise
    except BackendError as exc:
        raise BackendUnavailable(_unusable(target, device.name, str(exc))) from exc
    version: str = channel.hello["runtime_version"]
    if _number(version) < OLDEST:
        channel.close()
        oldest = ".".join(map(str, OLDEST))
        raise BackendUnavailable(
            f"Target {target.name!r}: ONNX Runtime {version} on {device.launch.where} is too old "
            f"for operator set 17: {oldest} or newer is needed. Install a newer one there."
        )
    return channel


def _unusable(target: Target, where: str, said: str) -> str:
    """Return what is wrong with a runtime, by the last line of what it said, and what to do."""
    last = (said.strip().splitlines() or ["no reason given"])[-1].rstrip(".")
    remedy = "Run `pip install onnxruntime numpy` in this environment."
    if target.hosts:
        remedy = (
            f"Install onnxruntime and numpy for it there, or name another Python with `harness "
            f"targets add {target.name} --force --python PATH`."
        )
    python = f"{target.python} on {where}" if target.hosts else where
    return f"Target {target.name!r}: the ONNX Runtime of {python} can't be used: {last}. {remedy}"


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2]) or OLDEST


def _by_run(us: Sequence[float], runs: int) -> tuple[float, ...]:
    """Return seconds per run: a node in a loop is executed several times in each."""
    if len(us) % runs:  # another number of times in each: only the mean is known
        return (sum(us) * 1e-6 / runs,) * runs
    return tuple((np.reshape(us, (runs, -1)).sum(axis=1) * 1e-6).tolist())


@contextmanager
def _mapped(target: Target, what: str) -> Iterator[None]:
    """Add target and model to the runtime's errors."""
    try:
        yield
    except (DeviceLost, ConnectionLost) as exc:
        raise type(exc)(f"{what} on target {target.name!r}: {exc}") from exc
    except BackendError as exc:
        raise BackendError(f"{what} on target {target.name!r}: {exc}") from exc

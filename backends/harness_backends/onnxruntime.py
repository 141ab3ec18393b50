"""ONNX Runtime, in a process of its own; this process never imports it."""

from __future__ import annotations

import importlib.metadata
import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from harness.errors import BackendError, BackendUnavailable, DeviceLost
from harness.measurement.types import Block
from harness_backends import agent, transport
from harness_backends.base import Backend, Session, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from harness.candidate import OnnxModel
    from harness.target import Target


_REQUEST_S = 20.0
"""Aimed length of one request's inferences, far below the channel's time-out."""


class OnnxRuntimeSession(Session):
    """A model in the agent, known there by its key."""

    def __init__(
        self, worker: OnnxRuntimeWorker, key: str, what: str, reply: Mapping[str, float]
    ) -> None:
        self._worker = worker
        self._what = what
        self.key = key
        self.session_create_s = reply["session_create_s"]
        self.first_inference_s = reply["first_inference_s"]

    def infer(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the model on N samples, `batch` of the target at a time."""
        batch = self._worker.target.batch
        n = len(next(iter(inputs.values())))
        # Slow models get small requests, so that each is answered well before the time-out.
        step = batch * max(1, min(1024, int(_REQUEST_S / self.first_inference_s)))
        parts = [
            self._infer({name: array[at : at + step] for name, array in inputs.items()}, batch)
            for at in range(0, n, step)
        ]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _infer(self, inputs: Mapping[str, NDArray[Any]], batch: int) -> list[NDArray[Any]]:
        header, blob = agent.pack(np, list(inputs.items()))
        request = {"op": "infer", "key": self.key, "inputs": header["arrays"], "batch": batch}
        with _mapped(self._worker.target, self._what):
            reply, data = self._worker.channel.request(request, blob)
        specs = [{**spec, "name": str(i)} for i, spec in enumerate(reply["arrays"])]
        return list(agent.unpack(np, specs, data).values())


class OnnxRuntimeWorker(Worker):
    """The agent's process with ONNX Runtime in it."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.channel = transport.Channel(transport.local_argv(), "onnxruntime")
        self.facts = self.channel.hello
        self._keys = itertools.count()

    def load(self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]]) -> OnnxRuntimeSession:
        """Send the file's bytes and one batch of inputs."""
        blob = model.path.read_bytes()
        key = str(next(self._keys))
        header, data = agent.pack(np, list(inputs.items()))
        with _mapped(self.target, model.path.name):
            reply, _ = self.channel.request(
                {
                    "op": "load",
                    "key": key,
                    "model_bytes": len(blob),
                    "inputs": header["arrays"],
                    "options": {"threads": self.target.threads},
                },
                blob + data,
            )
        return OnnxRuntimeSession(self, key, model.path.name, reply)

    def time(self, schedule: Sequence[tuple[Any, int]]) -> list[Block]:
        """Time the whole schedule in one request: no pipe traffic between blocks."""
        _, data = self.channel.request(
            {"op": "time", "blocks": [(session.key, calls) for session, calls in schedule]}
        )
        values, blocks, at = np.frombuffer(data, "<i8"), [], 0
        for _, calls in schedule:
            wall, cpu, switches = values[at : at + 3 * calls].reshape(3, calls)
            blocks.append(Block(wall, cpu, switches))
            at += 3 * calls
        return blocks

    def state(self) -> dict[str, Any]:
        """Return the machine's state as the agent reads it."""
        return self.channel.request({"op": "state"})[0]

    def close(self) -> None:
        """End the agent."""
        self.channel.close()


class OnnxRuntimeBackend(Backend):
    """ONNX Runtime's CPU execution provider."""

    name: ClassVar[str] = "onnxruntime"

    @classmethod
    def check_available(cls) -> str:
        """Return the installed version, without importing it."""
        try:
            return importlib.metadata.version("onnxruntime")
        except importlib.metadata.PackageNotFoundError as exc:
            raise BackendUnavailable(
                "ONNX Runtime is not installed. Run `pip install onnxruntime`."
            ) from exc

    def open(self) -> OnnxRuntimeWorker:
        """Start a fresh agent."""
        return OnnxRuntimeWorker(self.target)


@contextmanager
def _mapped(target: Target, what: str) -> Iterator[None]:
    """Add target and model to the runtime's errors."""
    try:
        yield
    except DeviceLost as exc:
        raise DeviceLost(f"{what} on target {target.name!r}: {exc}") from exc
    except BackendError as exc:
        raise BackendError(f"{what} on target {target.name!r}: {exc}") from exc

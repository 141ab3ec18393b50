"""The seam: what a backend has to do. Statistics never live here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from harness.candidate import OnnxModel
    from harness.measurement.hostlock import HostLock
    from harness.measurement.types import Block, OperatorTime, Place
    from harness.target import Target


class Session(ABC):
    """A model loaded in a worker."""

    session_create_s: float
    first_inference_s: float

    @abstractmethod
    def infer(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the model on N samples.

        Args:
            inputs: By input name, `[N, ...]`; N must be a multiple of the model's batch.

        Returns:
            One array per output, `[N, ...]`.

        Raises:
            BackendError: If the runtime fails.
        """


class Worker(ABC):
    """A fresh process on the device that loads models and owns the clock."""

    facts: Mapping[str, Any]
    """`runtime_version`, `python` and `machine` (CPU model, count, flags, memory)."""

    @abstractmethod
    def load(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], repeat: int = 1
    ) -> Session:
        """Load a model and run it once on one batch of inputs, which timing will use.

        Args:
            model: The file.
            inputs: One batch per input name.
            repeat: Inferences that make one timed call; above 1 a known slow-down is planted.

        Raises:
            BackendError: If the runtime refuses the model.
            DeviceLost: If the process dies of it.
        """

    @abstractmethod
    def reload(self, session: Any) -> None:
        """Make a session anew, elsewhere in memory, and run it once; its times are the new ones.

        Raises:
            BackendError: As `load`.
        """

    @abstractmethod
    def time(self, schedule: Sequence[tuple[Any, int]]) -> list[Block]:
        """Time calls one by one: for each `(session, n)` in turn a block of n calls."""

    @abstractmethod
    def arrive(self, session: Any, due_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Serve requests that arrive at given times, one after the other.

        Args:
            session: What serves them.
            due_ns: Arrivals in nanoseconds after the beginning, ascending, int64 `[n]`.

        Returns:
            int64 `[3, n]`, nanoseconds after the beginning: due, begun, done.
        """

    @abstractmethod
    def profile(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], runs: int
    ) -> list[OperatorTime]:
        """Run a model under the runtime's own profiler, apart from any timing.

        Raises:
            BackendError: If the runtime refuses the model, or has no profiler.
        """

    @abstractmethod
    def peak_memory_bytes(self) -> int | None:
        """Return the peak of the process's resident memory since the last load; None: unknown."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return what may change a latency: governor, limits, throttle and steal counts."""

    @abstractmethod
    def close(self) -> None:
        """End the process."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


class DeviceLock(Protocol):
    """The lock of the machine that times: scoring shares it, timing takes it alone."""

    def shared(self) -> AbstractContextManager[None]:
        """Hold it together with others."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold it alone."""


class Busy:
    """The lock of an emulated machine: its work disturbs what is timed here, and nothing it.

    Args:
        host: This host's.
    """

    def __init__(self, host: HostLock) -> None:
        self._host = host

    def shared(self) -> AbstractContextManager[None]:
        """Keep timing on this host away."""
        return self._host.shared()

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep timing on this host away; others may work."""
        return self._host.shared()


class Backend(ABC):
    """A runtime on a target."""

    name: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    """What a search tries unless told otherwise: those in which networks may be faster here."""

    def __init__(self, target: Target) -> None:
        self.target = target

    @property
    def far(self) -> bool:
        """Whether running many samples there takes its time: on a board, or in an emulator."""
        return bool(self.target.hosts or self.target.emulated_cpu)

    @abstractmethod
    def check_available(self) -> str | None:
        """Return the runtime's version; None where only the device knows. Connects to nothing.

        Raises:
            BackendUnavailable: If it can't be used here; the message has the remedy.
        """

    @abstractmethod
    def open(self) -> Worker:
        """Start a fresh worker.

        Raises:
            DeviceLost: If it can't be started.
        """

    def more_places(self) -> Sequence[Place]:
        """Return further machines of the same kind, which can measure at the same time."""
        return ()

    def report_to(self, tell: Callable[[str], None]) -> None:  # noqa: B027 - most never wait
        """Have `tell` told, in a few words, what is being waited for."""

    def device_lock(self, host: HostLock) -> DeviceLock:
        """Return the lock of the machine that times: this host's, unless it is another one.

        Args:
            host: This host's.
        """
        return host

"""One lock per host: training and scoring share it, timing takes it alone, writers first."""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ConfigError
from harness.measurement.lockfile import LockFile

if TYPE_CHECKING:
    from collections.abc import Iterator


FOLDER = Path("/tmp")  # noqa: S108 - opened without following links
"""Where the host's lock files lie: the same for every user, which TMPDIR need not be."""


class HostLock:
    """The lock of this host, shared by every user and process on it.

    Args:
        folder: Where the two lock files lie; `FOLDER` unless given.
    """

    def __init__(self, folder: Path | None = None) -> None:
        try:
            self._file = LockFile(str(folder if folder is not None else FOLDER))
        except OSError as exc:
            raise ConfigError(
                f"The host's timing lock {exc.filename} can't be opened ({exc.strerror}). Let its "
                "owner or an administrator remove it."
            ) from exc
        self._held = 0
        weakref.finalize(self, self._file.close)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock together with others: for training and scoring.

        Whoever holds it already goes on holding it: a second pass of the gate would wait for a
        timing that waits for the first.
        """
        if not self._held:
            self._file.take(alone=False)
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if not self._held:
                self._file.leave()

    def breathe(self) -> None:
        """Let a waiting timing pass; call it between batches, inside `shared`."""
        self._file.leave()
        self._file.take(alone=False)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock alone: for timing."""
        self._file.take(alone=True)
        try:
            yield
        finally:
            self._file.leave()

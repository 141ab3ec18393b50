"""Boards as pytest fixtures; see tests/README.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import BackendUnavailable
from harness_backends.emulation.root import ArmRoot
from support.board.cache import cached_root
from support.board.loopback import Loopback
from support.board.machine import Board


@pytest.fixture(scope="session")
def arm_root() -> ArmRoot:
    """The emulated ARM machine, made once and kept between runs."""
    try:
        return cached_root()
    except BackendUnavailable as exc:
        pytest.skip(str(exc))


@pytest.fixture
def board(arm_root: ArmRoot, tmp_path: Path) -> Iterator[Board]:
    """A Raspberry Pi 5 that is reached by a pipe."""
    made = Board(tmp_path / "board", arm_root)
    yield made
    made.close()


@pytest.fixture
def orin(arm_root: ArmRoot, tmp_path: Path) -> Iterator[Board]:
    """A Jetson Orin Nano that is reached by a pipe."""
    made = Board(tmp_path / "orin", arm_root, "orin")
    yield made
    made.close()


@pytest.fixture
def ssh_board(board: Board) -> Iterator[Loopback]:
    """The Raspberry Pi 5, reached by ssh."""
    try:
        server = Loopback(board)
    except BackendUnavailable as exc:
        pytest.skip(str(exc))
    yield server
    server.close()

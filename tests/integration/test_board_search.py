"""A whole search on an emulated Raspberry Pi over ssh, and one that counts its instructions."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from harness.budget import Budget, Decision
from harness.cli import app
from harness.errors import DeviceUnreachable
from harness.measurement import plans
from harness.measurement.rounds import Plan
from harness_backends.emulation.root import ArmRoot
from harness_backends.onnxruntime import OnnxRuntimeBackend
from harness_backends.targets import find_target
from harness_backends.testing.contract import BackendContract
from harness_backends.testing.fake import FakeBackend
from support.board.loopback import Loopback
from support.cli import registered
from support.running import read_records, trials

if TYPE_CHECKING:
    from click.testing import Result

TARGETS = '[raspberry-pi]\nhosts = ["board"]\ngranule = 4\n'
BRIEF = Plan(processes=(1,), sittings=(6,), half_width=0.5, limit_s=0.1)
"""Emulated, times mean nothing, and a process takes seconds to start."""


def search(results: Path, target: str, budget: str) -> Result:
    fixed = ("search", "--task", "tiny", "--trials", "1", "--precision", "fp32", "--blocks", "none")
    return CliRunner().invoke(
        app, [*fixed, "--target", target, "--budget", budget, "--results", str(results)]
    )


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "PROBE", BRIEF)
    monkeypatch.setattr(plans, "FINAL", BRIEF)
    monkeypatch.setattr(plans, "COUNT_FINAL", plans.COUNT_PROBE)


def rows(results: Path) -> list[dict[str, str]]:
    with (results / "leaderboard.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("brief")
def test_a_search_on_a_raspberry_pi_over_ssh(
    ssh_board: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", ssh_board.environment["PATH"])
    results = tmp_path / "results"
    with registered(tmp_path, TARGETS):
        # Time means nothing here: all is within the budget while the search steers, and whether a
        # final is (0) or none (1) is a matter of luck.
        monkeypatch.setattr(Budget, "place", lambda self, estimate: Decision.FEASIBLE)
        ended = search(results, "raspberry-pi", "80%")
        assert ended.exit_code in (0, 1), ended.output
        again = search(results, "raspberry-pi", "80%")
        assert again.exit_code == ended.exit_code, again.output
    finals = {row["role"]: row for row in rows(results)}
    assert {"dense", "global"} <= set(finals)
    for row in finals.values():
        assert (row["target"], row["n_test"]) == ("raspberry-pi", "90")
        assert float(row["latency_ms"]) > 0
    (trial,) = trials(results)
    assert trial["status"] == "complete"
    records = [r for r in read_records(results) if r["kind"] == "final"]
    for record in records:
        states = record["environment"]["processes"][0]
        assert states["before"]["governor"] == "ondemand"
        assert record["versions"]["runtime_python"].startswith("3.11")
    assert "Cortex-A76" in ended.output
    kept = ssh_board.board.home / ".cache/latency-harness/sent"
    assert finals["global"]["onnx_sha256"] in {path.name for path in kept.iterdir()}
    assert ssh_board.board.wait_until_idle(30) == []


@pytest.fixture(scope="module")
def emulated(arm_root: ArmRoot) -> Iterator[None]:
    """Have the product find the emulated machine that tests keep."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE_DIR", str(arm_root.folder.parent))
        yield


@pytest.mark.usefixtures("brief")
def test_a_search_that_counts_instructions(
    arm_root: ArmRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    with registered(tmp_path, ""):
        (tmp_path / "cache").mkdir(exist_ok=True)
        (tmp_path / "cache" / "arm64").symlink_to(arm_root.folder)
        refused = search(results, "qemu-arm64", "10ms")
        assert refused.exit_code == 2
        assert "80Minstr" in refused.output
        ended = search(results, "qemu-arm64", "3Minstr")
    assert ended.exit_code == 0, ended.output
    assert "Instructions counted on an emulated cortex-a76, not latencies" in " ".join(
        ended.output.replace("│", " ").split()
    )
    winner = next(row for row in rows(results) if row["role"] == "winner")
    assert winner["latency_ms"] == ""
    assert 0 < float(winner["guest_minstr"]) <= 3
    assert (winner["rank"], winner["flags"]) == ("", "emulated")


@pytest.mark.usefixtures("emulated")
class TestEmulated(BackendContract):
    """The contract of every backend, by a pipe to the emulated machine; one worker for all."""

    @pytest.fixture(scope="class")
    @classmethod
    def worker(cls, emulated: None) -> Iterator[Any]:
        with OnnxRuntimeBackend(find_target("qemu-arm64")).open() as worker:
            yield worker


def test_a_board_that_is_lost_for_good_ends_the_search_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most the trial in flight is lost; it is no candidate's fault."""
    results, opened = tmp_path / "results", [0]
    real = FakeBackend.open
    options = ("--task", "tiny", "--target", "fake", "--budget", "50%", "--trials", "4")
    command = ["search", *options, "--results", str(results)]

    def open_until_lost(self: FakeBackend) -> Any:
        opened[0] += 1
        if opened[0] > 12:
            raise DeviceUnreachable("pi: it does not answer. Is it switched on?", passing=True)
        return real(self)

    with registered(tmp_path):
        with monkeypatch.context() as patch:
            patch.setattr(FakeBackend, "open", open_until_lost)
            ended = CliRunner().invoke(app, command)
        assert ended.exit_code == 5
        assert ended.stderr.count("error:") == 1
        assert "pi: it does not answer" in ended.stderr
        done = trials(results)
        assert 0 < len(done) < 4
        assert {trial["status"] for trial in done} <= {"complete", "over_budget"}
        ended = CliRunner().invoke(app, command)
        assert ended.exit_code == 0, ended.output
    assert len(trials(results)) == 4
    assert trials(results)[: len(done)] == done

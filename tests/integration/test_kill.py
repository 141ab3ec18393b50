"""A search that is killed anywhere goes on as if nothing had happened, and nothing is half-written.

The measurement is made up, so a resumed run must suggest, prune, train and score exactly what an
uninterrupted one does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.running import environment, essence, read_records, run_search, trials

TRIALS = "4"
CHAIN = {
    "floor measured, not recorded": "harness_results.store:StudyFolder.write:1:before",
    "floor recorded": "harness_results.store:StudyFolder.write:1:after",
    "teacher trained, not saved": "harness_search.teacher:fit:1:after",
    "trial 0 probed": "harness_search.trial:_Life.fit_to_budget:1:after",
    "trial 0 trained": "harness_search.trial:fit:1:after",
    "trial 0 exported": "harness_search.trial:_Life.export:1:after",
    # The first write of a session proves that the folder is writable.
    "trial 0's samples written, its record not": "harness_results.store:write_atomic:3:before",
    "trial 0 recorded, Optuna not told": "harness_search.optuna_study:OptunaStudy.tell:1:before",
    "trial 1 told, trials.csv not written": "harness_search.engine:write_trials:2:before",
    "trial 2 suggested": "harness_search.optuna_study:OptunaStudy.ask:1:after",
    "trial 2 trained": "harness_search.trial:fit:1:after",
    "trial 2 recorded, Optuna not told": "harness_search.optuna_study:OptunaStudy.tell:1:before",
    "trial 3 and the first final recorded": "harness_results.store:StudyFolder.write:2:after",
    "finals recorded, leaderboard not": "harness_results.leaderboard:rebuild:1:before",
    "leaderboard written, winner not": "harness_search.engine:write_winner:1:before",
    "winner half-filled": "harness_results.winner:draw_search:1:before",
}
"""Where a search is killed, in order: each run goes on from the kill before."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kill")


@pytest.fixture(scope="module")
def uninterrupted(base: Path) -> Path:
    results = base / "whole"
    ended = run_search(base, results, "--budget", "50%", "--trials", TRIALS)
    assert ended.returncode == 0, ended.stderr
    return results


def heed_interrupts() -> None:
    # A shell starts background jobs with the signal ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def roles(results: Path) -> list[tuple[str, str]]:
    return sorted((record["kind"], record["role"]) for record in read_records(results))


def check_same(resumed: Path, whole: Path) -> None:
    assert [essence(r) for r in trials(resumed)] == [essence(r) for r in trials(whole)]
    assert roles(resumed) == roles(whole)
    leftovers = [p for p in resumed.rglob("*") if p.name.endswith(".tmp")]
    assert leftovers == []
    (folder,) = (resumed / "studies").iterdir()
    samples = {p.stem for p in folder.glob("records/*.npz")}
    assert samples == {p.stem for p in folder.glob("records/*.json")}
    assert (folder / "winner" / "card.md").exists()


@pytest.mark.slow
def test_killed_everywhere_and_resumed_is_as_uninterrupted(
    uninterrupted: Path, tmp_path: Path
) -> None:
    results, args = tmp_path / "results", ("--budget", "50%", "--trials", TRIALS)
    recorded: set[str] = set()
    for moment, point in CHAIN.items():
        killed = run_search(tmp_path, results, *args, SUPPORT_KILL_AT=point)
        assert killed.returncode == -signal.SIGKILL, f"{moment}: {killed.stderr}"
        now = {record["run_id"] for record in trials(results)}
        assert recorded <= now, f"{moment}: a recorded trial is gone"
        recorded = now
    resumed = run_search(tmp_path, results, *args)
    assert resumed.returncode == 0, resumed.stderr
    check_same(results, uninterrupted)


@pytest.mark.parametrize(
    "phase",
    ["timing the dense model", "training the dense model", "trial   0", "final measurement"],
)
def test_ctrl_c_ends_with_130_and_can_be_resumed(
    phase: str, base: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    if phase == "training the dense model":  # not with the weights that the cache holds
        base = tmp_path
    args = ["search", "--target", "fake", "--task", "tiny", "--results", str(results),
            "--budget", "50%", "--trials", TRIALS]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "support.cli", *args],
        env=environment(base), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=heed_interrupts,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if phase in line:
            break
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    assert process.wait(timeout=60) == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    process.stderr.close()
    resumed = run_search(base, results, "--budget", "50%", "--trials", TRIALS)
    assert resumed.returncode == 0, resumed.stderr
    check_same(results, uninterrupted)


def test_the_timing_process_ends_with_its_parent(base: Path) -> None:
    code = (
        "import time; from harness_backends.registry import open_backend;"
        "from harness_backends.targets import find_target;"
        "worker = open_backend(find_target('cpu')).open();"
        "print(worker.facts['pid'], flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env=environment(base), stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(pid, 0)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text():
            return
        time.sleep(0.1)
    pytest.fail(f"the agent {pid} outlived its parent")

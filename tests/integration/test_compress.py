"""`harness compress` with a made-up clock: what it leaves behind, says, refuses and resumes."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from support.running import environment, run_cli

PIPELINE = ("--step", "prune:params=60%", "--step", "distil:epochs=1", "--step", "int8")


def run_compress(base: Path, *args: str, **extra: str) -> subprocess.CompletedProcess[str]:
    fixed = ("compress", "--task", "tiny", "--target", "fake", "--results", str(base / "results"))
    return run_cli(base, *fixed, *args, **extra)


def folder(base: Path) -> Path:
    (found,) = (base / "results" / "compressed").iterdir()
    return found


def report(base: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder(base) / "report.json").read_text())
    return found


Done = tuple[Path, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    base = tmp_path_factory.mktemp("compress")
    return base, run_compress(base, *PIPELINE)


def test_it_says_what_people_quote(done: Done) -> None:
    _, ended = done
    assert ended.returncode == 0, ended.stderr
    assert "of the parameters, int8: accuracy" in " ".join(ended.stdout.split())
    assert "x faster (" in ended.stdout
    for row in ("test accuracy", "p50", "MACs", "parameters", "non-zero", "file", "peak memory"):
        assert row in ended.stdout
    assert "Traceback" not in ended.stderr


def test_every_figure_of_both_networks_is_in_the_report(done: Done) -> None:
    found = report(done[0])
    before, after = found["before"], found["after"]
    assert after["params"] <= 0.6 * before["params"]
    assert after["macs"] < before["macs"]
    assert (before["precision"], after["precision"]) == ("fp32", "int8")
    assert after["latency"]["ratio_p50"][2] < 1
    assert after["latency"]["n_processes"] >= 5
    assert before["scores"]["test"]["n"] == 90
    change = found["change"]["test"]
    assert change["lo"] <= change["value"] <= change["hi"]
    difference = after["scores"]["test"]["value"] - before["scores"]["test"]["value"]
    assert change["value"] == pytest.approx(difference)
    assert found["test_reads"] == 1
    assert [step["name"] for step in found["steps"]] == ["prune", "distil", "int8"]


def test_the_files_are_what_the_report_says(done: Done) -> None:
    here = folder(done[0])
    model = onnx.load(str(here / "model.onnx"))
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in model.graph.node}
    weights = load_file(str(here / "weights.safetensors"))
    decision = report(done[0])["steps"][0]["decision"]
    assert weights["conv1.weight"].shape[0] == decision["widths"]["conv1"]
    assert (here / "table.md").read_text().count("\n|") > 12


def test_the_script_beside_the_model_runs(done: Done, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 1, 8, 8), np.float32))
    ended = subprocess.run(
        [sys.executable, str(folder(done[0]) / "run.py"), str(tmp_path / "x.npy")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.strip("[]\n").split()) == 3


def test_running_it_again_shows_the_report_and_reads_nothing(done: Done) -> None:
    base, first = done
    kept = (folder(base) / "report.json").read_bytes()
    again = run_compress(base, *PIPELINE)
    assert (again.returncode, again.stdout) == (0, first.stdout)
    day = report(base)["date_utc"][:10]
    told = f"finished before, on {day}; `--remeasure` times both files anew"
    assert told in again.stderr
    assert "finished before" not in first.stderr
    assert (folder(base) / "report.json").read_bytes() == kept


def copied(done: Done, base: Path) -> Path:
    """Return the finished compression's folder in a copy that may be spoilt."""
    for part in ("results", "cache"):
        shutil.copytree(done[0] / part, base / part)
    return folder(base)


def test_it_says_how_networks_were_trained(done: Done) -> None:
    recipe = report(done[0])["training"]["recipe"]
    assert (recipe["teacher_epochs"], recipe["batch"]) == (2, 32)
    told = " ".join((folder(done[0]) / "table.md").read_text().split())
    assert "Training: the dense network: 2 epochs, learning rate 0.1; step 2, distil: 1" in told
    assert "320 of 320 samples" in told


@pytest.mark.parametrize(
    "name", ["model.onnx", "before.onnx", "weights.safetensors", "dense.safetensors"]
)
def test_a_finished_one_without_its_files_is_not_shown(
    done: Done, tmp_path: Path, name: str
) -> None:
    path = copied(done, tmp_path) / name
    path.write_bytes(path.read_bytes()[:-1])
    for found in ("its hash differs", "can't be read"):
        ended = run_compress(tmp_path, *PIPELINE)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert found in ended.stderr
        assert "move report.json away" in " ".join(ended.stderr.split())
        path.unlink(missing_ok=True)


def test_an_edited_report_is_refused(done: Done, tmp_path: Path) -> None:
    path = copied(done, tmp_path) / "report.json"
    content = json.loads(path.read_text())
    content["after"]["scores"]["test"]["value"] = 1.0
    path.write_text(json.dumps(content))
    ended = run_compress(tmp_path, *PIPELINE)
    assert ended.returncode == 2
    assert "was changed after it was written" in ended.stderr


@pytest.mark.parametrize("name", ["decision.json", "outcome.json"])
def test_a_step_that_has_lost_what_it_settled_is_told(
    done: Done, tmp_path: Path, name: str
) -> None:
    here = copied(done, tmp_path)
    (here / "report.json").unlink()
    step = here / "steps" / "01-prune"
    (step / "outcome.json").unlink()
    (step / name).write_text("{}")
    ended = run_compress(tmp_path, *PIPELINE)
    assert ended.returncode == 2
    assert f"{name} is corrupt: no decision" in " ".join(ended.stderr.split())


def test_what_the_report_alone_makes_is_made_again(done: Done, tmp_path: Path) -> None:
    here = copied(done, tmp_path)
    table = (here / "table.md").read_bytes()
    for name in ("table.md", "run.py", "compression.png"):
        (here / name).unlink()
    (here / ".model.onnx.0123.tmp").write_bytes(b"half")
    assert run_compress(tmp_path, *PIPELINE).returncode == 0
    assert (here / "table.md").read_bytes() == table
    assert {"run.py", "compression.png"} <= {path.name for path in here.iterdir()}
    assert not list(here.glob(".*.tmp"))


def test_both_are_timed_again_and_nothing_else(done: Done, tmp_path: Path) -> None:
    here = copied(done, tmp_path)
    ended = run_compress(tmp_path, *PIPELINE, "--remeasure")
    assert ended.returncode == 0, ended.stderr
    assert "timing both files together, before and after" in ended.stderr
    assert "scoring" not in ended.stderr
    assert "finished before" not in ended.stderr
    fresh, known = report(tmp_path), report(done[0])
    assert fresh["after"]["latency"]["n_processes"] >= 5
    assert fresh["before"]["latency"] != {}
    for key in ("change", "test_reads", "files", "steps"):
        assert fresh[key] == known[key]
    assert (here / "test_reads.txt").read_text() == "1\n"


def test_the_network_is_rebuilt_in_torch_from_the_folder(done: Done, tmp_path: Path) -> None:
    code = (
        "import sys, torch; from support.cli import register; register(); import harness\n"
        "folder = sys.argv[1]; network = harness.rebuild(folder)\n"
        "from safetensors.torch import load_file\n"
        "kept = load_file(folder + '/weights.safetensors')\n"
        "assert all(torch.equal(kept[k], v) for k, v in network.state_dict().items())\n"
        "assert not network.training; print(network(torch.zeros(2, 1, 8, 8)).shape)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(folder(done[0]))],
        capture_output=True, text=True, timeout=120, env=environment(tmp_path),
    )  # fmt: skip
    assert ended.stdout.strip() == "torch.Size([2, 3])", ended.stderr


def test_two_at_once_are_refused(done: Done, tmp_path: Path) -> None:
    here = copied(done, tmp_path)
    with (here / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = run_compress(tmp_path, *PIPELINE)
    assert ended.returncode == 75
    assert "is being worked on by another process" in ended.stderr


@pytest.mark.parametrize(
    "point",
    [
        "harness_search.pipeline:save_weights:1:before",  # the first step is settled, not done
        "harness_search.pipeline:save_weights:2:after",  # trained, but nothing says so yet
        "harness_search.compress:markdown:1:before",  # measured, scored, not reported
    ],
)
def test_a_kill_loses_at_most_the_step_in_flight(done: Done, tmp_path: Path, point: str) -> None:
    killed = run_compress(tmp_path, *PIPELINE, SUPPORT_KILL_AT=point)
    assert killed.returncode == -9
    assert not (folder(tmp_path) / "report.json").exists()
    ended = run_compress(tmp_path, *PIPELINE)
    assert ended.returncode == 0, ended.stderr
    (kept, fresh) = (report(base)["after"] for base in (tmp_path, done[0]))
    assert kept["sha256"] == fresh["sha256"]
    assert kept["scores"] == fresh["scores"]


@pytest.mark.parametrize(
    ("steps", "named"),
    [
        ([], "at least one `--step`"),
        (["prun:params=50%"], "Did you mean 'prune'?"),
        (["prune:parms=50%"], "Did you mean 'params'?"),
        (["prune:params=150%"], "params must be a share above 0 % and below 100 %"),
        (["prune:params"], "KEY=VALUE"),
        (["int8", "distil"], "it must be the last one"),
        (["int8", "fp16"], "it must be the last one"),
        (["prune:params=50%", "student:model=mlp"], "Put it first"),
        (["qat", "distil", "int8"], "Put 'distil' before 'qat'"),
        (["qat", "prune:params=50%", "distil"], "Put 'distil' before 'qat'"),
    ],
)
def test_bad_steps_are_refused_before_anything_is_written(
    tmp_path: Path, steps: list[str], named: str
) -> None:
    ended = run_compress(tmp_path, *(part for step in steps for part in ("--step", step)))
    assert ended.returncode == 2
    assert named in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("steps", "named"),
    [
        (["student:model=nope"], "Received: 'nope'"),
        (["prune:params=1%"], "can't reach the goal"),
        (["distil:epochs=1", "prune:scope=layers,layers=foo=8"], "no prunable group 'foo'"),
        (["low-rank:params=1%"], "can't get to"),
        (["depth:params=50%"], "no residual block"),
    ],
)
def test_what_the_structure_tells_is_refused_before_training(
    tmp_path: Path, steps: list[str], named: str
) -> None:
    ended = run_compress(tmp_path, *(part for step in steps for part in ("--step", step)))
    assert ended.returncode == 2, ended.stderr
    assert named in " ".join(ended.stderr.split())
    assert "training the dense" not in ended.stderr
    assert not (tmp_path / "results").exists()


LATE = ("--step", "sparsify:zeros=50%,exclude=foo")
"""What is only refused once its step comes."""


def test_what_is_refused_late_leaves_no_folder(tmp_path: Path) -> None:
    ended = run_compress(tmp_path, *LATE)
    assert ended.returncode == 2, ended.stderr
    assert "training the dense" in ended.stderr
    assert list((tmp_path / "results" / "compressed").iterdir()) == []


def test_a_killed_one_that_is_refused_later_leaves_no_folder_either(tmp_path: Path) -> None:
    killed = run_compress(
        tmp_path, *LATE, SUPPORT_KILL_AT="harness_search.compress:save_weights:1:after"
    )
    assert killed.returncode == -9
    assert (folder(tmp_path) / "dense.safetensors").exists()
    assert run_compress(tmp_path, *LATE).returncode == 2
    assert list((tmp_path / "results" / "compressed").iterdir()) == []


def test_what_the_user_had_in_the_folder_stays(tmp_path: Path) -> None:
    here = tmp_path / "results" / "compressed" / "mine"
    here.mkdir(parents=True)
    (here / "notes.txt").write_text("mine")
    assert run_compress(tmp_path, "--run", "mine", *LATE).returncode == 2
    assert run_compress(tmp_path, "--run", "mine", *LATE).returncode == 2
    assert (here / "notes.txt").read_text() == "mine"


def test_finished_steps_stay_where_a_later_one_is_refused(tmp_path: Path) -> None:
    steps = ("--step", "prune:params=60%", *LATE)
    assert run_compress(tmp_path, *steps).returncode == 2
    assert (folder(tmp_path) / "steps" / "01-prune" / "outcome.json").exists()


def test_another_compression_of_the_name_is_refused(done: Done) -> None:
    name = folder(done[0]).name
    ended = run_compress(done[0], "--run", name, "--step", "int8")
    assert ended.returncode == 2
    told = " ".join(ended.stderr.split())
    assert (
        "was begun with steps --step prune:params=0.6 --step distil:epochs=1 --step int8; " in told
    )
    assert "received --step int8. Step 1 was prune and is int8. Run it as it was begun" in told
    assert "--run NAME" in told


def test_another_target_is_refused_by_what_differs(done: Done) -> None:
    ended = run_compress(done[0], *PIPELINE, "--threads", "2")
    assert ended.returncode == 2
    assert 'with target {"threads": 1}; received {"threads": 2}' in ended.stderr


def test_a_dense_network_of_other_weights_is_told(done: Done, tmp_path: Path) -> None:
    here = copied(done, tmp_path)
    (here / "report.json").unlink()
    save_file({"x": np.zeros(1, np.float32)}, str(here / "dense.safetensors"))
    ended = run_compress(tmp_path, *PIPELINE)
    assert ended.returncode == 2
    assert "doesn't hold the dense network's weights" in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr

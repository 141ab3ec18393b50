"""`harness sensitivity` with a made-up clock, and the search that it seeds."""

from __future__ import annotations

import csv
import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from harness.cli import app
from harness_backends.testing.fake import NS_PER_BYTE
from support.cli import registered
from support.running import trials

NAME = "tiny-fake-l2-s0"
HALF_NORMED = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )
"""


@pytest.fixture(scope="module", autouse=True)
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Register the made-up clock and the tiny task, with settings and caches of their own."""
    folder = tmp_path_factory.mktemp("sensitivity")
    cores = torch.get_num_threads()
    with registered(folder):
        yield folder
    torch.set_num_threads(cores)


def call(*args: str) -> Result:
    """Run the command line in this process, which has imported everything once."""
    return CliRunner().invoke(app, [*args[:1], "--target", "fake", "--task", "tiny", *args[1:]])


def analyse(results: Path, *args: str) -> Result:
    ratios = () if "--ratios" in args else ("--ratios", "25%,50%")
    return call("sensitivity", "--results", str(results), *ratios, *args)


def search(results: Path, *args: str) -> Result:
    return call("search", "--results", str(results), "--budget", "50%", *args)


@pytest.fixture(scope="module")
def done(base: Path) -> tuple[Path, Result]:
    return base / "results", analyse(base / "results")


@pytest.fixture
def copy(done: tuple[Path, Result], tmp_path: Path) -> Path:
    """Return a copy of the finished analysis's results folder."""
    shutil.copytree(done[0], tmp_path / "copy")
    return tmp_path / "copy"


def table_of(results: Path) -> Path:
    return results / "sensitivity" / NAME / "sensitivity.csv"


def rows(results: Path, name: str = NAME) -> list[dict[str, str]]:
    with (results / "sensitivity" / name / "sensitivity.csv").open() as file:
        return list(csv.DictReader(file))


def test_it_says_what_each_group_costs_and_saves(done: tuple[Path, Result]) -> None:
    results, ended = done
    assert ended.exit_code == 0, ended.stderr
    for words in ("conv1", "conv2", "saved, ms", "paired", "batch norms included", NAME):
        assert words in " ".join(ended.stdout.split())
    found = [(row["name"], row["width"], row["kept"], row["ratio"]) for row in rows(results)]
    assert found == [
        ("conv1", "32", "24", "0.25"), ("conv1", "32", "16", "0.5"),
        ("conv2", "48", "36", "0.25"), ("conv2", "48", "24", "0.5"),
    ]  # fmt: skip
    folder = results / "sensitivity" / NAME
    assert (folder / "sensitivity.png").read_bytes().startswith(b"\x89PNG")


def test_every_figure_has_its_interval(done: tuple[Path, Result]) -> None:
    for row in rows(done[0]):
        low, value, high = (float(row[f"val_acc_change{x}"]) for x in ("_lo", "", "_hi"))
        assert -1 <= low <= value <= high <= 1
        low, value, high = (float(row[f"saved{x}_s"]) for x in ("_lo", "", "_hi"))
        assert low <= value <= high
        assert row["n"] == "50"
        assert row["reason"] == ""


def test_the_time_saved_is_that_of_the_smaller_file(done: tuple[Path, Result]) -> None:
    """The clock is a formula of the file's size, and the size follows the parameters."""
    for row in rows(done[0]):
        expected = 4 * int(row["params_saved"]) * NS_PER_BYTE * 1e-9
        assert float(row["saved_s"]) == pytest.approx(expected, rel=0.02)


def shown(text: str) -> list[tuple[str, str]]:
    """Return the rows of the printed table: names and channels kept."""
    lines = [line.split() for line in text.splitlines()]
    return [(w[0], w[2]) for w in lines if w and w[0] in ("conv1", "conv2")]


def test_the_cheapest_row_comes_first(done: tuple[Path, Result]) -> None:
    def cost(row: dict[str, str]) -> float:
        return float(row["val_loss_change"]) / float(row["saved_s"])

    table = rows(done[0])
    by_cost = [(row["name"], row["kept"]) for row in sorted(table, key=cost)]
    assert shown(done[1].stdout) == by_cost


def test_a_finished_analysis_measures_nothing_and_may_be_shown_in_the_networks_order(
    done: tuple[Path, Result],
) -> None:
    folder = done[0] / "sensitivity" / NAME
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    ended = analyse(done[0], "--sort", "network")
    assert ended.exit_code == 0, ended.stderr
    assert "dense model" not in ended.stderr
    assert shown(ended.stdout) == [(row["name"], row["kept"]) for row in rows(done[0])]
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_an_interrupted_one_goes_on_with_the_rows_that_are_missing(
    done: tuple[Path, Result], copy: Path
) -> None:
    path = table_of(copy)
    lines = path.read_text().splitlines(keepends=True)
    kept = lines[2].rstrip("\n") + "kept\n"  # told from a new row by its flag
    path.write_text("".join([lines[0], kept, lines[3]]))
    ended = analyse(copy)
    assert ended.exit_code == 0, ended.stderr
    assert "conv1: 16 of 32" not in ended.stderr
    assert "conv1: 24 of 32" in ended.stderr
    assert path.read_text() == "".join([*lines[:2], kept, *lines[3:]])


def test_what_failed_or_was_disturbed_is_measured_again(
    done: tuple[Path, Result], copy: Path
) -> None:
    path = table_of(copy)
    lines = path.read_text().splitlines(keepends=True)
    disturbed = lines[2].rstrip("\n") + "throttled\n"
    failed = ",".join([*lines[4].split(",")[:8], *[""] * 18, "BackendError: killed", "\n"])
    path.write_text("".join([*lines[:2], disturbed, lines[3], failed]))
    ended = analyse(copy)
    assert ended.exit_code == 0, ended.stderr
    assert "conv1: 16 of 32" in ended.stderr
    assert "conv2: 24 of 48" in ended.stderr
    assert "conv2: 36 of 48" not in ended.stderr
    assert path.read_text() == "".join(lines)


def test_time_and_ratios_may_be_added_later(done: tuple[Path, Result], tmp_path: Path) -> None:
    ended = analyse(tmp_path, "--ratios", "50%", "--no-timing", "--exclude", "conv2")
    assert ended.exit_code == 0, ended.stderr
    assert "saved, ms" not in ended.stdout
    assert "nothing is removed from conv2" in " ".join(ended.stdout.split())
    (row,) = rows(tmp_path)
    assert row["saved_s"] == row["dense_s"] == ""
    assert analyse(tmp_path, "--exclude", "conv2").exit_code == 0
    assert rows(tmp_path) == [row for row in rows(done[0]) if row["name"] == "conv1"]


def test_another_analysis_under_the_same_name_is_refused(done: tuple[Path, Result]) -> None:
    ended = analyse(done[0], "--study", NAME, "--criterion", "taylor")
    assert ended.exit_code == 2
    assert 'was begun with criterion "l2"; received "taylor"' in " ".join(ended.stderr.split())


def test_a_changed_machine_needs_remeasure(copy: Path) -> None:
    path = copy / "sensitivity" / NAME / "study.json"
    known = json.loads(path.read_text())
    known["setup"]["fingerprint"] = "another"
    path.write_text(json.dumps(known))
    before = rows(copy)
    refused = analyse(copy, "--ratios", "50%")
    assert refused.exit_code == 2
    assert "--remeasure" in refused.stderr
    ended = analyse(copy, "--ratios", "50%", "--remeasure")
    assert ended.exit_code == 0, ended.stderr
    assert "conv1: 16 of 32" in ended.stderr  # timed again
    for row, old in zip(rows(copy), before, strict=True):
        assert row["val_acc"] == old["val_acc"]
        assert row["saved_s"] == (old["saved_s"] if row["ratio"] == "0.5" else "")


def test_groups_that_the_criterion_says_nothing_of_are_named(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(HALF_NORMED)
    (tmp_path / "task.toml").write_text('model = "net.py:make"\ndata = "digits"\n')
    args = ("--ratios", "50%", "--no-timing", "--recipe", "teacher_epochs=0", "--trained")
    ended = CliRunner().invoke(app, [
        "sensitivity", "--target", "fake", "--task", str(tmp_path / "task.toml"), "--samples", "20",
        "--results", str(tmp_path / "results"), "--criterion", "bn_scale", *args,
    ])  # fmt: skip
    assert ended.exit_code == 0, ended.stderr
    assert "the criterion bn_scale says nothing of 0: which" in " ".join(ended.stdout.split())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--ratios", "1%"), "removes a whole granule of 4 channels"),
        (("--ratios", "100%"), "each must be a share above 0 % and below 100 %"),
        (("--ratios", "50%,,"), "`--ratios`: each must be a share above 0 %"),
        (("--criterion", "l3"), "`--criterion` must be one of l2"),
        (("--samples", "0"), "`--samples` must be a whole number from 1"),
        (("--sort", "size"), "`--sort` must be 'cost' or 'network'"),
        (("--exclude", "conv3"), "Unknown layer 'conv3'"),
    ],
)
def test_bad_input_ends_with_one_message(tmp_path: Path, args: tuple[str, ...], words: str) -> None:
    ended = analyse(tmp_path, *args)
    assert ended.exit_code == 2
    assert words in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.rglob("*.csv"))


def test_a_damaged_table_is_named_before_the_work(copy: Path) -> None:
    path = table_of(copy)
    path.write_text(path.read_text().replace(",0.5,", ",0,", 1))
    ended = analyse(copy)
    assert ended.exit_code == 2
    assert "line 3: ratio must be 0.5" in " ".join(ended.stderr.split())
    seeded = search(copy / "seeded", "--trials", "3", "--sensitivity", str(path))
    assert seeded.exit_code == 2
    assert "line 3: ratio must be 0.5" in " ".join(seeded.stderr.split())


def test_one_in_use_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "sensitivity" / "mine"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ended = analyse(tmp_path, "--study", "mine")
    assert ended.exit_code == 75
    assert "being worked on by another process" in " ".join(ended.stderr.split())


@pytest.fixture(scope="module")
def seeded(done: tuple[Path, Result], base: Path) -> tuple[Path, Result]:
    results = base / "seeded"
    return results, search(results, "--trials", "3", "--sensitivity", str(table_of(done[0])))


def test_a_search_takes_it_as_its_third_trial(seeded: tuple[Path, Result]) -> None:
    results, ended = seeded
    assert ended.exit_code == 0, ended.stderr
    found = trials(results)
    assert [one["role"] for one in found] == ["global", "sensitivity", "uniform"]
    assert found[2]["suggestion"] is None
    assert found[2]["candidate"]["criterion"] == "l2"
    assert found[2]["latency"]["probe"]["ratio_p50"][2] <= 0.5
    assert "final measurement of 5 models" in ended.stderr
    assert "sensitivity" in ended.stdout
    with (results / "leaderboard.csv").open() as file:
        assert "sensitivity" in {row["role"] for row in csv.DictReader(file)}


def test_it_is_part_of_what_the_study_is(seeded: tuple[Path, Result]) -> None:
    ended = search(seeded[0], "--trials", "3")
    assert ended.exit_code == 2
    assert "was begun with sensitivity" in ended.stderr
    assert "hashes of the table's rows" in " ".join(ended.stderr.split())


def test_the_dry_run_tells_of_it_and_of_times_that_do_not_count(
    done: tuple[Path, Result], tmp_path: Path
) -> None:
    lines = table_of(done[0]).read_text().splitlines()
    lines[1:3] = [f"{line}throttled" for line in lines[1:3]]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    ended = search(tmp_path / "dry", "--dry-run", "--sensitivity", str(tmp_path / "a.csv"))
    assert ended.exit_code == 0, ended.stderr
    said = " ".join(ended.stdout.split())
    assert "the first 3 are global, sensitivity and uniform" in said
    assert "no undisturbed time for conv1, so multiply-accumulates stand in" in said


def test_one_of_another_network_is_refused(done: tuple[Path, Result], tmp_path: Path) -> None:
    table = tmp_path / "other.csv"
    table.write_text(table_of(done[0]).read_text().replace("conv2", "conv9"))
    ended = search(tmp_path / "other", "--trials", "3", "--sensitivity", str(table))
    assert ended.exit_code == 2
    assert "'conv9' has 48 channels" in " ".join(ended.stderr.split())

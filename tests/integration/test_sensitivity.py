"""`harness sensitivity` with a made-up clock, and the search that it seeds."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from harness_backends.testing.fake import NS_PER_BYTE
from support.running import run_cli, run_search, trials

Ended = subprocess.CompletedProcess[str]
NAME = "tiny-fake-l2-s0"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sensitivity")


def analyse(base: Path, results: Path, *args: str) -> Ended:
    fixed = ("sensitivity", "--target", "fake", "--task", "tiny", "--results", str(results))
    return run_cli(base, *fixed, *args)


@pytest.fixture(scope="module")
def done(base: Path) -> tuple[Path, Ended]:
    return base / "results", analyse(base, base / "results")


def rows(results: Path, name: str = NAME) -> list[dict[str, str]]:
    with (results / "sensitivity" / name / "sensitivity.csv").open() as file:
        return list(csv.DictReader(file))


def test_it_says_what_each_group_costs_and_saves(done: tuple[Path, Ended]) -> None:
    results, ended = done
    assert ended.returncode == 0, ended.stderr
    for words in ("conv1", "conv2", "saved, ms", "paired", "batch norms included", NAME):
        assert words in " ".join(ended.stdout.split())
    found = [(row["name"], row["width"], row["kept"], row["ratio"]) for row in rows(results)]
    assert found == [
        ("conv1", "32", "24", "0.25"), ("conv1", "32", "16", "0.5"), ("conv1", "32", "8", "0.75"),
        ("conv2", "48", "36", "0.25"), ("conv2", "48", "24", "0.5"), ("conv2", "48", "12", "0.75"),
    ]  # fmt: skip
    folder = results / "sensitivity" / NAME
    assert (folder / "sensitivity.png").read_bytes().startswith(b"\x89PNG")


def test_every_figure_has_its_interval(done: tuple[Path, Ended]) -> None:
    for row in rows(done[0]):
        low, value, high = (float(row[f"val_acc_change{x}"]) for x in ("_lo", "", "_hi"))
        assert -1 <= low <= value <= high <= 1
        low, value, high = (float(row[f"saved{x}_s"]) for x in ("_lo", "", "_hi"))
        assert low <= value <= high
        assert row["n"] == "50"
        assert row["reason"] == ""


def test_the_time_saved_is_that_of_the_smaller_file(done: tuple[Path, Ended]) -> None:
    """The clock is a formula of the file's size, and the size follows the parameters."""
    for row in rows(done[0]):
        expected = 4 * int(row["params_saved"]) * NS_PER_BYTE * 1e-9
        assert float(row["saved_s"]) == pytest.approx(expected, rel=0.02)


def test_the_cheapest_row_comes_first_and_the_networks_order_can_be_had(
    done: tuple[Path, Ended], base: Path
) -> None:
    def shown(text: str) -> list[tuple[str, str]]:
        lines = [line.split() for line in text.splitlines()]
        return [(w[0], w[2]) for w in lines if w and w[0] in ("conv1", "conv2")]

    def cost(row: dict[str, str]) -> float:
        return float(row["val_loss_change"]) / float(row["saved_s"])

    table = rows(done[0])
    by_cost = [(row["name"], row["kept"]) for row in sorted(table, key=cost)]
    assert shown(done[1].stdout) == by_cost
    again = analyse(base, done[0], "--sort", "network")
    assert shown(again.stdout) == [(row["name"], row["kept"]) for row in table]


def test_a_finished_analysis_measures_nothing(done: tuple[Path, Ended], base: Path) -> None:
    folder = done[0] / "sensitivity" / NAME
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    ended = analyse(base, done[0])
    assert ended.returncode == 0, ended.stderr
    assert "dense model" not in ended.stderr
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_an_interrupted_one_goes_on_with_the_rows_that_are_missing(
    done: tuple[Path, Ended], base: Path
) -> None:
    results = base / "cut"
    shutil.copytree(done[0], results)
    path = results / "sensitivity" / NAME / "sensitivity.csv"
    lines = path.read_text().splitlines(keepends=True)
    kept = lines[2].rstrip("\n") + "kept\n"  # told from a new row by its flag
    path.write_text(lines[0] + kept)
    ended = analyse(base, results)
    assert ended.returncode == 0, ended.stderr
    assert "conv1: 16 of 32" not in ended.stderr
    assert "conv1: 24 of 32" in ended.stderr
    assert path.read_text() == "".join([*lines[:2], kept, *lines[3:]])


def test_time_and_ratios_may_be_added_later(base: Path, done: tuple[Path, Ended]) -> None:
    results = base / "later"
    ended = analyse(base, results, "--ratios", "50%", "--no-timing", "--exclude", "conv2")
    assert ended.returncode == 0, ended.stderr
    assert "saved, ms" not in ended.stdout
    assert "nothing is removed from conv2" in " ".join(ended.stdout.split())
    (row,) = rows(results)
    assert row["saved_s"] == row["dense_s"] == ""
    assert analyse(base, results, "--exclude", "conv2").returncode == 0
    assert rows(results) == [r for r in rows(done[0]) if r["name"] == "conv1"]


def test_another_analysis_under_the_same_name_is_refused(
    done: tuple[Path, Ended], base: Path
) -> None:
    ended = analyse(base, done[0], "--study", NAME, "--criterion", "taylor")
    assert ended.returncode == 2
    assert 'was begun with criterion "l2"; received "taylor"' in " ".join(ended.stderr.split())


def test_a_changed_machine_needs_remeasure(done: tuple[Path, Ended], base: Path) -> None:
    results = base / "setup"
    shutil.copytree(done[0], results)
    path = results / "sensitivity" / NAME / "study.json"
    known = json.loads(path.read_text())
    known["setup"]["fingerprint"] = "another"
    path.write_text(json.dumps(known))
    before = rows(results)
    refused = analyse(base, results)
    assert refused.returncode == 2
    assert "--remeasure" in refused.stderr
    ended = analyse(base, results, "--remeasure")
    assert ended.returncode == 0, ended.stderr
    assert "conv1: 16 of 32" in ended.stderr  # timed again
    assert rows(results) == before


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--ratios", "1%"), "removes a whole granule of 4 channels"),
        (("--ratios", "100%"), "must be below 100%"),
        (("--ratios", "50%,,"), "`--ratios` must be a share"),
        (("--criterion", "l1"), "`--criterion` must be one of l2"),
        (("--samples", "0"), "`--samples` must be a whole number from 1"),
        (("--sort", "size"), "`--sort` must be 'cost' or 'network'"),
        (("--exclude", "conv3"), "Unknown layer 'conv3'"),
    ],
)
def test_bad_input_ends_with_one_message(base: Path, args: tuple[str, ...], words: str) -> None:
    ended = analyse(base, base / "bad", *args)
    assert ended.returncode == 2
    assert words in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr


def test_one_in_use_is_refused(base: Path) -> None:
    import fcntl

    folder = base / "busy" / "sensitivity" / "mine"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ended = analyse(base, base / "busy", "--study", "mine")
    assert ended.returncode == 75
    assert "being worked on by another process" in " ".join(ended.stderr.split())


@pytest.fixture(scope="module")
def seeded(done: tuple[Path, Ended], base: Path) -> tuple[Path, Ended]:
    table = done[0] / "sensitivity" / NAME / "sensitivity.csv"
    results = base / "seeded"
    args = ("--budget", "50%", "--trials", "4", "--sensitivity", str(table))
    return results, run_search(base, results, *args)


def test_a_search_takes_it_as_its_third_trial(seeded: tuple[Path, Ended]) -> None:
    results, ended = seeded
    assert ended.returncode == 0, ended.stderr
    found = trials(results)
    assert [one["role"] for one in found] == ["uniform", "global", "sensitivity", "searched"]
    assert found[2]["suggestion"] is None
    assert found[2]["candidate"]["criterion"] == "l2"
    assert found[2]["latency"]["probe"]["ratio_p50"][2] <= 0.5
    assert "final measurement of 5 models" in ended.stderr
    assert "sensitivity" in ended.stdout
    with (results / "leaderboard.csv").open() as file:
        assert "sensitivity" in {row["role"] for row in csv.DictReader(file)}


def test_it_is_part_of_what_the_study_is(seeded: tuple[Path, Ended], base: Path) -> None:
    ended = run_search(base, seeded[0], "--budget", "50%", "--trials", "4")
    assert ended.returncode == 2
    assert "was begun with sensitivity" in ended.stderr


def test_the_dry_run_tells_of_it(done: tuple[Path, Ended], base: Path) -> None:
    table = str(done[0] / "sensitivity" / NAME / "sensitivity.csv")
    ended = run_search(base, base / "dry", "--budget", "50%", "--dry-run", "--sensitivity", table)
    assert ended.returncode == 0, ended.stderr
    assert "the first 3 are uniform, global and sensitivity" in " ".join(ended.stdout.split())


def test_one_of_another_network_is_refused(done: tuple[Path, Ended], base: Path) -> None:
    table = base / "other.csv"
    text = (done[0] / "sensitivity" / NAME / "sensitivity.csv").read_text()
    table.write_text(text.replace("conv2", "conv9"))
    args = ("--budget", "50%", "--trials", "3", "--sensitivity", str(table))
    ended = run_search(base, base / "other", *args)
    assert ended.returncode == 2
    assert "'conv9' has 48 channels" in " ".join(ended.stderr.split())

"""An emulated target: instructions are counted, and nothing calls them a time."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness_backends.testing.fake import fake_instructions
from support.cli import registered
from support.running import read_records, run_cli, trials

Ended = subprocess.CompletedProcess[str]

NOTE = "Instructions counted on an emulated cortex-a76, not latencies"
TIMES = re.compile(r"\d (ns|µs|ms)\b|\bfaster\b|\bslower\b|-?latency (of|\d)")
"""What only a time is told in; seconds are left out, for phases take them."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emulated")


def search(base: Path, results: str, *more: str) -> Ended:
    fixed = ("search", "--target", "emulated", "--task", "tiny", "--results", results)
    return run_cli(base, *fixed, *more)


@pytest.fixture(scope="module")
def share(base: Path) -> Ended:
    return search(base, "share", "--budget", "60%", "--trials", "3")


@pytest.fixture(scope="module")
def count(base: Path) -> Ended:
    return search(base, "count", "--budget", "14Minstr", "--trials", "3")


@pytest.fixture(scope="module")
def file(base: Path, share: Ended) -> Path:
    (path,) = (base / "share").glob("studies/*/models/dense.onnx")
    return path


def winner(base: Path, results: str) -> Path:
    (folder,) = (base / results).glob("studies/*/winner")
    return folder


def flat(text: str) -> str:
    """Return a text as one line, without a panel's frame."""
    return " ".join(text.replace("│", " ").split())


def test_a_search_within_a_share_ends_well_and_says_what_was_counted(share: Ended) -> None:
    assert share.returncode == 0, share.stderr
    assert NOTE in flat(share.stdout)
    assert "x fewer instructions than the dense model" in flat(share.stdout)
    assert "Minstr" in share.stdout
    assert "not ranked" in share.stdout
    assert not TIMES.search(share.stdout + share.stderr)
    assert "counting the instructions of the dense model" in share.stderr
    assert "% of dense instructions" in share.stderr


def test_a_search_within_instructions_keeps_to_them(base: Path, count: Ended) -> None:
    assert count.returncode == 0, count.stderr
    assert "p50 within 14.0 Minstr" in count.stdout
    assert not TIMES.search(count.stdout + count.stderr)
    assert [path.name for path in (base / "count" / "studies").iterdir()] == [
        "tiny-emulated-14Minstr-p50-s0"
    ]
    record = next(r for r in read_records(base / "count") if r["role"] == "winner")
    assert record["budget"]["kind"] == "instructions"
    high = record["latency"]["final"]["p50_instructions"][2]
    assert high <= 14e6
    assert high == pytest.approx(fake_instructions(record["model"]["size_bytes"]), rel=1e-2)


@pytest.mark.parametrize("results", ["share", "count"])
def test_no_record_has_a_time_of_a_call(
    base: Path, share: Ended, count: Ended, results: str
) -> None:
    assert share.returncode == count.returncode == 0
    for record in read_records(base / results):
        assert record["flags"] == ["emulated"]
        for figures in record["latency"].values():
            assert figures["p50_instructions"] is not None
            times = [key for key in figures if key.endswith("_s") and figures[key] is not None]
            assert times == []
    assert {record["status"] for record in trials(base / results)} == {"complete"}


@pytest.mark.parametrize("table", ["leaderboard.csv", "trials.csv"])
def test_tables_have_counts_in_columns_of_their_own(base: Path, count: Ended, table: str) -> None:
    assert count.returncode == 0
    path = next((base / "count").rglob(table))
    with path.open() as opened:
        rows = list(csv.DictReader(opened))
    assert rows
    for row in rows:
        assert float(row["guest_minstr_lo"]) <= float(row["guest_minstr"])
        assert float(row["guest_minstr"]) <= float(row["guest_minstr_hi"]) < 30
        assert [row[key] for key in row if "_ms" in key] == ["" for key in row if "_ms" in key]
        assert row["flags"] == "emulated"
        assert row.get("rank", "") == ""


def test_the_leaderboard_shows_instructions_and_no_empty_latency(base: Path, count: Ended) -> None:
    assert count.returncode == 0
    ended = run_cli(base, "leaderboard", "--results", "count", COLUMNS="200")
    assert "instructions, 95 %" in ended.stdout
    assert "Minstr (" in ended.stdout
    assert "latency" not in ended.stdout


def test_the_card_says_what_its_figures_are(base: Path, share: Ended, count: Ended) -> None:
    assert share.returncode == count.returncode == 0
    for results in ("share", "count"):
        card = (winner(base, results) / "card.md").read_text()
        assert NOTE in card
        assert "| p50 instructions |" in card
        assert not TIMES.search(card)


def test_a_network_beyond_reach_is_told_in_instructions(base: Path) -> None:
    ended = search(base, "floor", "--budget", "1Minstr", "--trials", "1")
    assert ended.returncode == 1, ended.stderr
    assert "takes p50" in flat(ended.stdout)
    assert NOTE in flat(ended.stdout)
    assert not TIMES.search(ended.stdout)


def test_the_dense_network_may_be_within_instructions(base: Path) -> None:
    ended = search(base, "dense", "--budget", "1Ginstr", "--trials", "1")
    assert ended.returncode == 0, ended.stderr
    assert "Pruning isn't needed" in ended.stdout


def test_a_dry_run_tells_instructions(base: Path) -> None:
    ended = search(base, "dry", "--budget", "14Minstr", "--dry-run", "--time", "1min")
    assert ended.returncode == 0, ended.stderr
    assert "p50 instructions, 95 % interval" in ended.stdout
    assert NOTE in flat(ended.stdout)
    assert "p50 within 14.0 Minstr: within reach" in ended.stdout
    assert not TIMES.search(ended.stdout)


@pytest.mark.parametrize(
    ("target", "budget", "words"),
    [
        ("emulated", "10ms", "must be an instruction count such as '80Minstr' or a share"),
        ("qemu-arm64", "10ms", "must be an instruction count such as '80Minstr' or a share"),
        ("fake", "80Minstr", "must be a duration such as '10ms' or a share"),
        ("emulated", "50%,80Minstr", "not mixed"),
    ],
)
def test_a_budget_that_the_target_cannot_be_held_against_is_refused(
    tmp_path: Path, target: str, budget: str, words: str
) -> None:
    given = ("--target", target, "--budget", budget, "--results", str(tmp_path / "refused"))
    with registered(tmp_path):
        ended = CliRunner().invoke(app, ["search", "--task", "tiny", "--trials", "1", *given])
    assert ended.exit_code == 2
    assert ended.stderr.count("error:") == 1
    assert words in " ".join(ended.stderr.split())
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize(
    "given",
    [("--scenario", "server", "--rate", "10"), ("--scenario", "offline"), ("--profile",),
     ("--referee", "loadgen")],
)  # fmt: skip
def test_what_needs_a_time_is_refused(base: Path, file: Path, given: tuple[str, ...]) -> None:
    ended = run_cli(base, "bench", str(file), "--target", "emulated", *given, COLUMNS="400")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert f"`{given[0]}" in ended.stderr
    assert "is an emulated cortex-a76" in ended.stderr


@pytest.mark.parametrize("target", ["emulated", "qemu-arm64"])
def test_doctor_refuses_an_emulated_target(base: Path, target: str) -> None:
    ended = run_cli(base, "doctor", "--target", target, COLUMNS="400")
    assert ended.returncode == 2
    assert "resolves times" in ended.stderr


def test_bench_counts_and_compares(base: Path, file: Path) -> None:
    smaller = str(winner(base, "share") / "model.onnx")
    ended = run_cli(base, "bench", str(file), smaller, "--target", "emulated", COLUMNS="400")
    assert ended.returncode == 0, ended.stderr
    assert "of the instructions of" in ended.stdout
    assert "fewer instructions" in ended.stdout
    assert NOTE in ended.stdout
    assert not TIMES.search(ended.stdout)
    table = run_cli(base, "bench", str(file), "--target", "emulated", "--table")
    assert "p50 (95 %), instructions, Minstr" in table.stdout


def test_bench_tells_programs_the_quantity(base: Path, file: Path) -> None:
    more = ("--json", "--samples", "calls.npz", "--plot", "calls.png")
    ended = run_cli(base, "bench", str(file), "--target", "emulated", *more)
    told = json.loads(ended.stdout)
    assert told["quantity"] == "instructions"
    assert told["reference"] is None  # counts don't change with the machine
    model = told["models"][0]
    assert model["p50_instructions"][0] == pytest.approx(
        fake_instructions(file.stat().st_size), rel=1e-3
    )
    assert [key for key in model if key.endswith("_s") and model[key] is not None] == []
    assert (base / "calls.png").stat().st_size > 0


def test_a_compression_is_reported_in_instructions_and_trusted(base: Path) -> None:
    steps = ("--step", "prune:params=50%", "--results", "compressed")
    ended = run_cli(base, "compress", "--task", "tiny", "--target", "emulated", *steps)
    assert ended.returncode == 0, ended.stderr
    assert "x fewer instructions" in ended.stdout
    (table,) = (base / "compressed").rglob("table.md")
    for text in (ended.stdout, table.read_text()):
        assert NOTE in flat(text)
        assert "p50 instructions" in text
        assert not TIMES.search(text)


def test_a_sensitivity_analysis_tells_instructions_saved_and_seeds_a_search(base: Path) -> None:
    fixed = ("--task", "tiny", "--target", "emulated", "--results", "sensitive")
    ended = run_cli(base, "sensitivity", *fixed, "--ratios", "50%", COLUMNS="200")
    assert ended.returncode == 0, ended.stderr
    assert "saved, Minstr" in ended.stdout
    (path,) = (base / "sensitive").rglob("sensitivity.csv")
    with path.open() as opened:
        for row in csv.DictReader(opened):
            assert float(row["saved_instructions"]) > 0
            assert row["saved_s"] == row["dense_s"] == ""
    more = ("--budget", "60%", "--trials", "2", "--sensitivity", str(path))
    seeded = search(base, "sensitive", *more)
    assert seeded.returncode == 0, seeded.stderr
    assert "stand in for" not in seeded.stdout

"""Bad input: exit code 2, one message that names what was received, and nothing half-written.

Most cases call the application in this process, where a start costs nothing; a few go through a
process of its own. The clock is made up and the task trains in a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from harness.cli import app
from support.cli import TARGETS_TOML, registered
from support.running import run_cli, run_search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from click.testing import Result

SEARCH = ("search", "--target", "fake", "--task", "tiny", "--trials", "2", "--budget", "50%")
OTHER_TARGET = '[other]\nbackend = "fake"\ngranule = 4\nbatch = 2\n'


@pytest.fixture(scope="module", autouse=True)
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Register the made-up clock and the tiny task, with settings and caches of their own."""
    folder = tmp_path_factory.mktemp("bad-input")
    with registered(folder, TARGETS_TOML + OTHER_TARGET):
        yield folder


def call(*args: str) -> Result:
    return CliRunner().invoke(app, list(args))


@pytest.fixture(scope="module")
def finished(base: Path) -> Path:
    """Return a results folder with one finished study, `s`."""
    results = base / "finished"
    ended = call(*SEARCH, "--study", "s", "--results", str(results))
    assert ended.exit_code == 0, ended.stderr
    return results


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished results folder, to be spoilt."""
    return Path(shutil.copytree(finished, tmp_path / "results"))


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Return every file's content and every folder below a folder that may be absent."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def squeezed(text: str) -> str:
    """Return text without blanks, line breaks and frames, wherever a message was wrapped."""
    return "".join(text.split()).replace("│", "")


def assert_one_message(stderr: str, *named: str) -> None:
    errors = [
        line for line in stderr.splitlines() if line.startswith("error:") or "─ Error" in line
    ]
    assert len(errors) == 1, stderr
    assert "Traceback" not in stderr
    for text in named:
        assert squeezed(text) in squeezed(stderr), stderr


def assert_refused(ended: Result, *named: str) -> None:
    assert ended.exit_code == 2, (ended.exit_code, ended.stderr)
    assert_one_message(ended.stderr, *named)
    assert ended.stdout == ""


# Options


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--budget", "10"], ["'10'", "Add a unit"]),
        (["--budget", "0ms"], ["'0ms'", "above zero"]),
        (["--budget", "0%"], ["'0%'", "above zero"]),
        (["--budget", "-5ms"], ["'-5ms'", "above zero"]),
        (["--budget", "nan"], ["'nan'"]),
        (["--budget", "nanms"], ["'nanms'"]),
        (["--budget", "inf"], ["'inf'"]),
        (["--budget", "1e999ms"], ["'1e999ms'"]),
        (["--budget", "fast"], ["'fast'"]),
        (["--budget", "10 parsecs"], ["'10 parsecs'"]),
        (["--budget", ""], ["''"]),
        (["--budget", "80Minstr"], ["'80Minstr'"]),
        (["--budget", "50%,10ms"], ["'50%,10ms'", "not mixed"]),
        (["--budget", "50%,"], ["50%,"]),
        (["--budget", "50%,30"], ["'30'", "Add a unit"]),
        (["--target", "fakee"], ["'fakee'", "Did you mean 'fake'?", "harness targets"]),
        (["--target", "zzz"], ["'zzz'", "harness targets"]),
        (["--task", "tinny"], ["'tinny'", "Did you mean 'tiny'?", "harness init"]),
        (["--task", "digit"], ["'digit'", "Did you mean 'digits'?"]),
        (["--layers", "conv9"], ["'conv9'", "conv1, conv2", "Did you mean"]),
        (["--exclude", "cnov1"], ["'cnov1'", "Did you mean 'conv1'?"]),
        (["--exclude", "conv1,conv2"], ["Nothing is left to prune"]),
        (["--set", "granule=1000"], ["Nothing is left to prune", "1000"]),
        (
            ["--target", "jetson"],
            ["'jetson'", "no host", "targets add jetson", "targets check jetson"],
        ),
        (["--target", "raspberry-pi"], ["'raspberry-pi'", "no host", "targets add raspberry-pi"]),
        (["--target", "gpu"], ["'gpu'"]),
        (["--trials", "0"], ["--trials", "'0'"]),
        (["--trials", "many"], ["--trials", "'many'"]),
        (["--time", "0s"], ["--time", "'0s'"]),
        (["--time", "5"], ["--time", "'5'", "Add a unit"]),
        (["--statistic", "p95"], ["--statistic", "'p95'"]),
        (["--max-drop", "1"], ["--max-drop", "'1'"]),
        (["--max-size", "2"], ["--max-size", "'2'"]),
        (["--study", "a/b"], ["--study", "'a/b'"]),
        (["--study", ".."], ["--study", "'..'"]),
        (["--study", ""], ["--study", "''"]),
        (["--study", "s" * 300], ["--study"]),
        (["--set", "nonsense"], ["--set", "'nonsense'"]),
        (["--set", "wings=2"], ["--set", "'wings'", "threads"]),
        (["--set", "threads=two"], ["threads", "'two'"]),
        (["--set", "granule=0"], ["granule", "'0'"]),
        (["--set", "backend=abacus"], ["'backend=abacus'"]),
        (["--set", "hosts=pi@board"], ["hosts", "hosts=pi@board"]),
        (["--set", "name=other"], ["'name'"]),
        (["--recipe", "epochs=3"], ["'epochs'", "teacher_epochs"]),
        (["--recipe", "trial_epochs"], ["'trial_epochs'", "KEY=VALUE"]),
        (["--recipe", "batch=1"], ["batch", "'1'", "from 2"]),
        (["--train-fraction", "2"], ["--train-fraction", "'2'"]),
        (["--coreset", "herding"], ["--coreset herding", "--train-fraction"]),
        (["--train-fraction", "0.5", "--coreset", "best"], ["'best'", "k-center"]),
        (["--augment", "flip"], ["--augment", "--model", "--task"]),
        (["--weights", "w.pt"], ["--weights", "--model"]),
        (["--trained"], ["--trained", "--model"]),
        (["--loss", "mse"], ["--loss", "--model"]),
        (["--name", "parts"], ["--name", "--model"]),
        (["--metric", "r2"], ["--metric", "--model"]),
        (["--data", "digits"], ["--task", "not both"]),
        (["--model", "small-cnn"], ["--task", "not both"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_a_bad_option_is_refused_and_nothing_is_written(
    tmp_path: Path, options: list[str], named: list[str]
) -> None:
    results = tmp_path / "results"
    ended = call(*SEARCH, "--results", str(results), *options)
    assert_refused(ended, *named)
    assert snapshot(results) == {}


def test_a_budget_must_be_given(tmp_path: Path) -> None:
    ended = call("search", "--target", "fake", "--results", str(tmp_path / "results"))
    assert_refused(ended, "--budget 10ms", "--budget 50%")
    assert not (tmp_path / "results").exists()


def test_an_unknown_layer_in_a_dry_run(tmp_path: Path) -> None:
    ended = call(*SEARCH, "--dry-run", "--layers", "conv9", "--results", str(tmp_path / "results"))
    assert_refused(ended, "'conv9'")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("budget", ["150%", "1s"])
def test_a_budget_above_dense_is_allowed_and_explained(tmp_path: Path, budget: str) -> None:
    ended = call(*SEARCH, "--results", str(tmp_path / "results"), "--budget", budget)
    assert ended.exit_code == 0, ended.stderr
    assert "Pruning isn't needed: the dense model is within this budget" in ended.stdout


@pytest.mark.parametrize(
    ("options", "named"),
    [(["--budget", "10"], ["'10'", "Add a unit"]), (["--trials", "0"], ["--trials"])],
)
def test_the_exit_code_reaches_the_shell(
    tmp_path: Path, options: list[str], named: list[str]
) -> None:
    fixed = ("--budget", "50%", "--trials", "2")
    ended = run_search(tmp_path, tmp_path / "results", *fixed, *options)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert_one_message(ended.stderr, *named)
    assert not (tmp_path / "results").exists()


def test_a_board_without_a_host_in_a_shell(tmp_path: Path) -> None:
    onnx.save(identity((1, 4)), tmp_path / "model.onnx")
    ended = run_cli(tmp_path, "bench", "model.onnx", "--target", "jetson")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert_one_message(ended.stderr, "'jetson'", "no host")


# The results folder


def test_a_file_in_place_of_the_results_folder(tmp_path: Path) -> None:
    place = tmp_path / "results"
    place.write_text("mine")
    assert_refused(call(*SEARCH, "--results", str(place)), str(place), "--results DIR")
    assert place.read_text() == "mine"


def test_a_results_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    place = tmp_path / "file" / "results"
    assert_refused(call(*SEARCH, "--results", str(place)), str(place), "--results DIR")
    assert snapshot(tmp_path) == {"file": b"mine"}


def test_a_results_folder_where_none_can_be_made() -> None:
    ended = call(*SEARCH, "--results", "/proc/results")
    assert_refused(ended, "/proc/results", "--results DIR")


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Mount a small file system in memory; skip the test where that isn't allowed."""
    folder.mkdir(exist_ok=True)
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    argv = [mount, "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(argv, capture_output=True, check=False).returncode != 0:
        pytest.skip("this root may not mount a small file system")
    try:
        yield
    finally:
        # Lazily: a database of a search that failed may not have been closed yet.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_read_only_file_system(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1m,ro"):
        place = tmp_path / "disk" / "results"
        assert_refused(call(*SEARCH, "--results", str(place)), str(place), "--results DIR")
        assert_refused(
            call(*SEARCH, "--results", str(tmp_path / "disk")), str(tmp_path / "disk")
        )  # fmt: skip


@pytest.mark.parametrize("size_k", [24, 260, 460, 640])
def test_a_full_disk_is_told_and_survived(tmp_path: Path, finished: Path, size_k: int) -> None:
    """Each size fills up elsewhere: the first export, the database, a trial, the finals."""
    disk = tmp_path / "disk"
    command = (*SEARCH, "--results", str(disk))
    with mounted(disk, f"size={size_k}k"):
        ended = call(*command)
        assert ended.exit_code == 5, ended.stderr
        assert_one_message(ended.stderr, str(disk), "free some space")
        for path in disk.glob("studies/*/records/*.json"):
            json.loads(path.read_bytes())
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        again = call(*command)
        assert again.exit_code == 0, again.stderr
        assert (disk / "leaderboard.csv").exists()


def test_the_results_folder_may_have_any_name(tmp_path: Path) -> None:
    place = tmp_path / "what?mode=ro#%41"
    ended = call(*SEARCH, "--results", str(place))
    assert ended.exit_code == 0, ended.stderr
    assert list(tmp_path.iterdir()) == [place]
    assert len(list(place.glob("studies/*/study.db"))) == 1


# Records and tables that were damaged


def a_record(results: Path) -> Path:
    return sorted((results / "studies" / "s" / "records").glob("*.json"))[1]


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


def set_in(*keys: str, to: Any) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        def change(content: dict[str, Any]) -> None:
            for key in keys[:-1]:
                content = content[key]
            content[keys[-1]] = to

        rewrite(path, change)

    return spoil


SPOILT = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "empty": lambda path: path.write_bytes(b""),
    "binary": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "no object": lambda path: path.write_text("[]"),
    "edited": set_in("search", "seed", to=1),
    "without a number": set_in("search", "elapsed_s", to=float("nan")),
    "with a wrong date": set_in("date_utc", to=5),
    "of another schema": set_in("schema", to=99),
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("command", ["search", "rebuild", "replay"])
def test_a_corrupt_record_is_named(results: Path, how: str, command: str) -> None:
    path = a_record(results)
    SPOILT[how](path)
    args = {
        "search": (*SEARCH, "--study", "s"),
        "rebuild": ("leaderboard", "rebuild"),
        "replay": ("replay", path.stem),
    }[command]
    before = snapshot(results)
    assert_refused(call(*args, "--results", str(results)), str(path))
    assert snapshot(results) == before


def test_a_corrupt_record_of_another_study_is_found_before_any_work(results: Path) -> None:
    path = a_record(results)
    path.write_bytes(path.read_bytes()[:100])
    before = snapshot(results)
    assert_refused(call(*SEARCH, "--study", "new", "--results", str(results)), str(path))
    assert snapshot(results) == before


def table_with(column: str, text: str) -> Callable[[bytes], bytes]:
    def change(table: bytes) -> bytes:
        first, second, *rest = table.decode().splitlines()
        damaged = second.split(",")
        damaged[first.split(",").index(column)] = text
        return "\n".join([first, ",".join(damaged), *rest, ""]).encode()

    return change


TABLES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda table: table[:-40],
    "header alone, cut": lambda table: table[:100],
    "empty": lambda table: b"",
    "binary": lambda table: b"\xff\xfe\x00\x00",
    "with a cell more": lambda table: table.rstrip(b"\n") + b",x\n",
    "with an open quote": lambda table: table + b'"abc',
    "without a number": table_with("test_acc", "abc"),
}


@pytest.mark.parametrize("how", TABLES)
@pytest.mark.parametrize("command", ["search", "leaderboard"])
def test_a_corrupt_leaderboard_is_named_with_its_remedy(
    results: Path, how: str, command: str
) -> None:
    path = results / "leaderboard.csv"
    path.write_bytes(TABLES[how](path.read_bytes()))
    args = {"search": (*SEARCH, "--study", "new"), "leaderboard": ("leaderboard",)}[command]
    before = snapshot(results)
    remedy = "leaderboard rebuild"
    assert_refused(call(*args, "--results", str(results)), str(path), remedy)
    assert snapshot(results) == before


def test_the_remedy_for_a_corrupt_leaderboard_works(results: Path) -> None:
    path = results / "leaderboard.csv"
    good = path.read_bytes()
    path.write_bytes(good[:100])
    assert call("leaderboard", "rebuild", "--results", str(results)).exit_code == 0
    assert path.read_bytes() == good


@pytest.mark.parametrize("args", [("leaderboard",), ("leaderboard", "rebuild"), ("replay", "x")])
def test_a_results_folder_that_is_not_there(tmp_path: Path, args: tuple[str, ...]) -> None:
    place = tmp_path / "none"
    assert_refused(call(*args, "--results", str(place)), str(place))
    assert not place.exists()


def test_an_unknown_run_id_is_named(results: Path) -> None:
    assert_refused(call("replay", "20260131T120000Z-0", "--results", str(results)), "T120000Z-0'")


def test_a_csv_that_is_no_leaderboard(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    assert_refused(call("leaderboard", str(path)), str(path))


# Resuming


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--task", "digits"], ["task", '"tiny"', '"digits"']),
        (["--target", "other"], ["target", '"other"']),
        (["--set", "threads=2"], ["target", '"threads": 2']),
        (["--budget", "40%"], ["budget", "50%", "40%"]),
        (["--budget", "50%,60%"], ["budget", "60%"]),
        (["--budget", "10ms"], ["budget", "10ms"]),
        (["--seed", "5"], ["seed 0", "received 5"]),
        (["--statistic", "p90"], ["statistic", "p90"]),
        (["--layers", "conv1"], ["layers", "conv1"]),
        (["--max-size", "1MB"], ["max_size", "1000000"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_resuming_with_something_else_is_refused(
    results: Path, options: list[str], named: list[str]
) -> None:
    before = snapshot(results)
    ended = call(*SEARCH, "--study", "s", "--results", str(results), *options)
    assert_refused(ended, "'s'", "--study NAME", *named)
    assert snapshot(results) == before


def test_resuming_with_a_study_file_that_is_cut(results: Path) -> None:
    path = results / "studies" / "s" / "study.json"
    path.write_bytes(path.read_bytes()[:50])
    before = snapshot(results)
    assert_refused(call(*SEARCH, "--study", "s", "--results", str(results)), str(path))
    assert snapshot(results) == before


# ONNX files


def identity(shape: tuple[int | str | None, ...], kind: int = onnx.TensorProto.FLOAT) -> Any:
    helper = onnx.helper
    info = [helper.make_tensor_value_info(name, kind, shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", info[:1], info[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def with_external_data(path: Path) -> Path:
    model = identity((1, 64))
    weights = onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    model.graph.initializer.append(weights)
    model.graph.node[0].CopyFrom(onnx.helper.make_node("MatMul", ["x", "w"], ["y"]))
    data = path.name + ".data"
    onnx.save(model, path, save_as_external_data=True, location=data, size_threshold=0)
    return path.with_name(data)


def assert_no_bench(path: Path, *named: str) -> None:
    assert_refused(call("bench", str(path), "--target", "fake"), str(path), *named)


def test_bench_times_a_good_file(tmp_path: Path) -> None:
    onnx.save(identity((1, 4)), tmp_path / "m.onnx")
    ended = call("bench", str(tmp_path / "m.onnx"), "--target", "fake")
    assert ended.exit_code == 0, ended.stderr


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_onnx_file(finished: Path, tmp_path: Path, keep: int) -> None:
    whole = (finished / "studies" / "s" / "models" / "dense.onnx").read_bytes()
    path = tmp_path / "m.onnx"
    path.write_bytes(whole[:keep])
    assert_no_bench(path, "truncated")


def test_a_text_is_no_onnx_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("hello\n" * 100)
    assert_no_bench(path, "not a whole ONNX file")


@pytest.mark.parametrize("size", ["N", None])
def test_a_dynamic_input(tmp_path: Path, size: str | None) -> None:
    onnx.save(identity((1, size)), tmp_path / "m.onnx")
    assert_no_bench(tmp_path / "m.onnx", "'x'", "dynamic", size or "?", "--set shapes.x=1xN")


def test_a_string_input(tmp_path: Path) -> None:
    onnx.save(identity((1, 4), onnx.TensorProto.STRING), tmp_path / "m.onnx")
    assert_no_bench(tmp_path / "m.onnx", "'x'", "numbers")


def test_external_data_that_is_missing(tmp_path: Path) -> None:
    with_external_data(tmp_path / "m.onnx").unlink()
    assert_no_bench(tmp_path / "m.onnx", "m.onnx.data is missing")


def test_external_data_of_a_constant_that_is_missing(tmp_path: Path) -> None:
    model = identity((1, 64))
    value = onnx.numpy_helper.from_array(np.ones((1, 64), np.float32), "c")
    value.ClearField("raw_data")
    value.data_location = onnx.TensorProto.EXTERNAL
    value.external_data.add(key="location", value="gone.bin")
    constant = onnx.helper.make_node("Constant", [], ["c"], value=value)
    model.graph.node[0].CopyFrom(onnx.helper.make_node("Add", ["x", "c"], ["y"]))
    model.graph.node.insert(0, constant)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert_no_bench(tmp_path / "m.onnx", "gone.bin")


def test_an_onnx_file_that_is_missing(tmp_path: Path) -> None:
    assert_no_bench(tmp_path / "none.onnx", "no such file")


def test_an_input_that_no_memory_holds(tmp_path: Path) -> None:
    onnx.save(identity((2**20, 2**30)), tmp_path / "m.onnx")
    assert_no_bench(tmp_path / "m.onnx", "'x'")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--target", "jetson"], ["'jetson'", "no host"]),
        (["--target", "raspberry-pi"], ["'raspberry-pi'", "no host"]),
        (["--target", "gpu"], ["'gpu'"]),
        (["--target", "fakes"], ["'fakes'", "Did you mean 'fake'?"]),
        (["--target", "fake", "--set", "nonsense"], ["'nonsense'"]),
        (["--target", "fake", "--threads", "0"], ["--threads", "'0'"]),
        (["--target", "fake", "--time", "3"], ["--time", "'3'", "unit"]),
        (["--target", "fake", "--table", "--json"], ["--table", "--json"]),
        (["--target", "fake", "--rate", "5"], ["--rate", "--scenario server"]),
        (["--target", "fake", "--scenario", "server"], ["--rate", "None"]),
        (["--target", "fake", "--scenario", "server", "--rate", "0"], ["--rate", "0"]),
        (["--target", "fake", "--scenario", "server", "--rate", "1"], ["11", "--rate"]),
        (["--target", "fake", "--plot", "none/p.png"], ["none/p.png", "folder"]),
        (["--target", "fake", "--plot", "p.pdf"], ["p.pdf", ".png or .svg"]),
        (["--target", "fake", "--samples", "s.npy"], ["s.npy", ".npz"]),
        (["--target", "fake", "--referee", "loadgen"], ["loadgen", "'fake'"]),
        (["--target", "fake", "--set", "shapes.y=1x4"], ["'y'", "Its inputs: x"]),
        (["--target", "fake", "--set", "shapes.x=1x5"], ["'x'", "[1, 5]"]),
        (["--target", "fake", "--set", "batch=2"], ["'x'", "batch 2"]),
        (["--target", "cpu", "--set", "affinity=4000"], ["affinity", "4000"]),
        (["--target", "cpu", "--set", "provider=Abacus"], ["Abacus", "CPUExecutionProvider"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_bench_with_a_bad_option(tmp_path: Path, options: list[str], named: list[str]) -> None:
    onnx.save(identity((1, 4)), tmp_path / "m.onnx")
    assert_refused(call("bench", str(tmp_path / "m.onnx"), *options), *named)


# The user's targets


@pytest.mark.parametrize(
    ("toml", "named"),
    [
        ("[mine\n", "line 1"),
        ("mine = 1\n", "one table per target"),
        ("[mine]\nthreads = 2\n", "backend"),
        ('[mine]\nbackend = "fake"\ncolour = "red"\n', "'colour'"),
        ('[mine]\nbackend = "fake"\nthreads = 0\n', "threads"),
        ('[mine]\nbackend = "fake"\nbatch = 1.5\n', "1.5"),
        ('[mine]\nbackend = "fake"\ngranule = "wide"\n', "'wide'"),
        ("[mine]\nbackend = 5\n", "backend"),
        ('[mine]\nbackend = ["fake"]\n', "backend"),
        ('[mine]\nbackend = "fake"\ndescription = 5\n', "description"),
        ('[mine]\nbackend = "fake"\nhosts = "pi"\n', "hosts"),
        ('[mine]\nbackend = "fake"\nhosts = ["-oProxyCommand=x"]\n', "'-oProxyCommand=x'"),
        ('[mine]\nbackend = "fake"\npython = "python3; reboot"\n', "'python3; reboot'"),
        ('[mine]\nbackend = "fake"\nname = "other"\n', "name"),
    ],
    ids=[
        "syntax",
        "no table",
        "no backend",
        "unknown key",
        "threads",
        "batch",
        "granule",
        "backend a number",
        "backend a list",
        "description",
        "hosts",
        "a host that is an option",
        "a python that is a script",
        "name",
    ],
)
@pytest.mark.parametrize("command", ["targets", "search"])
def test_invalid_user_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toml: str, named: str, command: str
) -> None:
    path = tmp_path / "targets.toml"
    path.write_text(toml)
    monkeypatch.setenv("HARNESS_CONFIG_DIR", str(tmp_path))
    search = (*SEARCH, "--target", "mine", "--results", str(tmp_path / "results"))
    ended = call(*{"targets": ("targets",), "search": search}[command])
    assert_refused(ended, str(path), named)
    assert not (tmp_path / "results").exists()


def test_user_targets_that_are_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "targets.toml").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setenv("HARNESS_CONFIG_DIR", str(tmp_path))
    assert_refused(call("targets"), str(tmp_path / "targets.toml"))


def test_a_cache_folder_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    cache = tmp_path / "file" / "cache"
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(cache))
    ended = call(*SEARCH, "--results", str(tmp_path / "results"))
    if ended.exit_code != 0:  # going on without a cache is as good as a message
        assert_one_message(ended.stderr, str(cache))
        assert "--results" not in ended.stderr


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["resnet20"], "`MODEL` needs `--data` beside it"),
        (["nope", "--data", "digits"], "`MODEL` must be a shipped model"),
        (["nowhere.py:net", "--data", "digits"], "`MODEL` names the Python file"),
        (["cnn1d", "--data", "digits"], "try `small-cnn` as `MODEL`"),
        (["mlp", "--task", "tiny"], "Give `--task`, or `MODEL` and `--data`"),
        (
            ["small-cnn", "--data", "digits", "--step", "student:model=nope"],
            "`model` must be a shipped",
        ),
    ],
)
def test_a_network_is_called_what_the_command_calls_it(
    tmp_path: Path, args: list[str], named: str
) -> None:
    step = () if "--step" in args else ("--step", "rewrite")
    ended = call("compress", *args, *step, "--target", "fake", "--results", str(tmp_path / "r"))
    assert ended.exit_code == 2
    told = " ".join(ended.stderr.split())
    assert named in told
    assert "--model" not in told
    assert not (tmp_path / "r").exists()


def test_a_search_calls_its_network_by_its_option() -> None:
    ended = call("search", "--budget", "50%", "--model", "nope", "--data", "digits")
    assert "`--model` must be a shipped model" in ended.stderr

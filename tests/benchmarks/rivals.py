"""The search against its rivals, at equal wall-clock time.

    python tests/benchmarks/rivals.py OUT.csv --work DIR [--only digits:50%,fashion] [--seeds 5]
        [--rivals harness,tp-global] [--cifar DIR]

Needs `pip install torch-pruning`. Settings: `digits` (the embedded task, 90 s a run), `fashion` (a
ResNet of three blocks on Fashion-MNIST, Debian's package `dataset-fashion-mnist`, 5 min) and
`cifar` (the ResNet-20 whose weights, resnet20-cifar10jpeg.safetensors, and data lie in the folder
of `--cifar`; its zero-padded shortcuts are convolutions for all rivals; 8 min). Rivals:

    harness         `harness search`, as a user types it
    harness-fp32    likewise with `--precision fp32`
    tp-global       Torch-Pruning's global magnitude pruner, bisected to the measured budget, then
                    distilled for the rest of the time
    tp-uniform      likewise, the same ratio everywhere
    optuna          TPE over ratios; every trial is trained, then timed; the best feasible wins
    random          likewise by chance

A block is one setting, budget and seed: its rivals run one after the other, in an order that the
seed draws, each in a process of its own, timed from its start to its end. The dense network is
trained before and is no part of the time, but all else is; `cpu_s` has all processes. At the end of
a block all networks are timed together in fresh processes and scored on the test split once. A
block that is in OUT.csv is not run again.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rivals_suite.final import finals
from rivals_suite.nets import SEED, WEIGHTS
from rivals_suite.settings import Setting, settings
from rivals_suite.summary import print_summary

COLUMNS = (
    "setting", "budget", "seed", "rival", "found", "feasible", "ratio", "ratio_lo", "ratio_hi",
    "test_acc", "test_lo", "test_hi", "n_test", "wall_s", "cpu_s", "time_s", "flags", "exit",
    "told", "commit",
)  # fmt: skip
_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]


def command(rival: str, setting: Setting, budget: str, seed: int, folder: Path) -> list[str]:
    """Return a rival's command line."""
    if not rival.startswith("harness"):
        return [sys.executable, "-m", "rivals_suite.run", rival, setting.name, budget, str(seed),
                str(folder)]  # fmt: skip
    words = ["search", "--target", "cpu", "--budget", budget, "--time", f"{setting.seconds:g}s",
             "--seed", str(seed), "--results", str(folder)]  # fmt: skip
    if rival == "harness-fp32":
        words += ["--precision", "fp32"]
    if setting.model is not None and setting.data is not None:
        words += ["--model", setting.model, "--data", setting.data]
    for key, value in setting.options.items():
        if key == "recipe":
            words += [part for k, v in value.items() for part in ("--recipe", f"{k}={v}")]
        elif value is True:
            words.append(f"--{key}")
        else:
            words += [f"--{key}", str(value)]
    return [sys.executable, "-c", "from harness.cli import app; app()", *words]


def run(words: list[str], log: Path, env: dict[str, str]) -> tuple[float, float, int]:
    """Run a command and return wall and CPU seconds, and its exit code."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with log.open("w") as file:
        code = subprocess.run(words, stdout=file, stderr=file, env=env, check=False).returncode
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, code


def block(
    setting: Setting, budget: str, seed: int, rivals: list[str], work: Path, extra: list[str]
) -> list[dict[str, Any]]:
    """Run a block and return its lines of the table, that of the dense network first."""
    folder = work / f"{setting.name}-{budget.rstrip('%')}-s{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    env = dict(os.environ)
    trained = command("teacher", setting, budget, seed, folder / "teacher")
    run([*trained, *extra], folder / "teacher.log", env)
    order = list(rivals)
    random.Random(f"{setting.name}/{budget}/{seed}").shuffle(order)
    lines: dict[str, dict[str, Any]] = {"dense": {}}
    models: dict[str, Path] = {}
    for rival in order:
        print(f"{setting.name} {budget} seed {seed}: {rival}", file=sys.stderr)
        own, own_extra = folder / rival, [] if rival.startswith("harness") else extra
        words = [*command(rival, setting, budget, seed, own), *own_extra]
        wall, cpu, code = run(words, folder / f"{rival}.log", env)
        files = [*own.glob("model.onnx"), *own.glob("studies/*/winner/model.onnx")]
        told = own / "told.json"
        lines[rival] = {
            "wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "exit": code,
            "told": told.read_text() if told.exists() else "",
        }  # fmt: skip
        if files:
            models[rival] = files[0]
    found = finals(setting, budget, seed, folder / "teacher", models)
    head = {"setting": setting.name, "budget": budget, "seed": seed, "time_s": setting.seconds,
            "commit": _commit()}  # fmt: skip
    return [
        {**head, "rival": name, "found": name in found, **line, **_rounded(found.get(name, {}))}
        for name, line in lines.items()
    ]


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}


def _commit() -> str:
    words = ["git", "-C", str(_ROOT), "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def main() -> None:
    """Run the blocks that are missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default="digits,fashion", help="settings, or SETTING:BUDGET")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rivals", help="those of the setting, joined by commas")
    parser.add_argument("--cifar", type=Path)
    args = parser.parse_args()
    paths = [str(part) for part in (_HERE, _ROOT, *(_ROOT / d for d in _PARTS))]
    known = [part for part in (os.environ.get("PYTHONPATH"),) if part]
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *known])
    if args.cifar is not None:
        os.environ[WEIGHTS] = str(args.cifar / "resnet20-cifar10jpeg.safetensors")
    asked = settings(args.cifar)
    lines: list[dict[str, Any]] = []
    if args.out.exists():
        with args.out.open(newline="") as file:
            lines = list(csv.DictReader(file))
    done = {(line["setting"], line["budget"], int(line["seed"])) for line in lines}
    extra = [] if args.cifar is None else [str(args.cifar)]
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        os.environ[SEED] = str(seed)
        for part in args.only.split(","):
            name, _, only = part.partition(":")
            setting = asked[name]
            rivals = args.rivals.split(",") if args.rivals else list(setting.rivals)
            for budget in [only] if only else setting.budgets:
                if (name, budget, seed) in done:
                    continue
                lines += block(setting, budget, seed, rivals, args.work, extra)
                with args.out.open("w", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS)
                    writer.writeheader()
                    writer.writerows(lines)
    print_summary(args.out)


_PARTS = ("backends", "search", "results")


if __name__ == "__main__":
    main()

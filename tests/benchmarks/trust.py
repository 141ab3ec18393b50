"""How far can each timing tool be trusted? Five tools time the same models on one CPU thread.

    python tests/benchmarks/trust.py aa results/reference/trust-aa.csv --pairs naive=60,ours=200
    python tests/benchmarks/trust.py planted OUT.csv --tools naive,pyperf,loadgen,ours --seconds 3
    python tests/benchmarks/trust.py spread OUT.csv --condition idle,burst
    python tests/benchmarks/trust.py precision OUT.csv --seconds 0.75,1.5,3,6,12,24
    python tests/benchmarks/trust.py loadgen OUT.csv --seconds 10

`trust.py BENCHMARK -h` says what each one does. It needs, besides the project, `pip install
pyperf==2.10.0 openvino==2026.4.1 mlcommons-loadgen==6.0.17`, or fewer tools. Finished pairs are
kept in OUT-pairs.csv: the same command goes on where it was stopped, and OUT.csv is made from
them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from trust_suite.benchmarks import BENCHMARKS, Benchmark
from trust_suite.models import Models
from trust_suite.pairs import PairsFile
from trust_suite.runner import CONDITIONS, Job, run, schedule
from trust_suite.tables import write
from trust_suite.tools import TOOLS, installed


def main() -> None:
    parser, asked = _arguments()
    benchmark: Benchmark = asked.benchmark
    for name in asked.tools:
        if name not in benchmark.tools:
            parser.error(f"{asked.name} can't be run with {name}: {benchmark.left_out}")
        if not installed(name):
            parser.error(f"{name} is not installed: pip install {TOOLS[name].distribution}")
    jobs = schedule(
        benchmark.cases, asked.seconds, asked.conditions, _pairs(asked.pairs, asked.tools),
        asked.seed,
    )  # fmt: skip
    rows = PairsFile(asked.out.with_name(f"{asked.out.stem}-pairs.csv"))
    if asked.work is None:
        with tempfile.TemporaryDirectory() as folder:
            _measure(benchmark, jobs, rows, Path(folder))
    else:
        _measure(benchmark, jobs, rows, asked.work)
    write(benchmark.summary(rows.read()), asked.out)
    print(asked.out.read_text(), end="")
    if benchmark.left_out:
        print(benchmark.left_out, file=sys.stderr)


def _measure(benchmark: Benchmark, jobs: list[Job], rows: PairsFile, folder: Path) -> None:
    run(benchmark.measure, Models.write(folder), jobs, rows)


def _arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="name", required=True)
    for name, benchmark in BENCHMARKS.items():
        what = benchmark.what.replace("%", "%%")  # argparse formats its texts
        command = commands.add_parser(name, help=what, description=what)
        command.set_defaults(benchmark=benchmark)
        command.add_argument("out", type=Path, help="where the table goes")
        command.add_argument("--pairs", default=benchmark.pairs, help="200, or naive=60,ours=200")
        command.add_argument("--seconds", type=_floats, default=benchmark.seconds,
                             help="for the two models of a pair together")  # fmt: skip
        command.add_argument("--condition", dest="conditions", type=_names(CONDITIONS),
                             default=benchmark.conditions, help="of idle,burst")  # fmt: skip
        command.add_argument("--tools", type=_names(TOOLS), default=benchmark.tools)
        command.add_argument("--work", type=Path, help="folder for the models; a temporary one")
        command.add_argument("--seed", type=int, default=0, help="of all that is random")
    return parser, parser.parse_args()


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _names(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := sorted(set(names) - set(known)):
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not of {', '.join(known)}")
        return names

    return parse


def _pairs(text: str, tools: tuple[str, ...]) -> dict[str, int]:
    """Return the number of pairs per tool; a tool that is not named gets the largest."""
    if "=" not in text:
        return dict.fromkeys(tools, int(text))
    named = {name: int(n) for name, _, n in (part.partition("=") for part in text.split(","))}
    return {name: named.get(name, max(named.values())) for name in tools}


if __name__ == "__main__":
    main()

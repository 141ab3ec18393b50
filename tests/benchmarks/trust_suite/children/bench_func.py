"""A pyperf script: `bench_func.py MODEL REPEAT [pyperf's options]`.

The process that only starts pyperf's workers loads no model, which saves its time.
"""

from __future__ import annotations

from argparse import Namespace

import pyperf
from loading import load_unit


def main() -> None:
    runner = pyperf.Runner(add_cmdline_args=_hand_on)
    runner.argparser.add_argument("model")
    runner.argparser.add_argument("repeat", type=int)
    args = runner.parse_args()
    unit = load_unit(args.model, args.repeat) if args.worker else _never
    runner.bench_func("unit", unit)


def _hand_on(command: list[str], args: Namespace) -> None:
    command.extend((args.model, str(args.repeat)))


def _never() -> None:
    raise AssertionError("only workers time")


if __name__ == "__main__":
    main()

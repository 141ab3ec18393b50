"""10 warm-up runs, then 20 repeats, printed as JSON: `naive.py MODEL REPEAT`."""

from __future__ import annotations

import json
import sys
import time

from loading import load_unit


def main() -> None:
    unit = load_unit(sys.argv[1], int(sys.argv[2]))
    for _ in range(10):
        unit()
    repeats = []
    for _ in range(20):
        start = time.perf_counter()
        unit()
        repeats.append(time.perf_counter() - start)
    print(json.dumps(repeats))


if __name__ == "__main__":
    main()

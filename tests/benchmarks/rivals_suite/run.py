"""One rival on one setting: `python -m rivals_suite.run RIVAL SETTING BUDGET SEED FOLDER [CIFAR]`.

The folder gets `model.onnx`, where a network was found, and `told.json`. `teacher` as RIVAL trains
the dense network alone, into the cache that all rivals read.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from harness.api.request import read_request
from harness.training import torch_kept
from harness_search.granule import find_granule
from harness_search.progress import Progress
from harness_search.stopwatch import Stopwatch
from harness_search.teacher import train_or_load
from harness_search.tools import Tools, open_tools
from rivals_suite.settings import Setting, settings

STARTUP_S = 1.5
"""Of the interpreter and imports, before the clock here runs."""


def opened(setting: Setting, seed: int, folder: Path) -> tuple[Tools, int]:
    """Return tools with the trained dense network, and the target's granule."""
    progress = Progress()
    asked: Any = {**setting.options, "budget": "50%", "trials": 1, "seed": seed}
    told, task = read_request(setting.model, setting.data, asked).load(progress)
    tools = open_tools(told.target, seed, task, progress)
    granule = find_granule(tools.backend, tools.facts, None, tools.lock, progress)
    train_or_load(tools, folder / "dense.safetensors", Stopwatch())
    tools.dense = tools.export(tools.network, folder / "dense.onnx")
    return tools, granule


@torch_kept()
def main() -> None:
    """Run what the command line says."""
    started = time.monotonic() - STARTUP_S
    rival, name, budget, seed_text, folder_text, *rest = sys.argv[1:]
    setting = settings(Path(rest[0]) if rest else None)[name]
    folder, seed = Path(folder_text), int(seed_text)
    folder.mkdir(parents=True, exist_ok=True)
    tools, granule = opened(setting, seed, folder)
    deadline = started + setting.seconds
    told: dict[str, Any] = {}
    if rival.startswith("tp-"):
        from rivals_suite import torch_pruning

        everywhere = rival == "tp-global"
        told = torch_pruning.run(tools, budget, granule, deadline, seed, folder, everywhere)
    elif rival in ("optuna", "random"):
        from rivals_suite import sampled

        tpe = rival == "optuna"
        told = sampled.run(tools, budget, granule, deadline, seed, folder, tpe)
    (folder / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()

"""The winner's folder: everything that is needed to ship it, to trust it and to rebuild it."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

from harness.candidate import OnnxModel
from harness_results.card import card
from harness_results.files import disk_errors
from harness_results.picture import draw_search

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from harness_results.record import RunRecord
    from harness_results.store import StudyFolder

_RUN = '''\
"""Run the network beside this file: python run.py [inputs.npy]"""
import os, sys
from pathlib import Path
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import
import numpy as np, onnxruntime
file = Path(__file__).resolve().with_name("model.onnx")
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
spec = session.get_inputs()[0]  # its batch is fixed: the one that was timed
x = np.load(sys.argv[1], allow_pickle=False) if sys.argv[1:] else np.zeros(spec.shape)
x = x.astype(np.int64 if "int64" in spec.type else np.float32)
rows = np.arange(len(x) + -len(x) % spec.shape[0]) % len(x)  # the last batch is filled up
runs = [session.run(None, {spec.name: x[part]}) for part in rows.reshape(-1, spec.shape[0])]
outputs = [np.concatenate(parts)[: len(x)] for parts in zip(*runs)]
'''
_CLASSES = "print(outputs[0].argmax(axis=1))\n"
_VALUES = "print(dict(zip([o.name for o in session.get_outputs()], outputs)))\n"


def run_py(task: Mapping[str, Any]) -> str:
    """Return the script beside a model: it prints classes, or all outputs where there are none.

    Args:
        task: As in a record.
    """
    return _RUN + (_CLASSES if task["classes"] else _VALUES)


def winner_folder(folder: StudyFolder, budget: str, several: bool) -> Path:
    """Return a winner's folder: `winner/`, or one below it per budget of a front."""
    slug = re.sub(r"[^\w.-]", "", budget.replace("%", "pct"))
    return folder.winner / slug if several else folder.winner


def write_winner(folder: StudyFolder, records: Sequence[RunRecord], budgets: Sequence[str]) -> None:
    """Write `winner/` from the latest finals; an old one is replaced as a whole.

    Args:
        folder: The study.
        records: All its records.
        budgets: Texts of the study's budgets.
    """
    finals = [record for record in records if record.kind == "final"]
    latest = {(record.budget["text"], record.role): record for record in finals}
    won = [latest[b, "winner"] for b in budgets if (b, "winner") in latest]
    won = [record for record in won if record.feasible]
    old, new = folder.path / "winner.old.tmp", folder.path / "winner.new.tmp"
    with disk_errors(folder.path):
        for path in (old, new):
            shutil.rmtree(path, ignore_errors=True)
        if won:
            for record in won:
                target = winner_folder(folder, record.budget["text"], len(budgets) > 1)
                part = new / target.relative_to(folder.winner)
                part.mkdir(parents=True)
                own = {
                    role: latest[record.budget["text"], role]
                    for role in ("dense", "uniform", "global", "sensitivity", "winner")
                    if (record.budget["text"], role) in latest
                }
                _fill(part, folder, record, own)
                draw_search(part / "search.png", records, own)
            if folder.winner.exists():
                folder.winner.rename(old)
            new.rename(folder.winner)
        elif folder.winner.exists():
            folder.winner.rename(old)
        shutil.rmtree(old, ignore_errors=True)


def _fill(part: Path, folder: StudyFolder, record: RunRecord, finals: dict[str, RunRecord]) -> None:
    info = record.model
    onnx = OnnxModel(folder.path / info["onnx"], info["sha256"], info["size_bytes"], info["opset"])
    onnx.read()
    shutil.copyfile(onnx.path, part / "model.onnx")
    shutil.copyfile(folder.path / record.model["weights"], part / "weights.safetensors")
    (part / "pruning.json").write_text(json.dumps(pruning_history(record)) + "\n")
    (part / "run.py").write_text(run_py(record.task))
    (part / "card.md").write_text(card(record, finals, folder.results), encoding="utf-8")


def pruning_history(record: RunRecord) -> dict[str, Any]:
    """Return what turns the dense network into this one: blocks, then channels per group."""
    return {
        "task": record.task["name"],
        "removed_blocks": record.candidate["blocks"],
        "removed_channels": record.pruning or {},
        "widths": record.candidate["widths"],
        "dense_widths": record.candidate["dense_widths"],
    }

"""Every compression method on CIFAR-10: what it costs in accuracy and what it gains in time.

    python tests/benchmarks/methods.py OUT.csv --cifar DIR --work DIR [--only alone,half,...]

DIR of `--cifar` holds cifar10-train.parquet, cifar10-val.parquet and cifar10-test.parquet (columns
`image` and `label`), and weights of the CIFAR ResNets, resnet20-cifar10jpeg.safetensors and
resnet56-cifar10jpeg.safetensors. Every row is one `harness.compress`, kept below `--work`: what is
done is not done again, and an interrupted training goes on. Parts:

    alone       each method by itself on ResNet-20: as it is, batch norms recalibrated where
                channels or layers went, and after EPOCHS epochs of distillation on a PART of the
                training rows
    together    pruning + distillation, with int8, with quantisation-aware training before it
    depth       dropped blocks against thinner ones at about the same measured latency
    criteria    each importance criterion, uniform and global, 70 % of the parameters, no training
    student     ResNet-56 to the small CNN, with and without distillation, three seeds
    half        50 % of ResNet-20's parameters, distilled for HALF_EPOCHS epochs
    precision   int8, int8-dynamic and fp16 on networks of other kinds, trained here for an epoch

Ratios are after/before, interleaved in fresh processes, with 95 % intervals; changes of accuracy
are on the 7,000 test rows, paired, in points. Rows that a flag blocks are marked in `flags`.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
import harness.errors
from harness.cli.progress import shown_progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness_results.compression_report import Report

EPOCHS, HALF_EPOCHS, STUDENT_EPOCHS = 3, 40, 15
PART, STUDENT_PART = 0.2, 0.4
"""Shares of the 50,000 training rows that short trainings see, so that two cores can repeat it."""
COLUMNS = (
    "part", "row", "model", "steps", "seed", "params_ratio", "nonzeros_ratio", "macs_ratio",
    "size_ratio", "memory_ratio", "p50_before_ms", "p50_ratio", "p50_lo", "p50_hi", "acc_before",
    "acc_after", "change_pt", "change_lo_pt", "change_hi_pt", "step_s", "flags",
    "commit",
)  # fmt: skip
_LAST_BLOCKS = "layer1.2+layer2.2+layer3.2"
_INNER = tuple(f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in (0, 1, 2))


@dataclass(frozen=True)
class Row:
    """One compression of the table."""

    part: str
    name: str
    steps: tuple[str, ...]
    model: str = "resnet20"
    data: str = "cifar"
    seed: int = 0
    share: float = PART
    recipe: dict[str, Any] = field(default_factory=dict)


def alone() -> Iterator[Row]:
    """Yield each method by itself."""
    structural = {
        "width, any channel count": "prune:params=50%,granule=1",
        "width": "prune:params=50%,granule=8",
        "width, uniform": "prune:params=50%,granule=8,scope=uniform",
        "depth": "depth:params=50%",
        "low rank, channel": "low-rank:params=50%,granule=1",
        "low rank, channel, steps of 8": "low-rank:params=50%,granule=8",
        "low rank, spatial": "low-rank:params=50%,granule=1,scheme=spatial",
        "low rank, spatial, steps of 8": "low-rank:params=50%,granule=8,scheme=spatial",
    }
    for name, step in structural.items():
        yield Row("alone", name, (step, "recalibrate"))
        yield Row("alone", f"{name}, distilled", (step, f"distil:epochs={EPOCHS}"))
    sparse = {
        "50 % zeros": "sparsify:zeros=50%",
        "50 % zeros, random": "sparsify:zeros=50%,criterion=random",
        "2:4": "sparsify:pattern=2:4",
    }
    for name, step in sparse.items():
        yield Row("alone", name, (step,))
        yield Row("alone", f"{name}, distilled", (step, f"distil:epochs={EPOCHS}"))
    yield Row("alone", "distilled only", (f"distil:epochs={EPOCHS}",))
    for name in ("fp16", "int8", "int8-dynamic"):
        yield Row("alone", name, (name,))
    yield Row("alone", "quantisation-aware, int8", ("qat", "int8"))
    yield Row("alone", "norms folded", ("rewrite:only=norms",))


def together() -> Iterator[Row]:
    """Yield combinations."""
    pruned = ("prune:params=50%,granule=8", f"distil:epochs={EPOCHS}")
    yield Row("together", "pruned, distilled, int8", (*pruned, "int8"))
    yield Row("together", "pruned, distilled, qat, int8", (*pruned, "qat", "int8"))
    yield Row("together", "pruned, fine-tuned", (pruned[0], f"distil:epochs={EPOCHS},weight=0"))
    attention = f"distil:epochs={EPOCHS},features=attention"
    yield Row("together", "pruned, distilled with attention", (pruned[0], attention))


def depth() -> Iterator[Row]:
    """Yield dropped blocks and thinner ones that take about as long."""
    distil = f"distil:epochs={EPOCHS}"
    yield Row("depth", "one block of three dropped", (f"depth:blocks={_LAST_BLOCKS}", distil))
    yield Row("depth", "two blocks of the first stage dropped",
              ("depth:blocks=layer1.1+layer1.2", distil))  # fmt: skip
    for widths in ((8, 16, 16), (8, 8, 32)):
        inner = "+".join(f"{name}={widths[int(name[5]) - 1]}" for name in _INNER)
        yield Row("depth", f"inner widths {'/'.join(map(str, widths))}",
                  (f"prune:scope=layers,layers={inner}", distil))  # fmt: skip
    for share in (40, 50, 60):
        inner = "+".join(f"{name}={share}%" for name in _INNER)
        step = f"prune:scope=layers,layers={inner}"
        yield Row("depth", f"inner widths at {share} %", (step, distil))


def criteria() -> Iterator[Row]:
    """Yield each importance criterion without any training."""
    for criterion in ("l2", "l1", "bn_scale", "taylor", "activation", "fpgm", "random"):
        for scope in ("uniform", "global"):
            step = f"prune:params=70%,granule=1,criterion={criterion},scope={scope}"
            yield Row("criteria", f"{criterion}, {scope}", (step, "recalibrate"))


def student() -> Iterator[Row]:
    """Yield a quite different student."""
    for weight, name in ((0.0, "labels only"), (0.7, "distilled")):
        for seed in range(3):
            distil = f"distil:epochs={STUDENT_EPOCHS},lr=0.002,weight={weight},views=5"
            steps = ("student:model=small-cnn", distil)
            yield Row("student", name, steps, model="resnet56", seed=seed, share=STUDENT_PART)


def half() -> Iterator[Row]:
    """Yield half of ResNet-20's parameters: most are in the last stage's inner channels."""
    inner = "+".join(f"layer3.{block}.conv1=24" for block in (0, 1, 2))
    inner += "+layer2.1.conv1=24+layer2.2.conv1=24"
    distil = (
        f"distil:epochs={HALF_EPOCHS},lr=0.05,temperature=4,weight=0.9,augment=flip+shift,views=8"
    )
    yield Row("half", "50 % of the parameters", (f"prune:scope=layers,layers={inner}", distil),
              share=1, recipe={"optimizer": "sgd", "weight_decay": 5e-4})  # fmt: skip


def precision() -> Iterator[Row]:
    """Yield precisions on networks of other kinds."""
    short = {"teacher_epochs": 1}
    for model in ("small-cnn", "vgg16", "mobilenetv2", "vit"):
        for step in ("int8", "int8-dynamic", "fp16"):
            yield Row("precision", f"{model}, {step}", (step,), model=model, recipe=short)


PARTS = {
    "half": half, "alone": alone, "together": together, "depth": depth, "criteria": criteria,
    "student": student, "precision": precision,
}  # fmt: skip


def run(row: Row, cifar: Path, work: Path) -> dict[str, Any]:
    """Compress as a row says, and return its line of the table."""
    weights = cifar / f"{row.model}-cifar10jpeg.safetensors"
    data = ",".join(f"{s}={cifar}/cifar10-{s}.parquet" for s in ("train", "val", "test"))
    with shown_progress() as progress:
        done = harness.compress(
            row.model, f"{data},normalize=imagenet", steps=row.steps, target="cpu", seed=row.seed,
            weights=weights if row.model.startswith("resnet") else None, recipe=row.recipe,
            train_fraction=None if row.share == 1 else row.share, results=work,
            progress=progress,
        )  # fmt: skip
    return line(row, done.report)


def line(row: Row, report: Report) -> dict[str, Any]:
    """Return a report as a line of the table."""
    before, after, change = report.before, report.after, report.change["test"]
    ratio = after["latency"]["ratio_p50"]
    memory = [side["latency"]["peak_mem_bytes"] for side in (before, after)]
    points = {key: round(100 * change[key], 2) for key in ("value", "lo", "hi")}
    return {
        "part": row.part, "row": row.name, "model": row.model, "steps": " ".join(row.steps),
        "seed": row.seed, "params_ratio": round(after["params"] / before["params"], 4),
        "nonzeros_ratio": round(after["nonzeros"] / before["nonzeros"], 4),
        "macs_ratio": round(after["macs"] / before["macs"], 4),
        "size_ratio": round(after["size_bytes"] / before["size_bytes"], 4),
        "memory_ratio": None if None in memory else round(memory[1][0] / memory[0][0], 4),
        "p50_before_ms": round(1e3 * before["latency"]["p50_s"][0], 4),
        "p50_ratio": round(ratio[0], 4), "p50_lo": round(ratio[1], 4), "p50_hi": round(ratio[2], 4),
        "acc_before": round(before["scores"]["test"]["value"], 4),
        "acc_after": round(after["scores"]["test"]["value"], 4),
        "change_pt": points["value"], "change_lo_pt": points["lo"], "change_hi_pt": points["hi"],
        "step_s": round(sum(step["seconds"] for step in report.steps), 1),
        "flags": " ".join(report.flags), "commit": (report.git["commit"] or "")[:7],
    }  # fmt: skip


def main() -> None:
    """Run the parts asked for and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, joined by commas")
    args = parser.parse_args()
    rows = [row for part in args.only.split(",") for row in PARTS[part]()]
    lines = []
    for row in rows:
        print(f"{row.part}: {row.name}, seed {row.seed}", file=sys.stderr)
        try:
            lines.append(run(row, args.cifar, args.work))
        except harness.errors.HarnessError as exc:  # the table goes on without it, and says so
            print(f"failed: {exc}", file=sys.stderr)
            told = {"part": row.part, "row": row.name, "model": row.model, "seed": row.seed}
            lines.append({**told, "steps": " ".join(row.steps), "flags": str(exc)})
        with args.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(lines)


if __name__ == "__main__":
    main()

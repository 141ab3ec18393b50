"""One row of a sensitivity analysis: accuracy and loss in torch, time on the target."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from harness.budget import Budget
from harness.errors import (
    BackendError,
    CandidateFailed,
    DeviceLost,
    ExportError,
    HarnessError,
    MeasurementError,
    TaskError,
)
from harness.export import layer_macs
from harness.measurement.plans import probe_plan
from harness.models.finals import finished
from harness.quantity import INSTRUCTIONS, TIME
from harness.training import predict
from harness_results.sensitivity_table import SensitivityRow, has_time, measured_fields

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from harness.data.split import Split
    from harness.quantity import Quantity
    from harness.tasks.objective import Arrays
    from harness_search.cuts import Cut
    from harness_search.workbench import Workbench

_AS_DENSE = Budget("share", 1.0, "p50", "100%")
"""A pair is timed until it is known which of the two is faster, or its plan ends."""
_ALL_S = 120.0
"""All cuts are timed where that takes no longer, else the middle one of each group."""
_EMULATOR_START_S, _EMULATED_PER_S = 4.0, 2e8
"""What an emulator takes to load a runtime, and how many instructions a second it executes: the
order of magnitude."""


class Measurer:
    """Holds cut networks against the dense one.

    Args:
        bench: The session, its network trained and exported.
        criterion: Chooses the channels.
        samples: Validation samples at most, drawn at random: folders come class by class.
    """

    def __init__(self, bench: Workbench, criterion: str, samples: int) -> None:
        self._bench, self._criterion = bench, criterion
        self._split = _some(bench.task.data.validation, samples, bench.seed("sensitivity"))
        self._dense = self._outputs(bench.network)
        self._loss = bench.score(self._dense, self._split).loss
        self._size = self._sizes(bench.network)

    def measure(self, cut: Cut, known: SensitivityRow | None, timed: bool) -> SensitivityRow:
        """Return a cut's row; what fails is told in it.

        Args:
            cut: What to remove.
            known: Its row of an earlier session, of which the accuracy is kept.
            timed: Whether to time it.

        Raises:
            DeviceLost: If the process or board that times went away: no fault of the cut's, so it
                is to be measured again.
            CandidateFailed: If it is the dense network that the runtime fails on.
        """
        row = SensitivityRow(
            cut.kind, cut.name, cut.width, cut.kept, cut.ratio,
            None if cut.kind == "block" else self._criterion,
            self._bench.task.objective.metric.name, len(self._split),
        )  # fmt: skip
        if known is not None and known.val_acc_change is not None:
            row = replace(known, reason=None)
        try:
            network = cut.make(self._bench, self._criterion)
            if row.val_acc_change is None:
                row = replace(row, **self._judged(network))
            return replace(row, **self._timed(network)) if timed else row
        except DeviceLost:
            raise
        except CandidateFailed as exc:
            if exc.subject == "dense":
                raise
            return self._failed(cut, row, exc)
        except (BackendError, ExportError, MeasurementError, TaskError) as exc:
            return self._failed(cut, row, exc)

    def _failed(self, cut: Cut, row: SensitivityRow, exc: HarnessError) -> SensitivityRow:
        self._bench.progress.note(f"{cut.describe()}: {exc}")
        return replace(row, reason=f"{type(exc).__name__}: {exc}")

    def _judged(self, network: nn.Module) -> dict[str, Any]:
        task, size = self._bench.task, self._sizes(network)
        outputs = self._outputs(network)
        score = self._bench.score(outputs, self._split)
        change = task.objective.change(self._dense, outputs, self._split)
        return {
            "val_acc": score.value, "val_acc_change": change.value,
            "val_acc_change_lo": change.lo, "val_acc_change_hi": change.hi,
            "val_loss": score.loss, "val_loss_change": score.loss - self._loss,
            "params_saved": self._size[0] - size[0], "macs_saved": self._size[1] - size[1],
        }  # fmt: skip

    def _timed(self, network: nn.Module) -> dict[str, Any]:
        """Measure a network beside the dense one on the target."""
        bench = self._bench
        with bench.lock.shared():
            model = bench.export(network, bench.model_path("probe.onnx"))
        measured = bench.timed({"candidate": model}, _AS_DENSE, probe_plan(bench.target))
        dense, ratio = measured["dense"].stats, measured["candidate"].stats.ratio("p50")
        return {
            **measured_fields(
                dense.quantity, dense.p50.value, (ratio.value, ratio.lo, ratio.hi)
            ),
            "target": bench.target.name, "fingerprint": bench.provenance["fingerprint"],
            "flags": measured["candidate"].flags,
        }  # fmt: skip

    def _outputs(self, network: nn.Module) -> Arrays:
        """Return what the network's file would give on the samples, computed in torch."""
        whole = finished(network, self._bench.task.network.finals)
        try:
            with self._bench.lock.shared():
                return predict(whole, self._split.chunks())
        except HarnessError:
            raise
        except Exception as exc:  # the network's own code raises what it likes
            raise TaskError(f"The network doesn't run on the validation split: {exc}") from exc

    def _sizes(self, network: nn.Module) -> tuple[int, int]:
        """Return a network's parameters, and its multiply-accumulates for one sample."""
        parameters = sum(tensor.numel() for tensor in network.parameters())
        return parameters, sum(layer_macs(network, self._bench.example[:1]).values())


def _some(split: Split, samples: int, seed: int) -> Split:
    if len(split) <= samples:
        return split
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    return split.take(order[:samples].sort().values)


def lacks(row: SensitivityRow, timed: bool) -> bool:
    """Whether a row of an earlier session is to be measured again.

    What failed is tried anew, and so is a timing that was disturbed: whoever runs the command again
    may have seen to the cause.

    Args:
        row: What is known.
        timed: Whether it is to have a time, too.
    """
    return row.val_acc_change is None or (timed and not has_time(row))


def affords_all(pairs: int, rows: Iterable[SensitivityRow]) -> bool:
    """Whether measuring so many pairs takes two minutes at most, by the dense p50 in some rows."""
    seen = [row for row in rows if row.dense is not None]
    costs = [pair_cost_s(row.dense or 0.0, row.quantity) for row in seen]
    return bool(costs) and pairs * statistics.median(costs) <= _ALL_S


def pair_cost_s(dense: float, quantity: Quantity = TIME) -> float:
    """Return what timing a pair takes, seconds: a process, and two models' warm-up and sittings.

    About ten rounds of warm-up and twelve sittings of three rounds, a round being ten milliseconds
    or three calls of each model. Where instructions are counted: a process of an emulator, and
    three sittings of a fresh session, its first call and five more of each model.
    """
    if quantity is INSTRUCTIONS:
        return _EMULATOR_START_S + 2 * 3 * (1 + 1 + 5) * dense / _EMULATED_PER_S
    return 0.6 + 2 * (0.25 + (10 + 12 * 3) * max(0.01, 3 * dense))

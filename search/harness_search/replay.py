"""Rebuild a recorded network from pruning history and weights; check that it is the same."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from harness.candidate import OnnxModel
from harness.compression.depth.blocks import drop_blocks
from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.prune import prune
from harness.errors import ConfigError, HarnessError
from harness.export import Parity, check_parity, layer_macs
from harness.measurement.hostlock import HostLock
from harness.models.finals import finished
from harness.target import Target
from harness.tasks import shipped_task
from harness.tasks.spec import build_task, spec_of_source
from harness.training import predict
from harness_backends.registry import open_backend
from harness_backends.targets import load_targets
from harness_results.store import find_record
from harness_search.inference import file_outputs

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from harness.tasks.base import Task
    from harness_results.record import RunRecord

_INTEGERS = 0.01
"""Of the largest output: rounding to integers may fall elsewhere on another CPU."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay found.

    Attributes:
        record: The record replayed.
        parity: The rebuilt network's outputs against the recorded file's, on validation samples.
        macs: Multiply-accumulates of the rebuilt network.
    """

    record: RunRecord
    parity: Parity
    macs: int

    @property
    def same(self) -> bool:
        """Whether the rebuilt network is the recorded one.

        Integers keep a file away from its network: there it has to be about as far as it was.
        """
        if not self.parity.passed or self.macs != self.record.model["macs"]:
            return False
        error, then = self.parity.max_error, self.recorded_error
        return error is None or then is None or abs(error - then) <= _INTEGERS

    @property
    def recorded_error(self) -> float | None:
        """How far a file that computes in integers was from its network; None for all others."""
        if self.record.parity is None or self.parity.precision in ("fp32", "fp16"):
            return None
        error: float | None = self.record.parity["max_error"]
        return error


def replay(results: Path, run_id: str, task: Task | None = None) -> Replay:
    """Rebuild the network of a record: dense model, pruning history, weights; compare outputs.

    Args:
        results: The results folder.
        run_id: Which record.
        task: The task, where it was given as Python objects; None to make it from the record.

    Raises:
        ConfigError: If there is no such record, its model was not kept, its file was changed, or
            its task is another one (other data, another network) or can't be made again.
    """
    folder, record = find_record(results, run_id)
    if record.model.get("onnx") is None:
        raise ConfigError(
            f"{run_id} is a network that was never trained ({record.status}), so no model was "
            "kept. Replay a complete trial or a final."
        )
    task = task if task is not None else _task(record)
    if task.data.sha256 != record.task["data_sha256"]:
        raise ConfigError(
            f"The data of task {record.task['name']!r} is not that of {run_id}: its hash differs. "
            "Restore the files as they were."
        )
    example = task.example_input(1)
    network = _rebuilt(task, record, folder.path / record.model["weights"])
    info = record.model
    model = OnnxModel(folder.path / info["onnx"], info["sha256"], info["size_bytes"], info["opset"])
    model.read()
    options = {f.name: record.target[f.name] for f in fields(Target) if f.name in record.target}
    # As many samples as were scored: a board may be too slow for all.
    scored = min(record.scores["validation"]["n"], len(task.data.validation))
    split, source = task.data.validation.take(torch.arange(scored)), task.network
    backend, lock = open_backend(_where_it_is(Target(**options))), HostLock()
    outputs = file_outputs(backend, backend.device_lock(lock), model, split, source.input_name)
    with lock.shared():
        expected = predict(finished(network, source.finals), split.chunks())
    parity = check_parity(
        expected, outputs, task.objective.classifies, record.candidate["precision"]
    )
    return Replay(record, parity, sum(layer_macs(network, example).values()))


def _where_it_is(target: Target) -> Target:
    """Return a recorded target with what the record leaves out: where its board is."""
    known = load_targets().get(target.name)
    if known is None:
        return target
    return replace(target, board=known.board, hosts=known.hosts, python=known.python)


def _rebuilt(task: Task, record: RunRecord, weights: Path) -> nn.Module:
    """Return the dense network, pruned as recorded, with the recorded weights.

    Other initial weights of the same structure will do: the recorded ones take their place.
    """
    dense, example = task.model(), task.example_input(1)
    try:
        fewer = drop_blocks(dense, record.candidate["blocks"])
        network = prune(fewer, pruning_graph(fewer, example), example, record.pruning or {})
        network.load_state_dict(load_file(str(weights)))
    except (OSError, SafetensorError, RuntimeError, HarnessError) as exc:
        if task.model_sha256() != record.task["model_sha256"]:
            raise ConfigError(
                f"The network of task {record.task['name']!r} is not the one that "
                f"{record.run_id} was pruned from: its hash differs. Restore the files that it is "
                f"made from as they were. Found: {exc}"
            ) from exc
        if isinstance(exc, HarnessError):
            raise
        raise ConfigError(f"{weights} doesn't hold the weights of {record.run_id}: {exc}") from exc
    return network


def _task(record: RunRecord) -> Task:
    """Return the task of a record, made again from what it was made from."""
    source = record.task["source"]
    if not source:
        raise ConfigError(
            f"The task of {record.run_id} was given as Python objects, so it can't be made again "
            "from here. Call `harness.replay` with the same model and data."
        )
    return shipped_task(source["task"]) if "task" in source else build_task(spec_of_source(source))

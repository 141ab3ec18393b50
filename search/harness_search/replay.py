"""Rebuild a recorded network from pruning history and weights; check that it is the same."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file

from harness.candidate import OnnxModel
from harness.compression.graph import pruning_graph
from harness.compression.prune import prune
from harness.errors import ConfigError
from harness.export import Parity, check_parity, layer_macs
from harness.measurement.hostlock import HostLock
from harness.target import Target
from harness.tasks import task_class
from harness.training import predict
from harness_backends.registry import open_backend
from harness_results.store import find_record
from harness_search.inference import file_outputs

if TYPE_CHECKING:
    from pathlib import Path

    from harness_results.record import RunRecord


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
        """Whether the rebuilt network is the recorded one."""
        return self.parity.passed and self.macs == self.record.model["macs"]


def replay(results: Path, run_id: str) -> Replay:
    """Rebuild the network of a record: dense model, pruning history, weights; compare outputs.

    Raises:
        ConfigError: If there is no such record, its model was not kept, or its file was changed.
    """
    folder, record = find_record(results, run_id)
    if record.model.get("onnx") is None:
        raise ConfigError(
            f"{run_id} is a network that was never trained ({record.status}), so no model was "
            "kept. Replay a complete trial or a final."
        )
    task = task_class(record.task["name"])()
    if task.data_sha256() != record.task["data_sha256"]:
        raise ConfigError(f"The data of task {record.task['name']!r} is not that of {run_id}.")
    example = task.example_input(1)
    dense = task.model()
    network = prune(dense, pruning_graph(dense, example), example, record.pruning or {})
    weights = folder.path / record.model["weights"]
    try:
        network.load_state_dict(load_file(str(weights)))
    except (OSError, SafetensorError, RuntimeError) as exc:
        raise ConfigError(f"{weights} doesn't hold the weights of {run_id}: {exc}") from exc
    info = record.model
    model = OnnxModel(folder.path / info["onnx"], info["sha256"], info["size_bytes"], info["opset"])
    model.read()
    options = {f.name: record.target[f.name] for f in fields(Target) if f.name in record.target}
    inputs = task.validation().inputs.numpy()
    with HostLock().shared():
        outputs = file_outputs(open_backend(Target(**options)), model, inputs)
        parity = check_parity(predict(network, inputs), outputs)
    return Replay(record, parity, sum(layer_macs(network, example).values()))

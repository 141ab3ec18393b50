"""What any work on a task needs: export, timing, inference, scoring, and the dense network."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.atomic import write_atomic
from harness.bfloat16 import bfloat16_is_faster
from harness.compression.quantisation.convert import converted, takes_full_range
from harness.compression.quantisation.precision import FP32
from harness.compression.rewriting.onnx_graph import simplified
from harness.errors import ConfigError
from harness.export import check_parity, export_onnx
from harness.measurement.hostlock import HostLock
from harness.measurement.rounds import measure
from harness.measurement.types import Subject
from harness.models.finals import finished
from harness.provenance import fingerprint, git_state, versions
from harness.tasks.part import training_part
from harness.training import predict, predict_tensors, use_all_cores
from harness_backends.registry import facts_of, open_backend
from harness_search.inference import file_outputs
from harness_search.preflight import task_facts
from harness_search.scored import affordable_data

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from harness.budget import Budget
    from harness.candidate import OnnxModel
    from harness.compression.quantisation.precision import Precision
    from harness.data.split import Split
    from harness.measurement.rounds import Plan
    from harness.measurement.types import LatencySample, Measurement
    from harness.target import Target
    from harness.tasks.base import Task
    from harness.tasks.objective import Arrays
    from harness.tasks.score import Score
    from harness.training import Views
    from harness_backends.base import Backend, DeviceLock
    from harness_search.progress import Progress


@dataclass(kw_only=True)
class Tools:
    """A task on a target, and what can be done with its networks.

    Attributes:
        task: Model and data.
        target: Where networks are timed.
        root_seed: Of everything random.
        backend: Times and infers on the target.
        lock: This host's; what trains holds it.
        device_lock: The lock of the machine that times, which may be this one.
        progress: Told what is going on.
        network: The dense network; trained once the teacher is there.
        facts: What the worker said of itself and its machine.
        provenance: Versions, fingerprint and commit, and what a record says of the task.
        dense: The dense network's export: the reference of every measurement.
    """

    task: Task
    target: Target
    root_seed: int
    backend: Backend
    lock: HostLock
    device_lock: DeviceLock
    progress: Progress
    network: nn.Module
    facts: Mapping[str, Any]
    provenance: Mapping[str, Any]
    dense: OnnxModel = field(init=False)
    _timings: int = 0
    _teacher: dict[tuple[int, int], Views] = field(default_factory=dict)
    _train: Split | None = None

    @property
    def example(self) -> torch.Tensor:
        """One batch of real samples, as the target runs it."""
        return self.task.example_input(self.target.batch)

    def train_split(self) -> Split:
        """Return what candidates are trained on: all training samples, or the part asked for."""
        if self._train is None:
            with self.lock.shared():
                self._train = training_part(self.task, self.network, self.seed("reduction"))
        return self._train

    def export(
        self,
        network: nn.Module,
        path: Path,
        precision: Precision = FP32,
        simplify: bool = False,
    ) -> OnnxModel:
        """Write a network as ONNX at the target's batch, with the interface that its user knows.

        Args:
            network: Float32.
            path: Where the file goes.
            precision: What the file computes in.
            simplify: Whether dead, doubled and idle nodes are taken out.

        Raises:
            ExportError: If the network can't be exported, or not in this precision.
        """
        source, whole = self.task.network, finished(network, self.task.network.finals)
        made = export_onnx(whole, self.example, path, source.input_name, source.output_names)
        if precision.name == FP32.name and not simplify:
            return made
        data = path.read_bytes()
        if simplify:
            data, counts = simplified(data)
            done = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
            self.progress.note(f"taken out of the file: {done or 'nothing'}")
        if precision.name != FP32.name:
            data = self._converted(data, precision)
        write_atomic(path, data)
        return replace(made, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))

    def _converted(self, data: bytes, precision: Precision) -> bytes:
        """Return a float32 file in another precision, calibrated on training samples."""
        split, flags = self.task.data.train, self.facts["machine"]["cpu_flags"]
        rng = torch.Generator().manual_seed(self.seed("calibration"))
        rows = torch.randperm(len(split), generator=rng)[: precision.calibration]
        with self.lock.shared():
            return converted(
                data, precision, split.batch(rows).numpy(), self.task.network.input_name,
                takes_full_range(flags),
            )  # fmt: skip

    def timed(
        self, models: Mapping[str, OnnxModel], budget: Budget, plan: Plan
    ) -> dict[str, Measurement]:
        """Time models under a budget, interleaved with the dense one, which is `"dense"`."""
        inputs = self.inputs()
        subjects = {
            name: Subject(model, inputs, budget)
            for name, model in {"dense": self.dense, **models}.items()
        }
        self._timings += 1  # every measurement has an order of its own
        seed = self.seed("order", self._timings)
        alone = self.device_lock.exclusive
        return measure(
            self.backend.open, subjects, "dense", plan, alone, seed, self.backend.more_places()
        )

    def inputs(self) -> dict[str, NDArray[Any]]:
        """Return what a model is fed while it is timed."""
        return {self.task.network.input_name: self.example.numpy()}

    def outputs(self, model: OnnxModel, split: Split) -> Arrays:
        """Return all outputs, each `[N, ...]`, of an exported file on a split."""
        name = self.task.network.input_name
        return file_outputs(self.backend, self.device_lock, model, split, name)

    def parity(
        self, network: nn.Module, got: Arrays, split: Split, precision: Precision = FP32
    ) -> dict[str, Any]:
        """Hold a file's outputs against its network's; return it as in a record."""
        with self.lock.shared():
            expected = predict(finished(network, self.task.network.finals), split.chunks())
        found = check_parity(expected, got, self.task.objective.classifies, precision.name)
        return {**asdict(found), "passed": found.passed}

    def score(self, outputs: Arrays, split: Split) -> Score:
        """Score outputs that a file gave on a split."""
        return self.task.score(outputs, split)

    def teacher(self, split: Split) -> Callable[[int], Views]:
        """Return what gives the dense network's outputs on a view of a split, computed once.

        Without augmentation all views are one.
        """

        def outputs(view: int) -> Views:
            key = (len(split), view if split.augmentation is not None else 0)
            if key not in self._teacher:
                with self.lock.shared():
                    self._teacher[key] = predict_tensors(self.network, split.chunks(view=view))
            return self._teacher[key]

        return outputs

    def seed(self, *parts: Any) -> int:
        """Return a seed that depends on the root seed and `parts` alone."""
        return derived_seed(self.root_seed, *parts)


def open_tools(
    target: Target,
    seed: int,
    task: Task,
    progress: Progress,
    scored: Sequence[int] | None = None,
) -> Tools:
    """Ask the target what it is; write only to caches.

    Seeds torch and lets it use all cores: call it within `torch_kept`.

    Args:
        target: Where networks are timed.
        seed: Of everything random.
        task: Model and data.
        progress: Told what is going on.
        scored: How many validation and test samples a far device scores, where the work was begun
            with that.

    Raises:
        ConfigError: If the target fixes other shapes than the task's.
    """
    progress.phase("asking the target what it is")
    use_all_cores()
    torch.default_generator.manual_seed(seed)  # the CPU's alone: others are the caller's
    lock = HostLock()
    with lock.shared():
        bfloat16_is_faster()  # measured at the first time, with all cores
    target = _at_shape(target, task)
    backend = open_backend(target)
    backend.report_to(progress.phase)
    device_lock = backend.device_lock(lock)
    facts = facts_of(backend, device_lock)
    provenance = {
        "versions": versions(facts), "fingerprint": fingerprint(target, facts),
        "git": git_state(Path.cwd()), "task": task_facts(task),
    }  # fmt: skip
    tools = Tools(
        task=task, target=target, root_seed=seed, backend=backend, lock=lock,
        device_lock=device_lock, progress=progress,
        network=task.model(), facts=facts, provenance=provenance,
    )  # fmt: skip
    if backend.far:
        data, notes = affordable_data(tools, scored)
        tools.task = replace(task, data=data, notes=(*task.notes, *notes))
    return tools


def _at_shape(target: Target, task: Task) -> Target:
    """Return the target with the task's input shape: it enters the fingerprint."""
    shapes = {task.network.input_name: tuple(task.example_input(target.batch).shape)}
    if target.shapes and target.shapes != shapes:
        raise ConfigError(
            f"Target {target.name!r} fixes the shapes {dict(target.shapes)}; the task's network "
            f"takes {shapes}. Leave the target's shapes out: they are for `harness bench`."
        )
    return replace(target, shapes=shapes)


def derived_seed(*parts: Any) -> int:
    """Return 31 bits of SHA-256 over `parts`: the same in every session."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def samples_of(phase: str, measured: Mapping[str, Measurement], name: str) -> dict[str, Any]:
    """Return the raw samples of a model and of the reference beside it, named for the store."""
    found: dict[str, tuple[LatencySample, ...]] = {f"{phase}.candidate": measured[name].samples}
    if name != "dense":
        found[f"{phase}.reference"] = measured["dense"].samples
    return found

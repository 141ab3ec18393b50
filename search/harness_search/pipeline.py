"""A pipeline of compression steps: each is settled, done, and kept before the next begins."""

from __future__ import annotations

import copy
import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from harness.atomic import write_atomic
from harness.compression.steps.base import Context, Work
from harness.errors import ConfigError, TaskError
from harness.models.finals import finished
from harness.models.saving import save_weights
from harness.training import predict
from harness_results.compression import DECISION, OUTCOME
from harness_results.compression_report import read_json
from harness_search.granule import find_granule

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

    from harness.compression.steps.base import Decision, Step
    from harness.tasks.score import Score
    from harness_results.compression import CompressionFolder
    from harness_search.tools import Tools

_WEIGHTS = "weights.safetensors"
_TOLD = ("decision", "validation", "params", "seconds")
"""What an outcome must hold for the pipeline to go on from it."""
_SPREAD = 0.1
"""Of random numbers in the place of zeros."""
_SCRATCH = "scratch"
"""Where a step keeps what an interrupted one goes on from; removed once it is done."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step did.

    Attributes:
        step: Which.
        decision: What it settled.
        validation: The float32 network's score on the validation split after it.
        params: Parameters after it.
        seconds: Wall seconds that it took, all sessions together.
    """

    step: Step
    decision: Decision
    validation: dict[str, Any]
    params: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return it as a report holds it."""
        return {
            "name": self.step.name, "text": self.step.text(), "options": self.step.options(),
            "decision": self.decision, "validation": self.validation, "params": self.params,
            "seconds": self.seconds,
        }  # fmt: skip


def check_order(steps: Sequence[Step]) -> None:
    """Check that steps can follow each other.

    Raises:
        ConfigError: If there is none, or one stands where it would undo or ignore another.
    """
    if not steps:
        raise ConfigError("A compression needs at least one `--step`, such as 'prune:params=50%'.")
    for index, step in enumerate(steps):
        if step.name == "student" and index:
            raise ConfigError(
                f"Step 'student' replaces the network, so what {steps[index - 1].name!r} did "
                "before it would be lost. Put it first."
            )
        if step.is_precision and index + 1 < len(steps):
            raise ConfigError(
                f"Step {step.name!r} fixes what the file computes in, so it must be the last one. "
                f"Received {steps[index + 1].name!r} after it."
            )
    names = [step.name for step in steps]
    if "distil" in names[_last_qat(names) :]:
        raise ConfigError(
            "Step 'distil' after 'qat' trains without the rounding of int8, so what 'qat' fitted "
            "to it would be lost. Put 'distil' before 'qat', which imitates the dense network, too."
        )


def notes_on(steps: Sequence[Step]) -> tuple[str, ...]:
    """Return what a user should know of steps that can follow each other."""
    names = [step.name for step in steps]
    if "qat" in names and not names[-1].startswith("int8"):
        return (
            "'qat' trains for int8, but no step 'int8' follows: the file won't compute in it. Add "
            "`--step int8`, or leave 'qat' out",
        )
    return ()


def _last_qat(names: Sequence[str]) -> int:
    """Return the place of the last step `qat`; the end where there is none."""
    return max((place for place, name in enumerate(names) if name == "qat"), default=len(names))


def foresee_steps(tools: Tools, steps: Sequence[Step]) -> None:
    """Check steps against the network's structure, before it is trained and anything is written.

    It goes as far as the first step of which only the work itself shows what it leaves.

    Raises:
        HarnessError: As the step does.
    """
    tools.progress.phase("checking the steps against the network")
    work: Work | None = Work(tools.network)
    with tools.lock.shared(), torch.random.fork_rng(devices=[]):
        for index, step in enumerate(steps):
            if work is None:
                break
            work = replace(work, module=_alive(work.module))
            context = Context(tools.task, tools.network, tools.seed("step", index))
            work = step.foresee(work, context)


def _alive(module: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode that has random numbers for tensors of zeros.

    Some networks begin with branches or a last layer of zeros, so that nothing depends on anything
    before they are trained.
    """
    alive, rng = copy.deepcopy(module).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in alive.parameters():
            if parameter.is_floating_point() and not parameter.any():
                parameter.copy_(_SPREAD * torch.randn(parameter.shape, generator=rng))
    return alive


def run_steps(
    tools: Tools, folder: CompressionFolder, steps: Sequence[Step]
) -> tuple[Work, list[Outcome]]:
    """Apply steps one after the other to the trained dense network, or go on where they stopped.

    A step that is done has left its decision, its weights and its outcome in its folder. Its
    structure is then rebuilt from the decision and its weights are loaded.

    Raises:
        HarnessError: As the step does.
    """
    work, outcomes = Work(tools.network), []
    for index, step in enumerate(steps):
        own = folder.step(index, step.name)
        context = _context(tools, own / _SCRATCH, index)
        tools.progress.phase(f"step {index + 1} of {len(steps)}: {step.name}")
        if (own / OUTCOME).exists():
            work, outcome = _restored(own, step, work, context)
            tools.progress.note(f"step {index + 1}, {step.name}: done before")
        else:
            work, outcome = _done(tools, own, step, work, context)
        outcomes.append(outcome)
    return work, outcomes


def _context(tools: Tools, scratch: Path, index: int) -> Context:
    return Context(
        task=tools.task, teacher=tools.network, seed=tools.seed("step", index),
        part_seed=tools.seed("reduction"),
        listener=tools.progress, granule=lambda: _granule(tools), shared=tools.lock.shared,
        breathe=tools.lock.breathe, folder=scratch,
    )  # fmt: skip


def _granule(tools: Tools) -> int:
    return find_granule(tools.backend, tools.facts, None, tools.lock, tools.progress)


def _done(
    tools: Tools, folder: Path, step: Step, work: Work, context: Context
) -> tuple[Work, Outcome]:
    started = time.monotonic()
    (folder / _SCRATCH).mkdir(parents=True, exist_ok=True)
    settled = folder / DECISION
    if settled.exists():
        kept = read_json(settled, ("decision", "seconds"))
        decision, before_s = kept["decision"], kept["seconds"]
    else:
        decision, before_s = step.decide(work, context), 0.0
        _write(settled, {"decision": decision, "seconds": time.monotonic() - started})
    work = step.apply(work, decision, context)
    save_weights(work.module, folder / _WEIGHTS)
    outcome = Outcome(
        step, decision, asdict(_score(tools, work.module)), count_parameters(work.module),
        before_s + time.monotonic() - started,
    )  # fmt: skip
    _write(folder / OUTCOME, outcome.as_json())
    shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
    return work, outcome


def _restored(folder: Path, step: Step, work: Work, context: Context) -> tuple[Work, Outcome]:
    told, path = read_json(folder / OUTCOME, _TOLD), folder / _WEIGHTS
    rebuilt = step.rebuild(work, told["decision"], context)
    try:
        rebuilt.module.load_state_dict(load_file(str(path)))
    except (OSError, SafetensorError, RuntimeError) as exc:
        raise ConfigError(
            f"{path} doesn't hold the weights of step {step.name!r}: {exc}. Restore it, or give "
            "another `--run NAME`."
        ) from exc
    rebuilt.module.eval()
    outcome = Outcome(step, told["decision"], told["validation"], told["params"], told["seconds"])
    return rebuilt, outcome


def _score(tools: Tools, module: nn.Module) -> Score:
    """Return the float32 network's score on the validation split: quick, and in torch."""
    split, finals = tools.task.data.validation, tools.task.network.finals
    with tools.lock.shared():
        outputs = predict(finished(module, finals), split.chunks())
    try:
        return tools.task.score(outputs, split)
    except TaskError as exc:
        raise TaskError(f"After this step the network can't be judged: {exc}") from exc


def count_parameters(module: nn.Module) -> int:
    """Return the number of a network's parameters; those under several names count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def _write(path: Path, content: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")

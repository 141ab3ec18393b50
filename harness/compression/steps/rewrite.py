"""Exact rewrites: the same function, as a network that can be pruned or that runs faster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from harness.compression.rewriting.dead import find_dead, without_dead
from harness.compression.rewriting.norms import TOLERANCE, fold_norms, refold
from harness.compression.rewriting.shortcuts import Shortcut, find_shortcuts, with_convolutions
from harness.compression.running import difference, tensors_of
from harness.compression.steps.base import Step
from harness.compression.steps.options import names, option
from harness.errors import HarnessError, TaskError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from harness.compression.steps.base import Context, Decision, Work

REWRITES = ("dead", "shortcuts", "norms", "nodes")
"""In the order in which they are done; the last on the exported file."""
_SAMPLES = 64


def _rewrites(given: Any) -> tuple[str, ...]:
    """Read names of `REWRITES`, each once."""
    try:
        found = names(given)
    except ValueError:
        found = ()
    if not found or not set(found) <= set(REWRITES):
        raise ValueError(f"names among {', '.join(REWRITES)}, joined by '+'")
    return tuple(name for name in REWRITES if name in found)


@dataclass(frozen=True, slots=True)
class Rewrite(Step):
    """Rewrites a network without changing what it computes.

    `shortcuts` turns shortcuts that pad channels with zeros into 1x1 convolutions of the same
    function, after which the channels of a residual stream can be pruned; `dead` takes out modules
    that never run; `norms` folds batch norms into the layers beside them. The last isn't done
    unless it is asked for: a network trains worse without its norms, so it comes after all
    training. The exporter folds a norm behind a convolution by itself; beside linear layers and
    transposed convolutions, and before any layer, it doesn't. `nodes` takes dead, doubled and idle
    nodes out of the exported file; runtimes do much of that by themselves when they load it.

    Attributes:
        only: Names of the rewrites, of `REWRITES`.
    """

    name: ClassVar[str] = "rewrite"
    about: ClassVar[str] = (
        "the same function, easier to prune: padded shortcuts as convolutions, no dead modules "
        "(norms are folded only when asked: training suffers)"
    )

    only: tuple[str, ...] = option(
        _rewrites,
        ("dead", "shortcuts"),
        about="shortcuts, dead, norms, nodes, joined by '+'",
    )

    def decide(self, work: Work, context: Context) -> Decision:
        """Return what can be rewritten, per rewrite in the order of `REWRITES`.

        Raises:
            TaskError: If the network doesn't run on real samples.
        """
        context.listener.phase("Looking for what can be rewritten")
        module, decision = work.module, {}
        try:
            for name in self._of_network():
                decision[name], notes = _found(name, module, _batches(context))
                module = _rewritten(name, module, decision[name])
                for note in notes:
                    context.listener.note(note)
        except HarnessError:
            raise
        except Exception as exc:  # the network's own code raises what it likes
            raise TaskError(_unrunnable(exc)) from exc
        return decision

    def apply(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return the network rewritten, checked on the example and on validation samples.

        Raises:
            TaskError: If its outputs differ: at all for `shortcuts` and `dead`, by more than
                `TOLERANCE` of the largest for `norms`.
        """
        if "nodes" in self.only:
            work = replace(work, simplified=True)
        if decision and not any(decision.values()):
            looked = ", ".join(decision)
            context.listener.note(f"Nothing to rewrite ({looked}): the network stays as it is.")
            return work
        context.listener.phase("Checking that the rewritten network computes the same")
        batches, module = _batches(context), work.module
        for name, found in _in_order(decision):
            before, module = module, _rewritten(name, module, found)
            largest = _checked(name, before, module, batches)
            context.listener.note(
                f"Rewritten: {_told(name, found, before)}. Largest difference of outputs: "
                f"{largest:.3g} of the largest output, on {sum(map(len, batches))} samples."
            )
        return _with(work, module)

    def rebuild(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return the network rewritten, unchecked: its values are loaded afterwards."""
        module = work.module
        for name, found in _in_order(decision):
            module = _rewritten(name, module, found)
        return _with(replace(work, simplified="nodes" in self.only or work.simplified), module)

    def _of_network(self) -> tuple[str, ...]:
        """Return the rewrites of the network itself; the others are the exported file's."""
        return tuple(name for name in self.only if name != "nodes")


def _in_order(decision: Decision) -> list[tuple[str, list[Any]]]:
    """Return what was found, in the order of `REWRITES`: a decision read from a file has another.

    A norm may be folded into the convolution that a shortcut has become.
    """
    return [(name, decision[name]) for name in REWRITES if decision.get(name)]


def _batches(context: Context) -> list[torch.Tensor]:
    split = context.task.data.validation
    return [context.example, split.batch(torch.arange(min(_SAMPLES, len(split))))]


def _found(
    name: str, module: nn.Module, batches: Sequence[torch.Tensor]
) -> tuple[list[Any], tuple[str, ...]]:
    """Return what a rewrite finds, as JSON takes it, and notes."""
    if name == "dead":
        return find_dead(module, batches)
    if name == "shortcuts":
        shortcuts, notes = find_shortcuts(module, batches[0])
        return [one.as_json() for one in shortcuts], notes
    return [list(pair) for pair in fold_norms(module, batches[0])[1]], ()


def _rewritten(name: str, module: nn.Module, found: Sequence[Any]) -> nn.Module:
    """Return a copy of a network with what one rewrite found."""
    if name == "dead":
        return without_dead(module, found)
    if name == "shortcuts":
        return with_convolutions(module, [Shortcut.from_json(one) for one in found])
    return refold(module, found)


def _checked(
    name: str, before: nn.Module, after: nn.Module, batches: Sequence[torch.Tensor]
) -> float:
    """Return the largest difference of outputs that a rewrite made.

    Raises:
        TaskError: If it is above what the rewrite may make.
    """
    limit = TOLERANCE if name == "norms" else 0.0
    try:
        largest = max(difference(tensors_of(before, x), tensors_of(after, x)) for x in batches)
    except Exception as exc:  # the network's own code raises what it likes
        raise TaskError(_unrunnable(exc)) from exc
    if largest > limit:
        raise TaskError(
            f"The rewrite {name!r} must leave the outputs as they are (up to {limit:g} of the "
            f"largest). Received: a difference of {largest:.3g}. Leave it out: name the "
            "others in the step's option 'only'."
        )
    return largest


def _told(name: str, found: Sequence[Any], before: nn.Module) -> str:
    if name == "dead":
        gone = sum(p.numel() for n in found for p in before.get_submodule(n).parameters())
        return f"modules that never run are out ({', '.join(found)}; {gone:,} parameters)"
    if name == "shortcuts":
        places = ", ".join(str(Shortcut.from_json(one)) for one in found)
        return f"shortcuts padded with zeros are 1x1 convolutions: {places}"
    return f"{len(found)} norms are folded into the layers beside them"


def _unrunnable(exc: Exception) -> str:
    return (
        "A network to rewrite must run on validation samples, one at a time and several at once. "
        f"Received: {type(exc).__name__}: {exc}. Leave the step 'rewrite' out."
    )


def _with(work: Work, module: nn.Module) -> Work:
    there = dict(module.named_parameters())
    sparse = tuple(name for name in work.sparse if name in there)
    return replace(work, module=module.eval(), sparse=sparse)

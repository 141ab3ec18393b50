"""What networks compute inside, compared: attention transfer from a teacher to a student.

References:
    Zagoruyko & Komodakis (2017), "Paying more attention to attention: improving the performance of
    convolutional neural networks via attention transfer".
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from harness.compression.pruning.dependency.cutting import copied
from harness.errors import ConfigError, TaskError
from harness.training.predicting import predict_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.training.soft import Views

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a network a map is read: one call of one layer.

    Attributes:
        layer: The layer's name.
        call: Which of its calls in a run, from 0.
    """

    layer: str
    call: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Two maps of the same height and width.

    Attributes:
        teacher: Where in the teacher.
        student: Where in the student.
        size: Height and width.
    """

    teacher: Place
    student: Place
    size: Size


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What a student learns from its teacher's inside.

    Attributes:
        teacher: The teacher, in evaluation mode; left as it is.
        pairs: Which maps are compared; from `attention_pairs`.
        weight: Of their difference in the loss, from 0.
        identity: What tells the teacher from another; for checkpoints.
    """

    teacher: nn.Module
    pairs: tuple[Pair, ...]
    weight: float
    identity: str = ""

    @contextlib.contextmanager
    def watch(self, student: nn.Module) -> Iterator[Watch]:
        """Read the student's maps while it is trained; afterwards it is as it was."""
        watch = Watch(self, student)
        try:
            yield watch
        finally:
            watch.close()


class Watch:
    """Maps of teacher and student, batch by batch: `teach`, run the student, then `loss`.

    Args:
        features: What is compared.
        student: The network that is trained.
    """

    def __init__(self, features: Features, student: nn.Module) -> None:
        self.teacher = features.teacher
        self._features = features
        # A copy that shares all tensors: nobody else's runs of the teacher are listened to.
        self._copy = copied(features.teacher).eval()
        self._theirs, self._own = _Reader(attention), _Reader(attention)
        self._theirs.attach(self._copy, {pair.teacher.layer for pair in features.pairs})
        self._own.attach(student, {pair.student.layer for pair in features.pairs})

    def close(self) -> None:
        """Take the hooks off."""
        self._theirs.detach()
        self._own.detach()

    def teach(self, inputs: torch.Tensor) -> Views:
        """Run the teacher on a batch `[B, ...]` and return its outputs, float32 constants."""
        self._theirs.clear()
        self._own.clear()
        return predict_tensors(self._copy, [inputs])

    def loss(self) -> torch.Tensor:
        """Return weight x the sum over pairs of the mean squared difference of attention.

        That is eq. 2 of Zagoruyko & Komodakis (2017) as their code has it, with the weight for
        beta / 2.

        Raises:
            TaskError: If a network ran other layers than when the pairs were found.
        """
        terms = []
        for pair in self._features.pairs:
            theirs, own = self._theirs.found.get(pair.teacher), self._own.found.get(pair.student)
            if theirs is None or own is None or theirs.shape != own.shape:
                raise TaskError(
                    f"Attention can't be compared: {pair.student.layer!r} and the teacher's "
                    f"{pair.teacher.layer!r} gave no maps of one size in training, as they did in "
                    "evaluation mode. Distil without features."
                )
            # Cloned outside inference mode, so that autograd may use it as a constant.
            terms.append((own - theirs.clone()).square().mean())
        return self._features.weight * torch.stack(terms).sum()


class _Reader:
    """Notes of every output of some layers, in the order of running.

    Args:
        note: Makes one of an output.
    """

    def __init__(self, note: Callable[[torch.Tensor], Any]) -> None:
        self.found: dict[Place, Any] = {}
        self._calls: Counter[str] = Counter()
        self._note, self._hooks = note, list[Any]()

    def attach(self, model: nn.Module, names: set[str]) -> None:
        for name in sorted(names):
            layer = model.get_submodule(name)
            self._hooks.append(layer.register_forward_hook(self._keep(name)))

    def detach(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def clear(self) -> None:
        """Forget the last run."""
        self.found.clear()
        self._calls.clear()

    def _keep(self, name: str) -> Any:
        def keep(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            self.found[Place(name, self._calls[name])] = self._note(output)
            self._calls[name] += 1

        return keep


def attention(maps: torch.Tensor) -> torch.Tensor:
    """Return where a layer's activations `[N, C, H, W]` are large: float32 `[N, H * W]`, of norm 1.

    The sum of squares over channels, as Zagoruyko & Komodakis (2017) found best.
    """
    return F.normalize(maps.float().square().sum(1).flatten(1), dim=1)


def attention_pairs(
    teacher: nn.Module, student: nn.Module, example: torch.Tensor
) -> tuple[Pair, ...]:
    """Return which maps of two networks can be compared, largest first.

    The last convolution of each height and width in either network's running order: where a stage
    of the network ends. Networks of one shape, pruned copies and quite different ones are matched
    alike. A single pixel has no attention and is left out.

    Args:
        teacher: In evaluation mode; left as it is.
        student: Likewise.
        example: Two samples or more, `[B, ...]`.

    Raises:
        ConfigError: If one of them has no such maps, or they have none of one size.
        TaskError: If one of them doesn't run.
    """
    theirs, own = (_last_maps(model, example) for model in (teacher, student))
    for found, who in ((theirs, "teacher"), (own, "network")):
        if not found:
            raise ConfigError(
                f"Attention transfer compares maps [N, C, H, W] of convolutions, and the {who} has "
                "none of more than one pixel. Distil without features."
            )
    sizes = sorted(theirs.keys() & own.keys(), reverse=True)
    if not sizes:
        listed = ("/".join(f"{h}x{w}" for h, w in sorted(f, reverse=True)) for f in (theirs, own))
        raise ConfigError(
            "Attention transfer compares maps of the same height and width. Received: the "
            "teacher's {}, the network's {}. Distil without features.".format(*listed)
        )
    return tuple(Pair(theirs[size], own[size], size) for size in sizes)


def _last_maps(model: nn.Module, example: torch.Tensor) -> dict[Size, Place]:
    """Return the last convolution of each size of its output."""
    count = len(example)
    reader = _Reader(lambda x: tuple(x.shape[2:]) if x.ndim == 4 and len(x) == count else None)
    run = copied(model).eval()
    reader.attach(run, {n for n, m in run.named_modules() if isinstance(m, _CONVOLUTIONS)})
    try:
        with torch.inference_mode():
            run(example)
    except Exception as exc:  # the network's own code raises what it likes
        raise TaskError(f"The network doesn't run: {type(exc).__name__}: {exc}") from exc
    return {
        size: place
        for place, size in reader.found.items()
        if size is not None and size[0] * size[1] > 1
    }

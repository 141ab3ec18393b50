"""Which channels of a network's parameters can only vanish together: a union-find of labels."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

Labels = tuple[torch.Tensor, ...]
"""Of a tensor: int64 of its shape each; an element vanishes with any of its labels."""


OUTPUT = ""
"""Why channels stay that need no explanation: inputs and outputs of the network."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One dimension of a parameter or buffer, and the labels of its entries.

    Attributes:
        name: Of the parameter or buffer.
        dim: Which dimension.
        first: Label of entry 0; the others follow.
        size: Entries.
        groups: Of a grouped convolution whose input channels these entries are: its weight holds
            `size / groups` of them, others for each group. 1 for a plain dimension.
    """

    name: str
    dim: int
    first: int
    size: int
    groups: int = 1

    @property
    def labels(self) -> torch.Tensor:
        """The labels, int64 `[size]`."""
        return torch.arange(self.first, self.first + self.size)


class Channels:
    """Labels of channels, which of them are joined, and which have to stay.

    Attributes:
        slots: By parameter or buffer, dimension and groups.
        equal_parts: Labels `[n]` and a number of equal parts of them that must keep equally many.
        slices: The same of what slices part. Whether these parts must keep equally many depends on
            where the network has the slices' limits from: see `in_proportion`.
    """

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._fixed: dict[int, str] = {}
        self._kinds: NDArray[np.uint64] | None = None  # of the classes as they are
        self.slots: dict[tuple[str, int, int], Slot] = {}
        self.equal_parts: list[tuple[torch.Tensor, int]] = []
        self.slices: list[tuple[torch.Tensor, int]] = []

    def in_proportion(self) -> Channels:
        """Return a copy for a network that computes the limits of slices: a half stays a half.

        Where limits are fixed numbers, or computed from one of several parts, channels need not
        keep to that.
        """
        found = copy.deepcopy(self)
        found.equal_parts += found.slices
        return found

    def slot(self, name: str, dim: int, size: int, groups: int = 1) -> Slot:
        """Return a slot, with labels of its own where it is new."""
        key = (name, dim, groups)
        if key not in self.slots:
            self.slots[key] = Slot(name, dim, len(self._parents), size, groups)
            self._kinds = None
            self._parents.extend(range(len(self._parents), len(self._parents) + size))
        return self.slots[key]

    def join(self, one: torch.Tensor, other: torch.Tensor) -> None:
        """Let labels vanish together, entry by entry; shapes are broadcast."""
        one, other = torch.broadcast_tensors(one, other)  # type: ignore[no-untyped-call]
        pairs = zip(compact(one, other).tolist(), compact(other, one).tolist(), strict=True)
        for a, b in set(pairs):
            self._join(a, b)

    def _join(self, a: int, b: int) -> None:
        a, b = sorted((self.find(a), self.find(b)))
        if a == b:
            return
        self._parents[b] = a
        self._kinds = None
        if b in self._fixed:
            self._fixed.setdefault(a, self._fixed.pop(b))

    def collapse(self, labels: torch.Tensor, dims: Iterable[int]) -> torch.Tensor:
        """Join labels along `dims` and return them constant there, in the same shape."""
        first = labels
        for dim in dims:
            first = first.narrow(dim, 0, 1)
        if first.shape != labels.shape:
            self.join(labels, first)
        return first.expand_as(labels)

    def fix(self, labels: Iterable[torch.Tensor], reason: str) -> None:
        """Say that labels have to stay, and why."""
        for one in labels:
            for label in set(compact(one).tolist()):
                root = self.find(label)
                if reason == OUTPUT or root not in self._fixed:
                    self._fixed[root] = reason

    def find(self, label: int) -> int:
        """Return the representative of a label's class."""
        parents = self._parents
        while parents[label] != label:
            parents[label] = parents[parents[label]]
            label = parents[label]
        return label

    def why_fixed(self, label: int) -> str | None:
        """Return why a label has to stay; None where it need not."""
        return self._fixed.get(self.find(label))

    def roots(self) -> NDArray[np.int64]:
        """Return every label's representative."""
        found = np.array(self._parents, np.int64)
        while True:
            further = found[found]
            if np.array_equal(further, found):
                return found
            found = further

    def kinds(self) -> NDArray[np.uint64]:
        """Return for every label a hash of where its class lies: which slots, how often.

        Classes of one kind are alike, so they are the channels of one group.
        """
        if self._kinds is None:
            roots = self.roots()
            weights = np.zeros(len(roots), np.uint64)
            hashes = np.random.default_rng(0).integers(1, 2**63, len(self.slots), np.uint64)
            for slot, weight in zip(self.slots.values(), hashes, strict=True):
                weights[slot.first : slot.first + slot.size] = weight
            sums = np.zeros(len(roots), np.uint64)
            np.add.at(sums, roots, weights)
            self._kinds = sums[roots]
        return self._kinds


def varying(labels: torch.Tensor) -> tuple[int, ...]:
    """Return the dimensions along which compressed labels vary."""
    strides = labels.stride()
    return tuple(d for d, n in enumerate(labels.shape) if n > 1 and strides[d] != 0)


def compressed(labels: torch.Tensor) -> torch.Tensor:
    """Return equal labels, expanded (of stride 0) along every dimension where they are constant."""
    for dim in varying(labels):
        first = labels.narrow(dim, 0, 1).expand_as(labels)
        if torch.equal(labels, first):
            labels = first
    return labels


def compact(labels: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    """Return labels `[n]` in order, one for all entries along dimensions that nothing varies on.

    Args:
        labels: Of any shape.
        others: Of the same shape, whose dimensions are kept too. Compacting each of two tensors
            with the other gives entries that correspond.
    """
    kept = {dim for one in (labels, *others) for dim in varying(one)}
    for dim in range(labels.dim()):
        if dim not in kept:
            labels = labels.narrow(dim, 0, 1)
    return labels.reshape(-1)

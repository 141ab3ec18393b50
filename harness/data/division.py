"""Which samples are for training, for choosing and for the final report.

- Splits that are given stay as they are.
- A test or validation split that is not given comes out of the training split (never out of another
  held-out one): 15 % of it unless a fraction is asked, and at most 10,000 samples.
- What is made is the same for the same samples and seed: NumPy's `default_rng(seed)` permutes them.
  Classes keep their shares in every split, with one sample or more of each class that has three.
- Samples with identical inputs stay together in one split, so that none leaks; where more than half
  of the samples repeat others (tables with few columns), each is drawn by itself instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.data.quotas import quotas
from harness.data.samples import DIGEST_BYTES
from harness.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.data.options import DataSpec

DEFAULT_FRACTION = 0.15
MOST = 10_000
"""Samples that a split gets by default; more would sharpen scores by little and cost time."""
LEAST = 10
"""Samples that a split needs."""
_BULKY = 10
"""A group of repeats larger than one part in so many of a class's quota is trained on."""
Rows = dict[str, "NDArray[np.int64]"]


@dataclass(frozen=True, slots=True, eq=False)
class Division:
    """Who has which samples.

    Attributes:
        part: By split, the part of the source that its samples are in.
        rows: By split, int64 `[N]`, ascending: which samples of that part.
        origin: `"given"`, or how the splits were made.
        notes: What a user should know.
    """

    part: dict[str, str]
    rows: Rows
    origin: str
    notes: tuple[str, ...]


def divided(
    digests: dict[str, NDArray[np.uint8]], classes: NDArray[np.int64] | None, spec: DataSpec
) -> Division:
    """Divide what a source has into training, validation and test samples.

    Args:
        digests: By part (`"all"`, or `"train"` with others), those of its inputs, uint8 `[M, 16]`.
        classes: int64 `[M]`, of the part that is divided; None where there are none.
        spec: Fractions and seed.

    Raises:
        ConfigError: If a split gets fewer than 10 samples, or a class none to train on.
    """
    source = "all" if "all" in digests else "train"
    wanted = _wanted(len(digests[source]), set(digests), spec)
    notes: tuple[str, ...] = ()
    made: Rows = {"train": np.arange(len(digests[source]))}
    if wanted:
        groups, notes = _groups(digests[source], spec.source_kind == "csv")
        made = _drawn(groups, classes, wanted, np.random.default_rng(spec.split_seed))
        notes += _rare(classes, groups, wanted)
    part = dict.fromkeys(made, source) | {n: n for n in digests if n not in ("all", "train")}
    rows = {n: made[n] if n in made else np.arange(len(digests[part[n]])) for n in part}
    _check_sizes(rows)
    origin = "given"
    if wanted:
        of = "all samples" if source == "all" else "the training split"
        origin = f"{' and '.join(wanted)} drawn from {of}, seed {spec.split_seed}"
    members = {name: digests[part[name]][rows[name]] for name in rows}
    return Division(part, rows, origin, notes + shared_samples(members))


def _wanted(total: int, given: set[str], spec: DataSpec) -> dict[str, int]:
    """Return how many samples each split that is not given gets."""
    wanted = {}
    for name, fraction in (("test", spec.test_fraction), ("validation", spec.val_fraction)):
        if name not in given:
            default = min(MOST, round(DEFAULT_FRACTION * total))
            wanted[name] = default if fraction is None else round(fraction * total)
    return wanted


def _groups(digests: NDArray[np.uint8], table: bool) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return a group number per sample `[M]`, ascending by first member, and a note.

    Rows of a table of few columns repeat without being one another's copies: where most do, each
    stays on its own.
    """
    keys = _as_keys(digests)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    repeats = len(keys) - len(first)
    if not repeats:
        return np.arange(len(keys)), ()
    if table and repeats > len(keys) // 2:
        return np.arange(len(keys)), (
            f"{repeats:,} of {len(keys):,} rows repeat the inputs of another; too many to keep "
            "each in one split with its like, so rows of different splits may be equal.",
        )
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse], (
        f"{repeats:,} of {len(keys):,} samples repeat the inputs of another; such samples are kept "
        "together in one split.",
    )


def _drawn(
    groups: NDArray[np.int64],
    classes: NDArray[np.int64] | None,
    wanted: dict[str, int],
    rng: np.random.Generator,
) -> Rows:
    """Return the rows of training and wanted splits, drawn by group within each class."""
    n_groups = int(groups.max(initial=-1)) + 1
    sizes = np.bincount(groups, minlength=n_groups)
    order = rng.permutation(n_groups)
    labels = np.zeros(n_groups, np.int64)
    if classes is not None:
        labels[groups[::-1]] = classes[::-1]  # a group counts for the class of its first member
    totals = np.bincount(labels, sizes).astype(np.int64)
    counts = np.bincount(labels)
    # Classes with fewer than three groups stay for training: a split each needs three.
    quota_of = {n: np.where(counts >= 3, quotas(totals, k), 0) for n, k in wanted.items()}
    name_of = np.full(n_groups, "train", dtype="<U10")
    for label in np.flatnonzero(totals):
        members = order[labels[order] == label]
        taken = 0
        # Small groups first: bulky ones, which would overshoot, stay for training.
        smallest = min((int(q[label]) for q in quota_of.values()), default=0)
        members = members[np.argsort(sizes[members] > max(1, smallest // _BULKY), kind="stable")]
        before = np.cumsum(sizes[members]) - sizes[members]
        for name, quota in quota_of.items():
            inside = (before >= taken) & (before < taken + quota[label])
            name_of[members[inside]] = name
            taken = int((before + sizes[members])[inside].max(initial=taken))
    splits = name_of[groups]
    return {name: np.flatnonzero(splits == name) for name in ("train", *wanted)}


def _rare(
    classes: NDArray[np.int64] | None, groups: NDArray[np.int64], wanted: dict[str, int]
) -> tuple[str, ...]:
    if classes is None:
        return ()
    firsts = np.unique(groups, return_index=True)[1]
    counts = np.bincount(classes[firsts])
    rare = int(((counts > 0) & (counts < 3)).sum())
    if not rare:
        return ()
    return (
        f"{rare} classes have fewer than three different samples: they are all trained on, and "
        f"{' and '.join(wanted)} lack those classes.",
    )


def _check_sizes(rows: Rows) -> None:
    if min(map(len, rows.values())) < LEAST:
        found = ", ".join(f"{name} {len(one):,}" for name, one in rows.items())
        raise ConfigError(
            f"Every split needs at least {LEAST} samples. Received: {found}. Add samples, or "
            "change test_fraction= and val_fraction=."
        )


def shared_samples(members: dict[str, NDArray[np.uint8]]) -> tuple[str, ...]:
    """Return a note for each two splits that have samples with identical inputs.

    Args:
        members: By split, the digests of its samples, uint8 `[N, 16]`.
    """
    keys = {name: _as_keys(one) for name, one in members.items()}
    notes = []
    for held, other in (("validation", "train"), ("test", "train"), ("test", "validation")):
        count = int(np.isin(keys[held], keys[other]).sum())
        if count:
            subject = "sample is" if count == 1 else "samples are"
            other_name = "training" if other == "train" else other
            notes.append(
                f"{count:,} of {len(keys[held]):,} {held} {subject} also in the {other_name} "
                f"split: {held} scores are flattered."
            )
    return tuple(notes)


def _as_keys(digests: NDArray[np.uint8]) -> NDArray[np.void]:
    return np.ascontiguousarray(digests).view(f"V{DIGEST_BYTES}").ravel()

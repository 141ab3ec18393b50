"""From targets as a source has them to classes, values or whatever the user's loss knows.

What kind they are, where the user doesn't say:

- texts and truth values are classes;
- whole numbers of images are classes; elsewhere if at most max(20, sqrt(N)) are different;
- floating-point numbers `[N]` or `[N, k]` are values to regress on;
- anything else (several tensors, a map per sample) is for the user's own loss.

Arrays of Python objects count as what they hold: all numbers, all truth values or all texts.

Classes are those of the training split, sorted; whole numbers 0 to K-1 keep their numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.objects import plain
from harness.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.data.samples import Samples

_FEW = 20


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Targets of all parts in their final form.

    Attributes:
        kind: `"classification"`, `"regression"` or `"other"`.
        targets: Per part: int64 `[M]` classes, float32 `[M, k]`, or the user's own arrays.
        classes: Names of the classes, in the order of their numbers; empty where there are none.
        notes: What a user should know.
    """

    kind: str
    targets: dict[str, Any]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def labelled(parts: dict[str, Samples], asked: str | None) -> Labelled:
    """Return the targets of all parts.

    Args:
        parts: Samples, `"all"` or by split.
        asked: `"classification"`, `"regression"`, or None to tell by the targets.

    Raises:
        ConfigError: If they are not of the kind asked, missing, not finite, or if a held-out split
            has a class that the training split lacks.
    """
    parts = {name: _with_plain(name, one) for name, one in parts.items()}
    first = parts.get("all", parts.get("train"))
    assert first is not None
    kind = asked or _kind(first)
    if kind == "other":
        return Labelled(kind, {name: _others(one.targets) for name, one in parts.items()})
    if kind == "regression":
        values = {name: _values(name, one) for name, one in parts.items()}
        if len({one.shape[1] for one in values.values()}) > 1:
            found = ", ".join(f"{name} {list(one.shape)}" for name, one in values.items())
            raise ConfigError(f"The splits have different numbers of targets: {found}.")
        return Labelled(kind, values, notes=_class_like(first) if asked is None else ())
    return _classes({name: _raw_classes(name, one) for name, one in parts.items()}, first)


def _with_plain(name: str, samples: Samples) -> Samples:
    what = f"Targets ({_of(name)})"
    targets = samples.targets
    if isinstance(targets, tuple):
        return replace(samples, targets=tuple(plain(part, what) for part in targets))
    return replace(samples, targets=plain(targets, what))


def _kind(samples: Samples) -> str:
    targets = samples.targets
    if isinstance(targets, tuple):
        return "other"
    flat = targets.ndim == 1 or (targets.ndim == 2 and targets.shape[1] == 1)
    if samples.classes or (flat and targets.dtype.kind in "bU"):
        return "classification"
    if targets.dtype.kind == "f":
        return "regression" if targets.ndim <= 2 else "other"
    if targets.dtype.kind in "iu" and flat:
        few = len(np.unique(targets)) <= max(_FEW, math.isqrt(len(targets)))
        return "classification" if few or samples.is_image else "regression"
    return "other"


def _class_like(samples: Samples) -> tuple[str, ...]:
    """Say so where values look like the numbers of classes: an array library may have made them."""
    targets = samples.targets
    assert not isinstance(targets, tuple)
    found = np.unique(targets)
    one_each = targets.size == len(targets)
    if (
        targets.dtype.kind != "f"
        or not one_each
        or len(found) > _FEW
        or (found != np.round(found)).any()
    ):
        return ()
    return (
        f"the targets are {len(found)} different whole numbers stored as floating point: they are "
        "taken as values to predict. If they are classes, add kind=classification",
    )


def _others(targets: NDArray[Any] | tuple[NDArray[Any], ...]) -> Any:
    if isinstance(targets, tuple):
        return tuple(_numeric(part) for part in targets)
    return _numeric(targets)


def _numeric(part: NDArray[Any]) -> NDArray[Any]:
    if part.dtype.kind not in "iubf":
        raise ConfigError(f"Targets must be numbers, texts or arrays. Received: {part.dtype}.")
    return part.astype(np.float32 if part.dtype.kind == "f" else np.int64)


def _values(name: str, samples: Samples) -> NDArray[np.float32]:
    targets = samples.targets
    if isinstance(targets, tuple) or targets.dtype.kind not in "iubf" or targets.ndim > 2:
        received = "several" if isinstance(targets, tuple) else f"{targets.dtype} {targets.shape}"
        raise ConfigError(
            f"Regression needs targets that are numbers, [N] or [N, k]. Received: {received}. Name "
            "other columns (label=), or use kind=classification."
        )
    found = targets.astype(np.float32).reshape(len(targets), -1)
    _check_finite(name, found, samples)
    return found


def _check_finite(name: str, values: NDArray[Any], samples: Samples) -> None:
    bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if len(bad):
        raise ConfigError(
            f"{len(bad):,} of {len(values):,} targets ({_of(name)}) are NaN or infinite, the first "
            f"at {samples.where(int(bad[0]))}. Repair them or leave those samples out."
        )


def _raw_classes(name: str, samples: Samples) -> NDArray[Any]:
    targets = samples.targets
    if isinstance(targets, tuple) or targets.size != len(targets):
        raise ConfigError(
            "Classification needs one target per sample. Received: "
            f"{'several' if isinstance(targets, tuple) else list(targets.shape)}. For your own "
            "loss, leave kind= out."
        )
    flat = targets.reshape(-1)
    if flat.dtype.kind == "f":
        _check_finite(name, flat, samples)
        fractions = flat[flat != np.round(flat)]
        if len(fractions):
            raise ConfigError(
                f"kind=classification needs whole numbers, truth values or texts as targets "
                f"({_of(name)}). Received: fractions, such as {fractions[0]}. Use kind=regression."
            )
        flat = flat.astype(np.int64)
    if samples.classes:
        return _named(name, flat, samples)
    return flat if flat.dtype.kind in "iub" else flat.astype(str)


def _named(name: str, numbers: NDArray[Any], samples: Samples) -> NDArray[Any]:
    outside = np.flatnonzero((numbers < 0) | (numbers >= len(samples.classes)))
    if len(outside):
        i = int(outside[0])
        raise ConfigError(
            f"{len(outside):,} labels ({_of(name)}) are outside of 0 to {len(samples.classes) - 1},"
            f" the first at {samples.where(i)}: {numbers[i]}. Take those samples out."
        )
    names: NDArray[Any] = np.array(samples.classes)[numbers]
    return names


def _classes(values: dict[str, NDArray[Any]], first: Samples) -> Labelled:
    train = values.get("all", values.get("train"))
    assert train is not None
    known = np.unique(train)
    notes: tuple[str, ...] = ()
    for name, found in values.items():
        strange = [str(one) for one in np.setdiff1d(found, known)]
        if strange:
            raise ConfigError(
                f"The {name} split has {len(strange)} classes that the training split lacks: "
                f"{', '.join(strange[:5])}. Nothing could learn them: add training samples, or "
                "take them out."
            )
    if len(known) < 2:
        raise ConfigError(
            f"Classification needs at least two classes. Received: {len(known)} "
            f"({', '.join(map(str, known))}), in {len(train):,} samples."
        )
    if len(known) > len(train) // 2:
        raise ConfigError(
            f"The targets have {len(known):,} different values in {len(train):,} samples: these "
            "are no classes. Use kind=regression, or name another target."
        )
    if first.classes:
        # The source's own order and numbers, which a ready-made network may have learned.
        names = np.array(first.classes)
        order = np.argsort(names, kind="stable")
        absent = [str(one) for one in np.setdiff1d(names, known)]
        if absent:
            notes = (f"{len(absent)} classes have no samples: {', '.join(absent[:5])}.",)
        codes = {n: order[np.searchsorted(names[order], v)] for n, v in values.items()}
        return Labelled("classification", _int64(codes), tuple(first.classes), notes)
    if known.dtype.kind in "iu" and not np.array_equal(known, np.arange(len(known))):
        shown = ", ".join(f"{one} -> {i}" for i, one in enumerate(known[:4]))
        more = ", ..." if len(known) > 4 else ""
        notes = (f"Classes are numbered from 0 without gaps: {shown}{more}.",)
    codes = {name: np.searchsorted(known, one) for name, one in values.items()}
    return Labelled("classification", _int64(codes), tuple(map(str, known)), notes)


def _int64(codes: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.int64]]:
    return {name: one.astype(np.int64) for name, one in codes.items()}


def _of(name: str) -> str:
    return "of all samples" if name == "all" else f"of the {name} split"

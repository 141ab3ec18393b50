"""Which steps of channel counts are worth searching on a target: given, known, cached or probed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.errors import BackendError, MeasurementError
from harness.measurement.granule import (
    QUICK,
    granule_key,
    load_granule,
    probe_granule,
    save_granule,
)
from harness.quantity import INSTRUCTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.measurement.granule import GranuleProbe
    from harness.target import Target
    from harness_backends.base import Backend, DeviceLock
    from harness_search.progress import Progress

FALLBACK = 16
"""Where a probe doesn't say: the coarsest that common CPUs reward, so that no step is in vain."""


def find_granule(
    backend: Backend,
    facts: Mapping[str, Any],
    begun: int | None,
    lock: DeviceLock,
    progress: Progress,
) -> int:
    """Return the granule of a target.

    The target's own setting comes first, then what the work was begun with, then what a probe on
    the same fingerprint found before; else it is probed now, in a few seconds, and remembered. On
    an emulated CPU there is nothing to probe.

    Args:
        backend: Of the target.
        facts: What its worker said of itself.
        begun: What the work was begun with; None where it is new.
        lock: Keeps the probe undisturbed.
        progress: Told what is going on.
    """
    target: Target = backend.target
    if target.granule is not None:
        return target.granule
    if begun is not None:
        return begun
    if target.quantity is INSTRUCTIONS:
        progress.note(
            f"granule: {FALLBACK} channels, since instruction counts don't show which widths a "
            "CPU rewards; `--set granule=N` sets it"
        )
        return FALLBACK
    key = granule_key(target, facts)
    probe = load_granule(key)
    if probe is None or probe.granule is None:
        progress.phase("probing the granule: which channel counts this runtime rewards")
        try:
            probe = _probe(backend, lock)
        except (BackendError, MeasurementError) as exc:
            progress.note(f"granule: {FALLBACK} channels, since probing it failed ({exc})")
            return FALLBACK
        if probe.granule is None:
            progress.note(
                f"granule: {FALLBACK} channels, since the probe was inconclusive; `harness doctor` "
                "probes longer, `--set granule=N` sets it"
            )
            return FALLBACK
        try:
            save_granule(key, probe)
        except OSError as exc:  # a cache is a convenience
            progress.note(f"granule: the probe could not be cached ({exc.strerror})")
    assert probe.granule is not None  # probed again above otherwise
    progress.note(f"granule: {probe.granule} channels, as probed on the target")
    return probe.granule


def _probe(backend: Backend, lock: DeviceLock) -> GranuleProbe:
    """Probe, and once more where a neighbour's noise left it inconclusive."""
    batch = backend.target.batch
    first = probe_granule(backend.open, lock.exclusive, QUICK, batch)
    if first.granule is not None:
        return first
    return probe_granule(backend.open, lock.exclusive, QUICK, batch, seed=1)

"""The core types: a candidate network and its exported file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Candidate:
    """One point of the search space, as it will be built.

    Attributes:
        widths: Channels kept per prunable group; 0 where a group went with its block.
        criterion: Importance criterion that decides which channels stay; None for a network that
            was not pruned and distilled by the search, as for the next two.
        temperature: Distillation temperature; above 0.
        kd_weight: Weight of the soft targets in the loss, 0 (labels only) to 1.
        precision: What the exported file computes in: `"fp32"`, `"int8"`, or another name of
            `harness.compression.quantisation.precision.WEIGHT_BYTES`.
        blocks: Residual blocks that were left out, in the order in which they run.
    """

    widths: Mapping[str, int]
    criterion: str | None = None
    temperature: float | None = None
    kd_weight: float | None = None
    precision: str = "fp32"
    blocks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """An exported network on disk.

    Attributes:
        path: The `.onnx` file, weights inside.
        sha256: Of the file's bytes, hexadecimal.
        size_bytes: Of the file.
        opset: Version of the default operator set.
        n_params: Parameters of the network; None where only the file is known.
        macs: Multiply-accumulates for one sample; None where only the file is known.
    """

    path: Path
    sha256: str
    size_bytes: int
    opset: int
    n_params: int | None = None
    macs: int | None = None

    def read(self) -> bytes:
        """Return the file's bytes, checked to be the ones that were recorded.

        Raises:
            ConfigError: If it is missing or was changed.
        """
        try:
            data = self.path.read_bytes()
        except OSError as exc:
            raise ConfigError(
                f"{self.path} is missing or can't be read ({exc.strerror}). Restore it, or start "
                "again."
            ) from exc
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ConfigError(
                f"{self.path} was changed after it was recorded: its hash differs. Restore it, or "
                "start again (a search: with another `--study NAME`)."
            )
        return data

"""Steps that set which numbers the exported file computes in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from harness.compression.quantisation.precision import FP32, Precision
from harness.compression.steps.base import Context, Decision, Step, Work
from harness.compression.steps.options import choice, option, whole
from harness.errors import ConfigError


@dataclass(frozen=True, slots=True)
class _InPrecision(Step):
    """Sets the precision of the exported file, and nothing else: the network stays float32."""

    is_precision: ClassVar[bool] = True

    def precision(self) -> Precision:
        """Return what the file shall compute in."""
        return Precision(self.name)

    def decide(self, work: Work, context: Context) -> Decision:
        """Return nothing: the options say it all.

        Raises:
            ConfigError: If a step before this one has set a precision.
        """
        _check(work, self.name)
        return {}

    def apply(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return the same network with the precision set.

        Raises:
            ConfigError: As `decide`.
        """
        _check(work, self.name)
        return replace(work, precision=self.precision())


@dataclass(frozen=True, slots=True)
class Fp16(_InPrecision):
    """The file holds weights and computes in half precision."""

    name: ClassVar[str] = "fp16"
    about: ClassVar[str] = "half-precision weights and arithmetic in the file"


@dataclass(frozen=True, slots=True)
class Int8(_InPrecision):
    """The file computes in 8-bit integers, with ranges that training samples fix.

    Static post-training quantisation, per channel, of Jacob et al. (2018), "Quantization and
    training of neural networks for efficient integer-arithmetic-only inference".
    """

    name: ClassVar[str] = "int8"
    about: ClassVar[str] = "8-bit weights and activations, ranges from training samples"

    calibration: int = option(whole(1), 512, about="training samples that fix the ranges")
    method: str = option(
        choice("minmax", "entropy", "percentile"), "minmax",
        about="how they fix them: minmax, entropy or percentile",
    )  # fmt: skip

    def precision(self) -> Precision:
        """Return what the file shall compute in."""
        return Precision(self.name, self.calibration, self.method)


@dataclass(frozen=True, slots=True)
class Int8Dynamic(_InPrecision):
    """The file holds 8-bit weights and finds the activations' ranges at every call."""

    name: ClassVar[str] = "int8-dynamic"
    about: ClassVar[str] = "8-bit weights, ranges of activations found at every call"


def _check(work: Work, name: str) -> None:
    if work.precision != FP32:
        raise ConfigError(
            f"Step {name!r} sets the precision of a float32 network. Received one that a step "
            f"before it set to {work.precision.name}. Leave one of the two steps out."
        )

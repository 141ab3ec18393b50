"""Separate layers into two thinner ones each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from harness.compression.low_rank.factorise import SCHEMES, choose_ranks, factorised, unfilled
from harness.compression.pruning.dependency.parts import module_of
from harness.compression.running import outputs_of
from harness.compression.steps.base import Context, Decision, Step, Work
from harness.compression.steps.granules import in_granules
from harness.compression.steps.options import choice, names, option, share, whole
from harness.errors import ConfigError

_ADVICE = "Put 'low-rank' before 'sparsify', or leave layers dense by the exclude of 'sparsify'."


@dataclass(frozen=True, slots=True)
class LowRank(Step):
    """Separate convolution and linear layers into two thinner ones each, by singular values.

    Layers with a sparse weight stay whole: the two would have no zeros.
    """

    name: ClassVar[str] = "low-rank"
    about: ClassVar[str] = "separates layers into two thinner ones by singular values"

    params: float = option(share, about="the share of parameters that stays, at most")
    scheme: str = option(
        choice(*SCHEMES), "channel", about="how a k x k convolution is divided: k x k and 1 x 1 "
        "(channel), or k x 1 and 1 x k (spatial)",
    )  # fmt: skip
    granule: int | None = option(
        whole(1),
        None,
        about="ranks are multiples of this where that saves; the target's",
    )
    layers: tuple[str, ...] | None = option(
        names, None, about="the only layers that change; else all but the first and the last"
    )

    def foresee(self, work: Work, context: Context) -> None:
        """Check that there are such layers, and that the share is within reach.

        How far it reaches is a matter of shapes, whatever the singular values are.
        """
        self._ranks(work, context, self.granule or 1)

    def decide(self, work: Work, context: Context) -> Decision:
        """Return the ranks by layer, the scheme and the granule.

        Raises:
            ConfigError: If the share is out of reach, or a named layer can't be separated or has a
                sparse weight.
        """
        context.listener.phase("choosing ranks")
        # Asked before cores are taken: a probe needs the machine to itself.
        granule = self.granule or context.granule()

        def choose(step: int) -> dict[str, int]:
            return self._ranks(work, context, step)

        with context.shared():
            if self.granule is None:
                ranks, granule = in_granules(granule, context.listener, choose)
            else:
                ranks = choose(granule)
        return {"ranks": ranks, "scheme": self.scheme, "granule": granule}

    def apply(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return the network with two layers for each of those that have a rank."""
        with context.shared():
            module = factorised(work.module, decision["ranks"], decision["scheme"])
        outputs_of(module, context.example, "The network of low rank")
        return replace(work, module=module)

    def rebuild(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return the same structure; no singular values are computed."""
        return replace(work, module=unfilled(work.module, decision["ranks"], decision["scheme"]))

    def _ranks(self, work: Work, context: Context, granule: int) -> dict[str, int]:
        sparse = list(dict.fromkeys(module_of(name) for name in work.sparse))
        named = [name for name in self.layers or () if name in sparse]
        if named:
            raise ConfigError(
                "Step 'low-rank' needs layers without a sparse weight: the two that each becomes "
                f"would have no zeros. Received: {', '.join(named)}. {_ADVICE}"
            )
        try:
            return choose_ranks(
                work.module, context.example, self.params, self.scheme, granule=granule,
                layers=self.layers, whole=sparse,
            )  # fmt: skip
        except ConfigError as exc:
            if not sparse or self.layers:
                raise
            raise ConfigError(f"{exc} Layers with a sparse weight stay whole. {_ADVICE}") from exc

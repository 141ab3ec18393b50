"""Leave out residual blocks: those named, or those that matter least for what they cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from harness.compression.depth.blocks import asked_blocks, drop_blocks, residual_blocks
from harness.compression.depth.choice import Judge, choose_blocks
from harness.compression.running import outputs_of
from harness.compression.steps.base import Context, Decision, Step, Work
from harness.compression.steps.options import names, option, share
from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.compression.depth.blocks import Block


@dataclass(frozen=True, slots=True)
class Depth(Step):
    """Leave out residual blocks.

    Exactly one option says which: blocks by name, or a share of parameters or multiply-accumulates
    within which the network must be, and `choose_blocks` says which go.
    """

    name: ClassVar[str] = "depth"
    about: ClassVar[str] = "leaves out residual blocks, by name or to a share of the network"

    blocks: tuple[str, ...] | None = option(names, None, about="the blocks that go")
    params: float | None = option(share, None, about="the share of parameters that stays, at most")
    macs: float | None = option(
        share, None, about="the share of multiply-accumulates that stays, at most"
    )

    def __post_init__(self) -> None:
        Step.__post_init__(self)  # `super()` doesn't know a class with slots
        given = [one for one in ("blocks", "params", "macs") if getattr(self, one) is not None]
        if len(given) != 1:
            raise ConfigError(
                "Step 'depth' needs exactly one of blocks, params and macs. Received: "
                f"{', '.join(given) or 'none of them'}. Give it as 'depth:params=50%', or name the "
                "blocks as 'depth:blocks=layer1.1+layer2.2'."
            )

    def foresee(self, work: Work, context: Context) -> None:
        """Check that there are such blocks, or that the share is within reach without all of them.

        Which of them go is a matter of values, and left to `decide`.
        """
        known = residual_blocks(work.module, context.example)
        if self.blocks or not known:
            self.decide(work, context)
            return
        by, keep = ("params", self.params) if self.macs is None else ("macs", self.macs)
        assert keep is not None
        judge = Judge(work.module, context, by)
        if judge.kept([block.name for block in known]) > keep:
            choose_blocks(judge, known, keep, context)  # which refuses, and says why

    def decide(self, work: Work, context: Context) -> Decision:
        """Return the names of the blocks that go, in the order in which they run.

        Raises:
            ConfigError: If there is no block, none of a name, or the share is out of reach.
        """
        known = residual_blocks(work.module, context.example)
        if not known:
            raise ConfigError(
                "Step 'depth' found no residual block that can be left out: no part of the network "
                "gives its input back once its weights are zero and changes the outputs while they "
                "are not. Use 'prune' or 'low-rank' instead; where the network has blocks, but was "
                "pruned so hard that it answers nothing, put 'recalibrate' before 'depth'."
            )
        chosen = self.blocks or self._chosen(known, work, context)
        return {"blocks": list(asked_blocks(known, chosen))}

    def apply(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return the network without the blocks."""
        module = drop_blocks(work.module, decision["blocks"])
        outputs_of(module, context.example, "The network without its blocks")
        left = {name for name, _ in module.named_parameters()}
        return replace(
            work, module=module, sparse=tuple(name for name in work.sparse if name in left)
        )

    def _chosen(self, known: tuple[Block, ...], work: Work, context: Context) -> list[str]:
        by, keep = ("params", self.params) if self.macs is None else ("macs", self.macs)
        assert keep is not None
        return choose_blocks(Judge(work.module, context, by), known, keep, context)

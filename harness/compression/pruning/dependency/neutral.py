"""Run a network so that channels of zeros change nothing, whatever averages over channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

_NORM_SCALE = 4.0
"""Of what comes out of a norm; any size at which activations are well apart."""
_ATTENTION_SCALE = 0.25
"""Of attention's products: that of heads of width 16."""


class SameScale(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's stubs
    """Make operations that average over channels blind to channels that are zero.

    A layer norm divides by a mean over all channels; without the zeros the mean is another, which
    is no mistake of pruning. Here it divides by the sum instead, which zeros don't change.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and importing the compiler takes seconds

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = func._schema.name.removeprefix("aten::"), dict(kwargs or {})
        if name == "native_layer_norm":
            x, shape, weight, bias, _ = args
            scaled = _by_sum(x, tuple(range(-len(shape), 0)))
            return _shifted(scaled, weight, bias), *_unused(x)
        if name == "native_group_norm":
            x, weight, bias, n, _, _, groups, _ = args
            scaled = _by_sum(x.reshape(n, groups, -1), (-1,)).view(x.shape)
            view = (1, -1, *[1] * (x.dim() - 2))
            weight, bias = (None if t is None else t.view(view) for t in (weight, bias))
            return _shifted(scaled, weight, bias), *_unused(x)
        return func(*args, **kwargs)


class SameAttention(TorchFunctionMode):
    """Give torch's attention one scale, whatever the width of its heads.

    Mostly it is 1 / sqrt(width), which is another one for pruned heads: no mistake of pruning.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            kwargs["scale"] = _ATTENTION_SCALE
        return func(*args, **kwargs)


def _by_sum(x: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    return x * (_NORM_SCALE / x.square().sum(dims, keepdim=True).add(1e-6).sqrt())


def _shifted(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None
) -> torch.Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _unused(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.new_zeros(1), x.new_zeros(1)

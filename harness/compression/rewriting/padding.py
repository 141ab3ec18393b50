"""Where a network adds channels of zeros to images."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from torch import nn


class _Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's stubs
    """Notes in which modules images get channels of zeros."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.modules = [""]
        self.found: list[str] = []

    def enter(self, name: str, *_: Any) -> None:
        """Take that a module begins."""
        self.modules.append(name)

    def leave(self, *_: Any) -> None:
        """Take that it ends."""
        self.modules.pop()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and importing the compiler takes seconds

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, images = func._schema.name, isinstance(args[0] if args else None, torch.Tensor)
        padded = name == "aten::constant_pad_nd" and images and args[0].dim() == 4
        padded = padded and any(size > 0 for size in args[1][4:6])
        if name == "aten::cat" and args[0][0].dim() == 4 and args[1:] in ((1,), (-3,)):
            padded = any(not part.any() for part in args[0])
        if padded and self.modules[-1] not in self.found:
            self.found.append(self.modules[-1])
        return func(*args, **(kwargs or {}))


def pad_places(model: nn.Module, example: torch.Tensor) -> list[str]:
    """Return the modules in whose own forwards channels of zeros are added to images."""
    watcher, hooks = _Watcher(), []
    for name, module in model.named_modules():
        enter = functools.partial(watcher.enter, name)
        hooks.append(module.register_forward_pre_hook(enter))
        hooks.append(module.register_forward_hook(watcher.leave))
    try:
        with torch.no_grad(), watcher:
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return watcher.found

"""By what name a user asks for a network: commands and steps have different ones."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

POSITIONAL = "MODEL"
"""The name of an argument without a name."""
_NAME: ContextVar[str] = ContextVar("name", default="--model")


@contextmanager
def asked_as(name: str) -> Iterator[None]:
    """Have messages call the network's option by another name than `--model` for a while.

    Args:
        name: `POSITIONAL`, or the option of a step, such as `model`.
    """
    token = _NAME.set(name)
    try:
        yield
    finally:
        _NAME.reset(token)


def asked() -> str:
    """Return the name of what the user gave, for messages: `--model` in backquotes."""
    return f"`{_NAME.get()}`"


def as_asked(spec: str) -> str:
    """Return how a user asks for a network, for messages: `--model FILE.py:function`."""
    name = _NAME.get()
    if name == POSITIONAL:
        return f"`{spec}` as `{name}`"
    return f"`{name} {spec}`" if name.startswith("-") else f"`{name}={spec}`"

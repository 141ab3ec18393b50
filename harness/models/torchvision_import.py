"""Import torchvision beside a torch that it wasn't built for.

PyPI's torchvision for Linux is compiled against the CUDA build of torch. Beside a CPU build its
compiled operators fail to load, and its import then fails on registering the shape function of one
of them: "operator torchvision::nms does not exist". Models and transforms need none of these
operators. So the two that the import looks for are declared, without an implementation, before a
second try; calling them raises `NotImplementedError`.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import TYPE_CHECKING

import torch

from harness.errors import ConfigError

if TYPE_CHECKING:
    from types import ModuleType

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []
"""Declarations last as long as their library object is alive."""


def import_torchvision() -> ModuleType:
    """Return torchvision, also where its compiled operators don't load.

    Raises:
        ConfigError: If it isn't installed, or can't be imported even so.
    """
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as exc:
        if exc.name != "torchvision":
            raise _failed(exc) from exc
        raise ConfigError(
            "torchvision is not installed. Run: pip install --no-deps torchvision pillow (without "
            "--no-deps, pip may replace torch by another build)."
        ) from exc
    except (ImportError, RuntimeError, OSError) as exc:
        if "torchvision::" not in str(exc):
            raise _failed(exc) from exc
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # what the failed import left behind
    _declare()
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as exc:
        raise _failed(exc) from exc


def _declare() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        with contextlib.suppress(RuntimeError):  # declared already
            library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)


def _failed(exc: Exception) -> ConfigError:
    return ConfigError(
        f"torchvision can't be imported beside torch {torch.__version__}: {exc}. Install the "
        "version made for it: https://github.com/pytorch/vision#installation"
    )

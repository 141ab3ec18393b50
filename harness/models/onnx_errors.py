"""What can't be made into a network that can be pruned, and what to do about it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from harness.errors import ConfigError, HarnessError
from harness.models.asked import as_asked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx

_QUANTISED = (
    "is part of a quantised graph. Give the float32 model that it was made from; quantisation "
    "comes after pruning"
)
_TREES = "is of a tree ensemble or another model without channels, which can't be pruned"
_CLASSICAL = (
    "is of the operator set 'ai.onnx.ml', of which only Scaler (scikit-learn's StandardScaler and "
    "the like) can be converted. Export the network without that step, and prepare the data instead"
)
_CONTROL = (
    "is control flow. Export the model without branches and loops; from PyTorch, with fixed sizes "
    "or only the batch dynamic"
)
_REMEDIES = {
    "If": _CONTROL,
    "Loop": _CONTROL,
    "Scan": _CONTROL,
    "ZipMap": "returns dictionaries. Export with `to_onnx(..., options={'zipmap': False})`",
    "LSTM": "is recurrent: its channels can't be pruned here",
    "GRU": "is recurrent: its channels can't be pruned here",
    "RNN": "is recurrent: its channels can't be pruned here",
}


def unsupported(path: Path, node: onnx.NodeProto) -> ConfigError:
    """Return the error for an operation that has no counterpart here."""
    kind = node.op_type
    if "quantize" in kind.lower() or kind.startswith("QLinear") or kind.endswith("Integer"):
        reason = _QUANTISED
    elif kind.startswith(("TreeEnsemble", "SVM", "LinearClassifier", "LinearRegressor")):
        reason = _TREES
    elif kind in _REMEDIES:
        reason = _REMEDIES[kind]
    elif node.domain == "ai.onnx.ml":
        reason = _CLASSICAL
    elif node.domain not in ("", "ai.onnx"):
        reason = (
            f"is of the operator set {node.domain!r}, which one runtime only knows. Export the "
            "model again, with standard operators"
        )
    else:
        reason = (
            "has no counterpart in the conversion to torch. Replace that operation before the "
            f"export, or give the network as Python ({as_asked('FILE.py:function')})"
        )
    return refusal(path, node, reason)


def refusal(path: Path, node: onnx.NodeProto, reason: str) -> ConfigError:
    """Return an error that names the node, which `reason` completes to a sentence."""
    label = f"{node.op_type} ({node.name or node.output[0]!r})"
    return ConfigError(f"{path} can't be searched: its node {label} {reason}.")


@contextlib.contextmanager
def in_torch(path: Path) -> Iterator[None]:
    """Turn what torch raises on a converted network into a `ConfigError`.

    Raises:
        ConfigError: If it raises anything. Our own errors pass as they are.
    """
    try:
        yield
    except HarnessError:
        raise
    except Exception as exc:  # torch raises what it likes
        detail = f"{type(exc).__name__}: {exc}".splitlines()[0]
        raise ConfigError(
            f"{path} can't be searched: converted to torch, it fails ({detail}). Export the model "
            "again with the batch dynamic, or give the network as Python "
            f"({as_asked('FILE.py:function')})."
        ) from exc

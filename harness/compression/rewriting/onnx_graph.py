"""ONNX files without what they don't need: dead, doubled and idle parts.

Only what is certain is removed. The graph's inputs and outputs keep their names; nodes with
subgraphs, what subgraphs refer to, and operators of other domains stay as they are, unless nothing
uses their outputs.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import onnx

from harness.compression.rewriting.onnx_idle import idle_nodes, merge_reshapes
from harness.compression.rewriting.onnx_names import Names
from harness.errors import ConfigError, ExportError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
"""Whose operators are known to compute the same of the same inputs, but for `RANDOM`."""
RANDOM = (
    "Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
)  # fmt: skip


def simplified(data: bytes) -> tuple[bytes, dict[str, int]]:
    """Return an ONNX file that computes the same, and how much of what was removed.

    The counts are of `"dead nodes"`, `"dead initializers"`, `"duplicate nodes"`,
    `"duplicate initializers"`, `"idle nodes"` (Identity, Dropout outside training, Cast to the same
    type) and `"merged reshapes"`. The same file gives the same bytes.

    Args:
        data: The file, weights inside.

    Raises:
        ConfigError: If it is no valid ONNX file.
        ExportError: If the result isn't; that is a fault of this function.
    """
    model = _loaded(data)
    passes = {
        "idle nodes": _remove_idle, "merged reshapes": merge_reshapes,
        "duplicate initializers": _merge_initializers, "duplicate nodes": _merge_nodes,
        "dead nodes": _remove_dead_nodes, "dead initializers": _remove_dead_initializers,
    }  # fmt: skip
    counts = dict.fromkeys(passes, 0)
    while True:
        removed = {name: run(model) for name, run in passes.items()}
        if not any(removed.values()):
            break
        for name, number in removed.items():
            counts[name] += number
    _forget_types(model.graph)
    try:
        onnx.checker.check_model(model)
    except Exception as exc:  # the checker's errors have no common base
        raise ExportError(f"The simplified ONNX file is not valid: {exc}") from exc
    return model.SerializeToString(deterministic=True), counts


def _loaded(data: bytes) -> ModelProto:
    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model)
    except Exception as exc:  # errors of protobuf and of the checker have no common base
        text = str(exc).strip().partition("\n")[0]
        raise ConfigError(
            f"Expected a whole, valid ONNX file with its weights inside. Received {len(data):,} "
            f"bytes that are none: {text}. Export it again."
        ) from exc
    return model


def _remove_idle(model: ModelProto) -> int:
    """Remove nodes that return their input; return how many."""
    names, removed = Names(model.graph), 0
    for node in idle_nodes(model, names):
        if names.take_over(node.input[0], node.output[0]):
            names.forget(node)
            model.graph.node.remove(node)
            removed += 1
    return removed


def _merge_initializers(model: ModelProto) -> int:
    """Let equal initializers be one; return how many went."""
    names = Names(model.graph)
    first: dict[bytes, str] = {}
    removed = 0
    for tensor in list(model.graph.initializer):
        if tensor.name in names.fixed or tensor.external_data:
            continue
        kept = first.setdefault(_contents(tensor), tensor.name)
        if kept != tensor.name:
            names.rename_uses(tensor.name, kept)
            model.graph.initializer.remove(tensor)
            removed += 1
    return removed


def _merge_nodes(model: ModelProto) -> int:
    """Let nodes that compute the same of the same inputs be one; return how many went."""
    names = Names(model.graph)
    first: dict[tuple[object, ...], NodeProto] = {}
    removed = 0
    for node in list(model.graph.node):
        if node.domain not in DOMAINS or node.op_type in RANDOM or names.has_subgraph(node):
            continue
        kept = first.setdefault(_computes(node), node)
        if kept is node or any(name in names.fixed for name in node.output):
            continue
        for old, new in zip(node.output, kept.output, strict=True):
            if old:
                names.rename_uses(old, new)
        model.graph.node.remove(node)
        removed += 1
    return removed


def _computes(node: NodeProto) -> tuple[object, ...]:
    """Return what a node's outputs depend on, and which of them it has."""
    attributes = []
    for given in node.attribute:
        one = onnx.AttributeProto()
        one.CopyFrom(given)
        one.doc_string = ""
        if one.HasField("t"):
            one.t.name = one.t.doc_string = ""
        attributes.append((one.name, one.SerializeToString(deterministic=True)))
    made = tuple(bool(name) for name in node.output)
    return (node.domain, node.op_type, tuple(node.input), made, *sorted(attributes))


def _contents(tensor: TensorProto) -> bytes:
    """Return a hash of a tensor's type, shape and values."""
    one = onnx.TensorProto()
    one.CopyFrom(tensor)
    one.name = one.doc_string = ""
    return hashlib.sha256(one.SerializeToString(deterministic=True)).digest()


def _remove_dead_nodes(model: ModelProto) -> int:
    """Remove nodes whose outputs nobody uses; return how many."""
    names, removed = Names(model.graph), 0
    for node in reversed(list(model.graph.node)):
        if any(names.used(name) for name in node.output if name):
            continue
        names.forget(node)
        model.graph.node.remove(node)
        removed += 1
    return removed


def _remove_dead_initializers(model: ModelProto) -> int:
    """Remove initializers that nobody uses; return how many."""
    names = Names(model.graph)
    dead = [x for x in model.graph.initializer if not names.used(x.name)]
    for tensor in dead:
        model.graph.initializer.remove(tensor)
    return len(dead)


def _forget_types(graph: GraphProto) -> None:
    """Remove the notes on values that are gone."""
    there = {name for node in graph.node for name in node.output}
    for value in [value for value in graph.value_info if value.name not in there]:
        graph.value_info.remove(value)

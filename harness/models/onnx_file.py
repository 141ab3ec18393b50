"""`--model onnx:FILE`: an ONNX file of any framework as a network that can be pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from harness.errors import ConfigError
from harness.models.asked import as_asked
from harness.models.network import Network
from harness.models.onnx_convert import walk_graph
from harness.models.onnx_elementwise import ELEMENTWISE
from harness.models.onnx_errors import in_torch
from harness.models.onnx_fuse import fuse
from harness.models.onnx_graph import Graph, named_layers
from harness.models.onnx_layers import LAYERS
from harness.models.onnx_network import OnnxNetwork, Step
from harness.models.onnx_node import BATCHES, Walk
from harness.models.onnx_parity import TOLERANCE, check_against_file
from harness.models.onnx_probabilities import take_off_softmax
from harness.models.onnx_read import OnnxFile, read_model
from harness.models.onnx_select import SELECT
from harness.models.onnx_spatial import SPATIAL
from harness.models.onnx_tensors import TENSORS

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

__all__ = ["TOLERANCE", "check_against_file", "load_onnx"]

_HANDLERS = {**LAYERS, **ELEMENTWISE, **SPATIAL, **TENSORS, **SELECT}
_FOLDED_NORM = (
    "batch norm is folded in this file, if the network had any: the criterion bn_scale and "
    "batch-norm recalibration don't apply"
)


def load_onnx(path: Path, inputs: tuple[int, ...]) -> Network:
    """Convert an ONNX file, and check the result against ONNX Runtime.

    A softmax at the end, or a sigmoid that two classes' probabilities are made of, is taken off,
    since training wants logits; exports have a softmax again.

    Args:
        path: The file: one float32 input, weights inside.
        inputs: Shape of one sample as the data have it: `(C, H, W)`, `(C, L)` or `(F,)`.

    Raises:
        ConfigError: If it can't be read, has another input, has an operation that torch can't be
            taught, or computes something else in torch.
    """
    file = read_model(path)
    sample, nhwc = _layout(file, inputs)
    with in_torch(path):
        module, softmaxes = _converted(file, sample)
        _check(module, file, sample)
    return Network(
        module=module,
        name="".join(c if c.isalnum() or c in "_.+-" else "_" for c in path.stem),
        spec=f"onnx:{path}",
        pretrained=True,
        notes=_notes(file, softmaxes),
        input_name=_writable(file.input_name, "input"),
        output_names=tuple(_writable(name, "output") for name in file.outputs),
        nhwc=nhwc,
        finals=module.finals,
    )


def _layout(file: OnnxFile, inputs: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
    """Return the shape of a sample as the file takes it, and whether that is `[H, W, C]`."""

    def fits(shape: tuple[int, ...]) -> bool:
        return len(shape) + 1 == len(file.sizes) and all(
            size in (None, given) for size, given in zip(file.sizes[1:], shape, strict=True)
        )

    last = (*inputs[1:], inputs[0]) if inputs else ()
    if fits(inputs):
        return inputs, False
    if len(inputs) == 3 and fits(last):
        return last, True
    shown = [size or "?" for size in file.sizes]
    both = f"{list(inputs)} nor as {list(last)}" if len(inputs) == 3 else f"{list(inputs)}"
    raise ConfigError(
        f"{file.path}: its input {file.input_name!r} has the shape {shown}, the first size being "
        f"the batch, which samples of the data don't fit as {both}. Give data of that shape, or "
        "export the model for these."
    )


def _converted(file: OnnxFile, sample: tuple[int, ...]) -> tuple[OnnxNetwork, int]:
    """Return the network, and how many softmaxes were taken off it."""
    opset = next((o.version for o in file.proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    walk = Walk(file.path, opset, file.sizes[0])
    walk.known |= {name: (array, array) for name, array in file.weights.items()}
    walk.live[file.input_name] = tuple(torch.zeros(n, *sample) for n in BATCHES)
    walk_graph(walk, file.nodes, _HANDLERS)
    graph = Graph(walk.drafts, [walk.resolve(name) for name in file.outputs])
    finals = take_off_softmax(graph)
    fuse(graph)
    layers = named_layers(graph.drafts)
    names = {id(draft): name for name, draft in layers.items()}
    steps = tuple(
        Step(names.get(id(draft), draft.call), draft.inputs, draft.outputs)
        for draft in graph.drafts
    )
    modules = {name: cast("nn.Module", draft.call) for name, draft in layers.items()}
    module = OnnxNetwork(
        steps, modules, file.input_name, tuple(graph.outputs), finals, file.outputs
    )
    return module.eval(), len(finals)


def _check(module: OnnxNetwork, file: OnnxFile, sample: tuple[int, ...]) -> None:
    """Compare with the file on random samples, in batches of 1 and 4."""
    rng = np.random.default_rng(0)
    for batch in (1, 4):
        samples = rng.standard_normal((batch, *sample)).astype(np.float32)
        # Noise may be outside of what a network is made for, as of a logarithm.
        error = check_against_file(module, file.path, samples, alike_if_not_finite=True)
        if not error <= TOLERANCE:
            raise ConfigError(
                f"{file.path}: in torch, outputs for a batch of {batch} differ from ONNX Runtime's "
                f"by {error:.2g} of the largest one. Expected at most {TOLERANCE:.0e}. Export the "
                "model again with the batch dynamic, in evaluation mode, or give the network as "
                f"Python ({as_asked('FILE.py:function')})."
            )


def _writable(name: str, kind: str) -> str:
    """Return a name that PyTorch's exporter can write: it refuses plain numbers, which it makes."""
    return f"{kind}_{name}" if name.isdigit() else name


def _notes(file: OnnxFile, softmaxes: int) -> tuple[str, ...]:
    notes = []
    if softmaxes:
        notes.append(
            "the final softmax is taken off for training (or the sigmoid that two classes' "
            "probabilities are made of); exported files have a softmax again"
        )
    if file.dropped:
        names = ", ".join(repr(name) for name in file.dropped)
        notes.append(f"outputs that are no scores were taken off: {names}")
    numbers = [name for name in (file.input_name, *file.outputs) if name.isdigit()]
    if numbers:
        notes.append(f"in exported files, {', '.join(numbers)} has 'input_' or 'output_' before it")
    kinds = {node.op_type for node in file.nodes}
    if "Conv" in kinds and "BatchNormalization" not in kinds:
        notes.append(_FOLDED_NORM)
    return tuple(notes)

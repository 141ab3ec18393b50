"""Who makes and uses which value of an ONNX graph."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import GraphProto, NodeProto


class Names:
    """The values of a graph by name, as long as nodes are changed through this object only.

    Attributes:
        fixed: Names that must stay: of inputs and outputs, of what subgraphs refer to, and of what
            is annotated with how it is quantised.
        makers: The node that makes each value.
    """

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self._uses = Counter(name for node in graph.node for name in node.input)
        self._kept = {value.name for value in graph.output} | set(_in_subgraphs(graph))
        self._kept |= {note.tensor_name for note in graph.quantization_annotation}
        self._kept |= {
            entry.value
            for note in graph.quantization_annotation
            for entry in note.quant_parameter_tensor_names
        }
        self.fixed = self._kept | {value.name for value in graph.input}
        self.makers = {name: node for node in graph.node for name in node.output if name}

    def used(self, name: str) -> bool:
        """Return whether a node, a subgraph or the graph's outputs take this value."""
        return self._uses[name] > 0 or name in self.fixed

    def forget(self, node: NodeProto) -> None:
        """Count a node's uses no more: it goes."""
        self._uses.subtract(node.input)

    def rename_uses(self, old: str, new: str) -> None:
        """Let all nodes take `new` where they took `old`."""
        for node in self.graph.node:
            for place, name in enumerate(node.input):
                if name == old:
                    node.input[place] = new
        self._uses[new] += self._uses.pop(old, 0)

    def take_over(self, given: str, made: str) -> bool:
        """Let one value stand for two equal ones, unless both names must stay.

        Args:
            given: What a node takes.
            made: What it returns.

        Returns:
            Whether nothing needs that node any more.
        """
        if made not in self.fixed:
            self.rename_uses(made, given)
            return True
        maker = self.makers.get(given)
        if maker is None or given in self.fixed:
            return False
        self.rename_uses(given, made)
        place = list(maker.output).index(given)
        maker.output[place] = made
        self.makers[made] = maker
        return True

    @staticmethod
    def has_subgraph(node: NodeProto) -> bool:
        """Return whether graphs lie within a node."""
        return any(one.HasField("g") or one.graphs for one in node.attribute)


def _in_subgraphs(graph: GraphProto) -> Iterator[str]:
    """Yield every name that graphs within nodes mention."""
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from (name for one in inner.node for name in (*one.input, *one.output))
                yield from (value.name for value in inner.output)
                yield from _in_subgraphs(inner)

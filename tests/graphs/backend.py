"""What a graph holds: how often the map `Exp` is evaluated in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._dynamo.backends.registry import lookup_backend
from torch.fx import GraphModule

# torch looks at the .grad of each tensor that compiled code is given, and hides its own warning
# from users, but not from those who turn warnings into errors
READS_GRAD = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


def count(nodes: Any) -> int:
    """How many of `nodes` evaluate `Exp`, by the name of what they call."""
    return sum("exp" in str(node.target) for node in nodes if node.op.startswith("call"))


class Graphs:
    """A backend that notes how often `Exp` is evaluated in each graph that it is given."""

    def __init__(self, backend: str = "eager") -> None:
        self.evaluations: list[int] = []
        self.backend = backend

    def __call__(self, graph: GraphModule, inputs: Any) -> Any:
        self.evaluations.append(count(graph.graph.nodes))
        return lookup_backend(self.backend)(graph, inputs)

    def compile(self, function: Callable[..., Any], **options: Any) -> Any:
        return torch.compile(function, backend=self, fullgraph=True, **options)

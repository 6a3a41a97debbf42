"""Graph -> the graph that runs: weights packed for the target, integer constants folded into
attributes."""

from __future__ import annotations

from edgekit import ops
from edgekit.ir import Graph
from edgekit.layout import Target
from edgekit.ops import conv2d_add, conv16, map16, winograd


def lower(graph: Graph, target: Target) -> Graph:
    """Rewrites every op into its runtime form for the target's ISAs.

    Weights become packed tensors, one variant per layout those ISAs read; bounds, zero points and
    requantization constants become attributes; on boards an
    addition is part of the convolution before it.  The input graph is not changed.
    """
    g = graph.copy() if target.linux else conv2d_add.fuse(graph)
    lowered = []
    for op in g.ops:
        if conv16.takes(op, g):
            op = conv16.instead(op, g)
        elif map16.takes(op, g):
            op = map16.instead(op, g)
        elif winograd.pays(op, g, target):
            op = winograd.instead(op)
        definition = ops.get(op.type)
        lowered.append(definition.lower(op, g, target) if definition.lower else op)
    g.ops = lowered
    g.drop_unused()
    return g

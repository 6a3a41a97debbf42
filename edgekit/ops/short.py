"""int8 ops that sum, with biases and scales of few bits (`edgekit/compact.py`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgekit.compact import short_bias
from edgekit.ir import Graph, Op
from edgekit.ops.conv2d import WEIGHTED, int_parts


def shorten(graph: Graph) -> Graph:
    """Rounds the constants of every int8 op that sums; shorter ones stay as they are."""
    g = graph.copy()
    g.ops = [shorter(op, g) for op in g.ops]
    g.drop_unused()
    return g


def _takes(op: Op, g: Graph) -> bool:
    ends = (op.inputs[0], op.outputs[0])
    if op.type not in WEIGHTED or any(g.tensors[n].dtype != "i8" for n in ends):
        return False
    spec = g.tensors[op.inputs[1]].quant
    return g.is_const(op.inputs[1]) and spec is not None and not spec.group


def shorter(op: Op, g: Graph) -> Op:
    """An op with its constants rounded, which `g` gets; itself where it has none to round."""
    if not _takes(op, g):
        return op
    t = g.tensors[op.inputs[1]]
    w, bias = g.value(op.inputs[1]), g.value(op.inputs[2]) if len(op.inputs) > 2 else None
    assert w is not None and t.quant is not None
    if not t.quant.short:  # who shares the weights multiplies by a short scale of its own
        g.tensors[t.name] = replace(t, quant=replace(t.quant, short=True))
    scale, _, _, zx, _, wz = int_parts(op, g, w)
    wide = w.astype(np.int64)
    axes = (0, 1) if op.type == "depthwise_conv2d" else tuple(range(1, w.ndim))
    count = w.size // len(scale)
    fold = zx * (wide.sum(axes) - count * wz.astype(np.int64))  # what the package's bias leaves out
    b = np.zeros(len(scale), np.int64) if bias is None else bias.astype(np.int64)
    few = short_bias(b - fold, scale) + fold
    if np.array_equal(few, b) or np.abs(few).max() >= 1 << 31:
        return op
    name = g.const(f"{op.name}.bias", few.astype(np.int32))
    return op.with_(inputs=(*op.inputs[:2], name))

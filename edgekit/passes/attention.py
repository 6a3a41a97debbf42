"""Scalar factors around matrix products meet in one place: the beta of the softmax that follows."""

from __future__ import annotations

import math

import numpy as np

from edgekit.ir import Graph, Op
from edgekit.passes.edit import Editor

MOVES = ("transpose", "reshape", "slice")


def _factor(e: Editor, op: Op) -> tuple[str, float] | None:
    """(x, f) of an op that is x * f with a constant scalar."""
    if op.type != "binary" or op.attrs["lo"] != -math.inf or op.attrs["hi"] != math.inf:
        return None
    f = e.scalar(op.inputs[1]) if e.g.tensors[op.outputs[0]].dtype == "f32" else None
    if f is None or not math.isfinite(f) or e.shape(op.inputs[0]) != e.shape(op.outputs[0]):
        return None
    if op.attrs["kind"] == "mul":
        return op.inputs[0], f
    return (op.inputs[0], 1 / f) if op.attrs["kind"] == "div" and f else None


def scalars_after_matmul(graph: Graph) -> Graph:
    """matmul(a * s, b * t) -> matmul(a, b) * (s * t), seen through ops that only move values."""
    e = Editor(graph)
    for op in e.walk():
        if op.type != "matmul" or op.outputs[0] in e.g.outputs or op.inputs[0] == op.inputs[1]:
            continue
        total = 1.0
        for name in op.inputs:
            step = e.producer(name)
            while step is not None and step.type in MOVES and e.private(step):
                step = e.producer(step.inputs[0])
            found = _factor(e, step) if step is not None and e.private(step) else None
            if found is not None and step is not None:
                e.replace(step, found[0])
                total *= found[1]
        if total != 1.0:
            _append(e, e.ops[op.outputs[0]], total)
    return e.finish()


def _append(e: Editor, op: Op, factor: float) -> None:
    """Puts a multiplication behind an op whose readers are known."""
    (y,) = op.outputs
    readers = e.consumers(y)
    f = e.const(f"{op.name}.factor", np.asarray(factor, np.float32))
    scaled = e.emit("binary", [y, f], {"kind": "mul"}, name=f"{op.name}.scaled")
    for reader in readers:
        e.change(reader, inputs=[scaled if i == y else i for i in reader.inputs])


def scale_into_softmax(graph: Graph) -> Graph:
    """softmax(x * s) -> softmax with beta s; only for positive s."""
    e = Editor(graph)
    for op in e.walk():
        source = e.producer(op.inputs[0]) if op.type == "softmax" else None
        found = _factor(e, source) if source is not None and e.private(source) else None
        if source is not None and found is not None and found[1] > 0:
            e.change(op, inputs=[found[0]], beta=op.attrs["beta"] * found[1])
    return e.finish()

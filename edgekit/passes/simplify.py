"""Passes that remove work: constants are computed, ops that change nothing go."""

from __future__ import annotations

import math

import numpy as np

from edgekit import ops
from edgekit.ir import Array, Graph, Op
from edgekit.passes.edit import Editor, is_constant_quant

FOLD_LIMIT = 1 << 20  # elements: a repeated constant larger than this stays an op


def fold_constants(graph: Graph) -> Graph:
    """Evaluates ops whose operands are all constants, by their numpy references.

    Dequantized constants stay: `edgekit.passes.qdq` takes their integers as they are.
    """
    e = Editor(graph)
    for op in e.walk():
        data = [e.value(i) if i else None for i in op.inputs]
        if (
            not op.inputs
            or any(d is None and i for d, i in zip(data, op.inputs))
            or is_constant_quant(e.g, op)
        ):
            continue
        if any(o in e.g.outputs or o in e.g.states for o in op.outputs):
            continue
        if op.type == "tile" and e.g.tensors[op.outputs[0]].size > FOLD_LIMIT:
            continue
        results = ops.get(op.type).reference(op, e.g, data)
        e.remove(op)
        for o, value in zip(op.outputs, results, strict=True):
            e.as_const(o, value)
    return e.finish()


def fold_dequantized(graph: Graph) -> Graph:
    """Turns the dequantized constants that no integer op took into float constants."""
    e = Editor(graph)
    for op in e.walk():
        if is_constant_quant(e.g, op) and op.outputs[0] not in e.g.outputs:
            t = e.g.tensors[op.inputs[0]]
            assert t.data is not None and t.quant is not None
            e.remove(op)
            e.as_const(op.outputs[0], t.quant.dequantize(t.data))
    return e.finish()


def _is_noop(e: Editor, op: Op) -> bool:
    """Whether output 0 equals input 0, value for value."""
    x, y = e.g.tensors[op.inputs[0]], e.g.tensors[op.outputs[0]]
    if len(op.outputs) != 1 or x.shape != y.shape or x.dtype != y.dtype or x.quant != y.quant:
        return False
    a = op.attrs
    match op.type:
        case "reshape" | "tile" | "pad":
            return True
        case "slice":  # backwards has the same shape
            return all(k == 1 or n == 1 for k, n in zip(a["step"], x.shape))
        case "cast":
            return True
        case "transpose":
            return tuple(a["perm"]) == tuple(range(len(x.shape)))
        case "concat":
            return len([i for i in op.inputs if i]) == 1
        case "unary":
            return _is_clamp(op) and (a["alpha"], a["beta"]) == (-math.inf, math.inf)
        case "binary" if y.dtype == "f32" and (a["lo"], a["hi"]) == (-math.inf, math.inf):
            neutral = {"add": 0, "sub": 0, "mul": 1, "div": 1, "pow": 1}.get(a["kind"])
            other = e.value(op.inputs[1])
            return neutral is not None and other is not None and bool(np.all(other == neutral))
    return False


def drop_identities(graph: Graph) -> Graph:
    """Removes ops that return their operand, merges reshapes and clamps that follow each other."""
    e = Editor(graph)
    for op in e.walk():
        source = e.producer(op.inputs[0]) if op.inputs else None
        if (
            op.type == "binary"
            and op.attrs["kind"] in ("add", "mul")
            and e.value(op.inputs[0]) is not None
        ):
            op = e.change(op, inputs=op.inputs[::-1])  # constants second
            source = e.producer(op.inputs[0])
        if op.type == "reshape" and source is not None and source.type == "reshape":
            op = e.change(op, inputs=source.inputs)
        if source is not None and _is_clamp(op) and _is_clamp(source):
            lo, hi = source.attrs["alpha"], source.attrs["beta"]
            a, b = (min(max(v, lo), hi) for v in (op.attrs["alpha"], op.attrs["beta"]))
            op = e.change(op, inputs=source.inputs, alpha=a, beta=b)
        if (
            op.inputs
            and _is_noop(e, op)
            and op.outputs[0] not in e.g.states
            and not (op.outputs[0] in e.g.outputs and op.inputs[0] not in e.made)
        ):
            e.replace(op, op.inputs[0])
    return e.finish()


def strength(graph: Graph) -> Graph:
    """Cheaper ops for the same: quotients by constants, squares, roots, and slices of slices."""
    e = Editor(graph)
    for op in e.walk():
        if op.type == "binary" and e.g.tensors[op.outputs[0]].dtype == "f32":
            _cheaper(e, op)
        elif op.type == "slice":
            before = e.producer(op.inputs[0], "slice")
            if before is not None and e.private(before):
                rows = zip(
                    *(before.attrs[k] for k in ("begin", "step")),
                    *(op.attrs[k] for k in ("begin", "step")),
                )
                merged = [(b + i * s, s * k) for b, s, i, k in rows]
                begin, step = (tuple(int(m[j]) for m in merged) for j in (0, 1))
                e.change(op, inputs=before.inputs, begin=begin, step=step)
    return e.finish()


def _cheaper(e: Editor, op: Op) -> None:
    x, other = op.inputs
    data = e.value(other)
    if data is None or e.value(x) is not None:
        return
    if op.attrs["kind"] == "div" and np.all(data != 0):
        e.change(
            op,
            inputs=[x, e.const(other, (1 / data.astype(np.float64)).astype(np.float32))],
            kind="mul",
        )
    power = (
        e.scalar(other)
        if op.attrs["kind"] == "pow" and e.shape(x) == e.shape(op.outputs[0])
        else None
    )
    if power == 2:
        e.change(op, inputs=[x, x], kind="mul")
    elif power in (0.5, -0.5, -1.0) and op.attrs["lo"] == -math.inf and op.attrs["hi"] == math.inf:
        kind = {0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}[power]
        e.swap(op, Op("unary", op.name, (x,), op.outputs, ops.get("unary").fill({"kind": kind})))


def _is_clamp(op: Op) -> bool:
    return op.type == "unary" and op.attrs["kind"] == "clamp"


def merge_equal(graph: Graph) -> Graph:
    """Keeps one of several ops that compute the same from the same operands."""
    e = Editor(graph)
    seen: dict[tuple[object, ...], Op] = {}
    for op in e.walk():
        if len(op.outputs) != 1 or op.outputs[0] in (*e.g.outputs, *e.g.states):
            continue
        t = e.g.tensors[op.outputs[0]]
        key = (op.type, op.inputs, repr(sorted(op.attrs.items())), t.dtype, t.quant)
        if key in seen:
            e.replace(op, seen[key].outputs[0])
        else:
            seen[key] = op
    return e.finish()


def channel_vector(data: Array, rank: int, channels: int) -> Array | None:
    """(channels,) float64 of a constant that broadcasts along the last axis only; None of any
    other.
    """
    shape = (1,) * (rank - data.ndim) + data.shape
    if len(shape) != rank or any(d != 1 for d in shape[:-1]) or shape[-1] not in (1, channels):
        return None
    return np.broadcast_to(data.ravel().astype(np.float64), (channels,))

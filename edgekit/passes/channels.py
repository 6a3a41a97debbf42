"""Exact removal of channels that carry nothing: constant ones and ones nobody reads.

A channel whose weights are all zero, or too small to move its int8 output, has one value
everywhere; pruned and trained-down models are full of them (half of the multiplications of the
public visual-wake-words model).  Its contribution to the next layer is a constant and moves into
that layer's bias; integers stay the same bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgekit import ops, qmath
from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor

SOURCES = ("conv2d", "linear")
ELEMENTWISE = ("unary", "lut", "cast")
GRANULE = 8  # channels stay a multiple: kernels read whole vectors, and pointwise inputs in place


@dataclass
class Chain:
    """A producer, the channelwise ops behind it, and the one op that mixes its channels again."""

    source: Op
    between: list[Op] = field(default_factory=list)
    sink: Op | None = None


def remove_constant_channels(graph: Graph) -> Graph:
    """Removes constant and unread channels between two channel-mixing ops; the outputs keep their
    bits.

    (Float sums may round differently where terms that were zero are gone.)
    """
    g = graph.copy()
    changed = True
    while changed:
        changed = False
        consumers = g.consumers()
        for op in list(g.ops):
            chain = _chain(g, op, consumers) if op.type in SOURCES else None
            if chain and _shrink(g, chain):
                changed = True
                break
    if len(g.tensors) != len(graph.tensors) or g.tensors != graph.tensors:
        g.drop_unused()
        g.check()
    return g


def _chain(g: Graph, op: Op, consumers: dict[str, list[Op]]) -> Chain | None:
    """The chain from `op` to its sink; None where its channels are used in any other way."""
    if op.attrs.get("groups", 1) != 1 or g.value(op.inputs[1]) is None:
        return None
    if g.tensors[op.inputs[0]].dtype == "i16" or g.tensors[op.outputs[0]].dtype == "i16":
        return None
    chain, at = Chain(op), op.outputs[0]
    while True:
        users = consumers.get(at, [])
        if len(users) != 1 or at in g.outputs or users[0].inputs[0] != at:
            return None
        user = users[0]
        if user.type in SOURCES:
            ok = user.attrs.get("groups", 1) == 1 and g.value(user.inputs[1]) is not None
            chain.sink = user
            return chain if ok and user.inputs.count(at) == 1 else None
        if not _channelwise(g, user):
            return None
        chain.between.append(user)
        at = user.outputs[0]


def _channelwise(g: Graph, op: Op) -> bool:
    if op.type == "depthwise_conv2d":
        return g.value(op.inputs[1]) is not None
    if op.type == "reduce":
        rank = len(g.tensors[op.inputs[0]].shape)
        return op.attrs["kind"] in ("mean", "max") and not op.attrs["axes"] >> (rank - 1) & 1
    if op.type == "reshape":  # only axes of length 1 come and go: the last axis stays the channels
        a, b = g.tensors[op.inputs[0]].shape, g.tensors[op.outputs[0]].shape
        return bool(a and b) and a[-1] == b[-1] and int(np.prod(a[:-1])) == int(np.prod(b[:-1]))
    return op.type in (*ELEMENTWISE, "max_pool2d", "avg_pool2d")


def _zero(g: Graph, name: str) -> int:
    q = g.tensors[name].quant
    return int(q.zero) if q is not None and q.axis is None else 0


def _real_weights(g: Graph, op: Op) -> Array:
    """Weights minus their zero point, as float64 or int64."""
    w, q = g.value(op.inputs[1]), g.tensors[op.inputs[1]].quant
    assert w is not None
    if w.dtype == np.float32:
        return w.astype(np.float64)
    return w.astype(np.int64) - (q.broadcast(w.ndim)[1] if q is not None else 0)


def _bias(g: Graph, op: Op, n: int) -> Array:
    b = g.value(op.inputs[2]) if len(op.inputs) > 2 and op.inputs[2] else None
    kind = np.float64 if g.tensors[op.inputs[0]].dtype == "f32" else np.int64
    return np.zeros(n, kind) if b is None else b.astype(kind)


def _finish(g: Graph, op: Op, acc: Array) -> Array:
    """Accumulators (n,) -> stored output values of a linear-type op."""
    if g.tensors[op.inputs[0]].dtype == "f32":
        return np.clip(acc, op.attrs["lo"], op.attrs["hi"]).astype(np.float32)
    from edgekit.ops.conv2d import int_parts

    w = g.value(op.inputs[1])
    assert w is not None
    scale, lo, hi, _, zy, _ = int_parts(op, g, w)
    return qmath.requantize(acc.astype(np.int32), scale, lo, hi, zy)


def _constants(g: Graph, chain: Chain) -> tuple[Array, Array]:
    """(is constant (n,), stored value (n,)) of the channels that reach the sink."""
    src = chain.source
    n = g.tensors[src.outputs[0]].shape[-1]
    if _dynamic(g, src):
        return np.zeros(n, bool), np.zeros(n)
    w = _real_weights(g, src).reshape(n, -1)
    fixed, value = _span(g, src, w, np.zeros(n, bool), np.zeros(n))
    for op in chain.between:
        zx = _zero(g, op.inputs[0])
        if op.type == "depthwise_conv2d":
            taps = _real_weights(g, op).reshape(-1, n).T
            known = fixed & ((value == zx) | (not any(op.attrs["pad"])))
            fixed, value = _span(g, op, taps, known, value.astype(taps.dtype) - zx)
        elif op.type in ELEMENTWISE:
            values = [value, *(g.value(i) for i in op.inputs[1:])]
            value = ops.get(op.type).reference(op, g, values)[0]
        elif op.type == "avg_pool2d" or (op.type == "reduce" and op.attrs["kind"] == "mean"):
            fixed = fixed & (value == zx)  # the mean of anything else may round
            value = np.full_like(value, _zero(g, op.outputs[0]))
    return fixed, value


def _dynamic(g: Graph, op: Op) -> bool:
    """Rows quantized at run time: their scale is the maximum over all channels, so none may go."""
    return g.tensors[op.inputs[0]].dtype == "f32" and g.tensors[op.inputs[1]].dtype == "i8"


def _span(g: Graph, op: Op, w: Array, known: Array, at: Array) -> tuple[Array, Array]:
    """(has one output value whatever the input (n,), that value (n,)).

    w (n, k): weights; where `known`, every input of the channel is `at` (n,) above its zero point.
    An int8 input can only be -128 .. 127: where the extreme sums round to one output, the channel
    is constant.
    """
    bias = _bias(g, op, len(w))
    if g.tensors[op.inputs[0]].dtype == "f32":
        return known | ~np.any(w, axis=1), _finish(g, op, bias + np.where(known, at, 0) * w.sum(1))
    zx = _zero(g, op.inputs[0])
    low, high = w * (qmath.QMIN - zx), w * (qmath.QMAX - zx)
    exact = at.astype(np.int64) * w.sum(1)
    first = _finish(
        g,
        op,
        np.clip(bias + np.where(known, exact, np.minimum(low, high).sum(1)), -(2**31), 2**31 - 1),
    )
    last = _finish(
        g,
        op,
        np.clip(bias + np.where(known, exact, np.maximum(low, high).sum(1)), -(2**31), 2**31 - 1),
    )
    return first == last, first


def _shrink(g: Graph, chain: Chain) -> bool:
    """Drops what can go from one chain; False where nothing can."""
    sink = chain.sink
    assert sink is not None
    fixed, value = _constants(g, chain)
    w = _real_weights(g, sink)
    zx = _zero(g, sink.inputs[0])
    padded = sink.type == "conv2d" and any(sink.attrs["pad"])
    unread = ~np.any(w.reshape(-1, w.shape[-1]), axis=0)
    gone = unread | (fixed & ((value == zx) | (not padded)))
    if _dynamic(g, sink):
        return False
    if gone.all():
        gone[0] = False
    back = -int((~gone).sum()) % GRANULE
    gone[np.flatnonzero(gone)[:back]] = False
    if not gone.any():
        return False
    keep = ~gone
    if np.any(gone & ~unread & (value != zx)):
        lost = np.where(gone & ~unread, value.astype(w.dtype) - zx, 0)
        _set_bias(
            g, sink, _bias(g, sink, len(w)) + w.reshape(len(w), -1, w.shape[-1]).sum(1) @ lost
        )
    _narrow_op(g, chain.source, keep, (1, 0), (2, 0))
    for op in chain.between:
        if op.type == "depthwise_conv2d":
            _narrow_op(g, op, keep, (1, 2), (2, 0))
        elif op.type == "reshape":
            shape = (*g.tensors[op.outputs[0]].shape[:-1], int(keep.sum()))
            g.ops[g.ops.index(op)] = op.with_(attrs=dict(op.attrs, shape=shape))
    _narrow_op(g, _again(g, sink), keep, (1, -1))
    for op in (chain.source, *chain.between):
        t = g.tensors[op.outputs[0]]
        g.tensors[t.name] = _resized(t, keep)
    return True


def _again(g: Graph, op: Op) -> Op:
    """The op as it is in the graph now (its bias may have been replaced)."""
    return next(o for o in g.ops if o.outputs == op.outputs)


def _resized(t: Tensor, keep: Array) -> Tensor:
    return Tensor(t.name, (*t.shape[:-1], int(keep.sum())), t.dtype, None, t.quant)


def _set_bias(g: Graph, op: Op, bias: Array) -> None:
    kind: Any = np.float32 if bias.dtype == np.float64 else np.int32
    name = g.const(f"{op.name}.bias", bias.astype(kind))
    g.ops[g.ops.index(op)] = op.with_(inputs=(*op.inputs[:2], name))


def _narrow_op(g: Graph, op: Op, keep: Array, *operands: tuple[int, int]) -> None:
    """Replaces constants of an op by their kept part: (operand, axis) pairs."""
    inputs = list(op.inputs)
    for i, axis in operands:
        if i >= len(inputs) or not inputs[i]:
            continue
        t = g.tensors[inputs[i]]
        assert t.data is not None
        data = np.compress(keep, t.data, axis=axis)
        inputs[i] = g.const(t.name, data, _spec(t.quant, axis % t.data.ndim, keep))
    g.ops[g.ops.index(op)] = op.with_(inputs=tuple(inputs))


def _spec(q: QuantSpec | None, axis: int, keep: Array) -> QuantSpec | None:
    if q is None or q.axis is None or q.axis != axis:
        return q
    return replace(q, scale=q.scale[keep], zero=q.zero[keep])

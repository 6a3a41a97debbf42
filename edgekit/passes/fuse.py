"""Passes that put work into the op before: scales, biases, clamps and padding."""

from __future__ import annotations

import math

import numpy as np

from edgekit.ir import Array, Graph, Op
from edgekit.ops import get
from edgekit.ops.conv2d import WEIGHTED
from edgekit.passes.edit import Editor
from edgekit.passes.simplify import channel_vector

CHANNEL_AXIS = {
    "conv2d": 0,
    "linear": 0,
    "depthwise_conv2d": 2,
    "conv_transpose2d": 0,
}  # of the weights
MONOTONE = {"max_pool2d", "reshape", "transpose", "slice"}  # clamp(f(x)) = f(clamp(x))
PADDED = {"conv2d", "depthwise_conv2d"}


def _affine(e: Editor, op: Op, channels: int) -> tuple[str, Array, Array] | None:
    """(x, scale (c,), shift (c,)) of a binary op that is x * scale + shift with constants;
    float64.
    """
    rank = len(e.shape(op.outputs[0]))
    kind = op.attrs["kind"]
    one, zero = np.ones(channels), np.zeros(channels)
    for x, other in (op.inputs, op.inputs[::-1]):
        data = e.value(other)
        v = None if data is None else channel_vector(data, rank, channels)
        if v is None or e.shape(x) != e.shape(op.outputs[0]):
            continue
        match kind:
            case "mul":
                return x, v, zero
            case "add":
                return x, one, v
            case "sub":
                return (x, one, -v) if x == op.inputs[0] else (x, -one, v)
            case "div" if x == op.inputs[0] and np.all(v != 0):
                return x, 1 / v, zero
    return None


def fold_affine(graph: Graph) -> Graph:
    """Multiplies and adds per-channel constants into the weights and bias of the op before
    (BatchNorm's work).
    """
    e = Editor(graph)
    for key in [op.outputs[0] for op in e.order() if op.type in CHANNEL_AXIS]:
        op = e.ops.get(key)
        while op is not None and not _clamped(op):
            after = e.sole(op.outputs[0])
            found = (
                _affine(e, after, e.shape(key)[-1])
                if after is not None and after.type == "binary"
                else None
            )
            if after is None or found is None or found[0] != op.outputs[0]:
                break
            op = _scale_into(e, op, after, found[1], found[2])
    return e.finish()


def _clamped(op: Op) -> bool:
    return bool(op.attrs["lo"] != -math.inf or op.attrs["hi"] != math.inf)


def _scale_into(e: Editor, op: Op, after: Op, scale: Array, shift: Array) -> Op | None:
    """Folds after(y) = y * scale + shift (clamped) into op; None where its weights are not
    constant floats.
    """
    w = e.value(op.inputs[1])
    bias = e.value(op.inputs[2]) if len(op.inputs) > 2 and op.inputs[2] else np.zeros(len(scale))
    if w is None or bias is None or w.dtype != np.float32:
        return None
    w2, inputs = op.inputs[1], [op.inputs[0]]
    if np.any(scale != 1):
        dims = [1] * w.ndim
        dims[CHANNEL_AXIS[op.type]] = -1
        w2 = e.const(op.inputs[1], (w * scale.reshape(dims)).astype(np.float32))
    inputs += [w2, e.const(f"{op.name}.bias", (bias * scale + shift).astype(np.float32))]
    op = e.change(op, inputs=inputs, lo=after.attrs["lo"], hi=after.attrs["hi"])
    y = e.replace(after, op.outputs[0])
    return e.producer(y)


def _takes_clamp(op: Op) -> bool:
    return any(f.name == "hi" for f in get(op.type).fields)


def fuse_clamps(graph: Graph) -> Graph:
    """Moves a clamp (relu, relu6, clip) into lo and hi of the float op that makes its operand.

    A maximum or a move of values in between changes places with it.
    """
    e = Editor(graph)
    for op in e.walk():
        if op.type != "unary" or op.attrs["kind"] != "clamp":
            continue
        source = e.producer(op.inputs[0])
        while source is not None and source.type in MONOTONE and e.private(source):
            source = e.producer(source.inputs[0])
        if source is None or not e.private(source) or not _takes_clamp(source):
            continue
        lo, hi = source.attrs["lo"], source.attrs["hi"]
        a, b = (min(max(v, lo), hi) for v in (op.attrs["alpha"], op.attrs["beta"]))
        e.change(source, lo=a, hi=b)
        e.replace(op, op.inputs[0])
    return e.finish()


def fold_pads(graph: Graph) -> Graph:
    """Moves a pad with zeros (int8: zero points) along rows and columns into its reader."""
    e = Editor(graph)
    for op in e.walk():
        pad = e.producer(op.inputs[0], "pad") if op.inputs and op.type in PADDED else None
        if pad is None or pad.attrs["mode"] != "constant":
            continue
        t = e.g.tensors[pad.inputs[0]]
        zero = 0 if t.quant is None else int(t.quant.zero)
        if pad.attrs["value"] != zero or t.quant != e.g.tensors[pad.outputs[0]].quant:
            continue
        b, a = pad.attrs["before"], pad.attrs["after"]
        if len(b) != 4 or any((b[0], b[3], a[0], a[3])):
            continue
        top, left, bottom, r = op.attrs["pad"]
        e.change(
            op,
            inputs=(pad.inputs[0], *op.inputs[1:]),
            pad=(top + b[1], left + b[2], bottom + a[1], r + a[2]),
        )
    return e.finish()


def matmul_to_linear(graph: Graph) -> Graph:
    """A matmul with a constant matrix (k, n) becomes linear with weights (n, k)."""
    e = Editor(graph)
    for op in e.walk():
        if op.type != "matmul":
            continue
        w = e.value(op.inputs[1])
        if (
            w is None
            or w.dtype != np.float32
            or math.prod(w.shape[:-2]) != 1
            or len(e.shape(op.inputs[0])) < w.ndim
        ):
            continue
        matrix = w.reshape(w.shape[-2:])
        matrix = matrix if op.attrs["trans_b"] else matrix.T
        inputs = (op.inputs[0], e.const(op.inputs[1], matrix))
        e.swap(op, Op("linear", op.name, inputs, op.outputs, get("linear").fill({})))
    return e.finish()


def transpose_into_matmul(graph: Graph) -> Graph:
    """Lets matmul read its second operand by rows where a transpose would swap the last axes."""
    e = Editor(graph)
    for op in e.walk():
        source = e.producer(op.inputs[1], "transpose") if op.type == "matmul" else None
        if source is None:
            continue
        perm = tuple(int(p) for p in source.attrs["perm"])
        swapped = (*perm[:-2], perm[-1], perm[-2])
        if swapped[-1] != len(perm) - 1:
            continue
        b = source.inputs[0]
        if swapped != tuple(range(len(perm))):
            b = e.emit(
                "transpose", [b], {"perm": swapped}, name=source.name, quant=e.g.tensors[b].quant
            )
        e.change(op, inputs=[op.inputs[0], b], trans_b=1 - op.attrs["trans_b"])
    return e.finish()


def fold_input_affine(graph: Graph) -> Graph:
    """Takes per-channel scales and shifts of an op's input into its weights.

    A shift before a padded window op stays: the padding is 0 after the shift.
    """
    e = Editor(graph)
    for op in e.walk():
        if op.type not in WEIGHTED or op.attrs.get("groups", 1) != 1:
            continue
        before = e.producer(op.inputs[0], "binary")
        w = e.value(op.inputs[1])
        if (
            before is None
            or _clamped(before)
            or not e.private(before)
            or w is None
            or w.dtype != np.float32
        ):
            continue
        found = _affine(e, before, e.shape(op.inputs[0])[-1])
        if found is None or (np.any(found[2] != 0) and any(op.attrs.get("pad", ()))):
            continue
        x, scale, shift = found
        bias = (
            e.value(op.inputs[2])
            if len(op.inputs) > 2 and op.inputs[2]
            else np.zeros(e.shape(op.outputs[0])[-1])
        )
        if bias is None:
            continue
        sums = (
            w.astype(np.float64) * shift
        )  # the last axis of all three layouts is the input channel
        total = (
            sums.sum(axis=(0, 1))
            if op.type == "depthwise_conv2d"
            else sums.reshape(len(w), -1).sum(1)
        )
        weights = e.const(op.inputs[1], (w * scale).astype(np.float32))
        e.change(
            op, inputs=(x, weights, e.const(f"{op.name}.bias", (bias + total).astype(np.float32)))
        )
    return e.finish()

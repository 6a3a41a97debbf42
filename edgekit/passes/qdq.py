"""Models quantized by others as float ops between casts (ONNX QDQ): the casts move into the ops.

dequantize -> op -> quantize becomes the integer op, with the scales, zero points, weights and
biases of the model as they are.  What has no integer form stays float between its casts.
"""

from __future__ import annotations

import numpy as np

from edgekit.ir import Array, Graph, Op, QuantSpec
from edgekit.ops import get
from edgekit.ops.lut import table_of
from edgekit.passes.edit import Editor

CHANNELS = {"depthwise_conv2d": 2}  # axis of the weights' output channels; 0 elsewhere
MOVES = ("reshape", "transpose", "slice", "tile")


def _dequantized(e: Editor, tensor: str) -> str | None:
    """The int8 tensor, quantized as a whole, behind a dequantizing cast."""
    op = e.producer(tensor, "cast")
    t = e.g.tensors[op.inputs[0]] if op is not None and op.attrs["to"] == "f32" else None
    return (
        t.name
        if t is not None and t.dtype == "i8" and t.quant is not None and t.quant.axis is None
        else None
    )


def _quantizer(e: Editor, op: Op) -> Op | None:
    """The quantizing cast that is the only reader of an op's only output."""
    after = e.sole(op.outputs[0]) if len(op.outputs) == 1 else None
    if after is None or after.type != "cast" or after.attrs["to"] != "i8":
        return None
    return after if e.g.tensors[after.outputs[0]].quant is not None else None


def sink_dequantize(graph: Graph) -> Graph:
    """Moves values as integers: reshape(dequantize(x)) -> dequantize(reshape(x)), and joins casts
    that meet.
    """
    e = Editor(graph)
    for op in e.walk():
        if op.type in MOVES:
            q = _dequantized(e, op.inputs[0])
            if q is None:
                continue
            spec = e.g.tensors[q].quant
            y = e.emit(op.type, [q, *op.inputs[1:]], op.attrs, name=op.name, quant=spec)
            e.replace(op, e.emit("cast", [y], {"to": "f32"}, name=f"{op.name}.dequantize"))
        elif op.type == "cast" and op.attrs["to"] == "i8":
            q = _dequantized(e, op.inputs[0])
            if q is not None:
                if e.g.tensors[q].quant == e.g.tensors[op.outputs[0]].quant:
                    e.replace(op, q)
                else:
                    e.change(op, inputs=[q])
    return e.finish()


def form_integer_ops(graph: Graph) -> Graph:
    """Replaces every float op whose operands are dequantized and whose result is quantized by its
    integer form.
    """
    e = Editor(graph)
    for op in e.walk():
        mode = get(op.type).int8(op)
        after = _quantizer(e, op) if mode else None
        if after is None:
            continue
        spec = e.g.tensors[after.outputs[0]].quant
        assert spec is not None
        kind, attrs = op.type, dict(op.attrs)
        inputs = _operands(e, op, mode, spec)
        if inputs is None:
            continue
        if mode == "lut":
            sx = e.g.tensors[inputs[0]].quant
            assert sx is not None
            table = table_of(attrs["kind"], attrs["alpha"], attrs["beta"], sx, spec)
            kind, inputs, attrs = "lut", [inputs[0], e.const(f"{op.name}.table", table)], {}
        if kind == "pad":
            attrs["value"] = float(
                np.clip(np.rint(attrs["value"] / spec.scale) + spec.zero, -128, 127)
            )
        y = e.emit(kind, inputs, attrs, name=op.name, quant=spec, dtype="i8")
        e.replace(after, y)
        e.remove(op)
    return e.finish()


def _operands(e: Editor, op: Op, mode: str, spec: QuantSpec) -> list[str] | None:
    """The op's operands in integers; None where one has no such form."""
    x = _dequantized(e, op.inputs[0])
    if mode == "weights":
        return _weights(e, op, x) if x is not None else None
    single = mode in ("lut", "softmax", "same0") or op.type == "layer_norm"
    inputs: list[str] = []
    for k, name in enumerate(op.inputs):
        if single and k:
            inputs.append(name)
            continue
        q = _dequantized(e, name)
        if q is None:
            return None
        if mode.startswith("same") and e.g.tensors[q].quant != spec:
            q = e.emit("cast", [q], {"to": "i8"}, name=f"{op.name}.requantize", quant=spec)
        inputs.append(q)
    return inputs


def _weights(e: Editor, op: Op, x: str) -> list[str] | None:
    """x, int8 weights and int32 bias in units of the product of their scales."""
    cast = e.producer(op.inputs[1], "cast")
    w = e.g.tensors[cast.inputs[0]] if cast is not None else None
    sx = e.g.tensors[x].quant
    axis = CHANNELS.get(op.type, 0)
    if (
        w is None
        or w.data is None
        or w.dtype != "i8"
        or w.quant is None
        or sx is None
        or w.quant.axis not in (None, axis)
    ):
        return None
    if len(np.unique(w.quant.zero)) != 1:
        return None
    inputs = [x, w.name]
    if len(op.inputs) > 2 and op.inputs[2]:
        unit = np.broadcast_to(float(sx.scale) * w.quant.scale.astype(np.float64), (w.shape[axis],))
        bias = _bias(e, op.inputs[2], unit)
        if bias is None:
            return None
        inputs.append(e.const(f"{op.name}.bias", bias))
    return inputs


def _bias(e: Editor, name: str, unit: Array) -> Array | None:
    """int32 (n,) of a bias: its own integers where they count in `unit`, else its real values
    rounded to it.
    """
    cast = e.producer(name, "cast")
    t = e.g.tensors[cast.inputs[0] if cast is not None else name]
    if t.data is None:
        return None
    if (
        t.quant is not None
        and t.dtype == "i32"
        and np.allclose(t.quant.scale, unit, rtol=1e-5, atol=0)
        and not np.any(t.quant.zero)
    ):
        return t.data
    real = t.quant.dequantize(t.data) if t.quant is not None else t.data
    return np.clip(np.rint(real / unit), -(2**30), 2**30).astype(np.int32)

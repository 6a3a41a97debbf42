"""exp(beta * x) / sum of it along the last axis; `log` gives its logarithm (float32 only).

int8, exact: a table t[d] = round(2^e * exp(-d * scale_x * beta)) for the distance d from the row's
maximum, e at most 23 and n * 2^e at most 2^31; S = sum of t over the row; R = floor(2^40 / S); p =
(t * R + 2^15) >> 16 is the probability in 2^-24; requantize(p) with the scale 2^-24 / scale_y.
Usual output: scale 1/256, zero point -128.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgekit import qmath
from edgekit.compact import powers
from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor
from edgekit.layout import UNPACKED, Layout, Target, Variant
from edgekit.ops.base import Field, OpDef, TensorType, need, onnx, sample_graph, scale_zero, tflite

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer

OUTPUT = QuantSpec.per_tensor(1 / 256, -128)  # what a quantizer gives the result


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x = need(xs, 0, "input")
    if not x.shape:
        raise ModelError("softmax of a scalar")
    if op.attrs["log"] and x.dtype != "f32":
        raise ModelError("log-softmax is float32 only")
    return [(x.shape, x.dtype)]


def table(scale: float, beta: float, n: int) -> npt.NDArray[np.int64]:
    """Exponentials (256,) of the distances 0..255 below a row's maximum, for rows of n."""
    e = min(23, 31 - max(0, (n - 1).bit_length()))
    exponentials = 2.0**e * np.exp(-np.arange(256) * float(scale) * float(beta))
    return np.asarray(np.rint(exponentials), np.int64)


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    x = xs[0]
    assert x is not None
    if x.dtype == np.float32:
        z = (x - x.max(axis=-1, keepdims=True)) * np.float32(op.attrs["beta"])
        e = np.exp(z)
        total = e.sum(axis=-1, keepdims=True)
        return [(z - np.log(total) if op.attrs["log"] else e / total).astype(np.float32)]
    (sx, _), (sy, zy) = scale_zero(g, op.inputs[0]), scale_zero(g, op.outputs[0])
    wide = x.astype(np.int64)
    t = table(sx, op.attrs["beta"], x.shape[-1])[wide.max(axis=-1, keepdims=True) - wide]
    p = (t * ((1 << 40) // t.sum(axis=-1, keepdims=True)) + (1 << 15)) >> 16
    scale = qmath.requant_scale(num=2.0**-24, den=sy)
    return [qmath.requantize(np.minimum(p, 1 << 24), scale, qmath.QMIN - zy, qmath.QMAX - zy, zy)]


def lower(op: Op, g: Graph, target: Target) -> Op:
    x = g.tensors[op.inputs[0]]
    if x.dtype != "i8":
        return op
    (sx, _), (sy, _) = scale_zero(g, op.inputs[0]), scale_zero(g, op.outputs[0])
    exponentials = table(sx, op.attrs["beta"], x.shape[-1]).astype(np.int32)
    t = g.const(op.name + ".table", exponentials)
    few = powers(exponentials) if target.compact() else None
    if few is not None:
        form = Variant(Layout(1, 1, 0, UNPACKED), "i32", b"", few)
        g.tensors[t] = replace(g.tensors[t], variants=(form,))
    scale = float(qmath.requant_scale(num=2.0**-24, den=sy))
    return op.with_(inputs=(op.inputs[0], t), attrs=dict(op.attrs, scale=scale))


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(11)
    shapes: tuple[tuple[int, ...], ...] = (
        (1, 10),
        (3, 17),
        (2, 4, 33),
        (1, 1),
        (5000,),
        (2, 3, 2, 2, 7),
    )
    for dims in shapes:
        for beta in (1.0, 0.5):
            x = rng.normal(scale=4, size=dims).astype(np.float32)
            for log in (0, 1):
                g = sample_graph("softmax", {"x": Tensor("x", dims)}, {"beta": beta, "log": log})
                yield f"f32_{'log_' if log else ''}{dims}_{beta}", g, {"x": x}
            for sx, out in ((0.11, OUTPUT), (0.02, QuantSpec.per_tensor(0.003, -100))):
                t = Tensor("x", dims, "i8", None, QuantSpec.per_tensor(sx, 7))
                g = sample_graph("softmax", {"x": t}, {"beta": beta}, out_quant=out)
                yield (
                    f"i8_{dims}_{beta}_{sx}",
                    g,
                    {"x": rng.integers(-128, 128, dims).astype(np.int8)},
                )


OP = OpDef(
    name="softmax",
    code=11,
    fields=(
        Field("beta", "f32", 1, 1.0, "factor of the input"),
        Field("log", "u32", 1, 0, "1: the logarithm"),
        Field("scale", "f32", 1, None, "int8: 2^-24 / sy", lowered=True),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    lower=lower,
    inplace=(0,),
    int8=lambda op: "softmax" if not op.attrs["log"] else "",
)


@tflite("SOFTMAX")
def tflite_softmax(imp: Any, x: str, *, beta: float = 1.0) -> str:
    return str(imp.emit("softmax", [x], {"beta": beta}))


@tflite("LOG_SOFTMAX")
def tflite_log_softmax(imp: Any, x: str) -> str:
    """Quantized: in float32 between two casts."""
    return str(imp.from_float(imp.float_step("softmax", [imp.as_float(x)], {"log": 1})))


@onnx("Softmax", "LogSoftmax")
def import_onnx(imp: Importer, x: str, *, axis: int | None = None) -> str:
    """Before opset 13 everything from the axis on is one row."""
    shape, log = imp.shape(x), int(imp.node.op_type == "LogSoftmax")
    rank = len(shape)
    if imp.opset < 13:
        at = (1 if axis is None else axis) % rank
        flat = imp.reshape(
            x,
            (int(np.prod(shape[:at], dtype=np.int64)), int(np.prod(shape[at:], dtype=np.int64))),
            "rows",
        )
        return imp.reshape(imp.emit("softmax", [flat], {"log": log}), shape, "back")
    at = (-1 if axis is None else axis) % rank
    perm = [i for i in range(rank) if i != at] + [at]
    y = imp.emit("softmax", [imp.transpose(x, perm, "last")], {"log": log})
    return imp.transpose(y, [perm.index(i) for i in range(rank)], "back")

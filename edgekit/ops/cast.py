"""Change of representation: float32 <-> int8 (quantize, dequantize), int8 -> int8 (requantize),
uint8 <-> int8 (shifted by 128, same real values), and plain conversions between float32, int32 and
bool.

What happens follows from the two tensors' types and quantization; there are no attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import qmath
from edgekit.errors import ModelError
from edgekit.ir import NUMPY, Array, Graph, Op, QuantSpec, Tensor
from edgekit.layout import Target
from edgekit.ops.base import Field, OpDef, TensorType, need, onnx, scale_zero, tflite

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer

PLAIN = ("f32", "i32", "i64", "bool", "u8", "i8")


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    return [(need(xs, 0, "input").shape, op.attrs["to"])]


def mode(op: Op, g: Graph) -> str:
    x, y = g.tensors[op.inputs[0]], g.tensors[op.outputs[0]]
    pair = (x.dtype, y.dtype)
    few = ("i8", "i16")
    both = x.quant is not None and y.quant is not None
    if x.dtype == "f32" and y.dtype in few and y.quant is not None:
        return "quantize"
    if y.dtype == "f32" and x.dtype in few and x.quant is not None:
        return "dequantize"
    if pair == ("i8", "i8") or (both and {*pair} <= {*few}):
        return "requantize"
    if pair in (("u8", "i8"), ("i8", "u8")) and x.quant is not None:
        return "shift"
    return "plain"


def requant(op: Op, g: Graph) -> tuple[float, int, int]:
    """(scale, zero of x, zero of y) of int8 -> int8."""
    (sx, zx), (sy, zy) = scale_zero(g, op.inputs[0]), scale_zero(g, op.outputs[0])
    return float(qmath.requant_scale(num=sx, den=sy)), zx, zy


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    x, quant = xs[0], g.tensors[op.inputs[0]].quant
    assert x is not None
    wide = quant is not None and (quant.axis is not None or x.dtype == np.int32)
    if quant is not None and wide and op.attrs["to"] == "f32":
        # a constant of a model quantized by others, which the passes take over
        return [quant.dequantize(x)]
    to = g.tensors[op.outputs[0]].dtype
    match mode(op, g):
        case "quantize":
            return [qmath.quantize(x, *scale_zero(g, op.outputs[0]), to)]
        case "dequantize":
            return [qmath.dequantize(x, *scale_zero(g, op.inputs[0]))]
        case "requantize":
            s, zx, zy = requant(op, g)
            lo, hi = (q - zy for q in qmath.LIMITS[to])
            return [qmath.requantize_wide(x.astype(np.int32) - zx, s, lo, hi, zy, to)]
        case "shift":
            down = x.dtype == np.uint8
            return [
                (x.astype(np.int32) + (-128 if down else 128)).astype(np.int8 if down else np.uint8)
            ]
    kind = NUMPY[op.attrs["to"]]
    if x.dtype == np.float32 and op.attrs["to"] != "bool":
        info = np.iinfo(kind)
        top = float(min(info.max, 2**31 - 1))
        return [
            np.clip(
                np.nan_to_num(np.trunc(x.astype(np.float64))), max(info.min, -(2.0**31)), top
            ).astype(kind)
        ]
    return [x.astype(kind)]


def lower(op: Op, g: Graph, target: Target) -> Op:
    how = mode(op, g)
    scale = requant(op, g)[0] if how == "requantize" else 0.0
    return op.with_(attrs=dict(op.attrs, mode=how, scale=scale))


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(7)
    q, q2 = QuantSpec.per_tensor(0.037, -5), QuantSpec.per_tensor(0.11, 17)
    x = np.concatenate([rng.normal(scale=3, size=90), [1e9, -1e9, 0.0185, -0.0185, 0.0555]]).astype(
        np.float32
    )
    i8 = np.arange(-128, 128).astype(np.int8)
    cases: list[tuple[str, Array, QuantSpec | None, str, QuantSpec | None]] = [
        ("quantize", x, None, "i8", q),
        ("dequantize", i8, q, "f32", None),
        ("requantize", i8, q, "i8", q2),
        ("requantize_up", i8, q2, "i8", q),
        (
            "shift_in",
            np.arange(256).astype(np.uint8),
            QuantSpec.per_tensor(0.1, 100),
            "i8",
            QuantSpec.per_tensor(0.1, -28),
        ),
        ("shift_out", i8, QuantSpec.per_tensor(0.1, -28), "u8", QuantSpec.per_tensor(0.1, 100)),
        ("trunc", x, None, "i32", None),
        ("to_float", rng.integers(-(2**31), 2**31, 50).astype(np.int32), None, "f32", None),
        ("to_bool", rng.integers(0, 3, 50).astype(np.int32), None, "bool", None),
        ("narrow", rng.integers(-9, 9, 50).astype(np.int64), None, "i32", None),
    ]
    from edgekit.ir import dtype_of

    for label, data, qx, to, qy in cases:
        g = Graph("cast")
        g.add_tensor(Tensor("x", data.shape, dtype_of(data), None, qx))
        g.inputs = ["x"]
        g.outputs = [g.emit("cast", ["x"], {"to": to}, name="y", quant=qy)]
        yield label, g, {"x": data}


def exact(op: Op, g: Graph) -> bool:
    return True


OP = OpDef(
    name="cast",
    code=7,
    fields=(
        Field(
            "to",
            "u32",
            1,
            None,
            "result type",
            choices=("f32", "i8", "u8", "i16", "i32", "i64", "bool"),
        ),
        Field(
            "mode",
            "u32",
            1,
            None,
            "",
            choices=("plain", "quantize", "dequantize", "requantize", "shift"),
            lowered=True,
        ),
        Field("scale", "f32", 1, None, "requantize: sx / sy", lowered=True),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    lower=lower,
    exact=exact,
)


@tflite("QUANTIZE", "DEQUANTIZE")
def tflite_quantize(imp: Any, x: str) -> str:
    """Between float32, int8 and int8 of other scale, as the tensors' types say; nothing where they
    agree."""
    quant, to = imp.out()[1:]
    t = imp.tensor(x)
    if (t.dtype, t.quant if to != "f32" else None) == (to, quant if to != "f32" else None):
        return x
    return str(imp.emit("cast", [x], {"to": to}))


@tflite("CAST")
def tflite_cast(imp: Any, x: str) -> str:
    to = imp.out()[2]
    return x if imp.tensor(x).dtype == to else str(imp.emit("cast", [x], {"to": to}))


_ONNX_TYPES = {
    1: "f32",
    2: "u8",
    3: "i8",
    5: "i16",
    6: "i32",
    7: "i64",
    9: "bool",
    10: "f32",
    11: "f32",
}


@onnx("Cast", "CastLike")
def import_cast(
    imp: Importer, x: str, like: str = "", *, to: int = 0, saturate: int = 1, round_mode: str = "up"
) -> str:
    kind = imp.dtype(like) if like else _ONNX_TYPES.get(to)
    if kind is None:
        raise ModelError(f"conversion to ONNX type {to} is not supported")
    return x if kind == imp.dtype(x) else imp.emit("cast", [x], {"to": kind})


def _onnx_quant(imp: Importer, x: str, scale: str, zero: str, axis: int) -> tuple[QuantSpec, str]:
    """(QuantSpec in int8 or int32 terms, ONNX's type): uint8 values are shifted by 128
    everywhere."""
    s = imp.const(scale, "scale").astype(np.float32)
    z = imp.const(zero, "zero point") if zero else np.zeros(s.shape, np.uint8)
    kind = {np.dtype(v): k for k, v in NUMPY.items()}.get(z.dtype, str(z.dtype))
    if kind not in ("i8", "u8", "i32"):
        raise ModelError(f"quantization to {kind} is not supported")
    zeros = z.astype(np.int32) - (128 if kind == "u8" else 0)
    if s.size == 1:
        return QuantSpec.per_tensor(float(s.item()), int(zeros.item())), kind
    if s.ndim != 1:
        raise ModelError("block quantization is not supported")
    return QuantSpec.per_axis(s, axis % imp.rank(x), zeros), kind


@onnx("QuantizeLinear")
def import_quantize(
    imp: Importer,
    x: str,
    scale: str,
    zero: str = "",
    *,
    axis: int = 1,
    saturate: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
) -> str:
    q, kind = _onnx_quant(imp, x, scale, zero, axis)
    if not zero and output_dtype:
        kind = _ONNX_TYPES.get(output_dtype, "")
        q = q if kind == "u8" else QuantSpec(q.scale, q.zero * 0, q.axis)
    if kind not in ("i8", "u8") or q.axis is not None:
        raise ModelError("activations are quantized per tensor to int8 or uint8 only")
    return imp.emit("cast", [x], {"to": "i8"}, quant=q)


@onnx("DequantizeLinear")
def import_dequantize(
    imp: Importer,
    x: str,
    scale: str,
    zero: str = "",
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> str:
    q, _ = _onnx_quant(imp, x, scale, zero, axis)
    kind, data = imp.dtype(x), imp.value(x)
    if not zero:
        q = QuantSpec(q.scale, np.full(q.zero.shape, -128 if kind == "u8" else 0, np.int32), q.axis)
    if data is not None:
        data = (data.astype(np.int32) - 128).astype(np.int8) if kind == "u8" else data
        return imp.emit("cast", [imp.graph.const(f"{imp.node_name}.q", data, q)], {"to": "f32"})
    return imp.emit("cast", [imp.quantized(x, q)], {"to": "f32"})

"""Elementwise functions of two tensors with numpy broadcasting, float32 or int8 (add, sub, mul,
min, max).

int8 add and sub are integer multiply-add-shift (qmath.add); mul is requantize((a - za) * (b - zb));
min and max need equal scales and zero points on all three tensors.  `lo`, `hi` clamp the result, as
a fused activation does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import qmath
from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor
from edgekit.layout import Target
from edgekit.ops.base import (
    Field,
    OpDef,
    TensorType,
    broadcast,
    need,
    onnx,
    sample_graph,
    scale_zero,
    tflite,
)
from edgekit.ops.conv2d import CLAMP

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer

KINDS = ("add", "sub", "mul", "div", "min", "max", "pow", "prelu")
INT8 = ("add", "sub", "mul", "min", "max")
F = np.float32


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    a, b = need(xs, 0, "first operand"), need(xs, 1, "second operand")
    return [(broadcast(a.shape, b.shape), a.dtype)]


def _float(kind: str, a: Array, b: Array) -> Array:
    with np.errstate(all="ignore"):
        match kind:
            case "add":
                return a + b
            case "sub":
                return a - b
            case "mul":
                return a * b
            case "div":
                return a / b
            case "min":
                return np.minimum(a, b)
            case "max":
                return np.maximum(a, b)
            case "pow":
                return np.power(a, b)
            case "prelu":
                return np.where(a < 0, a * b, a)
    raise AssertionError(kind)


def params(op: Op, g: Graph) -> tuple[int, int, int, int]:
    """(ma, mb, bias, shift) of int8 add and sub."""
    (sa, za), (sb, zb) = scale_zero(g, op.inputs[0]), scale_zero(g, op.inputs[1])
    sy, _ = scale_zero(g, op.outputs[0])
    return qmath.add_params(sa, sb if op.attrs["kind"] == "add" else -sb, sy, za, zb)


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    a, b = xs
    assert a is not None and b is not None
    kind = op.attrs["kind"]
    if a.dtype not in (np.int8, np.int16) or g.tensors[op.outputs[0]].quant is None:
        y = _float(kind, a, b)
        return [
            np.clip(y, F(op.attrs["lo"]), F(op.attrs["hi"])).astype(a.dtype)
            if a.dtype == F
            else y.astype(a.dtype)
        ]
    (sa, za), (sb, zb), (sy, zy) = (scale_zero(g, n) for n in (*op.inputs, *op.outputs))
    to = g.tensors[op.outputs[0]].dtype
    lo, hi = qmath.clamp_bounds(op.attrs["lo"], op.attrs["hi"], sy, zy, to)
    if kind in ("add", "sub"):
        return [qmath.add(a, b, params(op, g), lo, hi, zy)]
    if kind == "mul":
        acc = (a.astype(np.int32) - za) * (b.astype(np.int32) - zb)
        scale = qmath.requant_scale(num=sa * sb, den=sy)
        return [qmath.requantize_wide(acc, scale, lo, hi, zy, to)]
    y = np.minimum(a, b) if kind == "min" else np.maximum(a, b)
    return [np.clip(y.astype(np.int32), int(lo) + zy, int(hi) + zy).astype(np.int8)]


def lower(op: Op, g: Graph, target: Target) -> Op:
    if g.tensors[op.outputs[0]].dtype != "i8":
        return op
    (sa, _), (sb, _), (sy, zy) = (scale_zero(g, n) for n in (*op.inputs, *op.outputs))
    lo, hi = qmath.clamp_bounds(op.attrs["lo"], op.attrs["hi"], sy, zy)
    attrs = dict(op.attrs, lo=lo, hi=hi)
    if op.attrs["kind"] in ("add", "sub"):
        ma, mb, bias, shift = params(op, g)
        attrs.update(ma=ma, mb=mb, bias=bias, shift=shift)
    elif op.attrs["kind"] == "mul":
        attrs.update(scale=float(qmath.requant_scale(num=sa * sb, den=sy)))
    return op.with_(attrs=attrs)


# rows that meet one row, of less than a vector, of some, of more than a kernel repeats
ROWS = (((2, 3, 19), (19,)), ((72,), (33, 72)), ((3, 4100), (4100,)))


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(5)
    shapes = (
        ((1, 7, 5, 33),) * 2,
        ((2, 3, 4, 8), (8,)),
        ((2, 1, 4, 1), (1, 3, 1, 5)),
        ((4, 9), ()),
    )
    for i, (sa, sb) in enumerate(shapes):
        for kind in KINDS:
            a = (
                np.abs(rng.normal(size=sa)).astype(F) + F(0.1)
                if kind == "pow"
                else rng.normal(size=sa).astype(F)
            )
            b = rng.normal(size=sb).astype(F)
            g = sample_graph("binary", {"a": Tensor("a", sa), "b": Tensor("b", sb)}, {"kind": kind})
            yield f"f32_{kind}_{len(sa)}{len(sb)}_{i}", g, {"a": a, "b": np.asarray(b)}
        for kind in INT8:
            qa, qb = QuantSpec.per_tensor(0.05, -3), QuantSpec.per_tensor(0.031, 9)
            qy = QuantSpec.per_tensor(0.08, 4)
            if kind in ("min", "max"):
                qb = qy = qa
            g = sample_graph(
                "binary",
                {"a": Tensor("a", sa, "i8", None, qa), "b": Tensor("b", sb, "i8", None, qb)},
                {"kind": kind, "lo": 0.0 if kind == "add" else -np.inf},
                out_quant=qy,
                dtype="i8",
            )
            ints = [np.asarray(rng.integers(-128, 128, s)).astype(np.int8) for s in (sa, sb)]
            yield f"i8_{kind}_{len(sa)}{len(sb)}_{i}", g, {"a": ints[0], "b": ints[1]}
    for sa, sb in ROWS:
        tensors = {
            "a": Tensor("a", sa, "i8", None, QuantSpec.per_tensor(0.05, -3)),
            "b": Tensor("b", sb, "i8", None, QuantSpec.per_tensor(0.031, 9)),
        }
        qy = QuantSpec.per_tensor(0.08, 4)
        attrs = {"kind": "mul", "lo": -4.0, "hi": 6.0}
        g = sample_graph("binary", tensors, attrs, out_quant=qy, dtype="i8")
        ints = [rng.integers(-128, 128, s).astype(np.int8) for s in (sa, sb)]
        yield f"i8_mul_rows_{sa[-1]}_{len(sa)}{len(sb)}", g, {"a": ints[0], "b": ints[1]}


def int8(op: Op) -> str:
    kind = op.attrs["kind"]
    return "same" if kind in ("min", "max") else "free" if kind in INT8 else ""


OP = OpDef(
    name="binary",
    code=5,
    fields=(
        Field("kind", "u32", 1, None, "", choices=KINDS),
        *CLAMP,
        Field("ma", "i32", 1, None, "int8 add, sub: multiplier of a", lowered=True),
        Field("mb", "i32", 1, None, "multiplier of b", lowered=True),
        Field("bias", "i32", 1, None, "", lowered=True),
        Field("shift", "u32", 1, None, "bits", lowered=True),
        Field("scale", "f32", 1, None, "int8 mul: sa * sb / sy", lowered=True),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    lower=lower,
    inplace=(0, 1),
    int8=int8,
)


def _import(imp: Any, kind: str, a: str, b: str, activation: int) -> str:
    """Quantized: add, sub and mul take any scales; min and max the output's; the rest runs in
    float32."""
    attrs = {"kind": kind, **imp.bounds(activation)}
    quantized = imp.out()[2] == "i8" and imp.is_int8(a, b)
    if quantized and kind not in INT8:
        return str(
            imp.from_float(imp.float_step("binary", [imp.as_float(a), imp.as_float(b)], attrs))
        )
    if quantized and kind in ("min", "max"):
        a, b = (imp.requantized(n, imp.out()[1]) for n in (a, b))
    return str(imp.emit("binary", [a, b], attrs))


@tflite("ADD")
def tflite_add(imp: Any, a: str, b: str, *, fused_activation_function: int = 0) -> str:
    return _import(imp, "add", a, b, fused_activation_function)


@tflite("SUB")
def tflite_sub(imp: Any, a: str, b: str, *, fused_activation_function: int = 0) -> str:
    return _import(imp, "sub", a, b, fused_activation_function)


@tflite("MUL")
def tflite_mul(imp: Any, a: str, b: str, *, fused_activation_function: int = 0) -> str:
    return _import(imp, "mul", a, b, fused_activation_function)


@tflite("DIV")
def tflite_div(imp: Any, a: str, b: str, *, fused_activation_function: int = 0) -> str:
    return _import(imp, "div", a, b, fused_activation_function)


@tflite("MAXIMUM")
def tflite_maximum(imp: Any, a: str, b: str) -> str:
    return _import(imp, "max", a, b, 0)


@tflite("MINIMUM")
def tflite_minimum(imp: Any, a: str, b: str) -> str:
    return _import(imp, "min", a, b, 0)


@tflite("POW")
def tflite_pow(imp: Any, a: str, b: str) -> str:
    return _import(imp, "pow", a, b, 0)


@tflite("PRELU")
def tflite_prelu(imp: Any, a: str, b: str) -> str:
    return _import(imp, "prelu", a, b, 0)


@tflite("SQUARED_DIFFERENCE")
def tflite_squared_difference(imp: Any, a: str, b: str) -> str:
    d = imp.float_step("binary", [imp.as_float(a), imp.as_float(b)], {"kind": "sub"})
    return str(imp.from_float(imp.float_step("binary", [d, d], {"kind": "mul"})))


@onnx("Add", "Sub", "Mul", "Div", "Pow")
def import_arithmetic(imp: Importer, a: str, b: str) -> str:
    if imp.dtype(a) != imp.dtype(b):  # Pow allows an integer exponent
        b = imp.emit("cast", [b], {"to": imp.dtype(a)}, suffix="cast")
    return imp.emit("binary", [a, b], {"kind": imp.node.op_type.lower()})


@onnx("Min", "Max")
def import_extreme(imp: Importer, x: str, *others: str) -> str:
    for other in others:
        x = imp.emit("binary", [x, other], {"kind": imp.node.op_type.lower()})
    return x


@onnx("Sum", "Mean")
def import_sum(imp: Importer, x: str, *others: str) -> str:
    for other in others:
        x = imp.binary("add", x, other)
    return (
        imp.binary("mul", x, imp.scalar(1 / (1 + len(others)))) if imp.node.op_type == "Mean" else x
    )


@onnx("PRelu")
def import_prelu(imp: Importer, x: str, slope: str) -> str:
    return imp.emit("binary", [x, slope], {"kind": "prelu"})


@onnx("BatchNormalization")
def import_batch_norm(
    imp: Importer,
    x: str,
    scale: str,
    bias: str,
    mean: str,
    var: str,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    spatial: int = 1,
) -> str:
    """x * a + c per channel; the passes fold both into the convolution before it."""
    s, b, m, v = (
        imp.const(n, what).astype(np.float64)
        for n, what in ((scale, "scale"), (bias, "bias"), (mean, "mean"), (var, "variance"))
    )
    if not np.all(v + epsilon > 0):
        raise ModelError("BatchNormalization: a variance is negative")
    a = s / np.sqrt(v + epsilon)
    dims = (-1,) + (1,) * (imp.rank(x) - 2)
    x = imp.emit("binary", [x, imp.add_const(a.reshape(dims).astype(F), "scale")], {"kind": "mul"})
    shift = imp.add_const((b - m * a).reshape(dims).astype(F), "shift")
    return imp.emit("binary", [x, shift], {"kind": "add"}, suffix="shift")


@onnx("Where")
def import_where(imp: Importer, condition: str, x: str, y: str) -> str:
    """A constant condition only: x where it holds, else the constant y, as min and max with
    infinities."""
    keep = imp.const(condition, "condition").astype(bool)
    if imp.value(x) is not None:
        x, y, keep = y, x, ~keep
    other = imp.const(y, "replacement").astype(F)
    for kind, free in (("min", np.inf), ("max", -np.inf)):
        bound = np.where(keep, F(free), other).astype(F)
        if np.any(bound != F(free)):
            x = imp.emit("binary", [x, imp.add_const(bound, kind)], {"kind": kind}, suffix=kind)
    shape = np.broadcast_shapes(imp.shape(x), keep.shape, other.shape)
    return imp.broadcast(x, shape)

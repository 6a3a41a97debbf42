"""Mean, sum, largest, smallest, product or place of the largest over a set of axes.

int8: mean and sum add (x - zero x) as int32 and requantize with sx / sy, for a mean divided by the
count in float32 (one IEEE division, qmath.mean_scale); max and min need equal scales and zero
points; prod is float32 only. argmax: int32, over one axis, the first of equals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
    need,
    onnx,
    sample_array,
    sample_graph,
    scale_zero,
    tflite,
)

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer

KINDS = ("mean", "sum", "max", "min", "prod", "argmax")
INT8 = ("mean", "sum", "max", "min", "argmax")


def mask(axes: Iterable[int], rank: int) -> int:
    """The attribute `axes` of a list of axes, which may be negative; ModelError on unknown ones."""
    bits = 0
    for a in axes:
        if not -rank <= a < rank:
            raise ModelError(f"axis {a} of a tensor of rank {rank}")
        bits |= 1 << (a % rank)
    return bits


def axes_of(op: Op) -> tuple[int, ...]:
    return tuple(i for i in range(32) if int(op.attrs["axes"]) >> i & 1)


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x, axes, kind = need(xs, 0, "input"), axes_of(op), op.attrs["kind"]
    if axes and axes[-1] >= len(x.shape):
        raise ModelError(f"axis {axes[-1]} of a tensor of rank {len(x.shape)}")
    if kind == "argmax" and len(axes) != 1:
        raise ModelError(f"argmax over {len(axes)} axes")
    known = {"f32": KINDS, "i8": INT8, "i16": ("mean", "sum")}
    if kind not in known.get(x.dtype, ()):
        raise ModelError(f"{kind} of {x.dtype} is not supported")
    keep = [
        1 if i in axes else n
        for i, n in enumerate(x.shape)
        if op.attrs["keepdims"] or i not in axes
    ]
    return [(tuple(keep), "i32" if kind == "argmax" else x.dtype)]


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    x, axes, kind = xs[0], axes_of(op), op.attrs["kind"]
    assert x is not None
    out = g.tensors[op.outputs[0]].shape
    if kind == "argmax":
        return [np.argmax(x, axis=axes[0]).astype(np.int32).reshape(out)]
    if x.dtype == np.float32:
        f: Any = {"mean": np.mean, "sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod}[
            kind
        ]
        return [np.asarray(f(x, axis=axes), np.float32).reshape(out)]
    if kind in ("max", "min"):
        return [np.asarray(x.max(axis=axes) if kind == "max" else x.min(axis=axes)).reshape(out)]
    (sx, zx), (sy, zy) = scale_zero(g, op.inputs[0]), scale_zero(g, op.outputs[0])
    scale = qmath.requant_scale(num=sx, den=sy)
    sums = np.int64 if x.dtype == np.int16 else np.int32
    acc = np.asarray((x.astype(np.int32) - zx).sum(axis=axes, dtype=sums)).reshape(out)
    if kind == "mean":
        scale = qmath.mean_scale(scale, x.size // acc.size)
    to = g.tensors[op.outputs[0]].dtype
    if x.dtype == np.int16:
        lo, hi = qmath.clamp_bounds(-np.inf, np.inf, 1.0, zy, to)
        return [qmath.requantize_wide(acc, scale, lo, hi, zy, to)]
    return [qmath.requantize(acc, scale, qmath.QMIN - zy, qmath.QMAX - zy, zy)]


def lower(op: Op, g: Graph, target: Target) -> Op:
    if g.tensors[op.inputs[0]].dtype != "i8" or op.attrs["kind"] not in ("mean", "sum"):
        return op
    (sx, _), (sy, _) = scale_zero(g, op.inputs[0]), scale_zero(g, op.outputs[0])
    return op.with_(attrs=dict(op.attrs, scale=float(qmath.requant_scale(num=sx, den=sy))))


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(12)
    cases: tuple[tuple[tuple[int, ...], tuple[int, ...], int], ...] = (
        ((37,), (0,), 0),
        ((5, 70), (1,), 1),
        ((5, 70), (0,), 0),
        ((2, 6, 7, 65), (1, 2), 1),
        ((2, 5, 3, 8), (1, 3), 0),
        ((2, 3, 4, 2, 9), (0, 2, 4), 1),
        ((3, 4), (0, 1), 0),
        ((1, 1, 1), (1,), 0),
    )
    for i, (dims, axes, keep) in enumerate(cases):
        for kind in KINDS:
            if kind == "argmax" and len(axes) > 1:
                axes = axes[:1]
            attrs = {"kind": kind, "axes": mask(axes, len(dims)), "keepdims": keep}
            g = sample_graph("reduce", {"x": Tensor("x", dims)}, attrs)
            x = sample_array(rng, dims, "f32")
            # a sum that cancels has no relative error to speak of
            yield f"f32_{kind}_{i}", g, {"x": np.abs(x) if kind in ("sum", "mean", "prod") else x}
            if kind not in INT8:
                continue
            q = out = QuantSpec.per_tensor(0.1, 3)
            if kind in ("mean", "sum"):
                out = QuantSpec.per_tensor(0.03 if kind == "mean" else 1.7, -11)
            t = Tensor("x", dims, "i8", None, q)
            g = sample_graph("reduce", {"x": t}, attrs, out_quant=None if kind == "argmax" else out)
            yield f"i8_{kind}_{i}", g, {"x": sample_array(rng, dims, "i8")}


OP = OpDef(
    name="reduce",
    code=12,
    fields=(
        Field("kind", "u32", 1, None, "", choices=KINDS),
        Field("axes", "u32", 1, None, "bit i: axis i of the input"),
        Field("keepdims", "u32", 1, 0, "1: reduced axes stay as 1", host=True),
        Field("scale", "f32", 1, None, "int8 sum, mean: sx / sy", lowered=True),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    lower=lower,
    exact=lambda op, g: (
        g.tensors[op.inputs[0]].dtype != "f32" or op.attrs["kind"] in ("max", "min", "argmax")
    ),
    int8=lambda op: {"mean": "free", "sum": "free", "max": "same", "min": "same"}.get(
        op.attrs["kind"], ""
    ),
)


def import_tflite(imp: Any, kind: str, x: str, axes: str, keep_dims: bool) -> str:
    """max and min take the result's scale; int8 products run in float32."""
    rank = len(imp.dims(x))
    at = mask(imp.ints(axes, "the axes of a reduction"), rank)
    attrs = {"kind": kind, "axes": at, "keepdims": int(keep_dims)}
    if imp.is_int8(x) and kind not in INT8:
        return str(imp.from_float(imp.float_step("reduce", [imp.as_float(x)], attrs)))
    if kind in ("max", "min"):
        x = imp.requantized(x, imp.out()[1])
    return str(imp.emit("reduce", [x], attrs))


@tflite("MEAN")
def tflite_mean(imp: Any, x: str, axes: str, *, keep_dims: bool = False) -> str:
    return import_tflite(imp, "mean", x, axes, keep_dims)


@tflite("SUM")
def tflite_sum(imp: Any, x: str, axes: str, *, keep_dims: bool = False) -> str:
    return import_tflite(imp, "sum", x, axes, keep_dims)


@tflite("REDUCE_MAX")
def tflite_reduce_max(imp: Any, x: str, axes: str, *, keep_dims: bool = False) -> str:
    return import_tflite(imp, "max", x, axes, keep_dims)


@tflite("REDUCE_MIN")
def tflite_reduce_min(imp: Any, x: str, axes: str, *, keep_dims: bool = False) -> str:
    return import_tflite(imp, "min", x, axes, keep_dims)


@tflite("REDUCE_PROD")
def tflite_reduce_prod(imp: Any, x: str, axes: str, *, keep_dims: bool = False) -> str:
    return import_tflite(imp, "prod", x, axes, keep_dims)


@tflite("ARG_MAX")
def tflite_arg_max(imp: Any, x: str, axis: str, *, output_type: int = 2) -> str:
    """int32; int64 where the file says so."""
    attrs = {
        "kind": "argmax",
        "axes": mask(imp.ints(axis, "the axis of ARG_MAX"), len(imp.dims(x))),
    }
    if output_type != 4:
        return str(imp.emit("reduce", [x], attrs))
    return str(imp.emit("cast", [imp.step("reduce", [x], attrs)], {"to": "i64"}))


def _onnx_axes(imp: Importer, x: str, which: str, axes: Sequence[int], noop: int = 0) -> int:
    """The attribute `axes`; without any, ONNX means all of them, or none where
    noop_with_empty_axes is set.
    """
    rank = imp.rank(x)
    picked = imp.ints(which, "axes") if which else list(axes)
    return mask(picked if picked or noop else range(rank), rank)


@onnx("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd")
def import_onnx(
    imp: Importer,
    x: str,
    which: str = "",
    *,
    axes: Sequence[int] = (),
    keepdims: int = 1,
    noop_with_empty_axes: int = 0,
) -> str:
    bits = _onnx_axes(imp, x, which, axes, noop_with_empty_axes)
    kind = imp.node.op_type.removeprefix("Reduce").lower()
    return (
        imp.emit("reduce", [x], {"kind": kind, "axes": bits, "keepdims": keepdims}) if bits else x
    )


@onnx("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")
def import_composed(
    imp: Importer,
    x: str,
    which: str = "",
    *,
    axes: Sequence[int] = (),
    keepdims: int = 1,
    noop_with_empty_axes: int = 0,
) -> str:
    """A function before the sum, one after, or both; LogSumExp subtracts the maximum first."""
    bits, kind = _onnx_axes(imp, x, which, axes, noop_with_empty_axes), imp.node.op_type

    def reduced(how: str, v: str, keep: int) -> str:
        return imp.emit("reduce", [v], {"kind": how, "axes": bits, "keepdims": keep}, suffix=how)

    def function(how: str, v: str) -> str:
        return imp.emit("unary", [v], {"kind": how}, suffix=how)

    if kind == "ReduceLogSumExp":
        top = reduced("max", x, 1)
        total = reduced("sum", function("exp", imp.binary("sub", x, top)), keepdims)
        return imp.binary(
            "add", function("log", total), top if keepdims else imp.reshape(top, imp.shape(total))
        )
    if kind == "ReduceL1":
        x = function("abs", x)
    elif kind != "ReduceLogSum":
        x = imp.binary("mul", x, x)
    y = reduced("sum", x, keepdims) if bits else x
    after = {"ReduceL2": "sqrt", "ReduceLogSum": "log"}.get(kind)
    return function(after, y) if after else y


@onnx("ArgMax", "ArgMin")
def import_arg(
    imp: Importer, x: str, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0
) -> str:
    """int32 inside, int64 as ONNX wants it outside."""
    if select_last_index:
        raise ModelError("select_last_index is not supported")
    if imp.node.op_type == "ArgMin":
        x = imp.emit("unary", [x], {"kind": "neg"}, suffix="neg")
    attrs = {"kind": "argmax", "axes": mask([axis], imp.rank(x)), "keepdims": keepdims}
    return imp.emit("cast", [imp.emit("reduce", [x], attrs)], {"to": "i64"}, suffix="i64")


@onnx("GlobalAveragePool", "GlobalMaxPool")
def import_global(imp: Importer, x: str) -> str:
    kind = "mean" if imp.node.op_type == "GlobalAveragePool" else "max"
    attrs = {"kind": kind, "axes": mask(range(2, imp.rank(x)), imp.rank(x)), "keepdims": 1}
    return imp.emit("reduce", [x], attrs)

"""Mean of each window, NHWC, over the elements that exist and the padding that counts.

`counted` says how much of `pad` takes part as real zeros (int8: zero points): it adds to the
divisor only. ONNX count_include_pad=1 is counted = the declared pads (what ceil_mode adds at the
end does not count). int8: int32 sum of (x - zero x), then requantize with the scale float32(sx /
sy) / float32(count), one IEEE division. A window where nothing counts gives 0. `rounding` "away" is
TFLite's int8 rule instead, for files that were quantized with it: the integer mean of the stored
values, ties away from stored zero; input and output then share one quantization.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import qmath
from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor
from edgekit.layout import Target
from edgekit.ops import max_pool2d
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
from edgekit.ops.conv2d import CLAMP, WINDOW, integers, windows

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    a = op.attrs
    if any(c > p for c, p in zip(a["counted"], a["pad"], strict=True)):
        raise ModelError(
            f"counted padding {tuple(a['counted'])} is more than the padding {tuple(a['pad'])}"
        )
    need(xs, 0, "input")
    return max_pool2d.shape(op, xs)


def counts(op: Op, h: int, w: int, oh: int, ow: int) -> Array:
    """Elements that count in each window (oh, ow, 1), at least 1."""
    t, left, b, r = op.attrs["pad"]
    ct, cl, cb, cr = op.attrs["counted"]
    mask = np.zeros((1, t + h + b, left + w + r, 1), np.int32)
    mask[:, t - ct : t + h + cb, left - cl : left + w + cr] = 1
    bare = op.with_(attrs=dict(op.attrs, pad=(0, 0, 0, 0)))
    kh, kw = op.attrs["kernel"]
    taken = windows(mask, bare, kh, kw, 0, oh, ow).sum(axis=(0, 3, 4))
    return np.asarray(np.maximum(taken, 1))


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    x = xs[0]
    assert x is not None
    _, oh, ow, _ = g.tensors[op.outputs[0]].shape
    count = counts(op, x.shape[1], x.shape[2], oh, ow)
    lo, hi, (kh, kw) = op.attrs["lo"], op.attrs["hi"], op.attrs["kernel"]
    if x.dtype == np.float32:
        y = windows(x, op, kh, kw, 0, oh, ow).sum(axis=(3, 4)) / count
        return [np.clip(y, np.float32(lo), np.float32(hi)).astype(np.float32)]
    (sx, zx), (sy, zy) = scale_zero(g, op.inputs[0]), scale_zero(g, op.outputs[0])
    if op.attrs["rounding"] == "away":
        total = windows(x.astype(np.int32), op, kh, kw, 0, oh, ow).sum(axis=(3, 4))
        mean = np.sign(total) * ((2 * np.abs(total) + count) // (2 * count))
        low, high = qmath.clamp_bounds(lo, hi, sy, zy)
        return [np.clip(mean, low + zy, high + zy).astype(np.int8)]
    acc = windows(x.astype(np.int32) - zx, op, kh, kw, 0, oh, ow).sum(axis=(3, 4), dtype=np.int64)
    scale = qmath.mean_scale(qmath.requant_scale(num=sx, den=sy), count)
    to = g.tensors[op.outputs[0]].dtype
    low, high = qmath.clamp_bounds(lo, hi, sy, zy, to)
    return [integers(acc, x, op, g, scale, low, high, zy)]


def lower(op: Op, g: Graph, target: Target) -> Op:
    if g.tensors[op.inputs[0]].dtype != "i8":
        return op
    (sx, zx), (sy, zy) = scale_zero(g, op.inputs[0]), scale_zero(g, op.outputs[0])
    if op.attrs["rounding"] == "away" and ((sx, zx) != (sy, zy) or any(op.attrs["counted"])):
        raise ModelError(
            "an integer mean keeps its quantization and counts no padding", where=op.name
        )
    lo, hi = qmath.clamp_bounds(op.attrs["lo"], op.attrs["hi"], sy, zy)
    return op.with_(
        attrs=dict(op.attrs, lo=lo, hi=hi, scale=float(qmath.requant_scale(num=sx, den=sy)))
    )


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(10)
    extra: tuple[tuple[str, tuple[int, ...], dict[str, Any]], ...] = (
        ("counted", (1, 6, 7, 9), {"kernel": (3, 3), "pad": (1, 1, 1, 1), "counted": (1, 1, 1, 1)}),
        (
            "half_counted",
            (2, 5, 6, 4),
            {"kernel": (3, 2), "pad": (1, 0, 2, 1), "counted": (1, 0, 1, 0), "lo": 0.0},
        ),
        ("large", (1, 25, 5, 64), {"kernel": (25, 5), "hi": 0.5}),
    )
    for dtype in ("f32", "i8"):
        for label, dims, attrs in (*max_pool2d.CASES, *extra):
            q, out = (
                (QuantSpec.per_tensor(0.1, 3), QuantSpec.per_tensor(0.04, -20))
                if dtype == "i8"
                else (None, None)
            )
            g = sample_graph(
                "avg_pool2d", {"x": Tensor("x", dims, dtype, None, q)}, attrs, out_quant=out
            )
            yield f"{dtype}_{label}", g, {"x": sample_array(rng, dims, dtype)}
    for label, dims, attrs in max_pool2d.CASES:
        q = QuantSpec.per_tensor(0.1, 3)
        g = sample_graph(
            "avg_pool2d",
            {"x": Tensor("x", dims, "i8", None, q)},
            {**attrs, "rounding": "away"},
            out_quant=q,
        )
        yield f"i8_away_{label}", g, {"x": sample_array(rng, dims, "i8")}


OP = OpDef(
    name="avg_pool2d",
    code=10,
    fields=(
        *WINDOW,
        Field("kernel", "u16", 2, None, "rows, columns"),
        Field(
            "counted",
            "u16",
            4,
            (0, 0, 0, 0),
            "padding that counts as zeros: top, left, bottom, right",
        ),
        *CLAMP,
        Field("scale", "f32", 1, None, "int8: sx / sy", lowered=True),
        Field("rounding", "u32", 1, "even", "int8", choices=("even", "away")),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    lower=lower,
    int8=lambda op: "free",
)


@onnx("AveragePool")
def import_onnx(
    imp: Importer,
    x: str,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> str:
    rank, nhwc = imp.rank(x), imp.nhwc(x)
    kernel = (1, kernel_shape[0]) if len(kernel_shape) == 1 else tuple(kernel_shape)
    size = imp.shape(nhwc)[1:3]
    attrs = dict(imp.window(kernel, size, strides, dilations, pads, auto_pad), kernel=kernel)
    counted = attrs["pad"] if count_include_pad else (0, 0, 0, 0)
    attrs = max_pool2d.ceil_pad(attrs, size) if ceil_mode else attrs
    counted = tuple(min(c, p) for c, p in zip(counted, attrs["pad"]))
    return imp.nchw(imp.emit("avg_pool2d", [nhwc], dict(attrs, counted=counted)), rank)


@tflite("AVERAGE_POOL_2D")
def tflite_avg_pool2d(
    imp: Any, x: str, *, padding: int = 0, stride_h: int = 1, stride_w: int = 1,
    filter_height: int = 1, filter_width: int = 1, fused_activation_function: int = 0,
) -> str:  # fmt: skip
    """Padding never counts in the mean."""
    kernel, stride = (filter_height, filter_width), (stride_h, stride_w)
    pad = imp.padding(padding, imp.dims(x)[1:3], kernel, stride)
    attrs = {
        "kernel": kernel,
        "stride": stride,
        "pad": pad,
        **imp.bounds(fused_activation_function),
    }
    source = imp.model.values[imp.node.outputs[0]]
    quant = imp.out()[1]
    if source.type == "INT8" and quant is not None and imp.tensor(x).quant == quant:
        attrs["rounding"] = "away"
    return str(imp.emit("avg_pool2d", [x], attrs))

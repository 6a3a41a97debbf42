"""Depthwise 2-D convolution, NHWC: weights (kh, kw, c); each channel is filtered by itself.

A channel multiplier m > 1 is expressed by the importers as m copies of the input channel (gather),
which no model of the test set needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor
from edgekit.layout import Target, Variant, compacted, pack_dw
from edgekit.ops.base import Field, OpDef, TensorType, conv_out, need, sample_graph, tflite
from edgekit.ops.conv2d import CLAMP, WINDOW, int_parts, integers, uniform_zero, windows


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x, w = need(xs, 0, "input"), need(xs, 1, "weights")
    a = op.attrs
    n, h, wd, c = x.shape
    if w.dtype != "packed" and (len(w.shape) != 3 or w.shape[2] != c):
        raise ModelError(f"depthwise weights {w.shape} do not fit {x.shape}")
    kh, kw = w.shape[:2] if w.dtype != "packed" else a["kernel"]
    oh = conv_out(h, kh, a["stride"][0], a["dilation"][0], a["pad"][0], a["pad"][2])
    ow = conv_out(wd, kw, a["stride"][1], a["dilation"][1], a["pad"][1], a["pad"][3])
    return [((n, oh, ow, c), x.dtype)]


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    x, w, b = xs[0], xs[1], xs[2] if len(xs) > 2 else None
    assert x is not None and w is not None
    (_, oh, ow, _) = g.tensors[op.outputs[0]].shape
    kh, kw, _ = w.shape
    if x.dtype == np.float32:
        acc = np.einsum("nhwijc,ijc->nhwc", windows(x, op, kh, kw, 0, oh, ow), w)
        acc = acc + b if b is not None else acc
        return [
            np.clip(acc, np.float32(op.attrs["lo"]), np.float32(op.attrs["hi"])).astype(np.float32)
        ]
    scale, lo, hi, zx, zy, wz = int_parts(op, g, w)
    wide: Any = np.int64 if x.dtype == np.int16 else np.int32
    taps = windows(x.astype(wide) - zx, op, kh, kw, 0, oh, ow)
    acc = np.einsum("nhwijc,ijc->nhwc", taps, w.astype(wide) - wz)
    acc = acc + b if b is not None else acc
    return [integers(acc, x, op, g, scale, lo, hi, zy)]


def lower(op: Op, g: Graph, target: Target) -> Op:
    x, w = g.tensors[op.inputs[0]], g.value(op.inputs[1])
    assert w is not None, "weights must be constant"
    kh, kw, c = w.shape
    flat = w.reshape(kh * kw, c)
    bias = g.value(op.inputs[2]) if len(op.inputs) > 2 and op.inputs[2] else None
    attrs = dict(op.attrs, kernel=(kh, kw))
    if x.dtype == "f32":
        b = np.zeros(c, np.float32) if bias is None else bias.astype(np.float32)
        variants = [
            Variant(la, "f32", pack_dw(flat.astype(np.float32), b, None, la.nr))
            for la in target.dw_f32()
        ]
    else:
        scale, lo, hi, zx, _, wz = int_parts(op, g, w)
        zero = uniform_zero(wz)
        b = np.zeros(c, np.int64) if bias is None else bias.astype(np.int64)
        fold = (
            ((b - zx * (flat.astype(np.int64) - zero).sum(0)) & 0xFFFFFFFF)
            .astype(np.uint32)
            .view(np.int32)
        )
        variants = []
        for la in target.dw_s8():
            few = compacted(flat.T, fold, scale, la, 8) if target.compact() else ()
            variants += few or [Variant(la, "i8", pack_dw(flat, fold, scale, la.nr))]
        attrs.update(lo=lo, hi=hi, w_zero=zero)
    packed = Tensor(
        g.unique(op.inputs[1] + ".packed"), (c, kh * kw), "packed", variants=tuple(variants)
    )
    return op.with_(inputs=(op.inputs[0], g.add_tensor(packed)), attrs=attrs)


BAND_BYTES = 32768  # of padded input a hosted kernel copies at a time: stays in the first caches


def scratch(op: Op, g: Graph, target: Target) -> int:
    """Bytes per thread; 0 without padding.

    At least the taps of one border pixel; on hosted targets a padded band of rows, so that no
    pixel is special: one row always, more while they fit BAND_BYTES.
    """
    x, w = g.tensors[op.inputs[0]], g.tensors[op.inputs[1]]
    if not any(op.attrs["pad"]):
        return 0
    size = 4 if x.dtype == "f32" else 1
    (kh, kw), (sh, sw), (dh, dw) = (op.attrs[n] for n in ("kernel", "stride", "dilation"))
    _, oh, ow, c = g.tensors[op.outputs[0]].shape
    taps = w.shape[0] * w.shape[1] * size
    if not target.linux:
        few = int(w.shape[1] * size * min(c, max(v.layout.nr for v in w.variants)))
        if target.dw_image() and whole_image(op, g):  # others take it in parts
            return few
        planes = plane_bytes(op, g) if any("dsp" in i for i in target.isas) else 0
        return max(few, planes) if planes else taps
    row = ((ow - 1) * sw + (kw - 1) * dw + 1) * c * size
    rows = next(
        (
            n
            for n in range(min(oh, 32), 1, -1)
            if ((n - 1) * sh + (kh - 1) * dh + 1) * row <= BAND_BYTES
        ),
        1,
    )
    return max(taps, int(((rows - 1) * sh + (kh - 1) * dh + 1) * row))


def whole_image(op: Op, g: Graph) -> bool:
    """Whether a kernel that takes padded images takes this one: twin of native/kernels/mve/dw.c,
    but for biases beyond 2^23."""
    a, (_, h, wd, c) = op.attrs, g.tensors[op.inputs[0]].shape
    known = g.tensors[op.inputs[0]].dtype == "i8" and tuple(a["kernel"]) == (3, 3)
    return (
        known
        and max(a["stride"]) <= 2
        and tuple(a["dilation"]) == (1, 1)
        and max(a["pad"]) <= 1
        and h >= 3
        and wd >= 2
        and c % 4 == 0
    )


def plane_bytes(op: Op, g: Graph) -> int:
    """Bytes of three lines of a channel in int16: twin of dw_image in native/kernels/dsp/dw.c; 0
    where that does not apply."""
    a, x = op.attrs, g.tensors[op.inputs[0]]
    _, oh, ow, _ = g.tensors[op.outputs[0]].shape
    if x.dtype != "i8" or tuple(a["kernel"]) != (3, 3) or tuple(a["dilation"]) != (1, 1):
        return 0
    stride = a["stride"][0 if oh > ow else 1]
    return int(12 * (-(-max(oh, ow) // 2) * stride + 1)) if stride <= 2 else 0


def macs(op: Op, g: Graph) -> int:
    return g.tensors[op.outputs[0]].size * int(
        np.prod(op.attrs["kernel"] or g.tensors[op.inputs[1]].shape[:2])
    )


CASES: tuple[tuple[str, tuple[int, ...], tuple[int, int], dict[str, Any]], ...] = (
    ("3x3_same", (1, 7, 6, 24), (3, 3), {"pad": (1, 1, 1, 1), "lo": 0.0, "hi": 6.0}),
    ("stride2", (1, 9, 10, 5), (3, 3), {"stride": (2, 2), "pad": (0, 0, 1, 1)}),
    ("3x3_top_left", (2, 6, 5, 8), (3, 3), {"pad": (1, 1, 0, 0), "stride": (1, 2)}),
    ("3x3_wide", (1, 4, 9, 6), (3, 3), {"pad": (2, 2, 2, 2)}),
    ("5x5", (1, 9, 9, 17), (5, 5), {"pad": (2, 2, 2, 2)}),
    ("long", (1, 30, 1, 40), (4, 1), {}),
    ("dilated_batch", (2, 8, 8, 3), (3, 2), {"dilation": (2, 2), "pad": (2, 1, 2, 1)}),
    ("full", (1, 4, 5, 33), (4, 5), {}),
)


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    from edgekit.ops.short import shorten

    rng = np.random.default_rng(2)
    for label, x, k, attrs in CASES:
        c = x[-1]
        for wz in (0, 6):
            w = Tensor(
                "w",
                (*k, c),
                "i8",
                rng.integers(-127, 128, (*k, c)).astype(np.int8),
                QuantSpec.per_tensor(0.01, wz)
                if wz
                else QuantSpec.per_axis(rng.uniform(0.001, 0.02, c), 2),
            )
            tensors = {
                "x": Tensor("x", x, "i8", None, QuantSpec.per_tensor(0.05, -3)),
                "w": w,
                "b": Tensor("b", (c,), "i32", rng.integers(-3000, 3000, c).astype(np.int32)),
            }
            g = sample_graph(
                "depthwise_conv2d",
                tensors,
                attrs,
                out_quant=QuantSpec.per_tensor(0.1, 5),
                dtype="i8",
            )
            xs = {"x": rng.integers(-128, 128, x).astype(np.int8)}
            yield f"i8_{label}_{wz}", g, xs
            yield f"short_{label}_{wz}", shorten(g), xs
            if label in ("3x3_same", "5x5") and not wz:  # stored in 4 bits
                yield f"short4_{label}", shorten(_narrow(g, w)), xs
        tensors = {
            "x": Tensor("x", x),
            "w": Tensor("w", (*k, c), "f32", rng.normal(size=(*k, c)).astype(np.float32)),
            "b": Tensor("b", (c,), "f32", rng.normal(size=c).astype(np.float32)),
        }
        g = sample_graph("depthwise_conv2d", tensors, attrs)
        yield "f32_" + label, g, {"x": rng.normal(size=x).astype(np.float32)}


def _narrow(graph: Graph, w: Tensor) -> Graph:
    """The graph with weights of 4 bits."""
    assert w.data is not None and w.quant is not None
    g = graph.copy()
    g.tensors[w.name] = replace(w, data=w.data >> 4, quant=replace(w.quant, bits=4))
    return g


OP = OpDef(
    name="depthwise_conv2d",
    code=2,
    fields=(
        *WINDOW,
        Field("kernel", "u16", 2, None, "rows, columns", lowered=True),
        *CLAMP,
        Field("w_zero", "i32", 1, None, "weight zero point", lowered=True),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    lower=lower,
    scratch=scratch,
    macs=macs,
    int8=lambda op: "weights",
)


@tflite("DEPTHWISE_CONV_2D")
def tflite_depthwise_conv2d(
    imp: Any,
    x: str,
    w: str,
    b: str = "",
    *,
    padding: int = 0,
    stride_h: int = 1,
    stride_w: int = 1,
    dilation_h_factor: int = 1,
    dilation_w_factor: int = 1,
    fused_activation_function: int = 0,
) -> str:
    """Weights (1, kh, kw, c * multiplier); a multiplier above 1 makes it a convolution of c
    groups."""
    _, kh, kw, co = imp.dims(w)
    c = imp.dims(x)[3]
    stride, dilation = (stride_h, stride_w), (dilation_h_factor, dilation_w_factor)
    attrs = {
        "stride": stride,
        "dilation": dilation,
        "pad": imp.padding(padding, imp.dims(x)[1:3], (kh, kw), stride, dilation),
        **imp.bounds(fused_activation_function),
    }
    w = imp.weights(w, x)
    data, quant = imp.value(w), imp.tensor(w).quant
    if data is None or co % c:
        raise ModelError(f"needs constant weights for a multiple of {c} channels")
    if co == c:
        quant = (
            quant if quant is None or quant.axis is None else QuantSpec(quant.scale, quant.zero, 2)
        )
        return str(
            imp.emit("depthwise_conv2d", [x, imp.const("weights", data[0], quant), b], attrs)
        )
    quant = quant if quant is None or quant.axis is None else QuantSpec(quant.scale, quant.zero, 0)
    wide = imp.const("weights", data.transpose(3, 1, 2, 0), quant)
    return str(imp.emit("conv2d", [x, wide, b], dict(attrs, groups=c)))

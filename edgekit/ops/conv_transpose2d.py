"""Transposed 2-D convolution, NHWC, weights (O, kh, kw, I / groups), with fused bias and clamp.

Input pixel (i, j) adds w[:, a, b] * x to output pixel (i * stride + a * dilation - pad, ...);
`extra` is ONNX's output_padding.  For the runtime it becomes one convolution per phase (output
index modulo stride), whose weights are the taps of that phase, padded with taps that count nothing:
each output is computed once, nothing is scattered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import qmath
from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor
from edgekit.layout import Target
from edgekit.ops.base import Field, OpDef, TensorType, need, onnx, sample_graph, tflite
from edgekit.ops.conv2d import CLAMP, WINDOW, int_parts, pack_float, pack_int8, uniform_zero

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer

F = np.float32


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x, w, a = need(xs, 0, "input"), need(xs, 1, "weights"), op.attrs
    n, *size, c = x.shape
    o, *kernel, ci = w.shape
    if ci * a["groups"] != c or o % a["groups"]:
        raise ModelError(f"weights {w.shape} in {a['groups']} groups do not fit {x.shape}")
    out = []
    for i in (0, 1):
        span = (kernel[i] - 1) * a["dilation"][i] + 1
        extra = a["extra"][i]
        length = (size[i] - 1) * a["stride"][i] + span + extra - a["pad"][i] - a["pad"][i + 2]
        if length < 1 or not 0 <= extra < a["stride"][i] + a["dilation"][i]:
            raise ModelError(
                f"transposed convolution of {x.shape} by {w.shape} leaves {length} pixels"
            )
        out.append(length)
    return [((n, out[0], out[1], o), x.dtype)]


def accumulate(x: Array, w: Array, op: Op, out: tuple[int, ...]) -> Array:
    """Sum of products (n, oh, ow, o) by scattering: the definition itself, not phases."""
    a = op.attrs
    (sh, sw), (dh, dw), (t, left, _, _) = a["stride"], a["dilation"], a["pad"]
    n, h, wd, _ = x.shape
    o, kh, kw, ci = w.shape
    rows = max((h - 1) * sh + (kh - 1) * dh + 1, t + out[1])
    cols = max((wd - 1) * sw + (kw - 1) * dw + 1, left + out[2])
    full = np.zeros((n, rows, cols, o), np.result_type(x, w))
    og = o // a["groups"]
    for g in range(a["groups"]):
        part = x[..., g * ci : (g + 1) * ci]
        for i in range(kh):
            for j in range(kw):
                add = part @ w[g * og : (g + 1) * og, i, j].T
                place = (
                    slice(i * dh, i * dh + (h - 1) * sh + 1, sh),
                    slice(j * dw, j * dw + (wd - 1) * sw + 1, sw),
                )
                full[:, place[0], place[1], g * og : (g + 1) * og] += add
    return full[:, t : t + out[1], left : left + out[2]]


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    x, w, b = xs[0], xs[1], xs[2] if len(xs) > 2 else None
    assert x is not None and w is not None
    out = g.tensors[op.outputs[0]].shape
    if x.dtype == F:
        y = accumulate(x, w, op, out)
        y = y + b if b is not None else y
        return [np.clip(y, F(op.attrs["lo"]), F(op.attrs["hi"])).astype(F)]
    scale, lo, hi, zx, zy, wz = int_parts(op, g, w)
    wi = w.astype(np.float64) - wz.reshape(-1, 1, 1, 1)
    acc = np.rint(accumulate(x.astype(np.float64) - zx, wi, op, out)).astype(np.int64)
    acc = acc + b if b is not None else acc
    return [qmath.requantize(acc.astype(np.int32), scale, lo, hi, zy)]


def taps_of(rest: int, kernel: int, stride: int, dilation: int) -> list[int]:
    """Taps, in order, that reach output indices (padding added) of one rest modulo the stride."""
    return [i for i in range(kernel) if (rest - i * dilation) % stride == 0]


def phases(w: Array, op: Op, fill: int) -> tuple[Array, tuple[int, int]]:
    """Weights (o, kh, kw, ci) -> (phases * o, taps * taps * ci), and taps of rows and columns."""
    o, kh, kw, ci = w.shape
    (sh, sw), (dh, dw) = op.attrs["stride"], op.attrs["dilation"]
    rows = [taps_of(r, kh, sh, dh) for r in range(sh)]
    cols = [taps_of(c, kw, sw, dw) for c in range(sw)]
    taps = (max(map(len, rows)), max(map(len, cols)))
    out = np.full((sh, sw, o, *taps, ci), fill, w.dtype)
    for r, ys in enumerate(rows):
        for c, xs in enumerate(cols):
            if ys and xs:
                out[r, c, :, : len(ys), : len(xs)] = w[:, ys][:, :, xs]
    return out.reshape(sh * sw * o, -1), taps


def lower(op: Op, g: Graph, target: Target) -> Op:
    name, w = op.inputs[1], g.value(op.inputs[1])
    if w is None:
        raise ModelError("transposed convolution wants constant weights", where=op.name)
    o, many = w.shape[0], int(np.prod(op.attrs["stride"]))
    bias = g.value(op.inputs[2]) if len(op.inputs) > 2 and op.inputs[2] else None
    attrs = dict(op.attrs, kernel=w.shape[1:3])
    groups = many * op.attrs["groups"]
    if g.tensors[op.inputs[0]].dtype == "f32":
        flat, taps = phases(w.astype(F), op, 0)
        b = np.zeros(o, F) if bias is None else bias.astype(F)
        packed = pack_float(g, name, flat, np.tile(b, many), groups, target)
    else:
        scale, lo, hi, zx, _, wz = int_parts(op, g, w)
        zero = uniform_zero(wz)
        flat, taps = phases(w, op, zero)
        b = np.zeros(o, np.int32) if bias is None else bias
        packed = pack_int8(
            g, name, flat, np.tile(b, many), np.tile(scale, many), zx, zero, groups, target
        )
        attrs.update(lo=lo, hi=hi, w_zero=zero)
    return op.with_(inputs=(op.inputs[0], packed), attrs=dict(attrs, taps=taps))


def scratch(op: Op, g: Graph, target: Target) -> int:
    """Bytes per thread: the gathered rows of a tile."""
    x, w = g.tensors[op.inputs[0]], g.tensors[op.inputs[1]]
    kr = max(v.layout.deep for v in w.variants)
    row = -(-w.shape[1] // kr) * kr * (4 if x.dtype == "f32" else 1)
    columns = -(-g.tensors[op.outputs[0]].shape[2] // op.attrs["stride"][1])
    return int(row * min(target.tile_rows, columns))


def macs(op: Op, g: Graph) -> int:
    x, w = g.tensors[op.inputs[0]], g.tensors[op.inputs[1]]
    if w.dtype == "packed":
        o, many = g.tensors[op.outputs[0]].shape[3], int(np.prod(op.attrs["stride"]))
        return g.tensors[op.outputs[0]].size * w.size // (o * many)
    return x.size * int(np.prod(w.shape[:3])) // int(op.attrs["groups"])


CASES: tuple[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ("2x2_stride2", (1, 4, 5, 8), (12, 2, 2, 8), {"stride": (2, 2)}),
    (
        "3x3_stride2",
        (2, 4, 3, 5),
        (7, 3, 3, 5),
        {"stride": (2, 2), "pad": (1, 1, 1, 1), "extra": (1, 1), "lo": 0.0},
    ),
    ("4x4_stride2", (1, 5, 6, 16), (9, 4, 4, 16), {"stride": (2, 2), "pad": (1, 1, 1, 1)}),
    ("stride1", (1, 5, 4, 3), (4, 3, 3, 3), {"pad": (1, 0, 0, 1)}),
    ("stride3_kernel2", (1, 3, 4, 6), (5, 2, 2, 6), {"stride": (3, 3)}),
    (
        "dilated",
        (1, 4, 4, 4),
        (3, 3, 2, 4),
        {"stride": (2, 1), "dilation": (2, 3), "pad": (0, 2, 1, 0)},
    ),
    ("grouped", (1, 4, 4, 6), (8, 3, 3, 3), {"stride": (2, 2), "groups": 2}),
    ("wide", (1, 2, 30, 33), (20, 1, 5, 33), {"stride": (1, 2), "hi": 1.0}),
)


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(22)
    for label, xs, ws, attrs in CASES:
        tensors = {
            "x": Tensor("x", xs),
            "w": Tensor("w", ws, "f32", rng.normal(size=ws).astype(F)),
            "b": Tensor("b", (ws[0],), "f32", rng.normal(size=ws[0]).astype(F)),
        }
        g = sample_graph("conv_transpose2d", tensors, attrs)
        yield "f32_" + label, g, {"x": rng.normal(size=xs).astype(F)}
        for wz in (0, 7):
            wq = (
                QuantSpec.per_tensor(0.01, wz)
                if wz
                else QuantSpec.per_axis(rng.uniform(0.001, 0.02, ws[0]), 0)
            )
            tensors = {
                "x": Tensor("x", xs, "i8", None, QuantSpec.per_tensor(0.05, -3)),
                "w": Tensor("w", ws, "i8", rng.integers(-127, 128, ws).astype(np.int8), wq),
                "b": Tensor(
                    "b", (ws[0],), "i32", rng.integers(-3000, 3000, ws[0]).astype(np.int32)
                ),
            }
            g = sample_graph(
                "conv_transpose2d", tensors, attrs, out_quant=QuantSpec.per_tensor(0.2, 5)
            )
            yield f"i8_{label}_{wz}", g, {"x": rng.integers(-128, 128, xs).astype(np.int8)}


OP = OpDef(
    name="conv_transpose2d",
    code=22,
    fields=(
        *WINDOW,
        Field("extra", "u16", 2, (0, 0), "rows, columns added at the end of the output"),
        Field("kernel", "u16", 2, None, "rows, columns", lowered=True),
        Field("taps", "u16", 2, None, "most taps of a phase: rows, columns", lowered=True),
        Field("groups", "u32", 1, 1, "channel groups"),
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


@onnx("ConvTranspose")
def import_onnx(
    imp: Importer,
    x: str,
    w: str,
    b: str = "",
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] = (),
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    output_padding: Sequence[int] = (),
    output_shape: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> str:
    rank, nhwc = imp.rank(x), imp.nhwc(x)
    c, og, *kernel = imp.shape(w)
    kh, kw = (1, kernel[0]) if len(kernel) == 1 else kernel
    size = imp.shape(nhwc)[1:3]
    attrs = imp.window((kh, kw), size, strides, dilations, pads, "NOTSET")
    extra = ([0] * 2 + [int(v) for v in output_padding])[-2:]
    wanted = ([1, *output_shape] if rank == 3 else list(output_shape))[-2:] if output_shape else []
    if not wanted and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [n * s for n, s in zip(size, attrs["stride"])]
    if wanted:
        pad = list(attrs["pad"])
        for i, k in enumerate((kh, kw)):
            total = (
                (size[i] - 1) * attrs["stride"][i]
                + extra[i]
                + (k - 1) * attrs["dilation"][i]
                + 1
                - wanted[i]
            )
            extra[i] -= min(total, 0)
            half = max(total, 0) // 2
            odd = max(total, 0) - half
            pad[i], pad[i + 2] = (half, odd) if auto_pad == "SAME_UPPER" else (odd, half)
        attrs["pad"] = tuple(pad)
    attrs.update(groups=group, extra=tuple(extra))
    if group == 1:
        wt = imp.weight(w, (1, 2, 3, 0), (c, og, kh, kw))
    else:
        data = (
            imp.const(w, "weights").reshape(group, c // group, og, kh, kw).transpose(0, 2, 3, 4, 1)
        )
        wt = imp.add_const(data.reshape(group * og, kh, kw, c // group), "weights")
    return imp.nchw(imp.emit("conv_transpose2d", [nhwc, wt, *([b] if b else [])], attrs), rank)


@tflite("TRANSPOSE_CONV")
def tflite_conv_transpose2d(
    imp: Any, shape: str, w: str, x: str, b: str = "", *, padding: int = 0, stride_h: int = 1,
    stride_w: int = 1, fused_activation_function: int = 0,
) -> str:  # fmt: skip
    """The padding is that of the forward convolution over the given output shape."""
    size = imp.ints(shape, "the shape of a transposed convolution")[1:3]
    _, *kernel, ci = imp.dims(w)
    stride = (stride_h, stride_w)
    before = imp.padding(padding, size, kernel, stride)[:2]
    after, extra = [], []
    for n, out, k, s, p in zip(imp.dims(x)[1:3], size, kernel, stride, before, strict=True):
        rest = (n - 1) * s + k - p - out
        after.append(max(0, rest))
        extra.append(max(0, -rest))
    attrs = {
        "stride": stride,
        "pad": (*before, *after),
        "extra": tuple(extra),
        "groups": imp.dims(x)[3] // ci,
        **imp.bounds(fused_activation_function),
    }
    return str(imp.emit("conv_transpose2d", [x, imp.weights(w, x), b], attrs))

"""2-D convolution, NHWC, with fused bias and clamp.  Groups are allowed; depthwise has its own
op."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import qmath
from edgekit.compact import short_scale
from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor
from edgekit.layout import Target, Variant, compacted, pack_gemm, pack_sparse
from edgekit.ops.base import (
    INF,
    Field,
    OpDef,
    TensorType,
    conv_out,
    need,
    onnx,
    sample_graph,
    scale_zero,
    tflite,
)

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer

WEIGHTED = ("conv2d", "depthwise_conv2d", "linear")  # ops with weights, a bias, a scale per output
CHANNEL_AXIS = {"depthwise_conv2d": 2}  # of those weights; 0 elsewhere
WINDOW = (
    Field("stride", "u16", 2, (1, 1), "rows, columns"),
    Field("dilation", "u16", 2, (1, 1), "rows, columns"),
    Field("pad", "u16", 4, (0, 0, 0, 0), "top, left, bottom, right"),
)
CLAMP = (
    Field("lo", "f32", 1, -INF, "lower bound of the output; int8: relative to the zero point"),
    Field("hi", "f32", 1, INF, "upper bound of the output; int8: relative to the zero point"),
)


def limits(bits: int) -> tuple[int, int]:
    """Smallest and largest integer of weights of that many bits."""
    half = 1 << bits - 1
    return (-127 if bits == 8 else -half), half - 1


BAND_ITEMS = 65536  # of input rows a kernel that reads windows has before it: stays near


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x, w = need(xs, 0, "input"), need(xs, 1, "weights")
    a = op.attrs
    n, h, wd, c = x.shape
    o, kh, kw, ci = w.shape
    if ci * a["groups"] != c or o % a["groups"]:
        raise ModelError(f"weights {w.shape} in {a['groups']} groups do not fit {x.shape}")
    oh = conv_out(h, kh, a["stride"][0], a["dilation"][0], a["pad"][0], a["pad"][2])
    ow = conv_out(wd, kw, a["stride"][1], a["dilation"][1], a["pad"][1], a["pad"][3])
    return [((n, oh, ow, o), x.dtype)]


def windows(x: Array, op: Op, kh: int, kw: int, fill: Any, oh: int, ow: int) -> Array:
    """(n, oh, ow, kh, kw, c) view-copies of a padded NHWC array."""
    (sh, sw), (dh, dw), (t, left, b, r) = op.attrs["stride"], op.attrs["dilation"], op.attrs["pad"]
    x = np.pad(x, ((0, 0), (t, b), (left, r), (0, 0)), constant_values=fill)
    rows = np.arange(oh)[:, None] * sh + np.arange(kh) * dh
    cols = np.arange(ow)[:, None] * sw + np.arange(kw) * dw
    return x[:, rows[:, None, :, None], cols[None, :, None, :], :]


def accumulate(x: Array, w: Array, op: Op, fill: Any, oh: int, ow: int) -> Array:
    """Sum of products (n, oh, ow, o) in the arrays' own type."""
    o, kh, kw, ci = w.shape
    groups = op.attrs["groups"]
    taps = windows(x, op, kh, kw, fill, oh, ow)
    n = x.shape[0]
    og = o // groups
    out = []
    for g in range(groups):
        a = taps[..., g * ci : (g + 1) * ci].reshape(n * oh * ow, kh * kw * ci)
        out.append(a @ w[g * og : (g + 1) * og].reshape(og, -1).T)
    return np.concatenate(out, axis=-1).reshape(n, oh, ow, o)


def int_parts(op: Op, g: Graph, w: Array) -> tuple[Array, float, float, int, int, Array]:
    """(scale (o,), lo, hi, x zero, y zero, weight zero (o,) or ()) of an integer linear-type op."""
    sx, zx = scale_zero(g, op.inputs[0])
    sy, zy = scale_zero(g, op.outputs[0])
    wq = g.tensors[op.inputs[1]].quant
    assert wq is not None
    n = g.tensors[op.outputs[0]].shape[-1]
    scale = qmath.requant_scale(num=sx * np.broadcast_to(wq.scale, (n,)).astype(np.float64), den=sy)
    scale = short_scale(scale) if wq.short else scale
    to = g.tensors[op.outputs[0]].dtype
    lo, hi = qmath.clamp_bounds(op.attrs["lo"], op.attrs["hi"], sy, zy, to)
    return scale, lo, hi, zx, zy, wq.zero


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    x, w, b = xs[0], xs[1], xs[2] if len(xs) > 2 else None
    assert x is not None and w is not None
    (_, oh, ow, _) = g.tensors[op.outputs[0]].shape
    if x.dtype == np.float32:
        acc = accumulate(x, w, op, 0, oh, ow)
        acc = acc + b if b is not None else acc
        return [
            np.clip(acc, np.float32(op.attrs["lo"]), np.float32(op.attrs["hi"])).astype(np.float32)
        ]
    scale, lo, hi, zx, zy, wz = int_parts(op, g, w)
    # float64 holds every sum exactly and multiplies through BLAS
    wi = w.astype(np.float64) - wz.reshape(-1, 1, 1, 1)
    acc = np.rint(accumulate(x.astype(np.float64) - zx, wi, op, 0, oh, ow)).astype(np.int64)
    if b is not None:
        acc = acc + b
    return [integers(acc, x, op, g, scale, lo, hi, zy)]


def integers(
    acc: Array, x: Array, op: Op, g: Graph, scale: Array, lo: float, hi: float, zy: int
) -> Array:
    """Sums -> outputs: in 32 bits of int8 inputs, whatever they need of int16."""
    if x.dtype == np.int16:
        to = g.tensors[op.outputs[0]].dtype
        return qmath.requantize_wide(acc, scale, lo, hi, zy, to)
    return qmath.requantize(acc.astype(np.int32), scale, lo, hi, zy)


def pack_int8(
    g: Graph,
    name: str,
    w: Array,
    bias: Array,
    scale: Array,
    zx: int,
    wz: int,
    groups: int,
    target: Target,
) -> str:
    """Weights (o, k) int8 -> a packed tensor with one variant per layout the target's ISAs want,
    and one for each way of leaving zeros out that pays; it stands alone where there is one layout.

    `name` is the tensor they come from: its QuantSpec says how many bits to keep.
    """
    variants: list[Variant] = []
    quant = g.tensors[name].quant
    bits = quant.bits if quant is not None else 8
    k = w.shape[1]
    wi = w.astype(np.int64)
    sparse = target.sparse(w) if not wz and bits == 8 and groups == 1 else []
    plain = [] if sparse and len(target.s8()) == 1 else target.s8()
    for layout in (*plain, *sparse):
        z = zx + layout.xoff
        fold = bias.astype(np.int64) - z * wi.sum(1) + k * z * wz
        fold = (fold & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
        og = len(w) // groups
        if target.compact() and groups == 1 and not layout.sparse:
            found = compacted(w, fold, scale, layout, bits)
            variants += found
            if found:
                continue
        if layout.sparse:
            variants.append(Variant(layout, "i8", pack_sparse(w, fold, scale, layout)))
            continue
        parts = [
            pack_gemm(w[i : i + og], fold[i : i + og], scale[i : i + og], layout, bits)
            for i in range(0, len(w), og)
        ]
        variants.append(Variant(layout, f"i{bits}", b"".join(parts)))
    return g.add_tensor(
        Tensor(g.unique(name + ".packed"), (len(w), k), "packed", variants=tuple(variants))
    )


def pack_float(g: Graph, name: str, w: Array, bias: Array, groups: int, target: Target) -> str:
    """Weights (o, k) float32 -> a packed tensor, as pack_int8."""
    og = len(w) // groups
    variants = tuple(
        Variant(
            la,
            "f32",
            b"".join(
                pack_gemm(w[i : i + og], bias[i : i + og], None, la) for i in range(0, len(w), og)
            ),
        )
        for la in target.f32()
    )
    return g.add_tensor(Tensor(g.unique(name + ".packed"), w.shape, "packed", variants=variants))


def uniform_zero(wz: Array) -> int:
    """The one weight zero point of a tensor (per-channel zero points would need their own
    kernels)."""
    values = np.unique(wz)
    if len(values) != 1:
        raise ValueError("per-channel weight zero points are not supported")
    return int(values[0])


def lower(op: Op, g: Graph, target: Target) -> Op:
    x, w = g.tensors[op.inputs[0]], g.value(op.inputs[1])
    assert w is not None, "weights must be constant"
    o = w.shape[0]
    flat = w.reshape(o, -1)
    bias_name = op.inputs[2] if len(op.inputs) > 2 else ""
    bias = g.value(bias_name) if bias_name else None
    attrs = dict(op.attrs, kernel=w.shape[1:3])
    attrs["run"] = w.shape[2] * w.shape[3]
    if x.dtype == "f32":
        b = np.zeros(o, np.float32) if bias is None else bias.astype(np.float32)
        packed = pack_float(g, op.inputs[1], flat.astype(np.float32), b, op.attrs["groups"], target)
        return op.with_(inputs=(op.inputs[0], packed), attrs=attrs)
    scale, lo, hi, zx, _, wz = int_parts(op, g, w)
    b = np.zeros(o, np.int32) if bias is None else bias
    zero = uniform_zero(wz)
    if -128 <= zero < 128:  # padding weighs nothing, whatever it meets
        attrs["run"] = padded_run(op, w, target)
        pad = attrs["run"] - w[0, 0].size
        rows = w.reshape(*w.shape[:2], -1)
        flat = np.pad(rows, ((0, 0), (0, 0), (0, pad)), constant_values=zero).reshape(o, -1)
    packed = pack_int8(g, op.inputs[1], flat, b, scale, zx, zero, op.attrs["groups"], target)
    return op.with_(inputs=(op.inputs[0], packed), attrs=dict(attrs, lo=lo, hi=hi, w_zero=zero))


def padded_run(op: Op, w: Array, target: Target) -> int:
    """Inputs of one kernel row in packed int8 weights: a multiple of kr where that lets kernels
    read or widen whole runs and costs few products more, or on a small board less than
    gathering."""
    o, kh, kw, ci = w.shape
    run, kr = kw * ci, max(la.kr for la in target.s8())
    padded = -(-run // kr) * kr
    takes = target.windows() or target.takes_runs()
    takes = takes and kh * run > target.odd_k()
    in_place = takes and op.attrs["groups"] == 1 and op.attrs["dilation"][1] == 1
    gather = target.windows() and not target.linux and padded <= run * 2 and o <= 16
    few = padded * 2 <= run * 3 or gather
    return int(padded if in_place and (kh, kw) != (1, 1) and few else run)


def scratch(op: Op, g: Graph, target: Target) -> int:
    """Bytes per thread: im2col rows of a tile, or a padded band of input rows for kernels that
    read windows; 0 where the input can be read in place."""
    x, w = g.tensors[op.inputs[0]], g.tensors[op.inputs[1]]
    kr = max(v.layout.deep for v in w.variants)
    size = 4 if x.dtype == "f32" else 1
    k = w.shape[1]
    room = unpack_room(w)
    row = -(-k // kr) * kr * size
    (n, oh, ow, _) = g.tensors[op.outputs[0]].shape
    lies = direct(op, x) and k % kr == 0
    if w.variants[0].layout.pairs and n * oh * ow > 1 and op.attrs["run"] % 4 == 0:
        return int(room + wide_bytes(row) + (0 if lies else row))
    if lies:
        return room
    tile = row * min(tile_rows(row, room, target), oh * ow)
    return int(room + max(tile, band_bytes(op, g) if target.bands() else 0))


def tile_rows(row: int, room: int, target: Target) -> int:
    """Rows of `row` bytes gathered at a time; more where a block of weights is unpacked for all.

    A small board whose kernel reads windows gathers little else than borders: it saves memory.
    """
    if target.linux or room or not target.windows():
        return target.tile_rows * (2 if room else 1)
    return min(16, max(320 // row, 2 if row <= 288 else 1))


def wide_bytes(k: int) -> int:
    """Bytes of a pair of widened rows of k inputs (twin of ek_wide_bytes)."""
    return 8 + 4 * k


def band_bytes(op: Op, g: Graph) -> int:
    """Bytes of the input rows of a band of output rows: one row always, more while they fit
    BAND_ITEMS."""
    a, x = op.attrs, g.tensors[op.inputs[0]]
    _, oh, ow, _ = g.tensors[op.outputs[0]].shape
    (kh, kw), (sh, sw) = a["kernel"], a["stride"]
    size = 4 if x.dtype == "f32" else 1
    row = ((ow - 1) * sw + kw) * x.shape[3] * size
    extra = (a["run"] - kw * x.shape[3] // a["groups"]) * size
    rows = [(n - 1) * sh + (kh - 1) * a["dilation"][0] + 1 for n in range(1, min(oh, 32) + 1)]
    return int(max([rows[0], *(r for r in rows if r * row <= BAND_ITEMS * size)]) * row + extra)


def unpack_room(w: Tensor) -> int:
    """Bytes for one block of 4 or 2-bit weights, unpacked; else 0 (twin of ek_rows.room)."""
    sizes = [
        up16(v.layout.nr * (8 + -(-w.shape[1] // v.layout.kr) * v.layout.kr))
        for v in w.variants
        if v.dtype in ("i4", "i2")
    ]
    return max(sizes, default=0)


def up16(n: int) -> int:
    """n rounded up to a multiple of 16."""
    return -(-n // 16) * 16


def direct(op: Op, x: Tensor) -> bool:
    """A pointwise convolution whose input rows are GEMM rows as they lie."""
    a = op.attrs
    ones = tuple(a["kernel"]) == (1, 1) and tuple(a["stride"]) == (1, 1) and not any(a["pad"])
    return ones and a["groups"] == 1


def macs(op: Op, g: Graph) -> int:
    kernel = op.attrs["kernel"] or g.tensors[op.inputs[1]].shape[1:3]  # packed weights are padded
    depth = g.tensors[op.inputs[0]].shape[-1] // op.attrs["groups"]
    return int(g.tensors[op.outputs[0]].size * int(np.prod(kernel)) * depth)


def quant_case(
    rng: np.random.Generator,
    x: tuple[int, ...],
    w: tuple[int, ...],
    wz: int,
    attrs: dict[str, Any],
    bits: int = 8,
    pattern: str = "",
) -> tuple[Graph, dict[str, Array]]:
    top = 1 << bits - 1
    wt = rng.integers(-127 if bits == 8 else -top, top, w).astype(np.int8)
    wt = thin(rng, wt, pattern) if pattern else wt
    ws = rng.uniform(0.001, 0.02, w[0]).astype(np.float32) * np.float32(128 // top)
    wq = QuantSpec.per_axis(ws, 0, bits=bits) if not wz else QuantSpec.per_tensor(0.01, wz)
    tensors = {
        "x": Tensor("x", x, "i8", None, QuantSpec.per_tensor(0.05, -3)),
        "w": Tensor("w", w, "i8", wt, wq),
        "b": Tensor("b", (w[0],), "i32", rng.integers(-3000, 3000, w[0]).astype(np.int32)),
    }
    g = sample_graph("conv2d", tensors, attrs, out_quant=QuantSpec.per_tensor(0.4, 5), dtype="i8")
    return g, {"x": rng.integers(-128, 128, x).astype(np.int8)}


def thin(rng: np.random.Generator, w: Array, pattern: str) -> Array:
    """Weights (n, ...) with zeros left standing: "1:8", "1:4" of each output's inputs, or blocks of
    8 outputs by 8 inputs of which one in ten stays."""
    flat = w.reshape(len(w), -1)
    n, k = flat.shape
    if pattern == "blocks":
        keep = rng.random((-(-n // 8), -(-k // 8))) < 0.1
        mask = keep.repeat(8, 0).repeat(8, 1)[:n, :k]
    else:
        m = int(pattern[2:])
        mask = np.arange(k) % m == rng.integers(0, m, (n, -(-k // m))).repeat(m, 1)[:, :k]
    return np.where(mask, flat, 0).astype(w.dtype).reshape(w.shape)


CASES: tuple[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ("pointwise", (1, 5, 5, 16), (24, 1, 1, 16), {}),
    ("pointwise_odd", (1, 4, 3, 13), (7, 1, 1, 13), {"lo": 0.0}),
    ("pointwise_few", (2, 3, 5, 3), (9, 1, 1, 3), {}),
    ("3x3_windows", (2, 6, 5, 16), (5, 3, 3, 16), {"pad": (1, 1, 1, 1)}),
    ("3x3_rgb_valid", (2, 7, 8, 3), (8, 3, 3, 3), {"stride": (2, 1)}),
    ("3x3_same", (1, 8, 7, 8), (16, 3, 3, 8), {"pad": (1, 1, 1, 1), "lo": 0.0, "hi": 6.0}),
    ("3x3_stride2_rgb", (1, 15, 16, 3), (10, 3, 3, 3), {"stride": (2, 2), "pad": (0, 0, 1, 1)}),
    ("dilated", (1, 11, 9, 4), (5, 3, 3, 4), {"dilation": (2, 3), "pad": (2, 3, 2, 3)}),
    ("3x3_rgb_same", (2, 9, 11, 3), (34, 3, 3, 3), {"stride": (2, 1), "pad": (1, 1, 1, 1)}),
    ("2x5_valid", (1, 40, 9, 7), (50, 2, 5, 7), {"dilation": (3, 1)}),
    ("1x1_stride2", (1, 7, 9, 20), (80, 1, 1, 20), {"stride": (2, 2)}),
    ("batch2", (2, 4, 4, 12), (33, 2, 3, 12), {}),
    ("grouped", (1, 6, 6, 8), (12, 3, 3, 4), {"groups": 2, "pad": (1, 1, 1, 1)}),
    ("pad_only", (1, 2, 2, 4), (4, 3, 3, 4), {"pad": (3, 3, 3, 3), "stride": (3, 3)}),
    ("wide_k", (1, 3, 3, 130), (40, 3, 3, 130), {"pad": (1, 1, 1, 1)}),
)


SPARSE = ("pointwise_deep", (1, 5, 4, 128), (37, 1, 1, 128), {"lo": 0.0})


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(1)
    for label, x, w, attrs in CASES:
        yield ("i8_" + label, *quant_case(rng, x, w, 0, attrs))
        for bits in (4, 2):
            yield (f"w{bits}_" + label, *quant_case(rng, x, w, 0, attrs, bits))
    for pattern in ("1:4", "1:8", "blocks"):
        for label, x, w, attrs in (SPARSE, *(c for c in CASES if c[0] in ("pointwise", "wide_k"))):
            case = quant_case(rng, x, w, 0, attrs, pattern=pattern)
            yield (f"{pattern}_{label}".replace(":", "of"), *case)
    yield (
        "i8_weight_zero",
        *quant_case(rng, (1, 5, 6, 9), (11, 3, 3, 9), 7, {"pad": (1, 1, 1, 1)}),
    )
    rgb = {"pad": (0, 0, 1, 1), "stride": (2, 2)}
    yield "i8_weight_zero_rgb", *quant_case(rng, (1, 16, 14, 3), (20, 3, 3, 3), 5, rgb)
    yield ("i8_weight_zero_1x1", *quant_case(rng, (1, 5, 6, 16), (20, 1, 1, 16), -9, {}))
    for label, x, w, attrs in CASES:
        tensors = {
            "x": Tensor("x", x),
            "w": Tensor("w", w, "f32", rng.normal(size=w).astype(np.float32)),
            "b": Tensor("b", (w[0],), "f32", rng.normal(size=w[0]).astype(np.float32)),
        }
        yield (
            "f32_" + label,
            sample_graph("conv2d", tensors, attrs),
            {"x": rng.normal(size=x).astype(np.float32)},
        )
    from edgekit.ops.short import shorten

    for i, (label, x, w, attrs) in enumerate(c for c in CASES if np.prod(c[2]) < 4000):
        bits = (8, 4, 8, 2)[i % 4]
        g, given = quant_case(rng, x, w, 0, attrs, bits)
        yield f"short{bits}_{label}", shorten(g), given
    g, given = quant_case(rng, (1, 5, 6, 16), (20, 1, 1, 16), -9, {})
    yield "short_weight_zero_1x1", shorten(g), given


OP = OpDef(
    name="conv2d",
    code=1,
    fields=(
        *WINDOW,
        Field("kernel", "u16", 2, None, "rows, columns", lowered=True),
        Field("groups", "u32", 1, 1, "channel groups"),
        *CLAMP,
        Field("w_zero", "i32", 1, None, "weight zero point", lowered=True),
        Field("run", "u32", 1, None, "inputs of a kernel row in packed weights", lowered=True),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    lower=lower,
    scratch=scratch,
    macs=macs,
    int8=lambda op: "weights",
)


@tflite("CONV_2D")
def tflite_conv2d(
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
    """Weights are OHWI already; float activations on int8 weights (hybrid) take dequantized
    weights."""
    _, kh, kw, ci = imp.dims(w)
    stride, dilation = (stride_h, stride_w), (dilation_h_factor, dilation_w_factor)
    attrs = {
        "stride": stride,
        "dilation": dilation,
        "pad": imp.padding(padding, imp.dims(x)[1:3], (kh, kw), stride, dilation),
        "groups": imp.dims(x)[3] // ci,
        **imp.bounds(fused_activation_function),
    }
    return str(imp.emit("conv2d", [x, imp.weights(w, x), b], attrs))


@onnx("Conv")
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
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> str:
    rank = imp.rank(x)
    nhwc = imp.nhwc(x)
    o, ci, *kernel = imp.shape(w)
    kh, kw = (1, kernel[0]) if len(kernel) == 1 else kernel
    attrs = imp.window((kh, kw), imp.shape(nhwc)[1:3], strides, dilations, pads, auto_pad)
    bias = [b] if b else []
    if group == o == imp.shape(nhwc)[3] and ci == 1:
        y = imp.emit(
            "depthwise_conv2d", [nhwc, imp.weight(w, (1, 2, 0), (o, kh, kw)), *bias], attrs
        )
    else:
        wt = imp.weight(w, (0, 2, 3, 1), (o, ci, kh, kw))
        y = imp.emit("conv2d", [nhwc, wt, *bias], dict(attrs, groups=group))
    return imp.nchw(y, rank)

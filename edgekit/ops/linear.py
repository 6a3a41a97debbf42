"""y = x @ w.T + b with w (n, k): float32, int8, or int8 weights with float32 activations.

The last form quantizes each row of x at run time (symmetric int8), multiplies in integers and
returns float32: dynamic quantization, for matmul-type models without calibration data.  Weights of
8, 4 or 2 bits may have a scale per group of inputs (language models); each group of a row is then
quantized by itself, and the groups' products are added in order, in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import qmath
from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor
from edgekit.layout import GROUPS, Layout, Target, Variant, bfloat16, pack_gemm, pack_groups
from edgekit.ops.base import Field, OpDef, TensorType, need, onnx, sample_graph, tflite
from edgekit.ops.conv2d import (
    CLAMP,
    int_parts,
    integers,
    pack_float,
    pack_int8,
    thin,
    uniform_zero,
    unpack_room,
    up16,
    wide_bytes,
)

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer

F = np.float32


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x, w = need(xs, 0, "input"), need(xs, 1, "weights")
    if x.shape[-1] != w.shape[1]:
        raise ModelError(f"linear: rows of {x.shape[-1]} against weights {w.shape}", where=op.name)
    return [((*x.shape[:-1], w.shape[0]), x.dtype)]


def is_dynamic(op: Op, g: Graph) -> bool:
    """float32 activations on int8 weights."""
    w = g.tensors[op.inputs[1]]
    kind = w.variants[0].dtype if w.variants else w.dtype
    return g.tensors[op.inputs[0]].dtype == "f32" and kind != "f32"


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    x, w, b = xs[0], xs[1], xs[2] if len(xs) > 2 else None
    assert x is not None and w is not None
    lo, hi = F(op.attrs["lo"]), F(op.attrs["hi"])
    if is_dynamic(op, g):
        wq = g.tensors[op.inputs[1]].quant
        assert wq is not None
        y = _dynamic(x.reshape(-1, x.shape[-1]), w, F(0) if b is None else b, wq)
        return [np.clip(y, lo, hi).astype(F).reshape(*x.shape[:-1], -1)]
    if x.dtype == np.float32:
        y = x @ w.T
        y = y + b if b is not None else y
        return [np.clip(y, lo, hi).astype(F)]
    scale, qlo, qhi, zx, zy, wz = int_parts(op, g, w)
    acc64 = (x.astype(np.float64) - zx) @ (w.astype(np.float64) - wz.reshape(-1, 1)).T
    acc = np.rint(acc64).astype(np.int64) + (b if b is not None else 0)
    return [integers(acc, x, op, g, scale, qlo, qhi, zy)]


def _dynamic(x: Array, w: Array, b: Any, wq: QuantSpec) -> Array:
    """float32 (m, n) of rows (m, k) that are quantized here, group by group where wq has groups."""
    size = wq.group or w.shape[1]
    y: Array | None = None
    for j in range(-(-w.shape[1] // size)):
        part = slice(j * size, (j + 1) * size)
        q, sx = qmath.dynamic_rows(x[:, part])
        acc = np.rint(q.astype(np.float64) @ w[:, part].astype(np.float64).T).astype(np.int32)
        sw = wq.scale[:, j] if wq.group else np.broadcast_to(wq.scale, (len(w),))
        scale = (sx[:, None] * sw).astype(F)
        z = (acc.astype(F) * scale).astype(F)
        y = (z + b).astype(F) if y is None else (y + (z + F(0))).astype(F)  # no -0 is added
    assert y is not None
    return y


def lower(op: Op, g: Graph, target: Target) -> Op:
    w = g.value(op.inputs[1])
    assert w is not None, "weights must be constant"
    n = w.shape[0]
    bias = g.value(op.inputs[2]) if len(op.inputs) > 2 and op.inputs[2] else None
    name = op.inputs[1]
    if is_dynamic(op, g):
        wq = g.tensors[name].quant
        assert wq is not None and not np.any(wq.zero)
        b = np.zeros(n, F) if bias is None else bias.astype(F)
        if wq.group:
            packed = _pack_groups(g, name, w, b, wq, target)
            return op.with_(inputs=(op.inputs[0], packed))
        scale = np.broadcast_to(wq.scale, (n,)).astype(F)
        variants = tuple(
            Variant(la, f"i{wq.bits}", pack_gemm(w, b.view(np.int32), scale, la, wq.bits))
            for la in target.dyn()
        )
        packed = g.add_tensor(
            Tensor(g.unique(name + ".packed"), w.shape, "packed", variants=variants)
        )
        return op.with_(inputs=(op.inputs[0], packed))
    if g.tensors[op.inputs[0]].dtype == "f32":
        b = np.zeros(n, F) if bias is None else bias.astype(F)
        return op.with_(inputs=(op.inputs[0], pack_float(g, name, w.astype(F), b, 1, target)))
    scale, lo, hi, zx, _, wz = int_parts(op, g, w)
    zero = uniform_zero(wz)
    b = np.zeros(n, np.int32) if bias is None else bias
    packed = pack_int8(g, name, w, b, scale, zx, zero, 1, target)
    return op.with_(inputs=(op.inputs[0], packed), attrs=dict(op.attrs, lo=lo, hi=hi, w_zero=zero))


def _pack_groups(g: Graph, name: str, w: Array, b: Array, wq: QuantSpec, target: Target) -> str:
    layouts = dict.fromkeys(Layout(la.nr, la.kr, 0, GROUPS | wq.group << 8) for la in target.s8())
    variants = tuple(
        Variant(la, f"i{wq.bits}", pack_groups(w, b, wq.scale, la, wq.bits)) for la in layouts
    )
    return g.add_tensor(Tensor(g.unique(name + ".packed"), w.shape, "packed", variants=variants))


def scratch(op: Op, g: Graph, target: Target) -> int:
    """Bytes per thread: a padded copy of a tile's rows where k is no multiple of kr; dynamic
    rows."""
    x, w = g.tensors[op.inputs[0]], g.tensors[op.inputs[1]]
    k, kr = w.shape[1], max(v.layout.deep for v in w.variants)
    room = unpack_room(w)
    rows = min(target.tile_rows * (2 if room else 1), max(1, x.size // k))
    kp = -(-k // kr) * kr
    if is_dynamic(op, g):
        group = w.variants[0].layout.encoding >> 8
        if not group:
            return int(room + rows * (kp + 4) + 16)
        rows = min(target.tile_rows * 2, max(1, x.size // k))
        return max(_group_scratch(v.layout, k, group, rows) for v in w.variants)
    if k % kr == 0:
        pairs = w.variants[0].layout.pairs and x.dtype == "i8" and x.size > k
        return int(room + (wide_bytes(k) if pairs else 0))
    return int(room + rows * kp * (4 if x.dtype == "f32" else 1))


def _group_scratch(la: Layout, k: int, group: int, rows: int) -> int:
    """Bytes: one unpacked group of a block, then for each row its int8, its groups' scales and
    the sums of a block."""
    kp = -(-k // la.kr) * la.kr
    room = up16(la.nr * (8 + min(group, kp)))
    return room + rows * (kp + 4 * (-(-k // group) + la.nr)) + 16


def macs(op: Op, g: Graph) -> int:
    return g.tensors[op.inputs[0]].size * g.tensors[op.outputs[0]].shape[-1]


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(3)
    for m, k, n, wz, bits, *pattern in (
        (1, 640, 80, 0, 8),
        (1, 8, 64, 0, 8),
        (1, 640, 128, 0, 8, "1:8"),
        (19, 200, 45, 0, 8, "1:4"),
        (11, 100, 21, 0, 8, "blocks"),
        (5, 17, 9, 0, 8),
        (3, 64, 10, 4, 8),
        (20, 33, 40, 0, 8),
        (1, 5, 1, 0, 8),
        (1, 200, 70, 0, 4),
        (40, 33, 9, 0, 4),
        (3, 20, 40, 0, 2),
    ):
        top = 1 << bits - 1
        w = rng.integers(-127 if bits == 8 else -top, top, (n, k)).astype(np.int8)
        w = thin(rng, w, pattern[0]) if pattern else w
        scale = rng.uniform(0.001, 0.02, n) * (128 / top)
        wq = QuantSpec.per_tensor(0.01, wz) if wz else QuantSpec.per_axis(scale, 0, bits=bits)
        bias = Tensor("b", (n,), "i32", rng.integers(-3000, 3000, n).astype(np.int32))
        x = Tensor("x", (m, k), "i8", None, QuantSpec.per_tensor(0.05, 11))
        out = QuantSpec.per_tensor(0.3, -8)
        g = sample_graph(
            "linear",
            {"x": x, "w": Tensor("w", (n, k), "i8", w, wq), "b": bias},
            {"lo": 0.0},
            out_quant=out,
            dtype="i8",
        )
        label = f"{m}x{k}x{n}" + "".join(pattern).replace(":", "of")
        yield f"w{bits}_{label}_{wz}", g, {"x": rng.integers(-128, 128, (m, k)).astype(np.int8)}
        if pattern:
            continue
        xf = rng.normal(size=(m, k)).astype(F)
        wf = Tensor("w", (n, k), "f32", rng.normal(size=(n, k)).astype(F))
        bf = Tensor("b", (n,), "f32", rng.normal(size=n).astype(F))
        gf = sample_graph("linear", {"x": Tensor("x", (m, k)), "w": wf, "b": bf}, {})
        yield f"f32_{m}x{k}x{n}", gf, {"x": xf}
        if not wz:
            wd = Tensor("w", (n, k), "i8", w, wq)
            g = sample_graph("linear", {"x": Tensor("x", (m, k)), "w": wd, "b": bf}, {})
            xf = xf.copy()
            xf[0] *= 100
            xf[-1] *= 0 if m > 1 else 1
            yield f"dynamic_w{bits}_{m}x{k}x{n}", g, {"x": xf}
    yield from _group_samples(rng)
    yield from _short_samples(rng)


def _short_samples(rng: Any) -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    """Constants of few bits; small weights of which outputs past the last would be a large part."""
    from edgekit.ops.short import shorten

    for m, k, n, bits in ((1, 100, 45, 8), (5, 64, 10, 8), (19, 33, 70, 4), (1, 40, 2, 4)):
        top = 1 << bits - 1
        w = rng.integers(-top, top, (n, k)).astype(np.int8)
        wq = QuantSpec.per_axis(rng.uniform(0.001, 0.02, n) * (128 / top), 0, bits=bits)
        tensors = {
            "x": Tensor("x", (m, k), "i8", None, QuantSpec.per_tensor(0.05, 11)),
            "w": Tensor("w", (n, k), "i8", w, wq),
            "b": Tensor("b", (n,), "i32", rng.integers(-3000, 3000, n).astype(np.int32)),
        }
        out = QuantSpec.per_tensor(0.3, -8)
        g = sample_graph("linear", tensors, {"lo": 0.0}, out_quant=out, dtype="i8")
        x = rng.integers(-128, 128, (m, k)).astype(np.int8)
        yield f"short{bits}_{m}x{k}x{n}", shorten(g), {"x": x}


def _group_samples(rng: Any) -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    """Weights with a scale per group of inputs: whole groups, a rest, a group larger than k."""
    for m, k, n, bits, group in (
        (1, 64, 70, 4, 32),
        (19, 172, 21, 4, 32),
        (40, 100, 9, 8, 32),
        (3, 200, 40, 2, 64),
        (2, 24, 5, 4, 128),
        (1, 5, 1, 8, 16),
    ):
        top = 1 << bits - 1
        w = rng.integers(-127 if bits == 8 else -top, top, (n, k)).astype(np.int8)
        scale = bfloat16(rng.uniform(0.001, 0.02, (n, -(-k // group))) * (128 / top))
        wq = QuantSpec(scale, np.zeros(scale.shape, np.int32), 0, bits, group)
        b = Tensor("b", (n,), "f32", rng.normal(size=n).astype(F))
        x = Tensor("x", (m, k))
        tensors = {"x": x, "w": Tensor("w", (n, k), "i8", w, wq), "b": b}
        xf = rng.normal(size=(m, k)).astype(F)
        xf[0, : k // 2] *= 100
        xf[-1, k // 3 :] = 0
        g = sample_graph("linear", tensors, {"lo": -0.5 if n == 9 else -np.inf})
        yield f"groups{group}_w{bits}_{m}x{k}x{n}", g, {"x": xf}


OP = OpDef(
    name="linear",
    code=3,
    fields=(*CLAMP, Field("w_zero", "i32", 1, None, "weight zero point", lowered=True)),
    shape=shape,
    reference=reference,
    samples=samples,
    lower=lower,
    scratch=scratch,
    macs=macs,
    exact=lambda op, g: g.tensors[op.inputs[0]].dtype != "f32" or is_dynamic(op, g),
    int8=lambda op: "weights",
)


@tflite("FULLY_CONNECTED")
def tflite_linear(
    imp: Any,
    x: str,
    w: str,
    b: str = "",
    *,
    fused_activation_function: int = 0,
    keep_num_dims: bool = False,
    weights_format: int = 0,
) -> str:
    """Rows are the input folded to (m, k); the result is (m, n) unless keep_num_dims."""
    k = imp.dims(w)[1]
    if weights_format != 0:
        raise ModelError("shuffled weights are not supported")
    if imp.value(w) is None:
        raise ModelError("weights must be constant")
    attrs = imp.bounds(fused_activation_function)
    if not keep_num_dims or imp.dims(x)[-1] != k:
        x = imp.reshaped(x, (imp.tensor(x).size // k, k))
    return str(imp.emit("linear", [x, imp.weights(w, x), b], attrs))


@onnx("Gemm")
def import_gemm(
    imp: Importer,
    a: str,
    b: str,
    c: str = "",
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> str:
    if transA:
        a = imp.transpose(a, (1, 0))
    if alpha != 1.0:
        a = imp.binary("mul", a, imp.scalar(alpha))
    if imp.is_weight(b):
        n = imp.shape(b)[0 if transB else 1]
        w = imp.weight(b, (0, 1) if transB else (1, 0))
        if c and imp.is_weight(c) and beta == 1.0 and imp.shape(c) in ((n,), (1, n)):
            return imp.emit(
                "linear", [a, w, imp.weight(c, (0,), (n,)) if imp.shape(c) != (n,) else c]
            )
        y = imp.emit("linear", [a, w])
    else:
        y = imp.emit("matmul", [a, imp.transpose(b, (1, 0)) if transB else b])
    if c and beta != 1.0:
        c = imp.binary("mul", c, imp.scalar(beta))
    return imp.binary("add", y, c) if c else y

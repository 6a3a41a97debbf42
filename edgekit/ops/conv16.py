"""int16 activations by int8 weights: what conv2d, depthwise_conv2d, linear and means become when
they read int16 (W8A16).  `passes.lower` puts it in their place; they say what it computes.

Activations of 16 bits are symmetric (zero point 0).  The accumulator is exact (64 bits), the bias
int32 below 2^30, the output int16 or int8: float32(acc) * scale, clamp, half to even, as everywhere
(TFLite's 16x8 has biases of 64 bits; our quantizer widens the scale of a channel instead).  A mean
is a depthwise convolution by ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgekit import qmath
from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor
from edgekit.layout import Layout, Target, Variant, pack_dw, pack_gemm
from edgekit.ops import conv2d
from edgekit.ops.base import Field, OpDef, TensorType, sample_graph, scale_zero
from edgekit.ops.reduce import axes_of, mask

NR, KR = 8, 2  # the one layout of all targets: twins of native/src/kernels.h
TILE_ROWS = 16
ONE = {"stride": (1, 1), "dilation": (1, 1), "pad": (0, 0, 0, 0), "kernel": (1, 1), "groups": 1}


def takes(op: Op, g: Graph) -> bool:
    """Whether an op runs as this one."""
    kinds = (*conv2d.WEIGHTED, "avg_pool2d", "reduce")
    return op.type in kinds and g.tensors[op.inputs[0]].dtype == "i16"


def averages(op: Op, rank: int) -> bool:
    """Whether an avg_pool2d or reduce is a mean or sum of whole windows of (n, h, w, c)."""
    if op.type == "avg_pool2d":
        return not any(op.attrs["pad"]) and op.attrs["rounding"] == "even"
    spatial = rank == 4 and set(axes_of(op)) <= {1, 2} and bool(axes_of(op))
    return spatial and op.attrs["kind"] in ("mean", "sum")


def instead(op: Op, g: Graph) -> Op:
    """The op as this one, its weights packed."""
    x, y = g.tensors[op.inputs[0]], g.tensors[op.outputs[0]]
    if op.type not in conv2d.WEIGHTED:
        return _mean(op, g)
    w = g.value(op.inputs[1])
    assert w is not None, "weights must be constant"
    scale, lo, hi, _, _, wz = conv2d.int_parts(op, g, w)
    quant = g.tensors[op.inputs[1]].quant
    if np.any(wz) or quant is None or quant.bits != 8:
        raise ModelError("int16 activations take symmetric weights of 8 bits", where=op.name)
    bias = g.value(op.inputs[2]) if len(op.inputs) > 2 and op.inputs[2] else None
    n = y.shape[-1]
    b = np.zeros(n, np.int32) if bias is None else bias.astype(np.int32)
    a: dict[str, Any] = {k: op.attrs.get(k, v) for k, v in ONE.items()}
    if op.type == "depthwise_conv2d":
        a |= {"kernel": w.shape[:2], "groups": n}
        taps = w.reshape(-1, n)
    else:
        a["kernel"] = w.shape[1:3] if op.type == "conv2d" else (1, 1)
        taps = w.reshape(n, -1).T
    name = _pack(g, op.inputs[1], taps, b, scale, int(a["groups"]), x.shape[-1])
    return op.with_(type="conv16", inputs=(op.inputs[0], name), attrs={**a, "lo": lo, "hi": hi})


def _mean(op: Op, g: Graph) -> Op:
    """A mean or sum as a depthwise convolution by ones."""
    x = g.tensors[op.inputs[0]]
    (sx, _), (sy, zy) = scale_zero(g, op.inputs[0]), scale_zero(g, op.outputs[0])
    c = x.shape[-1]
    a: dict[str, Any] = {**ONE, "groups": c}
    to = g.tensors[op.outputs[0]].dtype
    lo, hi = qmath.clamp_bounds(op.attrs.get("lo", -np.inf), op.attrs.get("hi", np.inf), sy, zy, to)
    if op.type == "reduce":
        a["kernel"] = tuple(x.shape[i] if i in axes_of(op) else 1 for i in (1, 2))
    else:
        a |= {k: op.attrs[k] for k in ("stride", "dilation", "kernel")}
    taps = int(np.prod(a["kernel"]))
    one = qmath.requant_scale(num=sx, den=sy)
    scale = one if op.attrs.get("kind") == "sum" else qmath.mean_scale(one, taps)
    w = np.ones((taps, c), np.int8)
    name = _pack(
        g, op.name + ".ones", w, np.zeros(c, np.int32), np.full(c, scale, np.float32), c, c
    )
    return op.with_(type="conv16", inputs=(op.inputs[0], name), attrs={**a, "lo": lo, "hi": hi})


def _pack(
    g: Graph, name: str, taps: Array, bias: Array, scale: Array, groups: int, channels: int
) -> str:
    """Weights (k, n) -> a packed tensor: blocks of NR channels, or of NR outputs KR deep."""
    k, n = taps.shape
    if depthwise(groups, channels, n):
        form, blob = Layout(NR, 1), pack_dw(taps, bias, scale, NR)
    else:
        form, og, w = Layout(NR, KR), n // groups, np.ascontiguousarray(taps.T)
        parts = [slice(i, i + og) for i in range(0, n, og)]
        blob = b"".join(pack_gemm(w[p], bias[p], scale[p], form) for p in parts)
    packed = Tensor(
        g.unique(name + ".packed"), (n, k), "packed", variants=(Variant(form, "i8", blob),)
    )
    return g.add_tensor(packed)


def depthwise(groups: int, channels: int, outputs: int) -> bool:
    """Whether every channel is filtered by itself: twin of native/ops/conv16.c."""
    return groups > 1 and groups == channels == outputs


def scratch(op: Op, g: Graph, target: Target) -> int:
    """Bytes per thread: where the taps of a pixel lie and a pixel of zeros; or gathered rows."""
    x, y, a = g.tensors[op.inputs[0]], g.tensors[op.outputs[0]], op.attrs
    taps = int(np.prod(a["kernel"]))
    if depthwise(a["groups"], x.shape[-1], y.shape[-1]):
        return 8 * taps + 2 * x.shape[-1]
    k = x.shape[-1] // a["groups"] * taps
    same = taps == a["groups"] == 1 and tuple(a["stride"]) == (1, 1) and not any(a["pad"])
    rows = min(TILE_ROWS if target.linux else 1, y.size // y.shape[-1])
    return 0 if same and k % KR == 0 else rows * 2 * (-(-k // KR) * KR)


def macs(op: Op, g: Graph) -> int:
    a = op.attrs
    depth = g.tensors[op.inputs[0]].shape[-1] // a["groups"]
    return int(g.tensors[op.outputs[0]].size * int(np.prod(a["kernel"])) * depth)


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    raise ModelError("conv16 is made by lowering alone", where=op.name)


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    raise ModelError("conv16 is made by lowering alone", where=op.name)


def _case(
    rng: np.random.Generator, type: str, x: tuple[int, ...], w: tuple[int, ...], to: str,
    attrs: dict[str, Any], top: int = 32767,
) -> tuple[Graph, dict[str, Array]]:  # fmt: skip
    axis = 2 if type == "depthwise_conv2d" else 0
    n = w[axis]
    k = int(np.prod(w)) // n
    scale = rng.uniform(0.001, 0.02, n).astype(np.float32)
    out = QuantSpec.per_tensor(0.3 * k**0.5 / 127, 5) if to == "i8" else QuantSpec.wide(0.002)
    tensors = {
        "x": Tensor("x", x, "i16", None, QuantSpec.wide(0.0003)),
        "w": Tensor(
            "w",
            w,
            "i8",
            rng.integers(-127, 128, w).astype(np.int8),
            QuantSpec.per_axis(scale, axis),
        ),
        "b": Tensor("b", (n,), "i32", rng.integers(-(2**24), 2**24, n).astype(np.int32)),
    }
    g = sample_graph(type, tensors, attrs, out_quant=out, dtype=to)
    values = rng.integers(-top - 1, top + 1, x)
    values.reshape(-1)[: x[-1]] = -32768  # the largest sums there are
    return g, {"x": values.astype(np.int16)}


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    from edgekit.ops import depthwise_conv2d

    rng = np.random.default_rng(26)
    cases = [c for c in conv2d.CASES if np.prod(c[2]) < 10_000]  # small boards hold them all
    for i, (label, x, w, attrs) in enumerate(cases):
        to = ("i16", "i8")[i % 2]
        yield f"conv2d_{label}_{to}", *_case(rng, "conv2d", x, w, to, attrs)
    for i, (label, x, kernel, attrs) in enumerate(depthwise_conv2d.CASES):
        to = ("i16", "i8")[i % 2]
        case = _case(rng, "depthwise_conv2d", x, (*kernel, x[-1]), to, attrs, 2000)
        yield f"depthwise_{label}_{to}", *case
    for m, k, n in ((1, 300, 9), (5, 17, 9), (20, 1030, 8), (1, 5, 1)):
        yield f"linear_{m}x{k}x{n}", *_case(rng, "linear", (m, k), (n, k), "i16", {"lo": 0.0}, 999)
    for to in ("i16", "i8"):
        out = QuantSpec.per_tensor(0.02, -9) if to == "i8" else QuantSpec.wide(0.0001)
        t = Tensor("x", (2, 6, 7, 21), "i16", None, QuantSpec.wide(0.0003))
        given = {"x": rng.integers(-32768, 32768, t.shape).astype(np.int16)}
        for kind, keep in (("mean", 1), ("sum", 0)):
            attrs = {"kind": kind, "axes": mask((1, 2), 4), "keepdims": keep}
            g = sample_graph("reduce", {"x": t}, attrs, out_quant=out, dtype=to)
            yield f"{kind}_{to}", g, given
        attrs = {"kernel": (3, 2), "stride": (2, 1), "lo": 0.0}
        yield (
            f"pool_{to}",
            sample_graph("avg_pool2d", {"x": t}, attrs, out_quant=out, dtype=to),
            given,
        )


OP = OpDef(
    name="conv16",
    code=26,
    fields=(
        *conv2d.WINDOW,
        Field("kernel", "u16", 2, None, "rows, columns"),
        Field("groups", "u32", 1, 1, "channel groups"),
        Field("lo", "f32", 1, None, "lower bound of the output, relative to the zero point"),
        Field("hi", "f32", 1, None, "upper bound, likewise"),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    scratch=scratch,
    macs=macs,
)

"""Elementwise steps with int16 on one side: what cast, binary and lut become where they read or
write it (W8A16).  `passes.lower` puts it in their place; they say what it computes.

Zero points of int16 are 0.  add and sub are integer multiply-add-shift in 64 bits (qmath.add), mul
is requantize(a * b).  The second operand is as large as the first or repeats along its last axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgekit import qmath
from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor
from edgekit.ops import binary, cast
from edgekit.ops.base import Field, OpDef, TensorType, sample_array, sample_graph, scale_zero

KINDS = ("quantize", "dequantize", "requantize", "add", "mul", "table")


def takes(op: Op, g: Graph) -> bool:
    """Whether an op runs as this one."""
    ends = [g.tensors[n] for n in (*op.inputs, *op.outputs) if n]
    wide = any(t.dtype == "i16" and t.quant is not None for t in ends)
    return wide and op.type in ("cast", "binary", "lut")


def repeats(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether an operand of shape b repeats along the last axes of one of shape a."""
    while b and b[0] == 1:
        b = b[1:]
    return not b or a[-len(b) :] == b


def instead(op: Op, g: Graph) -> Op:
    """The op as this one."""
    y = g.tensors[op.outputs[0]]
    if op.type == "cast":
        kind = cast.mode(op, g)
        scale = cast.requant(op, g)[0] if kind == "requantize" else 0.0
        return op.with_(type="map16", attrs=OP.fill({"kind": kind, "scale": scale}))
    if op.type == "lut":
        return op.with_(type="map16", attrs=OP.fill({"kind": "table"}))
    (sa, _), (sb, _), (sy, _) = (scale_zero(g, n) for n in (*op.inputs, *op.outputs))
    lo, hi = qmath.clamp_bounds(op.attrs["lo"], op.attrs["hi"], sy, 0, y.dtype)
    attrs = {"kind": "add", "lo": lo, "hi": hi}
    if op.attrs["kind"] in ("add", "sub"):
        ma, mb, bias, shift = binary.params(op, g)
        attrs.update(ma=ma, mb=mb, bias=bias, shift=shift)
    else:
        attrs.update(kind="mul", scale=float(qmath.requant_scale(num=sa * sb, den=sy)))
    return op.with_(type="map16", attrs=OP.fill(attrs))


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    raise ModelError("map16 is made by lowering alone", where=op.name)


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    raise ModelError("map16 is made by lowering alone", where=op.name)


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(27)
    wide, other, small = QuantSpec.wide(0.0007), QuantSpec.wide(0.002), QuantSpec.per_tensor(0.3, 9)
    x = np.concatenate([rng.normal(scale=9, size=90), [1e9, -1e9, 0.00035, -0.00105, np.nan]])
    ints = np.concatenate([rng.integers(-32768, 32768, 300), [-32768, 32767, 0]]).astype(np.int16)
    i8 = np.arange(-128, 128).astype(np.int8)
    for label, data, qx, to, qy in (
        ("quantize", x.astype(np.float32), None, "i16", wide),
        ("dequantize", ints, wide, "f32", None),
        ("down", ints, wide, "i8", small),
        ("up", i8, small, "i16", wide),
        ("widen", i8, small, "i16", QuantSpec.wide(0.3)),
        ("between", ints, wide, "i16", other),
    ):
        kind = {"float32": "f32", "int16": "i16", "int8": "i8"}[str(data.dtype)]
        t = Tensor("x", data.shape, kind, None, qx)
        yield label, sample_graph("cast", {"x": t}, {"to": to}, out_quant=qy), {"x": data}
    for n in (5, 700):
        table = np.sort(rng.integers(-32768, 32768, 513))[:: 1 if n > 5 else -1].astype(np.int16)
        ends = {"x": Tensor("x", (n,), "i16", None, wide), "t": Tensor("t", (513,), "i16", table)}
        ints = rng.integers(-32768, 32768, n).astype(np.int16)
        ints[:2] = 32767, -32768
        yield f"table_{n}", sample_graph("lut", ends, {}, out_quant=other), {"x": ints}
    for kind in ("add", "sub", "mul"):
        for sa, sb in (((1, 7, 5, 33),) * 2, ((2, 3, 4, 8), (1, 4, 8)), ((4, 9), ())):
            tensors = {
                "a": Tensor("a", sa, "i16", None, wide),
                "b": Tensor("b", sb, "i16", None, other),
            }
            out = QuantSpec.wide(0.02 if kind == "mul" else 0.0011)
            attrs = {"kind": kind, "lo": 0.0 if kind == "sub" else -np.inf}
            g = sample_graph("binary", tensors, attrs, out_quant=out)
            given = {n: sample_array(rng, t.shape, "i16") for n, t in tensors.items()}
            yield f"{kind}_{len(sa)}{len(sb)}", g, given


OP = OpDef(
    name="map16",
    code=27,
    fields=(
        Field("kind", "u32", 1, None, "", choices=KINDS),
        Field("ma", "i32", 1, 0, "add: multiplier of a"),
        Field("mb", "i32", 1, 0, "multiplier of b"),
        Field("bias", "i32", 1, 0, ""),
        Field("shift", "u32", 1, 0, "bits"),
        Field("scale", "f32", 1, 0.0, "requantize: sx / sy; mul: sa * sb / sy"),
        Field("lo", "f32", 1, 0.0, "add, mul: lower bound"),
        Field("hi", "f32", 1, 0.0, "upper bound"),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    exact=lambda op, g: True,
    inplace=(),
)

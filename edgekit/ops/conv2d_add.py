"""An int8 convolution whose outputs are added to another tensor as they come, a few at a time: the
end of a residual block without a tensor for the convolution's own outputs.  The sum may lie over
the other operand.  `passes.lower` puts it in the place of conv2d and binary add on boards, where
memory counts; the bits are theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgekit import qmath
from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor
from edgekit.layout import Target
from edgekit.ops import conv2d
from edgekit.ops.base import INF, Field, OpDef, TensorType, scale_zero

STAGE = 512  # bytes of outputs that wait for their sum; 64 for kernels that take rows by two


def as_conv(op: Op) -> Op:
    """The convolution in it; its output is the tensor `inner` makes."""
    attrs = {k: op.attrs[k] for k in (f.name for f in conv2d.OP.fields)}
    conv = op.with_(type="conv2d", attrs=attrs, inputs=tuple(op.inputs[:3]))
    return conv.with_(outputs=(f"{op.outputs[0]}.conv",))


def inner(op: Op, g: Graph) -> Graph:
    """The graph with a tensor for the convolution's own outputs."""
    y, a = g.tensors[op.outputs[0]], op.attrs
    found = g.copy()
    quant = QuantSpec.per_tensor(a["scale"], a["zero"])
    found.tensors[f"{y.name}.conv"] = replace(y, name=f"{y.name}.conv", quant=quant, data=None)
    return found


def fuse(g: Graph) -> Graph:
    """The graph with int8 convolutions and the additions that alone read them as one op.

    Of two convolutions the one with the smaller input is taken, which has to live until then.
    """
    readers, producers = g.consumers(), g.producers()
    taken: dict[str, Op] = {}  # name of the addition -> its convolution
    for add in g.ops:
        if add.type != "binary" or add.attrs["kind"] != "add" or len(set(add.inputs)) != 2:
            continue
        y = g.tensors[add.outputs[0]]
        if y.dtype != "i8" or any(g.tensors[n].shape != y.shape for n in add.inputs):
            continue
        convs = [producers[n] for n in add.inputs if n in producers and n not in g.outputs]
        convs = [
            c
            for c in convs
            if c.type == "conv2d"
            and g.tensors[c.inputs[0]].dtype == "i8"
            and c.attrs["groups"] == 1
            and readers[c.outputs[0]] == [add]
        ]
        other = {c.name: n for c in convs for n in add.inputs if n != c.outputs[0]}
        convs = [c for c in convs if g.tensors[other[c.name]].data is None]
        if convs:
            taken[add.name] = min(convs, key=lambda c: g.tensors[c.inputs[0]].nbytes)
    gone = {c.outputs[0] for c in taken.values()}
    new = g.copy()
    new.ops = []
    for op in g.ops:
        if op.name in taken and op.type == "binary":
            new.ops.append(joined(taken[op.name], op, g))
        elif op.outputs[0] not in gone:
            new.ops.append(op)
    return new


def joined(conv: Op, add: Op, g: Graph) -> Op:
    """Both as one op."""
    scale, zero = scale_zero(g, conv.outputs[0])
    sums = {"sum_lo": add.attrs["lo"], "sum_hi": add.attrs["hi"], "scale": scale, "zero": zero}
    other = next(n for n in add.inputs if n != conv.outputs[0])
    x, w, b = (*conv.inputs, "")[:3]
    return add.with_(
        type="conv2d_add",
        name=f"{conv.name}+{add.name}",
        inputs=(x, w, b, other),
        attrs=OP.fill({**conv.attrs, **sums}),
    )


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    return conv2d.shape(as_conv(op), xs)


def sum_params(op: Op, g: Graph) -> tuple[tuple[int, int, int, int], float, float, int]:
    """((mc, mr, bias, shift), lo, hi, zero) of the addition: see qmath.add_params."""
    (sr, zr), (sy, zy) = scale_zero(g, op.inputs[-1]), scale_zero(g, op.outputs[0])
    params = qmath.add_params(op.attrs["scale"], sr, sy, op.attrs["zero"], zr)
    return params, *qmath.clamp_bounds(op.attrs["sum_lo"], op.attrs["sum_hi"], sy, zy), zy


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    (made,) = conv2d.reference(as_conv(op), inner(op, g), xs[:3])
    assert xs[3] is not None
    return [qmath.add(made, xs[3], *sum_params(op, g))]


def lower(op: Op, g: Graph, target: Target) -> Op:
    whole = inner(op, g)
    conv = conv2d.lower(as_conv(op), whole, target)
    g.add_tensor(whole.tensors[conv.inputs[1]])
    (mc, mr, bias, shift), lo, hi, _ = sum_params(op, g)
    n = g.tensors[op.outputs[0]].shape[3]
    pairs = any(la.pairs for la in target.s8())
    stage = conv2d.up16(max(2 * n, 64 if pairs else STAGE))
    sums = {"mc": mc, "mr": mr, "bias": bias, "shift": shift, "stage": stage}
    bounds = {"sum_lo": lo, "sum_hi": hi}
    return op.with_(
        inputs=(*conv.inputs, op.inputs[3]), attrs={**op.attrs, **conv.attrs, **sums, **bounds}
    )


def scratch(op: Op, g: Graph, target: Target) -> int:
    """Bytes per thread: the convolution's, and outputs that wait for their sum."""
    conv = as_conv(op).with_(inputs=op.inputs[:2], outputs=op.outputs)
    return int(op.attrs["stage"]) + conv2d.scratch(conv, g, target)


def macs(op: Op, g: Graph) -> int:
    return conv2d.macs(as_conv(op).with_(outputs=op.outputs), g)


CASES: tuple[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any], int], ...] = (
    ("3x3", (1, 9, 7, 16), (16, 3, 3, 16), {"pad": (1, 1, 1, 1), "lo": 0.0, "sum_lo": 0.0}, 8),
    ("odd", (2, 5, 6, 5), (7, 3, 2, 5), {"pad": (1, 0, 1, 1), "sum_lo": -2.0, "sum_hi": 3.0}, 8),
    ("pointwise", (1, 5, 9, 32), (64, 1, 1, 32), {}, 8),
    ("stride2", (1, 9, 9, 16), (40, 1, 1, 16), {"stride": (2, 2)}, 8),
    ("wide", (1, 4, 5, 12), (300, 3, 3, 12), {"pad": (1, 1, 1, 1)}, 8),
    ("w4", (1, 6, 5, 16), (24, 3, 3, 16), {"pad": (1, 1, 1, 1)}, 4),
)


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    """The other operand dies in the op, is read again after it, or is the graph's input."""
    for way in ("", "_kept", "_input"):
        rng = np.random.default_rng(43)
        for label, x, w, attrs, bits in CASES:
            g, fed = conv2d.quant_case(
                rng, x, w, 0, {k: v for k, v in attrs.items() if k[:4] != "sum_"}, bits
            )
            conv, y = g.ops[0], g.tensors[g.outputs[0]]
            quant = QuantSpec.per_tensor(0.3, -7)
            r = g.add_tensor(Tensor("r", y.shape, "i8", None, quant))
            g.inputs.append(r)
            scale, zero = scale_zero(g, y.name)
            sums = {k: v for k, v in attrs.items() if k[:4] == "sum_"}
            g.tensors[y.name] = replace(y, quant=QuantSpec.per_tensor(0.6, 11))
            held = r
            if way != "_input":  # which stays
                held = g.emit("reshape", [r], {"shape": y.shape}, name="held")
                g.tensors[held] = replace(g.tensors[held], quant=quant)
            joint = {**conv.attrs, **sums, "scale": scale, "zero": zero}
            op = conv.with_(type="conv2d_add", inputs=(*conv.inputs, held), attrs=OP.fill(joint))
            g.ops = [*g.ops[1:], op]
            if way == "_kept":
                kept = g.emit("reshape", [held], {"shape": y.shape}, name="kept")
                g.tensors[kept] = replace(g.tensors[kept], quant=quant)
                g.outputs = [y.name, kept]
            fed["r"] = rng.integers(-128, 128, y.shape).astype(np.int8)
            yield f"i8_{label}{way}", g, fed


OP = OpDef(
    name="conv2d_add",
    code=28,
    fields=(
        *conv2d.OP.fields,
        Field("sum_lo", "f32", 1, -INF, "lower bound of the sum, relative to its zero point"),
        Field("sum_hi", "f32", 1, INF, "upper bound"),
        Field("scale", "f32", 1, None, "of the convolution's outputs", host=True),
        Field("zero", "i32", 1, None, "zero point of the convolution's outputs"),
        Field("mc", "i32", 1, None, "multiplier of the convolution's outputs", lowered=True),
        Field("mr", "i32", 1, None, "multiplier of the other operand", lowered=True),
        Field("bias", "i32", 1, None, "", lowered=True),
        Field("shift", "u32", 1, None, "bits", lowered=True),
        Field("stage", "u32", 1, None, "bytes of scratch for outputs before the sum", lowered=True),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    lower=lower,
    scratch=scratch,
    macs=macs,
    inplace=(2,),
    calls=("conv2d",),
    kernels=("add_s8",),
)

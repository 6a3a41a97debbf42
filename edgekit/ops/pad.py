"""Elements added before and after each axis.  Exact for every element type.

Modes: `constant` writes `value`; `reflect` mirrors without repeating the edge, `symmetric` with it;
`edge` repeats the outermost element.  `value` is real for float tensors and the stored integer for
all others: whoever quantizes the graph quantizes it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import ModelError
from edgekit.ir import NUMPY, Array, Graph, Op, QuantSpec, Tensor
from edgekit.layout import Target
from edgekit.ops.base import (
    Field,
    OpDef,
    TensorType,
    need,
    onnx,
    sample_array,
    sample_graph,
    tflite,
)
from edgekit.ops.slice import attributes

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer

MODES = ("constant", "reflect", "edge", "symmetric")


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x = need(xs, 0, "input")
    before, after, mode = op.attrs["before"], op.attrs["after"], op.attrs["mode"]
    if not len(before) == len(after) == len(x.shape) or min((*before, *after), default=0) < 0:
        raise ModelError(f"cannot pad {x.shape} by {tuple(before)} before and {tuple(after)} after")
    if mode in ("reflect", "symmetric"):
        for n, b, a in zip(x.shape, before, after, strict=True):
            if max(b, a) > n - (mode == "reflect"):
                raise ModelError(
                    f"a {mode} pad of {max(b, a)} is more than an axis of {n} can show"
                )
    return [(tuple(n + b + a for n, b, a in zip(x.shape, before, after, strict=True)), x.dtype)]


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    x, mode = xs[0], op.attrs["mode"]
    assert x is not None
    widths = list(zip(op.attrs["before"], op.attrs["after"], strict=True))
    if not x.ndim:
        return [x]
    if mode == "constant":
        return [np.pad(x, widths, constant_values=_value(op, x.dtype))]
    kinds: dict[str, Any] = {"reflect": "reflect", "edge": "edge", "symmetric": "symmetric"}
    return [np.pad(x, widths, mode=kinds[mode])]


def _value(op: Op, dtype: Any) -> Any:
    value = op.attrs["value"]
    if dtype.kind == "f":
        return dtype.type(value)
    info = np.iinfo(np.uint8 if dtype.kind == "b" else dtype)
    if value != int(value) or not info.min <= value <= info.max:
        raise ModelError(f"{value} is no value of type {dtype}", where=op.name)
    return dtype.type(int(value))


def lower(op: Op, g: Graph, target: Target) -> Op:
    dtype = np.dtype(NUMPY[g.tensors[op.inputs[0]].dtype])
    raw = np.asarray(_value(op, dtype), dtype).tobytes().ljust(8, b"\0")
    return op.with_(attrs=dict(op.attrs, fill=tuple(np.frombuffer(raw, np.uint32).tolist())))


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(15)
    cases: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...] = (
        ((5,), (2,), (4,)),
        ((3, 4), (0, 1), (2, 0)),
        ((4, 3, 3), (1, 0, 2), (0, 0, 0)),
        ((2, 5, 3, 8), (0, 1, 2, 0), (0, 3, 1, 0)),
        ((1, 3, 3, 2), (0, 0, 0, 0), (0, 0, 0, 0)),
        ((3, 3, 2, 3, 4), (1, 0, 1, 2, 1), (0, 2, 0, 1, 3)),
    )
    for dtype in ("f32", "i8", "i16", "i64"):
        for mode in MODES:
            for i, (dims, before, after) in enumerate(cases):
                q = QuantSpec.per_tensor(0.1, 3) if dtype == "i8" else None
                attrs = {"before": before, "after": after, "mode": mode, "value": -7.0}
                g = sample_graph(
                    "pad", {"x": Tensor("x", dims, dtype, None, q)}, attrs, out_quant=q
                )
                yield (
                    f"{dtype}_{mode}_rank{len(dims)}_{i}",
                    g,
                    {"x": sample_array(rng, dims, dtype)},
                )


OP = OpDef(
    name="pad",
    code=15,
    fields=(
        Field("before", "u32", 8, None, "of each axis"),
        Field(
            "after", "u32", 8, None, "of each axis; C takes it from the output's shape", host=True
        ),
        Field("mode", "u32", 1, "constant", "", choices=MODES),
        Field("value", "f32", 1, 0.0, "of mode constant", host=True),
        Field("fill", "u32", 2, None, "bytes of that value in the element type", lowered=True),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    lower=lower,
    exact=lambda op, g: True,
    int8=lambda op: "same",
)


def _import(imp: Any, x: str, widths: str, mode: str, value: float | None) -> str:
    """`value` None: real zero."""
    pairs = imp.value(widths)
    if pairs is None:
        raise ModelError("the widths of a pad must be constant")
    pairs = pairs.reshape(-1, 2).tolist()
    x = imp.requantized(x, imp.out()[1])
    t = imp.tensor(x)
    if value is None:
        value = 0.0 if t.quant is None else float(t.quant.zero)
    attrs = {
        "before": tuple(int(p[0]) for p in pairs),
        "after": tuple(int(p[1]) for p in pairs),
        "mode": mode,
        "value": value,
    }
    return str(imp.emit("pad", [x], attrs))


@tflite("PAD")
def tflite_pad(imp: Any, x: str, widths: str) -> str:
    return _import(imp, x, widths, "constant", None)


@tflite("PADV2")
def tflite_padv2(imp: Any, x: str, widths: str, value: str) -> str:
    """The fill has the input's scale."""
    fill = imp.value(imp.requantized(value, imp.out()[1]))
    if fill is None:
        raise ModelError("the fill of a pad must be constant")
    return _import(imp, x, widths, "constant", float(fill.reshape(())))


@tflite("MIRROR_PAD")
def tflite_mirror_pad(imp: Any, x: str, widths: str, *, mode: int = 0) -> str:
    return _import(imp, x, widths, "symmetric" if mode else "reflect", None)


@onnx("Pad")
def import_onnx(
    imp: Importer,
    x: str,
    amounts: str = "",
    fill: str = "",
    which: str = "",
    *,
    mode: str = "constant",
    pads: Sequence[int] = (),
    value: float = 0.0,
) -> str:
    """Negative amounts cut."""
    rank = imp.rank(x)
    given = imp.ints(amounts, "pads") if amounts else list(pads)
    axes = [a % rank for a in imp.ints(which, "axes")] if which else list(range(rank))
    if mode not in MODES:
        raise ModelError(f"Pad: mode {mode!r} is not supported")
    before, after = [0] * rank, [0] * rank
    for i, a in enumerate(axes):
        before[a], after[a] = given[i], given[i + len(axes)]
    if min(before + after) < 0:
        cut = {
            i: (max(-b, 0), imp.shape(x)[i] - max(-a, 0), 1)
            for i, (b, a) in enumerate(zip(before, after))
        }
        x = imp.emit("slice", [x], dict(attributes(imp.shape(x), dict(cut))), suffix="cut")
    add = {"before": tuple(max(b, 0) for b in before), "after": tuple(max(a, 0) for a in after)}
    number = float(imp.const(fill, "value").item()) if fill else value
    return imp.emit("pad", [x], {**add, "mode": mode, "value": number})

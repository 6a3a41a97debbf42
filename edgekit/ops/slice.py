"""Every step-th element from `begin` on along each axis; steps may be negative.  Exact for every
element type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor
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

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer


def bounds(n: int, start: int | None, stop: int | None, step: int) -> tuple[int, int]:
    """(begin, length) of Python's start:stop:step over an axis of n; ModelError where empty."""
    taken = range(*slice(start, stop, step).indices(n))
    if not taken:
        raise ModelError(f"slice {start}:{stop}:{step} of an axis of {n} is empty")
    return taken[0], len(taken)


def attributes(
    shape: tuple[int, ...], index: dict[int, tuple[int | None, int | None, int]]
) -> dict[str, tuple[int, ...]]:
    """Attributes from {axis: (start, stop, step)} with Python's meaning; other axes are whole."""
    full = [index.get(i, (None, None, 1)) for i in range(len(shape))]
    pairs = [bounds(n, *f) for n, f in zip(shape, full, strict=True)]
    return {
        "begin": tuple(p[0] for p in pairs),
        "size": tuple(p[1] for p in pairs),
        "step": tuple(f[2] for f in full),
    }


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x = need(xs, 0, "input")
    begin, size, step = (op.attrs[k] for k in ("begin", "size", "step"))
    if not len(begin) == len(size) == len(step) == len(x.shape):
        raise ModelError(f"slice of {x.shape} with begin {begin}, size {size}, step {step}")
    for n, b, s, k in zip(x.shape, begin, size, step, strict=True):
        if s < 1 or k == 0 or not 0 <= b < n or not 0 <= b + (s - 1) * k < n:
            raise ModelError(f"slice of {x.shape} with begin {begin}, size {size}, step {step}")
    return [(tuple(size), x.dtype)]


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    x = xs[0]
    assert x is not None
    for i, (b, s, k) in enumerate(
        zip(*(op.attrs[n] for n in ("begin", "size", "step")), strict=True)
    ):
        x = np.take(x, b + np.arange(s) * k, axis=i)
    return [np.ascontiguousarray(x)]


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(14)
    cases: tuple[tuple[tuple[int, ...], dict[int, tuple[int | None, int | None, int]]], ...] = (
        ((17,), {0: (3, 12, 2)}),
        ((5, 9), {1: (None, None, -1)}),
        ((3, 7, 5), {1: (2, -1, 1)}),
        ((2, 6, 7, 4), {1: (1, 5, 1), 2: (0, 7, 3)}),
        ((2, 3, 5, 2, 6), {0: (1, 2, 1), 2: (4, None, -2), 4: (1, 6, 5)}),
        ((4, 8), {0: (-1, None, 1)}),
    )
    quant = {"i8": QuantSpec.per_tensor(0.1, 3)}
    for dtype in ("f32", "i8", "i16", "i64"):
        for i, (dims, index) in enumerate(cases):
            t = Tensor("x", dims, dtype, None, quant.get(dtype))
            g = sample_graph("slice", {"x": t}, attributes(dims, index), out_quant=t.quant)
            yield f"{dtype}_rank{len(dims)}_{i}", g, {"x": sample_array(rng, dims, dtype)}


OP = OpDef(
    name="slice",
    code=14,
    fields=(
        Field("begin", "u32", 8, None, "first index of each axis"),
        Field("step", "i32", 8, None, "of each axis, not 0"),
        Field("size", "u32", 8, None, "of the output; C reads the tensor's own", host=True),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    exact=lambda op, g: True,
    int8=lambda op: "same",
)


def _take(
    imp: Any, x: str, index: dict[int, tuple[int | None, int | None, int]], i: int = 0
) -> str:
    x = imp.requantized(x, imp.out(i)[1])
    return str(imp.emit("slice", [x], attributes(imp.dims(x), index), i=i))


@tflite("SLICE")
def tflite_slice(imp: Any, x: str, begin: str, size: str) -> str:
    """A size of -1 takes what is left."""
    b, s = imp.ints(begin, "the begin of a slice"), imp.ints(size, "the size of a slice")
    spans = {
        i: (p, p + n if n >= 0 else None, 1) for i, (p, n) in enumerate(zip(b, s, strict=True))
    }
    return _take(imp, x, spans)


@tflite("STRIDED_SLICE")
def tflite_strided_slice(
    imp: Any, x: str, begin: str, end: str, strides: str, *, begin_mask: int = 0, end_mask: int = 0,
    ellipsis_mask: int = 0, new_axis_mask: int = 0, shrink_axis_mask: int = 0, offset: bool = False,
) -> str:  # fmt: skip
    """Bit i of a mask is about axis i: begin or end ignored, or the axis dropped after taking
    one element.
    """
    if ellipsis_mask or new_axis_mask:
        raise ModelError("ellipsis and new axes in STRIDED_SLICE are not supported")
    what = "the bounds of a slice"
    b, e, k = imp.ints(begin, what), imp.ints(end, what), imp.ints(strides, what)
    e = [p + n if offset else n for p, n in zip(b, e, strict=True)]
    index: dict[int, tuple[int | None, int | None, int]] = {}
    for i, step in enumerate(k):
        if shrink_axis_mask >> i & 1:
            index[i] = (b[i], b[i] + 1 if b[i] != -1 else None, 1)
        else:
            start = None if begin_mask >> i & 1 else b[i]
            index[i] = (start, None if end_mask >> i & 1 else e[i], step)
    if not shrink_axis_mask:
        return _take(imp, x, index)
    x = imp.requantized(x, imp.out()[1])
    part = imp.step("slice", [x], attributes(imp.dims(x), index), quant=imp.tensor(x).quant)
    kept = [d for i, d in enumerate(imp.dims(part)) if not shrink_axis_mask >> i & 1]
    return str(imp.reshaped(part, kept, last=True))


def _split(imp: Any, x: str, axis: int, sizes: list[int]) -> list[str]:
    n = imp.dims(x)[axis]
    if -1 in sizes:
        sizes = [n - sum(s for s in sizes if s >= 0) if s == -1 else s for s in sizes]
    if sum(sizes) != n:
        raise ModelError(f"an axis of {n} cannot be split into {sizes}")
    ends = np.cumsum(sizes).tolist()
    return [
        _take(imp, x, {axis: (e - s, e, 1)}, i)
        for i, (s, e) in enumerate(zip(sizes, ends, strict=True))
    ]


@tflite("SPLIT")
def tflite_split(imp: Any, axis: str, x: str, *, num_splits: int = 1) -> list[str]:
    at = imp.ints(axis, "the axis of a split")[0] % len(imp.dims(x))
    return _split(imp, x, at, [imp.dims(x)[at] // num_splits] * num_splits)


@tflite("SPLIT_V")
def tflite_split_v(imp: Any, x: str, sizes: str, axis: str, *, num_splits: int = 1) -> list[str]:
    at = imp.ints(axis, "the axis of a split")[0] % len(imp.dims(x))
    return _split(imp, x, at, imp.ints(sizes, "the sizes of a split"))


@tflite("UNPACK")
def tflite_unpack(imp: Any, x: str, *, axis: int = 0, num: int = 1) -> list[str]:
    at = axis % len(imp.dims(x))
    rest = [d for i, d in enumerate(imp.dims(x)) if i != at]
    parts = []
    for i in range(num):
        same = imp.requantized(x, imp.out(i)[1])
        part = imp.step(
            "slice",
            [same],
            attributes(imp.dims(x), {at: (i, i + 1, 1)}),
            quant=imp.tensor(same).quant,
        )
        parts.append(str(imp.emit("reshape", [part], {"shape": tuple(rest)}, i=i)))
    return parts


@tflite("REVERSE_V2")
def tflite_reverse(imp: Any, x: str, axes: str) -> str:
    rank = len(imp.dims(x))
    return _take(
        imp, x, {a % rank: (None, None, -1) for a in imp.ints(axes, "the axes of REVERSE_V2")}
    )


@onnx("Slice")
def import_onnx(
    imp: Importer,
    x: str,
    start: str = "",
    end: str = "",
    which: str = "",
    step: str = "",
    *,
    starts: Sequence[int] = (),
    ends: Sequence[int] = (),
    axes: Sequence[int] = (),
) -> str:
    begin = imp.ints(start, "starts") if start else list(starts)
    stop = imp.ints(end, "ends") if end else list(ends)
    axis = imp.ints(which, "axes") if which else list(axes) or list(range(len(begin)))
    by = imp.ints(step, "steps") if step else [1] * len(begin)
    rank = imp.rank(x)
    index = {a % rank: (b, s, k) for a, b, s, k in zip(axis, begin, stop, by)}
    return imp.emit("slice", [x], dict(attributes(imp.shape(x), dict(index))))


@onnx("Split")
def import_split(
    imp: Importer,
    x: str,
    sizes: str = "",
    *,
    axis: int = 0,
    split: Sequence[int] = (),
    num_outputs: int = 0,
) -> list[str]:
    s, axis = imp.shape(x), axis % imp.rank(x)
    parts = imp.ints(sizes, "split") if sizes else list(split)
    if not parts:
        n = num_outputs or len(imp.node.output)
        size = -(-s[axis] // n)
        parts = [min(size, s[axis] - i * size) for i in range(n)]
    out, at = [], 0
    for i, n in enumerate(parts):
        attrs = attributes(s, {axis: (at, at + n, 1)})
        out.append(imp.emit("slice", [x], dict(attrs), suffix=str(i)))
        at += n
    return out

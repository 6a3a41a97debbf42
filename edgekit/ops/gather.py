"""Slices of one axis picked by int32 indices: out = data[..., indices, ...], as numpy.take.  Exact.

Negative indices count from the end.  An index out of range fails the run (EK_ERR_VALUE): indices
are run-time values, also where they come from a package.
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


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x, at, axis = need(xs, 0, "data"), need(xs, 1, "indices"), op.attrs["axis"]
    if not 0 <= axis < len(x.shape):
        raise ModelError(f"axis {axis} of a tensor of rank {len(x.shape)}")
    if at.dtype != "i32":
        raise ModelError(f"gather wants i32 indices, not {at.dtype}")
    if at.data is not None and at.size:
        lo, hi, n = int(np.min(at.data)), int(np.max(at.data)), x.shape[axis]
        if lo < -n or hi >= n:
            raise ModelError(f"gather: an index of {lo}..{hi} lies outside an axis of {n}")
    return [(x.shape[:axis] + at.shape + x.shape[axis + 1 :], x.dtype)]


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    x, at = xs[0], xs[1]
    assert x is not None and at is not None
    return [np.take(x, at, axis=op.attrs["axis"])]


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(17)
    cases: tuple[tuple[tuple[int, ...], int, tuple[int, ...]], ...] = (
        ((9,), 0, (4,)),
        ((20, 6), 0, (2, 3)),
        ((3, 7), 1, ()),
        ((2, 5, 3), 1, (1,)),
        ((2, 4, 3, 5), 2, (6,)),
        ((2, 3, 2, 3, 4), 4, (2, 2)),
    )
    for dtype in ("f32", "i8", "i16", "i64"):
        for i, (dims, axis, many) in enumerate(cases):
            q = QuantSpec.per_tensor(0.1, 3) if dtype == "i8" else None
            n = dims[axis]
            at = np.asarray(rng.integers(-n, n, many), np.int32)
            const = i % 2 == 1  # indices from the package, otherwise from the caller
            tensors = {
                "x": Tensor("x", dims, dtype, None, q),
                "i": Tensor("i", many, "i32", at if const else None),
            }
            g = sample_graph("gather", tensors, {"axis": axis}, out_quant=q)
            arrays = {"x": sample_array(rng, dims, dtype)} | ({} if const else {"i": at})
            yield f"{dtype}_rank{len(dims)}_axis{axis}", g, arrays


OP = OpDef(
    name="gather",
    code=17,
    fields=(Field("axis", "u32", 1, 0, "not negative"),),
    shape=shape,
    reference=reference,
    samples=samples,
    exact=lambda op, g: True,
    int8=lambda op: "same0",
)


@tflite("GATHER")
def tflite_gather(imp: Any, x: str, indices: str, *, axis: int = 0, batch_dims: int = 0) -> str:
    if batch_dims:
        raise ModelError("GATHER with batch dimensions is not supported")
    if imp.tensor(indices).dtype != "i32":
        indices = imp.step("cast", [indices], {"to": "i32"})
    x = imp.requantized(x, imp.out()[1])
    return str(imp.emit("gather", [x, indices], {"axis": axis % len(imp.dims(x))}))


@onnx("Gather")
def import_onnx(imp: Importer, x: str, indices: str, *, axis: int = 0) -> str:
    at = imp.value(indices)
    if at is not None:
        indices = imp.add_const(at.astype(np.int32), "indices")
    elif imp.dtype(indices) != "i32":
        indices = imp.emit("cast", [indices], {"to": "i32"}, suffix="indices")
    return imp.emit("gather", [x, indices], {"axis": axis % imp.rank(x)})

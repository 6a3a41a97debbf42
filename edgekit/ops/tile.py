"""The input repeated along each axis, as numpy.tile; on axes of 1 this is broadcasting.  Exact."""

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
    x = need(xs, 0, "input")
    repeats = op.attrs["repeats"]
    if len(repeats) != len(x.shape) or min(repeats, default=1) < 1:
        raise ModelError(f"cannot repeat {x.shape} {tuple(repeats)} times")
    return [(tuple(n * int(r) for n, r in zip(x.shape, repeats, strict=True)), x.dtype)]


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    assert xs[0] is not None
    return [np.tile(xs[0], op.attrs["repeats"])]


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(18)
    cases: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((5,), (3,)),
        ((3, 4), (2, 1)),
        ((3, 4), (1, 3)),
        ((2, 1, 5), (1, 4, 1)),
        ((1, 3, 1, 6), (2, 2, 5, 1)),
        ((2, 1, 3, 1, 2), (1, 2, 2, 3, 2)),
    )
    for dtype in ("f32", "i8", "i16", "i64"):
        for dims, repeats in cases:
            q = QuantSpec.per_tensor(0.1, 3) if dtype == "i8" else None
            g = sample_graph(
                "tile", {"x": Tensor("x", dims, dtype, None, q)}, {"repeats": repeats}, out_quant=q
            )
            yield f"{dtype}_{''.join(map(str, repeats))}", g, {"x": sample_array(rng, dims, dtype)}


OP = OpDef(
    name="tile",
    code=18,
    fields=(Field("repeats", "u32", 8, None, "of each axis"),),
    shape=shape,
    reference=reference,
    samples=samples,
    exact=lambda op, g: True,
    int8=lambda op: "same",
)


@tflite("TILE")
def tflite_tile(imp: Any, x: str, repeats: str) -> str:
    x = imp.requantized(x, imp.out()[1])
    return str(imp.emit("tile", [x], {"repeats": tuple(imp.ints(repeats, "the repeats of TILE"))}))


@tflite("BROADCAST_TO")
def tflite_broadcast_to(imp: Any, x: str, shape: str) -> str:
    to = imp.ints(shape, "the new shape")
    dims = (1,) * (len(to) - len(imp.dims(x))) + tuple(imp.dims(x))
    if any(d not in (1, t) for d, t in zip(dims, to, strict=True)):
        raise ModelError(f"cannot broadcast {dims} to {to}")
    x = imp.reshaped(imp.requantized(x, imp.out()[1]), dims)
    repeats = tuple(t // d for d, t in zip(dims, to, strict=True))
    return str(imp.emit("tile", [x], {"repeats": repeats}))


@onnx("Expand")
def import_expand(imp: Importer, x: str, shape: str) -> str:
    return imp.broadcast(x, np.broadcast_shapes(imp.shape(x), tuple(imp.ints(shape, "shape"))))


@onnx("Tile")
def import_onnx(imp: Importer, x: str, repeats: str) -> str:
    return imp.emit("tile", [x], {"repeats": tuple(imp.ints(repeats, "repeats"))})

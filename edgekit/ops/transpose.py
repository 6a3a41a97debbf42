"""Axes in another order, `perm` as in numpy.transpose.  Exact for every element type."""

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
    perm = tuple(op.attrs["perm"])
    if sorted(perm) != list(range(len(x.shape))):
        raise ModelError(f"{perm} is no order of the axes of {x.shape}")
    return [(tuple(x.shape[p] for p in perm), x.dtype)]


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    assert xs[0] is not None
    return [np.ascontiguousarray(np.transpose(xs[0], op.attrs["perm"]))]


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(16)
    cases: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((9,), (0,)),
        ((5, 7), (1, 0)),
        ((3, 4, 6), (0, 2, 1)),
        ((2, 5, 3, 8), (0, 3, 1, 2)),
        ((2, 5, 3, 8), (0, 2, 1, 3)),
        ((1, 4, 1, 6), (3, 2, 0, 1)),
        ((2, 3, 2, 5, 3), (4, 1, 3, 0, 2)),
        ((2, 3, 7, 9), (0, 2, 3, 1)),
        ((2, 5, 6, 7), (0, 2, 3, 1)),
    )
    for dtype in ("f32", "i8", "i16", "i64"):
        for dims, perm in cases:
            q = QuantSpec.per_tensor(0.1, 3) if dtype == "i8" else None
            g = sample_graph(
                "transpose", {"x": Tensor("x", dims, dtype, None, q)}, {"perm": perm}, out_quant=q
            )
            label = f"{dtype}_{'x'.join(map(str, dims))}_{''.join(map(str, perm))}"
            yield label, g, {"x": sample_array(rng, dims, dtype)}


OP = OpDef(
    name="transpose",
    code=16,
    fields=(Field("perm", "u32", 8, None, "input axis of each output axis"),),
    shape=shape,
    reference=reference,
    samples=samples,
    exact=lambda op, g: True,
    int8=lambda op: "same",
)


@tflite("TRANSPOSE")
def tflite_transpose(imp: Any, x: str, perm: str) -> str:
    rank = len(imp.dims(x))
    x = imp.requantized(x, imp.out()[1])
    order = tuple(p % rank for p in imp.ints(perm, "the order of TRANSPOSE"))
    return str(imp.emit("transpose", [x], {"perm": order}))


def _blocks(
    imp: Any, x: str, parts: Sequence[int], perm: Sequence[int], shape: Sequence[int]
) -> str:
    """reshape to parts, transpose, reshape to shape."""
    x = imp.reshaped(imp.requantized(x, imp.out()[1]), parts)
    x = imp.step("transpose", [x], {"perm": tuple(perm)}, quant=imp.tensor(x).quant)
    return str(imp.reshaped(x, shape, last=True))


@tflite("SPACE_TO_DEPTH")
def tflite_space_to_depth(imp: Any, x: str, *, block_size: int = 1) -> str:
    n, h, w, c = imp.dims(x)
    b = block_size
    parts = (n, h // b, b, w // b, b, c)
    return _blocks(imp, x, parts, (0, 1, 3, 2, 4, 5), (n, h // b, w // b, b * b * c))


@tflite("DEPTH_TO_SPACE")
def tflite_depth_to_space(imp: Any, x: str, *, block_size: int = 1) -> str:
    n, h, w, c = imp.dims(x)
    b = block_size
    parts = (n, h, w, b, b, c // (b * b))
    return _blocks(imp, x, parts, (0, 1, 3, 2, 4, 5), (n, h * b, w * b, c // (b * b)))


@onnx("Transpose")
def import_onnx(imp: Importer, x: str, *, perm: Sequence[int] = ()) -> str:
    rank = imp.rank(x)
    return imp.emit(
        "transpose", [x], {"perm": tuple(p % rank for p in perm) or tuple(reversed(range(rank)))}
    )


@onnx("DepthToSpace")
def import_depth_to_space(imp: Importer, x: str, *, blocksize: int, mode: str = "DCR") -> str:
    n, c, h, w = imp.shape(x)
    b = blocksize
    split, perm = ((b, b, c // (b * b)), (0, 3, 4, 1, 5, 2)) if mode == "DCR" else (
        (c // (b * b), b, b), (0, 1, 4, 2, 5, 3))  # fmt: skip
    x = imp.reshape(x, (n, *split, h, w), "split")
    return imp.reshape(imp.transpose(x, perm), (n, c // (b * b), h * b, w * b), "join")


@onnx("SpaceToDepth")
def import_space_to_depth(imp: Importer, x: str, *, blocksize: int) -> str:
    n, c, h, w = imp.shape(x)
    b = blocksize
    x = imp.reshape(x, (n, c, h // b, b, w // b, b), "split")
    return imp.reshape(imp.transpose(x, (0, 3, 5, 1, 2, 4)), (n, c * b * b, h // b, w // b), "join")

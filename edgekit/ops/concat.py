"""Operands joined along one axis.  Exact; int8 operands and output share scale and zero point."""

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
    axis = op.attrs["axis"]
    first = need(xs, 0, "first operand")
    if not 0 <= axis < len(first.shape):
        raise ModelError(f"axis {axis} of a tensor of rank {len(first.shape)}")
    total = 0
    for i in range(len(xs)):
        x = need(xs, i, "operand")
        rest = x.shape[:axis] + x.shape[axis + 1 :]
        if len(x.shape) != len(first.shape) or rest != first.shape[:axis] + first.shape[axis + 1 :]:
            raise ModelError(f"cannot join {first.shape} and {x.shape} along axis {axis}")
        if x.dtype != first.dtype:
            raise ModelError(f"cannot join {first.dtype} and {x.dtype}")
        total += x.shape[axis]
    return [((*first.shape[:axis], total, *first.shape[axis + 1 :]), first.dtype)]


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    return [np.concatenate([x for x in xs if x is not None], axis=op.attrs["axis"])]


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(13)
    cases: tuple[tuple[tuple[int, ...], int, tuple[int, ...]], ...] = (
        ((5,), 0, (3, 4)),
        ((3, 4), 1, (4, 1, 7)),
        ((3, 4), 0, (3,)),
        ((2, 3, 5), 1, (1, 2)),
        ((2, 3, 5, 7), 3, (8, 3, 16, 1)),
        ((2, 3, 4, 5), 1, (2, 2)),
        ((2, 1, 3, 2, 4), 2, (1, 5)),
    )
    for dtype in ("f32", "i8", "i16", "i64"):
        for dims, axis, sizes in cases:
            q = QuantSpec.per_tensor(0.1, 3) if dtype == "i8" else None
            shapes = {f"x{i}": (*dims[:axis], n, *dims[axis + 1 :]) for i, n in enumerate(sizes)}
            tensors = {k: Tensor(k, s, dtype, None, q) for k, s in shapes.items()}
            g = sample_graph("concat", tensors, {"axis": axis}, out_quant=q)
            arrays = {k: sample_array(rng, s, dtype) for k, s in shapes.items()}
            yield f"{dtype}_rank{len(dims)}_axis{axis}_{len(sizes)}", g, arrays


OP = OpDef(
    name="concat",
    code=13,
    fields=(Field("axis", "u32", 1, None, "not negative"),),
    shape=shape,
    reference=reference,
    samples=samples,
    exact=lambda op, g: True,
    int8=lambda op: "same",
)


@tflite("CONCATENATION")
def tflite_concat(imp: Any, *xs: str, axis: int = 0, fused_activation_function: int = 0) -> str:
    """Operands are requantized to the result's scale where theirs differs."""
    rank = len(imp.dims(xs[0]))
    if fused_activation_function:
        raise ModelError("a fused activation of CONCATENATION is not supported")
    same = [imp.requantized(x, imp.out()[1]) for x in xs]
    return str(imp.emit("concat", same, {"axis": axis % rank}))


@tflite("PACK")
def tflite_pack(imp: Any, *xs: str, axis: int = 0, values_count: int = 0) -> str:
    """Operands get a new axis of 1 and are joined along it."""
    dims = list(imp.dims(xs[0]))
    at = axis % (len(dims) + 1)
    dims.insert(at, 1)
    same = [imp.reshaped(imp.requantized(x, imp.out()[1]), dims) for x in xs]
    return str(imp.emit("concat", same, {"axis": at}))


@onnx("Concat")
def import_onnx(imp: Importer, *xs: str, axis: int) -> str:
    # an empty operand adds nothing
    kept = [x for x in xs if 0 not in imp.shape(x)]
    return imp.emit("concat", kept, {"axis": axis % imp.rank(kept[0])})

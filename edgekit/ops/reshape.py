"""Same elements, other shape.  The planner lets input and output share memory; then nothing is copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, Tensor
from edgekit.ops.base import Field, OpDef, TensorType, need, sample_graph


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x = need(xs, 0, "input")
    to = tuple(int(d) for d in op.attrs["shape"])
    if int(np.prod(to, dtype=np.int64)) != x.size:
        raise ModelError(f"cannot reshape {x.shape} to {to}", where=op.name)
    return [(to, x.dtype)]


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    assert xs[0] is not None
    return [xs[0].reshape(g.tensors[op.outputs[0]].shape)]


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    yield "f32", sample_graph("reshape", {"x": Tensor("x", (2, 3, 4))}, {"shape": (4, 6)}), {"x": x}
    x8 = np.arange(24).astype(np.int8)
    yield "i8", sample_graph("reshape", {"x": Tensor("x", (24,), "i8")}, {"shape": (1, 2, 12)}), {"x": x8}


OP = OpDef(
    name="reshape",
    code=8,
    fields=(Field("shape", "u32", 8, None, "of the output; C reads the tensor's own", host=True),),
    shape=shape,
    reference=reference,
    samples=samples,
    exact=lambda op, g: True,
    inplace=(0,),
)

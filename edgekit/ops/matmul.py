"""Product of two activations: a (..., m, k) times b (..., k, n), or b (..., n, k) with `trans_b`;
leading axes broadcast.

int8, exact: int32 sum of (a - zero a) * (b - zero b), requantized with sa * sb / sy.  k is at most
32768 there. Weights that are constant belong to `linear`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import qmath
from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor
from edgekit.layout import Target
from edgekit.ops.base import (
    Field,
    OpDef,
    TensorType,
    broadcast,
    need,
    onnx,
    sample_array,
    sample_graph,
    scale_zero,
    tflite,
)

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer

K_MAX = 32768  # int8: products an int32 sum can hold
PACK_ROWS = 4  # rows of a that pay for packing b
COPY_ROWS, ALIGN = 16, 64  # of the packed way's scratch


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    a, b = need(xs, 0, "first operand"), need(xs, 1, "second operand")
    if len(a.shape) < 2 or len(b.shape) < 2 or a.dtype != b.dtype:
        raise ModelError(f"matmul of {a.dtype}{a.shape} and {b.dtype}{b.shape}")
    k, n = (b.shape[-1], b.shape[-2]) if op.attrs["trans_b"] else b.shape[-2:]
    if a.shape[-1] != k or (a.dtype == "i8" and k > K_MAX):
        raise ModelError(f"matmul of {a.shape} and {b.shape}")
    return [((*broadcast(a.shape[:-2], b.shape[:-2]), a.shape[-2], n), a.dtype)]


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    a, b = xs
    assert a is not None and b is not None
    if op.attrs["trans_b"]:
        b = b.swapaxes(-1, -2)
    if a.dtype == np.float32:
        return [(a @ b).astype(np.float32)]
    (sa, za), (sb, zb), (sy, zy) = (scale_zero(g, n) for n in (*op.inputs, *op.outputs))
    acc = np.rint((a.astype(np.float64) - za) @ (b.astype(np.float64) - zb)).astype(np.int32)
    scale = qmath.requant_scale(num=sa * sb, den=sy)
    return [qmath.requantize(acc, scale, qmath.QMIN - zy, qmath.QMAX - zy, zy)]


def lower(op: Op, g: Graph, target: Target) -> Op:
    if g.tensors[op.inputs[0]].dtype != "i8":
        return op
    (sa, _), (sb, _), (sy, _) = (scale_zero(g, n) for n in (*op.inputs, *op.outputs))
    return op.with_(attrs=dict(op.attrs, scale=float(qmath.requant_scale(num=sa * sb, den=sy))))


def scratch(op: Op, g: Graph, target: Target) -> int:
    """Bytes per thread: a panel of columns of b, packed as weights are, and rows of a whose length
    is no multiple of kr.  Less, or none, is valid: then plain loops run.  Twin of
    native/ops/matmul.c."""
    a, y = g.tensors[op.inputs[0]], g.tensors[op.outputs[0]]
    m, n, k = y.shape[-2], y.shape[-1], a.shape[-1]
    if m < PACK_ROWS:
        return 0
    room = 0
    for layout in target.f32() if a.dtype == "f32" else target.s8():
        blocks = min(-(-n // layout.nr), max(1, (64 if target.linux else 8) // layout.nr))
        kp = -(-k // layout.kr) * layout.kr
        block = layout.nr * (4 + 4 * k) if a.dtype == "f32" else layout.nr * (8 + kp)
        copy = COPY_ROWS * kp if kp != k else 0
        room = max(room, ALIGN + copy + blocks * block)
    return room


def macs(op: Op, g: Graph) -> int:
    return g.tensors[op.outputs[0]].size * g.tensors[op.inputs[0]].shape[-1]


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(20)
    cases: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((5, 7), (7, 9)),
        ((1, 33), (33, 130)),
        ((2, 3, 17, 16), (2, 3, 16, 17)),
        ((4, 9, 5), (5, 3)),
        ((2, 1, 3, 8), (5, 8, 2)),
        ((1, 1), (1, 1)),
        ((2, 3, 1, 4, 65), (3, 2, 65, 6)),
        ((3, 37, 70), (3, 70, 150)),
    )
    for i, (sa, sb) in enumerate(cases):
        for trans in (0, 1):
            shapes = {"a": sa, "b": (*sb[:-2], sb[-1], sb[-2]) if trans else sb}
            g = sample_graph(
                "matmul", {k: Tensor(k, s) for k, s in shapes.items()}, {"trans_b": trans}
            )
            yield f"f32_{i}_{trans}", g, {k: sample_array(rng, s, "f32") for k, s in shapes.items()}
            quant = {"a": QuantSpec.per_tensor(0.05, -3), "b": QuantSpec.per_tensor(0.02, 17)}
            tensors = {k: Tensor(k, s, "i8", None, quant[k]) for k, s in shapes.items()}
            out = QuantSpec.per_tensor(0.4, 5)
            g = sample_graph("matmul", tensors, {"trans_b": trans}, out_quant=out)
            yield f"i8_{i}_{trans}", g, {k: sample_array(rng, s, "i8") for k, s in shapes.items()}


OP = OpDef(
    name="matmul",
    code=20,
    fields=(
        Field("trans_b", "u32", 1, 0, "1: b is (..., n, k)"),
        Field("scale", "f32", 1, None, "int8: sa * sb / sy", lowered=True),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    lower=lower,
    scratch=scratch,
    macs=macs,
    int8=lambda op: "free",
)


@onnx("MatMul")
def import_onnx(imp: Importer, a: str, b: str) -> str:
    """numpy.matmul: a vector is a matrix of one row or column."""
    row, column = imp.rank(a) == 1, imp.rank(b) == 1
    if imp.is_weight(b) and imp.rank(b) == 2:
        return imp.emit("linear", [a, imp.weight(b, (1, 0))])
    a = imp.reshape(a, (1, *imp.shape(a)), "row") if row else a
    b = imp.reshape(b, (*imp.shape(b), 1), "column") if column else b
    y = imp.emit("matmul", [a, b])
    s = imp.shape(y)
    lead, m, n = s[:-2], s[-2:-1], s[-1:]
    return imp.reshape(y, (*lead, *(() if row else m), *(() if column else n)), "vector")


@tflite("BATCH_MATMUL")
def tflite_batch_matmul(
    imp: Any, a: str, b: str, *, adj_x: bool = False, adj_y: bool = False
) -> str:
    """A constant matrix is the weights of a linear op; hybrid int8 operands become float32."""
    if adj_x:
        rank = len(imp.dims(a))
        perm = (*range(rank - 2), rank - 1, rank - 2)
        a = imp.step("transpose", [a], {"perm": perm}, quant=imp.tensor(a).quant)
    b = imp.weights(b, a)
    data = imp.value(b)
    if data is not None and data.ndim == 2:
        w = imp.const("weights", data if adj_y else data.T, imp.tensor(b).quant)
        return str(imp.emit("linear", [a, w, ""]))
    return str(imp.emit("matmul", [a, b], {"trans_b": int(adj_y)}))

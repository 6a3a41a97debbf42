"""int8 -> int8 by a table of 256 entries: every unary function of a quantized tensor, exact
everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor
from edgekit.ops.base import OpDef, TensorType, need, sample_graph
from edgekit.ops.unary import function


def table_of(
    kind: str, alpha: float, beta: float, x: QuantSpec, y: QuantSpec
) -> npt.NDArray[np.int8]:
    """int8 (256,): entry q + 128 = quantized f(real value of q), computed in double."""
    real = (np.arange(-128, 128) - int(x.zero)) * float(x.scale)
    out = np.nan_to_num(function(kind, real, alpha, beta), nan=0.0, posinf=1e30, neginf=-1e30)
    q = np.clip(np.rint(out / float(y.scale)) + int(y.zero), -128, 127)
    return np.asarray(q.astype(np.int8))


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    return [(need(xs, 0, "input").shape, "i8")]


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    x, table = xs[0], xs[1]
    assert x is not None and table is not None
    return [table[x.astype(np.int32) + 128]]


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(6)
    for n in (1, 15, 64, 333):
        t = rng.integers(-128, 128, 256).astype(np.int8)
        q = QuantSpec.per_tensor(0.1, 0)
        inputs = {"x": Tensor("x", (n,), "i8", None, q), "t": Tensor("t", (256,), "i8", t)}
        yield (
            f"n{n}",
            sample_graph("lut", inputs, {}, out_quant=q),
            {"x": rng.integers(-128, 128, n).astype(np.int8)},
        )


OP = OpDef(
    name="lut", code=6, fields=(), shape=shape, reference=reference, samples=samples, inplace=(0,)
)

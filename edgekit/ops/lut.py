"""int8 -> int8 by a table of 256 entries, int16 -> int16 by one of 513 and a straight line between
neighbours: every unary function of a quantized tensor, exact everywhere.

int16: i, f = divmod(x + 32768, 128); y = t[i] + ((t[i + 1] - t[i]) * f + 64 >> 7).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgekit.ir import NUMPY, Array, Graph, Op, QuantSpec, Tensor
from edgekit.ops.base import OpDef, TensorType, need, sample_graph
from edgekit.ops.unary import function
from edgekit.qmath import LIMITS


def table_of(kind: str, alpha: float, beta: float, x: QuantSpec, y: QuantSpec) -> Array:
    """int8 (256,): entry q + 128 = quantized f(real value of q), in double, within y's bits;
    int16 (513,) likewise of every 128th q."""
    to = "i16" if x.bits == 16 else "i8"
    points = np.arange(-32768, 32769, 128) if to == "i16" else np.arange(-128, 128)
    real = (points - int(x.zero)) * float(x.scale)
    out = np.nan_to_num(function(kind, real, alpha, beta), nan=0.0, posinf=1e30, neginf=-1e30)
    lo, hi = LIMITS[to] if y.bits >= 8 else (-(1 << y.bits - 1), (1 << y.bits - 1) - 1)
    q = np.clip(np.rint(out / float(y.scale)) + int(y.zero), lo, hi)
    return np.asarray(q.astype(NUMPY[to]))


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x = need(xs, 0, "input")
    return [(x.shape, x.dtype)]


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    x, table = xs[0], xs[1]
    assert x is not None and table is not None
    if x.dtype == np.int16:
        i, f = np.divmod(x.astype(np.int32) + 32768, 128)
        low, high = (table[k].astype(np.int32) for k in (i, i + 1))
        return [(low + ((high - low) * f + 64 >> 7)).astype(np.int16)]
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

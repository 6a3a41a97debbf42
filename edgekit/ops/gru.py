"""GRU over a sequence: x (batch, time, in) -> y (batch, time, units), float32.

With `final` the last h (batch, units) is a result too.

Operands: x, w (3u, in), r (3u, u), b (3u), rb (3u), h0 (batch, u); the last three may be absent
(zeros).  The gates lie in the order z, r, n (update, reset, new), u rows each:

    z, r = sigmoid(w x + b + r h + rb)
    n = tanh(w_n x + b_n + r_n (r h) + rb_n)
        or, with linear_before_reset (PyTorch, cuDNN, Keras), tanh(w_n x + b_n + r (r_n h + rb_n))
    h' = (1 - z) n + z h
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, Tensor
from edgekit.layout import Target
from edgekit.ops import recurrent
from edgekit.ops.base import Field, OpDef, TensorType, need, onnx
from edgekit.ops.conv2d import pack_float

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer

F = np.float32


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x, r = need(xs, 0, "input"), need(xs, 2, "recurrent weights")
    if len(x.shape) != 3 or len(r.shape) != 2 or x.dtype != "f32":
        raise ModelError(f"GRU of {x.dtype}{x.shape} with recurrent weights {r.shape}")
    n, t, _ = x.shape
    u = r.shape[1]
    if r.shape[0] != 3 * u and r.dtype != "packed":
        raise ModelError(f"GRU: recurrent weights {r.shape} are not (3 units, units)")
    return [((n, t, u), x.dtype), *([((n, u), x.dtype)] if op.attrs["final"] else [])]


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    x, w, r, b, rb, h = (*xs, None, None, None)[:6]
    assert x is not None and w is not None and r is not None
    n, time, _ = x.shape
    u = r.shape[1]
    zeros = np.zeros(3 * u, F)
    b, rb = zeros if b is None else b, zeros if rb is None else rb
    h = np.zeros((n, u), F) if h is None else h
    y = np.empty((n, time, u), F)
    for t in range(time)[:: -1 if op.attrs["reverse"] else 1]:
        p, wide = x[:, t].astype(np.float64) @ w.T + b, h.astype(np.float64)
        q = wide @ r[: 2 * u].T + rb[: 2 * u]
        z, reset = _sigmoid(p[:, :u] + q[:, :u]), _sigmoid(p[:, u : 2 * u] + q[:, u:])
        if op.attrs["linear_before_reset"]:
            new = np.tanh(p[:, 2 * u :] + reset * (wide @ r[2 * u :].T + rb[2 * u :]))
        else:
            new = np.tanh(p[:, 2 * u :] + (reset * wide) @ r[2 * u :].T + rb[2 * u :])
        h = ((1 - z) * new + z * wide).astype(F)
        y[:, t] = h
    return [y, h][: len(op.outputs)]


def lower(op: Op, g: Graph, target: Target) -> Op:
    """Operands become x, packed w, packed r of z and r, packed r of n, h0."""
    x, wn, rn, bn, rbn, h = (*op.inputs, "", "", "")[:6]
    w, r = g.value(wn), g.value(rn)
    biases = [g.value(k) if k else None for k in (bn, rbn)]
    if (
        w is None
        or r is None
        or any(k and v is None for k, v in zip((bn, rbn), biases, strict=True))
    ):
        raise ModelError("the weights of a GRU must be constant", where=op.name)
    u = r.shape[1]
    b, rb = (np.zeros(3 * u, F) if v is None else v for v in biases)
    packed = (
        pack_float(g, wn, w, b, 1, target),
        pack_float(g, rn, r[: 2 * u], rb[: 2 * u], 1, target),
        pack_float(g, rn, r[2 * u :], rb[2 * u :], 1, target),
    )
    return op.with_(inputs=(x, *packed, h))


def scratch(op: Op, g: Graph, target: Target) -> int:
    """Bytes: a block of projected inputs, the recurrent projection, h and its reset copy
    (native/src/rnn.c).
    """
    x, w, r = g.tensors[op.inputs[0]], g.tensors[op.inputs[1]], g.tensors[op.inputs[3]]
    return recurrent.rnn_scratch(x, w, r, 3, min(x.shape[1], target.tile_rows))


def macs(op: Op, g: Graph) -> int:
    n, t, k = g.tensors[op.inputs[0]].shape
    u = g.tensors[op.outputs[0]].shape[2]
    return n * t * 3 * u * (k + u)


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(24)
    cases = (
        ("plain", (1, 6, 13, 10), 0),
        ("batch", (3, 5, 7, 6), 1),
        ("one", (2, 1, 1, 1), 0),
        ("long", (1, 40, 16, 16), 1),
    )
    for label, (n, t, k, u), more in cases:
        for before in (0, 1):
            g = Graph("gru")
            sizes = (("w", (3 * u, k)), ("r", (3 * u, u)), ("b", (3 * u,)), ("rb", (3 * u,)))
            weights = [g.const(m, rng.normal(scale=0.4, size=s).astype(F)) for m, s in sizes]
            for name, dims in (("x", (n, t, k)), ("h0", (n, u)))[: 1 + more]:
                g.add_tensor(Tensor(name, dims))
                g.inputs.append(name)
            attrs = {"linear_before_reset": before, "reverse": more, "final": more}
            g.emit("gru", ["x", *weights, *g.inputs[1:]], attrs, name="y")
            g.outputs = list(g.ops[0].outputs)
            feed: dict[str, Array] = {
                m: rng.normal(size=g.tensors[m].shape).astype(F) for m in g.inputs
            }
            yield f"f32_{label}_{before}", g, feed


OP = OpDef(
    name="gru",
    code=24,
    fields=(
        Field("reverse", "u32", 1, 0, "1: time runs backwards"),
        Field("linear_before_reset", "u32", 1, 0, "1: the reset gate scales r_n h + rb_n, 0: h"),
        Field("final", "u32", 1, 0, "1: the last h is an output too", host=True),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    lower=lower,
    scratch=scratch,
    macs=macs,
)


@onnx("GRU")
def import_onnx(
    imp: Importer, x: str, w: str, r: str, b: str = "", lengths: str = "", h0: str = "", *,
    activations: Sequence[str] = (), activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (), clip: float = 0.0, direction: str = "forward",
    hidden_size: int = 0, layout: int = 0, linear_before_reset: int = 0,
) -> list[str]:  # fmt: skip
    """Y, Y_h; bidirectional is two ops joined."""
    recurrent.refuse_odd(imp, activations, ("Sigmoid", "Tanh"), clip, lengths, x, layout)
    seq = recurrent.OnnxSequence(imp, x, w, r, b, direction, layout, 3)
    final = int(len(imp.node.output) > 1)
    made = []
    for d, reverse in enumerate(seq.reverse):
        b1, b2 = seq.biases(d)
        operands = [seq.x, *seq.weights(d), b1, b2, *([seq.start(h0, d)] if h0 else [])]
        attrs = {"reverse": reverse, "linear_before_reset": linear_before_reset, "final": final}
        made.append(seq.emit("gru", operands, attrs))
    return [seq.whole([m[0] for m in made]), *([seq.last([m[1] for m in made])] if final else [])]

"""What the recurrent ops share: scratch sizes, and ONNX's way of packing directions and gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import ModelError
from edgekit.ir import Array, Tensor

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer


def rnn_scratch(x: Tensor, w: Tensor, r: Tensor, gates: int, rows: int) -> int:
    """Scratch of a recurrent op with that many gates, projecting `rows` time steps at once."""
    size = 4 if x.dtype == "f32" else 1
    u, k = r.shape[1], x.shape[2]
    kr = max(v.layout.deep for t in (w, r) for v in t.variants)
    kp, up = (-(-n // kr) * kr for n in (k, u))

    def align(n: int) -> int:
        return (n + 15) // 16 * 16

    fixed = align(gates * u * 4) + align(u * 4) + align(up * size) + align(rows * 4)
    return fixed + align(rows * gates * u * 4) + align(0 if kp == k else rows * kp * size)


def refuse_odd(
    imp: Importer,
    activations: Sequence[str],
    usual: tuple[str, ...],
    clip: float,
    lengths: str,
    x: str,
    layout: int,
) -> None:
    """ModelError where a recurrent ONNX operator asks for what the ops do not do."""
    if any(a != usual[i % len(usual)] for i, a in enumerate(activations)):
        raise ModelError(
            f"{imp.node.op_type} with the activations {', '.join(activations)} is not supported"
        )
    if clip:
        raise ModelError(f"{imp.node.op_type} with clipped gates is not supported")
    time = imp.shape(x)[1 if layout else 0]
    if lengths and any(n != time for n in imp.ints(lengths, "sequence lengths")):
        raise ModelError(f"{imp.node.op_type} with sequences of different lengths is not supported")


class OnnxSequence:
    """What ONNX's LSTM and GRU share: directions, layouts, operands with an axis of directions."""

    def __init__(
        self, imp: Importer, x: str, w: str, r: str, b: str, direction: str, layout: int, gates: int
    ) -> None:
        if direction not in ("forward", "reverse", "bidirectional"):
            raise ModelError(f"direction {direction!r} is not known")
        self.imp, self.layout = imp, layout
        self.reverse = {"forward": (0,), "reverse": (1,), "bidirectional": (0, 1)}[direction]
        self.w, self.r = imp.const(w, "weights"), imp.const(r, "recurrent weights")
        self.b = imp.const(b, "bias") if b else None
        self.u = self.r.shape[2]
        self.order = (0, 2, 3, 1) if gates == 4 else (0, 1, 2)  # LSTM: ONNX has i, o, f, c
        self.x = x if layout else self.swap(x, "batch_first")

    def swap(self, x: str, suffix: str) -> str:
        """Axes 0 and 1 exchanged; a reshape where one of them is 1."""
        n, t, *rest = self.imp.shape(x)
        if 1 in (n, t):
            return self.imp.reshape(x, (t, n, *rest), suffix)
        return self.imp.transpose(x, (1, 0, *range(2, 2 + len(rest))), suffix)

    def gates(self, a: Array) -> Array:
        """(gates * u, ...) in the op's order."""
        return np.concatenate([a[k * self.u : (k + 1) * self.u] for k in self.order])

    def weights(self, d: int) -> tuple[str, str]:
        return tuple(
            self.imp.add_const(self.gates(a[d]), s) for a, s in ((self.w, "w"), (self.r, "r"))
        )  # type: ignore[return-value]

    def biases(self, d: int) -> tuple[str, str]:
        """Of the input and of the recurrent part; "" where absent."""
        if self.b is None:
            return "", ""
        parts = np.split(self.b[d], 2)
        return self.imp.add_const(self.gates(parts[0]), "b"), self.imp.add_const(
            self.gates(parts[1]), "rb"
        )

    def start(self, state: str, d: int) -> str:
        """(batch, u) of direction d of an initial state."""
        axis = 1 if self.layout else 0
        if len(self.reverse) > 1:
            begin, size = [0, 0, 0], list(self.imp.shape(state))
            begin[axis], size[axis] = d, 1
            attrs = {"begin": tuple(begin), "size": tuple(size), "step": (1, 1, 1)}
            state = self.imp.emit("slice", [state], attrs, suffix=f"start{d}")
        s = self.imp.shape(state)
        return self.imp.reshape(state, (s[1 - axis], s[2]), f"start_of_{d}")

    def emit(self, type: str, operands: list[str], attrs: dict[str, Any]) -> tuple[str, ...]:
        self.imp.emit(type, operands, attrs, suffix=f"{type}{attrs['reverse']}")
        return self.imp.graph.ops[-1].outputs

    def join(self, parts: list[str], axis: int, suffix: str) -> str:
        """Results (a, b, u) of each direction with a new axis of directions."""
        wide = []
        for p in parts:
            dims = list(self.imp.shape(p))
            dims.insert(axis, 1)
            wide.append(self.imp.reshape(p, dims, suffix))
        return (
            wide[0]
            if len(wide) == 1
            else self.imp.emit("concat", wide, {"axis": axis}, suffix=suffix)
        )

    def whole(self, ys: list[str]) -> str:
        """Y: (time, directions, batch, u), or (batch, time, directions, u)."""
        if self.layout:
            return self.join(ys, 2, "y")
        return self.join([self.swap(y, "time_first") for y in ys], 1, "y")

    def last(self, states: list[str]) -> str:
        """Y_h, Y_c: (directions, batch, u), or (batch, directions, u)."""
        return self.join(states, 1 if self.layout else 0, "last")

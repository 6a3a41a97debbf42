"""Which channels of a graph are tied: every axis of every tensor is labelled with units.

A unit is one channel that some op makes.  Labels flow through the ops (a flattened image repeats
its channels, a concatenation joins them, a split into heads groups them), and what must go together
is united: operands of an addition, a depthwise convolution's input and output, the channels of one
attention head.  Each rule lets labels pass or says why they must stay; what no rule knows stays.
The idea is DepGraph's (Fang et al. 2023), for single elements instead of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgekit.ir import Graph, Op

Ids = npt.NDArray[np.int64]
Axes = list[Ids | None]  # per axis of a tensor: the unit of every index, None where it has to stay
PASS = ("unary", "max_pool2d", "avg_pool2d", "resize")  # the last axis goes through
# operand -> axis with the outputs' channels, and axis with the inputs'
MAKERS = {"conv2d": (0, 3), "linear": (0, 1), "conv_transpose2d": (0, 3)}


@dataclass
class Labels:
    """Units of a graph.  `axes`: tensor -> its axes' labels; `makers`: unit -> (op, output index).

    `stay`: root of a class -> why it must stay.
    """

    graph: Graph
    axes: dict[str, Axes] = field(default_factory=dict)
    makers: dict[int, tuple[str, int]] = field(default_factory=dict)
    parent: list[int] = field(default_factory=list)
    stay: dict[int, str] = field(default_factory=dict)

    def new(self, n: int) -> Ids:
        first = len(self.parent)
        self.parent += range(first, first + n)
        return np.arange(first, first + n)

    def find(self, u: int) -> int:
        while self.parent[u] != u:
            self.parent[u] = self.parent[self.parent[u]]
            u = self.parent[u]
        return u

    def unite(self, a: Ids, b: Ids) -> None:
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            p, q = self.find(x), self.find(y)
            if p == q:
                continue
            self.parent[max(p, q)] = min(p, q)
            why = self.stay.pop(max(p, q), None)
            if why is not None:
                self.stay.setdefault(min(p, q), why)

    def keep(self, ids: Ids | None, why: str) -> None:
        """Those units must stay."""
        for u in [] if ids is None else ids.reshape(-1).tolist():
            self.stay.setdefault(self.find(u), why)

    def roots(self, ids: Ids) -> Ids:
        return np.array([self.find(u) for u in ids.tolist()], np.int64)

    def of(self, name: str) -> Axes:
        """A tensor's labels; those of a constant or an input are none until an op gives them."""
        return self.axes.setdefault(name, [None] * len(self.graph.tensors[name].shape))

    def put(self, name: str, axis: int, ids: Ids | None) -> None:
        """Labels an axis of a constant; one that two ops share must have the same labels."""
        if not name or ids is None:
            return
        mine = self.of(name)
        if mine[axis] is None:
            mine[axis] = ids
        else:
            self.unite(mine[axis], ids)  # type: ignore[arg-type]


def label(graph: Graph) -> Labels:
    """The labels of a float graph."""
    found = Labels(graph)
    for op in graph.ops:
        rule = RULES.get(op.type, _unknown)
        rule(found, op)
        for o in op.outputs:
            found.of(o)
    for n in graph.outputs:
        for ids in found.of(n):
            found.keep(ids, "an output of the model")
    return found


def _unknown(f: Labels, op: Op) -> None:
    why = f"{op.type} {op.name!r} mixes or moves its channels"
    for n in op.inputs:
        for i, ids in enumerate(f.of(n) if n else []):
            if ids is None and f.graph.value(n) is not None:  # another op may share the constant
                f.put(n, i, f.new(f.graph.tensors[n].shape[i]))
            f.keep(f.of(n)[i], why)


def _maker(f: Labels, op: Op) -> None:
    g, (out, inner) = f.graph, MAKERS[op.type]
    x, w = op.inputs[0], op.inputs[1]
    groups = int(op.attrs.get("groups", 1))
    if g.value(w) is None or (groups > 1 and op.type != "conv2d"):
        return _unknown(f, op)
    for ids in f.of(x)[:-1]:
        if op.type != "linear":
            f.keep(ids, f"{op.type} {op.name!r} slides over it")
    incoming = f.of(x)[-1]
    made = f.new(g.tensors[w].shape[out])
    f.makers |= {int(u): (op.name, i) for i, u in enumerate(made)}
    if groups > 1:  # every group loses the same places
        rows = made.reshape(groups, -1)
        for r in rows[1:]:
            f.unite(rows[0], r)
        if incoming is not None:
            rows = incoming.reshape(groups, -1)
            for r in rows[1:]:
                f.unite(rows[0], r)
            incoming = rows[0]
    f.put(w, inner, incoming)
    f.put(w, out, made)
    if len(op.inputs) > 2:
        f.put(op.inputs[2], 0, made)
    f.axes[op.outputs[0]] = [*(f.of(x)[:-1] if op.type == "linear" else [None] * 3), made]


def _depthwise(f: Labels, op: Op) -> None:
    ids = f.of(op.inputs[0])[-1]
    shape = f.graph.tensors[op.inputs[1]].shape
    if f.graph.value(op.inputs[1]) is None or (ids is not None and shape[2] != len(ids)):
        return _unknown(f, op)
    f.put(op.inputs[1], 2, ids)
    if len(op.inputs) > 2:
        f.put(op.inputs[2], 0, ids)
    f.axes[op.outputs[0]] = [None, None, None, ids]


def _binary(f: Labels, op: Op) -> None:
    """Operands are aligned at the right; sizes of 1 are spread."""
    g, out = f.graph, f.graph.tensors[op.outputs[0]].shape
    axes: Axes = []
    for i in range(1, len(out) + 1):
        have: list[Ids] = []
        consts, bare = [], False
        for n in op.inputs:
            t = g.tensors[n]
            if len(t.shape) < i or (t.shape[-i] == 1 and out[-i] != 1):
                continue
            ids = f.of(n)[-i]
            if g.value(n) is not None:
                consts.append((n, len(t.shape) - i))
            elif ids is None:
                bare = True
            else:
                have.append(ids)
        for other in have[1:]:
            f.unite(have[0], other)
        if bare:
            for ids in have:
                f.keep(ids, f"{op.type} {op.name!r} joins it with one that has to stay")
        for n, axis in consts if have else []:
            f.put(n, axis, have[0])
        axes.append(None if bare or not have else have[0])
    f.axes[op.outputs[0]] = axes[::-1]


def _pass(f: Labels, op: Op) -> None:
    axes = list(f.of(op.inputs[0]))
    for i, ids in enumerate(axes[:-1] if op.type != "unary" else []):
        f.keep(ids, f"{op.type} {op.name!r} slides over it")
        axes[i] = None
    f.axes[op.outputs[0]] = axes


def _last(f: Labels, op: Op) -> None:
    """Ops that weigh the last axis against itself: softmax, layer norm."""
    axes = f.of(op.inputs[0])
    f.keep(axes[-1], f"{op.type} {op.name!r} weighs its channels against each other")
    f.axes[op.outputs[0]] = [*axes[:-1], None]


def _reduce(f: Labels, op: Op) -> None:
    axes, out = f.of(op.inputs[0]), []
    for i, ids in enumerate(axes):
        if not int(op.attrs["axes"]) >> i & 1:
            out.append(None if op.attrs["kind"] == "argmax" else ids)
            continue
        f.keep(ids, f"{op.type} {op.name!r} sums over it")
        if op.attrs["keepdims"]:
            out.append(None)
    f.axes[op.outputs[0]] = out


def _transpose(f: Labels, op: Op) -> None:
    axes = f.of(op.inputs[0])
    f.axes[op.outputs[0]] = [axes[p] for p in op.attrs["perm"][: len(axes)]]


def _slice(f: Labels, op: Op) -> None:
    out: Axes = []
    for i, ids in enumerate(f.of(op.inputs[0])):
        begin, step, size = (int(op.attrs[k][i]) for k in ("begin", "step", "size"))
        if ids is not None and step != 1:
            f.keep(ids, f"{op.type} {op.name!r} takes every {step}th of it")
            ids = None
        out.append(None if ids is None else ids[begin : begin + size])
    f.axes[op.outputs[0]] = out


def _pad(f: Labels, op: Op) -> None:
    out: Axes = []
    for i, ids in enumerate(f.of(op.inputs[0])):
        before, after = int(op.attrs["before"][i]), int(op.attrs["after"][i])
        if ids is not None and (before or after):
            if op.attrs["mode"] != "constant":
                f.keep(ids, f"{op.type} {op.name!r} mirrors it")
                ids = None
            else:
                ids = np.concatenate([f.new(before), ids, f.new(after)])
        out.append(ids)
    f.axes[op.outputs[0]] = out


def _concat(f: Labels, op: Op) -> None:
    axis, shapes = int(op.attrs["axis"]), [f.graph.tensors[n].shape for n in op.inputs]
    out: Axes = []
    for i in range(len(shapes[0])):
        have = [f.of(n)[i] for n in op.inputs]
        if i == axis:
            if all(ids is None for ids in have):
                out.append(None)
                continue
            parts = []
            for ids, s in zip(have, shapes, strict=True):
                if ids is None:
                    ids = f.new(s[i])
                    f.keep(ids, "an input or a constant")
                parts.append(ids)
            out.append(np.concatenate(parts))
            continue
        known = [ids for ids in have if ids is not None]
        for other in known[1:]:
            f.unite(known[0], other)
        if len(known) < len(have):
            for ids in known:
                f.keep(ids, f"{op.type} {op.name!r} joins it with one that has to stay")
        out.append(known[0] if known and len(known) == len(have) else None)
    f.axes[op.outputs[0]] = out


def _matmul(f: Labels, op: Op) -> None:
    a, b = (f.of(n) for n in op.inputs)
    trans = bool(op.attrs["trans_b"])
    row, inner = (b[-2], b[-1]) if trans else (b[-1], b[-2])
    if (a[-1] is None) != (inner is None):
        for ids in (a[-1], inner):
            f.keep(ids, f"{op.type} {op.name!r} multiplies it with one that has to stay")
    elif a[-1] is not None and inner is not None:
        f.unite(a[-1], inner)
    out = f.graph.tensors[op.outputs[0]].shape
    lead: Axes = []
    for i in range(3, len(out) + 1):
        have = [
            (x[-i], f.graph.tensors[n].shape[-i])
            for x, n in zip((a, b), op.inputs, strict=True)
            if len(x) >= i
        ]
        full = [ids for ids, size in have if size == out[-i]]
        known = [ids for ids in full if ids is not None]
        if len(known) < len(full) or any(s == 1 != out[-i] and ids is not None for ids, s in have):
            for ids in known:
                f.keep(ids, f"{op.type} {op.name!r} multiplies it with one that has to stay")
            lead.append(None)
            continue
        for other in known[1:]:
            f.unite(known[0], other)
        lead.append(known[0] if known else None)
    f.axes[op.outputs[0]] = [*lead[::-1], a[-2], row]


def blocks(x: Sequence[int], y: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Axes of two shapes of the same size in the least groups of equal products."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(x) or j < len(y):
        left: list[int] = []
        right: list[int] = []
        p = q = 1
        while not (left and right and p == q):
            if i < len(x) and (not left or p < q or j >= len(y)):
                left.append(i)
                p *= x[i]
                i += 1
            elif j < len(y):
                right.append(j)
                q *= y[j]
                j += 1
            else:  # only axes of size 1 were left on one side
                break
        found.append((left, right))
    return found


def _reshape(f: Labels, op: Op) -> None:
    """Joined axes repeat the one that is labelled; of a split one the first part keeps the labels,
    each standing for all it covers (heads); two labelled axes cannot be joined."""
    x, y = f.graph.tensors[op.inputs[0]].shape, f.graph.tensors[op.outputs[0]].shape
    axes = f.of(op.inputs[0])
    out: Axes = [None] * len(y)
    for left, right in blocks(x, y):
        known = [i for i in left if axes[i] is not None]
        if not known:
            continue
        wide = [j for j in right if y[j] != 1]
        total = int(np.prod([x[i] for i in left]))
        if len(known) > 1 or total != int(np.prod([y[j] for j in right])) or not wide:
            for i in known:
                f.keep(axes[i], f"{op.type} {op.name!r} joins it with another")
            continue
        here, ids = [x[i] for i in left], axes[known[0]]
        assert ids is not None
        shape = [1] * len(here)
        shape[left.index(known[0])] = -1
        flat = np.broadcast_to(ids.reshape(shape), here).reshape(-1)
        at = wide[0]
        if len(wide) > 1 and wide == right[-len(wide) :] and known[0] == left[-1] != left[0]:
            at = _unmoved(x, y, left, wide)
        grid = flat.reshape([y[j] for j in wide])
        grid = np.moveaxis(grid, wide.index(at), 0).reshape(y[at], -1)
        for row in grid:
            f.unite(np.full(len(row) - 1, row[0]), row[1:])
        out[at] = grid[:, 0].copy()
    f.axes[op.outputs[0]] = out


def _unmoved(x: Sequence[int], y: Sequence[int], left: list[int], wide: list[int]) -> int:
    """The part that keeps the labels of a block's last axis: the last, where it is as long."""
    return wide[-1] if x[left[-1]] == y[wide[-1]] else wide[0]


RULES: dict[str, Callable[[Labels, Op], None]] = {
    **dict.fromkeys(MAKERS, _maker),
    **dict.fromkeys(PASS, _pass),
    "depthwise_conv2d": _depthwise,
    "binary": _binary,
    "softmax": _last,
    "layer_norm": _last,
    "reduce": _reduce,
    "transpose": _transpose,
    "slice": _slice,
    "pad": _pad,
    "concat": _concat,
    "matmul": _matmul,
    "reshape": _reshape,
}

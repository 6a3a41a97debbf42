"""Memory saved by lying elsewhere: concatenations written in place, and first layers run in bands.

The first layers of a net have its largest tensors.  Run for some rows of their result at a time
they need a few rows of each, at the price of rows computed twice where windows overlap.  Every band
is made of the same ops on fewer rows: views of whole tensors, which cost no copy, and the same
bits.  Views begin at multiples of 16 bytes, as the package wants it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgekit import ops, plan
from edgekit.ir import Graph, Op, Tensor
from edgekit.layout import Target
from edgekit.plan import ALIGN, Plan

WINDOWS = ("conv2d", "conv2d_add", "depthwise_conv2d", "max_pool2d")
ROWWISE = ("unary", "lut", "cast", "binary")
BANDS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28)
MOST = 1.25  # times the multiply-accumulates, unless nothing else fits


@dataclass(frozen=True)
class Patches:
    """The first ``ops`` ops in ``bands`` bands: arena bytes and multiply-accumulates before and
    after."""

    ops: int
    bands: int
    arena_before: int
    arena: int
    macs_before: int
    macs: int

    def text(self) -> str:
        more = 100 * (self.macs / max(1, self.macs_before) - 1)
        return (
            f"patch-wise: first {self.ops} ops in {self.bands} bands, arena {self.arena_before:,} "
            f"-> {self.arena:,} B, {more:.1f} % more multiply-accumulates"
        )


def fit(g: Graph, target: Target, budget: int) -> tuple[Graph, Plan, Patches] | None:
    """A lowered graph whose arena is at most ``budget`` bytes, by bands over its first layers.

    Of those that fit the one with the fewest multiply-accumulates, else the smallest arena; None
    where bands help nothing.
    """
    before = plan.make(g, target)
    dense = _macs(g)
    tried: list[tuple[int, int, int, int, Graph]] = []
    for count in cuts(g):
        for bands in BANDS:
            new = split(g, count, bands)
            if new is None:
                continue
            live = plan.floor(new, target)
            macs = _macs(new)
            if live < before.main_bytes and macs <= 2 * dense:
                tried.append((macs, live, count, bands, new))
    fits = sorted((t for t in tried if t[1] <= budget), key=lambda t: t[:2])
    rest = sorted((t for t in tried if t[1] > budget), key=lambda t: t[1])
    cheap = [t for t in rest if t[0] <= MOST * dense]
    best: tuple[Graph, Plan, Patches] | None = None
    for macs, _, count, bands, new in (*fits[:4], *(cheap or rest)[:2]):
        made = plan.make(new, target)
        found = Patches(count, bands, before.main_bytes, made.main_bytes, dense, macs)
        if made.main_bytes <= budget:
            return new, made, found
        if best is None or made.main_bytes < best[1].main_bytes:
            best = new, made, found
    return best if best is not None and best[1].main_bytes < before.main_bytes else None


def _macs(g: Graph) -> int:
    return sum(int(ops.get(op.type).macs(op, g)) for op in g.ops)


def cuts(g: Graph) -> Iterator[int]:
    """Numbers of first ops that hand on a single tensor, and that can be run in bands."""
    readers = {n: max(i for i, op in enumerate(g.ops) if n in op.inputs) for n in _read(g)}
    for i, op in enumerate(g.ops):
        if not _bands_well(op, g):
            return
        made = [o for done in g.ops[: i + 1] for o in done.outputs]
        alive = [n for n in (*g.inputs, *made) if readers.get(n, -1) > i or n in g.outputs]
        if i > 0 and alive == [op.outputs[0]]:
            yield i + 1


def _read(g: Graph) -> set[str]:
    return {n for op in g.ops for n in op.inputs if n}


def _bands_well(op: Op, g: Graph) -> bool:
    """Whether rows of the output need only some rows of each operand."""
    y = g.tensors[op.outputs[0]]
    if len(op.outputs) != 1 or len(y.shape) != 4 or y.shape[0] != 1:
        return False
    activations = [g.tensors[n] for n in op.inputs if n and g.tensors[n].data is None]
    activations = [t for t in activations if t.dtype != "packed"]
    if op.type in WINDOWS:
        same = all(t.shape == y.shape for t in activations[1:])  # conv2d_add's other operand
        return len(activations[0].shape) == 4 and same
    same = all(t.shape[:3] == y.shape[:3] for t in activations)
    return op.type in ROWWISE and same and all(_flat(g.tensors[n]) for n in op.inputs if n)


def _flat(t: Tensor) -> bool:
    """Not a constant with rows of its own."""
    return t.data is None or len(t.shape) < 3 or t.shape[-3] == 1


def _wanted(op: Op, k: int, height: int, rows: tuple[int, int]) -> tuple[int, int, int, int]:
    """(first row, end, padding above, below) of operand k with `height` rows for some rows of the
    output."""
    if op.type not in WINDOWS or k:
        return (*rows, 0, 0)
    a = op.attrs
    span = (int(a["kernel"][0]) - 1) * int(a["dilation"][0]) + 1
    first = rows[0] * int(a["stride"][0]) - int(a["pad"][0])
    end = (rows[1] - 1) * int(a["stride"][0]) - int(a["pad"][0]) + span
    return max(first, 0), min(end, height), max(-first, 0), max(end - height, 0)


def split(g: Graph, count: int, bands: int) -> Graph | None:
    """The graph with its first ``count`` ops in bands of rows of their result; None where a view
    would begin between multiples of 16 bytes, or there are fewer rows than bands."""
    y = g.tensors[g.ops[count - 1].outputs[0]]
    height = y.shape[1]
    if bands > height:
        return None
    edges = [round(height * i / bands) for i in range(bands + 1)]
    new = g.copy()
    new.ops = []
    for band, rows in enumerate(itertools.pairwise(edges)):
        if not _band(g, new, count, band, rows):
            return None
    new.ops += g.ops[count:]
    used = {*new.inputs, *new.outputs, *new.states, y.name}
    used |= {n for op in new.ops for n in (*op.inputs, *op.outputs)}
    new.tensors = {n: t for n, t in new.tensors.items() if n in used}
    new.views = {n: v for n, v in new.views.items() if n in used}
    return new


def _band(g: Graph, new: Graph, count: int, band: int, rows: tuple[int, int]) -> bool:
    """Adds the ops that make some rows of the result; False where a view cannot be."""
    result = g.ops[count - 1].outputs[0]
    need: dict[str, tuple[int, int]] = {result: rows}
    for op in reversed(g.ops[:count]):
        if op.outputs[0] not in need:
            continue
        for k, n in enumerate(op.inputs):
            if n and g.tensors[n].data is None and g.tensors[n].dtype != "packed":
                lo, hi, *_ = _wanted(op, k, g.tensors[n].shape[1], need[op.outputs[0]])
                if lo >= hi:
                    return False  # padding alone
                old = need.get(n, (lo, hi))
                need[n] = min(old[0], lo), max(old[1], hi)
    held = {n: (n, 0) for n in g.inputs}  # tensor -> what holds its rows, from which row on
    for op in g.ops[:count]:
        out = op.outputs[0]
        if out not in need:
            continue
        attrs = dict(op.attrs)
        inputs = []
        for k, n in enumerate(op.inputs):
            t = g.tensors.get(n)
            if t is None or t.data is not None or t.dtype == "packed":
                inputs.append(n)
                continue
            lo, hi, above, below = _wanted(op, k, t.shape[1], need[out])
            name = _view(new, t, *held[n], (lo, hi))
            if name is None:
                return False
            inputs.append(name)
            if op.type in WINDOWS and not k:
                pad = op.attrs["pad"]
                attrs["pad"] = (above, pad[1], below, pad[3])
        whole, lo, hi = g.tensors[out], *need[out]
        if out == result:
            made = _view(new, whole, out, 0, (lo, hi))
            if made is None:
                return False
        else:
            made = new.unique(f"{out}@{band}")
            new.add_tensor(replace(whole, name=made, shape=_rows(whole, lo, hi)))
            held[out] = made, lo
        new.ops.append(
            op.with_(name=f"{op.name}@{band}", inputs=tuple(inputs), outputs=(made,), attrs=attrs)
        )
    return True


def _rows(t: Tensor, lo: int, hi: int) -> tuple[int, ...]:
    return (t.shape[0], hi - lo, *t.shape[2:])


def _view(new: Graph, t: Tensor, holder: str, first: int, rows: tuple[int, int]) -> str | None:
    """A view of some rows of a tensor whose rows from `first` on lie in `holder`; `holder` itself
    where that is all of it; None where it would begin between multiples of 16 bytes."""
    lo, hi = rows
    shape = _rows(t, lo, hi)
    if shape == new.tensors[holder].shape:
        return holder
    at = (lo - first) * (t.nbytes // t.shape[1])
    if at % ALIGN:
        return None
    name = new.unique(f"{holder}[{lo - first}:{hi - first}]")
    new.add_tensor(replace(t, name=name, shape=shape))
    new.views[name] = holder, at
    return name


def concat_in_place(g: Graph) -> Graph:
    """Without concatenations along the outermost axis: what they join is written to its place.

    Parts stay copies where another reader or writer has a say in their place: inputs, outputs,
    constants, states, parts of two wholes, in-place chains of them, odd offsets.
    """
    new = g.copy()
    new.ops = []
    readers = g.consumers()
    producers = g.producers()
    for op in g.ops:
        if op.type != "concat" or not _joins(op, g, readers, producers, new):
            new.ops.append(op)
            continue
        at = 0
        for n in op.inputs:
            new.views[n] = op.outputs[0], at
            at += g.tensors[n].nbytes
    return new


def _joins(
    op: Op, g: Graph, readers: dict[str, list[Op]], producers: dict[str, Op], new: Graph
) -> bool:
    y = g.tensors[op.outputs[0]]
    if any(d != 1 for d in y.shape[: op.attrs["axis"]]) or y.name in g.states:
        return False
    at = 0
    for n in op.inputs:
        maker = producers.get(n)
        if maker is None or n in new.views or n in g.outputs or n in g.states:
            return False
        if at % ALIGN or op.inputs.count(n) > 1 or readers[n] != [op]:
            return False
        if ops.get(maker.type).inplace or g.tensors[n].quant != y.quant:
            return False
        at += g.tensors[n].nbytes
    return True

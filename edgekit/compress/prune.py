"""Structured pruning: channels leave together wherever they are tied, and the graph really shrinks.

`channels` says which are tied and which must stay.  Classes of tied channels that the same ops make
form a family; what stays of one is a multiple of `granule`, the width of the kernels' tiles.  A
residual block whose branch nothing else reads can leave whole.  Either every family loses a share,
or the cheapest damage per saved cost goes first until a budget is met; damage comes from outside
(norms of weights, or `train.importance`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edgekit import cost as costs
from edgekit.boards import Board
from edgekit.compress.channels import MAKERS, Ids, Labels, label
from edgekit.errors import UsageError
from edgekit.ir import Array, Graph, Op

Scores = Mapping[str, npt.NDArray[np.float64]]  # op -> damage of losing each of its outputs
Cost = Callable[[Graph, Op, int, int], float]  # of an op with so many outputs and inputs
Whole = Callable[[Graph], float]  # of all ops of a graph, by its tensors' shapes


@dataclass(frozen=True)
class Family:
    """Classes of tied channels that the same ops make; `kept`: why it stays whole, or ""."""

    makers: tuple[str, ...]
    roots: tuple[int, ...]
    kept: str

    @property
    def name(self) -> str:
        return self.makers[0]


@dataclass(frozen=True)
class Layer:
    """A residual branch: without it `add` hands `shortcut` on."""

    add: str
    ops: tuple[str, ...]
    shortcut: str


@dataclass(frozen=True)
class Pruned:
    """The smaller graph; op with weights -> mask of its outputs that stay; layers that left (by
    their addition); families that stay whole with the reason."""

    graph: Graph
    masks: dict[str, npt.NDArray[np.bool_]]
    layers: tuple[Layer, ...]
    whole: dict[str, str]


def families(labels: Labels) -> list[Family]:
    """Families in the order of their first op."""
    made: dict[int, set[str]] = {}
    for u, (op, _) in labels.makers.items():
        made.setdefault(labels.find(u), set()).add(op)
    order = {op.name: i for i, op in enumerate(labels.graph.ops)}
    found: dict[tuple[tuple[str, ...], str], list[int]] = {}
    for root, ops in made.items():
        key = tuple(sorted(ops, key=order.__getitem__))
        found.setdefault((key, labels.stay.get(root, "")), []).append(root)
    return [Family(ops, tuple(roots), why) for (ops, why), roots in found.items()]


def layers(graph: Graph) -> list[Layer]:
    """Residual branches that can leave: x + f(x) where only the addition reads what f makes."""
    producers, consumers, found = graph.producers(), graph.consumers(), []
    for add in graph.ops:
        if add.type != "binary" or add.attrs["kind"] != "add" or add.outputs[0] in graph.outputs:
            continue
        if any(graph.value(n) is not None for n in add.inputs):
            continue
        shapes = {graph.tensors[n].shape for n in add.inputs}
        for end, shortcut in (add.inputs, add.inputs[::-1]) if len(shapes) == 1 else ():
            branch = _branch(graph, end, shortcut, producers)
            inside = {o for op in branch for o in op.outputs}
            names = {op.name for op in branch} | {add.name}
            private = all(c.name in names for o in inside for c in consumers.get(o, []))
            if branch and private and not inside & {*graph.outputs, *graph.states}:
                found.append(Layer(add.name, tuple(op.name for op in branch), shortcut))
                break
    return found


def _branch(graph: Graph, end: str, start: str, producers: dict[str, Op]) -> list[Op]:
    """Ops between `start` and `end`; none where another input leads into them."""
    found: dict[str, Op] = {}
    open_, bounds = [end], {*graph.inputs, *graph.states}
    while open_:
        n = open_.pop()
        if n == start or not n or graph.value(n) is not None:
            continue
        op = producers.get(n)
        if op is None or n in bounds:
            return []
        if op.name not in found:
            found[op.name] = op
            open_ += op.inputs
    return list(found.values()) if end != start else []


def without(graph: Graph, gone: tuple[Layer, ...]) -> Graph:
    """The graph without those residual branches; the additions' bounds stay where they matter."""
    g, dead = graph.copy(), {n for x in gone for n in x.ops}
    producers, ops = graph.producers(), []
    names: dict[str, str] = {}
    by_add = {x.add: x for x in gone}

    def real(n: str) -> str:
        while n in names:
            n = names[n]
        return n

    for op in g.ops:
        if op.name in dead:
            continue
        layer = by_add.get(op.name)
        if layer is None:
            ops.append(op.with_(inputs=tuple(real(n) for n in op.inputs)))
            continue
        source = producers.get(layer.shortcut)
        lo, hi = (float(op.attrs[k]) for k in ("lo", "hi"))
        inside = source is not None and source.attrs.get("lo", -np.inf) >= lo
        if np.isinf(hi) and (np.isinf(lo) or inside):
            names[op.outputs[0]] = layer.shortcut
            continue
        clamp = {"kind": "clamp", "alpha": lo, "beta": hi}
        g.ops = []
        g.tensors.pop(op.outputs[0])
        g.emit("unary", [real(layer.shortcut)], clamp, name=op.name, outputs=op.outputs)
        ops += g.ops
    g.ops = ops
    g.drop_unused()
    g.check()
    return g


def norms(graph: Graph) -> dict[str, npt.NDArray[np.float64]]:
    """Damage as the norm of the weights that make a channel, each op's scaled to mean 1 (Li et al.
    2017)."""
    found = {}
    for op in graph.ops:
        w = graph.value(op.inputs[1]) if op.type in MAKERS else None
        if w is not None:
            norm = np.sqrt((w.reshape(len(w), -1).astype(np.float64) ** 2).sum(1))
            found[op.name] = norm / max(float(norm.mean()), 1e-12)
    return found


def macs(graph: Graph, op: Op, outputs: int, inputs: int) -> float:
    """Multiplications of a weighted op with that many channels."""
    w, y = graph.tensors[op.inputs[1]].shape, graph.tensors[op.outputs[0]].shape
    taps = int(np.prod(w[1:-1])) if op.type != "linear" else 1
    if op.type == "conv_transpose2d":
        y = graph.tensors[op.inputs[0]].shape
    inner = inputs / max(1, int(op.attrs.get("groups", 1)))
    return float(int(np.prod(y[:-1])) * taps * outputs * inner)


def tiles(rows: int, depth: int = 4) -> Cost:
    """A modelled latency: multiplications with channels rounded up to the kernels' tiles."""

    def cost(graph: Graph, op: Op, outputs: int, inputs: int) -> float:
        return macs(graph, op, -(-outputs // rows) * rows, -(-inputs // depth) * depth)

    return cost


def modelled(board: Board) -> Whole | None:
    """Cycles of one inference on a board (`edgekit.cost`): of every op, those without weights too.
    None where no rates stand for its core."""
    if costs.isa_of(board) is None:
        return None

    def cycles(graph: Graph) -> float:
        found = costs.predict(graph, board)
        assert found is not None
        return float(found.cycles)

    return cycles


def total(graph: Graph, cost: Cost = macs, whole: Whole | None = None) -> float:
    """What a graph costs, in the units of `prune`'s budget."""
    return _Plan(graph, label(graph), cost, whole).total()


@dataclass
class _Plan:
    """What is gone so far, and what it costs."""

    graph: Graph
    labels: Labels
    cost: Cost
    whole: Whole | None = None
    alive: npt.NDArray[np.bool_] = field(init=False)  # by root
    gone: set[str] = field(default_factory=set)  # ops of layers that left

    def __post_init__(self) -> None:
        self.alive = np.ones(len(self.labels.parent), bool)
        self.weighted: list[tuple[Op, Ids | None, Ids | None]] = []
        for op in self.graph.ops:
            if op.type in MAKERS and self.graph.value(op.inputs[1]) is not None:
                axes = self.labels.of(op.inputs[1])
                ends = (axes[i] for i in MAKERS[op.type])
                out, inner = (None if a is None else self.labels.roots(a) for a in ends)
                self.weighted.append((op, out, inner))
        self.axes = [
            (name, [None if ids is None else self.labels.roots(ids) for ids in axes])
            for name, axes in self.labels.axes.items()
            if any(ids is not None for ids in axes)
        ]

    def sized(self) -> Graph:
        """The graph as its shapes would be: no data, layers that left without their ops."""
        g = self.graph.copy()
        g.ops = [op for op in g.ops if op.name not in self.gone]
        for name, axes in self.axes:
            t = g.tensors[name]
            shape = tuple(
                n if roots is None else int(self.alive[roots].sum())
                for n, roots in zip(t.shape, axes, strict=True)
            )
            if shape != t.shape:
                g.tensors[name] = replace(t, shape=shape, data=None)
        return g

    def total(self) -> float:
        if self.whole is not None:
            return self.whole(self.sized())
        count, shapes = self.cost, self.graph.tensors
        found = 0.0
        for op, out, inner in self.weighted:
            if op.name in self.gone:
                continue
            w = shapes[op.inputs[1]].shape
            a, b = MAKERS[op.type]
            n = w[a] if out is None else int(self.alive[out].sum())
            m = w[b] if inner is None else int(self.alive[inner].sum())
            found += count(self.graph, op, n, m * int(op.attrs.get("groups", 1)))
        return found

    def without(self, roots: Ids, ops: tuple[str, ...] = ()) -> float:
        """The cost if those went too."""
        kept, gone = self.alive.copy(), set(self.gone)
        self.alive[roots] = False
        self.gone |= set(ops)
        found = self.total()
        self.alive, self.gone = kept, gone
        return found


def prune(
    graph: Graph,
    share: float | None = None,
    granule: int = 8,
    *,
    budget: float | None = None,
    scores: Scores | None = None,
    drops: Mapping[str, float] | None = None,
    cost: Cost = macs,
    whole: Whole | None = None,
) -> Pruned:
    """Removes about `share` of the channels of every family, or what does least damage per saved
    `cost` until the cost is at most `budget` of what it was.

    What stays of a family is a multiple of `granule`.  scores: damage per output of an op (default:
    norms); drops: damage of losing a layer, by its addition (budget only; none: layers stay).
    whole: a cost of the whole graph in place of `cost` (`modelled`).
    UsageError where nothing can go, or the budget cannot be met.
    """
    wanted = share if budget is None else budget
    if wanted is None or not 0 < wanted < 1:
        raise UsageError(f"a share of {wanted or 0:g} cannot be pruned", todo="0 < share < 1")
    labels = label(graph)
    damage = _damage(labels, norms(graph) if scores is None else scores)
    plan, found = _Plan(graph, labels, cost, whole), families(labels)
    stays = {f.name: f.kept for f in found if f.kept}
    free = [f for f in found if not f.kept]
    left: tuple[Layer, ...] = ()
    if budget is None:
        assert share is not None
        _by_share(plan, free, damage, share, granule, stays)
    else:
        left = _by_budget(plan, free, damage, budget, granule, dict(drops or {}))
    dead = {maker for u, maker in labels.makers.items() if not plan.alive[labels.find(u)]}
    if not dead and not left:
        reasons = "; ".join(f"{n}: {why}" for n, why in list(stays.items())[:3])
        raise UsageError(f"no channel can be pruned ({reasons})", todo="a larger share")
    g = _cut(without(graph, left), dead) if dead else without(graph, left)
    masks = {}
    for op in g.ops:
        if op.type in MAKERS and any(n == op.name for n, _ in dead):
            w = graph.tensors[op.inputs[1]].shape[0]
            masks[op.name] = np.array([(op.name, i) not in dead for i in range(w)])
        elif op.type == "depthwise_conv2d" and (ids := labels.of(op.outputs[0])[-1]) is not None:
            mask = plan.alive[labels.roots(ids)]
            masks |= {} if mask.all() else {op.name: mask}
    return Pruned(g, masks, left, stays)


def _damage(labels: Labels, scores: Scores) -> npt.NDArray[np.float64]:
    """Damage of losing a class, by its root: the sum over what makes it."""
    found = np.zeros(len(labels.parent))
    for u, (op, i) in labels.makers.items():
        if op in scores:
            found[labels.find(u)] += scores[op][i]
    return found


def _by_share(
    plan: _Plan, free: list[Family], damage: Array, share: float, granule: int,
    whole: dict[str, str],
) -> None:  # fmt: skip
    for f in free:
        roots = np.array(f.roots)
        stay = -(-int(np.ceil(len(roots) * (1 - share))) // granule) * granule
        if stay >= len(roots):
            whole[f.name] = f"{len(roots)} channels, {stay} would stay"
            continue
        order = np.argsort(-damage[roots], kind="stable")
        plan.alive[roots[order[stay:]]] = False


def _by_budget(
    plan: _Plan, free: list[Family], damage: Array, budget: float, granule: int,
    drops: dict[str, float],
) -> tuple[Layer, ...]:  # fmt: skip
    """Takes what does least damage per saved cost, again and again; then what was taken without
    need comes back, the most damaging first."""
    whole = plan.total()
    blocks = {x.add: x for x in layers(plan.graph) if x.add in drops}
    taken: list[tuple[float, Ids, Layer | None]] = []
    while (now := plan.total()) > budget * whole:
        best: tuple[float, float, Ids, Layer | None] | None = None
        for hurt, roots, block in _choices(plan, free, damage, granule, blocks, drops):
            saved = now - plan.without(roots, block.ops if block else ())
            if saved > 0 and (best is None or hurt / saved < best[0]):
                best = hurt / saved, hurt, roots, block
        if best is None:
            raise UsageError(
                f"pruning reaches {now / whole:.2f} of the cost, not {budget:.2f}",
                todo="a smaller granule, or let layers go",
            )
        _, hurt, roots, block = best
        plan.alive[roots] = False
        if block is not None:
            plan.gone |= set(blocks.pop(block.add).ops)
        taken.append((hurt, roots, block))
    left = {x.add: x for _, _, x in taken if x is not None}
    for _, roots, block in sorted(taken, key=lambda t: -t[0]):
        plan.alive[roots] = True
        plan.gone -= set(block.ops if block else ())
        if plan.total() <= budget * whole:
            left.pop(block.add if block else "", None)
            continue
        plan.alive[roots] = False
        plan.gone |= set(block.ops if block else ())
    return tuple(left.values())


def _choices(
    plan: _Plan, free: list[Family], damage: Array, granule: int, blocks: dict[str, Layer],
    drops: dict[str, float],
) -> Iterator[tuple[float, Ids, Layer | None]]:  # fmt: skip
    """What could go next: (damage, classes, layer)."""
    for f in free:
        roots = np.array([r for r in f.roots if plan.alive[r]])
        count = (len(roots) - 1) % granule + 1
        if len(roots) > count and not set(f.makers) <= plan.gone:
            weak = roots[np.argsort(damage[roots], kind="stable")[:count]]
            yield float(damage[weak].sum()), weak, None
    for x in blocks.values():
        yield drops[x.add], np.array([], np.int64), x


def _cut(graph: Graph, dead: set[tuple[str, int]]) -> Graph:
    """The graph without the classes of those (op, output) pairs."""
    g, labels = graph.copy(), label(graph)
    alive = np.ones(len(labels.parent), bool)
    for u, maker in labels.makers.items():
        if maker in dead:
            alive[labels.find(u)] = False
    keep: dict[str, list[npt.NDArray[np.bool_] | None]] = {}
    for name, axes in labels.axes.items():
        t, masks = g.tensors[name], []
        for ids in axes:
            masks.append(None if ids is None else alive[labels.roots(ids)])
        keep[name] = masks
        data, shape = t.data, list(t.shape)
        for i, m in enumerate(masks):
            if m is not None:
                shape[i] = int(m.sum())
                data = None if data is None else np.compress(m, data, axis=i)
        g.tensors[name] = replace(t, shape=tuple(shape), data=data)
    g.ops = [_fitting(g, op, keep) for op in g.ops]
    g.drop_unused()
    g.check()
    return g


def _fitting(g: Graph, op: Op, keep: dict[str, list[npt.NDArray[np.bool_] | None]]) -> Op:
    """An op with the sizes in its attributes as the cut tensors have them."""
    if op.type == "reshape":
        shape = g.tensors[op.outputs[0]].shape
        rest = tuple(op.attrs["shape"])[len(shape) :]
        return op.with_(attrs=dict(op.attrs, shape=(*shape, *rest)))
    if op.type not in ("slice", "pad"):
        return op
    attrs = dict(op.attrs)
    first, second = ("begin", "size") if op.type == "slice" else ("before", "after")
    a, b = list(attrs[first]), list(attrs[second])
    for i, m in enumerate(keep[op.inputs[0] if op.type == "slice" else op.outputs[0]]):
        if m is None:
            continue
        if op.type == "slice":
            a[i], b[i] = int(m[: a[i]].sum()), int(m[a[i] : a[i] + b[i]].sum())
        else:
            end = len(m) - b[i]
            a[i], b[i] = int(m[: a[i]].sum()), int(m[end:].sum())
    return op.with_(attrs=attrs | {first: tuple(a), second: tuple(b)})


def masked(graph: Graph, cut: Pruned) -> Graph:
    """The whole graph doing what the pruned one does: nothing reads what left.  Weights that read a
    lost channel are zero, and so is the branch of a lost layer."""
    g = graph.copy()
    gone = {x.add: x for x in cut.layers}
    for i, op in enumerate(g.ops):
        if op.name in gone:
            zero = g.const(op.name + ".none", np.zeros((), np.float32))
            g.ops[i] = op.with_(inputs=(gone[op.name].shortcut, zero))
    labels = label(without(graph, cut.layers))
    dead = set()
    for u, (op_name, i) in labels.makers.items():
        if op_name in cut.masks and not cut.masks[op_name][i]:
            dead.add(labels.find(u))
    for op in labels.graph.ops:
        ids = labels.of(op.inputs[1])[MAKERS[op.type][1]] if op.type in MAKERS else None
        t = g.tensors.get(op.inputs[1]) if ids is not None else None
        if ids is None or t is None or t.data is None:
            continue
        off = np.array([labels.find(u) in dead for u in ids.tolist()])
        data = t.data.copy()
        data[..., off] = 0
        g.tensors[t.name] = replace(t, data=data)
    return g

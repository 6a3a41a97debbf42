"""Structured pruning: channels leave together wherever they are tied, and the graph really shrinks.

Tensors whose last axes must keep the same channels (through adds, depthwise, pooling, elementwise
ops) form a group.  A group is pruned only where every op that touches it is known to go along; all
others are named with the reason.  Importance is the norm of the weights that make a channel, over
all producers of its group (Li et al. 2017; groups as DepGraph, Fang et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edgekit.errors import UsageError
from edgekit.ir import Array, Graph, Op

MAKERS = ("conv2d", "linear")
ALONG = ("unary", "max_pool2d", "avg_pool2d", "depthwise_conv2d")
Mask = npt.NDArray[np.bool_]


@dataclass
class Group:
    """Tensors that share channels, the ops that make them and the ops that mix them again.

    `kept`: reason why it cannot be pruned, "" where it can.
    """

    tensors: list[str]
    channels: int
    makers: list[Op] = field(default_factory=list)
    along: list[Op] = field(default_factory=list)
    readers: list[Op] = field(default_factory=list)
    kept: str = ""


@dataclass(frozen=True)
class Pruned:
    """The smaller graph, masks of the channels that stay (by first tensor of the group), and groups
    that had to stay whole with the reason."""

    graph: Graph
    masks: dict[str, Mask]
    whole: dict[str, str]


def groups(graph: Graph) -> list[Group]:
    """Every group of channels of the graph's activations."""
    parent: dict[str, str] = {}

    def find(n: str) -> str:
        while parent.setdefault(n, n) != n:
            n = parent[n]
        return n

    for op in graph.ops:
        for n in _tied(graph, op):
            parent[find(n)] = find(op.outputs[0])
    found: dict[str, Group] = {}

    def of(n: str) -> Group:
        shape = graph.tensors[n].shape
        return found.setdefault(find(n), Group([], shape[-1] if shape else 0))

    for n in (*graph.inputs, *(o for op in graph.ops for o in op.outputs)):
        of(n).tensors.append(n)
    for n in (*graph.inputs, *graph.states):
        of(n).kept = "an input or a state of the model"
    for n in graph.outputs:
        of(n).kept = "an output of the model"
    for op in graph.ops:
        _sort(graph, op, of)
    return list(found.values())


def _tied(graph: Graph, op: Op) -> list[str]:
    """Inputs that have the output's channels."""
    acts = [n for n in op.inputs if n and graph.tensors[n].data is None]
    out = graph.tensors[op.outputs[0]]
    same = [n for n in acts if graph.tensors[n].shape[-1:] == out.shape[-1:]]
    if op.type in ALONG:
        return [op.inputs[0]]
    if op.type == "binary":
        return same if len(same) == len(acts) else []
    if op.type in ("reduce", "reshape", "pad", "slice"):
        return [op.inputs[0]] if _spatial(graph, op) else []
    return []


def _spatial(graph: Graph, op: Op) -> bool:
    """Whether an op leaves the last axis as it is."""
    x, y = graph.tensors[op.inputs[0]].shape, graph.tensors[op.outputs[0]].shape
    if op.type == "reduce":
        last = int(op.attrs["axes"]) >> (len(x) - 1) & 1
        return not last and op.attrs["kind"] != "argmax"
    if op.type == "reshape":
        return x[-1] == y[-1]
    axis = len(x) - 1
    if op.type == "pad":
        return not op.attrs["before"][axis] and not op.attrs["after"][axis]
    return op.attrs["step"][axis] == 1 and x[axis] == y[axis]


def _sort(graph: Graph, op: Op, of: Callable[[str], Group]) -> None:
    """Enters an op into the groups it touches, or says why they must stay whole."""
    out = of(op.outputs[0])
    if op.type in MAKERS:
        plain = op.attrs.get("groups", 1) == 1 and graph.value(op.inputs[1]) is not None
        if plain:
            out.makers.append(op)
            of(op.inputs[0]).readers.append(op)
            return
    elif op.type in (*ALONG, "binary", "reduce", "reshape", "pad", "slice") and _tied(graph, op):
        wide = [n for n in op.inputs[1:] if n and graph.value(n) is not None]
        channels = graph.tensors[op.outputs[0]].shape[-1]
        if op.type != "binary" or all(
            graph.tensors[n].size == 1 or graph.tensors[n].shape[-1] == channels for n in wide
        ):
            out.along.append(op)
            return
    for n in (*op.inputs, *op.outputs):
        if n and graph.tensors[n].data is None:
            of(n).kept = of(n).kept or f"{op.type} {op.name!r} mixes or moves its channels"


def importance(graph: Graph, group: Group) -> npt.NDArray[np.float64]:
    """Per channel, the norm of its weights over the group's makers, each scaled to mean 1."""
    total = np.zeros(group.channels)
    for op in group.makers:
        w = graph.value(op.inputs[1])
        assert w is not None
        norm = np.sqrt((w.reshape(len(w), -1).astype(np.float64) ** 2).sum(1))
        total += norm / max(float(norm.mean()), 1e-12)
    return total


def prune(graph: Graph, share: float, granule: int = 8) -> Pruned:
    """Removes about `share` of the channels of every group that can lose some, the weakest first.

    What stays is a multiple of `granule` (the kernels' vectors).  UsageError where nothing can go.
    """
    if not 0 < share < 1:
        raise UsageError(f"a share of {share:g} channels cannot be pruned", todo="0 < share < 1")
    masks, whole = {}, {}
    g = graph.copy()
    for group in groups(graph):
        if not group.makers and not group.kept:
            continue
        if group.kept:
            whole[group.tensors[0]] = group.kept
            continue
        stay = -(-int(np.ceil(group.channels * (1 - share))) // granule) * granule
        if stay >= group.channels:
            whole[group.tensors[0]] = f"{group.channels} channels, {stay} would stay"
            continue
        mask = np.zeros(group.channels, bool)
        mask[np.argsort(-importance(graph, group), kind="stable")[:stay]] = True
        _cut(g, group, mask)
        masks[group.tensors[0]] = mask
    if not masks:
        reasons = "; ".join(f"{n}: {why}" for n, why in list(whole.items())[:3])
        raise UsageError(f"no channel can be pruned ({reasons})", todo="a larger share")
    g.drop_unused()
    g.check()
    return Pruned(g, masks, whole)


def _cut(g: Graph, group: Group, mask: Mask) -> None:
    stay = int(mask.sum())
    for op in group.makers:
        _narrow(g, op, mask, (1, 0), (2, 0))
    for op in group.readers:
        _narrow(g, op, mask, (1, -1))
    for op in group.along:
        if op.type == "depthwise_conv2d":
            _narrow(g, op, mask, (1, 2), (2, 0))
        elif op.type == "binary":
            _narrow(g, op, mask, (0, -1), (1, -1))
        for key in ("shape", "size"):
            if op.type in ("reshape", "slice") and key in op.attrs:
                rank = len(g.tensors[op.outputs[0]].shape)
                value = (*op.attrs[key][: rank - 1], stay, *op.attrs[key][rank:])
                i = _place(g, op)
                g.ops[i] = g.ops[i].with_(attrs=dict(op.attrs, **{key: value}))
    for n in group.tensors:
        t = g.tensors[n]
        g.tensors[n] = replace(t, shape=(*t.shape[:-1], stay))


def _place(g: Graph, op: Op) -> int:
    return next(i for i, o in enumerate(g.ops) if o.outputs == op.outputs)


def _narrow(g: Graph, op: Op, mask: Mask, *operands: tuple[int, int]) -> None:
    """Keeps the masked part of an op's constants: (operand, axis) pairs."""
    at = _place(g, op)
    inputs = list(g.ops[at].inputs)
    for i, axis in operands:
        data: Array | None = g.value(inputs[i]) if i < len(inputs) and inputs[i] else None
        if data is not None and data.ndim and data.shape[axis] == len(mask):
            inputs[i] = g.const(inputs[i], np.compress(mask, data, axis=axis))
    g.ops[at] = g.ops[at].with_(inputs=tuple(inputs))

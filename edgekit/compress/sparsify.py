"""Zeros in a pattern that kernels gain from: N of M weights of an output stay, or blocks of 8 x 8.

The largest weights stay, by magnitude (Han et al. 2015): of each run of M inputs of an output the N
largest, or of all blocks of a layer those of the largest norm.  Whether zeros become speed is the
board's matter: `Target.sparse` says which patterns its kernels read, and from where they pay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekit.compress.widths import excluded
from edgekit.errors import UsageError
from edgekit.ir import Array, Graph, Op
from edgekit.layout import BLOCKS, CHUNK, Target

BLOCK = 8  # outputs and inputs of a block
HOLDS = 0.5  # share of zeros from which training leaves zeros alone
TYPES = ("conv2d", "linear")


@dataclass(frozen=True)
class Sparsified:
    """The graph with zeros, the share of zeros of each layer that got them, and the layers that
    stay dense with the reason."""

    graph: Graph
    layers: dict[str, float]
    dense: dict[str, str]


def sparsify(
    graph: Graph,
    target: Target,
    pattern: str,
    share: float = 0.9,
    exclude: Sequence[str] = (),
) -> Sparsified:
    """Zeros the smallest weights of a float graph's convolutions and linear layers.

    pattern: "N:M" with M dividing 64, or "blocks", of which `share` become zero.  The first and the
    last layer stay dense, and so do those that the target gains nothing from.
    Raises UsageError for other patterns, for names that match no op, and where no layer would get
    faster on the target.
    """
    keep, skip = _keeper(pattern, share), excluded(graph, exclude)
    g, layers, dense = graph.copy(), {}, {}
    ops = [op for op in graph.ops if op.type in TYPES and graph.value(op.inputs[1]) is not None]
    for op in ops:
        w = graph.value(op.inputs[1])
        assert w is not None
        why = _why_dense(op, w, op in (ops[0], ops[-1]), op.name in skip)
        if why:
            dense[op.name] = why
            continue
        flat = w.reshape(len(w), -1)
        thin = np.where(keep(np.abs(flat)), flat, 0).astype(w.dtype)
        if not target.sparse(np.sign(thin).astype(np.int8)):
            dense[op.name] = f"{pattern} would not be faster there: {pays(target)}"
            continue
        name = op.inputs[1]
        g.tensors[name] = replace(g.tensors[name], data=thin.reshape(w.shape))
        layers[op.name] = float((thin == 0).mean())
    if not layers:
        told = sorted(dense.items(), key=lambda d: not d[1].endswith(pays(target)))
        name, why = next(iter(told), ("the graph", "it has no convolution or linear layer"))
        raise UsageError(
            f"sparse weights will not pay: {name}: {why}",
            todo="prune channels instead, which every kernel gains from",
        )
    return Sparsified(g, layers, dense)


def pays(target: Target) -> str:
    """Which sparse weights the target's kernels gain from, as a clause."""
    facts = []
    for i in target.kernels():
        if i.nm is not None:
            facts.append(f"{i.name} gains from at most {i.nm.most:.0f} of {CHUNK} inputs")
        if i.blocks is not None:
            b = i.blocks
            facts.append(f"{i.name} from at most {b.most:.0%} of its blocks of {b.nr} x {b.kr}")
    return ", ".join(facts) or "its kernels read dense weights only"


def held(w: Array) -> bool:
    """Whether zeros are these weights' pattern, which training and rounding leave alone."""
    return bool((w == 0).mean() >= HOLDS)


def notes(graph: Graph, lowered: Graph, target: Target) -> list[str]:
    """A sentence for each int8 layer that is half zeros or more: how it is stored, and why."""
    packed = {op.outputs[0]: op.inputs[1] for op in lowered.ops if op.type in TYPES}
    out = []
    for op in graph.ops:
        w = graph.value(op.inputs[1]) if op.type in TYPES else None
        if w is None or w.dtype != np.int8 or not held(w) or op.outputs[0] not in packed:
            continue
        zeros = f"{op.name}: {(w == 0).mean():.0%} of its weights are 0"
        found = [v for v in lowered.tensors[packed[op.outputs[0]]].variants if v.layout.sparse]
        if not found:
            out.append(f"{zeros}, stored dense: {pays(target)}")
        for v in found:
            la = v.layout
            form = "blocks" if la.encoding == BLOCKS else f"{la.encoding >> 8} of {CHUNK}"
            out.append(f"{zeros}, stored as {form} in {len(v.blob)} B (dense {w.size} B)")
    return out


def _keeper(pattern: str, share: float) -> Callable[[Array], Array]:
    """(n, k) magnitudes -> the mask of what stays."""
    if pattern == "blocks":
        if not 0 < share < 1:
            raise UsageError(f"share {share} is not between 0 and 1")
        return lambda a: _blocks(a, share)
    found = re.fullmatch(r"(\d+):(\d+)", pattern)
    n, m = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < n < m or CHUNK % m:
        raise UsageError(
            f"sparsity pattern {pattern!r} is unknown",
            todo="N:M with M dividing 64 (1:8), or blocks; unstructured zeros gain nothing here",
        )
    return lambda a: _of(a, n, m)


def _of(a: Array, n: int, m: int) -> Array:
    k = a.shape[1]
    runs = np.pad(a, ((0, 0), (0, -k % m))).reshape(len(a), -1, m)
    rank = np.argsort(np.argsort(-runs, axis=2, kind="stable"), axis=2, kind="stable")
    return np.asarray((rank < n).reshape(len(a), -1)[:, :k])


def _blocks(a: Array, share: float) -> Array:
    n, k = a.shape
    full = np.pad(a, ((0, -n % BLOCK), (0, -k % BLOCK))).astype(np.float64)
    tiles = full.reshape(len(full) // BLOCK, BLOCK, -1, BLOCK)
    norm = (tiles**2).sum((1, 3))
    stay = max(1, round(norm.size * (1 - share)))
    mask = norm >= np.sort(norm, axis=None)[-stay]
    return np.asarray(mask.repeat(BLOCK, 0).repeat(BLOCK, 1)[:n, :k])


def _why_dense(op: Op, w: Array, edge: bool, skip: bool) -> str:
    if skip:
        return "excluded"
    if op.attrs.get("groups", 1) != 1:
        return "grouped"
    if edge:
        return "the first or the last layer"
    return "" if w[0].size >= CHUNK else f"{w[0].size} inputs, fewer than {CHUNK}"

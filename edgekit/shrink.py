"""Pruning by what training samples say: which channels and layers go, and what is repaired behind.

In `rounds` a little goes at a time: what the next round takes is judged on a graph that is repaired
already, and every repair aims at what the whole graph gave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.boards import Board
from edgekit.compress import prune
from edgekit.errors import UsageError
from edgekit.ir import Array, Graph
from edgekit.train import fit, importance, repair

LAYER_FACTORS = {True: (1.0, 4.0, 16.0), False: (0.25, 1.0)}  # of what goes at once; in rounds
Progress = Callable[[str, int, int], None]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Options:
    """How to prune: a `share` of every family of channels, or by a budget: `macs` times fewer
    multiplications, or a `latency` so many times less (`prune.modelled`; where the board's core has
    no model, multiplications in whole tiles of `granule`), reached in `rounds` equal factors.

    importance: "norm", "taylor" or "fisher".  layers: residual branches may leave.  repair: True:
    outputs keep their means and deviations; "outputs": weights are solved for by least squares.
    samples: those that judge.
    """

    share: float | None = None
    macs: float | None = None
    latency: float | None = None
    granule: int = 8
    importance: str = "norm"
    layers: bool = False
    samples: int = 512
    seed: int = 0
    repair: bool | str = False
    rounds: int = 1

    def __post_init__(self) -> None:
        if sum(n is not None for n in (self.share, self.macs, self.latency)) > 1:
            raise UsageError("prune takes one of share, macs and latency")
        if self.repair not in (True, False, "outputs"):
            raise UsageError(f"repair = {self.repair!r} is unknown", todo='true or "outputs"')
        if self.budget is None and self.layers:
            raise UsageError("layers leave by a budget", todo="set macs or latency, not share")
        if self.rounds < 1 or (self.budget is None and self.rounds > 1):
            raise UsageError(f"rounds = {self.rounds} needs a budget", todo="set macs or latency")

    @property
    def budget(self) -> float | None:
        """How many times less it shall cost."""
        return self.latency if self.macs is None else self.macs

    @property
    def trains(self) -> bool:
        """Whether training samples are needed."""
        return bool(self.layers or self.repair or self.importance != "norm")


@dataclass
class Shrunk:
    """The smaller graph, repaired; op -> mask of the outputs that it had before the first round;
    layers that left, families that stay whole with the reason."""

    graph: Graph
    masks: dict[str, Mask] = field(default_factory=dict)
    layers: tuple[prune.Layer, ...] = ()
    whole: dict[str, str] = field(default_factory=dict)

    def after(self, cut: prune.Pruned) -> Shrunk:
        """With another cut of its graph."""
        names, masks = {op.name for op in cut.graph.ops}, {}
        for name in (self.masks | cut.masks).keys() & names:
            mask = self.masks.get(name, cut.masks.get(name))
            assert mask is not None
            masks[name] = mask.copy()
            if name in self.masks and name in cut.masks:
                masks[name][mask] = cut.masks[name]
        return Shrunk(cut.graph, masks, (*self.layers, *cut.layers), cut.whole)


@dataclass(frozen=True)
class _Samples:
    judge: dict[str, Array]
    labels: Array | None
    rows: dict[str, Array]  # for repairs


def shrink(
    graph: Graph, x: dict[str, Array], labels: Array | None, o: Options, board: Board,
    same: Callable[[Graph, Graph], None], progress: Progress | None = None,
) -> Shrunk:  # fmt: skip
    """Prunes a float graph.

    x: input name -> (n, ...) training samples, empty where `o.trains` is false; labels (n,).
    `same(masked, cut)` is called to prove every cut.  UsageError where nothing can go or the budget
    cannot be met.
    """
    fit.check_labels(graph, labels)
    n = len(next(iter(x.values()))) if x else 0
    order = np.random.default_rng(o.seed).permutation(n)
    few, some = order[: o.samples], order[: fit.NORM_SAMPLES // (1 + (o.repair == "outputs"))]
    part = {k: v[few] for k, v in x.items()}
    samples = _Samples(
        part, None if labels is None else labels[few], {k: v[some] for k, v in x.items()}
    )
    now = Shrunk(graph)
    for i in range(o.rounds):
        cut, after = _round(graph, now, samples, o, board, (i + 1) / o.rounds, progress)
        same(prune.masked(now.graph, cut), cut.graph)
        now = after
    return now


def _round(
    graph: Graph, now: Shrunk, samples: _Samples, o: Options, board: Board, far: float,
    progress: Progress | None,
) -> tuple[prune.Pruned, Shrunk]:  # fmt: skip
    """Cuts on until the share `far` of the way (of factors) is gone.

    Damages of layers, measured one by one, add up to more than their sum; those of channels,
    estimated, to even more.  So layers' are tried times LAYER_FACTORS, and the cut of least loss is
    taken.
    """
    g, part, labels = now.graph, samples.judge, samples.labels
    scores, drops = None, None
    if o.importance != "norm":
        scores = importance.outputs(g, part, labels, o.importance, progress=progress)
    if o.budget is None:
        share = 0.3 if o.share is None else o.share
        cut = prune.prune(g, share, o.granule, scores=scores)
        return cut, _repaired(graph, now.after(cut), samples, o)
    if o.layers:
        gone = {b.add: prune.without(g, (b,)) for b in prune.layers(g)}
        drops = importance.losses(g, gone, part, labels, progress=progress)
    cost = prune.macs if o.latency is None else prune.tiles(o.granule)
    whole = None if o.latency is None else prune.modelled(board)
    left = prune.total(graph, cost, whole) / prune.total(g, cost, whole)
    budget = min(1.0, o.budget**-far * left)

    def rise(after: Graph) -> float:
        return importance.losses(g, {"cut": after}, part, labels)["cut"] if drops else 0.0

    found: list[tuple[float, int, prune.Pruned, Shrunk]] = []
    for i, factor in enumerate(LAYER_FACTORS[o.rounds == 1] if drops else (1.0,)):
        scaled = {n: factor * max(d, 0.0) for n, d in (drops or {}).items()}
        cut = prune.prune(
            g, granule=o.granule, budget=budget, scores=scores, drops=scaled, cost=cost, whole=whole
        )
        after = _repaired(graph, now.after(cut), samples, o)
        found.append((rise(after.graph), i, cut, after))
    return min(found, key=lambda f: f[:2])[2:]


def _repaired(graph: Graph, now: Shrunk, samples: _Samples, o: Options) -> Shrunk:
    if not o.repair:
        return now
    how: Any = repair.outputs if o.repair == "outputs" else repair.spreads
    constants = how(graph, now.graph, now.masks, samples.rows)
    return replace(now, graph=now.graph.with_constants(constants))

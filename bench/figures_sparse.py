"""Sparse int8 weights beside dense ones: time on this machine, instructions on Cortex-M."""

from __future__ import annotations

from typing import Any

import arm
import numpy as np
from edgekit_runtime import Session
from edgekit_runtime import cpu_isas as isas
from figures import Outcome, Skip, item

from edgekit import boards, emulate, pipeline
from edgekit.ir import Array, Graph
from edgekit.ops.conv2d import thin

PATTERNS = ("dense", "1:4", "1:8", "blocks")  # of 8 x 8, one in ten stays
SHAPES = ((1, 1024, 1024), (256, 1024, 1024), (784, 128, 128))  # rows, inputs, outputs
BARS = {"1:4": 1.0, "1:8": 1.8, "blocks": 1.5}
ROUNDS = 60


def net(shape: tuple[int, int, int], pattern: str) -> Graph:
    g = arm.linear(*shape)
    weights = g.tensors["w"].data
    assert weights is not None
    if pattern != "dense":
        weights[:] = thin(np.random.default_rng(3), weights, pattern)
    return g


@item("sparse.host", "dense / sparse time: 1:8 at least 1.8, 1:4 above 1, 90 % blocks 1.5")
def host() -> Outcome:
    if "avx512vnni" not in isas():
        raise Skip("sparse kernels of this machine's family are AVX-512")
    figure: dict[str, Any] = {}
    target = pipeline.target_of(boards.load("host"), ["avx512vnni"])
    for shape in SHAPES:
        packages = {p: pipeline.package_graph(net(shape, p), target) for p in PATTERNS}
        x = np.random.default_rng(1).integers(-128, 128, shape[:2]).astype(np.int8)
        best = _fastest(packages, x)
        figure["x".join(map(str, shape))] = {
            p: {"us": round(best[p], 1), "gain": round(best["dense"] / best[p], 2), "bytes": len(b)}
            for p, b in packages.items()
        }
    holds = all(f[p]["gain"] >= bar for f in figure.values() for p, bar in BARS.items())
    return Outcome(figure, holds)


def _fastest(packages: dict[str, bytes], x: Array) -> dict[str, float]:
    """The least microseconds of each, all run in turns."""
    sessions = {p: Session(b, trace=True) for p, b in packages.items()}
    best = dict.fromkeys(packages, float("inf"))
    for _ in range(ROUNDS):
        for p, s in sessions.items():
            s.run(x)
            best[p] = min(best[p], sum(o.latency_us for o in s.trace()))
    return best


@item("sparse.mcu", "1:8 and 90 % blocks: fewer instructions and cycles than dense on Cortex-M4")
def mcu() -> Outcome:
    core = arm.core("Cortex-M4")
    missing = emulate.missing(boards.load(core.board))
    if missing:
        raise Skip(missing)
    target = pipeline.target_of(boards.load(core.board), core.isa)
    figure: dict[str, Any] = {}
    for shape in ((1, 256, 128), (64, 128, 64)):
        row = {}
        for p in ("dense", "1:8", "blocks"):
            got = arm.count(pipeline.package_graph(net(shape, p), target), core)
            row[p] = {"instructions": got["instructions"], "cycles": got["cycles"]["m4"]}
        figure["x".join(map(str, shape))] = row
    holds = all(
        row[p][unit] < row["dense"][unit]
        for row in figure.values()
        for p in ("1:8", "blocks")
        for unit in ("instructions", "cycles")
    )
    return Outcome(figure, holds)

"""Sparse weights: patterns, kernels that use them, refusals, training that keeps them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from edgekit_runtime import EdgeKitRuntimeError, Session
from package_cases import repaired

from edgekit import contents, pipeline
from edgekit.compress.sparsify import sparsify
from edgekit.errors import UsageError
from edgekit.ir import Graph, Tensor
from edgekit.layout import BLOCKS, NM, Target
from edgekit.train import fit

F = np.float32
DSP = Target(("dsp",), linux=False)
PATTERNS = [("1:8", 7 / 8), ("1:4", 3 / 4), ("2:16", 7 / 8), ("blocks", 0.9)]


def net(width: int = 64) -> Graph:
    """Four layers: pointwise, 3x3, pointwise, linear."""
    rng = np.random.default_rng(5)
    g = Graph("net", inputs=["x"])
    g.add_tensor(Tensor("x", (1, 6, 6, 16)))

    def w(*shape: int) -> str:
        return g.const("w", (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(F))

    relu = {"lo": 0.0}
    y = g.emit("conv2d", ["x", w(width, 1, 1, 16), w(width)], relu, name="first")
    pad = {"pad": (1, 1, 1, 1), **relu}
    y = g.emit("conv2d", [y, w(width, 3, 3, width), w(width)], pad, name="wide")
    y = g.emit("conv2d", [y, w(40, 1, 1, width), w(40)], relu, name="point")
    y = g.emit("reshape", [y], {"shape": (1, 36 * 40)}, name="flat")
    y = g.emit("linear", [y, w(24, 36 * 40), w(24)], relu, name="deep")
    g.outputs = [g.emit("linear", [y, w(3, 24), w(3)], {}, name="last")]
    return g


def calibration() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(size=(16, 6, 6, 16)).astype(F)}


@pytest.mark.parametrize(("pattern", "zeros"), PATTERNS)
def test_pattern_holds(pattern: str, zeros: float) -> None:
    got = sparsify(net(), Target(("avx512vnni",)), pattern)
    assert set(got.layers) == {"wide", "point", "deep"}
    assert set(got.dense) == {"first", "last"}
    for name, share in got.layers.items():
        assert share == pytest.approx(zeros, abs=0.02), name
    if ":" in pattern:
        n, m = map(int, pattern.split(":"))
        w = got.graph.value(next(o for o in got.graph.ops if o.name == "wide").inputs[1])
        assert w is not None
        assert (w.reshape(64, -1, m) != 0).sum(2).max() == n


@pytest.mark.parametrize("pattern", ["1:8", "blocks"])
@pytest.mark.parametrize("isa", ["avx512vnni", "dsp"])
def test_sparse_form_is_smaller_and_gives_the_dense_bits(pattern: str, isa: str) -> None:
    target = Target((isa,), linux=isa != "dsp")
    g = sparsify(net(), target, pattern).graph
    built = pipeline.build(g, precision="int8", calibration=calibration())
    sparse = pipeline.package_graph(built.graph, target)
    dense = pipeline.package_graph(built.graph, Target(("mve",)))  # has no sparse kernels
    kinds = {
        v.layout.encoding & 0xFF
        for t in contents.read(sparse).entries[0].graph.tensors.values()
        for v in t.variants
    }
    assert (NM if pattern == "1:8" else BLOCKS) in kinds
    assert len(sparse) < 0.6 * len(dense)
    x = calibration()["x"][:1]
    with Session(sparse) as a, Session(dense, isa=[]) as b:
        ya, yb = a.run(x), b.run(x)
    assert all(np.array_equal(ya[n], yb[n]) for n in yb)


def test_refused_where_it_does_not_pay() -> None:
    with pytest.raises(UsageError, match=r"will not pay.*its kernels read dense weights only"):
        sparsify(net(), Target(("neon",)), "1:8")
    with pytest.raises(UsageError, match="gains from at most 8 of 64"):
        sparsify(net(), DSP, "1:4")


@pytest.mark.parametrize("pattern", ["0.9", "8:8", "0:4", "1:7", "unstructured"])
def test_unknown_pattern(pattern: str) -> None:
    with pytest.raises(UsageError, match="is unknown"):
        sparsify(net(), DSP, pattern)


def test_names_that_match_no_op_are_refused() -> None:
    with pytest.raises(UsageError, match="'nope' matches no op"):
        sparsify(net(), DSP, "1:8", exclude=["nope"])


def test_build_says_how_zeros_are_stored() -> None:
    g = sparsify(net(), DSP, "1:8").graph
    m4 = pipeline.build(g, board="qemu_mps2_an386", precision="int8", calibration=calibration()).log
    assert any("wide: 88% of its weights are 0, stored as 8 of 64" in line for line in m4)
    pi = pipeline.build(g, board="qemu_arm64", precision="int8", calibration=calibration()).log
    assert any("wide: 88% of its weights are 0, stored dense" in line for line in pi)


def test_training_keeps_zeros() -> None:
    g = sparsify(net(), Target(("avx512vnni",)), "1:8").graph
    rng = np.random.default_rng(0)
    x = {"x": rng.normal(size=(32, 6, 6, 16)).astype(F)}
    y = rng.integers(0, 3, 32)
    after = fit.fit(g, x, y, fit.Options(steps=5, batch=8, rate=0.01)).constants
    for op in g.ops:
        w = g.value(op.inputs[1]) if len(op.inputs) > 1 else None
        if w is None:
            continue
        assert not np.array_equal(after[op.inputs[1]], w)
        if op.name in ("wide", "point", "deep"):
            assert not after[op.inputs[1]][w == 0].any()


@pytest.mark.parametrize("pattern", ["1:8", "blocks"])
def test_hostile_lists_stay_inside(pattern: str) -> None:
    """Places past a row are harmless, a count past the file is refused."""
    g = sparsify(net(), DSP, pattern).graph
    built = pipeline.build(g, precision="int8", calibration=calibration())
    blob = pipeline.package_graph(built.graph, DSP)
    parts = contents.read(blob)
    packed = [t for t in parts.entries[0].graph.tensors.values() if t.variants]
    v = next(v for t in packed for v in t.variants if v.layout.sparse)
    at = blob.index(v.blob) + 8 * v.layout.nr
    place = (at, "B", 0xFF) if pattern == "1:8" else (at + 4, "H", 0xFFFF)
    x = calibration()["x"][:1]
    for isa in ([], None):
        with Session(_with(blob, place), isa=isa) as s:
            s.run(x)
    if pattern == "blocks":
        with pytest.raises(EdgeKitRuntimeError):
            Session(_with(blob, (at, "I", 0x7FFF)))


def _with(blob: bytes, change: tuple[int, str, int]) -> bytes:
    broken = bytearray(blob)
    struct.pack_into("<" + change[1], broken, change[0], change[2])
    return repaired(broken)

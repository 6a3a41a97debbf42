"""Bits per layer: exact against brute force, damages that mean something, graphs in files."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from test_reconstruct import residual_net, samples

from edgekit import evaluate, pipeline
from edgekit.compress import allocate, quantize, store
from edgekit.compress.allocate import Option
from edgekit.errors import DataError
from edgekit.layout import Target

pytest.importorskip("torch")


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_that_of_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = [
        [Option(f"l{i}", b, int(rng.integers(1, 40)) * 16, float(rng.random())) for b in (8, 4, 2)]
        for i in range(6)
    ]
    every = [
        (sum(o.bytes for o in pick), sum(o.damage for o in pick))
        for pick in itertools.product(*table)
    ]
    found = allocate.front(table)
    for budget in range(100, 4000, 50):
        fitting = [d for b, d in every if b <= budget]
        got = allocate.within(found, budget)
        assert (got is None) == (not fitting)
        if got is not None:
            assert got.bytes <= budget and got.damage == pytest.approx(min(fitting))
            options = {(o.op, o.bits): o for row in table for o in row}
            taken = [options[item] for item in got.bits.items()]
            assert sum(o.bytes for o in taken) == got.bytes
    ends = allocate.spread(found, 4)
    assert ends[0] == found[0] and ends[-1] == found[-1] and len(ends) <= 4


def test_fewer_bits_do_more_damage_in_fewer_bytes() -> None:
    g = residual_net()
    table = allocate.sensitivity(g, {"x": samples(16)}, Target())
    assert [row[0].op for row in table] == ["stem", "c1", "c2", "down", "fc"]
    for row in table:
        assert [o.bits for o in row] == [8, 4, 2]
        assert row[0].bytes > row[1].bytes > row[2].bytes
        assert row[0].damage < row[1].damage < row[2].damage


@pytest.mark.parametrize("layouts", [(), ("dsp",), ("neon", "dotprod", "i8mm")])
def test_bytes_are_those_of_the_package(layouts: tuple[str, ...]) -> None:
    """Two packages that differ in one layer's bits differ by what the table says."""
    g, target = residual_net(), Target(layouts)
    from test_reconstruct import observed

    seen = observed(g)
    table = allocate.sensitivity(g, {"x": samples(4)}, target, (8, 4))
    for row in table:
        size = {}
        for o in row:
            q, _ = quantize.quantize(g, seen, bits={o.op: o.bits})
            size[o.bits] = len(pipeline.package_graph(q, target))
        said = row[0].bytes - row[1].bytes
        assert abs(size[8] - size[4] - said) <= 128  # sections and constants are padded


def test_a_graph_comes_back_from_its_file(tmp_path: Path) -> None:
    from test_reconstruct import observed

    g, x = residual_net(), samples(1)
    q, _ = quantize.quantize(g, observed(g), bits={"c1": 4})
    for graph in (g, q):
        path = tmp_path / "g.npz"
        path.write_bytes(store.dumps(graph))
        back = store.load(path)
        assert back.ops == graph.ops
        assert {n: t.quant for n, t in back.tensors.items()} == {
            n: t.quant for n, t in graph.tensors.items()
        }
        a, b = evaluate.outputs(graph, {"x": x}), evaluate.outputs(back, {"x": x})
        assert all(np.array_equal(a[k], b[k]) for k in a)
        assert pipeline.package_graph(back, Target()) == pipeline.package_graph(graph, Target())
    path.write_bytes(store.dumps(g)[:100])
    with pytest.raises(DataError):
        store.load(path)

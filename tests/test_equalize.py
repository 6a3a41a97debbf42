"""Equalization: the same function, ranges of one size, less noise in int8."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit import boards, evaluate, pipeline, recipe
from edgekit.compress import calibrate, quantize
from edgekit.compress.equalize import equalize, pairs
from edgekit.errors import UsageError
from edgekit.ir import Array, Graph, Tensor
from edgekit.recipe.run import Run
from edgekit.recipe.samples import material

F = np.float32


def separable(bound: float = np.inf) -> Graph:
    """conv - depthwise - conv - linear; the channels of the first two differ by factors of 30."""
    rng = np.random.default_rng(0)
    g = Graph("separable")
    g.add_tensor(Tensor("x", (1, 8, 8, 3)))
    g.inputs = ["x"]
    spread = np.geomspace(1, 30, 16)
    attrs: dict[str, Any] = {"pad": (1, 1, 1, 1), "lo": 0.0, "hi": bound}

    def bias(n: int) -> str:
        return g.const("b", (0.01 * rng.normal(size=n)).astype(F))

    w = rng.normal(size=(16, 3, 3, 3)) * spread[:, None, None, None] / 5
    a = g.emit("conv2d", ["x", g.const("w", w.astype(F)), bias(16)], attrs, name="a")
    w = rng.normal(size=(3, 3, 16)) / 3
    d = g.emit("depthwise_conv2d", [a, g.const("w", w.astype(F)), bias(16)], attrs, name="d")
    w = rng.normal(size=(8, 1, 1, 16)) / spread
    c = g.emit("conv2d", [d, g.const("w", w.astype(F)), bias(8)], {"lo": 0.0}, name="c")
    m = g.emit("reduce", [c], {"kind": "mean", "axes": 6}, name="m")
    w = rng.normal(size=(5, 8))
    g.outputs = [g.emit("linear", [m, g.const("w", w.astype(F)), bias(5)], name="fc")]
    return g


def samples(n: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(1, 8, 8, 3)).astype(F)} for _ in range(n)]


def equalized(g: Graph) -> tuple[Graph, dict[str, float]]:
    with pipeline.every_tensor(g, pipeline.target_of(boards.load("host"))) as run:
        return equalize(g, run, samples(24))


@pytest.mark.parametrize("bound", [np.inf, 6.0])
def test_the_function_stays(bound: float) -> None:
    g = separable(bound)
    e, factors = equalized(g)
    assert factors.keys() == {"a", "d"} == pairs(g).keys() and factors["a"] > 2
    for x in samples(24):
        want, got = (evaluate.outputs(h, x)["fc"] for h in (g, e))
        assert np.allclose(got, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())
    assert g.ops == separable(bound).ops  # the graph that was given is left alone


def test_int8_loses_less() -> None:
    g = separable()

    def error(h: Graph) -> float:
        seen = calibrate.observe(h, lambda i: evaluate.run(h, i) | i, lambda: iter(samples(24)))
        q, _ = quantize.quantize(h, seen)
        got = [evaluate.outputs(q, x)[q.outputs[0]] for x in samples(24)]
        want = [evaluate.outputs(g, x)["fc"] for x in samples(24)]
        return float(np.mean((np.array(got) - np.array(want)) ** 2))

    assert error(equalized(g)[0]) < 0.5 * error(g)


def test_what_others_read_is_not_scaled() -> None:
    g = separable()
    d = next(op for op in g.ops if op.name == "d")
    g.outputs = [*g.outputs, g.emit("unary", [d.inputs[0]], {"kind": "sigmoid"}, name="s")]
    assert pairs(g).keys() == {"d"}


def test_as_a_setting_of_a_recipe() -> None:
    """Less noise on the native kernels; where there is nothing to scale, an error."""
    pytest.importorskip("torch")
    x = np.concatenate([s["x"] for s in samples(24)])
    g = separable()
    made = material({"x": x}, g)
    run = Run(g, made, boards.load("host"))
    plain = run.run((recipe.Step("quantize", {}),))[1][-1]
    better = run.run((recipe.Step("quantize", {"equalize": True}),))[1][-1]
    assert better.sqnr_db > plain.sqnr_db
    flat = Graph("flat")
    flat.add_tensor(Tensor("x", (1, 8)))
    flat.inputs = ["x"]
    flat.outputs = [flat.emit("linear", ["x", flat.const("w", np.eye(8, dtype=F))], name="y")]
    one = material({"x": np.random.default_rng(0).normal(size=(8, 8)).astype(F)}, flat)
    with pytest.raises(UsageError, match="equalize changed nothing"):
        Run(flat, one, boards.load("host")).run((recipe.Step("quantize", {"equalize": True}),))

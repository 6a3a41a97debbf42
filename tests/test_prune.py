"""Structured pruning: the pruned graph equals the masked one, or says why a group stays whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from package_cases import conv_net
from test_reconstruct import residual_net

from edgekit import boards, cost, evaluate, frontends, passes, pipeline
from edgekit.compress import channels, prune
from edgekit.errors import UsageError
from edgekit.ir import Graph, Tensor

MODELS = Path(__file__).parents[1] / ".." / "shared" / "data" / "models"
F = np.float32


def equal(graph: Graph, cut: prune.Pruned) -> None:
    rng = np.random.default_rng(0)
    x: dict[str, Any] = {n: rng.normal(size=graph.tensors[n].shape).astype(F) for n in graph.inputs}
    want, got = evaluate.outputs(prune.masked(graph, cut), x), evaluate.outputs(cut.graph, x)
    for n in graph.outputs:
        assert np.abs(want[n] - got[n]).max() <= 1e-5 * max(1.0, np.abs(want[n]).max())


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
@pytest.mark.parametrize("net", [lambda: residual_net(8, 16), lambda: separable(), lambda: gated()])
def test_pruned_equals_masked(net: Any, share: float) -> None:
    g = net()
    cut = prune.prune(g, share, granule=4)
    equal(g, cut)
    assert pipeline.macs(cut.graph) < pipeline.macs(g)
    assert all(m.sum() % 4 == 0 for m in cut.masks.values())


def separable() -> Graph:
    """conv - depthwise - pointwise - hardswish - pool - linear."""
    rng = np.random.default_rng(1)
    g = Graph("separable")
    g.add_tensor(Tensor("x", (1, 8, 8, 3)))
    g.inputs = ["x"]

    def w(*shape: int) -> str:
        return g.const("w", (rng.normal(size=shape) / 3).astype(F))

    pad = {"pad": (1, 1, 1, 1)}
    a = g.emit("conv2d", ["x", w(16, 3, 3, 3), w(16)], {**pad, "lo": 0.0}, name="a")
    b = g.emit("depthwise_conv2d", [a, w(3, 3, 16), w(16)], pad, name="b")
    c = g.emit("conv2d", [b, w(24, 1, 1, 16)], {}, name="c")
    d = g.emit("unary", [c], {"kind": "hardswish"}, name="d")
    e = g.emit("max_pool2d", [d], {"kernel": (2, 2), "stride": (2, 2)}, name="e")
    f = g.emit("binary", [e, g.const("k", rng.normal(size=24).astype(F))], {"kind": "mul"})
    m = g.emit("reduce", [f], {"kind": "mean", "axes": 6}, name="m")
    r = g.emit("reshape", [m], {"shape": (1, 24)}, name="r")
    g.outputs = [g.emit("linear", [r, w(5, 24), w(5)], {}, name="y")]
    return g


def gated() -> Graph:
    """Squeeze and excitation: a gate per channel multiplies the block's output."""
    rng = np.random.default_rng(2)
    g = Graph("gated")
    g.add_tensor(Tensor("x", (1, 6, 6, 4)))
    g.inputs = ["x"]

    def conv(x: str, co: int, name: str, **attrs: Any) -> str:
        w = rng.normal(size=(co, 1, 1, g.tensors[x].shape[3])) / 2
        return g.emit("conv2d", [x, g.const("w", w.astype(F))], attrs, name=name)

    a = conv("x", 16, "a", lo=0.0)
    s = g.emit("reduce", [a], {"kind": "mean", "axes": 6, "keepdims": 1}, name="s")
    gate = g.emit("unary", [conv(conv(s, 8, "down", lo=0.0), 16, "up")], {"kind": "sigmoid"})
    b = g.emit("binary", [a, gate], {"kind": "mul"}, name="scaled")
    g.outputs = [conv(b, 3, "out")]
    return g


def family(graph: Graph, maker: str) -> prune.Family:
    return next(f for f in prune.families(channels.label(graph)) if maker in f.makers)


def test_tied_channels_leave_together() -> None:
    found = family(residual_net(8, 16), "stem")
    assert set(found.makers) == {"stem", "c2"} and not found.kept
    assert set(family(gated(), "a").makers) == {"a", "up"}


def test_what_cannot_go_is_named() -> None:
    assert "output" in family(separable(), "y").kept
    with pytest.raises(UsageError, match=r"no channel can be pruned \(fc: an output"):
        prune.prune(linear_net(), 0.5)
    with pytest.raises(UsageError, match="share"):
        prune.prune(residual_net(), 1.5)


def linear_net() -> Graph:
    g = Graph("linear")
    g.add_tensor(Tensor("x", (1, 8)))
    g.inputs = ["x"]
    g.outputs = [g.emit("linear", ["x", g.const("w", np.ones((4, 8), F))], {}, name="fc")]
    return g


def test_a_flattened_image_loses_all_pixels_of_a_channel() -> None:
    g = conv_net(channels=16)
    cut = prune.prune(g, 0.5, granule=8)
    equal(g, cut)
    assert cut.masks["conv"].sum() == 8


def test_the_masked_graph_is_not_the_whole_one() -> None:
    g = residual_net(8, 16)
    cut = prune.prune(g, 0.5, granule=4)
    x = {"x": np.random.default_rng(0).normal(size=g.tensors["x"].shape).astype(F)}
    whole, less = evaluate.outputs(g, x), evaluate.outputs(prune.masked(g, cut), x)
    assert np.abs(whole["fc"] - less["fc"]).max() > 1e-2


def test_a_layer_can_leave() -> None:
    g = residual_net(8, 16)
    (layer,) = [x for x in prune.layers(g) if x.add == "add"]
    assert set(layer.ops) == {"c1", "c2"}
    cut = prune.prune(g, granule=8, budget=0.7, drops={"add": 1e-6})
    assert [x.add for x in cut.layers] == ["add"]
    assert not {"c1", "c2"} & {op.name for op in cut.graph.ops}
    equal(g, cut)


@pytest.mark.parametrize("count", [prune.macs, prune.tiles(16)])
def test_a_budget_is_met_with_the_least_damage(count: prune.Cost) -> None:
    g = residual_net(16, 32)
    scores = prune.norms(g)
    cut = prune.prune(g, granule=4, budget=0.5, scores=scores, cost=count)

    def total(graph: Graph) -> float:
        sizes = [
            (op, *(graph.tensors[op.inputs[1]].shape[i] for i in (0, -1)))
            for op in graph.ops
            if op.type in ("conv2d", "linear")
        ]
        return sum(count(graph, op, n, m) for op, n, m in sizes)

    assert 0.3 * total(g) < total(cut.graph) <= 0.5 * total(g)
    equal(g, cut)
    assert all(m.sum() % 4 == 0 for m in cut.masks.values())
    with pytest.raises(UsageError, match="reaches"):
        prune.prune(g, granule=16, budget=0.01)


def test_a_boards_latency_is_halved_by_its_model() -> None:
    """All ops count, as `edgekit.cost` predicts them for the cut graph itself."""
    board = boards.load("rpi5")
    g = residual_net(16, 32)
    cut = prune.prune(g, granule=4, budget=0.5, whole=prune.modelled(board))
    before, after = (cost.predict(x, board) for x in (g, cut.graph))
    assert before and after and 0.4 * before.cycles < after.cycles <= 0.5 * before.cycles
    equal(g, cut)
    assert prune.modelled(replace(board, isa=())) is None


@pytest.mark.parametrize(
    "name",
    [
        "resnet20_cifar10.onnx", "pretrainedResnet.tflite", "kws_ref_model_float32.tflite",
        "ad01_fp32.tflite",
    ],
)  # fmt: skip
def test_real_models(name: str) -> None:
    if not (MODELS / name).exists():
        pytest.skip("shared data are not here")
    g = passes.simplify_all(frontends.load(MODELS / name))[0]
    cut = prune.prune(g, 0.5)
    equal(g, cut)
    assert pipeline.macs(cut.graph) < 0.8 * pipeline.macs(g)

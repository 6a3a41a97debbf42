"""Structured pruning: the pruned graph equals the masked one, or says why a group stays whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from package_cases import conv_net
from test_reconstruct import residual_net

from edgekit import evaluate, frontends, passes, pipeline
from edgekit.compress import prune
from edgekit.errors import UsageError
from edgekit.ir import Graph, Tensor

MODELS = Path(__file__).parents[1] / ".." / "shared" / "data" / "models"
F = np.float32


def masked(graph: Graph, cut: prune.Pruned) -> Graph:
    """The whole graph with the weights that read pruned channels set to zero."""
    g = graph.copy()
    for group in prune.groups(graph):
        mask = cut.masks.get(group.tensors[0])
        for op in group.readers if mask is not None else []:
            t = g.tensors[op.inputs[1]]
            assert t.data is not None and mask is not None
            g.tensors[t.name] = replace(t, data=(t.data * mask).astype(F))
    return g


def equal(graph: Graph, cut: prune.Pruned) -> None:
    rng = np.random.default_rng(0)
    x: dict[str, Any] = {n: rng.normal(size=graph.tensors[n].shape).astype(F) for n in graph.inputs}
    want, got = evaluate.outputs(masked(graph, cut), x), evaluate.outputs(cut.graph, x)
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


def test_tied_channels_leave_together() -> None:
    g = residual_net(8, 16)
    group = next(x for x in prune.groups(g) if "add" in x.tensors)
    assert {op.name for op in group.makers} == {"stem", "c2"} and not group.kept
    gate = next(x for x in prune.groups(gated()) if "scaled" in x.tensors)
    assert {op.name for op in gate.makers} == {"a", "up"}


def test_what_cannot_go_is_named() -> None:
    g = conv_net(channels=16)  # its flatten mixes positions and channels
    why = {t: x.kept for x in prune.groups(g) for t in x.tensors}
    assert "reshape" in why["conv"] and "input" in why["x"]
    with pytest.raises(UsageError, match=r"no channel can be pruned.*reshape"):
        prune.prune(g, 0.5)
    with pytest.raises(UsageError, match="share"):
        prune.prune(residual_net(), 1.5)


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

"""Weights by group: scales, error-aware rounding, scaling that changes nothing, native integers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from edgekit_runtime import Session

from edgekit import boards, evaluate, pipeline
from edgekit.compress import groups
from edgekit.errors import ModelError, UsageError
from edgekit.ir import Array, Graph, Tensor
from edgekit.layout import Target

F = np.float32
HOST = pipeline.target_of(boards.load("host"))
LINEAR = ["gate", "up", "down"]


def gated(k: int = 48, hidden: int = 80) -> Graph:
    """norm - two linear ops, one through silu - their product - linear: a decoder's second half.
    One channel in eight is much larger than the others."""
    rng = np.random.default_rng(0)
    g = Graph("gated")
    g.add_tensor(Tensor("x", (1, 6, k)))
    g.inputs = ["x"]
    gain = np.where(np.arange(k) % 8 == 3, 12.0, 1.0) * rng.uniform(0.5, 1.5, k)
    h = g.emit("layer_norm", ["x", g.const("gain", gain.astype(F))], {"rms": 1}, name="norm")

    def linear(x: str, n: int, name: str, size: float = 1.0) -> str:
        m = g.tensors[x].shape[-1]
        w = g.const("w", (size * rng.standard_t(4, size=(n, m)) / np.sqrt(m)).astype(F))
        return g.emit("linear", [x, w], name=name)

    a = g.emit("unary", [linear(h, hidden, "gate")], {"kind": "silu"}, name="act")
    p = g.emit("binary", [a, linear(h, hidden, "up")], {"kind": "mul"}, name="product")
    g.outputs = [linear(p, k, "down", 0.05)]
    return g


def samples(n: int = 40) -> list[dict[str, Array]]:
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(48, 48)) * rng.uniform(0.1, 1, 48)
    return [{"x": (rng.normal(size=(1, 6, 48)) @ mix).astype(F)} for _ in range(n)]


@pytest.fixture(scope="module")
def inputs() -> Iterator[dict[str, Array]]:
    g = gated()
    with pipeline.every_tensor(g, HOST) as run:
        yield groups.moments(g, run, samples(), LINEAR)


def error(g: Graph) -> float:
    """Of the outputs, over their power, on fresh inputs."""
    plain, total, power = gated(), 0.0, 0.0
    for x in samples(60)[40:]:
        want = evaluate.outputs(plain, x)["down"]
        total += float(((evaluate.outputs(g, x)[g.outputs[0]] - want) ** 2).sum())
        power += float((want**2).sum())
    return total / power


def test_each_step_leaves_less_error(inputs: dict[str, Array]) -> None:
    by_bits = {b: error(groups.weights_only(gated(), b)[0]) for b in (8, 4, 2)}
    assert by_bits[8] < 1e-3 < by_bits[4] < by_bits[2]
    learned, layers = groups.weights_only(gated(), 4, inputs=inputs)
    assert error(learned) < 0.7 * by_bits[4]
    assert [la.op for la in layers] == LINEAR and any(la.power > 0 for la in layers)


def test_second_moments_beat_nearest_rounding(inputs: dict[str, Array]) -> None:
    g = gated()
    op = next(op for op in g.ops if op.name == "gate")
    w, moment = g.value(op.inputs[1]), inputs[op.inputs[0]]
    assert w is not None
    found = []
    for q, spec in (
        groups.nearest(w, 4, 16),
        groups.nearest(w, 4, 16, np.diag(moment)),
        groups.gptq(w, moment, 4, 16),
    ):
        assert q.min() >= -8 and q.max() <= 7 and spec.scale.shape == (80, 3)
        assert not np.any(spec.scale.view(np.uint32) & 0xFFFF)  # bfloat16
        found.append(groups.loss(w, spec.dequantize(q), moment))
    assert found[0] > found[1] > found[2]


def test_scaling_keeps_what_the_graph_computes(inputs: dict[str, Array]) -> None:
    """At 8 bits next to nothing is lost, so factors that were not folded back would show."""
    g, layers = groups.weights_only(gated(), 8, inputs=inputs, widths={"down": 4, "gate": 4})
    assert all(la.power > 0 for la in layers if la.op == "down")
    assert error(g) < 0.02
    moved = [n for n in g.tensors if n.startswith("gain")]
    new, old = g.value(moved[0]), gated().value("gain")
    assert new is not None and old is not None and not np.array_equal(new, old)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_the_native_runtime_gives_the_same_bits(bits: int, inputs: dict[str, Array]) -> None:
    g, _ = groups.weights_only(gated(), bits, inputs=inputs)
    g.ops, g.outputs = [op for op in g.ops if op.name == "down"], ["down"]
    g.inputs = [g.ops[0].inputs[0]]
    g.drop_unused()
    x = {g.inputs[0]: np.random.default_rng(2).normal(size=(1, 6, 80)).astype(F)}
    want = evaluate.outputs(g, x)["down"]
    for target in (Target(), HOST):
        with Session(pipeline.package_graph(g, target)) as s:
            assert np.array_equal(s.run(x)["down"], want)


def test_build_takes_it_and_refuses_what_it_cannot() -> None:
    x = np.concatenate([s["x"] for s in samples()])
    built = pipeline.build(gated(), precision="w4", calibration={"x": x})
    plain = pipeline.build(gated(), precision="w4")
    whole = pipeline.build(gated(), precision="float32")
    assert len(built.data) < 0.3 * len(whole.data)
    assert error(built.graph) < error(plain.graph)
    with pytest.raises(UsageError, match="groups of 20"):
        groups.weights_only(gated(), 4, 20)
    bare = Graph("bare")
    bare.add_tensor(Tensor("x", (1, 4)))
    bare.inputs = ["x"]
    bare.outputs = [bare.emit("unary", ["x"], {"kind": "abs"}, name="y")]
    with pytest.raises(ModelError, match="nothing would change"):
        groups.weights_only(bare, 4)


def test_learning_lessens_what_rounding_left(inputs: dict[str, Array]) -> None:
    pytest.importorskip("torch")
    plain = gated()
    start, _ = groups.weights_only(plain, 2, inputs=inputs)
    x = np.concatenate([s["x"] for s in samples(1000)[:960]])
    learned, (before, after) = groups.learn(
        plain, start, {"x": x}, groups.Options(steps=120, rate=0.03)
    )
    assert after < 0.8 * before
    names = [n for n, t in learned.tensors.items() if t.quant is not None and t.quant.group]
    assert len(names) == 3
    moved = 0
    for n in names:
        q, spec = learned.tensors[n].data, learned.tensors[n].quant
        old = start.tensors[n].data
        assert q is not None and spec is not None and old is not None
        assert q.min() >= -2 and q.max() <= 1 and not np.any(spec.scale.view(np.uint32) & 0xFFFF)
        moved += int((q != old).sum())
    assert moved
    gain = next(op.inputs[1] for op in start.ops if op.type == "layer_norm")
    assert not np.array_equal(learned.value(gain), start.value(gain))
    fresh = samples(1000)[960:]

    def divergence(g: Graph) -> float:
        total = 0.0
        for s in fresh:
            p, q = (evaluate.outputs(h, s)[h.outputs[0]].astype(np.float64) for h in (plain, g))
            p, q = (a - np.log(np.exp(a).sum(-1, keepdims=True)) for a in (p, q))
            total += float((np.exp(p) * (p - q)).sum(-1).mean())
        return total

    assert divergence(learned) < divergence(start)

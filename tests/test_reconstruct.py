"""Learned rounding: blocks, the loss it removes, the integers it hands on; the differentiable form
of graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edgekit_runtime import Session

from edgekit import evaluate, ops, pipeline, torchnet
from edgekit.compress import calibrate, quantize, reconstruct, widths
from edgekit.errors import DataError, ModelError
from edgekit.ir import Array, Graph, Op, Tensor
from edgekit.layout import Target

torch = pytest.importorskip("torch")
F = np.float32
BITS = {"c1": 4, "c2": 4, "down": 4, "fc": 4}


def residual_net(side: int = 8, c: int = 8) -> Graph:
    """stem - (conv conv + add) - strided conv - mean - linear; random weights of equal gain."""
    rng = np.random.default_rng(0)
    g = Graph("residual")
    g.add_tensor(Tensor("x", (1, side, side, 3)))
    g.inputs = ["x"]

    def conv(x: str, name: str, co: int, k: int, relu: bool, stride: int = 1) -> str:
        ci = g.tensors[x].shape[3]
        w = rng.normal(size=(co, k, k, ci)) * np.sqrt(2 / (k * k * ci))
        attrs: dict[str, Any] = {"pad": (k // 2,) * 4, "stride": (stride, stride)}
        attrs |= {"lo": 0.0} if relu else {}
        bias = g.const("b", (rng.normal(size=co) * 0.1).astype(F))
        return g.emit("conv2d", [x, g.const("w", w.astype(F)), bias], attrs, name=name)

    a = conv("x", "stem", c, 3, True)
    b = conv(conv(a, "c1", c, 3, True), "c2", c, 3, False)
    d = g.emit("binary", [a, b], {"kind": "add", "lo": 0.0}, name="add")
    e = conv(d, "down", 2 * c, 3, True, 2)
    m = g.emit("reduce", [e], {"kind": "mean", "axes": 6}, name="mean")
    w = (rng.normal(size=(5, 2 * c)) / np.sqrt(2 * c)).astype(F)
    g.outputs = [g.emit("linear", [m, g.const("w", w), g.const("b", np.zeros(5, F))], name="fc")]
    return g


def samples(n: int) -> Array:
    return np.random.default_rng(1).normal(size=(n, 8, 8, 3)).astype(F)


def observed(g: Graph, n: int = 32, levels: int = 255) -> dict[str, calibrate.Observed]:
    def feed() -> Any:
        return ({"x": a[None]} for a in samples(n))

    return calibrate.observe(g, lambda i: evaluate.run(g, i) | i, feed, "mse", levels)


def prepared(
    g: Graph, bits: dict[str, int] = BITS
) -> tuple[Graph, dict[str, Any], dict[str, calibrate.Observed]]:
    """Nearest-rounding graph, activation specs, ranges."""
    seen = observed(g)
    q, names = quantize.quantize(g, seen, bits=bits)
    return q, {f: q.tensors[n].quant for f, n in names.items()}, seen


def test_blocks_end_where_one_activation_is_alive() -> None:
    g = residual_net()
    weighted = {"stem", "c1", "c2", "down", "fc"}
    found = [[op.name for op in b] for b in reconstruct.blocks(g, weighted, least=1)]
    assert found == [["stem"], ["c1", "c2", "add"], ["down"], ["mean", "fc"]]
    pairs = [[op.name for op in b] for b in reconstruct.blocks(g, weighted)]
    assert pairs == [["stem", "c1", "c2", "add"], ["down", "mean", "fc"]]


@pytest.mark.parametrize(("window", "rank"), [(1, 0), (2, 0), (1, 4), (2, 4)])
def test_learned_rounding_removes_loss(window: int, rank: int) -> None:
    g = residual_net()
    bits = {"c1": 2, "c2": 2, "down": 2}
    nearest, specs, seen = prepared(g, bits)
    x = {"x": samples(384)}
    options = reconstruct.Options(steps=120, window=window, rank=rank)
    r = reconstruct.reconstruct(g, specs, bits, x, options)
    assert r.blocks[0].after < r.blocks[0].before  # later blocks start from what a window learned
    learned, _ = quantize.quantize(g, seen, bits=bits, given=r.given)
    fresh = np.random.default_rng(9).normal(size=(48, 1, 8, 8, 3)).astype(F)

    def error(q: Graph) -> float:
        name = q.outputs[0]
        pairs = [(evaluate.run(g, {"x": a})["fc"], evaluate.run(q, {"x": a})[name]) for a in fresh]
        return float(np.mean([(a - b) ** 2 for a, b in pairs]))

    left = 0.85 if rank else 0.6  # a low rank has a fifth of the freedom
    assert error(learned) < left * error(nearest)
    for name, given in r.given.items():
        low = -2 if name in bits else -127
        assert given.weights.min() >= low and given.weights.max() <= -low
        w = g.value(next(op for op in g.ops if op.name == name).inputs[1])
        assert w is not None
        off = np.abs(given.weights - np.clip(w / given.spec.broadcast(w.ndim)[0], low, -low - 1))
        assert off.max() < 1.01  # each weight is one of its two neighbours


def test_steps_of_narrow_activations_learn_too() -> None:
    """Of 4-bit activations alone, and less of the loss is left than with the steps as observed."""
    g = residual_net()
    seen = observed(g)
    narrow = widths.narrow_specs(g, observed(g, levels=15), ["c1", "c2", "down"], 4)
    q, names = quantize.quantize(g, seen, bits=BITS, ranged=narrow)
    specs = {f: q.tensors[n].quant for f, n in names.items()}
    x = {"x": samples(256)}

    def learned(rate: float, monkeypatch: pytest.MonkeyPatch) -> reconstruct.Reconstructed:
        monkeypatch.setattr(reconstruct, "STEP_RATE", rate)
        return reconstruct.reconstruct(g, specs, BITS, x, reconstruct.Options(steps=120))

    with pytest.MonkeyPatch.context() as patch:
        moved, held = learned(reconstruct.STEP_RATE, patch), learned(0.0, patch)
    assert moved.ranged.keys() == {n for n, s in specs.items() if s is not None and s.bits == 4}
    assert all(held.ranged[n] == specs[n] for n in held.ranged)
    assert all(moved.ranged[n].scale != specs[n].scale for n in moved.ranged)
    assert moved.blocks[-1].after < held.blocks[-1].after
    again, _ = quantize.quantize(
        g, seen, bits=BITS, given=moved.given, ranged=narrow | moved.ranged
    )
    assert any(t.quant == moved.ranged["add"] for t in again.tensors.values())


@pytest.mark.parametrize("softmax", [False, True])
def test_a_whole_net_learns_its_integers_and_all_steps(softmax: bool) -> None:
    """For what it says, softmax or not; the runtime computes what was learned, bit for bit."""
    g = residual_net()
    if softmax:
        g.outputs = [g.emit("softmax", [g.outputs[0]], {}, name="softmax")]
    bits = {"c1": 2, "c2": 2, "down": 2}
    nearest, specs, seen = prepared(g, bits)
    told: list[tuple[int, int]] = []
    r = reconstruct.reconstruct(
        g, specs, bits, {"x": samples(384)},
        reconstruct.Options(steps=200, window=0, drop=0.0, push=5.0),
        progress=lambda _, i, n: told.append((i, n)),
    )  # fmt: skip
    assert told[:2] == [(0, 200), (1, 200)] and len(r.blocks) == 1
    assert r.blocks[0].after < 0.6 * r.blocks[0].before  # on samples that are held out
    learned, _ = quantize.quantize(g, seen, bits=bits, given=r.given, ranged=r.ranged)
    fresh = np.random.default_rng(9).normal(size=(48, 1, 8, 8, 3)).astype(F)

    def error(q: Graph) -> float:
        pairs = [(evaluate.run(g, {"x": a}), evaluate.run(q, {"x": a})) for a in fresh]
        return float(np.mean([(a[g.outputs[0]] - b[q.outputs[0]]) ** 2 for a, b in pairs]))

    assert error(learned) < 0.7 * error(nearest)
    for op in nearest.ops:
        if op.name in r.given:
            first = nearest.tensors[op.inputs[1]].quant
            assert first is not None
            assert (first.scale != r.given[op.name].spec.scale).all(), op.name
    assert "x" not in r.ranged and "softmax" not in r.ranged
    assert all(r.ranged[n].scale != specs[n].scale for n in ("stem", "c1", "add", "down"))
    with Session(pipeline.package_graph(learned, Target(), keep=True)) as s:
        want = evaluate.run(learned, {"x": fresh[0]})
        s.run({"x": fresh[0]})
        assert all(np.array_equal(s.tensor(o), want[o]) for op in learned.ops for o in op.outputs)


def test_what_shares_the_integers_of_an_input_keeps_their_step() -> None:
    g = residual_net()
    stem = g.ops[0]
    g.ops[0] = stem.with_(inputs=("padded", *stem.inputs[1:]), attrs=dict(stem.attrs, pad=(0,) * 4))
    g.add_tensor(Tensor("padded", (1, 10, 10, 3)))
    around = ops.get("pad").fill({"before": (0, 1, 1, 0), "after": (0, 1, 1, 0)})
    g.ops.insert(0, Op("pad", "pad", ("x",), ("padded",), around))
    _, specs, _ = prepared(g)
    assert specs["padded"] == specs["x"]
    options = reconstruct.Options(steps=3, window=0)
    r = reconstruct.reconstruct(g, specs, BITS, {"x": samples(32)}, options)
    assert "padded" not in r.ranged and "stem" in r.ranged


def test_the_learned_integers_are_those_of_the_native_runtime() -> None:
    g = residual_net()
    _, specs, seen = prepared(g)
    options = reconstruct.Options(steps=5)
    r = reconstruct.reconstruct(g, specs, BITS, {"x": samples(32)}, options)
    q, _ = quantize.quantize(g, seen, bits=BITS, given=r.given)
    x = samples(1)
    want = evaluate.run(q, {"x": x})
    with Session(pipeline.package_graph(q, Target(), keep=True)) as s:
        s.run({"x": x})
        assert all(np.array_equal(s.tensor(o), want[o]) for op in q.ops for o in op.outputs)


def test_activations_of_fewer_bits_stay_within_them_natively() -> None:
    g = residual_net()
    ranged = widths.narrow_specs(g, observed(g, levels=15), list(BITS), 4)
    q, names = quantize.quantize(g, observed(g), bits=BITS, ranged=ranged)
    assert {"stem", "c1", "add"} <= ranged.keys() and "x" not in ranged
    with Session(pipeline.package_graph(q, Target(), keep=True)) as s:
        for a in samples(4):
            s.run({"x": a[None]})
            want = evaluate.run(q, {"x": a[None]})
            for n in ranged:
                got = s.tensor(names[n])
                assert np.array_equal(got, want[names[n]]) and got.min() >= -8 and got.max() <= 7


def test_refusals_say_why() -> None:
    g = residual_net()
    _, specs, _ = prepared(g)
    with pytest.raises(DataError, match="32 samples at a time, there are 8"):
        reconstruct.reconstruct(g, specs, BITS, {"x": samples(8)})
    odd = Graph("odd")
    odd.add_tensor(Tensor("x", (1, 4)))
    odd.inputs = ["x"]
    odd.outputs = [odd.emit("unary", ["x"], {"kind": "floor"}, name="f")]
    with pytest.raises(ModelError, match="floor"):
        torchnet.run(odd.ops, torchnet.tensors({"x": np.zeros((1, 4), F)}), {})
    odd.outputs = [odd.emit("tile", ["x"], {"repeats": (1, 2)}, name="t")]
    with pytest.raises(ModelError, match="tile"):
        reconstruct.reconstruct(odd, {}, {}, {"x": np.zeros((32, 4), F)})


def test_torch_form_equals_the_reference() -> None:
    g = residual_net()
    x = samples(3)
    got = torchnet.run(g.ops, torchnet.tensors({"x": x}), torchnet.constants(g))["fc"].numpy()
    want = np.concatenate([evaluate.run(g, {"x": a[None]})["fc"] for a in x])
    assert np.allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("op", sorted(torchnet.FORMS.keys() - {"reshape", "gather"}))
def test_torch_form_of_an_op_equals_its_reference(op: str) -> None:
    """The op's own float cases, those that keep axis 0: forms leave the batch alone."""
    known = 0
    for name, g, x in ops.get(op).samples():
        if not _floats(g):
            continue
        try:
            got = torchnet.run(g.ops, torchnet.tensors(x), torchnet.constants(g))
        except ModelError:
            continue
        for n, want in evaluate.run(g, x).items():
            if g.tensors[n].shape[:1] == g.tensors[g.inputs[0]].shape[:1]:
                assert np.allclose(got[n].numpy(), want, atol=1e-4, rtol=1e-4), name
                known += 1
    assert known


def _floats(g: Graph) -> bool:
    return all(t.dtype in ("f32", "i32", "i64") and t.quant is None for t in g.tensors.values())


def test_a_bias_is_made_where_there_is_none() -> None:
    g = Graph("bare")
    g.add_tensor(Tensor("x", (1, 4)))
    g.inputs = ["x"]
    g.outputs = [g.emit("linear", ["x", g.const("w", np.eye(4, dtype=F))], name="y")]
    made = reconstruct.with_biases(g)
    assert len(made.ops[0].inputs) == 3 and len(g.ops[0].inputs) == 2
    assert np.array_equal(evaluate.run(made, {"x": np.ones((1, 4), F)})["y"], np.ones((1, 4)))

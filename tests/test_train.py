"""Training on the graph: losses fall, integers are those the simulation saw, recipes use it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from edgekit_runtime import Session
from test_reconstruct import residual_net

from edgekit import boards, evaluate, pipeline, recipe, torchnet
from edgekit.compress import quantize
from edgekit.errors import DataError, UsageError
from edgekit.ir import Array
from edgekit.layout import Target
from edgekit.train import fit, net

torch = pytest.importorskip("torch")


def classes(n: int = 360) -> dict[str, Array]:
    """Five classes of noisy patterns."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(5, 8, 8, 3))
    y = rng.integers(0, 5, n)
    x = 0.5 * centres[y] + 0.5 * rng.normal(size=(n, 8, 8, 3))
    return {"x": x.astype(np.float32), "y": y}


def runner(train: int = 200) -> recipe.Run:
    g = residual_net()
    made = recipe.material(classes(), g, calibration=60, test=120, train=train)
    return recipe.Run(g, made, boards.load("host"))


def test_training_samples_are_not_test_samples() -> None:
    m = recipe.material(classes(), residual_net(), calibration=60, test=120, train=1000)
    train = {a.tobytes() for a in m.train["x"]}
    assert len(train) == 240 and not train & {x["x"][0].tobytes() for x in m.test}


def test_a_recipe_trains_then_quantizes_then_trains_the_integers() -> None:
    run = runner()
    text = """
[[step]]
do = "finetune"
steps = 80
rate = 0.01
[[step]]
do = "quantize"
bits = 4
act_bits = 4
[[step]]
do = "qat"
steps = 80
"""
    graph, entries = run.run(recipe.parse(text))
    tuned, rounded, trained = (e.accuracy or 0 for e in entries)
    assert tuned > (run.float_accuracy or 0) + 0.3
    assert trained >= rounded - 0.02 and entries[2].effect.startswith("loss")
    weights = [graph.tensors[op.inputs[1]] for op in graph.ops if op.type == "conv2d"]
    assert [t.quant.bits if t.quant else 0 for t in weights] == [8, 4, 4, 4]


def test_the_integers_are_what_training_evaluated() -> None:
    """The simulation's logits and the native ones differ by two steps at most (adds and means round
    in fixed point on the device, in float in training); the native integers are the reference's."""
    run = runner()
    work = recipe.Work(run.graph)
    run._quantize(work, {"layers": {"c1": 4}})
    x, y = run._training()
    specs = {
        op.name: quantize.quantize_weights(
            work.floating.value(op.inputs[1]), 0, work.bits.get(op.name, 8)
        )[1]
        for op in work.floating.ops
        if op.type in net.WEIGHTED
    }
    sim = net.Simulation(specs, work.specs)
    r = fit.fit(work.floating, x, y, fit.Options(steps=30), simulation=sim)
    given = {n: quantize.Given(*v) for n, v in r.integers.items()}
    q, _ = quantize.quantize(
        work.floating, work.seen, bits=work.bits, ranged=r.activations, given=given
    )
    tuned = work.floating.copy()
    for n, a in r.constants.items():
        tuned.tensors[n] = replace(tuned.tensors[n], data=a)
    job = net.Net(
        tuned,
        net.Simulation({n: v[1] for n, v in r.integers.items()}, r.activations),
    )
    with torch.no_grad():
        want = job.logits(torchnet.tensors({"x": x["x"][:20]})).numpy()
    step = float(r.activations["fc"].scale)
    with Session(pipeline.package_graph(q, Target())) as s:
        got = np.concatenate([s.run({"x": a[None]})[q.outputs[0]] for a in x["x"][:20]])
    assert np.abs(got - want).max() <= 2.01 * step
    assert np.mean(np.abs(got - want) < 0.01 * step) > 0.5
    with Session(pipeline.package_graph(q, Target(), keep=True)) as s:
        s.run({"x": x["x"][:1]})
        ints = evaluate.run(q, {"x": x["x"][:1]})
        assert all(np.array_equal(s.tensor(o), ints[o]) for op in q.ops for o in op.outputs)


def test_a_teacher_alone_teaches() -> None:
    g, rng = residual_net(), np.random.default_rng(0)
    x = rng.normal(size=(64, 8, 8, 3)).astype(np.float32)
    teacher = torchnet.run(g.ops, torchnet.tensors({"x": x}), torchnet.constants(g))["fc"].numpy()
    other = residual_net()
    name = other.ops[-1].inputs[1]
    w = rng.normal(size=other.tensors[name].shape).astype(np.float32)
    other.tensors[name] = replace(other.tensors[name], data=w)
    r = fit.fit(other, {"x": x}, None, fit.Options(steps=60, rate=0.01), teacher=teacher)
    assert r.losses[1] < 0.5 * r.losses[0]


def test_refusals() -> None:
    g = residual_net()
    x = {"x": np.zeros((8, 8, 8, 3), np.float32)}
    with pytest.raises(DataError, match="labels or a teacher"):
        fit.fit(g, x, None, fit.Options(steps=1))
    with pytest.raises(DataError, match="no training samples"):
        runner(train=0).run(recipe.parse("[[step]]\ndo = 'finetune'"))
    with pytest.raises(UsageError, match="changed no weight"):
        runner().run(recipe.parse("[[step]]\ndo = 'finetune'\nrate = 0.0\nsteps = 1"))
    with pytest.raises(UsageError, match="before"):
        runner().run(recipe.parse("[[step]]\ndo = 'qat'"))

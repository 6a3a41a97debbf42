"""Training on the graph: losses fall, integers are those the simulation saw, recipes use it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime import Session
from test_prune import gated, separable
from test_reconstruct import residual_net

from edgekit import boards, evaluate, package, pipeline, recipe, shrink, torchnet
from edgekit.compress import calibrate, prune, quantize, store, widths
from edgekit.errors import DataError, ModelError, UsageError
from edgekit.ir import Array, Graph, Tensor
from edgekit.layout import Target
from edgekit.ops.conv2d import WEIGHTED
from edgekit.recipe.run import Run
from edgekit.recipe.samples import material
from edgekit.recipe.steps import Work, simulation
from edgekit.train import batches, fit, importance, integers, losses, net, precision, repair

torch = pytest.importorskip("torch")


def classes(n: int = 360) -> dict[str, Array]:
    """Five classes of noisy patterns."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(5, 8, 8, 3))
    y = rng.integers(0, 5, n)
    x = 0.5 * centres[y] + 0.5 * rng.normal(size=(n, 8, 8, 3))
    return {"x": x.astype(np.float32), "y": y}


def runner(train: int = 200) -> Run:
    g = residual_net()
    made = material(classes(), g, calibration=60, test=120, train=train)
    return Run(g, made, boards.load("host"))


def test_training_samples_are_not_test_samples() -> None:
    m = material(classes(), residual_net(), calibration=60, test=120, train=1000)
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


def trained_integers(
    run: Run, bits: int, o: fit.Options
) -> tuple[fit._Job, net.Fitted, Graph, dict[str, str]]:
    """A training of integers, and the graph it exports with the names of its tensors."""
    torch.set_num_threads(1)
    work = Work(run.graph)
    run.steps.quantize(work, {"bits": bits} | ({"act_bits": bits} if bits < 8 else {}))
    start, sim = simulation(work)
    job = fit._Job(start, *run.steps._training(), o, None, sim)
    r = job.run(None, None)
    given = {n: widths.Given(*v) for n, v in r.integers.items()}
    q, names = quantize.quantize(
        work.floating, work.seen, bits=work.bits, ranged=r.activations, given=given
    )
    return job, r, q, names


def evaluated(job: fit._Job, q: Graph, names: dict[str, str], few: Array) -> list[Array]:
    """Training's evaluation of samples, every activation checked against the native runtime's."""
    found = []
    with Session(pipeline.package_graph(q, Target(), keep=True)) as s:
        for a in few:
            s.run({"x": a[None]})
            want = integers.run(job.net, {"x": a[None]})
            assert all(np.array_equal(s.tensor(n), want[f]) for f, n in names.items())
            found.append(want[job.net.graph.outputs[0]])
    return found


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("bits", [8, 4])
def test_the_integers_are_what_training_evaluated(bits: int, norms: bool) -> None:
    """Every activation of the exported graph on the native runtime equals training's evaluation,
    batch norms and frozen weights included; the differentiable form is close to both."""
    run = runner()
    o = fit.Options(steps=30, rate=3e-3, norms=norms, freeze=0.05)
    job, r, q, names = trained_integers(run, bits, o)
    assert r.frozen and bool(job.net.norms) == norms
    few, spec = run.samples.train["x"][:20], r.activations["fc"]
    with torch.no_grad():
        near = job.net.logits(torchnet.tensors({"x": few})).numpy()
    whole = spec.dequantize(np.concatenate(evaluated(job, q, names, few)))
    assert np.abs(whole - near).max(1).mean() < (2 if bits == 8 else 8) * float(spec.scale)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("make", [separable, gated])
def test_other_ops_are_evaluated_as_integers(make: Callable[[], Graph], bits: int) -> None:
    """Depthwise, tables, pools, products with constants and with a gate."""
    g, rng = make(), np.random.default_rng(0)
    x = rng.normal(size=(120, *g.tensors["x"].shape[1:])).astype(np.float32)
    y = rng.integers(0, 3, 120)
    made = material({"x": x, "y": y}, g, calibration=30, test=10, train=60)
    run = Run(g, made, boards.load("host"))
    o = fit.Options(steps=10, batch=16, norms=True, rate=3e-3)
    job, _, q, names = trained_integers(run, bits, o)
    outputs = evaluated(job, q, names, x[:10])
    assert len(np.unique(outputs)) > 5


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
    with pytest.raises(DataError, match="from 5 to 5, the model has 5 output"):
        fit.fit(g, x, np.full(8, 5), fit.Options(steps=1))
    x = {"x": np.full((8, 8, 8, 3), 3, np.float32)}
    with pytest.raises(UsageError, match="not finite"):
        fit.fit(g, x, np.zeros(8, int), fit.Options(steps=5, rate=1e30))
    with pytest.raises(DataError, match="no training samples"):
        runner(train=0).run(recipe.parse("[[step]]\ndo = 'finetune'"))
    with pytest.raises(UsageError, match="changed no weight"):
        runner().run(recipe.parse("[[step]]\ndo = 'finetune'\nrate = 1e-60\nsteps = 1"))
    with pytest.raises(UsageError, match="before"):
        runner().run(recipe.parse("[[step]]\ndo = 'qat'"))


def test_teachers_are_asked_by_place_and_must_fit() -> None:
    g, x = residual_net(), {"x": np.zeros((8, 8, 8, 3), np.float32)}
    other = residual_net()
    other.tensors["image"] = replace(other.tensors.pop("x"), name="image")
    other.inputs = ["image"]
    other.ops = [op.with_(inputs=tuple("image" if n == "x" else n for n in op.inputs))
                 for op in other.ops]  # fmt: skip
    o = fit.Options(steps=1, batch=4)
    fit.fit(g, x, None, o, teacher=fit.Teacher(other))
    seen = calibrate.observe(g, lambda i: evaluate.run(g, i) | i, lambda: iter([{"x": x["x"][:1]}]))
    few = quantize.quantize(g, seen)[0]
    with pytest.raises(ModelError, match="the teacher is quantized"):
        fit.fit(g, x, None, o, teacher=fit.Teacher(few))
    with pytest.raises(ModelError, match=r"takes inputs \[\(1, 8, 8, 4\)\], the model"):
        fit.fit(g, x, None, o, teacher=fit.Teacher(flat(8 * 8 * 4, 5, (1, 8, 8, 4))))
    with pytest.raises(ModelError, match="tells 7 classes, the model 5"):
        fit.fit(g, x, None, o, teacher=fit.Teacher(flat(8 * 8 * 3, 7, (1, 8, 8, 3))))
    with pytest.raises(ModelError, match="tells 7 classes, the model 5"):
        fit.fit(g, x, None, o, teacher=np.zeros((8, 7), np.float32))
    with pytest.raises(ModelError, match="tells 7 classes, the model 5"):
        both = fit.Teacher(other, (flat(8 * 8 * 3, 7, (1, 8, 8, 3)),))
        fit.fit(g, x, None, o, teacher=both)


def test_several_teachers_teach_by_the_mean_of_their_logits() -> None:
    """Of linear nets, which one net of mean weights gives too."""
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(32, 1, 2, 2, 3)).astype(np.float32)[:, 0]}
    start, a, b, mean = (flat(12, 5, (1, 2, 2, 3)) for _ in range(4))
    for g in (a, b):
        w = g.tensors["w"]
        g.tensors["w"] = replace(w, data=rng.normal(size=w.shape).astype(np.float32))
    half = (a.tensors["w"].data + b.tensors["w"].data) / 2  # type: ignore[operator]
    mean.tensors["w"] = replace(mean.tensors["w"], data=half)
    o = fit.Options(steps=20, batch=8, rate=0.1)
    two = fit.fit(start, x, None, o, teacher=fit.Teacher(a, (b,)))
    one = fit.fit(start, x, None, o, teacher=fit.Teacher(mean))
    assert np.allclose(two.constants["w"], one.constants["w"], atol=1e-5)
    alone = fit.fit(start, x, None, o, teacher=fit.Teacher(a))
    assert not np.allclose(alone.constants["w"], one.constants["w"], atol=1e-2)


def test_a_recipe_names_several_teachers(tmp_path: Path) -> None:
    """Each counts: another second file is another step, one that is missing is named."""
    for name, seed in (("a", 0), ("b", 1)):
        g = flat(8 * 8 * 3, 5, (1, 8, 8, 3))
        w = np.random.default_rng(seed).normal(size=(5, 192)).astype(np.float32)
        g.tensors["w"] = replace(g.tensors["w"], data=w)
        (tmp_path / f"{name}.npz").write_bytes(store.dumps(g))
    names = [f"{tmp_path.as_posix()}/{n}.npz" for n in "ab"]
    text = "[[step]]\ndo = 'distill'\nsteps = 2\nbatch = 8\nteacher = "
    both, one = (recipe.parse(text + str(t)) for t in (names, names[:1]))
    assert recipe.key("", both[0]) != recipe.key("", one[0])
    assert "loss" in runner().run(both)[1][0].effect
    before = recipe.key("", both[0])
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes())
    assert recipe.key("", both[0]) != before
    (tmp_path / "b.npz").unlink()
    with pytest.raises(UsageError, match=r"b\.npz.*cannot be read"):
        runner().run(both)


def flat(k: int, n: int, shape: tuple[int, ...]) -> Graph:
    """One linear op over all values."""
    g = Graph("flat")
    g.add_tensor(Tensor("a", shape, "f32"))
    g.inputs = ["a"]
    y = g.emit("reshape", ["a"], {"shape": (1, k)})
    g.outputs = [g.emit("linear", [y, g.const("w", np.ones((n, k), np.float32))], name="fc")]
    return g


def test_an_epoch_sees_every_sample_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a batch ends one pass and begins the next."""
    d, seen = classes(40), []
    monkeypatch.setattr(fit._Job, "_step", lambda self, pick, i: seen.extend(pick.tolist()))
    fit.fit(residual_net(), {"x": d["x"]}, d["y"], fit.Options(steps=5, batch=16, estimate=0))
    passes = [sorted(seen[:40]), sorted(seen[40:])]
    assert passes[0] == list(range(40)) and len(passes[1]) == 40 == len(set(passes[1]))
    assert seen[:40] != passes[0] and seen[:40] != seen[40:]


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import test_train
test_train.long(test_train.Path({path!r}), lambda what, i, n: print(i, flush=True))
"""


def long(path: Path, progress: fit.Progress | None = None) -> fit.Fitted:
    """A training that is kept after every step; one thread, whose sums have one order."""
    torch.set_num_threads(1)
    d = classes(64)
    o = fit.Options(
        steps=60, batch=16, norms=True, optimizer="sgd", rate=0.01, flip=True, shift=1, variants=2,
        freeze=0.2,
    )  # fmt: skip
    kept = fit.Checkpoint(path, package.save, every_s=0.0)
    specs = {"c1": widths.quantize_weights(W, 0, 4)[1]}
    return fit.fit(
        residual_net(), {"x": d["x"]}, d["y"], o, teacher=fit.Teacher(residual_net(8, 16)),
        simulation=net.Simulation(specs, {}), progress=progress, checkpoint=kept,
    )  # fmt: skip


W = residual_net().value(next(op for op in residual_net().ops if op.name == "c1").inputs[1])


def test_a_killed_training_goes_on(tmp_path: Path) -> None:
    path, tests = tmp_path / "half.pt", str(Path(__file__).parent)
    script = KILLED.format(tests=tests, path=str(path))
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    seen = [int(child.stdout.readline()) for _ in range(21)]
    child.kill()
    child.wait()
    assert path.exists() and child.returncode == -9
    steps: list[int] = []
    kept = path.read_bytes()
    path.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(DataError, match=r"half\.pt: cannot be read.*\n.*delete it"):
        long(path)
    path.write_bytes(kept)
    on = long(path, lambda what, i, n: steps.append(i))
    assert steps[0] >= seen[-1] - 1 > 0  # not from the start
    whole = long(tmp_path / "whole.pt")
    assert all(np.array_equal(a, on.constants[n]) for n, a in whole.constants.items())
    assert np.array_equal(whole.integers["c1"][0], on.integers["c1"][0])


def test_batch_norms_come_back_and_go() -> None:
    """Put back and folded in again they change nothing; they learn in between."""
    g, x = residual_net(), torchnet.tensors({"x": classes(64)["x"]})
    job = net.Net(g)
    before = job.logits(x)
    job.put_norms(x)
    assert set(job.norms) == {"stem", "c1", "c2", "down"}
    assert torch.allclose(job.logits(x), before, atol=1e-4)
    folded = torchnet.tensors(job.fitted((0.0, 0.0)).constants)
    after = torchnet.run(g.ops, dict(x), {**torchnet.constants(g), **folded})["fc"]
    assert torch.allclose(after, before, atol=1e-4)


def test_norms_of_a_simulation_know_its_noise() -> None:
    """Estimated again on the samples they come from, they leave the rounded net as it was."""
    run = runner()
    work = Work(run.graph)
    run.steps.quantize(work, {"bits": 4, "act_bits": 4})
    start, sim = simulation(work)
    x = torchnet.tensors({"x": run.samples.train["x"][:128]})
    job = net.Net(start, sim)
    with torch.no_grad():
        before = job.logits(x)
        job.put_norms(x)
        assert torch.allclose(job.logits(x), before, atol=1e-4)
        job.estimate([x])
        off = (job.logits(x) - before).abs().mean() / before.abs().mean()
    assert float(off) < 0.02


def test_repair_gives_outputs_their_spread_again() -> None:
    g, x = residual_net(16, 16), classes(128)["x"].repeat(2, 1).repeat(2, 2)
    cut = prune.prune(g, 0.5, granule=4)
    got = cut.graph.with_constants(repair.spreads(g, cut.graph, cut.masks, {"x": x}))

    def spread(graph: Graph) -> Array:
        values = torchnet.run(graph.ops, torchnet.tensors({"x": x}), torchnet.constants(graph))
        return values["c1"].std((0, 1, 2)).numpy()

    want = spread(g)[cut.masks["c1"]]
    off = [float(np.abs(spread(h) / want - 1).mean()) for h in (got, cut.graph)]
    assert off[0] < 0.05 and off[0] < off[1] / 3  # not exact: behind a clamp


@pytest.mark.parametrize("how", [repair.spreads, repair.outputs])
def test_depthwise_nets_are_repaired(how: Callable[..., dict[str, Array]]) -> None:
    g, rng = separable(), np.random.default_rng(0)
    x = {"x": rng.normal(size=(64, 8, 8, 3)).astype(np.float32)}
    cut = prune.prune(g, 0.5, 4)
    assert cut.masks["b"].tolist() == cut.masks["a"].tolist() and cut.masks["b"].sum() == 8

    def error(graph: Graph) -> float:
        got, want = (
            torchnet.run(h.ops, torchnet.tensors(x), torchnet.constants(h))["y"].numpy()
            for h in (graph, g)
        )
        return float(((got - want) ** 2).mean())

    repaired = cut.graph.with_constants(how(g, cut.graph, cut.masks, x))
    assert error(repaired) < error(cut.graph)


def test_least_squares_brings_outputs_nearer_than_spreads() -> None:
    """Channels leave the residual's branch; what reads them is solved for again."""
    g, x = residual_net(8, 16), classes(160)["x"]
    cut = prune.prune(g, 0.4, granule=1)
    rows, rest = {"x": x[:128]}, torchnet.tensors({"x": x[128:]})

    def off(graph: Graph) -> float:
        a, b = (torchnet.run(h.ops, dict(rest), torchnet.constants(h))["fc"] for h in (g, graph))
        return float(((a - b) ** 2).mean() / (a**2).mean())

    solved = cut.graph.with_constants(repair.outputs(g, cut.graph, cut.masks, rows))
    spread = cut.graph.with_constants(repair.spreads(g, cut.graph, cut.masks, rows))
    assert off(solved) < 0.7 * min(off(spread), off(cut.graph))
    with pytest.raises(UsageError, match="repair = 'all'"):
        runner().run(recipe.parse("[[step]]\ndo = 'prune'\nrepair = 'all'"))


def test_each_round_goes_on_from_the_repaired_cut_of_the_last() -> None:
    """Masks only clear weights, so what else differs from the cut before was repaired."""
    run = runner()
    g, _ = run.run(recipe.parse("[[step]]\ndo = 'finetune'\nsteps = 80\nrate = 0.01"))
    whole, x, y = pipeline.macs(g), run.samples.train, run.samples.train_labels
    proven: list[tuple[Graph, Graph]] = []
    for rounds in (1, 4):
        proven.clear()
        o = shrink.Options(
            macs=2.5, granule=1, importance="fisher", layers=True, repair="outputs", rounds=rounds
        )
        made = shrink.shrink(g, x, y, o, run.steps.board, lambda a, b: proven.append((a, b)))
        assert len(proven) == rounds and 2.5 * pipeline.macs(made.graph) <= whole
        for op in made.graph.ops:
            if op.name in made.masks:
                assert made.masks[op.name].sum() == made.graph.tensors[op.outputs[0]].shape[-1]
    was = g
    for i, (masked, cut) in enumerate(proven):
        assert pipeline.macs(masked) == pipeline.macs(was)
        pairs = [
            (was.value(op.inputs[1]), masked.value(op.inputs[1]))
            for op in masked.ops if op.type in WEIGHTED
        ]  # fmt: skip
        repaired = any(bool(((b != a) & (b != 0)).any()) for a, b in pairs)
        assert repaired == (i > 0)
        assert 2.5 ** ((i + 1) / 4) * pipeline.macs(cut) <= whole
        was = cut
    assert pipeline.macs(made.graph) == pipeline.macs(was)
    with pytest.raises(UsageError, match="rounds = 2 needs a budget"):
        shrink.Options(share=0.5, rounds=2)


@pytest.mark.parametrize("kind", ["taylor", "fisher"])
def test_importance_finds_the_channel_nobody_misses(kind: str) -> None:
    g = residual_net()
    op = next(op for op in g.ops if op.name == "c2")
    w = g.value(op.inputs[1])
    assert w is not None
    half = w.copy()
    half[3] *= 1e-3  # of the second branch's channels
    g.tensors[op.inputs[1]] = replace(g.tensors[op.inputs[1]], data=half)
    bias = g.value(op.inputs[2])
    assert bias is not None
    less = np.where(np.arange(len(bias)) == 3, 0, bias).astype(np.float32)
    g.tensors[op.inputs[2]] = replace(g.tensors[op.inputs[2]], data=less)
    d = classes(64)
    found = importance.outputs(g, {"x": d["x"]}, d["y"], kind)
    assert set(found) == {"stem", "c1", "c2", "down", "fc"}
    assert found["c2"].min() >= 0 and np.argsort(found["c2"])[0] == 3


def test_losses_of_teachers() -> None:
    torch.manual_seed(0)
    z, t = torch.randn(6, 5), torch.randn(6, 5)
    y = torch.arange(6) % 5
    assert float(losses.soft(t, t, 3.0)) == pytest.approx(0, abs=1e-6)
    assert float(losses.decoupled(t, t, y, 3.0)) == pytest.approx(0, abs=1e-4)
    # alpha = 1 and the other term's weight 1 - q make the plain loss (Zhao et al., eq. 7)
    q = torch.softmax(t / 3, 1)[torch.arange(6), y]
    parts = [losses.decoupled(z[i : i + 1], t[i : i + 1], y[i : i + 1], 3.0, 1.0, float(1 - q[i]))
             for i in range(6)]  # fmt: skip
    assert float(sum(parts) / 6) == pytest.approx(float(losses.soft(z, t, 3.0)), rel=1e-4)
    a, b = torch.randn(2, 4, 4, 3), torch.randn(2, 4, 4, 3)
    assert float(losses.features([b], [b], [None])) == 0
    assert float(losses.features([a], [b], [torch.eye(3)])) > 0


def test_hints_and_decoupled_labels_train() -> None:
    d, teacher = classes(64), fit.Teacher(residual_net(8, 16))
    o = fit.Options(steps=40, rate=0.01, kind="dkd", soft=0.1, hints=0.5)
    with pytest.raises(UsageError, match="the teacher's graph"):
        fit.fit(residual_net(), {"x": d["x"]}, d["y"], o, teacher=np.zeros((64, 5), np.float32))
    r = fit.fit(residual_net(), {"x": d["x"]}, d["y"], o, teacher=teacher)
    assert r.losses[1] < r.losses[0]


def test_images_are_mirrored_and_moved() -> None:
    x = torch.arange(2 * 3 * 6 * 7, dtype=torch.float32).reshape(2, 3, 6, 7) + 1
    ways = batches.drawn(600, True, 1, torch.Generator().manual_seed(0))
    seen = batches.changed(x.repeat(300, 1, 1, 1), *ways, 1)
    assert seen.shape == (600, 3, 6, 7)
    assert any(torch.equal(s, x[0]) for s in seen[::2])
    assert any(torch.equal(s, x[0].flip(2)) for s in seen[::2])
    moved = torch.nn.functional.pad(x[0], (1, 1, 1, 1))[:, :6, :7]
    assert any(torch.equal(s, moved) for s in seen[::2])
    last = batches.changed(x.permute(0, 2, 3, 1), *batches.drawn(2, False, 0, None), 0)
    assert torch.equal(last, x.permute(0, 2, 3, 1))


def test_a_teacher_is_asked_once_for_a_sample_and_each_variant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it told before is as good as asking again; images changed anew are asked for anew."""
    d, teacher, asked = classes(16), fit.Teacher(residual_net(8, 16)), [0]
    ask = fit._Job._ask

    def told(job: Any, x: dict[str, Any], form: str) -> Any:
        asked[0] += len(x["x"])
        return ask(job, x, form)

    monkeypatch.setattr(fit._Job, "_ask", told)

    def trained(**how: Any) -> tuple[int, Array]:
        asked[0] = 0
        o = fit.Options(**({"steps": 30, "batch": 8, "rate": 0.01} | how))
        r = fit.fit(residual_net(), {"x": d["x"]}, d["y"], o, teacher=teacher)
        return asked[0], r.constants["w"]

    (few, w), (varied, _) = trained(), trained(flip=True, shift=1, variants=3)
    assert 16 <= few < 32 and 32 < varied < 96  # one that is twice in a batch is asked twice
    assert trained(flip=True, shift=1)[0] == 240
    fixed = trained(flip=True, shift=1, variants=1)
    monkeypatch.setattr(fit, "KNOWN", 0)
    for before, how in ((w, {}), (fixed[1], {"flip": True, "shift": 1, "variants": 1})):
        always, again = trained(**how)
        assert always == 240 and np.allclose(again, before, atol=1e-5)
    with pytest.raises(UsageError, match="variants are ways to change images"):
        trained(variants=2)
    with pytest.raises(UsageError, match="hints need all of it"):
        trained(variants=2, flip=True, hints=1.0)


def test_precision_is_chosen_by_trying() -> None:
    def step(name: str) -> None:
        end = time.process_time() + (0.05 if name == "float32" else 0.01)
        if name == "float16":
            raise RuntimeError("no kernel")
        while time.process_time() < end:
            pass

    best, seconds = precision.fastest(step)
    assert best == "bfloat16" and set(seconds) == {"float32", "bfloat16"}
    with pytest.raises(UsageError, match="precision 'int8'"):
        precision.checked("int8")
    o = fit.Options(steps=2, batch=8, precision="auto")
    d = classes(32)
    assert fit.fit(residual_net(), {"x": d["x"]}, d["y"], o).precision in precision.PRECISIONS


def test_weights_that_jump_are_held() -> None:
    q = net.Oscillation.of(torch.zeros(3))
    for i in range(60):
        q.watch(torch.tensor([float(i % 2), float(i // 30), 0.0]), threshold=0.2)
    assert q.frozen.tolist() == [True, False, False]
    assert q.held(torch.full((3,), 7.0)).tolist()[1:] == [7.0, 7.0]
    assert float(q.held(torch.full((3,), 7.0))[0]) in (0.0, 1.0)

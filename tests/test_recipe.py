"""Recipes: what they refuse, what the ledger says, going on after a kill, steps without effect."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_reconstruct import residual_net

from edgekit import boards, evaluate, package, pipeline, recipe, search
from edgekit.compress import meter, reconstruct, sqnr, store
from edgekit.errors import DataError, EdgeKitError, PackageError, UsageError
from edgekit.ir import Graph, Tensor
from edgekit.recipe.run import Run
from edgekit.recipe.samples import Material, material, predictions
from edgekit.recipe.steps import Work

pytest.importorskip("torch")
TEXT = """
[[step]]
do = "quantize"
samples = 40
[step.layers]
"c1" = 4
"c2" = 4
"down" = 2

[[step]]
do = "reconstruct"
steps = 40
batch = 16
"""


def made(n: int = 160, train: int = 0) -> Material:
    g = residual_net()
    x = np.random.default_rng(5).normal(size=(n, 8, 8, 3)).astype(np.float32)
    y = np.array([evaluate.outputs(g, {"x": a[None]})["fc"].argmax() for a in x])
    return material({"x": x, "y": y}, g, calibration=60, test=100, train=train)


def runner(folder: Path | None = None) -> Run:
    if folder is not None:
        folder.mkdir(exist_ok=True)
    return Run(residual_net(), made(train=60), boards.load("nrf52840dk"), folder)


def test_a_recipe_survives_writing_and_reading() -> None:
    steps = recipe.parse(TEXT)
    assert [s.do for s in steps] == ["quantize", "reconstruct"]
    assert recipe.parse(recipe.dump(steps)) == steps


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[step]]\ndo = 'shrink'", "unknown"),
        ("[[step]]\ndo = 'quantize'\nbit = 4", "no setting 'bit'"),
        ("[steps]", "'steps' is unknown"),
        ("", "no \\[\\[step\\]\\]"),
        ("[[step", "not TOML"),
        ("step = []", "no \\[\\[step\\]\\]"),
        ("step = 3", "no \\[\\[step\\]\\]"),
        ("step = [1]", "step 0 is no table"),
        ("[[step]]\ndo = ['quantize']", "unknown"),
        *(
            (f"[[step]]\ndo = '{do}'\n{setting}", f"step 0: {do}: {setting.split()[0]} = ")
            for do, settings in {
                "quantize": "bits = 'four'; bits = 4.5; bits = 3; bits = true; bits = [4]; "
                "samples = 0; samples = 2.5; layers = 4; layers = {c1 = '4'}; exclude = 'c*'; "
                "exclude = [1]; act_bits = 1; act_bits = 'a'; light = 2; bias_correction = 'no'",
                "finetune": "steps = -1; steps = 0; steps = 2.5; batch = 0; rate = 0; rate = -1; "
                "rate = nan; rate = inf; rate = 'a'; seed = -1; epochs = 0; epochs = 'a'; "
                "optimizer = 'x'; norms = 'yes'; flip = 1; shift = -2; "
                "warmup = 2; top = 3; "
                "wait_s = 'a'; precision = 'int8'; gradients = 'x'",
                "distill": "soft = 2; temperature = 0; kind = 'x'; hints = -1; pairs = ['a']; "
                "pairs = {a = 3}; variants = 0.5; teacher = 3; teacher = []; teacher = [3]",
                "qat": "freeze = -1; freeze = 'a'",
                "reconstruct": "batch = 0; window = 3; rank = -1; drop = 2; push = -1; "
                "samples = 0; seed = 1.5; rate = nan",
                "prune": "share = 0; share = 1; share = 'a'; granule = 0; granule = 1.5; macs = 0; "
                "macs = 0.5; latency = 1; importance = 'x'; layers = 'a'; repair = 'x'; "
                "rounds = 0; rounds = 1.5; samples = 0; seed = -1",
                "sparsify": "pattern = 3; share = 'a'; share = 2; exclude = 'a'",
            }.items()
            for setting in settings.split("; ")
        ),
    ],
)
def test_mistakes_are_named(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        recipe.parse(text)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes('[[step]]\ndo = "quantize"'.encode("utf-16"))
    with pytest.raises(UsageError, match=r"r\.toml: is not UTF-8"):
        recipe.load(tmp_path / "r.toml")


def test_nothing_runs_of_steps_with_a_wrong_setting(tmp_path: Path) -> None:
    steps = (*recipe.parse(TEXT)[:1], recipe.Step("reconstruct", {"batch": -1}))
    with pytest.raises(UsageError, match="a whole number from 1"):
        runner(tmp_path / "run").run(steps)
    assert not (tmp_path / "run" / "ledger.jsonl").exists()


def test_calibration_and_test_samples_are_apart() -> None:
    m = made()
    assert len(m.calibration) == 60 and len(m.test) == 100
    first = {x["x"].tobytes() for x in m.calibration}
    assert not first & {x["x"].tobytes() for x in m.test}


def test_the_ledger_is_what_the_native_kernels_gave(tmp_path: Path) -> None:
    run = runner(tmp_path / "run")
    graph, entries = run.run(recipe.parse(TEXT))
    lines = (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()
    assert [json.loads(x)["do"] for x in lines] == ["quantize", "reconstruct"]
    first, last = entries
    assert run.float_accuracy == 1.0  # labels are the float graph's own
    assert last.accuracy == last.agreement and last.sqnr_db > first.sqnr_db
    assert first.worst_class is not None and first.worst_class <= (first.accuracy or 0)
    assert last.package_bytes == len(pipeline.package_graph(graph, run.target))
    top, _ = predictions(graph, run.samples.test, run.host)
    assert last.accuracy == float((top == run.samples.labels).mean())
    assert "2 bits" in first.effect and "rounded otherwise" in last.effect
    bits = {n: la["bits"] for n, la in last.layers.items() if "bits" in la}
    assert bits == {op.name: graph.tensors[op.inputs[1]].quant.bits for op in graph.ops
                    if op.type in ("conv2d", "linear")}  # fmt: skip
    ends = [e.layers[list(e.layers)[-1]]["sqnr_db"] for e in entries]
    assert 0 < ends[0] < ends[1] <= 60
    page = search.ledger_page("a recipe", entries, run.float_bytes)
    assert page.count("<svg") == 2 and all(f"{n} ({b} bits)" in page for n, b in bits.items())
    assert entries[0].energy in page


def test_joules_are_those_of_the_packages_or_not_stated(tmp_path: Path) -> None:
    def zone(name: str, site: str, uj: int) -> None:
        at = tmp_path / "sys/class/powercap" / name
        at.mkdir(parents=True, exist_ok=True)
        for file, text in (("name", site), ("energy_uj", uj), ("max_energy_range_uj", 10_000_000)):
            (at / file).write_text(str(text))

    assert meter.Meter(tmp_path).read() is None
    zone("intel-rapl:0", "package-0", 9_000_000)
    zone("intel-rapl:0:0", "core", 500_000)  # a part of the package, not counted twice
    found = meter.Meter(tmp_path)
    assert found.read() == 0 and "package-0" in found.source
    zone("intel-rapl:0", "package-0", 9_500_000)
    assert found.read() == 0.5
    zone("intel-rapl:0", "package-0", 1_000_000)  # wrapped
    assert found.read() == pytest.approx(2.000001)
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("?")
    assert found.read() is None and "lost" in found.source


def test_int16_activations_learn_weights_of_8_bits() -> None:
    steps = (
        recipe.Step("quantize", {"act_bits": 16}),
        recipe.Step("reconstruct", {"steps": 60, "batch": 16}),
    )
    graph, (first, last) = runner().run(steps)
    assert any(t.dtype == "i16" for t in graph.tensors.values())
    assert last.sqnr_db > first.sqnr_db > 0
    assert "rounded otherwise" in last.effect and not last.effect.startswith("0 ")
    with pytest.raises(UsageError, match="act_bits = 16"):
        runner().run((recipe.Step("quantize", {"wide": ["c1"]}),))


def test_a_whole_net_learns_from_the_training_samples() -> None:
    """Steps of activations of 8 bits among them, which blocks leave as they were observed."""
    first = recipe.Step("quantize", {"bits": 4})
    steps = {}
    for window, count in ((1, 60), (0, 400)):
        learn = recipe.Step("reconstruct", {"window": window, "steps": 60, "batch": 16})
        run = Run(residual_net(), made(600, train=400), boards.load("nrf52840dk"))
        graph, (_, last) = run.run((first, learn))
        assert last.effect.endswith(f"on {count} samples")
        sizes = {op.name: graph.tensors[op.outputs[0]].quant for op in graph.ops}
        steps[window] = {n: float(q.scale) for n, q in sizes.items() if q is not None}
    assert all(steps[0][n] != steps[1][n] for n in ("stem", "c1", "add", "down"))
    learn = recipe.Step("reconstruct", {"window": 0, "steps": 150, "batch": 2, "rate": 0.2})
    run = Run(residual_net(), made(104), boards.load("nrf52840dk"))  # 52 samples calibrate
    with pytest.raises(UsageError, match="learned 52 samples by heart"):
        run.run((first, learn))


def test_the_lightest_layers_keep_8_bits() -> None:
    """c1 and c2 hold 576 weights each, down 1,152, the ends 216 and 80, of 2,600 in all."""
    found = {}
    for share in (0.0, 0.12, 0.34, 0.56):
        work = Work(residual_net())
        runner().steps._prepare(work, {"bits": 4, "light": share})
        found[share] = [n for n, b in work.bits.items() if b == 4]
    assert found == {0.0: ["c1", "c2", "down"], 0.12: ["c1", "c2", "down"],
                     0.34: ["c2", "down"], 0.56: ["down"]}  # fmt: skip
    with pytest.raises(UsageError, match="light"):
        runner().run((recipe.Step("quantize", {"light": 0.1}),))


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    steps = recipe.parse(TEXT)
    whole, entries = runner().run(steps)
    runner(folder).run(steps[:1])
    with (folder / "ledger.jsonl").open("a") as f:
        f.write('null\n[1]\n{"step": 1, "do": "recon')  # killed while writing
    with (folder / "ledger.jsonl").open("ab") as f:
        f.write(b"\xff\x00")
    again = runner(folder)
    before = (folder / "ledger.jsonl").read_bytes()
    graph, rest = again.run(steps)
    assert pipeline.package_graph(graph, again.target) == pipeline.package_graph(
        whole, again.target
    )
    assert [e.accuracy for e in rest] == [e.accuracy for e in entries]
    after = (folder / "ledger.jsonl").read_bytes()
    assert after.startswith(before) and after.count(b'"quantize"') == 1  # not done again
    runner(folder).run(steps)
    assert (folder / "ledger.jsonl").read_bytes() == after
    for damage in (lambda b: b[:-200], lambda b: b[: len(b) // 2], lambda b: b"", other_graph):
        kept = folder / f"{json.loads(after.splitlines()[0])['key']}.npz"
        good = kept.read_bytes()
        kept.write_bytes(damage(good))
        with pytest.raises(DataError, match="delete it: the step is done again"):
            runner(folder).run(steps)
        kept.write_bytes(good)


def other_graph(_: bytes) -> bytes:
    g = Graph("other")
    g.add_tensor(Tensor("a", (1, 4), "f32"))
    g.inputs, g.outputs = ["a"], ["a"]
    return store.dumps(g)


@pytest.mark.parametrize("killed", ["graph", "ledger", "after"])
def test_steps_of_every_kind_go_on_after_a_kill(killed: str, tmp_path: Path) -> None:
    """Killed while a step's graph or its line in the ledger is written, or behind the step."""
    quick = "batch = 8\nsteps = 2\n"
    text = "".join(
        f"[[step]]\ndo = '{do}'\n{rest}"
        for do, rest in {
            "prune": "share = 0.4\ngranule = 4\n", "sparsify": "pattern = '1:8'\n",
            "finetune": quick, "distill": quick, "quantize": "bits = 4\n",
            "reconstruct": "batch = 8\nsteps = 40\n",
            "qat": quick + "rate = 0.02\n",
        }.items()
    )  # fmt: skip
    steps = (*recipe.parse(text), recipe.Step("qat", {"steps": 2, "batch": 8, "rate": 0.01}))
    folder, real, written = tmp_path / "run", package.save, []

    def save(path: Path, data: bytes) -> None:
        written.append(path)
        if killed == path.stem or (killed == "graph" and path.suffix == ".npz"):
            raise KeyboardInterrupt
        real(path, data)
        if killed == "after" and path.stem == "ledger":
            raise KeyboardInterrupt

    whole, entries = runner().run(steps)
    for i in range(1, len(steps) + 1):
        with pytest.MonkeyPatch.context() as m, pytest.raises(KeyboardInterrupt):
            m.setattr(package, "save", save)
            runner(folder).run(steps[:i])
        runner(folder).run(steps[:i])
    graph, rest = runner(folder).run(steps)
    assert store.dumps(graph) == store.dumps(whole)
    assert [e.accuracy for e in rest] == [e.accuracy for e in entries]


def test_another_board_is_another_run(tmp_path: Path) -> None:
    steps = recipe.parse(TEXT)[:1]
    runner(tmp_path / "run").run(steps)
    other = Run(residual_net(), made(), boards.load("rpi5"), tmp_path / "run")
    assert other.run(steps)[1][0].package_bytes == len(
        pipeline.package_graph(other.run(steps)[0], other.target)
    )


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PackageError, match="is a file"):
        package.folder(tmp_path / "file")
    with pytest.raises(PackageError, match="cannot be made: Not a directory"):
        package.folder(tmp_path / "file" / "out")


@pytest.mark.parametrize(
    "steps",
    [
        [recipe.Step("reconstruct", {})],
        [recipe.Step("quantize", {}), recipe.Step("reconstruct", {})],
        [recipe.Step("quantize", {}), recipe.Step("quantize", {})],
        [recipe.Step("quantize", {}), recipe.Step("prune", {})],
        [recipe.Step("quantize", {}), recipe.Step("sparsify", {})],
        [recipe.Step("quantize", {}), recipe.Step("distill", {})],
        [recipe.Step("qat", {})],
        [
            recipe.Step("quantize", {"bits": 4}),
            recipe.Step("qat", {"steps": 1}),
            recipe.Step("reconstruct", {"steps": 20, "batch": 4}),
        ],
        [
            recipe.Step("quantize", {"layers": {"c1": 4}}),
            recipe.Step("reconstruct", {"steps": 0, "batch": 4}),
        ],
    ],
)
def test_steps_without_effect_or_out_of_place_fail(steps: list[recipe.Step]) -> None:
    with pytest.raises(EdgeKitError):
        runner().run(tuple(steps))


def test_some_samples_of_a_sorted_set_are_of_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    g, seen = residual_net(), {}
    x = np.random.default_rng(5).normal(size=(160, 8, 8, 3)).astype(np.float32)
    x[:, 0, 0, 0] = np.arange(160) / 160  # sorted
    run = Run(g, material({"x": x}, g, calibration=80, test=80), boards.load("host"))

    def spy(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def told(*a: Any, **k: Any) -> Any:
            found = next(v for v in (*a, *k.values()) if isinstance(v, (dict, list))
                         and (v[0] if isinstance(v, list) else v).keys() == {"x"})  # fmt: skip
            found = found if isinstance(found, list) else [found]
            seen[name] = np.concatenate([f["x"][:, 0, 0, 0] for f in found])
            if name == "sensitivity":
                raise StopIteration
            return real(*a, **k)

        monkeypatch.setattr(owner, name, told)

    spy(sqnr, "compare")
    spy(reconstruct, "reconstruct")
    spy(search.allocate, "sensitivity")
    run.run(recipe.parse(TEXT.replace("steps = 40", "steps = 40\nsamples = 16")))
    monkeypatch.setattr(search, "SENSITIVITY_SAMPLES", 16)
    with contextlib.suppress(StopIteration):
        search._Search(run, run.steps.board, 0.5, 0, {}, None).search(0)
    seen["observe"] = np.array([f["x"].ravel()[0] for f in run.steps._feed(16)()])
    assert set(seen) == {"compare", "reconstruct", "sensitivity", "observe"}
    for name, values in seen.items():
        assert len(values) <= 16 and 0.2 < values.mean() < 0.8 and values.max() > 0.6, name


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (np.eye(5)[np.zeros(20, int)], r"float64\[10, 5\]"),
        (np.zeros((20, 1), int), "not one whole number"),
        (np.full(20, 0.5), "not one whole number"),
        (np.full(20, np.nan), "not one whole number"),
        (np.full(20, "cat"), "<U3"),
        (np.full(20, 5), "from 5 to 5, the model's classes to 4"),
        (np.full(20, -1), "from -1 to -1"),
    ],
)
def test_labels_are_classes_of_the_model(y: Any, says: str) -> None:
    x = np.zeros((20, 8, 8, 3), np.float32)
    with pytest.raises(DataError, match=says):
        material({"x": x, "y": y}, residual_net())


def test_data_that_are_not_finite_are_refused() -> None:
    x = np.zeros((20, 8, 8, 3), np.float32)
    x[7, 1] = np.nan
    for settings in ({}, {"train": 9}):
        with pytest.raises(DataError, match=r"sample \d holds values that are not finite"):
            material({"x": x}, residual_net(), **settings)
    with pytest.raises(DataError, match="sample 0 holds"):
        material({"x": x[:5] + 1}, residual_net(), {"scale": np.nan})


def test_one_output_is_the_probability_of_class_1() -> None:
    g = Graph("sigmoid")
    g.add_tensor(Tensor("x", (1, 4), "f32"))
    g.inputs = ["x"]
    y = g.emit("linear", ["x", g.const("w", np.ones((1, 4), np.float32))], name="fc")
    g.outputs = [g.emit("unary", [y], {"kind": "sigmoid"}, name="p")]
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    m = material({"x": x, "y": x.sum(1) > 0}, g)
    assert Run(g, m, boards.load("host")).float_accuracy == 1.0


def test_other_labels_of_the_test_are_measured_again(tmp_path: Path) -> None:
    steps, first = recipe.parse(TEXT)[:1], runner(tmp_path / "run")
    _, before = first.run(steps)
    assert first.samples.labels is not None
    other = replace(first.samples, labels=(first.samples.labels + 1) % 5)
    again = Run(residual_net(), other, boards.load("nrf52840dk"), tmp_path / "run")
    want = Run(residual_net(), other, boards.load("nrf52840dk")).run(steps)[1][0]
    for _ in range(2):
        e = again.run(steps)[1][0]
        assert (e.float_accuracy, e.accuracy, e.worst_class) == (0, want.accuracy, want.worst_class)
        assert e.seconds == before[0].seconds
    lines = (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()
    assert len(lines) == 2 and json.loads(lines[1])["float_accuracy"] == 0

"""Accuracy beside the float model, and the comparison of every layer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny
from conftest import need
from edgekit_runtime import Session
from edgekit_runtime.session import TensorInfo
from package_cases import two_entries

from edgekit import boards, check, contents, data, emulate, layers, package, pipeline
from edgekit.errors import DataError, PackageError, UsageError
from edgekit.ir import Graph


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.onnx, its data, int8.ekp and float.ekp."""
    folder = tiny.write(tmp_path_factory.mktemp("check"))
    built = pipeline.build(folder / "model.onnx", calibration=folder / "train.npz")
    package.save(folder / "int8.ekp", built.data)
    package.save(folder / "float.ekp", pipeline.build(folder / "model.onnx").data)
    return folder


# ---- statistics, against their definitions ----


def test_auc_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    scores, y = rng.integers(0, 6, 60).astype(float), rng.integers(0, 2, 60)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[y == 1] for b in scores[y == 0]]
    assert check.auc(scores, y) == pytest.approx(np.mean(pairs))
    assert check.auc(y.astype(float), y) == 1.0


def test_paired_loss_is_the_difference_with_an_interval_around_it() -> None:
    reference = np.r_[np.ones(90), np.zeros(10)]
    ours = np.r_[np.zeros(4), np.ones(86), np.zeros(9), np.ones(1)]
    found = check.paired_loss(reference, ours)
    assert found.value == pytest.approx(0.03) and found.lo < 0.03 < found.hi
    same = check.paired_loss(reference, reference)
    assert same.value == 0 and same.lo < 0 < same.hi


def test_paired_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):  # loses 6 %, wins 2 %: a true loss of 4 %
        u = rng.random(300)
        reference = (u < 0.5) | (u > 0.94)
        ours = (u < 0.5) | ((u > 0.5) & (u < 0.52))
        found = check.paired_loss(reference.astype(float), ours.astype(float))
        hits += found.lo <= 0.04 <= found.hi
    assert 0.91 <= hits / 400 <= 0.99


def test_bootstrap_of_equal_scores_is_zero() -> None:
    rng = np.random.default_rng(2)
    scores, y = rng.random(40), np.r_[np.zeros(20), np.ones(20)].astype(int)
    assert check.bootstrap_loss(scores, scores, y) == check.Interval(0.0, 0.0, 0.0)
    worse = check.bootstrap_loss(scores + y, scores, y)
    assert worse.lo > 0 and worse.lo <= worse.value <= worse.hi


# ---- accuracy ----


def test_top1_beside_onnxruntime(work: Path) -> None:
    pytest.importorskip("onnxruntime")
    found = check.accuracy(work / "int8.ekp", work / "test.npz", model=work / "model.onnx")
    assert found.reference == 1.0 and "onnxruntime" in found.reference_label  # y are its answers
    assert found.package >= 0.9 and found.agreement == found.package
    assert found.loss is not None and found.loss.value == pytest.approx(1 - found.package)
    assert found.worst is not None and found.worst.reference == 1.0
    with Session(work / "int8.ekp") as s, np.load(work / "test.npz") as z:
        right = np.mean([s.run(x)["y"].argmax() == y for x, y in zip(z["x"][:, None], z["y"])])
    assert found.package == pytest.approx(right)
    lines = "\n".join(check.text(found))
    assert "net loss" in lines and "95 % interval" in lines and "worst class" in lines


def test_samples_do_not_remember_each_other() -> None:
    x = np.array([[0, 0, 0, 200], [1000, 0, 0, 0]], np.float32)
    with Session(two_entries()) as s:  # adds every input to its state
        each = []
        for row in x:
            s.reset()
            each.append(s.run({"x": row[None]})["step.y"].argmax())
    assert check.accuracy(two_entries(), {"x": x, "y": np.array(each)}).package == 1.0


def test_wrong_labels_are_seen(work: Path) -> None:
    with np.load(work / "test.npz") as z:
        shifted = {"x": z["x"], "y": z["y"] + 1}
    with pytest.raises(DataError, match="the model's classes to 3"):
        check.accuracy(work / "float.ekp", shifted)
    spec = {"label_offset": -1}
    assert check.accuracy(work / "float.ekp", shifted, preprocess=spec).package == 1.0


def test_our_float_stands_in_where_the_runtime_is_missing(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit import adapters

    def missing(*args: object) -> None:
        raise adapters.MissingRuntime("onnxruntime is not installed")

    monkeypatch.setattr(adapters, "open_peer", missing)
    found = check.accuracy(
        work / "int8.ekp", work / "test.npz", model=work / "model.onnx", limit=20
    )
    assert found.count == 20
    assert found.reference == 1.0 and "float32 package" in found.reference_label


def test_cosine(work: Path) -> None:
    pytest.importorskip("onnxruntime")
    args = {"model": work / "model.onnx", "metric": "cosine", "limit": 30}
    exact = check.accuracy(work / "float.ekp", work / "train.npz", **args)  # type: ignore[arg-type]
    lossy = check.accuracy(work / "int8.ekp", work / "train.npz", **args)  # type: ignore[arg-type]
    assert exact.lowest is not None and exact.lowest > 1 - 1e-6
    assert lossy.lowest is not None and 0.9 < lossy.lowest < exact.lowest


def identity(folder: Path, size: int) -> Path:
    """A package that gives its input back, all but its last value."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    w = np.eye(size, dtype=np.float32)
    w[-1, -1] = 0
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, size]) for n in "xy"]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "mm")]
    graph = helper.make_graph(nodes, "id", info[:1], info[1:], [numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "id.onnx")
    package.save(folder / "id.ekp", pipeline.build(folder / "id.onnx").data)
    return folder / "id.ekp"


def test_reconstruction_error_is_the_mean_over_the_windows_of_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows, y = rng.normal(size=(8, 22)).astype(np.float32), np.arange(8) % 2
    rows[y == 1] *= 3
    path = identity(tmp_path, 6)
    found = check.accuracy(path, {"x": rows, "y": y}, metric="auc", window=6, stride=4)
    ends = [range(5, 22, 4)] * 8  # a window's error is its last value squared, over 6
    want = [np.mean([row[i] ** 2 / 6 for i in e]) for row, e in zip(rows, ends)]
    np.testing.assert_allclose(found.scores, want, rtol=1e-5)
    assert found.package == check.auc(np.asarray(want), y) > 0.8


def test_reconstruction_error_by_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(12, 6)).astype(np.float32)
    group = np.repeat(np.arange(4), 3)
    y = np.repeat([0, 1, 0, 1], 3)
    np.savez(tmp_path / "d.npz", x=x, y=y, group=group)
    found = check.accuracy(identity(tmp_path, 6), tmp_path / "d.npz", metric="auc")
    want = (x[:, -1] ** 2 / 6).reshape(4, 3).mean(1)
    np.testing.assert_allclose(found.scores, want, rtol=1e-5)
    assert found.count == 4


def test_a_folder_per_class_names_the_worst(work: Path, tmp_path: Path) -> None:
    Image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(5)
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(
                tmp_path / name / f"{i}.png"
            )
    found = data.load(tmp_path)
    assert len(found) == 12 and found.extra["classes"] == ["a", "b", "c", "d"]
    with pytest.raises(DataError, match=r"--resize"):
        check.accuracy(work / "float.ekp", tmp_path, preprocess={"layout": "nchw"})


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"metric": "auc"}, UsageError, "one score"),
        ({"metric": "top5"}, UsageError, "top1"),
        ({"output": "z"}, UsageError, "outputs: y"),
        ({"window": 3, "stride": 1}, UsageError, "auc"),
        ({"metric": "auc", "window": 3, "stride": 1}, UsageError, "the model takes 64"),
    ],
)
def test_wrong_questions(
    work: Path, arguments: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        check.accuracy(work / "int8.ekp", work / "test.npz", **arguments)  # type: ignore[arg-type]


# ---- layers ----


def test_layers_agree_with_portable_c_and_with_numpy(work: Path) -> None:
    found = layers.compare(work / "int8.ekp")
    assert found.equal and {r.against for r in found.rows} == {"portable C"}
    with_model = layers.compare(
        work / "int8.ekp", model=work / "model.onnx", source=work / "test.npz",
        options={"calibration": work / "train.npz"},
    )  # fmt: skip
    assert with_model.equal and {r.against for r in with_model.rows} == {"numpy"}
    by_op = {r.op: r for r in with_model.rows}
    for name in ("conv1", "conv2", "head"):
        noise = by_op[name].sqnr_db
        assert noise is not None and 15 < noise < 70


def test_a_package_of_another_model_is_not_compared(work: Path) -> None:
    with pytest.raises(PackageError, match="not built from"):
        layers.compare(work / "int8.ekp", model=work / "model.onnx")


def test_a_changed_weight_is_found_at_its_layer(work: Path, tmp_path: Path) -> None:
    """One weight of conv2 differs: conv1 agrees, conv2 does not."""
    blob = (work / "int8.ekp").read_bytes()
    c = contents.read(blob)
    entry = c.entries[0]
    op = next(o for o in entry.graph.ops if o.name == "conv2")
    t = entry.graph.tensors[op.inputs[1]]
    spoiled = []
    for v in t.variants:
        at = 8 * v.layout.nr  # after biases and scales of the first block
        flipped = bytes([v.blob[at] ^ 0x40])
        spoiled.append(dataclasses.replace(v, blob=v.blob[:at] + flipped + v.blob[at + 1 :]))
    entry.graph.tensors[t.name] = dataclasses.replace(t, variants=tuple(spoiled))
    other = layers.keep(c)
    with Session(layers.keep(contents.read(blob))) as good, Session(other) as bad:
        x = np.load(work / "x.npy")
        good.run(x)
        bad.run(x)
        for name, same in (("conv1", True), ("conv2", False)):
            out = next(o for o in entry.graph.ops if o.name == name).outputs[0]
            assert np.array_equal(good.tensor(out), bad.tensor(out)) is same


def test_exact_means_equal_and_float_means_close() -> None:
    a = np.array([1, 2, 3], np.int8)
    assert layers._difference(a, a + np.int8(1), True) == (3, 1.0)
    b = np.array([1.0, 2.0, -4.0], np.float32)
    assert layers._difference(b, b * np.float32(1 + 1e-6), False)[0] == 0
    assert layers._difference(b + np.float32([0, 0.01, np.nan]), b, False)[0] == 2


@pytest.mark.emulator
@pytest.mark.parametrize("board", ["qemu_arm64", "qemu_mps2_an386"])
def test_layers_of_an_emulated_device(work: Path, tmp_path: Path, board: str) -> None:
    need(emulate.missing(boards.load(board)))
    built = pipeline.build(work / "model.onnx", board=board, calibration=work / "train.npz")
    package.save(tmp_path / "b.ekp", built.data)
    found = layers.compare(tmp_path / "b.ekp", source=work / "test.npz", on=board)
    assert found.equal and found.where == board and len(found.rows) == len(built.lowered.ops)


# ---- the package taken apart ----


def test_contents_give_the_graph_back(work: Path) -> None:
    built = pipeline.build(work / "model.onnx", calibration=work / "train.npz")
    c = contents.read(built.data)
    graph = c.entries[0].graph

    def ops(g: Graph) -> list[object]:  # a package holds no names of constants
        made = {*g.inputs, *(n for o in g.ops for n in o.outputs)}
        return [(o.type, [n in made and n for n in o.inputs], o.outputs) for o in g.ops]

    assert ops(graph) == ops(built.lowered)
    assert c.memory["main"] == built.plan.main_bytes and c.meta["name"] == built.reference.name
    with Session(built.data) as a, Session(layers.keep(c)) as b:
        x = np.load(work / "x.npy")
        np.testing.assert_array_equal(a.run(x)["y"], b.run(x)["y"])


def test_contents_survive_any_damage(work: Path) -> None:
    good = (work / "int8.ekp").read_bytes()
    rng = np.random.default_rng(6)
    for _ in range(400):
        bad = bytearray(good)
        for at in rng.integers(0, len(bad), 3):
            bad[at] = rng.integers(0, 256)
        try:
            contents.read(bytes(bad[: rng.integers(1, len(bad) + 1)]))
        except PackageError as e:
            assert e.what


def test_divergence_of_known_distributions() -> None:
    p = np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    assert check.divergence(p, p) == pytest.approx(0.0)
    q = np.array([[0.25, 0.5, 0.25], [1.0, 0.0, 0.0]])
    assert check.divergence(p, q) == pytest.approx(0.25 * np.log(2) / 2, rel=1e-3)
    logits = np.log(np.maximum(p, 1e-3)) + 7.0
    other = np.log(np.maximum(q, 1e-3)) - 2.0
    assert check.divergence(logits, other) == pytest.approx(0.25 * np.log(2) / 2, rel=0.02)
    assert check.divergence(np.ones((4, 1)), np.zeros((4, 1))) is None


def test_signal_to_noise_of_known_noise() -> None:
    x = np.random.default_rng(0).normal(size=(50, 20))
    assert check.sqnr_db(x, x * 1.1) == pytest.approx(20.0)
    assert check.sqnr_db(x, x) is None


def test_data_of_another_order_of_axes_are_refused() -> None:
    """Images (h, w, c) have as many values as an input (c, h, w) wants."""
    infos = [TensorInfo("x", (1, 3, 4, 5), np.dtype(np.float32), 0.0, 0)]
    images = np.arange(120, dtype=np.float32).reshape(2, 4, 5, 3)
    with pytest.raises(DataError, match="another order"):
        next(data.feed(data.load({"x": images}), infos, {}))
    turned = next(data.feed(data.load({"x": images}), infos, {"layout": "nchw"}))["x"]
    assert np.array_equal(turned[0], images[0].transpose(2, 0, 1))
    flat = next(data.feed(data.load({"x": images.reshape(2, 60)}), infos, {}))["x"]
    assert np.array_equal(flat.reshape(-1), images[0].reshape(-1))

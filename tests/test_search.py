"""The search: points measured as said, recipes that give them again, budgets met or named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime import Session
from test_reconstruct import residual_net

from edgekit import boards, cli, evaluate, recipe, search
from edgekit.errors import DataError, UsageError
from edgekit.ir import Graph
from edgekit.recipe.run import Run
from edgekit.recipe.samples import material
from edgekit.search import InfeasibleError, Point

pytest.importorskip("torch")


def net() -> Graph:
    """The residual net with centred outputs: every class is somebody's."""
    g = residual_net()
    x = np.random.default_rng(4).normal(size=(40, 1, 8, 8, 3)).astype(np.float32)
    mean = np.mean([evaluate.outputs(g, {"x": a})["fc"] for a in x], axis=0)
    bias = g.const("centre", -mean.reshape(-1))
    g.ops[-1] = g.ops[-1].with_(inputs=(*g.ops[-1].inputs[:2], bias))
    return g


def data_set(n: int = 140) -> dict[str, np.ndarray]:
    g = net()
    x = np.random.default_rng(5).normal(size=(n, 8, 8, 3)).astype(np.float32)
    y = np.array([evaluate.outputs(g, {"x": a[None]})["fc"].argmax() for a in x])
    return {"x": x, "y": y}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, search.Found]:
    folder = tmp_path_factory.mktemp("front")
    found = search.compress(
        net(), data_set(), board="qemu_mps2_an386", max_drop=8.0, folder=folder,
        points=6, steps=15,
    )  # fmt: skip
    return folder, found


def test_the_front_is_what_no_point_beats(done: tuple[Path, search.Found]) -> None:
    _, found = done
    front = [p for p in found.points if p.front]
    assert len(found.points) >= 8 and front
    for p in front:
        assert not any(
            q.package_bytes < p.package_bytes and q.accuracy >= p.accuracy for q in found.points
        )
    assert found.chosen is not None and found.chosen.drop <= 8.0 and found.chosen.fits
    cheaper = [p for p in found.points if p.flash_bytes < found.chosen.flash_bytes]
    assert all(p.drop > 8.0 or not p.fits for p in cheaper)
    assert found.hypervolume >= found.uniform_hypervolume > 0


def test_recipes_and_packages_of_the_front_are_there_and_replay(
    done: tuple[Path, search.Found],
) -> None:
    folder, found = done
    facts = json.loads((folder / "front.json").read_text())
    assert facts["chosen"] == (found.chosen.name if found.chosen else None)
    assert "<svg" in (folder / "front.html").read_text()
    learned = [p for p in found.points if p.front and p.learned] or [
        p for p in found.points if p.front
    ]
    point = learned[0]
    steps = recipe.load(folder / f"{point.name}.toml")
    graph = net()
    run = Run(graph, material(data_set(), graph), boards.load("qemu_mps2_an386"))
    _, entries = run.run(steps)
    assert entries[-1].accuracy == point.accuracy
    assert entries[-1].package_bytes == point.package_bytes
    for p in found.points:
        path = folder / f"{p.name}.ekp"
        assert path.exists() or not p.front
        if path.exists():
            with Session(path) as s:
                s.selftest()


def test_infeasible_names_the_nearest_miss(tmp_path: Path) -> None:
    with pytest.raises(InfeasibleError, match=r"nearest miss is .*points, -50 allowed"):
        search.compress(
            net(), data_set(60), board="host", max_drop=-50, folder=tmp_path,
            points=2, steps=2,
        )  # fmt: skip
    assert json.loads((tmp_path / "front.json").read_text())["chosen"] is None


def test_hypervolume_of_known_points() -> None:
    def point(size: int, accuracy: float) -> Point:
        return Point("p", {}, False, size, 0, 0, None, accuracy, 0, 0, True, False, ())

    one = search.hypervolume([point(25, 0.9)], 100, 0.5)
    assert one == pytest.approx(0.75 * 0.4)
    two = search.hypervolume([point(25, 0.9), point(10, 0.7), point(50, 0.6)], 100, 0.5)
    assert two == pytest.approx(0.9 * 0.2 + 0.75 * 0.2)


def test_the_command_says_what_it_took(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "d.npz", **data_set(60))
    bad = cli.main(["compress", str(tmp_path / "no.onnx"), "--data", str(tmp_path / "d.npz"),
                    "-o", str(tmp_path / "out")])  # fmt: skip
    assert bad != 0 and not (tmp_path / "out").exists()
    assert "no.onnx" in capsys.readouterr().err


def test_a_budget_of_cycles_is_kept_or_named(tmp_path: Path) -> None:
    """Fewer bits cost more instructions on a Cortex-M4, which unpacks them."""
    board = "qemu_mps2_an386"
    with pytest.raises(InfeasibleError, match=r"too many cycles"):
        search.compress(
            net(), data_set(60), board=board, max_drop=50, max_cycles=1000, folder=tmp_path,
            points=2, steps=2,
        )  # fmt: skip
    points = json.loads((tmp_path / "front.json").read_text())["points"]
    assert all(p["cycles"] > 1000 and not p["fits"] for p in points)
    with pytest.raises(UsageError, match="no model of cycles"):
        search.compress(net(), data_set(60), board="rp2040", max_cycles=1000)


def test_what_the_command_does_not_take_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data, text = tmp_path / "m.onnx", tmp_path / "d.npz", tmp_path / "r.toml"
    for p in (model, data):
        p.write_bytes(b"x")
    text.write_text('[[step]]\ndo = "quantize"')
    rest = [str(model), "--data", str(data), "-o", str(tmp_path / "out")]
    recipe = ["--recipe", str(text)]
    for more, says in (
        (["--train", str(data)], "--train belongs to --recipe"),
        ([*recipe, "--train", str(data)], "--train is --data"),
        ([*recipe, "--max-cycles", "9"], "--max-cycles belongs to the search"),
        (["--max-drop", "nan"], "no number of points"),
        (["--std", "1,0,1"], "--std is 0"),
    ):
        assert cli.main(["compress", *rest, *more]) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_recipe_of_a_quantized_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('[[step]]\ndo = "quantize"')
    run = Run(net(), material(data_set(), net()), boards.load("host"))
    g = run.run((recipe.Step("quantize", {}),))[0]
    with pytest.raises(DataError, match="quantized already"):
        search.replay(g, data_set(), tmp_path / "r.toml", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_ledger_is_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, text = tmp_path / "m.onnx", tmp_path / "r.toml"
    model.write_bytes(b"")
    text.write_text('[[step]]\ndo = "quantize"')
    np.savez(tmp_path / "d.npz", **data_set(60))
    monkeypatch.setattr(search, "_float_graph", lambda *_: net())
    assert cli.main(["compress", str(model), "--data", str(tmp_path / "d.npz"), "--json",
                     "--recipe", str(text), "-o", str(tmp_path / "out")]) == 0  # fmt: skip
    line = json.loads((tmp_path / "out" / "ledger.jsonl").read_text())
    assert json.loads(capsys.readouterr().out) == {"steps": [line]}

"""Other runtimes behind our contract: the same inputs, outputs, run and time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from edgekit_runtime import Session

from edgekit import adapters, measure, pipeline
from edgekit.errors import DataError, ModelError

LITE = "pretrainedResnet.tflite"


def contract(runtime: adapters.Peer, close: dict[str, np.ndarray], rtol: float = 1e-4) -> None:
    """What every runtime must do; `close` are the outputs of ours for the made inputs."""
    inputs = measure.random_inputs(runtime.inputs())
    first = runtime.run(inputs)
    assert list(first) == [o.name for o in runtime.outputs()]
    for got, want, info in zip(first.values(), close.values(), runtime.outputs(), strict=True):
        assert got.shape == info.shape and got.dtype == info.dtype
        assert np.abs(got - want).max() <= rtol * np.abs(want).max()
    kept = {k: v.copy() for k, v in first.items()}
    changed = {k: v + 1 for k, v in inputs.items()}
    second = runtime.run(changed)
    for name in first:
        np.testing.assert_array_equal(first[name], kept[name])  # results are copies
        assert not np.array_equal(first[name], second[name])
    us = runtime.time(5)
    assert us.shape == (5,) and (us > 0).all()
    with pytest.raises(DataError, match=r"wants|wanted"):
        runtime.run({k: v[..., :-1] for k, v in inputs.items()})
    with pytest.raises(DataError, match="wanted"):
        runtime.run({"nobody": next(iter(inputs.values()))})


def ours(model: Path) -> dict[str, np.ndarray]:
    with Session(pipeline.build(model).data) as s:
        return s.run(measure.random_inputs(s.inputs()))


def test_onnxruntime(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = tiny.write(tmp_path) / "model.onnx"
    with adapters.open_peer(model) as runtime:
        assert runtime.label.startswith("onnxruntime ") and runtime.precision() == "float32"
        contract(runtime, ours(model))


def test_onnxruntime_with_a_dynamic_batch(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    onnx.save(tiny.model(dynamic=True), tmp_path / "d.onnx")
    with adapters.open_peer(tmp_path / "d.onnx") as runtime:
        assert runtime.inputs()[0].shape == (1, 1, 8, 8)
    with adapters.open_peer(tmp_path / "d.onnx", shapes={"x": (3, 1, 8, 8)}) as runtime:
        assert runtime.run(tiny.images(3, 0))["y"].shape == (3, 4)


def test_litert(shared_data: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    model = shared_data / "models" / LITE
    with adapters.open_peer(model) as runtime:
        assert runtime.label.startswith("LiteRT ") and runtime.precision() == "float32"
        contract(runtime, ours(model))
    with adapters.open_peer(shared_data / "models" / "pretrainedResnet_quant.tflite") as runtime:
        assert runtime.precision() == "int8" and runtime.inputs()[0].scale > 0


def test_torch_program(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).eval()
    torch.export.save(torch.export.export(net, (torch.zeros(1, 6),)), tmp_path / "net.pt2")
    with adapters.open_peer(tmp_path / "net.pt2") as runtime:
        assert runtime.label.startswith("torch ")
        contract(runtime, ours(tmp_path / "net.pt2"))


def test_what_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nothing of the kind")
    (tmp_path / "bad.tflite").write_bytes(b"nothing of the kind")
    (tmp_path / "model.h5").write_bytes(b"")
    for name in ("bad.onnx", "bad.tflite", "model.h5", "absent.onnx"):
        with pytest.raises((ModelError, adapters.MissingRuntime), match=name):
            adapters.open_peer(tmp_path / name)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(adapters.MissingRuntime, match="pip install onnxruntime"):
        adapters.open_peer(tmp_path / "bad.onnx")


@pytest.mark.slow
def test_tflite_runtime_in_a_venv_of_its_own(shared_data: Path, tmp_path: Path) -> None:
    """tflite-runtime 2.14 wants numpy below 2, which nothing else here does."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "v")], check=True)
    python = str(tmp_path / "v" / "bin" / "python")
    pip = [python, "-m", "pip", "install", "-q", "tflite-runtime==2.14.0", "numpy<2"]
    got = subprocess.run(pip, capture_output=True, text=True, check=False)
    if got.returncode != 0:
        pytest.skip(f"pip cannot install it here: {got.stderr.strip()[-200:]}")
    model = shared_data / "models" / LITE
    script = (
        "import sys, numpy as np; from edgekit import adapters, measure\n"
        f"with adapters.open_peer({str(model)!r}) as r:\n"
        "    y = next(iter(r.run(measure.random_inputs(r.inputs())).values()))\n"
        "    print(r.label); print(*y.ravel().tolist())\n"
    )
    import edgekit_runtime

    import edgekit

    found = dict.fromkeys(
        str(Path(p.__file__ or "").parents[1]) for p in (edgekit, edgekit_runtime)
    )
    (tmp_path / "lib").mkdir()  # our two packages alone, without the numpy beside them
    for folder in found:
        for name in ("edgekit", "edgekit_runtime"):
            link = tmp_path / "lib" / name
            if (Path(folder) / name).is_dir() and not link.exists():
                link.symlink_to(Path(folder) / name)
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "lib")}
    done = subprocess.run(
        [python, "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    label, values = done.stdout.splitlines()[-2:]
    assert label == "tflite-runtime 2.14.0"
    want = next(iter(ours(model).values())).ravel()
    np.testing.assert_allclose([float(v) for v in values.split()], want, atol=1e-4)

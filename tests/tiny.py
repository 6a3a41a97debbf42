"""A tiny ONNX classifier with data, for tests of commands: made here, nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 4


def model(dynamic: bool = False, unknown: bool = False) -> onnx.ModelProto:
    """x (1, 1, 8, 8) -> y (1, 4): two convolutions, mean over the image, a linear layer."""
    rng = np.random.default_rng(3)
    weights = {
        "w1": rng.normal(size=(8, 1, 3, 3)) / 3,
        "b1": rng.normal(size=8) / 4,
        "w2": rng.normal(size=(16, 8, 1, 1)) / 2,
        "b2": rng.normal(size=16) / 4,
        "w3": rng.normal(size=(CLASSES, 16)),
        "b3": rng.normal(size=CLASSES) / 8,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "head", transB=1),
    ]
    if unknown:
        nodes[-1].output[0] = "z"
        nodes.append(helper.make_node("Bernoulli", ["z"], ["y"], "dice"))
    batch = "batch" if dynamic else 1
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="edgekit"
    )


def images(count: int, seed: int) -> np.ndarray:
    """(count, 1, 8, 8) float32: noise over stripes of one of four directions."""
    rng = np.random.default_rng(seed)
    i, j = np.mgrid[0:8, 0:8]
    base = np.stack([np.sin(i), np.sin(j), np.sin(i + j), np.sin(i - j)])
    kind = rng.integers(0, CLASSES, count)
    return (base[kind] + rng.normal(size=(count, 8, 8)))[:, None].astype(np.float32)


def write(folder: Path) -> Path:
    """model.onnx, train.npz (x), test.npz (x, and the float model's y), x.npy."""
    from edgekit_runtime import Session

    from edgekit import pipeline

    onnx.save(model(), folder / "model.onnx")
    x = images(120, 2)
    with Session(pipeline.build(folder / "model.onnx").data) as s:
        y = np.array([s.run(v[None])["y"].argmax() for v in x])
    np.savez(folder / "train.npz", x=images(64, 1))
    np.savez(folder / "test.npz", x=x, y=y)
    np.save(folder / "x.npy", x[:1])
    return folder

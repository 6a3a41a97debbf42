"""Removal of constant and unread channels: fewer multiplications, the same integers."""

from __future__ import annotations

import numpy as np
import pytest
from edgekit_runtime import Session

from edgekit import contents, evaluate, pipeline
from edgekit.ir import Array, Graph, QuantSpec, Tensor
from edgekit.layout import Target
from edgekit.passes import channels
from edgekit.passes.channels import remove_constant_channels

F = np.float32
Q = QuantSpec.per_tensor


def conv_dw_conv(rng: np.random.Generator, int8: bool, pad: int) -> Graph:
    """pointwise - depthwise - pointwise with dead channels 1 and 4 and, in the last weights, unread
    channel 6."""
    g = Graph("net")
    c = 8
    g.add_tensor(
        Tensor("x", (1, 6, 6, 3), "i8" if int8 else "f32", None, Q(0.05, 3) if int8 else None)
    )
    g.inputs = ["x"]

    def weights(axis: int, *shape: int) -> str:
        w = rng.integers(-127, 128, shape)
        np.moveaxis(w, axis, 0)[[1, 4]] = 0
        if axis == -1:
            w[..., 6] = 0
        if not int8:
            return g.const("w", (w / 127).astype(F))
        return g.const(
            "w",
            w.astype(np.int8),
            QuantSpec.per_axis(np.full(shape[max(axis, 0)], 0.01), max(axis, 0)),
        )

    def bias(n: int) -> str:
        b = rng.integers(-2000, 2000, n)
        return g.const("b", b.astype(np.int32) if int8 else (b / 2000).astype(F))

    def emit(op: str, *inputs: str, **attrs: object) -> str:
        return g.emit(
            op, inputs, attrs, quant=Q(0.08, -20) if int8 else None, dtype="i8" if int8 else "f32"
        )

    a = emit("conv2d", "x", weights(0, c, 1, 1, 3), bias(c), lo=0.0)
    b = emit("depthwise_conv2d", a, weights(2, 3, 3, c), bias(c), pad=(pad,) * 4)
    g.outputs = [emit("conv2d", b, weights(-1, 5, 1, 1, c), bias(5))]
    return g


def run(g: Graph, x: Array) -> Array:
    return evaluate.run(g, {"x": x})[g.outputs[0]]


@pytest.fixture(autouse=True)
def every_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "GRANULE", 1)


def test_what_is_left_is_a_multiple_of_the_granule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "GRANULE", 3)
    rng = np.random.default_rng(5)
    g = conv_dw_conv(rng, True, 1)
    small = remove_constant_channels(g)
    assert small.tensors[small.ops[0].outputs[0]].shape[-1] == 6  # of 5 that carry something
    x = rng.integers(-128, 128, (1, 6, 6, 3)).astype(np.int8)
    assert np.array_equal(run(small, x), run(g, x))


@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("int8", [True, False])
def test_dead_and_unread_channels_go_and_the_outputs_stay(int8: bool, pad: int) -> None:
    rng = np.random.default_rng(pad)
    g = conv_dw_conv(rng, int8, pad)
    small = remove_constant_channels(g)
    kept = small.tensors[small.ops[0].outputs[0]].shape[-1]
    assert kept == 5  # 1, 4 constant, 6 unread
    assert pipeline.macs(small) < 0.7 * pipeline.macs(g)
    for _ in range(5):
        x = (
            rng.integers(-128, 128, (1, 6, 6, 3)).astype(np.int8)
            if int8
            else rng.normal(size=(1, 6, 6, 3)).astype(F)
        )
        want, got = run(g, x), run(small, x)
        assert np.array_equal(got, want) if int8 else np.allclose(got, want, atol=1e-5)


def test_weights_too_small_to_move_an_int8_output_make_a_constant_channel() -> None:
    rng = np.random.default_rng(3)
    g = conv_dw_conv(rng, True, 1)
    op = g.ops[0]
    w = g.tensors[op.inputs[1]]
    assert w.data is not None
    scale = np.full(8, 0.01, F)
    scale[2] = 1e-9  # full-size integers of a tiny scale
    bias = g.value(op.inputs[2])
    assert bias is not None
    g.tensors[w.name] = Tensor(w.name, w.shape, "i8", w.data, QuantSpec.per_axis(scale, 0))
    small = remove_constant_channels(g)
    assert small.tensors[small.ops[0].outputs[0]].shape[-1] == 4
    x = rng.integers(-128, 128, (1, 6, 6, 3)).astype(np.int8)
    assert np.array_equal(run(small, x), run(g, x))


def test_a_tensor_that_is_an_output_or_has_two_readers_is_left_alone() -> None:
    g = conv_dw_conv(np.random.default_rng(4), True, 0)
    g.outputs.append(g.ops[0].outputs[0])
    small = remove_constant_channels(g)
    assert small.tensors[small.ops[0].outputs[0]].shape[-1] == 8


def test_packages_leave_constant_channels_out_but_those_that_keep_every_tensor() -> None:
    g = conv_dw_conv(np.random.default_rng(6), True, 1)
    x = np.random.default_rng(7).integers(-128, 128, (1, 6, 6, 3)).astype(np.int8)
    widths, outputs = [], []
    for keep in (False, True):
        blob = pipeline.package_graph(g, Target(), keep=keep)
        inside = contents.read(blob).entries[0].graph
        widths.append(inside.tensors[inside.ops[0].outputs[0]].shape[-1])
        with Session(blob) as s:
            outputs.append(s.run({"x": x})[g.outputs[0]])
    assert widths == [5, 8]
    assert np.array_equal(outputs[0], run(g, x)) and np.array_equal(outputs[1], run(g, x))

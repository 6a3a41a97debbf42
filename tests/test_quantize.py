"""Quantization: ranges, specs, the int8 graph equals its numpy meaning natively, exclusion, no
silent no-op."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from edgekit_runtime import Session

from edgekit import boards, cost, evaluate, pipeline
from edgekit.compress import calibrate, quantize, widths
from edgekit.errors import DataError, ModelError, UsageError
from edgekit.ir import Array, Graph, QuantSpec, Tensor
from edgekit.ops.lut import table_of

F = np.float32


def small_net() -> Graph:
    """conv - depthwise - add - max_pool - linear - softmax, with random weights."""
    rng = np.random.default_rng(0)
    g = Graph("small")
    g.add_tensor(Tensor("x", (1, 12, 12, 3)))
    g.inputs = ["x"]

    def w(*shape: int) -> str:
        return g.const("w", (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(F))

    a = g.emit(
        "conv2d",
        ["x", w(8, 3, 3, 3), w(8)],
        {"pad": (1, 1, 1, 1), "lo": 0.0, "hi": 6.0},
        name="conv",
    )
    b = g.emit("depthwise_conv2d", [a, w(3, 3, 8), w(8)], {"pad": (1, 1, 1, 1)}, name="dw")
    c = g.emit("binary", [a, b], {"kind": "add"}, name="add")
    d = g.emit("unary", [c], {"kind": "hardswish"}, name="act")
    e = g.emit("reshape", [d], {"shape": (1, 12 * 12 * 8)}, name="flat")
    g.outputs = [g.emit("linear", [e, w(5, 12 * 12 * 8), w(5)], {}, name="logits")]
    return g


def samples(n: int = 16) -> Array:
    return np.random.default_rng(1).normal(size=(n, 1, 12, 12, 3)).astype(F)


@pytest.mark.parametrize("precision", ["int8", "w8a16"])
def test_integer_graph_runs_to_the_same_integers_natively_and_in_numpy(precision: str) -> None:
    built = pipeline.build(small_net(), precision=precision, calibration={"x": samples()[:, 0]})
    same_integers(built.graph)


def same_integers(graph: Graph) -> None:
    """Every tensor of a graph, natively and in numpy."""
    target = pipeline.target_of(boards.load("host"))
    with Session(pipeline.package_graph(graph, target, keep=True)) as s:
        for x in samples(3):
            s.run({"x": x})
            want = evaluate.run(graph, {"x": x})
            for op in graph.ops:
                for o in op.outputs:
                    assert np.array_equal(s.tensor(o), want[o]), o


def observed(g: Graph) -> dict[str, calibrate.Observed]:
    with pipeline.every_tensor(g, pipeline.target_of(boards.load("host"))) as run:
        return calibrate.observe(g, run, lambda: ({"x": x} for x in samples()))


def test_int16_activations_lose_less_than_int8() -> None:
    g, cal = small_net(), {"x": samples()[:, 0]}
    last = {}
    for precision in ("int8", "w8a16"):
        built = pipeline.build(g, precision=precision, calibration=cal)
        last[precision] = built.sqnr[-1].sqnr_db
        assert pipeline.weight_bytes(built.graph) < pipeline.weight_bytes(g) / 3
    assert last["w8a16"] > last["int8"] + 3
    kinds = {op.name: built.graph.tensors[op.outputs[0]].dtype for op in built.graph.ops}
    assert kinds.pop("logits/dequantize") == "f32" and set(kinds.values()) == {"i16"}
    assert {op.type for op in built.lowered.ops} >= {"conv16", "map16"}
    assert cost.predict(built.lowered, boards.load("qemu_mps2_an386")) is None  # no rates: no guess


@pytest.mark.parametrize("names", [["conv"], ["dw"], ["add"], ["act"], ["logits", "conv"]])
def test_int16_around_some_ops_is_cast_at_its_borders(names: list[str]) -> None:
    g = small_net()
    seen = observed(g)
    q, _ = quantize.quantize(g, seen, ranged=widths.wide_specs(g, seen, names))
    kinds = {t.dtype for t in q.tensors.values() if t.data is None}
    assert {"i8", "i16"} <= kinds
    same_integers(q)


def test_int16_takes_weights_of_8_bits_only() -> None:
    g = small_net()
    seen = observed(g)
    wide = widths.wide_specs(g, seen, ["logits"])
    with pytest.raises(UsageError, match="below 8 bits"):
        quantize.quantize(g, seen, ranged=wide, bits={"logits": 4})
    with pytest.raises(UsageError, match="matches no op"):
        widths.wide_specs(g, seen, ["nothing"])


def test_a_channel_that_is_almost_its_bias_keeps_it_in_int16() -> None:
    g = Graph("dead")
    g.add_tensor(Tensor("x", (1, 12, 12, 3)))
    g.inputs = ["x"]
    w = np.array([[[[1e-9, 0, 0]]], [[[0.5, 0.1, 0.2]]]], F)
    b = g.const("b", np.array([0.7, 0.1], F))
    g.outputs = [g.emit("conv2d", ["x", g.const("w", w), b], {}, name="conv")]
    seen = observed(g)
    q, names = quantize.quantize(g, seen, ranged=widths.wide_specs(g, seen))
    y = evaluate.run(q, {"x": samples(1)[0]})[names[g.outputs[0]]]
    spec = q.tensors[names[g.outputs[0]]].quant
    assert spec is not None
    assert np.abs(spec.dequantize(y)[..., 0] - 0.7).max() < 2 * float(spec.scale)


def test_int8_stays_close_to_float_and_shrinks_the_constants() -> None:
    g = small_net()
    built = pipeline.build(g, precision="int8", calibration={"x": samples()[:, 0]})
    assert all(la.sqnr_db > 25 for la in built.sqnr), built.sqnr
    assert pipeline.weight_bytes(built.graph) < 0.3 * pipeline.weight_bytes(g)
    assert pipeline.int8_ops(built.graph) == 7  # quantize and six ops


def test_a_table_keeps_within_the_bits_of_what_it_writes() -> None:
    x = QuantSpec.covering(-4.0, 4.0)
    for bits in (8, 4):
        y = QuantSpec.covering(0.0, 2.0, bits)  # what is above 2 saturates
        t = table_of("clamp", -np.inf, np.inf, x, y)
        assert (t.min(), t.max()) == (-(1 << bits - 1), (1 << bits - 1) - 1)


@pytest.mark.parametrize("method", calibrate.METHODS)
def test_every_calibration_method_covers_most_of_the_range(method: str) -> None:
    rng = np.random.default_rng(2)
    data = [{"x": rng.normal(size=(1, 50)).astype(F)} for _ in range(500)]
    data[0]["x"][0, 0] = 40.0  # one outlier
    seen = calibrate.observe(Graph("g"), lambda x: x, lambda: iter(data), method)["x"]
    assert (seen.true_lo, seen.true_hi) == (min(float(d["x"].min()) for d in data), 40.0)
    if method == "minmax":
        assert seen.hi == 40.0
    else:
        assert 2.5 < seen.hi < 40.0
    assert seen.mean.shape == (50,)


def test_excluded_ops_stay_float_and_unknown_names_are_refused() -> None:
    built = pipeline.build(
        small_net(), precision="int8", calibration={"x": samples()[:, 0]}, exclude=["dw"]
    )
    kinds = {op.name: built.graph.tensors[op.outputs[0]].dtype for op in built.graph.ops}
    assert kinds["dw"] == "f32"
    assert kinds["conv"] == kinds["add"] == "i8"
    with pytest.raises(UsageError, match="conw"):
        pipeline.build(
            small_net(), precision="int8", calibration={"x": samples()[:, 0]}, exclude=["conw"]
        )


def test_int8_io_takes_and_gives_integers() -> None:
    built = pipeline.build(
        small_net(), precision="int8", calibration={"x": samples()[:, 0]}, io="int8"
    )
    with Session(built.data) as s:
        assert s.inputs()[0].dtype == np.int8
        assert s.outputs()[0].dtype == np.int8
        assert s.inputs()[0].scale > 0
        assert s.selftest() == 1


def test_dynamic_quantization_is_exact_natively_and_refuses_to_do_nothing() -> None:
    built = pipeline.build(small_net(), precision="dynamic")
    last = built.graph.ops[-1]
    assert built.graph.tensors[last.inputs[1]].dtype == "i8"
    g = Graph("nothing")
    g.add_tensor(Tensor("x", (4,)))
    g.inputs, g.outputs = ["x"], [g.emit("unary", ["x"], {"kind": "tanh"})]
    with pytest.raises(ModelError, match="nothing"):
        quantize.dynamic(g)


def test_calibration_refuses_empty_and_infinite_data() -> None:
    def none() -> Iterator[dict[str, Array]]:
        return iter(())

    with pytest.raises(DataError, match="no calibration samples"):
        calibrate.observe(Graph("g"), lambda x: x, none)
    with pytest.raises(DataError, match="finite"):
        calibrate.observe(Graph("g"), lambda x: x, lambda: iter([{"x": np.array([np.inf], F)}]))
    with pytest.raises(UsageError, match="calibration data"):
        pipeline.build(small_net(), precision="int8")


def test_weights_are_symmetric_per_channel_and_dead_channels_survive() -> None:
    w = np.zeros((3, 4), F)
    w[1] = [1, -2, 0.5, 0]
    q, spec = widths.quantize_weights(w, 0)
    assert q.min() == -127
    assert spec.scale.shape == (3,)
    assert np.array_equal(spec.dequantize(q)[0], np.zeros(4, F))
    assert np.abs(spec.dequantize(q) - w).max() <= spec.scale[1] / 2 + 1e-9

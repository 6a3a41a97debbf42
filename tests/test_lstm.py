"""LSTM and GRU against onnxruntime, torch and TFLite's reference kernels, numpy and native."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime import Session

from edgekit import evaluate, frontends, passes, pipeline
from edgekit.errors import ModelError
from edgekit.ir import Graph, Op
from edgekit.layout import Target
from edgekit.ops import fixedpoint, lstm

F = np.float32
TIME, BATCH, INPUTS, UNITS = 5, 3, 7, 6


def onnx_net(
    kind: str,
    direction: str,
    *,
    bias: bool = True,
    start: bool = False,
    layout: int = 0,
    **attrs: Any,
) -> tuple[Any, dict[str, np.ndarray]]:
    """A model of one recurrent node with all its outputs, and inputs for it."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    gates, n = (4 if kind == "LSTM" else 3), (2 if direction == "bidirectional" else 1)
    state = (BATCH, n, UNITS) if layout else (n, BATCH, UNITS)
    steps = (BATCH, TIME) if layout else (TIME, BATCH)
    dims: dict[str, tuple[int, ...]] = {"x": (*steps, INPUTS)}
    if start:
        dims["h0"] = state
        if kind == "LSTM":
            dims["c0"] = state
    rows = gates * UNITS
    sizes: dict[str, tuple[int, ...]] = {"w": (n, rows, INPUTS), "r": (n, rows, UNITS)}
    if bias:
        sizes["b"] = (n, 2 * gates * UNITS)
    weights = [
        numpy_helper.from_array(rng.normal(scale=0.5, size=s).astype(F), k)
        for k, s in sizes.items()
    ]
    names = ["x", "w", "r", "b" if bias else "", "", *(k for k in dims if k != "x")]
    outputs = ["Y", "Y_h", "Y_c"][: 3 if kind == "LSTM" else 2]
    if layout:
        attrs["layout"] = 1
    node = helper.make_node(kind, names, outputs, direction=direction, hidden_size=UNITS, **attrs)
    values = [helper.make_tensor_value_info(k, TensorProto.FLOAT, s) for k, s in dims.items()]
    results = [helper.make_tensor_value_info(k, TensorProto.FLOAT, None) for k in outputs]
    graph = helper.make_graph([node], "net", values, results, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return model, {k: rng.normal(size=s).astype(F) for k, s in dims.items()}


def check(graph: Graph, feed: dict[str, np.ndarray], want: list[np.ndarray]) -> None:
    """numpy and the native runtime both give `want` within 1e-5 of its largest value."""
    simple, _ = passes.simplify_all(graph)
    with Session(pipeline.package_graph(simple, Target())) as s:
        native = s.run(feed)
    for got in (evaluate.outputs(graph, feed), native):
        for name, w in zip(graph.outputs, want, strict=True):
            assert got[name].shape == w.shape
            assert np.max(np.abs(got[name] - w)) <= 1e-5 * np.max(np.abs(w)), name


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("start", [False, True])
def test_onnx_recurrent_ops_agree_with_onnxruntime(kind: str, direction: str, start: bool) -> None:
    import onnxruntime as ort

    for attrs in ({"linear_before_reset": 1}, {}) if kind == "GRU" else ({},):
        model, feed = onnx_net(kind, direction, bias=start, start=start, **attrs)
        want = ort.InferenceSession(model.SerializeToString()).run(None, feed)
        check(frontends.load(model), feed, want)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_batch_first_is_the_same_net_with_swapped_axes(kind: str) -> None:
    model, feed = onnx_net(kind, "bidirectional", start=True)
    first, _ = onnx_net(kind, "bidirectional", start=True, layout=1)
    want = list(evaluate.outputs(frontends.load(model), feed).values())
    swapped = {k: np.ascontiguousarray(v.swapaxes(0, 1)) for k, v in feed.items()}
    y = want[0].transpose(2, 0, 1, 3)
    check(frontends.load(first), swapped, [y, *(w.swapaxes(0, 1) for w in want[1:])])


@pytest.mark.parametrize(
    "attrs", [{"clip": 3.0}, {"activations": ["Relu", "Tanh", "Tanh"]}, {"input_forget": 1}]
)
def test_what_onnx_asks_beyond_the_op_is_refused(attrs: dict[str, Any]) -> None:
    model, _ = onnx_net("LSTM", "forward", **attrs)
    with pytest.raises(ModelError, match="LSTM with"):
        frontends.load(model)


def test_torch_modules() -> None:
    import torch

    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(INPUTS, UNITS, bidirectional=True, batch_first=True)
            self.gru = torch.nn.GRU(2 * UNITS, 4, num_layers=2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.gru(self.lstm(x)[0])[0]
            return y[:, -1]

    net, x = Net().eval(), torch.randn(1, TIME, INPUTS)
    graph = frontends.load(net, args=(x,))
    with torch.no_grad():
        want = net(x).numpy()
    check(graph, {graph.inputs[0]: x.numpy()}, [want])


def test_tables_are_near_the_functions_they_stand_for() -> None:
    """Interpolation stays within 2 units of 2^-15, TFLite's own fixed-point functions within 13."""
    x = np.arange(-32768, 32768)
    sig, tan = lstm.tables()
    for bits in (11, 12):
        real = x / 2.0**bits
        for table, f, sigmoid in (
            (sig, 1 / (1 + np.exp(-real)), True),
            (tan, np.tanh(real), False),
        ):
            got = lstm.table_lookup(table, x, bits, sigmoid=sigmoid)
            exact = np.where(np.abs(real) < 8, f * 32768, got)
            assert np.max(np.abs(got - exact)) <= 2
        positive = x[x >= 0]
        assert (
            np.max(
                np.abs(
                    fixedpoint.sigmoid(positive, bits) - 32768 / (1 + np.exp(-positive / 2.0**bits))
                )
            )
            <= 13
        )
        assert (
            np.max(np.abs(fixedpoint.tanh(positive, bits) - 32768 * np.tanh(positive / 2.0**bits)))
            <= 13
        )


def test_int8_lstm_is_near_its_float_meaning() -> None:
    """The integer rule computes the LSTM of the dequantized weights, to a few units of the output's
    scale.
    """
    for label, g, feed in lstm.samples():
        if not label.startswith("i8_aligned"):
            continue
        op = g.ops[0]
        x, w, r, b = (g.tensors[n] for n in op.inputs[:4])
        assert (
            x.quant
            and w.quant
            and r.quant
            and w.data is not None
            and r.data is not None
            and b.data is not None
        )
        real = b.data * x.quant.scale * w.quant.scale
        floats = [
            x.quant.dequantize(feed["x"]),
            w.quant.dequantize(w.data),
            r.quant.dequantize(r.data),
            real.astype(F),
        ]
        want = lstm.reference(Op("lstm", "f", ("", "", ""), ("y",), op.attrs), g, floats)[0]
        out = g.tensors[op.outputs[0]]
        assert out.quant
        got = out.quant.dequantize(lstm.reference(op, g, [feed["x"], w.data, r.data, b.data])[0])
        assert np.max(np.abs(got - want)) <= 6 * float(out.quant.scale)
        return
    pytest.fail("no such sample")


@pytest.fixture(scope="module")
def micro_speech(shared_data: Path) -> str:
    return str(shared_data / "models" / "micro_speech_lstm.tflite")


def _sequences(n: int) -> list[np.ndarray]:
    """Whole range, and the low end with silence where real spectrograms lie."""
    rng = np.random.default_rng(5)
    loud = [rng.integers(-128, 128, (1, 49, 257)).astype(np.int8) for _ in range(n)]
    quiet = np.abs(rng.normal(0, 12, (n, 1, 49, 257))) - 128
    return loud + list(np.clip(quiet, -128, 127).astype(np.int8))


def test_int8_lstm_follows_tflite_within_one_unit(micro_speech: str) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from edgekit.frontends import tflite

    it = Interpreter(
        micro_speech,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    it.allocate_tensors()
    imp = tflite.read_graph(micro_speech)
    graph, node = imp.graph, imp.model.nodes[0]
    name = imp.names[node.outputs[0]]
    with Session(pipeline.package_graph(graph, Target(), keep=True)) as s:
        # states go on from sequence to sequence, in both
        states: dict[str, np.ndarray] = {}
        for x in _sequences(4):
            it.set_tensor(it.get_input_details()[0]["index"], x)
            it.invoke()
            got = evaluate.run(graph, {graph.inputs[0]: x}, states)[name]
            want = it.get_tensor(node.outputs[0]).astype(int)
            assert np.max(np.abs(got - want)) <= 1
            s.run({graph.inputs[0]: x})
            assert np.array_equal(s.tensor(name), got)
        s.reset()
        s.run({graph.inputs[0]: x})
        assert np.array_equal(s.tensor(name), evaluate.run(graph, {graph.inputs[0]: x})[name])

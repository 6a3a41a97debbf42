"""Float and already quantized models against the runtimes they come from."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import samples
from edgekit_runtime import Session
from figures import Outcome, item, model, points

from edgekit import adapters, evaluate, frontends, ops, passes, pipeline
from edgekit.frontends import tflite
from edgekit.ir import Graph

Array = npt.NDArray[Any]
LIMIT = 1e-4  # of the largest value, per output
FLOAT_INPUTS, QUANTIZED_INPUTS, TRACED_INPUTS = 8, 100, 3
FLOAT = (
    "pretrainedResnet.tflite",
    "vww_96_float.tflite",
    "ad01_fp32.tflite",
    "mbnet128_0.25_f.tflite",
    "mnist_valid_f.tflite",
    "mnist_lstm.tflite",
    "resnet20_cifar10.onnx",
    "resnet56_cifar10.onnx",
    "squeezenet_v1.1.onnx",
    "version-RFB-320.onnx",
)
QUANTIZED = (
    "kws_ref_model.tflite",
    "pretrainedResnet_quant.tflite",
    "vww_96_int8.tflite",
    "ad01_int8.tflite",
    "str_ww_ref_model.tflite",
    "mobilenet_v1_0.25_128_quant.tflite",
    "mobilenet_v2_1.0_224_quant.tflite",
    "tf2_mobilenet_v2_1.0_224_ptq.tflite",
    "mbnet128_0.25_q.tflite",
    "mnist_valid_q.tflite",
    "micro_speech_lstm.tflite",
)
TORCH = ("mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2", "unet", "vit_tiny")


def worst(got: list[Array], want: list[Array]) -> list[float]:
    """max|a-b| / max|b| per output."""
    return [
        float(np.max(np.abs(g - w)) / max(np.max(np.abs(w)), 1e-30))
        for g, w in zip(got, want, strict=True)
    ]


def float_outcome(rows: list[list[float]], inputs: str, reference: str) -> Outcome:
    """Largest distance per output over all inputs."""
    top = [float(f"{x:.2e}") for x in np.max(np.asarray(rows), axis=0)]
    figure = {"distance": top, "inputs": f"{len(rows)}, {inputs}", "reference": reference}
    return Outcome(figure, max(top) <= LIMIT)


def _float(name: str) -> Outcome:
    path = model(name)
    rows = []
    with adapters.open_peer(path) as peer, Session(pipeline.build(path).data) as s:
        xs, what = samples.of(name, peer.inputs()[0].shape, FLOAT_INPUTS)
        for x in xs:
            want = list(peer.run({peer.inputs()[0].name: x}).values())
            got = list(s.run({s.inputs()[0].name: x}).values())
            rows.append(worst(got, want))
        return float_outcome(rows, what, peer.label)


@item(
    "parity.float.kws_ref_model_float32",
    "max|a-b| <= 1e-4 max|b| against its dequantized weights in float",
)
def hybrid() -> Outcome:
    """A hybrid: TFLite would quantize its activations; numpy runs its dequantized weights."""
    path = model("kws_ref_model_float32.tflite")
    graph = passes.simplify_all(frontends.load(path))[0]
    rows = []
    with Session(pipeline.build(path).data) as s:
        for x in samples.kws()[0][:FLOAT_INPUTS]:
            x = x.reshape(s.inputs()[0].shape)
            want = list(evaluate.outputs(graph, {graph.inputs[0]: x}).values())
            rows.append(worst(list(s.run(x).values()), want))
    return float_outcome(rows, "MLPerf Tiny MFCCs", "numpy, dequantized weights")


def torch_parity(module: Any, example: Any) -> Outcome:
    import torch

    rows = []
    module = module.eval()
    torch.manual_seed(1)
    with Session(pipeline.build(frontends.load(module, args=(example,))).data) as s:
        for _ in range(3):
            x = torch.randn_like(example)
            with torch.no_grad():
                y = module(x)
            want = [t.numpy() for t in (y if isinstance(y, tuple | list) else [y])]
            rows.append(worst(list(s.run(x.numpy()).values()), want))
    return float_outcome(rows, "random", f"torch {torch.__version__}")


def _torch(name: str) -> Outcome:
    import models

    return torch_parity(*models.make(name))


@item("parity.float.efficientnet_lite0", "max|a-b| <= 1e-4 max|b| against torch")
def efficientnet() -> Outcome:
    from torch_nets import efficientnet

    return torch_parity(*efficientnet())


# ---- already quantized models ----


def reference_values(path: Path, x: Array, names: dict[int, str]) -> dict[str, Array]:
    """Tensors of TFLite's reference kernels for one input, by our name of each; uint8 as int8."""
    lite: Any = adapters._module(adapters.LITE_MODULES, "ai-edge-litert", str(path))
    it = lite.Interpreter(
        model_path=str(path),
        experimental_op_resolver_type=lite.OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    it.allocate_tensors()
    it.set_tensor(it.get_input_details()[0]["index"], x)
    it.invoke()
    found = {}
    for index, name in names.items():
        with suppress(ValueError):  # variables and unused tensors hold nothing
            value = it.get_tensor(index)
            shifted = value.dtype == np.uint8
            found[name] = (value.astype(np.int16) - 128).astype(np.int8) if shifted else value
    return found


def op_differences(g: Graph, known: dict[str, Array]) -> dict[str, tuple[int, int, int]]:
    """Per op type: values compared, values that differ, largest difference; the operators are fed
    the reference's own inputs.

    An op on the way to an operator's result (its name is not the file's) takes what ours computed.
    """
    values = {n: t.data for n, t in g.tensors.items() if t.data is not None}
    # an input that is shifted to int8 is known after its shift; a state only after the run
    values |= {n: v for n, v in known.items() if n not in g.states}
    rows: dict[str, tuple[int, int, int]] = {}
    for op in g.ops:
        if any(n in g.inputs and n not in values for n in op.inputs):
            continue
        operands = [values[n] if n else None for n in op.inputs]
        for name, y in zip(op.outputs, ops.get(op.type).reference(op, g, operands), strict=True):
            want = known.get(name)
            values[name] = y
            if want is None or want.shape != y.shape or want.dtype != y.dtype:
                continue
            values[name] = want
            if y.dtype == np.int8:
                d = np.abs(y.astype(int) - want)
                n, k, top = rows.get(op.type, (0, 0, 0))
                rows[op.type] = (n + d.size, k + int((d > 0).sum()), max(top, int(d.max())))
    return rows


def quantized_inputs(path: Path, count: int) -> tuple[list[Array], str]:
    """Real inputs in the model's own type."""
    from edgekit_runtime.preprocess import apply

    with adapters.open_peer(path) as peer:
        info = peer.inputs()[0]
    xs, what = samples.of(path.name, info.shape, count)
    if "random" in what:
        bounds = np.iinfo(info.dtype)
        rng = np.random.default_rng(0)
        made = rng.integers(bounds.min, bounds.max + 1, (count, *info.shape)).astype(info.dtype)
        return list(made), what
    return [apply(x, info, {}) for x in xs], what


def default_values(path: Path, x: Array, names: dict[int, str]) -> dict[str, Array]:
    """As `reference_values`, of LiteRT's default kernels, which keep no tensor but the output.

    So the file is made to give each tensor in turn: the index of its output is overwritten.
    """
    import tflite as schema

    lite: Any = adapters._module(adapters.LITE_MODULES, "ai-edge-litert", str(path))
    raw = bytearray(path.read_bytes())
    graph = schema.Model.GetRootAs(raw, 0).Subgraphs(0)
    at = graph._tab.Vector(graph._tab.Offset(8))  # field 2 of SubGraph: outputs
    assert struct.unpack_from("<i", raw, at)[0] == graph.Outputs(0)
    made = {
        int(j) for i in range(graph.OperatorsLength()) for j in graph.Operators(i).OutputsAsNumpy()
    }
    found = {}
    for index, name in names.items():
        if index not in made:
            continue
        struct.pack_into("<i", raw, at, index)
        it = lite.Interpreter(model_content=bytes(raw))
        it.allocate_tensors()
        it.set_tensor(it.get_input_details()[0]["index"], x)
        it.invoke()
        value = it.get_tensor(it.get_output_details()[0]["index"])
        shifted = value.dtype == np.uint8
        found[name] = (value.astype(np.int16) - 128).astype(np.int8) if shifted else value
    first = names[int(graph.Inputs(0))]
    found[first] = (x.astype(np.int16) - 128).astype(np.int8) if x.dtype == np.uint8 else x
    return found


def op_table(
    path: Path, xs: list[Array], values: Callable[..., dict[str, Array]]
) -> tuple[dict[str, dict[str, int]], bool]:
    """(per op type: values compared, differing, largest difference; whether each input has one)."""
    total: dict[str, tuple[int, int, int]] = {}
    imported = tflite.read_graph(path)
    explained = True
    for x in xs:
        known = values(path, x, imported.names)
        found = op_differences(imported.graph, known)
        explained = explained and any(k for _, k, _ in found.values())
        for kind, (n, k, top) in found.items():
            a, b, c = total.get(kind, (0, 0, 0))
            total[kind] = (a + n, b + k, max(c, top))
    table = {
        kind: {"values": n, "differ": k, "largest": top}
        for kind, (n, k, top) in sorted(total.items())
    }
    return table, explained


def _op_by_op(name: str) -> Outcome:
    path = model(name)
    xs, what = quantized_inputs(path, 3)
    table, _ = op_table(path, xs, reference_values)
    holds = bool(table) and all(row["largest"] <= 1 for row in table.values())
    return Outcome({"inputs": f"{len(xs)}, {what}", "ops": table}, holds)


def run_both(path: Path, xs: list[Array]) -> tuple[list[Array], list[Array], str]:
    """(ours, LiteRT's with default kernels, its label): outputs (k,) as int64."""
    ours, theirs = [], []
    with adapters.open_peer(path) as peer, Session(pipeline.build(path).data) as s:
        for x in xs:
            for runtime, into in ((peer, theirs), (s, ours)):
                y = runtime.run({runtime.inputs()[0].name: x}).values()
                into.append(np.concatenate([v.ravel() for v in y]).astype(np.int64))
        return ours, theirs, peer.label


def _traced(name: str) -> Outcome:
    """For inputs whose outputs differ from the default kernels': the ops that make it."""
    path = model(name)
    xs, what = quantized_inputs(path, QUANTIZED_INPUTS)
    ours, theirs, _ = run_both(path, xs)
    differ = [x for x, a, b in zip(xs, ours, theirs) if np.any(a != b)]
    figure: dict[str, Any] = {"inputs": f"{len(xs)}, {what}", "outputs_differ_for": len(differ)}
    if not differ:
        return Outcome(figure, True)
    table, explained = op_table(path, differ[:TRACED_INPUTS], default_values)
    figure["traced"] = min(len(differ), TRACED_INPUTS)
    figure["ops"] = {k: row for k, row in table.items() if row["differ"]}
    return Outcome(figure, explained)


def _end_to_end(name: str) -> Outcome:
    path = model(name)
    xs, what = quantized_inputs(path, QUANTIZED_INPUTS)
    ours, theirs, label = run_both(path, xs)
    d = np.abs(np.stack(ours) - np.stack(theirs))
    near = float((d <= 1).mean())
    same = float(np.mean([a.argmax() == b.argmax() for a, b in zip(ours, theirs)]))
    figure = {
        "inputs": f"{len(xs)}, {what}",
        "within_1_lsb": points(near),
        "largest_lsb": int(d.max()),
        "top1_equal": points(same),
        "reference": f"{label}, default kernels",
    }
    return Outcome(figure, near >= 0.95 and same >= 0.97)


def _register() -> None:
    """One figure per model."""
    groups: list[tuple[str, tuple[str, ...], str, Callable[[str], Outcome]]] = [
        ("parity.float", FLOAT, "max|a-b| <= 1e-4 max|b| per output", _float),
        ("parity.float", TORCH, "max|a-b| <= 1e-4 max|b| against torch", _torch),
        (
            "parity.ops",
            QUANTIZED,
            "every value within 1 LSB of TFLite's reference kernels",
            _op_by_op,
        ),
        (
            "parity.traced",
            QUANTIZED,
            "each output that differs from LiteRT's default kernels is traced to an op",
            _traced,
        ),
        (
            "parity.quantized",
            QUANTIZED,
            ">= 95 % within 1 LSB, top-1 equal on >= 97 %",
            _end_to_end,
        ),
    ]
    for prefix, names, bar, run in groups:
        for name in names:
            stem = Path(name).stem if name.endswith((".tflite", ".onnx")) else name
            item(f"{prefix}.{stem}", bar)(lambda name=name, run=run: run(name))  # type: ignore[misc]


_register()

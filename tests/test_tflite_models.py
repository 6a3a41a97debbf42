"""Real TFLite models: every operator against the reference kernels, whole nets natively."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime import Session

from edgekit import evaluate, ops, pipeline
from edgekit.frontends import tflite

F = np.float32
KWS = (0.5847029, 83)  # scale and zero point of the int8 keyword model's input
FLOAT = [
    "ad01_fp32",
    "mbnet128_0.25_f",
    "mnist_lstm",
    "mnist_valid_f",
    "pretrainedResnet",
    "vww_96_float",
]
INT8 = [
    "ad01_int8",
    "kws_ref_model",
    "mbnet128_0.25_q",
    "micro_speech_lstm",
    "mnist_valid_q",
    "mobilenet_v1_0.25_128_quant",
    "mobilenet_v2_1.0_224_quant",
    "pretrainedResnet_quant",
    "str_ww_ref_model",
    "tf2_mobilenet_v2_1.0_224_ptq",
    "vww_96_int8",
]


def interpreter(path: Path, reference: bool) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    if not reference:
        it = Interpreter(str(path))
    else:
        it = Interpreter(
            str(path),
            experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
            experimental_preserve_all_tensors=True,
        )
    it.allocate_tensors()
    return it


def real_inputs(name: str, sets: Path, shape: tuple[int, ...], n: int) -> np.ndarray:
    """(n, *shape) real-valued inputs in the model's own preprocessing."""
    if name.startswith("kws"):
        return (np.load(sets / "kws_mfcc.npz")["x"][:n].astype(F) - KWS[1]) * F(KWS[0])
    if name.startswith("pretrained"):
        return np.load(sets / "cifar10_lossless.npz")["x"][:n].astype(F)
    if name.startswith("vww"):
        return np.load(sets / "vww_rgb96.npz")["x"][:n].astype(F) / 255
    if name.startswith("ad01"):
        x = np.load(sets / "ad_spectra.npz")["x"]
        starts = [(k * 7919) % (x.shape[1] - 640) // 128 * 128 for k in range(n)]
        return np.stack([x[k % len(x), s : s + 640] for k, s in enumerate(starts)])
    if name.startswith("mnist"):
        with gzip.open(sets / "t10k-images-idx3-ubyte.gz") as f:
            raw = np.frombuffer(f.read(), np.uint8, offset=16)
        return raw.reshape(-1, 784)[:n].reshape(n, *shape[1:]).astype(F) / 255
    if "mobilenet" in name or "mbnet" in name:
        images = photographs(sets / "imagenet_even500.tar", shape[1:3], n)
        return images / 255 if name == "mbnet128_0.25_q" else images / 127.5 - 1
    # no data of their own: streaming wakeword and micro speech
    return np.random.default_rng(0).normal(0.4, 0.2, (n, *shape[1:])).astype(F)


def photographs(path: Path, size: tuple[int, ...], n: int) -> np.ndarray:
    from PIL import Image

    out = []
    with tarfile.open(path) as tar:
        members = [m for m in tar.getmembers() if m.isfile()]
        for m in members[:: len(members) // n][:n]:
            file = tar.extractfile(m)
            assert file is not None
            image = Image.open(io.BytesIO(file.read())).convert("RGB").resize((size[1], size[0]))
            out.append(np.asarray(image, F))
    return np.stack(out)


def inputs_for(name: str, data: Path, n: int) -> list[np.ndarray]:
    """Batches of one in the model's input type."""
    detail = interpreter(data / "models" / f"{name}.tflite", False).get_input_details()[0]
    x = real_inputs(name, data / "sets", tuple(detail["shape"]), n)
    dtype, (scale, zero) = detail["dtype"], detail["quantization"]
    if dtype != F:
        info = np.iinfo(dtype)
        x = np.clip(np.rint(x / scale) + zero, info.min, info.max)
    return [a.astype(dtype).reshape(detail["shape"]) for a in x]


def ir_value(imp: tflite.Importer, it: Any, i: int) -> np.ndarray:
    """Tensor i of the interpreter as the graph holds it: uint8 shifted to int8."""
    value: np.ndarray = it.get_tensor(i)
    v = imp.model.values[i]
    return (value.astype(np.int16) - 128).astype(np.int8) if v.type == "UINT8" else value


@pytest.mark.parametrize("name", FLOAT + INT8)
def test_every_operator_given_the_reference_kernels_inputs(name: str, shared_data: Path) -> None:
    """Integers within one unit, floats within 1e-4 of the largest."""
    path = shared_data / "models" / f"{name}.tflite"
    imp = tflite.read_graph(path)
    g, it = imp.graph, interpreter(path, True)
    indices: dict[str, int] = {}
    for i, n in imp.names.items():
        indices.setdefault(n, i)
    for x in inputs_for(name, shared_data, 2):
        it.reset_all_variables()
        it.set_tensor(it.get_input_details()[0]["index"], x)
        it.invoke()
        values = {n: t.data for n, t in g.tensors.items() if t.data is not None}
        values[g.inputs[0]] = x
        for op in g.ops:
            operands = [values[i] if i else None for i in op.inputs]
            made = zip(op.outputs, ops.get(op.type).reference(op, g, operands), strict=True)
            for n, got in made:
                values[n] = got
                if n not in indices or n in g.states:
                    continue
                want = values[n] = ir_value(imp, it, indices[n])
                assert (got.shape, got.dtype) == (want.shape, want.dtype), n
                if got.dtype == F:
                    assert np.max(np.abs(got - want)) <= 1e-4 * np.max(np.abs(want)), n
                else:
                    assert np.max(np.abs(got.astype(int) - want)) <= 1, n


@pytest.mark.parametrize("name", FLOAT)
def test_float_nets_agree_with_litert(name: str, shared_data: Path) -> None:
    path = shared_data / "models" / f"{name}.tflite"
    it = interpreter(path, False)
    built = pipeline.build(path)
    with Session(built.data) as s:
        for x in inputs_for(name, shared_data, 10):
            it.reset_all_variables()
            s.reset()
            it.set_tensor(it.get_input_details()[0]["index"], x)
            it.invoke()
            want = it.get_tensor(it.get_output_details()[0]["index"])
            got = s.run({built.graph.inputs[0]: x})[built.graph.outputs[0]]
            assert np.max(np.abs(got - want)) <= 1e-4 * np.max(np.abs(want))


@pytest.mark.parametrize("name", INT8)
def test_quantized_nets_agree_with_litert(name: str, shared_data: Path) -> None:
    """95 % of outputs within one unit, equal top-1 on 97 % of 100 inputs; numpy equals native."""
    path = shared_data / "models" / f"{name}.tflite"
    it = interpreter(path, False)
    built = pipeline.build(path)
    graph = tflite.load(path)
    near = top = 0
    samples = inputs_for(name, shared_data, 100)
    with Session(built.data) as s:
        for k, x in enumerate(samples):
            it.reset_all_variables()
            s.reset()
            it.set_tensor(it.get_input_details()[0]["index"], x)
            it.invoke()
            want = it.get_tensor(it.get_output_details()[0]["index"]).astype(int)
            got = s.run({built.graph.inputs[0]: x})[built.graph.outputs[0]]
            near += int(np.mean(np.abs(got - want) <= 1) * want.size)
            top += int(got.argmax() == want.argmax())
            if k == 0:
                assert np.array_equal(
                    got, evaluate.outputs(graph, {graph.inputs[0]: x})[graph.outputs[0]]
                )
    assert near >= 0.95 * want.size * len(samples)
    assert top >= 0.97 * len(samples)


def test_hybrid_keyword_net_runs_on_its_dequantized_weights(shared_data: Path) -> None:
    """The "float32" keyword model keeps int8 weights for float activations: torch runs them as
    floats.
    """
    import torch
    from torch.nn import functional as N

    path = shared_data / "models" / "kws_ref_model_float32.tflite"
    built, model = pipeline.build(path), tflite.read_graph(path).model

    def real(i: int) -> torch.Tensor:
        v = model.values[i]
        assert v.data is not None
        if v.scale is None or v.zero is None:
            return torch.from_numpy(v.data)
        return torch.from_numpy(((v.data.astype(F) - v.zero) * v.scale).astype(F))

    def torch_net(x: np.ndarray) -> np.ndarray:
        y = torch.from_numpy(x).permute(0, 3, 1, 2)
        for node in model.nodes:
            if node.code in ("CONV_2D", "DEPTHWISE_CONV_2D"):
                w, b, o = real(node.inputs[1]), real(node.inputs[2]), node.options
                groups = y.shape[1] if node.code == "DEPTHWISE_CONV_2D" else 1
                w = w.permute(3, 0, 1, 2) if groups > 1 else w.permute(0, 3, 1, 2)
                pad = []
                for n, k, s in (
                    (y.shape[3], w.shape[3], o.StrideW()),
                    (y.shape[2], w.shape[2], o.StrideH()),
                ):
                    total = max(0, (-(-n // s) - 1) * s + k - n) if o.Padding() == 0 else 0
                    pad += [total // 2, total - total // 2]
                y = N.conv2d(N.pad(y, pad), w, b, (o.StrideH(), o.StrideW()), groups=groups)
                y = y.relu() if o.FusedActivationFunction() == 1 else y
            elif node.code == "AVERAGE_POOL_2D":
                o = node.options
                y = N.avg_pool2d(y, (o.FilterHeight(), o.FilterWidth()), (o.StrideH(), o.StrideW()))
            elif node.code == "FULLY_CONNECTED":
                y = N.linear(
                    y.permute(0, 2, 3, 1).flatten(1), real(node.inputs[1]), real(node.inputs[2])
                )
            elif node.code == "SOFTMAX":
                y = y.softmax(1)
        return y.numpy()

    with Session(built.data) as s:
        for x in inputs_for("kws_ref_model_float32", shared_data, 20):
            want = torch_net(x)
            got = s.run({built.graph.inputs[0]: x})[built.graph.outputs[0]]
            assert np.max(np.abs(got - want)) <= 1e-4 * np.max(np.abs(want))

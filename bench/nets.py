"""The networks of the benchmark, and the files in which each runtime takes them.

Every network is one torch module: from tests/models.py, from a pip package, or made here from a
.tflite of ../shared/data so that runtimes without a reader of that format run the very same
weights.  From the module come one .onnx and what each runtime's own tools make of it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit import frontends, pipeline
from edgekit.ir import Graph, Op
from edgekit.passes import simplify_all

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "models"
FILES = ROOT / "build" / "bench" / "models"
SAMPLES = 8  # calibration inputs, the same for every quantizer


@dataclass(frozen=True)
class Net:
    """A network: where its float32 form and, for LiteRT and us, its .tflite files come from.

    `make` builds the torch module (None: from the file `float_lite`); `shape` is its input, NCHW.
    `lite` are the files by precision in ../shared/data; `same` says that `lite` holds the module's
    own weights, so that EdgeKit too reads the .tflite for int8.
    """

    name: str
    shape: tuple[int, ...]
    make: Callable[[], nn.Module] | None
    lite: dict[str, str]
    same: bool = True
    note: str = ""


class FromGraph(nn.Module):
    """A float graph of EdgeKit as a torch module, NCHW."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        for i, op in enumerate(graph.ops):
            for k, name in enumerate(op.inputs[1:]):
                t = graph.tensors[name] if name else None
                if t is not None and t.data is not None:
                    value = t.data if t.quant is None else t.quant.dequantize(t.data)
                    value = torch.from_numpy(np.ascontiguousarray(value, np.float32))
                    if op.type in ("conv2d", "depthwise_conv2d") and k == 0:
                        order = (0, 3, 1, 2) if op.type == "conv2d" else (2, 0, 1)
                        value = value.permute(order).contiguous()
                        value = value if op.type == "conv2d" else value.unsqueeze(1)
                    self.register_buffer(f"c{i}_{k}", value)

    def forward(self, x: Tensor) -> Tensor:
        values = {self.graph.inputs[0]: x}
        for i, op in enumerate(self.graph.ops):
            args = [values[n] for n in op.inputs if n in values]
            args += [getattr(self, f"c{i}_{k}") for k in (0, 1) if hasattr(self, f"c{i}_{k}")]
            y = clamp(self.one(op, args), op)
            values[op.outputs[0]] = y
        return values[self.graph.outputs[0]]

    def one(self, op: Op, args: list[Tensor]) -> Tensor:
        """The op's result before its clamp."""
        a, x = op.attrs, args[0]
        if op.type in ("conv2d", "depthwise_conv2d", "avg_pool2d"):
            t, left, b, r = a["pad"]
            pad: Sequence[int] = (t, left)
            if (t, left) != (b, r):
                x, pad = F.pad(x, (left, r, t, b)), (0, 0)
            if op.type == "avg_pool2d":
                return F.avg_pool2d(x, a["kernel"], a["stride"], pad, count_include_pad=False)
            groups = x.shape[1] if op.type == "depthwise_conv2d" else a["groups"]
            bias = args[2] if len(args) > 2 else None
            return F.conv2d(x, args[1], bias, a["stride"], pad, a["dilation"], groups)
        match op.type:
            case "linear":
                return F.linear(*args)
            case "binary" if a["kind"] == "add":
                return args[0] + args[1]
            case "softmax":
                return F.softmax(x, -1)
            case "reshape":
                return torch.flatten(x, 1)
        raise NotImplementedError(f"{op.type} of {op.name}")


def clamp(y: Tensor, op: Op) -> Tensor:
    """The fused activation."""
    lo, hi = op.attrs.get("lo", -np.inf), op.attrs.get("hi", np.inf)
    if (lo, hi) == (-np.inf, np.inf):
        return y
    if lo == 0:
        return F.relu(y) if hi == np.inf else F.relu6(y) if hi == 6 else y.clamp(0, hi)
    return y.clamp(lo, hi)


def settled(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> nn.Module:
    """The module in eval mode with batch statistics of noise, as tests/models.py makes it."""
    torch.manual_seed(0)
    model = make()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(4, *shape[1:]))
    return model.eval()


def module(net: Net) -> nn.Module:
    """The network in torch, NCHW."""
    if net.make is not None:
        return settled(net.make, net.shape)
    return FromGraph(simplify_all(frontends.load(DATA / net.lite["float32"]))[0]).eval()


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 of the package efficientnet-lite-pytorch, random weights."""
    from efficientnet_lite_pytorch import EfficientNet

    model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    return model


def nets() -> list[Net]:
    """All of issue 3; those whose files are absent are left out by `present`."""
    sys.path.insert(0, str(ROOT / "tests"))
    import models

    image = (1, 3, 224, 224)
    v2 = {"int8": "tf2_mobilenet_v2_1.0_224_ptq.tflite"}
    other = "LiteRT: the PTQ model of ../shared/data, other weights, same shapes"
    return [
        Net("AD", (1, 640), None, {"float32": "ad01_fp32.tflite", "int8": "ad01_int8.tflite"}),
        Net(
            "KWS",
            (1, 1, 49, 10),
            None,
            {"float32": "kws_ref_model_float32.tflite", "int8": "kws_ref_model.tflite"},
            note="the float .tflite is a hybrid; EdgeKit float32 reads the .onnx made of it",
        ),
        Net(
            "IC",
            (1, 3, 32, 32),
            None,
            {"float32": "pretrainedResnet.tflite", "int8": "pretrainedResnet_quant.tflite"},
        ),
        Net(
            "VWW",
            (1, 3, 96, 96),
            None,
            {"float32": "vww_96_float.tflite", "int8": "vww_96_int8.tflite"},
        ),
        Net("MobileNetV2", image, lambda: models.MobileNetV2(1000, 1.0), v2, False, other),
        Net("MobileNetV3-small", image, lambda: models.MobileNetV3Small(1000), {}),
        Net("SqueezeNet", image, lambda: models.SqueezeNet(1000), {}),
        Net("EfficientNet-Lite0", image, efficientnet_lite0, {}),
        Net("ResNet-18", image, lambda: models.ResNet18(1000), {}),
        Net("ViT-tiny", image, lambda: models.ViTTiny(224, 16, 192, 12, 3, 1000), {}),
    ]


def inputs(net: Net, count: int = SAMPLES) -> Iterator[np.ndarray[Any, Any]]:
    """Calibration inputs: noise in [0, 1)."""
    rng = np.random.default_rng(7)
    for _ in range(count):
        yield rng.random(net.shape, dtype=np.float32)


def onnx_file(net: Net) -> Path:
    """The network as .onnx, written once."""
    path = FILES / f"{net.name}.onnx"
    if not path.exists():
        FILES.mkdir(parents=True, exist_ok=True)
        x = next(inputs(net))
        (FILES / f"{net.name}.json").write_text(json.dumps({"shape": net.shape}))
        part = path.with_suffix(".part.onnx")
        torch.onnx.export(
            module(net),
            (torch.from_numpy(x),),
            str(part),
            input_names=["x"],
            output_names=["y"],
            opset_version=18,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        part.rename(path)
    return path


def qdq_file(net: Net) -> Path:
    """The .onnx quantized by onnxruntime's quantizer: u8 activations, s8 weights per channel."""
    path = FILES / f"{net.name}.qdq.onnx"
    if path.exists():
        return path
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = inputs(net)

        def get_next(self) -> dict[str, Any] | None:
            x = next(self.left, None)
            return None if x is None else {"x": x}

    ready, part = path.with_suffix(".ready.onnx"), path.with_suffix(".part.onnx")
    q.shape_inference.quant_pre_process(str(onnx_file(net)), str(ready), skip_symbolic_shape=True)
    q.quantize_static(
        str(ready),
        str(part),
        Reader(),
        quant_format=q.QuantFormat.QDQ,
        per_channel=True,
        activation_type=q.QuantType.QUInt8,
        weight_type=q.QuantType.QInt8,
    )
    part.rename(path)
    return path


def package(
    net: Net, precision: str, board: str = "host", isa: Sequence[str] | None = None
) -> tuple[bytes, str]:
    """(package, the file it was built from).  int8 of a .tflite is taken as it is."""
    target: dict[str, Any] = {"board": board, "isa": isa}
    if precision == "int8" and net.same and "int8" in net.lite:
        source = DATA / net.lite["int8"]
        return pipeline.build(source, **target).data, source.name
    if precision == "float32":
        return pipeline.build(onnx_file(net), precision="float32", **target).data, "onnx"
    x = np.concatenate(list(inputs(net)))
    built = pipeline.build(onnx_file(net), precision="int8", calibration={"x": x}, **target)
    return built.data, "onnx"


def present(wanted: Sequence[str] = ()) -> tuple[list[Net], list[str]]:
    """(networks that can be made here, why others cannot)."""
    found, gone = [], []
    for net in nets():
        if wanted and net.name not in wanted:
            continue
        lost = [f for f in net.lite.values() if not (DATA / f).exists()]
        if net.make is efficientnet_lite0 and not find_spec("efficientnet_lite_pytorch"):
            gone.append(f"{net.name}: pip install efficientnet-lite-pytorch")
        elif lost and net.make is None:
            gone.append(f"{net.name}: {DATA / lost[0]} is not there")
        else:
            found.append(net)
    return found, gone

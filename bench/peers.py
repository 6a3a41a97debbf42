"""One inference runtime in a process of its own, driven by lines of JSON.

    python peers.py onnxruntime

The process runs in whichever virtual environment holds the runtime, so this file imports numpy and
the runtime alone.  Requests on stdin, one answer each on stdout, whatever libraries print goes to
stderr:

    {"do": "open", "path": "m.onnx", "threads": 1, "precision": "int8"}  -> {"label", "ran"}
    {"do": "time", "count": 100}                                -> {"us": [...], "call_us": 5.0}
    {"do": "cpu", "count": 100}           processor time of the process  -> {"us": [...]}
    {"do": "ops"}             EdgeKit alone, traced       -> {"ops": [[name, type, isa, us], ...]}
    {"do": "close"}                                                      -> {}

Microseconds are those of the inference alone.  EdgeKit, OpenVINO: timed inside the runtime, C to C.
The others: timed around the Python call; who asks takes off the smallest time of the same call that
does next to nothing (`call_us`, measured at every turn: once alone it may have been disturbed): a
one-node model where one can be made, else another method of the same object.
Processor time is all threads' and always around the Python call.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CALLS = 300  # of the call that does nothing, each turn


def smallest_us(call: Callable[[], object], count: int = CALLS) -> float:
    """Smallest time of one call in microseconds."""
    return min(stopwatch(call, count))


def stopwatch(
    call: Callable[[], object], count: int, clock: Callable[[], int] = time.perf_counter_ns
) -> list[float]:
    """Time of each of `count` calls in microseconds."""
    out = []
    for _ in range(count):
        begin = clock()
        call()
        out.append((clock() - begin) / 1000.0)
    return out


def made(shape: tuple[int, ...], dtype: Any) -> Any:
    """An input: floats in [0, 1), integers over half their range; the same for every runtime."""
    rng = np.random.default_rng(1)
    if np.dtype(dtype).kind == "f":
        return rng.random(shape).astype(dtype)
    return rng.integers(0, 128, shape).astype(dtype)


class Runtime:
    """A model in a runtime.  `label`: name and version; `ran`: arithmetic it was held to."""

    label = ""
    ran = ""
    nothing: Callable[[], object] | None = None  # the Python call alone; None: it is not timed

    def time(self, count: int) -> list[float]:
        """Microseconds of each of `count` inferences."""
        return stopwatch(self.execute, count)

    def call_us(self) -> float:
        """Microseconds of the Python call."""
        return smallest_us(self.nothing) if self.nothing else 0.0

    def execute(self) -> object:
        """One inference with the inputs as they are."""
        raise NotImplementedError


class EdgeKit(Runtime):
    """A package in our own runtime."""

    def __init__(self, path: str, threads: int, precision: str) -> None:
        from edgekit_runtime import Session, version

        self._path, self._threads, self._session_type = path, threads, Session
        self._session = Session(path, threads=threads)
        self._fill(self._session)
        isas = {o.isa for o in self._session.ops()} - {"portable"}
        self.label = f"EdgeKit {version()}"
        self.ran = f"{precision} {'+'.join(sorted(isas)) or 'portable'}"

    @staticmethod
    def _fill(session: Any) -> None:
        session.set_inputs({i.name: made(i.shape, i.dtype) for i in session.inputs()})

    def time(self, count: int) -> list[float]:
        return [float(t) for t in self._session.time(count)]

    def execute(self) -> object:
        self._session.execute()
        return None

    def ops(self) -> list[tuple[str, str, str, float]]:
        """Name, type, ISA and smallest microseconds of every op."""
        with self._session_type(self._path, threads=self._threads, trace=True) as session:
            self._fill(session)
            runs = []
            for _ in range(60):
                session.execute()
                runs.append(session.trace())
        return [(r[0].name, r[0].type, r[0].isa, min(o.latency_us for o in r)) for r in zip(*runs)]


class OnnxRuntime(Runtime):
    """An .onnx file on the CPU provider, with bound inputs and outputs."""

    def __init__(self, path: str, threads: int, precision: str) -> None:
        ort = importlib.import_module("onnxruntime")
        self._ort, self._threads = ort, threads
        self.execute = self._bound(path)  # type: ignore[method-assign]
        self.nothing = self._bound(_trivial_onnx())
        self.label = f"onnxruntime {ort.__version__}"
        self.ran = "QDQ model, u8 x s8" if precision == "int8" else "float32"

    def _bound(self, model: Any) -> Callable[[], object]:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        options.log_severity_level = 3
        session = self._ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        kinds = {"tensor(float)": np.float32, "tensor(int8)": np.int8, "tensor(uint8)": np.uint8}
        for i in session.get_inputs():
            value = self._ort.OrtValue.ortvalue_from_numpy(made(tuple(i.shape), kinds[i.type]))
            binding.bind_ortvalue_input(i.name, value)
        for o in session.get_outputs():
            shape = tuple(o.shape)
            value = self._ort.OrtValue.ortvalue_from_shape_and_type(shape, kinds[o.type])
            binding.bind_ortvalue_output(o.name, value)
        return lambda: session.run_with_iobinding(binding)


class LiteRT(Runtime):
    """A .tflite file with its default delegate, XNNPACK."""

    def __init__(self, path: str, threads: int, precision: str) -> None:
        lite = importlib.import_module("ai_edge_litert.interpreter")
        self._interpreter = lite.Interpreter(model_path=path, num_threads=threads)
        self._interpreter.allocate_tensors()
        for d in self._interpreter.get_input_details():
            self._interpreter.set_tensor(d["index"], made(tuple(d["shape"]), d["dtype"]))
        inner = self._interpreter._interpreter
        self.execute = inner.Invoke  # type: ignore[method-assign]
        self.nothing = inner.InputIndices
        self.label = f"LiteRT {_version('ai-edge-litert')}"
        self.ran = f"{precision}, XNNPACK"


class OpenVino(Runtime):
    """An .onnx file on the CPU plugin, one stream, float32 unless the model quantizes."""

    def __init__(self, path: str, threads: int, precision: str) -> None:
        ov = importlib.import_module("openvino")
        core = ov.Core()
        want = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = core.compile_model(core.read_model(path), "CPU", want)
        self._request = compiled.create_infer_request()
        for i in compiled.inputs:
            x = made(tuple(i.shape), np.dtype(i.element_type.to_dtype()))
            self._request.set_tensor(i, ov.Tensor(x))
        hint = compiled.get_property("INFERENCE_PRECISION_HINT")
        model = "QDQ model, hint" if precision == "int8" else "hint"
        self.label = f"OpenVINO {ov.__version__.split('-')[0]}"
        self.ran = f"{model} {getattr(hint, 'get_type_name', lambda: hint)()}"

    def execute(self) -> object:
        return self._request.infer()

    def time(self, count: int) -> list[float]:
        out = []
        for _ in range(count):
            self._request.infer()
            out.append(self._request.latency * 1000.0)
        return out


class Ncnn(Runtime):
    """A .param file beside its .bin, as pnnx writes them; bf16 and fp16 switched off."""

    def __init__(self, path: str, threads: int, precision: str) -> None:
        if precision != "float32":
            raise NotImplementedError("its quantizer (ncnn2int8) is not in the wheel")
        ncnn = importlib.import_module("ncnn")
        self._ncnn, self._net = ncnn, ncnn.Net()
        options = self._net.opt
        options.num_threads = threads
        options.use_vulkan_compute = False
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        options.use_bf16_storage = False
        shape = tuple(json.loads(Path(path).with_suffix(".json").read_text())["shape"])
        weights = str(Path(path).with_suffix(".bin"))
        if self._net.load_param(path) or self._net.load_model(weights):
            raise ValueError("it does not load the network its pnnx wrote (a layer it lacks)")
        self._input = ncnn.Mat(made(shape, np.float32)[0])
        self.nothing = self._begin
        self.label = f"ncnn {_version('ncnn')}"
        self.ran = "float32, bf16 and fp16 off"

    def _begin(self) -> Any:
        extractor = self._net.create_extractor()
        extractor.input("in0", self._input)
        return extractor

    def execute(self) -> object:
        return self._begin().extract("out0")


class Mnn(Runtime):
    """A .mnn file as mnnconvert writes it, precision high."""

    def __init__(self, path: str, threads: int, precision: str) -> None:
        mnn = importlib.import_module("MNN")
        self._interpreter = mnn.Interpreter(path)
        config = {"backend": "CPU", "numThread": threads, "precision": "high", "memory": "normal"}
        self._session = self._interpreter.createSession(config)
        for tensor in self._interpreter.getSessionInputAll(self._session).values():
            x = made(tuple(tensor.getShape()), np.float32)
            kind = mnn.Tensor_DimensionType_Caffe
            tensor.copyFrom(mnn.Tensor(x.shape, mnn.Halide_Type_Float, x, kind))
        self.nothing = lambda: self._interpreter.getSessionInfo(self._session, 2)
        self.label = f"MNN {_version('MNN')}"
        self.ran = f"{precision}, precision high"

    def execute(self) -> object:
        return self._interpreter.runSession(self._session)


class ExecuTorch(Runtime):
    """A .pte file lowered to XNNPACK."""

    def __init__(self, path: str, threads: int, precision: str) -> None:
        runtime = importlib.import_module("executorch.runtime")
        torch = importlib.import_module("torch")
        bindings = importlib.import_module("executorch.extension.pybindings.portable_lib")
        bindings._unsafe_reset_threadpool(threads)
        shape = tuple(json.loads(Path(path).with_suffix(".json").read_text())["shape"])
        x = torch.from_numpy(made(shape, np.float32))
        self._program = runtime.Runtime.get().load_program(path)
        self._method = self._program.load_method("forward")
        self.execute = lambda: self._method.execute([x])  # type: ignore[method-assign]
        trivial = runtime.Runtime.get().load_program(str(Path(path).parent / "trivial.pte"))
        empty, one = trivial.load_method("forward"), torch.zeros(1)
        self.nothing = lambda: empty.execute([one])
        self.label = f"ExecuTorch {_version('executorch')}"
        self.ran = f"{precision}, XNNPACK"


RUNTIMES: dict[str, type[Any]] = {
    "edgekit": EdgeKit,
    "onnxruntime": OnnxRuntime,
    "litert": LiteRT,
    "openvino": OpenVino,
    "ncnn": Ncnn,
    "mnn": Mnn,
    "executorch": ExecuTorch,
}


def _version(distribution: str) -> str:
    from importlib.metadata import version

    return version(distribution)


def _trivial_onnx() -> bytes:
    """A model of one Relu of one number: what a call to onnxruntime costs whatever the model."""
    onnx = importlib.import_module("onnx")
    value = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy"]
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "trivial", value[:1], value[1:])
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def answer(state: dict[str, Any], name: str, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to one request; `state` holds the open runtime."""
    match request["do"]:
        case "open":
            state.clear()
            args = (request["path"], request["threads"], request["precision"])
            state["open"] = RUNTIMES[name](*args)
            runtime = state["open"]
            return {"label": runtime.label, "ran": runtime.ran}
        case "time":
            runtime = state["open"]
            return {"us": runtime.time(request["count"]), "call_us": runtime.call_us()}
        case "cpu":
            runtime = state["open"]
            clock = time.process_time_ns
            return {"us": stopwatch(runtime.execute, request["count"], clock)}
        case "ops":
            return {"ops": state["open"].ops()}
        case "close":
            state.clear()
            return {}
    raise ValueError(f"no request {request['do']!r}")


def main() -> int:
    """Serves requests until stdin ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print; the protocol must stay clean
    state: dict[str, Any] = {}
    for line in sys.stdin:
        try:
            reply = answer(state, sys.argv[1], json.loads(line))
        except Exception as error:  # another project's runtime: any kind is an answer
            said = str(error).strip().splitlines() or [""]
            reply = {"error": f"{type(error).__name__}: {said[0][:200]}"}
        out.write(json.dumps(reply) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

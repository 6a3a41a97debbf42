"""Other runtimes behind the contract of `edgekit_runtime.Session`: inputs, outputs, run, time.

with open_peer("model.onnx", threads=1) as s:
    y = s.run({"x": x})
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from edgekit_runtime.session import TensorInfo

from edgekit.errors import DataError, EdgeKitError, ModelError, first_line

Array = npt.NDArray[Any]
ORT_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}
LITE_MODULES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")


class MissingRuntime(EdgeKitError):
    """The runtime that could run a model is not installed."""


class Peer:
    """A model in another runtime; `label` names runtime and version."""

    label = ""

    def precision(self) -> str:
        """What its arithmetic is: float32, int8 or mixed."""
        return "float32"

    def inputs(self) -> list[TensorInfo]:
        """What `run` takes, in order."""
        raise NotImplementedError

    def outputs(self) -> list[TensorInfo]:
        """What `run` returns, in order."""
        raise NotImplementedError

    def set_inputs(self, inputs: Mapping[str, Array] | Array) -> None:
        """Keeps the inputs of the next run; DataError where names, shapes or types differ."""
        raise NotImplementedError

    def execute(self) -> None:
        """Runs with the inputs as they are."""
        raise NotImplementedError

    def results(self) -> dict[str, Array]:
        """Outputs of the last run by name, as copies."""
        raise NotImplementedError

    def reset(self) -> None:
        """Sets the model's state to its initial value; nothing to do where none is kept."""

    def close(self) -> None:
        """Frees the model."""

    def run(self, inputs: Mapping[str, Array] | Array) -> dict[str, Array]:
        """Outputs by name, as copies."""
        self.set_inputs(inputs)
        self.execute()
        return self.results()

    def time(self, count: int) -> npt.NDArray[np.float64]:
        """Latency of `count` runs in microseconds (count,), timed around `execute`."""
        out = np.empty(count)
        for i in range(count):
            begin = time.perf_counter_ns()
            self.execute()
            out[i] = time.perf_counter_ns() - begin
        return out / 1000.0

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def checked(self, inputs: Mapping[str, Array] | Array) -> dict[str, Array]:
        """Inputs by name, contiguous; DataError where names, shapes or types differ."""
        infos = self.inputs()
        if not isinstance(inputs, Mapping):
            if len(infos) != 1:
                raise DataError(
                    f"give a dict with the inputs {', '.join(i.name for i in infos)}",
                    where=self.label,
                )
            inputs = {infos[0].name: inputs}
        if set(inputs) != {i.name for i in infos}:
            raise DataError(
                f"inputs {sorted(inputs)} given, {sorted(i.name for i in infos)} wanted",
                where=self.label,
            )
        out = {}
        for i in infos:
            x = np.ascontiguousarray(inputs[i.name])
            if x.shape != i.shape or x.dtype != i.dtype:
                raise DataError(
                    f"input {i.name!r}: got {x.dtype}{list(x.shape)}, "
                    f"the model wants {i.dtype}{list(i.shape)}",
                    where=self.label,
                )
            out[i.name] = x
        return out


class OnnxPeer(Peer):
    """An .onnx file in onnxruntime, on its CPU provider.  `shapes` fixes dynamic dimensions."""

    def __init__(
        self, path: Path, threads: int = 1, shapes: Mapping[str, tuple[int, ...]] | None = None
    ) -> None:
        ort = _module(("onnxruntime",), "onnxruntime", str(path))
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:  # onnxruntime raises a tree of its own
            raise ModelError(
                f"onnxruntime cannot load it: {first_line(e)}", where=str(path)
            ) from None
        self.label = f"onnxruntime {ort.__version__}"
        self._inputs = [_ort_info(a, shapes or {}, str(path)) for a in self._session.get_inputs()]
        self._outputs = [_ort_info(a, None, str(path)) for a in self._session.get_outputs()]
        self._path = path
        self._binding = self._session.io_binding()
        self._values: list[Any] = []
        self._ort = ort

    def precision(self) -> str:
        return _onnx_precision(self._path)

    def inputs(self) -> list[TensorInfo]:
        return list(self._inputs)

    def outputs(self) -> list[TensorInfo]:
        return list(self._outputs)

    def set_inputs(self, inputs: Mapping[str, Array] | Array) -> None:
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        self._values = []
        for name, x in self.checked(inputs).items():
            self._values.append(self._ort.OrtValue.ortvalue_from_numpy(x))
            self._binding.bind_ortvalue_input(name, self._values[-1])
        for o in self._outputs:
            self._binding.bind_output(o.name)

    def execute(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def results(self) -> dict[str, Array]:
        return dict(zip((o.name for o in self._outputs), self._binding.copy_outputs_to_cpu()))

    def close(self) -> None:
        del self._session, self._binding


class LitePeer(Peer):
    """A .tflite file in LiteRT (ai-edge-litert, else tflite-runtime).

    `reference`: kernels without XNNPACK, the ones whose rounding is specified.
    """

    def __init__(self, path: Path, threads: int = 1, *, reference: bool = False) -> None:
        module = _module(LITE_MODULES, "ai-edge-litert", str(path))
        args: dict[str, Any] = {"model_path": str(path), "num_threads": threads}
        if reference:
            args["experimental_op_resolver_type"] = module.OpResolverType.BUILTIN_REF
        try:
            self._interpreter = module.Interpreter(**args)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as e:
            raise ModelError(f"LiteRT cannot load it: {first_line(e)}", where=str(path)) from None
        package = module.__name__.split(".")[0]
        self.label = (
            f"{'LiteRT' if package == 'ai_edge_litert' else 'tflite-runtime'} {_version(package)}"
        )
        self._in = self._interpreter.get_input_details()
        self._out = self._interpreter.get_output_details()

    def precision(self) -> str:
        integers = {"int8", "uint8"}
        kinds = {np.dtype(d["dtype"]).name for d in self._in + self._out}
        inner = {np.dtype(d["dtype"]).name for d in self._interpreter.get_tensor_details()}
        return "float32" if not inner & integers else "int8" if kinds & integers else "mixed"

    def inputs(self) -> list[TensorInfo]:
        return [_lite_info(d) for d in self._in]

    def outputs(self) -> list[TensorInfo]:
        return [_lite_info(d) for d in self._out]

    def set_inputs(self, inputs: Mapping[str, Array] | Array) -> None:
        values = self.checked(inputs)
        for d in self._in:
            self._interpreter.set_tensor(d["index"], values[d["name"]])

    def execute(self) -> None:
        self._interpreter.invoke()

    def results(self) -> dict[str, Array]:
        return {d["name"]: self._interpreter.get_tensor(d["index"]) for d in self._out}

    def reset(self) -> None:
        self._interpreter.reset_all_variables()

    def close(self) -> None:
        del self._interpreter


class TorchPeer(Peer):
    """A .pt2 exported program in torch, eager; it needs torch.export's file."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        torch = _module(("torch",), "torch", str(path))
        try:
            program = torch.export.load(str(path))
        except Exception as e:
            raise ModelError(f"torch cannot load it: {first_line(e)}", where=str(path)) from None
        torch.set_num_threads(threads)
        self._torch, self._call = torch, program.module()
        self.label = f"torch {torch.__version__}"
        names = program.graph_signature.user_inputs
        values = {
            n.name: n.meta["val"]
            for n in program.graph.nodes
            if n.op == "placeholder" and n.name in names
        }
        self._inputs = [
            TensorInfo(n, tuple(int(s) for s in values[n].shape), _torch_dtype(values[n]), 0.0, 0)
            for n in names
        ]
        self._names = [str(n) for n in program.graph_signature.user_outputs]
        nodes = {n.name: n.meta.get("val") for n in program.graph.nodes}
        self._outputs = [
            TensorInfo(n, tuple(int(s) for s in nodes[n].shape), _torch_dtype(nodes[n]), 0.0, 0)
            for n in self._names
        ]
        self._values: list[Any] = []
        self._results: Any = None

    def inputs(self) -> list[TensorInfo]:
        return list(self._inputs)

    def outputs(self) -> list[TensorInfo]:
        return list(self._outputs)

    def set_inputs(self, inputs: Mapping[str, Array] | Array) -> None:
        values = self.checked(inputs)
        self._values = [self._torch.from_numpy(values[i.name].copy()) for i in self._inputs]

    def execute(self) -> None:
        with self._torch.no_grad():
            self._results = self._call(*self._values)

    def results(self) -> dict[str, Array]:
        many = self._results if isinstance(self._results, (tuple, list)) else [self._results]
        return {n: r.numpy().copy() for n, r in zip(self._names, many)}


def open_peer(
    path: str | Path, threads: int = 1, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Peer:
    """The runtime a model comes from, with the model loaded.

    .onnx: onnxruntime; .tflite: LiteRT; .pt2: torch.  MissingRuntime where it is not installed,
    ModelError where it cannot load the model.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError("no such file", where=str(path), todo="check the path of the model")
    match path.suffix:
        case ".onnx":
            return OnnxPeer(path, threads, shapes)
        case ".tflite":
            return LitePeer(path, threads)
        case ".pt2":
            return TorchPeer(path, threads)
    raise ModelError(
        f"no runtime is known for {path.suffix!r} files",
        where=str(path),
        todo=".onnx, .tflite or .pt2",
    )


def _module(names: tuple[str, ...], wheel: str, where: str) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise MissingRuntime(f"{wheel} is not installed", where=where, todo=f"pip install {wheel}")


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package.replace("_", "-"))
    except metadata.PackageNotFoundError:
        return "of unknown version"


def _ort_info(arg: Any, shapes: Mapping[str, tuple[int, ...]] | None, where: str) -> TensorInfo:
    """`shapes` None: an output, whose dynamic dimensions stand as 0."""
    dims = [d if isinstance(d, int) else 0 for d in arg.shape]
    if shapes is not None:
        dims = list(shapes.get(arg.name, dims))
        if dims and dims[0] == 0:
            dims[0] = 1  # a dynamic batch is one sample
        if 0 in dims:
            raise ModelError(
                f"input {arg.name!r} has dynamic dimensions {arg.shape}", where=where,
                todo=f"fix them with --shape {arg.name}=1,3,224,224",
            )  # fmt: skip
    return TensorInfo(arg.name, tuple(dims), np.dtype(ORT_TYPES.get(arg.type, np.void)), 0.0, 0)


def _onnx_precision(path: Path) -> str:
    """int8 where the file holds (de)quantizing or integer operators, else float32."""
    try:
        import onnx
    except ImportError:
        return "float32"
    names = {n.op_type for n in onnx.load(str(path), load_external_data=False).graph.node}
    integer = any(
        n.startswith(("QLinear", "DequantizeLinear", "ConvInteger", "MatMulInteger")) for n in names
    )
    return "int8" if integer else "float32"


def _lite_info(d: Any) -> TensorInfo:
    scale, zero = d["quantization"]
    return TensorInfo(
        d["name"], tuple(int(s) for s in d["shape"]), np.dtype(d["dtype"]), float(scale), int(zero)
    )


def _torch_dtype(value: Any) -> np.dtype[Any]:
    return np.dtype(str(value.dtype).removeprefix("torch."))

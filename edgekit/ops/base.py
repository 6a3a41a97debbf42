"""What an op file says about its op, and the helpers they share."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.errors import ModelError
from edgekit.ir import NUMPY, Array, Graph, Op, Tensor

INF = math.inf
_STRUCT = {"u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "f32": "f"}
_CTYPE = {
    "u8": "uint8_t",
    "i8": "int8_t",
    "u16": "uint16_t",
    "i16": "int16_t",
    "u32": "uint32_t",
    "i32": "int32_t",
    "f32": "float",
}
TensorType = tuple[tuple[int, ...], str]
Shaper = Callable[[Op, Sequence[Tensor | None]], list[TensorType]]
Reference = Callable[[Op, Graph, Sequence[Array | None]], list[Array]]


@dataclass(frozen=True)
class Field:
    """One attribute: name, element type in C, count (1 = scalar), default, doc with unit.

    `lowered` fields are filled by the lowering pass (integer constants), not by front ends.
    `choices` makes it an enumeration: a string in the IR, its index in C.  `host` fields never
    reach C.
    """

    name: str
    type: str
    count: int = 1
    default: Any = None
    doc: str = ""
    choices: tuple[str, ...] = ()
    lowered: bool = False
    host: bool = False

    @property
    def nbytes(self) -> int:
        return struct.calcsize("<" + _STRUCT[self.type]) * self.count

    @property
    def ctype(self) -> str:
        return _CTYPE[self.type]


@dataclass(frozen=True)
class OpDef:
    """An op: code and version never change meaning; `fields` are its attributes in C order.

    `shape(op, inputs)` -> [(shape, dtype)] of the outputs.
    `reference(op, graph, inputs)` -> numpy outputs: the meaning of the op, bit for bit where exact.
    `samples()` yields (label, Graph, inputs) cases run on every runtime.
    `lower(op, graph, target)` rewrites the op into its runtime form (packed weights, constants);
    absent: the op runs as it is.  `scratch(op, graph, target)` -> bytes per thread.
    `exact(op, graph)`: whether every runtime gives the same bits.
    `int8(op)`: how the quantizer treats it: "weights" (operand 1 per channel, operand 2 bias),
    "free" (every operand and the output have scales of their own), "same" (all share one), "same0"
    (operand 0 and the output share one), "lut", "softmax", or "" (stays float).
    `inplace`: inputs whose memory output 0 may take over when they die here.
    `calls`: ops whose C this op's calls, so that a build with it needs them too; `kernels`: slots
    it calls beside the one that its op reports.
    """

    name: str
    code: int
    fields: tuple[Field, ...]
    shape: Shaper
    reference: Reference
    samples: Callable[[], Iterator[tuple[str, Graph, dict[str, Array]]]]
    version: int = 1
    lower: Callable[[Op, Graph, Any], Op] | None = None
    scratch: Callable[[Op, Graph, Any], int] | None = None
    exact: Callable[[Op, Graph], bool] = lambda op, g: (
        not any(g.tensors[n].dtype == "f32" for n in (*op.inputs, *op.outputs) if n)
    )
    inplace: tuple[int, ...] = ()
    calls: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    macs: Callable[[Op, Graph], int] = lambda op, g: 0
    int8: Callable[[Op], str] = lambda op: ""

    def fill(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Attributes with defaults; ModelError on unknown or missing ones."""
        names = {f.name for f in self.fields}
        unknown = set(attrs) - names
        if unknown:
            raise ModelError(f"{self.name} has no attribute {sorted(unknown)}")
        out: dict[str, Any] = {}
        for f in self.fields:
            value = attrs.get(f.name, f.default)
            if value is None and not f.lowered:
                raise ModelError(f"{self.name} needs the attribute {f.name!r}")
            out[f.name] = value
        return out

    @property
    def c_fields(self) -> tuple[Field, ...]:
        return tuple(f for f in self.fields if not f.host)

    def pack(self, attrs: dict[str, Any]) -> bytes:
        """The attribute structure as C reads it: little-endian, naturally aligned, padded to 4."""
        out = bytearray()
        for f in self.c_fields:
            value = attrs.get(f.name, f.default)
            size = f.nbytes // f.count
            out += b"\0" * (-len(out) % size)
            if f.choices:
                value = f.choices.index(value)
            if value is None:
                value = 0 if f.count == 1 else (0,) * f.count
            items = [value] if f.count == 1 else list(value)
            if len(items) > f.count:
                raise ModelError(f"{self.name}.{f.name}: {len(items)} values, room for {f.count}")
            items += [0] * (f.count - len(items))
            kind = float if f.type == "f32" else int
            out += struct.pack(f"<{f.count}{_STRUCT[f.type]}", *(kind(v) for v in items))
        out += b"\0" * (-len(out) % 4)
        return bytes(out)

    def c_struct(self) -> str:
        """The C declaration of the attribute structure."""
        lines = [f"typedef struct ek_attr_{self.name} {{"]
        for f in self.c_fields:
            dim = "" if f.count == 1 else f"[{f.count}]"
            doc = f.doc + (f" ({', '.join(f.choices)})" if f.choices else "")
            lines.append(
                f"    {f.ctype} {f.name}{dim};" + (f" /* {doc.strip()} */" if doc.strip() else "")
            )
        lines.append(f"}} ek_attr_{self.name};")
        for f in self.c_fields:
            if f.choices:
                pre = f"EK_{self.name}_{f.name}".upper()
                body = ", ".join(f"{pre}_{c}".upper() for c in f.choices)
                lines.append(f"enum {{ {body}, {pre}_COUNT }};")
        return "\n".join(lines)


Importer = Callable[..., Any]
ONNX: dict[str, Importer] = {}
TFLITE: dict[str, Importer] = {}


def onnx(*operators: str) -> Callable[[Importer], Importer]:
    """Registers an importer of ONNX operators (`domain.Name` where the domain is your own):
    f(imp, inputs..., *, attribute=default...) -> outputs.

    The signature is the attribute decoder; `imp` is edgekit.frontends.onnx.Importer.
    """

    def add(f: Importer) -> Importer:
        ONNX.update(dict.fromkeys(operators, f))
        return f

    return add


def tflite(*operators: str) -> Callable[[Importer], Importer]:
    """Registers an importer of TFLite operators (BuiltinOperator names), as `onnx` does."""

    def add(f: Importer) -> Importer:
        TFLITE.update(dict.fromkeys(operators, f))
        return f

    return add


def need(tensors: Sequence[Tensor | None], i: int, what: str) -> Tensor:
    """Input i, or a ModelError that names it."""
    t = tensors[i] if i < len(tensors) else None
    if t is None:
        raise ModelError(f"operand {i} ({what}) is missing")
    return t


def scale_zero(g: Graph, name: str) -> tuple[float, int]:
    """(scale, zero) of a per-tensor quantized tensor."""
    q = g.tensors[name].quant
    if q is None or q.axis is not None:
        raise ModelError(f"{name!r} must be quantized per tensor")
    return float(q.scale), int(q.zero)


def conv_out(size: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> int:
    """Output length of a window op along one dimension; ModelError where nothing is left."""
    n = (size + before + after - (kernel - 1) * dilation - 1) // stride + 1
    if n < 1 or size < 1:
        raise ModelError(
            f"window {kernel} (dilation {dilation}) does not fit into {size}+{before}+{after}"
        )
    return n


def broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """numpy's rule; ModelError where it does not hold."""
    try:
        return tuple(np.broadcast_shapes(a, b))
    except ValueError:
        raise ModelError(f"shapes {a} and {b} do not broadcast") from None


def sample_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """Random values of any IR type: normal floats, integers over the type's range."""
    kind = np.dtype(NUMPY[dtype])
    if kind == np.float32:
        return np.asarray(rng.normal(size=shape), np.float32)
    if kind == np.bool_:
        return np.asarray(rng.integers(0, 2, shape), np.bool_)
    info = np.iinfo(kind)
    return np.asarray(rng.integers(info.min, info.max, shape, dtype=kind, endpoint=True))


def sample_graph(
    type: str,
    inputs: dict[str, Tensor],
    attrs: dict[str, Any],
    *,
    out_quant: Any = None,
    dtype: str | None = None,
) -> Graph:
    """A graph of one op; tensors with data become constants, the others inputs."""
    g = Graph(type)
    for t in inputs.values():
        g.add_tensor(t)
        if t.data is None:
            g.inputs.append(t.name)
    g.outputs = [g.emit(type, list(inputs), attrs, name="y", quant=out_quant, dtype=dtype)]
    return g

"""The bytes of a .tflite file as plain checked data, by the schema of the pip package `tflite`.

A file may be anything: every length, index and shape is checked here, and what does not fit is a
ModelError.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.errors import ModelError
from edgekit.ir import Array

TYPES: dict[str, Any] = {
    "FLOAT32": np.float32, "FLOAT16": np.float16, "INT32": np.int32, "UINT8": np.uint8,
    "INT64": np.int64, "BOOL": np.bool_, "INT16": np.int16, "INT8": np.int8,
}  # fmt: skip
# what numpy, struct and flatbuffers raise on bytes or operands that make no sense
DAMAGE = (
    struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError, KeyError,
    ZeroDivisionError, AssertionError, MemoryError, UnicodeError,
)  # fmt: skip


@dataclass(frozen=True)
class Value:
    """A tensor of the file.

    A dynamic dimension has the size the converter stored, usually 1.
    """

    name: str
    shape: tuple[int, ...]
    type: str  # TensorType name
    data: Array | None  # None: computed
    scale: Array | None  # (), or (n,) along `axis`
    zero: Array | None  # shaped as scale
    axis: int
    variable: bool


@dataclass(frozen=True)
class Node:
    """An operator of the file."""

    code: str  # BuiltinOperator name, or CUSTOM and the custom name
    name: str  # of its first output
    inputs: tuple[int, ...]  # tensor indices, -1: absent
    outputs: tuple[int, ...]
    options: Any  # its options table, or None


@dataclass(frozen=True)
class Model:
    """The first subgraph of a file, as plain data."""

    values: list[Value]
    nodes: list[Node]
    inputs: list[int]
    outputs: list[int]
    subgraphs: int


def read(data: bytes) -> Model:
    """Checked plain data of a file's bytes; ModelError where they are no sound TFLite model."""
    try:
        import tflite
    except ImportError:
        raise ModelError(
            "reading TFLite needs the package 'tflite'", todo="pip install edgekit[tflite]"
        ) from None
    if len(data) < 16 or data[4:8] != b"TFL3":
        raise ModelError("is not a TFLite model (no TFL3 mark)")
    try:
        return _read(tflite, data)
    except DAMAGE as e:
        raise ModelError(f"is damaged: {e or type(e).__name__}") from None


def _enum(table: Any) -> dict[int, str]:
    return {v: k for k, v in vars(table).items() if isinstance(v, int)}


def _read(tflite: Any, data: bytes) -> Model:
    m = tflite.Model.GetRootAs(data, 0)
    codes = []
    builtin = _enum(tflite.BuiltinOperator)
    for i in range(_length(m.OperatorCodesLength(), data)):
        c = m.OperatorCodes(i)
        number = max(c.BuiltinCode(), c.DeprecatedBuiltinCode())  # old files have an 8-bit field
        custom = c.CustomCode()
        name = builtin.get(number, f"operator {number}")
        codes.append(f"CUSTOM {custom.decode()}" if custom else name)
    if m.SubgraphsLength() < 1:
        raise ModelError("holds no graph")
    g = m.Subgraphs(0)
    types, options = _enum(tflite.TensorType), _enum(tflite.BuiltinOptions)
    values = [_value(m, g.Tensors(i), types, data) for i in range(_length(g.TensorsLength(), data))]
    nodes = []
    for i in range(_length(g.OperatorsLength(), data)):
        o = g.Operators(i)
        ins, outs = _indices(o, "Inputs", len(values), -1), _indices(o, "Outputs", len(values), 0)
        name = (values[outs[0]].name if outs else "") or f"operator {i}"
        raw = o.BuiltinOptions()
        table = None
        kind = options.get(o.BuiltinOptionsType(), "NONE")
        if raw is not None and kind != "NONE":
            table = getattr(tflite, kind)()
            table.Init(raw.Bytes, raw.Pos)
        nodes.append(Node(codes[o.OpcodeIndex()], name, ins, outs, table))
    inputs, outputs = _indices(g, "Inputs", len(values), 0), _indices(g, "Outputs", len(values), 0)
    return Model(values, nodes, list(inputs), list(outputs), m.SubgraphsLength())


def _length(n: int, data: bytes) -> int:
    if n > len(data) // 4:
        raise ValueError(f"a list of {n} items in a file of {len(data)} bytes")
    return n


def _indices(owner: Any, field: str, count: int, least: int) -> tuple[int, ...]:
    out = []
    for i in range(getattr(owner, field + "Length")()):
        v = getattr(owner, field)(i)
        if not least <= v < count:
            raise ValueError(f"tensor {v} of {count}")
        out.append(int(v))
        if len(out) > 65536:
            raise ValueError("an operator of more than 65536 operands")
    return tuple(out)


def array_of(owner: Any, field: str) -> Array | None:
    """A vector field as numpy, None where absent or empty."""
    if getattr(owner, field + "Length")() == 0:
        return None
    return np.asarray(getattr(owner, field + "AsNumpy")())


def _value(m: Any, t: Any, types: dict[int, str], data: bytes) -> Value:
    name = (t.Name() or b"").decode().split(";")[0]  # fused operators have all their names, joined
    shape = array_of(t, "Shape")
    dims = tuple(int(d) for d in (shape if shape is not None else ()))
    if len(dims) > 8 or any(d < -1 for d in dims):
        raise ValueError(f"tensor {name!r} has shape {dims}")
    kind = types.get(t.Type(), f"type {t.Type()}")
    scale, zero, axis = _quantization(t, name, dims)
    if t.Sparsity() is not None:
        raise ModelError("sparse tensors are not supported", where=name)
    content = _content(m, t.Buffer(), data)
    if content is not None:
        content = _decode(content, kind, dims, name)
    return Value(name, dims, kind, content, scale, zero, axis, bool(t.IsVariable()))


def _quantization(
    t: Any, name: str, dims: tuple[int, ...]
) -> tuple[Array | None, Array | None, int]:
    q = t.Quantization()
    scale = None if q is None else array_of(q, "Scale")
    if q is None or scale is None:
        return None, None, 0
    zero = array_of(q, "ZeroPoint")
    zero = np.zeros(len(scale), np.int64) if zero is None else zero
    if not (np.all(np.isfinite(scale)) and np.all(scale > 0)):
        raise ValueError(f"tensor {name!r} has a scale that is not positive")
    if len(zero) != len(scale) or np.any(np.abs(zero) > 65535):
        raise ValueError(f"tensor {name!r} has unsound zero points")
    axis = int(q.QuantizedDimension())
    if len(scale) == 1:
        return scale.astype(np.float32).reshape(()), zero.astype(np.int32).reshape(()), 0
    if not 0 <= axis < len(dims) or dims[axis] != len(scale):
        raise ValueError(f"tensor {name!r} has {len(scale)} scales along axis {axis} of {dims}")
    return scale.astype(np.float32), zero.astype(np.int32), axis


def _content(m: Any, index: int, data: bytes) -> Array | None:
    if index == 0:
        return None  # by convention the empty buffer
    b = m.Buffers(index) if index < m.BuffersLength() else None
    if b is None:
        raise ValueError(f"buffer {index} does not exist")
    if b.Offset() > 1:  # models above 2 GB keep their weights behind the flatbuffer
        if b.Offset() + b.Size() > len(data):
            raise ValueError(f"buffer {index} ends behind the file")
        return np.frombuffer(data, np.uint8, b.Size(), b.Offset())
    return array_of(b, "Data")


def _decode(raw: Array, kind: str, dims: tuple[int, ...], name: str) -> Array | None:
    count = math.prod(dims)
    if kind == "INT4":
        if len(raw) != (count + 1) // 2:
            raise ValueError(f"tensor {name!r} has {len(raw)} bytes for {count} int4")
        both = np.stack([raw.astype(np.int8) << 4 >> 4, raw.astype(np.int8) >> 4], -1)
        return both.reshape(-1)[:count].reshape(dims)
    if kind not in TYPES:
        return None  # refused where it is used
    dtype = np.dtype(TYPES[kind]).newbyteorder("<")
    if count < 0 or len(raw) != count * dtype.itemsize:
        raise ValueError(f"tensor {name!r} has {len(raw)} bytes for {dims} of {kind}")
    data = np.frombuffer(raw.tobytes(), dtype).reshape(dims)
    return data.astype(np.float32 if kind == "FLOAT16" else TYPES[kind])

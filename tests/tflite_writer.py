"""Writes small .tflite files of one or more operators, for tests that need what no model has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import tflite

KINDS = {"f": "FLOAT32", "i1": "INT8", "u1": "UINT8", "i2": "INT16", "i4": "INT32", "i8": "INT64"}


@dataclass
class Spec:
    """A tensor: shape, numpy dtype, constant data, scale and zero point (lists along `axis`)."""

    shape: tuple[int, ...] = ()
    dtype: Any = np.float32
    data: np.ndarray | None = None
    scale: float | Sequence[float] | None = None
    zero: int = 0
    axis: int = 0


@dataclass
class Node:
    """An operator: BuiltinOperator name, operands and results by name, options by field name."""

    code: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    options: Mapping[str, Any] = field(default_factory=dict)
    table: str = ""  # options table, e.g. Conv2DOptions
    version: int = 1


def const(data: Any, dtype: Any = np.int32, **quant: Any) -> Spec:
    """A constant tensor."""
    array = np.asarray(data, dtype)
    return Spec(array.shape, dtype, array, **quant)


def _ints(b: flatbuffers.Builder, values: Sequence[int], put: str = "PrependInt32") -> int:
    size = 8 if put == "PrependInt64" else 4
    b.StartVector(size, len(values), size)
    for v in reversed(values):
        getattr(b, put)(v)
    return int(b.EndVector())


def _offsets(b: flatbuffers.Builder, values: Sequence[int]) -> int:
    b.StartVector(4, len(values), 4)
    for v in reversed(values):
        b.PrependUOffsetTRelative(v)
    return int(b.EndVector())


def _table(b: flatbuffers.Builder, name: str, **fields: Any) -> int:
    getattr(tflite, f"{name}Start")(b)
    for key, value in fields.items():
        getattr(tflite, f"{name}Add{key}")(b, value)
    return int(getattr(tflite, f"{name}End")(b))


def _tensor(b: flatbuffers.Builder, name: str, t: Spec, buffer: int) -> int:
    fields: dict[str, Any] = {"Name": b.CreateString(name), "Shape": _ints(b, t.shape)}
    if t.scale is not None:
        scales = np.atleast_1d(np.asarray(t.scale, np.float32))
        zeros = _ints(b, [t.zero] * len(scales), "PrependInt64")
        fields["Quantization"] = _table(
            b,
            "QuantizationParameters",
            Scale=b.CreateNumpyVector(scales),
            ZeroPoint=zeros,
            QuantizedDimension=t.axis,
        )
    kind = KINDS["f" if np.dtype(t.dtype).kind == "f" else np.dtype(t.dtype).str[1:]]
    return _table(b, "Tensor", Type=getattr(tflite.TensorType, kind), Buffer=buffer, **fields)


def _operator(b: flatbuffers.Builder, node: Node, code: int, index: dict[str, int]) -> int:
    fields: dict[str, Any] = {"OpcodeIndex": code}
    if node.table:
        options = {
            k: _ints(b, v) if isinstance(v, (list, tuple)) else v for k, v in node.options.items()
        }
        fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, node.table)
        fields["BuiltinOptions"] = _table(b, node.table, **options)
    ins = _ints(b, [index[i] if i else -1 for i in node.inputs])
    return _table(
        b, "Operator", Inputs=ins, Outputs=_ints(b, [index[o] for o in node.outputs]), **fields
    )


def write(tensors: Mapping[str, Spec], nodes: Sequence[Node], inputs: Sequence[str]) -> bytes:
    """The file's bytes; its outputs are those of the last node."""
    b = flatbuffers.Builder(1024)
    index = {n: i for i, n in enumerate(tensors)}
    buffers, values = [_table(b, "Buffer")], []
    for name, t in tensors.items():
        at = 0
        if t.data is not None:
            raw = b.CreateByteVector(np.asarray(t.data, t.dtype).tobytes())
            at = len(buffers)
            buffers.append(_table(b, "Buffer", Data=raw))
        values.append(_tensor(b, name, t, at))
    codes = []
    for node in nodes:
        custom = {"CustomCode": b.CreateString(node.table)} if node.code == "CUSTOM" else {}
        number = getattr(tflite.BuiltinOperator, node.code)
        codes.append(
            _table(
                b,
                "OperatorCode",
                DeprecatedBuiltinCode=min(number, 127),
                BuiltinCode=number,
                Version=node.version,
                **custom,
            )
        )
    made = [
        _operator(b, n if n.code != "CUSTOM" else Node("CUSTOM", n.inputs, n.outputs), i, index)
        for i, n in enumerate(nodes)
    ]
    graph = _table(
        b,
        "SubGraph",
        Tensors=_offsets(b, values),
        Inputs=_ints(b, [index[i] for i in inputs]),
        Outputs=_ints(b, [index[o] for o in nodes[-1].outputs]),
        Operators=_offsets(b, made),
    )
    model = _table(
        b,
        "Model",
        Version=3,
        OperatorCodes=_offsets(b, codes),
        Subgraphs=_offsets(b, [graph]),
        Buffers=_offsets(b, buffers),
    )
    b.Finish(model, b"TFL3")
    return bytes(b.Output())

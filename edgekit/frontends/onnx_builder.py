"""What the importers of ONNX operators are given: the graph under construction and helpers to add
to it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, QuantSpec, Tensor

MOVES = {"transpose", "reshape", "slice", "gather", "tile", "max_pool2d"}
ANY_TYPE = {"transpose", "reshape", "slice", "gather", "tile", "concat", "pad", "cast"}


class Builder:
    """A graph, the ONNX node that is being imported, and the ways to add ops named after it.

    An importer gets the names of graph tensors ("" for an absent operand) and returns the names of
    its results.
    """

    def __init__(self, name: str, opset: int) -> None:
        self.graph = Graph(name)
        self.opset = opset
        self.node: Any = None

    def shape(self, x: str) -> tuple[int, ...]:
        return self.graph.tensors[x].shape

    def rank(self, x: str) -> int:
        return len(self.graph.tensors[x].shape)

    def dtype(self, x: str) -> str:
        return self.graph.tensors[x].dtype

    def value(self, x: str) -> Array | None:
        """Data of a constant, None of an activation or an absent operand."""
        return self.graph.value(x)

    def const(self, x: str, what: str) -> Array:
        """Data of a constant operand; ModelError names the operand otherwise."""
        data = self.graph.value(x)
        if data is None:
            source = self._quantized_const(x)
            if source is None or source.data is None or source.quant is None:
                raise ModelError(f"{self.node.op_type}: its {what} must be known before the run")
            data = source.quant.dequantize(source.data)
        return data

    def _quantized_const(self, x: str) -> Tensor | None:
        """The integer constant behind a dequantizing cast."""
        op = self.graph.producers().get(x)
        source = self.graph.tensors[op.inputs[0]] if op is not None and op.type == "cast" else None
        return (
            source
            if source is not None and source.data is not None and source.quant is not None
            else None
        )

    def ints(self, x: str, what: str) -> list[int]:
        return [int(v) for v in self.const(x, what).ravel()]

    def add_const(self, data: Array, stem: str = "const") -> str:
        return self.graph.const(f"{self.node_name}.{stem}", data)

    def emit(
        self,
        type: str,
        inputs: Sequence[str],
        attrs: dict[str, Any] | None = None,
        *,
        suffix: str = "",
        quant: QuantSpec | None = None,
        dtype: str | None = None,
    ) -> str:
        """Appends an op named after the current node.  What only moves values keeps their
        quantization.
        """
        name = self.node_name + (f".{suffix}" if suffix else "")
        for i in inputs[:1] if type in ("gather", "cast") else inputs:
            t = self.graph.tensors.get(i)
            if (
                t is not None
                and t.dtype != "f32"
                and type not in ANY_TYPE
                and (t.dtype != "i8" or t.quant is None)
            ):
                raise ModelError(
                    f"{self.node.op_type} of {t.dtype} values without a scale is not supported"
                )
        if quant is None and type in MOVES:
            quant = self.graph.tensors[inputs[0]].quant
        return self.graph.emit(type, inputs, attrs, name=name, quant=quant, dtype=dtype)

    def transpose(self, x: str, perm: Sequence[int], suffix: str = "transpose") -> str:
        if list(perm) == sorted(perm):
            return x
        return self.emit("transpose", [x], {"perm": tuple(perm)}, suffix=suffix)

    def reshape(self, x: str, shape: Sequence[int], suffix: str = "reshape") -> str:
        to = tuple(int(d) for d in shape)
        return x if to == self.shape(x) else self.emit("reshape", [x], {"shape": to}, suffix=suffix)

    def binary(self, kind: str, a: str, b: str, suffix: str = "") -> str:
        return self.emit("binary", [a, b], {"kind": kind}, suffix=suffix or kind)

    def scalar(self, value: float) -> str:
        return self.add_const(np.asarray(value, np.float32))

    def nhwc(self, x: str) -> str:
        """(n, c, l) or (n, c, h, w) -> (n, h, w, c), with h = 1 for the former."""
        s = self.shape(x)
        if len(s) == 3:
            x = self.reshape(x, (s[0], s[1], 1, s[2]), "as2d")
        elif len(s) != 4:
            raise ModelError(
                f"{self.node.op_type} on {len(s) - 2} spatial dimensions is not supported"
            )
        return self.transpose(x, (0, 2, 3, 1), "nhwc")

    def nchw(self, y: str, rank: int) -> str:
        """The way back of `nhwc`: (n, h, w, c) -> (n, c, h, w) or (n, c, l)."""
        y = self.transpose(y, (0, 3, 1, 2), "nchw")
        if rank == 3:
            n, c, _, length = self.shape(y)
            y = self.reshape(y, (n, c, length), "as1d")
        return y

    def weight(self, w: str, perm: Sequence[int], shape: Sequence[int] = ()) -> str:
        """A constant operand, reshaped to `shape` (same axis 0) and transposed at import.

        A quantized one stays integer behind its cast.
        """
        to = tuple(shape) or self.shape(w)
        data = self.value(w)
        if data is not None:
            return self.add_const(data.reshape(to).transpose(perm), "weights")
        source = self._quantized_const(w)
        if source is None or source.data is None or source.quant is None:
            raise ModelError(f"{self.node.op_type}: its weights must be known before the run")
        q = source.quant
        if q.axis is not None:
            if to != self.shape(w) and q.axis != 0:
                raise ModelError(
                    f"{self.node.op_type}: weights quantized along axis {q.axis} are not supported"
                )
            q = QuantSpec(q.scale, q.zero, list(perm).index(q.axis))
        const = self.graph.const(
            f"{self.node_name}.weights", source.data.reshape(to).transpose(perm), q
        )
        return self.emit("cast", [const], {"to": "f32"}, suffix="dequantize")

    def window(
        self,
        kernel: Sequence[int],
        size: Sequence[int],
        strides: Sequence[int],
        dilations: Sequence[int],
        pads: Sequence[int],
        auto_pad: str,
    ) -> dict[str, Any]:
        """stride, dilation and pad attributes of a window op from ONNX's; 1-D values get a height
        of 1.

        `kernel` and `size` (of the input) are (height, width).
        """

        def pair(v: Sequence[int], fill: int) -> tuple[int, int]:
            v = [int(i) for i in v] or [fill, fill]
            return (fill, v[0]) if len(v) == 1 else (v[0], v[1])

        stride, dilation = pair(strides, 1), pair(dilations, 1)
        p = [int(v) for v in pads] or [0, 0, 0, 0]
        p = [0, p[0], 0, p[1]] if len(p) == 2 else p
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            for i in range(2):
                out = -(-size[i] // stride[i])
                total = max(0, (out - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1 - size[i])
                small, big = total // 2, total - total // 2
                p[i], p[i + 2] = (small, big) if auto_pad == "SAME_UPPER" else (big, small)
        elif auto_pad == "VALID":
            p = [0, 0, 0, 0]
        if min(p) < 0:
            raise ModelError(f"{self.node.op_type}: negative padding is not supported")
        return {"stride": stride, "dilation": dilation, "pad": tuple(p)}

    def is_weight(self, x: str) -> bool:
        """A constant, or a quantized constant behind its cast."""
        return self.value(x) is not None or self._quantized_const(x) is not None

    def quantized(self, x: str, q: QuantSpec) -> str:
        """An integer activation as int8 with that quantization; uint8 graph inputs are shifted by
        128.
        """
        t = self.graph.tensors[x]
        if q.axis is not None:
            raise ModelError("activations are quantized per tensor only")
        if t.dtype == "u8":
            raw = QuantSpec(q.scale, q.zero + 128, q.axis)
            self.graph.tensors[x] = dataclasses.replace(t, quant=raw)
            return self.emit("cast", [x], {"to": "i8"}, suffix="shift", quant=q)
        if t.quant is None:
            self.graph.tensors[x] = dataclasses.replace(t, quant=q)
        elif t.quant != q:
            raise ModelError(f"{x!r} is read with a quantization other than it was made with")
        return x

    def broadcast(self, x: str, shape: Sequence[int]) -> str:
        """Repeats x to `shape` by numpy's rule."""
        old, to = self.shape(x), tuple(int(d) for d in shape)
        if old == to:
            return x
        full = (1,) * (len(to) - len(old)) + old
        repeats = tuple(b // a for a, b in zip(full, to))
        x = self.reshape(x, full, "rank")
        return (
            x
            if all(r == 1 for r in repeats)
            else self.emit("tile", [x], {"repeats": repeats}, suffix="tile")
        )

    @property
    def node_name(self) -> str:
        return str(self.node.name or next(iter(self.node.output), self.node.op_type))

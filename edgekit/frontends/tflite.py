"""TFLite files -> Graph.  The importers of operators live in edgekit/ops/<op>.py (`@tflite`).

Quantized models are taken over as they are: scales, zero points and integer weights stay.  uint8
becomes int8 by subtracting 128 from values and zero points; graph inputs and outputs stay uint8,
with a `cast` that shifts them.  Variable tensors (the state of an LSTM) become states of the graph
and persist between runs, as in TFLite.
"""

from __future__ import annotations

import collections
import inspect
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import ops
from edgekit.errors import ModelError
from edgekit.frontends.tflite_file import DAMAGE, TYPES, Model, Node, Value, array_of, read
from edgekit.ir import Array, Graph, QuantSpec, Tensor, dtype_of
from edgekit.ops.base import INF, TFLITE

FOLD_LIMIT = 1 << 22  # elements a folded constant may have: a file must not make us fill the memory
_ACTIVATIONS = {
    "NONE": (-INF, INF),
    "RELU": (0.0, INF),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU6": (0.0, 6.0),
}


def load(source: str | Path | bytes, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """Graph of a .tflite file (path or its bytes); `shapes` overrides shapes of inputs by name.

    Raises ModelError: not a TFLite file, damaged, dynamic shapes left open, or operators EdgeKit
    does not know.
    """
    return read_graph(source, shapes).graph


def read_graph(
    source: str | Path | bytes, shapes: Mapping[str, Sequence[int]] | None = None
) -> Importer:
    """As `load`; the importer's `names` maps tensor indices of the file to tensors of the graph."""
    where = "model" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as e:
        raise ModelError(f"cannot be read: {e.strerror}", where=where) from None
    name = re.sub(r"\W+", "_", Path(where).stem)
    try:
        imp = Importer(read(data), name, shapes or {})
        imp.run()
        return imp
    except DAMAGE as e:
        raise ModelError(f"makes no sense: {e or type(e).__name__}", where=where) from None
    except ModelError as e:
        raise ModelError(
            e.what, where=f"{where}: {e.where}" if e.where else where, todo=e.todo
        ) from None


class Importer:
    """Walks the operators and calls their importers (edgekit.ops.base.TFLITE).

    An importer is f(imp, operand..., *, option...) -> name of output 0, or a list of names.
    Operands are names of graph tensors ("" where absent); options are named as in the schema, in
    snake_case.  `imp.emit` makes the operator's result, `imp.step` anything on the way to it.
    """

    def __init__(self, model: Model, name: str, shapes: Mapping[str, Sequence[int]]) -> None:
        self.model = model
        self.graph = Graph(name)
        self.names: dict[int, str] = {}
        self.shapes = dict(shapes)
        self.node = Node("", "", (), (), None)

    # ---- the walk ------------------------------------------------------------------------

    def run(self) -> None:
        """Fills self.graph."""
        self._refuse_unknown()
        self._inputs()
        for node in self.model.nodes:
            self.node = node
            self._node(node)
        for i in self.model.outputs:
            self._output(i)
        self._drop_dead()
        self.graph.check()

    def _refuse_unknown(self) -> None:
        ops.table()  # importers register when the op files are read
        unknown: dict[str, list[str]] = collections.defaultdict(list)
        for n in self.model.nodes:
            if n.code not in TFLITE:
                unknown[n.code].append(n.name)
        if unknown:
            lines = [
                f"{c} x {len(at)} ({', '.join(at[:4])}{', ...' if len(at) > 4 else ''})"
                for c, at in unknown.items()
            ]
            raise ModelError(
                f"unknown operators: {'; '.join(lines)}", todo="see CONTRIBUTING.md on adding an op"
            )
        if self.model.subgraphs != 1:
            raise ModelError(
                f"holds {self.model.subgraphs} graphs; only files with one are supported"
            )

    def _inputs(self) -> None:
        open_dims = []
        known = {self.model.values[i].name for i in self.model.inputs}
        if set(self.shapes) - known:
            raise ModelError(
                f"no input is named {sorted(set(self.shapes) - known)}",
                todo=f"inputs: {sorted(known)}",
            )
        for i in self.model.inputs:
            v = self.model.values[i]
            shape = tuple(int(d) for d in self.shapes.get(v.name, v.shape))
            if len(shape) != len(v.shape) or any(d < 1 for d in shape):
                open_dims.append(f"{v.name}: {v.shape}")
                continue
            self._known_type(v)
            name = self.graph.unique(v.name or f"input{i}")
            dtype = dtype_of(np.empty(0, TYPES[v.type]))
            shifted = v.type == "UINT8" and v.scale is not None
            quant = self.quant(i, shift=False) if v.type in ("UINT8", "INT8", "INT16") else None
            self.graph.add_tensor(Tensor(name, shape, dtype, None, quant))
            self.graph.inputs.append(name)
            if shifted:
                name = self.graph.emit(
                    "cast", [name], {"to": "i8"}, name=name + ".i8", quant=self.quant(i)
                )
            self.names[i] = name
        if open_dims:
            raise ModelError(
                f"inputs have dynamic shapes: {'; '.join(open_dims)}",
                todo="fix them with --shape name=1,2,3",
            )

    def _node(self, node: Node) -> None:
        f = TFLITE[node.code]
        try:
            operands = [self.operand(i) for i in node.inputs]
            result = f(self, *operands, **self._options(f, node))
        except ModelError as e:
            where = f"{node.code} {node.name}" + (
                f" ({e.where})" if e.where and e.where != node.name else ""
            )
            raise ModelError(e.what, where=where, todo=e.todo) from None
        except DAMAGE as e:
            raise ModelError(
                f"operands make no sense: {e or type(e).__name__}", where=f"{node.code} {node.name}"
            ) from None
        results = [result] if isinstance(result, str) else list(result)
        if len(results) != len(node.outputs):
            raise ModelError(
                f"{len(node.outputs)} outputs, expected {len(results)}",
                where=f"{node.code} {node.name}",
            )
        for i, name in zip(node.outputs, results, strict=True):
            want, got = self.model.values[i].shape, self.graph.tensors[name].shape
            if not self.shapes and want and -1 not in want and want != got:
                raise ModelError(
                    f"gives {got}, the file says {want}", where=f"{node.code} {node.name}"
                )
            self.names[i] = name

    def _options(self, f: Any, node: Node) -> dict[str, Any]:
        """Keyword arguments of an importer, read from the options table by their names."""
        out = {}
        for p in inspect.signature(f).parameters.values():
            if p.kind is not p.KEYWORD_ONLY or node.options is None:
                continue
            field = "".join(w.capitalize() for w in p.name.split("_"))
            if hasattr(node.options, field + "AsNumpy"):
                value = array_of(node.options, field)
                out[p.name] = [] if value is None else [int(x) for x in value]
            else:
                out[p.name] = getattr(node.options, field)()
        return out

    def _output(self, i: int) -> None:
        v, name = self.model.values[i], self.operand(i)
        g = self.graph
        if v.type == "UINT8" and v.scale is not None:
            name = g.emit(
                "cast",
                [name],
                {"to": "u8"},
                name=v.name,
                outputs=[g.unique(v.name)],
                quant=self.quant(i, shift=False),
            )
        elif g.is_const(name) or name in g.inputs or name in g.outputs:
            shape = g.tensors[name].shape
            name = g.emit(
                "reshape",
                [name],
                {"shape": shape},
                name=g.unique(v.name),
                quant=g.tensors[name].quant,
            )
        g.outputs.append(name)

    def _drop_dead(self) -> None:
        """Removes operators whose results nobody reads (shape computations, mostly) and their
        constants.
        """
        g = self.graph
        used = {*g.outputs, *g.states}
        kept = []
        for op in reversed(g.ops):
            if used.intersection(op.outputs):
                used.update(op.inputs)
                kept.append(op)
        g.ops = kept[::-1]
        g.drop_unused()

    # ---- what importers read -------------------------------------------------------------

    def operand(self, i: int) -> str:
        """Graph tensor of tensor index i; constants and states are added when first used."""
        if i < 0:
            return ""
        if i in self.names:
            return self.names[i]
        v = self.model.values[i]
        if v.data is None and v.variable:
            return self._state(i, v)
        if v.data is None:
            raise ModelError(
                f"tensor {v.name!r} is used before it is made, or {v.type} is not supported"
            )
        data, quant = v.data, self.quant(i)
        if v.type == "UINT8" and v.scale is not None:
            data = (data.astype(np.int16) - 128).astype(np.int8)
        self.names[i] = self.graph.const(v.name or f"const{i}", data, quant)
        return self.names[i]

    def _state(self, i: int, v: Value) -> str:
        known = v.type in TYPES and all(d > 0 for d in v.shape)
        if not known or math.prod(v.shape) > FOLD_LIMIT:
            raise ModelError(
                f"state of type {v.type} and shape {v.shape} is not supported", where=v.name
            )
        quant = self.quant(i)
        data = np.full(v.shape, 0 if quant is None else int(quant.zero), TYPES[v.type])
        name = self.graph.unique(v.name or f"state{i}")
        self.graph.add_tensor(Tensor(name, v.shape, dtype_of(data), data, quant))
        self.graph.states.append(name)
        self.names[i] = name
        return name

    def quant(self, i: int, *, shift: bool = True) -> QuantSpec | None:
        """Quantization of tensor index i in the graph's terms (uint8 shifted to int8), None where
        it has none.
        """
        v = self.model.values[i]
        if v.scale is None or v.zero is None or v.type not in ("UINT8", "INT8", "INT16", "INT4"):
            return None
        zero = v.zero - 128 if v.type == "UINT8" and shift else v.zero
        low, high = (
            (0, 255)
            if v.type == "UINT8" and not shift
            else (-32768, 32767)
            if v.type == "INT16"
            else (-128, 127)
        )
        if v.data is None and not (low <= int(np.min(zero)) and int(np.max(zero)) <= high):
            raise ModelError(f"zero point of {v.name!r} is outside its type")
        return QuantSpec(v.scale, zero.astype(np.int32), v.axis if v.scale.ndim else None)

    def _known_type(self, v: Value) -> None:
        if v.type not in TYPES or v.type == "FLOAT16":
            raise ModelError(f"activations of type {v.type} are not supported", where=v.name)
        if v.type == "INT16" and v.scale is not None:
            raise ModelError("16-bit quantized activations are not supported", where=v.name)

    def out(self, i: int = 0) -> tuple[str, QuantSpec | None, str]:
        """(name, quantization, IR type) the file gives to output i of this operator."""
        index = self.node.outputs[i]
        v = self.model.values[index]
        self._known_type(v)
        quant = self.quant(index)
        dtype = dtype_of(np.empty(0, TYPES[v.type]))
        if v.type == "UINT8" and quant is not None:
            dtype = "i8"
        return v.name or f"tensor{index}", quant, dtype

    def tensor(self, name: str) -> Tensor:
        return self.graph.tensors[name]

    def value(self, name: str) -> Array | None:
        """Data of a constant operand, else None."""
        return self.graph.value(name)

    def ints(self, name: str, what: str) -> list[int]:
        """A constant operand as a flat list of ints; ModelError where it is computed."""
        data = self.value(name)
        if data is None:
            raise ModelError(f"{what} must be constant")
        return [int(d) for d in data.reshape(-1)]

    def dims(self, name: str) -> tuple[int, ...]:
        return self.graph.tensors[name].shape

    def is_int8(self, *names: str) -> bool:
        return all(self.graph.tensors[n].dtype == "i8" for n in names)

    # ---- what importers make -------------------------------------------------------------

    def step(
        self, type: str, inputs: Sequence[str], attrs: dict[str, Any] | None = None, *,
        quant: QuantSpec | None = None, dtype: str | None = None,
    ) -> str:  # fmt: skip
        """An op on the way to the operator's result; its name is made from the operator's."""
        return self._fold(
            self.graph.emit(
                type,
                inputs,
                attrs,
                name=self.graph.unique(f"{self.out()[0]}.{type}"),
                quant=quant,
                dtype=dtype,
            )
        )

    def emit(
        self, type: str, inputs: Sequence[str], attrs: dict[str, Any] | None = None, *, i: int = 0
    ) -> str:
        """The op that makes output i of the operator: named and quantized as the file says."""
        name, quant, dtype = self.out(i)
        if dtype == "u8" or quant is None:
            quant, kind = None, None
        else:
            kind = dtype
        return self._fold(
            self.graph.emit(
                type, inputs, attrs, name=self.graph.unique(name), quant=quant, dtype=kind
            )
        )

    def _fold(self, name: str) -> str:
        """Replaces the op just made by a constant where all its operands are constants."""
        g = self.graph
        op = g.ops[-1]
        if (
            not all(g.is_const(i) for i in op.inputs if i)
            or not op.inputs
            or g.tensors[name].size > FOLD_LIMIT
        ):
            return name
        if len(op.outputs) != 1 or op.outputs[0] != name:
            return name
        data = ops.get(op.type).reference(op, g, [g.value(i) for i in op.inputs])[0]
        t = g.tensors.pop(name)
        g.ops.pop()
        g.add_tensor(
            Tensor(t.name, t.shape, t.dtype, np.ascontiguousarray(data).reshape(t.shape), t.quant)
        )
        return name

    def const(self, stem: str, data: Array, quant: QuantSpec | None = None) -> str:
        return self.graph.const(f"{self.node.name}.{stem}", data, quant)

    def bounds(self, activation: int) -> dict[str, float]:
        """Attributes lo and hi of a fused activation function."""
        names = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")
        name = names[activation] if 0 <= activation < len(names) else str(activation)
        if name not in _ACTIVATIONS:
            raise ModelError(f"fused activation {name} is not supported")
        lo, hi = _ACTIVATIONS[name]
        return {"lo": lo, "hi": hi}

    def padding(
        self,
        kind: int,
        size: Sequence[int],
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int] = (1, 1),
    ) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of SAME (0) or VALID (1) padding over (rows, columns)."""
        if kind not in (0, 1):
            raise ModelError(f"padding {kind} is not known")
        pads = []
        for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
            total = 0 if kind == 1 else max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
            pads.append((total // 2, total - total // 2))
        return pads[0][0], pads[1][0], pads[0][1], pads[1][1]

    def reshaped(self, x: str, shape: Sequence[int], *, last: bool = False) -> str:
        """x with that shape (no op where it has it already); `last`: it is the result."""
        if tuple(shape) == self.dims(x) and not last:
            return x
        if last:
            return self.emit("reshape", [x], {"shape": tuple(shape)})
        return self.step("reshape", [x], {"shape": tuple(shape)}, quant=self.tensor(x).quant)

    def clamped(
        self, type: str, inputs: Sequence[str], attrs: dict[str, Any], activation: int
    ) -> str:
        """The operator's result from an op without lo and hi: its activation becomes an op of its
        own.
        """
        bounds = self.bounds(activation)
        if bounds == self.bounds(0):
            return self.emit(type, inputs, attrs)
        from edgekit.ops.unary import import_tflite

        quant = self.out()[1] if self.out()[2] == "i8" else None
        return import_tflite(
            self, self.step(type, inputs, attrs, quant=quant), "clamp", bounds["lo"], bounds["hi"]
        )

    def requantized(self, x: str, quant: QuantSpec | None) -> str:
        """x with that quantization: a cast where it differs."""
        t = self.tensor(x)
        if t.dtype != "i8" or quant is None or t.quant is None or t.quant == quant:
            return x
        return self.step("cast", [x], {"to": "i8"}, quant=quant)

    def as_float(self, x: str) -> str:
        """x as float32: dequantized where it is int8."""
        t = self.tensor(x)
        if t.dtype == "f32":
            return x
        if t.data is not None and t.quant is not None and x not in self.graph.states:
            return self.graph.const(f"{x}.float", t.quant.dequantize(t.data))
        return self.step("cast", [x], {"to": "f32"})

    def weights(self, w: str, x: str) -> str:
        """Weights for activations x: float where x is (hybrid models keep int8 weights for float
        activations).
        """
        return self.as_float(w) if self.tensor(x).dtype == "f32" else w

    def float_step(
        self, type: str, inputs: Sequence[str], attrs: dict[str, Any] | None = None
    ) -> str:
        """The operator's last float32 op: its result, or a step where `from_float` still has to
        quantize.
        """
        return (
            self.step(type, inputs, attrs)
            if self.out()[2] == "i8"
            else self.emit(type, inputs, attrs)
        )

    def from_float(self, x: str) -> str:
        """The operator's result from a float32 tensor: quantized where the file says so."""
        if self.out()[2] == "i8":
            return self.emit("cast", [x], {"to": "i8"})
        return x

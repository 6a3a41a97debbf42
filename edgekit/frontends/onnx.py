"""ONNX models -> Graph.  The importers of single operators live in edgekit/ops/<op>.py (`@onnx`).

Whatever depends on constants and shapes alone is evaluated here and never becomes an op.  Spatial ops are
wrapped in NCHW <-> NHWC transposes, which edgekit.passes.layout removes.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import ops
from edgekit.errors import EdgeKitError, ModelError
from edgekit.ir import NUMPY, Array, Graph, QuantSpec, Tensor
from edgekit.ops.base import ONNX

Shapes = Mapping[str, Sequence[int]]

MOVES = {"transpose", "reshape", "slice", "gather", "tile", "max_pool2d"}
ANY_TYPE = {"transpose", "reshape", "slice", "gather", "tile", "concat", "pad", "cast"}
NEVER_FOLDED = {"DequantizeLinear", "RandomNormal", "RandomUniform", "Multinomial", "Bernoulli"}
CONTROL = {
    "Loop": "loops have no place in a fixed plan; unroll it before export",
    "Scan": "loops have no place in a fixed plan; unroll it before export",
    "If": "the condition is not known before the run; export one branch",
}
DEFAULT_DOMAINS = {"", "ai.onnx", "com.microsoft"}


def load(source: str | Path | Any, shapes: Shapes | None = None) -> Graph:
    """Reads an .onnx file or a ModelProto.

    `shapes` fixes dynamic dimensions: input name -> whole shape.  ModelError: unreadable file, dynamic
    dimension without a value, unknown operators (all of them at once).
    """
    import onnx

    if isinstance(source, (str, Path)):
        path = Path(source)
        try:
            model = onnx.load(str(path))
        except FileNotFoundError:
            raise ModelError("no such file, or its external data is missing", where=str(path)) from None
        except Exception as e:
            raise ModelError(f"not a readable ONNX model ({type(e).__name__})", where=str(path)) from None
        name = path.stem
        if not model.graph.node:
            raise ModelError("not an ONNX model: it holds no nodes", where=str(path))
    else:
        model, name = source, source.graph.name or "model"
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    return Importer(model, name, shapes or {}).run()


def _decode(attribute: Any) -> Any:
    """Python value of an AttributeProto; strings as str, tensors as arrays."""
    from onnx import helper, numpy_helper

    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if type(value).__name__ == "TensorProto":
        return numpy_helper.to_array(value)
    if isinstance(value, (list, tuple)):
        return [v.decode() if isinstance(v, bytes) else v for v in value]
    return value


class Importer:
    """The state of one import, and the helpers the operators' importers call.

    An importer gets the names of graph tensors ("" for an absent operand) and returns the names of its results.
    """

    def __init__(self, model: Any, name: str, shapes: Shapes) -> None:
        self.model = model
        self.graph = Graph(name)
        self.shapes = shapes
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        self.constants: dict[str, Array] = {}  # ONNX value -> what is known before the run
        self.names: dict[str, str] = {}  # ONNX value -> graph tensor
        self.unknown: dict[str, list[str]] = {}  # operator -> node names
        self.poisoned: set[str] = set()  # results of unknown operators
        self.node: Any = None

    # -- what the importers of operators use ---------------------------------------------------

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
        return source if source is not None and source.data is not None and source.quant is not None else None

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
        """Appends an op named after the current node.  What only moves values keeps their quantization."""
        name = self.node_name + (f".{suffix}" if suffix else "")
        for i in inputs[:1] if type in ("gather", "cast") else inputs:
            t = self.graph.tensors.get(i)
            if t is not None and t.dtype != "f32" and type not in ANY_TYPE and (t.dtype != "i8" or t.quant is None):
                raise ModelError(f"{self.node.op_type} of {t.dtype} values without a scale is not supported")
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
            raise ModelError(f"{self.node.op_type} on {len(s) - 2} spatial dimensions is not supported")
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
            if shape and q.axis != 0:
                raise ModelError(f"{self.node.op_type}: weights quantized along axis {q.axis} are not supported")
            q = QuantSpec(q.scale, q.zero, list(perm).index(q.axis))
        const = self.graph.const(f"{self.node_name}.weights", source.data.reshape(to).transpose(perm), q)
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
        """stride, dilation and pad attributes of a window op from ONNX's; 1-D values get a height of 1.

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
        """An integer activation as int8 with that quantization; uint8 graph inputs are shifted by 128."""
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
        return x if all(r == 1 for r in repeats) else self.emit("tile", [x], {"repeats": repeats}, suffix="tile")

    @property
    def node_name(self) -> str:
        return str(self.node.name or self.node.output[0])

    # -- the walk --------------------------------------------------------------------------------

    def run(self) -> Graph:
        """The whole model; ModelError lists every operator that is not known."""
        graph = self.model.graph
        self._initializers(graph)
        self._inputs(graph)
        for node in graph.node:
            self._node(node)
        self._refuse_unknown()
        self._outputs(graph)
        self.graph.drop_unused()
        self.graph.meta.update(source="onnx", opset=self.opset)
        self.graph.check()
        return self.graph

    def _initializers(self, graph: Any) -> None:
        from onnx import numpy_helper

        for t in graph.initializer:
            self.constants[t.name] = numpy_helper.to_array(t)
        for t in graph.sparse_initializer:
            raise ModelError(f"sparse initializer {t.values.name!r} is not supported")

    def _inputs(self, graph: Any) -> None:
        known = {v.name for v in graph.input if v.name not in self.constants}
        wrong = sorted(set(self.shapes) - known)
        if wrong:
            raise ModelError(f"no input is named {wrong[0]!r}", todo=f"inputs: {', '.join(sorted(known))}")
        for v in graph.input:
            if v.name in known:
                tensor = self.graph.add_tensor(self._input_tensor(v))
                self.graph.inputs.append(tensor)
                self.names[v.name] = tensor

    def _input_tensor(self, v: Any) -> Tensor:
        from onnx import helper

        kind = v.type.tensor_type
        declared = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim]
        shape = [*self.shapes.get(v.name, declared)]
        example = ",".join(str(d) if isinstance(d, int) else "N" for d in declared)
        todo = f"give its shape: --shape {v.name}={example}"
        text = "x".join(str(d) for d in declared)
        if len(shape) != len(declared) or any(
            isinstance(d, int) and d > 0 and int(s) != d for d, s in zip(declared, shape) if not isinstance(s, str)
        ):
            raise ModelError(f"input {v.name!r} is {text}, not {'x'.join(map(str, shape))}", todo=todo)
        open_dims = [str(d) for d in shape if isinstance(d, str) or d < 1]
        if open_dims:
            raise ModelError(f"input {v.name!r} ({text}) has no fixed size for {', '.join(open_dims)}", todo=todo)
        try:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
        except KeyError:
            raise ModelError("its element type is not supported", where=f"input {v.name!r}") from None
        name = {np.dtype(n): k for k, n in NUMPY.items()}.get(dtype)
        if dtype in (np.float16, np.float64):
            name = "f32"
        if name is None:
            raise ModelError(f"element type {dtype} is not supported", where=f"input {v.name!r}")
        return Tensor(v.name, tuple(int(d) for d in shape), name)

    def _node(self, node: Any) -> None:
        self.node = node
        operands = [i for i in node.input if i]
        if node.op_type == "Constant":
            self.constants[node.output[0]] = self._constant(node)
        elif any(i in self.poisoned for i in operands):
            self._poison(node)
        elif node.op_type == "If" and node.input[0] in self.constants:
            self._branch(node)
        elif all(i in self.constants for i in operands) and node.op_type not in NEVER_FOLDED:
            self._fold(node)
        elif node.op_type in ("Shape", "Size"):
            self._shape(node)
        elif node.op_type not in ONNX or node.domain not in DEFAULT_DOMAINS:
            self._poison(node)
        else:
            self._call(node)

    def _poison(self, node: Any) -> None:
        """Notes an unknown operator and goes on, so that the error lists all of them."""
        if node.op_type not in ONNX or node.domain not in DEFAULT_DOMAINS:
            if node.op_type not in ("Shape", "Size"):
                key = f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
                self.unknown.setdefault(key, []).append(self.node_name)
        self.poisoned.update(o for o in node.output if o)

    def _constant(self, node: Any) -> Array:
        a = node.attribute[0]
        value = _decode(a)
        if a.name == "value":
            return np.asarray(value)
        if a.name in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
        if a.name in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
        raise ModelError(f"Constant of kind {a.name} is not supported", where=self.node_name)

    def _fold(self, node: Any) -> None:
        """Evaluates a node of constants by onnx's reference implementation."""
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        wanted = [o for o in node.output if o]
        feeds = {i: self.constants[i] for i in node.input if i}
        graph = helper.make_graph(
            [node],
            "fold",
            [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), None) for k, v in feeds.items()],
            [helper.make_empty_tensor_value_info(o) for o in wanted],
        )
        model = helper.make_model(graph, opset_imports=list(self.model.opset_import), ir_version=10)
        try:
            with np.errstate(all="ignore"):
                results = ReferenceEvaluator(model).run(None, feeds)
        except Exception as e:
            if node.op_type in ONNX and type(e).__name__ != "ModelError":
                self._call(node)  # the reference lacks it, we do not
                return
            raise ModelError(f"cannot evaluate {node.op_type} of constants: {e}", where=self.node_name) from None
        self.constants.update((k, np.asarray(v)) for k, v in zip(wanted, results))

    def _shape(self, node: Any) -> None:
        dims = self.shape(self._tensor(node.input[0]))
        if node.op_type == "Size":
            self.constants[node.output[0]] = np.asarray(np.prod(dims, dtype=np.int64))
            return
        attrs = {a.name: _decode(a) for a in node.attribute}
        part = dims[attrs.get("start", 0) : attrs.get("end", len(dims))]
        self.constants[node.output[0]] = np.asarray(part, np.int64)

    def _branch(self, node: Any) -> None:
        """An If whose condition is known: its branch takes its place."""
        taken = "then_branch" if bool(self.constants[node.input[0]].ravel()[0]) else "else_branch"
        body = next(a.g for a in node.attribute if a.name == taken)
        self._initializers(body)
        for inner in body.node:
            self._node(inner)
        for out, made in zip(node.output, body.output):
            for table in (self.constants, self.names):
                if made.name in table:
                    table[out] = table[made.name]  # type: ignore[index]
            if made.name in self.poisoned:
                self.poisoned.add(out)

    def _tensor(self, value: str) -> str:
        """Graph tensor of an ONNX value; constants enter the graph when first used."""
        if not value:
            return ""
        if value not in self.names:
            if value not in self.constants:
                raise ModelError(f"value {value!r} is used before it is made")
            data = self.constants[value]
            if data.dtype in (np.float16, np.float64):
                data = data.astype(np.float32)
            elif data.dtype == np.uint32:
                data = data.astype(np.int64)
            self.names[value] = self.graph.const(value, data)
        return self.names[value]

    def _call(self, node: Any) -> None:
        """Runs the operator's importer; its signature decodes the attributes."""
        importer = ONNX[node.op_type]
        parameters = inspect.signature(importer).parameters
        keywords = {p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY}
        try:
            attrs = {a.name: _decode(a) for a in node.attribute}
            extra = sorted(set(attrs) - keywords)
            if extra:
                raise ModelError(f"attribute {extra[0]!r} of {node.op_type} is not supported")
            operands = [self._tensor(i) for i in node.input]
            positional = [p for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
            variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
            if not variadic and len(operands) > len(positional):
                raise ModelError(f"operand {len(positional)} of {node.op_type} is not supported")
            needed = sum(p.default is p.empty for p in positional)
            if len(operands) < needed or "" in operands[:needed]:
                raise ModelError(f"{node.op_type} needs {needed} operands")
            results = importer(self, *operands, **attrs)
        except EdgeKitError as e:
            if e.where:
                raise
            raise ModelError(e.what, where=self.node_name, todo=e.todo) from None
        results = (results,) if isinstance(results, str) else tuple(results)
        wanted = [o for o in node.output if o]
        if len(wanted) > len(results):
            raise ModelError(f"output {len(results)} of {node.op_type} is not supported", where=self.node_name)
        for out, made in zip(node.output, results):
            if out:
                self.names[out] = made

    def _refuse_unknown(self) -> None:
        if not self.unknown:
            return
        lines = []
        for kind, nodes in sorted(self.unknown.items()):
            shown = ", ".join(nodes[:8]) + (", ..." if len(nodes) > 8 else "")
            why = f" ({CONTROL[kind]})" if kind in CONTROL else ""
            lines.append(f"{kind} x{len(nodes)}: {shown}{why}")
        total = sum(map(len, self.unknown.values()))
        raise ModelError(
            f"{total} nodes of {len(self.unknown)} operators are not supported:\n  " + "\n  ".join(lines),
            where=self.graph.name,
        )

    def _outputs(self, graph: Any) -> None:
        """Gives the results their ONNX names; an input, constant or second name is copied (reshape)."""
        for v in graph.output:
            source = name = self._output_type(self._tensor(v.name), v.type.tensor_type.elem_type)
            made = {o for op in self.graph.ops for o in op.outputs}
            if source not in made or source in self.graph.outputs:
                name = self.graph.emit(
                    "reshape", [source], {"shape": self.shape(source)}, outputs=[self._free(v.name)]
                )
            elif source != v.name:
                name = rename_tensor(self.graph, source, self._free(v.name))
                self.names = {k: name if t == source else t for k, t in self.names.items()}
            self.graph.outputs.append(name)

    def _output_type(self, x: str, elem_type: int) -> str:
        """A uint8 result of a quantized model is int8 inside: shifted back."""
        t = self.graph.tensors[x]
        if elem_type != 2 or t.dtype != "i8" or t.quant is None:
            return x
        q = QuantSpec(t.quant.scale, t.quant.zero + 128)
        return self.graph.emit("cast", [x], {"to": "u8"}, name=f"{x}.shift", quant=q)

    def _free(self, name: str) -> str:
        """Frees a tensor name by renaming whoever holds it, unless that is an input or output."""
        if name in self.graph.tensors:
            if name in self.graph.inputs or name in self.graph.outputs:
                return self.graph.unique(name)
            other = rename_tensor(self.graph, name, self.graph.unique(name))
            self.names = {k: other if t == name else t for k, t in self.names.items()}
        return name


def rename_tensor(g: Graph, old: str, new: str) -> str:
    """Renames a tensor everywhere; `new` must be free."""
    g.tensors = {
        (new if k == old else k): (dataclasses.replace(t, name=new) if k == old else t) for k, t in g.tensors.items()
    }
    swap = {old: new}
    g.ops = [
        op.with_(
            inputs=tuple(swap.get(i, i) for i in op.inputs), outputs=tuple(swap.get(o, o) for o in op.outputs)
        )
        for op in g.ops
    ]
    g.inputs, g.outputs, g.states = (
        [swap.get(n, n) for n in names] for names in (g.inputs, g.outputs, g.states)
    )
    return new


ops.table()  # registers the importers

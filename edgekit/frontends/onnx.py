"""ONNX models -> Graph.  The importers of single operators live in edgekit/ops/<op>.py (`@onnx`).

Whatever depends on constants and shapes alone is evaluated here and never becomes an op.  Spatial
ops are wrapped in NCHW <-> NHWC transposes, which edgekit.passes.layout removes.
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
from edgekit.frontends.onnx_builder import Builder
from edgekit.ir import NUMPY, Array, Graph, QuantSpec, Tensor
from edgekit.ops.base import ONNX

Shapes = Mapping[str, Sequence[int]]

NEVER_FOLDED = {"DequantizeLinear", "RandomNormal", "RandomUniform", "Multinomial", "Bernoulli"}
CONTROL = {
    "Loop": "loops have no place in a fixed plan; unroll it before export",
    "Scan": "loops have no place in a fixed plan; unroll it before export",
    "If": "the condition is not known before the run; export one branch",
}
# what a damaged file makes of code that trusts it
DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    StopIteration,
    TypeError,
    ValueError,
)
DEFAULT_DOMAINS = {"", "ai.onnx", "com.microsoft"}


def load(source: str | Path | Any, shapes: Shapes | None = None) -> Graph:
    """Reads an .onnx file or a ModelProto.

    `shapes` fixes dynamic dimensions: input name -> whole shape.  ModelError: unreadable file,
    dynamic dimension without a value, unknown operators (all of them at once).
    """
    import onnx

    if isinstance(source, (str, Path)):
        path = Path(source)
        try:
            model = onnx.load(str(path))
        except FileNotFoundError:
            raise ModelError(
                "no such file, or its external data is missing", where=str(path)
            ) from None
        except Exception as e:
            raise ModelError(
                f"not a readable ONNX model ({type(e).__name__})", where=str(path)
            ) from None
        name = path.stem
        if not model.graph.node:
            raise ModelError("not an ONNX model: it holds no nodes", where=str(path))
    else:
        model, name = source, source.graph.name or "model"
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    try:
        return Importer(model, name, shapes or {}).run()
    except DAMAGE as e:
        raise ModelError(f"damaged model ({type(e).__name__}: {e})", where=name) from e


def _key(node: Any) -> str:
    """What importers register: the operator, of a user's domain with it (`mine.Squares`)."""
    return str(node.op_type if node.domain in DEFAULT_DOMAINS else f"{node.domain}.{node.op_type}")


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


class Importer(Builder):
    """The walk over one model."""

    def __init__(self, model: Any, name: str, shapes: Shapes) -> None:
        opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        super().__init__(name, opset)
        self.model = model
        self.shapes = shapes
        self.constants: dict[str, Array] = {}  # ONNX value -> what is known before the run
        self.names: dict[str, str] = {}  # ONNX value -> graph tensor
        self.unknown: dict[str, list[str]] = {}  # operator -> node names
        self.poisoned: set[str] = set()  # results of unknown operators

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
            try:
                self.constants[t.name] = numpy_helper.to_array(t)
            except DAMAGE as e:
                raise ModelError(f"initializer {t.name!r} cannot be read: {e}") from None
        for t in graph.sparse_initializer:
            raise ModelError(f"sparse initializer {t.values.name!r} is not supported")

    def _inputs(self, graph: Any) -> None:
        known = {v.name for v in graph.input if v.name not in self.constants}
        wrong = sorted(set(self.shapes) - known)
        if wrong:
            raise ModelError(
                f"no input is named {wrong[0]!r}", todo=f"inputs: {', '.join(sorted(known))}"
            )
        for v in graph.input:
            if v.name in known:
                tensor = self.graph.add_tensor(self._input_tensor(v))
                self.graph.inputs.append(tensor)
                self.names[v.name] = tensor

    def _input_tensor(self, v: Any) -> Tensor:
        from onnx import helper

        kind = v.type.tensor_type
        declared = [
            d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim
        ]
        shape = [*self.shapes.get(v.name, declared)]
        example = ",".join(str(d) if isinstance(d, int) else "N" for d in declared)
        todo = f"give its shape: --shape {v.name}={example}"
        text = "x".join(str(d) for d in declared)
        if len(shape) != len(declared) or any(
            isinstance(d, int) and d > 0 and int(s) != d
            for d, s in zip(declared, shape)
            if not isinstance(s, str)
        ):
            raise ModelError(
                f"input {v.name!r} is {text}, not {'x'.join(map(str, shape))}", todo=todo
            )
        open_dims = [str(d) for d in shape if isinstance(d, str) or d < 1]
        if open_dims:
            raise ModelError(
                f"input {v.name!r} ({text}) has no fixed size for {', '.join(open_dims)}", todo=todo
            )
        try:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
        except KeyError:
            raise ModelError(
                "its element type is not supported", where=f"input {v.name!r}"
            ) from None
        name = {np.dtype(n): k for k, n in NUMPY.items()}.get(dtype)
        if dtype in (np.float16, np.float64):
            name = "f32"
        if name is None:
            raise ModelError(f"element type {dtype} is not supported", where=f"input {v.name!r}")
        return Tensor(v.name, tuple(int(d) for d in shape), name)

    def _node(self, node: Any) -> None:
        self.node = node
        try:
            self._import(node)
        except EdgeKitError:
            raise
        except DAMAGE as e:
            what = f"{node.op_type} cannot be read ({type(e).__name__}: {e})"
            raise ModelError(what, where=self.node_name) from e

    def _import(self, node: Any) -> None:
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
        elif _key(node) not in ONNX:
            self._poison(node)
        else:
            self._call(node)

    def _poison(self, node: Any) -> None:
        """Notes an unknown operator and goes on, so that the error lists all of them."""
        if _key(node) not in ONNX and node.op_type not in ("Shape", "Size"):
            prefix = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
            self.unknown.setdefault(prefix + node.op_type, []).append(self.node_name)
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
            [
                helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), None)
                for k, v in feeds.items()
            ],
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
            raise ModelError(
                f"cannot evaluate {node.op_type} of constants: {e}", where=self.node_name
            ) from None
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
            if made.name in self.constants:
                self.constants[out] = self.constants[made.name]
            if made.name in self.names:
                self.names[out] = self.names[made.name]
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
        importer = ONNX[_key(node)]
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
            raise ModelError(
                f"output {len(results)} of {node.op_type} is not supported", where=self.node_name
            )
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
            f"{total} nodes of {len(self.unknown)} operators are not supported:\n  "
            + "\n  ".join(lines),
            where=self.graph.name,
        )

    def _outputs(self, graph: Any) -> None:
        """Gives the results their ONNX names; an input, constant or second name is copied
        (reshape).
        """
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
        (new if k == old else k): (dataclasses.replace(t, name=new) if k == old else t)
        for k, t in g.tensors.items()
    }
    swap = {old: new}
    g.ops = [
        op.with_(
            inputs=tuple(swap.get(i, i) for i in op.inputs),
            outputs=tuple(swap.get(o, o) for o in op.outputs),
        )
        for op in g.ops
    ]
    g.inputs, g.outputs, g.states = (
        [swap.get(n, n) for n in names] for names in (g.inputs, g.outputs, g.states)
    )
    return new


ops.table()  # registers the importers

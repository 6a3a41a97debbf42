"""Same elements, other shape.  The planner lets input and output share memory; then nothing is
copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, Tensor
from edgekit.ops.base import Field, OpDef, TensorType, need, onnx, sample_graph, tflite

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x = need(xs, 0, "input")
    to = tuple(int(d) for d in op.attrs["shape"])
    if int(np.prod(to, dtype=np.int64)) != x.size:
        raise ModelError(f"cannot reshape {x.shape} to {to}", where=op.name)
    return [(to, x.dtype)]


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    assert xs[0] is not None
    return [xs[0].reshape(g.tensors[op.outputs[0]].shape)]


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    yield "f32", sample_graph("reshape", {"x": Tensor("x", (2, 3, 4))}, {"shape": (4, 6)}), {"x": x}
    x8 = np.arange(24).astype(np.int8)
    yield (
        "i8",
        sample_graph("reshape", {"x": Tensor("x", (24,), "i8")}, {"shape": (1, 2, 12)}),
        {"x": x8},
    )


OP = OpDef(
    name="reshape",
    code=8,
    fields=(Field("shape", "u32", 8, None, "of the output; C reads the tensor's own", host=True),),
    shape=shape,
    reference=reference,
    samples=samples,
    exact=lambda op, g: True,
    inplace=(0,),
    int8=lambda op: "same",
)


@tflite("RESHAPE")
def tflite_reshape(imp: Any, x: str, shape: str = "", *, new_shape: Sequence[int] = ()) -> str:
    """One -1 stands for what is left; the operand goes before the option."""
    to = imp.ints(shape, "the new shape") if shape else [int(d) for d in new_shape]
    if -1 in to:
        to[to.index(-1)] = imp.tensor(x).size // max(1, -int(np.prod(to, dtype=np.int64)))
    return str(imp.reshaped(x, to, last=True))


@tflite("SQUEEZE")
def tflite_squeeze(imp: Any, x: str, *, squeeze_dims: Sequence[int] = ()) -> str:
    dims = imp.dims(x)
    drop = {d % len(dims) for d in squeeze_dims} or {i for i, d in enumerate(dims) if d == 1}
    return str(imp.reshaped(x, [d for i, d in enumerate(dims) if i not in drop], last=True))


@tflite("EXPAND_DIMS")
def tflite_expand_dims(imp: Any, x: str, axis: str) -> str:
    dims, at = list(imp.dims(x)), imp.ints(axis, "the axis")[0]
    dims.insert(at + len(dims) + 1 if at < 0 else at, 1)
    return str(imp.reshaped(x, dims, last=True))


@tflite("SHAPE")
def tflite_shape(imp: Any, x: str, *, out_type: int = 2) -> str:
    """A constant: every shape is known when a model is read."""
    return str(imp.const("shape", np.asarray(imp.dims(x), np.int64 if out_type == 4 else np.int32)))


@onnx("Reshape")
def import_reshape(
    imp: Importer, x: str, to: str = "", *, shape: Sequence[int] = (), allowzero: int = 0
) -> str:
    old = imp.shape(x)
    dims = imp.ints(to, "shape") if to else list(shape)
    if not allowzero:
        dims = [old[i] if d == 0 else d for i, d in enumerate(dims)]
    if -1 in dims:
        rest = int(np.prod([d for d in dims if d != -1], dtype=np.int64))
        dims[dims.index(-1)] = int(np.prod(old, dtype=np.int64)) // max(rest, 1)
    return imp.emit("reshape", [x], {"shape": tuple(dims)})


@onnx("Flatten")
def import_flatten(imp: Importer, x: str, *, axis: int = 1) -> str:
    s = imp.shape(x)
    axis = axis + len(s) if axis < 0 else axis
    rows = int(np.prod(s[:axis], dtype=np.int64))
    return imp.emit("reshape", [x], {"shape": (rows, int(np.prod(s[axis:], dtype=np.int64)))})


@onnx("Squeeze")
def import_squeeze(imp: Importer, x: str, which: str = "", *, axes: Sequence[int] = ()) -> str:
    s = imp.shape(x)
    picked = (
        imp.ints(which, "axes") if which else list(axes) or [i for i, d in enumerate(s) if d == 1]
    )
    drop = {a % len(s) for a in picked}
    return imp.emit("reshape", [x], {"shape": tuple(d for i, d in enumerate(s) if i not in drop)})


@onnx("Unsqueeze")
def import_unsqueeze(imp: Importer, x: str, which: str = "", *, axes: Sequence[int] = ()) -> str:
    picked = imp.ints(which, "axes") if which else list(axes)
    rank = imp.rank(x) + len(picked)
    new = {a % rank for a in picked}
    old = iter(imp.shape(x))
    return imp.emit(
        "reshape", [x], {"shape": tuple(1 if i in new else next(old) for i in range(rank))}
    )


@onnx("Identity", "Dropout")
def import_identity(
    imp: Importer,
    x: str,
    rate: str = "",
    training: str = "",
    *,
    ratio: float = 0.5,
    seed: int = 0,
    is_test: int = 1,
) -> str:
    """Dropout at inference passes its input on."""
    return x

"""A graph in a file: JSON for its structure, arrays for its constants, in one .npz, no pickles."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import DataError
from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor


def dumps(graph: Graph) -> bytes:
    """The graph's bytes; ValueError for lowered graphs (packed tensors)."""
    arrays: dict[str, Array] = {}

    def keep(a: Array) -> int:
        arrays[f"a{len(arrays)}"] = a
        return len(arrays) - 1

    tensors = []
    for t in graph.tensors.values():
        if t.variants:
            raise ValueError("a lowered graph is kept as a package")
        q = t.quant
        quant = None if q is None else [keep(q.scale), keep(q.zero), q.axis, q.bits, q.short]
        data = None if t.data is None else keep(t.data)
        tensors.append([t.name, list(t.shape), t.dtype, data, quant])
    ops = [[o.type, o.name, o.inputs, o.outputs, _plain(o.attrs)] for o in graph.ops]
    facts = {
        "name": graph.name, "tensors": tensors, "ops": ops, "inputs": graph.inputs,
        "outputs": graph.outputs, "states": graph.states,
    }  # fmt: skip
    out = io.BytesIO()
    np.savez(out, graph=np.array(json.dumps(facts)), **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def load(path: Path) -> Graph:
    """The graph of a file that `dumps` made; DataError where it is none."""
    try:
        with np.load(path, allow_pickle=False) as z:
            arrays = {k: z[k] for k in z.files}
        return _graph(json.loads(str(arrays["graph"])), arrays)
    except Exception as e:  # numpy, zipfile and what a damaged text leads to have many errors
        why = str(e) or type(e).__name__
        raise DataError(f"cannot be read as a graph: {why}", where=str(path)) from None


def _graph(facts: dict[str, Any], arrays: dict[str, Array]) -> Graph:
    g = Graph(facts["name"], states=facts["states"])
    for name, shape, dtype, data, quant in facts["tensors"]:
        spec = None
        if quant is not None:
            scale, zero, axis, bits, *short = quant
            spec = QuantSpec(arrays[f"a{scale}"], arrays[f"a{zero}"], axis, bits, short=any(short))
        value = None if data is None else arrays[f"a{data}"]
        g.add_tensor(Tensor(name, tuple(shape), dtype, value, spec))
    for kind, name, inputs, outputs, attrs in facts["ops"]:
        restored = {k: _restored(v) for k, v in attrs.items()}
        g.ops.append(Op(kind, name, tuple(inputs), tuple(outputs), restored))
    g.inputs, g.outputs = facts["inputs"], facts["outputs"]
    g.check()
    return g


def _plain(value: Any) -> Any:
    """JSON has no infinities and no numpy numbers."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and math.isinf(value):
        return {"float": "inf" if value > 0 else "-inf"}
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return float(value["float"])
    if isinstance(value, list):
        return tuple(_restored(v) for v in value)
    return value

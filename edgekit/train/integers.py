"""Evaluation of a net in training: the integers that its simulation stands for.

Activations are int8 and every op is the reference of its integer form, on the weights, batch norms
and steps as they are now: what the runtime computes after the export, bit for bit, without it.
The differentiable form (`net.Net.values`) differs from this by what floats cannot say: biases are
whole here, sums of residuals are rounded half up, and a tie is a tie.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgekit import ops, qmath
from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, QuantSpec
from edgekit.ops.lut import table_of
from edgekit.ops.short import shorter
from edgekit.train.net import Net


def run(net: Net, x: dict[str, Array]) -> dict[str, Array]:
    """Every activation by name: int8, or float32 where nothing is rounded.

    x: input name -> (1, ...) float32.  ModelError without a simulation.
    """
    if net.simulation is None:
        raise ModelError("there are no integers without a simulation")
    g, specs = net.graph.copy(), net.activations()
    for name, spec in specs.items():
        g.tensors[name] = replace(g.tensors[name], dtype="i8", quant=spec)
    values: dict[str, Any] = {n: _rounded(a, specs.get(n)) for n, a in x.items()}
    for op in g.ops:
        if op.name in net.simulation.weights and _whole(op, specs):
            xs, op = _weighted(net, g, op, specs, values)
        else:
            xs = [values[n] if n in values else g.value(n) if n else None for n in op.inputs]
        values[op.outputs[0]] = _result(op, g, xs, specs)
    return values


def _whole(op: Op, specs: dict[str, QuantSpec]) -> bool:
    return op.inputs[0] in specs and op.outputs[0] in specs


def _rounded(a: Array, spec: QuantSpec | None) -> Array:
    return a if spec is None else qmath.quantize(a, float(spec.scale), int(spec.zero))


def _bounded(op: Op, spec: QuantSpec) -> Op:
    """The op with bounds that keep its outputs within the bits of their spec."""
    if spec.bits == 8 or "lo" not in op.attrs:
        return op
    half, s, z = 1 << spec.bits - 1, float(spec.scale), int(spec.zero)
    lo, hi = max(op.attrs["lo"], s * (-half - z)), min(op.attrs["hi"], s * (half - 1 - z))
    return op.with_(attrs=dict(op.attrs, lo=lo, hi=hi))


def _weighted(
    net: Net, g: Graph, op: Op, specs: dict[str, QuantSpec], values: dict[str, Any]
) -> tuple[list[Any], Op]:
    """Operands of an op with weights: integers, norms folded into scales and a whole bias, both
    rounded as the export rounds them."""
    w, spec, bias = net.integers(op)
    name = op.name + ".w"
    if name not in g.tensors:
        g.add_tensor(replace(g.tensors[op.inputs[1]], name=name, dtype="i8", data=w, quant=spec))
    unit = float(specs[op.inputs[0]].scale) * spec.scale.astype(np.float64)
    whole = np.clip(np.rint(bias.astype(np.float64) / unit), -(2**30), 2**30).astype(np.int32)
    op = shorter(op.with_(inputs=(op.inputs[0], name, g.const(op.name + ".b", whole))), g)
    return [values[op.inputs[0]], w, g.value(op.inputs[2])], op


def _constant(g: Graph, name: str, x: Any) -> Any:
    """An operand; a float constant as integers that cover its range, as the export makes them."""
    t = g.tensors.get(name)
    if t is None or t.data is None or t.dtype == "i8":
        return x if t is None or t.data is None else t.data
    spec = QuantSpec.covering(float(t.data.min()), float(t.data.max()))
    q = np.clip(np.rint(t.data / spec.scale) + spec.zero, -128, 127).astype(np.int8)
    g.tensors[name] = replace(t, dtype="i8", data=q, quant=spec)
    return q


def _result(op: Op, g: Graph, xs: list[Any], specs: dict[str, QuantSpec]) -> Array:
    out = specs.get(op.outputs[0])
    if out is not None and all(n in specs for n in op.inputs if n and g.value(n) is None):
        if op.type == "unary":
            a, first = op.attrs, specs[op.inputs[0]]
            table = table_of(a["kind"], a["alpha"], a["beta"], first, out)
            return np.asarray(table[xs[0].astype(np.int32) + 128])
        if ops.get(op.type).int8(op) in ("free", "same") and op.type != "layer_norm":
            xs = [_constant(g, n, x) for n, x in zip(op.inputs, xs, strict=False)]
        return np.asarray(ops.get(op.type).reference(_bounded(op, out), g, xs)[0])
    floats = [
        specs[n].dequantize(v) if n in specs else v for n, v in zip(op.inputs, xs, strict=False)
    ]
    plain = replace(g.tensors[op.outputs[0]], dtype="f32", quant=None)
    kept, g.tensors[op.outputs[0]] = g.tensors[op.outputs[0]], plain
    y = np.asarray(ops.get(op.type).reference(op, g, floats)[0])
    g.tensors[op.outputs[0]] = kept
    return _rounded(y, out)

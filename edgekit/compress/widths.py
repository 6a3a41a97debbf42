"""Integers of weights and the specs of activations: how wide, from which range, of which ops."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.compress.calibrate import Observed
from edgekit.errors import UsageError
from edgekit.ir import Array, Graph, Op, QuantSpec
from edgekit.ops.conv2d import WEIGHTED
from edgekit.ops.conv16 import averages
from edgekit.ops.map16 import repeats

F = np.float32
PACKABLE = ("conv2d", "linear")  # ops that read weights of 4 and 2 bits


@dataclass(frozen=True)
class Given:
    """Weights that were decided elsewhere: integers, their spec, and the float bias (n,) that goes
    with them (None: the op's own)."""

    weights: Array
    spec: QuantSpec
    bias: Array | None = None


ROOM = 1.25  # of int16 ranges over what calibration saw: a third of a bit, and nothing saturates


def wide_spec(lo: float, hi: float) -> QuantSpec:
    """Symmetric int16 for a range, with some room."""
    return QuantSpec.wide(max(-lo, hi, 2.0**-20) * ROOM / 32767)


def wide_specs(
    graph: Graph, seen: dict[str, Observed], patterns: Sequence[str] = ("*",)
) -> dict[str, QuantSpec]:
    """int16 specs for what the ops of these names read and write.  For `quantize(ranged=...)`."""
    named = excluded(graph, patterns)
    ends = {n for op in graph.ops if op.name in named for n in (*op.inputs, *op.outputs)}
    return {n: wide_spec(seen[n].true_lo, seen[n].true_hi) for n in sorted(ends & seen.keys())}


def least_scale(bias: Array, sx: float) -> Array:
    """Weight scales (n,) below which a bias would not fit 30 bits in units of sx * scale."""
    return np.asarray(np.abs(bias) / (sx * (2.0**30 - 1)), np.float64)


def narrow_specs(
    graph: Graph, seen: dict[str, Observed], ops_of: Sequence[str], bits: int
) -> dict[str, QuantSpec]:
    """Activation specs of fewer bits for what the named ops read, from ranges observed at
    2^bits - 1 levels; the graph's inputs keep 8 bits.  For `quantize(ranged=...)`."""
    named = set(ops_of)
    read = {op.inputs[0] for op in graph.ops if op.name in named} - set(graph.inputs)
    passed = {o for op in graph.ops if op.type == "transpose" for o in op.outputs}  # of an input
    return {
        n: QuantSpec.covering(seen[n].lo, seen[n].hi, bits)
        for n in sorted(read - passed)
        if n in seen
    }


def narrowed(attrs: dict[str, Any], spec: QuantSpec) -> dict[str, Any]:
    """Attributes whose bounds keep an int8 output within fewer bits (ops without bounds
    hand their input's values on)."""
    if "lo" not in attrs:
        return attrs
    half, scale, zero = 1 << spec.bits - 1, float(spec.scale), int(spec.zero)
    lo, hi = scale * (-half - zero), scale * (half - 1 - zero)
    return dict(attrs, lo=max(attrs["lo"], lo), hi=min(attrs["hi"], hi))


def quantize_weights(
    w: Array, axis: int, bits: int = 8, least: Array | None = None
) -> tuple[Array, QuantSpec]:
    """Symmetric integers of 8, 4 or 2 bits with one scale per index of `axis`.

    8 bits: [-127, 127] over the whole range, scales of at least `least`.  Fewer: [-8, 7] or [-2, 1]
    and the scale of least squared error.
    """
    other = tuple(i for i in range(w.ndim) if i != axis)
    top = np.max(np.abs(w), axis=other)
    if bits == 8:
        scale = np.where(top > 0, top / 127, 1.0)
        scale = (scale if least is None else np.maximum(scale, least * (1 + 1e-6))).astype(F)
        spec = QuantSpec.per_axis(scale, axis)
        s, _ = spec.broadcast(w.ndim)
        return np.clip(np.rint(w / s), -127, 127).astype(np.int8), spec
    rows = np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1).astype(np.float64)
    scale = _least_error(rows, np.where(top > 0, top, 1.0), bits)
    spec = QuantSpec.per_axis(scale, axis, bits=bits)
    s, _ = spec.broadcast(w.ndim)
    half = 1 << bits - 1
    return np.clip(np.rint(w / s), -half, half - 1).astype(np.int8), spec


def _least_error(rows: Array, top: Array, bits: int) -> Array:
    """Scale (n,) per row of (n, k) with the least squared error of rounding to `bits` bits."""
    half = 1 << bits - 1
    best = np.full(len(rows), np.inf)
    scale = np.ones(len(rows))
    for share in np.linspace(0.3, 1.1, 33):
        s = (top * share / half)[:, None]
        q = np.clip(np.rint(rows / s), -half, half - 1)
        error = ((q * s - rows) ** 2).sum(1)
        better = error < best
        best, scale = np.where(better, error, best), np.where(better, s[:, 0], scale)
    return scale.astype(F)


def excluded(graph: Graph, patterns: Sequence[str]) -> set[str]:
    """Names of the ops that patterns match; UsageError names a pattern without any."""
    names = [op.name for op in graph.ops]
    out: set[str] = set()
    for p in patterns:
        hit = fnmatch.filter(names, p)
        if not hit:
            near = difflib.get_close_matches(p, names, 3)
            raise UsageError(
                f"exclude: {p!r} matches no op",
                todo=f"near: {', '.join(near)}" if near else "see `edgekit inspect`",
            )
        out.update(hit)
    return out


def has_int16(op: Op, graph: Graph) -> bool:
    """Whether an op has a form for int16 activations; others run in float between casts."""
    shapes = [graph.tensors[n].shape for n in op.inputs]
    if op.type == "binary":
        kinds = op.attrs["kind"] in ("add", "sub", "mul")
        return kinds and graph.tensors[op.outputs[0]].shape == shapes[0] and repeats(*shapes)
    if op.type in ("avg_pool2d", "reduce"):
        return averages(op, len(shapes[0]))
    moved = ("reshape", "transpose", "slice", "concat", "pad", "tile", "gather")
    return op.type in (*WEIGHTED, "unary", *moved)


def wide_least(op: Op, graph: Graph, specs: dict[str, QuantSpec]) -> Array | None:
    """`least` of quantize_weights for an op of int16 activations, whose units are small."""
    bias = graph.value(op.inputs[2]) if len(op.inputs) > 2 and op.inputs[2] else None
    spec = specs.get(op.inputs[0])
    ends = [specs[n].bits for n in (op.inputs[0], *op.outputs) if n in specs]
    if bias is None or spec is None or 16 not in ends:
        return None
    return least_scale(bias, float(spec.scale) * 0.9)  # corrections may make a bias larger


def kind_of(spec: QuantSpec) -> str:
    """Element type of activations."""
    return "i16" if spec.bits == 16 else "i8"

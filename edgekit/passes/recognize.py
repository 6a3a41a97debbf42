"""Recognizes functions that exporters spell out in elementwise steps, by their values.

Starting at an op, the cone of elementwise ops (and of means along the last axis) above it is
walked until a single tensor remains.  The cone is then evaluated at probe points and compared with
the functions EdgeKit has as one op. So every order of the same steps is found, and nothing is
replaced that does not compute the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgekit import ops
from edgekit.ir import Array, Graph, Op
from edgekit.ops.reduce import axes_of
from edgekit.ops.unary import function
from edgekit.passes.edit import Editor
from edgekit.passes.simplify import channel_vector

LIMIT = 16  # ops of a cone
PROBES = np.concatenate([np.linspace(-9, 9, 181), [1e-3, -1e-3, 0.0, -30.0, 30.0]]).astype(
    np.float32
)
POSITIVE = np.geomspace(1e-3, 1e3, 61).astype(np.float32)
WHOLE = ("silu", "hardswish", "gelu", "gelu_tanh", "mish", "softplus", "sigmoid")
TOLERANCE = 2e-6
EPS_RANGE = (1e-14, 1e-2)


def _elementwise(e: Editor, op: Op) -> bool:
    """A float unary, or a binary op whose operands have one shape or are scalars."""
    y = e.g.tensors[op.outputs[0]]
    if y.dtype != "f32" or op.type not in ("unary", "binary"):
        return False
    return all(e.shape(i) == y.shape or e.scalar(i) is not None for i in op.inputs)


def _row_mean(e: Editor, op: Op) -> bool:
    """A mean along the last axis that keeps it."""
    rank = len(e.shape(op.inputs[0]))
    return (
        op.type == "reduce"
        and op.attrs["kind"] == "mean"
        and bool(op.attrs["keepdims"])
        and axes_of(op) == (rank - 1,)
    )


def _normalizing(e: Editor, op: Op) -> bool:
    """What a normalization along the last axis is made of."""
    if e.g.tensors[op.outputs[0]].dtype != "f32":
        return False
    if op.type == "unary":
        return True
    if op.type == "binary":
        rank = len(e.shape(op.outputs[0]))
        same = [e.shape(i) for i in op.inputs if e.scalar(i) is None]
        return all(len(s) == rank and s[:-1] == same[0][:-1] for s in same)
    return _row_mean(e, op)


def _cones(e: Editor, sink: Op, means: bool) -> Iterator[tuple[str, list[Op]]]:
    """(x, ops) of every cone above `sink` with the single source x, smallest first."""
    member = _normalizing if means else _elementwise
    position = {key: i for i, key in enumerate(e.ops)}
    cone: dict[str, Op] = {}
    frontier = {sink.outputs[0]}
    while frontier and len(cone) < LIMIT:
        # the latest tensor first: everything that reads it is then inside
        name = max(frontier, key=lambda n: position.get(e.made.get(n, ""), -1))
        op = e.producer(name)
        if (
            op is None
            or not member(e, op)
            or (name != sink.outputs[0] and not _inside(e, name, cone))
        ):
            return
        cone[op.outputs[0]] = op
        frontier.discard(name)
        frontier.update(i for i in op.inputs if e.scalar(i) is None)
        if len(frontier) == 1:
            yield next(iter(frontier)), list(reversed(cone.values()))


def _inside(e: Editor, name: str, cone: dict[str, Op]) -> bool:
    return name not in e.g.outputs and all(u.outputs[0] in cone for u in e.consumers(name))


def _values(e: Editor, x: str, cone: list[Op], probe: Array) -> Array:
    """The last op's output when x has the value `probe`."""
    values: dict[str, Array] = {x: probe}
    for op in cone:
        data = [_probed(e, i, values) for i in op.inputs]
        if op.type == "reduce":
            wide = data[0].astype(np.float64)
            result = np.asarray(wide.mean(axis=-1, keepdims=True), np.float32)
        else:
            result = ops.get(op.type).reference(op, e.g, data)[0]
        values[op.outputs[0]] = result
    return values[cone[-1].outputs[0]]


def _probed(e: Editor, tensor: str, values: dict[str, Array]) -> Array:
    """A tensor's value during a probe; constants of one element as scalars, of any rank."""
    if tensor in values:
        return values[tensor]
    data = e.value(tensor)
    assert data is not None
    return data.reshape(()) if data.size == 1 else data


def _close(a: Array, b: Array) -> bool:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return bool(
        np.all(np.isfinite(a)) and np.all(np.abs(a - b) <= TOLERANCE * np.maximum(1, np.abs(b)))
    )


def _match(e: Editor, x: str, cone: list[Op]) -> tuple[str, float, float] | None:
    """(kind, alpha, beta) of the unary function a cone computes."""
    with np.errstate(all="ignore"):
        y = _values(e, x, cone, PROBES)
        for kind in WHOLE:
            if _close(y, function(kind, PROBES, 0.0, 0.0)):
                return kind, 0.0, 0.0
        if _close(y, function("hardsigmoid", PROBES, 1 / 6, 0.5)):
            return "hardsigmoid", 1 / 6, 0.5
        slope = -float(y[np.argmin(np.abs(PROBES + 1))])
        if 0 < slope < 1 and _close(y, function("leaky_relu", PROBES, slope, 0.0)):
            return "leaky_relu", slope, 0.0
        up = _values(e, x, cone, POSITIVE)
        if _close(up, function("rsqrt", POSITIVE, 0.0, 0.0)) and not np.all(np.isfinite(y)):
            return "rsqrt", 0.0, 0.0
    return None


def activations(graph: Graph) -> Graph:
    """Sigmoid products, erf and tanh forms of GELU, hard swish and the like become one unary op."""
    e = Editor(graph)
    for sink in e.walk(reverse=True):
        if not _elementwise(e, sink):
            continue
        best: tuple[str, tuple[str, float, float]] | None = None
        for x, cone in _cones(e, sink, means=False):
            found = (
                _match(e, x, cone)
                if len(cone) > 1 and e.shape(x) == e.shape(sink.outputs[0])
                else None
            )
            best = (x, found) if found is not None else best
        if best is not None:
            x, (kind, alpha, beta) = best
            y = e.emit("unary", [x], {"kind": kind, "alpha": alpha, "beta": beta}, name=sink.name)
            e.replace(sink, y)
    return e.finish()


def _norm(x: Array, eps: float, rms: bool) -> Array:
    d = x.astype(np.float64)
    d = d if rms else d - d.mean(axis=-1, keepdims=True)
    return np.asarray(d / np.sqrt((d * d).mean(axis=-1, keepdims=True) + eps))


def _match_norm(e: Editor, x: str, cone: list[Op]) -> tuple[float, int] | None:
    """(eps, rms) of the normalization a cone computes."""
    rng = np.random.default_rng(0)
    n = e.shape(x)[-1]
    probe = (rng.normal(size=(4, n)) * [[1e-3], [0.1], [1], [30]] + [[0], [0.2], [-1], [3]]).astype(
        np.float32
    )
    with np.errstate(all="ignore"):
        y = _values(e, x, cone, probe)
        if y.shape != probe.shape:
            return None
        scalars = {abs(v) for op in cone for i in op.inputs if (v := e.scalar(i)) is not None}
        for eps in sorted(s for s in scalars if EPS_RANGE[0] <= s <= EPS_RANGE[1]):
            for rms in (0, 1):
                if np.all(np.abs(y - _norm(probe, eps, bool(rms))) <= 1e-3):
                    return eps, rms
    return None


def norms(graph: Graph) -> Graph:
    """Mean, difference, square, mean, root and quotient along the last axis become layer_norm."""
    e = Editor(graph)
    for sink in e.walk(reverse=True):
        if sink.type != "binary" or sink.attrs["kind"] not in ("div", "mul"):
            continue
        best: tuple[str, tuple[float, int]] | None = None
        for x, cone in _cones(e, sink, means=True):
            if not any(op.type == "reduce" for op in cone) or e.shape(x) != e.shape(
                sink.outputs[0]
            ):
                continue
            found = _match_norm(e, x, cone)
            best = (x, found) if found is not None else best
        if best is not None:
            x, (eps, rms) = best
            e.replace(sink, e.emit("layer_norm", [x], {"eps": eps, "rms": rms}, name=sink.name))
    return e.finish()


def fold_norm_affine(graph: Graph) -> Graph:
    """Vectors multiplied and added become gamma and beta of the layer_norm before."""
    e = Editor(graph)
    for op in e.walk():
        if op.type != "binary" or e.g.tensors[op.outputs[0]].dtype != "f32":
            continue
        source = e.producer(op.inputs[0], "layer_norm")
        bounds = np.asarray([op.attrs["lo"], op.attrs["hi"]])
        if source is None or not e.private(source) or np.any(np.isfinite(bounds)):
            continue
        shape, data = e.shape(source.outputs[0]), e.value(op.inputs[1])
        vector = None if data is None else channel_vector(data, len(shape), shape[-1])
        if vector is None:
            continue
        n, v = shape[-1], vector.astype(np.float32)
        gamma, beta = (*source.inputs[1:], "", "")[:2]
        kind = op.attrs["kind"]
        if kind == "mul" and not beta:
            old = e.value(gamma) if gamma else np.ones(n, np.float32)
            inputs = [] if old is None else [e.const(f"{source.name}.gamma", old * v)]
        elif kind in ("add", "sub"):
            old = e.value(beta) if beta else np.zeros(n, np.float32)
            shift = -v if kind == "sub" else v
            gamma = gamma or e.const(f"{source.name}.gamma", np.ones(n, np.float32))
            inputs = [] if old is None else [gamma, e.const(f"{source.name}.beta", old + shift)]
        else:
            continue
        if inputs:
            e.change(source, inputs=[source.inputs[0], *inputs])
            e.replace(op, source.outputs[0])
    return e.finish()

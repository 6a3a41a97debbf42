"""(x - mean) / sqrt(variance + eps) * gamma + beta over the last axis; `rms` subtracts no mean.

gamma and beta (n,) are float32 and optional.  int8, exact, with d = x - zero x, S = sum d,
Q = sum d^2 (int64), G = float32(gamma / sy), B = float32(beta / sy):

    var = float32(n * Q - S^2) / n / n          rms: float32(Q) / n
    r = 1 / sqrt(var + eps / sx^2) / n          rms: no last division
    y = float32(d * n - S) * r * G + B          rms: float32(d) * r * G + B

each step one float32 operation; then clamp, half to even, add zero y.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit import qmath
from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor
from edgekit.layout import Target
from edgekit.ops.base import (
    Field,
    OpDef,
    TensorType,
    need,
    onnx,
    sample_array,
    sample_graph,
    scale_zero,
)
from edgekit.ops.reduce import mask

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer

F = np.float32
N_MAX = 1 << 20  # int8


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x = need(xs, 0, "input")
    if not x.shape or (x.dtype == "i8" and x.shape[-1] > N_MAX):
        raise ModelError(f"layer norm of {x.shape}")
    for p in xs[1:]:
        if p is not None and (p.shape != x.shape[-1:] or p.dtype != "f32"):
            raise ModelError(f"layer norm of {x.shape} with a parameter {p.dtype}{p.shape}")
    return [(x.shape, x.dtype)]


def folded(op: Op, g: Graph) -> tuple[Array, Array, float]:
    """int8: gamma / sy (n,), beta / sy (n,), eps / sx^2."""
    (sx, _), (sy, _) = scale_zero(g, op.inputs[0]), scale_zero(g, op.outputs[0])
    n = g.tensors[op.inputs[0]].shape[-1]
    names = (*op.inputs[1:], "", "")[:2]
    for name in names:
        if name and g.value(name) is None:
            raise ModelError("int8 layer norm wants constant gamma and beta", where=op.name)
    gamma, beta = (g.value(name) if name else None for name in names)
    scale = (np.ones(n) if gamma is None else gamma.astype(np.float64)) / sy
    shift = (np.zeros(n) if beta is None else beta.astype(np.float64)) / sy
    # never 0: a row of equal values must not divide by it
    return scale.astype(F), shift.astype(F), float(F(max(float(op.attrs["eps"]) / sx**2, 1e-12)))


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    x = xs[0]
    assert x is not None
    n, rms = x.shape[-1], op.attrs["rms"]
    if x.dtype == F:
        gamma, beta = (*xs[1:], None, None)[:2]
        wide = x.astype(np.float64)
        d = wide if rms else wide - wide.mean(axis=-1, keepdims=True)
        y = d / np.sqrt((d * d).mean(axis=-1, keepdims=True) + op.attrs["eps"])
        y = y if gamma is None else y * gamma
        return [(y if beta is None else y + beta).astype(F)]
    (_, zx), (_, zy) = scale_zero(g, op.inputs[0]), scale_zero(g, op.outputs[0])
    scale, shift, eps = folded(op, g)
    whole = x.astype(np.int64) - zx
    total, square = whole.sum(axis=-1, keepdims=True), (whole * whole).sum(axis=-1, keepdims=True)
    if rms:
        r = F(1) / np.sqrt(square.astype(F) / F(n) + F(eps))
        t = whole.astype(F) * r
    else:
        var = (n * square - total * total).astype(F) / F(n) / F(n)
        r = F(1) / np.sqrt(var + F(eps)) / F(n)
        t = (whole * n - total).astype(F) * r
    y = t * scale + shift
    y = np.minimum(np.maximum(y, F(qmath.QMIN - zy)), F(qmath.QMAX - zy))
    return [(np.rint(y).astype(np.int32) + zy).astype(np.int8)]


def lower(op: Op, g: Graph, target: Target) -> Op:
    if g.tensors[op.inputs[0]].dtype != "i8":
        return op
    scale, shift, eps = folded(op, g)
    names = (g.const(op.name + ".gamma", scale), g.const(op.name + ".beta", shift))
    return op.with_(inputs=(op.inputs[0], *names), attrs=dict(op.attrs, eps_q=eps))


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(21)
    shapes: tuple[tuple[int, ...], ...] = (
        (64,),
        (3, 17),
        (2, 5, 192),
        (1, 4, 1),
        (2, 3, 2, 33),
        (1, 2, 1, 3, 768),
    )
    for i, dims in enumerate(shapes):
        n = dims[-1]
        gamma = Tensor("g", (n,), "f32", rng.uniform(0.5, 2, n).astype(F))
        beta = Tensor("b", (n,), "f32", rng.normal(size=n).astype(F))
        params = ({}, {"g": gamma}, {"g": gamma, "b": beta})[i % 3]
        for rms in (0, 1):
            for full in ({}, {"g": gamma, "b": beta}) if i < 2 else (params,):
                attrs = {"rms": rms, "eps": 1e-5}
                g = sample_graph("layer_norm", {"x": Tensor("x", dims), **full}, attrs)
                label = f"{'rms' if rms else 'ln'}_{i}_{len(full)}"
                yield f"f32_{label}", g, {"x": sample_array(rng, dims, "f32") * F(3) + F(1)}
                t = Tensor("x", dims, "i8", None, QuantSpec.per_tensor(0.05, -7))
                g = sample_graph(
                    "layer_norm", {"x": t, **full}, attrs, out_quant=QuantSpec.per_tensor(0.03, 9)
                )
                x = sample_array(rng, dims, "i8")
                if dims[0] > 1:
                    x[0] = 5  # no variance at all
                yield f"i8_{label}", g, {"x": x}


OP = OpDef(
    name="layer_norm",
    code=21,
    fields=(
        Field("eps", "f32", 1, 1e-5, "added to the variance"),
        Field("rms", "u32", 1, 0, "1: no mean is subtracted"),
        Field("eps_q", "f32", 1, None, "int8: eps / sx^2", lowered=True),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    lower=lower,
    exact=lambda op, g: g.tensors[op.inputs[0]].dtype != "f32",
    inplace=(0,),
    int8=lambda op: "free",
)


def _normalized(
    imp: Importer, x: str, scale: str, bias: str, axis: int, eps: float, rms: int
) -> str:
    """Over everything from `axis` on; scale and bias that are no vectors of that size follow as
    mul and add.
    """
    shape, axis = imp.shape(x), axis % imp.rank(x)
    n = int(np.prod(shape[axis:], dtype=np.int64))
    rows = imp.reshape(x, (*shape[:axis], n), "rows")
    flat = all(not p or imp.shape(p) == shape[axis:] for p in (scale, bias))
    operands = [rows]
    if flat:
        for p in (scale, bias):
            data = imp.value(p) if p else None
            operands.append(
                imp.add_const(data.reshape(n))
                if data is not None
                else imp.reshape(p, (n,))
                if p
                else ""
            )
    while not operands[-1]:
        operands.pop()
    y = imp.reshape(imp.emit("layer_norm", operands, {"eps": eps, "rms": rms}), shape, "back")
    if not flat:
        y = imp.binary("mul", y, scale) if scale else y
        y = imp.binary("add", y, bias) if bias else y
    return y


@onnx("LayerNormalization")
def import_onnx(
    imp: Importer,
    x: str,
    scale: str,
    bias: str = "",
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> list[str]:
    """Mean and inverse deviation are computed apart where the model asks for them."""
    y = _normalized(imp, x, scale, bias, axis, epsilon, 0)
    if not any(imp.node.output[1:]):
        return [y]
    rank = imp.rank(x)
    attrs = {"kind": "mean", "axes": mask(range(axis % rank, rank), rank), "keepdims": 1}
    mean = imp.emit("reduce", [x], attrs, suffix="mean")
    d = imp.binary("sub", x, mean)
    var = imp.emit("reduce", [imp.binary("mul", d, d)], attrs, suffix="variance")
    shifted = imp.binary("add", var, imp.scalar(epsilon))
    return [y, mean, imp.emit("unary", [shifted], {"kind": "rsqrt"}, suffix="inverse")]


@onnx("RMSNormalization", "SimplifiedLayerNormalization")
def import_rms(
    imp: Importer, x: str, scale: str, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> str:
    return _normalized(imp, x, scale, "", axis, epsilon, 1)


@onnx("InstanceNormalization")
def import_instance(imp: Importer, x: str, scale: str, bias: str, *, epsilon: float = 1e-5) -> str:
    """Rows are the pixels of one channel of one image."""
    return _grouped(imp, x, scale, bias, imp.shape(x)[1], epsilon)


@onnx("GroupNormalization")
def import_group(
    imp: Importer,
    x: str,
    scale: str,
    bias: str,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> str:
    return _grouped(imp, x, scale, bias, num_groups, epsilon)


def _grouped(imp: Importer, x: str, scale: str, bias: str, groups: int, eps: float) -> str:
    """scale and bias have one value per channel, or (opset 18) per group."""
    n, c, *pixels = imp.shape(x)
    size = int(np.prod(pixels, dtype=np.int64)) * c // groups
    y = imp.emit("layer_norm", [imp.reshape(x, (n, groups, size), "groups")], {"eps": eps})
    y = imp.reshape(y, (n, c, *pixels), "back")
    for kind, p in (("mul", scale), ("add", bias)):
        v = imp.const(p, "scale and bias")
        v = np.repeat(v, c // v.size).reshape(c, *(1,) * len(pixels))
        y = imp.binary(kind, y, imp.add_const(v.astype(F), kind))
    return y

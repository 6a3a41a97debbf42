"""Elementwise functions of one float32 tensor.  An int8 one becomes a 256-entry table when it is quantized (lut)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from edgekit.ir import Array, Graph, Op, Tensor
from edgekit.ops.base import Field, OpDef, TensorType, need, sample_graph

KINDS = (
    "clamp", "sigmoid", "tanh", "exp", "log", "sqrt", "rsqrt", "neg", "abs", "erf", "gelu", "gelu_tanh", "silu",
    "hardswish", "hardsigmoid", "leaky_relu", "elu", "softplus", "reciprocal", "floor", "ceil", "round", "sin",
    "cos", "sign", "mish",
)  # fmt: skip
_erf = np.vectorize(math.erf, otypes=[np.float64])


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x = need(xs, 0, "input")
    return [(x.shape, x.dtype)]


def function(kind: str, x: Array, alpha: float, beta: float) -> Array:
    """float64 value of the function: the truth that the float32 kernels approximate and tables round."""
    x = x.astype(np.float64)
    with np.errstate(all="ignore"):
        sig = 1 / (1 + np.exp(-x))
        match kind:
            case "clamp": return np.clip(x, alpha, beta)
            case "sigmoid": return sig
            case "tanh": return np.tanh(x)
            case "exp": return np.exp(x)
            case "log": return np.log(x)
            case "sqrt": return np.sqrt(x)
            case "rsqrt": return 1 / np.sqrt(x)
            case "neg": return -x
            case "abs": return np.abs(x)
            case "erf": return np.asarray(_erf(x))
            case "gelu": return np.asarray(0.5 * x * (1 + _erf(x / math.sqrt(2))))
            case "gelu_tanh": return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
            case "silu": return x * sig
            case "hardswish": return x * np.clip(x + 3, 0, 6) / 6
            case "hardsigmoid": return np.clip(alpha * x + beta, 0, 1)
            case "leaky_relu": return np.where(x < 0, alpha * x, x)
            case "elu": return np.where(x < 0, alpha * np.expm1(x), x)
            case "softplus": return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)
            case "reciprocal": return 1 / x
            case "floor": return np.floor(x)
            case "ceil": return np.ceil(x)
            case "round": return np.rint(x)
            case "sin": return np.sin(x)
            case "cos": return np.cos(x)
            case "sign": return np.sign(x)
            case "mish": return x * np.tanh(np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0))
    raise AssertionError(kind)


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    assert xs[0] is not None
    return [function(op.attrs["kind"], xs[0], op.attrs["alpha"], op.attrs["beta"]).astype(np.float32)]


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(4)
    positive = {"log", "sqrt", "rsqrt", "reciprocal"}
    params = {"clamp": (-0.5, 1.25), "hardsigmoid": (1 / 6, 0.5), "leaky_relu": (0.1, 0.0), "elu": (1.0, 0.0)}
    for kind in KINDS:
        a, b = params.get(kind, (0.0, 0.0))
        x = rng.normal(scale=3, size=(3, 37)).astype(np.float32)
        x = np.abs(x) + np.float32(0.01) if kind in positive else x
        g = sample_graph("unary", {"x": Tensor("x", x.shape)}, {"kind": kind, "alpha": a, "beta": b})
        yield kind, g, {"x": x}


OP = OpDef(
    name="unary",
    code=4,
    fields=(
        Field("kind", "u32", 1, None, "", choices=KINDS),
        Field("alpha", "f32", 1, 0.0, "clamp: lower bound; hardsigmoid: slope; leaky_relu, elu: factor"),
        Field("beta", "f32", 1, 0.0, "clamp: upper bound; hardsigmoid: offset"),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    inplace=(0,),
)

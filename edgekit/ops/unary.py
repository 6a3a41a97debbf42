"""Elementwise functions of one float32 tensor.  An int8 one becomes a 256-entry table when it is
quantized (lut)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, Tensor
from edgekit.ops.base import Field, OpDef, TensorType, need, onnx, sample_graph, tflite

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer

KINDS = (
    "clamp",
    "sigmoid",
    "tanh",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "neg",
    "abs",
    "erf",
    "gelu",
    "gelu_tanh",
    "silu",
    "hardswish",
    "hardsigmoid",
    "leaky_relu",
    "elu",
    "softplus",
    "reciprocal",
    "floor",
    "ceil",
    "round",
    "sin",
    "cos",
    "sign",
    "mish",
)
_erf = np.vectorize(math.erf, otypes=[np.float64])


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x = need(xs, 0, "input")
    return [(x.shape, x.dtype)]


def function(kind: str, x: Array, alpha: float, beta: float) -> Array:
    """float64 value of the function: the truth that the float32 kernels approximate and tables
    round."""
    x = x.astype(np.float64)
    with np.errstate(all="ignore"):
        sig = 1 / (1 + np.exp(-x))
        match kind:
            case "clamp":
                return np.clip(x, alpha, beta)
            case "sigmoid":
                return sig
            case "tanh":
                return np.tanh(x)
            case "exp":
                return np.exp(x)
            case "log":
                return np.log(x)
            case "sqrt":
                return np.sqrt(x)
            case "rsqrt":
                return 1 / np.sqrt(x)
            case "neg":
                return -x
            case "abs":
                return np.abs(x)
            case "erf":
                return np.asarray(_erf(x))
            case "gelu":
                return np.asarray(0.5 * x * (1 + _erf(x / math.sqrt(2))))
            case "gelu_tanh":
                inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
                return np.asarray(0.5 * x * (1 + np.tanh(inner)))
            case "silu":
                return x * sig
            case "hardswish":
                return np.asarray(x * np.clip(x + 3, 0, 6) / 6)
            case "hardsigmoid":
                return np.clip(alpha * x + beta, 0, 1)
            case "leaky_relu":
                return np.where(x < 0, alpha * x, x)
            case "elu":
                return np.where(x < 0, alpha * np.expm1(x), x)
            case "softplus":
                return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)
            case "reciprocal":
                return 1 / x
            case "floor":
                return np.floor(x)
            case "ceil":
                return np.ceil(x)
            case "round":
                return np.rint(x)
            case "sin":
                return np.sin(x)
            case "cos":
                return np.cos(x)
            case "sign":
                return np.sign(x)
            case "mish":
                softplus = np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)
                return np.asarray(x * np.tanh(softplus))
    raise AssertionError(kind)


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    assert xs[0] is not None
    return [
        function(op.attrs["kind"], xs[0], op.attrs["alpha"], op.attrs["beta"]).astype(np.float32)
    ]


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(4)
    positive = {"log", "sqrt", "rsqrt", "reciprocal"}
    params = {
        "clamp": (-0.5, 1.25),
        "hardsigmoid": (1 / 6, 0.5),
        "leaky_relu": (0.1, 0.0),
        "elu": (1.0, 0.0),
    }
    for kind in KINDS:
        a, b = params.get(kind, (0.0, 0.0))
        x = rng.normal(scale=3, size=(3, 37)).astype(np.float32)
        x = np.abs(x) + np.float32(0.01) if kind in positive else x
        g = sample_graph(
            "unary", {"x": Tensor("x", x.shape)}, {"kind": kind, "alpha": a, "beta": b}
        )
        yield kind, g, {"x": x}


OP = OpDef(
    name="unary",
    code=4,
    fields=(
        Field("kind", "u32", 1, None, "", choices=KINDS),
        Field(
            "alpha",
            "f32",
            1,
            0.0,
            "clamp: lower bound; hardsigmoid: slope; leaky_relu, elu: factor",
        ),
        Field("beta", "f32", 1, 0.0, "clamp: upper bound; hardsigmoid: offset"),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    inplace=(0,),
    int8=lambda op: "lut",
)


def import_tflite(imp: Any, x: str, kind: str, alpha: float = 0.0, beta: float = 0.0) -> str:
    """float32: unary; int8: a table between the two quantizations."""
    t, quant = imp.tensor(x), imp.out()[1]
    if t.dtype != "i8":
        return str(imp.emit("unary", [x], {"kind": kind, "alpha": alpha, "beta": beta}))
    from edgekit.ops.lut import table_of

    if t.quant is None or quant is None:
        raise ModelError("int8 tensors need a scale")
    return str(
        imp.emit("lut", [x, imp.const("table", table_of(kind, alpha, beta, t.quant, quant))])
    )


_TFLITE = {
    "RELU": ("clamp", 0.0, math.inf),
    "RELU6": ("clamp", 0.0, 6.0),
    "RELU_N1_TO_1": ("clamp", -1.0, 1.0),
    "RELU_0_TO_1": ("clamp", 0.0, 1.0),
    "LOGISTIC": ("sigmoid",),
    "TANH": ("tanh",),
    "HARD_SWISH": ("hardswish",),
    "ELU": ("elu", 1.0),
    "EXP": ("exp",),
    "LOG": ("log",),
    "SQRT": ("sqrt",),
    "RSQRT": ("rsqrt",),
    "NEG": ("neg",),
    "ABS": ("abs",),
    "FLOOR": ("floor",),
    "CEIL": ("ceil",),
    "ROUND": ("round",),
    "SIN": ("sin",),
    "COS": ("cos",),
    "SIGN": ("sign",),
}


def _register(code: str, kind: str, alpha: float = 0.0, beta: float = 0.0) -> None:
    @tflite(code)
    def function_of(imp: Any, x: str) -> str:
        return import_tflite(imp, x, kind, alpha, beta)


for _code, _args in _TFLITE.items():
    _register(_code, *_args)  # type: ignore[arg-type]


@tflite("LEAKY_RELU")
def tflite_leaky_relu(imp: Any, x: str, *, alpha: float = 0.0) -> str:
    return import_tflite(imp, x, "leaky_relu", alpha)


@tflite("GELU")
def tflite_gelu(imp: Any, x: str, *, approximate: bool = False) -> str:
    return import_tflite(imp, x, "gelu_tanh" if approximate else "gelu")


@tflite("SQUARE")
def tflite_square(imp: Any, x: str) -> str:
    y = imp.as_float(x)
    return str(imp.from_float(imp.float_step("binary", [y, y], {"kind": "mul"})))


@onnx(
    "Sigmoid",
    "Tanh",
    "Exp",
    "Log",
    "Sqrt",
    "Neg",
    "Abs",
    "Erf",
    "Reciprocal",
    "Floor",
    "Ceil",
    "Round",
    "Sin",
    "Cos",
    "Sign",
    "Softplus",
    "Mish",
    "HardSwish",
)
def import_plain(imp: Importer, x: str) -> str:
    return imp.emit("unary", [x], {"kind": imp.node.op_type.lower()})


@onnx("Relu")
def import_relu(imp: Importer, x: str) -> str:
    return imp.emit("unary", [x], {"kind": "clamp", "alpha": 0.0, "beta": math.inf})


@onnx("Clip")
def import_clip(
    imp: Importer,
    x: str,
    lo: str = "",
    hi: str = "",
    *,
    min: float = -math.inf,
    max: float = math.inf,
) -> str:
    low = float(imp.const(lo, "minimum").item()) if lo else min
    high = float(imp.const(hi, "maximum").item()) if hi else max
    # ONNX: a minimum above the maximum gives the maximum
    low = low if low < high else high
    return imp.emit("unary", [x], {"kind": "clamp", "alpha": low, "beta": high})


@onnx("LeakyRelu")
def import_leaky_relu(imp: Importer, x: str, *, alpha: float = 0.01) -> str:
    return imp.emit("unary", [x], {"kind": "leaky_relu", "alpha": alpha})


@onnx("Elu")
def import_elu(imp: Importer, x: str, *, alpha: float = 1.0) -> str:
    return imp.emit("unary", [x], {"kind": "elu", "alpha": alpha})


@onnx("HardSigmoid")
def import_hardsigmoid(imp: Importer, x: str, *, alpha: float = 0.2, beta: float = 0.5) -> str:
    return imp.emit("unary", [x], {"kind": "hardsigmoid", "alpha": alpha, "beta": beta})


@onnx("Gelu", "FastGelu", "BiasGelu")
def import_gelu(imp: Importer, x: str, bias: str = "", *, approximate: str = "none") -> str:
    if bias:
        x = imp.binary("add", x, bias)
    tanh = approximate == "tanh" or imp.node.op_type == "FastGelu"
    return imp.emit("unary", [x], {"kind": "gelu_tanh" if tanh else "gelu"})


@onnx("Swish", "QuickGelu")
def import_swish(imp: Importer, x: str, *, alpha: float | None = None) -> str:
    if alpha is None:
        alpha = 1.702 if imp.node.op_type == "QuickGelu" else 1.0
    if alpha == 1.0:
        return imp.emit("unary", [x], {"kind": "silu"})
    scaled = imp.binary("mul", x, imp.scalar(alpha))
    return imp.binary("mul", x, imp.emit("unary", [scaled], {"kind": "sigmoid"}, suffix="sigmoid"))

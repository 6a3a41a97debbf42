"""Bits do not depend on the number of threads: ops large enough to be shared, in odd parts."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from edgekit_runtime import Session
from edgekit_runtime._native import cpu_isas

from edgekit.ir import Array, Graph, QuantSpec, Tensor
from edgekit.layout import Target
from edgekit.ops.base import sample_array, sample_graph
from edgekit.pipeline import package_graph

ISAS = cpu_isas()
Shape = tuple[int, ...]
Case = tuple[str, Graph, dict[str, Array]]
PAD = {"pad": (1, 1, 1, 1)}
WEIGHTED: tuple[tuple[str, Shape, Shape, dict[str, Any]], ...] = (
    ("conv2d", (1, 7, 7, 96), (200, 1, 1, 96), {}),  # few rows: shared by outputs
    ("conv2d", (1, 7, 7, 90), (136, 1, 1, 90), {}),  # the last row's inputs end with the tensor
    ("conv2d", (1, 14, 14, 64), (72, 1, 1, 64), {}),
    ("conv2d", (2, 7, 7, 32), (72, 3, 3, 32), PAD),
    ("conv2d", (1, 27, 25, 3), (40, 3, 3, 3), PAD),
    ("conv2d", (1, 13, 13, 48), (96, 3, 3, 24), {"groups": 2, "stride": (2, 1)}),
    ("linear", (1, 700), (900, 700), {}),
    ("linear", (9, 301), (333, 301), {}),
    ("depthwise_conv2d", (1, 21, 20, 48), (3, 3, 48), PAD),
    ("depthwise_conv2d", (1, 23, 20, 36), (5, 5, 36), {"pad": (2, 2, 2, 2), "stride": (2, 2)}),
)
BINARY: tuple[tuple[str, Shape, Shape], ...] = (
    ("add", (1, 25, 25, 47), (1, 25, 25, 47)),
    ("mul", (1, 25, 25, 47), (1, 25, 25, 47)),
    ("mul", (1, 23, 23, 40), (1, 1, 1, 40)),
    ("add", (3, 50, 1, 90), (1, 50, 7, 1)),
)


def data(name: str, shape: Shape, dtype: str) -> Tensor:
    quant = QuantSpec.per_tensor(0.05, 3) if dtype == "i8" else None
    return Tensor(name, shape, dtype, None, quant)


def weights(rng: Any, op: str, shape: Shape, dtype: str, bits: int = 8) -> dict[str, Tensor]:
    """Weights and biases; ``dtype`` "dynamic": int8 weights for float activations."""
    axis = 2 if op == "depthwise_conv2d" else 0
    n = shape[axis]
    b = Tensor("b", (n,), "f32", rng.normal(size=n).astype(np.float32))
    if dtype == "f32":
        return {"w": Tensor("w", shape, "f32", rng.normal(size=shape).astype(np.float32)), "b": b}
    top = 1 << bits - 1
    values = rng.integers(1 - top, top, shape).astype(np.int8)
    spec = QuantSpec.per_axis(rng.uniform(0.001, 0.02, n), axis, bits=bits)
    if dtype == "i8":
        b = Tensor("b", (n,), "i32", rng.integers(-3000, 3000, n).astype(np.int32))
    return {"w": Tensor("w", shape, "i8", values, spec), "b": b}


def cases(dtype: str) -> Iterator[Case]:
    rng = np.random.default_rng(4)
    out = QuantSpec.per_tensor(0.1, -4) if dtype == "i8" else None
    for op, x, w, attrs in WEIGHTED:
        tensors = {"x": data("x", x, dtype), **weights(rng, op, w, dtype)}
        g = sample_graph(op, tensors, attrs, out_quant=out)
        yield f"{op} {dtype} {x} {w}", g, {"x": sample_array(rng, x, dtype)}
    for kind, a, b in BINARY:
        operands = {"a": data("a", a, dtype), "b": data("b", b, dtype)}
        g = sample_graph("binary", operands, {"kind": kind}, out_quant=out)
        inputs = {k: sample_array(rng, t.shape, dtype) for k, t in operands.items()}
        yield f"{kind} {dtype} {a} {b}", g, inputs
    for shape, perm in (((1, 3, 99, 101), (0, 2, 3, 1)), ((5, 60, 7, 40), (2, 0, 3, 1))):
        x = data("x", shape, dtype)
        g = sample_graph("transpose", {"x": x}, {"perm": perm}, out_quant=x.quant)
        yield f"transpose {dtype} {shape}", g, {"x": sample_array(rng, shape, dtype)}
    parts = {"a": data("a", (1, 40, 41, 60), dtype), "b": data("b", (1, 40, 41, 7), dtype)}
    g = sample_graph("concat", parts, {"axis": 3}, out_quant=parts["a"].quant)
    yield f"concat {dtype}", g, {k: sample_array(rng, t.shape, dtype) for k, t in parts.items()}


def other_cases() -> Iterator[Case]:
    """Weights of 4 bits, float rows by int8 weights, elementwise ops of one operand."""
    rng = np.random.default_rng(5)
    for dtype, bits, shape in (
        ("i8", 4, (9, 300)),
        ("dynamic", 8, (1, 701)),
        ("dynamic", 4, (9, 300)),
    ):
        kind = "i8" if dtype == "i8" else "f32"
        tensors = {
            "x": data("x", shape, kind),
            **weights(rng, "linear", (310, shape[1]), dtype, bits),
        }
        out = QuantSpec.per_tensor(0.1, -4) if dtype == "i8" else None
        g = sample_graph("linear", tensors, {}, out_quant=out)
        yield f"linear {dtype} {bits}", g, {"x": sample_array(rng, shape, kind)}
    x = (1, 50, 50, 37)
    inputs = {t: {"x": sample_array(rng, x, t)} for t in ("f32", "i8")}
    spec = QuantSpec.per_tensor(0.05, 3)
    table = Tensor("t", (256,), "i8", rng.integers(-128, 128, 256).astype(np.int8))
    for op, dtype, attrs, to, quant in (
        ("cast", "f32", {"to": "i8"}, "i8", spec),
        ("cast", "i8", {"to": "f32"}, "f32", None),
        ("cast", "i8", {"to": "i8"}, "i8", QuantSpec.per_tensor(0.07, -9)),
        ("unary", "f32", {"kind": "tanh"}, "f32", None),
        ("lut", "i8", {}, "i8", spec),
    ):
        operands = {"x": data("x", x, dtype)} | ({"t": table} if op == "lut" else {})
        g = sample_graph(op, operands, attrs, out_quant=quant, dtype=to)
        yield f"{op} {attrs}", g, inputs[dtype]


@functools.cache
def packages() -> list[tuple[str, dict[str, Array], bytes]]:
    target = Target(tuple(ISAS))
    every = (*cases("i8"), *cases("f32"), *other_cases())
    return [(label, inputs, package_graph(g, target)) for label, g, inputs in every]


@pytest.mark.parametrize(
    ("threads", "isa"), [(3, []), *((threads, ISAS) for threads in (2, 3, 8, 50))]
)
def test_bits_do_not_depend_on_threads(threads: int, isa: list[str]) -> None:
    """Also with more threads than there are rows or outputs to share, and in the next run."""
    wrong = []
    for label, inputs, package in packages():
        with Session(package, isa=isa) as one:
            want = one.run(inputs)
        with Session(package, isa=isa, threads=threads) as many:
            for _ in range(3):
                got = many.run(inputs)
                wrong += [label for k in want if want[k].tobytes() != got[k].tobytes()]
    assert not wrong

"""Weights of 4 and 2 bits: the packed form, the same integers on numpy and natively, sizes, hostile
bytes."""

from __future__ import annotations

import struct
from pathlib import Path

import fuzz
import numpy as np
import pytest
from edgekit_runtime import EdgeKitRuntimeError, Session
from edgekit_runtime._native import cpu_isas
from package_cases import conv_net, repaired

from edgekit import contents, evaluate, package, pipeline
from edgekit.compress import calibrate, quantize, widths
from edgekit.errors import ToolchainError, UsageError
from edgekit.ir import Array, Graph, Tensor
from edgekit.layout import Layout, Target, pack_bits, pack_gemm

F = np.float32
CONV, LINEAR = "conv", "logits"


def quantized(bits: dict[str, int]) -> Graph:
    """`conv_net` in int8 with some weights in fewer bits."""
    g = conv_net()
    x = np.random.default_rng(1).normal(size=(8, 1, 6, 6, 3)).astype(F)
    seen = calibrate.observe(g, lambda i: evaluate.run(g, i) | i, lambda: ({"x": a} for a in x))
    return quantize.quantize(g, seen, bits=bits)[0]


@pytest.mark.parametrize("bits", [4, 2])
def test_packing_keeps_every_value(bits: int) -> None:
    half = 1 << bits - 1
    w = np.random.default_rng(0).integers(-half, half, (3, 5, 4, 4)).astype(np.int8)
    packed = pack_bits(w, bits)
    assert packed.size == w.size * bits // 8
    planes = [(packed >> p * bits) & (2 * half - 1) for p in range(8 // bits)]
    back = np.concatenate(planes, axis=1).astype(np.int16) - half
    assert np.array_equal(back, w.reshape(3, -1))
    with pytest.raises(ValueError, match="do not fit"):
        pack_bits(np.full((1, 16), half, np.int8), bits)


def test_a_block_is_head_and_packed_weights() -> None:
    w = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    ones = np.ones(4)
    plain = pack_gemm(w, ones.astype(np.int32), ones.astype(F), Layout(4, 4))
    small = pack_gemm(w, ones.astype(np.int32), ones.astype(F), Layout(4, 4), 4)
    assert plain[:32] == small[:32] and len(plain) == 48 and len(small) == 40


@pytest.mark.parametrize("bits", [{CONV: 4}, {CONV: 2, LINEAR: 4}, {LINEAR: 2}])
@pytest.mark.parametrize("layouts", [(), tuple(cpu_isas()), ("neon", "i8mm"), ("dsp",), ("mve",)])
def test_the_same_integers_natively_and_in_numpy(
    bits: dict[str, int], layouts: tuple[str, ...]
) -> None:
    g = quantized(bits)
    data = pipeline.package_graph(g, Target(layouts), keep=True)
    x = np.random.default_rng(2).normal(size=(1, 6, 6, 3)).astype(F)
    want = evaluate.run(g, {"x": x})
    for isa in ([], cpu_isas()):
        with Session(data, isa=isa) as s:
            s.run({"x": x})
            for op in g.ops:
                for o in op.outputs:
                    assert np.array_equal(s.tensor(o), want[o]), (o, isa)


def test_packages_with_packed_bits_require_a_feature_and_others_do_not() -> None:
    def required(data: bytes) -> int:
        return int(struct.unpack_from("<I", data, 8)[0])

    plain = pipeline.package_graph(quantized({}), Target(("avx2",)))
    small = pipeline.package_graph(quantized({CONV: 4}), Target(("avx2",)))
    assert required(plain) == 0 and required(small) == package.FEATURE_PACKED_BITS
    unknown = bytearray(small)
    struct.pack_into("<I", unknown, 8, required(small) | 1 << 9)
    with pytest.raises(EdgeKitRuntimeError):
        Session(repaired(unknown))
    variants = [
        v.dtype for t in contents.read(small).entries[0].graph.tensors.values() for v in t.variants
    ]
    assert "i4" in variants and "i8" in variants


def test_only_ops_that_can_read_them_take_fewer_bits() -> None:
    for bits in ({"dw": 4}, {CONV: 3}, {"nobody": 4}):
        with pytest.raises(UsageError, match="cannot have weights"):
            quantized(bits)


def test_least_error_scales_beat_the_range() -> None:
    w = np.random.default_rng(0).normal(size=(6, 200)).astype(F)
    q, spec = widths.quantize_weights(w, 0, 4)
    got = ((spec.dequantize(q) - w) ** 2).sum(1)
    s = np.abs(w).max(1, keepdims=True) / 7
    naive = ((np.clip(np.rint(w / s), -8, 7) * s - w) ** 2).sum(1)
    assert spec.bits == 4 and q.min() >= -8 and q.max() <= 7 and np.all(got < naive)


def test_whole_file_of_a_large_model_is_an_eighth() -> None:
    """A linear model of 400 KB: int4 package at most 14 % of the float one, int8 at most 26 %."""
    rng = np.random.default_rng(0)
    g = Graph("mlp")
    x: Array = rng.normal(size=(4, 1, 256)).astype(F)
    g.add_tensor(Tensor("x", (1, 256)))
    g.inputs = ["x"]
    at = "x"
    for i in range(2):
        w = g.const("w", (rng.normal(size=(256, 256)) / 16).astype(F))
        at = g.emit("linear", [at, w, g.const("b", np.zeros(256, F))], {"lo": 0.0}, name=f"l{i}")
    g.outputs = [at]
    seen = calibrate.observe(g, lambda i: evaluate.run(g, i) | i, lambda: ({"x": a} for a in x))
    size = {32: len(pipeline.package_graph(g, Target()))}
    for bits in (8, 4):
        q, _ = quantize.quantize(g, seen, bits={"l0": bits, "l1": bits})
        size[bits] = len(pipeline.package_graph(q, Target()))
    assert size[8] <= 0.26 * size[32] and size[4] <= 0.14 * size[32], size


@pytest.mark.slow
def test_mutants_of_a_packed_model_are_refused_or_run_safely(tmp_path: Path) -> None:
    data = pipeline.package_graph(quantized({CONV: 4, LINEAR: 2}), Target())
    try:
        result = fuzz.mutate(fuzz.Subject("bits", data, 1), 2000, seed=5, every=True, limit_s=240)
    except ToolchainError as e:
        pytest.skip(e.what)
    assert result.opened > 200 and result.ran > 0

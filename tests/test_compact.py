"""Constants in few bits: what is stored is what is unpacked; damage is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from edgekit_runtime import EdgeKitRuntimeError, Session, verify
from edgekit_runtime import memory as arena_size
from hypothesis import given, settings
from hypothesis import strategies as st
from package_cases import conv_net, repaired, table

from edgekit import boards, compact, contents, evaluate, explain, package, pipeline, qmath
from edgekit.embed.strip import strip
from edgekit.ir import QuantSpec, Tensor
from edgekit.layout import Layout, pack_dw, pack_gemm
from edgekit.ops.base import sample_graph
from edgekit.ops.short import shorten
from edgekit.ops.softmax import table as exponentials

PHONE = boards.load("phone_i8mm")


@pytest.fixture(scope="module")
def built() -> pipeline.Built:
    data = np.random.default_rng(1).normal(size=(8, 6, 6, 3)).astype(np.float32)
    net = conv_net(channels=20)
    return pipeline.build(net, precision="int8", calibration={"x": data}, board=PHONE)


def constants(seed: int, n: int, lowest: float) -> tuple[np.ndarray, np.ndarray]:
    """Folded biases and scales of n outputs; scales from 2^lowest on."""
    rng = np.random.default_rng(seed)
    scale = 2.0 ** rng.uniform(lowest, -2, n)
    bias = rng.uniform(-400, 400, n) / scale
    scale = np.maximum(scale, qmath.SCALE_MIN).astype(np.float32)
    return np.clip(bias, -(2.0**30), 2.0**30).astype(np.int64), scale


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 40), st.floats(-40, -3),
    st.sampled_from([(8, 8), (8, 4), (16, 1), (4, 4)]), st.sampled_from([0, 4, 8]),
)  # fmt: skip
def test_what_is_stored_is_what_is_unpacked(
    seed: int, n: int, k: int, lowest: float, form: tuple[int, int], bits: int
) -> None:
    bias, scale = constants(seed, n, lowest)
    scale = compact.short_scale(scale)
    bias = compact.short_bias(bias, scale)
    assert compact.is_short(bias, scale)
    top = 1 << bits - 1 if bits else 0
    rng = np.random.default_rng(seed)
    w = rng.integers(-top, top, (n, k)).astype(np.int8) if bits else None
    segment = compact.blocks(bias, scale, *form, w)
    size, room = compact.sizes(segment, 0)
    assert size == len(segment)
    got = compact.unpack(segment + bytes(compact.SLACK))[0][1]
    b32 = bias.astype(np.int32)
    if w is None:  # every output with one group of inputs, whose weights are left out
        want = (
            np.frombuffer(
                pack_gemm(np.zeros((n, 1), np.int8), b32, scale, Layout(form[0], 4)), np.uint8
            )
            .reshape(-1, form[0] * 12)[:, : form[0] * 8]
            .tobytes()
        )
    elif form[1] == 1:
        want = pack_dw(w.T, b32, scale, form[0])
    else:
        want = pack_gemm(w, b32, scale, Layout(*form))
    assert got == want + bytes(room - len(want))
    assert len(segment) <= 16 + n * 6 + n * (k + form[1])


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-38, -3))
def test_rounding_moves_no_output_by_more_than_a_part_of_a_step(seed: int, lowest: float) -> None:
    """A gain of at most 2^-9 and an offset of at most 1/64 of a step; rounding twice is once."""
    bias, scale = constants(seed, 50, lowest)
    short = compact.short_scale(scale)
    assert np.all(np.abs(short.astype(np.float64) / scale - 1) <= 2.0**-9)
    few = compact.short_bias(bias, short)
    fine = compact.shifts(short) < compact.MOST_SHIFT
    assert np.all(np.abs((few - bias) * short.astype(np.float64))[fine] <= 1 / 64)
    assert np.array_equal(compact.short_scale(short), short)
    assert np.array_equal(compact.short_bias(few, short), few)


@pytest.mark.parametrize("scale", [0.01, 0.11, 0.3, 2.0])
@pytest.mark.parametrize("n", [2, 10, 1000])
def test_tables_of_exponentials_are_two_numbers(scale: float, n: int) -> None:
    t = exponentials(scale, 1.0, n)
    segment = compact.powers(t)
    assert segment is not None and len(segment) == 24
    got = compact.unpack(segment + bytes(compact.SLACK))[0][1]
    assert np.array_equal(np.frombuffer(got, "<u4"), t)
    t[7] += 1
    assert compact.powers(t) is None


def test_a_compact_package_gives_the_bits_of_the_reference(built: pipeline.Built) -> None:
    kinds = {v.layout.encoding for t in built.lowered.tensors.values() for v in t.variants}
    assert kinds == {6, 7}  # apart, and whole blobs
    x = {"x": np.random.default_rng(2).normal(size=(1, 6, 6, 3)).astype(np.float32)}
    want = evaluate.run(built.graph, x)["p"]
    plain = pipeline.package_graph(built.graph, pipeline.target_of(boards.load("host")))
    for data in (built.data, plain):
        for threads in (1, 3):
            with Session(data, threads=threads) as s:
                assert np.array_equal(s.run(x)["p"], want)
    with Session(built.data) as s:
        assert s.selftest() == 1
    assert len(built.data) < len(plain)


@pytest.mark.parametrize("bits", [8, 4])
def test_threads_share_outputs_whose_constants_lie_apart(bits: int) -> None:
    """A part of the outputs begins at its own biases and scales too."""
    rng = np.random.default_rng(4)
    top = 1 << bits - 1
    w = rng.integers(-top, top, (900, 700)).astype(np.int8)
    spec = QuantSpec.per_axis(rng.uniform(0.001, 0.02, 900), 0, bits=bits)
    tensors = {
        "x": Tensor("x", (1, 700), "i8", None, QuantSpec.per_tensor(0.05, 11)),
        "w": Tensor("w", w.shape, "i8", w, spec),
        "b": Tensor("b", (900,), "i32", rng.integers(-30000, 30000, 900).astype(np.int32)),
    }
    g = sample_graph("linear", tensors, {}, out_quant=QuantSpec.per_tensor(2.0, -8), dtype="i8")
    g = shorten(g)
    data = pipeline.package_graph(g, pipeline.target_of(PHONE))
    x = {"x": rng.integers(-128, 128, (1, 700)).astype(np.int8)}
    want = evaluate.run(g, x)[g.outputs[0]]
    for threads in (1, 2, 3, 8):
        with Session(data, threads=threads) as s:
            assert np.array_equal(s.run(x)[g.outputs[0]], want)


def test_rounding_a_graph_twice_changes_nothing_more(built: pipeline.Built) -> None:
    again = shorten(built.graph)
    assert [op.inputs for op in again.ops] == [op.inputs for op in built.graph.ops]


def test_the_reader_gives_back_what_was_written(built: pipeline.Built) -> None:
    entry = contents.read(built.data).entries[0]
    for op, got in zip(built.lowered.ops, entry.graph.ops, strict=True):
        for a, b in zip(op.inputs, got.inputs, strict=True):
            want, have = built.lowered.tensors[a], entry.graph.tensors[b]
            assert (want.shape, want.variants) == (have.shape, have.variants)
            assert want.data is None or np.array_equal(want.data, have.data)


def test_explain_counts_what_is_unpacked(built: pipeline.Built) -> None:
    plain = pipeline.package_graph(built.graph, pipeline.target_of(boards.load("host"), ["avx2"]))
    found = explain.explain(built.data, contents.read(built.data), PHONE)
    room = struct.unpack_from("<I", built.data, 32)[0] * 16
    assert room > 0
    assert found.memory["session"] == arena_size(plain)["session"] + room
    assert found.unpacked == room
    assert sum(o.flash_bytes for o in found.ops) < len(built.data)


def test_boards_without_a_system_read_the_same_constants_in_place(built: pipeline.Built) -> None:
    """What is rounded for a phone is rounded for every target: one model, the same bits."""
    data = np.random.default_rng(1).normal(size=(8, 6, 6, 3)).astype(np.float32)
    for name in ("qemu_mps2_an386", "qemu_mps3_an547", "host"):
        made = pipeline.build(
            conv_net(channels=20), precision="int8", calibration={"x": data}, board=name
        )
        assert "UNPK" not in package.sections(made.data)
        assert not package.required(made.data) & package.FEATURE_UNPACKED
        for op, same in zip(made.graph.ops, built.graph.ops, strict=True):
            for a, b in zip(op.inputs[1:], same.inputs[1:], strict=True):
                assert np.array_equal(made.graph.value(a), built.graph.value(b))
                assert str(made.graph.tensors[a].quant) == str(built.graph.tensors[b].quant)


@pytest.fixture(scope="module")
def plain(built: pipeline.Built) -> bytes:
    """The package with its tables as they are, and constants to unpack."""
    parts = package.sections(built.data)
    data = package.reassemble(built.data, parts, tables=False)
    assert all(part is not None for part in package.stored(data).values())
    return data


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=600), st.integers(1, 400), st.integers(0, 3))
def test_texts_are_read_as_they_were_written(data: bytes, more: int, copies: int) -> None:
    whole = data + bytes(more) + data * copies + b"end"
    segment = compact.text(whole)
    size, room = compact.sizes(segment, 0)
    got = compact.unpack(segment + bytes(compact.SLACK))[0][1]
    assert size == len(segment) and got == whole + bytes(room - len(whole))
    if copies == 3 and len(data) > 100:
        assert len(segment) < len(whole) / 2


def test_a_text_is_read_the_same_by_the_runtime() -> None:
    """Long literals, long repeats, near and far ones: names of tensors are such a text."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), 90)) for _ in range(40)]
    g = conv_net()
    for i in range(120):
        x = g.outputs[0]
        name = f"{words[i % 40]}{i // 40}" if i % 3 else "z" * (i % 80 + 1) + str(i)
        g.outputs = [g.emit("unary", [x], {"kind": "abs"}, name=name)]
    data = pipeline.package_graph(g, pipeline.target_of(boards.load("host"), ["avx2"]))
    parts = package.sections(data)
    packed = dict(parts) | {"UNPK": bytes(compact.SLACK)}
    bits = package.required(data) | package.FEATURE_UNPACKED
    packed_data = data[:8] + struct.pack("<I", bits) + data[12:]
    small = package.reassemble(packed_data, packed)
    assert len(small) < len(data) and package.stored(small)["STRS"] is None
    with Session(data) as a, Session(small) as b:
        assert [t.name for t in a.outputs()] == [t.name for t in b.outputs()]
        assert [o.name for o in a.ops()] == [o.name for o in b.ops()]
        x = rng.normal(size=(1, 6, 6, 3)).astype(np.float32)
        one, two = a.run(x), b.run(x)
        assert all(np.array_equal(one[n], two[n]) for n in one)


def test_tables_are_packed_and_written_again(built: pipeline.Built) -> None:
    assert package.stored(built.data)["OPS "] is None
    assert list(package.sections(built.data)) == list(package.stored(built.data))
    assert package.reassemble(built.data, package.sections(built.data)) == built.data
    verify(built.data)
    short = strip(built.data)
    assert len(short) < len(built.data) and package.stored(short)["OPS "] is None
    with Session(built.data) as a, Session(short) as b:
        assert b.selftest() == a.selftest() == 1


def refused(data: bytes) -> None:
    with pytest.raises(EdgeKitRuntimeError):
        Session(repaired(bytearray(data)))


def test_sections_outside_what_is_unpacked_are_refused(built: pipeline.Built) -> None:
    room = struct.unpack_from("<I", built.data, 32)[0]
    for i, (kind, part) in enumerate(package.stored(built.data).items()):
        at = package.HEADER + package.RECORD * i
        (flags,) = struct.unpack_from("<I", built.data, at + 4)
        bad = bytearray(built.data)
        if part is None:  # not there, and elsewhere
            for place in (room, 0xFFFFFFFF, 0):
                struct.pack_into("<I", bad, at + 8, place)
                refused(bad)
        elif kind in ("UNPK", "DATA"):  # of itself, or where weights would not lie
            struct.pack_into("<I", bad, at + 4, flags | 2)
            refused(bad)
        elif kind == "META":  # the runtime reads none: only people do
            struct.pack_into("<I", bad, at + 4, flags | 2)
            struct.pack_into("<I", bad, at + 8, 0)
            with Session(repaired(bad)) as s:
                assert s.meta == {}


@pytest.mark.parametrize(
    "body",
    [b"", b"\x10", b"\xf0\xff", b"\x10a", b"\x10a\x81", b"\x10a\x02", b"\x10a\x00",
     b"\x1fa\x01\xff", b"\x1fa\x01\xff\xff\xff", b"\x20ab\x01extra", b"\x90abcdefghi"],
)  # fmt: skip
def test_broken_texts_are_refused(plain: bytes, body: bytes) -> None:
    """Tokens that end too soon, reach before the beginning or past the end."""
    parts = package.sections(plain)
    head = struct.pack(compact.HEAD, compact.TEXT, 0, 0, 0, 0, 0, 0, len(body), 0, 8)
    few = parts["UNPK"][: -compact.SLACK] + head + body + bytes(compact.SLACK)
    with pytest.raises(ValueError, match="text"):
        compact.unpack(few)
    bad = bytearray(plain)
    at = next(i for i in range(128, 1024, 32) if plain[i : i + 4] == b"UNPK")
    struct.pack_into("<I", bad, at + 8, len(bad) // 16)  # the section anew, at the end
    struct.pack_into("<Q", bad, at + 16, len(few))
    bad += few + bytes(-len(few) % 64)
    struct.pack_into("<Q", bad, 16, len(bad))
    struct.pack_into("<I", bad, 32, struct.unpack_from("<I", plain, 32)[0] + 1)
    refused(bad)


def test_broken_segments_are_refused(built: pipeline.Built) -> None:
    at, _, size = table(built.data, "UNPK")
    first = compact.sizes(built.data, at)[0]
    head = struct.calcsize(compact.HEAD)
    for field, fmt, values in (
        (0, "<B", (0, 4, 255)),  # kinds that are none
        (1, "<B", (0, 1, 3, 65, 255)),  # nr
        (2, "<B", (0, 65)),  # kr
        (3, "<B", (1, 2, 16, 255)),  # bits
        (4, "<B", (33, 255)),
        (5, "<B", (17, 255)),
        (8, "<H", (0, 1, 65535)),  # n: too much, or not enough, for what follows
    ):
        for value in values:
            for place in (at, at + first):
                bad = bytearray(built.data)
                struct.pack_into(fmt, bad, place + field, value)
                refused(bad)
    room = struct.unpack_from("<I", built.data, 32)[0]
    for value in (0, room - 1, room + 1, 1 << 20):
        bad = bytearray(built.data)
        struct.pack_into("<I", bad, 32, value)
        refused(bad)
    record = next(i for i in range(128, 1024, 32) if built.data[i : i + 4] == b"UNPK")
    for cut in (0, 8, head, first, size - compact.SLACK, size - 1):
        bad = bytearray(built.data)
        struct.pack_into("<Q", bad, record + 16, cut)
        refused(bad)
    bad = bytearray(built.data)
    bad[record : record + 8] = b"NONE" + bytes(4)  # not there
    refused(bad)


def test_places_outside_what_is_unpacked_are_refused(plain: bytes) -> None:
    at, stride, size = table(plain, "VARI")
    room = struct.unpack_from("<I", plain, 32)[0]
    for record in range(at, at + size, stride):
        bad = bytearray(plain)
        (encoding,) = struct.unpack_from("<I", bad, record + 12)
        if encoding & 0xFF == 6:
            struct.pack_into("<I", bad, record + 12, 6 | room << 8)
        else:
            struct.pack_into("<I", bad, record + 4, room)
        refused(bad)
    tens, stride, size = table(plain, "TENS")
    for record in range(tens, tens + size, stride):
        bad = bytearray(plain)
        if bad[record + 10] & 32:
            struct.pack_into("<I", bad, record, room)
        else:  # activations and packed weights are nothing that is unpacked
            bad[record + 10] |= 32
        refused(bad)


def test_a_reader_that_does_not_know_the_bit_refuses(built: pipeline.Built) -> None:
    """Without it the section is unknown and critical, or the places are out of range."""
    bad = bytearray(built.data)
    struct.pack_into("<I", bad, 8, package.required(built.data) & ~package.FEATURE_UNPACKED)
    refused(bad)

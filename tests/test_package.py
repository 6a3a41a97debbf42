"""Packages: readers read what the writer wrote, same input, same bytes; damage is found."""

from __future__ import annotations

import ctypes as c
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime import EdgeKitRuntimeError, Session, _native, verify
from package_cases import START, accumulator, conv_net, int8_net, repaired, table, two_entries

from edgekit import contents, evaluate, package, pipeline, plan
from edgekit.embed.strip import strip
from edgekit.errors import PackageError
from edgekit.ir import Graph, Tensor
from edgekit.layout import Target
from edgekit.passes.lower import lower

F = np.float32
FACTOR = np.array([[2.0, 4.0, 8.0, 16.0]], F)


@pytest.fixture(scope="module")
def small() -> bytes:
    return int8_net()


def arena_status(data: bytes, misalign: int = 0) -> int:
    """Code of ek_arena_size on the bytes, `misalign` bytes off a multiple of 64."""
    raw = np.zeros(len(data) + 128, np.uint8)
    at = (-raw.ctypes.data) % 64 + misalign
    raw[at : at + len(data)] = np.frombuffer(data, np.uint8)
    sizes = (c.c_size_t * 5)()
    return (
        int(_native.lib().ek_arena_size(raw.ctypes.data + at, len(data), 1, c.byref(sizes))) & 0xFF
    )


# ---- what is written is what is read ----


def test_contents_gives_back_the_graph_that_was_written() -> None:
    built = pipeline.build(conv_net())
    entry = contents.read(built.data).entries[0]
    assert [(o.type, o.name) for o in entry.graph.ops] == [
        (o.type, o.name) for o in built.lowered.ops
    ]
    for op, got in zip(built.lowered.ops, entry.graph.ops):
        for a, b in zip(op.inputs, got.inputs):
            want, have = built.lowered.tensors[a], entry.graph.tensors[b]
            assert (want.shape, want.dtype, want.variants) == (
                have.shape,
                have.dtype,
                have.variants,
            )
    assert entry.offsets["conv"] == built.plan.offsets["conv"]


def test_native_and_numpy_agree_on_the_written_graph() -> None:
    g = conv_net()
    x = np.random.default_rng(5).normal(size=(1, 6, 6, 3)).astype(F)
    with Session(pipeline.package_graph(g, Target())) as s:
        got = s.run(x)["p"]
    assert np.allclose(got, evaluate.run(g, {"x": x})["p"], atol=1e-6)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_the_same_input_gives_the_same_bytes_in_two_processes(kind: str) -> None:
    code = (
        f"import sys, hashlib; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import package_cases as p; from edgekit import pipeline\n"
        f"d = p.int8_net() if {kind!r} == 'int8' else pipeline.build(p.conv_net()).data\n"
        "print(hashlib.sha256(d).hexdigest(), len(d))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=_environment(seed),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1, runs


def _environment(hash_seed: str) -> dict[str, str]:
    return {**os.environ, "PYTHONHASHSEED": hash_seed}


def test_names_of_any_script_survive_and_long_ones_are_cut() -> None:
    g = Graph("names")
    long = "层/" * 60
    g.add_tensor(Tensor("größe:0/→", (1, 4)))
    g.inputs = ["größe:0/→"]
    g.outputs = [g.emit("unary", ["größe:0/→"], {"kind": "neg"}, name=long)]
    with Session(pipeline.package_graph(g, Target())) as s:
        assert s.inputs()[0].name == "größe:0/→"
        name = s.outputs()[0].name
        assert 0 < len(name.encode()) <= 95 and long.startswith(name)
        assert np.array_equal(s.run(np.ones((1, 4), F))[name], -np.ones((1, 4), F))


def test_rank_8_runs_and_rank_9_is_refused() -> None:
    for rank in (8, 9):
        g = Graph("rank")
        shape = tuple(range(1, 5)) + (1,) * (rank - 4)
        g.add_tensor(Tensor("x", shape))
        g.inputs = ["x"]
        g.outputs = [g.emit("unary", ["x"], {"kind": "abs"}, name="y")]
        if rank == 9:
            with pytest.raises(PackageError, match="rank 9"):
                pipeline.package_graph(g, Target())
            continue
        x = np.random.default_rng(0).normal(size=shape).astype(F)
        with Session(pipeline.package_graph(g, Target())) as s:
            assert s.inputs()[0].shape == shape
            assert np.array_equal(s.run(x)["y"], np.abs(x))


def test_scalars_have_rank_0() -> None:
    g = Graph("scalar")
    g.add_tensor(Tensor("x", ()))
    g.inputs = ["x"]
    g.outputs = [g.emit("unary", ["x"], {"kind": "neg"}, name="y")]
    with Session(pipeline.package_graph(g, Target())) as s:
        assert s.run(np.asarray(2.5, F))["y"] == -2.5


# ---- several entries, constants and state shared ----


def test_entries_share_constants_and_state() -> None:
    data = two_entries()
    assert package.sections(data)["DATA"] == FACTOR.tobytes()
    assert package.sections(data)["STAT"] == START.tobytes()
    x = np.array([[1.0, 2.0, 3.0, 4.0]], F)
    with Session(data) as s:
        assert s.entries == ["step", "peek"]
        assert s.memory["state"] == 16
        assert np.array_equal(s.run({}, "peek")["peek.y"], START * FACTOR), (
            "the initial value is not zero"
        )
        assert np.array_equal(s.run(x, "step")["step.y"], (START + x) * FACTOR)
        assert np.array_equal(s.run(x, 0)["step.y"], (START + 2 * x) * FACTOR)
        assert np.array_equal(s.run({}, 1)["peek.y"], (START + 2 * x) * FACTOR)
        s.reset()
        assert np.array_equal(s.run({}, "peek")["peek.y"], START * FACTOR)


def test_sessions_do_not_share_state() -> None:
    data, x = two_entries(), np.ones((1, 4), F)
    with Session(data) as a, Session(data) as b:
        a.run(x, "step")
        assert np.array_equal(b.run({}, "peek")["peek.y"], START * FACTOR)


def test_numpy_runs_states_the_same_way() -> None:
    step, peek = accumulator()
    x = np.ones((1, 4), F)
    states: dict[str, np.ndarray] = {}
    assert np.array_equal(evaluate.run(step, {"x": x}, states)["step.y"], (START + 1) * FACTOR)
    assert np.array_equal(evaluate.run(peek, {}, states)["peek.y"], (START + 1) * FACTOR)


def test_a_state_update_is_granted_and_an_overlap_without_grant_refused() -> None:
    data = bytearray(two_entries())
    at, _, _ = table(data, "OPS ")
    flags = struct.unpack_from("<H", data, at + 6)[0]
    assert flags >> 8 == 1, "input 0 of the first op is the state that its output overwrites"
    struct.pack_into("<H", data, at + 6, flags & 0xFF)
    with pytest.raises(EdgeKitRuntimeError, match="op"):
        Session(repaired(data))


def test_in_place_grants_are_written_for_ordinary_tensors() -> None:
    built = pipeline.build(conv_net())
    at, stride, size = table(built.data, "OPS ")
    plain = built.plan.offsets
    for i, op in enumerate(built.lowered.ops):
        grant = struct.unpack_from("<H", built.data, at + i * stride + 6)[0] >> 8
        for k, n in enumerate(op.inputs):
            assert bool(grant >> k & 1) == (n in plain and plain[n] == plain[op.outputs[0]])
    assert size == stride * len(built.lowered.ops)


def test_outputs_that_partly_cover_an_input_are_refused() -> None:
    data = bytearray(pipeline.build(conv_net()).data)
    (tens, _, _), (ops_at, _, _), (refs, _, _) = (table(data, k) for k in ("TENS", "OPS ", "REFS"))
    _, _, _, inputs, _, first, *_ = struct.unpack_from(package.OP, data, ops_at)
    x, y = (struct.unpack_from("<H", data, refs + 2 * (first + k))[0] for k in (0, inputs))
    place = struct.unpack_from("<I", data, tens + 12 * x)[0]
    for offset, grant in ((place, 0), (place + 1, 1)):
        bad = bytearray(data)
        struct.pack_into(
            "<I", bad, 36, struct.unpack_from("<I", bad, 36)[0] + 64
        )  # room in the arena
        struct.pack_into("<I", bad, tens + 12 * y, offset)
        struct.pack_into("<H", bad, ops_at + 6, grant << 8)
        with pytest.raises(EdgeKitRuntimeError, match="op"):
            Session(repaired(bad))


def placed_scratch() -> bytes:
    """A package for a board, whose first op has scratch in the arena."""
    data = pipeline.build(conv_net(), board="qemu_mps2_an386").data
    assert package.required(data) & package.FEATURE_PLACED_SCRATCH
    return data


def test_scratch_in_the_arena_needs_no_memory_of_its_own_but_for_threads() -> None:
    data = placed_scratch()
    x = np.random.default_rng(0).normal(
        size=contents.read(data).entries[0].graph.tensors["x"].shape
    )
    with Session(data) as one, Session(data, threads=2) as two:
        assert one.memory["scratch"] == 0 < two.memory["scratch"]
        assert one.memory["main"] == two.memory["main"]
        got, want = one.run(x.astype(F)), two.run(x.astype(F))
        assert all(np.array_equal(got[n], want[n]) for n in want)
        assert one.selftest() == 1


def test_scratch_over_an_operand_or_past_the_arena_is_refused() -> None:
    data = placed_scratch()
    at, _, _ = table(data, "OPS ")
    (grant,) = struct.unpack_from("<I", data, at + 16)
    (main,) = struct.unpack_from("<I", data, 36)
    entry = contents.read(data).entries[0]
    over = [
        entry.offsets[n] // 16
        for n in (entry.graph.ops[0].inputs[0], entry.graph.ops[0].outputs[0])
    ]
    for place in (*over, main):
        bad = bytearray(data)
        struct.pack_into("<I", bad, at + 16, grant & 0xFFFF | place << 16)
        with pytest.raises(EdgeKitRuntimeError, match="op"):
            Session(repaired(bad))


def test_entries_must_agree_on_where_scratch_lies() -> None:
    plans = []
    for target in (Target(linux=False), Target()):
        low = lower(conv_net(), target)
        plans.append(("one" if target.linux else "two", low, plan.make(low, target)))
    with pytest.raises(PackageError, match="scratch"):
        package.write(plans, meta={})


# ---- damage ----


def test_truncation_at_every_length_is_refused_with_a_sentence(small: bytes) -> None:
    header = 128 + 32 * struct.unpack_from("<I", small, 24)[0]
    for n in range(len(small)):
        code = arena_status(small[:n])
        assert code in ((3, 6) if n < 128 else (6,)), (n, code)
    assert arena_status(small) == 0
    for n in (0, 3, 127, header, len(small) - 1):
        with pytest.raises(EdgeKitRuntimeError, match=r"truncated|not an EdgeKit package"):
            Session(small[:n])


def test_a_package_must_be_aligned(small: bytes) -> None:
    assert arena_status(small, 0) == 0
    assert [arena_status(small, k) for k in (1, 4, 16, 32, 63)] == [2] * 5


def test_every_flipped_byte_is_found_by_verify(small: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.ekp"
    path.write_bytes(small)
    verify(path)
    rng = np.random.default_rng(0)
    for at in range(0, len(small), 7):  # padding too
        bad = bytearray(small)
        bad[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        with pytest.raises(EdgeKitRuntimeError):
            verify(path)


def test_a_flipped_weight_opens_but_fails_the_selftest(small: bytes) -> None:
    with Session(small) as s:
        assert s.selftest() == 1
    at, _, _ = table(small, "DATA")
    built = contents.read(small).entries[0].graph
    weights = next(t for t in built.tensors.values() if t.variants)
    blob = next(v for v in weights.variants).blob
    start = package.sections(small)["DATA"].index(blob)
    bad = bytearray(small)
    bad[at + start + 2] ^= 0x40  # a bias: thousands of units of the sum
    with Session(bytes(bad), isa=[]) as s, pytest.raises(EdgeKitRuntimeError, match="self-test"):
        s.selftest()


@pytest.mark.parametrize(
    ("offset", "fmt", "value", "sentence"),
    [
        (0, "<I", 0x12345678, "not an EdgeKit package"),
        (4, "<H", 2, "version"),
        (8, "<I", 1, "feature"),
        (8, "<I", 1 << 31, "feature"),
        (16, "<Q", 1 << 40, "truncated"),
        (24, "<I", 65, "structure"),
        (32 + 4, "<I", 0x08000000, "structure"),
    ],
)
def test_what_the_header_asks_for_is_refused(
    small: bytes, offset: int, fmt: str, value: int, sentence: str
) -> None:
    bad = bytearray(small)
    struct.pack_into(fmt, bad, offset, value)
    if offset == 36:  # checked after the checksum
        bad = bytearray(repaired(bad))
    with pytest.raises(EdgeKitRuntimeError, match=sentence):
        Session(bytes(bad))


def widened(data: bytes, more: bytes = b"") -> bytes:
    """The package with records as wide as this version knows them, and `more` behind each."""
    grown, was = [], package.strides(data)
    for kind, part in package.sections(data).items():
        wide = package.STRIDES.get(kind, 0)
        if kind == "REFS":  # 2 or 4, no record that grows
            part = np.frombuffer(part, "<u2").astype("<u4").tobytes()
        elif wide:
            records = (part[i : i + was[kind]] for i in range(0, len(part), was[kind]))
            part = b"".join(r.ljust(wide, b"\0") + more for r in records)
        grown.append((kind, part))
    strides = {k: v + len(more) * (k != "REFS") for k, v in package.STRIDES.items()}
    return package.reassemble(data, dict(grown), strides)


def test_reserved_codes_are_refused(small: bytes) -> None:
    small = widened(small)
    tens, words, vari, ops_at = (table(small, k)[0] for k in ("TENS", "WORD", "VARI", "OPS "))
    (place,) = struct.unpack_from("<B", small, tens + 10)
    for at, fmt, value, sentence in (
        (tens + 10, "<B", place | 32, "tensor"),  # an encoding
        (tens + 8, "<B", 7, "tensor"),  # f16
        (tens + 8, "<B", 9, "tensor"),  # i4
        (words, "<I", 0x80000000, "tensor"),  # a symbol
        (vari + 12, "<I", 3, "tensor"),  # codebook
        (ops_at, "<H", 0xFFFF, "op missing"),  # external
        (ops_at + 2, "<B", 2, "op missing"),  # a later version of the op
    ):
        bad = bytearray(small)
        struct.pack_into(fmt, bad, at, value)
        with pytest.raises(EdgeKitRuntimeError, match=sentence):
            Session(repaired(bad))


def test_unknown_sections_are_skipped_unless_critical(small: bytes) -> None:
    n = struct.unpack_from("<I", small, 24)[0]
    at = next(128 + 32 * i for i in range(n) if small[128 + 32 * i : 132 + 32 * i] == b"META")
    for flags in (0, 1):
        data = bytearray(small)
        struct.pack_into("<4sI", data, at, b"XYZW", flags)
        if flags:
            with pytest.raises(EdgeKitRuntimeError, match="feature"):
                Session(repaired(data))
        else:
            with Session(repaired(data)) as s:
                assert s.meta == {} and s.selftest() == 1


def test_longer_records_are_read(small: bytes) -> None:
    """A later 1.y writer may append fields: readers step by the stride."""
    for more in (b"", b"\xee" * 8):
        with Session(widened(small, more)) as s:
            assert s.selftest() == 1


def test_names_may_be_absent(small: bytes) -> None:
    short = strip(small)
    assert len(short) < len(small)
    with Session(small) as a, Session(short) as b:
        assert b.selftest() == 1
        assert [t.name for t in b.inputs()] == [t.name for t in a.inputs()]
        assert [t.name for t in b.outputs()] == [t.name for t in a.outputs()]
        assert {o.name for o in b.ops()} == {""}
        x = np.random.default_rng(2).normal(size=(1, 6, 6, 3)).astype(F)
        assert a.run(x)["p"].tobytes() == b.run(x)["p"].tobytes()
    wide, narrow = contents.read(small).entries[0].graph, contents.read(short).entries[0].graph
    assert [(o.type, o.attrs) for o in wide.ops] == [(o.type, o.attrs) for o in narrow.ops]


def test_sections_and_tensors_are_aligned(small: bytes) -> None:
    for kind in package.sections(small):
        assert table(small, kind)[0] % (64 if kind == "DATA" else 16) == 0
    assert len(small) % 64 == 0
    for e in contents.read(small).entries:
        assert all(o % 16 == 0 for o in e.offsets.values())


def test_python_reader_refuses_what_is_not_a_package() -> None:
    for bad in (b"", b"EKP", b"\0" * 200, two_entries()[:300]):
        with pytest.raises(PackageError):
            contents.read(bad)

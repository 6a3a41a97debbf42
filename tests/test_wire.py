"""The wire format: table, vectors shared by C and Python, COBS, CRC, hashes, ordering."""

from __future__ import annotations

import ctypes as c
import hashlib
import hmac
import json
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit import boards, errors, paths, toolchain, wire, wire_gen
from edgekit.link import HOLD, Inbox

REPEATABLE = settings(derandomize=True, deadline=None, max_examples=80)
VECTORS = Path(__file__).parent / "data" / "wire_vectors.json"
WARNINGS = ("-std=c11", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Wmissing-prototypes", "-Werror")


# ---- the C codec through ctypes -------------------------------------------------------------


@pytest.fixture(scope="session")
def codec(tmp_path_factory: pytest.TempPathFactory) -> c.CDLL:
    """Codec and hashes in C as a library."""
    native, host = paths.data("native"), boards.load("host")
    cc = toolchain.compiler(host)
    out = tmp_path_factory.mktemp("codec") / "libcodec.so"
    runtime = toolchain.shared_library(host)
    sources = [native / "agent/codec.c", native / "agent/sha256.c", native / "gen/wire.c"]
    include = [f"-I{native / d}" for d in ("include", "gen", "agent")]
    flags = [*cc.flags, *WARNINGS, "-fPIC", "-shared", f"-Wl,-rpath,{runtime.parent}"]
    command = [*cc.command, *flags, *include, *map(str, sources), str(runtime), "-o", str(out)]
    subprocess.run(command, check=True)
    lib = c.CDLL(str(out))
    lib.ek_wire_put.restype = lib.ek_frame_seal.restype = c.c_size_t
    lib.ek_cobs_encode.restype = lib.ek_cobs_decode.restype = c.c_size_t
    lib.ek_cobs_encode.argtypes = [c.c_void_p, c.c_size_t, c.c_char_p, c.c_size_t]
    lib.ek_cobs_decode.argtypes = [c.c_void_p, c.c_size_t]
    lib.ek_wire_get.argtypes = [c.c_void_p, c.c_void_p, c.c_char_p, c.c_size_t]
    lib.ek_wire_put.argtypes = [c.c_void_p, c.c_void_p, c.c_void_p, c.c_size_t]
    lib.ek_frame_parse.argtypes = [c.c_void_p, c.c_void_p, c.c_size_t]
    lib.ek_frame_seal.argtypes = [c.c_void_p, c.c_void_p]
    return lib


class CFrame(c.Structure):
    """ek_frame."""

    _fields_ = [
        ("type", c.c_uint8),
        ("flags", c.c_uint8),
        ("stream", c.c_uint16),
        ("seq", c.c_uint32),
        ("t", c.c_uint64),
        ("body", c.c_void_p),
        ("len", c.c_uint32),
    ]


SCALARS = {
    "uint8_t": c.c_uint8,
    "uint16_t": c.c_uint16,
    "uint32_t": c.c_uint32,
    "uint64_t": c.c_uint64,
    "int32_t": c.c_int32,
    "int64_t": c.c_int64,
    "float": c.c_float,
    "char": c.c_char,
}


def c_structure(lay: wire.Layout) -> type[c.Structure]:
    """The generated C structure of a body, laid out by the compiler's rules."""
    fields: list[tuple[str, Any]] = []
    for f in lay.fields:
        kind = SCALARS[f.kind.c]
        fields.append((f.name, kind * f.kind.count if f.kind.count > 1 else kind))
    if lay.tail:
        fields += [(lay.tail, c.c_void_p), (f"{lay.tail}_len", c.c_uint32)]
    return type(lay.name, (c.Structure,), {"_fields_": fields})


def c_layout(codec: c.CDLL, lay: wire.Layout) -> c.c_void_p:
    name = wire_gen._snake(lay.name)
    return c.cast(c.byref(c.c_uint8.in_dll(codec, f"ek_layout_{name}")), c.c_void_p)


# ---- vectors --------------------------------------------------------------------------------


def example(lay: wire.Layout, rng: random.Random) -> dict[str, Any]:
    """Values for every field, extremes among them."""
    values: dict[str, Any] = {}
    for f in lay.fields:
        bits = 8 * struct.calcsize(f"<{f.kind.fmt}")
        if f.kind.text:
            values[f.name] = rng.choice(["", "kws", "Prüfling 7", "n" * (f.kind.count - 1)])
        elif f.kind.count > 1:
            values[f.name] = rng.randbytes(f.kind.count)
        elif f.kind.fmt == "f":
            values[f.name] = rng.choice([0.0, 0.5, -3.25])
        elif f.kind.fmt in "iq":
            values[f.name] = rng.choice([0, -1, 1 << bits - 2, -(1 << bits - 1)])
        else:
            values[f.name] = rng.choice([0, 1, (1 << bits) - 1, rng.getrandbits(bits)])
    if lay.tail:
        size = wire.item_size(lay.item) if lay.item else 1
        values[lay.tail] = rng.randbytes(size * rng.choice([0, 1, 5, 40]))
    return values


def make_vectors() -> list[dict[str, Any]]:
    """Three frames of every message, one body of every record."""
    rng, out = random.Random(20), []
    for cls, lay in wire.LAYOUTS.items():
        for n in range(3 if lay.code >= 0 else 1):
            values = example(lay, rng)
            body = wire.encode(cls(**values))
            row = {"name": lay.name, "body": body.hex()}
            row["fields"] = {k: v.hex() if isinstance(v, bytes) else v for k, v in values.items()}
            if lay.code >= 0:
                stream, seq, t = (0, 0, rng.getrandbits(64)) if n else (1, 0xFFFFFFFF, 0)
                f = wire.Frame(lay.code, body, stream, seq, t)
                row |= {"stream": stream, "seq": seq, "t": t}
                row["frame"] = wire.encode_frame(f).hex()
                row["line"] = wire.wrap(f, wire.Framing.COBS).hex()
            out.append(row)
    return out


def stored() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(VECTORS.read_text())
    return rows


CLASSES = {lay.name: cls for cls, lay in wire.LAYOUTS.items()}


def test_vectors_are_what_the_table_makes() -> None:
    """A change of the format changes this file, so it cannot happen by accident."""
    assert stored() == json.loads(json.dumps(make_vectors()))


def test_python_reads_vectors() -> None:
    for row in stored():
        cls = CLASSES[row["name"]]
        lay = wire.LAYOUTS[cls]
        got = wire.decode(cls, bytes.fromhex(row["body"]))
        for name, value in row["fields"].items():
            have = getattr(got, name)
            assert (have.hex() if isinstance(have, bytes) else have) == value, (lay.name, name)
        if "line" in row:
            [f] = wire.Reader(wire.Framing.COBS).feed(bytes.fromhex(row["line"]))
            assert (f.type, f.stream, f.seq, f.t) == (lay.code, row["stream"], row["seq"], row["t"])
            assert wire.encode_frame(f).hex() == row["frame"]


def test_c_reads_and_makes_vectors(codec: c.CDLL) -> None:
    for row in stored():
        lay = wire.LAYOUTS[CLASSES[row["name"]]]
        m, body = c_structure(lay)(), bytes.fromhex(row["body"])
        layout = c_layout(codec, lay)
        assert codec.ek_wire_get(layout, c.byref(m), body, len(body)) == 0
        assert codec.ek_wire_get(layout, c.byref(c_structure(lay)()), body, lay.struct.size - 1) < 0
        for f in lay.fields:
            value, have = row["fields"][f.name], getattr(m, f.name)
            if f.kind.text:
                have = have.decode()
            elif f.kind.count > 1:
                have = bytes(have).hex()
            assert have == value, (lay.name, f.name)
        if lay.tail:
            size = getattr(m, f"{lay.tail}_len")
            have = c.string_at(getattr(m, lay.tail), size) if size else b""
            assert have.hex() == row["fields"][lay.tail]
        room = c.create_string_buffer(len(body))
        assert codec.ek_wire_put(layout, c.byref(m), room, len(body)) == len(body)
        assert room.raw == body
        assert codec.ek_wire_put(layout, c.byref(m), room, len(body) - 1) == 0
        if "line" in row:
            c_frame(codec, row, body)


def c_frame(codec: c.CDLL, row: dict[str, Any], body: bytes) -> None:
    """The frame of a vector made and read in C."""
    sealed, line = bytes.fromhex(row["frame"]), bytes.fromhex(row["line"])
    code = wire.LAYOUTS[CLASSES[row["name"]]].code
    room = c.create_string_buffer(bytes(16) + body + bytes(4), len(body) + 20)
    f = CFrame(code, 0, row["stream"], row["seq"], row["t"], None, len(body))
    assert codec.ek_frame_seal(room, c.byref(f)) == len(sealed)
    assert room.raw == sealed
    back = c.create_string_buffer(line[:-1], len(line) - 1)
    assert codec.ek_cobs_decode(back, len(line) - 1) == len(sealed)
    assert back.raw[: len(sealed)] == sealed
    got = CFrame()
    assert codec.ek_frame_parse(c.byref(got), back, len(sealed)) == 0
    assert (got.type, got.stream, got.seq, got.t) == (code, row["stream"], row["seq"], row["t"])
    out = c.create_string_buffer(len(line))
    assert codec.ek_cobs_encode(out, len(line), sealed, len(sealed)) == len(line) - 1
    assert out.raw[:-1] == line[:-1]


def test_hello_by_hand() -> None:
    """Bytes worked out by hand from WIRE.md: the table's own code is not its only witness."""
    body = bytes.fromhex("0807060504030201") + bytes(range(16)) + bytes.fromhex("e8fd0000 00000000")
    assert wire.encode(wire.Hello(0x0102030405060708, bytes(range(16)), 65000)) == body
    head = bytes.fromhex("10 00 0000 00000000 0700000000000000")
    whole = head + body
    whole += zlib.crc32(whole).to_bytes(4, "little")
    assert wire.encode_frame(wire.Frame(0, body, t=7)) == whole


def test_generated_files_are_current() -> None:
    for path, text in wire.c_sources().items():
        assert paths.data(*Path(path).parts).read_text() == text, f"{path}: run make gen"


def test_bodies_grow_and_shrink() -> None:
    """A longer body is of a newer version, a shorter one is refused; tails are whole items."""
    sync = wire.encode(wire.Sync(5))
    assert wire.decode(wire.Sync, sync + b"later").t1 == 5
    with pytest.raises(wire.WireError):
        wire.decode(wire.Sync, sync[:-1])
    trace = wire.encode(wire.OpTrace(1, 0, wire.encode(wire.OpTime(1, 0, 2, 3))))
    assert next(wire.items(wire.OpTime, wire.decode(wire.OpTrace, trace).items)).duration == 3
    with pytest.raises(wire.WireError):
        wire.decode(wire.OpTrace, trace + b"x")
    with pytest.raises(wire.WireError):
        wire.encode(wire.Sync(1 << 64))
    with pytest.raises(wire.WireError):
        wire.encode(wire.Auth(b"short"))


def test_text_is_cut_and_cleaned() -> None:
    assert wire.cut("ä" * 10, 5) == "ää".encode()
    assert wire.clean(b"a\x1b[31mb\0rest") == "a?[31mb"
    assert wire.clean(b"\xff\xfe") == "��"


# ---- COBS and frames ------------------------------------------------------------------------

blobs = st.one_of(
    st.binary(max_size=600),
    st.integers(250, 260).map(lambda n: b"\1" * n),
    st.integers(505, 512).map(lambda n: b"\1" * n + b"\0"),
)


@REPEATABLE
@given(blobs)
def test_cobs_is_the_known_one(data: bytes) -> None:
    from cobs import cobs

    assert wire.cobs_encode(data) == cobs.encode(data)
    assert wire.cobs_decode(wire.cobs_encode(data)) == data


@REPEATABLE
@given(blobs)
def test_cobs_in_c(codec: c.CDLL, data: bytes) -> None:
    coded = wire.cobs_encode(data)
    room = c.create_string_buffer(len(coded) + 1)
    assert codec.ek_cobs_encode(room, len(coded), data, len(data)) == len(coded)
    assert room.raw[:-1] == coded
    assert codec.ek_cobs_encode(room, len(coded) - 1, data, len(data)) == c.c_size_t(-1).value
    assert codec.ek_cobs_decode(room, len(coded)) == len(data)
    assert room.raw[: len(data)] == data


@REPEATABLE
@given(st.binary(max_size=80))
def test_cobs_refuses_alike(codec: c.CDLL, data: bytes) -> None:
    room = c.create_string_buffer(data, max(len(data), 1))
    size = codec.ek_cobs_decode(room, len(data))
    try:
        expect: bytes | None = wire.cobs_decode(data)
    except wire.WireError:
        expect = None
    assert (None if size == c.c_size_t(-1).value else room.raw[:size]) == expect


def sent_frames(count: int, rng: random.Random) -> list[wire.Frame]:
    """Frames like those of a benchmark."""
    frames = []
    for seq in range(1, count + 1):
        body = wire.encode(wire.Samples(7, 1, 8, 1, seq * 4, rng.randbytes(8 * rng.randrange(28))))
        frames.append(wire.Frame(0x11, body, 1, seq, rng.getrandbits(40)))
    return frames


def corrupt(data: bytes, rng: random.Random) -> bytes:
    """One frame on the line, damaged in one of eight ways."""
    out, at, how = bytearray(data), rng.randrange(len(data)), rng.randrange(8)
    if how == 0:
        out[at] ^= 1 << rng.randrange(8)
    elif how == 1:
        for _ in range(rng.randrange(2, 20)):
            out[rng.randrange(len(out))] = rng.randrange(256)
    elif how == 2:
        del out[at : at + rng.randrange(1, 9)]
    elif how == 3:
        out[at:at] = rng.randbytes(rng.randrange(1, 9))
    elif how == 4:
        out[at] = 0
    elif how == 5:
        del out[-1]  # the delimiter: runs into the next frame
    elif how == 6:
        other = rng.randrange(len(data))
        out[at], out[other] = out[other], out[at]
    else:
        start, size = sorted((at, rng.randrange(len(data))))
        out[start:size] = bytes(size - start)
    return bytes(out)


def read_in_c(codec: c.CDLL, line: bytes) -> list[tuple[int, int, int, int, bytes]]:
    """Frames that the C codec accepts from a line."""
    found = []
    for chunk in line.split(b"\0")[:-1]:
        room = c.create_string_buffer(chunk, max(len(chunk), 1))
        size, f = codec.ek_cobs_decode(room, len(chunk)), CFrame()
        if size != c.c_size_t(-1).value and codec.ek_frame_parse(c.byref(f), room, size) == 0:
            found.append((f.type, f.stream, f.seq, f.t, c.string_at(f.body, f.len)))
    return found


def check_corrupted(codec: c.CDLL, count: int, seed: int) -> None:
    """Of `count` damaged frames none may be taken for another one, in Python or C."""
    rng = random.Random(seed)
    damaged = accepted = clean = 0
    while damaged < count:
        frames = sent_frames(50, rng)
        known = {(f.type, f.stream, f.seq, f.t, f.body) for f in frames}
        line = bytearray()
        for f in frames:
            raw = wire.wrap(f, wire.Framing.COBS)
            bad = corrupt(raw, rng) if rng.random() < 0.8 else raw
            damaged += bad != raw
            clean += bad == raw
            line += bad
        got = wire.Reader(wire.Framing.COBS).feed(bytes(line))
        taken = [(f.type, f.stream, f.seq, f.t, f.body) for f in got]
        assert known.issuperset(taken)
        assert read_in_c(codec, bytes(line)) == taken
        accepted += len(taken)
    # damage spreads to the next frame at most where the delimiter is lost
    assert accepted > 0.8 * clean


def test_corrupted_frames(codec: c.CDLL) -> None:
    check_corrupted(codec, 5_000, 1)


@pytest.mark.slow
def test_corrupted_frames_100000(codec: c.CDLL) -> None:
    check_corrupted(codec, 100_000, 2)


def test_reader_goes_on_after_noise() -> None:
    """In pieces of any size, with noise before and a frame far too long between."""
    frames = sent_frames(20, random.Random(3))
    line = b"\x07noise\0" + b"".join(wire.wrap(f, wire.Framing.COBS) for f in frames[:10])
    line += b"\xff" * 5000 + b"\0" + b"".join(wire.wrap(f, wire.Framing.COBS) for f in frames[10:])
    for step in (1, 7, 300, len(line)):
        reader = wire.Reader(wire.Framing.COBS, 1008)
        got = [f for at in range(0, len(line), step) for f in reader.feed(line[at : at + step])]
        assert got == frames
        assert reader.bad == 2


def test_length_framing_checks_before_it_waits() -> None:
    f = sent_frames(1, random.Random(4))[0]
    raw = wire.wrap(f, wire.Framing.LENGTH)
    reader = wire.Reader(wire.Framing.LENGTH, 1008)
    assert reader.feed(raw[:5]) == []
    assert reader.feed(raw[5:] + raw) == [f, f]
    damaged = bytearray(raw)
    damaged[9] ^= 1
    assert reader.feed(bytes(damaged) + raw) == [f]
    assert reader.bad == 1
    for size in (0, 19, 1029, 0xFFFF):
        with pytest.raises(wire.WireError):
            wire.Reader(wire.Framing.LENGTH, 1008).feed(struct.pack("<H", size))


# ---- hashes ---------------------------------------------------------------------------------


class Sha(c.Structure):
    """ek_sha256."""

    _fields_ = [("h", c.c_uint32 * 8), ("bytes", c.c_uint64), ("block", c.c_uint8 * 64)]


def c_sha256(codec: c.CDLL, data: bytes, step: int) -> str:
    s, out = Sha(), c.create_string_buffer(32)
    codec.ek_sha256_begin(c.byref(s))
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        codec.ek_sha256_add(c.byref(s), piece, c.c_size_t(len(piece)))
    codec.ek_sha256_end(c.byref(s), out)
    return out.raw.hex()


def c_hmac(codec: c.CDLL, key: bytes, data: bytes, cut: int = 0) -> str:
    out, a, b = c.create_string_buffer(32), data[:cut], data[cut:]
    size = c.c_size_t
    codec.ek_hmac_sha256(out, key, size(len(key)), a, size(len(a)), b, size(len(b)))
    return out.raw.hex()


FIPS = [  # FIPS 180-4 examples
    (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ),
    (
        b"a" * 1_000_000,
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
    ),
]
RFC4231 = [
    (
        b"\x0b" * 20,
        b"Hi There",
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    ),
    (
        b"Jefe",
        b"what do ya want for nothing?",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ),
    (
        b"\xaa" * 20,
        b"\xdd" * 50,
        "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
    ),
    (
        bytes(range(1, 26)),
        b"\xcd" * 50,
        "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
    ),
    (b"\x0c" * 20, b"Test With Truncation", "a3b6167473100ee06e0c796c2955552b"),
    (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
    (
        b"\xaa" * 131,
        b"This is a test using a larger than block-size key and a larger than block-size data. "
        b"The key needs to be hashed before being used by the HMAC algorithm.",
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
    ),
]


@pytest.mark.parametrize(("data", "digest"), FIPS)
def test_sha256(codec: c.CDLL, data: bytes, digest: str) -> None:
    for step in (65536, 64, 63) if len(data) > 100 else (1, 5, 64, 1000):
        assert c_sha256(codec, data, step) == digest


@pytest.mark.parametrize(("key", "data", "digest"), RFC4231)
def test_hmac(codec: c.CDLL, key: bytes, data: bytes, digest: str) -> None:
    for cut in (0, len(data) // 2, len(data)):
        assert c_hmac(codec, key, data, cut).startswith(digest)


def test_hashes_at_every_length(codec: c.CDLL) -> None:
    rng = random.Random(5)
    for size in range(200):
        data, key = rng.randbytes(size), rng.randbytes(size % 90)
        assert c_sha256(codec, data, 1 + size % 70) == hashlib.sha256(data).hexdigest()
        assert c_hmac(codec, key, data, size // 3) == hmac.new(key, data, "sha256").hexdigest()


def test_same_compares_all_bytes(codec: c.CDLL) -> None:
    a = bytes(range(32))
    assert codec.ek_same(a, a, c.c_size_t(32)) == 1
    for at in range(32):
        b = bytearray(a)
        b[at] ^= 0x80
        assert codec.ek_same(a, bytes(b), c.c_size_t(32)) == 0


def test_proofs_differ_by_role_and_bodies() -> None:
    proofs = {
        wire.proof(b"t", r, h, a)
        for r in ("host", "device")
        for h in (b"1", b"2")
        for a in (b"3", b"4")
    }
    assert len(proofs) == 8


# ---- exactly once ---------------------------------------------------------------------------


@REPEATABLE
@given(st.integers(1, 120), st.randoms(use_true_random=False), st.floats(0, 0.6))
def test_inbox_delivers_each_frame_once_in_order(
    count: int, rng: random.Random, loss: float
) -> None:
    """Whatever is lost, repeated or comes out of order, as long as the device repeats."""
    sent = {s: wire.Frame(0x11, b"", 1, s) for s in range(1, count + 1)}
    inbox, got, acked = Inbox(9), [], 0
    for round_ in range(200):
        ack = inbox.ack(1, resend=True)
        assert ack.seq == len(got) >= acked
        acked = ack.seq
        have = {ack.seq + 1 + i for i in range(32) if ack.bitmap >> i & 1}
        assert not have & {f.seq for f in got}
        due = [f for s, f in sent.items() if s > ack.seq and s not in have]
        if not due:
            break
        rng.shuffle(due)
        for f in [*due, *due[: rng.randrange(3)]]:
            if rng.random() >= loss or round_ > 150:
                got += inbox.accept(f)
    assert [f.seq for f in got] == list(range(1, count + 1))
    assert not inbox.missing(1)


def test_inbox_starts_anew_with_the_device() -> None:
    inbox = Inbox(1)
    first = wire.Frame(0x11, b"", 1, 1)
    assert inbox.accept(first) == [first]
    inbox.restart(1)
    assert inbox.accept(first) == []
    assert inbox.duplicates == 1
    inbox.restart(2)
    assert inbox.accept(first) == [first]
    assert inbox.accept(wire.Frame(0x11, b"", 1, 3 + HOLD)) == []  # too far ahead to be kept


# ---- errors, imports ------------------------------------------------------------------------


def test_errors_are_one_tree() -> None:
    import pickle

    e = errors.LinkError("no answer", where="tcp://x:1", todo="is it on?")
    assert str(e) == "tcp://x:1: no answer\n  is it on?"
    assert isinstance(e, errors.EdgeKitError)
    back = pickle.loads(pickle.dumps(e))
    assert (type(back), str(back)) == (errors.LinkError, str(e))


def test_the_agent_is_an_island() -> None:
    """What installs on a board imports only wire, link, errors, edgekit_runtime and numpy."""
    code = (
        "import sys, edgekit.agent.__main__, edgekit.agent.child;"
        "print(*sorted(m for m in sys.modules if m.split('.')[0] in"
        " ('edgekit', 'serial', 'torch', 'onnx', 'cobs', 'rich')))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    allowed = {"edgekit", "edgekit.wire", "edgekit.wire_codec", "edgekit.link", "edgekit.errors"}
    extra = {m for m in out.stdout.split() if not m.startswith("edgekit.agent")} - allowed
    assert not extra

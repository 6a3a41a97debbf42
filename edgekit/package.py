"""Writes .ekp packages: native/src/format.h and native/FORMAT.md in Python.

The same graph gives the same bytes.  Offsets of tensors and sections count 16 bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit import compact, layout, ops
from edgekit.errors import PackageError
from edgekit.ir import NUMPY, Array, Graph, Op, Tensor
from edgekit.layout import Variant
from edgekit.plan import Plan

MAGIC, MAJOR, MINOR = 0x1A504B45, 1, 0
UNIT, NONE = 16, 0xFFFFFFFF
HEADER, RECORD = 128, 32  # bytes of the header and of a record of the section table
WIDE = 64  # DATA begins at a multiple, so that a vector of weights lies in one cache line
DTYPES = {"f32": 0, "i8": 1, "u8": 2, "i16": 3, "i32": 4, "i64": 5, "bool": 6, "i4": 9, "i2": 10}
DTYPES["packed"] = 11
KIND_CONST, KIND_MAIN, KIND_STATE = 0, 1, 3
QUANTIZED, UNPACKED = 16, 32  # bits of a tensor's place
SECTION_CRITICAL, SECTION_UNPACKED = 1, 2  # bits of a section's flags
# what may be stored as one text of UNPK
TABLES = ("TENS", "WORD", "NAME", "VARI", "REFS", "ATTR", "OPS ", "ENTR", "STRS")
CRITICAL = {
    "STRS",
    "TENS",
    "WORD",
    "NAME",
    "VARI",
    "REFS",
    "ATTR",
    "OPS ",
    "ENTR",
    "DATA",
    "STAT",
    "UNPK",
}
STRIDES = {"TENS": 12, "VARI": 16, "REFS": 4, "OPS ": 24, "ENTR": 20, "GOLD": 24}
UNNAMED_OP, PLAIN_VARIANT = 20, 12  # strides of packages without names, without sparse weights
TENSOR, VARIANT, OP, ENTRY = "<IIBBBB", "<BBBBIII", "<HBBHHIIII", "<IIIIHH"
FEATURE_ENCODED = 4  # required by encodings of weights
FEATURE_PACKED_BITS = 16  # required by packed weights of 4 or 2 bits
FEATURE_PLACED_SCRATCH = 32  # required by scratch that lies in the arena
FEATURE_UNPACKED = 64  # required by constants that are unpacked when a session opens
GOLDEN_STORED = 4096  # bytes of float outputs a golden vector may hold


@dataclass(frozen=True)
class Golden:
    """A self-test of one entry: seed, range per input, and CRCs (exact) or bytes of the outputs."""

    entry: int
    seed: int
    ranges: tuple[tuple[float, float], ...]
    outputs: tuple[bytes, ...]
    exact: bool
    tolerance: float = 0.0

    def data(self) -> bytes:
        head = b"".join(struct.pack("<ff", *r) for r in self.ranges)
        if self.exact:
            return head + b"".join(struct.pack("<I", zlib.crc32(o)) for o in self.outputs)
        return head + b"".join(self.outputs)


@dataclass
class _Blob:
    """A growing section whose items start at multiples of 16 bytes; equal items are stored once."""

    data: bytearray = field(default_factory=bytearray)
    seen: dict[bytes, int] = field(default_factory=dict)

    def add(self, item: bytes) -> int:
        """Offset of the item, in UNIT."""
        if item not in self.seen:
            self.data += b"\0" * (-len(self.data) % UNIT)
            self.seen[item] = len(self.data) // UNIT
            self.data += item
        return self.seen[item]


@dataclass
class _Writer:
    strs: bytearray = field(default_factory=bytearray)
    str_at: dict[str, int] = field(default_factory=dict)
    data: _Blob = field(default_factory=_Blob)
    tens: bytearray = field(default_factory=bytearray)
    words: bytearray = field(default_factory=bytearray)
    names: bytearray = field(default_factory=bytearray)
    vari: bytearray = field(default_factory=bytearray)
    refs: list[int] = field(default_factory=list)
    attr: bytearray = field(default_factory=bytearray)
    attr_at: dict[bytes, int] = field(default_factory=dict)
    ops: bytearray = field(default_factory=bytearray)
    entr: bytearray = field(default_factory=bytearray)
    stat: bytearray = field(default_factory=bytearray)
    state_at: dict[str, int] = field(default_factory=dict)
    required: int = 0  # feature bits
    segments: dict[bytes, int] = field(default_factory=dict)  # of UNPK, and where they unpack to
    unpacked: int = 0  # bytes of what they unpack to

    def string(self, s: str) -> int:
        text = s.encode("utf-8", "replace").replace(b"\0", b"?")[:95]
        key = text.decode("utf-8", "ignore")
        if key not in self.str_at:
            self.str_at[key] = len(self.strs)
            self.strs += key.encode() + b"\0"
        return self.str_at[key]

    def tensor(self, t: Tensor, kind: int, offset: int) -> None:
        quant = t.quant if t.quant is not None and t.quant.axis is None else None
        if len(t.shape) > 8:
            raise PackageError(f"{t.name!r} has rank {len(t.shape)}, 8 is the most")
        if t.dtype == "packed":
            offset = len(self.vari) // STRIDES["VARI"]
            for v in t.variants:
                self.variant(v)
        words = struct.pack(f"<{len(t.shape)}I", *t.shape)
        if quant is not None:
            words += struct.pack("<fi", float(quant.scale), int(quant.zero))
        place = kind | (QUANTIZED if quant is not None else 0)
        place |= UNPACKED if t.data is not None and t.variants else 0
        what = (DTYPES[t.dtype], len(t.shape), place, 0 if place & UNPACKED else len(t.variants))
        self.tens += struct.pack(TENSOR, offset, word(self.words, words), *what)
        self.names += struct.pack("<I", self.string("" if kind == KIND_CONST else t.name))

    def named(self) -> bytes:
        """Section NAME, which ends behind the last tensor that has a name: constants have none."""
        none = struct.pack("<I", self.str_at.get("", NONE))
        end = len(self.names)
        while end and self.names[end - 4 : end] == none:
            end -= 4
        return bytes(self.names[:end])

    def attributes(self, attr: bytes) -> int:
        """Offset of an attribute structure; ops with equal ones share it."""
        if attr not in self.attr_at:
            self.attr_at[attr] = len(self.attr)
            self.attr += attr
        return self.attr_at[attr]

    def variant(self, v: Variant) -> None:
        la = v.layout
        if la.encoding == layout.UNPACKED:
            at = self.segment(v.segment)
            place = (at, compact.sizes(v.segment, 0)[1], la.encoding)
        elif la.encoding == layout.APART:
            at = self.data.add(v.blob)
            place = (at, len(v.blob), la.encoding | self.segment(v.segment) << 8)
        else:
            place = (self.data.add(v.blob), len(v.blob), la.encoding)
        if la.encoding not in (layout.PLAIN, layout.UNPACKED, layout.APART):
            self.required |= FEATURE_ENCODED
        if v.dtype in ("i4", "i2"):
            self.required |= FEATURE_PACKED_BITS
        self.vari += struct.pack(VARIANT, la.nr, la.kr, la.xoff, DTYPES[v.dtype], *place)

    def segment(self, segment: bytes) -> int:
        """Where a segment of UNPK unpacks to, in UNIT."""
        self.required |= FEATURE_UNPACKED
        if segment not in self.segments:
            self.segments[segment] = self.unpacked // UNIT
            self.unpacked += compact.sizes(segment, 0)[1]
        return self.segments[segment]

    def state(self, t: Tensor) -> int:
        """Offset of a state in UNIT; its initial bytes are added when it is first seen."""
        if t.name not in self.state_at:
            self.state_at[t.name] = len(self.stat) // UNIT
            data = np.zeros(t.shape, NUMPY[t.dtype]) if t.data is None else t.data
            raw = np.ascontiguousarray(data, NUMPY[t.dtype]).tobytes()
            self.stat += raw + b"\0" * (-len(raw) % UNIT)
        return self.state_at[t.name]

    def place(self, t: Tensor, g: Graph, plan: Plan) -> tuple[int, int]:
        """(kind, offset in UNIT) of a tensor."""
        if t.name in g.states:
            return KIND_STATE, self.state(t)
        if t.dtype == "packed":
            return KIND_CONST, 0
        if t.data is not None and t.variants:
            return KIND_CONST, self.segment(t.variants[0].segment)
        if t.data is not None:
            return KIND_CONST, self.data.add(np.ascontiguousarray(t.data).tobytes())
        return KIND_MAIN, plan.offsets[t.name] // UNIT

    def entry(self, label: str, g: Graph, plan: Plan) -> None:
        index: dict[str, int] = {}
        ends = (*g.inputs, *g.outputs)  # first: packages without names keep theirs
        named = [n for n in g.tensors if n in g.states or not g.is_const(n)]
        for name in dict.fromkeys((*ends, *named, *g.tensors)):
            t = g.tensors[name]
            index[name] = len(self.tens) // STRIDES["TENS"]
            self.tensor(t, *self.place(t, g, plan))
        op0 = len(self.ops) // STRIDES["OPS "]
        for i, op in enumerate(g.ops):
            self.op(op, g, plan, index, self.scratch(plan, i))
        refs = len(self.refs)
        self.refs += [index[n] for n in (*g.inputs, *g.outputs)]
        count = len(self.ops) // STRIDES["OPS "] - op0
        span = (op0, count, refs, len(g.inputs), len(g.outputs))
        self.entr += struct.pack(ENTRY, self.string(label), *span)

    def scratch(self, plan: Plan, i: int) -> int:
        """The field of op i that grants its scratch."""
        if not self.required & FEATURE_PLACED_SCRATCH:
            return plan.scratch[i]
        return plan.scratch[i] // UNIT | plan.scratch_at[i] // UNIT << 16 if plan.scratch[i] else 0

    def op(self, op: Op, g: Graph, plan: Plan, index: dict[str, int], scratch: int) -> None:
        d = ops.get(op.type)
        refs = len(self.refs)
        self.refs += [index[n] if n else NONE for n in (*op.inputs, *op.outputs)]
        flags = int(d.exact(op, g)) | _grants(op, g, plan) << 8
        head = (d.code, d.version, len(op.outputs), len(op.inputs), flags)
        tail = (refs, self.attributes(d.pack(op.attrs)), scratch, self.string(op.name))
        self.ops += struct.pack(OP, *head, *tail)


def word(pool: bytearray, words: bytes) -> int:
    """Index of these words in a section WORD; those that lie there already are used again."""
    at = pool.find(words)
    while at > 0 and at % 4:
        at = pool.find(words, at + 1)
    if at < 0:
        at = len(pool)
        pool += words
    return at // 4


def write(
    entries: list[tuple[str, Graph, Plan]],
    *,
    meta: dict[str, Any],
    model_id: bytes = b"",
    goldens: list[Golden] | None = None,
    rollback: int = 0,
) -> bytes:
    """Package bytes of one or more lowered graphs sharing constants and state memory.

    Entries run one at a time, so their arenas share memory; states of equal name are one state.
    """
    w = _Writer()
    plans = [p for _, _, p in entries]
    scratch = max(p.scratch_bytes for p in plans)
    if scratch and all(p.scratch_at or not p.scratch_bytes for p in plans):
        w.required |= FEATURE_PLACED_SCRATCH
    elif any(p.scratch_at for p in plans):
        raise PackageError("entries differ in where their scratch lies", todo="plan them alike")
    for name, g, plan in entries:
        w.entry(name, g, plan)
    gold, gdat = _goldens(goldens or [])
    strides = dict(STRIDES)
    if len(w.tens) // STRIDES["TENS"] < 0xFFFF:
        strides["REFS"] = 2
    if not w.required & (FEATURE_ENCODED | FEATURE_UNPACKED):
        strides["VARI"] = PLAIN_VARIANT
    sections = {
        "TENS": bytes(w.tens),
        "WORD": bytes(w.words),
        "NAME": w.named(),
        "VARI": columns(bytes(w.vari), STRIDES["VARI"], strides["VARI"]),
        "REFS": np.asarray(w.refs, "<u4").astype(f"<u{strides['REFS']}").tobytes(),
        "ATTR": bytes(w.attr),
        "OPS ": bytes(w.ops),
        "ENTR": bytes(w.entr),
        "STRS": bytes(w.strs),
        "UNPK": b"".join(w.segments) + bytes(compact.SLACK * bool(w.segments)),
        "DATA": bytes(w.data.data),
        "STAT": bytes(w.stat),
        "GOLD": gold,
        "GDAT": gdat,
        "META": json.dumps(meta, sort_keys=True, separators=(",", ":")).encode(),
    }
    main = max(p.main_bytes for p in plans)
    return _assemble(
        [(k, d) for k, d in sections.items() if d or k in ("REFS", "ATTR")],
        [w.unpacked, main, 0, len(w.stat), scratch],
        model_id,
        rollback,
        w.required,
        strides,
    )


def columns(table: bytes, stride: int, keep: int) -> bytes:
    """The first ``keep`` bytes of every record."""
    return b"".join(table[i : i + keep] for i in range(0, len(table), stride))


def _grants(op: Op, g: Graph, plan: Plan) -> int:
    """Bit k: input k lies where an output lies (an in-place op, or a state that is updated)."""

    def place(name: str) -> tuple[str, int | str] | None:
        if name in g.states:
            return "state", name
        return ("main", plan.offsets[name]) if name in plan.offsets else None

    outputs = {place(n) for n in op.outputs} - {None}
    granted = [k for k, n in enumerate(op.inputs) if n and place(n) in outputs]
    if granted and max(granted) > 7:
        raise PackageError(
            f"input {max(granted)} is overwritten; only the first 8 may be", where=op.name
        )
    return sum(1 << k for k in granted)


def _goldens(goldens: list[Golden]) -> tuple[bytes, bytes]:
    gold, gdat = bytearray(), bytearray()
    for g in goldens:
        data = g.data()
        gdat += b"\0" * (-len(gdat) % UNIT)
        place = (len(gdat) // UNIT, len(data))
        gold += struct.pack("<IIIIIf", g.entry, g.seed, *place, int(g.exact), g.tolerance)
        gdat += data
    return bytes(gold), bytes(gdat)


def _assemble(
    sections: list[tuple[str, bytes]],
    mem: list[int],
    model_id: bytes,
    rollback: int,
    required: int = 0,
    strides: dict[str, int] | None = None,
    align: int = WIDE,
    tables: bool = True,
) -> bytes:
    """The bytes of a package; with constants to unpack its tables are stored with them, as text,
    unless ``tables`` is False."""
    strides = STRIDES if strides is None else strides
    start = HEADER + RECORD * len(sections)
    table, body = bytearray(), bytearray()
    places: dict[str, int] = {}
    if tables and required & FEATURE_UNPACKED:
        sections, mem, places = _with_text(sections, mem)
    for kind, data in sections:
        if kind in places:
            flags = int(kind in CRITICAL) | SECTION_UNPACKED
            what = (kind.encode(), flags, places[kind] // UNIT)
            table += struct.pack(
                "<4sIIIQII", *what, strides.get(kind, 0), len(data), zlib.crc32(data), 0
            )
            continue
        to = align if kind == "DATA" else UNIT
        body += b"\0" * (-(start + len(body)) % to)
        what = (kind.encode(), int(kind in CRITICAL), (start + len(body)) // UNIT)
        table += struct.pack(
            "<4sIIIQII", *what, strides.get(kind, 0), len(data), zlib.crc32(data), 0
        )
        body += data
    body += b"\0" * (-(start + len(body)) % align)

    def header(crc: int) -> bytes:
        head = (
            MAGIC,
            MAJOR,
            MINOR,
            required,
            0,
            start + len(body),
            len(sections),
            crc,
            *(m // UNIT for m in mem),
            0,
        )
        tail = (rollback, model_id.ljust(32, b"\0")[:32], b"")
        return struct.pack("<IHHIIQII5IIQ32s32s", *head, *tail)

    crc = zlib.crc32(bytes(table), zlib.crc32(header(0)))
    return header(crc) + bytes(table) + bytes(body)


def _with_text(
    sections: list[tuple[str, bytes]], mem: list[int]
) -> tuple[list[tuple[str, bytes]], list[int], dict[str, int]]:
    """(sections, memories, places of the tables in what is unpacked) with the tables in UNPK."""
    text, places = bytearray(), {}
    for kind, data in sections:
        if kind in TABLES:
            text += b"\0" * (-len(text) % UNIT)
            places[kind] = mem[0] + len(text)
            text += data
    segment, slack = compact.text(bytes(text)), bytes(compact.SLACK)
    parts = dict(sections)
    parts["UNPK"] = parts["UNPK"][: -len(slack)] + segment + slack
    return list(parts.items()), [mem[0] + compact.sizes(segment, 0)[1], *mem[1:]], places


def required(data: bytes) -> int:
    """Feature bits that a reader of the package must know."""
    return int(struct.unpack_from("<I", data, 8)[0])


def strides(data: bytes) -> dict[str, int]:
    """Name -> bytes of a record of every section, 0 where it is no table."""
    return {kind: stride for kind, _, _, stride, _ in _table(data)}


def reassemble(
    data: bytes,
    parts: dict[str, bytes],
    changed: dict[str, int] | None = None,
    align: int = WIDE,
    tables: bool = True,
) -> bytes:
    """A package with the header fields of ``data`` and other sections, checksums made again.

    ``changed``: strides of sections whose records are others now.  ``tables``: see `_assemble`.
    """
    mem = [m * UNIT for m in struct.unpack_from("<5I", data, 32)]
    if "UNPK" in parts:
        mem[0] = sum(len(made) for _, made in compact.unpack(parts["UNPK"]).values())
    rollback, model_id = struct.unpack_from("<Q32s", data, 56)
    widths = strides(data) | (changed or {})
    kinds, bits = list(parts.items()), required(data)
    return _assemble(kinds, mem, model_id, rollback, bits, widths, align, tables)


def sections(data: bytes) -> dict[str, bytes]:
    """Name -> bytes of every section, without the tables in UNPK, which are sections of their own;
    PackageError where the header is not one."""
    parts = stored(data)
    out = {kind: part for kind, part in parts.items() if part is not None}
    if len(out) == len(parts):
        return out
    try:
        place, (segment, text) = list(compact.unpack(out.get("UNPK", b"")).items())[-1]
    except (ValueError, IndexError, struct.error) as e:
        raise PackageError(f"its tables cannot be unpacked ({e})", todo="copy it again") from None
    out["UNPK"] = out["UNPK"][: -compact.SLACK - len(segment)] + bytes(compact.SLACK)
    for kind, _, at, _, size in _table(data):
        if parts[kind] is None:
            out[kind] = text[at - place : at - place + size]
            if at < place or len(out[kind]) < size:
                raise PackageError("the package is truncated", todo="copy it again")
    return {kind: out[kind] for kind in parts}


def stored(data: bytes) -> dict[str, bytes | None]:
    """Name -> bytes of every section as they lie in the file, None where they are in UNPK."""
    if len(data) < 128 or struct.unpack_from("<I", data)[0] != MAGIC:
        raise PackageError(
            "not an EdgeKit package", todo="give a .ekp file written by `edgekit build`"
        )
    out: dict[str, bytes | None] = {}
    for kind, flags, at, _, size in _table(data):
        unpacked = flags & SECTION_UNPACKED and required(data) & FEATURE_UNPACKED
        if not unpacked and at + size > len(data):
            raise PackageError("the package is truncated", todo="copy it again")
        out[kind] = None if unpacked else data[at : at + size]
    return out


def _table(data: bytes) -> Iterator[tuple[str, int, int, int, int]]:
    """(kind, flags, offset in bytes, stride, bytes) of every section."""
    for i in range(struct.unpack_from("<I", data, 24)[0]):
        if HEADER + RECORD * (i + 1) > len(data):
            raise PackageError("the package is truncated", todo="copy it again")
        kind, flags, offset, stride, size, _, _ = struct.unpack_from(
            "<4sIIIQII", data, HEADER + RECORD * i
        )
        yield kind.decode("ascii", "replace"), flags, offset * UNIT, stride, size


def golden_inputs(seed: int, specs: list[tuple[Tensor, tuple[float, float]]]) -> list[Array]:
    """The arrays that a golden vector's seed stands for; twin of native/src/golden.c."""
    state = seed or 1
    out: list[Array] = []
    for t, (lo, hi) in specs:
        u = np.empty(t.size, np.uint32)
        for i in range(t.size):
            state ^= (state << 13) & 0xFFFFFFFF
            state ^= state >> 17
            state ^= (state << 5) & 0xFFFFFFFF
            u[i] = state >> 8
        if t.dtype == "f32":
            step = u.astype(np.float32) * np.float32(2.0**-24)
            a: npt.NDArray[Any] = np.float32(lo) + (np.float32(hi) - np.float32(lo)) * step
        else:
            span = int(np.float32(hi)) - int(np.float32(lo)) + 1
            a = (int(np.float32(lo)) + (u.astype(np.int64) % span)).astype(NUMPY[t.dtype])
        out.append(a.reshape(t.shape))
    return out


def folder(path: Path) -> None:
    """Makes a folder where there is none; PackageError where files cannot be written to it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise PackageError("is a file", where=str(path), todo="choose another folder") from None
    except OSError as e:
        raise PackageError(
            f"cannot be made: {e.strerror}", where=str(path), todo="choose another folder"
        ) from None
    if not os.access(path, os.W_OK):
        raise PackageError("cannot be written to", where=str(path), todo="choose another folder")


def save(path: Path, data: bytes) -> None:
    """Writes to a temporary name, then renames: never half a file."""
    tmp = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tmp.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        tmp.replace(path)
    except OSError as e:
        with contextlib.suppress(OSError):
            tmp.unlink(missing_ok=True)
        raise PackageError(
            f"cannot write: {e.strerror}",
            where=str(path),
            todo="free space or choose another folder",
        ) from e

"""Writes .ekp packages: native/src/format.h and native/FORMAT.md in Python.

The same graph gives the same bytes.  Offsets of tensors count 16 bytes, of sections 64.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit import ops
from edgekit.errors import PackageError
from edgekit.ir import NUMPY, Array, Graph, Op, Tensor
from edgekit.layout import Variant
from edgekit.plan import Plan, up

MAGIC, MAJOR, MINOR = 0x1A504B45, 1, 0
UNIT, UNIT_FILE, NONE = 16, 64, 0xFFFFFFFF
DTYPES = {"f32": 0, "i8": 1, "u8": 2, "i16": 3, "i32": 4, "i64": 5, "bool": 6, "i4": 9, "i2": 10}
DTYPES["packed"] = 11
KIND_CONST, KIND_MAIN, KIND_STATE = 0, 1, 3
CRITICAL = {"STRS", "TENS", "VARI", "REFS", "ATTR", "OPS ", "ENTR", "DATA", "STAT"}
STRIDES = {"TENS": 64, "VARI": 16, "OPS ": 32, "ENTR": 32, "GOLD": 32}
FEATURE_ENCODED = 4  # required by sparse weights
FEATURE_PACKED_BITS = 16  # required by packed weights of 4 or 2 bits
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
    vari: bytearray = field(default_factory=bytearray)
    refs: list[int] = field(default_factory=list)
    attr: bytearray = field(default_factory=bytearray)
    ops: bytearray = field(default_factory=bytearray)
    entr: bytearray = field(default_factory=bytearray)
    stat: bytearray = field(default_factory=bytearray)
    state_at: dict[str, int] = field(default_factory=dict)
    required: int = 0  # feature bits

    def string(self, s: str) -> int:
        text = s.encode("utf-8", "replace").replace(b"\0", b"?")[:95]
        key = text.decode("utf-8", "ignore")
        if key not in self.str_at:
            self.str_at[key] = len(self.strs)
            self.strs += key.encode() + b"\0"
        return self.str_at[key]

    def tensor(self, t: Tensor, kind: int, offset: int) -> None:
        quant = t.quant if t.quant is not None and t.quant.axis is None else None
        dims = (*t.shape, *([0] * (8 - len(t.shape))))
        if len(t.shape) > 8:
            raise PackageError(f"{t.name!r} has rank {len(t.shape)}, 8 is the most")
        variant0 = len(self.vari) // 16
        for v in t.variants:
            self.variant(v)
        nbytes = 0 if t.dtype == "packed" else t.nbytes
        scale, zero = (float(quant.scale), int(quant.zero)) if quant else (0.0, 0)
        head = (self.string(t.name), DTYPES[t.dtype], len(t.shape), kind, int(quant is not None))
        tail = (scale, zero, len(t.variants), 0, variant0)
        self.tens += struct.pack("<IBBBBII8IfiHHI", *head, offset, nbytes, *dims, *tail)

    def variant(self, v: Variant) -> None:
        la = v.layout
        place = (self.data.add(v.blob), len(v.blob), la.encoding)
        if la.encoding:
            self.required |= FEATURE_ENCODED
        if v.dtype in ("i4", "i2"):
            self.required |= FEATURE_PACKED_BITS
        self.vari += struct.pack("<BBBBIII", la.nr, la.kr, la.xoff, DTYPES[v.dtype], *place)

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
        if t.data is not None:
            return KIND_CONST, self.data.add(np.ascontiguousarray(t.data).tobytes())
        return KIND_MAIN, plan.offsets[t.name] // UNIT

    def entry(self, name: str, g: Graph, plan: Plan) -> None:
        index: dict[str, int] = {}
        for t in g.tensors.values():
            index[t.name] = len(self.tens) // 64
            self.tensor(t, *self.place(t, g, plan))
        op0 = len(self.ops) // 32
        for op, scratch in zip(g.ops, plan.scratch, strict=True):
            self.op(op, g, plan, index, scratch)
        refs = len(self.refs)
        self.refs += [index[n] for n in (*g.inputs, *g.outputs)]
        span = (op0, len(self.ops) // 32 - op0, refs, len(g.inputs), len(g.outputs))
        self.entr += struct.pack("<IIIIHH3I", self.string(name), *span, 0, 0, 0)

    def op(self, op: Op, g: Graph, plan: Plan, index: dict[str, int], scratch: int) -> None:
        d = ops.get(op.type)
        attr = d.pack(op.attrs)
        operands = (len(self.refs), len(op.inputs), len(op.outputs))
        self.refs += [index[n] if n else NONE for n in (*op.inputs, *op.outputs)]
        flags = int(d.exact(op, g)) | _grants(op, g, plan) << 8
        tail = (len(self.attr), len(attr), scratch, flags)
        self.ops += struct.pack(
            "<IHHIHHIIII", self.string(op.name), d.code, d.version, *operands, *tail
        )
        self.attr += attr


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
    for name, g, plan in entries:
        w.entry(name, g, plan)
    gold, gdat = _goldens(goldens or [])
    sections = {
        "TENS": bytes(w.tens),
        "VARI": bytes(w.vari),
        "REFS": np.asarray(w.refs, "<u4").tobytes(),
        "ATTR": bytes(w.attr),
        "OPS ": bytes(w.ops),
        "ENTR": bytes(w.entr),
        "STRS": bytes(w.strs),
        "DATA": bytes(w.data.data),
        "STAT": bytes(w.stat),
        "GOLD": gold,
        "GDAT": gdat,
        "META": json.dumps(meta, sort_keys=True, separators=(",", ":")).encode(),
    }
    plans = [p for _, _, p in entries]
    main, scratch = max(p.main_bytes for p in plans), max(p.scratch_bytes for p in plans)
    return _assemble(
        [(k, d) for k, d in sections.items() if d or k in ("REFS", "ATTR")],
        [0, main, 0, len(w.stat), scratch],
        model_id,
        rollback,
        w.required,
    )


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
        gold += struct.pack("<IIIIIfII", g.entry, g.seed, *place, int(g.exact), g.tolerance, 0, 0)
        gdat += data
    return bytes(gold), bytes(gdat)


def _assemble(
    sections: list[tuple[str, bytes]],
    mem: list[int],
    model_id: bytes,
    rollback: int,
    required: int = 0,
) -> bytes:
    at = up(128 + 32 * len(sections), UNIT_FILE)
    table, body = bytearray(), bytearray()
    for kind, data in sections:
        what = (kind.encode(), int(kind in CRITICAL), at // UNIT_FILE, STRIDES.get(kind, 0))
        table += struct.pack("<4sIIIQII", *what, len(data), zlib.crc32(data), 0)
        padded = data + b"\0" * (-len(data) % UNIT_FILE)
        body += padded
        at += len(padded)

    def header(crc: int) -> bytes:
        head = (
            MAGIC,
            MAJOR,
            MINOR,
            required,
            0,
            at,
            len(sections),
            crc,
            *(m // UNIT for m in mem),
            0,
        )
        tail = (rollback, model_id.ljust(32, b"\0")[:32], b"")
        return struct.pack("<IHHIIQII5IIQ32s32s", *head, *tail)

    crc = zlib.crc32(bytes(table), zlib.crc32(header(0)))
    front = header(crc) + bytes(table)
    return front + b"\0" * (-len(front) % UNIT_FILE) + bytes(body)


def reassemble(data: bytes, parts: dict[str, bytes]) -> bytes:
    """A package with the header fields of ``data`` and other sections, checksums made again."""
    (required,) = struct.unpack_from("<I", data, 8)
    mem = [m * UNIT for m in struct.unpack_from("<5I", data, 32)]
    rollback, model_id = struct.unpack_from("<Q32s", data, 56)
    return _assemble(list(parts.items()), mem, model_id, rollback, required)


def sections(data: bytes) -> dict[str, bytes]:
    """Name -> bytes of every section; PackageError where the header is not one."""
    if len(data) < 128 or struct.unpack_from("<I", data)[0] != MAGIC:
        raise PackageError(
            "not an EdgeKit package", todo="give a .ekp file written by `edgekit build`"
        )
    n = struct.unpack_from("<I", data, 24)[0]
    out: dict[str, bytes] = {}
    for i in range(n):
        if 128 + 32 * (i + 1) > len(data):
            raise PackageError("the package is truncated", todo="copy it again")
        kind, _, offset, _, size, _, _ = struct.unpack_from("<4sIIIQII", data, 128 + 32 * i)
        if offset * UNIT_FILE + size > len(data):
            raise PackageError("the package is truncated", todo="copy it again")
        out[kind.decode("ascii", "replace")] = data[offset * UNIT_FILE : offset * UNIT_FILE + size]
    return out


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

"""Reads .ekp packages back: sections, tables, and the lowered graph of every entry.

The native loader is the judge of what may run (`edgekit_runtime.verify`, `Session`); this reader is
for people and for `explain`.  native/FORMAT.md describes the bytes.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit import compact, layout, ops, package
from edgekit.errors import PackageError
from edgekit.ir import NUMPY, Graph, Op, QuantSpec, Tensor
from edgekit.layout import Layout, Variant
from edgekit.ops.base import OpDef

DTYPES = {code: name for name, code in package.DTYPES.items()}
MEMORIES = ("session", "main", "fast", "state", "scratch")
_STRUCT = {"u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "f32": "f"}


@dataclass(frozen=True)
class Section:
    """One section: four-letter kind, offset (None: packed in UNPK) and length in bytes, whether its
    CRC is right."""

    kind: str
    offset: int | None
    bytes: int
    critical: bool
    intact: bool


@dataclass(frozen=True)
class Entry:
    """One entry point as the lowered graph it runs.

    `offsets`: tensor name -> bytes from the start of its memory.  `memory`: tensor name -> "const",
    "main", "fast" or "state".  `scratch`, `attr_bytes`: bytes per op.  `exact`: per op.
    """

    name: str
    graph: Graph
    offsets: dict[str, int]
    memory: dict[str, str]
    scratch: tuple[int, ...]
    attr_bytes: tuple[int, ...]
    exact: tuple[bool, ...]


@dataclass(frozen=True)
class Contents:
    """A package taken apart; `memory` is bytes per kind as the header states them (session: of
    constants that it unpacks)."""

    version: str
    file_bytes: int
    model_id: str
    rollback: int
    memory: dict[str, int]
    sections: tuple[Section, ...]
    entries: tuple[Entry, ...]
    goldens: int
    meta: dict[str, Any]


def read(data: bytes, where: str = "package") -> Contents:
    """Takes a package apart.  PackageError where it is not one or its tables do not add up."""
    try:
        return _read(data)
    except PackageError as e:
        raise PackageError(e.what, where=e.where or where, todo=e.todo) from None
    except (struct.error, IndexError, KeyError, ValueError, UnicodeDecodeError) as e:
        raise PackageError(
            f"its tables do not add up ({e})", where=where, todo="copy or build it again"
        ) from None


def _read(data: bytes) -> Contents:
    parts, stored = package.sections(data), package.stored(data)
    _, major, minor, _, _, size, count, _, *mem = struct.unpack_from("<IHHIIQII5I", data)
    rollback, model_id = struct.unpack_from("<Q32s", data, 56)
    found = []
    for i in range(count):
        kind, flags, at, _, length, crc, _ = struct.unpack_from(
            "<4sIIIQII", data, package.HEADER + package.RECORD * i
        )
        name = kind.decode("ascii", "replace")
        part, begin = stored[name], at * package.UNIT
        intact = zlib.crc32(parts[name] if part is None else part) == crc
        place = None if part is None else begin
        found.append(Section(name, place, length, bool(flags & 1), intact))
    placed = bool(package.required(data) & package.FEATURE_PLACED_SCRATCH)
    sizes = {k: m * package.UNIT for k, m in zip(MEMORIES, mem, strict=True)}
    tables = _Tables(parts, package.strides(data), placed)
    meta = json.loads(parts.get("META", b"{}"))
    return Contents(
        version=f"{major}.{minor}",
        file_bytes=size,
        model_id=model_id.hex(),
        rollback=rollback,
        memory={k: 0 if placed and k == "scratch" else m for k, m in sizes.items()},
        sections=tuple(found),
        entries=tuple(tables.entry(i) for i in range(tables.count("ENTR"))),
        goldens=tables.count("GOLD"),
        meta=meta if isinstance(meta, dict) else {},
    )


class _Tables:
    """The record tables of a package and how they refer to each other."""

    def __init__(self, parts: dict[str, bytes], strides: dict[str, int], placed: bool) -> None:
        self.parts, self.strides, self.placed = parts, strides, placed
        few = parts.get("UNPK")
        self.unpacked = compact.unpack(few) if few else {}
        self.defs = {(d.code, d.version): d for d in ops.table().values()}

    def count(self, kind: str) -> int:
        stride = self.strides.get(kind, 0)
        return len(self.parts.get(kind, b"")) // stride if stride else 0

    def record(self, kind: str, fmt: str, index: int) -> tuple[Any, ...]:
        if not 0 <= index < self.count(kind):
            raise PackageError(f"record {index} of {kind} is out of range")
        return struct.unpack_from(fmt, self.parts[kind], index * self.strides[kind])

    def string(self, at: int) -> str:
        strs = self.parts["STRS"]
        return strs[at : strs.index(b"\0", at)].decode("utf-8", "replace")

    def refs(self, at: int, n: int) -> list[int]:
        size = self.strides["REFS"]
        found = struct.unpack_from(
            f"<{n}{'H' if size == 2 else 'I'}", self.parts["REFS"], size * at
        )
        return [package.NONE if size == 2 and r == 0xFFFF else r for r in found]

    def name(self, tensor: int) -> str:
        """Name of a tensor, made up where the package has none."""
        names = self.parts.get("NAME", b"")
        known = 4 * tensor < len(names)
        name = self.string(struct.unpack_from("<I", names, 4 * tensor)[0]) if known else ""
        return name or f"tensor{tensor}"

    def op_name(self, op: int) -> str:
        """Name of an op, "" where the package has none."""
        if self.strides["OPS "] < package.STRIDES["OPS "]:
            return ""
        return self.string(self.record("OPS ", package.OP, op)[-1])

    def variants(self, first: int, n: int) -> tuple[Variant, ...]:
        out = []
        plain = self.strides["VARI"] <= package.PLAIN_VARIANT
        fmt = package.VARIANT[:-1] if plain else package.VARIANT
        for i in range(first, first + n):
            nr, kr, xoff, dtype, at, size, *tail = self.record("VARI", fmt, i)
            encoding = tail[0] if tail else 0
            begin, kind, segment = at * package.UNIT, encoding & 0xFF, b""
            blob = self.parts.get("DATA", b"")[begin : begin + size]
            if kind == layout.UNPACKED:
                segment, blob = self.unpacked[begin][0], b""
            elif kind == layout.APART:
                segment, encoding = self.unpacked[(encoding >> 8) * package.UNIT][0], kind
            form = Layout(nr, kr, xoff, encoding)
            out.append(Variant(form, DTYPES[dtype], blob, segment))
        return tuple(out)

    def tensor(self, index: int) -> tuple[Tensor, str, int]:
        """(tensor, memory, offset in bytes)."""
        offset, word, dtype, rank, place, variants = self.record("TENS", package.TENSOR, index)
        shape = struct.unpack_from(f"<{rank}I", self.parts["WORD"], 4 * word)
        quant = None
        if place & package.QUANTIZED:
            spec = struct.unpack_from("<fi", self.parts["WORD"], 4 * (word + rank))
            quant = QuantSpec.per_tensor(*spec)
        memory = {0: "const", 1: "main", 2: "fast", 3: "state"}[place & 15]
        packed = DTYPES[dtype] == "packed"
        at = 0 if packed else offset * package.UNIT
        data, forms = None, tuple[Variant, ...]()
        source = {"const": "DATA", "state": "STAT"}.get(memory)
        if source and not packed:
            kind = np.dtype(NUMPY[DTYPES[dtype]])
            count = int(np.prod(shape, dtype=np.int64))
            if place & package.UNPACKED:
                segment, grown = self.unpacked[at]
                data = np.frombuffer(grown, kind, count).reshape(shape)
                form = Layout(1, 1, 0, layout.UNPACKED)
                forms = (Variant(form, DTYPES[dtype], b"", segment),)
            else:
                data = np.frombuffer(self.parts[source], kind, count, at).reshape(shape)
        layouts = self.variants(offset, variants) if packed else forms
        return Tensor(self.name(index), shape, DTYPES[dtype], data, quant, layouts), memory, at

    def attrs(self, definition: OpDef, at: int) -> dict[str, Any]:
        """Attributes from their C structure: the inverse of OpDef.pack."""
        raw = self.parts["ATTR"][at:]
        out: dict[str, Any] = {f.name: f.default for f in definition.fields if f.host}
        pos = 0
        for f in definition.c_fields:
            item = f.nbytes // f.count
            pos += -pos % item
            values = struct.unpack_from(f"<{f.count}{_STRUCT[f.type]}", raw, pos)
            pos += f.nbytes
            value: Any = values[0] if f.count == 1 else values
            out[f.name] = f.choices[value] if f.choices else value
        return out

    def entry(self, index: int) -> Entry:
        name, op0, n, refs, ins, outs = self.record("ENTR", package.ENTRY, index)
        g = Graph(self.string(name))
        offsets: dict[str, int] = {}
        memory: dict[str, str] = {}
        seen: dict[int, str] = {package.NONE: ""}

        def names(indices: list[int]) -> tuple[str, ...]:
            for i in indices:
                if i in seen:
                    continue
                t, where, at = self.tensor(i)
                seen[i] = g.add_tensor(
                    t if t.name not in g.tensors else _renamed(t, g.unique(t.name))
                )
                offsets[seen[i]], memory[seen[i]] = at, where
                if where == "state":
                    g.states.append(seen[i])
            return tuple(seen[i] for i in indices)

        io = names(self.refs(refs, ins + outs))
        g.inputs, g.outputs = list(io[:ins]), list(io[ins:])
        scratch, attr_bytes, exact = [], [], []
        for i in range(op0, op0 + n):
            code, version, n_out, n_in, flags, at, attr, work = self.record(
                "OPS ", package.OP[:-1], i
            )
            definition = self.defs.get((code, version))
            if definition is None:
                theirs = "it is an op of somebody's own: load its file first (edgekit.ops.load)"
                raise PackageError(
                    f"op code {code} version {version} is not known",
                    todo=theirs if code >= ops.OWN else "update edgekit",
                )
            operands = names(self.refs(at, n_in + n_out))
            attrs = self.attrs(definition, attr)
            g.ops.append(
                Op(definition.name, self.op_name(i), operands[:n_in], operands[n_in:], attrs)
            )
            scratch.append((work & 0xFFFF) * package.UNIT if self.placed else work)
            attr_bytes.append(len(definition.pack(attrs)))
            exact.append(bool(flags & 1))
        return Entry(g.name, g, offsets, memory, tuple(scratch), tuple(attr_bytes), tuple(exact))


def _renamed(t: Tensor, name: str) -> Tensor:
    return Tensor(name, t.shape, t.dtype, t.data, t.quant, t.variants)

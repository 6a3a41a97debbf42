"""What a package costs on a board before it is flashed: kernels, bytes, arena map, MACs.

On this machine the runtime itself says whose kernel runs.  For other boards it is predicted from
the board's ISA list, from the slots each folder native/kernels/<isa> paints over, and from the
weight layouts that the package holds.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from edgekit_runtime import OpInfo, Session, cpu_isas
from edgekit_runtime import memory as arena_size

from edgekit import cost, layout, ops, paths, plan
from edgekit.boards import Board
from edgekit.contents import Contents, Entry
from edgekit.cost import Estimate
from edgekit.ir import Graph, Op, Tensor

NO_SLOT = 255
AMPLE_KIB = 16 * 1024
ARENA_ROWS = 16
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class OpCost:
    """One op on the board.

    `kernel` is the slot of native/src/kernels.h ("" = the op's own loops), `isa` whose function
    fills it, `why` the reason where that is not the board's best ISA.  Bytes: constants and records
    in the package, outputs and scratch (one thread) in RAM.  `cycles` are estimated
    (edgekit/cost.py), None where no emulated core stands for the board's.
    """

    index: int
    entry: str
    name: str
    type: str
    shape: tuple[int, ...]
    dtype: str
    kernel: str
    isa: str
    why: str
    exact: bool
    macs: int
    flash_bytes: int
    output_bytes: int
    scratch_bytes: int
    cycles: int | None


@dataclass(frozen=True)
class Place:
    """A tensor in the arena: offset, bytes, first and last op index that needs it (-1 = before the
    run)."""

    name: str
    offset: int
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class Explained:
    """The report.  `memory`: bytes per kind, session as this machine's build counts it (the most it
    can be), of which `unpacked` are constants that it unpacks when it opens."""

    board: str
    predicted: bool
    isas: tuple[str, ...]
    ops: tuple[OpCost, ...]
    arena: dict[str, tuple[Place, ...]]
    memory: dict[str, int]
    unpacked: int
    flash_bytes: int
    macs: int
    exact_until: str
    estimates: tuple[Estimate, ...]

    @property
    def ram_bytes(self) -> int:
        """All memories of one session with one thread, without stack."""
        return sum(self.memory.values())


def explain(data: bytes, contents: Contents, board: Board) -> Explained:
    """What a package (its bytes and what `contents.read` made of them) costs on a board.

    Raises EdgeKitRuntimeError where the native loader refuses the package.
    """
    here = board.system == "host"
    with Session(data, isa=[]) as s:
        slots, memory = s.ops(), s.memory
    if here:
        with Session(data) as s:
            real = s.ops()
    isas = tuple(cpu_isas()) if here else board.isa
    found = []
    index = 0
    estimates = []
    for entry in contents.entries:
        estimate = cost.predict(entry.graph, board)
        estimates += [estimate] if estimate else []
        for i in range(len(entry.graph.ops)):
            isa, why = choose(slots[index], entry, i, isas)
            if here:
                isa, why = (
                    real[index].isa,
                    why if isa == real[index].isa else _unexpected(real[index]),
                )
            cycles = estimate.ops[i].cycles if estimate else None
            found.append(_cost(entry, i, index, slots[index].kernel, isa, why, cycles))
            index += 1
    return Explained(
        board=board.id,
        predicted=not here,
        isas=isas,
        ops=tuple(found),
        arena={e.name: arena(e) for e in contents.entries},
        memory=memory,
        unpacked=contents.memory["session"],
        flash_bytes=len(data),
        macs=sum(o.macs for o in found),
        exact_until=next((o.name for o in found if not o.exact), ""),
        estimates=tuple(estimates),
    )


def _unexpected(op: OpInfo) -> str:
    return f"the runtime chose {op.isa}"


def _cost(
    entry: Entry, i: int, index: int, slot: int, isa: str, why: str, cycles: int | None
) -> OpCost:
    g, op = entry.graph, entry.graph.ops[i]
    first = g.tensors[op.outputs[0]]
    consts = [g.tensors[n] for n in op.inputs if n and entry.memory[n] == "const"]
    records = 24 + entry.attr_bytes[i] + 4 * (len(op.inputs) + len(op.outputs))
    return OpCost(
        index=index,
        entry=entry.name,
        name=op.name,
        type=op.type,
        shape=first.shape,
        dtype=first.dtype,
        kernel=slot_names()[slot] if slot < len(slot_names()) else "",
        isa=isa,
        why=why,
        exact=entry.exact[i],
        macs=macs(op, g),
        flash_bytes=records + sum(map(stored, consts)),
        output_bytes=sum(g.tensors[o].nbytes for o in op.outputs),
        scratch_bytes=entry.scratch[i],
        cycles=cycles,
    )


def macs(op: Op, g: Graph) -> int:
    """Multiply-accumulates of one op."""
    return int(ops.get(op.type).macs(op, g))


def stored(t: Tensor) -> int:
    """Bytes of a constant in the package, all its layouts together."""
    return sum(v.stored for v in t.variants) if t.variants else t.nbytes


# ---- kernels ----


@functools.cache
def slot_names() -> tuple[str, ...]:
    """Names of the kernel slots, by number: the enumeration of native/src/kernels.h."""
    text = paths.data("native", "src", "kernels.h").read_text(encoding="utf-8")
    body = re.search(r"enum \{\s*(EK_K_\w+,.*?)EK_K_COUNT", text, re.S)
    assert body is not None, "kernels.h has lost its enumeration"
    return tuple(n.lower() for n in re.findall(r"EK_K_(\w+)", body[1]))


@functools.cache
def isa_slots() -> dict[str, frozenset[str]]:
    """ISA -> the slots its folder paints over, read from its EK_SET lines and its includes'."""
    found = {}
    for isa in layout.isas():
        folder = paths.data("native", "kernels", isa)
        text = "".join(p.read_text(encoding="utf-8") for p in sorted(folder.glob("*.c")))
        for name in sorted(set(re.findall(r'#include "([^"]+)"', text))):
            if (folder / name).is_file():
                text += (folder / name).read_text(encoding="utf-8")
        found[isa] = frozenset(re.findall(r"EK_SET\(\s*\w+\s*,\s*(\w+)\s*,", text))
    return found


def choose(op: OpInfo, entry: Entry, i: int, isas: tuple[str, ...]) -> tuple[str, str]:
    """(ISA whose kernel will run the op, why it is not the best of `isas`)."""
    ranked = [n for n in layout.isas() if n in isas]  # lowest rank first
    if not ranked:
        return "portable", ""
    if op.kernel == NO_SLOT:
        return "portable", "one portable loop for every ISA"
    slot = slot_names()[op.kernel]
    have = [n for n in ranked if slot in isa_slots()[n]]
    if not have:
        return "portable", f"no {' or '.join(reversed(ranked))} kernel for {slot}"
    best = have[-1]
    if not _holds(entry, i, slot, best):
        return "portable", f"the package has no weights in the layout of {best}"
    return best, "" if best == ranked[-1] else f"no {ranked[-1]} kernel for {slot}"


def _holds(entry: Entry, i: int, slot: str, isa: str) -> bool:
    """Whether the op's packed weights come in the layout that the ISA's kernel reads; true without
    weights."""
    facts = layout.isas()[isa]
    wanted = {
        "gemm_s8": facts.s8,
        "gemm_dyn": facts.s8,
        "gemm_f32": layout.Layout(facts.f32_nr, 1),
        "dw_s8": layout.Layout(facts.dw_s8_nr, 1),
        "dw_f32": layout.Layout(facts.dw_f32_nr, 1),
    }.get(slot)
    packed = [t for n in entry.graph.ops[i].inputs if n and (t := entry.graph.tensors[n]).variants]
    if slot == "gemm_sparse":
        sparse = [f for f in (facts.nm, facts.blocks) if f is not None]
        return any(
            v.layout.sparse and any((f.nr, f.kr) == (v.layout.nr, v.layout.kr) for f in sparse)
            for t in packed
            for v in t.variants
        )
    if wanted is None or not packed:
        return True
    loose = slot != "gemm_s8" or wanted.xoff == layout.XOFF_ANY
    return any(
        (v.layout.nr, v.layout.kr, v.layout.pairs) == (wanted.nr, wanted.kr, wanted.pairs)
        and (loose or v.layout.xoff == wanted.xoff)
        for t in packed
        for v in t.variants
    )


# ---- arena ----


def arena(entry: Entry) -> tuple[Place, ...]:
    """Where the entry's activations lie and when, by offset."""
    life = plan.lifetimes(entry.graph)
    places = [
        Place(n, entry.offsets[n], entry.graph.tensors[n].nbytes, first, last)
        for n, (first, last) in life.items()
        if entry.memory.get(n) == "main"
    ]
    return tuple(sorted(places, key=lambda p: (p.first, p.offset)))


def peak(places: tuple[Place, ...], op_count: int) -> tuple[int, int]:
    """(op index, bytes) of the moment with most bytes alive; op -1 is before the run."""
    live = {
        i: sum(p.bytes for p in places if p.first <= i <= p.last) for i in range(-1, op_count + 1)
    }
    at = max(live, key=lambda i: live[i])
    return at, live[at]


def arena_map(places: tuple[Place, ...], op_count: int, size: int, columns: int = 64) -> list[str]:
    """Text picture of the arena: addresses downwards, ops from left to right, one letter per
    tensor.

    A row is size / 16 bytes; a cell shows the tensor that covers most of it, `.` where it is free.
    """
    steps = np.unique(
        np.linspace(0, max(op_count - 1, 0), min(columns, max(op_count, 1))).astype(int)
    )
    wide = max(columns // 2 // len(steps), 1)
    row_bytes = max(-(-size // ARENA_ROWS), 1)
    lines = []
    for r in range(-(-size // row_bytes)):
        lo, hi = r * row_bytes, (r + 1) * row_bytes
        cells = ""
        for step in steps:
            cover = [
                (min(hi, p.offset + p.bytes) - max(lo, p.offset), i)
                for i, p in enumerate(places)
                if p.first <= step <= p.last
            ]
            top = max(cover, default=(0, 0))
            cells += wide * (LETTERS[top[1] % len(LETTERS)] if top[0] > 0 else ".")
        lines.append(f"{lo:>9,} {cells}")
    return lines


def facts(e: Explained) -> dict[str, Any]:
    """The report as plain data, for --json."""
    return {
        "board": e.board,
        "predicted": e.predicted,
        "isas": list(e.isas),
        "flash_bytes": e.flash_bytes,
        "ram_bytes": e.ram_bytes,
        "memory": e.memory,
        "unpacked_bytes": e.unpacked,
        "macs": e.macs,
        "exact_until": e.exact_until or None,
        "estimates": [cost.facts(x) for x in e.estimates],
        "ops": [vars(o) | {"shape": list(o.shape)} for o in e.ops],
        "arena": {k: [vars(p) for p in v] for k, v in e.arena.items()},
    }


# ---- does it fit ----


@dataclass(frozen=True)
class Needs:
    """Bytes a board must have: the runtime's code (None: not known here, and why), the package, all
    RAM."""

    code: int | None
    code_note: str
    package: int
    memory: dict[str, int]
    stack: int

    @property
    def flash(self) -> int:
        return self.package + (self.code or 0)

    @property
    def ram(self) -> int:
        return sum(self.memory.values()) + self.stack


def needs(data: bytes, board: Board) -> Needs:
    """What a package needs on a board.  On a bare board the runtime's code is linked to be counted
    exactly."""
    memory = arena_size(data)
    code, note = _code_bytes(board) if board.bare else (None, "storage is not the limit")
    return Needs(code, note, len(data), memory, board.stack_kib * 1024 if board.bare else 0)


def _code_bytes(board: Board) -> tuple[int | None, str]:
    """The runtime's bytes of flash; linked for ample memory, as it may be what does not fit."""
    from edgekit import toolchain
    from edgekit.errors import ToolchainError

    ample = tuple(dataclasses.replace(b, size_kib=AMPLE_KIB) for b in board.memory)
    try:
        elf = toolchain.firmware(dataclasses.replace(board, memory=ample), "selftest")
        sections = toolchain.section_sizes(elf)
    except ToolchainError as e:
        return None, e.what
    in_ram = (".bss", ".stack", ".package")
    code = sum(n for name, n in sections.items() if not name.startswith(in_ram))
    return code, "linked for this board"

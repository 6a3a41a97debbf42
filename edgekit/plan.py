"""The static memory plan: where every tensor lies, in exact bytes, before anything runs.

Tensors that never live at the same time share memory.  An op marked `inplace` may write its output
over an input that dies there.  Boards without a system run one op at a time, so there an op's
scratch is placed in the arena like a tensor that lives for that op.  Several orders of
placement are tried, best fit first; the result is compared with the largest live set, which no plan
of the same order of ops can beat.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgekit import ops
from edgekit.errors import PackageError
from edgekit.ir import Graph
from edgekit.layout import Target

ALIGN = 16
PLACED = 1 << 20  # bytes of an arena in which the format can place scratch


@dataclass(frozen=True)
class Buffer:
    """A block of the arena: its tensors (in-place chains), bytes, first and last op index alive."""

    names: tuple[str, ...]
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class Plan:
    """Offsets in bytes per tensor, sizes per memory kind, and what bounds them.

    `live_bytes` is the largest sum of bytes alive at one op: no plan for this order can be smaller.
    `scratch_at`: where each op's scratch lies in the arena; empty where it is memory of its own.
    """

    offsets: dict[str, int]
    main_bytes: int
    state_offsets: dict[str, int]
    state_bytes: int
    scratch: tuple[int, ...]  # per op, per thread
    live_bytes: int
    buffers: tuple[Buffer, ...]
    scratch_at: tuple[int, ...] = ()

    @property
    def scratch_bytes(self) -> int:
        return max(self.scratch, default=0)


def up(n: int, to: int = ALIGN) -> int:
    """n rounded up to a multiple."""
    return -(-n // to) * to


def lifetimes(g: Graph, keep: bool = False) -> dict[str, tuple[int, int]]:
    """First and last op index of every activation.  Inputs live from -1; outputs to the end.

    Inputs stay untouched until their last reader: who runs again writes them again.
    `keep`: everything lives to the end, for looking at intermediate values.
    """
    end = len(g.ops)
    first: dict[str, int] = dict.fromkeys(g.inputs, -1)
    last: dict[str, int] = dict.fromkeys(g.inputs, -1)
    for i, op in enumerate(g.ops):
        for o in op.outputs:
            o = root(g, o)[0]
            first[o] = min(first.get(o, i), i)
            last[o] = i
        for n in op.inputs:
            n = root(g, n)[0]
            if n in first:
                last[n] = i
    for n in g.outputs:
        if n in last:
            last[n] = end
    for n in first:
        last[n] = end if keep else max(last[n], first[n])
    return {n: (first[n], last[n]) for n in first if n not in g.states}


def root(g: Graph, name: str) -> tuple[str, int]:
    """The tensor that a view lies in, itself where it is none, and at which byte."""
    at = 0
    while name in g.views:
        name, more = g.views[name]
        at += more
    return name, at


def buffers(g: Graph, keep: bool = False) -> list[Buffer]:
    """Tensors joined by in-place ops, with the union of their lifetimes."""
    life = lifetimes(g, keep)
    owner = {n: n for n in life}
    span = {n: list(life[n]) for n in life}
    for i, op in enumerate(g.ops):
        definition = ops.get(op.type)
        out = op.outputs[0]
        if keep or not definition.inplace or out not in life:  # a state has a place of its own
            continue
        for k in definition.inplace:
            if k >= len(op.inputs) or op.inputs[k] not in life:
                continue
            src = op.inputs[k]
            held = owner[src]
            same = g.tensors[src].nbytes == g.tensors[out].nbytes
            if not same or span[held][1] != i or op.inputs.count(src) > 1 or src in g.outputs:
                continue
            owner[out] = held
            span[held][1] = life[out][1]
            span.pop(out, None)
            break
    groups: dict[str, list[str]] = {}
    for n, held in owner.items():
        groups.setdefault(held, []).append(n)
    return [
        Buffer(
            tuple(names), up(max(g.tensors[n].nbytes for n in names)), span[held][0], span[held][1]
        )
        for held, names in groups.items()
    ]


def _place(order: list[Buffer]) -> tuple[int, dict[Buffer, int]]:
    """Each buffer at the lowest offset free during its life, best fit among the gaps."""
    placed: list[tuple[int, Buffer]] = []
    at: dict[Buffer, int] = {}
    top = 0
    for b in order:
        busy = sorted(
            (o, o + p.bytes) for o, p in placed if p.first <= b.last and b.first <= p.last
        )
        best, best_gap, cursor = -1, -1, 0
        for lo, hi in busy:
            gap = lo - cursor
            if gap >= b.bytes and (best < 0 or gap < best_gap):
                best, best_gap = cursor, gap
            cursor = max(cursor, hi)
        if best < 0:
            best = cursor
        at[b] = best
        placed.append((best, b))
        top = max(top, best + b.bytes)
    return top, at


def live_set(bufs: list[Buffer], ops_count: int) -> int:
    """Largest sum of bytes alive at one op (bytes)."""
    return max(
        (sum(b.bytes for b in bufs if b.first <= i <= b.last) for i in range(-1, ops_count + 1)),
        default=0,
    )


def arrange(bufs: list[Buffer], floor: int) -> tuple[int, dict[Buffer, int]]:
    """The best of several placement orders and a seeded local search; stops at the floor."""
    orders = [
        sorted(bufs, key=lambda b: (-b.bytes, b.first)),
        sorted(bufs, key=lambda b: (b.first, -b.bytes)),
        sorted(bufs, key=lambda b: (-(b.last - b.first), -b.bytes)),
        sorted(bufs, key=lambda b: (-b.bytes * (b.last - b.first + 1), b.first)),
    ]
    best = min((_place(o) for o in orders), key=lambda r: r[0])
    rng = random.Random(1)
    order = orders[0]
    tries = 0 if best[0] <= floor else min(400, 40_000 // max(1, len(bufs)))
    for _ in range(tries):
        i, j = rng.randrange(len(order)), rng.randrange(len(order))
        trial = list(order)
        trial.insert(j, trial.pop(i))
        result = _place(trial)
        if result[0] <= best[0]:
            best, order = result, trial
        if best[0] <= floor:
            break
    return best


def make(g: Graph, target: Target, *, keep: bool = False) -> Plan:
    """Plans the memory of a lowered graph.

    `keep` gives every tensor its own place, so that all of them can be read after a run.
    """
    bufs = buffers(g, keep)
    scratch = tuple(scratches(g, target))
    rooms = workspaces(scratch, target)
    floor = live_set([*bufs, *rooms], len(g.ops))
    top, at = arrange([*bufs, *rooms], floor)
    if rooms and top > PLACED:
        floor, rooms = live_set(bufs, len(g.ops)), []
        top, at = arrange(bufs, floor)
    offsets = {n: at[b] for b in bufs for n in b.names}
    offsets |= {n: offsets[root(g, n)[0]] + root(g, n)[1] for n in g.views}
    state_offsets: dict[str, int] = {}
    state = 0
    for n in g.states:
        state_offsets[n] = state
        state += up(g.tensors[n].nbytes)
    places = {b.first: at[b] for b in rooms}
    scratch_at = tuple(places.get(i, 0) for i in range(len(g.ops))) if rooms else ()
    plan = Plan(offsets, top, state_offsets, state, scratch, floor, tuple(bufs), scratch_at)
    check(plan)
    return plan


def scratches(g: Graph, target: Target) -> Iterator[int]:
    """Bytes of scratch per op of a lowered graph and per thread."""
    for op in g.ops:
        definition = ops.get(op.type)
        yield up(definition.scratch(op, g, target)) if definition.scratch else 0


def workspaces(scratch: Sequence[int], target: Target) -> list[Buffer]:
    """Scratch that lies in the arena, as buffers that live for their op; none on systems, which
    may have threads."""
    return [] if target.linux else [Buffer((), n, i, i) for i, n in enumerate(scratch) if n]


def floor(g: Graph, target: Target) -> int:
    """The largest live set of a lowered graph: what its arena needs at least (bytes)."""
    rooms = workspaces(tuple(scratches(g, target)), target)
    return live_set([*buffers(g), *rooms], len(g.ops))


def check(plan: Plan) -> None:
    """Asserts that no two buffers alive at one time overlap, scratch in the arena included."""
    blocks = [(plan.offsets[b.names[0]], b) for b in plan.buffers]
    for i, (at, size) in enumerate(zip(plan.scratch_at, plan.scratch, strict=False)):
        blocks += [(at, Buffer((f"scratch of op {i}",), size, i, i))] if size else []
    for i, (oa, a) in enumerate(blocks):
        for ob, b in blocks[i + 1 :]:
            apart = oa + a.bytes <= ob or ob + b.bytes <= oa
            if not apart and a.first <= b.last and b.first <= a.last:
                raise PackageError(f"the plan overlaps {a.names[0]!r} and {b.names[0]!r}")

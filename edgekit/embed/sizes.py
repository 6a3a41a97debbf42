"""What a project will need, without a compiler: pieces of code that links of single ops left.

`sizes.json` holds, per core, every piece of code (object and section) that a link for one kind of
op takes, and the stack it painted.  A model's code is the union of its kinds' pieces, its stack the
deepest of theirs.  `python bench/sizes.py` renews it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgekit_runtime import Session

from edgekit import contents
from edgekit.boards import Board
from edgekit.contents import Contents
from edgekit.embed.footprint import FRAME, PARTS, Footprint
from edgekit.embed.project import narrow, zeros
from edgekit.embed.strip import strip
from edgekit.explain import slot_names
from edgekit.ir import Graph, Op


@functools.cache
def table() -> dict[str, Any]:
    """The committed sizes."""
    text = Path(__file__).with_name("sizes.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def core_of(board: Board) -> str:
    """What the compiler is told of a board's core; boards of one core have the same code."""
    return " ".join(board.target.gcc_flags)


def kinds(session: Session, found: Contents) -> list[str]:
    """Kinds of op in a package: type, kernel slot; whether weights have 4 or 2 bits or zero points;
    whether the last block of outputs is a part of one, and whether a linear op has more than one
    row, which kernels treat by themselves."""
    names = slot_names()
    bits, zero = "/narrow" if narrow(found) else "", "/zero" if zeros(found) else ""
    said = []
    every = [(op, e.graph) for e in found.entries for op in e.graph.ops]
    for op, (written, g) in zip(session.ops(), every, strict=True):
        slot = names[op.kernel] if op.kernel < len(names) else ""
        more = zero if op.type == "depthwise_conv2d" else ""
        if op.type in ("conv2d", "conv2d_add", "linear"):
            more = bits + zero + ("/rest" if _rest(written, g) else "")
            more += "/rows" if op.type == "linear" and _rows(written, g) > 1 else ""
        said.append(f"{op.type}/{slot}{more}")
    return list(dict.fromkeys(said))


def _rest(op: Op, g: Graph) -> bool:
    """Whether the outputs of each group are no whole blocks of the weights."""
    n = g.tensors[op.outputs[0]].shape[-1] // int(op.attrs.get("groups", 1))
    return any(n % v.layout.nr for v in g.tensors[op.inputs[1]].variants)


def _rows(op: Op, g: Graph) -> int:
    y = g.tensors[op.outputs[0]]
    return y.size // y.shape[-1]


def _known(kind: str, known: Iterable[str]) -> str:
    """The kind itself, else the one that needs no less: with a rest, more rows or both; else ""."""
    plain = [p for p in kind.split("/") if p not in ("rest", "rows")]
    own = [p for p in ("rest", "rows") if p in kind.split("/")]
    for more in ([], ["rest"], ["rows"], ["rest", "rows"]):
        found = "/".join(plain + [p for p in ("rest", "rows") if p in own + more])
        if found in known:
            return found
    return ""


def predict(data: bytes, board: Board) -> Footprint | str:
    """The footprint of `embed.project` for a package on a bare board, or why it is not known.

    Raises EdgeKitRuntimeError for a package the loader refuses.
    """
    core = table()["cores"].get(core_of(board))
    if core is None:
        return f"no link for this core ({board.core}) is in the table"
    small = strip(data)
    found = contents.read(small)
    with Session(small, isa=[]) as s:
        wanted, memory = kinds(s, found), dict(s.memory)
    unknown = [k for k in wanted if not _known(k, core["kinds"])]
    if unknown:
        return f"no link of {', '.join(unknown)} is in the table"
    wanted = [_known(k, core["kinds"]) for k in wanted]
    memory["session"] = core["session"]
    pieces: dict[str, int] = dict(core["always"])
    for kind in wanted:
        for piece, n in core["kinds"][kind]["pieces"].items():
            pieces[piece] = max(pieces.get(piece, 0), n)
    code = dict.fromkeys(PARTS, 0)
    for piece, n in pieces.items():
        code[piece.split("|")[0]] += n
    code["model"] += 4 * len({k.split("/")[0] for k in wanted})
    weights = next((s.bytes for s in found.sections if s.kind == "DATA"), 0)
    painted = max(core["kinds"][k]["stack"] for k in wanted)
    return Footprint(
        board=board.id,
        compiler=table()["compiler"],
        code=code,
        weights=weights,
        metadata=len(small) - weights,
        memory=memory,
        stack=painted + FRAME,
        stack_painted=None,
        stack_note="predicted: the deepest of its ops, and one interrupt",
        undefined=(),
        flash_there=board.flash_bytes or 0,
        ram_there=board.ram_bytes,
    )

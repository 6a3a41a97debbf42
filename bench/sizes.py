"""Links a project for every kind of op and writes edgekit/embed/sizes.json; several minutes.

    python bench/sizes.py [--core m4,m55] [--kinds conv2d/gemm_s8,reshape/]

Needs arm-none-eabi-gcc and QEMU: the pieces are the linker map's, the stack is painted by a run.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit_runtime import Session

from edgekit import boards, contents, embed, ops, package, pipeline, plan
from edgekit.boards import Board
from edgekit.embed import footprint, sizes
from edgekit.errors import ToolchainError
from edgekit.passes.lower import lower

OUT = Path(sizes.__file__).with_name("sizes.json")
BOARDS = {"m4": "qemu_mps2_an386", "m55": "qemu_mps3_an547"}
MOST = 8  # samples of a kind in one package: its deepest stack is wanted
LARGE = 60_000  # multiply-accumulates; the emulator runs each sample


def packages(board: Board, most: int = MOST) -> dict[str, bytes]:
    """Kind of op -> a package of some of its samples, each with a golden vector."""
    target = pipeline.target_of(board)
    found: dict[str, list[Any]] = {}
    for definition in ops.table().values():
        for _, g, _ in definition.samples():
            if pipeline.macs(g) > LARGE:
                continue
            low = lower(g, target)
            one = package.write([("e", low, plan.make(low, target))], meta={})
            with Session(one, isa=[]) as s:
                kinds = sizes.kinds(s, contents.read(one))
            if len(kinds) == 1:
                found.setdefault(kinds[0], []).append((g, low))
    made = {}
    for kind, cases in found.items():
        some = cases[:: -(-len(cases) // most)]
        entries = [(f"e{i}", low, plan.make(low, target)) for i, (_, low) in enumerate(some)]
        goldens = [
            replace(v, entry=i)
            for i, (g, _) in enumerate(some)
            for v in pipeline.make_goldens(g, target)
        ]
        made[kind] = package.write(entries, meta={}, goldens=goldens)
    return made


def measured(board: Board, only: set[str], old: dict[str, Any]) -> dict[str, Any]:
    """Pieces and stack of every kind on a board, or of those asked for beside the old ones."""
    before = old["kinds"].items() if only else ()
    kinds = {k: v | {"pieces": old["always"] | v["pieces"]} for k, v in before}
    session = 0
    few, many = packages(board, 1), packages(board)
    if only - set(many):
        raise SystemExit(f"{board.id}: no samples of {', '.join(sorted(only - set(many)))}")
    for kind, data in many.items():
        if only and kind not in only:
            continue
        try:
            made = embed.project(data, board, "net")
            pieces, size = footprint.pieces(made)
        except ToolchainError:  # a sample whose noise overflows: its golden vector holds nowhere
            made = embed.project(few[kind], board, "net")
            pieces, size = footprint.pieces(made)
        kinds[kind] = {"stack": size.stack_painted, "pieces": pieces}
        session = made.memory["session"]
        print(f"{board.id:18} {kind:32} {sum(pieces.values()):7,} B stack {size.stack_painted}")
        sys.stdout.flush()
    always = set.intersection(*(set(k["pieces"].items()) for k in kinds.values()))
    for k in kinds.values():
        k["pieces"] = {p: n for p, n in k["pieces"].items() if (p, n) not in always}
    return {"session": session, "always": dict(sorted(always)), "kinds": kinds}


def main() -> int:
    """Renews the file, or the cores asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--core", default=",".join(BOARDS), help="by comma; default all")
    parser.add_argument("--kinds", default="", help="by comma; default all")
    args = parser.parse_args()
    old = json.loads(OUT.read_text()) if OUT.exists() else {"cores": {}}
    for name in args.core.split(","):
        board = boards.load(BOARDS[name])
        core, only = sizes.core_of(board), {k for k in args.kinds.split(",") if k}
        old["cores"][core] = measured(
            board, only, old["cores"].get(core, {"kinds": {}, "always": {}})
        )
        compiler = footprint._compiler(board, "gcc").version
        new = {"made_by": "python bench/sizes.py", "compiler": compiler, "cores": old["cores"]}
        text = json.dumps(new, separators=(",", ":")).replace("},", "},\n")
        OUT.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

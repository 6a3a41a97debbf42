"""`boards` lists the boards, `agent` serves one."""

from __future__ import annotations

import argparse
import os

from edgekit import boards as board_files
from edgekit import console, show
from edgekit.errors import UsageError


def boards(args: argparse.Namespace) -> None:
    import dataclasses

    if args.board:
        board = board_files.load(args.board)
        facts = dataclasses.asdict(board)
        if args.json:
            console.emit(facts)
            return
        rows = [(k, show.flat(v)) for k, v in facts.items() if v not in (None, (), [], "")]
        console.table(board.name, ("", ""), rows)
        return
    found = [board_files.load(i) for i in board_files.ids()]
    if args.json:
        console.emit({"boards": [dataclasses.asdict(b) for b in found]})
        return
    rows_all = [
        (
            b.id,
            b.core,
            f"{b.cores}x",
            ", ".join(b.isa) or "-",
            b.flash_kib,
            b.ram_kib,
            "yes" if b.emulator else "",
        )
        for b in found
    ]
    columns = ("id", "core", ">cores", "ISAs", ">flash KiB", ">RAM KiB", "emulated")
    console.table("", columns, rows_all)


def agent(args: argparse.Namespace) -> None:
    from edgekit.agent.__main__ import run as serve

    if not args.token_file and not os.environ.get("EDGEKIT_TOKEN") and args.listen:
        raise UsageError(
            "an agent on TCP needs a token", todo="give --token-file FILE or set EDGEKIT_TOKEN"
        )
    serve(args)

"""`inspect` and `explain` read what packages hold and cost."""

from __future__ import annotations

import argparse
from typing import Any

from edgekit import boards as board_files
from edgekit import console, contents, show
from edgekit.commands.shared import model_file, read_package
from edgekit.errors import UsageError


def inspect(args: argparse.Namespace) -> None:
    c = contents.read(read_package(args.package), str(args.package))
    if args.json:
        console.emit(show.inspect_facts(args, c))
        return
    meta = ", ".join(f"{k} {v}" for k, v in sorted(c.meta.items()) if v not in ({}, None, ""))
    console.say(
        f"{args.package}: format {c.version}, {c.file_bytes:,} B, {c.goldens} golden vector(s)"
    )
    console.say(f"  {meta}" if meta else "  no metadata")
    memory = ", ".join(f"{k} {v:,} B" for k, v in c.memory.items() if v)
    console.say(f"  memory: {memory} (session: unpacked constants alone; scratch per thread)")
    rows: list[tuple[object, ...]] = [
        (
            s.kind,
            "unpacked" if s.offset is None else s.offset,
            s.bytes,
            "yes" if s.critical else "no",
            "ok" if s.intact else "WRONG",
        )
        for s in c.sections
    ]
    console.table("sections", ("kind", ">offset", ">bytes", "critical", "checksum"), rows)
    for e in c.entries:
        rows = [(role, *show.tensor_row(e.graph.tensors[n])) for role, n in show.ends(e)]
        console.table(f"entry {e.name}", ("", "name", "shape", "type", "scale", "zero"), rows)
        rows = [
            (
                i,
                console.tail(op.name, 32),
                op.type,
                "x".join(map(str, e.graph.tensors[op.outputs[0]].shape)),
                show.attr_text(op.attrs),
            )
            for i, op in enumerate(e.graph.ops)
        ]
        console.table(f"ops of {e.name}", (">", "node", "op", "output", "attributes"), rows)


def explain(args: argparse.Namespace) -> None:
    from edgekit import embed
    from edgekit import explain as costs

    data, board = _source(args)
    if args.link:
        _explain_link(args, data, board)
        return
    c = contents.read(data, str(args.source))
    e = costs.explain(data, c, board)
    f = _predicted(data, board)
    n = costs.needs(data, board) if f is None else _needs(f)
    why = [] if f is None else embed.fit(f)
    if args.report:
        from edgekit import report

        report.save(args.report, report.of_explain(str(args.source), e, n))
    if args.json:
        facts = {
            "code": None if f is None else f.code,
            "fits": None if f is None else not why,
            "change": why,
            "patches": c.meta.get("patches"),
            "flash_bytes": n.flash,
            "code_bytes": n.code,
            "code_note": n.code_note,
            "stack_bytes": n.stack,
        }
        console.emit({**costs.facts(e), **facts, "ram_bytes": n.ram})
        return
    show.explained(str(args.source), e, n, board)
    if "patches" in c.meta:
        console.say(str(c.meta["patches"]))
    if f is not None:
        parts = ", ".join(f"{k} {v:,}" for k, v in f.code.items() if v)
        console.say(f"code predicted: {parts} (`--link` measures)")
        console.say("\n".join(f"does not fit: {w}" for w in why) or "fits")
    if args.report:
        console.say(f"report: {args.report}")


def _predicted(data: bytes, board: board_files.Board) -> Any:
    """The footprint of the project that `build --format c` writes, None where it is not known."""
    from edgekit import embed

    found = embed.predict(data, board) if board.bare else ""
    return None if isinstance(found, str) else found


def _needs(f: Any) -> Any:
    from edgekit import explain as costs

    note = "predicted from links of single ops"
    return costs.Needs(sum(f.code.values()), note, f.weights + f.metadata, f.memory, f.stack)


def _explain_link(args: argparse.Namespace, data: bytes, board: board_files.Board) -> None:
    """What `explain --link` says: the numbers of a real link for a bare board."""
    from edgekit import cost, embed

    if not board.bare:
        raise UsageError(
            f"--link is for boards without an operating system; {board.id} has one",
            todo="give --board ID; `edgekit boards` lists them",
        )
    found = embed.measure(embed.project(data, board, args.source.stem))
    why = embed.fit(found)
    graphs = [e.graph for e in contents.read(data).entries]
    times = [t for t in (cost.predict(g, board) for g in graphs) if t is not None]
    if args.json:
        facts = {**vars(found), "flash_bytes": found.flash, "ram_bytes": found.ram}
        said = {"fits": not why, "change": why, "estimates": [cost.facts(t) for t in times]}
        console.emit({**facts, **said})
        return
    console.say(f"{args.source} on {board.id}")
    show.footprint(embed.rows(found), found)
    for t in times:
        console.say(f"  {cost.text(t)}")
    console.say("\n".join(f"  does not fit: {w}" for w in why) or "  fits")


def _source(args: argparse.Namespace) -> tuple[bytes, board_files.Board]:
    """Package bytes and board; a model is built as it is (float32, or its own integers)."""
    from edgekit import pipeline

    if args.source.suffix == ".ekp":
        data = read_package(args.source)
        board = args.board or contents.read(data, str(args.source)).meta.get("board", "host")
        return data, board_files.load(board)
    model_file(args.source)
    shapes = dict(args.shape) or None
    built = pipeline.build(args.source, board=args.board or "host", shapes=shapes)
    return built.data, built.board

"""`build` and `compress` make packages, `keys` and `sign` sign them."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from typing import Any

from edgekit import boards as board_files
from edgekit import console, contents, ops, package, show
from edgekit.commands.shared import (
    Facts,
    compression_of,
    model_file,
    preprocess_of,
    read_package,
    require_fit,
)
from edgekit.errors import UsageError


def build(args: argparse.Namespace) -> None:
    from edgekit import explain as costs
    from edgekit import pipeline

    if (args.output.suffix == ".ekp") != (args.format == "ekp"):
        raise UsageError(
            f"the output {args.output} "
            + ("does not end in .ekp" if args.format == "ekp" else "must be a folder")
        )
    model_file(args.model)
    if args.ops:
        ops.load(args.ops)
    with console.progress() as progress:
        built = pipeline.build(
            args.model,
            board=args.board,
            arena=args.arena,
            progress=progress,
            **compression_of(args),
        )
        if args.format != "ekp":
            _write_project(args, built)
            return
        wanted = costs.needs(built.data, built.board)
    require_fit(built.board, wanted)
    package.save(args.output, built.data)
    if args.report:
        from edgekit import report

        report.save(
            args.report,
            report.of_build(
                built, costs.explain(built.data, contents.read(built.data), built.board), wanted
            ),
        )
    if args.json:
        console.emit(show.built_facts(args, built, wanted))
        return
    for line in built.log:
        console.say(line)
    show.culprits(built.sqnr)
    console.say(
        f"{args.output}: {len(built.data):,} B for {built.board.id}; {show.needs_text(wanted)}"
    )
    if args.report:
        console.say(f"report: {args.report}")


def _write_project(args: argparse.Namespace, built: Any) -> None:
    """A folder for firmware; what its C project needs is linked and measured where possible."""
    from edgekit import embed

    hooks = [args.ops.with_suffix(".c")] if args.ops else []
    made = embed.project(built.data, built.board, args.output.name, hooks)
    need = f"Package {len(built.data):,} B, RAM {sum(made.memory.values()):,} B and the stack."
    undefined: tuple[str, ...] = ()
    found = embed.measure(made) if built.board.bare else None
    if found:
        _refuse(built.board, found)
        need, undefined = embed.markdown(found), found.undefined
    if args.format == "arduino":
        embed.write(embed.library(made), args.output)
    else:
        embed.write(made, args.output, embed.readme(made, need, undefined))
    if args.json:
        console.emit({"folder": str(args.output), "footprint": vars(found) if found else None})
        return
    kind = "Arduino library" if args.format == "arduino" else "C project"
    console.say(f"{args.output}: {kind} for {built.board.id}")
    if found:
        show.footprint(embed.rows(found), found)


def _refuse(board: board_files.Board, found: Any) -> None:
    """BoardError with what would have to change where a linked project does not fit."""
    from edgekit import embed
    from edgekit.errors import BoardError

    why = embed.fit(found)
    if why:
        raise BoardError("does not fit: " + "; ".join(why), where=board.id)


def compress(args: argparse.Namespace) -> None:
    from edgekit import search
    from edgekit.train import workers

    model_file(args.model)
    if args.train and not args.recipe:
        raise UsageError("--train belongs to --recipe", todo="the search takes --data alone")
    if args.recipe and args.max_cycles:
        raise UsageError("--max-cycles belongs to the search", todo="leave out --recipe")
    options: Facts = {
        "board": args.board,
        "preprocess": preprocess_of(args),
        "shapes": dict(args.shape) or None,
        "test": args.test,
    }
    with console.progress() as progress:
        if args.recipe:
            entries = search.replay(
                args.model, args.data, args.recipe, args.output, training=args.train,
                progress=progress, **options,
            )  # fmt: skip
            if workers.rank():  # of torchrun: number 0 says it all
                return
            if args.json:
                console.emit({"steps": [asdict(e) for e in entries]})
                return
            console.table("", search.LEDGER, search.ledger_rows(entries))
            console.say(f"report: {args.output / 'ledger.html'}")
            return
        try:
            found = search.compress(
                args.model, args.data, max_drop=args.max_drop, max_cycles=args.max_cycles,
                folder=args.output, points=args.points, progress=progress, **options,
            )  # fmt: skip
        except search.InfeasibleError:
            console.say(f"what was tried: {args.output / 'front.html'}")
            raise
    if args.json:
        console.emit(search.facts(found, args.board, args.max_drop))
        return
    console.table("", search.COLUMNS, search.rows(found))
    if found.chosen:
        console.say(f"{found.chosen.name}: {args.output / (found.chosen.name + '.ekp')}")
    console.say(f"report: {args.output / 'front.html'}")


def keys(args: argparse.Namespace) -> None:
    from edgekit import signing

    folder, name = args.output.parent, args.output.name
    secret, public = folder / f"{name}.key", folder / f"{name}.pub"
    if secret.exists() or public.exists():
        raise UsageError(f"{secret} or {public} is there", todo="choose another name")
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    key = signing.new_key()
    with open(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
        f.write(key.hex() + "\n")
    public.write_text(signing.public_key(key).hex() + "\n")
    symbol = "".join(c if c.isalnum() else "_" for c in name) + "_key"
    (folder / f"{name}_key.h").write_text(signing.header(signing.public_key(key), symbol))
    if args.json:
        console.emit({"secret": str(secret), "public": signing.public_key(key).hex()})
        return
    console.say(f"{secret}: keep it secret; {public} and {name}_key.h are for the devices")


def sign(args: argparse.Namespace) -> None:
    from edgekit import signing

    data = read_package(args.package)
    try:
        key = signing.read_key(args.key.read_text(), str(args.key))
    except OSError as e:
        raise UsageError(f"{args.key} cannot be read: {e.strerror}") from None
    signed = signing.sign(data, key, args.rollback)
    output = args.output or args.package
    package.save(output, signed)
    counter = int.from_bytes(signed[56:64], "little")
    if args.json:
        console.emit(
            {"package": str(output), "key": signing.signer(signed).hex(), "rollback": counter}
        )
        return
    console.say(f"{output}: signed by {signing.signer(signed).hex()}, rollback counter {counter}")

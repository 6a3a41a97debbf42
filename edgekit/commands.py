"""What each command of `edgekit` does: read arguments, call the pipeline, print.  One function per
command."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime import Session, TensorInfo, verify

from edgekit import boards as board_files
from edgekit import console, contents, ops, package, show
from edgekit.errors import DataError, PackageError, UsageError
from edgekit.explain import Needs

Facts = dict[str, Any]


def read_package(path: Path) -> bytes:
    """Bytes of a package whose every checksum is right.  Raises PackageError,
    EdgeKitRuntimeError."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise PackageError(
            f"cannot be read: {e.strerror}", where=str(path), todo="check the path"
        ) from None
    verify(path)
    return data


def preprocess_of(args: argparse.Namespace) -> Facts:
    """The preprocessing given on the command line, with the keys packages store."""
    if np.any(np.asarray(1.0 if args.std is None else args.std) == 0):
        raise UsageError("--std is 0", todo="values are divided by it")
    keys = ("scale", "mean", "std", "resize", "layout", "label_offset")
    return {k: getattr(args, k) for k in keys if getattr(args, k) is not None}


def compression_of(args: argparse.Namespace) -> Facts:
    """Arguments of pipeline.build that say how a model is quantized."""
    return {
        "precision": args.precision,
        "calibration": args.calibrate,
        "method": args.method,
        "samples": args.samples,
        "exclude": tuple(args.exclude),
        "shapes": dict(args.shape) or None,
        "io": args.io,
        "preprocess": preprocess_of(args),
    }


# ---- build ----


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


def model_file(path: Path) -> None:
    from edgekit.errors import ModelError

    if not path.is_file():
        raise ModelError("no such file", where=str(path), todo="check the path of the model")


def require_fit(board: board_files.Board, wanted: Needs) -> None:
    """BoardError with the numbers where a package cannot fit."""
    memory = wanted.memory
    board_files.fits(
        board,
        wanted.flash,
        wanted.ram,
        arena_bytes=memory["main"],
        fast_bytes=memory.get("fast", 0),
    )


# ---- inspect ----


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


# ---- explain ----


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


# ---- check ----


def check(args: argparse.Namespace) -> None:
    from edgekit import check as checks

    read_package(args.package)
    if args.layers:
        _layers(args)
        return
    if args.data is None:
        raise UsageError(
            "--data is missing", todo="give a data set, or --layers to compare tensors"
        )
    if bool(args.window) != bool(args.stride):
        raise UsageError("--window and --stride belong together")
    with console.progress() as progress:
        found = checks.accuracy(
            args.package, args.data, model=args.model, metric=args.metric,
            preprocess=preprocess_of(args) or None, limit=args.limit, output=args.output,
            window=args.window, stride=args.stride, shapes=dict(args.shape) or None,
            progress=progress,
        )  # fmt: skip
    if args.report:
        from edgekit import report

        report.save(args.report, report.of_check(str(args.package), found))
    if args.json:
        console.emit(checks.facts(found))
        return
    for line in checks.text(found):
        console.say(line)


def _layers(args: argparse.Namespace) -> None:
    from edgekit import layers

    if args.model:
        model_file(args.model)
    with console.progress() as progress:
        found = layers.compare(
            args.package, model=args.model, source=args.data, options=compression_of(args),
            on=args.on, token=token_of(args.token_file), progress=progress,
        )  # fmt: skip
    if args.json:
        console.emit(layers.facts(found))
    else:
        rows = [
            (
                console.tail(r.op, 26),
                console.tail(r.tensor, 26),
                r.values,
                r.different,
                r.largest,
                r.sqnr_db,
            )
            for r in found.rows
        ]
        columns = ("node", "tensor", ">values", ">different", ">largest", ">SQNR dB")
        console.table(
            f"{args.package} on {found.where}, compared with {found.rows[0].against}", columns, rows
        )
        console.say(found.verdict)
    if not found.equal:
        raise PackageError(found.verdict, where=found.where)


# ---- run ----


def run(args: argparse.Namespace) -> None:
    read_package(args.package)
    with Session(
        args.package,
        threads=args.threads,
        isa=args.isa,
        trace=args.trace,
        preprocess=args.preprocess,
    ) as s:
        entry = int(args.entry) if args.entry.isdigit() else args.entry
        if isinstance(entry, int) and entry >= len(s.entries):
            raise UsageError(f"there is no entry {entry}; the package has {len(s.entries)}")
        outputs = s.run(_input(args.input, s.inputs(entry)), entry)
        infos = {o.name: o for o in s.outputs(entry)}
        trace = s.trace() if args.trace else []
    if args.output:
        _save_arrays(args.output, outputs)
    if args.json:
        facts: Facts = {"outputs": {k: v.tolist() for k, v in outputs.items()}}
        if args.trace:
            facts["trace"] = [vars(t) for t in trace]
        console.emit(facts)
        return
    for name, y in outputs.items():
        real = real_values(y, infos[name])
        line = f"{name} {y.dtype}{list(y.shape)}: min {real.min():.6g}, max {real.max():.6g}"
        console.say(line + (f", largest at {int(real.argmax())}" if real.size > 1 else ""))
    if args.output:
        console.say(f"written: {args.output}")
    if trace:
        rows = [(t.index, console.tail(t.name), t.type, t.isa, t.latency_us) for t in trace]
        console.table("", (">", "node", "op", "ISA", ">us"), rows)


def real_values(y: Any, info: TensorInfo) -> Any:
    """Real numbers of an output, dequantized where it is quantized."""
    x = np.asarray(y).astype(np.float64)
    return (x - info.zero) * info.scale if info.scale else x


def _input(path: Path, infos: list[TensorInfo]) -> Any:
    """What a file holds, for the inputs of an entry."""
    if not path.is_file():
        raise DataError("no such file", where=str(path), todo="check the path of the input")
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as z:
                arrays = {k: z[k] for k in z.files}
            return arrays["x"] if set(arrays) == {"x"} and len(infos) == 1 else arrays
    except Exception as e:  # numpy, zipfile and pickle have error trees of their own
        raise DataError(
            f"cannot be read: {e}", where=str(path), todo="write it with numpy.save or savez"
        ) from None
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as im:
            return np.asarray(im.convert("RGB"))
    except (OSError, UnidentifiedImageError):
        raise DataError("is neither .npy, .npz nor an image", where=str(path)) from None


def _save_arrays(path: Path, arrays: Facts) -> None:
    import io

    if path.suffix != ".npz":
        raise UsageError(f"the output {path} does not end in .npz")
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    package.save(path, buffer.getvalue())


# ---- bench ----


def bench(args: argparse.Namespace) -> None:
    for path in args.package:
        read_package(path)
    if args.on:
        _bench_on(args)
        return
    from edgekit import measure

    for m in args.model:
        model_file(m)
    with console.progress() as progress:
        timings = measure.bench(
            args.package, args.model, threads=args.threads, count=args.n, isa=args.isa,
            shapes=dict(args.shape), progress=progress,
        )  # fmt: skip
    if args.report:
        from edgekit import report

        report.save(args.report, report.of_bench(timings))
    if args.json:
        console.emit({"timings": [measure.facts(t) for t in timings]})
        return
    console.table(
        f"latency in us, {args.threads} thread(s), runtimes interleaved, random inputs",
        measure.COLUMNS,
        [t.row() for t in timings],
    )
    console.say("first inference, load time and memory growth (KiB) come from a fresh process each")


def _bench_on(args: argparse.Namespace) -> None:
    from edgekit import remote_bench

    if args.model:
        raise UsageError("--model runs on this machine and --on elsewhere: use one of them")
    token = token_of(args.token_file)
    found = []
    for path in args.package:
        with reach(args.on, token) as (url, secret):
            mask = isa_mask(args.isa)
            m = remote_bench.bench(
                url, path, token=secret, runs=args.n or 100, threads=args.threads, isa_mask=mask
            )
        found.append((path, m))
    if args.report:
        from edgekit import report

        report.save(args.report, report.of_remote(found))
    if args.json:
        console.emit(
            {"measurements": [{"package": str(p), **show.measured_facts(m)} for p, m in found]}
        )
        return
    for path, m in found:
        show.measurement(path, m)


def token_of(path: Path | None) -> bytes:
    """The token from a file or $EDGEKIT_TOKEN, without the line's end."""
    from edgekit.agent.__main__ import token_of as read

    return read(path)


def isa_mask(isa: list[str] | None) -> int:
    """Bits (1 << isa) of names; 0 stands for all."""
    from edgekit import layout

    if isa is None:
        return 0
    unknown = [i for i in isa if i not in layout.isas()]
    if unknown:
        raise UsageError(
            f"no ISA is named {unknown[0]!r}", todo=f"known: {', '.join(layout.isas())}"
        )
    return sum(1 << layout.isas()[i].id for i in isa) or 1  # bit 0 is no ISA: portable C


def reach(where: str, token: bytes) -> Any:
    """Context manager giving (url, token) of a device; an emulated board is started for the
    block."""
    from edgekit import devices

    return devices.reach(where, token)


# ---- boards, agent ----


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


# ---- keys and sign ----


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

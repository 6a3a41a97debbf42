"""`check`, `run` and `bench` run packages, here or on a device."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime import Session, TensorInfo

from edgekit import console, package, show
from edgekit.commands.shared import (
    Facts,
    compression_of,
    model_file,
    preprocess_of,
    read_package,
    token_of,
)
from edgekit.errors import DataError, PackageError, UsageError


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

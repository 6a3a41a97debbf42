"""The straight line, one function per stage: model -> Graph -> compress -> plan -> package ->
measurement."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime import Session

from edgekit import (
    __version__,
    boards,
    cost,
    data,
    evaluate,
    frontends,
    layout,
    ops,
    package,
    passes,
    patchwise,
    plan,
)
from edgekit.compress import calibrate, groups, sparsify, widths
from edgekit.compress import quantize as quant
from edgekit.compress import sqnr as noise
from edgekit.errors import UsageError
from edgekit.ir import Array, Graph
from edgekit.layout import Target
from edgekit.package import Golden
from edgekit.passes.channels import remove_constant_channels
from edgekit.passes.lower import lower
from edgekit.qmath import LIMITS

PRECISIONS = ("auto", "float32", "int8", "w8a16", "dynamic", "w8", "w4", "w2")
SESSION_BYTES = 1024  # of RAM, at most
GOLDEN_FLOAT_BYTES = 16384  # float outputs a golden vector stores at most
RANGES = {"i8": (-128.0, 127.0), "u8": (0.0, 255.0), "i16": (-32768.0, 32767.0)}  # made inputs
NOISE_SAMPLES = 8  # for the SQNR of layers
TOLERANCE = 1e-4  # of the largest value, for float outputs
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Built:
    """A package and everything that was decided on the way.

    `reference` is the simplified graph before compression; `graph` after it; `lowered` what is in
    the package.
    """

    data: bytes
    graph: Graph
    lowered: Graph
    plan: plan.Plan
    reference: Graph
    log: tuple[str, ...]
    sqnr: tuple[noise.LayerSqnr, ...]
    board: boards.Board
    target: Target


def target_of(board: boards.Board, isa: Sequence[str] | None = None) -> Target:
    """Layouts and tile sizes for a board.

    A board's CPU is known: weights are packed once, for its best ISA.  The host takes every ISA of
    this machine's family.  `isa` names the layouts instead: each costs the weights once more.
    """
    if board.system == "host":
        x86 = platform.machine() in ("x86_64", "AMD64")
        known = [i for i in board.isa if i.startswith("avx") == x86]
    else:
        known = sorted(board.isa, key=lambda i: layout.isas()[i].rank)[-1:]
    if isa is not None:
        unknown = [i for i in isa if i not in board.isa]
        if unknown:
            raise UsageError(
                f"board {board.id!r} has no ISA {unknown[0]!r}",
                todo=f"it has {', '.join(board.isa) or 'none'}",
            )
        known = list(isa)
    bare = board.system == "bare"
    return Target(tuple(known), tile_rows=4 if bare else 16, linux=not bare)


def package_graph(
    graph: Graph,
    target: Target,
    *,
    keep: bool = False,
    meta: dict[str, Any] | None = None,
    model_id: bytes = b"",
    goldens: list[Golden] | None = None,
) -> bytes:
    """Lowers, plans and writes one graph as the entry "main"; returns the package's bytes.

    Constant channels go, as in `build`.  `keep` keeps every channel, and plans every tensor its own
    memory, so that Session.tensor reads any of them after a run.
    """
    graph.check()
    lowered = lower(graph if keep else remove_constant_channels(graph), target)
    p = plan.make(lowered, target, keep=keep)
    return package.write(
        [("main", lowered, p)], meta=meta or {}, model_id=model_id, goldens=goldens
    )


@contextmanager
def every_tensor(graph: Graph, target: Target) -> Iterator[calibrate.Runner]:
    """A function inputs -> {tensor: value} that runs the graph natively, or by numpy where a user's
    op is among its ops, and reads every activation."""
    if ops.own(graph):
        yield lambda inputs: {**inputs, **dict(evaluate.steps(graph, inputs))}
        return
    with Session(package_graph(graph, target, keep=True)) as s:
        names = [*graph.inputs, *(o for op in graph.ops for o in op.outputs)]

        def run(inputs: dict[str, Array]) -> dict[str, Array]:
            s.run(inputs)
            return {n: s.tensor(n) for n in names}

        yield run


def build(
    model: Any,
    *,
    board: str | boards.Board = "host",
    precision: str = "auto",
    calibration: Any = None,
    method: str = "mse",
    samples: int = 128,
    exclude: Sequence[str] = (),
    shapes: dict[str, tuple[int, ...]] | None = None,
    io: str = "model",
    preprocess: dict[str, Any] | None = None,
    isa: Sequence[str] | None = None,
    keep: bool = False,
    bias_correction: bool = True,
    arena: int | None = None,
    progress: Progress | None = None,
) -> Built:
    """Reads a model, compresses it, plans its memory and returns the package.

    model: path of .onnx, .tflite or .pt2, a torch module, or a Graph.  precision "auto": quantized
    models as they are, int8 where there is calibration data, else float32; "w8a16": int8 weights,
    int16 activations; "w8", "w4", "w2":
    weights alone, a scale per 32 inputs, better with calibration data.  samples: how many
    calibration samples to use.
    arena: bytes that activations may take; where they would take more, the first layers run in
    bands (None: what a bare board's RAM leaves).
    Raises ModelError, DataError, BoardError, UsageError with what to do.
    """
    target_board = boards.load(board) if isinstance(board, str) else board
    target = target_of(target_board, isa)
    log: list[str] = []
    loaded = model if isinstance(model, Graph) else frontends.load(model, shapes=shapes)
    log.append(f"read {loaded.name}: {len(loaded.ops)} ops")
    reference, notes = passes.simplify_all(loaded)
    log += notes
    chosen = _precision(precision, reference, calibration)
    graph = reference
    layers: tuple[noise.LayerSqnr, ...] = ()
    spec = dict(preprocess or {})
    host = target_of(boards.load("host"))
    if chosen in ("int8", "w8a16"):
        graph, layers = _int8(
            reference,
            host,
            calibration,
            method,
            samples,
            exclude,
            io,
            spec,
            bias_correction,
            chosen == "w8a16",
            log,
            progress,
        )
    elif chosen == "dynamic":
        graph = quant.dynamic(reference, exclude)
        log.append(
            f"dynamic int8: {weight_bytes(reference)} -> {weight_bytes(graph)} bytes of weights"
        )
    elif chosen in ("w8", "w4", "w2"):
        graph = _weights_only(reference, int(chosen[1:]), host, calibration, samples, exclude, spec)
        log.append(
            f"weights of {chosen[1:]} bits, a scale per {groups.GROUP} inputs: "
            f"{weight_bytes(reference)} -> {weight_bytes(graph)} bytes of constants"
        )
    elif exclude:
        raise UsageError("--exclude has an effect only with precisions below float32")
    dense = macs(graph)
    graph = remove_constant_channels(graph)
    if macs(graph) < dense:
        log.append(f"constant channels removed: {dense} -> {macs(graph)} MACs, same outputs")
    lowered = lower(graph, target)
    log += sparsify.notes(graph, lowered, target)
    lowered, p, patches = _planned(lowered, target, target_board, arena, keep)
    log += [patches.text()] if patches else []
    log.append(
        f"plan: arena {p.main_bytes} B (largest live set {p.live_bytes} B), "
        f"scratch {p.scratch_bytes} B {'in it' if p.scratch_at else 'per thread'}"
    )
    source = Path(model) if isinstance(model, (str, Path)) else None
    meta = {
        "name": reference.name,
        "edgekit": __version__,
        "board": target_board.id,
        "precision": chosen,
        "macs": macs(graph),
        "preprocess": spec,
        "source": source.name if source else type(model).__name__,
        **({"patches": patches.text()} if patches else {}),
    }
    model_id = (
        hashlib.sha256(source.read_bytes()).digest()
        if source
        else hashlib.sha256(reference.name.encode()).digest()
    )
    goldens = make_goldens(graph, host)
    blob = package.write([("main", lowered, p)], meta=meta, model_id=model_id, goldens=goldens)
    log.append(f"package: {len(blob)} B, {len(goldens)} golden vector(s)")
    estimate = None if ops.own(lowered) else cost.predict(lowered, target_board)
    log += [cost.text(estimate)] if estimate else []
    return Built(blob, graph, lowered, p, reference, tuple(log), layers, target_board, target)


def _weights_only(
    reference: Graph,
    bits: int,
    host: Target,
    calibration: Any,
    samples: int,
    exclude: Sequence[str],
    spec: dict[str, Any],
) -> Graph:
    """Integer weights by group; with calibration data by what the layers read there."""
    inputs = None
    if calibration is not None:
        d = calibration if isinstance(calibration, data.Dataset) else data.load(calibration)
        d = d.take(data.spread(len(d), samples))
        names = [op.name for op in reference.ops if groups.weighs(reference, op)]
        with every_tensor(reference, host) as run:
            fed = data.feed(d, data.input_infos(reference), spec)
            inputs = groups.moments(reference, run, fed, names)
    return groups.weights_only(reference, bits, inputs=inputs, exclude=exclude)[0]


def _planned(
    lowered: Graph, target: Target, board: boards.Board, arena: int | None, keep: bool
) -> tuple[Graph, plan.Plan, patchwise.Patches | None]:
    """The graph and its plan, with what lies in place and in bands where the arena is too small."""
    p = plan.make(lowered, target, keep=keep)
    if keep:
        return lowered, p, None
    joined = patchwise.concat_in_place(lowered)
    if joined.views:
        better = plan.make(joined, target)
        lowered, p = (joined, better) if better.main_bytes <= p.main_bytes else (lowered, p)
    budget = arena if arena is not None else _arena_of(board, p)
    found = None
    if budget is not None and p.main_bytes > budget and not lowered.views:
        found = patchwise.fit(lowered, target, budget)
    return found or (lowered, p, None)


def _arena_of(board: boards.Board, p: plan.Plan) -> int | None:
    """What a bare board's RAM leaves for the arena; None where RAM is not the limit."""
    if not board.bare:
        return None
    bank = board.bank("main")
    scratch = 0 if p.scratch_at else p.scratch_bytes
    others = board.stack_kib * 1024 + SESSION_BYTES + scratch + p.state_bytes
    return min(board.ram_bytes - others, bank.size_kib * 1024 if bank else board.ram_bytes)


def _precision(asked: str, g: Graph, calibration: Any) -> str:
    if asked not in PRECISIONS:
        raise UsageError(f"precision {asked!r} is unknown", todo=f"known: {', '.join(PRECISIONS)}")
    quantized = is_quantized(g)
    if asked == "auto":
        return "as is" if quantized else "int8" if calibration is not None else "float32"
    if quantized:
        raise UsageError(
            f"the model is quantized already: --precision {asked} cannot be applied",
            todo="leave --precision out",
        )
    if asked in ("int8", "w8a16") and calibration is None:
        raise UsageError(
            f"{asked} needs calibration data", todo="give --calibrate DATA, or --precision dynamic"
        )
    return asked


def is_quantized(g: Graph) -> bool:
    """Whether activations are integers already."""
    outputs = [g.tensors[o] for op in g.ops for o in op.outputs if op.type != "cast"]
    return any(t.dtype == "i8" or (t.dtype == "i16" and t.quant is not None) for t in outputs)


def _int8(
    reference: Graph,
    target: Target,
    calibration: Any,
    method: str,
    samples: int,
    exclude: Sequence[str],
    io: str,
    spec: dict[str, Any],
    bias_correction: bool,
    wide: bool,
    log: list[str],
    progress: Progress | None,
) -> tuple[Graph, tuple[noise.LayerSqnr, ...]]:
    """Calibration, quantization and the SQNR of every layer, all on the native runtime."""
    d = calibration if isinstance(calibration, data.Dataset) else data.load(calibration)
    d = d.take(data.spread(len(d), samples))
    infos = data.input_infos(reference)

    def feed() -> Iterator[dict[str, Array]]:
        for i, x in enumerate(data.feed(d, infos, spec)):
            if progress:
                progress("calibrate", i + 1, len(d))
            yield x

    with every_tensor(reference, target) as run_float:
        seen = calibrate.observe(reference, run_float, feed, method)
        graph, names = quant.quantize(
            reference,
            seen,
            exclude=exclude,
            io=io,
            bias_correction=bias_correction,
            ranged=widths.wide_specs(reference, seen) if wide else None,
        )
        name, kind = ("w8a16", "int16") if wide else ("int8", "int8")
        log.append(
            f"{name} ({method}, {len(d)} samples): {int8_ops(graph)} of {len(graph.ops)} ops in "
            f"{kind}, {weight_bytes(reference)} -> {weight_bytes(graph)} bytes of constants"
        )
        if weight_bytes(graph) >= weight_bytes(reference):
            raise AssertionError("integer quantization did not make the constants smaller")
        few = data.feed(d.take(data.spread(len(d), NOISE_SAMPLES)), infos, spec)
        with every_tensor(graph, target) as run_int:

            def run_q(x: dict[str, Array]) -> dict[str, Array]:
                return run_int({n: as_input(graph, n, x[n]) for n in graph.inputs})

            layers = noise.compare(graph, names, run_float, run_q, few)
    return graph, layers


def as_input(g: Graph, name: str, x: Array) -> Array:
    """A float sample as the (possibly integer) input of the quantized graph wants it."""
    t = g.tensors[name]
    if t.dtype in LIMITS and x.dtype == np.float32 and t.quant is not None:
        q = np.clip(np.rint(x / t.quant.scale) + t.quant.zero, *LIMITS[t.dtype])
        return np.asarray(q, np.int8 if t.dtype == "i8" else np.int16)
    return x


def int8_ops(g: Graph) -> int:
    """Ops whose first output is int8 or int16."""
    return sum(g.tensors[op.outputs[0]].dtype in LIMITS for op in g.ops)


def weight_bytes(g: Graph) -> int:
    """Bytes of all constants that ops use."""
    return sum(t.nbytes for t in g.tensors.values() if t.data is not None)


def macs(g: Graph) -> int:
    """Multiply-accumulates of one run."""
    return sum(ops.get(op.type).macs(op, g) for op in g.ops)


def make_goldens(graph: Graph, target: Target) -> list[Golden]:
    """A golden vector per entry: made inputs, outputs computed here by the portable kernels, or by
    numpy where a user's op is among them.

    Exact graphs store a CRC per output; others store float outputs up to GOLDEN_FLOAT_BYTES, beyond
    that none.
    """
    exact = all(ops.get(op.type).exact(op, graph) for op in graph.ops)
    out_bytes = sum(graph.tensors[n].nbytes for n in graph.outputs)
    if not exact and out_bytes > GOLDEN_FLOAT_BYTES:
        return []
    ranges = []
    for n in graph.inputs:
        t = graph.tensors[n]
        if t.dtype == "f32":
            ranges.append(_float_range(graph, n))
        else:
            ranges.append(RANGES.get(t.dtype, (0.0, 1.0)))
    arrays = package.golden_inputs(
        1, [(graph.tensors[n], r) for n, r in zip(graph.inputs, ranges, strict=True)]
    )
    fed = dict(zip(graph.inputs, arrays, strict=True))
    if ops.own(graph):  # the native library has no hooks of theirs
        got = evaluate.run(graph, fed)
    else:
        with Session(package_graph(graph, target), isa=[]) as s:
            got = s.run(fed)
    outputs = tuple(np.ascontiguousarray(got[n]).tobytes() for n in graph.outputs)
    return [Golden(0, 1, tuple(ranges), outputs, exact, 0.0 if exact else TOLERANCE)]


def _float_range(graph: Graph, name: str) -> tuple[float, float]:
    """Range of made float inputs: what the quantized input holds, else [-1, 1)."""
    for op in graph.ops:
        if op.type == "cast" and op.inputs[0] == name:
            q = graph.tensors[op.outputs[0]].quant
            if q is not None:
                s, z = float(q.scale), int(q.zero)
                lo, hi = LIMITS[graph.tensors[op.outputs[0]].dtype]
                return s * (lo - z), s * (hi - z)
    return -1.0, 1.0

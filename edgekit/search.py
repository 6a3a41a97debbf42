"""The best compression for a board: a front of size against accuracy, and the point to take.

Damages of single layers say which allocations of bits are worth trying; those are quantized,
learned where that is needed, and run on the native kernels.  What is reported was measured so;
every point has its recipe, which gives it again.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime import Session

from edgekit import (
    boards,
    contents,
    cost,
    data,
    explain,
    frontends,
    package,
    passes,
    pipeline,
    recipe,
    report,
)
from edgekit.compress import allocate
from edgekit.errors import DataError, EdgeKitError, UsageError
from edgekit.ir import Graph
from edgekit.passes.channels import remove_constant_channels
from edgekit.recipe import Step
from edgekit.recipe.ledger import Entry
from edgekit.recipe.run import Run
from edgekit.recipe.samples import Progress, material
from edgekit.train import workers

SENSITIVITY_SAMPLES = 64
FRONT = 8  # points the front should have
USEFUL = 0.1  # accuracy below float at which a point is of no use: where hypervolumes begin
LEARNED_STEPS = 100
TRAIN_SAMPLES = 25_000  # at most, in memory


class InfeasibleError(EdgeKitError):
    """No point meets the budgets; the message names the nearest miss."""


@dataclass(frozen=True)
class Point:
    """One compressed model as measured: bytes on the board, accuracy on the native kernels (0..1;
    without labels: agreement with the float model).  `drop` in points of 100 against float;
    `cycles`: predicted for one inference (edgekit/cost.py), None where no model rates the board;
    `layers` as in the ledger."""

    name: str
    bits: dict[str, int]
    learned: bool
    package_bytes: int
    flash_bytes: int
    ram_bytes: int
    cycles: int | None
    accuracy: float
    drop: float
    sqnr_db: float
    fits: bool
    front: bool
    steps: tuple[Step, ...]
    layers: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """All points, the chosen one (None: infeasible, `why`), and how the front compares with the
    best single scheme of one width for all layers, learned or not: areas that they dominate."""

    points: tuple[Point, ...]
    chosen: Point | None
    why: str
    float_bytes: int
    float_accuracy: float
    hypervolume: float
    uniform_hypervolume: float


def compress(
    model: Any,
    source: Any,
    *,
    board: str | boards.Board = "host",
    max_drop: float = 0.5,
    max_cycles: int | None = None,
    folder: Path | None = None,
    points: int = 12,
    steps: int = LEARNED_STEPS,
    preprocess: dict[str, Any] | None = None,
    shapes: dict[str, tuple[int, ...]] | None = None,
    test: int = 1000,
    progress: Progress | None = None,
) -> Found:
    """Searches bits per layer for a board; `max_drop` is in points of accuracy, `max_cycles` of one
    predicted inference.

    `folder` receives the ledger, the front's recipes and packages, front.json and front.html.
    InfeasibleError after those are written, where no point fits the board within the drop.
    """
    chip = boards.load(board) if isinstance(board, str) else board
    if max_cycles is not None and cost.isa_of(chip) is None:
        raise UsageError("there is no model of cycles for this board", where=chip.id,
                         todo="leave out --max-cycles")  # fmt: skip
    if not math.isfinite(max_drop):
        raise UsageError(f"a drop of {max_drop} is no number of points", todo="as --max-drop 0.5")
    graph = _float_graph(model, shapes)
    if folder is not None:
        package.folder(folder)
    samples = material(source, graph, preprocess, test=test)
    run = Run(graph, samples, chip, folder, progress)
    job = _Search(run, chip, max_drop, steps, preprocess or {}, folder, max_cycles)
    found = job.search(points)
    if folder is not None:
        write(folder, found, chip, max_drop)
    if found.chosen is None:
        raise InfeasibleError(f"infeasible: {found.why}", where=chip.id)
    return found


def _float_graph(model: Any, shapes: dict[str, tuple[int, ...]] | None) -> Graph:
    """The graph of a model, which must not be quantized already."""
    loaded = model if isinstance(model, Graph) else frontends.load(model, shapes=shapes)
    graph = passes.simplify_all(loaded)[0]
    if pipeline.is_quantized(graph):
        raise DataError("the model is quantized already", todo="give the float model")
    return graph


def _same_file(a: Any, b: Any) -> bool:
    files = [Path(x).resolve() for x in (a, b) if isinstance(x, (str, Path))]
    return len(files) == 2 and files[0] == files[1]


def replay(
    model: Any, source: Any, path: Path, folder: Path, *, board: str = "host",
    preprocess: dict[str, Any] | None = None, shapes: dict[str, tuple[int, ...]] | None = None,
    test: int = 1000, training: Any = None, progress: Progress | None = None,
) -> list[Entry]:  # fmt: skip
    """Runs a recipe file; the folder receives ledger.jsonl, its report ledger.html, and model.ekp.
    `training`: a set of its own to calibrate and train on."""
    steps = recipe.load(path)
    if training is not None and _same_file(source, training):
        raise UsageError("--train is --data: the test would be of what was learned",
                         todo="leave out --train: a part of --data is the test")  # fmt: skip
    graph = _float_graph(model, shapes)
    chip = boards.load(board)
    trains = any(recipe.trains(s) for s in steps)
    samples = material(
        source, graph, preprocess, test=test, train=TRAIN_SAMPLES if trains else 0,
        training=training,
    )  # fmt: skip
    package.folder(folder)
    run = Run(graph, samples, chip, folder, progress)
    result, entries = run.run(steps)
    search = _Search(run, chip, 0.0, 0, preprocess or {}, folder)
    if workers.rank() == 0:
        package.save(folder / "model.ekp", search.blob(result, path.stem))
        page = ledger_page(path.stem, entries, run.float_bytes)
        report.save(folder / "ledger.html", page)
    return entries


LEDGER = (
    "step", ">accuracy", ">float", ">worst class", ">SQNR dB", ">package B", ">MACs", ">s", ">J",
    "effect",
)  # fmt: skip


def ledger_rows(entries: Sequence[Entry]) -> list[list[object]]:
    """The ledger as a table."""

    def share(x: float | None) -> str:
        return "-" if x is None else f"{100 * x:.2f} %"

    return [
        [
            e.do, share(e.accuracy), share(e.float_accuracy), share(e.worst_class), e.sqnr_db,
            e.package_bytes, e.macs, e.seconds, "-" if e.joules is None else e.joules, e.effect,
        ]
        for e in entries
    ]  # fmt: skip


def ledger_page(name: str, entries: Sequence[Entry], float_bytes: int) -> str:
    """The HTML report of a recipe: accuracy (else agreement with float) against size, step by step,
    and what the last step left of every layer."""
    points = [(float_bytes / 1024, 100 * _of_float(entries), "float", True)]
    for e in entries:
        right = e.agreement if e.accuracy is None else e.accuracy
        points.append((e.package_bytes / 1024, 100 * right, f"{e.step} {e.do}", True))
    parts = [
        report.table(LEDGER, ledger_rows(entries)),
        report.note(f"Energy: {entries[-1].energy}."),
        report.heading("Accuracy against size"),
        report.scatter(points, "KiB", "%"),
        *layer_parts(entries[-1].layers),
    ]
    return report.page(f"Ledger of {name}", parts)


def _of_float(entries: Sequence[Entry]) -> float:
    found = entries[-1].float_accuracy
    return 1.0 if found is None else found


def layer_parts(layers: dict[str, dict[str, float]]) -> list[str]:
    """SQNR and bits of the layers of one integer graph; nothing of a float one."""
    if not layers:
        return []
    rows = [
        (f"{n} ({la['bits']} bits)" if "bits" in la else n, max(la["sqnr_db"], 0.0))
        for n, la in layers.items()
    ]
    return [report.heading("SQNR per layer"), report.bars(rows, "dB", limit=len(rows))]


class _Search:
    def __init__(
        self, run: Run, board: boards.Board, max_drop: float, steps: int,
        preprocess: dict[str, Any], folder: Path | None, max_cycles: int | None = None,
    ) -> None:  # fmt: skip
        self.max_cycles = max_cycles
        self.run, self.board, self.max_drop, self.steps = run, board, max_drop, steps
        self.preprocess, self.folder = preprocess, folder
        self.base = 1.0 if run.float_accuracy is None else run.float_accuracy
        self.points: list[Point] = []
        self.code: int | None = None
        self.batch = min(32, len(run.samples.calibration))

    def search(self, count: int) -> Found:
        few = data.some(self.run.samples.calibration, SENSITIVITY_SAMPLES)
        x = {n: np.concatenate([f[n] for f in few]) for n in self.run.graph.inputs}
        table = allocate.sensitivity(self.run.graph, x, self.run.target, progress=self.run.progress)
        for width in (8, 4, 2):
            bits = {row[0].op: width for row in table}
            self.add(f"uniform{width}", bits, learn=False)
            if width < 8:
                self.add(f"uniform{width}+learned", bits, learn=True)
        uniform = list(self.points)
        choices = allocate.front(table)
        tried = {tuple(p.bits.values()) for p in uniform}
        for c in reversed(allocate.spread(choices, count)):
            self.mixed(c, tried)
        for _ in range(count):
            if len({p.package_bytes for p in _front(self.points)}) >= FRONT:
                break
            between = self.between(choices, tried)
            if between is None:
                break
            self.mixed(between, tried)
        return self.found(uniform)

    def mixed(self, c: allocate.Choice, tried: set[tuple[int, ...]]) -> None:
        """Measures an allocation that is new; learns it where rounding alone costs something."""
        key = tuple(c.bits.values())
        if key in tried:
            return
        tried.add(key)
        name = f"mixed{len(tried)}"
        drop = self.add(name, c.bits, learn=False).drop
        if drop > min(self.max_drop, 0.2) and min(c.bits.values()) < 8:
            self.add(f"{name}+learned", c.bits, learn=True)

    def between(
        self, choices: Sequence[allocate.Choice], tried: set[tuple[int, ...]]
    ) -> allocate.Choice | None:
        """The untried allocation in the middle of the front's widest gap in accuracy."""
        front = sorted(_front(self.points), key=lambda p: p.package_bytes)
        spent = {tuple(c.bits.values()): c.bytes for c in choices}
        known = [(spent[k], p) for p in front if (k := tuple(p.bits.values())) in spent]
        gaps = sorted(
            ((q.accuracy - p.accuracy, a, b) for (a, p), (b, q) in itertools.pairwise(known)),
            reverse=True,
        )
        for _, a, b in gaps:
            inside = [c for c in choices if a < c.bytes < b and tuple(c.bits.values()) not in tried]
            if inside:
                return min(inside, key=lambda c: abs(c.bytes - (a + b) / 2))
        return None

    def add(self, name: str, bits: dict[str, int], learn: bool) -> Point:
        """Measures one allocation and keeps it."""
        layers = {n: b for n, b in bits.items() if b < 8}
        steps: tuple[Step, ...] = (Step("quantize", {"layers": layers} if layers else {}),)
        if learn:
            steps += (Step("reconstruct", {"steps": self.steps, "batch": self.batch}),)
        graph, entries = self.run.run(steps)
        flash, ram, cycles = self.needs(graph, name)
        e = entries[-1]
        accuracy = e.agreement if e.accuracy is None else e.accuracy
        fits = not self.short(flash, ram, cycles)
        drop = 100 * (self.base - accuracy)
        point = Point(
            name, bits, learn, e.package_bytes, flash, ram, cycles, accuracy, drop, e.sqnr_db, fits,
            False, steps, e.layers,
        )  # fmt: skip
        self.points.append(point)
        return point

    def blob(self, graph: Graph, name: str) -> bytes:
        """The package of a point, as `build` would write it."""
        graph = remove_constant_channels(graph)
        meta = {
            "name": graph.name, "board": self.board.id, "precision": name,
            "macs": pipeline.macs(graph), "preprocess": self.preprocess,
        }  # fmt: skip
        goldens = pipeline.make_goldens(graph, self.run.host)
        return pipeline.package_graph(graph, self.run.target, meta=meta, goldens=goldens)

    def needs(self, graph: Graph, name: str) -> tuple[int, int, int | None]:
        """(flash, RAM) in bytes on the board, with the runtime's code where it can be linked, and
        predicted cycles."""
        data = self.blob(graph, name)
        if self.folder is not None:
            package.save(self.folder / f"{name}.ekp", data)
        if self.code is None:
            self.code = explain.needs(data, self.board).code or 0
        with Session(data, isa=[]) as s:
            ram = sum(s.memory.values())
        stack = self.board.stack_kib * 1024 if self.board.bare else 0
        estimate = cost.predict(contents.read(data).entries[0].graph, self.board)
        cycles = None if estimate is None else estimate.cycles
        return len(data) + self.code, ram + stack, cycles

    def short(self, flash: int, ram: int, cycles: int | None) -> list[tuple[str, int, int]]:
        """(what, needed, allowed) of every budget that is exceeded."""
        found = boards.shortages(self.board, flash, ram, 0, 0)
        if self.max_cycles is not None and cycles is not None and cycles > self.max_cycles:
            found.append(("cycles", cycles, self.max_cycles))
        return found

    def found(self, uniform: Sequence[Point]) -> Found:
        best = {id(p) for p in _front(self.points)}
        marked = tuple(
            Point(**{**p.__dict__, "front": id(p) in best})
            for p in sorted(self.points, key=lambda p: (p.flash_bytes, -p.accuracy))
        )
        good = [p for p in marked if p.fits and p.drop <= self.max_drop]
        chosen = min(good, key=lambda p: (p.flash_bytes, p.drop)) if good else None
        why = "" if chosen else self.nearest(marked)
        floor = max(self.base - USEFUL, 0.0)
        return Found(
            marked, chosen, why, self.run.float_bytes, self.base,
            hypervolume(marked, self.run.float_bytes, floor),
            max(hypervolume([p], self.run.float_bytes, floor) for p in uniform),
        )  # fmt: skip

    def nearest(self, points: Sequence[Point]) -> str:
        """What the point that misses by least misses."""

        def miss(p: Point) -> float:
            short = self.short(p.flash_bytes, p.ram_bytes, p.cycles)
            over = sum((need - have) / have for _, need, have in short)
            return over + max(0.0, p.drop - self.max_drop) / 10

        p = min(points, key=miss)
        parts = [
            f"{need - have:,} {'too many' if what == 'cycles' else 'B too many of'} {what}"
            for what, need, have in self.short(p.flash_bytes, p.ram_bytes, p.cycles)
        ]
        if p.drop > self.max_drop:
            parts.append(f"a loss of {p.drop:.2f} points, {self.max_drop:g} allowed")
        return (
            f"the nearest miss is {p.name} with {p.flash_bytes:,} B of flash, {p.ram_bytes:,} B of "
            f"RAM and {100 * p.accuracy:.2f} %: {' and '.join(parts)}"
        )


def _front(points: Sequence[Point]) -> list[Point]:
    """Points that no other beats in package size and accuracy."""
    return [
        p
        for p in points
        if not any(
            (q.package_bytes <= p.package_bytes and q.accuracy >= p.accuracy)
            and (q.package_bytes, q.accuracy) != (p.package_bytes, p.accuracy)
            for q in points
        )
    ]


def hypervolume(points: Sequence[Point], float_bytes: int, floor: float) -> float:
    """Area that points dominate: saved share of the float package times accuracy above `floor`."""
    area, reached = 0.0, floor
    for p in sorted(points, key=lambda p: p.package_bytes):
        if p.accuracy > reached:
            area += max(0.0, 1 - p.package_bytes / float_bytes) * (p.accuracy - reached)
            reached = p.accuracy
    return area


# ---- files ----


def write(folder: Path, found: Found, board: boards.Board, max_drop: float) -> None:
    """front.json, front.html and a recipe per point; packages of points off the front go."""
    for p in found.points:
        path = folder / f"{p.name}.ekp"
        if not p.front and p != found.chosen:
            path.unlink(missing_ok=True)
        else:
            package.save(folder / f"{p.name}.toml", recipe.dump(p.steps).encode())
    text = json.dumps(facts(found, board.id, max_drop), indent=1)
    package.save(folder / "front.json", text.encode())
    report.save(folder / "front.html", page(found, board, max_drop))


def facts(found: Found, board: str, max_drop: float) -> dict[str, Any]:
    """What front.json holds."""
    return {
        "board": board,
        "max_drop": max_drop,
        "chosen": found.chosen.name if found.chosen else None,
        "why": found.why,
        "float_bytes": found.float_bytes,
        "float_accuracy": found.float_accuracy,
        "hypervolume": found.hypervolume,
        "uniform_hypervolume": found.uniform_hypervolume,
        "points": [asdict(p) for p in found.points],
    }


def rows(found: Found) -> list[list[object]]:
    """The table of points, smallest first."""
    return [
        [
            ("-> " if p == found.chosen else "") + p.name,
            p.package_bytes,
            f"{100 * p.package_bytes / found.float_bytes:.1f} %",
            f"{100 * p.accuracy:.2f} %",
            f"{p.drop:+.2f}",
            p.ram_bytes,
            "yes" if p.fits else "no",
            "*" if p.front else "",
        ]
        for p in found.points
    ]


COLUMNS = (
    "point", ">package B", ">of float", ">accuracy", ">drop", ">RAM B", "fits", "front",
)  # fmt: skip


def page(found: Found, board: boards.Board, max_drop: float) -> str:
    """The HTML report."""
    points = [(p.package_bytes / 1024, 100 * p.accuracy, p.name, p.front) for p in found.points]
    said = (
        f"Chosen: {found.chosen.name}" if found.chosen else f"Infeasible: {found.why}"
    ) + f"; float {100 * found.float_accuracy:.2f} % in {found.float_bytes:,} B."
    layers = [
        [n, *(p.bits[n] for p in found.points if p.front)]
        for n in (found.points[0].bits if found.points else {})
    ]
    parts = [
        report.note(said),
        report.heading("Accuracy against size"),
        report.scatter(points, "KiB", "%"),
        report.table(COLUMNS, rows(found)),
        report.heading("Bits per layer of the points on the front"),
        report.table(["op", *(p.name for p in found.points if p.front)], layers),
        *(layer_parts(found.chosen.layers) if found.chosen else []),
    ]
    return report.page(f"Compression for {board.id}, at most {max_drop:g} points lost", parts)

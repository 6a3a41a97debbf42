"""A recipe: compression steps in order, each proven on the native kernels and written to a ledger.

    [[step]]
    do = "quantize"        # method, samples, bits (of all; a first or last layer keeps 8 where it
    bits = 8               # is light), act_bits, exclude, bias_correction, equalize (ranges of
                           # channels across layers), light: the smallest layers that together hold
                           # at most that share of the weights keep 8 bits; act_bits = 16: int16
                           # activations, around the ops that `wide` names, else everywhere
    [step.layers]          # bits of single ops
    "conv2" = 4

    [[step]]
    do = "reconstruct"     # steps, batch, rate, window, rank, drop, push, samples, seed

prune takes a share of every family of channels, or what does least damage until there are `macs`
times fewer multiplications or the modelled `latency` (edgekit.cost: all ops; where it knows no such
core, multiplications in whole tiles) is so many times less; `edgekit.shrink.Options` says the rest:
importance, layers, repair, rounds, granule, samples, seed.  finetune, distill and qat train as
`train.fit.Options` says (epochs for steps; the workers of torchrun share the batches); the teacher
of distill and qat is the float model as it came, or before the integers, or the file that `teacher`
names.  prune, sparsify (pattern, share, exclude), finetune and distill come before quantize, qat
after it.

The folder of a run holds `ledger.jsonl`, a line per finished step, and the graph after each: a run
that was killed goes on behind the last line, an unfinished training where it last was kept.  A step
that changes nothing is an error.
"""

from __future__ import annotations

import hashlib
import json
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from edgekit_runtime import Session

from edgekit import (
    boards,
    check,
    data,
    frontends,
    package,
    passes,
    pipeline,
    settings,
    shrink,
    torchnet,
)
from edgekit import cost as costs
from edgekit.compress import (
    calibrate,
    equalize,
    meter,
    quantize,
    reconstruct,
    sparsify,
    sqnr,
    store,
)
from edgekit.errors import DataError, UsageError
from edgekit.ir import Array, Graph
from edgekit.layout import Target
from edgekit.passes.channels import remove_constant_channels
from edgekit.train import fit, net, workers

Progress = Callable[[str, int, int], None]
ENDS = 0.1  # of the weights: a first or last layer of more takes few bits like the others
NEAR = 0.3  # of a step: how far from its integer a weight may start, so that it stays a while
NOISE_SAMPLES = 8  # for the SQNR of a step


@dataclass(frozen=True)
class Step:
    """What to do, and its settings as written."""

    do: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A line of the ledger: what a step did, on the native kernels.

    accuracy, float_accuracy, worst_class (its recall): 0..1, None without labels; agreement: equal
    top-1 with the float graph.  sqnr_db: of the outputs.  joules: of the step, from the source that
    `energy` names; None: it says why.  layers: quantized op -> sqnr_db of its output against the
    float graph it was made from, and the bits of its weights where it has any.
    """

    step: int
    do: str
    settings: dict[str, Any]
    key: str
    accuracy: float | None
    float_accuracy: float | None
    agreement: float
    worst_class: float | None
    sqnr_db: float
    package_bytes: int
    weight_bytes: int
    macs: int
    seconds: float
    effect: str
    joules: float | None = None
    energy: str = meter.NONE
    layers: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass
class Work:
    """The graph on its way: float, and quantized once there is one."""

    floating: Graph
    quantized: Graph | None = None
    seen: dict[str, calibrate.Observed] = field(default_factory=dict)
    specs: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # float tensor -> its int8 name
    bits: dict[str, int] = field(default_factory=dict)
    ranged: dict[str, Any] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()

    @property
    def graph(self) -> Graph:
        return self.floating if self.quantized is None else self.quantized


@dataclass(frozen=True)
class Material:
    """Prepared samples: input name -> (1, ...) arrays; `labels` belong to `test`."""

    calibration: list[dict[str, Array]]
    test: list[dict[str, Array]]
    labels: Array | None
    id: str  # of the data, for the ledger's keys
    train: dict[str, Array] = field(default_factory=dict)  # input name -> (n, ...), not in `test`
    train_labels: Array | None = None


def parse(text: str, where: str = "recipe") -> tuple[Step, ...]:
    """Steps of a TOML recipe; UsageError names what is wrong."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise UsageError(f"is not TOML: {e}", where=where) from None
    unknown = sorted(set(raw) - {"step"})
    if unknown or not raw.get("step") or not isinstance(raw["step"], list):
        what = f"{unknown[0]!r} is unknown" if unknown else "has no [[step]]"
        raise UsageError(what, where=where, todo='a recipe is a list of [[step]] do = "..."')
    steps = []
    for i, s in enumerate(raw["step"]):
        if not isinstance(s, dict):
            raise UsageError(f"step {i} is no table", where=where, todo="write [[step]]")
        do = s.pop("do", None)
        try:
            settings.check(do, s)
        except UsageError as e:
            raise UsageError(f"step {i}: {e.what}", where=where, todo=e.todo) from None
        steps.append(Step(do, s))
    try:
        settings.order([step.do for step in steps])
    except UsageError as e:
        raise UsageError(e.what, where=where, todo=e.todo) from None
    return tuple(steps)


def trains(step: Step) -> bool:
    """Whether a step wants training samples."""
    s = step.settings
    if step.do == "prune":
        return shrink.Options(**s).trains
    return step.do in ("finetune", "distill", "qat")


def load(path: Path) -> tuple[Step, ...]:
    """Steps of a recipe file."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as e:
        raise UsageError(f"cannot be read: {e.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise UsageError("is not UTF-8", where=str(path), todo="a recipe is TOML") from None


def dump(steps: tuple[Step, ...]) -> str:
    """The recipe as TOML; `parse` gives the same steps."""
    out = []
    for s in steps:
        out += ["[[step]]", f'do = "{s.do}"']
        tables = {k: v for k, v in s.settings.items() if isinstance(v, dict)}
        out += [f"{k} = {json.dumps(v)}" for k, v in s.settings.items() if k not in tables]
        for k, t in tables.items():
            out += [f"[step.{k}]", *(f"{json.dumps(n)} = {json.dumps(v)}" for n, v in t.items())]
        out.append("")
    return "\n".join(out)


def material(
    source: Any, graph: Graph, preprocess: dict[str, Any] | None = None,
    calibration: int = 256, test: int = 1000, train: int = 0, training: Any = None,
) -> Material:  # fmt: skip
    """Calibration and test samples of one data set: apart from each other, spread over it, the same
    every time.  A set too small for both is calibrated on at most half.  `train`: how many others
    to prepare for training (with those of calibration); 0: none.  `training`: a set of its own for
    calibration and training."""
    d = source if isinstance(source, data.Dataset) else data.load(source)
    if len(d) < 4:
        raise DataError("needs at least 4 samples", where=d.source)
    other = d
    if training is not None:
        other = training if isinstance(training, data.Dataset) else data.load(training)
        first = data.spread(len(other), calibration)
        second = data.spread(len(d), test)
        third = np.arange(len(other))
    else:
        first = data.spread(len(d), min(calibration, len(d) // 2))
        rest = np.setdiff1d(np.arange(len(d)), first)
        second = rest[data.spread(len(rest), test)]
        third = np.setdiff1d(np.arange(len(d)), second)
    infos, spec = data.input_infos(graph), dict(preprocess or {})
    offset = int(spec.get("label_offset", 0))
    count = int(np.prod(graph.tensors[graph.outputs[0]].shape[1:]))
    labels = data.classes(d.take(second), offset, count)
    parts = [list(data.feed(s.take(p), infos, spec)) for s, p in ((other, first), (d, second))]
    digest = hashlib.sha256()
    for part in parts:
        for x in part:
            for a in x.values():
                digest.update(a.tobytes())
    made = Material(parts[0], parts[1], labels, digest.hexdigest()[:16])
    if not train:
        return made
    third = third[data.spread(len(third), train)]
    other = other.take(third)
    y = data.classes(other, offset, count)
    x = _stacked(data.feed(other, infos, spec), infos, len(third))
    for a in x.values():
        digest.update(a[:: max(1, len(a) // 64)].tobytes())
    digest.update(repr((len(third), None if y is None else y.tolist())).encode())
    return replace(made, train=x, train_labels=y, id=digest.hexdigest()[:16])


def _stacked(samples: Iterator[dict[str, Array]], infos: Any, n: int) -> dict[str, Array]:
    """Samples as one array per input, without a second copy of them all."""
    out = {i.name: np.empty((n, *i.shape[1:]), i.dtype) for i in infos}
    for k, sample in enumerate(samples):
        for name, a in sample.items():
            out[name][k] = a[0]
    return out


def predictions(
    graph: Graph, samples: list[dict[str, Array]], target: Target, progress: Progress | None = None
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """(top-1 (n,), first outputs (n, ...)) of the native runtime."""
    found = []
    t = graph.tensors[graph.outputs[0]]
    with Session(pipeline.package_graph(graph, target)) as s:
        for i, x in enumerate(samples):
            y = s.run({n: pipeline.as_input(graph, n, x[n]) for n in graph.inputs})[t.name]
            if t.dtype in ("i8", "i16") and t.quant is not None:
                y = t.quant.dequantize(y)
            found.append(y.reshape(-1).astype(np.float64))
            if progress and i % 50 == 0:
                progress("accuracy", i, len(samples))
    outputs = np.stack(found)
    return check.classes(outputs), outputs


class Run:
    """Runs steps on one model and data set; the float graph is measured once."""

    def __init__(
        self, graph: Graph, samples: Material, board: boards.Board,
        folder: Path | None = None, progress: Progress | None = None, teacher: Graph | None = None,
    ) -> None:  # fmt: skip
        """`teacher`: a float graph for distill and qat, from whatever model, where a step names
        none; else the model itself teaches."""
        self.teacher = teacher
        self.graph = reconstruct.with_biases(graph)
        self.samples, self.folder, self.meter = samples, folder, meter.Meter()
        self.progress = self._metered(progress)
        self.host = pipeline.target_of(boards.load("host"))
        self.board, self.target = board, pipeline.target_of(board)
        self.top, self.outputs = predictions(self.graph, samples.test, self.host, progress)
        self.float_bytes = len(pipeline.package_graph(self.graph, self.target))
        self.cache: dict[tuple[str, int, int], dict[str, calibrate.Observed]] = {}
        self.step = ""  # key of the one that runs
        whole = store.dumps(self.graph) + (store.dumps(teacher) if teacher else b"")
        whole += b"" if board.id == "host" else board.id.encode()
        self.key = hashlib.sha256(whole + samples.id.encode()).hexdigest()

    @property
    def float_accuracy(self) -> float | None:
        labels = self.samples.labels
        return None if labels is None else float((self.top == labels).mean())

    def run(self, steps: tuple[Step, ...]) -> tuple[Graph, list[Entry]]:
        """The compressed graph and the ledger's lines, finished steps taken from the folder."""
        for step in steps:
            settings.check(step.do, step.settings)
        settings.order([step.do for step in steps])
        work, entries, key = Work(self.graph), [], self.key
        done = self._ledger()
        for i, step in enumerate(steps):
            key = _key(key, step)
            kept = None if self.folder is None else self.folder / f"{key}.npz"
            begin, spent = time.perf_counter(), self.meter.read()
            before = work.graph
            if kept is not None and key in done and kept.exists():
                self._resume(work, step, self._kept(kept))
                entries.append(replace(done[key], step=i))
                continue
            self.step = key
            effect = getattr(self, f"_{step.do}")(work, step.settings)
            if work.graph is before:
                raise AssertionError(f"{step.do} left the graph as it was")
            seconds, total = time.perf_counter() - begin, self.meter.read()
            entry = replace(
                self._entry(i, step, key, work, effect, seconds), energy=self.meter.source,
                joules=None if total is None or spent is None else round(total - spent, 3),
            )  # fmt: skip
            if self.folder is not None and kept is not None and workers.rank() == 0:
                package.save(kept, store.dumps(work.graph))
                path = self.folder / "ledger.jsonl"
                lines = path.read_bytes() if path.exists() else b""
                lines += b"\n" if lines and not lines.endswith(b"\n") else b""
                package.save(path, lines + (json.dumps(asdict(entry)) + "\n").encode())
                (self.folder / f"{key}.pt").unlink(missing_ok=True)
            entries.append(entry)
        return work.graph, entries

    def _ledger(self) -> dict[str, Entry]:
        """Finished steps by key; a line that is no entry does not count."""
        found: dict[str, Entry] = {}
        path = None if self.folder is None else self.folder / "ledger.jsonl"
        if path is None or not path.exists():
            return found
        for line in path.read_bytes().splitlines():
            try:
                e = Entry(**json.loads(line))
            except (ValueError, TypeError):
                continue
            found[e.key] = e
        return found

    def _kept(self, path: Path) -> Graph:
        """The graph behind a finished step; DataError where the file holds none of this model."""
        todo = "delete it: the step is done again"
        try:
            g = store.load(path)
        except DataError as e:
            raise DataError(e.what, where=e.where, todo=todo) from None
        if (g.inputs, g.outputs) != (self.graph.inputs, self.graph.outputs):
            raise DataError("is a graph of another model", where=str(path), todo=todo)
        return g

    def _entry(
        self, i: int, step: Step, key: str, work: Work, effect: str, seconds: float
    ) -> Entry:
        graph = work.graph
        top, outputs = predictions(graph, self.samples.test, self.host, self.progress)
        labels = self.samples.labels
        accuracy = worst = None
        if labels is not None:
            accuracy = float((top == labels).mean())
            worst = min(float((top == labels)[labels == c].mean()) for c in np.unique(labels))
        noise = ((outputs - self.outputs) ** 2).sum()
        db = float(10 * np.log10((self.outputs**2).sum() / max(noise, 1e-30)))
        blob = pipeline.package_graph(graph, self.target)
        shipped = remove_constant_channels(graph)  # what the package holds and runs
        return Entry(
            i, step.do, step.settings, key, accuracy, self.float_accuracy,
            float((top == self.top).mean()), worst, min(db, sqnr.CEILING_DB), len(blob),
            pipeline.weight_bytes(shipped), pipeline.macs(shipped), round(seconds, 3), effect,
            layers=self._layers(work),
        )  # fmt: skip

    def _layers(self, work: Work) -> dict[str, dict[str, float]]:
        """Bits and SQNR of every op of a quantized graph, on the native kernels."""
        q = work.quantized
        if q is None:
            return {}
        few = data.some(self.samples.test, NOISE_SAMPLES)
        with (
            pipeline.every_tensor(work.floating, self.host) as exact,
            pipeline.every_tensor(q, self.host) as run,
        ):
            found = sqnr.compare(q, work.names, exact, run, few)
        weights = {op.name: q.tensors[op.inputs[1]] for op in q.ops if op.type in net.WEIGHTED}
        return {
            la.op: {"sqnr_db": round(la.sqnr_db, 2)}
            | ({"bits": w.quant.bits} if (w := weights.get(la.op)) and w.quant else {})
            for la in found
        }

    def _metered(self, progress: Progress | None) -> Progress | None:
        """Progress that reads the energy counter, which wraps in long steps."""
        if not self.meter.zones:
            return progress

        def told(what: str, done: int, total: int) -> None:
            self.meter.read()
            if progress:
                progress(what, done, total)

        return told

    # ---- steps ----

    def _feed(self, count: int) -> Callable[[], Iterator[dict[str, Array]]]:
        return lambda: iter(data.some(self.samples.calibration, count))

    def observe(self, graph: Graph, method: str, count: int, levels: int = 255) -> Any:
        """Calibration of the float graph, kept for the next step that asks the same."""
        key = (method, count, levels)
        if graph is not self.graph or key not in self.cache:
            with pipeline.every_tensor(graph, self.host) as run:
                seen = calibrate.observe(graph, run, self._feed(count), method, levels)
            if graph is not self.graph:
                return seen
            self.cache[key] = seen
        return self.cache[key]

    def _prepare(self, work: Work, s: dict[str, Any]) -> None:
        """Ranges, bits and narrow activations of a quantize step."""
        method, count = s.get("method", "mse"), int(s.get("samples", 256))
        if s.get("equalize"):
            with pipeline.every_tensor(work.floating, self.host) as run:
                work.floating, scaled = equalize.equalize(work.floating, run, self._feed(count)())
            if not scaled:
                raise UsageError("equalize changed nothing", todo="leave it out of the recipe")
        g = work.floating
        sizes = {op.name: g.tensors[op.inputs[1]].size for op in g.ops
                 if op.type in quantize.PACKABLE}  # fmt: skip
        packable, heavy = list(sizes), ENDS * sum(sizes.values())
        bits = {n: int(s["bits"]) for n in packable} if "bits" in s else {}
        if len(packable) > 2 and bits:  # the first and the last layer suffer most
            bits |= {n: 8 for n in (packable[0], packable[-1]) if sizes[n] <= heavy}
            bits |= dict.fromkeys(_lightest(sizes, float(s.get("light", 0.0))), 8)
        elif "light" in s:
            raise UsageError("light says which layers do not take bits", todo="set bits too")
        work.bits = bits | {n: int(b) for n, b in s.get("layers", {}).items()}
        work.seen = self.observe(g, method, count)
        if "wide" in s and s.get("act_bits") != 16:
            raise UsageError("wide names the ops of act_bits = 16")
        if s.get("act_bits") == 16:
            work.ranged = quantize.wide_specs(g, work.seen, tuple(s.get("wide", ("*",))))
        elif "act_bits" in s:
            few = [n for n, b in work.bits.items() if b < 8]
            seen = self.observe(g, method, count, (1 << int(s["act_bits"])) - 1)
            work.ranged = quantize.narrow_specs(g, seen, few, int(s["act_bits"]))
        work.exclude = tuple(s.get("exclude", ()))

    def _set(self, work: Work, graph: Graph, names: dict[str, str]) -> None:
        work.quantized, work.names = graph, names
        work.specs = {f: graph.tensors[n].quant for f, n in names.items()}

    def _quantize(self, work: Work, s: dict[str, Any]) -> str:
        self._prepare(work, s)
        before = pipeline.weight_bytes(work.floating)
        q, names = quantize.quantize(
            work.floating, work.seen, bits=work.bits, ranged=work.ranged, exclude=work.exclude,
            bias_correction=bool(s.get("bias_correction", True)),
        )  # fmt: skip
        self._set(work, q, names)
        after = pipeline.weight_bytes(q)
        if after >= before:
            raise UsageError("quantize did not make the constants smaller")
        shares = dict.fromkeys((8, 4, 2), 0)
        for op in q.ops:
            t = q.tensors[op.inputs[1]] if len(op.inputs) > 1 and op.inputs[1] else None
            if t is not None and t.data is not None and t.dtype == "i8" and t.quant is not None:
                shares[t.quant.bits] += t.size
        total = max(sum(shares.values()), 1)
        text = ", ".join(f"{100 * n / total:.1f} % in {b} bits" for b, n in shares.items() if n)
        return f"{before} -> {after} bytes of constants; weights: {text}"

    def _reconstruct(self, work: Work, s: dict[str, Any]) -> str:
        wide = any(q.bits == 16 for q in work.ranged.values())
        assert work.quantized is not None
        if all(b == 8 for b in work.bits.values()) and not wide:
            raise UsageError(
                "reconstruct learns weights below 8 bits or read by int16, and there are none",
                todo="set bits, layers or act_bits = 16 in the quantize step",
            )
        count = int(s.get("samples", len(self.samples.calibration)))
        few = data.some(self.samples.calibration, count)
        x = {n: np.concatenate([f[n] for f in few]) for n in work.floating.inputs}
        known = {k: v for k, v in s.items() if k != "samples"}
        r = reconstruct.reconstruct(
            work.floating, work.specs, work.bits, x, reconstruct.Options(**known),
            skip=work.exclude, progress=self.progress,
        )  # fmt: skip
        q, names = quantize.quantize(
            work.floating, work.seen, bits=work.bits, ranged=work.ranged, given=r.given,
            exclude=work.exclude,
        )  # fmt: skip
        moved = sum(_moved(work.quantized, q, n) for n in r.given)
        if not moved:
            raise UsageError("reconstruct changed no weight", todo="give it more steps")
        self._set(work, q, names)
        gain = np.mean([b.after / b.before for b in r.blocks if b.before > 0])
        return f"{moved} weights rounded otherwise; block loss x {gain:.2f}"

    def _prune(self, work: Work, s: dict[str, Any]) -> str:
        g, o = work.floating, shrink.Options(**s)
        x, y = self._training() if o.trains else ({}, None)
        cut = shrink.shrink(g, x, y, o, self.board, self._same, self.progress)
        work.floating = cut.graph
        a, b = (costs.predict(x, self.board) for x in (g, cut.graph))
        cycles = f"{a.cycles} -> {b.cycles} cycles of {a.core} (model), " if a and b else ""
        return (
            f"{pipeline.macs(g)} -> {pipeline.macs(cut.graph)} MACs, {cycles}{len(cut.layers)} "
            f"layers left, {len(cut.whole)} families stay whole"
        )

    def _same(self, masked: Graph, cut: Graph) -> None:
        """AssertionError unless both compute the same, to 1e-5 of the largest output."""
        few = self.samples.calibration[:2]
        want, got = (predictions(g, few, self.host)[1] for g in (masked, cut))
        if np.abs(want - got).max() > 1e-5 * max(1.0, float(np.abs(want).max())):
            raise AssertionError("the pruned graph is not the masked one")

    def _sparsify(self, work: Work, s: dict[str, Any]) -> str:
        share, exclude = float(s.get("share", 0.9)), tuple(s.get("exclude", ()))
        got = sparsify.sparsify(
            work.floating, self.target, str(s.get("pattern", "1:8")), share, exclude
        )
        work.floating = got.graph
        mean = sum(got.layers.values()) / len(got.layers)
        return f"{mean:.0%} zeros in {len(got.layers)} layers, {len(got.dense)} stay dense"

    def _finetune(self, work: Work, s: dict[str, Any], teacher: bool = False) -> str:
        x, y = self._training()
        r = fit.fit(
            work.floating, x, y, self._options(s, _count(x)),
            teacher=self._teacher(s) if teacher else None, progress=self.progress,
            checkpoint=self._checkpoint(),
        )  # fmt: skip
        g = _with(work.floating, r.constants)
        old = torchnet.constants(work.floating)
        if all(np.array_equal(a, old[n].numpy()) for n, a in r.constants.items()):
            raise UsageError("training changed no weight", todo="give it steps and a rate above 0")
        work.floating = g
        return f"loss {r.losses[0]:.4f} -> {r.losses[1]:.4f}, {r.precision}{_sent(r)}"

    def _distill(self, work: Work, s: dict[str, Any]) -> str:
        return self._finetune(work, s, teacher=True)

    def _options(self, s: dict[str, Any], samples: int) -> fit.Options:
        """Training settings of a step; `epochs` are steps by the number of samples."""
        known = {k: v for k, v in s.items() if k not in ("epochs", "teacher")}
        o = fit.Options(**known)
        if "epochs" not in s:
            return o
        if "steps" in s:
            raise UsageError("a step is given steps and epochs", todo="keep one of them")
        return replace(o, steps=round(float(s["epochs"]) * samples / min(o.batch, samples)))

    def _teacher(self, s: dict[str, Any]) -> fit.Teacher:
        """The graph that `teacher` names (a model file, or a graph of a run), else the float model
        as it came."""
        if "teacher" not in s:
            return fit.Teacher(self.teacher or self.graph)
        path = Path(s["teacher"])
        if path.suffix == ".npz":
            return fit.Teacher(store.load(path))
        return fit.Teacher(passes.simplify_all(frontends.load(path))[0])

    def _checkpoint(self) -> fit.Checkpoint | None:
        """Where the step that runs now is kept while it trains."""
        if self.folder is None:
            return None
        return fit.Checkpoint(self.folder / f"{self.step}.pt", package.save)

    def _qat(self, work: Work, s: dict[str, Any]) -> str:
        """Trains the integers; the float graph as it is now teaches."""
        assert work.quantized is not None
        x, y = self._training()
        start, sim = _simulation(work)
        other = "teacher" in s or self.teacher is not None
        r = fit.fit(
            start, x, y, self._options(s, _count(x)),
            teacher=self._teacher(s) if other else fit.Teacher(work.floating),
            simulation=sim, progress=self.progress, checkpoint=self._checkpoint(),
        )  # fmt: skip
        given = {n: quantize.Given(*v) for n, v in r.integers.items()}
        q, names = quantize.quantize(
            work.floating, work.seen, bits=work.bits, ranged=r.activations, given=given,
            exclude=work.exclude,
        )  # fmt: skip
        moved = sum(_moved(work.quantized, q, n) for n in sim.weights)
        if not moved:
            raise UsageError("qat changed no weight", todo="give it more steps or a higher rate")
        self._set(work, q, names)
        return f"loss {r.losses[0]:.4f} -> {r.losses[1]:.4f}; {moved} integers changed{_sent(r)}"

    def _training(self) -> tuple[dict[str, Array], Array | None]:
        if not self.samples.train:
            raise DataError("there are no training samples", todo="material(..., train=N)")
        return self.samples.train, self.samples.train_labels

    def _resume(self, work: Work, step: Step, graph: Graph) -> None:
        """The state behind a step that the folder has."""
        if step.do == "quantize":
            self._prepare(work, step.settings)
            work.quantized = graph
            _, names = quantize.quantize(
                work.floating, work.seen, bits=work.bits, ranged=work.ranged, exclude=work.exclude
            )
            self._set(work, graph, names)
        elif step.do in settings.FLOAT:
            work.floating = graph
        else:
            self._set(work, graph, work.names)


def _simulation(work: Work) -> tuple[Graph, net.Simulation]:
    """Where training of integers starts: the float graph with its weights moved as little as makes
    them round to the integers of the quantized one (learned rounding among them) and its biases,
    and the specs."""
    assert work.quantized is not None
    whole = {op.name: op for op in work.quantized.ops}
    constants, specs = {}, {}
    for op in work.floating.ops:
        w = work.floating.value(op.inputs[1]) if op.type in net.WEIGHTED else None
        if w is None or op.outputs[0] not in work.specs or op.name in work.exclude:
            continue
        x, packed, bias = (work.quantized.tensors[n] for n in whole[op.name].inputs[:3])
        spec = packed.quant
        assert spec is not None and packed.data is not None and x.quant is not None
        specs[op.name] = spec
        shape = [1] * w.ndim
        shape[spec.axis or 0] = -1
        step = spec.scale.reshape(shape)
        q = packed.data.astype(np.float32)
        constants[op.inputs[1]] = np.clip(w, (q - NEAR) * step, (q + NEAR) * step)
        if len(op.inputs) > 2 and bias.data is not None:
            unit = float(x.quant.scale) * spec.scale.astype(np.float64)
            constants[op.inputs[2]] = (bias.data * unit).astype(np.float32)
    return _with(work.floating, constants), net.Simulation(specs, work.specs)


def _lightest(sizes: dict[str, int], share: float) -> list[str]:
    """The smallest layers that together hold at most a share of all weights."""
    order = sorted(sizes, key=lambda n: sizes[n])
    held = np.cumsum([sizes[n] for n in order])
    return order[: int((held <= share * held[-1]).sum())]


def _sent(r: net.Fitted) -> str:
    return f"; {r.sent}" if r.sent else ""


def _count(x: dict[str, Array]) -> int:
    """Samples of stacked inputs."""
    return len(next(iter(x.values()))) if x else 0


def _with(graph: Graph, constants: dict[str, Array]) -> Graph:
    """The graph with those constants in place of its own."""
    g = graph.copy()
    for n, a in constants.items():
        g.tensors[n] = replace(g.tensors[n], data=a)
    return g


def _key(before: str, step: Step) -> str:
    """Names a step by all that it follows from: those before it, settings, what files hold."""
    digest = hashlib.sha256((before + step.do).encode())
    digest.update(json.dumps(step.settings, sort_keys=True).encode())
    if "teacher" in step.settings:
        try:
            digest.update(Path(step.settings["teacher"]).read_bytes())
        except OSError as e:
            raise UsageError(
                f"cannot be read: {e.strerror}", where=str(step.settings["teacher"])
            ) from None
    return digest.hexdigest()[:16]


def _moved(before: Graph, after: Graph, name: str) -> int:
    """Weights of an op that differ between two quantized graphs."""
    a, b = (next(op for op in g.ops if op.name == name) for g in (before, after))
    x, y = before.value(a.inputs[1]), after.value(b.inputs[1])
    return int(np.sum(x != y)) if x is not None and y is not None else 0

"""What each step of a recipe does to the graph on its way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgekit import boards, data, frontends, passes, pipeline, shrink, torchnet
from edgekit import cost as costs
from edgekit.compress import calibrate, equalize, quantize, reconstruct, sparsify, store, widths
from edgekit.errors import DataError, UsageError
from edgekit.ir import Array, Graph
from edgekit.ops.conv2d import WEIGHTED
from edgekit.recipe import Step, settings, teachers
from edgekit.recipe.samples import Material, Progress, predictions
from edgekit.train import fit, net

ENDS = 0.1  # of the weights: a first or last layer of more takes few bits like the others
NEAR = 0.3  # of a step: how far from its integer a weight may start, so that it stays a while


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


class Steps:
    """A method per `do` of a recipe: (work, settings) -> what it did, a sentence for the ledger;
    `work` has the new graph.  UsageError where a step changes nothing."""

    def __init__(
        self, graph: Graph, samples: Material, board: boards.Board,
        progress: Progress | None = None, teacher: Graph | None = None,
    ) -> None:  # fmt: skip
        """`graph`: float, as it came; it teaches where neither a step nor `teacher` does."""
        self.graph, self.samples, self.board = graph, samples, board
        self.progress, self.teacher = progress, teacher
        self.target = pipeline.target_of(board)
        self.host = pipeline.target_of(boards.load("host"))
        self.checkpoint: fit.Checkpoint | None = None  # where a training that runs now is kept
        self.cache: dict[tuple[str, int, int], dict[str, calibrate.Observed]] = {}

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
                 if op.type in widths.PACKABLE}  # fmt: skip
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
            work.ranged = widths.wide_specs(g, work.seen, tuple(s.get("wide", ("*",))))
        elif "act_bits" in s:
            few = [n for n, b in work.bits.items() if b < 8]
            seen = self.observe(g, method, count, (1 << int(s["act_bits"])) - 1)
            work.ranged = widths.narrow_specs(g, seen, few, int(s["act_bits"]))
        work.exclude = tuple(s.get("exclude", ()))

    def _set(self, work: Work, graph: Graph, names: dict[str, str]) -> None:
        work.quantized, work.names = graph, names
        work.specs = {f: graph.tensors[n].quant for f, n in names.items()}

    def _learned(self, work: Work, given: dict[str, widths.Given], ranged: dict[str, Any]) -> int:
        """Quantizes again with integers and activation specs that were learned; how many weights
        are others now."""
        assert work.quantized is not None
        before = work.quantized
        q, names = quantize.quantize(
            work.floating, work.seen, bits=work.bits, ranged=ranged, given=given,
            exclude=work.exclude,
        )  # fmt: skip
        self._set(work, q, names)
        return sum(_moved(before, q, n) for n in given)

    def quantize(self, work: Work, s: dict[str, Any]) -> str:
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

    def reconstruct(self, work: Work, s: dict[str, Any]) -> str:
        wide = any(q.bits == 16 for q in work.ranged.values())
        assert work.quantized is not None
        if all(b == 8 for b in work.bits.values()) and not wide:
            raise UsageError(
                "reconstruct learns weights below 8 bits or read by int16, and there are none",
                todo="set bits, layers or act_bits = 16 in the quantize step",
            )
        x, whole = self.samples.train, s.get("window") == 0
        if not (whole and x):
            count = int(s.get("samples", len(self.samples.calibration)))
            few = data.some(self.samples.calibration, count)
            x = {n: np.concatenate([f[n] for f in few]) for n in work.floating.inputs}
        known = {k: v for k, v in s.items() if k != "samples"}
        r = reconstruct.reconstruct(
            work.floating, work.specs, work.bits, x, reconstruct.Options(**known),
            skip=work.exclude, progress=self.progress,
        )  # fmt: skip
        ranged = {n: s for n, s in r.ranged.items() if whole or n in work.ranged}
        moved = self._learned(work, r.given, work.ranged | ranged)
        if not moved:
            raise UsageError("reconstruct changed no weight", todo="give it more steps")
        gain = np.mean([b.after / b.before for b in r.blocks if b.before > 0])
        if whole and gain >= 1:
            raise UsageError(
                f"the whole net learned {_count(x)} samples by heart: its loss on others is "
                f"{gain:.2f} x what it was",
                todo="give it thousands (labels are not needed), or take window = 1",
            )
        return f"{moved} weights rounded otherwise; loss x {gain:.2f} on {_count(x)} samples"

    def prune(self, work: Work, s: dict[str, Any]) -> str:
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

    def sparsify(self, work: Work, s: dict[str, Any]) -> str:
        share, exclude = float(s.get("share", 0.9)), tuple(s.get("exclude", ()))
        got = sparsify.sparsify(
            work.floating, self.target, str(s.get("pattern", "1:8")), share, exclude
        )
        work.floating = got.graph
        mean = sum(got.layers.values()) / len(got.layers)
        return f"{mean:.0%} zeros in {len(got.layers)} layers, {len(got.dense)} stay dense"

    def finetune(self, work: Work, s: dict[str, Any], teacher: bool = False) -> str:
        x, y = self._training()
        r = fit.fit(
            work.floating, x, y, self._options(s, _count(x)),
            teacher=self._teacher(s) if teacher else None, progress=self.progress,
            checkpoint=self.checkpoint,
        )  # fmt: skip
        g = work.floating.with_constants(r.constants)
        old = torchnet.constants(work.floating)
        if all(np.array_equal(a, old[n].numpy()) for n, a in r.constants.items()):
            raise UsageError("training changed no weight", todo="give it steps and a rate above 0")
        work.floating = g
        return f"loss {r.losses[0]:.4f} -> {r.losses[1]:.4f}, {r.precision}{_sent(r)}"

    def distill(self, work: Work, s: dict[str, Any]) -> str:
        return self.finetune(work, s, teacher=True)

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
        """The graphs that `teacher` names (model files, or graphs of a run), else the float model
        as it came."""
        if "teacher" not in s:
            return fit.Teacher(self.teacher or self.graph)
        first, *others = (
            store.load(path)
            if path.suffix == ".npz"
            else passes.simplify_all(frontends.load(path))[0]
            for path in teachers(s)
        )
        return fit.Teacher(first, tuple(others))

    def qat(self, work: Work, s: dict[str, Any]) -> str:
        """Trains the integers; the float graph as it is now teaches."""
        assert work.quantized is not None
        x, y = self._training()
        start, sim = simulation(work)
        other = "teacher" in s or self.teacher is not None
        r = fit.fit(
            start, x, y, self._options(s, _count(x)),
            teacher=self._teacher(s) if other else fit.Teacher(work.floating),
            simulation=sim, progress=self.progress, checkpoint=self.checkpoint,
        )  # fmt: skip
        given = {n: widths.Given(*v) for n, v in r.integers.items()}
        moved = self._learned(work, given, r.activations)
        if not moved:
            raise UsageError("qat changed no weight", todo="give it more steps or a higher rate")
        return f"loss {r.losses[0]:.4f} -> {r.losses[1]:.4f}; {moved} integers changed{_sent(r)}"

    def _training(self) -> tuple[dict[str, Array], Array | None]:
        if not self.samples.train:
            raise DataError("there are no training samples", todo="material(..., train=N)")
        return self.samples.train, self.samples.train_labels

    def resume(self, work: Work, step: Step, graph: Graph) -> None:
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


def simulation(work: Work) -> tuple[Graph, net.Simulation]:
    """Where training of integers starts: the float graph with its weights moved as little as makes
    them round to the integers of the quantized one (learned rounding among them) and its biases,
    and the specs."""
    assert work.quantized is not None
    whole = {op.name: op for op in work.quantized.ops}
    constants, specs = {}, {}
    for op in work.floating.ops:
        w = work.floating.value(op.inputs[1]) if op.type in WEIGHTED else None
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
    return work.floating.with_constants(constants), net.Simulation(specs, work.specs)


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


def _moved(before: Graph, after: Graph, name: str) -> int:
    """Weights of an op that differ between two quantized graphs."""
    a, b = (next(op for op in g.ops if op.name == name) for g in (before, after))
    x, y = before.value(a.inputs[1]), after.value(b.inputs[1])
    return int(np.sum(x != y)) if x is not None and y is not None else 0

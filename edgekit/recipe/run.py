"""Runs the steps of a recipe, measures what each did and keeps it.

The folder of a run holds `ledger.jsonl` and the graph after each step: a run that was killed goes
on behind the last line, an unfinished training where it last was kept.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgekit import boards, data, package, pipeline, recipe
from edgekit.compress import meter, reconstruct, sqnr, store
from edgekit.errors import DataError
from edgekit.ir import Graph
from edgekit.ops.conv2d import WEIGHTED
from edgekit.passes.channels import remove_constant_channels
from edgekit.recipe import Step, ledger, settings
from edgekit.recipe.ledger import Entry
from edgekit.recipe.samples import Material, Progress, predictions
from edgekit.recipe.steps import Steps, Work
from edgekit.train import fit, workers


class Run:
    """Runs steps on one model and data set; the float graph is measured once."""

    def __init__(
        self, graph: Graph, samples: Material, board: boards.Board,
        folder: Path | None = None, progress: Progress | None = None, teacher: Graph | None = None,
    ) -> None:  # fmt: skip
        """`teacher`: a float graph for distill and qat, from whatever model, where a step names
        none; else the model itself teaches."""
        self.graph = reconstruct.with_biases(graph)
        self.samples, self.folder, self.meter = samples, folder, meter.Meter()
        self.progress = self._metered(progress)
        self.steps = Steps(self.graph, samples, board, self.progress, teacher)
        self.host, self.target = self.steps.host, self.steps.target
        self.top, self.outputs = predictions(self.graph, samples.test, self.host, progress)
        self.float_bytes = len(pipeline.package_graph(self.graph, self.target))
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
        done = {} if self.folder is None else ledger.read(self.folder)
        for i, step in enumerate(steps):
            key = recipe.key(key, step)
            kept = None if self.folder is None else self.folder / f"{key}.npz"
            begin, spent = time.perf_counter(), self.meter.read()
            before = work.graph
            if kept is not None and key in done and kept.exists():
                self.steps.resume(work, step, self._kept(kept))
                entry = replace(done[key], step=i)
                if entry.float_accuracy != self.float_accuracy:  # the test has other labels now
                    now = self._entry(i, step, key, work, entry.effect, entry.seconds)
                    entry = replace(now, joules=entry.joules, energy=entry.energy)
                    self._keep(entry)
                entries.append(entry)
                continue
            if self.folder is not None:
                self.steps.checkpoint = fit.Checkpoint(self.folder / f"{key}.pt", package.save)
            effect = getattr(self.steps, step.do)(work, step.settings)
            if work.graph is before:
                raise AssertionError(f"{step.do} left the graph as it was")
            seconds, total = time.perf_counter() - begin, self.meter.read()
            entry = replace(
                self._entry(i, step, key, work, effect, seconds), energy=self.meter.source,
                joules=None if total is None or spent is None else round(total - spent, 3),
            )  # fmt: skip
            self._keep(entry, work.graph)
            entries.append(entry)
        return work.graph, entries

    def _keep(self, entry: Entry, graph: Graph | None = None) -> None:
        """Writes a step's graph and its line; only then what its training had kept goes."""
        if self.folder is None or workers.rank():
            return
        if graph is not None:
            package.save(self.folder / f"{entry.key}.npz", store.dumps(graph))
        ledger.add(self.folder, entry)
        (self.folder / f"{entry.key}.pt").unlink(missing_ok=True)

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
        shipped = remove_constant_channels(work.graph)  # what the package holds and runs
        top, outputs = predictions(shipped, self.samples.test, self.host, self.progress)
        labels = self.samples.labels
        accuracy = worst = None
        if labels is not None:
            accuracy = float((top == labels).mean())
            worst = min(float((top == labels)[labels == c].mean()) for c in np.unique(labels))
        noise = ((outputs - self.outputs) ** 2).sum()
        db = float(10 * np.log10((self.outputs**2).sum() / max(noise, 1e-30)))
        blob = pipeline.package_graph(shipped, self.target)
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
        few = data.some(self.samples.test, pipeline.NOISE_SAMPLES)
        with (
            pipeline.every_tensor(work.floating, self.host) as exact,
            pipeline.every_tensor(q, self.host) as run,
        ):
            found = sqnr.compare(q, work.names, exact, run, few)
        weights = {op.name: q.tensors[op.inputs[1]] for op in q.ops if op.type in WEIGHTED}
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

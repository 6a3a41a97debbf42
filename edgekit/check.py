"""Accuracy of a package beside its float model, sample by sample on the same data.

The float model runs in the runtime it comes from, where that is installed, else as a float32
package of ours; the result says which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from edgekit_runtime import Session, TensorInfo
from edgekit_runtime.preprocess import apply

from edgekit import adapters, data
from edgekit.data import Dataset
from edgekit.errors import DataError, UsageError

Array = npt.NDArray[Any]
Numbers = npt.NDArray[np.float64]
Progress = Callable[[str, int, int], None]
Z95 = 1.959964  # of the normal distribution
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval."""

    value: float
    lo: float
    hi: float


@dataclass(frozen=True)
class WorstClass:
    """The class that loses most: its number, name, samples, and both accuracies (0..1)."""

    label: int
    name: str
    count: int
    package: float
    reference: float


@dataclass(frozen=True)
class Accuracy:
    """`package` and `reference` are accuracies or AUCs in 0..1, or the mean cosine; `loss` =
    reference - package.

    `agreement`: share of samples with equal top-1; `kl`: mean KL divergence of the classes'
    probabilities from the reference's, in nats (outputs that are none go through a softmax);
    `sqnr_db`: of the outputs, all samples together, None where nothing differs.  Without reference
    only `package` is set.
    `scores`: per sample, (n,) each: correctness, score or cosine.
    """

    metric: str
    data: str
    count: int
    package: float
    reference_label: str = ""
    reference: float | None = None
    loss: Interval | None = None
    agreement: float | None = None
    kl: float | None = None
    sqnr_db: float | None = None
    worst: WorstClass | None = None
    lowest: float | None = None  # cosine
    scores: Numbers = field(default_factory=lambda: np.zeros(0))
    reference_scores: Numbers = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class _Side:
    """One runtime: what it runs and how its inputs are made."""

    runtime: Any  # a Session or a Peer
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]

    def run(self, x: dict[str, Array]) -> dict[str, Array]:
        """Outputs of one sample, which does not remember those before it."""
        self.runtime.reset()
        outputs: dict[str, Array] = self.runtime.run(x)
        return outputs


def accuracy(
    package: str | Path | bytes,
    source: Any,
    *,
    model: str | Path | None = None,
    metric: str = "top1",
    preprocess: dict[str, Any] | None = None,
    limit: int | None = None,
    output: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    shapes: dict[str, tuple[int, ...]] | None = None,
    progress: Progress | None = None,
) -> Accuracy:
    """Runs the package, and the model where one is given, over a data set.

    source: as data.load takes it.  preprocess: None takes what the package stores.  output: which
    output counts (default: the first).  window, stride: a sample is a long row; its AUC score is
    the mean squared reconstruction error over its windows.  Raises DataError, UsageError,
    ModelError.
    """
    d = source if isinstance(source, Dataset) else data.load(source)
    if limit is not None and limit < len(d):
        d = d.take(data.spread(len(d), limit))
    if metric not in ("top1", "auc", "cosine"):
        raise UsageError(f"metric {metric!r} is unknown", todo="known: top1, auc, cosine")
    if window and metric != "auc":
        raise UsageError("--window belongs to --metric auc")
    if metric == "cosine" and model is None:
        raise UsageError("--metric cosine compares with a model: give --model")
    if metric != "cosine" and d.labels is None:
        raise DataError(
            "has no labels", where=d.source, todo="add an array `y` with one class per sample"
        )
    with Session(package) as s:
        spec = s.meta.get("preprocess", {}) if preprocess is None else preprocess
        job = _Job(d, spec, metric, output, window, stride or window, progress)
        ours = job.evaluate(_Side(s, s.inputs(), s.outputs()), "package")
    theirs, label = None, ""
    if model is not None:
        with open_reference(model, shapes) as (peer, label):
            theirs = job.evaluate(_Side(peer, peer.inputs(), peer.outputs()), "reference")
    return job.judge(ours, theirs, label)


class open_reference:
    """Context manager: (runtime, label) of a float model, in its own runtime or, where that is
    missing, in ours."""

    def __init__(self, model: str | Path, shapes: dict[str, tuple[int, ...]] | None = None) -> None:
        try:
            self.runtime: Any = adapters.open_peer(model, 1, shapes)
            self.label = f"{Path(model).name} in {self.runtime.label}"
        except adapters.MissingRuntime as e:
            from edgekit import pipeline

            self.runtime = Session(pipeline.build(model, shapes=shapes).data)
            self.label = f"{Path(model).name} as a float32 package ({e.what})"

    def __enter__(self) -> tuple[Any, str]:
        return self.runtime, self.label

    def __exit__(self, *_: object) -> None:
        self.runtime.close()


@dataclass(frozen=True)
class _Job:
    """One comparison: the data and what to make of the outputs."""

    data: Dataset
    spec: dict[str, Any]
    metric: str
    output: str | None
    window: int | None
    stride: int | None
    progress: Progress | None

    def evaluate(self, side: _Side, what: str) -> Array:
        """auc: scores (n,); top1 and cosine: outputs (n, k)."""
        info = self._output(side)
        if self.window:
            return np.asarray(list(self._files(side, info, what)))
        floats = [TensorInfo(i.name, i.shape, np.dtype(np.float32), 0.0, 0) for i in side.inputs]
        rebuilds = (
            self.metric == "auc" and info.shape == side.inputs[0].shape and np.prod(info.shape) > 2
        )
        raw = data.feed(self.data, floats, self.spec) if rebuilds else None
        found = []
        for i, x in enumerate(data.feed(self.data, side.inputs, self.spec)):
            y = real(side.run(x)[info.name], info)
            if raw is not None:
                found.append(np.mean((y - next(raw)[side.inputs[0].name].reshape(-1)) ** 2))
            else:
                found.append(self._value(y))
            if self.progress:
                self.progress(what, i + 1, len(self.data))
        return self._grouped(np.asarray(found))

    def _output(self, side: _Side) -> TensorInfo:
        if self.output is None:
            return side.outputs[0]
        found = next((o for o in side.outputs if o.name == self.output), None)
        if found is None:
            names = ", ".join(o.name for o in side.outputs)
            raise UsageError(f"there is no output {self.output!r}", todo=f"outputs: {names}")
        return found

    def _value(self, y: Numbers) -> Any:
        """What is kept of one sample's output (k,)."""
        if self.metric != "auc":
            return y.astype(np.float32)
        if y.size > 2:
            raise UsageError(
                f"--metric auc needs one score per sample, the output has {y.size} values",
                todo="choose another --output, or give --window and --stride",
            )
        return float(y[-1])

    def _grouped(self, scores: Array) -> Array:
        """Means per group (file) where the data set has groups."""
        groups = self.data.groups
        if self.metric != "auc" or groups is None:
            return scores
        return np.asarray([scores[groups == g].mean() for g in np.unique(groups)])

    def _files(self, side: _Side, info: TensorInfo, what: str) -> Iterator[float]:
        """Mean squared reconstruction error of every file over its windows."""
        assert self.window and self.stride
        into = side.inputs[0]
        size = int(np.prod(into.shape))
        if size != self.window or int(np.prod(info.shape)) != self.window:
            raise UsageError(
                f"--window {self.window}: the model takes {size} and gives "
                f"{int(np.prod(info.shape))} values"
            )
        rows = next(iter(self.data.arrays.values()))
        plain = TensorInfo(into.name, into.shape, np.dtype(np.float32), 0.0, 0)
        for i, row in enumerate(rows):
            values = np.asarray(row).reshape(-1)
            if values.size < self.window:
                raise DataError(
                    f"sample {i} has {values.size} values, a window {self.window}",
                    where=self.data.source,
                )
            total, starts = 0.0, range(0, values.size - self.window + 1, self.stride)
            for at in starts:
                x = apply(values[at : at + self.window].reshape(into.shape), plain, self.spec)
                y = real(side.run({into.name: apply(x, into, {})})[info.name], info)
                total += float(np.mean((y - x.reshape(-1)) ** 2))
            if self.progress:
                self.progress(what, i + 1, len(self.data))
            yield total / len(starts)

    def labels(self, outputs: int | None = None) -> Array:
        """Classes (n,) of a model with so many outputs, or one per group."""
        y = data.classes(self.data, int(self.spec.get("label_offset", 0)), outputs)
        assert y is not None
        if self.metric == "auc" and self.data.groups is not None:
            return np.asarray([y[self.data.groups == g][0] for g in np.unique(self.data.groups)])
        return y

    def judge(self, ours: Array, theirs: Array | None, label: str) -> Accuracy:
        if self.metric == "top1":
            return self._top1(ours, theirs, label)
        if self.metric == "auc":
            return self._auc(ours, theirs, label)
        assert theirs is not None
        a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosine = np.where(norm > 0, (a * b).sum(1) / np.maximum(norm, 1e-30), (a == b).all(1))
        return Accuracy(
            "cosine",
            self.data.source,
            len(a),
            float(cosine.mean()),
            label,
            1.0,
            lowest=float(cosine.min()),
            scores=cosine,
        )

    def _top1(self, ours: Array, theirs: Array | None, label: str) -> Accuracy:
        y, top = self.labels(ours.shape[1]), classes(ours)
        right = (top == y).astype(np.float64)
        base = Accuracy("top1", self.data.source, len(y), float(right.mean()), scores=right)
        if theirs is None:
            return base
        other = (classes(theirs) == y).astype(np.float64)
        return Accuracy(
            "top1", base.data, base.count, base.package, label, float(other.mean()),
            paired_loss(other, right), float((top == classes(theirs)).mean()),
            divergence(theirs, ours), sqnr_db(theirs, ours),
            self._worst(y, right, other), None, right, other,
        )  # fmt: skip

    def _worst(self, y: Array, right: Numbers, other: Numbers) -> WorstClass:
        rows = [(other[y == c].mean() - right[y == c].mean(), int(c)) for c in np.unique(y)]
        c = max(rows)[1]
        names = self.data.extra.get("classes", [])
        offset = int(self.spec.get("label_offset", 0))
        name = names[c - offset] if 0 <= c - offset < len(names) else str(c)
        mine = y == c
        return WorstClass(
            c, name, int(mine.sum()), float(right[mine].mean()), float(other[mine].mean())
        )

    def _auc(self, ours: Array, theirs: Array | None, label: str) -> Accuracy:
        y = self.labels()
        if set(np.unique(y)) != {0, 1}:
            raise DataError(
                f"labels {sorted(set(y.tolist()))[:5]} are not 0 and 1", where=self.data.source
            )
        if theirs is None:
            return Accuracy("auc", self.data.source, len(y), auc(ours, y), scores=ours)
        return Accuracy(
            "auc", self.data.source, len(y), auc(ours, y), label, auc(theirs, y),
            bootstrap_loss(theirs, ours, y), scores=ours, reference_scores=theirs,
        )  # fmt: skip


def classes(outputs: Array) -> Array:
    """Predicted class (n,) of outputs (n, k); one value per sample is a probability of class 1."""
    one = outputs.shape[1] == 1
    return np.asarray((outputs[:, 0] > 0.5).astype(np.int64) if one else outputs.argmax(1))


def divergence(reference: Array, outputs: Array) -> float | None:
    """Mean KL divergence in nats of outputs (n, k) from the reference's, as probabilities; None
    where a sample has one value only."""
    if reference.shape[1] < 2:
        return None
    reference, outputs = reference.astype(np.float64), outputs.astype(np.float64)
    if reference.min() < 0 or np.abs(reference.sum(1) - 1).max() > 0.01:
        reference, outputs = _softmax(reference), _softmax(outputs)
    p, q = (np.maximum(x, 1e-4) for x in (reference, outputs))  # int8 knows nothing below 1/256
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    return float((p * (np.log(p) - np.log(q))).sum(1).mean())


def _softmax(x: Numbers) -> Numbers:
    e = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def sqnr_db(reference: Array, outputs: Array) -> float | None:
    """Signal to noise of outputs against the reference's in dB; None where nothing differs."""
    signal = reference.astype(np.float64)
    noise = float(((signal - outputs) ** 2).sum())
    return float(10 * np.log10(float((signal**2).sum()) / noise)) if noise else None


def real(y: Array, info: TensorInfo) -> Numbers:
    """Values (k,) of an output as real numbers."""
    x = np.asarray(y).reshape(-1).astype(np.float64)
    return (x - info.zero) * info.scale if info.scale else x


def paired_loss(reference: Numbers, package: Numbers) -> Interval:
    """Loss of accuracy with its 95 % interval, from per-sample correctness (n,) of both.

    Agresti and Min (2005): half an observation is added to each of the four cells, so that the
    interval has a width where no sample differs.
    """
    n = len(reference)
    lost = float(((reference == 1) & (package == 0)).sum())
    won = float(((reference == 0) & (package == 1)).sum())
    b, c, m = lost + 0.5, won + 0.5, n + 2
    middle = (b - c) / m
    half = Z95 * float(np.sqrt(max(b + c - (b - c) ** 2 / m, 0.0))) / m
    return Interval((lost - won) / n, middle - half, middle + half)


def auc(scores: Array, y: Array) -> float:
    """Area under the ROC curve, ties counted half (Mann-Whitney)."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positive = y == 1
    n1, n0 = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def bootstrap_loss(reference: Array, package: Array, y: Array) -> Interval:
    """Loss of AUC with its 95 % percentile interval: both classes drawn again, the same draws for
    both models."""
    rng = np.random.default_rng(1)
    classes = [np.flatnonzero(y == c) for c in (0, 1)]
    losses = []
    for _ in range(RESAMPLES):
        i = np.concatenate([rng.choice(c, len(c)) for c in classes])
        losses.append(auc(reference[i], y[i]) - auc(package[i], y[i]))
    lo, hi = np.quantile(losses, [0.025, 0.975])
    return Interval(auc(reference, y) - auc(package, y), float(lo), float(hi))


def text(a: Accuracy) -> list[str]:
    """The result as lines for people."""
    if a.metric == "cosine":
        return [
            f"cosine with {a.reference_label} on {a.count:,} samples of {a.data}: "
            f"mean {a.package:.6f}, lowest {a.lowest:.6f}"
        ]
    unit, factor, digits = ("%", 100.0, 2) if a.metric == "top1" else ("", 1.0, 4)

    def value(x: float) -> str:
        return f"{factor * x:.{digits}f}{' ' + unit if unit else ''}"

    name = "top-1" if a.metric == "top1" else "AUC"
    lines = [f"{name} on {a.count:,} samples of {a.data}", f"  package    {value(a.package)}"]
    if a.reference is None or a.loss is None:
        return lines
    lines.append(f"  reference  {value(a.reference)}   ({a.reference_label})")
    points = " points" if a.metric == "top1" else ""
    low, high = (f"{factor * x:+.{digits}f}" for x in (a.loss.lo, a.loss.hi))
    lines.append(
        f"  net loss   {factor * a.loss.value:+.{digits}f}{points}, "
        f"95 % interval {low} .. {high}, paired"
    )
    if a.agreement is not None:
        lines.append(f"  agreement  {100 * a.agreement:.2f} % of samples have the same top-1")
    if a.kl is not None and a.sqnr_db is not None:
        lines.append(f"  outputs    KL {a.kl:.4f} nats, SQNR {a.sqnr_db:.1f} dB")
    if a.worst is not None:
        w = a.worst
        lines.append(
            f"  worst class {w.name}: {100 * w.reference:.1f} % -> {100 * w.package:.1f} % "
            f"of {w.count} samples"
        )
    return lines


def facts(a: Accuracy) -> dict[str, Any]:
    """The result as plain data, for --json."""
    out = {
        k: v for k, v in vars(a).items() if k not in ("scores", "reference_scores", "loss", "worst")
    }
    out["loss"] = vars(a.loss) if a.loss else None
    out["worst"] = vars(a.worst) if a.worst else None
    return out

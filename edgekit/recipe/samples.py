"""The samples of a run, prepared once, and what a graph makes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from edgekit_runtime import Session

from edgekit import check, data, pipeline
from edgekit.errors import DataError
from edgekit.ir import Array, Graph
from edgekit.layout import Target

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Material:
    """Prepared samples: input name -> (1, ...) arrays; `labels` belong to `test`."""

    calibration: list[dict[str, Array]]
    test: list[dict[str, Array]]
    labels: Array | None
    id: str  # of the data, for the ledger's keys
    train: dict[str, Array] = field(default_factory=dict)  # input name -> (n, ...), not in `test`
    train_labels: Array | None = None


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

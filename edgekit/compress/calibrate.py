"""Value ranges of every activation, observed while the float graph runs on our own native
runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.errors import DataError, UsageError
from edgekit.ir import Array, Graph

METHODS = ("minmax", "percentile", "mse")
BINS = 2048
PERCENTILE = 99.99  # of |x - median side|; per side
Runner = Callable[[dict[str, Array]], dict[str, Array]]


@dataclass(frozen=True)
class Observed:
    """What calibration saw of one tensor: range used, true range, mean per last-axis channel."""

    lo: float
    hi: float
    true_lo: float
    true_hi: float
    mean: npt.NDArray[np.float64]


@dataclass
class _Seen:
    lo: float = np.inf
    hi: float = -np.inf
    total: npt.NDArray[np.float64] | None = None
    count: int = 0
    hist: npt.NDArray[np.int64] | None = None


def observe(
    graph: Graph,
    run: Runner,
    samples: Callable[[], Iterable[dict[str, Array]]],
    method: str = "minmax",
    levels: int = 255,
) -> dict[str, Observed]:
    """Ranges per float activation of the graph.

    `run(inputs)` gives every tensor by name; `samples()` iterates over the calibration inputs
    (twice for percentile and mse, which need a histogram over the true range).  `levels`: steps of
    the grid that mse fits (255: 8 bits).  UsageError for an
    unknown method, DataError where there are no samples or a value is not finite.
    """
    if method not in METHODS:
        raise UsageError(
            f"calibration method {method!r} is unknown", todo=f"known: {', '.join(METHODS)}"
        )
    seen: dict[str, _Seen] = {}
    n = 0
    for inputs in samples():
        n += 1
        for name, x in run(inputs).items():
            if x.dtype == np.float32:
                _add(seen.setdefault(name, _Seen()), name, x)
    if n == 0:
        raise DataError("no calibration samples", todo="give --calibrate a data set")
    if method != "minmax":
        for inputs in samples():
            for name, x in run(inputs).items():
                if name in seen:
                    s = seen[name]
                    h = np.histogram(x, BINS, (s.lo, max(s.hi, s.lo + 1e-12)))[0]
                    s.hist = h if s.hist is None else s.hist + h
    out = {}
    for name, s in seen.items():
        assert s.total is not None
        lo, hi = _range(s, method, levels)
        out[name] = Observed(lo, hi, s.lo, s.hi, s.total / s.count)
    return out


def _add(s: _Seen, name: str, x: Array) -> None:
    lo, hi = float(x.min()), float(x.max())
    if not (np.isfinite(lo) and np.isfinite(hi)):
        raise DataError(
            f"tensor {name!r} holds values that are not finite", todo="check the preprocessing"
        )
    s.lo, s.hi = min(s.lo, lo), max(s.hi, hi)
    rows = x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)
    total = rows.sum(0, dtype=np.float64)
    s.total = total if s.total is None else s.total + total
    s.count += len(rows)


def _range(s: _Seen, method: str, levels: int) -> tuple[float, float]:
    if method == "minmax" or s.hist is None or s.hi <= s.lo:
        return s.lo, s.hi
    edges = np.linspace(s.lo, s.hi, BINS + 1)
    if method == "percentile":
        share = np.cumsum(s.hist) / s.hist.sum()
        tail = (100 - PERCENTILE) / 100
        lo = edges[int(np.searchsorted(share, tail, side="right"))]
        hi = edges[min(int(np.searchsorted(share, 1 - tail)) + 1, BINS)]
        # a bound at zero is a rectifier's: it stays
        return (float(lo) if s.lo < 0 else s.lo), float(hi)
    return _mse(s.hist, edges, levels)


def _mse(
    hist: npt.NDArray[np.int64], edges: npt.NDArray[np.float64], levels: int
) -> tuple[float, float]:
    """The range whose grid of `levels` steps has the least expected squared error."""
    mid = (edges[:-1] + edges[1:]) / 2
    lo0, hi0 = min(float(edges[0]), 0.0), max(float(edges[-1]), 0.0)
    best, result = np.inf, (lo0, hi0)
    for a in np.linspace(1.0, 0.3 if levels > 15 else 0.1, 36):
        for lo, hi in ((lo0 * a, hi0 * a), (lo0, hi0 * a), (lo0 * a, hi0)):
            scale = max((hi - lo) / levels, 1e-30)
            inside = np.clip(mid, lo, hi)
            q = np.rint((inside - lo) / scale) * scale + lo
            error = float((hist * ((q - mid) ** 2 + 0.0)).sum())
            # inside the grid the bins are wider than the error of rounding: add its expectation
            error += float(hist[(mid >= lo) & (mid <= hi)].sum()) * scale * scale / 12
            if error < best:
                best, result = error, (lo, hi)
    return result

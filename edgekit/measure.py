"""Latency, load time and memory of a package beside other runtimes, in one run.

Runtimes take turns: every round runs each of them for a while, in rotated order, so that a busy or
slowing machine hits all alike.  First inference, load time and memory come from a fresh process per
runtime.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from edgekit_runtime import EdgeKitRuntimeError, Session, TensorInfo, version

from edgekit.errors import PackageError, UsageError

Array = npt.NDArray[Any]
Numbers = npt.NDArray[np.float64]
ROUNDS = 10
AIM_S = 1.0  # of measured time per runtime, where no count is given
FEWEST, MOST = 30, 20_000
FRESH_RUNS = 20  # inferences after the first in the fresh process
COLUMNS = (
    "runtime", "model", "precision", ">p50", ">p90", ">p99", ">min", ">first", ">load ms", ">KiB",
)  # fmt: skip
Progress = Callable[[str, int, int], None]


class Runtime(Protocol):
    """What is measured: `edgekit_runtime.Session` and every `adapters.Peer`."""

    def inputs(self) -> list[TensorInfo]: ...
    def set_inputs(self, inputs: Mapping[str, Array] | Array) -> None: ...
    def execute(self) -> None: ...
    def time(self, count: int) -> Numbers: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Timing:
    """One runtime with one model.  Latencies `samples` (n,) in microseconds.

    `first_us`, `load_us`, `memory_bytes` (growth of the process from before loading to its peak;
    None where the system does not tell) come from a fresh process.
    """

    label: str
    file: str
    precision: str
    threads: int
    samples: Numbers
    first_us: float
    load_us: float
    memory_bytes: int | None

    def quantile(self, q: float) -> float:
        """Latency in microseconds that a share `q` (0..1) of the samples does not exceed."""
        return float(np.quantile(self.samples, q))

    def row(self) -> tuple[object, ...]:
        """A row under COLUMNS."""
        latencies = [self.quantile(q) for q in (0.5, 0.9, 0.99)]
        memory = None if self.memory_bytes is None else self.memory_bytes / 1024
        rest = (float(self.samples.min()), self.first_us, self.load_us / 1000, memory)
        return (self.label, self.file, self.precision, *latencies, *rest)


def facts(t: Timing) -> dict[str, Any]:
    """A timing as plain data, for --json."""
    quantiles = {f"p{round(q * 100)}_us": t.quantile(q) for q in (0.5, 0.9, 0.99)}
    rest = {k: v for k, v in vars(t).items() if k != "samples"}
    return {**rest, **quantiles, "min_us": float(t.samples.min()), "runs": len(t.samples)}


def bench(
    packages: Sequence[Path],
    models: Sequence[Path] = (),
    *,
    threads: int = 1,
    count: int | None = None,
    isa: list[str] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    progress: Progress | None = None,
) -> list[Timing]:
    """Packages on our runtime and models on theirs, interleaved; one Timing each, packages first.

    count: inferences per runtime (default: about a second's worth).  Inputs are random, the same
    seed for all. Raises EdgeKitRuntimeError, ModelError, adapters.MissingRuntime.
    """
    if count is not None and count < 1:
        raise UsageError(f"-n {count}: at least one inference is needed")
    jobs: list[dict[str, Any]] = [
        {"path": str(p), "native": True, "threads": threads, "isa": isa, "shapes": {}}
        for p in packages
    ]
    jobs += [
        {
            "path": str(m),
            "native": False,
            "threads": threads,
            "isa": None,
            "shapes": dict(shapes or {}),
        }
        for m in models
    ]
    steps = len(jobs) + ROUNDS
    fresh = []
    for i, job in enumerate(jobs):
        fresh.append(_fresh(job))
        if progress:
            progress("fresh processes", i + 1, steps)
    opened: list[Runtime] = []
    try:
        for job in jobs:
            opened.append(construct(job))
            opened[-1].set_inputs(random_inputs(opened[-1].inputs()))
        taken = interleave(opened, count, progress, len(jobs), steps)
        labels = [describe(s) for s in opened]
    finally:
        for s in opened:
            s.close()
    return [
        Timing(
            label,
            Path(job["path"]).name,
            precision,
            threads,
            samples,
            f["first_us"],
            f["load_us"],
            f["memory_bytes"],
        )
        for job, (label, precision), samples, f in zip(jobs, labels, taken, fresh)
    ]


def interleave(
    runtimes: Sequence[Runtime],
    count: int | None,
    progress: Progress | None = None,
    done: int = 0,
    total: int = ROUNDS,
) -> list[Numbers]:
    """Latencies (n,) in microseconds of each runtime, taken in rounds."""
    chunks = []
    for s in runtimes:
        pilot = float(np.median(s.time(5)))
        wanted = count or int(np.clip(AIM_S * 1e6 / max(pilot, 0.1), FEWEST, MOST))
        chunks.append([len(c) for c in np.array_split(np.arange(wanted), ROUNDS)])
    taken: list[list[Numbers]] = [[] for _ in runtimes]
    for r in range(ROUNDS):
        for k in range(len(runtimes)):
            i = (k + r) % len(runtimes)
            if chunks[i][r]:
                runtimes[i].time(2)  # what the others left in the caches is not its cost
                taken[i].append(runtimes[i].time(chunks[i][r]))
        if progress:
            progress("rounds", done + r + 1, total)
    return [np.concatenate(t) for t in taken]


def random_inputs(infos: Sequence[TensorInfo], seed: int = 1) -> dict[str, Array]:
    """Made inputs: float in [0, 1), integers over half their range, indices 0 or 1."""
    rng = np.random.default_rng(seed)
    out: dict[str, Array] = {}
    for i in infos:
        if i.dtype.kind == "f":
            out[i.name] = rng.random(i.shape).astype(i.dtype)
        elif i.dtype.itemsize == 1 and i.dtype.kind in "iu":
            out[i.name] = rng.integers(0, 128, i.shape).astype(i.dtype)
        else:
            out[i.name] = rng.integers(0, 2, i.shape).astype(i.dtype)
    return out


WEIGHTED = ("conv2d", "depthwise_conv2d", "linear", "conv_transpose2d", "winograd")


def construct(job: dict[str, Any]) -> Runtime:
    """The runtime with its model loaded."""
    if job["native"]:
        return Session(job["path"], threads=job["threads"], isa=job["isa"])
    from edgekit import adapters

    shapes = {k: tuple(v) for k, v in job["shapes"].items()}
    return adapters.open_peer(job["path"], job["threads"], shapes)


def describe(runtime: Any) -> tuple[str, str]:
    """(runtime and version, precision)."""
    if not isinstance(runtime, Session):
        return runtime.label, runtime.precision()
    ops = runtime.ops()
    isas = sorted({o.isa for o in ops} - {"portable"}) or ["portable"]
    weighted = [o.isa for o in ops if o.type in WEIGHTED]
    slow = weighted.count("portable")
    if slow and isas != ["portable"]:
        board = runtime.meta.get("board", "another board")
        isas.append(f"({slow} of {len(weighted)} ops with weights in portable C: made for {board})")
    precision = str(runtime.meta.get("precision", "unknown"))
    return f"edgekit {version()} {' '.join(isas)}", "int8" if precision == "as is" else precision


# ---- fresh process ----


def _fresh(job: dict[str, Any]) -> dict[str, Any]:
    """Load time, first inference and memory of one runtime in a process of its own."""
    command = [sys.executable, "-m", "edgekit.measure", json.dumps(job)]
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False
    )
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PackageError(
            f"the process that measures ended with {done.returncode}: {said}", where=job["path"]
        )
    facts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if "error" in facts:
        raise PackageError(facts["error"], todo=facts.get("todo", ""))
    return facts


def child(job: dict[str, Any]) -> dict[str, Any]:
    """What the fresh process does: imports first, then the clock and the memory meter start."""
    if job["native"]:
        version()  # loads the library
    else:
        import importlib

        suffix = Path(job["path"]).suffix
        for name in {".onnx": ("onnxruntime",), ".pt2": ("torch",)}.get(
            suffix, ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")
        ):
            try:
                importlib.import_module(name)
                break
            except ImportError:
                continue
        import edgekit.adapters  # noqa: F401
    random_inputs([])  # imports numpy.random
    before = _reset_peak()
    begin = time.perf_counter_ns()
    runtime = construct(job)
    loaded = time.perf_counter_ns()
    inputs = random_inputs(runtime.inputs())
    runtime.set_inputs(inputs)
    ready = time.perf_counter_ns()
    runtime.execute()
    first = time.perf_counter_ns()
    runtime.time(FRESH_RUNS)
    peak = _status("VmHWM")
    memory = None if before is None or peak is None else max(peak - before, 0)
    return {
        "load_us": (loaded - begin) / 1e3,
        "first_us": (first - ready) / 1e3,
        "memory_bytes": memory,
    }


def _reset_peak() -> int | None:
    """Sets the peak to what is resident now and returns it, in bytes; None where Linux does not
    tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _status(key: str) -> int | None:
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    line = next((x for x in text.splitlines() if x.startswith(key + ":")), "")
    return int(line.split()[1]) * 1024 if line else None


def main() -> int:
    """Entry of the fresh process: a job as JSON in, facts as JSON out."""
    from edgekit.errors import EdgeKitError

    try:
        facts = child(json.loads(sys.argv[1]))
    except (EdgeKitError, EdgeKitRuntimeError) as e:
        facts = {"error": getattr(e, "what", str(e)), "todo": getattr(e, "todo", "")}
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

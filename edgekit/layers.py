"""Every intermediate tensor of a package, where it runs, beside the host's integer and float
values.

The package is written again with a place of its own for every tensor: same ops, same weights, a
larger arena. Integers must be equal; float tensors must agree within a tolerance; against the float
model the SQNR is told.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from edgekit_runtime import Session

from edgekit import boards, contents, data, evaluate, measure, ops, package, plan
from edgekit.contents import Contents, Entry
from edgekit.errors import PackageError, UsageError
from edgekit.ir import NUMPY, Graph, Tensor
from edgekit.layout import Target

Array = npt.NDArray[Any]
Progress = Callable[[str, int, int], None]
TOLERANCE = 1e-4  # of the largest value, for ops that are not exact


@dataclass(frozen=True)
class Layer:
    """One tensor: values compared, how many differ, the largest difference, SQNR against float in
    dB (or None).

    `different` counts unequal integers, or floats that differ by more than the tolerance.
    """

    op: str
    tensor: str
    values: int
    against: str
    different: int
    largest: float
    sqnr_db: float | None


@dataclass(frozen=True)
class Layers:
    """The comparison; `where` names the runtime that was looked at."""

    where: str
    rows: tuple[Layer, ...]
    equal: bool
    verdict: str


def compare(
    path: str | Path,
    *,
    model: str | Path | None = None,
    source: Any = None,
    options: dict[str, Any] | None = None,
    on: str | None = None,
    token: bytes = b"",
    progress: Progress | None = None,
) -> Layers:
    """Runs one sample of `source` (made up without one) and compares every tensor of the entry
    "main".

    model: the package's model, built again with `options` (arguments of pipeline.build) to get
    numpy's integers and the float values; PackageError where that gives another package.  Without
    it the portable C kernels are the truth. on: a board id with an emulator, tcp:// or serial://;
    None runs here with the best ISA.
    """
    blob = Path(path).read_bytes()
    c = contents.read(blob, str(path))
    entry = c.entries[0]
    kept = keep(c)
    inputs, floats = _sample(entry, source, options or {})
    steps = [(op, o) for op in entry.graph.ops for o in op.outputs if o not in entry.graph.states]
    if on:
        got, where = _remote(kept, entry, inputs, on, token, [o for _, o in steps], progress)
    else:
        with Session(kept) as s:
            s.run(inputs)
            got = {o: s.tensor(o) for _, o in steps}
            isas = sorted({i.isa for i in s.ops()})
        where = f"this machine ({', '.join(isas)})"
    truth, against, reference = _truth(blob, kept, c, inputs, floats, steps, model, options or {})
    rows = []
    for op, o in steps:
        t = entry.graph.tensors[o]
        exact = ops.get(op.type).exact(op, entry.graph)
        different, largest = _difference(got[o], truth[o], exact)
        rows.append(
            Layer(op.name, o, t.size, against, different, largest, _sqnr(got[o], t, reference))
        )
    wrong = [r for r in rows if r.different]
    verdict = (
        f"{len(rows)} tensors agree with {against}"
        if not wrong
        else f"{len(wrong)} of {len(rows)} tensors differ from {against}; "
        f"the first is {wrong[0].tensor!r} of {wrong[0].op!r}"
    )
    return Layers(where, tuple(rows), not wrong, verdict)


def keep(c: Contents) -> bytes:
    """The package's first entry, planned so that every tensor keeps its value until the end of a
    run."""
    entry = c.entries[0]
    wide = plan.make(entry.graph, Target(), keep=True)
    wide = dataclasses.replace(wide, scratch=entry.scratch)
    return package.write(
        [(entry.name, entry.graph, wide)], meta=c.meta, model_id=bytes.fromhex(c.model_id)
    )


def _sample(
    entry: Entry, source: Any, options: dict[str, Any]
) -> tuple[dict[str, Array], dict[str, Array] | None]:
    """(inputs of the package, the same sample for a float model or None)."""
    infos = data.input_infos(entry.graph)
    if source is None:
        made = measure.random_inputs(infos)
        return made, made
    d = data.load(source)
    d = d.take(np.arange(1))
    spec = options.get("preprocess") or {}
    inputs = next(iter(data.feed(d, infos, spec)))
    plain = [dataclasses.replace(i, dtype=np.dtype(np.float32), scale=0.0, zero=0) for i in infos]
    floats = next(iter(data.feed(d, plain, spec)))
    return inputs, floats


def _truth(
    blob: bytes,
    kept: bytes,
    c: Contents,
    inputs: dict[str, Array],
    floats: dict[str, Array] | None,
    steps: list[tuple[Any, str]],
    model: str | Path | None,
    options: dict[str, Any],
) -> tuple[dict[str, Array], str, dict[str, Array]]:
    """(value of every tensor, whose they are, values of the float model by name or {})."""
    if model is None:
        with Session(kept, isa=[]) as s:
            s.run(inputs)
            return {o: s.tensor(o) for _, o in steps}, "portable C", {}
    from edgekit import pipeline

    built = pipeline.build(model, board=c.meta.get("board", "host"), **options)
    if package.sections(built.data)["DATA"] != package.sections(blob)["DATA"]:
        raise PackageError(
            f"was not built from {Path(model).name} with these options",
            todo="give the options of `edgekit build` again: --calibrate, --samples, ...",
        )
    values = evaluate.run(built.graph, inputs)
    missing = [o for _, o in steps if o not in values]
    if missing:
        raise PackageError(f"tensor {missing[0]!r} is not in the model built again")
    reference = {}
    if built.graph is not built.reference and floats is not None:
        reference = evaluate.run(built.reference, _typed(built.reference, floats))
    return values, "numpy", reference


def _typed(g: Graph, inputs: dict[str, Array]) -> dict[str, Array]:
    return {n: inputs[n].astype(NUMPY[g.tensors[n].dtype]) for n in g.inputs}


def _difference(got: Array, want: Array, exact: bool) -> tuple[int, float]:
    """(values that differ, largest difference)."""
    if got.shape != want.shape:
        raise PackageError(f"a tensor has shape {got.shape}, {want.shape} was expected")
    if got.size == 0:
        return 0, 0.0
    delta = np.abs(got.astype(np.float64) - want.astype(np.float64))
    if exact:
        return int((delta != 0).sum()), float(delta.max())
    bound = TOLERANCE * max(float(np.abs(want).max()), 1e-30)
    return int((~(delta <= bound)).sum()), float(delta.max())


def _sqnr(got: Array, t: Tensor, reference: dict[str, Array]) -> float | None:
    """Signal to noise against the float tensor of the same name, dB; None where there is none."""
    name = next(
        (
            n
            for n in (t.name, t.name.removesuffix(".i8"), t.name.removesuffix(".f32"))
            if n in reference
        ),
        None,
    )
    if name is None or reference[name].shape != got.shape:
        return None
    want = reference[name].astype(np.float64)
    have = t.quant.dequantize(got) if t.quant is not None else got.astype(np.float64)
    noise = float(((have - want) ** 2).sum())
    return None if noise == 0 else float(10 * np.log10(max(float((want**2).sum()), 1e-30) / noise))


def _remote(
    kept: bytes,
    entry: Entry,
    inputs: dict[str, Array],
    on: str,
    token: bytes,
    names: list[str],
    progress: Progress | None,
) -> tuple[dict[str, Array], str]:
    """Value of every tensor on a device, read through its agent."""
    from edgekit import devices
    from edgekit.remote import Remote

    if "://" not in on:
        board = boards.load(on)
        need = contents.read(kept).memory["main"]
        if board.bare and need > board.ram_bytes:
            raise UsageError(
                f"keeping every tensor needs {need:,} B of RAM, "
                f"{board.id} has {board.ram_bytes:,} B"
            )
    index = {n: i for i, n in enumerate(entry.graph.tensors)}
    with devices.reach(on, token) as (url, secret), Remote(url, secret) as r:
        r.upload(kept)
        r.open()
        for i, n in enumerate(entry.graph.inputs):
            r.set_input(i, np.ascontiguousarray(inputs[n]).tobytes())
        r.run()
        got = {}
        for i, n in enumerate(names):
            t = entry.graph.tensors[n]
            got[n] = np.frombuffer(r.tensor(index[n]), NUMPY[t.dtype]).reshape(t.shape)
            if progress:
                progress("read tensors", i + 1, len(names))
        return got, r.hello.name


def facts(found: Layers) -> dict[str, Any]:
    """The comparison as plain data, for --json."""
    return {
        "where": found.where,
        "equal": found.equal,
        "verdict": found.verdict,
        "layers": [vars(r) for r in found.rows],
    }

"""Fits edgekit/cost.json to instructions counted on emulated cores; several minutes.

    python bench/cost.py [--isa dsp,mve]

Every kind of op runs in a few sizes, all entries of one package; rates are never negative and
fitted to relative errors.  Cycles per instruction are those of the largest size by bench/cycles.py.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import arm
import cycles
import numpy as np
import profiles

from edgekit import boards, cost, emulate, layout, package, pipeline, plan
from edgekit.ir import Array, Graph, QuantSpec, Tensor
from edgekit.ops.base import sample_graph
from edgekit.passes.lower import lower

OUT = Path(cost.__file__).with_name("cost.json")
CORES = {
    "neon": "a72 neon",
    "dotprod": "n1 dotprod",
    "i8mm": "max i8mm",
    "dsp": "Cortex-M4",
    "mve": "Cortex-M55",
}
X = QuantSpec.per_tensor(0.05, -3)
Y = QuantSpec.per_tensor(0.4, 5)
IMAGES = ((12, 12, 16), (6, 6, 64), (10, 14, 24), (20, 20, 32), (5, 5, 128))  # largest work last


def weights(
    op: str, x: tuple[int, ...], w: tuple[int, ...], attrs: dict[str, Any], form: str
) -> Graph:
    """An op with weights: form f32, i8, i4 or i2."""
    rng = np.random.default_rng(1)
    axis = len(w) - 1 if op == "depthwise_conv2d" else 0
    n = w[axis]
    if form == "f32":
        tensors = {
            "x": Tensor("x", x),
            "w": Tensor("w", w, "f32", rng.normal(size=w).astype(np.float32)),
            "b": Tensor("b", (n,), "f32", rng.normal(size=n).astype(np.float32)),
        }
        return sample_graph(op, tensors, attrs)
    bits = {"i8": 8, "i4": 4, "i2": 2}[form]
    top = 1 << bits - 1
    values = rng.integers(1 - top, top, w).astype(np.int8)
    scales = QuantSpec.per_axis(rng.uniform(0.001, 0.02, n).astype(np.float32), axis, bits=bits)
    tensors = {
        "x": Tensor("x", x, "i8", None, X),
        "w": Tensor("w", w, "i8", values, scales),
        "b": Tensor("b", (n,), "i32", rng.integers(-3000, 3000, n).astype(np.int32)),
    }
    return sample_graph(op, tensors, attrs, out_quant=Y, dtype="i8")


def plain(op: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any], dtype: str) -> Graph:
    """An op without weights."""
    quant = X if dtype == "i8" else None
    tensors = {f"x{i}": Tensor(f"x{i}", s, dtype, None, quant) for i, s in enumerate(shapes)}
    return sample_graph(op, tensors, attrs, out_quant=Y if quant else None, dtype=dtype)


def cases() -> Iterator[Graph]:
    """Graphs of one op, of every kind in several sizes, the one with most work last."""
    same = {"pad": (1, 1, 1, 1)}
    for form in ("i8", "f32", "i4", "i2"):
        for h, w, c in IMAGES:
            for n in (16, 40, 64):
                yield weights("conv2d", (1, h, w, c), (n, 1, 1, c), {}, form)
                yield weights("conv2d", (1, h, w, c), (n, 3, 3, c), same, form)
        yield weights("conv2d", (1, 24, 24, 3), (16, 3, 3, 3), same | {"stride": (2, 2)}, form)
        for k, n in ((64, 10), (128, 128), (640, 128), (256, 1000)):
            yield weights("linear", (1, k), (n, k), {}, form)
    for form, (h, w, c) in itertools.product(("i8", "f32"), IMAGES):
        for stride in ((1, 1), (2, 2)):
            yield weights(
                "depthwise_conv2d", (1, h, w, c), (3, 3, c), same | {"stride": stride}, form
            )
        yield weights("depthwise_conv2d", (1, h, w, c), (5, 5, c), {"pad": (2, 2, 2, 2)}, form)
    window = {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0, 0, 0), "dilation": (1, 1)}
    for dtype, (h, w, c) in itertools.product(("i8", "f32"), IMAGES):
        x = (1, h, w, c)
        yield plain("binary", [x, x], {"kind": "add"}, dtype)
        yield plain("avg_pool2d", [x], window, dtype)
        whole = {"kernel": (h, w), "stride": (h, w)}
        yield plain("avg_pool2d", [x], window | whole, dtype)
        yield plain("max_pool2d", [x], window, dtype)
        yield plain("softmax", [(h, w * c)], {}, dtype)
        yield plain("concat", [x, x], {"axis": 3}, dtype)
        yield plain("reshape", [x], {"shape": (1, h * w * c)}, dtype)
        pads = {"before": (0, 1, 1, 0), "after": (0, 1, 1, 0)}
        yield plain("pad", [x], pads, dtype)
        if dtype == "f32":
            yield plain("unary", [x], {"kind": "hardswish"}, dtype)


def groups() -> dict[str, list[Graph]]:
    """Cases by kind; a form that an op's quantization cannot express is left out loudly."""
    found: dict[str, list[Graph]] = {}
    for g in cases():
        found.setdefault(cost.kind(g.ops[0], g), []).append(g)
    for graphs in found.values():
        graphs.sort(key=lambda g: cost.features(g.ops[0], g)[-1])
    return found


def counted(graphs: list[Graph], where: arm.Core) -> tuple[list[int], float]:
    """(instructions of each graph, cycles per instruction of the last)."""
    board = boards.load(where.board)
    target = pipeline.target_of(board, where.isa)
    rng = np.random.default_rng(1)
    entries, inputs = [], []
    for i, g in enumerate(graphs):
        low = lower(g, target)
        entries.append((f"e{i}", low, plan.make(low, target)))
        inputs.append(b"".join(_bytes(low.tensors[n], rng) for n in low.inputs))
    with tempfile.TemporaryDirectory() as folder:
        path, profile = Path(folder) / "m.ekp", Path(folder) / "m.profile"
        path.write_bytes(package.write(entries, meta={}))
        ran = emulate.run_package(
            board,
            path,
            inputs,
            entry=range(len(graphs)),
            count=True,
            profile=profile,
            cpu=where.cpu,
        )
        executed = profiles.read(profile)
        per = cycles.modelled(executed, where.models[-1]) / executed.instructions
    return [sum(n) for n in ran.op_instructions], per


def _bytes(t: Tensor, rng: np.random.Generator) -> bytes:
    if t.dtype == "f32":
        return bytes(rng.random(t.shape, dtype=np.float32))
    return bytes(rng.integers(-128, 128, t.shape).astype(np.int8))


def fit(rows: Array, wanted: Array) -> tuple[Array, float]:
    """(rates, worst relative error): least relative squares over every set of columns whose
    solution is not negative; the best one."""
    scaled = rows / wanted[:, None]
    best: tuple[float, Array] | None = None
    columns = range(rows.shape[1])
    for r in range(1, len(columns) + 1):
        for chosen in itertools.combinations(columns, r):
            part, *_ = np.linalg.lstsq(scaled[:, chosen], np.ones(len(wanted)), rcond=None)
            if (part < 0).any():
                continue
            rates = np.zeros(rows.shape[1])
            rates[list(chosen)] = part
            error = float(np.square(scaled @ rates - 1).sum())
            if best is None or error < best[0] - 1e-9:
                best = error, rates
    assert best is not None, "a single column of positive numbers has a solution"
    return best[1], float(np.abs(scaled @ best[1] - 1).max())


def rates(where: arm.Core) -> dict[str, Any]:
    """Rates of every kind of op on a core."""
    found = {}
    for key, graphs in groups().items():
        counts, per = counted(graphs, where)
        rows = np.array([cost.features(g.ops[0], g) for g in graphs])
        values, worst = fit(rows, np.array(counts, float))
        found[key] = {f: float(f"{v:.5g}") for f, v in zip(cost.FEATURES, values)}
        found[key] |= {"cycles": round(per, 4), "worst": round(worst, 3)}
        print(f"{where.name:12} {key:22} {found[key]}", flush=True)
    return found


def main() -> int:
    """Renews the file, or the ISAs asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--isa", default=",".join(CORES), help="by comma; default all")
    args = parser.parse_args()
    old = json.loads(OUT.read_text()) if OUT.exists() else {"isas": {}}
    for isa in args.isa.split(","):
        where = arm.core(CORES[isa])
        facts = {"core": where.name, "model": where.models[-1], "rates": rates(where)}
        old["isas"][isa] = facts
        ranked = [n for n in layout.isas() if n in old["isas"]]
        new = {"made_by": "python bench/cost.py", "isas": {n: old["isas"][n] for n in ranked}}
        OUT.write_text(json.dumps(new, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

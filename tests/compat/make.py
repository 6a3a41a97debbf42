"""Writes the package of a release, with inputs and outputs:  python tests/compat/make.py 0.1.0

Run once, when a release is made; its files are never written again.  A later runtime must load
each of them and give the same bytes (int8) or values within a tolerance (float).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from edgekit_runtime import Session

from edgekit import ops, package, pipeline, plan
from edgekit.compress import calibrate, quantize
from edgekit.ir import Array, Graph, Op, Tensor
from edgekit.layout import Target
from edgekit.passes.lower import lower

HERE = Path(__file__).parent
F = np.float32
TARGET = Target(("avx2", "dotprod", "mve"))  # three layouts of every weight
SHAPE = (1, 6, 6, 3)


def net() -> Graph:
    """conv - depthwise - add - pool - linear - softmax; seeded weights."""
    rng = np.random.default_rng(2026)
    g = Graph("compat")
    g.add_tensor(Tensor("x", SHAPE))
    g.inputs = ["x"]

    def w(*shape: int) -> str:
        return g.const("w", (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(F))

    pad = {"pad": (1, 1, 1, 1)}
    a = g.emit("conv2d", ["x", w(4, 3, 3, 3), w(4)], {**pad, "lo": 0.0, "hi": 6.0}, name="conv")
    b = g.emit("depthwise_conv2d", [a, w(3, 3, 4), w(4)], pad, name="dw")
    c = g.emit("binary", [a, b], {"kind": "add"}, name="add")
    d = g.emit("unary", [c], {"kind": "hardswish"}, name="act")
    pool = {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0, 0, 0), "dilation": (1, 1)}
    e = g.emit("max_pool2d", [d], pool, name="pool")
    f = g.emit("reshape", [e], {"shape": (1, 36)}, name="flat")
    h = g.emit("linear", [f, w(6, 36), w(6)], {}, name="logits")
    g.outputs = [g.emit("softmax", [h], {}, name="p")]
    return g


def counter() -> Graph:
    """total += x; y = total * 2: a state that does not start at zero."""
    g = Graph("counter")
    g.add_tensor(Tensor("total", (1, 4), data=np.array([[1.0, 2.0, 3.0, 4.0]], F)))
    g.add_tensor(Tensor("dx", (1, 4)))
    g.states, g.inputs = ["total"], ["dx"]
    attrs = ops.get("binary").fill({"kind": "add"})
    g.ops.append(Op("binary", "accumulate", ("total", "dx"), ("total",), attrs))
    two = g.const("two", np.full((1, 4), 2.0, F))
    g.outputs = [g.emit("binary", ["total", two], {"kind": "mul"}, name="twice")]
    return g


def int8(g: Graph, samples: Array) -> Graph:
    """The graph in int8, with int8 inputs and outputs: exact from end to end."""
    with pipeline.every_tensor(g, TARGET) as run:
        seen = calibrate.observe(g, run, lambda: ({"x": x} for x in samples), "minmax")
    return quantize.quantize(g, seen, io="int8")[0]


def build() -> tuple[bytes, dict[str, Array]]:
    """The package with entries int8, float and counter; inputs and outputs of each."""
    samples = np.random.default_rng(7).normal(size=(6, *SHAPE)).astype(F)
    graphs = {"int8": int8(net(), samples), "float": net(), "counter": counter()}
    entries, goldens = [], []
    for i, (name, g) in enumerate(graphs.items()):
        lowered = lower(g, TARGET)
        entries.append((name, lowered, plan.make(lowered, TARGET)))
        goldens += [
            package.Golden(i, v.seed, v.ranges, v.outputs, v.exact, v.tolerance)
            for v in pipeline.make_goldens(g, TARGET)
        ]
    data = package.write(entries, meta={"name": "compat"}, goldens=goldens, rollback=1)
    arrays: dict[str, Array] = {}
    rng = np.random.default_rng(11)
    with Session(data, isa=[]) as s:
        for name in graphs:
            info = s.inputs(name)[0]
            is_int = info.dtype == np.int8
            x = rng.integers(-128, 128, info.shape) if is_int else rng.normal(size=info.shape)
            arrays[f"{name}.in"] = x.astype(info.dtype)
            arrays[f"{name}.out"] = next(iter(s.run(arrays[f"{name}.in"], name).values()))
    return data, arrays


def main() -> int:
    release = sys.argv[1]
    path = HERE / f"{release}.ekp"
    if path.exists():
        print(f"{path} exists: the package of a release is written once", file=sys.stderr)
        return 1
    data, arrays = build()
    package.save(path, data)
    np.savez_compressed(HERE / f"{release}.npz", **arrays)
    print(f"{path}: {len(data)} B")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

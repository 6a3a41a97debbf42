"""Signal to quantization noise, layer by layer, and the layers that lose most of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edgekit.compress.calibrate import Runner
from edgekit.ir import Array, Graph


@dataclass(frozen=True)
class LayerSqnr:
    """One op of the quantized graph: SQNR of its output in dB against float, and how much it lost
    itself.

    `drop_db` = worst SQNR among its inputs minus its own: a large positive value names a culprit.
    """

    op: str
    type: str
    tensor: str
    sqnr_db: float
    drop_db: float


CEILING_DB = 60.0  # "no noise yet": about what an int8 input can have


def compare(
    quantized: Graph,
    names: dict[str, str],
    run_float: Runner,
    run_int: Runner,
    samples: Iterable[dict[str, Array]],
) -> tuple[LayerSqnr, ...]:
    """SQNR of every quantized tensor (`names`: float name -> int8 name) over the samples.

    Both runners return every tensor by name, from packages that keep them all.
    """
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    for inputs in samples:
        f, q = run_float(inputs), run_int(inputs)
        for name, qn in names.items():
            spec = quantized.tensors[qn].quant
            if name not in f or qn not in q or spec is None:
                continue
            real = f[name].astype(np.float64)
            signal[qn] = signal.get(qn, 0.0) + float((real**2).sum())
            noise[qn] = noise.get(qn, 0.0) + float(((spec.dequantize(q[qn]) - real) ** 2).sum())
    db = {n: float(10 * np.log10(max(signal[n], 1e-30) / max(noise[n], 1e-30))) for n in signal}
    db = {n: min(v, CEILING_DB) for n, v in db.items()}
    out = []
    for op in quantized.ops:
        for o in op.outputs:
            if o in db:
                before = min((db[i] for i in op.inputs if i in db), default=CEILING_DB)
                out.append(LayerSqnr(op.name, op.type, o, db[o], before - db[o]))
    return tuple(out)


def culprits(layers: Iterable[LayerSqnr], count: int = 5) -> list[LayerSqnr]:
    """The ops that lost most, largest loss first; only those that lost anything."""
    return sorted((la for la in layers if la.drop_db > 0), key=lambda la: -la.drop_db)[:count]

"""Cross-layer equalization: channels of an activation get ranges of the same size, so that one int8
scale fits them all, and the weights around it take the factors back.

After Nagel et al., "Data-Free Quantization" (2019), by observed ranges instead of weights: what
clips at an upper bound (relu6) is scaled up to it at most, so nothing that was seen is clipped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from edgekit.compress.calibrate import Runner
from edgekit.ir import Array, Graph, Op
from edgekit.ops.conv2d import CHANNEL_AXIS, WEIGHTED

LEAST = 1e-2  # of the largest channel's range: smaller ones are not scaled further
POWER = 0.5  # where a factor widens the rows of the weights that read it; depthwise ones have none


def equalize(
    graph: Graph, run: Runner, samples: Iterable[dict[str, Array]]
) -> tuple[Graph, dict[str, float]]:
    """The same function on what the samples show, and per scaled activation its largest factor.

    Only activations between two weighted ops, made with bounds 0 and above or none at all, are
    scaled; others and graphs without any stay as they are.
    """
    found = pairs(graph)
    top: dict[str, Array] = {}
    for inputs in samples:
        values = run(inputs)
        for name in found:
            high = np.abs(values[name]).reshape(-1, values[name].shape[-1]).max(0)
            top[name] = np.maximum(top[name], high) if name in top else high
    g, largest = graph.copy(), {}
    for name, (maker, readers) in found.items():
        most = float(top[name].max())
        if most <= 0:
            continue
        plain = all(op.type == "depthwise_conv2d" for op in readers)
        share = np.maximum(top[name].astype(np.float64), LEAST * most) / most
        factor = (share ** -(1.0 if plain else POWER)).astype(np.float32)
        if float(factor.max()) < 1.01:
            continue
        largest[name] = float(factor.max())
        _scale(g, maker, factor, made=True)
        i = next(i for i, op in enumerate(g.ops) if op.name == maker.name)
        if np.isfinite(maker.attrs["hi"]):
            g.ops[i] = g.ops[i].with_(attrs=dict(g.ops[i].attrs, hi=most))
        for op in readers:
            _scale(g, op, 1 / factor, made=False)
    g.drop_unused()
    return g, largest


def pairs(graph: Graph) -> dict[str, tuple[Op, list[Op]]]:
    """Activations that may be scaled: (op that makes them, ops that read them)."""
    readers, found = graph.consumers(), {}
    for op in graph.ops:
        y = op.outputs[0]
        if not _constant(graph, op) or y in graph.outputs or int(op.attrs.get("groups", 1)) > 1:
            continue
        lo, hi = op.attrs["lo"], op.attrs["hi"]
        after = readers.get(y, [])
        fine = all(
            _constant(graph, r) and int(r.attrs.get("groups", 1)) == 1 and r.inputs[0] == y
            for r in after
        )
        if after and fine and (lo == 0 or (lo == -np.inf and hi == np.inf)):
            found[y] = (op, after)
    return found


def _constant(g: Graph, op: Op) -> bool:
    w = g.value(op.inputs[1]) if op.type in WEIGHTED else None
    return w is not None and w.dtype == np.float32


def _scale(g: Graph, op: Op, factor: Array, made: bool) -> None:
    """Multiplies an op's weights (and bias) by factors of what it makes, or its weights by those
    of what it reads."""
    now = next(o for o in g.ops if o.name == op.name)
    names = list(now.inputs)
    for i, name in enumerate(names[1:], 1):
        data = g.value(name) if name else None
        if data is None or (i > 1 and not made):
            continue
        axis = 0 if data.ndim == 1 else CHANNEL_AXIS.get(op.type, 0 if made else data.ndim - 1)
        shape = [1] * data.ndim
        shape[axis] = -1
        names[i] = g.const(name, (data * factor.reshape(shape)).astype(np.float32))
    g.ops[g.ops.index(now)] = replace(now, inputs=tuple(names))

"""Which layer gets how many bits: damage of every option, and the exact best choice for any size.

Damages add up (first order); the choice is exact for that sum: dynamic programming over the layers
keeps every (bytes, damage) that no other beats, so one pass answers all budgets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit import torchnet
from edgekit.compress.widths import PACKABLE, quantize_weights
from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op
from edgekit.layout import Target
from edgekit.ops.conv2d import CHANNEL_AXIS

Progress = Callable[[str, int, int], None]
UNIT = 16  # bytes: constants start at multiples


@dataclass(frozen=True)
class Option:
    """One way to store one op's weights: bits, bytes in the package, damage to the output."""

    op: str
    bits: int
    bytes: int
    damage: float


@dataclass(frozen=True)
class Choice:
    """Bits per op; their bytes and summed damage."""

    bits: dict[str, int]
    bytes: int
    damage: float


def candidates(graph: Graph) -> list[Op]:
    """Ops whose weights may have fewer bits."""
    return [op for op in graph.ops if op.type in PACKABLE and graph.value(op.inputs[1]) is not None]


def stored_bytes(graph: Graph, op: Op, bits: int, target: Target) -> int:
    """Bytes of an op's packed weights, biases and scales, in all layouts of the target."""
    w = graph.value(op.inputs[1])
    assert w is not None
    groups = int(op.attrs.get("groups", 1))
    n, k = w.shape[0] // groups, w.size // w.shape[0]
    total = 0
    for la in target.s8():
        block = la.nr * 8 + -(-k // la.kr) * la.kr * la.nr * bits // 8
        total += -(-groups * -(-n // la.nr) * block // UNIT) * UNIT
    return total


def sensitivity(
    graph: Graph,
    samples: dict[str, Array],
    target: Target,
    widths: Sequence[int] = (8, 4, 2),
    progress: Progress | None = None,
) -> list[list[Option]]:
    """Per op, an option for each width: damage is what the graph's first output loses when that op
    alone has such weights, as a share of the output's variance (after softmax: KL divergence).

    samples: input name -> (n, ...) floats.  ModelError names ops without a differentiable form.
    """
    import torch

    bad = torchnet.unsupported(graph)
    if bad:
        raise ModelError(f"sensitivity does not know ops of type {', '.join(bad)}")
    const, out = torchnet.constants(graph), graph.outputs[0]
    probabilities = graph.producers()[out].type == "softmax"
    found = []
    ops = candidates(graph)
    with torch.no_grad():
        exact = torchnet.run(graph.ops, torchnet.tensors(samples), const)
        for i, op in enumerate(ops):
            if progress:
                progress("sensitivity", i, len(ops))
            w = graph.value(op.inputs[1])
            assert w is not None
            rest = graph.ops[graph.ops.index(op) :]
            options = []
            for bits in widths:
                q, spec = quantize_weights(w, CHANNEL_AXIS.get(op.type, 0), bits)
                changed = {**const, op.inputs[1]: torch.from_numpy(spec.dequantize(q))}
                got = torchnet.run(rest, dict(exact), changed)[out]
                damage = _damage(exact[out].numpy(), got.numpy(), probabilities)
                options.append(Option(op.name, bits, stored_bytes(graph, op, bits, target), damage))
            found.append(options)
    if progress:
        progress("sensitivity", len(ops), len(ops))
    return found


def _damage(want: Array, got: Array, probabilities: bool) -> float:
    if probabilities:
        p, q = np.maximum(want.astype(np.float64), 1e-9), np.maximum(got.astype(np.float64), 1e-9)
        return float((p * np.log(p / q)).sum(-1).mean())
    return float(((want - got) ** 2).mean() / max(float(want.var()), 1e-12))


def front(table: Sequence[Sequence[Option]]) -> list[Choice]:
    """Every choice of one option per op that no other beats in both bytes and damage, smallest
    first.  Exact."""
    size, harm = np.zeros(1, np.int64), np.zeros(1)
    trail: list[tuple[Array, Array]] = []  # per op: state before, option taken
    for options in table:
        count = len(size)
        sizes = np.concatenate([size + o.bytes for o in options])
        harms = np.concatenate([harm + o.damage for o in options])
        order = np.lexsort((harms, sizes))
        best = np.minimum.accumulate(np.concatenate([[np.inf], harms[order][:-1]]))
        keep = order[harms[order] < best]
        size, harm = sizes[keep], harms[keep]
        trail.append((keep % count, keep // count))
    found = []
    for i in range(len(size)):
        bits, at = {}, i
        for options, (before, taken) in zip(reversed(table), reversed(trail), strict=True):
            o = options[int(taken[at])]
            bits[o.op], at = o.bits, int(before[at])
        found.append(Choice(dict(reversed(bits.items())), int(size[i]), float(harm[i])))
    return found


def within(choices: Sequence[Choice], budget: int) -> Choice | None:
    """The choice of least damage in at most `budget` bytes; None where none is so small."""
    fitting = [c for c in choices if c.bytes <= budget]
    return min(fitting, key=lambda c: c.damage) if fitting else None


def spread(choices: Sequence[Choice], count: int) -> list[Choice]:
    """About `count` of the choices, both ends among them, evenly spaced in the logarithm of damage:
    where a byte still buys accuracy they lie close."""
    if len(choices) <= count:
        return list(choices)
    at = np.log(np.maximum([c.damage for c in choices], 1e-12))
    wanted = np.linspace(at[0], at[-1], count)
    return [choices[i] for i in sorted({int(np.abs(at - b).argmin()) for b in wanted})]

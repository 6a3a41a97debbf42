"""Weights alone in 8, 4 or 2 bits with a scale per group of inputs: how language models are made
small.  Activations stay float; the runtime quantizes each group of a row when it runs.

Scales are searched for the least error, weighted by the second moments of the inputs (importance);
rounding takes what is lost so far into account (GPTQ, Frantar et al. 2022); inputs of large
activations are scaled up in the weights and down in what feeds them (AWQ, Lin et al. 2023).  What
that leaves, `learn` lessens: rounding and scales of all layers, gains of norms and tables of
embeddings learn together to give the float graph's own probabilities, without labels (after
EfficientQAT, Chen et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgekit import torchnet
from edgekit.compress.calibrate import Runner
from edgekit.compress.widths import excluded
from edgekit.errors import DataError, ModelError, UsageError
from edgekit.ir import Array, Graph, Op, QuantSpec
from edgekit.layout import bfloat16

GROUP = 32
DAMP = 0.01  # of the mean second moment: keeps the inverse of few samples tame
POWERS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.8)  # of the inputs' size, tried for the scaling
SHARES = np.linspace(0.55, 1.15, 41)  # of the largest weight, tried as a group's range


@dataclass(frozen=True)
class Layer:
    """What became of one op: bits, error of its outputs over their power on the calibration inputs
    (None without any), and the power of the activation-aware scaling (0: none)."""

    op: str
    bits: int
    error: float | None
    power: float


def moments(
    graph: Graph, run: Runner, samples: Iterable[dict[str, Array]], ops: Sequence[str]
) -> dict[str, Array]:
    """Sum of x x' (k, k) over the rows of what each op reads; by tensor, float64."""
    wanted = {op.inputs[0] for op in graph.ops if op.name in set(ops)}
    found: dict[str, Array] = {}
    for inputs in samples:
        values = {**inputs, **run(inputs)}
        for n in wanted:
            rows = values[n].reshape(-1, values[n].shape[-1]).astype(np.float64)
            found[n] = found[n] + rows.T @ rows if n in found else rows.T @ rows
    return found


def scales(w: Array, bits: int, group: int, importance: Array | None = None) -> Array:
    """bfloat16 scale (n, ceil(k / group)) of least squared error, each input's weighted by
    `importance` (k,).  Below 8 bits a scale may be negative: one more step on the larger side."""
    parts = _parts(w.astype(np.float64), group)
    top = np.abs(parts).max(-1)
    top = np.where(top > 0, top, 1.0)
    if bits == 8:
        return bfloat16(top / 127 * (1 + 2.0**-8))
    half = 1 << bits - 1
    heavy = np.ones(w.shape[1]) if importance is None else importance
    heavy = _parts(heavy[None], group)
    best, found = np.full(top.shape, np.inf), np.ones(top.shape, np.float32)
    for share in SHARES:
        for sign in (1, -1):
            s = bfloat16(sign * top * share / half)
            step = s[..., None].astype(np.float64)
            q = np.clip(np.rint(parts / step), -half, half - 1)
            error = ((q * step - parts) ** 2 * heavy).sum(-1)
            found = np.where(error < best, s, found)
            best = np.minimum(error, best)
    return found.astype(np.float32)


def _parts(a: Array, group: int) -> Array:
    """(n, k) -> (n, groups, group), padded with zeros."""
    a = np.pad(a, ((0, 0), (0, -a.shape[1] % group)))
    return a.reshape(len(a), -1, group)


def nearest(
    w: Array, bits: int, group: int, importance: Array | None = None
) -> tuple[Array, QuantSpec]:
    """Weights (n, k) to the nearest of each group's steps."""
    s = scales(w, bits, group, importance)
    spec = _spec(s, bits, group)
    half = 1 << bits - 1
    q = np.rint(_parts(w, group) / s[..., None]).clip(-127 if bits == 8 else -half, half - 1)
    return q.reshape(len(w), -1)[:, : w.shape[1]].astype(np.int8), spec


def _spec(s: Array, bits: int, group: int) -> QuantSpec:
    return QuantSpec(s, np.zeros(s.shape, np.int32), 0, bits, group)


def gptq(w: Array, moment: Array, bits: int, group: int) -> tuple[Array, QuantSpec]:
    """Weights (n, k) rounded input by input; what that changes in the outputs, by the inputs'
    second moments (k, k), the inputs that follow make good."""
    k = w.shape[1]
    h = moment.copy()
    h[np.diag_indices(k)] += DAMP * max(float(np.diag(h).mean()), 1e-12)
    later = np.linalg.cholesky(np.linalg.inv(h)).T  # row j: what input j hands on
    rest = w.astype(np.float64).copy()
    half = 1 << bits - 1
    q, found = np.zeros(w.shape, np.int8), []
    for j in range(k):
        if j % group == 0:
            part = slice(j, j + group)
            found.append(scales(rest[:, part], bits, group, np.diag(h)[part]))
        step = found[-1][:, 0].astype(np.float64)
        q[:, j] = np.rint(rest[:, j] / step).clip(-127 if bits == 8 else -half, half - 1)
        lost = (rest[:, j] - q[:, j] * step) / later[j, j]
        rest[:, j + 1 :] -= np.outer(lost, later[j, j + 1 :])
    return q, _spec(np.concatenate(found, axis=1), bits, group)


def loss(w: Array, real: Array, moment: Array) -> float:
    """Error of the outputs that weights `real` give instead of `w`, over the outputs' power."""
    d = (real - w).astype(np.float64)
    power = float(np.einsum("ij,jk,ik->", w, moment, w, optimize=True))
    return float(np.einsum("ij,jk,ik->", d, moment, d, optimize=True)) / max(power, 1e-30)


def weights_only(
    graph: Graph,
    bits: int,
    group: int = GROUP,
    *,
    inputs: dict[str, Array] | None = None,
    exclude: Sequence[str] = (),
    widths: dict[str, int] | None = None,
) -> tuple[Graph, tuple[Layer, ...]]:
    """The graph with integer weights in every linear op, and what that did to each.

    inputs: `moments` of the float graph; without them weights are rounded to the nearest step.
    widths: op -> bits where they differ.  ModelError where no op has constant weights.
    """
    if bits not in (8, 4, 2) or group < 16 or group % 16 or group > 4096:
        raise UsageError(f"groups of {group} weights of {bits} bits are not possible",
                         todo="8, 4 or 2 bits; a multiple of 16 inputs, at most 4096")  # fmt: skip
    skip = excluded(graph, exclude)
    g = graph.copy()
    layers = []
    todo = [op for op in g.ops if weighs(g, op) and op.name not in skip]
    if not todo:
        raise ModelError("no matrix product has constant weights: nothing would change")
    for names in reversed(_together(todo)):  # what feeds an op is still float when that is scaled
        ops = [op for op in g.ops if op.name in names]
        x = ops[0].inputs[0]
        moment = None if inputs is None else inputs.get(x)
        of = {op.name: (widths or {}).get(op.name, bits) for op in ops}
        factor, power = (None, 0.0) if moment is None else _scaling(g, ops, of, moment, group)
        for op in ops:
            w = g.value(op.inputs[1])
            assert w is not None
            if factor is not None and moment is not None:
                w = w * factor
            now = moment if factor is None or moment is None else moment / np.outer(factor, factor)
            b = of[op.name]
            q, spec = nearest(w, b, group) if now is None else gptq(w, now, b, group)
            error = None if now is None else loss(w, spec.dequantize(q), now)
            layers.append(Layer(op.name, b, error, power))
            _replace(g, op.name, op.inputs[1] + f".i{b}", q, spec)
    g.drop_unused()
    order = [op.name for op in g.ops]
    return g, tuple(sorted(layers, key=lambda la: order.index(la.op)))


def weighs(g: Graph, op: Op) -> bool:
    """Whether an op is a matrix product with constant float weights."""
    w = g.value(op.inputs[1]) if op.type == "linear" else None
    return w is not None and w.dtype == np.float32


def _together(ops: list[Op]) -> list[set[str]]:
    """Names of ops that read the same tensor, which can only be scaled for all of them."""
    found: dict[str, set[str]] = {}
    for op in ops:
        found.setdefault(op.inputs[0], set()).add(op.name)
    return list(found.values())


def _replace(g: Graph, name: str, stem: str, q: Array, spec: QuantSpec) -> None:
    i = next(i for i, op in enumerate(g.ops) if op.name == name)
    op = g.ops[i]
    g.ops[i] = op.with_(inputs=(op.inputs[0], g.const(stem, q, spec), *op.inputs[2:]))


def _scaling(
    g: Graph, ops: list[Op], bits: dict[str, int], moment: Array, group: int
) -> tuple[Array | None, float]:
    """Factors (k,) for the weights of ops with a common input, and their power; the graph then
    gives that input divided by them.  (None, 0) where nothing can take them or gains."""
    fold = _feeder(g, ops)
    if fold is None:
        return None, 0.0
    size = np.sqrt(np.diag(moment)) + 1e-12
    size = size / np.exp(np.log(size).mean())
    best, found, chosen = np.inf, None, 0.0
    for power in POWERS:
        factor = size**power
        now, error = moment / np.outer(factor, factor), 0.0
        for op in ops:
            w = g.value(op.inputs[1])
            assert w is not None
            scaled = w * factor
            q, spec = gptq(scaled, now, bits[op.name], group)
            d = (spec.dequantize(q) - scaled).astype(np.float64)
            error += float(np.einsum("ij,jk,ik->", d, now, d, optimize=True))
        if error < best:
            best, found, chosen = error, factor, power
    if not chosen or found is None:
        return None, 0.0
    found = found.astype(np.float32)
    fold(found)
    return found, chosen


def _feeder(g: Graph, ops: list[Op]) -> Callable[[Array], None] | None:
    """What divides the input of ops by factors (k,), if something can: the gain of a norm, or the
    rows of a linear op behind a product (a gated unit)."""
    x = ops[0].inputs[0]
    made, readers = g.producers().get(x), g.consumers()
    if made is None or x in g.outputs or {op.name for op in readers[x]} != {op.name for op in ops}:
        return None
    gain = made.type == "layer_norm" and len(made.inputs) > 1 and made.inputs[1]
    if gain and all(g.value(n) is not None for n in made.inputs[1:] if n):
        return lambda f: _divide(g, made, made.inputs[1:], f)
    if made.type == "binary" and made.attrs["kind"] == "mul":
        for n in made.inputs:
            op = g.producers().get(n)
            if op is None or not weighs(g, op) or len(readers[n]) > 1 or n in g.outputs:
                continue
            plain = op.attrs["lo"] == -np.inf and op.attrs["hi"] == np.inf
            if plain and g.tensors[n].shape == g.tensors[x].shape:
                return lambda f, op=op: _divide(g, op, op.inputs[1:], f)  # type: ignore[misc]
    return None


def _divide(g: Graph, op: Op, names: Sequence[str], factor: Array) -> None:
    """Divides an op's constants by factors of its outputs: copies, others may share the old."""
    fresh = []
    for n in names:
        data = g.value(n) if n else None
        if data is not None:
            by = factor if data.shape[-1:] == factor.shape and data.ndim == 1 else factor[:, None]
            n = g.const(n, (data / by).astype(np.float32))
        fresh.append(n)
    i = next(i for i, o in enumerate(g.ops) if o.name == op.name)
    g.ops[i] = replace(op, inputs=(op.inputs[0], *fresh))


@dataclass(frozen=True)
class Options:
    """`steps` of `batch` samples each; `rate` of the weights, in units of their integers, falls to
    0 as a cosine; scales learn at a twentieth of it.  `gains`: rate of what stays float, norms'
    gains and embeddings, as shares of their size (0: they stay as they are)."""

    steps: int = 500
    batch: int = 12
    rate: float = 0.012
    gains: float = 0.001
    seed: int = 0


def learn(
    graph: Graph,
    quantized: Graph,
    samples: dict[str, Array],
    options: Options | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Graph, tuple[float, float]]:
    """`quantized` (of `weights_only`) with other integers and scales of the same widths, gains and
    embeddings, and the KL divergence from the float graph over the first and last tenth of steps.

    samples: input name -> (n, ...), each a whole input without its first axis of 1; the first
    output's last axis is the classes.  ModelError for ops without a gradient.
    """
    import torch

    o = options or Options()
    bad = sorted({*torchnet.unsupported(graph), *torchnet.unsupported(quantized)})
    if bad:
        raise ModelError(f"learning does not know ops of type {', '.join(bad)}")
    count = min((len(a) for a in samples.values()), default=0)
    if not count:
        raise DataError("learning needs samples")
    torch.manual_seed(o.seed)
    data, exact = torchnet.tensors(samples), torchnet.constants(graph)
    const = torchnet.constants(quantized)
    mine = {n: _Learned(t.data, t.quant) for n, t in quantized.tensors.items()
            if t.data is not None and t.quant is not None and t.quant.group}  # fmt: skip
    rates = [
        {"params": [p], "lr": share * o.rate * float(w.scale.detach().abs().mean())}
        for w in mine.values()
        for p, share in ((w.latent, 1.0), (w.scale, 0.05))
    ]
    free = {n: const[n].clone().requires_grad_(True) for n in _gains(quantized)} if o.gains else {}
    rates += [
        {"params": [p], "lr": o.gains * float(p.detach().abs().mean())} for p in free.values()
    ]
    steps = torch.optim.Adam(rates)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(steps, o.steps)
    losses, order = [], torch.randperm(count)
    for i in range(o.steps):
        pick = order[torch.arange(i * o.batch, (i + 1) * o.batch) % count]
        x = {n: a[pick] for n, a in data.items()}
        with torch.no_grad():
            want = torchnet.run(graph.ops, dict(x), exact)[graph.outputs[0]].log_softmax(-1)
        now = {**const, **free, **{n: w.real() for n, w in mine.items()}}
        got = torchnet.run(quantized.ops, dict(x), now)[quantized.outputs[0]].log_softmax(-1)
        loss = (want.exp() * (want - got)).sum(-1).mean()
        steps.zero_grad()
        loss.backward()
        steps.step()
        slower.step()
        losses.append(float(loss.detach()))
        if progress:
            progress("learn", i + 1, o.steps)
    g = quantized.copy()
    for n, w in mine.items():
        q, spec = w.integers()
        g.tensors[n] = replace(g.tensors[n], data=q, quant=spec)
    for n, p in free.items():
        g.tensors[n] = replace(g.tensors[n], data=p.detach().numpy())
    tenth = max(1, len(losses) // 10)
    return g, (float(np.mean(losses[:tenth])), float(np.mean(losses[-tenth:])))


def _gains(g: Graph) -> list[str]:
    """Float constants that norms multiply by and embeddings are looked up in."""
    found = [n for op in g.ops if op.type == "layer_norm" for n in op.inputs[1:] if n]
    found += [op.inputs[0] for op in g.ops if op.type == "gather"]
    real = [n for n in found if (w := g.value(n)) is not None and w.dtype == np.float32]
    return list(dict.fromkeys(real))


class _Learned:
    """One op's weights: `latent` (n, k) reals that are rounded by `scale` (n, groups)."""

    def __init__(self, q: Array, spec: QuantSpec) -> None:
        import torch

        self.spec, self.k = spec, q.shape[1]
        self.half = 1 << spec.bits - 1
        self.low = -127 if spec.bits == 8 else -self.half
        self.latent: Any = torch.from_numpy(spec.dequantize(q)).requires_grad_(True)
        self.scale: Any = torch.from_numpy(np.array(spec.scale)).requires_grad_(True)

    def real(self) -> Any:
        """Weights as the integers stand for them; the gradient goes straight through rounding."""
        step = self.scale.repeat_interleave(self.spec.group, 1)[:, : self.k]
        x = (self.latent / step).clamp(self.low, self.half - 1)
        return (x + (x.round() - x).detach()) * step

    def integers(self) -> tuple[Array, QuantSpec]:
        scale = bfloat16(self.scale.detach().numpy())
        # whole by the scale that learned: many weights lie near a tie, and its bfloat16 moves them
        step = np.repeat(self.scale.detach().numpy(), self.spec.group, axis=1)[:, : self.k]
        q = np.rint(self.latent.detach().numpy() / step).clip(self.low, self.half - 1)
        return q.astype(np.int8), _spec(scale, self.spec.bits, self.spec.group)

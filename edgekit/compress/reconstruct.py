"""Learned rounding, block by block, with activation quantization in the loop.

Each weight learns whether to round down or up so that its block's output stays what the float block
gives (AdaRound, Nagel et al. 2020, over blocks as BRECQ, Li et al. 2021), while inputs and inner
activations are quantized or not at random (QDrop, Wei et al. 2022).  Biases learn along, and the
steps of activations of few bits.  With `window` 2 a block is optimized together with the next one,
which is settled only in its turn, as overlapping windows do, and with `rank` what is learned of a
layer is a product of two thin matrices (both CBQ, 2025).  `window` 0 takes the whole net as one
block: all weights are rounded little by little, and with them learn the steps of weights and
activations.  Needs no labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgekit import torchnet
from edgekit.compress.widths import Given, quantize_weights, wide_least
from edgekit.errors import DataError, ModelError
from edgekit.ir import Array, Graph, Op, QuantSpec
from edgekit.ops.conv2d import CHANNEL_AXIS, WEIGHTED, limits
from edgekit.torchnet import FIXED, logits_of

Tensor = Any
CHUNK = 64  # samples at a time where no gradient is needed
WARM = 0.2  # share of the steps before rounding is pushed to 0 or 1
SETTLED = 0.8  # share after which a whole net is rounded, and the rest adapts to that
BIAS_RATE = 1e-3
STEP_RATE = 3e-3  # of logarithms of steps
HELD = 8  # every so-many-th sample judges a whole net, which learns from the others
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Options:
    """`steps` per block; `batch` samples each; `drop`: chance that an activation stays float;
    `push`: weight of the rounding term; `window`: blocks optimized together (1 or 2), 0: the whole
    net for what it says (the divergence of a softmax, else the squared error), which wants drop 0,
    a push of 5, and thousands of steps and samples; `rank` of the matrix (outputs, inputs) that
    moves a layer's rounding, 0: every weight by itself."""

    steps: int = 250
    batch: int = 32
    rate: float = 0.02
    drop: float = 0.5
    push: float = 0.5
    window: int = 1
    rank: int = 0
    seed: int = 0


@dataclass(frozen=True)
class BlockLoss:
    """Mean squared error of a block's output over its float variance: nearest rounding, learned.
    Of a whole net on samples that it did not learn from, and the divergence of a softmax."""

    ops: tuple[str, ...]
    before: float
    after: float


@dataclass(frozen=True)
class Reconstructed:
    """What to hand to `quantize` as `given` and `ranged`, and what every block gained."""

    given: dict[str, Given]
    ranged: dict[str, QuantSpec]  # activations whose steps learned too
    blocks: tuple[BlockLoss, ...]


def blocks(graph: Graph, weighted: set[str], least: int = 2) -> list[list[Op]]:
    """Runs of ops between places where one single activation is alive, each with at least `least`
    ops of `weighted` (the last may have fewer)."""
    last = {n: i for i, op in enumerate(graph.ops) for n in op.inputs if n}
    for n in graph.outputs:
        last[n] = len(graph.ops)
    found: list[list[Op]] = []
    part: list[Op] = []
    alive: set[str] = set(graph.inputs)
    for i, op in enumerate(graph.ops):
        part.append(op)
        alive = {n for n in alive | set(op.outputs) if last.get(n, -1) > i}
        if len(alive) == 1 and sum(o.name in weighted for o in part) >= least:
            found.append(part)
            part = []
    if part and found and not any(o.name in weighted for o in part):
        found[-1] += part
    elif part:
        found.append(part)
    return found


@dataclass
class _Weight:
    """One op's weights while they learn: integers are clamp(floor + h(alpha))."""

    op: Op
    axis: int
    learn: bool
    bias: Tensor
    exact: Tensor  # float weights
    rank: int
    mean: Tensor | None = None  # of the float input, per channel
    spec: QuantSpec = field(init=False)
    observed: Tensor = field(init=False)  # its scale before learning
    grown: Tensor = field(init=False)  # by what the scale has grown since, a logarithm
    floor: Tensor = field(init=False)
    start: Tensor = field(init=False)  # alpha, or where a low-rank step begins
    thin: tuple[Tensor, ...] = ()  # (outputs, rank), (rank, inputs): what alpha is more than start

    def begin(self, q: Array, spec: QuantSpec) -> None:
        """Starts at the exact weights between their neighbours; what does not learn stays `q`."""
        import torch

        self.spec = spec
        self.observed = torch.from_numpy(np.array(spec.broadcast(q.ndim)[0]))
        self.grown = torch.zeros_like(self.observed)
        if not self.learn:
            self.floor, self.start = torch.from_numpy(q.astype(np.float32)), -torch.ones(q.shape)
            return
        real = self.exact / self.observed
        self.floor = real.floor()
        # sigmoid(alpha) * 1.2 - 0.1 = rest
        share = ((real - self.floor).clamp(0.01, 0.99) + 0.1) / 1.2
        self.start = (share / (1 - share)).log()
        if self.rank:
            rows = q.shape[self.axis]
            left, right = torch.zeros(rows, self.rank), torch.randn(self.rank, q.size // rows)
            self.thin = (left.requires_grad_(True), right.requires_grad_(True))
        else:
            self.start.requires_grad_(True)

    @property
    def scale(self) -> Tensor:
        return self.observed * self.grown.exp()

    def given(self) -> Given:
        """What it has learned, for `quantize`."""
        scale = self.scale.detach().numpy().reshape(-1)
        return Given(
            self.integers(hard=True).detach().numpy().astype(np.int8),
            replace(self.spec, scale=scale),
            self.real(hard=True)[1].detach().numpy().astype(np.float64),
        )

    def learned(self) -> list[Tensor]:
        return list(self.thin) or [self.start]

    def alpha(self) -> Tensor:
        if not self.thin:
            return self.start
        left, right = self.thin
        first = self.start.movedim(self.axis, 0)
        return (left @ right).reshape(first.shape).movedim(0, self.axis) + self.start

    def unsettle(self) -> None:
        """Lets every weight change its mind in the next block's turn."""
        self.start.copy_(self.alpha().clamp(-1.0, 1.0))
        for a in self.thin[:1]:
            a.zero_()

    def share(self) -> Tensor:
        """h in 0..1 of every weight."""
        import torch

        return (torch.sigmoid(self.alpha()) * 1.2 - 0.1).clamp(0, 1)

    def integers(self, hard: bool) -> Tensor:
        up = (self.alpha() >= 0).float() if hard or not self.learn else self.share()
        return (self.floor + up).clamp(*limits(self.spec.bits))

    def real(self, hard: bool = False) -> tuple[Tensor, Tensor]:
        """Weights and bias; what rounding moves the mean of an output by is taken off the bias."""
        w = self.integers(hard) * self.scale
        if self.mean is None:
            return w, self.bias
        d = w - self.exact
        if self.op.type == "depthwise_conv2d":
            return w, self.bias - d.sum((0, 1)) * self.mean
        groups = int(self.op.attrs.get("groups", 1))
        per = d.reshape(groups, len(d) // groups, -1, d.shape[-1]).sum(2)  # (groups, o, ci)
        return w, self.bias - (per * self.mean.reshape(groups, 1, -1)).sum(-1).reshape(-1)


def reconstruct(
    graph: Graph,
    specs: dict[str, QuantSpec],
    bits: dict[str, int],
    samples: dict[str, Array],
    options: Options | None = None,
    *,
    biases: dict[str, Array] | None = None,
    skip: Sequence[str] = (),
    progress: Progress | None = None,
) -> Reconstructed:
    """Learned integers for every weighted op of a float graph.

    specs: tensor -> activation spec (ops whose output has none stay float).  bits: op -> weight
    bits, 8 where absent (8-bit weights keep nearest rounding and learn their bias only, but for
    int16 outputs, where their rounding is the noise that is left).  samples:
    input name -> (n, ...) prepared floats.  `biases`: where to start (bias correction), else the
    graph's own.  ModelError names ops without a differentiable form.
    """
    import torch

    bad = torchnet.unsupported(graph)
    if bad:
        raise ModelError(f"reconstruction does not know ops of type {', '.join(bad)}")
    o = options or Options()
    count = {len(a) for a in samples.values()}
    if len(count) != 1 or min(count) < o.batch:
        raise DataError(
            f"reconstruction takes {o.batch} samples at a time, there are {min(count, default=0)}",
            todo="more samples, or a smaller batch",
        )
    torch.manual_seed(o.seed)
    job = _Job(graph, specs, bits, o, biases or {}, set(skip))
    return job.run(samples, progress)


class _Job:
    def __init__(
        self,
        graph: Graph,
        specs: dict[str, QuantSpec],
        bits: dict[str, int],
        options: Options,
        biases: dict[str, Array],
        skip: set[str],
    ) -> None:
        import torch

        self.g, self.specs, self.o = graph, specs, options
        self.const = torchnet.constants(graph)
        self.weights: dict[str, _Weight] = {}
        for op in graph.ops:
            w = graph.value(op.inputs[1]) if op.type in WEIGHTED else None
            if w is not None and op.outputs[0] in specs and op.name not in skip:
                self.weights[op.name] = self.weight(op, w, bits.get(op.name, 8), biases)
        self.whole = options.window == 0
        self.blocks = [list(graph.ops)] if self.whole else blocks(graph, set(self.weights))
        self.said = logits_of(graph) if self.whole else graph.outputs[0]
        fixed = {*graph.inputs, *(o for op in graph.ops if op.type in FIXED for o in op.outputs)}
        # tensors that share their integers share a key, and none of them moves where one may not
        keys = {n: (float(s.scale), int(s.zero), s.bits) for n, s in specs.items() if s is not None}
        held = {keys[n] for n in fixed if n in keys}
        self.moving = {
            n: k for n, k in keys.items()
            if k[-1] < 8 or (self.whole and k[-1] == 8 and k not in held)
        }  # fmt: skip
        # relative to the step as observed, a logarithm
        self.grown = {k: torch.zeros((), requires_grad=True) for k in set(self.moving.values())}

    def weight(self, op: Op, w: Array, bits: int, biases: dict[str, Array]) -> _Weight:
        import torch

        axis = CHANNEL_AXIS.get(op.type, 0)
        q, spec = quantize_weights(w, axis, bits, least=wide_least(op, self.g, self.specs))
        bias = self.g.value(op.inputs[2]) if len(op.inputs) > 2 and op.inputs[2] else None
        start = biases.get(op.name, bias if bias is not None else np.zeros(q.shape[axis]))
        made = _Weight(
            op,
            axis,
            bits < 8 or self.specs[op.outputs[0]].bits == 16,
            torch.from_numpy(np.asarray(start, np.float32).copy()).requires_grad_(True),
            self.const[op.inputs[1]],
            self.o.rank,
        )
        made.begin(q, spec)
        return made

    def run(self, samples: dict[str, Array], progress: Progress | None) -> Reconstructed:
        import torch

        plain = torchnet.tensors(samples)
        noisy = {n: self.quantized(n, x) for n, x in plain.items()}
        found = []
        for i, ops in enumerate(self.blocks):
            if progress and not self.whole:
                progress("reconstruct", i, len(self.blocks))
            ahead = ops + (
                self.blocks[i + 1] if self.o.window > 1 and i + 1 < len(self.blocks) else []
            )
            with torch.no_grad():
                self.means(ahead, plain)
                target = self.forward(ahead, plain, quantize=False)
                judged = [noisy, target]
                if self.whole:
                    judged = [{k: v[::HELD] for k, v in part.items()} for part in judged]
                before = self.error(ahead, *judged)
            self.learn(ahead, ops, plain, noisy, target, progress if self.whole else None)
            with torch.no_grad():
                after = self.error(ahead, *judged)
                if i + 1 < len(self.blocks):
                    plain = self.forward(ops, plain, quantize=False)
                    noisy = self.forward(ops, noisy, quantize=True)
                for op in ahead[len(ops) :]:  # learned ahead of its turn: may still change its mind
                    if op.name in self.weights:
                        self.weights[op.name].unsettle()
            found.append(BlockLoss(tuple(op.name for op in ops), before, after))
        if progress:
            progress("reconstruct", len(self.blocks), len(self.blocks))
        given = {n: w.given() for n, w in self.weights.items()}
        ranged = {
            n: replace(self.specs[n], scale=np.asarray(self.size(n).detach().numpy(), np.float32))
            for n in self.moving
        }
        return Reconstructed(given, ranged, tuple(found))

    def means(self, ops: list[Op], plain: dict[str, Tensor]) -> None:
        """Sets the input mean of every weighted op, from its float input."""
        few = {k: v[:: -(-len(v) // (4 * CHUNK))] for k, v in plain.items()}  # of all classes
        n = len(next(iter(few.values())))
        size = CHUNK if self.whole else n
        for i in range(0, n, size):
            part = {k: v[i : i + size] for k, v in few.items()}
            values = torchnet.run(ops, part, self.const)
            for op in ops:
                if op.name in self.weights:
                    x, w = values[op.inputs[0]], self.weights[op.name]
                    mean = x.reshape(-1, x.shape[-1]).mean(0) * (len(x) / n)
                    w.mean = mean + w.mean if i else mean

    def size(self, name: str) -> Tensor:
        """The step of an activation, as learned so far."""
        key = self.moving[name]
        return self.grown[key].exp() * key[0]

    def quantized(self, name: str, x: Tensor) -> Tensor:
        """Fake-quantized activation; the gradient passes where the value is in range."""
        spec = self.specs.get(name)
        if spec is None:
            return x
        s: Any = self.size(name) if name in self.moving else float(spec.scale)
        z, half = int(spec.zero), 1 << spec.bits - 1
        y = (x / s).clamp(-half - z, half - 1 - z)
        return (y + (y.round() - y).detach()) * s

    def step(
        self, ops: list[Op], values: dict[str, Tensor], quantize: bool, hard: bool, drop: float
    ) -> dict[str, Tensor]:
        """All activations of some ops, of float or quantized weights."""
        import torch

        extra: dict[str, Tensor] = dict(self.const)
        if quantize:
            for op in ops:
                w = self.weights.get(op.name)
                if w is not None:
                    extra[op.inputs[1]], bias = w.real(hard)
                    if len(op.inputs) > 2 and op.inputs[2]:
                        extra[op.inputs[2]] = bias

        def hook(op: Op, y: Tensor) -> Tensor:
            if not quantize:
                return y
            w = self.weights.get(op.name)
            if w is not None and not (len(op.inputs) > 2 and op.inputs[2]):
                raise ModelError("a weighted op without a bias", where=op.name)
            q = self.quantized(op.outputs[0], y)
            return torch.where(torch.rand_like(y) < drop, y, q) if drop else q

        return torchnet.run(ops, values, extra, hook)

    def forward(
        self, ops: list[Op], values: dict[str, Tensor], quantize: bool
    ) -> dict[str, Tensor]:
        """What lives on after some ops, over all samples in chunks."""
        import torch

        wanted = [self.said] if self.whole else self.alive_after(ops)
        n = len(next(iter(values.values())))
        parts = []
        for i in range(0, n, CHUNK):
            part = {k: v[i : i + CHUNK] for k, v in values.items()}
            found = self.step(ops, part, quantize, True, 0.0)
            parts.append({k: found[k] for k in wanted})
        return {k: torch.cat([p[k] for p in parts]) for k in wanted}

    def alive_after(self, ops: list[Op]) -> list[str]:
        made = {o for op in ops for o in op.outputs}
        later = {n for op in self.g.ops[self.g.ops.index(ops[-1]) + 1 :] for n in op.inputs}
        return sorted(made & (later | set(self.g.outputs)))

    def error(self, ops: list[Op], noisy: dict[str, Tensor], target: dict[str, Tensor]) -> float:
        return float(self.loss(self.forward(ops, noisy, quantize=True), target))

    def loss(self, got: dict[str, Tensor], target: dict[str, Tensor]) -> Tensor:
        if self.said not in self.g.outputs:  # of a softmax
            own, its = (x[self.said].flatten(1).log_softmax(1) for x in (got, target))
            return (its.exp() * (its - own)).sum(1).mean()
        return sum(((got[k] - t) ** 2).mean() / t.var().clamp_min(1e-12) for k, t in target.items())

    def learn(
        self,
        ops: list[Op],
        settled: list[Op],
        plain: dict[str, Tensor],
        noisy: dict[str, Tensor],
        target: dict[str, Tensor],
        progress: Progress | None,
    ) -> None:
        """Rounding of `ops` for the output `target`; only that of `settled` is pushed to 0 or 1."""
        import torch

        mine = [self.weights[op.name] for op in ops if op.name in self.weights]
        if not mine:
            return
        rounded = [w for w in mine if w.learn]
        final = [w for w in rounded if w.op in settled]
        made = {self.moving[n] for op in ops for n in op.outputs if n in self.moving}
        sizes = [self.grown[k] for k in made]
        if self.whole:
            sizes += [w.grown.requires_grad_(True) for w in mine]
        rows, total = torch.arange(len(next(iter(plain.values())))), self.o.steps
        if self.whole:
            rows = rows[rows % HELD != 0]
        end = SETTLED if self.whole else 1.0  # of what rounding takes
        calm = _falling(end, total) if self.whole else _constant
        learning = [
            ([p for w in rounded for p in w.learned()], self.o.rate, _constant),
            ([w.bias for w in mine], BIAS_RATE, calm),
            (sizes, STEP_RATE, calm),
        ]
        learning = [part for part in learning if part[0]]
        steps = torch.optim.Adam([{"params": p, "lr": rate} for p, rate, _ in learning])
        slower = torch.optim.lr_scheduler.LambdaLR(steps, [change for *_, change in learning])
        for i in range(total):
            if progress:
                progress("reconstruct", i, total)
            pick = rows[torch.randint(len(rows), (self.o.batch,))]
            x = {}
            for k in plain:
                a, b = plain[k][pick], noisy[k][pick]
                x[k] = torch.where(torch.rand_like(a) < self.o.drop, a, b)
            hard = i >= end * total
            got = self.step(ops, x, True, hard, self.o.drop)
            loss = self.loss(got, {k: t[pick] for k, t in target.items()})
            if i >= WARM * total and not hard:
                beta = 20 - 18 * (i / total - WARM) / (end - WARM)
                far = [(1 - (2 * w.share() - 1).abs() ** beta).mean() for w in final]
                loss = loss + self.o.push * sum(far)
            steps.zero_grad()
            loss.backward()
            steps.step()
            slower.step()


def _constant(i: int) -> float:
    return 1.0


def _falling(end: float, total: int) -> Callable[[int], float]:
    """Share of a rate at a step: it falls to 0 after a share `end` of the steps."""
    return lambda i: min(1.0, (1 - i / total) / (1 - end))


def with_biases(graph: Graph) -> Graph:
    """The graph with a zero bias where a weighted op has none, so that there is one to learn."""
    g = graph.copy()
    for i, op in enumerate(g.ops):
        if op.type in WEIGHTED and (len(op.inputs) < 3 or not op.inputs[2]):
            n = g.tensors[op.outputs[0]].shape[-1]
            bias = g.const(op.name + ".bias", np.zeros(n, np.float32))
            g.ops[i] = op.with_(inputs=(*op.inputs[:2], bias))
    return g

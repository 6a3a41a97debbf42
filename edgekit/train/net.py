"""The trainable form of a float graph: its constants as torch parameters, batch norms put back
where they were folded away, weights and activations rounded as the runtime rounds them.

Put back: a folded convolution is the same function as one with weights of any other length and a
batch norm whose statistics are those of some samples; `fitted` folds it again, into the weights or,
for integers, into their scale per channel.  Steps are learned (LSQ, Esser et
al. 2020); weights that keep jumping between two integers are frozen (Nagel et al. 2022).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit import torchnet
from edgekit.ir import Array, Graph, Op, QuantSpec
from edgekit.ops.conv2d import CHANNEL_AXIS, WEIGHTED, limits
from edgekit.torchnet import FIXED, logits_of
from edgekit.train.workers import Traffic

Tensor = Any
NORMED = ("conv2d", "depthwise_conv2d")
EPSILON = 1e-5
HELD = 0.5  # share of zeros from which they are the weights' pattern and stay (compress.sparsify)


@dataclass(frozen=True)
class Simulation:
    """Where integers start: op -> weight spec, and tensor -> activation spec (8 bits or fewer)."""

    weights: dict[str, QuantSpec]
    activations: dict[str, QuantSpec]


@dataclass(frozen=True)
class Fitted:
    """Constants by name, trained.  With a simulation also op -> (integers, spec, float bias) and
    the learned activation specs.  `losses`: mean of the first and the last tenth of the steps.
    `frozen`: weights that stopped jumping between two integers.  `sent`: under torchrun, what a
    worker sent."""

    constants: dict[str, Array]
    integers: dict[str, tuple[Array, QuantSpec, Array]]
    activations: dict[str, QuantSpec]
    losses: tuple[float, float]
    precision: str = "float32"
    frozen: int = 0
    sent: Traffic | None = None


@dataclass
class Norm:
    """A batch norm behind an op: y = |gamma| (x - mean) / sqrt(var + e) + beta."""

    gamma: Tensor
    beta: Tensor
    mean: Tensor
    var: Tensor

    def factor(self) -> Tensor:
        return self.gamma.abs() / (self.var + EPSILON).sqrt()


@dataclass
class Net:
    """A graph's parameters and its differentiable run."""

    graph: Graph
    simulation: Simulation | None = None
    const: dict[str, Tensor] = field(init=False)
    scales: dict[str, Tensor] = field(init=False)  # weights, by op
    steps: dict[int, Tensor] = field(init=False)  # activations, by identity of their spec
    norms: dict[str, Norm] = field(default_factory=dict)  # by op
    training: bool = False
    momentum: float = 0.1
    quiet: dict[str, Oscillation] = field(default_factory=dict)  # by op, where weights are watched

    def __post_init__(self) -> None:
        import torch

        self.const = torchnet.constants(self.graph)
        self.ops = {
            op.name: op
            for op in self.graph.ops
            if op.type in WEIGHTED and self.graph.value(op.inputs[1]) is not None
        }
        self.names = list(dict.fromkeys(n for op in self.ops.values() for n in op.inputs[1:] if n))
        for op in self.graph.ops:  # the gains of a layer norm learn too
            if op.type == "layer_norm":
                self.names += [n for n in op.inputs[1:] if n and n not in self.names]
        for name in self.names:
            self.const[name] = torch.nn.Parameter(self.const[name])
        sim = self.simulation
        self.scales = {
            n: torch.nn.Parameter(torch.from_numpy(np.array(s.scale)))
            for n, s in (sim.weights if sim else {}).items()
        }
        fixed = {o for op in self.graph.ops if op.type in FIXED for o in op.outputs}
        self.steps = {
            id(s): torch.nn.Parameter(torch.tensor(float(s.scale)), n not in fixed)
            for n, s in (sim.activations if sim else {}).items()
        }
        weights = {op.inputs[1]: self.const[op.inputs[1]].detach() for op in self.ops.values()}
        self.masks = {
            n: w != 0 for n, w in weights.items() if float((w == 0).float().mean()) >= HELD
        }
        self.run_ops = list(self.graph.ops)

    def hold(self) -> None:
        """Zeros of sparse weights stay zero."""
        import torch

        with torch.no_grad():
            for name, mask in self.masks.items():
                self.const[name] *= mask

    # ---- batch norms ----

    def put_norms(
        self, x: dict[str, Tensor], like: dict[str, tuple[Tensor, Tensor]] | None = None
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Puts a batch norm behind every convolution; what the net computes on `x` stays.

        Returns op -> (mean, deviation) of its outputs.  `like`: such a mean and deviation that the
        norms of those ops shall give instead of the net's own.
        """
        import torch

        found: dict[str, tuple[Tensor, Tensor]] = {}
        fixed = {logits_of(self.graph), *self.graph.outputs}
        uses = [n for op in self.graph.ops for n in op.inputs[1:]]
        normed = {
            op.name: op
            for op in self.ops.values()
            if op.type in NORMED and op.outputs[0] not in fixed and uses.count(op.inputs[1]) == 1
        }
        self.run_ops = [_open(op) if op.name in normed else op for op in self.graph.ops]

        def see(op: Op, y: Tensor) -> Tensor:
            if op.name not in normed:
                return self.activation(op.outputs[0], y)
            flat = y.reshape(-1, y.shape[-1])
            bias = self.const[op.inputs[2]] if len(op.inputs) > 2 and op.inputs[2] else 0.0
            found[op.name] = (flat.mean(0) - bias, flat.var(0, unbiased=False))
            return self.activation(op.outputs[0], torchnet.clamped(normed[op.name], y))

        # statistics of what is rounded, not of the floats: its noise widens them, and norms that
        # did not expect it would shrink every layer when they are estimated again
        with torch.no_grad():
            values, const = self._rounded(x)
            torchnet.run(self.run_ops, values, const, see)
            for name, (mean, var) in found.items():
                self._put(self.ops[name], mean, var)
        made = {
            n: (m.beta.detach().clone(), m.gamma.detach().clone()) for n, m in self.norms.items()
        }
        with torch.no_grad():
            for name, (mean, deviation) in (like or {}).items():
                self.norms[name].beta.copy_(mean)
                self.norms[name].gamma.copy_(deviation)
        return made

    def _put(self, op: Op, mean: Tensor, var: Tensor) -> None:
        import torch

        w = self.const[op.inputs[1]]
        axis = CHANNEL_AXIS.get(op.type, 0)
        shape = [1] * w.ndim
        shape[axis] = -1
        length = w.detach().movedim(axis, 0).flatten(1).norm(dim=1)
        # any length of the rows is the same function; this one learns at the usual pace
        factor = torch.where(length > 0, 2**0.5 / length.clamp_min(1e-12), torch.ones_like(length))
        has = len(op.inputs) > 2 and op.inputs[2]
        bias = self.const[op.inputs[2]].detach().clone() if has else torch.zeros_like(mean)
        w.mul_(factor.reshape(shape))
        if op.name in self.scales:
            self.scales[op.name].mul_(factor)
        if has:  # the norm's shift takes its place
            self.const[op.inputs[2]].zero_().requires_grad_(False)
        var = var * factor**2
        gamma = torch.nn.Parameter((var + EPSILON).sqrt() / factor)
        beta = torch.nn.Parameter(mean + bias)
        self.norms[op.name] = Norm(gamma, beta, mean * factor, var)

    def _norm(self, op: Op, y: Tensor) -> Tensor:
        import torch.nn.functional as nn

        n = self.norms[op.name]
        y = nn.batch_norm(
            y.permute(0, 3, 1, 2), n.mean, n.var, n.gamma.abs(), n.beta, self.training,
            self.momentum, EPSILON,
        )  # fmt: skip
        return y.permute(0, 2, 3, 1)

    def estimate(self, parts: Iterable[dict[str, Tensor]]) -> None:
        """The norms' statistics again, with the weights as they are: plain means over batches."""
        import torch

        kept, self.training = self.momentum, True
        with torch.no_grad():
            for i, x in enumerate(parts):
                self.momentum = 1 / (i + 1)
                self.logits(x)
        self.momentum, self.training = kept, False

    # ---- what learns ----

    def parameters(self) -> dict[str, Tensor]:
        """Everything that learns, by a name that lasts."""
        out = {"c:" + n: self.const[n] for n in self.names if self.const[n].requires_grad}
        for n, m in self.norms.items():
            out |= {"g:" + n: m.gamma, "b:" + n: m.beta}
        out |= {"s:" + n: s for n, s in self.scales.items()}
        out |= {f"a:{i}": s for i, s in enumerate(self.steps.values()) if s.requires_grad}
        return out

    def groups(self, rate: float, decay: float = 0.0) -> list[dict[str, Any]]:
        """Parameter groups: steps learn in shares of themselves, only weights decay."""
        mine = self.parameters()
        weights = {"c:" + op.inputs[1] for op in self.ops.values()}
        found: list[dict[str, Any]] = [
            {"params": [p for n, p in mine.items() if n in weights], "lr": rate,
             "weight_decay": decay},
            {"params": [p for n, p in mine.items() if n not in weights and n[0] not in "sa"],
             "lr": rate},
        ]  # fmt: skip
        for n, s in mine.items():
            if n[0] in "sa":
                found.append({"params": [s], "lr": rate * float(s.detach().mean())})
        return [g for g in found if g["params"]]

    def state(self) -> dict[str, Any]:
        """Parameters and statistics, for a checkpoint."""
        out = {n: p.detach().clone() for n, p in self.parameters().items()}
        for n, m in self.norms.items():
            out |= {"m:" + n: m.mean.clone(), "v:" + n: m.var.clone()}
        return out | {"o:" + n: q.state() for n, q in self.quiet.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes back what `state` gave."""
        import torch

        with torch.no_grad():
            for n, p in self.parameters().items():
                p.copy_(state[n])
            for n, m in self.norms.items():
                m.mean.copy_(state["m:" + n])
                m.var.copy_(state["v:" + n])
        for n, q in self.quiet.items():
            q.__dict__.update(state["o:" + n])

    # ---- running ----

    def weight(self, op: Op) -> Tensor:
        """An op's weights as the integers stand for them."""
        sim = self.simulation
        w = self.const[op.inputs[1]]
        spec = sim.weights.get(op.name) if sim else None
        if spec is None:
            return w
        shape = [1] * w.ndim
        shape[spec.axis or 0] = -1
        s = self.scales[op.name].clamp_min(1e-9).reshape(shape)
        if op.name not in self.quiet:
            return rounded(w, s, *limits(spec.bits))
        return self.quiet[op.name].held(whole(w / s, *limits(spec.bits))) * s

    def activation(self, name: str, y: Tensor) -> Tensor:
        """A tensor as its integers stand for it."""
        sim = self.simulation
        spec = sim.activations.get(name) if sim else None
        if spec is None:
            return y
        s, z, half = self.steps[id(spec)].clamp_min(1e-9), int(spec.zero), 1 << spec.bits - 1
        return rounded(y, s, -half - z, half - 1 - z)

    def hook(self, op: Op, y: Tensor) -> Tensor:
        """Batch norm, clamp and rounding behind an op."""
        if op.name in self.norms:
            y = torchnet.clamped(self.ops[op.name], self._norm(op, y))
        return self.activation(op.outputs[0], y)

    def values(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Every activation of a batch, by name."""
        values, const = self._rounded(x)
        return torchnet.run(self.run_ops, values, const, self.hook)

    def _rounded(self, x: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Inputs and constants as the simulation has them."""
        values = {n: self.activation(n, v) for n, v in x.items()}
        changed = {op.inputs[1]: self.weight(op) for op in self.ops.values()}
        return values, {**self.const, **changed}

    def logits(self, x: dict[str, Tensor]) -> Tensor:
        return self.values(x)[logits_of(self.graph)]

    # ---- the end ----

    def activations(self) -> dict[str, QuantSpec]:
        """The specs of activations with the steps as they are now."""
        found = {}
        for name, spec in (self.simulation.activations if self.simulation else {}).items():
            step = np.float32(max(float(self.steps[id(spec)].detach()), 1e-9))
            found[name] = QuantSpec(np.asarray(step), spec.zero, None, spec.bits)
        return found

    def folded(self, op: Op) -> tuple[Tensor, Array]:
        """(factor (outputs,) of the weights, bias (outputs,)) with the op's batch norm folded."""
        import torch

        with torch.no_grad():
            m, n = self.norms.get(op.name), self.graph.tensors[op.outputs[0]].shape[-1]
            if m is not None:
                factor = m.factor()
                return factor, (m.beta - m.mean * factor).numpy().astype(np.float32)
            has = len(op.inputs) > 2 and op.inputs[2]
            bias = self.const[op.inputs[2]].detach().numpy() if has else np.zeros(n, np.float32)
            return torch.ones(n), bias.copy()

    def integers(self, op: Op) -> tuple[Array, QuantSpec, Array]:
        """(integers, their spec, float bias) of an op in the simulation, its norm folded."""
        import torch

        spec = self.simulation.weights[op.name]  # type: ignore[union-attr]
        factor, bias = self.folded(op)
        with torch.no_grad():
            s = self.scales[op.name].detach().clamp_min(1e-9)
            shape = [1] * self.const[op.inputs[1]].ndim
            shape[spec.axis or 0] = -1
            w = self.const[op.inputs[1]].detach()
            q = (w / s.reshape(shape)).clamp(*limits(spec.bits)).round()
            if op.name in self.quiet:
                q = self.quiet[op.name].held(q)
            out = s if op.name not in self.norms else s * factor
        new = QuantSpec(out.numpy().astype(np.float32), spec.zero, spec.axis, spec.bits)
        return q.numpy().astype(np.int8), new, bias

    def fitted(self, losses: tuple[float, float], precision: str = "float32") -> Fitted:
        """Constants with the norms folded in, and the integers of a simulation."""
        import torch

        constants = {n: self.const[n].detach().numpy().copy() for n in self.names}
        with torch.no_grad():
            for name in self.norms:
                op = self.ops[name]
                factor, bias = self.folded(op)
                shape = [1] * self.const[op.inputs[1]].ndim
                shape[CHANNEL_AXIS.get(op.type, 0)] = -1
                w = self.const[op.inputs[1]].detach() * factor.reshape(shape)
                constants[op.inputs[1]] = w.numpy()
                if len(op.inputs) > 2 and op.inputs[2]:
                    constants[op.inputs[2]] = bias
        sim = self.simulation
        integers = {n: self.integers(self.ops[n]) for n in (sim.weights if sim else {})}
        frozen = sum(int(q.frozen.sum()) for q in self.quiet.values())
        return Fitted(constants, integers, self.activations(), losses, precision, frozen)


@dataclass
class Oscillation:
    """Which integers of a weight jump, how often (moving average), and those held still."""

    last: Tensor
    way: Tensor  # sign of the last jump
    often: Tensor
    mean: Tensor
    frozen: Tensor
    at: Tensor

    @staticmethod
    def of(q: Tensor) -> Oscillation:
        import torch

        zero = torch.zeros_like(q)
        return Oscillation(q.clone(), zero, zero.clone(), q.clone(), zero.bool(), q.clone())

    def held(self, q: Tensor) -> Tensor:
        """The integers with the frozen ones in place; those have no gradient."""
        return q.where(~self.frozen, self.at)

    def watch(self, q: Tensor, threshold: float, momentum: float = 0.02) -> None:
        """After a step: a jump back counts; who does so more often than `threshold` is frozen."""
        jump = (q - self.last).sign()
        back = (jump != 0) & (jump == -self.way)
        self.often.mul_(1 - momentum).add_(back.float(), alpha=momentum)
        self.mean.mul_(1 - momentum).add_(q, alpha=momentum)
        self.way = jump.where(jump != 0, self.way)
        new = (self.often > threshold) & ~self.frozen
        self.at = self.mean.round().where(new, self.at)
        self.frozen |= new
        self.last = q.clone()

    def state(self) -> dict[str, Tensor]:
        return {k: v.clone() for k, v in self.__dict__.items()}


def whole(q: Tensor, lo: int, hi: int) -> Tensor:
    """Rounded and clamped; the gradient goes straight through the rounding."""
    q = q.clamp(lo, hi)
    return q + (q.round() - q).detach()


def rounded(x: Tensor, s: Tensor, lo: int, hi: int) -> Tensor:
    """x on a grid of step s, from lo to hi steps; the gradients are those of LSQ."""
    return _rounding().apply(x, s, lo, hi)


@functools.cache
def _rounding() -> Any:
    """The torch function of `rounded`: `whole(x / s) * s` in fewer passes over memory."""
    import torch

    class Rounding(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, s: Tensor, lo: int, hi: int) -> Tensor:
            v = x.float() / s
            q = v.round().clamp_(lo, hi)
            ctx.save_for_backward(v, q, s)
            ctx.ends = lo, hi
            return q * s

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None]:
            v, q, s = ctx.saved_tensors
            inside = (v >= ctx.ends[0]) & (v <= ctx.ends[1])
            gx = g * inside
            gs = (q - v * inside).mul_(g)
            axes = [i for i in range(gs.ndim) if s.ndim == 0 or s.shape[i] == 1]
            return gx, gs.sum(axes).reshape(s.shape), None, None

    return Rounding


def _open(op: Op) -> Op:
    """An op without its clamp, which comes behind the batch norm."""
    if op.type not in NORMED:
        return op
    return op.with_(attrs=dict(op.attrs, lo=-np.inf, hi=np.inf))

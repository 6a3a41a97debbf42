"""Fine-tuning of a graph's weights, with labels, a teacher or both, in float or as integers.

With `Simulation` every weight and activation is rounded as the runtime rounds it, the gradient goes
straight through, and the steps of both learn along (LSQ, Esser et al. 2020).  The batch norms are
folded already, so there are no statistics to estimate again.  Soft labels after Hinton et al. 2015.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit import torchnet
from edgekit.compress import sparsify
from edgekit.errors import DataError, ModelError
from edgekit.ir import Array, Graph, Op, QuantSpec

Tensor = Any
Progress = Callable[[str, int, int], None]
WEIGHTED = ("conv2d", "depthwise_conv2d", "linear")
FIXED = ("softmax",)  # ops whose output scale is part of their meaning


@dataclass(frozen=True)
class Options:
    """`rate` falls to 0 as a cosine; `soft`: share of the teacher in the loss, at `temperature`."""

    steps: int = 300
    batch: int = 32
    rate: float = 1e-3
    soft: float = 0.7
    temperature: float = 4.0
    seed: int = 0


@dataclass(frozen=True)
class Simulation:
    """Where integers start: op -> weight spec, and tensor -> activation spec (8 bits or fewer)."""

    weights: dict[str, QuantSpec]
    activations: dict[str, QuantSpec]


@dataclass(frozen=True)
class Fitted:
    """Constants by name, trained.  With a simulation also op -> (integers, spec, float bias) and
    the learned activation specs.  `losses`: mean of the first and the last tenth of the steps."""

    constants: dict[str, Array]
    integers: dict[str, tuple[Array, QuantSpec, Array]]
    activations: dict[str, QuantSpec]
    losses: tuple[float, float]


def logits_of(graph: Graph) -> str:
    """The tensor a classifier's loss is taken from: the first output, before its softmax."""
    op = graph.producers()[graph.outputs[0]]
    return op.inputs[0] if op.type == "softmax" else op.outputs[0]


def fit(
    graph: Graph,
    x: dict[str, Array],
    labels: Array | None,
    options: Options,
    *,
    teacher: Array | None = None,
    simulation: Simulation | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Trains weights and biases of a float graph.

    x: input name -> (n, ...) prepared floats.  labels (n,), teacher: logits (n, classes); at least
    one of them.  DataError where there is neither; ModelError for ops without a gradient.
    """
    import torch

    if labels is None and teacher is None:
        raise DataError("training needs labels or a teacher", todo="add an array `y` to the data")
    bad = torchnet.unsupported(graph)
    if bad:
        raise ModelError(f"training does not know ops of type {', '.join(bad)}")
    torch.manual_seed(options.seed)
    job = _Fit(graph, simulation)
    groups = job.groups(options.rate)
    steps = torch.optim.Adam(groups)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(steps, options.steps)
    data = torchnet.tensors(x)
    y = None if labels is None else torch.from_numpy(np.asarray(labels, np.int64))
    t = None if teacher is None else torch.from_numpy(np.asarray(teacher, np.float32))
    n, losses = len(next(iter(data.values()))), []
    for i in range(options.steps):
        if progress:
            progress("train", i, options.steps)
        pick = torch.randint(n, (min(options.batch, n),))
        z = job.logits({k: v[pick] for k, v in data.items()})
        loss = _loss(z, None if y is None else y[pick], None if t is None else t[pick], options)
        steps.zero_grad()
        loss.backward()
        steps.step()
        job.hold()
        slower.step()
        losses.append(float(loss.detach()))
    if progress:
        progress("train", options.steps, options.steps)
    tenth = max(1, len(losses) // 10)
    return job.fitted((float(np.mean(losses[:tenth])), float(np.mean(losses[-tenth:]))))


def _loss(z: Tensor, y: Tensor | None, t: Tensor | None, o: Options) -> Tensor:
    import torch.nn.functional as nn

    z = z.reshape(len(z), -1)
    hard = nn.cross_entropy(z, y) if y is not None else None
    if t is None:
        return hard
    tau = o.temperature
    target = nn.log_softmax(t.reshape(len(t), -1) / tau, 1)
    soft = nn.kl_div(nn.log_softmax(z / tau, 1), target, log_target=True, reduction="batchmean") * (
        tau * tau
    )
    return soft if hard is None else o.soft * soft + (1 - o.soft) * hard


@dataclass
class _Fit:
    graph: Graph
    simulation: Simulation | None
    const: dict[str, Tensor] = field(init=False)
    scales: dict[str, Tensor] = field(init=False)  # weights, by op
    masks: dict[str, Tensor] = field(init=False)  # of sparse weights, by name: what is not 0
    steps: dict[int, Tensor] = field(init=False)  # activations, by identity of their spec

    def __post_init__(self) -> None:
        import torch

        self.const = torchnet.constants(self.graph)
        self.ops = {
            op.name: op
            for op in self.graph.ops
            if op.type in WEIGHTED and self.graph.value(op.inputs[1]) is not None
        }
        for op in self.ops.values():
            for name in op.inputs[1:]:
                if name:
                    self.const[name].requires_grad_(True)
        weights = {op.inputs[1]: self.const[op.inputs[1]] for op in self.ops.values()}
        self.masks = {
            n: (w != 0).detach() for n, w in weights.items() if sparsify.held(w.detach().numpy())
        }
        sim = self.simulation
        self.scales = {
            n: torch.from_numpy(np.array(s.scale)).requires_grad_(True)
            for n, s in (sim.weights if sim else {}).items()
        }
        fixed = {o for op in self.graph.ops if op.type in FIXED for o in op.outputs}
        self.steps = {
            id(s): torch.tensor(float(s.scale)).requires_grad_(n not in fixed)
            for n, s in (sim.activations if sim else {}).items()
        }

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Parameter groups: steps learn slower than what they round."""
        names = dict.fromkeys(n for op in self.ops.values() for n in op.inputs[1:] if n)
        found = [{"params": [self.const[n] for n in names], "lr": rate}]
        for s in (*self.scales.values(), *self.steps.values()):
            if s.requires_grad:
                found.append({"params": [s], "lr": 0.1 * rate * float(s.detach().mean())})
        return found

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
        return self.whole(w / s, *_limits(spec.bits)) * s

    def whole(self, q: Tensor, lo: int, hi: int) -> Tensor:
        q = q.clamp(lo, hi)
        return q + (q.round() - q).detach()

    def hold(self) -> None:
        """Zeros of sparse weights stay zero."""
        import torch

        with torch.no_grad():
            for name, mask in self.masks.items():
                self.const[name] *= mask

    def activation(self, name: str, y: Tensor) -> Tensor:
        sim = self.simulation
        spec = sim.activations.get(name) if sim else None
        if spec is None:
            return y
        s, z, half = self.steps[id(spec)].clamp_min(1e-9), int(spec.zero), 1 << spec.bits - 1
        return self.whole(y / s, -half - z, half - 1 - z) * s

    def logits(self, x: dict[str, Tensor]) -> Tensor:
        values = {n: self.activation(n, v) for n, v in x.items()}
        changed = {op.inputs[1]: self.weight(op) for op in self.ops.values()}
        torchnet.run(
            self.graph.ops, values, {**self.const, **changed},
            lambda op, y: self.activation(op.outputs[0], y),
        )  # fmt: skip
        return values[logits_of(self.graph)]

    def fitted(self, losses: tuple[float, float]) -> Fitted:
        constants = {
            n: self.const[n].detach().numpy()
            for op in self.ops.values()
            for n in op.inputs[1:]
            if n
        }
        integers, activations = {}, {}
        sim = self.simulation
        for name, spec in (sim.weights if sim else {}).items():
            op = self.ops[name]
            scale = np.maximum(self.scales[name].detach().numpy(), 1e-9).astype(np.float32)
            new = QuantSpec(scale, spec.zero, spec.axis, spec.bits)
            w = constants[op.inputs[1]]
            q = np.clip(np.rint(w / new.broadcast(w.ndim)[0]), *_limits(spec.bits))
            n = self.graph.tensors[op.outputs[0]].shape[-1]
            has = len(op.inputs) > 2 and op.inputs[2]
            bias = constants[op.inputs[2]] if has else np.zeros(n, np.float32)
            integers[name] = (q.astype(np.int8), new, bias)
        for name, spec in (sim.activations if sim else {}).items():
            step = np.float32(max(float(self.steps[id(spec)].detach()), 1e-9))
            activations[name] = QuantSpec(np.asarray(step), spec.zero, None, spec.bits)
        return Fitted(constants, integers, activations, losses)


def _limits(bits: int) -> tuple[int, int]:
    half = 1 << bits - 1
    return (-127 if bits == 8 else -half), half - 1

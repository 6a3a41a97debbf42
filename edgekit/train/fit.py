"""Training of a graph's weights, with labels, a teacher or both, in float or as integers.

The net is `train.net`: batch norms are put back where asked, and with a `Simulation` every weight
and activation is rounded as the runtime rounds it.  Labels and teachers are `train.losses`.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import torchnet
from edgekit.errors import DataError, ModelError, UsageError, first_line
from edgekit.ir import Array, Graph
from edgekit.ops.conv2d import limits
from edgekit.torchnet import logits_of
from edgekit.train import batches, losses, precision, workers
from edgekit.train.net import Fitted, Net, Oscillation, Simulation

Tensor = Any
Progress = Callable[[str, int, int], None]

NORM_SAMPLES = 512  # whose statistics the batch norms start from
PROBE = 16  # samples of a step that chooses the precision
CHECKPOINT_S = 60.0
KNOWN = 1 << 24  # of a teacher's logits that are kept, at most


@dataclass(frozen=True)
class Options:
    """How to train.

    `rate` rises over the first `warmup` of the steps and falls to 0 as a cosine.  `soft`: share of
    the teacher in the loss, at `temperature`; `kind`: "kd" or "dkd".  `hints`: weight of the
    distance between features, of tensors of the same name in both graphs or as `pairs` say.
    `norms`: batch norms are put back, learn, and are estimated again at the end over `estimate`
    batches.  `flip`, `shift`: images are mirrored and moved by so many pixels, anew each time, or
    each in `variants` ways that are drawn once: a teacher is asked once for each of them, and
    training takes less time.  `freeze`: share of steps in which a weight may jump back before it is
    held (with a simulation; 0: never).

    Under torchrun the workers share each batch: `gradients` says how they are sent ("none", "fp16",
    "int8", "topk"; see `workers`), `top` which share of them by topk, `wait_s` how long one waits
    for another.  Batch norms see a worker's own part of a batch.
    """

    steps: int = 300
    batch: int = 32
    rate: float = 1e-3
    soft: float = 0.7
    temperature: float = 4.0
    seed: int = 0
    optimizer: str = "adam"
    decay: float = 0.0
    warmup: float = 0.0
    kind: str = "kd"
    hints: float = 0.0
    pairs: dict[str, str] = field(default_factory=dict)
    norms: bool = False
    estimate: int = 32
    flip: bool = False
    shift: int = 0
    variants: int = 0
    precision: str = "float32"
    freeze: float = 0.0
    gradients: str = "none"
    top: float = 0.01
    wait_s: float = 300.0


@dataclass(frozen=True)
class Teacher:
    """A float graph that is asked for every batch; with `others`, the mean of all their logits
    teaches.  Hints are the first one's."""

    graph: Graph
    others: tuple[Graph, ...] = ()

    @property
    def graphs(self) -> tuple[Graph, ...]:
        return self.graph, *self.others


@dataclass(frozen=True)
class Checkpoint:
    """Where an unfinished training is kept, so that it goes on after a kill."""

    path: Path
    save: Callable[[Path, bytes], None]  # in one piece or not at all
    every_s: float = CHECKPOINT_S


def fit(
    graph: Graph,
    x: dict[str, Array],
    labels: Array | None,
    options: Options,
    *,
    teacher: Array | Teacher | None = None,
    simulation: Simulation | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Trains weights and biases of a float graph.

    x: input name -> (n, ...) prepared floats.  labels (n,), teacher: logits (n, classes) or a graph
    that gives them; at least one of them.  DataError where there is neither; ModelError for ops
    without a gradient; LinkError where another worker of the training is gone.
    """
    if labels is None and teacher is None:
        raise DataError("training needs labels or a teacher", todo="add an array `y` to the data")
    for g in (graph, *(teacher.graphs if isinstance(teacher, Teacher) else ())):
        bad = torchnet.unsupported(g)
        if bad:
            raise ModelError(f"training does not know ops of type {', '.join(bad)}")
    check_labels(graph, labels)
    for one in teacher.graphs if isinstance(teacher, Teacher) else [teacher]:
        if one is not None:
            _check_teacher(graph, one)
    return _Job(graph, x, labels, options, teacher, simulation).run(progress, checkpoint)


def check_labels(graph: Graph, labels: Array | None) -> None:
    """DataError for labels that are no outputs of the graph."""
    n = _classes(graph)
    if labels is not None and not 0 <= np.min(labels) <= np.max(labels) < n:
        raise DataError(
            f"labels go from {np.min(labels)} to {np.max(labels)}, the model has {n} output(s)",
            todo="training takes a class as the index of an output",
        )


def _check_teacher(graph: Graph, teacher: Array | Graph) -> None:
    """ModelError for a teacher that takes other inputs or tells other classes."""
    other = teacher if isinstance(teacher, Graph) else None
    told: Any = teacher if other is None else other.tensors[logits_of(other)]
    its, mine = int(np.prod(told.shape[1:])), _classes(graph)
    if its != mine:
        raise ModelError(f"the teacher tells {its} classes, the model {mine}")
    if other is None:
        return
    if any(t.dtype in ("i8", "u8", "i16") for t in other.tensors.values()):
        raise ModelError("the teacher is quantized", todo="give the float model")
    own, takes = ([g.tensors[n].shape for n in g.inputs] for g in (graph, other))
    if own != takes:
        raise ModelError(
            f"the teacher takes inputs {takes}, the model {own}",
            todo="both are given the same samples, prepared as the model wants them",
        )


def _classes(graph: Graph) -> int:
    return int(np.prod(graph.tensors[logits_of(graph)].shape[1:]))


class _Job:
    """One training: data, net, optimizer, and the state between steps."""

    def __init__(
        self, graph: Graph, x: dict[str, Array], labels: Array | None, o: Options,
        teacher: Array | Teacher | None, simulation: Simulation | None,
    ) -> None:  # fmt: skip
        import torch

        self.o, self.teacher = o, teacher
        self.shared = workers.join(o.wait_s)
        self.random = torch.Generator().manual_seed(o.seed)
        self.data = torchnet.tensors(x)
        self.n = len(next(iter(self.data.values())))
        self.y = None if labels is None else torch.from_numpy(np.asarray(labels, np.int64))
        self.net = Net(graph, simulation)
        if o.norms:
            some = torch.randperm(self.n, generator=self.random)[:NORM_SAMPLES]
            self.net.put_norms({k: v[some] for k, v in self.data.items()})
        self.known = None
        if isinstance(teacher, Teacher):
            self.const = [torchnet.constants(g) for g in teacher.graphs]
        elif teacher is not None:
            if o.flip or o.shift or o.hints:
                raise UsageError("changed images and hints need the teacher's graph")
            self.known = torch.from_numpy(np.asarray(teacher, np.float32))
        self.pairs = self._pairs(graph) if o.hints else []
        self.bridges = self._bridges()
        self.images = [n for n, v in self.data.items() if batches.image_axes(tuple(v.shape))]
        self.ways: dict[str, Any] = {}  # input -> how each variant of each image is changed
        if o.variants:
            self._vary()
        self.told = self._table(graph)
        groups = self.net.groups(o.rate, o.decay)
        rates = {"params": [b for b in self.bridges if b is not None], "lr": o.rate}
        self.optimizer = _optimizer(o, [*groups, rates] if rates["params"] else groups)
        self.slower = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.order = torch.empty(0, dtype=torch.int64)  # samples that this pass still has to see
        self.losses: list[float] = []
        self.format = precision.checked(o.precision)
        if o.freeze and simulation is not None:
            with torch.no_grad():
                for name in simulation.weights:
                    self.net.quiet[name] = Oscillation.of(self._integers(name))

    def _vary(self) -> None:
        o = self.o
        if not self.images or not (o.flip or o.shift):
            raise UsageError("variants are ways to change images", todo="set flip or shift too")
        if o.hints:
            raise UsageError("variants spare a teacher's work, but hints need all of it",
                             todo="keep one of them")  # fmt: skip
        for name in self.images:
            self.ways[name] = batches.drawn(self.n * o.variants, o.flip, o.shift, self.random)

    def _table(self, graph: Graph) -> Tensor | None:
        """Room for what the teacher tells of each variant, NaN until it is asked; None where a
        sample is never the same again."""
        import torch

        changes = self.images and (self.o.flip or self.o.shift) and not self.o.variants
        size = self.n * max(1, self.o.variants), _classes(graph)
        if self.teacher is None or self.known is not None or self.pairs or changes:
            return None
        return torch.full(size, torch.nan) if size[0] * size[1] <= KNOWN else None

    def _rate(self, i: int) -> float:
        rise = self.o.warmup * self.o.steps
        if i < rise:
            return (i + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (i - rise) / max(1.0, self.o.steps - rise)))

    def _integers(self, name: str) -> Tensor:
        op, spec = self.net.ops[name], self.net.simulation.weights[name]  # type: ignore[union-attr]
        w = self.net.const[op.inputs[1]].detach()
        shape = [1] * w.ndim
        shape[spec.axis or 0] = -1
        s = self.net.scales[name].detach().clamp_min(1e-9).reshape(shape)
        return (w / s).clamp(*limits(spec.bits)).round()

    def _pairs(self, graph: Graph) -> list[tuple[str, str]]:
        """(own, teacher's) tensors whose features are matched: those that ends of a block have."""
        if not isinstance(self.teacher, Teacher):
            raise UsageError("hints need a teacher")
        other = self.teacher.graph
        pairs = list(self.o.pairs.items()) or [
            (op.outputs[0], op.outputs[0])
            for op in graph.ops
            if op.type in ("binary", "avg_pool2d", "reduce") and op.outputs[0] in other.tensors
        ]
        for a, b in pairs:
            own, its = graph.tensors.get(a), other.tensors.get(b)
            if own is None or its is None or own.shape[:-1] != its.shape[:-1]:
                raise UsageError(
                    f"a hint from {b!r} to {a!r} does not fit",
                    todo="pairs names tensors of equal size, channels aside",
                )
        if not pairs:
            raise UsageError("no tensor is a hint by its name", todo="name them: pairs")
        return pairs

    def _bridges(self) -> list[Tensor]:
        import torch

        found: list[Tensor] = []
        for a, b in self.pairs:
            n = self.net.graph.tensors[a].shape[-1]
            m = self.teacher.graph.tensors[b].shape[-1]  # type: ignore[union-attr]
            if n == m:
                found.append(None)
                continue
            w = torch.randn(m, n, generator=self.random) / n**0.5
            found.append(torch.nn.Parameter(w))
        return found

    def _share(self) -> None:
        """Has the workers average their gradients."""
        n = min(self.o.batch, self.n)
        if n % workers.workers():
            raise UsageError(
                f"{workers.workers()} workers cannot share a batch of {n} equally",
                todo="a batch that is a multiple of the workers",
            )
        learns = [p for p in self.net.parameters().values() if p.requires_grad]
        learns += [b for b in self.bridges if b is not None]
        self.sent = workers.Exchange(self.o.gradients, self.o.top)
        self.parallel = workers.parallel(lambda p: self._loss(p, self.format), learns, self.sent)

    def run(self, progress: Progress | None, checkpoint: Checkpoint | None) -> Fitted:
        """Trains, alone or with the other workers."""
        if not self.shared:
            return self._run(progress, checkpoint)
        fitted: Fitted = workers.guarded(lambda: self._run(progress, checkpoint))
        return fitted

    def _run(self, progress: Progress | None, checkpoint: Checkpoint | None) -> Fitted:
        o, first = self.o, 0
        if self.format == "auto":
            self.format = self._probe()
        kept = None
        if checkpoint is not None and workers.rank() == 0 and checkpoint.path.exists():
            kept = checkpoint.path.read_bytes()
        if self.shared:
            self.format, kept = workers.same((self.format, kept))
        if kept is not None:
            try:
                first = self._resume(kept)
            except Exception as e:  # torch has many errors for a damaged file
                assert checkpoint is not None
                raise DataError(f"cannot be read: {first_line(e)}", where=str(checkpoint.path),
                                todo="delete it: the training begins again") from None  # fmt: skip
        if self.shared:
            self._share()
        writes = checkpoint if workers.rank() == 0 else None
        saved = time.monotonic()
        self.net.training = True
        for i in range(first, o.steps):
            if progress:
                progress("train", i, o.steps)
            self._step(self._pick(), i)
            if writes is not None and time.monotonic() - saved > writes.every_s:
                writes.save(writes.path, self._state(i + 1))
                saved = time.monotonic()
        if progress:
            progress("train", o.steps, o.steps)
        if o.norms and o.steps:
            self._estimate()
        sent = None
        if self.shared:
            self.losses = workers.mean(self.losses)
            sent = workers.Traffic(self.sent.sent, self.sent.plain, o.steps - first)
        tenth = max(1, len(self.losses) // 10)
        ends = self.losses[:tenth] or [0.0], self.losses[-tenth:] or [0.0]
        ended = float(np.mean(ends[0])), float(np.mean(ends[1]))
        fitted = self.net.fitted(ended, self.format)
        if not all(np.isfinite(a).all() for a in fitted.constants.values()):
            raise UsageError("training left weights that are not finite", todo="a lower rate")
        return replace(fitted, sent=sent)

    def _pick(self) -> Tensor:
        """The next batch: each pass over the samples has an order of its own."""
        import torch

        n = min(self.o.batch, self.n)
        if len(self.order) < n:
            again = torch.randperm(self.n, generator=self.random)
            self.order = torch.cat([self.order, again])
        pick, self.order = self.order[:n], self.order[n:]
        return pick

    def _step(self, pick: Tensor, i: int) -> None:
        self.optimizer.zero_grad()
        loss = self.parallel(pick) if self.shared else self._loss(pick, self.format)
        loss.backward()
        self.optimizer.step()
        self.net.hold()
        self.slower.step()
        self.losses.append(float(loss.detach()))
        if not math.isfinite(self.losses[-1]):
            raise UsageError(f"the loss is not finite at step {i}", todo="a lower rate")
        for name, q in self.net.quiet.items():  # stricter towards the end
            late = i / max(1, self.o.steps)
            q.watch(self._integers(name), self.o.freeze * (1 - late) + 0.2 * self.o.freeze * late)

    def _loss(self, pick: Tensor, form: str) -> Tensor:
        import torch

        o = self.o
        x, rows = self._changed(pick)
        if self.shared:  # all draw the same batch, each takes its part
            part = slice(workers.rank(), None, workers.workers())
            pick, rows, x = pick[part], rows[part], {k: v[part] for k, v in x.items()}
        with precision.autocast(form):
            values = self.net.values(x)
        z = values[logits_of(self.net.graph)].float().reshape(len(pick), -1)
        y = None if self.y is None else self.y[pick]
        hard = None if y is None else torch.nn.functional.cross_entropy(z, y)
        if self.teacher is None:
            return hard
        t, seen = self._told(x, pick, rows, form)
        if o.kind == "dkd" and y is not None:
            soft = losses.decoupled(z, t, y, o.temperature)
        else:
            soft = losses.soft(z, t, o.temperature)
        total = soft if hard is None else o.soft * soft + (1 - o.soft) * hard
        if not self.pairs:
            return total
        own = [values[a].float() for a, _ in self.pairs]
        its = [seen[b].float() for _, b in self.pairs]
        return total + o.hints * losses.features(own, its, self.bridges)

    def _changed(self, pick: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """A batch, its images changed, and which rows of the teacher's table it is."""
        import torch

        o, x = self.o, {k: v[pick] for k, v in self.data.items()}
        if o.variants:
            pick = pick * o.variants + torch.randint(
                o.variants, (len(pick),), generator=self.random
            )
        for name in self.images if o.flip or o.shift else []:
            if o.variants:
                mirrored, moves = (w[..., pick] for w in self.ways[name])
            else:
                mirrored, moves = batches.drawn(len(pick), o.flip, o.shift, self.random)
            x[name] = batches.changed(x[name], mirrored, moves, o.shift)
        return x, pick

    def _told(
        self, x: dict[str, Tensor], pick: Tensor, rows: Tensor, form: str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The teacher's logits of a batch, which is asked for what it has not told yet."""
        if self.known is not None:
            return self.known[pick], {}
        if self.told is None:
            return self._ask(x, form)
        new = self.told[rows, 0].isnan()
        if new.any():
            self.told[rows[new]] = self._ask({k: v[new] for k, v in x.items()}, form)[0]
        return self.told[rows], {}

    def _ask(self, x: dict[str, Tensor], form: str) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean logits of the teachers, and what the first one's tensors hold."""
        import torch

        own, found = self.net.graph.inputs, []
        for graph, const in zip(self.teacher.graphs, self.const, strict=True):  # type: ignore[union-attr]
            fed = {its: x[mine] for mine, its in zip(own, graph.inputs, strict=True)}  # other names
            with torch.no_grad(), precision.autocast(form):
                found.append((graph, torchnet.run(graph.ops, fed, const)))
        told = [v[logits_of(g)].float().reshape(len(v[logits_of(g)]), -1) for g, v in found]
        return sum(told) / len(told), found[0][1]

    def _probe(self) -> str:
        """The fastest precision of one small step; nothing learns from it."""
        import torch

        kept = self.random.get_state()
        pick = torch.arange(min(self.n, max(PROBE, self.o.batch // 4)))
        found, _ = precision.fastest(lambda form: self._loss(pick, form).backward())
        self.optimizer.zero_grad()
        self.random.set_state(kept)
        if self.told is not None:
            self.told.fill_(torch.nan)
        return found

    def _estimate(self) -> None:
        """The norms' statistics again, with the weights as they are: plain means over batches."""
        import torch

        picks = torch.randint(
            self.n, (self.o.estimate, min(self.o.batch, self.n)), generator=self.random
        )
        with precision.autocast(self.format):
            self.net.estimate({k: v[p] for k, v in self.data.items()} for p in picks)

    # ---- going on after a kill ----

    def _state(self, step: int) -> bytes:
        import torch

        out = io.BytesIO()
        kept = {
            "step": step, "net": self.net.state(), "optimizer": self.optimizer.state_dict(),
            "slower": self.slower.state_dict(), "random": self.random.get_state(),
            "losses": self.losses, "format": self.format, "told": self.told,
            "order": self.order.clone(),
            "bridges": [b for b in self.bridges if b is not None],
        }  # fmt: skip
        torch.save(kept, out)
        return out.getvalue()

    def _resume(self, data: bytes) -> int:
        import torch

        kept = torch.load(io.BytesIO(data), weights_only=True)
        self.net.restore(kept["net"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.slower.load_state_dict(kept["slower"])
        self.random.set_state(kept["random"])
        self.losses, self.format = kept["losses"], kept["format"]
        self.told, self.order = kept["told"], kept["order"]
        with torch.no_grad():
            mine = [b for b in self.bridges if b is not None]
            for b, was in zip(mine, kept["bridges"], strict=True):
                b.copy_(was)
        return int(kept["step"])


def _optimizer(o: Options, groups: list[dict[str, Any]]) -> Any:
    import torch

    if o.optimizer == "adam":
        return torch.optim.AdamW(groups, weight_decay=0.0)
    if o.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=o.rate, momentum=0.9, nesterov=True)
    raise UsageError(f"optimizer {o.optimizer!r} is unknown", todo="known: adam, sgd")

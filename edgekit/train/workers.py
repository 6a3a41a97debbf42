"""Data-parallel training: processes that torchrun starts share every batch over gloo.

Gradients are averaged by DistributedDataParallel through one of four communication hooks, which
count what each worker sends.  An all-reduce of n bytes moves 2 (W - 1) / W n of them per worker (a
ring), an all-gather (W - 1) n.

- none: float32.
- fp16: half of it; sums are taken in float16 of gradients already divided by W.
- int8: one byte each and a scale for every GROUP of them, gathered.
- topk: the largest share of each bucket, as places and values, gathered.

int8 and topk keep what they did not send and add it to the next gradient (error feedback, Seide et
al. 2014, Stich et al. 2018); without it topk never moves a weight whose gradients are small.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from edgekit.errors import LinkError, UsageError, first_line

Tensor = Any
KINDS = ("none", "fp16", "int8", "topk")
GROUP = 512  # gradients that share a scale
LOST = ("gloo", "connection", "timed out", "timeout", "peer", "socket", "store")


@dataclass(frozen=True)
class Traffic:
    """What one worker sent in all steps, and would have sent as float32."""

    sent_bytes: int
    plain_bytes: int
    steps: int

    @property
    def ratio(self) -> float:
        return self.sent_bytes / max(1, self.plain_bytes)

    def __str__(self) -> str:
        per = self.sent_bytes / max(1, self.steps)
        return (
            f"each worker sent {self.sent_bytes} bytes ({per:.0f} a step), "
            f"{self.ratio:.3f} of float32"
        )


@dataclass
class Exchange:
    """State of a communication hook: counts, and what was not sent yet."""

    kind: str
    share: float = 0.01
    feedback: bool = True
    sent: int = 0
    plain: int = 0
    left: dict[int, Tensor] = field(default_factory=dict)  # by identity of the parameter

    def owed(self, bucket: Any) -> Tensor:
        """The bucket's gradients with what earlier steps kept back."""
        g = bucket.buffer().clone()
        at = 0
        for p in bucket.parameters() if self.left else ():
            n = p.numel()
            if id(p) in self.left:
                g[at : at + n] += self.left[id(p)]
            at += n
        return g

    def keep(self, bucket: Any, rest: Tensor) -> None:
        at = 0
        for p in bucket.parameters() if self.feedback else ():
            self.left[id(p)] = rest[at : at + p.numel()].clone()
            at += p.numel()

    def count(self, values: int, gathered: int = 0, reduced: int = 0) -> None:
        """Adds what this worker sends: bytes of an all-gather, bytes of an all-reduce."""
        w = workers()
        self.plain += 2 * (w - 1) * 4 * values // w
        self.sent += (w - 1) * gathered + 2 * (w - 1) * reduced // w


def workers() -> int:
    """Processes of this training; 1 outside of torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is; only number 0 writes files."""
    return int(os.environ.get("RANK", "0"))


def join(wait_s: float) -> bool:
    """Meets the other processes once; False where there are none.

    LinkError where they do not come within `wait_s`, which also bounds every later exchange.
    """
    if workers() == 1:
        return False
    import torch.distributed as dist

    if not dist.is_initialized():
        try:
            dist.init_process_group("gloo", timeout=timedelta(seconds=wait_s))
        except (RuntimeError, ValueError) as e:
            raise LinkError(
                f"the {workers()} workers of this training did not meet: {first_line(e)}",
                todo="start it by torchrun; see MASTER_ADDR and MASTER_PORT",
            ) from None
        atexit.register(_leave)
    return True


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def same(value: Any) -> Any:
    """Number 0's value, on every worker."""
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def mean(values: list[float]) -> list[float]:
    """Means over the workers."""
    import torch
    import torch.distributed as dist

    t = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(t)
    return [float(v) for v in t / workers()]


def guarded(step: Callable[[], Any]) -> Any:
    """What `step` gives; LinkError where another worker is gone or does not answer."""
    try:
        return step()
    except RuntimeError as e:
        if workers() == 1 or not any(word in str(e).lower() for word in LOST):
            raise
        raise LinkError(
            f"worker {rank()} lost another worker of this training: {first_line(e)}",
            todo="start it again; with a folder it goes on where it was last kept",
        ) from None


def parallel(forward: Callable[[Tensor], Tensor], parameters: list[Tensor], e: Exchange) -> Any:
    """A module that computes `forward(pick)` and averages its parameters' gradients by `e`."""
    import torch

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.learns = torch.nn.ParameterList(parameters)

        def forward(self, pick: Tensor) -> Tensor:
            return forward(pick)

    if e.kind not in KINDS:
        raise UsageError(f"gradients {e.kind!r} are unknown", todo=f"known: {', '.join(KINDS)}")
    if not 0 < e.share <= 1:
        raise UsageError(f"top = {e.share:g} is no share", todo="0 < top <= 1")
    made = torch.nn.parallel.DistributedDataParallel(Module(), static_graph=True)
    hook = HOOKS[e.kind]
    # torch compares a hook's annotations with its own classes: this one has none
    made.register_comm_hook(e, lambda state, bucket: hook(state, bucket))
    return made


# ---- communication hooks of DistributedDataParallel: (state, bucket) -> future of the mean ----


def none(e: Exchange, bucket: Any) -> Any:
    import torch.distributed as dist

    g = bucket.buffer().div_(workers())
    e.count(g.numel(), reduced=4 * g.numel())
    return dist.all_reduce(g, async_op=True).get_future().then(lambda f: f.value()[0])


def fp16(e: Exchange, bucket: Any) -> Any:
    import torch
    import torch.distributed as dist

    g = bucket.buffer().div_(workers()).to(torch.float16)
    e.count(g.numel(), reduced=2 * g.numel())
    made = dist.all_reduce(g, async_op=True).get_future()
    return made.then(lambda f: bucket.buffer().copy_(f.value()[0]))


def int8(e: Exchange, bucket: Any) -> Any:
    import torch

    g, n = e.owed(bucket), bucket.buffer().numel()
    rows = torch.nn.functional.pad(g, (0, -n % GROUP)).reshape(-1, GROUP)
    scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-30) / 127
    q = (rows / scale).round().to(torch.int8)
    e.keep(bucket, g - (q * scale).reshape(-1)[:n])
    e.count(n, gathered=n + 4 * len(scale))
    total = torch.zeros_like(rows)
    for a, s in zip(_gathered(q), _gathered(scale), strict=True):
        total += a * s
    return _done(total.reshape(-1)[:n] / workers())


def topk(e: Exchange, bucket: Any) -> Any:
    import torch

    g = e.owed(bucket)
    at = g.abs().topk(max(1, round(e.share * g.numel())), sorted=False).indices
    values = g[at]
    e.count(g.numel(), gathered=(4 + 4) * at.numel())
    g[at] = 0
    e.keep(bucket, g)
    total = torch.zeros_like(g)
    for i, v in zip(_gathered(at.to(torch.int32)), _gathered(values), strict=True):
        total.index_add_(0, i, v)
    return _done(total / workers())


HOOKS: dict[str, Callable[[Exchange, Any], Any]] = {
    "none": none, "fp16": fp16, "int8": int8, "topk": topk,
}  # fmt: skip


def _gathered(t: Tensor) -> list[Tensor]:
    """Every worker's tensor, in the order of the workers: all add up the same floats."""
    import torch
    import torch.distributed as dist

    out = [torch.empty_like(t) for _ in range(workers())]
    dist.all_gather(out, t.contiguous())
    return out


def _done(t: Tensor) -> Any:
    import torch

    future: Any = torch.futures.Future()
    future.set_result(t)
    return future

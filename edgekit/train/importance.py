"""What the loss says about channels and layers: Taylor and Fisher scores, and losses without them.

A gate of 1 in front of every output of an op has the gradient sum(w * dL/dw) over the weights that
make it.  Taylor: its size (Molchanov et al. 2019); Fisher: half its mean square over single
samples, the second-order estimate of what losing it costs (Theis et al. 2018), estimated from small
batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit import torchnet
from edgekit.errors import ModelError, UsageError
from edgekit.ir import Array, Graph
from edgekit.torchnet import logits_of
from edgekit.train.net import Net

KINDS = ("taylor", "fisher")
BATCH = 16
Progress = Callable[[str, int, int], None]


def outputs(
    graph: Graph, x: dict[str, Array], labels: Array | None, kind: str,
    progress: Progress | None = None,
) -> dict[str, npt.NDArray[np.float64]]:  # fmt: skip
    """Op -> damage of losing each of its outputs, in units of the loss.

    x: input name -> (n, ...).  Without labels the net's own decisions stand for them.  UsageError
    for an unknown kind, ModelError for ops without a gradient.
    """
    if kind not in KINDS:
        known = ", ".join(("norm", *KINDS))
        raise UsageError(f"importance {kind!r} is unknown", todo=f"known: {known}")
    bad = torchnet.unsupported(graph)
    if bad:
        raise ModelError(f"importance {kind} does not know ops of type {', '.join(bad)}")
    import torch

    net, n = Net(graph), len(next(iter(x.values())))
    data = torchnet.tensors(x)
    total: dict[str, Any] = {}
    for i in range(0, n, BATCH):
        if progress:
            progress("importance", i, n)
        part = {k: v[i : i + BATCH] for k, v in data.items()}
        loss = _loss(net.logits(part), labels, i)
        mine = [net.const[k] for k in net.names]
        found = torch.autograd.grad(loss, mine, allow_unused=True)
        of = dict(zip(net.names, found, strict=True))
        for name, op in net.ops.items():
            if op.type == "depthwise_conv2d":
                continue  # its channels are made elsewhere
            gate: Any = 0.0
            for k in op.inputs[1:3]:
                if k and of[k] is not None:
                    product = (of[k] * net.const[k]).detach()
                    gate = gate + product.reshape(len(product), -1).sum(1).double()
            one = gate.abs() if kind == "taylor" else 0.5 * len(part[next(iter(part))]) * gate**2
            total[name] = total.get(name, 0.0) + one / -(-n // BATCH)
    return {k: v.numpy() for k, v in total.items()}


def losses(
    graph: Graph, without: Mapping[str, Graph], x: dict[str, Array], labels: Array | None,
    progress: Progress | None = None,
) -> dict[str, float]:  # fmt: skip
    """How much the loss rises when a graph takes the place of `graph`, by name."""
    found = {}
    if labels is None:
        labels = _mean(graph, x, None)[1]
    base = _mean(graph, x, labels)[0]
    for i, (name, g) in enumerate(without.items()):
        if progress:
            progress("layers", i, len(without))
        found[name] = _mean(g, x, labels)[0] - base
    return found


def _loss(z: Any, labels: Array | None, at: int) -> Any:
    import torch

    z = z.reshape(len(z), -1)
    y = z.argmax(1) if labels is None else torch.from_numpy(np.asarray(labels, np.int64))
    return torch.nn.functional.cross_entropy(z, y if labels is None else y[at : at + len(z)])


def _mean(graph: Graph, x: dict[str, Array], labels: Array | None) -> tuple[float, Array]:
    """Mean loss, and the decisions."""
    import torch

    const, data = torchnet.constants(graph), torchnet.tensors(x)
    n, total, top = len(next(iter(x.values()))), 0.0, []
    with torch.no_grad():
        for i in range(0, n, 128):
            part = {k: v[i : i + 128] for k, v in data.items()}
            z = torchnet.run(graph.ops, part, const)[logits_of(graph)]
            z = z.reshape(len(z), -1)
            total += float(_loss(z, labels, i)) * len(z) / n
            top.append(z.argmax(1).numpy())
    return total, np.concatenate(top)

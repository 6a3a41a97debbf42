"""What a pruned graph can regain from samples alone, without training.

`spreads`: means and deviations of the convolutions' outputs, as batch norms would keep them.
`outputs`: every op in turn gets the weights that bring its outputs, on the inputs that the pruned
graph gives it, nearest to what they were (least squares; He et al. 2017).  In front of an addition
the target is the sum, so that a branch also makes up for what earlier layers lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit import torchnet
from edgekit.ir import Array, Graph, Op
from edgekit.train.net import Net

Tensor = Any
SAMPLES = 512  # whose statistics are taken
ROWS = 40_000  # pixels that an op's equations are made of, at most
RIDGE = 1e-3  # pull towards the weights as they are, in mean squares of an input


def spreads(
    before: Graph, after: Graph, masks: dict[str, Array], x: dict[str, Array], batch: int = 128
) -> dict[str, Array]:
    """Constants of a pruned graph whose convolutions' outputs have the means and deviations that
    they had before, as batch norms would have kept them; no training.

    masks: op -> which of its outputs stayed; x: input name -> (n, ...) samples.
    """
    import torch

    data = torchnet.tensors(x)
    some = {k: v[:SAMPLES] for k, v in data.items()}
    like = Net(before).put_norms(some)
    net = Net(after, momentum=1.0, training=True)
    for name, mask in masks.items():
        if name in like:
            like[name] = (
                like[name][0][torch.from_numpy(mask)],
                like[name][1][torch.from_numpy(mask)],
            )
    names = {op.name for op in after.ops}
    net.put_norms(some, {k: v for k, v in like.items() if k in names})
    net.estimate(
        [
            {k: v[i : i + batch] for k, v in data.items()}
            for i in range(0, len(some[next(iter(some))]), batch)
        ]
    )
    return net.fitted((0.0, 0.0)).constants


def outputs(
    before: Graph, after: Graph, masks: dict[str, Array], x: dict[str, Array], seed: int = 0
) -> dict[str, Array]:
    """Constants of a pruned graph whose weights and biases were solved for again.

    masks: op -> which of its outputs stayed; x: input name -> (n, ...) samples, all of which go
    through both graphs at once.
    """
    import torch

    data, random = torchnet.tensors(x), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        want = torchnet.run(before.ops, dict(data), torchnet.constants(before))
        solve = _Solver(before, after, masks, want, random)
        for op in after.ops:
            solve.step(op, data)
    return {n: solve.const[n].numpy() for n in solve.changed}


@dataclass
class _Solver:
    before: Graph
    after: Graph
    masks: dict[str, Array]
    want: dict[str, Tensor]
    random: Any

    def __post_init__(self) -> None:
        self.const = torchnet.constants(self.after)
        self.users = self.after.consumers()
        self.old = {op.name: op for op in self.before.ops}
        self.changed: list[str] = []

    def step(self, op: Op, values: dict[str, Tensor]) -> None:
        """Solves for an op's weights where it has a target, then runs it."""
        if op.type in ("conv2d", "linear") and self.after.value(op.inputs[1]) is not None:
            target = self._target(op, values)
            if target is not None and op.attrs.get("groups", 1) == 1 and len(op.inputs) > 2:
                self._solve(op, values[op.inputs[0]], target)
        torchnet.run([op], values, self.const)

    def _target(self, op: Op, values: dict[str, Tensor]) -> Tensor | None:
        """What the op should give, before any clamp; None where that is not known."""
        mask: Any = slice(None)
        if op.name in self.masks:
            import torch

            mask = torch.from_numpy(self.masks[op.name])
        users = self.users.get(op.outputs[0], [])
        if len(users) == 1 and users[0].type == "binary" and users[0].attrs["kind"] == "add":
            add = users[0]
            other = next((n for n in add.inputs if n != op.outputs[0]), "")
            if other in values and add.name in self.old:
                a, b = (self.want[n] for n in self.old[add.name].inputs)
                whole: Tensor = (a + b)[..., mask]
                return whole - values[other] if whole.shape == values[other].shape else None
        free = np.isinf(op.attrs.get("lo", -np.inf)) and np.isinf(op.attrs.get("hi", np.inf))
        return self.want[op.outputs[0]][..., mask] if free and op.name in self.old else None

    def _solve(self, op: Op, x: Tensor, target: Tensor) -> None:
        import torch

        w, bias = self.const[op.inputs[1]], self.const[op.inputs[2]]
        rows, columns = _rows(op, x, w), target.reshape(-1, target.shape[-1])
        pick = torch.randperm(len(rows), generator=self.random)[:ROWS]
        a = torch.cat([rows[pick], torch.ones(len(pick), 1)], 1).double()
        now = torch.cat([_flat(op, w).T, bias[None]]).double()
        square = a.T @ a
        pull = RIDGE * square.diagonal()[:-1].mean()
        square.diagonal()[:-1].add_(pull)
        found = now + torch.linalg.solve(square, a.T @ (columns[pick].double() - a @ now))
        flat = found[:-1].T.float()
        if op.type == "conv2d":
            n, kh, kw, c = w.shape
            flat = flat.reshape(n, c, kh, kw).permute(0, 2, 3, 1).contiguous()
        self.const[op.inputs[1]], self.const[op.inputs[2]] = flat, found[-1].float()
        self.changed += op.inputs[1:3]


def _flat(op: Op, w: Tensor) -> Tensor:
    """Weights (outputs, inputs), in the order of `_rows`."""
    return w.permute(0, 3, 1, 2).reshape(len(w), -1) if op.type == "conv2d" else w


def _rows(op: Op, x: Tensor, w: Tensor) -> Tensor:
    """What each output pixel is made of: (pixels, inputs)."""
    import torch.nn.functional as nn

    if op.type == "linear":
        return x.reshape(-1, x.shape[-1])
    a = op.attrs
    top, left, bottom, right = a["pad"]
    x = nn.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom))
    kernel = tuple(w.shape[1:3])
    y = nn.unfold(x, kernel, dilation=tuple(a["dilation"]), stride=tuple(a["stride"]))
    return y.permute(0, 2, 1).reshape(-1, y.shape[1])

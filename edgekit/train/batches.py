"""Random batches of prepared samples, mirrored and shifted where they are images."""

from __future__ import annotations

from typing import Any

Tensor = Any


def image_axes(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """(height, width) axes of an input (n, ...): channels are the axis of 1, 3 or 4; None where it
    is no image."""
    if len(shape) != 4:
        return None
    if shape[1] in (1, 3, 4) and shape[2] > 4:
        return 2, 3
    return (1, 2) if shape[3] in (1, 3, 4) else None


def drawn(n: int, flip: bool, shift: int, generator: Any) -> tuple[Tensor, Tensor]:
    """How n images are changed: mirrored or not (n,), moved (2, n) by 0 to 2 `shift` pixels."""
    import torch

    mirrored = torch.zeros(n, dtype=torch.bool)
    if flip:
        mirrored = torch.rand(n, generator=generator) < 0.5
    moves = torch.full((2, n), shift)
    if shift:
        moves = torch.randint(2 * shift + 1, (2, n), generator=generator)
    return mirrored, moves


def changed(x: Tensor, mirrored: Tensor, moves: Tensor, shift: int) -> Tensor:
    """A batch of images, each mirrored and moved (0 comes in) as `drawn`."""
    import torch
    import torch.nn.functional as nn

    axes = image_axes(tuple(x.shape))
    assert axes is not None
    n, (h, w) = len(x), (x.shape[axes[0]], x.shape[axes[1]])
    first = axes == (2, 3)
    if mirrored.any():
        x = torch.where(mirrored.reshape(-1, 1, 1, 1), x.flip(axes[1]), x)
    if not shift:
        return x
    edge = (shift,) * 4 if first else (0, 0, *(shift,) * 4)
    wide = nn.pad(x, edge)
    dy, dx = moves
    rows, columns = dy[:, None] + torch.arange(h), dx[:, None] + torch.arange(w)
    i = torch.arange(n)[:, None, None]
    if first:  # (n, c, h, w): the indexed axes come first, the channels last
        y = wide[i, :, rows[:, :, None], columns[:, None, :]]
        return y.permute(0, 3, 1, 2)
    return wide[i, rows[:, :, None], columns[:, None, :]]

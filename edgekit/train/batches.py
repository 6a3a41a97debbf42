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


def changed(x: Tensor, flip: bool, shift: int, generator: Any) -> Tensor:
    """A batch with each image mirrored or not and moved by up to `shift` pixels (0 comes in)."""
    import torch
    import torch.nn.functional as nn

    axes = image_axes(tuple(x.shape))
    if axes is None:
        return x
    n, (h, w) = len(x), (x.shape[axes[0]], x.shape[axes[1]])
    first = axes == (2, 3)
    if flip:
        mirrored = torch.rand(n, generator=generator) < 0.5
        x = torch.where(mirrored.reshape(-1, 1, 1, 1), x.flip(axes[1]), x)
    if not shift:
        return x
    edge = (shift,) * 4 if first else (0, 0, *(shift,) * 4)
    wide = nn.pad(x, edge)
    dy, dx = torch.randint(2 * shift + 1, (2, n), generator=generator)
    rows, columns = dy[:, None] + torch.arange(h), dx[:, None] + torch.arange(w)
    i = torch.arange(n)[:, None, None]
    if first:  # (n, c, h, w): the indexed axes come first, the channels last
        y = wide[i, :, rows[:, :, None], columns[:, None, :]]
        return y.permute(0, 3, 1, 2)
    return wide[i, rows[:, :, None], columns[:, None, :]]

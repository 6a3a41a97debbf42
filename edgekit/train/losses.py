"""Losses of training: labels, a teacher's soft labels (temperature, decoupled) and its features."""

from __future__ import annotations

from typing import Any

Tensor = Any


def soft(z: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler distance of softened labels, times T^2 (Hinton et al. 2015)."""
    import torch.nn.functional as nn

    target = nn.log_softmax(teacher / temperature, 1)
    own = nn.log_softmax(z / temperature, 1)
    return nn.kl_div(own, target, log_target=True, reduction="batchmean") * temperature**2


def decoupled(
    z: Tensor, teacher: Tensor, y: Tensor, temperature: float, alpha: float = 1.0, beta: float = 8.0
) -> Tensor:
    """alpha x the distance in the labelled class + beta x that among all others (DKD, Zhao et al.
    2022), times T^2."""
    import torch
    import torch.nn.functional as nn

    mine = nn.one_hot(y, z.shape[1]).bool()
    own, other = nn.softmax(z / temperature, 1), nn.softmax(teacher / temperature, 1)
    p, q = (own * mine).sum(1).clamp(1e-6, 1 - 1e-6), (other * mine).sum(1).clamp(1e-6, 1 - 1e-6)
    target = (q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).mean()
    low = torch.finfo(z.dtype).min / 4
    rest = soft(z.masked_fill(mine, low), teacher.masked_fill(mine, low), temperature)
    return alpha * target * temperature**2 + beta * rest


def features(own: list[Tensor], teacher: list[Tensor], bridges: list[Tensor | None]) -> Tensor:
    """Mean squared distance of feature maps (..., channels), each relative to the teacher's size.

    bridges: (teacher's channels, student's channels) or None where they are equal (FitNets, Romero
    et al. 2015).
    """
    total: Any = 0.0
    for a, b, m in zip(own, teacher, bridges, strict=True):
        a = a if m is None else a @ m.T
        total = total + ((a - b) ** 2).mean() / (b**2).mean().clamp_min(1e-9)
    return total / max(1, len(own))

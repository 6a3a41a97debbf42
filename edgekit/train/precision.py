"""The number format that trains fastest here, found by trying: float32, bfloat16 or float16."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from edgekit.errors import UsageError

PRECISIONS = ("float32", "bfloat16", "float16")
GAIN = 0.9  # a narrow format must take at most this share of float32's time


def autocast(precision: str) -> Any:
    """A context in which torch computes in that format; weights and optimizer stay float32."""
    import torch

    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast("cpu", getattr(torch, precision))


def checked(wanted: str) -> str:
    """`wanted`; UsageError where it is no precision."""
    if wanted not in ("auto", *PRECISIONS):
        known = ", ".join(("auto", *PRECISIONS))
        raise UsageError(f"precision {wanted!r} is unknown", todo=f"known: {known}")
    return wanted


def fastest(step: Callable[[str], None]) -> tuple[str, dict[str, float]]:
    """The format whose `step(format)` takes least processor time, and the seconds of each.

    The first call of a format is not counted; one that is already hopeless then, or fails (no
    kernel for it here), is not tried again.  float32 unless another wins clearly.
    """
    seconds: dict[str, float] = {}
    for name in PRECISIONS:
        try:
            first = _timed(step, name)
            if seconds and first > 3 * seconds["float32"]:
                seconds[name] = first
                continue
            seconds[name] = min(_timed(step, name) for _ in range(2))
        except (RuntimeError, NotImplementedError):
            if name == "float32":
                raise
    best = min(seconds, key=lambda n: seconds[n])
    return (best if seconds[best] < GAIN * seconds["float32"] else "float32"), seconds


def _timed(step: Callable[[str], None], name: str) -> float:
    begin = time.process_time()
    step(name)
    return time.process_time() - begin

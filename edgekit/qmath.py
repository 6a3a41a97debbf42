"""The one rounding rule.  Twin of native/src/qmath.h: the same bits, operation by operation.

Every function takes and returns numpy arrays; integers are exact, float steps are single float32
operations in a fixed order, so that no fused multiply-add can change them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
F = np.float32
SCALE_MIN, SCALE_MAX = 2.0**-40, 2.0**8  # outside: refused, so flush-to-zero cannot matter
QMIN, QMAX = -128, 127
LIMITS = {"i8": (QMIN, QMAX), "i16": (-32768, 32767)}


def requantize(
    acc: Array, scale: Array | float, lo: float, hi: float, zero: int
) -> npt.NDArray[np.int8]:
    """int32 accumulators -> int8: float32(acc) * scale, clamp to [lo, hi], half to even, add zero.

    `lo`, `hi` are relative to `zero` (qmin - zero .. qmax - zero).  This is what ONNX QDQ means.
    """
    y = np.asarray(acc, np.int32).astype(F) * np.asarray(scale, F)
    y = np.minimum(np.maximum(y, F(lo)), F(hi))
    return np.asarray(np.rint(y).astype(np.int32) + np.int32(zero), np.int8)


def requantize_wide(
    acc: Array, scale: Array | float, lo: float, hi: float, zero: int, to: str
) -> Array:
    """`requantize` of sums that may need 64 bits, to "i8" or "i16": float32(acc) rounds once."""
    y = np.asarray(acc, np.int64).astype(F) * np.asarray(scale, F)
    y = np.minimum(np.maximum(y, F(lo)), F(hi))
    q = np.rint(y).astype(np.int32) + np.int32(zero)
    return np.asarray(q, np.int16 if to == "i16" else np.int8)


def clamp_bounds(
    lo: float, hi: float, scale: float, zero: int, to: str = "i8"
) -> tuple[float, float]:
    """Real activation bounds -> bounds relative to `zero` in quantized units, whole numbers."""
    a, b = (float(q - zero) for q in LIMITS[to])
    top = b
    if lo > -math.inf:
        a = max(a, float(np.rint(F(lo) / F(scale))))
    if hi < math.inf:
        b = min(b, float(np.rint(F(hi) / F(scale))))
    a = min(a, top)
    return a, max(a, b)


def requant_scale(*, num: Array | float, den: float) -> npt.NDArray[np.float32]:
    """float32 of num/den computed in double, kept inside [SCALE_MIN, SCALE_MAX]."""
    s = np.asarray(num, np.float64) / float(den)
    return np.clip(s, SCALE_MIN, SCALE_MAX).astype(F)


def mean_scale(scale: Array | float, count: Array | int) -> npt.NDArray[np.float32]:
    """Requantization scale of a mean: float32(scale) / float32(count), one division, as
    ek_div_f32."""
    return np.asarray(np.asarray(scale, F) / np.asarray(count).astype(F), F)


def quantize(x: Array, scale: float, zero: int, to: str = "i8") -> Array:
    """float32 -> int8 or int16: x / scale in float32, clamp, half to even, add zero (NaN ->
    qmin)."""
    y = np.asarray(x, F) / F(scale)
    lo, hi = (F(q - zero) for q in LIMITS[to])
    y = np.where(y > lo, y, lo)
    y = np.where(y < hi, y, hi)
    q = np.rint(y).astype(np.int32) + np.int32(zero)
    return np.asarray(q, np.int16 if to == "i16" else np.int8)


def dequantize(q: Array, scale: float, zero: int) -> npt.NDArray[np.float32]:
    """int8 or int16 -> float32: float32(q - zero) * scale."""
    return ((np.asarray(q, np.int32) - np.int32(zero)).astype(F) * F(scale)).astype(F)


def add_params(sa: float, sb: float, sy: float, za: int, zb: int) -> tuple[int, int, int, int]:
    """(ma, mb, bias, shift) so that y = (a*ma + b*mb + bias) >> shift + zero_y, half up.

    The larger multiplier has 21 significant bits; |a*ma + b*mb + bias| < 2^31 always in int8.
    """
    ra, rb = sa / sy, sb / sy
    big = max(abs(ra), abs(rb))
    shift = int(min(max(20 - math.floor(math.log2(big)), 1), 30))
    ma, mb = (int(np.rint(r * 2.0**shift)) for r in (ra, rb))
    bias = (1 << (shift - 1)) - ma * za - mb * zb
    return ma, mb, bias, shift


def add(
    a: Array, b: Array, params: tuple[int, int, int, int], lo: float, hi: float, zero: int
) -> Array:
    """Integer addition of two int8 or int16 tensors (see add_params); shapes broadcast."""
    ma, mb, bias, shift = params
    acc = (a.astype(np.int64) * ma + b.astype(np.int64) * mb + bias) >> shift
    return np.asarray(np.clip(acc, int(lo), int(hi)) + zero, a.dtype)


def dynamic_rows(x: Array) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Per-row symmetric int8 of float32 (m, k): (q, scale (m,)).  Rows of zeros get scale 0."""
    top = np.max(np.abs(np.asarray(x, F)), axis=-1)
    inv = np.divide(F(127.0), top, out=np.zeros_like(top), where=top > 0).astype(F)
    y = (x * inv[..., None]).astype(F)
    y = np.minimum(np.maximum(y, F(-127.0)), F(127.0))
    return np.rint(y).astype(np.int8), (top / F(127.0)).astype(F)

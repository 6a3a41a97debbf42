"""TFLite's int16 sigmoid and tanh, bit for bit, to sample the tables of imported integer LSTMs
from.

They are gemmlowp's fixed-point approximations (fixedpoint/fixedpoint.h), off by up to 12 units of
2^-15; a recurrent net carries such differences from step to step, so a faithful import starts from
the same values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def _constant(raw32: int) -> int:
    """An int32 fixed-point constant as int16, half up."""
    return (raw32 + (1 << 15)) >> 16


def _sat(x: Ints) -> Ints:
    return np.clip(x, -32768, 32767)


def _mul(a: Any, b: Any) -> Ints:
    """Rounded high half of twice the product; -32768 squared saturates."""
    ab = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    v = ab + np.where(ab >= 0, 1 << 14, 1 - (1 << 14))
    return _sat(np.sign(v) * (np.abs(v) >> 15))


def _shift(x: Ints, n: int) -> Ints:
    """x * 2^n, saturating upwards, half away from zero downwards."""
    if n >= 0:
        return _sat(x << n)
    mask = (1 << -n) - 1
    return (x >> -n) + ((x & mask) > (mask >> 1) + (x < 0))


def _exp_quarter(a: Ints) -> Ints:
    """exp in 2^-15 of a * 2^-15 in [-1/4, 0)."""
    x = a + (1 << 12)
    x2 = _mul(x, x)
    series = _mul(_shift(_mul(x2, x2), -2) + _mul(x2, x), _constant(715827883)) + x2
    c = _constant(1895147668)  # exp(-1/8)
    return _sat(c + _mul(c, x + _shift(series, -1)))


def _exp_negative(a: Ints, bits: int) -> Ints:
    """exp in 2^-15 of a * 2^-bits, a <= 0."""
    quarter = 1 << (bits - 2)
    low = (a & (quarter - 1)) - quarter
    y, rest = _exp_quarter(_shift(low, 15 - bits)), low - a
    factors = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
    for e, raw in enumerate(factors, -2):  # exp(-2^e)
        if 15 - bits > e:
            y = np.where(rest & (1 << (bits + e)), _mul(y, _constant(raw)), y)
    return np.where(a == 0, 32767, y)


def _reciprocal(a: Ints) -> Ints:
    """2 / (1 + a * 2^-15) in 2^-13 by three Newton steps."""
    half = (a + 32767 + 1) // 2
    x = _constant(1515870810) + _mul(half, -_constant(1010580540))
    for _ in range(3):
        x = _sat(x + _shift(_mul(x, 8192 - _mul(half, x)), 2))
    return x


def sigmoid(x: Ints, bits: int) -> Ints:
    """sigmoid in 2^-15 of x * 2^-bits, x >= 0."""
    y = _shift(_reciprocal(_exp_negative(-x, bits)), 1)
    return np.where(x == 0, 1 << 14, y)


def tanh(x: Ints, bits: int) -> Ints:
    """tanh in 2^-15 of x * 2^-bits, x >= 0."""
    y = _shift(_reciprocal(_exp_negative(-x, bits - 1)) - 8192, 2)
    return np.where(x == 0, 0, y)

"""MFCC of 16-bit audio in integers, and its tables for C: the twin of native/audio/mfcc.c.

The same bits in numpy and in C: only the tables are made with floating point, here, once. Bands are
triangles on the mel scale of HTK (Young et al., The HTK Book, 5.4), logarithms are to base 2.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.errors import UsageError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mfcc:
    """One configuration: sample rate, frame and hop in samples, mel bands between two frequencies.

    Raises UsageError where bands would be narrower than a bin of the FFT or a size is too large.
    """

    rate_hz: int = 8000
    frame: int = 256
    hop: int = 160
    mels: int = 20
    coefficients: int = 10
    low_hz: float = 100.0
    high_hz: float = 3800.0

    def __post_init__(self) -> None:
        if not 16 <= self.frame <= 1024 or self.hop < 1:
            raise UsageError("frames have 16 to 1024 samples, hops at least one", where="mfcc")
        if not 1 <= self.coefficients <= self.mels <= 64:
            raise UsageError("1 to 64 mel bands, and at most as many coefficients", where="mfcc")
        if not 0 < self.low_hz < self.high_hz <= self.rate_hz / 2:
            raise UsageError("bands lie between 0 and half the sample rate", where="mfcc")
        if any(i > 2 * first for i, first in enumerate(self.bands[0])):  # C writes over its bins
            raise UsageError(
                f"{self.mels} bands from {self.low_hz:g} Hz are narrower than a bin",
                where="mfcc",
                todo="use fewer bands, a higher low_hz or a longer frame",
            )

    @property
    def log2_fft(self) -> int:
        """Logarithm of the FFT's size: the next power of two."""
        return int(self.frame - 1).bit_length()

    def frames(self, samples: int) -> int:
        """Whole frames in so many samples."""
        return max(0, 1 + (samples - self.frame) // self.hop)

    def __call__(self, samples: npt.NDArray[np.int16]) -> Ints:
        """(frames, coefficients) with 8 fractional bits, of (samples,) int16."""
        at = np.arange(self.frames(len(samples)))[:, None] * self.hop + np.arange(self.frame)
        n, fraction = 1 << self.log2_fft, 15 - self.log2_fft
        re = np.zeros((len(at), n), np.int64)
        re[:, : self.frame] = _rounded(samples.astype(np.int64)[at] * self.window, 15) << fraction
        re, im = self._fft(re, np.zeros_like(re))
        power = (re * re + im * im) >> (2 * fraction - 4)
        first, count, weight = self.bands
        energy, used = np.empty((len(at), self.mels), np.int64), 0
        for i, (b, k) in enumerate(zip(first, count)):
            energy[:, i] = power[:, b : b + k] @ weight[used : used + k]
            used += k
        return _rounded(_log2_q8(energy) @ self.dct.T, 14)

    def quantized(self, features: Ints, scale: float, zero: int) -> npt.NDArray[np.int8]:
        """The int8 values that C gives a model whose input is real = scale * (value - zero)."""
        q = _rounded(features * _multiplier(scale), 16) + zero
        return np.clip(q, -128, 127).astype(np.int8)

    @functools.cached_property
    def window(self) -> Ints:
        """(frame,) Q15: periodic Hann."""
        w = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.frame) / self.frame)
        return _fixed(w, 32767)

    @functools.cached_property
    def twiddle(self) -> Ints:
        """(fft / 2, 2) Q15: cos and -sin."""
        angle = 2 * np.pi * np.arange(1 << self.log2_fft >> 1) / (1 << self.log2_fft)
        return _fixed(np.stack([np.cos(angle), -np.sin(angle)], 1), 32767)

    @functools.cached_property
    def bands(self) -> tuple[list[int], list[int], Ints]:
        """First bin and number of bins of each triangle, and all weights in Q8."""
        mel = np.linspace(_mel(self.low_hz), _mel(self.high_hz), self.mels + 2)
        edges = 700 * (10 ** (mel / 2595) - 1)
        hz = np.arange((1 << self.log2_fft >> 1) + 1) * self.rate_hz / (1 << self.log2_fft)
        first, count, weights = [], [], []
        for low, top, high in zip(edges, edges[1:], edges[2:]):
            up, down = (hz - low) / (top - low), (high - hz) / (high - top)
            w = _fixed(np.clip(np.minimum(up, down), 0, 1), 256)
            used = np.flatnonzero(w)
            if not len(used):  # narrower than a bin: the nearest one
                used = np.array([int(np.abs(hz - top).argmin())])
                w[used] = 256
            first.append(int(used[0]))
            count.append(len(used))
            weights.append(w[used])
        return first, count, np.concatenate(weights)

    @functools.cached_property
    def dct(self) -> Ints:
        """(coefficients, mels) Q14: orthonormal DCT-II."""
        k, m = np.mgrid[0 : self.coefficients, 0 : self.mels]
        d = np.sqrt(2 / self.mels) * np.cos(np.pi * k * (m + 0.5) / self.mels)
        d[0] /= np.sqrt(2)
        return _fixed(d, 16384)

    def header(self, name: str, scale: float, zero: int) -> str:
        """A C header: the tables, and `name` of type ek_mfcc for a model's input."""
        first, count, weight = self.bands
        tables: dict[str, tuple[str, npt.ArrayLike]] = {
            "window": ("int16_t", self.window),
            "twiddle": ("int16_t", self.twiddle),
            "first": ("uint16_t", first),
            "count": ("uint16_t", count),
            "weight": ("uint16_t", weight),
            "dct": ("int16_t", self.dct),
        }
        macros = {"FRAME": self.frame, "HOP": self.hop, "WORK": 2 << self.log2_fft}
        sizes = f"{self.frame}, {self.log2_fft}, {self.mels}, {self.coefficients}"
        lines = [f'/* {self}. Written by edgekit.mfcc. */\n#include "mfcc.h"']
        lines += [f"#define {name.upper()}_{k} {v}u" for k, v in macros.items()]
        for part, (kind, values) in tables.items():
            body = ", ".join(str(int(v)) for v in np.asarray(values).ravel())
            lines.append(f"static const {kind} {name}_{part}[] = {{ {body} }};")
        pointers = ", ".join(f"{name}_{part}" for part in tables)
        numbers = f"{sizes}, {_multiplier(scale)}, {zero}"
        lines.append(f"static const ek_mfcc {name} = {{ {numbers}, {pointers} }};\n")
        return "\n".join(lines)

    def _fft(self, re: Ints, im: Ints) -> tuple[Ints, Ints]:
        """Of (frames, n), butterfly by butterfly as C does."""
        bits = self.log2_fft
        n = 1 << bits
        order = [int(f"{i:0{bits}b}"[::-1], 2) for i in range(n)]
        re, im = re[:, order], im[:, order]
        half = 1
        while half < n:
            c, s = self.twiddle[:: n // 2 // half].T
            r, i = (v.reshape(len(v), -1, 2, half) for v in (re, im))
            tr = _rounded(r[:, :, 1] * c - i[:, :, 1] * s, 15)
            ti = _rounded(r[:, :, 1] * s + i[:, :, 1] * c, 15)
            re = np.stack([r[:, :, 0] + tr, r[:, :, 0] - tr], 2).reshape(len(re), n)
            im = np.stack([i[:, :, 0] + ti, i[:, :, 0] - ti], 2).reshape(len(im), n)
            half *= 2
        return re, im


def _log2_q8(v: Ints) -> Ints:
    """log2 with 8 fractional bits, rounded down; 0 for 0."""
    n = np.zeros_like(v)
    for step in (32, 16, 8, 4, 2, 1):
        n += np.where(v >> (n + step) > 0, step, 0)
    m = np.where(n > 15, v >> np.maximum(n - 15, 0), v << np.maximum(15 - n, 0))
    out = n
    for _ in range(8):
        m = m * m >> 15
        out = out << 1 | m >> 16
        m = m >> (m >> 16)
    return np.where(v > 0, out, 0)


def _rounded(v: Ints, shift: int) -> Ints:
    return (v + (1 << shift - 1)) >> shift


def _fixed(v: npt.NDArray[np.float64], one: int) -> Ints:
    return np.rint(v * one).astype(np.int64)


def _mel(hz: float) -> float:
    return float(2595 * np.log10(1 + hz / 700))


def _multiplier(scale: float) -> int:
    """2^16 times what a coefficient with 8 fractional bits is in steps of the model's input."""
    return round(65536 / (256 * scale))

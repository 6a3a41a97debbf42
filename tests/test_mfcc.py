"""The MFCC front end: C gives numpy's bits, and both are an MFCC."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, need_program

from edgekit.errors import UsageError
from edgekit.mfcc import Mfcc

AUDIO = ROOT / "native" / "audio"
CASES = [
    Mfcc(),
    Mfcc(rate_hz=16000, frame=480, hop=320, mels=40, low_hz=20, high_hz=4000),
    Mfcc(rate_hz=16000, frame=1024, hop=512, mels=32, coefficients=13, low_hz=40, high_hz=8000),
    Mfcc(rate_hz=8000, frame=17, hop=1, mels=4, coefficients=4, low_hz=200, high_hz=4000),
]
DRIVER = """
#include "front.h"
void clip(const int16_t *samples, int frames, int8_t *out);
void clip(const int16_t *samples, int frames, int8_t *out)
{
    static int32_t work[FRONT_WORK];
    for (int i = 0; i < frames; i++)
        ek_mfcc_frame(&front, samples + i * (int)FRONT_HOP, work, out + i * front.coefficients);
}
"""


def signals(n: int) -> list[np.ndarray]:
    """Noise of three levels, silence, the loudest square wave, one impulse, a tone."""
    rng, t = np.random.default_rng(1), np.arange(n)
    noise = [np.clip(rng.normal(size=n) * a, -32768, 32767) for a in (1, 300, 20000)]
    square = np.where(t // 7 % 2, 32767, -32768)
    found = [*noise, 0 * t, square, np.where(t == n // 2, -32768, 0), 30000 * np.sin(t / 5)]
    return [x.astype(np.int16) for x in found]


@pytest.mark.parametrize("front", CASES, ids=lambda f: f"{f.frame}")
def test_c_gives_the_bits_of_numpy(front: Mfcc, tmp_path: Path) -> None:
    need_program("gcc", "gcc")
    (tmp_path / "driver.c").write_text(DRIVER)
    scale, zero = 0.37, -5
    (tmp_path / "front.h").write_text(front.header("front", scale, zero))
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
    flags += ["-fsanitize=undefined", "-fno-sanitize-recover=all", "-shared", "-fPIC"]
    files = [str(tmp_path / "driver.c"), str(AUDIO / "mfcc.c"), f"-I{AUDIO}", f"-I{tmp_path}"]
    out = tmp_path / "driver.so"
    subprocess.run(["gcc", *flags, *files, "-lubsan", "-o", str(out)], check=True)
    library = ctypes.CDLL(str(out))
    for x in signals(front.frame + 9 * front.hop + 3):
        want = front.quantized(front(x), scale, zero)[:10]
        got = np.zeros((10, front.coefficients), np.int8)
        library.clip(x.ctypes.data_as(ctypes.c_void_p), 10, got.ctypes.data_as(ctypes.c_void_p))
        assert want.shape == got.shape and (want == got).all()


@pytest.mark.parametrize("front", CASES[:3], ids=lambda f: f"{f.frame}")
def test_it_is_an_mfcc(front: Mfcc) -> None:
    """Beside numpy's FFT in double; coefficients are of the order of 1 to 100."""
    for x in signals(front.frame + 9 * front.hop)[1:3]:
        at = np.arange(10)[:, None] * front.hop + np.arange(front.frame)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(front.frame) / front.frame)
        power = np.abs(np.fft.rfft(x[at] * hann, 1 << front.log2_fft)) ** 2
        first, count, weight = front.bands
        parts = np.split(weight, np.cumsum(count)[:-1])
        bands = [power[:, b : b + k] @ w for b, k, w in zip(first, count, parts)]
        k, m = np.mgrid[0 : front.coefficients, 0 : front.mels]
        dct = np.sqrt((2 - (k == 0)) / front.mels) * np.cos(np.pi * k * (m + 0.5) / front.mels)
        want = np.log2(16 * np.stack(bands, 1)) @ dct.T
        assert np.abs(front(x) / 256 - want).max() < 0.05


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"frame": 2048}, "16 to 1024"),
        ({"coefficients": 21}, "mel bands"),
        ({"high_hz": 5000.0}, "half the sample rate"),
        ({"mels": 64, "frame": 64, "low_hz": 1.0}, "narrower than a bin"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Mfcc(**options)  # type: ignore[arg-type]

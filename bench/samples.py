"""Real inputs for the models outside the repository, as floats in the model's own domain."""

from __future__ import annotations

import functools
import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from figures import SETS, Skip

Array = npt.NDArray[Any]
F = np.float32
KWS_SCALE, KWS_ZERO = 0.58470290, 83  # of the int8 model's input: the set is stored in it
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _file(name: str) -> Path:
    path = SETS / name
    if not path.is_file():
        raise Skip(f"{path} is absent")
    return path


@functools.cache
def npz(name: str) -> dict[str, Array]:
    """Arrays of a set."""
    with np.load(_file(name)) as z:
        return {k: z[k] for k in z.files}


@functools.cache
def kws() -> tuple[Array, Array]:
    """(500, 49, 10, 1) float32 MFCC, labels (500,)."""
    z = npz("kws_mfcc.npz")
    return (z["x"].astype(F) - KWS_ZERO) * F(KWS_SCALE), z["y"]


@functools.cache
def jpeg_cifar(which: str, count: int | None = None) -> tuple[Array, Array]:
    """(n, 32, 32, 3) uint8 of the "train" or "test" set, labels (n,)."""
    from PIL import Image

    z = npz(f"cifar10_jpeg_{which}.npz")
    at, n = z["offset"], count or len(z["y"])
    images = [
        np.asarray(Image.open(io.BytesIO(z["jpeg"][at[i] : at[i + 1]].tobytes())).convert("RGB"))
        for i in range(n)
    ]
    return np.stack(images), z["y"][:n]


@functools.cache
def imagenet(count: int = 500) -> tuple[Array, Array]:
    """(n, 224, 224, 3) uint8: the middle 7/8 of 256 x 256 images; labels 0..999 (n,)."""
    from PIL import Image

    images, labels = [], []
    with tarfile.open(_file("imagenet_even500.tar")) as tar:
        names = sorted(n for n in tar.getnames() if n.endswith(".jpg"))
        for name in [names[i] for i in np.linspace(0, len(names) - 1, count).astype(int)]:
            member = tar.extractfile(name)
            assert member is not None
            image = np.asarray(Image.open(io.BytesIO(member.read())).convert("RGB"))
            images.append(image[16:240, 16:240])
            labels.append(int(Path(name).name.split("_")[0]))
    return np.stack(images), np.asarray(labels)


def crops(first: Array, count: int, side: int, seed: int = 0) -> Array:
    """(count, side, side, 3) uint8, mirrored or not, for a net to be like its float self on; half
    are parts of photographs of objects (`first`, (n, h, w, 3)), a quarter each of other ones (VWW)
    and of CIFAR's training images, and half are blended with another."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    other, small = npz("vww_rgb96.npz")["x"], jpeg_cifar("train")[0]
    sets = [(first, 0.25), (first, 0.25), (other, 0.4), (small, 0.7)]  # and least areas
    out = np.empty((count, side, side, 3), np.uint8)
    for k in range(count):
        images, least = sets[k % len(sets)]
        image = images[rng.integers(len(images))]
        h, w = image.shape[:2]
        area, wide = rng.uniform(least, 1), np.exp(rng.uniform(-0.29, 0.29))
        rows, columns = min(1.0, (area / wide) ** 0.5) * h, min(1.0, (area * wide) ** 0.5) * w
        y, x = rng.uniform(0, h - rows), rng.uniform(0, w - columns)
        part = Image.fromarray(image).resize(
            (side, side), Image.Resampling.BILINEAR, (x, y, x + columns, y + rows)
        )
        out[k] = np.asarray(part)[:, :: rng.choice([1, -1])]
    share = np.where(rng.random(count) < 0.5, rng.uniform(0, 0.5, count), 0.0)
    for k, second in enumerate(rng.permutation(count)):
        if share[k]:
            out[k] = (1 - share[k]) * out[k] + share[k] * out[second]
    return out


def ad_windows(count: int, *, label: int | None = None) -> Array:
    """(n, 640) windows spread over the files (of one label)."""
    z = npz("ad_spectra.npz")
    rows = z["x"] if label is None else z["x"][z["y"] == label]
    rng = np.random.default_rng(0)
    starts = 128 * rng.integers(0, (rows.shape[1] - 640) // 128 + 1, count)
    return np.stack([rows[i % len(rows)][s : s + 640] for i, s in enumerate(starts)])


def mnist(count: int) -> Array:
    """(n, 28, 28) in 0..1."""
    raw = gzip.decompress(_file("t10k-images-idx3-ubyte.gz").read_bytes())
    return np.frombuffer(raw, np.uint8, count * 784, 16).reshape(-1, 28, 28).astype(F) / F(255)


def resized(images: Array, height: int, width: int) -> Array:
    """(n, h, w, 3) float32, bilinear as the runtime's preprocessing does it."""
    from edgekit_runtime.preprocess import resize

    return np.stack([resize(i, height, width) for i in images])


def of(model: str, shape: tuple[int, ...], count: int) -> tuple[Array, str]:
    """(`count` inputs in the model's domain, each of `shape`; what they are)."""
    size = shape[1:3]
    if model.startswith("kws"):
        x, what = kws()[0][:count], "MLPerf Tiny MFCCs"
    elif model.startswith("ad01"):
        x, what = ad_windows(count), "MLPerf Tiny machine sounds"
    elif model.startswith("pretrainedResnet"):
        x, what = npz("cifar10_lossless.npz")["x"][:count].astype(F), "CIFAR-10"
    elif model.startswith("vww"):
        x, what = npz("vww_rgb96.npz")["x"][:count].astype(F) / F(255), "visual wake words"
    elif model.startswith("resnet"):
        images = jpeg_cifar("test", count)[0].astype(F) / F(255)
        x = ((images - F(IMAGENET_MEAN)) / F(IMAGENET_STD)).transpose(0, 3, 1, 2)
        what = "CIFAR-10, JPEG"
    elif model.startswith("mnist"):
        x, what = mnist(count), "MNIST"
    elif model.startswith("squeezenet"):
        images = resized(imagenet(count)[0], 227, 227)[..., ::-1] - F((104, 117, 123))
        x, what = images.transpose(0, 3, 1, 2), "ImageNet"
    elif model.startswith("version-RFB"):
        images = (resized(imagenet(count)[0], 240, 320) - F(127)) / F(128)
        x, what = images.transpose(0, 3, 1, 2), "ImageNet"
    elif "mobilenet" in model or model.startswith(("mbnet", "efficientnet")):
        images = resized(imagenet(count)[0], *size)
        zero_one = model == "mbnet128_0.25_q.tflite"
        x = images / F(255) if zero_one else images / F(127.5) - 1
        what = "ImageNet"
    else:
        x = np.random.default_rng(0).uniform(0, 1, (count, *shape[1:])).astype(F)
        what = "random, no set is at hand"
    return np.ascontiguousarray(x.reshape(len(x), *shape), F), what

"""Data sets for calibration and accuracy: .npz, .npy, or a folder of images; labels where there are
any.

Preprocessing is `edgekit_runtime.preprocess.apply`, the very code that runs on a device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from edgekit_runtime.preprocess import apply
from edgekit_runtime.session import TensorInfo

from edgekit.errors import DataError
from edgekit.ir import Array, Graph

T = TypeVar("T")
IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp"}


@dataclass(frozen=True)
class Dataset:
    """Raw samples: `arrays` input name ("x" = the only input) -> (n, ...) or list of arrays; labels
    (n,) or None."""

    source: str
    arrays: dict[str, Any]
    labels: Array | None = None
    groups: Array | None = None  # index of the file a sample came from
    extra: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def take(self, indices: npt.NDArray[np.intp]) -> Dataset:
        """The samples at those indices."""

        def pick(a: Any) -> Any:
            return [a[i] for i in indices] if isinstance(a, list) else a[indices]

        return Dataset(
            self.source,
            {k: pick(a) for k, a in self.arrays.items()},
            None if self.labels is None else self.labels[indices],
            None if self.groups is None else self.groups[indices],
            self.extra,
        )


def load(source: str | Path | dict[str, Any] | Array) -> Dataset:
    """Reads a data set.

    .npz: one array per input name (or `x`) plus optional labels `y`.  .npy: inputs only.  Folder:
    images, or a folder per class (labels = order of the sorted class names).  A dict or array is
    taken as it is.
    DataError says what is wrong with the file.
    """
    if isinstance(source, np.ndarray):
        return Dataset("array", {"x": source})
    if isinstance(source, dict):
        arrays = dict(source)
        labels = arrays.pop("y", None)
        return _checked(Dataset("arrays", arrays, labels))
    path = Path(source)
    if not path.exists():
        raise DataError(
            "no such file or folder", where=str(path), todo="check the path of the data set"
        )
    if path.is_dir():
        return _folder(path)
    try:
        if path.suffix == ".npy":
            return _checked(Dataset(str(path), {"x": np.load(path, allow_pickle=False)}))
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as z:
                arrays = {k: z[k] for k in z.files}
            labels = arrays.pop("y", None)
            return _checked(Dataset(str(path), arrays, labels))
    except DataError:
        raise
    except Exception as e:  # numpy, zipfile and pickle have error trees of their own
        raise DataError(
            f"cannot be read: {e}", where=str(path), todo="write it with numpy.savez"
        ) from None
    raise DataError(
        f"unknown kind of data set {path.suffix!r}",
        where=str(path),
        todo="give .npz, .npy or a folder",
    )


def _checked(d: Dataset) -> Dataset:
    """Sets text and single numbers aside as `extra`, `group` as groups; DataError unless the rest
    is one row each."""
    arrays = {
        k: a
        for k, a in d.arrays.items()
        if isinstance(a, list) or (np.ndim(a) and np.asarray(a).dtype.kind in "biuf")
    }
    groups = arrays.pop("group", None)
    extra = {k: a for k, a in d.arrays.items() if k not in arrays and k != "group"}
    d = Dataset(d.source, arrays, d.labels, groups, {**d.extra, **extra})
    if not d.arrays:
        raise DataError(
            "holds no input array",
            where=d.source,
            todo="name the array `x` or after the model's input",
        )
    sizes = {k: len(a) if np.ndim(a) or isinstance(a, list) else -1 for k, a in d.arrays.items()}
    n = next(iter(sizes.values()))
    if d.labels is not None:
        sizes["y"] = len(d.labels) if np.ndim(d.labels) else -1
    if n == 0:
        raise DataError("holds no samples", where=d.source)
    if n < 0 or any(s != n for s in sizes.values()):
        raise DataError(f"arrays differ in their first dimension: {sizes}", where=d.source)
    return d


def _folder(path: Path) -> Dataset:
    from PIL import Image

    classes = sorted(p for p in path.iterdir() if p.is_dir())
    files: list[tuple[Path, int]] = []
    if classes:
        for i, c in enumerate(classes):
            files += [(p, i) for p in sorted(c.iterdir()) if p.suffix.lower() in IMAGES]
    else:
        files = [(p, -1) for p in sorted(path.iterdir()) if p.suffix.lower() in IMAGES]
    if not files:
        raise DataError(
            "no images in this folder",
            where=str(path),
            todo="give .jpg or .png files, or a folder per class",
        )
    images = []
    for p, _ in files:
        try:
            with Image.open(p) as im:
                images.append(np.asarray(im.convert("RGB")))
        except OSError as e:
            raise DataError(f"cannot be read: {e}", where=str(p)) from None
    labels = np.asarray([i for _, i in files]) if classes else None
    arrays: Any = np.stack(images) if len({i.shape for i in images}) == 1 else images
    return Dataset(str(path), {"x": arrays}, labels, extra={"classes": [c.name for c in classes]})


def input_infos(g: Graph) -> list[TensorInfo]:
    """The graph's inputs as the runtime describes them."""
    from edgekit.ir import NUMPY

    out = []
    for name in g.inputs:
        t = g.tensors[name]
        scale = float(t.quant.scale) if t.quant else 0.0
        zero = int(t.quant.zero) if t.quant else 0
        out.append(TensorInfo(name, t.shape, np.dtype(NUMPY[t.dtype]), scale, zero))
    return out


def feed(d: Dataset, infos: list[TensorInfo], spec: dict[str, Any]) -> Iterator[dict[str, Array]]:
    """One dict of prepared inputs per sample.  DataError where names or shapes do not match the
    model's."""
    names = {i.name: i.name for i in infos}
    if set(d.arrays) != set(names):
        if len(infos) == 1 and "x" in d.arrays:
            names = {infos[0].name: "x"}
        else:
            raise DataError(
                f"arrays {sorted(d.arrays)} do not match the model's inputs {sorted(names)}",
                where=d.source,
                todo="name one array per input (or `x` for a single one)",
            )
    for i in range(len(d)):
        sample = {}
        for info in infos:
            x = apply(np.asarray(d.arrays[names[info.name]][i]), info, spec)
            if x.shape != info.shape and x.size == int(np.prod(info.shape)):
                if turned(x.shape, info.shape):
                    raise DataError(
                        f"sample {i} is {list(x.shape)}, input {info.name!r} wants "
                        f"{list(info.shape)}: the same axes in another order",
                        where=d.source,
                        todo="transpose the data, or say --layout nchw for images (h, w, c)",
                    )
                x = x.reshape(info.shape)
            if x.shape != info.shape or x.dtype != info.dtype:
                raise DataError(
                    f"sample {i} is {x.dtype}{list(x.shape)} after preprocessing, "
                    f"input {info.name!r} wants {info.dtype}{list(info.shape)}",
                    where=d.source,
                    todo="check --resize, --scale, --mean, --std",
                )
            if x.dtype.kind == "f" and not np.isfinite(x).all():
                raise DataError(
                    f"sample {i} holds values that are not finite after preprocessing",
                    where=d.source,
                    todo="check the data and --std",
                )
            sample[info.name] = np.ascontiguousarray(x)
        yield sample


def turned(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether shapes hold the same axes, but for ones, in another order."""
    x, y = ([n for n in s if n != 1] for s in (a, b))
    return x != y and sorted(x) == sorted(y)


def classes(d: Dataset, offset: int = 0, outputs: int | None = None) -> Array | None:
    """Class (n,) of every sample, `offset` added; None without labels.  DataError where `y` is not
    one whole number per sample, or not one of a model with so many outputs (of one output: 2)."""
    if d.labels is None:
        return None
    y = np.asarray(d.labels)
    if y.ndim != 1 or y.dtype.kind not in "biuf" or not np.array_equal(y, np.rint(y)):
        raise DataError(
            f"labels `y` are {y.dtype}{list(y.shape)}, not one whole number per sample",
            where=d.source,
            todo="y[i] is the index of the class of sample i",
        )
    y = y.astype(np.int64) + offset
    if outputs is not None and not 0 <= y.min() <= y.max() < max(2, outputs):
        raise DataError(
            f"labels `y` go from {y.min()} to {y.max()}, the model's classes to "
            f"{max(2, outputs) - 1}",
            where=d.source,
            todo="give the labels this model was trained with, or --label-offset",
        )
    return y


def spread(n: int, count: int, seed: int = 0) -> npt.NDArray[np.intp]:
    """`count` indices out of n, without repetition, the same for the same seed."""
    if count >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, count, replace=False))


def some(samples: Sequence[T], count: int) -> list[T]:
    """`count` samples spread over all: the first ones of a sorted set are of one class."""
    return [samples[i] for i in spread(len(samples), count)]

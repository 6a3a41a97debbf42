"""Applies the preprocessing a package carries in its metadata to raw inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from edgekit_runtime.session import TensorInfo

Array = npt.NDArray[Any]


def resize(x: Array, height: int, width: int) -> Array:
    """(h, w, c) -> (height, width, c), bilinear with half-pixel centres, in float32."""

    def axis(n: int, m: int) -> tuple[Array, Array, Array]:
        at = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
        lo = np.floor(at).astype(np.int64)
        return lo, np.minimum(lo + 1, n - 1), (at - lo).astype(np.float32)

    y0, y1, fy = axis(x.shape[0], height)
    x0, x1, fx = axis(x.shape[1], width)
    f = x.astype(np.float32)
    rows = f[y0] * (1 - fy)[:, None, None] + f[y1] * fy[:, None, None]
    return np.asarray(rows[:, x0] * (1 - fx)[None, :, None] + rows[:, x1] * fx[None, :, None])


def apply(value: Array, info: TensorInfo, spec: dict[str, Any]) -> Array:
    """Raw array -> what the input wants: resize, (x * scale - mean) / std, layout, quantization.

    spec keys (all optional): resize [h, w]; scale; mean, std (number or per channel); layout
    "nchw".
    A missing batch dimension of 1 is added.
    """
    x = np.asarray(value)
    nchw = spec.get("layout") == "nchw"
    if spec.get("resize") and x.ndim >= 3:
        h, w = spec["resize"]
        images = x.reshape(-1, *x.shape[-3:])
        if images.shape[1:3] != (h, w):
            x = np.stack([resize(i, h, w) for i in images])
    if {"scale", "mean", "std"} & set(spec):
        mean = np.asarray(spec.get("mean", 0.0), np.float32)
        std = np.asarray(spec.get("std", 1.0), np.float32)
        x = ((x.astype(np.float32) * np.float32(spec.get("scale", 1.0)) - mean) / std).astype(
            np.float32
        )
    if x.ndim == len(info.shape) - 1:
        x = x[None]
    if nchw and x.ndim == 4:
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    if info.scale and x.dtype == np.float32:
        bounds = np.iinfo(info.dtype)
        x = np.clip(np.rint(x / np.float32(info.scale)) + info.zero, bounds.min, bounds.max).astype(
            info.dtype
        )
    return x.astype(info.dtype) if x.dtype != info.dtype and not info.scale else x

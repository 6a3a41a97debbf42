"""Largest element of each window, NHWC.  Padding never wins; int8 input and output share scale
and zero point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor
from edgekit.ops.base import (
    Field,
    OpDef,
    TensorType,
    conv_out,
    need,
    onnx,
    sample_array,
    sample_graph,
    tflite,
)
from edgekit.ops.conv2d import WINDOW, windows

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x, a = need(xs, 0, "input"), op.attrs
    n, h, w, c = x.shape
    (kh, kw), (sh, sw), (dh, dw), (t, left, b, r) = (
        a[k] for k in ("kernel", "stride", "dilation", "pad")
    )
    return [((n, conv_out(h, kh, sh, dh, t, b), conv_out(w, kw, sw, dw, left, r), c), x.dtype)]


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    x = xs[0]
    assert x is not None
    _, oh, ow, _ = g.tensors[op.outputs[0]].shape
    lowest = -np.inf if x.dtype == np.float32 else -128
    kh, kw = op.attrs["kernel"]
    return [windows(x, op, kh, kw, lowest, oh, ow).max(axis=(3, 4))]


CASES: tuple[tuple[str, tuple[int, ...], dict[str, Any]], ...] = (
    ("2x2", (1, 8, 6, 8), {"kernel": (2, 2), "stride": (2, 2)}),
    ("3x3_same", (2, 7, 9, 13), {"kernel": (3, 3), "pad": (1, 1, 1, 1)}),
    ("3x3_stride2", (1, 11, 12, 33), {"kernel": (3, 3), "stride": (2, 2), "pad": (0, 0, 1, 1)}),
    ("global", (1, 5, 4, 70), {"kernel": (5, 4)}),
    ("one_row", (2, 1, 40, 3), {"kernel": (1, 4), "stride": (1, 3)}),
    ("dilated", (1, 9, 10, 4), {"kernel": (2, 3), "dilation": (3, 2), "pad": (2, 1, 1, 2)}),
    ("empty_window", (1, 2, 2, 5), {"kernel": (2, 2), "stride": (2, 2), "pad": (3, 3, 3, 3)}),
)


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(9)
    for dtype in ("f32", "i8"):
        for label, dims, attrs in CASES:
            q = QuantSpec.per_tensor(0.1, 3) if dtype == "i8" else None
            g = sample_graph(
                "max_pool2d", {"x": Tensor("x", dims, dtype, None, q)}, attrs, out_quant=q
            )
            yield f"{dtype}_{label}", g, {"x": sample_array(rng, dims, dtype)}


OP = OpDef(
    name="max_pool2d",
    code=9,
    fields=(*WINDOW, Field("kernel", "u16", 2, None, "rows, columns")),
    shape=shape,
    reference=reference,
    samples=samples,
    exact=lambda op, g: True,
    int8=lambda op: "same",
)


def ceil_pad(attrs: dict[str, Any], size: Sequence[int]) -> dict[str, Any]:
    """Pads rows and columns at the end so that the last, partial window counts (ceil_mode).

    A window that would begin in the padding at the end is dropped, as torch and onnxruntime do.
    """
    pad = list(attrs["pad"])
    for i in range(2):
        n, k, s = (
            size[i] + pad[i],
            (attrs["kernel"][i] - 1) * attrs["dilation"][i] + 1,
            attrs["stride"][i],
        )
        out = -(-(n + pad[i + 2] - k) // s) + 1
        if (out - 1) * s >= n:
            out -= 1
        pad[i + 2] = max((out - 1) * s + k - n, 0)
    return dict(attrs, pad=tuple(pad))


@onnx("MaxPool")
def import_onnx(
    imp: Importer,
    x: str,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] = (),
    pads: Sequence[int] = (),
    storage_order: int = 0,
    strides: Sequence[int] = (),
) -> str:
    if imp.dtype(x) not in ("f32", "i8"):
        raise ModelError(f"MaxPool of {imp.dtype(x)} is not supported")
    rank, nhwc = imp.rank(x), imp.nhwc(x)
    kernel = (1, kernel_shape[0]) if len(kernel_shape) == 1 else tuple(kernel_shape)
    size = imp.shape(nhwc)[1:3]
    attrs = dict(imp.window(kernel, size, strides, dilations, pads, auto_pad), kernel=kernel)
    attrs = ceil_pad(attrs, size) if ceil_mode else attrs
    return imp.nchw(imp.emit("max_pool2d", [nhwc], attrs), rank)


@tflite("MAX_POOL_2D")
def tflite_max_pool2d(
    imp: Any, x: str, *, padding: int = 0, stride_h: int = 1, stride_w: int = 1,
    filter_height: int = 1, filter_width: int = 1, fused_activation_function: int = 0,
) -> str:  # fmt: skip
    x = imp.requantized(x, imp.out()[1])
    kernel, stride = (filter_height, filter_width), (stride_h, stride_w)
    attrs = {
        "kernel": kernel,
        "stride": stride,
        "pad": imp.padding(padding, imp.dims(x)[1:3], kernel, stride),
    }
    return str(imp.clamped("max_pool2d", [x], attrs, fused_activation_function))

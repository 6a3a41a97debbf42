"""Images (n, h, w, c) to `size`, nearest or bilinear; int8 input and output share scale and zero
point.

Coordinates follow ONNX Resize: `coordinates` is its coordinate_transformation_mode, `nearest` its
nearest_mode, `scale` its scales (0: output / input).  TFLite: align_corners is "align_corners"
(nearest: with round_prefer_ceil), half_pixel_centers is "half_pixel" (nearest:
"tf_half_pixel_for_nn" with floor), neither is "asymmetric" with floor. The host computes the
coordinates, in float32 as onnxruntime does, and C reads a table of indices and fractions. int8
bilinear, exact: fractions of 2048, integer weights, sum of four products rounded half up by a shift
of 22.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor
from edgekit.layout import Target
from edgekit.ops.base import (
    Field,
    OpDef,
    TensorType,
    need,
    onnx,
    sample_array,
    sample_graph,
    tflite,
)

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer

COORDINATES = (
    "half_pixel",
    "asymmetric",
    "align_corners",
    "pytorch_half_pixel",
    "tf_half_pixel_for_nn",
)
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
F = np.float32


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x, (oh, ow) = need(xs, 0, "input"), op.attrs["size"]
    if len(x.shape) != 4 or oh < 1 or ow < 1:
        raise ModelError(f"resize of {x.shape} to {oh} x {ow}")
    if op.attrs["mode"] == "bilinear" and x.dtype not in ("f32", "i8"):
        raise ModelError(f"bilinear resize of {x.dtype} is not supported")
    return [((x.shape[0], oh, ow, x.shape[3]), x.dtype)]


def places(n: int, out: int, scale: float, coordinates: str) -> Array:
    """Coordinate in an axis of n of each of `out` outputs: float32 (out,).

    Steps are float32 and in the order of the source: onnxruntime divides by the given scale, TFLite
    and torch multiply by n / out.
    """
    i = np.arange(out, dtype=F)
    if n == out and scale in (0, 1):
        return i

    def at(place: Array) -> Array:
        return np.asarray(place / F(scale) if scale else place * F(n / out), F)

    match coordinates:
        case "asymmetric":
            return at(i)
        case "align_corners":
            return i * F(n - 1) / F(out - 1) if out > 1 else i
        case "tf_half_pixel_for_nn":
            return at(i + F(0.5))
        case "pytorch_half_pixel" if out <= 1:
            return np.zeros_like(i)
        case "half_pixel" | "pytorch_half_pixel":
            return at(i + F(0.5)) - F(0.5)
    raise ModelError(f"resize with the coordinates {coordinates!r} is not supported")


def nearest_index(n: int, out: int, scale: float, coordinates: str, rounding: str) -> Array:
    """Source index of each output: int64 (out,)."""
    at = places(n, out, scale, coordinates)
    near = at * F(1e-6)  # a tie that float32 missed by an ulp or two is one for onnxruntime
    match rounding:
        case "round_prefer_floor":
            at = np.ceil(at - F(0.5) - near)
        case "round_prefer_ceil":
            at = np.floor(at + F(0.5) + near)
        case "floor":
            at = np.floor(at)
        case "ceil":
            at = np.ceil(at)
    return np.asarray(np.clip(at, 0, n - 1), np.int64)


def linear_index(n: int, out: int, scale: float, coordinates: str) -> tuple[Array, Array]:
    """Lower source index (out,) int64 and fraction (out,) float32 of each output."""
    at = np.clip(places(n, out, scale, coordinates), F(0), F(n - 1))
    low = np.floor(at)
    return low.astype(np.int64), (at - low).astype(F)


def lines(op: Op, x: Sequence[int]) -> list[tuple[int, int, float, str]]:
    """Length, outputs, scale and coordinates of both axes."""
    a = op.attrs
    return [(x[1 + k], a["size"][k], a["scale"][k], a["coordinates"]) for k in (0, 1)]


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    x = xs[0]
    assert x is not None
    axes = lines(op, x.shape)
    if op.attrs["mode"] == "nearest":
        rows, cols = (nearest_index(*line, op.attrs["nearest"]) for line in axes)
        return [np.ascontiguousarray(x[:, rows][:, :, cols])]
    (r0, fr), (c0, fc) = (linear_index(*line) for line in axes)
    r1, c1 = np.minimum(r0 + 1, x.shape[1] - 1), np.minimum(c0 + 1, x.shape[2] - 1)
    if x.dtype == np.float32:
        fr, fc = fr[:, None, None], fc[:, None]
        top = x[:, r0][:, :, c0] * (1 - fc) + x[:, r0][:, :, c1] * fc
        low = x[:, r1][:, :, c0] * (1 - fc) + x[:, r1][:, :, c1] * fc
        return [(top * (1 - fr) + low * fr).astype(F)]
    wr, wc = weights(fr)[:, None, None], weights(fc)[:, None]
    wide = x.astype(np.int64)
    top = wide[:, r0][:, :, c0] * (2048 - wc) + wide[:, r0][:, :, c1] * wc
    low = wide[:, r1][:, :, c0] * (2048 - wc) + wide[:, r1][:, :, c1] * wc
    return [((top * (2048 - wr) + low * wr + (1 << 21)) >> 22).astype(np.int8)]


def weights(fraction: Array) -> Array:
    """Fractions as whole numbers of 1/2048, half to even: int64."""
    return np.rint(fraction * F(2048)).astype(np.int64)


def lower(op: Op, g: Graph, target: Target) -> Op:
    x = g.tensors[op.inputs[0]]
    axes = lines(op, x.shape)
    if op.attrs["mode"] == "nearest":
        parts = [nearest_index(*line, op.attrs["nearest"]) for line in axes]
    else:
        pairs = [linear_index(*line) for line in axes]
        parts = [low for low, _ in pairs]
        parts += [f.view(np.int32) if x.dtype == "f32" else weights(f) for _, f in pairs]
    table = g.const(op.name + ".table", np.concatenate(parts).astype(np.int32))
    return op.with_(inputs=(op.inputs[0], table))


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(19)
    cases: tuple[tuple[tuple[int, ...], tuple[int, int]], ...] = (
        ((1, 4, 5, 8), (8, 10)),
        ((2, 3, 7, 5), (7, 4)),
        ((1, 9, 9, 3), (5, 13)),
        ((1, 1, 1, 33), (3, 2)),
        ((1, 6, 8, 16), (1, 1)),
    )
    for dims, size in cases:
        for coordinates in COORDINATES:
            for dtype in ("f32", "i8", "i16", "i64"):
                q = QuantSpec.per_tensor(0.1, 3) if dtype == "i8" else None
                tensors = {"x": Tensor("x", dims, dtype, None, q)}
                attrs = {"size": size, "coordinates": coordinates}
                label = f"{dims[1]}x{dims[2]}_{size[0]}x{size[1]}_{coordinates}"
                for rounding in NEAREST if coordinates == "half_pixel" else ("floor",):
                    g = sample_graph(
                        "resize",
                        tensors,
                        attrs | {"mode": "nearest", "nearest": rounding},
                        out_quant=q,
                    )
                    yield (
                        f"{dtype}_nearest_{label}_{rounding}",
                        g,
                        {"x": sample_array(rng, dims, dtype)},
                    )
                if dtype in ("f32", "i8"):
                    g = sample_graph("resize", tensors, attrs | {"mode": "bilinear"}, out_quant=q)
                    yield f"{dtype}_bilinear_{label}", g, {"x": sample_array(rng, dims, dtype)}


OP = OpDef(
    name="resize",
    code=19,
    fields=(
        Field("mode", "u32", 1, None, "", choices=("nearest", "bilinear")),
        Field(
            "size",
            "u32",
            2,
            None,
            "rows, columns of the output; C reads the tensor's own",
            host=True,
        ),
        Field(
            "scale",
            "f32",
            2,
            (0.0, 0.0),
            "rows, columns: output per input; 0: of the sizes",
            host=True,
        ),
        Field("coordinates", "u32", 1, "half_pixel", "", choices=COORDINATES, host=True),
        Field("nearest", "u32", 1, "round_prefer_floor", "", choices=NEAREST, host=True),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    lower=lower,
    exact=lambda op, g: g.tensors[op.inputs[0]].dtype != "f32" or op.attrs["mode"] == "nearest",
    int8=lambda op: "same0",
)


@onnx("Resize", "Upsample")
def import_onnx(
    imp: Importer,
    x: str,
    roi: str = "",
    scales: str = "",
    sizes: str = "",
    *,
    antialias: int = 0,
    axes: Sequence[int] = (),
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> str:
    """Rows and columns only, of (n, c, h, w), (n, c, l) or (n, h, w, c)."""
    old, rank = imp.shape(x), imp.rank(x)
    if imp.opset < 11:  # Upsample(x, scales) and the first Resize(x, scales)
        roi, scales, coordinate_transformation_mode, nearest_mode = "", roi, "asymmetric", "floor"
    if mode not in ("nearest", "linear") or keep_aspect_ratio_policy != "stretch":
        raise ModelError(
            f"Resize: mode {mode!r} with {keep_aspect_ratio_policy!r} is not supported"
        )
    at = [a % rank for a in axes] or list(range(rank))
    if coordinate_transformation_mode not in COORDINATES:
        raise ModelError(
            f"Resize: coordinates {coordinate_transformation_mode!r} are not supported"
        )
    size, scale = list(old), [1.0] * rank
    if sizes:
        for a, n in zip(at, imp.ints(sizes, "sizes")):
            size[a], scale[a] = n, n / old[a]
    else:
        for a, f in zip(at, imp.const(scales, "scales").astype(np.float64).ravel()):
            size[a], scale[a] = math.floor(old[a] * f + 1e-6), float(f)
    moved = [i for i in range(rank) if size[i] != old[i]]
    if antialias and mode == "linear" and any(size[i] < old[i] for i in moved):
        raise ModelError("Resize: antialias is not supported")
    attrs = {"mode": "nearest" if mode == "nearest" else "bilinear", "nearest": nearest_mode,
             "coordinates": coordinate_transformation_mode}  # fmt: skip
    if set(moved) <= {1, 2} and rank == 4 and moved and moved != [2]:
        return imp.emit("resize", [x], dict(attrs, size=tuple(size[1:3]), scale=tuple(scale[1:3])))
    if not set(moved) <= {2, 3} or rank not in (3, 4):
        raise ModelError(
            f"Resize of {old} to {tuple(size)} is not supported: rows and columns only"
        )
    two = {"size": tuple([1, *size[2:]][-2:]), "scale": tuple([1.0, *scale[2:]][-2:])}
    return imp.nchw(imp.emit("resize", [imp.nhwc(x)], {**attrs, **two}), rank)


def _import(imp: Any, x: str, size: str, attrs: dict[str, Any]) -> str:
    x = imp.requantized(x, imp.out()[1])
    to = tuple(imp.ints(size, "the size of a resize"))
    return str(imp.emit("resize", [x], {"size": to, **attrs}))


@tflite("RESIZE_BILINEAR")
def tflite_resize_bilinear(
    imp: Any, x: str, size: str, *, align_corners: bool = False, half_pixel_centers: bool = False
) -> str:
    where = (
        "align_corners" if align_corners else "half_pixel" if half_pixel_centers else "asymmetric"
    )
    return _import(imp, x, size, {"mode": "bilinear", "coordinates": where})


@tflite("RESIZE_NEAREST_NEIGHBOR")
def tflite_resize_nearest(
    imp: Any, x: str, size: str, *, align_corners: bool = False, half_pixel_centers: bool = False
) -> str:
    where = (
        "align_corners"
        if align_corners
        else "tf_half_pixel_for_nn"
        if half_pixel_centers
        else "asymmetric"
    )
    rounding = "round_prefer_ceil" if align_corners else "floor"
    return _import(imp, x, size, {"mode": "nearest", "coordinates": where, "nearest": rounding})

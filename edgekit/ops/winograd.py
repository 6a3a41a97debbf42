"""3x3 float32 convolution of stride 1 by Winograd's minimal filtering F(4x4, 3x3): a quarter of the
multiplications for four times the weights.  `passes.lower` puts it in conv2d's place where it pays.

Points 0, +-3/4, +-3/2 and infinity, which err a quarter as much as 0, +-1, +-2 (Lavin and Gray,
arXiv 1509.09308; on the points: Barabasz et al., arXiv 1803.10986).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgekit.ir import Array, Graph, Op, Tensor
from edgekit.layout import Target
from edgekit.ops import conv2d
from edgekit.ops.base import Field, OpDef, TensorType, sample_graph

POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)  # and infinity: twin of native/src/winograd_points.h
PANEL, ALIGN, SKEW = 64, 64, 16  # twins of native/ops/winograd.c
SCRATCH = 600_000  # bytes of transformed tiles: stays in a core's second cache
TILES = (8, 128)  # of a block, at least and at most
LEAST = 8  # channels in and out, below which transforms cost more than they save
PIXELS = 64  # of the output, below which the larger weights cost more to read than they save
FIXED = {"stride": (1, 1), "dilation": (1, 1), "groups": 1, "kernel": None, "run": None}


def as_conv(op: Op) -> Op:
    """The convolution that it computes."""
    return op.with_(type="conv2d", attrs={**FIXED, "w_zero": None, **op.attrs})


def pays(op: Op, g: Graph, target: Target) -> bool:
    """Whether a conv2d should run this way on that target."""
    if op.type != "conv2d" or not target.winograd() or g.tensors[op.inputs[0]].dtype != "f32":
        return False
    w, y = g.tensors[op.inputs[1]], g.tensors[op.outputs[0]]
    a = op.attrs
    fits = w.shape[1:3] == (3, 3) and a["groups"] == 1 and w.dtype == "f32"
    fits = fits and tuple(a["stride"]) == tuple(a["dilation"]) == (1, 1)
    enough = min(w.shape[0], w.shape[3]) >= LEAST and y.shape[0] * y.shape[1] * y.shape[2] >= PIXELS
    return fits and enough


def instead(op: Op) -> Op:
    """A conv2d as this op."""
    return op.with_(type="winograd", attrs={k: op.attrs[k] for k in ("pad", "lo", "hi")})


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    return conv2d.shape(as_conv(op), xs)


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    return conv2d.reference(as_conv(op), g, xs)


def weights(w: Array) -> Array:
    """(o, 3, 3, i) -> (6, 6, o, i) float32: G w G^T of every pair of channels."""
    others = [[q for q in POINTS if q != p] for p in POINTS]
    rows = [[p**k / np.prod([p - q for q in o]) for k in range(3)] for p, o in zip(POINTS, others)]
    m = np.array([*rows, [0.0, 0.0, 1.0]])
    return np.asarray(np.einsum("ka,oabi,lb->kloi", m, w.astype(np.float64), m), np.float32)


def lower(op: Op, g: Graph, target: Target) -> Op:
    w = g.value(op.inputs[1])
    assert w is not None, "weights must be constant"
    o, _, _, ci = w.shape
    flat = weights(w).reshape(36 * o, ci)
    packed = conv2d.pack_float(
        g, op.inputs[1], flat, np.zeros(36 * o, np.float32), groups=36, target=target
    )
    name = op.inputs[2] if len(op.inputs) > 2 else ""
    if not name:
        zeros = Tensor(g.unique(op.name + ".bias"), (o,), "f32", np.zeros(o, np.float32))
        name = g.add_tensor(zeros)
    return op.with_(inputs=(op.inputs[0], packed, name))


def scratch(op: Op, g: Graph, target: Target) -> int:
    """Bytes per thread: transformed inputs of a block of tiles, their products for a panel of
    outputs, a pixel of zeros."""
    x, y = g.tensors[op.inputs[0]], g.tensors[op.outputs[0]]
    n, oh, ow, o = y.shape
    nr = max(la.nr for la in target.f32())
    each = 36 * 4 * (x.shape[3] + min(-(-o // nr), -(-PANEL // nr)) * nr)
    tiles = n * -(-oh // 4) * -(-ow // 4)
    block = min(tiles, TILES[1], max(TILES[0], SCRATCH // each))
    return int(ALIGN + 8 * 36 * SKEW + 4 * x.shape[3] + block * each)


def macs(op: Op, g: Graph) -> int:
    """Multiply-adds of the convolution, not those that are left: comparable between layers."""
    return int(g.tensors[op.outputs[0]].size * 9 * g.tensors[op.inputs[0]].shape[3])


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(31)
    cases: tuple[tuple[str, tuple[int, ...], int, tuple[int, ...], dict[str, float]], ...] = (
        ("same", (1, 9, 14, 16), 32, (1, 1, 1, 1), {"lo": 0.0}),
        ("valid_batch", (3, 8, 7, 20), 17, (0, 0, 0, 0), {}),
        ("few", (1, 3, 5, 3), 5, (1, 0, 2, 1), {"lo": -4.0, "hi": 4.0}),
        ("panels", (2, 13, 13, 16), 80, (1, 1, 1, 1), {}),
        ("halves", (1, 9, 7, 11), 24, (1, 1, 1, 1), {"hi": 6.0}),
        ("edge", (1, 2, 1, 24), 16, (2, 2, 2, 2), {}),
    )
    for label, x, o, pad, clamp in cases:
        w = rng.normal(size=(o, 3, 3, x[3])).astype(np.float32)
        tensors = {
            "x": Tensor("x", x),
            "w": Tensor("w", w.shape, "f32", w),
            "b": Tensor("b", (o,), "f32", rng.normal(size=o).astype(np.float32)),
        }
        g = sample_graph("winograd", tensors, {"pad": pad, **clamp})
        yield label, g, {"x": rng.normal(size=x).astype(np.float32)}


OP = OpDef(
    name="winograd",
    code=25,
    fields=(
        Field("pad", "u16", 4, (0, 0, 0, 0), "top, left, bottom, right"),
        *conv2d.CLAMP,
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    lower=lower,
    scratch=scratch,
    macs=macs,
)

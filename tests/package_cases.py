"""Small packages that several tests open, and the repair of checksums after a change."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from edgekit import ops, package, pipeline, plan
from edgekit.ir import Graph, Op, Tensor
from edgekit.layout import Target
from edgekit.passes.lower import lower

F = np.float32
START = np.array([[1.5, -2.0, 0.25, 8.0]], F)  # initial value of the state


def conv_net(side: int = 6, channels: int = 4) -> Graph:
    """conv - depthwise - add - linear - softmax in float32, seeded weights."""
    rng = np.random.default_rng(3)
    g = Graph("conv_net")
    g.add_tensor(Tensor("x", (1, side, side, 3)))
    g.inputs = ["x"]

    def w(*shape: int) -> str:
        return g.const("w", (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(F))

    pad = {"pad": (1, 1, 1, 1)}
    a = g.emit(
        "conv2d",
        ["x", w(channels, 3, 3, 3), w(channels)],
        {**pad, "lo": 0.0, "hi": 6.0},
        name="conv",
    )
    b = g.emit("depthwise_conv2d", [a, w(3, 3, channels), w(channels)], pad, name="dw")
    c = g.emit("binary", [a, b], {"kind": "add"}, name="add")
    flat = side * side * channels
    d = g.emit("reshape", [c], {"shape": (1, flat)}, name="flat")
    e = g.emit("linear", [d, w(5, flat), w(5)], {}, name="logits")
    g.outputs = [g.emit("softmax", [e], {}, name="p")]
    return g


def int8_net(board: str = "host", channels: int = 4) -> bytes:
    """`conv_net` quantized, every layout of the board, with its golden vector."""
    data = np.random.default_rng(1).normal(size=(8, 6, 6, 3)).astype(F)
    net = conv_net(channels=channels)
    return pipeline.build(net, board=board, precision="int8", calibration={"x": data}).data


def accumulator() -> tuple[Graph, Graph]:
    """Two graphs over one state: `step` adds x to it, both return it times a constant."""
    graphs = []
    for name in ("step", "peek"):
        g = Graph(name)
        g.add_tensor(Tensor("total", START.shape, data=START))
        g.states = ["total"]
        factor = g.const("factor", np.array([[2.0, 4.0, 8.0, 16.0]], F))
        if name == "step":
            g.add_tensor(Tensor("x", START.shape))
            g.inputs = ["x"]
            attrs = ops.get("binary").fill({"kind": "add"})
            g.ops.append(Op("binary", "accumulate", ("total", "x"), ("total",), attrs))
        g.outputs = [g.emit("binary", ["total", factor], {"kind": "mul"}, name=f"{name}.y")]
        graphs.append(g)
    return graphs[0], graphs[1]


def two_entries(target: Target | None = None) -> bytes:
    """The accumulator's package: entries "step" and "peek" sharing `factor` and `total`."""
    target = target or Target()
    entries = []
    for g in accumulator():
        lowered = lower(g, target)
        entries.append((g.name, lowered, plan.make(lowered, target)))
    return package.write(entries, meta={"name": "accumulator"})


def table(data: bytes, kind: str) -> tuple[int, int, int]:
    """(offset, stride, bytes) of a section."""
    for i in range(struct.unpack_from("<I", data, 24)[0]):
        name, _, at, stride, size = struct.unpack_from("<4sIIIQ", data, 128 + 32 * i)
        if name == kind.encode():
            return at * 16, stride, size
    raise KeyError(kind)


def repaired(data: bytearray) -> bytes:
    """The package with every checksum made right again."""
    n = struct.unpack_from("<I", data, 24)[0]
    for i in range(n):
        _, _, at, _, size = struct.unpack_from("<4sIIIQ", data, 128 + 32 * i)
        struct.pack_into("<I", data, 128 + 32 * i + 24, zlib.crc32(data[at * 16 : at * 16 + size]))
    struct.pack_into("<I", data, 28, 0)
    struct.pack_into("<I", data, 28, zlib.crc32(data[: 128 + 32 * n]))
    return bytes(data)

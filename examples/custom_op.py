"""An op of your own: its meaning in Python, its hook in C, and firmware that runs both beside ours.

python examples/custom_op.py
"""

import tempfile
from pathlib import Path

import numpy as np

from edgekit import boards, emulate, evaluate, ops, pipeline, toolchain
from edgekit.ir import Graph, Tensor
from edgekit.ops.base import Field, OpDef, need

squares = ops.add(
    OpDef(
        name="squares",
        code=0x8001,
        fields=(Field("offset", "f32", 1, 0.0, "added"),),
        shape=lambda op, xs: [(need(xs, 0, "input").shape, "f32")],
        reference=lambda op, g, xs: [xs[0] * xs[0] + np.float32(op.attrs["offset"])],
        samples=lambda: iter(()),
    )
)  # with @edgekit.ops.base.onnx("Squares") an importer makes it of a node in an ONNX file

graph = Graph("custom")
graph.add_tensor(Tensor("x", (1, 6)))
graph.inputs = ["x"]
double = graph.emit("binary", ["x", "x"], {"kind": "add"})
graph.outputs = [graph.emit("squares", [double], {"offset": 0.25})]

board = boards.load("qemu_mps2_an386")
with tempfile.TemporaryDirectory() as folder:
    package = Path(folder) / "custom.ekp"
    package.write_bytes(pipeline.package_graph(graph, pipeline.target_of(board)))
    elf = toolchain.firmware(board, Path(__file__).with_suffix(".c"), package)
    *values, yields = emulate.run_elf(board, elf).split("\n")[:-1]

x = np.arange(6, dtype=np.float32)[None] / 2
want = evaluate.run(graph, {"x": x})[graph.outputs[0]]
got = np.array(values, np.uint64).astype(np.uint32).view(np.float32)
print(f"{board.id}: {got.tolist()}, {yields}, once after each op")
if got.tobytes() != want.tobytes():
    raise SystemExit(f"but numpy says {want.ravel().tolist()}")

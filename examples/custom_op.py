"""Firmware with an op of your own: its meaning is in squares.py, its hook in squares.c.

python examples/custom_op.py
"""

import tempfile
from pathlib import Path

import numpy as np

from edgekit import boards, emulate, evaluate, ops, pipeline, toolchain
from edgekit.ir import Graph, Tensor

ops.load(Path(__file__).with_name("squares.py"))

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

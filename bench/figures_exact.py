"""The same integer bits from numpy, portable C and every ISA, on ops and on whole nets."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import op_cases
from edgekit_runtime import Session, cpu_isas
from figures import Outcome, Skip, item, model
from figures_parity import quantized_inputs

from edgekit import boards, emulate, evaluate, pipeline
from edgekit.errors import BoardError, EdgeKitError, PackageError, ToolchainError
from edgekit.ir import Graph

NETS = (
    "kws_ref_model.tflite",
    "pretrainedResnet_quant.tflite",
    "vww_96_int8.tflite",
    "ad01_int8.tflite",
    "mnist_valid_q.tflite",
)
INPUTS = 3
BAR = "0 differing bytes"
Run = Callable[[Path, list[bytes], Any, "list[str] | None"], list[bytes]]
MASKS: dict[str, list[list[str] | None]] = {
    "host": [[], *([i] for i in cpu_isas()), None],
    "qemu_arm64": [[], ["neon"], ["dotprod"], ["i8mm"], None],
    "qemu_mps2_an386": [None],
    "qemu_mps3_an547": [None],
}


def label(board: str, isa: list[str] | None) -> str:
    if isa is None:
        return {"qemu_mps2_an386": "Cortex-M4", "qemu_mps3_an547": "Cortex-M55"}.get(board, "all")
    return isa[0] if isa else "portable"


def on_host(package: Path, inputs: list[bytes], entry: Any, isa: list[str] | None) -> list[bytes]:
    """Outputs of each input, its entry given, on this machine."""
    out = []
    with Session(package, isa=isa) as s:
        for data, e in zip(inputs, [entry] * len(inputs) if isinstance(entry, int) else entry):
            arrays, at = {}, 0
            for i in s.inputs(e):
                size = int(np.prod(i.shape, dtype=np.int64))
                arrays[i.name] = np.frombuffer(data, i.dtype, size, at).reshape(i.shape)
                at += arrays[i.name].nbytes
            out.append(b"".join(v.tobytes() for v in s.run(arrays, e).values()))
    return out


@contextmanager
def device(name: str) -> Iterator[tuple[boards.Board, Run]]:
    """A board and what runs packages on it; Skip where its emulator is missing."""
    board = boards.load(name)
    if name == "host":
        yield board, on_host
        return
    why = emulate.missing(board)
    if why:
        raise Skip(why)

    def run(package: Path, inputs: list[bytes], entry: Any, isa: list[str] | None) -> list[bytes]:
        return emulate.run_package(board, package, inputs, entry=entry, isa=isa).outputs

    yield board, run


def differing(got: bytes, want: bytes) -> int:
    """Bytes that differ; all of them where the lengths do."""
    if len(got) != len(want):
        return max(len(got), len(want))
    return int(np.sum(np.frombuffer(got, np.uint8) != np.frombuffer(want, np.uint8)))


def _ops(name: str) -> Outcome:
    """Every exact op's samples against the numpy reference."""
    figure = {}
    with device(name) as (board, run), tempfile.TemporaryDirectory() as folder:
        package, cases = op_cases.all_cases(pipeline.target_of(board))
        path = Path(folder) / "ops.ekp"
        path.write_bytes(package)
        inputs = [c.inputs for c in cases]
        for isa in MASKS[name]:
            outputs = run(path, inputs, list(range(len(cases))), isa)
            wrong = total = count = 0
            for case, got in zip(cases, outputs, strict=True):
                if case.exact:
                    want = b"".join(np.ascontiguousarray(a).tobytes() for a in case.outputs)
                    wrong, total, count = wrong + differing(got, want), total + len(want), count + 1
            figure[label(name, isa)] = {"cases": count, "bytes": total, "differ": wrong}
    return Outcome(figure, all(f["differ"] == 0 and f["bytes"] > 0 for f in figure.values()))


def whole(name: str, board: boards.Board, inner: bool) -> Graph:
    """The quantized net as built for the board; `inner`: every int8 tensor is an output."""
    graph = pipeline.build(model(name), board=board).graph.copy()
    if inner:
        made = [o for op in graph.ops for o in op.outputs if o not in graph.states]
        graph.outputs = [o for o in made if graph.tensors[o].dtype == "i8"]
    return graph


def _net(name: str, device_name: str, board: boards.Board, run: Run, inner: bool) -> dict[str, Any]:
    """Bytes compared and differing per ISA; EdgeKitError where it does not fit."""
    graph = whole(name, board, inner)
    xs, _ = quantized_inputs(model(name), INPUTS)
    want = []
    for x in xs:
        y = evaluate.outputs(graph, {graph.inputs[0]: x})
        want.append(b"".join(np.ascontiguousarray(y[o]).tobytes() for o in graph.outputs))
    figure = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.ekp"
        path.write_bytes(pipeline.package_graph(graph, pipeline.target_of(board)))
        for isa in MASKS[device_name]:
            got = run(path, [x.tobytes() for x in xs], 0, isa)
            differ = sum(differing(g, w) for g, w in zip(got, want, strict=True))
            figure[label(device_name, isa)] = {"bytes": sum(map(len, want)), "differ": differ}
    return figure


def _nets(name: str) -> Outcome:
    """Whole quantized nets against numpy: every tensor where they fit so, else their outputs."""
    figure: dict[str, Any] = {}
    with device(name) as (board, run):
        for net in NETS:
            try:
                figure[net] = {"every tensor": _net(net, name, board, run, True)}
            except EdgeKitError:
                try:
                    figure[net] = {"outputs": _net(net, name, board, run, False)}
                except (BoardError, PackageError, ToolchainError) as e:
                    figure[net] = f"does not fit: {e.what[:160]}"
    ran = [f for net in figure.values() if isinstance(net, dict) for f in net.values()]
    same = all(f["differ"] == 0 for isas in ran for f in isas.values())
    return Outcome(figure, bool(ran) and same)


for _name in MASKS:
    item(f"exact.ops.{_name}", BAR)(lambda name=_name: _ops(name))  # type: ignore[misc]
    item(f"exact.nets.{_name}", BAR)(lambda name=_name: _nets(name))  # type: ignore[misc]

"""The firmware answers the commands of MLCommons Tiny's runner, then our frames, on one line."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
import tiny
from conftest import need
from edgekit_runtime import Session

from edgekit import boards, emulate, pipeline, remote, toolchain, wire

BOARDS = ("qemu_mps2_an386", "qemu_mps3_an547")
NETS = {
    "kws_ref_model": "bytes",
    "pretrainedResnet_quant": "image",
    "vww_96_int8": "image",
    "ad01_int8": "floats",
}


class Runner:
    """Sends commands as the public runner does and reads to m-ready."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link

    def ask(self, command: str) -> list[str]:
        self.link.sendall(command.encode() + b"%")
        got = b""
        while not got.endswith(b"m-ready\r\n"):
            part = self.link.recv(4096)
            assert part, got
            got += part
        return got.decode().split("\r\n")[:-2]

    def load(self, data: bytes) -> None:
        assert self.ask(f"db load {len(data)}") == [f"m-[Expecting {len(data)} bytes]"]
        for at in range(0, len(data), 32):
            said = self.ask("db " + data[at : at + 32].hex())
        assert said == ["m-load-done"]


def firmware_line(board: boards.Board, package: Path):  # type: ignore[no-untyped-def]
    """A process context of the agent's firmware with its UART on a TCP port: (context, port)."""
    emulator = emulate.require(board)
    port = emulate.free_port()
    elf = toolchain.firmware(board, "agent", package)
    uart = ["-serial", f"tcp:127.0.0.1:{port},server=on,wait=off"]
    clock = ["-icount", f"shift={toolchain.ICOUNT_SHIFT}"]
    command = [emulator.program, *emulator.args, *uart, *clock, "-kernel", str(elf)]
    return emulate.process(command, port, 20), port


def answers(runner: Runner, data: bytes, times: int = 2) -> list[float]:
    runner.load(data)
    said = runner.ask(f"infer {times} 1")
    assert said[:3] == ["m-warmup-start-1", "m-warmup-done", f"m-infer-start-{times}"]
    assert said[5] == "m-infer-done"
    begin, end = (int(x.removeprefix("m-lap-instructions-")) for x in said[3:5])
    assert begin < end
    assert runner.ask("results") == said[6:]
    return [float(v) for v in said[6].removeprefix("m-results-[").rstrip("]").split(",")]


def test_commands_then_frames(tmp_path: Path) -> None:
    board = boards.load(BOARDS[0])
    need(emulate.missing(board))
    folder = tiny.write(tmp_path)
    options = {"calibration": folder / "train.npz", "io": "int8"}
    built = pipeline.build(folder / "model.onnx", board=board, **options)  # type: ignore[arg-type]
    package = tmp_path / "net.ekp"
    package.write_bytes(built.data)
    x = np.arange(64, dtype=np.int8).reshape(1, 1, 8, 8)
    with Session(pipeline.build(folder / "model.onnx", **options).data) as s:  # type: ignore[arg-type]
        info = s.outputs()[0]
        wanted = (s.run(x)["y"].astype(np.float32) - info.zero) * info.scale
    process, port = firmware_line(board, package)
    with process:
        with socket.create_connection(("127.0.0.1", port)) as link:
            link.settimeout(20)
            runner = Runner(link)
            assert runner.ask("name") == [f"m-name-dut-[{board.id}]"]
            assert runner.ask("profile")[0].startswith("m-profile-[")
            assert runner.ask("nonsense") == ["e-[Unknown command]"]
            assert runner.ask("infer 1 1")[0].startswith("e-[")
            assert runner.ask("db load 99999999")[0].startswith("e-[")
            got = answers(runner, x.tobytes())
            assert np.abs(np.array(got) - wanted.ravel()).max() <= 0.00051
        with remote.Remote(f"serial+tcp://127.0.0.1:{port}") as device:
            assert device.hello.name == board.id
            device.open(wire.Source.RESIDENT)


@pytest.mark.shared
@pytest.mark.parametrize("name", BOARDS)
@pytest.mark.parametrize(
    "model", [pytest.param(m, marks=[pytest.mark.slow] * (m != "kws_ref_model")) for m in NETS]
)
def test_the_four_models(model: str, name: str, shared_data: Path, tmp_path: Path) -> None:
    board = boards.load(name)
    need(emulate.missing(board))
    file = shared_data / "models" / f"{model}.tflite"
    package = tmp_path / "net.ekp"
    package.write_bytes(pipeline.build(file, board=board).data)
    rng = np.random.default_rng(3)
    with Session(pipeline.build(file).data, isa=[]) as s:
        i, o = s.inputs()[0], s.outputs()[0]
        q = rng.integers(-128, 128, i.shape).astype(np.int8)
        out = s.run(q)[o.name]
    real = (out.astype(np.float32) - np.float32(o.zero)) * np.float32(o.scale)
    if NETS[model] == "floats":
        values = (q.astype(np.float32) - np.float32(i.zero)) * np.float32(i.scale)
        sent = values.tobytes()
        wanted = np.array([((real.ravel() - values.ravel()) ** 2).mean()])
    elif NETS[model] == "image":
        sent, wanted = (q.view(np.uint8) ^ 0x80).tobytes(), real.ravel()
    else:
        sent, wanted = q.tobytes(), real.ravel()
    process, port = firmware_line(board, package)
    with process, socket.create_connection(("127.0.0.1", port)) as link:
        link.settimeout(60)
        runner = Runner(link)
        assert runner.ask("name") == [f"m-name-dut-[{name}]"]
        assert runner.ask("profile")[0].startswith("m-profile-[")
        got = answers(runner, sent, 1)
        assert np.abs(np.array(got) - wanted).max() <= 0.00051 + 1e-4 * np.abs(wanted).max()
        link.close()
        with remote.Remote(f"serial+tcp://127.0.0.1:{port}") as device:  # the same firmware
            device.open(wire.Source.RESIDENT)
            device.set_input(0, q.tobytes())
            device.run()
            assert device.output(0) == out.tobytes()  # the host's bits

"""The bare-metal port, on emulated boards and with both compilers."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import numpy as np
import op_cases
import package_cases
import pytest
from conftest import ROOT, need, need_program
from edgekit_runtime import Session

from edgekit import boards, emulate, pipeline, remote, toolchain, wire
from edgekit.boards import Board
from edgekit.errors import BoardError, PackageError, ToolchainError

pytestmark = pytest.mark.emulator
FIRMWARE = ROOT / "tests" / "firmware"
BOARDS = ("qemu_mps2_an386", "qemu_mps3_an547")


@pytest.fixture(params=BOARDS)
def board(request: pytest.FixtureRequest) -> Board:
    found = boards.load(request.param)
    need(emulate.missing(found))
    return found


def run(board: Board, elf: Path, *options: str) -> subprocess.CompletedProcess[str]:
    emulator = emulate.require(board)
    command = [emulator.program, *emulator.args, "-serial", "null", *options]
    command += ["-semihosting-config", "enable=on,target=native", "-kernel", str(elf)]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("kind", ["zig", "gcc"])
def test_port(board: Board, kind: str, tmp_path: Path) -> None:
    """Start-up, mem* functions, memories, package, clock in instructions, exact counting."""
    if kind == "gcc":
        need_program("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    package = tmp_path / "package.bin"
    package.write_bytes(b"P" + bytes(1000))
    elf = toolchain.firmware(board, FIRMWARE / "port_check.c", package, kind=kind)
    clock = run(board, elf, "-icount", f"shift={toolchain.ICOUNT_SHIFT}")
    assert clock.returncode == 0, clock.stderr
    console = dict(line.split() for line in clock.stderr.splitlines())
    # 30,000,000 and 2,001 of the two loops, and reading the clock
    assert 30_002_001 < int(console["counted"]) < 30_002_001 + 1000
    assert console["package"] == "1001"
    marks = tmp_path / "marks.txt"
    counted = run(board, elf, "-plugin", f"{emulate.counter()},out={marks}")
    assert counted.returncode == 0, counted.stderr
    begin, end = (int(line.split()[1]) for line in marks.read_text().splitlines()[:2])
    assert end - begin == 2001


def test_a_stack_overflow_faults(board: Board) -> None:
    done = run(board, toolchain.firmware(board, FIRMWARE / "overflow.c"))
    assert done.returncode == emulate.FAULT
    assert "the stack overflowed" in done.stderr


def test_uart_loses_nothing(board: Board) -> None:
    elf = toolchain.firmware(board, FIRMWARE / "uart_echo.c")
    emulator = emulate.require(board)
    port = emulate.free_port()
    serial = ["-serial", f"tcp:127.0.0.1:{port},server=on,wait=off"]
    command = [emulator.program, *emulator.args, *serial, "-kernel", str(elf)]
    sent = bytes(i * 31 % 255 for i in range(4000))
    with emulate.process(command, port, 20), socket.create_connection(("127.0.0.1", port)) as link:
        link.settimeout(20)
        link.sendall(sent)
        got = b""
        while len(got) < len(sent):
            got += link.recv(4096)
    assert got == bytes(b + 1 for b in sent)


def test_firmware_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    board = boards.load("nrf52840dk")
    package = tmp_path / "package.bin"
    package.write_bytes(bytes(1024 * 1024))
    need(emulate.missing(boards.load(BOARDS[0])))
    with pytest.raises(ToolchainError, match="FLASH"):
        toolchain.firmware(board, FIRMWARE / "port_check.c", package)


def test_wrong_boards_are_refused() -> None:
    with pytest.raises(BoardError, match="not firmware"):
        toolchain.firmware(boards.load("rpi4"), "selftest")
    with pytest.raises(BoardError, match="no UART driver"):
        toolchain.firmware(boards.load("nrf52840dk"), "agent")
    with pytest.raises(BoardError, match="no \\[emulator\\]"):
        emulate.run_package(boards.load("nrf52840dk"), "x.ekp")


@pytest.mark.parametrize(
    ("name", "compiler", "cpu", "isa"),
    [
        ("qemu_mps2_an386", "zig", "", ""),
        ("qemu_mps2_an386", "gcc", "", ""),
        ("qemu_mps3_an547", "zig", "", ""),
        ("qemu_mps3_an547", "gcc", "", ""),
        ("qemu_arm64", "auto", "cortex-a53", ""),
        ("qemu_arm64", "auto", "cortex-a53", "neon"),
        ("qemu_arm64", "auto", "neoverse-n1", ""),
        ("qemu_arm64", "auto", "neoverse-n1", "dotprod"),
        ("qemu_arm64", "auto", "max,sve=off,sme=off", ""),
        ("qemu_arm64", "auto", "max,sve=off,sme=off", "dotprod"),
    ],
)
def test_every_op_gives_the_reference_bits(
    name: str, compiler: str, cpu: str, isa: str, tmp_path: Path
) -> None:
    """All samples of all ops on the device against numpy: equal where exact, else within 1e-4.

    `isa`: what weights are packed for, "" the board's best.  Dense GEMMs of arm64 never fall back.
    """
    board = boards.load(name)
    need(emulate.missing(board))
    if compiler == "gcc":
        need_program("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    package, cases = op_cases.all_cases(pipeline.target_of(board, [isa] if isa else None))
    path = tmp_path / "ops.ekp"
    path.write_bytes(package)
    inputs = [case.inputs for case in cases]
    done = emulate.run_package(
        board, path, inputs, entry=range(len(cases)), compiler=compiler, cpu=cpu
    )
    assert op_cases.differences(cases, done.outputs) == []
    assert len(done.ops) >= len(cases)
    assert {op.isa for op in done.ops} <= {"portable", *board.isa}
    dense = {op.isa for op in done.ops if op.type in ("conv2d", "linear")}
    assert board.id != "qemu_arm64" or "portable" not in dense


def test_instructions_are_counted_per_op_and_repeat_exactly(board: Board, tmp_path: Path) -> None:
    package, cases = op_cases.all_cases(pipeline.target_of(board))
    path = tmp_path / "ops.ekp"
    path.write_bytes(package)
    some = range(0, len(cases), 20)
    inputs = [cases[i].inputs for i in some]
    first, again = (
        emulate.run_package(board, path, inputs, entry=some, count=True) for _ in range(2)
    )
    assert first.instructions == again.instructions
    assert len(first.instructions) == len(inputs)
    for total, per_op in zip(first.instructions, first.op_instructions, strict=True):
        assert 0 < sum(per_op) <= total
    assert first.stack_bytes is not None and 0 < first.stack_bytes < 8192
    assert first.sections[".package"] >= len(package)
    assert first.memory_bytes[0] > 0 and len(first.memory_bytes) == 5


def test_a_damaged_package_is_refused_with_a_sentence(board: Board, tmp_path: Path) -> None:
    package, _ = op_cases.all_cases(pipeline.target_of(board))
    path = tmp_path / "damaged.ekp"
    damaged = bytearray(package)
    damaged[package_cases.table(package, "DATA")[0]] ^= 1  # not the padding between sections
    path.write_bytes(damaged)
    with pytest.raises(PackageError, match="verify: "):
        emulate.run_package(board, path)


def test_the_agent_answers(board: Board, tmp_path: Path) -> None:
    """The whole way: UART, COBS, session, outputs as the reference gives them."""
    package, cases = op_cases.all_cases(pipeline.target_of(board))
    path = tmp_path / "ops.ekp"
    path.write_bytes(package)
    exact = next(i for i, case in enumerate(cases) if case.exact and case.name.startswith("conv2d"))
    with emulate.agent(board, path) as there, remote.Remote(there.url) as device:
        assert device.hello.name == board.id
        device.open(wire.Source.RESIDENT)
        at = 0
        for i in range(device.entry(exact).inputs):
            size = device.info(wire.TensorInfo, wire.Info.INPUT, i, exact).bytes
            device.set_input(i, cases[exact].inputs[at : at + size], exact)
            at += size
        device.run(exact)
        assert device.output(0, exact) == cases[exact].outputs[0].tobytes()


def test_another_package_at_the_same_path_is_taken(board: Board, tmp_path: Path) -> None:
    """zig keeps objects by their command line and does not see that the package changed."""
    path = tmp_path / "net.ekp"
    for fill in (b"P", b"Q"):
        path.write_bytes(fill * 1000)
        elf = toolchain.firmware(board, FIRMWARE / "port_check.c", path)
        assert fill * 1000 in elf.read_bytes()


@pytest.mark.shared
@pytest.mark.parametrize("name", ["qemu_mps2_an386", "qemu_mps3_an547", "qemu_arm64"])
@pytest.mark.parametrize(
    "model",
    [
        "kws_ref_model.tflite",
        "pretrainedResnet_quant.tflite",
        "vww_96_int8.tflite",
        "ad01_int8.tflite",
        "str_ww_ref_model.tflite",
    ],
)
def test_whole_nets_give_the_bits_of_the_host(
    model: str, name: str, shared_data: Path, tmp_path: Path
) -> None:
    board = boards.load(name)
    need(emulate.missing(board))
    file = shared_data / "models" / model
    host = pipeline.build(file, board="host")
    rng = np.random.default_rng(7)
    graph = host.graph
    samples = [
        {n: rng.integers(-128, 128, graph.tensors[n].shape).astype(np.int8) for n in graph.inputs}
        for _ in range(2)
    ]
    with Session(host.data, isa=[]) as session:
        wanted = [b"".join(v.tobytes() for v in session.run(x).values()) for x in samples]
    package = tmp_path / "net.ekp"
    package.write_bytes(pipeline.build(file, board=board).data)
    inputs = [b"".join(x[n].tobytes() for n in graph.inputs) for x in samples]
    done = emulate.run_package(board, package, inputs, count=True)
    assert done.outputs == wanted
    assert all(0 < sum(ops) <= total for ops, total in zip(done.op_instructions, done.instructions))
    assert {op.isa for op in done.ops} & set(board.isa), "no kernel of the core ran"

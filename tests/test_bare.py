"""The bare-metal port, on emulated boards and with both compilers."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, need, need_program

from edgekit import boards, emulate, toolchain
from edgekit.boards import Board
from edgekit.errors import BoardError, ToolchainError

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

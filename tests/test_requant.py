"""Requantization without an FPU: the same bits as with one, in a bounded number of instructions."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, need, need_program

from edgekit import boards, emulate, toolchain
from edgekit.boards import Board, Target

CORES = {  # core: compiler's flags, zig's CPU, instructions per output at most
    "cortex-m3": ("-mcpu=cortex-m3", "cortex_m3", 45),
    "cortex-m0plus": ("-mcpu=cortex-m0plus", "cortex_m0plus", 140),
}


def compare(count: int, folder: Path) -> str:
    need_program("gcc", "gcc")
    program = folder / "requant"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'native' / 'src'}"]
    source = str(ROOT / "tests" / "requant_test.c")
    subprocess.run(["gcc", *flags, source, "-o", str(program)], check=True)
    return subprocess.run([str(program), str(count)], capture_output=True, text=True).stdout


def test_integers_give_the_bits_of_floats(tmp_path: Path) -> None:
    assert compare(2_000_000, tmp_path) == "0 differ\n"


@pytest.mark.slow
def test_integers_give_the_bits_of_floats_100_million_times(tmp_path: Path) -> None:
    assert compare(100_000_000, tmp_path) == "0 differ\n"


def soft(core: str) -> Board:
    """An emulated board without an FPU: QEMU's Cortex-M3 also runs what is made for Cortex-M0+."""
    board = boards.load("qemu_mps2_an386")
    assert board.emulator is not None
    flag, cpu, _ = CORES[core]
    args = ("-M", "mps2-an385", "-nographic", "-monitor", "none")
    gcc_flags = (flag, "-mthumb", "-mfloat-abi=soft")
    target = Target("thumb-freestanding-eabi", cpu, "arm-none-eabi-", gcc_flags)
    emulator = dataclasses.replace(board.emulator, args=args)
    return dataclasses.replace(
        board, id=f"soft_{core}", core=core, isa=(), target=target, emulator=emulator
    )


@pytest.mark.parametrize("core", CORES)
def test_instructions_of_an_output(core: str, tmp_path: Path) -> None:
    need_program("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    board = soft(core)
    need(emulate.missing(boards.load("qemu_mps2_an386")))
    elf = toolchain.firmware(board, ROOT / "tests" / "firmware" / "requant.c", kind="gcc")
    assert board.emulator is not None
    marks = tmp_path / "marks.txt"
    plugin = f"{emulate.counter()},out={marks}"
    counted = dataclasses.replace(board.emulator, args=("-plugin", plugin, *board.emulator.args))
    console = emulate.run_elf(dataclasses.replace(board, emulator=counted), elf)
    at = [int(x.split()[1]) for x in marks.read_text().splitlines()[:4]]
    hard = boards.load("qemu_mps2_an386")
    same = toolchain.firmware(hard, ROOT / "tests" / "firmware" / "requant.c")
    assert console == emulate.run_elf(hard, same)
    per_output = ((at[3] - at[2]) - (at[1] - at[0])) / 1024  # without loads, store and loop
    print(f"{core}: {per_output:.1f} instructions per output")
    assert per_output <= CORES[core][2]

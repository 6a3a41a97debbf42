"""Every kernel of every ISA against the portable one: here and on emulated CPUs and boards."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, need, need_program

from edgekit import boards, emulate, layout, toolchain

SOURCE = ROOT / "tests" / "kernels_test.c"
NATIVE = ROOT / "native"
STRICT = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wmissing-prototypes", "-Werror"]
INCLUDE = [f"-I{NATIVE / d}" for d in ("include", "src", "gen")]
TABLE = re.compile(
    r"^(\w+): (\d+) of \d+ slots, s8 (\d+) (\d+) (\d+), f32 (\d+), dw (\d+) (\d+), "
    r"windows (\d+) (\d+)",
    re.MULTILINE,
)
CORTEX_A = {
    "cortex-a72": ["neon"],
    "neoverse-n1": ["neon", "dotprod"],
    "max,sme=off,sve=off": ["neon", "dotprod", "i8mm"],
}
STRICT_TARGETS = {
    "host-gnu": ("gcc", "gcc", "-std=gnu11"),  # what users compile with: more names in the headers
    "arm64": ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", ""),
    "m4": (
        "arm-none-eabi-gcc",
        "gcc-arm-none-eabi",
        "-ffreestanding -mcpu=cortex-m4 -mthumb -mfpu=fpv4-sp-d16 -mfloat-abi=hard",
    ),
    "m4-nofp": (
        "arm-none-eabi-gcc",
        "gcc-arm-none-eabi",
        "-ffreestanding -mcpu=cortex-m4 -mthumb -mfloat-abi=soft",
    ),
    "m55": (
        "arm-none-eabi-gcc",
        "gcc-arm-none-eabi",
        "-ffreestanding -mcpu=cortex-m55 -mthumb -mfloat-abi=hard",
    ),
}


def run(*command: str) -> str:
    """Standard output and error of a command that must succeed."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def check_tables(output: str) -> list[str]:
    """ISAs that ran; their layouts in C must be those the host packs by."""
    assert "0 failures" in output.splitlines()
    found = []
    for name, own, *numbers in TABLE.findall(output):
        nr, kr, xoff, f32_nr, dw_s8_nr, dw_f32_nr, windows, odd_k = map(int, numbers)
        isa = layout.isas()[name]
        assert int(own) > 0
        assert (nr, kr) == (isa.s8.nr, isa.s8.kr), name
        assert xoff in (isa.s8.xoff, layout.XOFF_ANY), name
        assert (f32_nr, dw_s8_nr, dw_f32_nr) == (isa.f32_nr, isa.dw_s8_nr, isa.dw_f32_nr), name
        assert (windows, odd_k) == (isa.windows, isa.odd_k), name
        found.append(name)
    return found


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = need_program("gcc", "gcc")
    out = tmp_path_factory.mktemp("kernels") / "kernels_test"
    core = [NATIVE / "src" / f"{name}.c" for name in ("portable", "fmath", "cpu")]
    files = [SOURCE, *core, NATIVE / "gen" / "isas.c", *sorted(NATIVE.glob("kernels/*/*.c"))]
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g1"]
    run(compiler, *STRICT, *sanitize, *INCLUDE, *map(str, files), "-o", str(out))
    return out


@pytest.mark.parametrize("seed", ["1", "77"])
def test_host(sanitized: Path, seed: str) -> None:
    """With AddressSanitizer, operands ending at an unreadable page."""
    found = check_tables(run(str(sanitized), "250", seed))
    assert found or "absent" in run(str(sanitized), "0")


@pytest.mark.emulator
@pytest.mark.parametrize("cpu", CORTEX_A)
@pytest.mark.parametrize("kind", ["gcc", "zig"])
def test_cortex_a(cpu: str, kind: str) -> None:
    emulator = need_program("qemu-aarch64", "qemu-user")
    if kind == "gcc":
        need_program("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")
    board = boards.load("qemu_arm64")
    program = toolchain.linux_program(board, "kernels-test", [SOURCE], kind=kind)
    assert check_tables(run(emulator, "-cpu", cpu, str(program), "150")) == CORTEX_A[cpu]


@pytest.mark.emulator
@pytest.mark.parametrize("name", ["qemu_mps2_an386", "qemu_mps3_an547"])
@pytest.mark.parametrize("kind", ["gcc", "zig"])
def test_cortex_m(name: str, kind: str) -> None:
    board = boards.load(name)
    need(emulate.missing(board))
    if kind == "gcc":
        need_program("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    elf = toolchain.firmware(board, SOURCE, kind=kind)
    emulator = emulate.require(board)
    semihosting = ["-serial", "null", "-semihosting-config", "enable=on,target=native"]
    output = run(emulator.program, *emulator.args, *semihosting, "-kernel", str(elf))
    assert check_tables(output) == list(board.isa)


@pytest.mark.parametrize("target", STRICT_TARGETS)
def test_no_warnings(target: str) -> None:
    """Every kernel file compiles for every target, empty where it does not apply."""
    name, package, flags = STRICT_TARGETS[target]
    compiler = need_program(name, package)
    files = [str(f) for f in sorted(NATIVE.glob("kernels/*/*.c"))]
    bare = "-ffreestanding" in flags
    strings = ["-isystem", str(ROOT / "runtimes" / "bare" / "include")] if bare else []
    run(compiler, *STRICT, *shlex.split(flags), *strings, *INCLUDE, "-fsyntax-only", *files)

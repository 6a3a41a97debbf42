"""Compilers, caching and the native files that every target shares."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

from edgekit import boards, paths, toolchain
from edgekit.errors import ToolchainError


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def source(folder: Path, text: str) -> Path:
    path = folder / "unit.c"
    path.write_text(text)
    return path


def test_objects_are_cached_by_content(own_cache: Path, tmp_path: Path) -> None:
    host = boards.load("host")
    file = source(tmp_path, "int ek_one(void) { return 1; }\n")
    (first,) = toolchain.compile_objects(host, [file])
    stamp = first.stat().st_mtime_ns
    (again,) = toolchain.compile_objects(host, [file])
    assert again == first and again.stat().st_mtime_ns == stamp
    source(tmp_path, "int ek_one(void) { return 2; }\n")
    (changed,) = toolchain.compile_objects(host, [file])
    assert changed != first
    (defined,) = toolchain.compile_objects(host, [file], flags=["-DX=1"])
    assert defined != changed
    assert first.is_relative_to(own_cache)


def test_a_compile_error_is_shown_and_leaves_nothing(own_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="error: "):
        toolchain.compile_objects(boards.load("host"), [source(tmp_path, "int x = ;\n")])
    assert not [p for p in own_cache.rglob("*") if p.is_file()]


def test_a_missing_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(ToolchainError, match="install arm-none-eabi-gcc"):
        toolchain.compiler(boards.load("nrf52840dk"), "gcc")
    with pytest.raises(ToolchainError, match="apt-get install qemu-user"):
        toolchain.tool("qemu-aarch64", "qemu-user")
    with pytest.raises(ToolchainError, match="no compiler kind"):
        toolchain.compiler(boards.load("host"), "icc")


@pytest.mark.parametrize("board", ["nucleo_l4r5zi", "nucleo_h743zi", "rp2350", "rp2040", "alif_e7"])
def test_board_flags_give_the_units_of_the_core(board: str, tmp_path: Path) -> None:
    """The traps of design decision 12: soft float by default, MVE only when asked for."""
    loaded = boards.load(board)
    checks = {
        "cortex-m4": "__ARM_FEATURE_DSP && (__ARM_FP & 4) && !(__ARM_FP & 8)",
        "cortex-m7": "__ARM_FEATURE_DSP && (__ARM_FP & 8)",
        "cortex-m33": "__ARM_FEATURE_DSP && (__ARM_FP & 4) && __ARM_ARCH == 8",
        "cortex-m0plus": "!defined(__ARM_FEATURE_DSP) && !defined(__ARM_FP)",
        "cortex-m55": "__ARM_FEATURE_MVE == 3 && (__ARM_FP & 4)",
    }
    text = f"#if !({checks[loaded.core]})\n#error wrong flags\n#endif\nint ek_x;\n"
    toolchain.compile_objects(loaded, [source(tmp_path, text)], kind="zig")


def test_the_installed_package_carries_the_sources() -> None:
    """tests run against the wheel: its copy must be this checkout's."""
    for part in ("native/include/edgekit.h", "boards/host.toml", "runtimes/bare/sections.ld"):
        assert paths.data(*part.split("/")).read_bytes() == (ROOT / part).read_bytes()


STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Wmissing-prototypes", "-Werror")
CORES = ("nucleo_l4r5zi", "nucleo_h743zi", "rp2350", "rp2040", "alif_e7", "qemu_arm64")


@pytest.mark.parametrize("kind", ["gcc", pytest.param("zig", marks=pytest.mark.slow)])
def test_the_runtime_links_on_the_host_without_a_warning(kind: str) -> None:
    """It needs nothing but memcpy, memset, memmove, memcmp and, for the port, POSIX threads."""
    host = boards.load("host")
    flags = [*STRICT, "-Wl,--no-undefined"] if kind == "gcc" else STRICT
    assert toolchain.shared_library(host, kind=kind, flags=flags).exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zig", "gcc"])
@pytest.mark.parametrize("board", CORES)
def test_the_runtime_compiles_for_every_core_without_a_warning(board: str, kind: str) -> None:
    loaded = boards.load(board)
    if kind == "gcc" and shutil.which(f"{loaded.target.gcc}gcc") is None:
        pytest.skip(f"{loaded.target.gcc}gcc is not installed")
    assert toolchain.compile_objects(loaded, kind=kind, flags=STRICT)


@pytest.mark.slow
def test_a_core_that_is_not_arm_needs_a_board_file_only(tmp_path: Path) -> None:
    text = paths.data("boards", "rp2040.toml").read_text()
    text = text.replace("thumb-freestanding-eabi", "riscv32-freestanding-none")
    text = text.replace('zig_cpu = "cortex_m0plus"', 'zig_cpu = "generic_rv32+m+a+c"')
    file = tmp_path / "riscv.toml"
    file.write_text(text)
    assert toolchain.compile_objects(boards.load(file), kind="zig", flags=STRICT)


@pytest.mark.slow
def test_without_a_system_compiler_the_wheel_is_built_by_zig(tmp_path: Path) -> None:
    """A PATH without cc, gcc and clang: the hook falls back to the ziglang wheel."""
    environment = {k: v for k, v in os.environ.items() if k not in ("CC", "EDGEKIT_TARGET")}
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT / "runtimes" / "python",
        env={**environment, "PATH": "/nonexistent"},
        stdin=subprocess.DEVNULL,
        check=True,
        capture_output=True,
        timeout=300,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extract("edgekit_runtime/libedgekit.so", tmp_path)
    library = ctypes.CDLL(str(tmp_path / "edgekit_runtime" / "libedgekit.so"))
    library.ek_crc32.restype = ctypes.c_uint32
    assert library.ek_crc32(0, b"123456789", 9) == 0xCBF43926

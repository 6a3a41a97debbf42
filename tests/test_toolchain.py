"""Compilers, caching and the native files that every target shares."""

from __future__ import annotations

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
    (defined,) = toolchain.compile_objects(host, [file], defines=["X=1"])
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


@pytest.mark.parametrize("kind", ["zig", "gcc"])
def test_the_runtime_compiles_without_a_warning(kind: str) -> None:
    host = boards.load("host")
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Wmissing-prototypes", "-Werror"]
    assert toolchain.shared_library(host, kind=kind, flags=strict).exists()

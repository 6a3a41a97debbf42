"""Wheels of edgekit-runtime for other machines: built by zig, run under qemu where it can."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import op_cases
import pytest
import sysroot
from conftest import ROOT, need, need_program

from edgekit import boards, emulate, paths, toolchain
from edgekit.layout import Target

pytestmark = [pytest.mark.slow, pytest.mark.emulator]


@dataclass(frozen=True)
class Guest:
    """A machine to emulate: Debian's name of it, the emulator, library folder and layouts."""

    arch: str
    emulator: str
    triple: str
    layouts: Target


AARCH64 = Guest(
    "arm64",
    "qemu-aarch64",
    "aarch64-linux-gnu",
    Target(("neon", "dotprod", "i8mm"), tile_rows=16, linux=True),
)
ARMV7 = Guest("armhf", "qemu-arm", "arm-linux-gnueabihf", Target((), tile_rows=16, linux=True))


def build(target: str, folder: Path) -> Path:
    """The wheel for a zig target."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT / "runtimes" / "python",
        env={**os.environ, "EDGEKIT_TARGET": target},
        stdin=subprocess.DEVNULL,
        check=True,
        capture_output=True,
        timeout=580,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def unpack(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.parametrize(
    ("target", "tag", "guest"),
    [
        ("aarch64-linux-gnu.2.17", "manylinux_2_17_aarch64", AARCH64),
        ("arm-linux-gnueabihf.2.17", "manylinux_2_17_armv7l", ARMV7),
    ],
)
def test_manylinux_wheels_run_in_an_emulated_python(
    target: str, tag: str, guest: Guest, tmp_path: Path
) -> None:
    need_program(guest.emulator, "qemu-user")
    need(sysroot.missing())
    wheel = build(target, tmp_path / "wheel")
    assert tag in wheel.name
    root = sysroot.make(guest.arch)
    site = unpack(wheel, tmp_path / "site")
    package, cases = op_cases.all_cases(guest.layouts)
    (tmp_path / "ops.ekp").write_bytes(package)
    (tmp_path / "in.bin").write_bytes(b"".join(case.inputs for case in cases))
    # under its own path: qemu does not look below -L for every system call
    libraries = ":".join(f"{root}/usr/lib/{guest.triple}/{part}" for part in ("blas", "lapack"))
    packages = root / "usr" / "lib" / "python3" / "dist-packages"
    command = [guest.emulator, "-L", str(root), "-E", f"LD_LIBRARY_PATH={libraries}"]
    command += ["-E", f"PYTHONPATH={packages}"]
    command += ["-cpu", "max,sve=off,sme=off"] if guest is AARCH64 else []
    command += [str(root / "usr" / "bin" / "python3.11"), str(ROOT / "tests" / "guest_run.py")]
    command += [str(site), "ops.ekp", "in.bin", "out.bin"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    outputs = emulate.split_outputs((tmp_path / "out.bin").read_bytes())
    assert op_cases.differences(cases, outputs) == []


@pytest.mark.parametrize(
    ("target", "tag", "guest"),
    [
        ("aarch64-linux-musl", "musllinux_1_2_aarch64", AARCH64),
        ("arm-linux-musleabihf", "musllinux_1_2_armv7l", ARMV7),
    ],
)
def test_musllinux_libraries_run_with_musl(
    target: str, tag: str, guest: Guest, tmp_path: Path
) -> None:
    """There is no Python for musl here: ek-run is linked against the wheel's library instead."""
    need_program(guest.emulator, "qemu-user")
    need(sysroot.missing())
    wheel = build(target, tmp_path / "wheel")
    assert tag in wheel.name
    library = unpack(wheel, tmp_path / "site") / "edgekit_runtime"
    package, cases = op_cases.all_cases(guest.layouts)
    (tmp_path / "ops.ekp").write_bytes(package)
    (tmp_path / "in.bin").write_bytes(emulate.job(range(len(cases)), [c.inputs for c in cases]))
    native = paths.data("native")
    program = tmp_path / "ek-run"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-dynamic", "-O2"]
    command += [f"-I{native / 'include'}", str(native / "port" / "run_main.c")]
    command += [f"-L{library}", "-ledgekit", f"-Wl,-rpath,{library}", "-o", str(program)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=500)
    root = sysroot.make(guest.arch)
    done = subprocess.run(
        [guest.emulator, "-L", str(root), str(program), "ops.ekp", "in.bin", "out.bin"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    outputs = emulate.split_outputs((tmp_path / "out.bin").read_bytes())
    assert op_cases.differences(cases, outputs) == []


@pytest.mark.parametrize(
    ("target", "tag", "name", "magic"),
    [
        ("aarch64-macos", "macosx_11_0_arm64", "libedgekit.dylib", b"\xcf\xfa\xed\xfe"),
        ("x86_64-windows-gnu", "win_amd64", "edgekit.dll", b"MZ"),
    ],
)
def test_wheels_for_other_systems_are_complete(
    target: str, tag: str, name: str, magic: bytes, tmp_path: Path
) -> None:
    """They cannot run here: the library is there, of the right kind, and exports the API."""
    wheel = build(target, tmp_path / "wheel")
    assert tag in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(f"edgekit_runtime/{name}")
        assert "edgekit/wire.py" in archive.namelist()
    assert data.startswith(magic)
    assert b"ek_open" in data and b"ek_host_create" in data


@pytest.mark.parametrize("target", ["x86_64-linux-gnu.2.17", "x86_64-linux-musl"])
def test_linux_wheels_need_no_newer_glibc(target: str, tmp_path: Path) -> None:
    library = unpack(build(target, tmp_path / "wheel"), tmp_path / "site") / "edgekit_runtime"
    data = (library / "libedgekit.so").read_bytes()
    versions = {
        tuple(int(n) for n in part.split(b"\0")[0].split(b"."))
        for part in data.split(b"GLIBC_")[1:]
        if part[:1].isdigit()
    }
    assert all(version <= (2, 17) for version in versions)
    assert bool(versions) == ("gnu" in target)


def test_the_runtime_wheel_alone_brings_the_agent(tmp_path: Path) -> None:
    """On a board there is numpy and this wheel, no host package: the agent starts all the same."""
    site = unpack(build("x86_64-linux-gnu.2.17", tmp_path / "wheel"), tmp_path / "site")
    numpy = Path(np.__file__).parent
    for part in (numpy, numpy.parent / "numpy.libs"):
        if part.exists():
            (site / part.name).symlink_to(part)
    code = f"import runpy, sys; sys.path.append({str(site)!r}); sys.argv = ['agent', '--help']; "
    code += "runpy.run_module('edgekit.agent', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "--listen" in done.stdout
    assert not (site / "edgekit" / "__init__.py").exists()


def test_the_agent_program_is_static_and_small() -> None:
    program = toolchain.agent_program(boards.load("qemu_arm64"))
    data = program.read_bytes()
    assert b"ld-linux" not in data and b"ld-musl" not in data
    assert len(data) < 1_000_000

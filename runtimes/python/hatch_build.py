"""Build hook of the wheel `edgekit-runtime`: compiles native/ into one shared library.

The compiler is `$CC`, else cc, gcc or clang, else `python -m ziglang cc`: neither CMake nor Ninja
is needed, and a cross wheel is the same command line with a `-target`:

    EDGEKIT_TARGET=aarch64-linux-musl python -m build -w runtimes/python

The wheel also carries the agent (`edgekit/agent`, `wire.py`, `link.py`, `errors.py`): those files
belong to this wheel alone, the wheel `edgekit` leaves them out and depends on this one.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# zig target -> platform tag of the wheel.
TARGETS = {
    "x86_64-linux-gnu.2.17": "manylinux_2_17_x86_64.manylinux2014_x86_64",
    "x86_64-linux-musl": "musllinux_1_2_x86_64",
    "aarch64-linux-gnu.2.17": "manylinux_2_17_aarch64.manylinux2014_aarch64",
    "aarch64-linux-musl": "musllinux_1_2_aarch64",
    "arm-linux-gnueabihf.2.17": "manylinux_2_17_armv7l.manylinux2014_armv7l",
    "arm-linux-musleabihf": "musllinux_1_2_armv7l",
    "x86_64-macos": "macosx_11_0_x86_64",
    "aarch64-macos": "macosx_11_0_arm64",
    "x86_64-windows-gnu": "win_amd64",
    "aarch64-windows-gnu": "win_arm64",
}
# zig's own minimum for macOS is newer than the tag says unless the version is named.
ZIG_TARGETS = {"x86_64-macos": "x86_64-macos.11.0", "aarch64-macos": "aarch64-macos.11.0"}
SOURCES = ("src/*.c", "ops/*.c", "gen/*.c", "kernels/*/*.c")  # the build rule of native/
HOSTED = ("port/posix.c",)
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-ffunction-sections", "-fdata-sections")
SHARED_MODULES = ("agent", "wire.py", "wire_codec.py", "link.py", "errors.py")


def compiler(target: str | None) -> list[str]:
    """Command of the compiler; with a target only zig will do."""
    if target is None:
        if os.environ.get("CC"):
            return shlex.split(os.environ["CC"])
        for name in ("cc", "gcc", "clang"):
            found = shutil.which(name)
            if found:
                return [found]
    if importlib.util.find_spec("ziglang") is None:
        raise RuntimeError(
            f"no C compiler for {target or 'this machine'}: "
            + ("" if target else "install cc, gcc or clang, or ")
            + "run `pip install ziglang` and build again with --no-build-isolation"
        )
    zig = [sys.executable, "-m", "ziglang", "cc"]
    # without a target zig would compile for exactly this CPU
    return zig + (["-target", ZIG_TARGETS.get(target, target)] if target else ["-mcpu=baseline"])


def library_name(target: str | None) -> str:
    """File name of the shared library inside the package."""
    system = target or sys.platform
    if "windows" in system or system == "win32":
        return "edgekit.dll"
    return "libedgekit.dylib" if "macos" in system or system == "darwin" else "libedgekit.so"


def platform_tag(target: str | None) -> str:
    """Platform tag of the wheel: of this machine where there is no target."""
    if target is None:
        return sysconfig.get_platform().replace("-", "_").replace(".", "_")
    if target not in TARGETS:
        raise RuntimeError(f"EDGEKIT_TARGET={target} is unknown; known are: {', '.join(TARGETS)}")
    return TARGETS[target]


def run(command: list[str]) -> None:
    """Runs one compiler command; its output is shown only when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")


def build_library(native: Path, out: Path, target: str | None) -> None:
    """Compiles native/ into the shared library `out`."""
    cc = compiler(target)
    sources = [s for pattern in SOURCES for s in sorted(glob.glob(str(native / pattern)))]
    sources += [str(native / s) for s in HOSTED]
    if len(sources) == len(HOSTED):
        raise RuntimeError(f"no C sources under {native}")
    windows = library_name(target).endswith(".dll")
    position = [] if windows else ["-fPIC"]
    include = [f"-I{native / d}" for d in ("include", "src", "gen")]
    with tempfile.TemporaryDirectory() as tmp:
        objects = [str(Path(tmp) / f"{i}.o") for i in range(len(sources))]
        commands = [
            [*cc, *FLAGS, *position, *include, "-c", source, "-o", obj]
            for source, obj in zip(sources, objects)
        ]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(pool.map(run, commands))
        strip = [] if "darwin" in sys.platform or "macos" in (target or "") else ["-s"]
        threads = [] if windows else ["-lpthread"]
        run([*cc, "-shared", *strip, *objects, "-o", str(out), *threads])


class Hook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds to the sdist the sources of native/ and of the agent, to the wheel the built library."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before each build; `version` is "standard" or "editable"."""
        here = Path(self.root)
        # In a checkout the sources are two levels up, in an unpacked sdist they are beside us.
        top = here if (here / "native").is_dir() else here.parents[1]
        include: dict[str, str] = build_data["force_include"]
        for name in SHARED_MODULES if version != "editable" else ():
            if (top / "edgekit" / name).exists():
                include[str(top / "edgekit" / name)] = f"edgekit/{name}"
        if self.target_name == "sdist":
            if top != here:
                include[str(top / "native")] = "native"
                include[str(top / "LICENSE")] = "LICENSE"
            return
        target = os.environ.get("EDGEKIT_TARGET") or None
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(target)}"
        name = library_name(target)
        if version == "editable":
            build_library(top / "native", here / "edgekit_runtime" / name, target)
            return
        self._tmp = tempfile.mkdtemp(prefix="edgekit-")
        build_library(top / "native", Path(self._tmp) / name, target)
        include[str(Path(self._tmp) / name)] = f"edgekit_runtime/{name}"
        include[str(top / "LICENSE")] = "edgekit_runtime/LICENSE"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called by hatchling after each build."""
        shutil.rmtree(getattr(self, "_tmp", ""), ignore_errors=True)

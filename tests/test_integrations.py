"""Each integration's sample, built as far as this machine allows and run where it can be."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tiny
from conftest import ROOT, need, need_program
from edgekit_runtime import Session

from edgekit import boards, embed, emulate, pipeline

RUNTIMES = ROOT / "runtimes"
STAND_INS = ROOT / "tests" / "ecosystems"
M0PLUS = "-mcpu=cortex-m0plus -mthumb -mfloat-abi=soft"
RV32 = "-march=rv32imc -mabi=ilp32"


@dataclass(frozen=True)
class Model:
    """A package for the host, an input, the output for it and for zeros, and where to build."""

    folder: Path
    package: Path
    x: bytes
    y: bytes
    zeros: bytes


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tiny.write(tmp_path_factory.mktemp("model"))
    data = built(folder, "host").data
    (folder / "net.ekp").write_bytes(data)
    x = np.arange(64, dtype=np.int8).reshape(1, 1, 8, 8)
    with Session(data, isa=[]) as s:
        y, zeros = (s.run(v)["y"].tobytes() for v in (x, 0 * x))
    return Model(folder, folder / "net.ekp", x.tobytes(), y, zeros)


def built(folder: Path, board: str) -> pipeline.Built:
    model, data = folder / "model.onnx", folder / "train.npz"
    return pipeline.build(model, board=board, calibration=data, io="int8")


def project(model: Model, board: str, out: Path, arduino: bool = False) -> Path:
    """The folder of `build --format c` (or arduino), named kws."""
    made = embed.project(built(model.folder, board).data, boards.load(board), "kws")
    embed.write(embed.library(made) if arduino else made, out / "kws")
    return out / "kws"


def shell(command: str, folder: Path, sent: bytes = b"") -> bytes:
    """Output of a shell line that must succeed."""
    done = subprocess.run(command, cwd=folder, shell=True, input=sent, capture_output=True)
    said = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
    assert done.returncode == 0, f"{command}\n{said[-4000:]}"
    return done.stdout or done.stderr


def cmake(
    source: Path, build: Path, compiler: str = "", flags: str = "", **defines: object
) -> None:
    """Configures and builds; cross where a compiler is given."""
    need_program("cmake", "cmake")
    line = f"cmake -S {source} -B {build} -G 'Unix Makefiles'"
    if compiler:
        line += (
            f" -DCMAKE_SYSTEM_NAME=Generic -DCMAKE_C_COMPILER={compiler} -DCMAKE_C_FLAGS='{flags}'"
        )
        line += " -DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY"
    line += "".join(f" '-D{k}={v}'" for k, v in defines.items())
    shell(f"{line} && cmake --build {build} -j2", build.parent)


def readme_block(name: str) -> str:
    text = (RUNTIMES / name / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```sh\n(.*?)```", text, re.S)
    assert found is not None
    return found[1]


def copy(name: str, to: Path) -> Path:
    """The sample of runtimes/NAME where its README's relative paths hold."""
    for part in ("native", f"runtimes/{name}", "runtimes/bare"):
        (to / part).parent.mkdir(parents=True, exist_ok=True)
        (to / part).symlink_to(ROOT / part) if part != f"runtimes/{name}" else shutil.copytree(
            ROOT / part, to / part
        )
    return to / "runtimes" / name


def test_cmake_find_package_and_add_subdirectory(model: Model, tmp_path: Path) -> None:
    """The README's lines, then their outputs."""
    need_program("cmake", "cmake")
    sample = copy("cmake", tmp_path)
    (sample / "model.ekp").write_bytes(model.package.read_bytes())
    (sample / "input.bin").write_bytes(model.x)
    for line in readme_block("cmake").splitlines():
        shell(line, sample)
        if line.startswith("build/"):
            assert (sample / "output.bin").read_bytes() == model.y
    missing = subprocess.run(["build/found/classify", "none"], cwd=sample, capture_output=True)
    assert missing.returncode == 2


def test_cmake_project_of_a_folder(model: Model, tmp_path: Path) -> None:
    """The generated CMakeLists.txt alone, with the main.c beside it."""
    need_program("gcc", "gcc")
    folder = project(model, "rp2040", tmp_path)
    cmake(folder, tmp_path / "build")
    said = shell(str(tmp_path / "build" / "kws_main"), tmp_path).decode()
    assert "self-test passed" in said and f"first output byte {model.zeros[0]:03d}" in said


def test_zephyr_module_on_emulated_m4(model: Model, tmp_path: Path) -> None:
    need_program("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    board = boards.load("qemu_mps2_an386")
    need(emulate.missing(board))
    folder = project(model, board.id, tmp_path)
    flags = " ".join((*board.target.gcc_flags, "-ffreestanding -Wall -Wextra -Werror"))
    flags += f" -isystem {folder / 'port' / 'include'}"
    cmake(
        RUNTIMES / "zephyr", tmp_path / "build", "arm-none-eabi-gcc", flags,
        MODEL=folder, Zephyr_DIR=STAND_INS / "zephyr",
    )  # fmt: skip
    said = emulate.run_elf(board, tmp_path / "build" / "zephyr.elf")
    assert "kws: self-test: 0\n" in said
    assert f"kws: run: 0, first output byte {model.zeros[0]}\n" in said


def test_esp_idf_component_compiles_for_rv32imc(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_program("riscv64-unknown-elf-gcc", "gcc-riscv64-unknown-elf")
    folder = project(model, "rp2040", tmp_path)
    monkeypatch.setenv("IDF_PATH", str(STAND_INS / "esp_idf"))
    flags = f"{RV32} --specs=picolibc.specs --oslib=semihost -Wall -Wextra -Werror"
    cmake(RUNTIMES / "esp_idf", tmp_path / "build", "riscv64-unknown-elf-gcc", flags, MODEL=folder)
    assert (tmp_path / "build" / "edgekit_sample.elf").exists()


def test_pico_program_compiles(model: Model, tmp_path: Path) -> None:
    """With the SDK that PICO_SDK_PATH names, else with a stand-in."""
    need_program("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    folder = project(model, "rp2040", tmp_path)
    sdk = os.environ.get("PICO_SDK_PATH")
    if sdk:
        cmake(RUNTIMES / "pico", tmp_path / "build", PICO_SDK_PATH=sdk, MODEL=folder)
    else:
        cmake(
            RUNTIMES / "pico", tmp_path / "build", "arm-none-eabi-gcc", f"{M0PLUS} -Wall -Werror",
            PICO_SDK_PATH=STAND_INS / "pico", MODEL=folder, CMAKE_CXX_COMPILER="arm-none-eabi-g++",
            CMAKE_CXX_FLAGS=M0PLUS, CMAKE_ASM_COMPILER="arm-none-eabi-gcc",
        )  # fmt: skip
    assert list((tmp_path / "build").glob("edgekit_sample*"))


def test_arduino_library(model: Model, tmp_path: Path) -> None:
    """As Arduino does: every C file below src/ with src/ as the only include folder."""
    need_program("g++", "g++")
    need_program("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    library = project(model, "rp2040", tmp_path, arduino=True)
    sketch = library / "examples" / "selftest" / "selftest.ino"
    sources = sorted((library / "src").rglob("*.c"))
    names = [p.name for p in (library / "src").rglob("*") if p.is_file()]
    assert len(names) == len(set(names)) and len(sources) > 15
    files = " ".join(map(str, sources))
    include = f"-I{library / 'src'}"
    warn = "-Os -Wall -Wextra -Werror"
    (tmp_path / "arm").mkdir()
    shell(f"arm-none-eabi-gcc {M0PLUS} {warn} {include} -c {files}", tmp_path / "arm")
    shell(f"gcc {warn} {include} -c {files}", tmp_path)
    (tmp_path / "sketch.cpp").write_text(
        f'#include <Arduino.h>\n#include "{sketch}"\nint main() {{ setup(); for (;;) loop(); }}\n'
    )
    stand_in = f"-I{STAND_INS / 'arduino'}"
    shell(f"g++ -std=c++11 {warn} {stand_in} {include} sketch.cpp *.o -o sketch", tmp_path)
    said = shell("./sketch", tmp_path).decode()
    assert said == f"kws: self-test: 0\nkws: first output byte {model.zeros[0]}\n"
    properties = (library / "library.properties").read_text()
    assert "name=kws\n" in properties and "includes=kws.h\n" in properties
    readme = (library / "README.md").read_text()
    assert readme.startswith("# kws") and "\nOnly compiled: " in readme


def test_wasm_under_node(model: Model, tmp_path: Path) -> None:
    """The README's lines; a damaged package is refused with the runtime's sentence."""
    need_program("node", "nodejs")
    need_program("make", "make")
    pytest.importorskip("ziglang")
    sample = copy("wasm", tmp_path)
    (sample / "model.ekp").write_bytes(model.package.read_bytes())
    (sample / "input.bin").write_bytes(model.x)
    for line in readme_block("wasm").splitlines():
        shell(f"make CC='{sys.executable} -m ziglang cc'" if line == "make" else line, sample)
    assert (sample / "output.bin").read_bytes() == model.y
    (sample / "cut.ekp").write_bytes(model.package.read_bytes()[:1000])
    bad = "node classify.mjs edgekit.wasm cut.ekp < input.bin"
    done = subprocess.run(bad, cwd=sample, shell=True, capture_output=True, text=True)
    assert done.returncode != 0 and "truncated: the package is shorter" in done.stderr


HARNESS = """
package dev.edgekit;
import java.nio.ByteBuffer;
import java.nio.file.*;
public class EdgeKit {
%s
    public static void main(String[] a) throws Exception {
        System.load(a[0]);
        EdgeKit k = new EdgeKit();
        long m = k.nativeOpen(Files.readAllBytes(Path.of(a[1])), 2);
        k.nativeSelfTest(m);
        k.nativeInput(m, 0, 0).put(Files.readAllBytes(Path.of(a[2])));
        k.nativeRun(m, 0);
        ByteBuffer o = k.nativeOutput(m, 0, 0);
        byte[] y = new byte[o.remaining()];
        o.get(y);
        Files.write(Path.of(a[3]), y);
        try { k.nativeOutput(m, 0, 7); } catch (IllegalStateException e) { say(e); }
        k.nativeClose(m);
        try { k.nativeOpen(new byte[64], 1); } catch (IllegalStateException e) { say(e); }
    }
    static void say(Exception e) { System.out.println(e.getMessage()); }
}
"""
JAVA = {"ByteArray": "byte[]", "Int": "int", "Long": "long", "ByteBuffer": "ByteBuffer", "": "void"}


def test_android_class_on_a_jvm(model: Model, tmp_path: Path) -> None:
    """The JNI library, called through a Java class with the native methods of EdgeKit.kt."""
    javac = Path(need_program("javac", "openjdk-17-jdk-headless")).resolve()
    kotlin = (RUNTIMES / "android" / "EdgeKit.kt").read_text()
    natives = []
    for name, given, result in re.findall(r"external fun (\w+)\((.*?)\)(?:: (\w+))?", kotlin):
        pairs = [p.split(": ") for p in given.split(", ")]
        arguments = ", ".join(f"{JAVA[kind]} {n}" for n, kind in pairs)
        natives.append(f"    private native {JAVA[result]} {name}({arguments});")
    assert len(natives) == 6
    (tmp_path / "EdgeKit.java").write_text(HARNESS % "\n".join(natives))
    shell(f"{javac} -d . EdgeKit.java", tmp_path)
    jni = javac.parents[1] / "include"
    cmake(RUNTIMES / "android", tmp_path / "build", JNI_INCLUDE=f"{jni};{jni / 'linux'}")
    (tmp_path / "in").write_bytes(model.x)
    library = tmp_path / "build" / "libedgekit_jni.so"
    said = shell(f"java -cp . dev.edgekit.EdgeKit {library} {model.package} in out", tmp_path)
    assert (tmp_path / "out").read_bytes() == model.y
    assert said.decode().splitlines()[0].startswith("argument: ")
    assert said.decode().splitlines()[1].startswith("magic: ")


def test_android_library_compiles_for_aarch64(tmp_path: Path) -> None:
    """All of it with GCC; the JNI file with zig, the runtime with it being everywhere else."""
    javac = Path(need_program("javac", "openjdk-17-jdk-headless")).resolve()
    need_program("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")
    jni = javac.parents[1] / "include"
    cmake(
        RUNTIMES / "android", tmp_path / "build", "aarch64-linux-gnu-gcc", "-Wall -Wextra -Werror",
        CMAKE_SYSTEM_NAME="Linux", JNI_INCLUDE=f"{jni};{jni / 'linux'}",
    )  # fmt: skip
    found = (tmp_path / "build" / "libedgekit_jni.so").read_bytes()
    assert found[:4] == b"\x7fELF" and found[18] == 0xB7  # EM_AARCH64
    assert b"Java_dev_edgekit_EdgeKit_nativeOpen" in found
    pytest.importorskip("ziglang")
    native = ROOT / "native"
    include = " ".join(f"-I{p}" for p in (jni, jni / "linux", native / "include", native / "port"))
    zig = (
        f"{sys.executable} -m ziglang cc -target aarch64-linux-musl -std=c11 -Wall -Wextra -Werror"
    )
    shell(f"{zig} {include} -c {RUNTIMES / 'android' / 'edgekit_jni.c'}", tmp_path)


def test_every_integration_says_what_was_run() -> None:
    for readme in RUNTIMES.glob("*/README.md"):
        text = readme.read_text()
        if readme.parent.name not in ("arduino", "python"):  # a template; the wheel's page
            assert re.search(r"^(Run|Only compiled)", text, re.M), readme

"""`edgekit build --format c`: the folder compiles everywhere and runs by its README."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tiny
from conftest import ROOT, need, need_program
from edgekit_runtime import Session

from edgekit import boards, cli, embed, emulate, ops, package, pipeline, plan, toolchain
from edgekit.errors import EdgeKitError
from edgekit.passes.lower import lower

SLOW = pytest.mark.slow
LIBC = {"memcpy", "memset", "memmove", "memcmp"}
ARM = {
    "m0plus": "-mcpu=cortex-m0plus -mthumb -mfloat-abi=soft",
    "m3": "-mcpu=cortex-m3 -mthumb -mfloat-abi=soft",
    "m4": "-mcpu=cortex-m4 -mthumb -mfpu=fpv4-sp-d16 -mfloat-abi=hard",
    "m7": "-mcpu=cortex-m7 -mthumb -mfpu=fpv5-d16 -mfloat-abi=hard",
    "m33": "-mcpu=cortex-m33 -mthumb -mfpu=fpv5-sp-d16 -mfloat-abi=hard",
    "m55": "-mcpu=cortex-m55 -mthumb -mfloat-abi=hard",
}
CORES = {**ARM, "rv32imc": "-march=rv32imc -mabi=ilp32"}
# What of GCC's helpers the runtime may call, whole (every op, float too), by core
FLOAT = "f2iz f2lz fadd fcmpeq fcmpge fcmpgt fcmple fcmplt fdiv fmul fsub i2f l2f ldivmod ui2f"
M0PLUS = f"{FLOAT} idiv idivmod llsr lmul uidiv uidivmod"
LONG = "f2lz l2f ldivmod"
RISCV = (
    "addsf3 clzsi2 divdi3 divsf3 eqsf2 fixsfdi fixsfsi floatdisf floatsisf floatunsisf "
    "gesf2 gtsf2 lesf2 lshrdi3 ltsf2 moddi3 mulsf3 nesf2 subsf3"
)
HELPERS = {
    "m0plus": {f"__aeabi_{h}" for h in M0PLUS.split()}
    | {f"__gnu_thumb1_case_{h}" for h in ("shi", "uhi", "uqi", "sqi")},
    "m3": {f"__aeabi_{h}" for h in FLOAT.split()},
    **{core: {f"__aeabi_{h}" for h in LONG.split()} for core in ("m4", "m7", "m33", "m55")},
    "rv32imc": {f"__{h}" for h in RISCV.split()},
}
NONE = {"m4", "m33", "m55", "m7"}  # cores on which an int8 model needs none


@dataclass(frozen=True)
class Made:
    """A folder, the package in it, what it needs and the host's answer to an input of zeros."""

    folder: Path
    data: bytes
    need: embed.Footprint
    told: embed.Footprint | str  # predicted without a compiler
    zeros: bytes


def make(folder: Path, model: Path, board: str, **options: object) -> Made:
    found = boards.load(board)
    need(emulate.missing(found))
    need_program("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    built = pipeline.build(model, board=found, **options)  # type: ignore[arg-type]
    made = embed.project(built.data, found, folder.name)
    size = embed.measure(made)
    embed.write(made, folder, embed.readme(made, embed.markdown(size), size.undefined))
    graph = built.lowered
    with Session(pipeline.build(model, **options).data, isa=[]) as s:  # type: ignore[arg-type]
        zeros = {t.name: np.zeros(t.shape, t.dtype) for t in s.inputs()}
        out = s.run(zeros)[graph.outputs[0]].tobytes()
    return Made(folder, made.package, size, embed.predict(built.data, found), out)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("model"))


def folder_for(board: str, source: Path, factory: pytest.TempPathFactory) -> Made:
    options = {"calibration": source / "train.npz", "io": "int8"}
    return make(factory.mktemp(board) / "net", source / "model.onnx", board, **options)


@pytest.fixture(scope="module")
def net(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """For Cortex-M4."""
    return folder_for("qemu_mps2_an386", source, tmp_path_factory)


@pytest.fixture(scope="module")
def wide(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """For Cortex-M55: with the kernels of every Cortex-M."""
    return folder_for("qemu_mps3_an547", source, tmp_path_factory)


def run(command: str, folder: Path) -> str:
    """Output of a shell line that must succeed."""
    done = subprocess.run(
        command,
        cwd=folder,
        shell=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # QEMU's console is there
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}"
    return done.stdout


def readme_lines(folder: Path) -> list[str]:
    block = re.search(r"```sh\n(.*?)```", (folder / "README.md").read_text(), re.S)
    assert block is not None
    return block[1].splitlines()


def by_readme(made: Made) -> None:
    """Builds and runs by the README's lines; the output and the painted stack are as promised."""
    need_program("make", "make")
    out = "".join(run(line, made.folder) for line in readme_lines(made.folder))
    name = made.folder.name
    assert f"{name}: self-test passed" in out
    assert f"{name}: first output byte {made.zeros[0]:03d}" in out
    painted = int(re.search(r"^stack (\d+)$", out, re.M)[1])  # type: ignore[index]
    assert made.need.stack is not None
    assert painted <= made.need.stack <= painted + 256
    sizes = toolchain.section_sizes(made.folder / f"{name}.elf")
    flash = sum(n for s, n in sizes.items() if not s.startswith((".bss", ".stack")))
    code = flash - len(made.data)
    assert abs(code - sum(made.need.code.values())) <= max(512, code // 50)


def foretold(made: Made) -> None:
    """The prediction against the link and the painted stack."""
    told, need = made.told, made.need
    assert not isinstance(told, str), told
    assert told.memory == need.memory
    assert (told.weights, told.metadata) == (need.weights, need.metadata)
    code, real = sum(told.code.values()), sum(need.code.values())
    assert abs(code - real) <= max(512, real // 50), "renew: python bench/sizes.py"
    assert need.stack_painted is not None and told.stack is not None
    assert need.stack_painted <= told.stack <= need.stack_painted + 256


def test_readme_lines_build_and_run_on_m4(net: Made) -> None:
    by_readme(net)


def test_readme_lines_build_and_run_on_m55(wide: Made) -> None:
    by_readme(wide)


def test_c11_and_gnu11_give_the_same_bits(net: Made, tmp_path: Path) -> None:
    need_program("make", "make")
    said = []
    for std in ("c11", "gnu11"):
        copy = tmp_path / std
        shutil.copytree(net.folder, copy)
        run(f"sed -i s/-std=c11/-std={std}/ Makefile && make clean && make -j2 net.elf", copy)
        said.append([x for x in run("make run", copy).splitlines() if x.startswith("net: ")])
    assert said[0] == said[1] and len(said[0]) == 2


@pytest.mark.parametrize("core", ["m0plus", "m3"])
def test_code_of_smaller_cores_runs_on_m4(net: Made, core: str, tmp_path: Path) -> None:
    """What is compiled for a core without an FPU, by its portable kernels and integer twin."""
    copy = tmp_path / core
    shutil.copytree(net.folder, copy, ignore=shutil.ignore_patterns("build*", "*.elf", "*.a"))
    out = run(f'make -j2 CPU="{ARM[core]} -ffreestanding" run', copy)
    assert f"net: self-test passed\nnet: first output byte {net.zeros[0]:03d}" in out


def gnu(core: str) -> str:
    """Prefix of the GCC tools for a core, or a skip."""
    if core in ARM:
        need_program("arm-none-eabi-gcc", "gcc-arm-none-eabi")
        return "arm-none-eabi-"
    need_program("riscv64-unknown-elf-gcc", "gcc-riscv64-unknown-elf")
    return "riscv64-unknown-elf-"


def undefined(core: str, objects: Iterable[Path], keep: str, out: Path) -> set[str]:
    """Symbols that linked objects take from elsewhere; `keep`: linker flags naming the roots."""
    files = " ".join(map(str, objects))
    run(f"{gnu(core)}gcc {CORES[core]} -nostdlib -r {keep} {files} -o {out}", out.parent)
    return {x.split()[-1] for x in run(f"{gnu(core)}nm -u {out}", out.parent).splitlines()}


@pytest.mark.parametrize("core", CORES)
def test_compiles_for_cores_and_needs_nothing(wide: Made, core: str) -> None:
    """Undefined: four functions of the C library, and listed helpers where a core lacks an FPU."""
    folder, flags = wide.folder, f"{CORES[core]} -ffreestanding"
    tools = f"CC={gnu(core)}gcc AR={gnu(core)}ar"
    run(f'make -j2 {tools} CPU="{flags}" BUILD=build_{core} all', folder)
    roots = ("net_config", "ek_open", "ek_run", "ek_verify", "ek_selftest", "ek_input", "ek_output")
    keep = "-Wl,--gc-sections " + " ".join(f"-Wl,-u,{f}" for f in roots)
    objects = (folder / f"build_{core}").rglob("*.o")
    found = undefined(core, objects, keep, folder / f"{core}.whole")
    assert found <= LIBC | (set() if core in NONE else HELPERS[core])


@pytest.mark.slow
@pytest.mark.parametrize("core", CORES)
def test_the_whole_runtime_needs_only_listed_helpers(core: str, tmp_path: Path) -> None:
    native = ROOT / "native"
    include = " ".join(f"-I{native / d}" for d in ("include", "src", "gen"))
    own = f"{include} -isystem {ROOT / 'runtimes' / 'bare' / 'include'}"
    for n, source in enumerate(toolchain.runtime_sources()):
        if source.name != "wire.c":
            flags = f"{CORES[core]} -ffreestanding -Os -std=c11 {own}"
            run(f"{gnu(core)}gcc {flags} -c {source} -o {n}.o", tmp_path)
    found = undefined(core, tmp_path.glob("*.o"), "", tmp_path / "whole")
    assert LIBC - {"memcmp"} <= found <= LIBC | HELPERS[core]


ZIG = f"{sys.executable} -m ziglang"
FREE = "-ffreestanding -fno-sanitize=undefined"
COMPILERS = {  # command, archiver, flags, Debian package
    "x86-64 gcc": ("gcc", "ar", "", "gcc"),
    "x86-64 clang": ("clang-19", "ar", "-O1", "clang-19"),
    "x86-64 zig": (f"{ZIG} cc", f"{ZIG} ar", "-mcpu=baseline", ""),
    "aarch64 gcc": ("aarch64-linux-gnu-gcc", "ar", "", "gcc-aarch64-linux-gnu"),
    "rv32imc zig": (
        f"{ZIG} cc",
        f"{ZIG} ar",
        f"-target riscv32-freestanding-none -mcpu=generic_rv32+m+c {FREE}",
        "",
    ),
}


@pytest.mark.parametrize(
    ("which", "std"),
    [*((c, "c11") for c in COMPILERS), ("x86-64 gcc", "gnu11"), ("x86-64 clang", "gnu11")],
)
def test_compiles_with_other_compilers(wide: Made, which: str, std: str) -> None:
    """Warnings are errors; what can run here gives the host's byte."""
    cc, ar, flags, package = COMPILERS[which]
    if package:
        need_program(cc, package)
    build = f"build_{which.replace(' ', '_')}_{std}"
    set_up = f'make -j2 CC="{cc}" AR="{ar}" CPU= EXTRA="{flags} -std={std}" BUILD={build}'
    run(f"{set_up} all && mv libnet.a {build}/", wide.folder)
    if which.startswith("rv32"):
        return
    emulator = ""
    if which.startswith("aarch64"):
        emulator = need_program("qemu-aarch64", "qemu-user")
    program = f"{build}/main"
    library = f"main.c {build}/libnet.a -o {program}"
    own = "-I. -Iedgekit/include -Wall -Wextra -Werror -static"
    run(f"{cc} {flags} -std={std} {own} {library}", wide.folder)
    said = run(f"{emulator} {program}", wide.folder)
    assert f"net: self-test passed\nnet: first output byte {wide.zeros[0]:03d}" in said


@pytest.mark.parametrize(("cc", "package"), [("g++", "g++"), ("clang++-19", "clang-19")])
def test_header_and_main_are_usable_from_cpp(
    net: Made, tmp_path: Path, cc: str, package: str
) -> None:
    """main.c as it is, compiled as C++ and linked with the library made by a C compiler."""
    need_program(cc, package)
    need_program("gcc", "gcc")
    make = f"make -j2 CC=gcc AR=ar CPU= BUILD={tmp_path}/build all && mv libnet.a {tmp_path}/"
    run(make, net.folder)
    include = f"-I{net.folder} -I{net.folder}/edgekit/include"
    warn = "-std=c++17 -Wall -Wextra -Wpedantic -Werror"
    main = f"-x c++ {net.folder}/main.c -x none libnet.a"
    run(f"{cc} {warn} {include} {main} -o main", tmp_path)
    assert f"first output byte {net.zeros[0]:03d}" in run("./main", tmp_path)


def test_a_package_with_other_ops_is_refused(net: Made, source: Path, tmp_path: Path) -> None:
    """What is not linked is said, never called: an op or a kernel that the list leaves out."""
    need_program("gcc", "gcc")
    float_net = pipeline.build(source / "model.onnx", board="qemu_mps2_an386")
    (tmp_path / "float.ekp").write_bytes(float_net.data)
    (tmp_path / "main.c").write_text(
        '#include "net.h"\n#include <stdio.h>\n#include <stdlib.h>\n'
        "_Alignas(64) static unsigned char package[1 << 20], memory[1 << 20];\n"
        "int main(int n, char **a) { ek_config c; ek_session *s; (void)n;\n"
        '  FILE *f = fopen(a[1], "rb"); net_config(&c, memory); c.package = package;\n'
        "  c.package_len = fread(package, 1, sizeof package, f); fclose(f);\n"
        "  for (int i = 0; i < 5; i++) { c.mem[i] = memory + (i << 16); c.mem_len[i] = 1 << 16; }\n"
        "  return (int)EK_CODE(ek_open(&s, &c)); }\n"
    )
    folder = net.folder
    own = f"-I{folder} -I{folder}/edgekit/include"
    run("make -j2 CC=gcc AR=ar CPU= BUILD=build_host all && mv libnet.a libhost.a", folder)
    run(f"gcc -O1 -std=c11 {own} main.c {folder}/libhost.a -o open", tmp_path)
    code = subprocess.run(["./open", "float.ekp"], cwd=tmp_path).returncode
    assert code in (10, 11)  # EK_ERR_OP, EK_ERR_OP_MISSING
    own_package = folder / f"{folder.name}.ekp"
    assert subprocess.run(["./open", str(own_package)], cwd=tmp_path).returncode == 0


def test_the_command(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need_program("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    out = tmp_path / "kws"
    args = ["build", str(source / "model.onnx"), "--calibrate", str(source / "train.npz")]
    args += ["--board", "nucleo_l4r5zi", "--format", "c"]
    assert cli.main([*args, "-o", f"{out}/"]) == 0
    assert {"kws.h", "main.c", "Makefile", "CMakeLists.txt", "README.md"} <= {
        p.name for p in out.iterdir()
    }
    assert len((out / "main.c").read_text().splitlines()) <= 50
    assert cli.main([*args, "-o", f"{out}"]) == 0  # again: replaced
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("x")
    assert cli.main([*args, "-o", str(other)]) == 2
    assert [p.name for p in other.iterdir()] == ["mine.txt"]
    assert cli.main([*args, "-o", str(tmp_path / "x.ekp")]) == 2
    assert "must be a folder" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kws", "other"]


def test_explain_link_says_what_does_not_fit(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need_program("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    text = (ROOT / "boards" / "rp2040.toml").read_text()
    for key in ("flash_kib = 2048", "size_kib = 2048"):
        text = text.replace(key, key.replace("2048", "24"))
    for key in ("ram_kib = 264", "size_kib = 264"):
        text = text.replace(key, key.replace("264", "1"))
    (tmp_path / "small.toml").write_text(text)
    package = tmp_path / "net.ekp"
    package.write_bytes(pipeline.build(source / "model.onnx", board="rp2040").data)
    args = ["explain", str(package), "--link", "--board"]
    assert cli.main([*args, "rp2040"]) == 0
    said = capsys.readouterr().out
    assert "flash: core" in said and "flash: weights" in said and said.rstrip().endswith("fits")
    assert cli.main([*args, str(tmp_path / "small.toml")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "does not fit: RAM:" in said and "shrink the activations" in said
    assert cli.main([*args, "rpi4"]) == 2


def with_squares(folder: Path) -> Path:
    """An ONNX file with a node that only examples/squares.py knows, between two of ours."""
    onnx = pytest.importorskip("onnx")
    weights = np.random.default_rng(1).standard_normal((6, 8)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["h"]),
        onnx.helper.make_node("Squares", ["h"], ["s"], domain="mine", offset=0.25),
        onnx.helper.make_node("Relu", ["s"], ["y"]),
    ]
    ends = [onnx.helper.make_tensor_value_info(*e) for e in (("x", 1, (1, 6)), ("y", 1, (1, 8)))]
    w = onnx.numpy_helper.from_array(weights, "w")
    opsets = [onnx.helper.make_opsetid(*o) for o in (("", 17), ("mine", 1))]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], [w])
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets), folder / "own.onnx")
    return folder / "own.onnx"


@pytest.mark.emulator
@pytest.mark.parametrize("board", ["qemu_mps2_an386", "qemu_mps3_an547"])
def test_an_op_of_your_own(board: str, tmp_path: Path) -> None:
    """Its C hook beside its Python file: the self-test is what numpy says of the whole net."""
    need(emulate.missing(boards.load(board)))
    need_program("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    need_program("make", "make")
    model = with_squares(tmp_path)
    build = (
        f"{sys.executable} -m edgekit build {model} --board {board} --format c -o {tmp_path}/own/"
    )
    run(f"{build} --ops {ROOT}/examples/squares.py", tmp_path)
    assert "&ek_op_squares," in (tmp_path / "own" / "own.c").read_text()
    assert "own: self-test passed" in "".join(
        run(x, tmp_path / "own") for x in readme_lines(tmp_path / "own")
    )
    hook = tmp_path / "own" / "ops" / "squares.c"
    hook.write_text(hook.read_text().replace("+ a->offset", "- a->offset"))
    wrong = subprocess.run(["make", "run"], cwd=tmp_path / "own", capture_output=True, text=True)
    assert wrong.returncode and "selftest" in wrong.stdout + wrong.stderr


def test_an_op_of_your_own_without_its_files(tmp_path: Path) -> None:
    model = with_squares(tmp_path)
    edgekit = [sys.executable, "-m", "edgekit"]
    line = ["build", str(model), "--format", "c", "-o", "own/"]

    def said(*more: str, line: Sequence[str] = line) -> str:
        done = subprocess.run(
            [*edgekit, *line, *more], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode and not (tmp_path / "own").exists()
        assert "Traceback" not in done.stderr
        return " ".join(done.stderr.split())

    assert "mine.Squares" in said()
    (tmp_path / "mine.py").write_bytes((ROOT / "examples" / "squares.py").read_bytes())
    assert "mine.c cannot be read" in said("--ops", "mine.py")
    (tmp_path / "none.py").write_text("")
    assert "adds no op" in said("--ops", "none.py")
    (tmp_path / "bad.py").write_text("1 / 0")
    assert "does not run: division by zero" in said("--ops", "bad.py")
    assert "absent.py" in said("--ops", "absent.py")
    run(f"{' '.join(edgekit)} build {model} --ops {ROOT}/examples/squares.py -o own.ekp", tmp_path)
    assert "it is an op of somebody's own" in said(line=("explain", "own.ekp"))


@pytest.mark.shared
@pytest.mark.parametrize("board", ["qemu_mps2_an386", "qemu_mps3_an547"])
@pytest.mark.parametrize(
    ("file", "flash", "ram"),
    [  # TFLite Micro: flash (code + model) times the bar, arena + stack; research of July
        ("kws_ref_model", 0.40 * (91152 + 53936), 22820 + 1236),
        pytest.param("pretrainedResnet_quant", 0.60 * (84664 + 98496), 54996 + 1236, marks=SLOW),
        pytest.param("vww_96_int8", 0.50 * (91152 + 333288), 100708 + 1236, marks=SLOW),
        pytest.param("ad01_int8", 0.95 * (36904 + 276976), 2580 + 748, marks=SLOW),
    ],
)
def test_mlperf_tiny(
    board: str, file: str, flash: float, ram: int, shared_data: Path, tmp_path: Path
) -> None:
    made = make(tmp_path / "net", shared_data / "models" / f"{file}.tflite", board)
    by_readme(made)
    assert made.need.flash <= flash
    # what is no weight, bias or scale: code, start-up, main.c, records
    assert made.need.flash - made.need.weights <= 24 * 1024
    assert made.need.ram <= ram
    foretold(made)
    assert set(made.need.undefined) <= LIBC
    if "mps2" in board:
        assert made.need.code["core"] <= 6 * 1024
        assert made.need.engine <= 20 * 1024


def test_nothing_is_left_when_a_project_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    board = boards.load("qemu_mps2_an386")
    need(emulate.missing(board))
    data = (ROOT / "tests" / "compat" / "0.1.0.ekp").read_bytes()
    with pytest.raises(EdgeKitError, match="not a folder"):
        embed.write(embed.project(data, board, "file"), file, "")
    with pytest.raises(EdgeKitError, match="file: is a file"):
        embed.write(embed.project(data, board, "below"), file / "below", "")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(EdgeKitError, match="cannot write: No space left"):
        embed.write(embed.project(data, board, "new"), tmp_path / "new", "")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_op_brings_what_it_calls(tmp_path: Path) -> None:
    """A residual without a plain convolution: conv2d_add's C calls conv2d's."""
    board = boards.load("qemu_mps2_an386")
    need(emulate.missing(board))
    g = next(g for label, g, _ in ops.get("conv2d_add").samples() if label == "i8_3x3_input")
    target = pipeline.target_of(board)
    low = lower(g, target)
    data = package.write([("e", low, plan.make(low, target))], meta={})
    assert embed.measure(embed.project(data, board, "net")).engine > 0

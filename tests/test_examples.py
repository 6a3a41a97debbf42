"""Everything a reader may copy is run: each code block of the docs, and each example."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny
from conftest import ROOT, need, need_program

from edgekit import boards, emulate, paths, toolchain
from edgekit.errors import ToolchainError

DOCS = [ROOT / "README.md", ROOT / "runtimes" / "python" / "README.md", *ROOT.glob("docs/*.md")]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
BLOCKS = [
    (path, number, kind, body)
    for path in DOCS
    for number, (kind, body) in enumerate(FENCE.findall(path.read_text(encoding="utf-8")))
]
NAMES = [f"{path.relative_to(ROOT)}:{number}:{kind}" for path, number, kind, _ in BLOCKS]
MODULES = {"edgekit": "edgekit", "edgekit-agent": "edgekit.agent"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README supposes it: model.onnx, train.npz, test.npz, x.npy, model.ekp."""
    folder = tiny.write(tmp_path_factory.mktemp("readme"))
    run(folder, "edgekit build model.onnx -o model.ekp --calibrate train.npz")
    return folder


def run(folder: Path, line: str) -> str:
    """One line of a shell block; what it printed."""
    done = subprocess.run(*command(folder, line), capture_output=True, timeout=200, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout.decode()}{done.stderr.decode()}"
    return done.stdout.decode()


def command(folder: Path, line: str) -> tuple[list[str]]:
    """A process of this Python for a line that begins with `[NAME=value] edgekit` and so on."""
    words = shlex.split(line, comments=True)
    settings = [w for w in words if re.match(r"[A-Z_]+=", w)]
    words = words[len(settings) :]
    module = MODULES[words[0]]
    home = [f"HOME={folder}"] if "--listen" in words else []  # the agent keeps packages there
    env = [*settings, *home]
    return (["env", "-C", str(folder), *env, sys.executable, "-m", module, *words[1:]],)


@contextmanager
def background(folder: Path, line: str) -> Iterator[None]:
    """A server line (ending in `&`), from when it says that it listens until the block ends."""
    child = subprocess.Popen(*command(folder, line.rstrip("& ")), stdout=subprocess.PIPE)
    assert child.stdout is not None
    watchdog = threading.Timer(30, child.kill)
    watchdog.start()
    try:
        said = child.stdout.readline()
        assert b"listening" in said, said
        yield
    finally:
        watchdog.cancel()
        child.terminate()
        child.wait(10)
        child.stdout.close()


def test_there_are_blocks_of_every_kind() -> None:
    assert {kind for _, _, kind, _ in BLOCKS} == {"sh", "python", "c"}, "a block without a test"


@pytest.mark.parametrize(("path", "number", "kind", "body"), BLOCKS, ids=NAMES)
def test_block(path: Path, number: int, kind: str, body: str, work: Path) -> None:
    {"sh": shell, "python": python, "c": compiles}[kind](body, work)


def shell(body: str, work: Path) -> None:
    lines = [line for line in body.splitlines() if line.strip()]
    for line in lines:
        for board in re.findall(r"qemu_\w+", line):
            need(emulate.missing(boards.load(board)))
    port = emulate.free_port()
    for old in ("0.0.0.0:7330", "raspberrypi.local:7330"):
        lines = [line.replace(old, f"127.0.0.1:{port}") for line in lines]
    servers = [line for line in lines if line.endswith("&")]
    with background(work, servers[0]) if servers else open(os.devnull):
        for line in lines:
            if line.startswith("make "):
                assert f"\n{line.split()[1]}:" in (ROOT / "Makefile").read_text()
            elif line not in servers:
                assert run(work, line).strip(), line


def python(body: str, work: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", body], cwd=work, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def compiles(body: str, work: Path) -> None:
    """Compiles the block for this machine and, where a cross compiler is, for a Cortex-M."""
    source = work / "snippet.c"
    source.write_text(body)
    for board in map(boards.load, ("host", "nrf52840dk")):
        try:
            cc = toolchain.compiler(board)
        except ToolchainError as e:
            pytest.skip(str(e))
        include = f"-I{paths.data('native', 'include')}"
        flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-c", include]
        if board.bare:
            flags.append(f"-I{paths.data('runtimes', 'bare', 'include')}")
        line = [*cc.command, *cc.flags, *flags, str(source), "-o", str(work / "snippet.o")]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


# ---- examples ----


def example(work: Path, name: str, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *args],
        cwd=work, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_is_tested() -> None:
    tested = set(re.findall(r'example\(\w+, "(\w+\.py)"', Path(__file__).read_text()))
    tested |= {"squares.py", "data_parallel.py"}  # by tests/test_embed.py and below
    assert {p.name for p in (ROOT / "examples").glob("*.py")} == tested


def test_peers(work: Path) -> None:
    pytest.importorskip("onnxruntime")
    lines = example(work, "peers.py", "model.ekp", "model.onnx").splitlines()
    assert len(lines) == 2 and all("y float32[1, 4]" in line for line in lines)


def test_quantize_torch(work: Path) -> None:
    pytest.importorskip("torch")
    out = example(work, "quantize_torch.py")
    assert "all int8" in out and "in float" in out


def test_data_parallel(work: Path) -> None:
    pytest.importorskip("torch")
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    got = subprocess.run(
        [*run, ROOT / "examples" / "data_parallel.py"], cwd=work, text=True, timeout=300,
        capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert got.returncode == 0, got.stderr[-2000:]
    shares = re.findall(r"(\w+): loss .* ([\d.]+) of float32", got.stdout)
    assert [k for k, _ in shares] == ["none", "fp16", "int8", "topk"]
    assert [float(v) for _, v in shares] == [1.0, 0.5, pytest.approx(0.25, abs=0.03), 0.1]


def test_the_three_tasks_are_short() -> None:
    for name in ("keyword_spotting", "anomaly_detection", "image_classification"):
        for file in (ROOT / "examples").glob(f"{name}.*"):
            assert len(file.read_text().splitlines()) < 80, file.name


def test_keyword_spotting(work: Path) -> None:
    pytest.importorskip("torch")
    need(emulate.missing(boards.load("qemu_mps2_an386")))
    need_program("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    need_program("make", "make")
    out = example(work, "keyword_spotting.py", "qemu_mps2_an386")
    assert "features and scores bit for bit" in out
    assert float(out.split("top-1: ")[1].split()[0]) > 90


@pytest.mark.slow
@pytest.mark.shared
def test_keyword_spotting_of_speech(work: Path, shared_data: Path) -> None:
    pytest.importorskip("torch")
    spoken = shared_data / "sets" / "fsdd_8khz.npz"
    for board in ("host", "qemu_mps3_an547"):
        need(emulate.missing(boards.load(board)) if board != "host" else "")
        out = example(work, "keyword_spotting.py", board, str(spoken))
        assert "features and scores bit for bit" in out
        assert float(out.split("top-1: ")[1].split()[0]) > 92


def test_custom_op(work: Path) -> None:
    need(emulate.missing(boards.load("qemu_mps2_an386")))
    out = example(work, "custom_op.py")
    assert "[0.25, 1.25, 4.25, 9.25, 16.25, 25.25], yields 2" in out


def test_image_classification(work: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    for board in ("qemu_mps2_an386", "qemu_mps3_an547"):
        need(emulate.missing(boards.load(board)))
    out = example(work, "image_classification.py")
    assert out.count("the bits of this machine") == 2
    assert float(out.split("int8 ")[1].split()[0]) > 95


def test_anomaly_detection(work: Path) -> None:
    pytest.importorskip("torch")
    out = example(work, "anomaly_detection.py")
    assert float(out.split("int8 ")[1].split()[0]) > 0.95


@pytest.mark.slow
def test_demo(work: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    out = example(work, "demo.py", str(work / "demo"))
    assert "bit for bit" in out or "skipped" in out
    assert (work / "demo" / "report.html").stat().st_size > 10_000

"""The command as users meet it: through a process, with right and wrong arguments."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from conftest import need
from edgekit_runtime import Session

from edgekit import boards, cli, contents, emulate, explain

COMMANDS = ("build", "compress", "inspect", "explain", "check", "run", "bench", "boards", "agent")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, data, and packages built by the command: int8.ekp, mcu.ekp."""
    folder = tiny.write(tmp_path_factory.mktemp("cli"))
    build = ("build", "model.onnx", "--calibrate", "train.npz", "-o")
    assert edgekit(folder, *build, "int8.ekp").returncode == 0
    assert edgekit(folder, *build, "mcu.ekp", "--board", "qemu_mps2_an386").returncode == 0
    spoil(folder)
    return folder


def spoil(work: Path) -> None:
    """Files with something wrong, beside the good ones."""
    good = (work / "int8.ekp").read_bytes()
    (work / "cut.ekp").write_bytes(good[: len(good) // 2])
    (work / "flipped.ekp").write_bytes(good[:-70] + bytes([good[-70] ^ 1]) + good[-69:])
    (work / "empty.ekp").write_bytes(b"")
    (work / "bad.npz").write_bytes(b"not a zip")
    (work / "broken.onnx").write_bytes((work / "model.onnx").read_bytes()[:200])
    onnx.save(tiny.model(unknown=True), work / "unknown.onnx")
    np.save(work / "wide.npy", np.zeros((1, 1, 8, 9), np.float32))
    np.savez(work / "wide.npz", x=np.zeros((3, 1, 8, 9), np.float32), y=np.zeros(3, np.int64))


def edgekit(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`edgekit args...` in a folder."""
    environment = {k: v for k, v in os.environ.items() if k not in ("EDGEKIT_DEBUG", "COLUMNS")}
    return subprocess.run(
        [sys.executable, "-m", "edgekit", *args],
        cwd=folder, env={**environment, **env}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


@pytest.fixture
def here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """As `edgekit`, but within this process: the many small refusals need no process each."""

    def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(folder)
        monkeypatch.delenv("EDGEKIT_DEBUG", raising=False)
        monkeypatch.setenv("EDGEKIT_TOKEN", "")
        try:
            code = cli.main(args)
        except SystemExit as end:
            code = int(end.code or 0)
        out = capsys.readouterr()
        return subprocess.CompletedProcess(args, code, out.out, out.err)

    return run


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Output of a command that must have worked, with no line wider than 100 columns."""
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines()), default=0) <= 100
    return done.stdout


def data(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What a command with --json printed."""
    assert done.returncode == 0, done.stderr
    out: dict[str, Any] = json.loads(done.stdout)
    return out


def refused(done: subprocess.CompletedProcess[str], *words: str, code: int = 1) -> None:
    """A command must have failed with a sentence that holds the words."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and "internal" not in done.stderr
    assert "error: " in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


# ---- help ----


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert (
        "example:\n" in out and f"edgekit {command}" in out.split("example:")[1] and "--json" in out
    )


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys, edgekit.cli\ntry: edgekit.cli.main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted(m for m in ('numpy', 'torch', 'onnx', 'rich', 'serial') if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_is_instant(tmp_path: Path) -> None:
    begin = time.monotonic()
    bare = subprocess.run([sys.executable, "-c", "import argparse"], check=True)
    python = time.monotonic() - begin
    begin = time.monotonic()
    assert edgekit(tmp_path, "--help").returncode == bare.returncode == 0
    assert time.monotonic() - begin < 2 * python + 1.0


# ---- what works ----


def test_build_says_what_it_did(work: Path) -> None:
    out = said(edgekit(work, "build", "model.onnx", "-o", "b.ekp", "--calibrate", "train.npz"))
    assert "ops in int8" in out and "arena" in out and "RAM" in out and (work / "b.ekp").exists()
    assert (work / "b.ekp").read_bytes() == (work / "int8.ekp").read_bytes(), (
        "same input, same bytes"
    )


def test_build_json_counts_the_real_bytes(work: Path) -> None:
    facts = data(edgekit(work, "build", "model.onnx", "-o", "f.ekp", "--json"))
    assert facts["bytes"] == (work / "f.ekp").stat().st_size
    with Session(work / "f.ekp") as s:
        assert facts["memory"] == s.memory
    facts = data(
        edgekit(work, "build", "model.onnx", "-o", "q.ekp", "--calibrate", "train.npz", "--json")
    )
    assert {s["op"] for s in facts["sqnr"]} >= {"conv1", "conv2", "head"}
    assert all(s["sqnr_db"] > 15 for s in facts["sqnr"])


def test_build_stores_preprocessing_and_io(work: Path) -> None:
    args = ("--io", "int8", "--scale", "0.5", "--mean", "0.1", "--calibrate", "train.npz")
    said(edgekit(work, "build", "model.onnx", "-o", "p.ekp", *args))
    x = np.load(work / "x.npy")
    with Session(work / "p.ekp", preprocess=True) as s:
        assert s.meta["preprocess"] == {"scale": 0.5, "mean": 0.1}
        assert s.inputs()[0].dtype == np.int8
        y = next(iter(s.run(x).values()))
    info = s_input(work / "p.ekp")
    q = np.clip(
        np.rint((x * np.float32(0.5) - np.float32(0.1)) / info.scale) + info.zero, -128, 127
    )
    with Session(work / "p.ekp") as s:
        np.testing.assert_array_equal(next(iter(s.run(q.astype(np.int8)).values())), y)
    said(edgekit(work, "run", "p.ekp", "--input", "x.npy", "--preprocess"))


def s_input(path: Path) -> Any:
    with Session(path) as s:
        return s.inputs()[0]


def test_excluded_nodes_stay_float(work: Path) -> None:
    args = ("--calibrate", "train.npz", "--exclude", "conv2")
    said(edgekit(work, "build", "model.onnx", "-o", "kept.ekp", *args))
    graph = contents.read((work / "kept.ekp").read_bytes()).entries[0].graph
    ops = {o.name: o for o in graph.ops}
    assert graph.tensors[ops["conv1"].outputs[0]].dtype == "i8"
    assert graph.tensors[ops["conv2"].outputs[0]].dtype == "f32"


def test_dynamic_dimension_is_fixed_by_shape(work: Path) -> None:
    onnx.save(tiny.model(dynamic=True), work / "dynamic.onnx")
    said(edgekit(work, "build", "dynamic.onnx", "-o", "d.ekp", "--shape", "x=2,1,8,8"))
    assert s_input(work / "d.ekp").shape == (2, 1, 8, 8)


def test_inspect_lists_sections_and_ops(work: Path) -> None:
    out = said(edgekit(work, "inspect", "int8.ekp"))
    for word in ("TENS", "DATA", "ok", "conv1", "conv2d", "entry main"):
        assert word in out
    facts = data(edgekit(work, "inspect", "int8.ekp", "--json"))
    assert facts["bytes"] == (work / "int8.ekp").stat().st_size
    assert all(s["intact"] for s in facts["sections"])
    assert facts["entries"][0]["inputs"][0] == {
        "name": "x", "shape": [1, 1, 8, 8], "dtype": "f32", "quant": None,
    }  # fmt: skip


def test_explain_of_the_host_is_what_runs(work: Path) -> None:
    facts = data(edgekit(work, "explain", "int8.ekp", "--json"))
    with Session(work / "int8.ekp") as s:
        assert [o["isa"] for o in facts["ops"]] == [o.isa for o in s.ops()]
        assert facts["ram_bytes"] == sum(s.memory.values())
    assert facts["macs"] == 8 * 8 * 8 * 9 + 4 * 4 * 16 * 8 + 16 * 4
    assert not facts["predicted"]
    assert not [o["why"] for o in facts["ops"] if "the runtime chose" in o["why"]], (
        "what is predicted for other boards would be wrong"
    )
    out = said(edgekit(work, "explain", "int8.ekp"))
    assert "arena of main" in out and "MACs" in out


def test_explain_predicts_other_boards(work: Path) -> None:
    facts = data(edgekit(work, "explain", "model.onnx", "--board", "rpi5", "--json"))
    assert facts["predicted"] and facts["isas"] == ["neon", "dotprod"]
    wrong = data(edgekit(work, "explain", "mcu.ekp", "--board", "rpi5", "--json"))
    gemm = next(o for o in wrong["ops"] if o["kernel"] == "gemm_s8")
    assert gemm["isa"] == "portable" and "no weights in the layout of dotprod" in gemm["why"]


def test_explain_adds_up(work: Path) -> None:
    blob = (work / "int8.ekp").read_bytes()
    c = contents.read(blob)
    e = explain.explain(blob, c, boards.load("host"))
    assert sum(o.flash_bytes for o in e.ops) < len(blob)
    places = e.arena["main"]
    assert max(p.offset + p.bytes for p in places) <= e.memory["main"]
    at, live = explain.peak(places, len(e.ops))
    assert live <= e.memory["main"] <= max(1.05 * live, live + 256)
    lines = explain.arena_map(places, len(e.ops), e.memory["main"])
    assert len({len(line) for line in lines}) == 1 and any("A" in line for line in lines)
    assert -1 <= at <= len(e.ops)


def test_slots_come_from_the_sources() -> None:
    names = explain.slot_names()
    assert names[0] == "gemm_s8" and len(set(names)) == len(names)
    for isa, slots in explain.isa_slots().items():
        assert slots <= set(names), isa


def test_run_gives_what_the_session_gives(work: Path) -> None:
    out = said(edgekit(work, "run", "int8.ekp", "--input", "x.npy", "-o", "y.npz", "--trace"))
    assert "y float32[1, 4]" in out and "conv1" in out
    with Session(work / "int8.ekp") as s, np.load(work / "y.npz") as z:
        np.testing.assert_array_equal(z["y"], s.run(np.load(work / "x.npy"))["y"])
    facts = data(
        edgekit(work, "run", "int8.ekp", "--input", "x.npy", "--json", "--isa", "portable")
    )
    np.testing.assert_allclose(facts["outputs"]["y"], np.load(work / "y.npz")["y"], rtol=1e-6)


def test_bench_puts_runtimes_side_by_side(work: Path) -> None:
    pytest.importorskip("onnxruntime")
    args = (
        "bench",
        "int8.ekp",
        "--model",
        "model.onnx",
        "-n",
        "40",
        "--json",
        "--report",
        "bench.html",
    )
    ours, theirs = data(edgekit(work, *args))["timings"]
    assert ours["label"].startswith("edgekit") and theirs["label"].startswith("onnxruntime")
    assert (ours["precision"], theirs["precision"]) == ("int8", "float32")
    for t in (ours, theirs):
        assert t["runs"] == 40 and 0 < t["min_us"] <= t["p50_us"] <= t["p90_us"] <= t["p99_us"]
        assert t["first_us"] > 0 and t["load_us"] > 0
    page = (work / "bench.html").read_text()
    assert "<svg" in page and "onnxruntime" in page and "http" not in page.replace("http-equiv", "")


def test_boards(work: Path) -> None:
    out = said(edgekit(work, "boards"))
    assert all(i in out for i in boards.ids())
    assert "cortex-m4" in said(edgekit(work, "boards", "nrf52840dk"))
    facts = data(edgekit(work, "boards", "nrf52840dk", "--json"))
    assert facts["flash_kib"] == 1024 and data(edgekit(work, "boards", "--json"))["boards"]


def test_reports_are_self_contained(work: Path) -> None:
    from html.parser import HTMLParser

    class Checker(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            assert tag not in ("script", "link", "img"), "a report needs nothing but itself"
            if tag not in ("meta",):
                self.open.append(tag)

        def handle_startendtag(self, tag: str, attrs: Any) -> None: ...

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    build = ("build", "model.onnx", "--calibrate", "train.npz", "-o", "r.ekp", "--report", "b.html")
    said(edgekit(work, *build))
    said(edgekit(work, "explain", "r.ekp", "--report", "e.html"))
    for name in ("b.html", "e.html"):
        checker = Checker()
        checker.feed((work / name).read_text())
        assert checker.open == [] and "<svg" in (work / name).read_text()


# ---- what is refused ----


def test_no_or_unknown_command(tmp_path: Path) -> None:
    refused(edgekit(tmp_path), "COMMAND", code=2)
    refused(edgekit(tmp_path, "biuld"), "invalid choice", "build", code=2)


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("build", "model.onnx"), "-o"),
        (("build", "model.onnx", "-o", "x.bin"), ".ekp"),
        (("build", "model.onnx", "-o", "x.ekp", "--samples", "0"), "1 or more"),
        (("build", "model.onnx", "-o", "x.ekp", "--mean", "a,b"), "not a number"),
        (("build", "model.onnx", "-o", "x.ekp", "--resize", "-3x2"), "--resize"),
        (("build", "model.onnx", "-o", "x.ekp", "--shape", "x"), "NAME=1,3,224,224"),
        (("build", "model.onnx", "-o", "x.ekp", "--precision", "int8"), "--calibrate"),
        (("check", "int8.ekp"), "--data"),
        (("check", "int8.ekp", "--data", "test.npz", "--metric", "cosine"), "--model"),
        (
            ("check", "int8.ekp", "--data", "test.npz", "--metric", "auc", "--window", "3"),
            "--stride",
        ),
        (("bench", "int8.ekp", "-n", "-1"), "-n"),
        (("bench", "int8.ekp", "--model", "model.onnx", "--on", "qemu_arm64"), "--on"),
        (("run", "int8.ekp", "--input", "x.npy", "--entry", "9"), "entry 9"),
        (("agent", "--listen", "127.0.0.1:0"), "token"),
        (("agent",), "--listen"),
    ],
)
def test_wrong_usage(
    work: Path,
    args: tuple[str, ...],
    word: str,
    here: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    refused(here(work, *args), word, code=2)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("build", "nothing.onnx", "-o", "x.ekp"), ("nothing.onnx", "no such file")),
        (("build", "train.npz", "-o", "x.ekp"), ("train.npz",)),
        (("build", "model.onnx", "-o", "x.ekp", "--board", "rpi6"), ("rpi6", "rpi5")),
        (("build", "model.onnx", "-o", "x.ekp", "--calibrate", "nothing.npz"), ("nothing.npz",)),
        (("build", "model.onnx", "-o", "x.ekp", "--calibrate", "bad.npz"), ("bad.npz",)),
        (("build", "broken.onnx", "-o", "x.ekp"), ("broken.onnx",)),
        (("build", "unknown.onnx", "-o", "x.ekp"), ("Bernoulli", "dice")),
        (("build", "model.onnx", "-o", "x.ekp", "--shape", "q=1,1,8,8"), ("q",)),
        (("inspect", "nothing.ekp"), ("nothing.ekp",)),
        (("inspect", "cut.ekp"), ("cut.ekp", "truncated", "copy it again")),
        (("inspect", "flipped.ekp"), ("flipped.ekp", "checksum")),
        (("explain", "cut.ekp"), ("cut.ekp",)),
        (("run", "cut.ekp", "--input", "x.npy"), ("cut.ekp",)),
        (("run", "model.onnx", "--input", "x.npy"), ("model.onnx", "not an EdgeKit package")),
        (("run", "empty.ekp", "--input", "x.npy"), ("empty.ekp", "empty")),
        (("run", "int8.ekp", "--input", "nothing.npy"), ("nothing.npy",)),
        (("run", "int8.ekp", "--input", "wide.npy"), ("[1, 1, 8, 9]", "[1, 1, 8, 8]")),
        (("run", "int8.ekp", "--input", "x.npy", "--isa", "mmx"), ("mmx", "avx2")),
        (("bench", "cut.ekp"), ("cut.ekp",)),
        (("bench", "int8.ekp", "--model", "nothing.onnx"), ("nothing.onnx",)),
        (("bench", "int8.ekp", "--on", "rpi5"), ("rpi5", "edgekit agent")),
        (("check", "cut.ekp", "--data", "test.npz"), ("cut.ekp",)),
        (("check", "int8.ekp", "--data", "train.npz"), ("labels",)),
        (("check", "int8.ekp", "--data", "wide.npz"), ("--resize",)),
        (("boards", "rpi55"), ("rpi5",)),
    ],
)
def test_wrong_things(
    work: Path,
    args: tuple[str, ...],
    words: tuple[str, ...],
    here: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    refused(here(work, *args), *words)
    assert not (work / "x.ekp").exists() and not list(work.glob("*.part"))


@pytest.mark.parametrize(
    ("args", "word", "code"),
    [
        (("run", "cut.ekp", "--input", "x.npy"), "truncated", 1),
        (("run", "nothing.ekp", "--input", "x.npy"), "check the path", 1),
        (("run", "int8.ekp", "--input", "wide.npy"), "the package wants float32[1, 1, 8, 8]", 1),
        (("run", "int8.ekp", "--input", "x.npy", "--threads", "x"), "--threads", 2),
    ],
)
def test_a_process_ends_with_a_sentence(
    work: Path, args: tuple[str, ...], word: str, code: int
) -> None:
    refused(edgekit(work, *args), word, code=code)


def test_package_that_does_not_fit_is_refused_with_numbers(work: Path) -> None:
    small = work / "small.toml"
    text = (boards.paths.data("boards", "nrf52840dk.toml")).read_text()
    for old, new in (("flash_kib = 1024", "flash_kib = 4"), ("size_kib = 1024", "size_kib = 4")):
        assert old in text
        text = text.replace(old, new)
    small.write_text(text)
    done = edgekit(work, "build", "model.onnx", "-o", "no.ekp", "--board", "small.toml")
    refused(done, "flash", "needed", "too many", "boards it would fit")
    assert not (work / "no.ekp").exists()


def test_a_bug_is_a_sentence_unless_debugging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import edgekit.commands

    def broken(args: object) -> None:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr(edgekit.commands, "boards", broken)
    monkeypatch.delenv("EDGEKIT_DEBUG", raising=False)
    assert cli.main(["boards"]) == 1
    monkeypatch.setenv("EDGEKIT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main(["boards"])


def test_unwritable_output_is_refused(work: Path) -> None:
    refused(edgekit(work, "build", "model.onnx", "-o", "model.onnx/x.ekp"), "cannot write")


@pytest.mark.emulator
def test_emulated_bench_tells_instructions_and_no_time(work: Path) -> None:
    need(emulate.missing(boards.load("qemu_mps2_an386")))
    args = ("bench", "mcu.ekp", "--on", "qemu_mps2_an386", "-n", "4")
    m = data(edgekit(work, *args, "--json"))["measurements"][0]
    assert m["unit"] == "instructions" and m["emulated"] and m["runs"] == 4
    assert len(m["samples"]) == 4 and m["p50"] > 1000 and len(m["ops"]) > 3
    predicted = data(edgekit(work, "explain", "mcu.ekp", "--json"))
    assert [o["isa"] for o in predicted["ops"]] == [o["isa"] for o in m["ops"]]
    assert m["energy_uj"]["value"] is None and m["energy_uj"]["note"]
    out = said(edgekit(work, *args))
    assert "instructions, not time" in " ".join(out.split())
    assert not re.search(r"\b(us|ms)\b", out)

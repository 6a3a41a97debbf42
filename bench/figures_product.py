"""Plan, package, fuzzing, frames, speed beside peers, set-up: what the product as a whole shows."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fuzz
from figures import MODELS, ROOT, Outcome, Skip, item, model

from edgekit import boards, measure, pipeline, toolchain
from edgekit.errors import ModelError, ToolchainError

TABLE = (
    "kws_ref_model.tflite",
    "pretrainedResnet_quant.tflite",
    "mobilenet_v2_1.0_224_quant.tflite",
    "vww_96_float.tflite",
    "resnet20_cifar10.onnx",
)


LOADED = (  # of 1 ms and more
    "mobilenet_v2_1.0_224_quant.tflite",
    "tf2_mobilenet_v2_1.0_224_ptq.tflite",
    "squeezenet_v1.1.onnx",
    "version-RFB-320.onnx",
)
LOADS = 15  # fresh processes


def models() -> list[Path]:
    found = sorted([*MODELS.glob("*.tflite"), *MODELS.glob("*.onnx")])
    if not found:
        raise Skip(f"{MODELS} is absent")
    return found


@item("plan", "arena <= max(1.05 live set, live set + 256 B) for every model")
def plan() -> Outcome:
    figure, holds = {}, True
    for path in models():
        p = pipeline.build(path).plan
        figure[path.name] = {
            "arena": p.main_bytes,
            "live": p.live_bytes,
            "scratch": p.scratch_bytes,
        }
        holds = holds and p.main_bytes <= max(1.05 * p.live_bytes, p.live_bytes + 256)
    return Outcome(figure, holds)


@item("models", "every model builds, opens and passes its self-test")
def builds() -> Outcome:
    from edgekit_runtime import Session

    figure: dict[str, Any] = {}
    for path in models():
        try:
            with Session(pipeline.build(path).data) as s:
                figure[path.name] = f"{len(s.ops())} ops, {s.selftest()} golden"
        except ModelError as e:
            figure[path.name] = f"refused: {e.what}"
    return Outcome(figure, not any(f.startswith("refused") for f in figure.values()))


@item("package.identical", "two processes write the same bytes")
def identical() -> Outcome:
    code = (
        "import sys, hashlib; from edgekit import pipeline\n"
        "print(hashlib.sha256(pipeline.build(sys.argv[1]).data).hexdigest())"
    )
    figure = {}
    for path in (model("kws_ref_model.tflite"), model("resnet20_cifar10.onnx")):
        command = [sys.executable, "-c", code, str(path)]
        runs = [
            subprocess.run(command, capture_output=True, text=True).stdout.strip() for _ in "ab"
        ]
        figure[path.name] = {"sha256": runs[0][:16], "equal": runs[0] == runs[1] != ""}
    return Outcome(figure, all(f["equal"] for f in figure.values()))


@item("fuzz.packages", "200,000 mutants, >= 30 % past the CRC, no crash, no hang")
def packages() -> Outcome:
    try:
        results = fuzz.campaign(200_000, every=True)
    except ToolchainError as e:
        if "no C compiler" in e.what:
            raise Skip(e.what) from None
        return Outcome(f"failed: {e.what}", False)
    mutants = sum(r.mutants for r in results)
    holds = mutants >= 200_000 and all(r.past >= 0.3 * r.mutants for r in results)
    return Outcome({"mutants": mutants, "packages": [asdict(r) for r in results]}, holds)


def tests(*which: str) -> Outcome:
    """Result of some tests: pytest's last line."""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *which],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    last = (done.stdout.strip().splitlines() or [""])[-1]
    figure = {"pytest": " ".join(which), "result": last, "seconds": round(time.monotonic() - begin)}
    return Outcome(figure, done.returncode == 0 and "passed" in last)


@item("fuzz.frames", "100,000 corrupted frames, none accepted wrongly, in Python and C")
def frames() -> Outcome:
    return tests("tests/test_wire.py::test_corrupted_frames_100000")


@item("additions", "an op, an ISA, a board and a sensor cost the files DESIGN.md promises")
def additions() -> Outcome:
    return tests("tests/test_addition.py")


@item("compat", "the first release's package gives the same bytes")
def compat() -> Outcome:
    return tests("tests/test_compat.py")


@item("wheels", "every wheel builds; Linux ones run under qemu")
def wheels() -> Outcome:
    return tests("tests/test_wheels.py")


@item("bench.table", "a table of native beside onnxruntime and LiteRT on five models")
def table() -> Outcome:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in TABLE:
            path = Path(folder) / f"{Path(name).stem}.ekp"
            path.write_bytes(pipeline.build(model(name)).data)
            for t in measure.bench([path], [model(name)]):
                rows.append(measure.facts(t) | {"model": name})
    peers = [r for r in rows if not str(r["file"]).endswith(".ekp")]
    return Outcome(rows, len(rows) == 2 * len(TABLE) and len(peers) == len(TABLE))


def command(folder: Path, *words: str) -> tuple[float, str, bool]:
    """(seconds, last lines, success) of a command."""
    begin = time.monotonic()
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return time.monotonic() - begin, done.stdout[-1500:], done.returncode == 0


@item("setup.clone", "make demo and make test from a fresh clone; demo <= 3 min, test <= 9 min")
def clone() -> Outcome:
    """Both twice: the first call installs, the second is what is timed."""
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(where)], check=True)
        install, _, ok = command(where, "make", "venv")
        first, _, demo_ok = command(where, "make", "demo")
        demo, _, again_ok = command(where, "make", "demo")
        test, last, test_ok = command(where, "make", "test")
    line = (re.findall(r"^.*passed.*$", last, re.M) or [last[-200:]])[-1]
    figure = {
        "install_s": round(install),
        "first_demo_s": round(first),
        "demo_s": round(demo),
        "test_s": round(test),
        "tests": line.strip(" ="),
    }
    return Outcome(figure, ok and demo_ok and again_ok and test_ok and demo <= 180 and test <= 540)


@item("load", "C: open + first run <= 1.15 x a run; <= 1 MB beyond package and memories")
def load() -> Outcome:
    host = boards.load("host")
    program = toolchain.linux_program(host, "load", [ROOT / "bench" / "load.c"])
    figure: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as tmp:
        for name in LOADED:
            path = Path(tmp) / f"{name}.ekp"
            path.write_bytes(pipeline.build(model(name)).data)
            figure[name] = _loaded(program, path)
    return Outcome(figure, all(f["ratio"] <= 1.15 and f["kib"] <= 1024 for f in figure.values()))


def _loaded(program: Path, package: Path) -> dict[str, float]:
    """Of fresh processes: medians of (open + first run) / a later run, the same with mapping and
    clearing the memories ("cold"), and the peak beyond package and memories."""
    ratios, cold, runs, above = [], [], [], []
    for _ in range(LOADS):
        done = subprocess.run(
            [str(program), str(package), "20"], capture_output=True, text=True, check=True
        )
        facts = [(key, int(value)) for key, value in map(str.split, done.stdout.splitlines())]
        run = statistics.median(v for k, v in facts if k == "run")
        ratios.append(sum(v for k, v in facts if k in ("open", "first")) / run)
        cold.append(sum(v for k, v in facts if k in ("map", "open", "first")) / run)
        runs.append(run)
        above += [v for k, v in facts if k == "above"]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "cold": round(statistics.median(cold), 3),
        "run_us": round(statistics.median(runs) / 1e3, 1),
        "kib": max(above),
    }

"""Firmware: one model's folder everywhere, what it calls, hostile arrays, boards, integrations."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fuzz
from figures import SETS, Outcome, Skip, item, model
from figures_product import tests

from edgekit import boards, cli, emulate
from edgekit.errors import ToolchainError

FREE = "-ffreestanding"
THUMB = f"{FREE} -mthumb"
TARGETS = {  # GCC and its flags
    "cortex-m0plus": ("arm-none-eabi-gcc", f"-mcpu=cortex-m0plus {THUMB} -mfloat-abi=soft"),
    "cortex-m3": ("arm-none-eabi-gcc", f"-mcpu=cortex-m3 {THUMB} -mfloat-abi=soft"),
    "cortex-m4": ("arm-none-eabi-gcc", f"-mcpu=cortex-m4 {THUMB} -mfloat-abi=hard"),
    "cortex-m7": ("arm-none-eabi-gcc", f"-mcpu=cortex-m7 {THUMB} -mfloat-abi=hard"),
    "cortex-m33": ("arm-none-eabi-gcc", f"-mcpu=cortex-m33 {THUMB} -mfloat-abi=hard"),
    "cortex-m55": ("arm-none-eabi-gcc", f"-mcpu=cortex-m55 {THUMB} -mfloat-abi=hard"),
    "rv32imc": ("riscv64-unknown-elf-gcc", f"-march=rv32imc -mabi=ilp32 {FREE}"),
    "x86-64": ("gcc", ""),
    "aarch64": ("aarch64-linux-gnu-gcc", ""),
}


def readme_lines(folder: Path) -> str:
    """What the README says to type, joined by newlines."""
    block = re.search(r"```sh\n(.*?)```", (folder / "README.md").read_text(), re.S)
    return block[1] if block else "false"


def shell(line: str, folder: Path) -> tuple[int, str]:
    """Exit code and output of a shell line."""
    done = subprocess.run(["bash", "-ec", line], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@item("firmware.folder", "KWS: README lines run on M4 and M55; GCC for nine targets, no warning")
def folder() -> Outcome:
    figure: dict[str, Any] = {}
    holds = True
    with tempfile.TemporaryDirectory() as tmp:
        for name in ("qemu_mps2_an386", "qemu_mps3_an547"):
            if why := emulate.missing(boards.load(name)):
                raise Skip(why)
            kws = Path(tmp) / name / "kws"
            source = str(model("kws_ref_model.tflite"))
            args = ["build", source, "--board", name, "--format", "c", "-o", str(kws), "--json"]
            with contextlib.redirect_stdout(io.StringIO()):
                holds = holds and cli.main(args) == 0
            code, said = shell(readme_lines(kws), kws)
            figure[name] = [x for x in said.splitlines() if x.startswith(("kws:", "stack "))]
            holds = holds and code == 0 and "kws: self-test passed" in said
        for target, (cc, flags) in TARGETS.items():
            if not shutil.which(cc):
                raise Skip(f"{cc} is not installed")
            for std in ("c11", "gnu11"):
                extra = f'EXTRA="-std={std}" BUILD=build_{target}_{std}'
                code, said = shell(f'make -s CC={cc} AR=ar CPU="{flags}" {extra} all', kws)
                figure[f"{target} {std}"] = "compiled" if code == 0 else said[-300:]
                holds = holds and code == 0
    return Outcome(figure, holds)


@item(
    "firmware.undefined",
    "memcpy, memset, memmove, memcmp and listed helpers; none for int8 on FPUs",
)
def undefined() -> Outcome:
    return tests("tests/test_embed.py", "-k", "needs_nothing or needs_only_listed")


@item(
    "firmware.fuzz", "1,000,000 CRC-repaired mutants of arrays under the sanitizers, none crashes"
)
def arrays() -> Outcome:
    try:
        results = fuzz.campaign(1_000_000, every=True, found=fuzz.array_subjects(), jobs=2)
    except ToolchainError as e:
        if "no C compiler" in e.what:
            raise Skip(e.what) from None
        return Outcome(f"failed: {e.what}", False)
    mutants = sum(r.mutants for r in results)
    holds = mutants >= 1_000_000 and all(r.past >= 0.3 * r.mutants for r in results)
    return Outcome({"mutants": mutants, "packages": [asdict(r) for r in results]}, holds)


@item("firmware.analyzer", "clang's analyzer finds nothing below native/")
def analyzer() -> Outcome:
    return tests("tests/test_fuzz.py", "-k", "analyzer")


@item(
    "firmware.refusals",
    "both boards: self-test passes; flipped bit, wrong key, old counter refused",
)
def refusals() -> Outcome:
    return tests(
        "tests/test_signing.py", "tests/test_bare.py", "-k", "on_boards or damaged or per_op"
    )


@item("firmware.serial", "four models on both boards by MLCommons Tiny's commands, the host's bits")
def serial() -> Outcome:
    return tests("tests/test_tiny.py")


@item("firmware.integrations", "each integration's sample builds, and runs where it can")
def integrations() -> Outcome:
    return tests("tests/test_integrations.py")


@item("firmware.examples", "three tasks and an op of one's own, run; MFCC with equal bits in C")
def examples() -> Outcome:
    speech = [] if (SETS / "fsdd_8khz.npz").is_file() else ["-m", "not shared"]
    which = "keyword or anomaly or image or custom or short or mfcc or hooks"
    files = ("tests/test_examples.py", "tests/test_mfcc.py", "tests/test_hooks.py")
    return tests(*files, *speech, "-k", which)

"""Modelled cycles of a profile: our own table for Cortex-M4, llvm-mca for other cores.

Both are estimates.  The table knows memory without wait states; llvm-mca knows ideal caches and
branch prediction, and rates each block as a loop of its own.  Models checked against silicon:
cortex-m55 and neoverse-n1, -n2, -v1 of llvm-mca are of use; cortex-m85, cortex-a72 and cortex-a53
are not.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

from profiles import (
    FEATURES,
    TRIPLES,
    Block,
    Profile,
    is_branch,
    is_conditional,
    kind,
    llvm,
    mnemonic,
)

COVER = 0.995  # of the executed instructions are given to llvm-mca
FEW, MANY = 20, 60  # iterations; their difference is the steady state


def modelled(profile: Profile, cpu: str) -> float:
    """Cycles of the run: `m4` is the table, any other name a CPU of llvm-mca."""
    return m4(profile) if cpu == "m4" else mca(profile, cpu)


def m4(profile: Profile) -> float:
    """Cycles by the instruction timings of the Cortex-M4 Technical Reference Manual, 3.3.

    P, the refill of the pipeline after a taken branch, is 1 for a target in the instruction and 2
    for one in a register or in memory.  Division takes 7 of 2 to 12 cycles.
    """
    entered: Counter[int] = Counter()
    for b in profile.blocks:
        entered[b.address] += b.count
    return sum(_m4_block(profile, b, entered[b.end]) for b in profile.blocks)


def _m4_block(profile: Profile, b: Block, next_entered: int) -> float:
    """Cycles of all executions of a block; `next_entered`: executions of what follows it."""
    cycles, after_access = 0.0, False
    taken = max(0, b.count - min(b.count, next_entered)) / b.count  # of a branch at its end
    for i in b.code:
        text = profile.text[i]
        cycles += _m4_instruction(text, after_access, taken)
        after_access = _single_access(text)
    return cycles * b.count


def _single_access(text: str) -> bool:
    """A load or store of one register, with which the next one overlaps."""
    base = mnemonic(text)
    return base.startswith(("ldr", "str", "vldr", "vstr")) and not base.startswith(("ldrd", "strd"))


def _m4_instruction(text: str, after_access: bool, taken: float) -> float:
    base, what = mnemonic(text), kind("t32", text)
    if is_branch("t32", text):
        if base in ("cbz", "cbnz") or is_conditional(base):
            return 1 + taken
        popped = registers(text) if base in ("pop", "ldm") else 0
        return 1 + popped + (1 if base in ("b", "bl") else 2)
    if what in ("load", "store"):
        if "{" in text:
            return 1 + registers(text)
        if base.startswith(("ldrd", "strd")):
            return 3
        return 1 if after_access or what == "store" else 2
    if what == "divide":
        return 14 if base.startswith("v") else 7
    if re.match(r"v(fn?m|n?ml)[as]", base):
        return 3
    return 1


def registers(text: str) -> int:
    """Registers in the braces of a load or store of several; `d` registers count twice."""
    inside = re.search(r"\{(.*?)\}", text)
    total = 0
    for part in inside.group(1).split(",") if inside else []:
        ends = re.findall(r"([a-z]+)(\d*)", part)
        first, last = ends[0], ends[-1]
        n = int(last[1]) - int(first[1]) + 1 if len(ends) == 2 and first[1] and last[1] else 1
        total += n * (2 if first[0] == "d" else 1)
    return total


def mca(profile: Profile, cpu: str) -> float:
    """Cycles by llvm-mca: each block's steady state times its executions, scaled to all of them."""
    total = profile.instructions
    chosen: list[Block] = []
    covered = 0
    for b in sorted(profile.blocks, key=lambda b: -b.count * len(b.code)):
        if covered >= COVER * total:
            break
        chosen.append(b)
        covered += b.count * len(b.code)
    comment = "@" if profile.isa == "t32" else "#"
    source = [".syntax unified"] if profile.isa == "t32" else []
    for i, b in enumerate(chosen):
        lines = [line for c in b.code if (line := _for_mca(profile.isa, profile.text[c]))]
        if lines:
            source += [f"{comment} LLVM-MCA-BEGIN b{i}", *lines, f"{comment} LLVM-MCA-END"]
    few, many = (_mca_run(profile.isa, cpu, source, n) for n in (FEW, MANY))
    cycles = rated = 0.0
    for i, b in enumerate(chosen):
        if i in few and i in many:
            cycles += b.count * (many[i] - few[i]) / (MANY - FEW)
            rated += b.count * len(b.code)
    if rated < 0.9 * total:
        print(f"llvm-mca rated {rated / total:.1%} of the instructions", file=sys.stderr)
    return cycles * total / rated if rated else float("nan")


def _for_mca(isa: str, text: str) -> str:
    """The instruction without what llvm-mca cannot take: targets of branches, predication."""
    what = kind(isa, text)
    if what == "loop":
        return ""  # almost free after the first pass
    if what == "branch":
        return "nop" if isa == "a64" else "cmp r12, r12"
    if text in ("?", "it", "vpt") or mnemonic(text) in ("adr", "adrp", "hint", "svc", "bkpt"):
        return "nop"
    name, _, operands = text.partition(" ")
    if (
        isa == "t32"
        and what in ("vector", "mac", "load", "store")
        and re.search(r"\bq\d", operands)
    ):
        name = re.sub(r"^(v[a-z]+?)[te](?=\.)", _unpredicated, name)
    return f"{name} {operands}"


def _unpredicated(found: re.Match[str]) -> str:
    """`vldrbt` as `vldrb`; names that end in t or e of themselves stay."""
    own = ("vmovlt", "vmovnt", "vmullt", "vqmovnt", "vqmovunt", "vshllt", "vshrnt", "vrshrnt")
    return found.group(0) if found.group(0).startswith(own) else found.group(1)


def _mca_run(isa: str, cpu: str, source: list[str], iterations: int) -> dict[int, int]:
    """Total cycles of each region."""
    command = [llvm("llvm-mca"), f"-mtriple={TRIPLES[isa]}", f"-mcpu={cpu}"]
    command += [f"-mattr={FEATURES[isa]}", f"-iterations={iterations}", "-instruction-info=false"]
    command += ["-resource-pressure=false", "-skip-unsupported-instructions=any"]
    text = "\n".join(source) + "\n"
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    found = {}
    for region in re.split(r"(?=\[\d+\] Code Region)", done.stdout):
        name = re.search(r"Code Region - b(\d+)", region)
        cycles = re.search(r"Total Cycles:\s+(\d+)", region)
        if name and cycles:
            found[int(name.group(1))] = int(cycles.group(1))
    if not found:
        raise SystemExit(f"llvm-mca -mcpu={cpu}: {done.stderr.strip()[:300]}")
    return found

"""What a marked run executed: classes, functions, hot blocks and modelled cycles of a profile.

    python bench/profiles.py x.profile [--macs N] [--hot 3] [--cycles m4,cortex-m55,neoverse-n1]

A profile is written by bench/qemu/ekcount.c.  Opcodes are decoded by llvm-mc (Debian: llvm-19),
which knows all of Helium and SVE.  (Not named profile.py: the standard library has that name.)
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TRIPLES = {"a64": "aarch64-linux-gnu", "t32": "thumbv8.1m.main-none-eabi"}
FEATURES = {
    "a64": "+v8.6a,+dotprod,+i8mm,+bf16,+fullfp16,+sve2",
    "t32": "+mve.fp,+fp64,+dsp,+lob,+ras,+pacbti",
}
CONDITIONS = r"eq|ne|cs|hs|cc|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le"


@dataclass(frozen=True)
class Block:
    """A straight piece of code: address, executions, symbol, opcodes as (opcode, bytes)."""

    address: int
    count: int
    symbol: str
    code: tuple[tuple[int, int], ...]

    @property
    def end(self) -> int:
        """Address after it."""
        return self.address + sum(size for _, size in self.code)


@dataclass(frozen=True)
class Profile:
    """The blocks of one run; `isa` a64 or t32; `text` the assembly of each opcode."""

    isa: str
    blocks: tuple[Block, ...]
    text: dict[tuple[int, int], str]

    @property
    def instructions(self) -> int:
        """Executed in all."""
        return sum(b.count * len(b.code) for b in self.blocks)


def llvm(name: str) -> str:
    """A tool of LLVM; SystemExit saying what to install where it is missing."""
    found = shutil.which(f"{name}-19") or shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is not installed (apt-get install llvm-19)")
    return found


def read(path: Path) -> Profile:
    """Reads and decodes a profile; translations of the same code are added up."""
    lines = path.read_text().splitlines()
    isa = lines[0].split()[1]
    counts: Counter[tuple[int, tuple[tuple[int, int], ...]]] = Counter()
    symbols: dict[int, str] = {}
    head: list[str] = []
    code: list[tuple[int, int]] = []
    for line in [*lines[1:], "block 0 0 ?"]:
        words = line.split()
        if words[0] != "block":
            code.append((int(words[0], 16), int(words[1])))
            continue
        if head:
            counts[int(head[1], 16), tuple(code)] += int(head[2])
            symbols[int(head[1], 16)] = head[3]
        head, code = words, []
    blocks = tuple(Block(a, n, symbols[a], c) for (a, c), n in counts.items())
    return Profile(isa, blocks, disassemble(isa, {i for b in blocks for i in b.code}))


def disassemble(isa: str, opcodes: Iterable[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """Assembly of each (opcode, bytes).

    IT and VPT make the decoder judge what follows: they are named here, not decoded, and an opcode
    that it refuses stays "?".
    """
    known: dict[tuple[int, int], str] = {}
    asked = []
    for op, size in sorted(opcodes):
        if isa == "t32" and size == 2 and op & 0xFF00 == 0xBF00 and op & 0xF:
            known[op, size] = "it"
        elif isa == "t32" and size == 4 and _is_vpt(op):
            known[op, size] = "vpt"
        else:
            asked.append((op, size))
    source = "\n".join(_bytes(isa, op, size) for op, size in asked) + "\n"
    command = [llvm("llvm-mc"), "--disassemble", f"--triple={TRIPLES[isa]}"]
    command += [f"--mattr={FEATURES[isa]}"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    bad = {int(n) - 1 for n in re.findall(r"<stdin>:(\d+):\d+: warning: invalid", done.stderr)}
    texts = [t.strip() for t in done.stdout.splitlines() if t.startswith("\t") and t.strip()]
    texts = [re.sub(r"\s+", " ", t.split("@")[0]).strip() for t in texts if t[0] != "."]
    told = iter(texts)
    for i, key in enumerate(asked):
        known[key] = "?" if i in bad else next(told, "?")
    if next(told, None) is not None:
        raise SystemExit("llvm-mc decoded more instructions than were asked for")
    return known


def _bytes(isa: str, op: int, size: int) -> str:
    data = op.to_bytes(size, "little")
    if isa == "t32" and size == 4:
        data = (op >> 16).to_bytes(2, "little") + (op & 0xFFFF).to_bytes(2, "little")
    return " ".join(f"0x{b:02x}" for b in data)


def _is_vpt(op: int) -> bool:
    """VPT and VPST, which hold a mask of the predicated instructions after them."""
    return op & 0xEF810F00 == 0xEE010F00 and op & 0x0040E000 != 0


def mnemonic(text: str) -> str:
    """`ldr` of `ldr.w r0, [r1]`."""
    return text.split(" ", 1)[0].split(".")[0]


def kind(isa: str, text: str) -> str:
    """Class of an instruction: mac, load, store, branch, loop, vector, float, divide or alu."""
    name, _, operands = text.partition(" ")
    base = name.split(".")[0]
    if isa == "t32" and re.fullmatch(r"dlst?p?|wlst?p?|le|letp|lctp", base):
        return "loop"
    if is_branch(isa, text):
        return "branch"
    if re.match(r"(v?ldr|v?ldm|ldp|ldn?p|ldu|ld[1-4]|vld|pop|vpop|ldrd|ldx|lda)", base):
        return "load"
    if re.match(r"(v?str|v?stm|stp|stn?p|stu|st[1-4]|vst|push|vpush|stl)", base):
        return "store"
    macs = (
        r"([su]dot|usdot|[su]mmla|usmmla|[su]ml[as]l2?|fml[as]|v?fm[as]|vr?mlal?davh?a?x?|vml[as]"
    )
    macs += r"|smla[a-z]*|smua?d|mla|mls|madd|smull2?|umull2?|smaddl|vmul[lbt]*|vmlas)"
    if re.match(macs + r"(?![a-z]*h$)", base):
        return "mac"
    if base in ("sdiv", "udiv", "vdiv", "vsqrt", "fdiv", "fsqrt"):
        return "divide"
    if isa == "t32" and base.startswith("v"):
        return "vector" if re.search(r"\bq\d", operands) else "float"
    if isa == "a64" and re.search(r"\b[vzqdsh]\d+", operands):
        return "vector"
    return "alu"


def is_branch(isa: str, text: str) -> bool:
    """Whether it may leave the straight line."""
    base = mnemonic(text)
    if isa == "a64":
        return re.fullmatch(r"b|bl|br|blr|ret|cbn?z|tbn?z|braa|retaa", base) is not None
    if base in ("pop", "ldm", "ldr") and re.search(r"\bpc\b", text.split("[")[0]):
        return True
    return is_conditional(base) or base in (
        "b",
        "bl",
        "bx",
        "blx",
        "cbz",
        "cbnz",
        "tbb",
        "tbh",
        "bxns",
    )


def is_conditional(base: str) -> bool:
    """Whether a Thumb mnemonic is a branch with a condition."""
    return re.fullmatch(f"b({CONDITIONS})", base) is not None


def report(profile: Profile, macs: int | None, hot: int, top: int = 12) -> list[str]:
    """Lines for people: total, classes, functions, hot blocks with their code."""
    total = profile.instructions
    kinds: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for b in profile.blocks:
        functions[b.symbol] += b.count * len(b.code)
        for i in b.code:
            kinds[kind(profile.isa, profile.text[i])] += b.count
    out = [f"{total:,} instructions" + (f", {macs / total:.3f} MAC each" if macs else "")]
    out.append("  ".join(f"{k} {n / total:.1%}" for k, n in kinds.most_common()))
    out += [f"{n:14,} {n / total:6.1%}  {name}" for name, n in functions.most_common(top)]
    blocks = sorted(profile.blocks, key=lambda b: -b.count * len(b.code))
    for b in blocks[:hot]:
        share = b.count * len(b.code) / total
        out.append(f"-- {b.address:#x} {b.symbol}: {b.count:,} times, {share:.1%}")
        out += [f"     {profile.text[i]}" for i in b.code]
    return out


def main() -> int:
    """Prints the report of one profile."""
    import cycles

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("profile", type=Path)
    parser.add_argument("--macs", type=int, help="of the whole run")
    parser.add_argument("--hot", type=int, default=3, help="blocks to print")
    parser.add_argument("--cycles", default="", help="m4 (our table) or CPUs of llvm-mca, by comma")
    args = parser.parse_args()
    found = read(args.profile)
    print(*report(found, args.macs, args.hot), sep="\n")
    for cpu in filter(None, args.cycles.split(",")):
        n = cycles.modelled(found, cpu)
        print(f"cycles, model {cpu}: {n:,.0f} ({n / found.instructions:.3f} per instruction)")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    raise SystemExit(main())

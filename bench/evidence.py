"""Makes every figure asked for and writes bench/evidence.json:  make evidence

    python bench/evidence.py [NAME or PREFIX ...] [--fresh] [--list] [--out FILE]

Finished figures are kept while the code (edgekit, native, runtimes, boards, bench) is the same, so
an interrupted run goes on where it stopped.  What needs data or tools that are absent is skipped
with the reason.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from figures import ITEMS, ROOT, Item, Skip

OUT = ROOT / "bench" / "evidence.json"
CODE = ("edgekit", "native", "runtimes", "boards", "bench", "tests/op_cases.py", "tests/models.py")
SUFFIXES = {".py", ".c", ".h", ".toml", ".S", ".ld"}


def git(*args: str) -> str:
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def code_key() -> str:
    """Digest of everything that can change a figure."""
    digest = hashlib.sha256()
    for part in CODE:
        path = ROOT / part
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.suffix in SUFFIXES and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def machine() -> str:
    """CPU model and cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def load(out: Path) -> dict[str, Any]:
    """The figures kept so far, by name."""
    if not out.exists():
        return {}
    return {f["item"]: f for f in json.loads(out.read_text())["figures"]}


def save(out: Path, found: dict[str, Any]) -> None:
    body = {"machine": machine(), "figures": [found[k] for k in sorted(found)]}
    part = out.with_suffix(".part")
    part.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n")
    part.replace(out)


def measure(it: Item, key: str) -> dict[str, Any]:
    """One figure as a record; an exception of the product is a figure that does not hold."""
    begin = time.monotonic()
    record: dict[str, Any] = {
        "item": it.name,
        "command": f"python bench/evidence.py {it.name}",
        "bar": it.bar,
        "commit": git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--short") else ""),
        "code": key,
    }
    try:
        outcome = it.run()
        record |= {"figure": outcome.figure, "holds": bool(outcome.holds)}
    except Skip as e:
        record |= {"figure": f"skipped: {e}", "holds": None}
    except Exception as e:  # recorded, not hidden: the next figures must still be made
        traceback.print_exc()
        record |= {"figure": f"failed: {type(e).__name__}: {e}", "holds": False}
    record["seconds"] = round(time.monotonic() - begin, 1)
    return record


def chosen(wanted: Iterable[str]) -> list[Item]:
    """Items whose name is, or begins with, one of the given."""
    names = list(wanted)
    found = [
        i
        for n, i in ITEMS.items()
        if not names or any(n == w or n.startswith(w + ".") for w in names)
    ]
    if not found:
        raise SystemExit(f"no figure is named {names}; known: {', '.join(ITEMS)}")
    return found


def register() -> None:
    """Loads every file of figures."""
    for path in sorted((ROOT / "bench").glob("figures_*.py")):
        importlib.import_module(path.stem)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="figures or groups, as in accuracy.kws or parity")
    parser.add_argument("--fresh", action="store_true", help="make finished ones again")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    register()
    items = chosen(args.names)
    if args.list:
        print("\n".join(f"{i.name}: {i.bar}" for i in items))
        return 0
    key = code_key()
    for it in items:
        kept = load(args.out).get(it.name)
        if kept and kept["code"] == key and kept["holds"] is not None and not args.fresh:
            record = kept
        else:
            record = measure(it, key)
            save(args.out, load(args.out) | {it.name: record})
        word = {True: "holds", False: "DOES NOT HOLD", None: ""}[record["holds"]]
        print(f"{it.name}: {json.dumps(record['figure'], ensure_ascii=False)}  {word}", flush=True)
    missed = [i.name for i in items if load(args.out)[i.name]["holds"] is False]
    if missed:
        print(f"do not hold: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The ledger of a run, `ledger.jsonl`: a line per finished step."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgekit import package
from edgekit.compress import meter

NAME = "ledger.jsonl"


@dataclass(frozen=True)
class Entry:
    """A line of the ledger: what a step did, on the native kernels.

    accuracy, float_accuracy, worst_class (its recall): 0..1, None without labels; agreement: equal
    top-1 with the float graph.  sqnr_db: of the outputs.  joules: of the step, from the source that
    `energy` names; None: it says why.  layers: quantized op -> sqnr_db of its output against the
    float graph it was made from, and the bits of its weights where it has any.
    """

    step: int
    do: str
    settings: dict[str, Any]
    key: str
    accuracy: float | None
    float_accuracy: float | None
    agreement: float
    worst_class: float | None
    sqnr_db: float
    package_bytes: int
    weight_bytes: int
    macs: int
    seconds: float
    effect: str
    joules: float | None = None
    energy: str = meter.NONE
    layers: dict[str, dict[str, float]] = field(default_factory=dict)


def read(folder: Path) -> dict[str, Entry]:
    """Finished steps by key; a line that is no entry does not count."""
    found: dict[str, Entry] = {}
    path = folder / NAME
    if not path.exists():
        return found
    for line in path.read_bytes().splitlines():
        try:
            e = Entry(**json.loads(line))
        except (ValueError, TypeError):
            continue
        found[e.key] = e
    return found


def add(folder: Path, entry: Entry) -> None:
    """Appends the line of a step; the file is written in one piece."""
    path = folder / NAME
    lines = path.read_bytes() if path.exists() else b""
    lines += b"\n" if lines and not lines.endswith(b"\n") else b""
    package.save(path, lines + (json.dumps(asdict(entry)) + "\n").encode())

"""Instruction counts hold: none of bench/counts.json rises by more than half a percent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import arm
import pytest
from conftest import need

from edgekit import boards, emulate

SLACK = 1.005
TABLE: dict[str, Any] = json.loads(arm.COUNTS.read_text())


def test_table_is_whole() -> None:
    assert set(TABLE["instructions"]) == {f"{net} {where}" for net, where in arm.GATE}


@pytest.mark.emulator
@pytest.mark.shared
@pytest.mark.parametrize(("net", "where"), arm.GATE)
def test_no_more_instructions(net: str, where: str, shared_data: Path) -> None:
    core = arm.core(where)
    need(emulate.missing(boards.load(core.board)))
    if arm.compiler() != TABLE["compiler"]:
        pytest.skip(f"counts are those of {TABLE['compiler']}, here is {arm.compiler()}")
    before = TABLE["instructions"][f"{net} {where}"]
    now = arm.count(arm.tiny(arm.TINY[net], core), core, profile=False)["instructions"]
    assert now <= before * SLACK, (
        f"{net} on {where}: {now:,} instructions, {before:,} before; "
        "if the rise is meant, run `python bench/arm.py --gate` and say why in the commit"
    )

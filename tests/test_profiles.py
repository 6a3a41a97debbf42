"""Profiles of emulated runs: decoding, classes, the Cortex-M4 table, and the plugin's totals."""

from __future__ import annotations

import shutil
from pathlib import Path

import arm
import cycles
import numpy as np
import profiles
import pytest
from conftest import need

from edgekit import boards, emulate, pipeline
from edgekit.ir import Graph, Tensor

# loop: ldr r2,[r0]; ldr r3,[r1]; smlad r4,r2,r3,r4; subs r5,#1; bne loop    pop {r4,pc}
LOOP = """isa t32
block 100 10 f
6802 2
680b 2
fb224403 4
3d01 2
d1f9 2
block 10c 1 f
bd10 2
"""


@pytest.fixture(autouse=True)
def tools() -> None:
    missing = [
        t for t in ("llvm-mc", "llvm-mca") if not shutil.which(f"{t}-19") and not shutil.which(t)
    ]
    need("llvm-mc is not installed (apt-get install llvm-19)" if missing else "")


def profile(tmp_path: Path, text: str) -> profiles.Profile:
    path = tmp_path / "x.profile"
    path.write_text(text)
    return profiles.read(path)


def test_thumb_is_decoded_and_classed(tmp_path: Path) -> None:
    found = profile(tmp_path, LOOP)
    assert found.instructions == 51
    texts = [found.text[i] for i in found.blocks[0].code]
    assert [profiles.mnemonic(t) for t in texts] == ["ldr", "ldr", "smlad", "subs", "bne"]
    kinds = [profiles.kind("t32", t) for t in texts]
    assert kinds == ["load", "load", "mac", "alu", "branch"]


def test_m4_table_by_hand(tmp_path: Path) -> None:
    """2 + 1 (overlapped) + 1 + 1 + 1 and one more for each of nine taken branches; pop to pc 5."""
    found = cycles.modelled(profile(tmp_path, LOOP), "m4")
    assert found == pytest.approx(10 * 6 + 9 + (1 + 2 + 2))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("push {r4, lr}", 2),
        ("vldmia r0!, {s0-s7}", 0),
        ("ldm r0!, {r1, r2, r3}", 3),
        ("vpush {d8, d9}", 4),
    ],
)
def test_registers_of_lists(text: str, want: int) -> None:
    assert cycles.registers(text) == (want or 8)


@pytest.mark.parametrize(
    ("isa", "text", "want"),
    [
        ("a64", "sdot v0.4s, v1.16b, v2.4b[0]", "mac"),
        ("a64", "smmla v16.4s, v8.16b, v24.16b", "mac"),
        ("a64", "ldp q0, q1, [x0]", "load"),
        ("a64", "b.lo #-320", "branch"),
        ("a64", "sqrdmulh v0.4s, v1.4s, v2.4s", "vector"),
        ("t32", "vmladava.s8 r0, q0, q1", "mac"),
        ("t32", "vldrb.u8 q0, [r0], #16", "load"),
        ("t32", "letp lr, #-12", "loop"),
        ("t32", "vcvt.f32.s32 s0, s0", "float"),
    ],
)
def test_kinds(isa: str, text: str, want: str) -> None:
    assert profiles.kind(isa, text) == want


@pytest.mark.emulator
@pytest.mark.parametrize("where", [c.name for c in arm.CORES])
def test_profile_adds_up_to_the_count(where: str) -> None:
    """The profile holds every instruction between the marks, and no other."""
    core = arm.core(where)
    board = boards.load(core.board)
    need(emulate.missing(board))
    g = Graph("net", inputs=["x"], outputs=["y"])
    g.tensors["x"] = Tensor("x", (4, 32))
    w = np.random.default_rng(0).standard_normal((16, 32)).astype(np.float32)
    g.tensors["w"] = Tensor("w", w.shape, data=w)
    g.emit("linear", ["x", "w", ""], {"lo": 0.0, "hi": 6.0}, outputs=["y"])
    data = pipeline.build(g, board=board, isa=core.isa, precision="float32").data
    found = arm.count(data, core)
    assert found["instructions"] > 4 * 16 * 32 / 8
    assert found["profiled"] == found["instructions"]
    assert all(n > 0.1 * found["instructions"] for n in found["cycles"].values())
    assert sum(o[3] for o in found["ops"]) <= found["instructions"]

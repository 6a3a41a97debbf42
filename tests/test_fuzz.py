"""5,000 mutated packages under ASan and UBSan; `make fuzz` runs 1,400,000; `make analyze`."""

from __future__ import annotations

import subprocess

import fuzz
import pytest
from conftest import ROOT, need_program
from package_cases import conv_net, int8_net, two_entries

from edgekit import boards, embed, package, pipeline
from edgekit.errors import ToolchainError
from edgekit.ir import Graph
from edgekit.layout import Target
from edgekit.ops import conv2d

MUTANTS = 5000
PAST = 0.3  # the share that must get past the checksum, or the campaign proves nothing


@pytest.fixture(scope="module", autouse=True)
def compiler() -> str:
    try:
        return fuzz.compiler()
    except ToolchainError as e:
        pytest.skip(e.what)


@pytest.fixture(scope="module")
def subjects() -> list[fuzz.Subject]:
    return fuzz.subjects()


@pytest.mark.parametrize("index", range(3))
def test_mutants_are_refused_with_a_sentence_or_run_safely(
    index: int, subjects: list[fuzz.Subject]
) -> None:
    count = -(-MUTANTS // len(subjects))
    result = fuzz.mutate(subjects[index], count, seed=100 + index, limit_s=240)
    assert result.mutants == count + 1  # the package itself comes first
    assert result.past >= PAST * result.mutants
    assert result.opened > count // 10 and result.ran >= result.opened // subjects[index].run_each
    assert sum(result.opens.values()) == result.mutants
    assert {"8", "9", "10"} <= result.opens.keys(), (
        "tables, tensors and ops must all have been reached"
    )


def test_several_entries_and_state_survive_every_byte() -> None:
    subject = fuzz.Subject("two_entries", two_entries(), 0)
    result = fuzz.mutate(subject, 100, seed=1, every=True, limit_s=240)
    assert result.mutants > 2500 and result.ran == result.opened > 0


def test_scratch_in_the_arena_survives_every_byte() -> None:
    subject = fuzz.Subject(
        "bare", pipeline.package_graph(conv_net(), Target(tile_rows=4, linux=False)), 0
    )
    result = fuzz.mutate(subject, 100, seed=1, every=True, limit_s=240)
    assert result.ran == result.opened > 0


@pytest.mark.parametrize("tables", [False, True], ids=["constants", "tables"])
def test_what_is_unpacked_survives_every_byte(tables: bool) -> None:
    data = int8_net(board="phone_i8mm", channels=20)
    data = package.reassemble(data, package.sections(data), tables=tables)
    assert (package.stored(data)["OPS "] is None) == tables
    subject = fuzz.Subject("phone", data, 0)
    result = fuzz.mutate(subject, 2000, seed=1, every=True, limit_s=240)
    assert result.ran == result.opened > 0 and "8" in result.opens


@pytest.mark.parametrize("pattern", ["1:8", "blocks"])
def test_sparse_weights_survive_every_byte(pattern: str) -> None:
    graph, _ = _sparse_case(pattern)
    subject = fuzz.Subject(pattern, pipeline.package_graph(graph, Target(("dsp",))), 0)
    result = fuzz.mutate(subject, 100, seed=1, every=True, limit_s=240)
    assert result.ran == result.opened > 0


def _sparse_case(pattern: str) -> tuple[Graph, object]:
    name = f"{pattern.replace(':', 'of')}_pointwise_deep"
    return next((g, x) for label, g, x in conv2d.samples() if label == name)


def test_a_package_that_does_not_open_is_no_subject() -> None:
    data = bytearray(pipeline.build(conv_net()).data)
    data[0] ^= 1
    with pytest.raises(ToolchainError, match="does not open"):
        fuzz.mutate(fuzz.Subject("broken", bytes(data), 0), 10, seed=1)


def test_mutants_of_an_array_are_refused_or_run_safely() -> None:
    """The folder of `build --format c`: its own ops and kernels, memories of its sizes."""
    made = embed.project(int8_net(), boards.load("rp2040"), "net")
    subject = fuzz.Subject("net", made.package, 0, made)
    result = fuzz.mutate(subject, MUTANTS, seed=7, limit_s=240)
    assert result.past >= PAST * result.mutants and result.opened > MUTANTS // 10
    assert {"8", "9", "10", "11"} <= result.opens.keys()  # 11: an op that the folder does not have


@pytest.mark.slow
def test_the_analyzer_finds_nothing() -> None:
    clang = need_program("clang-19", "clang-19")
    need_program("gcc", "gcc")
    line = ["make", "analyze", f"CLANG={clang}"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]

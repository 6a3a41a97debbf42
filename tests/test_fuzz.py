"""5,000 mutated packages under ASan and UBSan; `make fuzz` runs 200,000 and more."""

from __future__ import annotations

import fuzz
import pytest
from package_cases import conv_net, two_entries

from edgekit import pipeline
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

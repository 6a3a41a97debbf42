"""Which weight layouts a package carries, and what each costs."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit import boards, pipeline
from edgekit.errors import UsageError
from edgekit.ir import Graph, Tensor


def net() -> Graph:
    rng = np.random.default_rng(0)
    g = Graph("linear")
    g.add_tensor(Tensor("x", (1, 256)))
    g.inputs = ["x"]
    w = g.const("w", rng.normal(size=(256, 256)).astype(np.float32))
    g.outputs = [g.emit("linear", ["x", w])]
    return g


def size(board: str, isa: list[str] | None = None) -> int:
    x = np.random.default_rng(1).normal(size=(4, 256)).astype(np.float32)
    return len(pipeline.build(net(), board=board, calibration={"x": x}, isa=isa).data)


@pytest.mark.parametrize("board", [b for b in boards.ids() if b != "host"])
def test_a_board_gets_its_weights_once(board: str) -> None:
    assert size(board) < 1.15 * 256 * 256


def test_two_layouts_cost_the_weights_twice() -> None:
    both = size("phone_i8mm", ["dotprod", "i8mm"])
    assert both > 1.9 * 256 * 256
    assert size("phone_i8mm", ["dotprod"]) < 0.6 * both


def test_an_isa_the_board_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="mve"):
        size("nucleo_l4r5zi", ["mve"])

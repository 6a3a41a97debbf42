"""The cost model: predicted instructions against counted ones, and where it cannot know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import need

from edgekit import boards, cli, contents, cost, emulate, explain, layout, pipeline


def test_every_isa_of_arm_has_rates_and_each_kind_of_op_a_fallback() -> None:
    isas = cost.table()["isas"]
    assert set(isas) == {"neon", "dotprod", "i8mm", "dsp", "mve"}
    assert list(isas) == [n for n in layout.isas() if n in isas], "best last"
    for facts in isas.values():
        assert facts["model"] in cost.ERROR
        for rates in facts["rates"].values():
            assert min(rates.values()) >= 0
            assert any(rates[f] for f in cost.FEATURES)
        for key in ("linear_i4", "lstm", "resize_f32", "conv_transpose2d"):
            assert cost.fallback(key) in facts["rates"]


def test_no_estimate_where_no_emulated_core_stands_for_it() -> None:
    from package_cases import conv_net

    built = pipeline.build(conv_net())
    assert cost.predict(built.lowered, boards.load("rp2040")) is None
    phone = cost.predict(built.lowered, boards.load("rpi5"))
    assert phone is not None and phone.seconds is not None
    assert phone.seconds == pytest.approx(phone.cycles / 2.4e9, rel=1e-3)


@pytest.mark.shared
@pytest.mark.emulator
@pytest.mark.parametrize("board", ["qemu_mps2_an386", "qemu_mps3_an547"])
@pytest.mark.parametrize("file", ["kws_ref_model", "pretrainedResnet_quant", "ad01_int8"])
def test_predicted_instructions(
    file: str, board: str, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = boards.load(board)
    need(emulate.missing(where))
    model = shared_data / "models" / f"{file}.tflite"
    built = pipeline.build(model, board=where)
    path = tmp_path / "m.ekp"
    path.write_bytes(built.data)
    x = np.random.default_rng(1).integers(-128, 128, 65536).astype(np.int8)
    size = sum(built.graph.tensors[n].nbytes for n in built.graph.inputs)
    ran = emulate.run_package(where, path, [x.tobytes()[:size]], count=True)
    read = contents.read(built.data)
    found = explain.explain(built.data, read, where)
    (estimate,) = found.estimates
    counted = sum(ran.op_instructions[0])
    assert abs(estimate.instructions / counted - 1) <= 0.15
    assert cli.main(["explain", str(model), "--board", board]) == 0
    assert "estimate: " in capsys.readouterr().out

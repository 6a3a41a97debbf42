"""Bands over the first layers and concatenations in place: the same bits in less memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime import Session

from edgekit import boards, cli, contents, evaluate, package, patchwise, pipeline, plan
from edgekit.ir import Graph, QuantSpec, Tensor
from edgekit.passes.lower import lower

I8 = np.int8
Q = QuantSpec.per_tensor(0.05, -3)


def net(height: int = 24, width: int = 16, stride: int = 2) -> Graph:
    """conv - (depthwise - pointwise + skip) - max pool - flatten, int8, seeded weights."""
    rng = np.random.default_rng(height)
    g = Graph("net")
    g.add_tensor(Tensor("x", (1, height, width, 16), "i8", None, Q))
    g.inputs = ["x"]

    def w(shape: tuple[int, ...], axis: int) -> tuple[str, str]:
        n = shape[axis]
        spec = QuantSpec.per_axis(rng.uniform(0.002, 0.01, n).astype(np.float32), axis)
        weights = g.const("w", rng.integers(-127, 128, shape).astype(I8), spec)
        return weights, g.const("b", rng.integers(-500, 500, n).astype(np.int32))

    same = {"pad": (1, 1, 1, 1)}
    q = {"quant": Q, "dtype": "i8"}
    attrs = {**same, "stride": (stride, stride)}
    a = g.emit("conv2d", ["x", *w((16, 3, 3, 16), 0)], attrs, name="a", **q)  # type: ignore[arg-type]
    b = g.emit("depthwise_conv2d", [a, *w((3, 3, 16), 2)], same, name="b", **q)  # type: ignore[arg-type]
    c = g.emit("conv2d", [b, *w((16, 1, 1, 16), 0)], {}, name="c", **q)  # type: ignore[arg-type]
    d = g.emit("binary", [a, c], {"kind": "add"}, name="d", **q)  # type: ignore[arg-type]
    pool = {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0, 0, 0), "dilation": (1, 1)}
    e = g.emit("max_pool2d", [d], pool, name="e", **q)  # type: ignore[arg-type]
    size = g.tensors[e].size
    g.outputs = [g.emit("reshape", [e], {"shape": (1, size)}, name="y", **q)]  # type: ignore[arg-type]
    return g


def run(g: Graph, p: plan.Plan, x: np.ndarray, isa: list[str] | None) -> bytes:
    with Session(package.write([("main", g, p)], meta={}), isa=isa) as s:
        return s.run({"x": x})["y"].tobytes()


@pytest.mark.parametrize("isa", [[], None])
@pytest.mark.parametrize("board", ["host", "qemu_mps2_an386"])
def test_bands_give_the_same_bits(board: str, isa: list[str] | None) -> None:
    target = pipeline.target_of(boards.load(board))
    tried = 0
    for height, stride in ((24, 2), (23, 1), (9, 2)):
        g = net(height, stride=stride)
        x = np.random.default_rng(5).integers(-128, 128, (1, height, 16, 16)).astype(I8)
        low = lower(g, target)
        want = evaluate.run(g, {"x": x})["y"].tobytes()
        assert run(low, plan.make(low, target), x, isa) == want
        joint = not target.linux  # there c and d are one op
        assert list(patchwise.cuts(low)) == ([3, 4] if joint else [4, 5])
        for count in patchwise.cuts(low):
            for bands in (2, 3, 4, height // 4):
                new = patchwise.split(low, count, bands)
                if new is None:
                    continue
                assert run(new, plan.make(new, target), x, isa) == want
                tried += 1
    assert tried >= 20


def test_the_budget_is_kept_at_the_least_work() -> None:
    board = boards.load("qemu_mps2_an386")
    target = pipeline.target_of(board)
    low = lower(net(48, 32, 1), target)
    whole = plan.make(low, target).main_bytes
    least = 0
    for budget in (whole - 16, whole * 3 // 4):
        found = patchwise.fit(low, target, budget)
        assert found is not None
        _, p, facts = found
        assert p.main_bytes == facts.arena <= budget < facts.arena_before == whole
        assert facts.macs >= facts.macs_before and facts.macs >= least
        least = facts.macs
    assert patchwise.fit(low, target, 16) is None or least


def test_rows_of_odd_bytes_are_left_alone() -> None:
    g = net(24)
    low = lower(g, pipeline.target_of(boards.load("host")))
    thin = low.copy()
    thin.tensors["x"] = Tensor("x", (1, 24, 1, 3), "i8", None, Q)
    assert patchwise.split(thin, 4, 3) is None
    assert patchwise.split(low, 4, 25) is None  # more bands than rows


def test_concatenations_are_written_in_place() -> None:
    g = Graph("joined")
    g.add_tensor(Tensor("x", (1, 8, 16)))
    g.inputs = ["x"]
    kinds = ("max", "min")
    parts = [g.emit("reduce", ["x"], {"kind": k, "axes": 1 << 2, "keepdims": 1}) for k in kinds]
    wide = [g.emit("tile", [p], {"repeats": (1, 2, 4)}) for p in parts]
    g.outputs = [g.emit("concat", wide, {"axis": 1}, name="y")]
    target = pipeline.target_of(boards.load("host"))
    low = lower(g, target)
    new = patchwise.concat_in_place(low)
    assert [op.type for op in new.ops].count("concat") == 0 and len(new.views) == 2
    x = np.random.default_rng(2).normal(size=(1, 8, 16)).astype(np.float32)
    p = plan.make(new, target)
    assert p.main_bytes < plan.make(low, target).main_bytes
    assert run(new, p, x, None) == run(low, plan.make(low, target), x, None)
    inner = Graph("inner", inputs=["x"])
    inner.add_tensor(Tensor("x", (1, 4, 4)))
    parts = [inner.emit("unary", ["x"], {"kind": k}) for k in ("abs", "neg")]
    inner.outputs = [inner.emit("concat", parts, {"axis": 2}, name="y")]
    assert patchwise.concat_in_place(lower(inner, target)).views == {}


@pytest.mark.shared
def test_mobilenet_in_half_its_arena(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shared_data / "models" / "mobilenet_v2_1.0_224_quant.tflite"
    plain = pipeline.build(model, board="host")
    half = plain.plan.main_bytes // 2
    built = pipeline.build(model, board="host", arena=half)
    assert built.plan.main_bytes <= half
    facts = contents.read(built.data).meta["patches"]
    assert "more multiply-accumulates" in facts
    x = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3)).astype(np.uint8)
    with Session(plain.data) as a, Session(built.data) as b:
        name = a.outputs()[0].name
        assert a.run(x)[name].tobytes() == b.run(x)[name].tobytes()
        assert b.selftest() == 1
    path = tmp_path / "m.ekp"
    path.write_bytes(built.data)
    assert cli.main(["explain", str(path)]) == 0
    assert "patch-wise: first" in capsys.readouterr().out

"""Memory plans: nothing that lives overlaps, and the arena is close to what must live at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime import Session
from hypothesis import given, settings
from hypothesis import strategies as st
from package_cases import START, accumulator, conv_net

from edgekit import contents, evaluate, ops, pipeline, plan
from edgekit.ir import Graph, Tensor
from edgekit.layout import Target
from edgekit.passes.lower import lower

F = np.float32
MODELS = [
    "kws_ref_model.tflite",
    "kws_ref_model_float32.tflite",
    "pretrainedResnet.tflite",
    "pretrainedResnet_quant.tflite",
    "vww_96_float.tflite",
    "vww_96_int8.tflite",
    "ad01_fp32.tflite",
    "ad01_int8.tflite",
    "mobilenet_v1_0.25_128_quant.tflite",
    "mobilenet_v2_1.0_224_quant.tflite",
    "resnet20_cifar10.onnx",
    "squeezenet_v1.1.onnx",
    "version-RFB-320.onnx",
]


def limit(live: int) -> float:
    """Bytes an arena may have, given the largest live set."""
    return max(1.05 * live, live + 256)


@st.composite
def buffer_sets(draw: st.DrawFn) -> tuple[list[plan.Buffer], int]:
    """Buffers with any lifetimes, and the number of ops."""
    n_ops = draw(st.integers(1, 12))
    found = []
    for i in range(draw(st.integers(1, 14))):
        first = draw(st.integers(-1, n_ops - 1))
        last = draw(st.integers(first, n_ops))
        found.append(plan.Buffer((f"t{i}",), 16 * draw(st.integers(1, 40)), first, last))
    return found, n_ops


def assert_apart(blocks: dict[plan.Buffer, int], top: int) -> None:
    items = list(blocks.items())
    for i, (a, at) in enumerate(items):
        assert at % plan.ALIGN == 0
        assert at >= 0 and at + a.bytes <= top
        for b, bt in items[i + 1 :]:
            alive_together = a.first <= b.last and b.first <= a.last
            assert not (alive_together and at < bt + b.bytes and bt < at + a.bytes), (a, b)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(buffer_sets())
def test_any_lifetimes_are_placed_apart_and_close_to_the_live_set(
    case: tuple[list[plan.Buffer], int],
) -> None:
    bufs, n_ops = case
    live = plan.live_set(bufs, n_ops)
    top, at = plan.arrange(bufs, live)
    assert set(at) == set(bufs)
    assert_apart(at, top)
    assert live <= top <= limit(live)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Random float graphs of unary, binary and reshape (in place) and concat over what was made."""
    g = Graph("random")
    for i in range(draw(st.integers(1, 2))):
        g.inputs.append(g.add_tensor(Tensor(f"x{i}", (draw(st.integers(1, 40)), 4))))
    made = list(g.inputs)
    for i in range(draw(st.integers(1, 14))):
        a = draw(st.sampled_from(made))
        kind = draw(st.sampled_from(["unary", "binary", "concat", "reshape"]))
        if kind == "unary":
            made.append(g.emit("unary", [a], {"kind": "neg"}, name=f"t{i}"))
        elif kind == "reshape":
            n = g.tensors[a].shape[0]
            made.append(g.emit("reshape", [a], {"shape": (n, 4)}, name=f"t{i}"))
        elif kind == "concat":
            b = draw(st.sampled_from(made))
            if g.tensors[a].shape[0] + g.tensors[b].shape[0] > 200:
                continue
            made.append(g.emit("concat", [a, b], {"axis": 0}, name=f"t{i}"))
        else:
            same = [m for m in made if g.tensors[m].shape == g.tensors[a].shape]
            b = draw(st.sampled_from(same))
            made.append(g.emit("binary", [a, b], {"kind": "add"}, name=f"t{i}"))
    g.outputs = sorted(set(draw(st.lists(st.sampled_from(made), min_size=1, max_size=3))))
    g.outputs = [o for o in g.outputs if o not in g.inputs]
    g.outputs = g.outputs or [g.emit("unary", [made[-1]], {"kind": "abs"}, name="y")]
    return g


@settings(max_examples=120, deadline=None, derandomize=True)
@given(graphs(), st.booleans())
def test_random_graphs_compute_the_right_values_in_the_planned_memory(g: Graph, keep: bool) -> None:
    """The strongest check of a plan: run it and compare every output, with `keep` every tensor."""
    p = plan.make(g, Target(), keep=keep)
    assert_apart({b: p.offsets[b.names[0]] for b in p.buffers}, p.main_bytes)
    assert p.live_bytes <= p.main_bytes <= limit(p.live_bytes)
    rng = np.random.default_rng(0)
    inputs = {n: rng.normal(size=g.tensors[n].shape).astype(F) for n in g.inputs}
    want = evaluate.run(g, inputs)
    with Session(pipeline.package_graph(g, Target(), keep=keep)) as s:
        got = s.run(inputs)
        for o in g.outputs:
            assert np.array_equal(got[o], want[o]), o
        for o in want if keep else ():
            assert np.array_equal(s.tensor(o), want[o]), o


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.integers(1, 3), st.booleans()), min_size=1, max_size=5
    )
)
def test_scratch_of_boards_is_placed_apart_from_what_its_op_uses(
    layers: list[tuple[int, int, bool]],
) -> None:
    """Random convolutions, whose scratch lies in the arena: same values as with one of its own."""
    g, rng = Graph("convs"), np.random.default_rng(len(layers))
    y = g.inputs = [g.add_tensor(Tensor("x", (1, 9, 8, 5)))]
    for i, (o, k, again) in enumerate(layers):
        w = rng.normal(size=(o, k, k, g.tensors[y[0]].shape[3])).astype(F)
        g.add_tensor(Tensor(f"w{i}", w.shape, "f32", w))
        pad = (k // 2, k // 2, (k - 1) // 2, (k - 1) // 2)
        z = g.emit("conv2d", [y[0], f"w{i}"], {"pad": pad}, name=f"t{i}")
        y = [g.emit("binary", [z, z], {"kind": "add"}, name=f"s{i}") if again else z]
    g.outputs = y
    x = rng.normal(size=(1, 9, 8, 5)).astype(F)
    bare = Target(tile_rows=4, linux=False)
    low = lower(g, bare)
    p = plan.make(low, bare)
    rooms = plan.workspaces(p.scratch, bare)
    blocks = {b: p.offsets[b.names[0]] for b in p.buffers}
    assert_apart(blocks | {r: p.scratch_at[r.first] for r in rooms}, p.main_bytes)
    assert p.live_bytes == plan.floor(low, bare) <= p.main_bytes <= limit(p.live_bytes)
    with Session(pipeline.package_graph(g, bare), isa=[]) as s:
        assert s.memory["scratch"] == 0 and s.memory["main"] == p.main_bytes
        want = evaluate.run(g, {"x": x})[y[0]]
        assert np.allclose(s.run(x)[y[0]], want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


def chain(length: int, inputs_again: bool = False) -> Graph:
    g = Graph("chain")
    g.inputs = [g.add_tensor(Tensor("x", (1, 64)))]
    name = "x"
    for i in range(length):
        name = g.emit("unary", [name], {"kind": "neg"}, name=f"t{i}")
    if inputs_again:
        name = g.emit("binary", [name, "x"], {"kind": "add"}, name="sum")
    g.outputs = [name]
    return g


def test_a_chain_of_in_place_ops_needs_one_buffer() -> None:
    p = plan.make(chain(6), Target())
    assert p.main_bytes == p.live_bytes == 256
    assert len(set(p.offsets.values())) == 1


def test_a_tensor_that_is_read_again_is_not_overwritten() -> None:
    g = chain(3, inputs_again=True)
    p = plan.make(g, Target())
    assert p.main_bytes == 512
    assert p.offsets["x"] != p.offsets["t0"]
    x = np.arange(64, dtype=F)[None]
    with Session(pipeline.package_graph(g, Target())) as s:
        assert np.array_equal(s.run(x)["sum"], np.zeros((1, 64), F))


def test_keep_gives_every_tensor_its_own_place() -> None:
    g = lower(conv_net(), Target())
    p = plan.make(g, Target(), keep=True)
    assert len(set(p.offsets.values())) == len(p.offsets)
    assert p.main_bytes == sum(plan.up(g.tensors[n].nbytes) for n in p.offsets)


def test_outputs_live_to_the_end_and_states_have_a_memory_of_their_own() -> None:
    step, _ = accumulator()
    p = plan.make(step, Target())
    assert "total" not in p.offsets and p.state_offsets == {"total": 0}
    assert p.state_bytes == START.nbytes
    assert plan.lifetimes(step)["step.y"][1] == len(step.ops)


def test_scratch_is_stated_apart_and_granted_per_op() -> None:
    built = pipeline.build(conv_net(), isa=[])
    with Session(built.data, isa=[]) as s:
        assert s.memory["main"] == built.plan.main_bytes
        assert s.memory["scratch"] == built.plan.scratch_bytes > 0
    with Session(built.data, isa=[], threads=3) as s:
        assert s.memory["scratch"] == 3 * built.plan.scratch_bytes
    wanted = [
        d.scratch(o, built.lowered, built.target) if (d := ops.get(o.type)).scratch else 0
        for o in built.lowered.ops
    ]
    assert list(built.plan.scratch) == [plan.up(n) for n in wanted]
    assert list(contents.read(built.data).entries[0].scratch) == list(built.plan.scratch)


@pytest.mark.shared
@pytest.mark.parametrize("model", MODELS)
def test_real_models_stay_within_five_percent_of_the_live_set(
    model: str, shared_data: Path
) -> None:
    built = pipeline.build(shared_data / "models" / model)
    p = built.plan
    assert_apart({b: p.offsets[b.names[0]] for b in p.buffers}, p.main_bytes)
    assert p.live_bytes <= p.main_bytes <= limit(p.live_bytes), (p.main_bytes, p.live_bytes)
    with Session(built.data) as s:
        assert s.memory["main"] == p.main_bytes

"""Passes: each keeps the function of the graph, and does what it is for."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from edgekit import evaluate, passes
from edgekit.ir import Array, Graph, QuantSpec, Tensor
from edgekit.passes import attention, fuse, layout, qdq, recognize, simplify


def weights(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def graph(**inputs: tuple[int, ...]) -> Graph:
    g = Graph("g")
    for name, shape in inputs.items():
        g.inputs.append(g.add_tensor(Tensor(name, shape)))
    return g


def done(g: Graph, *outputs: str) -> Graph:
    g.outputs = list(outputs)
    g.check()
    return g


def apply(g: Graph, *steps: Callable[[Graph], Graph], tolerance: float = 1e-5) -> Graph:
    """The passes' result, checked to compute the same; the graph given stays as it was."""
    rng = np.random.default_rng(0)
    x = {n: rng.normal(size=g.tensors[n].shape).astype(np.float32) for n in g.inputs}
    before = [(op.type, op.inputs, op.outputs) for op in g.ops]
    want = evaluate.outputs(g, x)
    after = g
    for step in steps:
        after = step(after)
    assert [(op.type, op.inputs, op.outputs) for op in g.ops] == before
    got = evaluate.outputs(after, x)
    assert list(got) == list(want)
    for k, w in want.items():
        assert w.shape == got[k].shape
        np.testing.assert_allclose(got[k], w, rtol=tolerance, atol=tolerance)
    return after


def kinds(g: Graph) -> list[str]:
    return [op.attrs["kind"] if op.type in ("unary", "binary") else op.type for op in g.ops]


# -- simplify ------------------------------------------------------------------------------------


def test_constants_fold_but_dequantized_ones_wait() -> None:
    g = graph(x=(2, 3))
    c = g.emit("unary", [g.const("c", weights(3))], {"kind": "exp"})
    q = g.const("q", np.asarray([1, -2, 3], np.int8), QuantSpec.per_tensor(0.5, 1))
    d = g.emit("cast", [q], {"to": "f32"})
    y = g.emit("binary", [g.emit("binary", ["x", c], {"kind": "mul"}), d], {"kind": "add"})
    after = apply(done(g, y), simplify.fold_constants)
    assert kinds(after) == ["cast", "mul", "add"]
    assert kinds(apply(after, simplify.fold_dequantized)) == ["mul", "add"]


def test_identities_vanish_and_outputs_keep_their_names() -> None:
    g = graph(x=(2, 3, 4))
    a = g.emit("transpose", ["x"], {"perm": (0, 1, 2)})
    b = g.emit("reshape", [a], {"shape": (6, 4)})
    c = g.emit("reshape", [b], {"shape": (2, 12)})
    d = g.emit("binary", [g.const("one", np.ones((1,), np.float32)), c], {"kind": "mul"})
    e = g.emit("unary", [d], {"kind": "clamp", "alpha": 0.0, "beta": 6.0})
    y = g.emit("unary", [e], {"kind": "clamp", "alpha": -1.0, "beta": 3.0}, outputs=["result"])
    after = apply(done(g, y), simplify.drop_identities)
    assert kinds(after) == ["reshape", "clamp"] and after.outputs == ["result"]
    assert (after.ops[1].attrs["alpha"], after.ops[1].attrs["beta"]) == (0.0, 3.0)


def test_adding_zeros_that_broadcast_is_no_identity() -> None:
    g = graph(x=(1, 3))
    y = g.emit("binary", ["x", g.const("zeros", np.zeros((4, 3), np.float32))], {"kind": "add"})
    assert kinds(apply(done(g, y), simplify.drop_identities)) == ["add"]


def test_backwards_is_no_identity() -> None:
    g = graph(x=(4, 1))
    y = g.emit("slice", ["x"], {"begin": (3, 0), "size": (4, 1), "step": (-1, 1)})
    assert kinds(apply(done(g, y), *passes.PASSES)) == ["slice"]


def test_an_output_that_is_an_input_stays() -> None:
    g = graph(x=(2, 3))
    y = g.emit("reshape", ["x"], {"shape": (2, 3)}, outputs=["y"])
    assert kinds(apply(done(g, y), *passes.PASSES)) == ["reshape"]


def test_equal_ops_merge_once() -> None:
    g = graph(x=(4,))
    a, b = (g.emit("unary", ["x"], {"kind": "exp"}) for _ in range(2))
    y = g.emit("binary", [a, b], {"kind": "add"})
    assert kinds(apply(done(g, y), simplify.merge_equal)) == ["exp", "add"]


def test_cheaper_ops() -> None:
    g = graph(x=(8, 6))
    a = g.emit("slice", ["x"], {"begin": (7, 1), "size": (4, 5), "step": (-2, 1)})
    b = g.emit("slice", [a], {"begin": (1, 4), "size": (3, 2), "step": (1, -3)})
    c = g.emit("binary", [b, g.const("k", np.asarray([3.0, -0.3], np.float32))], {"kind": "div"})
    d = g.emit("binary", [c, g.const("two", np.asarray(2.0, np.float32))], {"kind": "pow"})
    y = g.emit("binary", [d, g.const("half", np.asarray(0.5, np.float32))], {"kind": "pow"})
    assert kinds(apply(done(g, y), simplify.strength)) == ["slice", "mul", "mul", "sqrt"]


# -- fuse ----------------------------------------------------------------------------------------


def conv_like(g: Graph, kind: str, x: str) -> str:
    c = g.tensors[x].shape[-1]
    if kind == "linear":
        return g.emit("linear", [x, g.const("w", weights(c, c)), g.const("b", weights(c))])
    if kind == "depthwise_conv2d":
        return g.emit(kind, [x, g.const("w", weights(3, 3, c))])
    attrs = {"groups": 2} if kind == "grouped" else {}
    type = "conv2d" if kind == "grouped" else kind
    w = weights(c, 3, 3, c // attrs.get("groups", 1))
    return g.emit(type, [x, g.const("w", w), g.const("b", weights(c))], attrs)


@pytest.mark.parametrize(
    "kind", ["conv2d", "grouped", "depthwise_conv2d", "conv_transpose2d", "linear"]
)
def test_scale_shift_and_clamp_fold(kind: str) -> None:
    g = graph(x=(1, 6, 5, 4))
    y = conv_like(g, kind, "x")
    for how, shape in (("mul", (4,)), ("sub", (1, 1, 1, 4)), ("div", (1,)), ("add", (1, 4))):
        y = g.emit(
            "binary", [y, g.const(how, np.abs(weights(*shape, seed=len(how))) + 0.5)], {"kind": how}
        )
    y = g.emit("binary", [g.const("c", weights(4)), y], {"kind": "sub"})
    y = g.emit("unary", [y], {"kind": "clamp", "alpha": 0.0, "beta": 1.0})
    after = apply(done(g, y), fuse.fold_affine, fuse.fuse_clamps)
    assert len(after.ops) == 1 and (after.ops[0].attrs["lo"], after.ops[0].attrs["hi"]) == (
        0.0,
        1.0,
    )


def test_what_someone_else_reads_is_not_folded() -> None:
    g = graph(x=(1, 6, 5, 4))
    a = conv_like(g, "conv2d", "x")
    b = g.emit("binary", [a, g.const("s", weights(4))], {"kind": "mul"})
    c = g.emit("unary", [b], {"kind": "clamp", "alpha": 0.0, "beta": math.inf})
    after = apply(done(g, a, b, c), *passes.PASSES)
    assert kinds(after) == ["conv2d", "mul", "clamp"]


def test_rows_are_not_channels() -> None:
    g = graph(x=(1, 4, 4, 4))
    y = g.emit(
        "binary", [conv_like(g, "conv2d", "x"), g.const("s", weights(2, 2, 1))], {"kind": "mul"}
    )
    y = g.emit("binary", [y, g.const("t", weights(1, 1, 1, 1))], {"kind": "pow"})
    g.outputs = [y]
    assert fuse.fold_affine(g).ops[1].attrs["kind"] == "mul"


def test_clamp_of_a_clamped_sum() -> None:
    g = graph(x=(5,), z=(5,))
    a = g.emit("binary", ["x", "z"], {"kind": "add", "lo": -0.5, "hi": 2.0})
    y = g.emit("unary", [a], {"kind": "clamp", "alpha": -3.0, "beta": 0.3})
    (op,) = apply(done(g, y), fuse.fuse_clamps).ops
    assert (op.attrs["lo"], op.attrs["hi"]) == (-0.5, 0.3)


def test_clamp_behind_a_maximum() -> None:
    g = graph(x=(1, 8, 8, 4))
    p = g.emit("max_pool2d", [conv_like(g, "conv2d", "x")], {"kernel": (2, 2), "stride": (2, 2)})
    y = g.emit("unary", [p], {"kind": "clamp", "alpha": 0.0, "beta": math.inf}, outputs=["y"])
    after = apply(done(g, y), fuse.fuse_clamps)
    assert kinds(after) == ["conv2d", "max_pool2d"] and after.outputs == ["y"]


def test_zero_padding_folds_others_stay() -> None:
    for value, mode, want in ((0.0, "constant", 1), (1.0, "constant", 2), (0.0, "edge", 2)):
        g = graph(x=(1, 5, 6, 4))
        pad = {"before": (0, 1, 0, 0), "after": (0, 2, 1, 0), "mode": mode, "value": value}
        y = conv_like(g, "conv2d", g.emit("pad", ["x"], pad))
        assert len(apply(done(g, y), fuse.fold_pads).ops) == want


def test_input_scale_folds_a_shift_only_without_padding() -> None:
    for pad, want in (((0, 0, 0, 0), 1), ((1, 0, 0, 0), 2)):
        g = graph(x=(1, 5, 6, 4))
        a = g.emit("binary", ["x", g.const("m", weights(4))], {"kind": "sub"})
        y = g.emit("conv2d", [a, g.const("w", weights(3, 3, 3, 4))], {"pad": pad})
        assert len(apply(done(g, y), fuse.fold_input_affine, tolerance=1e-4).ops) == want


def test_constant_matrix_becomes_linear() -> None:
    g = graph(x=(2, 5, 4))
    a = g.emit("matmul", ["x", g.const("m", weights(4, 3))])
    y = g.emit("binary", [a, g.const("b", weights(3))], {"kind": "add"})
    (op,) = apply(done(g, y), fuse.matmul_to_linear, fuse.fold_affine).ops
    assert op.type == "linear" and len(op.inputs) == 3


# -- layout --------------------------------------------------------------------------------------


def nchw(g: Graph, x: str) -> str:
    return g.emit("transpose", [x], {"perm": (0, 3, 1, 2)})


def nhwc(g: Graph, x: str) -> str:
    return g.emit("transpose", [x], {"perm": (0, 2, 3, 1)})


STEPS: dict[str, Callable[[Graph, str], str]] = {
    "unary": lambda g, x: g.emit("unary", [x], {"kind": "tanh"}),
    "binary_vector": lambda g, x: g.emit(
        "binary", [x, g.const("c", weights(4, 1, 1))], {"kind": "sub"}
    ),
    "binary_first": lambda g, x: g.emit(
        "binary", [g.const("c", weights(1, 4, 1, 6)), x], {"kind": "div"}
    ),
    "binary_pair": lambda g, x: g.emit(
        "binary", [x, g.emit("unary", [x], {"kind": "exp"})], {"kind": "mul"}
    ),
    "gate": lambda g, x: g.emit(
        "binary",
        [x, g.emit("reduce", [x], {"kind": "mean", "axes": 0b1100, "keepdims": 1})],
        {"kind": "mul"},
    ),
    "slice": lambda g, x: g.emit(
        "slice", [x], {"begin": (0, 1, 4, 0), "size": (2, 3, 2, 6), "step": (1, 1, -2, 1)}
    ),
    "pad": lambda g, x: g.emit("pad", [x], {"before": (0, 1, 2, 0), "after": (0, 0, 1, 3)}),
    "tile": lambda g, x: g.emit("tile", [x], {"repeats": (1, 2, 1, 3)}),
    "concat": lambda g, x: g.emit(
        "concat", [x, g.emit("unary", [x], {"kind": "neg"})], {"axis": 1}
    ),
    "reduce": lambda g, x: g.emit("reduce", [x], {"kind": "max", "axes": 0b0010, "keepdims": 1}),
    "gather": lambda g, x: g.emit(
        "gather", [x, g.const("i", np.asarray([3, 0, 0], np.int32))], {"axis": 1}
    ),
    "shuffle": lambda g, x: g.emit(
        "reshape",
        [
            g.emit(
                "transpose",
                [g.emit("reshape", [x], {"shape": (2, 2, 2, 5, 6)})],
                {"perm": (0, 2, 1, 3, 4)},
            )
        ],
        {"shape": (2, 4, 5, 6)},
    ),
}


@pytest.mark.parametrize("step", STEPS)
def test_transposes_cancel_across(step: str) -> None:
    """NHWC -> NCHW, something, NCHW -> NHWC: only what the something itself needs is left."""
    g = graph(x=(2, 5, 6, 4))
    y = nhwc(g, STEPS[step](g, nchw(g, "x")))
    after = apply(done(g, y), layout.sink_transposes)
    left = kinds(after).count("transpose")
    assert left == (1 if step == "shuffle" else 0)
    assert not any(op.attrs["perm"] == (0, 3, 1, 2) for op in after.ops if op.type == "transpose")


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_reductions_without_kept_axes(axis: int) -> None:
    g = graph(x=(2, 5, 6, 4))
    y = g.emit("reduce", [nchw(g, "x")], {"kind": "sum", "axes": 1 << axis, "keepdims": 0})
    apply(done(g, y), layout.sink_transposes)


@pytest.mark.parametrize(
    "shape",
    [
        (2, 4, 30),
        (2, 120),
        (8, 5, 6),
        (240,),
        (2, 2, 2, 30),
        (2, 1, 4, 5, 6, 1),
        (2, 4, 6, 5),
        (48, 5),
    ],
)
def test_reshape_after_a_transpose(shape: tuple[int, ...]) -> None:
    """Merged and split axes, ones in between, and reshapes that cut across axes (they stay)."""
    g = graph(x=(2, 5, 6, 4))
    y = g.emit("reshape", [nchw(g, "x")], {"shape": shape})
    apply(done(g, y), layout.sink_transposes, layout.transposes_to_reshapes)


def test_transposes_that_move_ones_copy_nothing() -> None:
    g = graph(x=(1, 5, 6, 1), z=(3, 1, 1, 7))
    y = [nchw(g, "x"), nchw(g, "z")]
    assert kinds(apply(done(g, *y), layout.transposes_to_reshapes)) == ["reshape", "reshape"]


def test_flatten_permutes_the_classifier() -> None:
    g = graph(x=(2, 3, 5, 4))
    flat = g.emit("reshape", [nchw(g, "x")], {"shape": (2, 60)})
    y = g.emit("linear", [flat, g.const("w", weights(7, 60))])
    assert kinds(apply(done(g, y), layout.permute_linear)) == ["reshape", "linear"]


def random_graph(seed: int) -> Graph:
    """A chain and web of moves and elementwise ops on rank-4 tensors."""
    rng = np.random.default_rng(seed)
    g = graph(x=(2, 3, 4, 6))
    pool = ["x"]
    for _ in range(14):
        x = pool[int(rng.integers(len(pool)))] if rng.random() < 0.4 else pool[-1]
        s = g.tensors[x].shape
        match int(rng.integers(7)):
            case 0 | 1:
                y = g.emit(
                    "transpose", [x], {"perm": tuple(int(p) for p in rng.permutation(len(s)))}
                )
            case 2:
                y = g.emit("unary", [x], {"kind": "tanh"})
            case 3:
                mates = [p for p in pool if g.tensors[p].shape == s]
                y = g.emit("binary", [x, mates[int(rng.integers(len(mates)))]], {"kind": "sub"})
            case 4:
                y = g.emit("binary", [x, g.const("c", weights(s[-1]))], {"kind": "mul"})
            case 5:
                y = g.emit(
                    "concat",
                    [x, pool[-1] if g.tensors[pool[-1]].shape == s else x],
                    {"axis": int(rng.integers(len(s)))},
                )
            case _:
                i = int(rng.integers(len(s) - 1))
                y = g.emit(
                    "reshape",
                    [x],
                    {
                        "shape": (*s[:i], s[i] * s[i + 1], *s[i + 2 :])
                        if len(s) > 3
                        else (*s[:1], 1, *s[1:])
                    },
                )
        pool.append(y)
    return done(g, pool[-1], pool[-2])


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_keep_their_function(seed: int) -> None:
    g = random_graph(seed)
    after = apply(g, *passes.PASSES)
    assert kinds(after).count("transpose") <= kinds(g).count("transpose") + len(g.outputs)


# -- recognize -----------------------------------------------------------------------------------


def const(g: Graph, v: float) -> str:
    return g.const("k", np.asarray(v, np.float32))


def binary(g: Graph, kind: str, a: str, b: str | float) -> str:
    return g.emit("binary", [a, b if isinstance(b, str) else const(g, b)], {"kind": kind})


def unary(g: Graph, kind: str, x: str, alpha: float = 0.0, beta: float = 0.0) -> str:
    return g.emit("unary", [x], {"kind": kind, "alpha": alpha, "beta": beta})


def gelu_tanh(g: Graph, x: str) -> str:
    inner = binary(
        g,
        "mul",
        binary(g, "add", x, binary(g, "mul", binary(g, "pow", x, 3.0), 0.044715)),
        0.7978845608,
    )
    return binary(
        g, "mul", binary(g, "mul", x, 0.5), binary(g, "add", unary(g, "tanh", inner), 1.0)
    )


SPELLED: dict[str, Callable[[Graph, str], str]] = {
    "silu": lambda g, x: binary(g, "mul", unary(g, "sigmoid", x), x),
    "hardswish": lambda g, x: binary(
        g, "div", binary(g, "mul", x, unary(g, "clamp", binary(g, "add", x, 3.0), 0, 6)), 6.0
    ),
    "hardsigmoid": lambda g, x: binary(
        g, "mul", unary(g, "clamp", binary(g, "add", x, 3.0), 0, 6), 1 / 6
    ),
    "gelu": lambda g, x: binary(
        g,
        "mul",
        binary(g, "mul", x, binary(g, "add", unary(g, "erf", binary(g, "div", x, 2**0.5)), 1.0)),
        0.5,
    ),
    "gelu_tanh": gelu_tanh,
    "mish": lambda g, x: binary(g, "mul", x, unary(g, "tanh", unary(g, "softplus", x))),
    "leaky_relu": lambda g, x: binary(g, "max", x, binary(g, "mul", x, 0.2)),
    "sigmoid": lambda g, x: unary(
        g, "reciprocal", binary(g, "add", unary(g, "exp", unary(g, "neg", x)), 1.0)
    ),
    "rsqrt": lambda g, x: unary(g, "reciprocal", unary(g, "sqrt", x)),
}


@pytest.mark.parametrize("kind", SPELLED)
def test_function_is_recognized_by_its_values(kind: str) -> None:
    g = graph(x=(3, 7))
    x = unary(g, "exp", "x") if kind == "rsqrt" else "x"
    after = apply(done(g, SPELLED[kind](g, x)), recognize.activations)
    assert kinds(after)[-1] == kind and len(after.ops) == 1 + (kind == "rsqrt")


def test_almost_a_function_is_left_alone() -> None:
    g = graph(x=(3, 7))
    y = binary(g, "mul", unary(g, "sigmoid", binary(g, "mul", "x", 1.01)), "x")
    assert kinds(apply(done(g, y), recognize.activations)) == ["mul", "sigmoid", "mul"]


@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("form", ["div", "rsqrt"])
def test_normalization_is_recognized(rms: bool, form: str) -> None:
    g = graph(x=(2, 3, 16))
    mean = {"kind": "mean", "axes": 0b100, "keepdims": 1}
    d = "x" if rms else binary(g, "sub", "x", g.emit("reduce", ["x"], mean))
    v = binary(g, "add", g.emit("reduce", [binary(g, "pow", d, 2.0)], mean), 1e-6)
    y = (
        binary(g, "div", d, unary(g, "sqrt", v))
        if form == "div"
        else binary(g, "mul", d, unary(g, "rsqrt", v))
    )
    y = g.emit("binary", [y, g.const("gamma", weights(16))], {"kind": "mul"})
    y = g.emit("binary", [y, g.const("beta", weights(16))], {"kind": "add"})
    (op,) = apply(done(g, y), recognize.norms, recognize.fold_norm_affine).ops
    assert (
        op.type == "layer_norm"
        and op.attrs["rms"] == int(rms)
        and op.attrs["eps"] == pytest.approx(1e-6)
    )


def test_attention_factors_meet_in_the_softmax() -> None:
    g = graph(q=(2, 5, 8), k=(2, 5, 8))
    a = binary(g, "mul", "q", 0.5)
    b = g.emit("transpose", [binary(g, "div", "k", 4.0)], {"perm": (0, 2, 1)})
    y = g.emit("softmax", [g.emit("matmul", [a, b])])
    steps = (
        attention.scalars_after_matmul,
        attention.scale_into_softmax,
        fuse.transpose_into_matmul,
    )
    after = apply(done(g, y), *steps)
    assert kinds(after) == ["matmul", "softmax"] and after.ops[1].attrs["beta"] == pytest.approx(
        0.125
    )
    assert after.ops[0].attrs["trans_b"] == 1


# -- qdq -----------------------------------------------------------------------------------------


def test_casts_move_into_the_ops() -> None:
    g = graph(x=(1, 6, 6, 4))
    qx, qy = QuantSpec.per_tensor(0.03, -3), QuantSpec.per_tensor(0.2, 10)
    x = g.emit("cast", [g.emit("cast", ["x"], {"to": "i8"}, quant=qx)], {"to": "f32"})
    wq = np.random.default_rng(3).integers(-127, 128, (5, 3, 3, 4)).astype(np.int8)
    scales = np.random.default_rng(4).uniform(0.001, 0.01, 5).astype(np.float32)
    w = g.emit("cast", [g.const("w", wq, QuantSpec.per_axis(scales, 0))], {"to": "f32"})
    bias = np.asarray([100, -2000, 0, 7, 5000], np.int32)
    b = g.emit(
        "cast",
        [g.const("b", bias, QuantSpec.per_axis(np.float32(0.03) * scales, 0))],
        {"to": "f32"},
    )
    y = g.emit("conv2d", [x, w, b], {"lo": 0.0})
    y = g.emit("cast", [g.emit("cast", [y], {"to": "i8"}, quant=qy)], {"to": "f32"})
    after = apply(done(g, y), qdq.form_integer_ops, tolerance=1e-6)
    assert kinds(after) == ["cast", "conv2d", "cast"]
    conv = after.ops[1]
    np.testing.assert_array_equal(after.value(conv.inputs[1]), wq)
    np.testing.assert_array_equal(after.value(conv.inputs[2]), bias)
    assert after.tensors[conv.outputs[0]].quant == qy


def test_ops_without_an_integer_form_stay_float() -> None:
    g = graph(x=(4, 8))
    q = QuantSpec.per_tensor(0.05, 0)
    x = g.emit("cast", [g.emit("cast", ["x"], {"to": "i8"}, quant=q)], {"to": "f32"})
    y = g.emit("softmax", [x], {"log": 1})
    y = g.emit("cast", [g.emit("cast", [y], {"to": "i8"}, quant=q)], {"to": "f32"})
    after = apply(done(g, y), *passes.PASSES)
    assert kinds(after) == ["cast", "cast", "softmax", "cast", "cast"]


def test_integers_are_no_real_values() -> None:
    """An int8 constant of -3 may mean 0, or 1: passes must not take the stored number for it."""
    q = QuantSpec.per_tensor(0.25, -3)
    g = graph(x=(1, 4, 4, 2), z=(1, 4, 4, 3))
    x, z = (g.emit("cast", [n], {"to": "i8"}, quant=q) for n in ("x", "z"))
    for kind, stored in (("add", 0), ("mul", 1), ("mul", 0), ("sub", 0)):
        c = g.const("c", np.asarray([stored], np.int8), q)
        x = g.emit("binary", [x, c], {"kind": kind}, quant=q)
    pad = {"before": (0, 1, 1, 0), "after": (0, 1, 1, 0), "value": 0.0}
    p = g.emit("pad", [x], pad, quant=q)
    w = g.const("w", np.ones((4, 3, 3, 2), np.int8), QuantSpec.per_tensor(0.1, 0))
    y = g.emit("conv2d", [p, w], quant=q)
    f = g.const("f", np.asarray(5, np.int8), q)
    scaled = g.emit("binary", [y, f], {"kind": "mul"}, quant=q)
    m = g.emit("matmul", [scaled, z], quant=QuantSpec.per_tensor(0.5, 0))
    s = g.emit("softmax", [g.emit("binary", [m, f], {"kind": "mul"}, quant=q)], quant=q)
    after = apply(done(g, s), *passes.PASSES, tolerance=0)
    assert sorted(kinds(after)) == sorted(kinds(g))


def test_zero_points_that_pad_fold() -> None:
    q = QuantSpec.per_tensor(0.25, -3)
    g = graph(x=(1, 4, 4, 2))
    x = g.emit("cast", ["x"], {"to": "i8"}, quant=q)
    pad = {"before": (0, 1, 1, 0), "after": (0, 1, 1, 0), "value": -3.0}
    w = g.const("w", np.ones((4, 3, 3, 2), np.int8), QuantSpec.per_tensor(0.1, 0))
    y = g.emit("conv2d", [g.emit("pad", [x], pad, quant=q), w], quant=q)
    assert kinds(apply(done(g, y), *passes.PASSES, tolerance=0)) == ["cast", "conv2d"]


def test_columns_are_no_vector_of_a_norm() -> None:
    g = graph(x=(6, 6))
    n = g.emit("layer_norm", ["x"])
    y = g.emit("binary", [n, g.const("c", weights(6, 1))], {"kind": "mul"})
    assert kinds(apply(done(g, y), recognize.fold_norm_affine)) == ["layer_norm", "mul"]


def test_log_says_what_changed() -> None:
    g = graph(x=(2, 5, 6, 4))
    y = nhwc(g, unary(g, "tanh", nchw(g, "x")))
    after, notes = passes.simplify_all(done(g, y))
    assert kinds(after) == ["tanh"] and notes == ["sink_transposes: 3 -> 1 ops (transpose -2)"]

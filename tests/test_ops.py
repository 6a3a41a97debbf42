"""Every op's samples, and random geometries, on the numpy reference, portable C and every ISA of
this CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from edgekit_runtime import EdgeKitRuntimeError, Session
from edgekit_runtime._native import cpu_isas
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from op_cases import graph_outputs

from edgekit import ops
from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, QuantSpec, Tensor
from edgekit.layout import Target
from edgekit.ops import reduce, slice
from edgekit.ops.base import sample_array, sample_graph
from edgekit.pipeline import package_graph

ISAS = cpu_isas()
RUNTIMES = {"portable": [], **{name: [name] for name in ISAS}, "all": ISAS}
TOLERANCE = 1e-5  # of the largest value, for ops that are not exact
quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@functools.cache
def samples(op: str) -> list[tuple[str, Graph, dict[str, Array], tuple[Array, ...], bytes]]:
    """Label, graph, inputs, what numpy gives, and a package with the layouts of every ISA here."""
    out = []
    for label, g, inputs in ops.get(op).samples():
        g.check()
        out.append(
            (label, g, inputs, graph_outputs(g, inputs), package_graph(g, Target(tuple(ISAS))))
        )
    return out


def difference(graph: Graph, want: Array, got: Array) -> str:
    """What is wrong with one output; "" where it is right."""
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{got.dtype}{got.shape}, not {want.dtype}{want.shape}"
    if all(ops.get(op.type).exact(op, graph) for op in graph.ops):
        return (
            ""
            if got.tobytes() == want.tobytes()
            else f"{np.sum(got != want)} of {want.size} differ"
        )
    finite = np.isfinite(want)
    if not np.array_equal(np.isfinite(got), finite):
        return "infinite or NaN in other places"
    error = np.max(np.abs(got - want), where=finite, initial=0.0)
    top = np.max(np.abs(want), where=finite, initial=0.0)
    return "" if error <= TOLERANCE * top else f"off by {error} where the largest value is {top}"


def check(graph: Graph, inputs: dict[str, Array], isas: list[str] | None = None) -> None:
    """Runs a graph on portable C and with all ISAs, in both kinds of layout."""
    graph.check()
    want = graph_outputs(graph, inputs)
    for target in (Target(), Target(tuple(ISAS))):
        data = package_graph(graph, target)
        for isa in ([], ISAS):
            with Session(data, isa=isa) as s:
                got = s.run(inputs)
            for name, w in zip(graph.outputs, want, strict=True):
                assert not difference(graph, w, got[name]), (
                    f"{difference(graph, w, got[name])} with {isa}"
                )


@pytest.mark.parametrize("op", ops.table())
def test_an_op_has_varied_samples(op: str) -> None:
    labels = [label for label, *_ in samples(op)]
    assert len(labels) >= 2
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("op", ("conv2d", "linear", "lstm", "conv_transpose2d"))
def test_portable_c_reads_weights_in_pairs(op: str) -> None:
    for label, g, inputs, want, _ in samples(op):
        with Session(package_graph(g, Target(("dsp",))), isa=[]) as s:
            got = s.run(inputs)
        for name, w in zip(g.outputs, want, strict=True):
            assert not difference(g, w, got[name]), f"{label}: {difference(g, w, got[name])}"


@pytest.mark.parametrize("op", ops.table())
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_samples(op: str, runtime: str) -> None:
    wrong = []
    for label, graph, inputs, want, data in samples(op):
        with Session(data, isa=RUNTIMES[runtime]) as s:
            got = s.run(inputs)
        for name, w in zip(graph.outputs, want, strict=True):
            text = difference(graph, w, got[name])
            wrong += [f"{label} {name}: {text}"] if text else []
    assert not wrong


@pytest.mark.parametrize("op", ops.table())
def test_bits_do_not_depend_on_threads(op: str) -> None:
    for label, _, inputs, _, data in samples(op):
        with Session(data) as one, Session(data, threads=3) as three:
            a, b = one.run(inputs), three.run(inputs)
        assert all(a[k].tobytes() == b[k].tobytes() for k in a), label


@pytest.mark.parametrize("op", ops.table())
def test_a_second_run_gives_the_same(op: str) -> None:
    """Nothing of a run stays in memory that the next one reads (states are reset)."""
    for label, _, inputs, _, data in samples(op):
        with Session(data) as s:
            a = s.run(inputs)
            s.reset()
            b = s.run(inputs)
        assert all(a[k].tobytes() == b[k].tobytes() for k in a), label


def test_gather_refuses_an_index_at_run_time() -> None:
    tensors = {"x": Tensor("x", (5, 3)), "i": Tensor("i", (2,), "i32")}
    g = sample_graph("gather", tensors, {"axis": 0})
    x = np.zeros((5, 3), np.float32)
    with Session(package_graph(g, Target())) as s:
        s.run({"x": x, "i": np.array([-5, 4], np.int32)})
        for bad in (5, -6, 2**31 - 1, -(2**31)):
            with pytest.raises(EdgeKitRuntimeError):
                s.run({"x": x, "i": np.array([0, bad], np.int32)})
    constant = tensors | {"i": Tensor("i", (1,), "i32", np.array([5], np.int32))}
    with pytest.raises(ModelError):
        sample_graph("gather", constant, {"axis": 0})


# ---- random geometries --------------------------------------------------------------------------


def activation(
    draw: Any, shape: tuple[int, ...], dtype: str, name: str = "x"
) -> tuple[Tensor, Array]:
    """A tensor and values for it, from a drawn seed."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    quant = QuantSpec.per_tensor(0.05, draw(st.integers(-128, 127))) if dtype == "i8" else None
    return Tensor(name, shape, dtype, None, quant), sample_array(rng, shape, dtype)


sizes = st.integers(1, 9)
shapes = st.lists(st.integers(1, 6), min_size=1, max_size=5).map(tuple)


@quick
@given(st.data())
def test_conv2d_of_any_geometry(data: st.DataObject) -> None:
    draw = data.draw
    op = draw(st.sampled_from(["conv2d", "depthwise_conv2d", "conv_transpose2d"]))
    groups = draw(st.integers(1, 3)) if op != "depthwise_conv2d" else 1
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    ci, co = draw(st.integers(1, 9)), draw(st.integers(1, 20))
    attrs = {
        "stride": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        "dilation": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        "pad": tuple(draw(st.integers(0, 3)) for _ in range(4)),
    }
    dtype = draw(st.sampled_from(["i8", "f32"]))
    x, values = activation(
        draw, (draw(st.integers(1, 2)), draw(sizes), draw(sizes), ci * groups), dtype
    )
    shape = (*kernel, ci) if op == "depthwise_conv2d" else (co * groups, *kernel, ci)
    if op != "depthwise_conv2d":
        attrs["groups"] = groups
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = ci if op == "depthwise_conv2d" else co * groups
    if dtype == "i8":
        axis = 2 if op == "depthwise_conv2d" else 0
        w = Tensor(
            "w",
            shape,
            "i8",
            rng.integers(-127, 128, shape).astype(np.int8),
            QuantSpec.per_axis(rng.uniform(0.001, 0.02, n), axis),
        )
        b = Tensor("b", (n,), "i32", rng.integers(-3000, 3000, n).astype(np.int32))
    else:
        w = Tensor("w", shape, "f32", rng.normal(size=shape).astype(np.float32))
        b = Tensor("b", (n,), "f32", rng.normal(size=n).astype(np.float32))
    try:
        out = QuantSpec.per_tensor(0.1, -4) if dtype == "i8" else None
        g = sample_graph(op, {"x": x, "w": w, "b": b}, attrs, out_quant=out)
    except ModelError:
        return  # nothing is left of the image
    check(g, {"x": values})


@quick
@given(st.data())
def test_pooling_of_any_geometry(data: st.DataObject) -> None:
    draw = data.draw
    op = draw(st.sampled_from(["max_pool2d", "avg_pool2d"]))
    pad = tuple(draw(st.integers(0, 3)) for _ in range(4))
    attrs: dict[str, Any] = {
        "kernel": (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        "stride": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        "dilation": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        "pad": pad,
    }
    if op == "avg_pool2d":
        attrs["counted"] = tuple(draw(st.integers(0, p)) for p in pad)
    dtype = draw(st.sampled_from(["i8", "f32"]))
    x, values = activation(
        draw, (draw(st.integers(1, 2)), draw(sizes), draw(sizes), draw(st.integers(1, 70))), dtype
    )
    if dtype == "f32":
        values = np.abs(values)
    try:
        g = sample_graph(op, {"x": x}, attrs, out_quant=x.quant)
    except ModelError:
        return
    check(g, {"x": values})


@quick
@given(st.data())
def test_binary_of_any_broadcast(data: st.DataObject) -> None:
    draw = data.draw
    full = draw(shapes)
    kinds = ["add", "sub", "mul", "min", "max"]
    dtype, kind = draw(st.sampled_from(["i8", "f32"])), draw(st.sampled_from(kinds))
    tensors, inputs = {}, {}
    for name in "ab":
        kept = tuple(n if draw(st.booleans()) else 1 for n in full)[
            draw(st.integers(0, len(full))) :
        ]
        tensors[name], inputs[name] = activation(draw, kept, dtype, name)
    quant = QuantSpec.per_tensor(0.11, 3) if dtype == "i8" else None
    if kind in ("min", "max") and dtype == "i8":
        quant = tensors["a"].quant
        tensors["b"] = Tensor("b", tensors["b"].shape, "i8", None, quant)
    check(sample_graph("binary", tensors, {"kind": kind}, out_quant=quant), inputs)


def data_movement(
    f: Callable[[Any, tuple[int, ...], Any], tuple[str, dict[str, Any]]],
) -> Callable[[], None]:
    """A test of an op without arithmetic, for element sizes 1, 2, 4 and 8."""

    @quick
    @given(st.data())
    def test(data: st.DataObject) -> None:
        shape = data.draw(shapes)
        x, values = activation(
            data.draw, shape, data.draw(st.sampled_from(["i8", "i16", "f32", "i64"]))
        )
        op, attrs = f(data.draw, shape, x)
        check(sample_graph(op, {"x": x}, attrs, out_quant=x.quant), {"x": values})

    return test


@data_movement
def test_slice_of_any_bounds(
    draw: Any, shape: tuple[int, ...], x: Tensor
) -> tuple[str, dict[str, Any]]:
    index: dict[int, tuple[int | None, int | None, int]] = {}
    for i, n in enumerate(shape):
        step = draw(st.sampled_from([1, 1, 2, 3, -1, -2, 7]))
        a, b = sorted((draw(st.integers(0, n - 1)), draw(st.integers(0, n - 1))))
        index[i] = (a, b + 1, step) if step > 0 else (b, a - 1 if a else None, step)
    return "slice", slice.attributes(shape, index)


@data_movement
def test_transpose_of_any_order(
    draw: Any, shape: tuple[int, ...], x: Tensor
) -> tuple[str, dict[str, Any]]:
    return "transpose", {"perm": tuple(draw(st.permutations(range(len(shape)))))}


@data_movement
def test_tile_of_any_repeats(
    draw: Any, shape: tuple[int, ...], x: Tensor
) -> tuple[str, dict[str, Any]]:
    return "tile", {"repeats": tuple(draw(st.integers(1, 3)) for _ in shape)}


@data_movement
def test_pad_of_any_width(
    draw: Any, shape: tuple[int, ...], x: Tensor
) -> tuple[str, dict[str, Any]]:
    mode = draw(st.sampled_from(["constant", "edge", "reflect", "symmetric"]))
    tops = [{"reflect": n - 1, "symmetric": n}.get(mode, 4) for n in shape]
    widths = {k: tuple(draw(st.integers(0, t)) for t in tops) for k in ("before", "after")}
    return "pad", {"mode": mode, "value": float(draw(st.integers(-100, 100))), **widths}


@quick
@given(st.data())
def test_reduce_of_any_axes(data: st.DataObject) -> None:
    draw = data.draw
    shape = draw(shapes)
    dtype = draw(st.sampled_from(["i8", "f32"]))
    kind = draw(st.sampled_from(reduce.INT8 if dtype == "i8" else reduce.KINDS))
    most = 1 if kind == "argmax" else len(shape)
    axes = draw(st.sets(st.integers(0, len(shape) - 1), min_size=1, max_size=most))
    attrs = {
        "kind": kind,
        "axes": reduce.mask(axes, len(shape)),
        "keepdims": draw(st.integers(0, 1)),
    }
    x, values = activation(draw, shape, dtype)
    quant = x.quant if kind in ("max", "min") else QuantSpec.per_tensor(0.2, 1)
    out = quant if dtype == "i8" and kind != "argmax" else None
    check(
        sample_graph("reduce", {"x": x}, attrs, out_quant=out),
        {"x": np.abs(values) if dtype == "f32" else values},
    )


# ---- the numpy references against torch ---------------------------------------------------------


def reference(
    op: str, shapes: dict[str, tuple[int, ...]], attrs: dict[str, Any], constants: str = ""
) -> Any:
    """float32 inputs as torch tensors, and what the op's reference makes of them."""
    import torch

    rng = np.random.default_rng(0)
    arrays = {k: sample_array(rng, s, "f32") for k, s in shapes.items()}
    tensors = {
        k: Tensor(k, s, "f32", arrays[k] if k in constants else None) for k, s in shapes.items()
    }
    g = sample_graph(op, tensors, attrs)
    y = graph_outputs(g, {k: a for k, a in arrays.items() if k not in constants})[0]
    return [torch.from_numpy(a) for a in arrays.values()], y


def nchw(t: Any) -> Any:
    return t.permute(0, 3, 1, 2)


def assert_close(got: Array, want: Any) -> None:
    np.testing.assert_allclose(got, want.numpy(), rtol=2e-5, atol=2e-5)


def test_pooling_means_what_torch_means() -> None:
    from torch.nn import functional as f

    window = {"kernel": (3, 2), "stride": (2, 1), "pad": (1, 1, 1, 1)}
    (x,), y = reference("max_pool2d", {"x": (2, 7, 6, 5)}, window | {"dilation": (2, 1)})
    assert_close(y, f.max_pool2d(nchw(x), (3, 2), (2, 1), (1, 1), (2, 1)).permute(0, 2, 3, 1))
    for counted in (0, 1):
        (x,), y = reference("avg_pool2d", {"x": (2, 7, 6, 5)}, window | {"counted": (counted,) * 4})
        want = f.avg_pool2d(nchw(x), (3, 2), (2, 1), (1, 1), count_include_pad=bool(counted))
        assert_close(y, want.permute(0, 2, 3, 1))


def test_conv_transpose2d_means_what_torch_means() -> None:
    from torch.nn import functional as f

    shapes = {"x": (2, 4, 5, 6), "w": (8, 3, 2, 3), "b": (8,)}
    attrs = {
        "stride": (2, 3),
        "dilation": (2, 1),
        "pad": (1, 0, 1, 0),
        "extra": (1, 2),
        "groups": 2,
    }
    (x, w, b), y = reference("conv_transpose2d", shapes, attrs, "wb")
    # (o, kh, kw, i / g) -> torch's (i, o / g, kh, kw)
    weight = w.reshape(2, 4, 3, 2, 3).permute(0, 4, 1, 2, 3).reshape(6, 4, 3, 2)
    want = f.conv_transpose2d(nchw(x), weight, b, (2, 3), (1, 0), (1, 2), 2, (2, 1))
    assert_close(y, want.permute(0, 2, 3, 1))


@pytest.mark.parametrize("size", [(8, 10), (3, 2), (7, 5), (4, 13)])
@pytest.mark.parametrize("align", [False, True])
def test_resize_means_what_torch_means(size: tuple[int, int], align: bool) -> None:
    from torch.nn import functional as f

    coordinates = "align_corners" if align else "pytorch_half_pixel"
    (x,), y = reference(
        "resize",
        {"x": (2, 4, 5, 3)},
        {"mode": "bilinear", "size": size, "coordinates": coordinates},
    )
    want = f.interpolate(nchw(x), size, mode="bilinear", align_corners=align)
    assert_close(y, want.permute(0, 2, 3, 1))
    attrs = {"mode": "nearest", "size": size, "coordinates": "asymmetric", "nearest": "floor"}
    (x,), y = reference("resize", {"x": (2, 4, 5, 3)}, attrs)
    assert_close(y, f.interpolate(nchw(x), size, mode="nearest").permute(0, 2, 3, 1))


def test_normalizations_mean_what_torch_means() -> None:
    import torch
    from torch.nn import functional as f

    (x,), y = reference("softmax", {"x": (3, 4, 9)}, {"beta": 0.7})
    assert_close(y, torch.softmax(x * 0.7, -1))
    (x,), y = reference("softmax", {"x": (3, 4, 9)}, {"log": 1})
    assert_close(y, torch.log_softmax(x, -1))
    (x, g, b), y = reference(
        "layer_norm", {"x": (3, 4, 9), "g": (9,), "b": (9,)}, {"eps": 1e-3}, "gb"
    )
    assert_close(y, f.layer_norm(x, (9,), g, b, 1e-3))
    (x, g), y = reference("layer_norm", {"x": (3, 4, 9), "g": (9,)}, {"rms": 1, "eps": 1e-3}, "g")
    assert_close(y, f.rms_norm(x, (9,), g, 1e-3))
    (a, b), y = reference("matmul", {"a": (2, 1, 4, 5), "b": (3, 7, 5)}, {"trans_b": 1})
    assert_close(y, a @ b.transpose(-1, -2))


def test_int8_softmax_and_layer_norm_are_near_their_float_form() -> None:
    """Rounding errors only: one step of the output, which the exact arithmetic adds to its own
    rounding.
    """
    for op, out in (
        ("softmax", QuantSpec.per_tensor(1 / 256, -128)),
        ("layer_norm", QuantSpec.per_tensor(0.04, 3)),
    ):
        t = Tensor("x", (50, 40), "i8", None, QuantSpec.per_tensor(0.05, -4))
        q = sample_array(np.random.default_rng(2), t.shape, "i8")
        assert t.quant is not None
        real = t.quant.dequantize(q)
        got = graph_outputs(sample_graph(op, {"x": t}, {}, out_quant=out), {"x": q})[0]
        want = graph_outputs(sample_graph(op, {"x": Tensor("x", t.shape)}, {}), {"x": real})[0]
        error = np.abs(
            out.dequantize(got) - np.clip(want, *out.dequantize(np.array([-128, 127], np.int8)))
        )
        assert np.max(error) <= 0.51 * float(out.scale)

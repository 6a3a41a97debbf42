"""The TFLite front end: every operator against LiteRT's reference kernels, real models, broken
files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import tflite_writer as w
from tflite_writer import Node, Spec, const

from edgekit import evaluate
from edgekit.errors import ModelError
from edgekit.frontends import tflite

F, I8 = np.float32, np.int8
IMAGE = (1, 7, 6, 4)
PADDING = {"Padding": 0, "StrideH": 2, "StrideW": 1}
SAME2 = {**PADDING, "StrideW": 2}


def run_litert(data: bytes, feed: Sequence[np.ndarray], code: str) -> list[np.ndarray]:
    """Outputs of LiteRT's reference kernels, or of its others where those are missing or wrong."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kinds = (OpResolverType.BUILTIN_REF, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    # the int8 SUM of LiteRT 2.3's reference resolver returns -1 whatever it is given
    kind = kinds[code in ("ELU", "CEIL", "ROUND", "SUM")]
    it = Interpreter(model_content=data, experimental_op_resolver_type=kind)
    it.allocate_tensors()
    for detail, x in zip(it.get_input_details(), feed, strict=True):
        it.set_tensor(detail["index"], x)
    it.invoke()
    return [it.get_tensor(d["index"]) for d in it.get_output_details()]


def made_up(rng: np.random.Generator, t: Spec) -> np.ndarray:
    """Random values over the whole range of an integer type, normal ones for floats."""
    if np.dtype(t.dtype).kind == "f":
        return rng.normal(size=t.shape).astype(t.dtype)
    info = np.iinfo(t.dtype)
    return rng.integers(info.min, info.max + 1, t.shape).astype(t.dtype)


def agree(got: np.ndarray, want: np.ndarray, units: int = 1) -> None:
    """Equal shapes and types; floats within 1e-4 of the largest, integers within `units`."""
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    if want.dtype == F:
        assert np.max(np.abs(got - want)) <= 1e-4 * np.max(np.abs(want))
    else:
        assert np.max(np.abs(got.astype(np.int64) - want)) <= units


def check(
    code: str,
    operands: Sequence[Spec | None],
    outs: Sequence[Spec],
    table: str = "",
    options: Mapping[str, Any] | None = None,
    *,
    version: int = 1,
    positive: bool = False,
) -> None:
    """One operator: numpy gives what LiteRT's reference kernel gives."""
    names = [f"x{i}" if t else "" for i, t in enumerate(operands)]
    tensors = {n: t for n, t in zip(names, operands, strict=True) if t}
    outputs = [f"y{i}" for i in range(len(outs))]
    node = Node(code, names, outputs, options or {}, table, version)
    live = [n for n, t in tensors.items() if t.data is None]
    data = w.write({**tensors, **dict(zip(outputs, outs, strict=True))}, [node], live)
    rng = np.random.default_rng(1)
    feed = {n: made_up(rng, tensors[n]) for n in live}
    if positive:
        feed = {n: np.abs(x) + x.dtype.type(0.01) for n, x in feed.items()}
    want = run_litert(data, list(feed.values()), code)
    graph = tflite.load(data)
    got = evaluate.outputs(graph, feed)
    for name, y in zip(graph.outputs, want, strict=True):
        agree(got[name], y)


def q(shape: tuple[int, ...] = (), scale: float = 0.05, zero: int = -3, dtype: Any = I8) -> Spec:
    return Spec(shape, dtype, None, scale, zero)


FLOAT_UNARY = [
    "RELU",
    "RELU6",
    "RELU_N1_TO_1",
    "LOGISTIC",
    "TANH",
    "HARD_SWISH",
    "ELU",
    "EXP",
    "LOG",
    "SQRT",
    "RSQRT",
    "NEG",
    "ABS",
    "SQUARE",
    "FLOOR",
    "CEIL",
    "ROUND",
    "SIN",
    "COS",
    "LEAKY_RELU",
    "GELU",
    "LOG_SOFTMAX",
]
TABLES = {
    "LEAKY_RELU": ("LeakyReluOptions", {"Alpha": 0.3}),
    "GELU": ("GeluOptions", {"Approximate": True}),
}


@pytest.mark.parametrize("code", FLOAT_UNARY)
def test_float_functions(code: str) -> None:
    table, options = TABLES.get(code, ("", {}))
    positive = code in ("LOG", "SQRT", "RSQRT")
    check(code, [Spec((2, 3, 5))], [Spec()], table, options, positive=positive)


@pytest.mark.parametrize(
    ("code", "scale", "zero", "version"),
    [
        ("RELU", 0.05, -3, 2), ("RELU6", 0.03, -128, 2),
        ("LOGISTIC", 1 / 256, -128, 2), ("TANH", 1 / 128, 0, 2), ("HARD_SWISH", 0.04, -100, 1),
        ("LEAKY_RELU", 0.06, 7, 2), ("ELU", 0.05, -60, 1),
        ("EXP", 3.0, -128, 2), ("GELU", 0.05, -100, 2),
    ],
)  # fmt: skip
def test_int8_functions(code: str, scale: float, zero: int, version: int) -> None:
    table, options = TABLES.get(code, ("", {}))
    x = q((16, 16))
    check(code, [x], [q((), scale, zero)], table, options, version=version)


BINARY = {
    "ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions",
    "MAXIMUM": "", "MINIMUM": "",
    "SQUARED_DIFFERENCE": "", "PRELU": "",
}  # fmt: skip


@pytest.mark.parametrize("code", BINARY)
@pytest.mark.parametrize("other", [(2, 4, 3), (3,)])
def test_binary_functions(code: str, other: tuple[int, ...]) -> None:
    second = const(np.full((3,), 0.25), F) if code == "PRELU" else Spec(other)
    activation = {"FusedActivationFunction": 1} if BINARY[code] else {}
    check(code, [Spec((2, 4, 3)), second], [Spec()], BINARY[code], activation)
    if code in ("DIV", "SQUARED_DIFFERENCE", "PRELU"):
        return
    same = code in ("MAXIMUM", "MINIMUM")
    a, b, y = (q(s, *((0.05, 4) if same else p)) for s, p in (
        ((2, 4, 3), (0.05, 4)), (other, (0.02, -9)), ((), (0.3 if code == "MUL" else 0.07, 11))
    ))  # fmt: skip
    check(code, [a, b], [y], BINARY[code], activation, version=2)


def weights(shape: tuple[int, ...], axis: int, dtype: Any, zero: int = 0) -> Spec:
    rng = np.random.default_rng(2)
    if dtype == F:
        return const(rng.normal(size=shape), F)
    if dtype == np.uint8:
        return const(rng.integers(0, 256, shape), dtype, scale=0.01, zero=zero)
    scale = rng.uniform(0.002, 0.02, shape[axis]).tolist()
    return const(rng.integers(-127, 128, shape), I8, scale=scale, axis=axis)


def bias(n: int, dtype: Any, w: Spec, x: Spec) -> Spec:
    rng = np.random.default_rng(3)
    if dtype == F:
        return const(rng.normal(size=n), F)
    scale = np.broadcast_to(np.asarray(w.scale, F), (n,)) * F(x.scale)
    one = float(scale[0]) if np.ndim(w.scale) == 0 else scale.tolist()
    return const(rng.integers(-500, 500, n), np.int32, scale=one)


CONV = {"StrideH": 2, "StrideW": 1, "FusedActivationFunction": 3}


@pytest.mark.parametrize("dtype", [F, I8, np.uint8])
@pytest.mark.parametrize("padding", [0, 1])
def test_convolutions(dtype: Any, padding: int) -> None:
    zero = 120 if dtype == np.uint8 else -3
    version = {F: 1, I8: 3, np.uint8: 1}[dtype]
    x = Spec(IMAGE, F) if dtype == F else q(IMAGE, 0.05, zero, dtype)
    y = Spec() if dtype == F else q((), 0.06, zero - 100, dtype)
    k = weights((5, 3, 2, 4), 0, dtype, 131)
    options = {**CONV, "Padding": padding, "DilationWFactor": 2}
    check("CONV_2D", [x, k, bias(5, dtype, k, x)], [y], "Conv2DOptions", options, version=version)
    for multiplier in (1, 2):
        k = weights((1, 3, 3, 4 * multiplier), 3, dtype, 117)
        options = {**CONV, "StrideH": 1, "Padding": padding, "DepthMultiplier": multiplier}
        operands = [x, k, bias(4 * multiplier, dtype, k, x)]
        check(
            "DEPTHWISE_CONV_2D", operands, [y], "DepthwiseConv2DOptions", options, version=version
        )


@pytest.mark.parametrize("dtype", [F, I8])
@pytest.mark.parametrize("padding", [0, 1])
def test_transposed_convolution(dtype: Any, padding: int) -> None:
    x = Spec((1, 4, 3, 4), F) if dtype == F else q((1, 4, 3, 4))
    y = Spec() if dtype == F else q((), 0.3, 5)
    k = weights((5, 3, 4, 4), 0, dtype)
    size = (8, 6) if padding == 0 else (9, 8)
    shape = const([1, *size, 5])
    operands = [shape, k, x, bias(5, dtype, k, x)]
    options = {"Padding": padding, "StrideH": 2, "StrideW": 2}
    check("TRANSPOSE_CONV", operands, [y], "TransposeConvOptions", options, version=3)


@pytest.mark.parametrize("dtype", [F, I8])
def test_pools(dtype: Any) -> None:
    x = Spec(IMAGE, F) if dtype == F else q(IMAGE)
    y = Spec() if dtype == F else q()
    for code in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        for padding in (0, 1):
            options = {**SAME2, "Padding": padding, "FilterHeight": 3, "FilterWidth": 2}
            for activation in (0, 1):
                options["FusedActivationFunction"] = activation
                check(code, [x], [y], "Pool2DOptions", options, version=1 if dtype == F else 2)


@pytest.mark.parametrize("dtype", [F, I8])
def test_linear_and_matmul(dtype: Any) -> None:
    def spec(shape: tuple[int, ...] = (), scale: float = 0.05, zero: int = -3) -> Spec:
        return Spec(shape) if dtype == F else q(shape, scale, zero)

    k = weights((5, 12), 0, dtype)
    if dtype == I8:
        k.scale = 0.01
    for keep in (False, True):
        x = spec((2, 3, 12))
        options = {"FusedActivationFunction": 1, "KeepNumDims": keep}
        operands = [x, k, bias(5, dtype, k, x)]
        version = 5 if keep or dtype == I8 else 1
        check(
            "FULLY_CONNECTED",
            operands,
            [spec((), 0.3)],
            "FullyConnectedOptions",
            options,
            version=version,
        )
    for adj_x, adj_y in ((False, False), (False, True), (True, False)):
        a = spec((2, 4, 3) if adj_x else (2, 3, 4))
        b = spec((2, 5, 4) if adj_y else (2, 4, 5), 0.03, 9)
        options = {"AdjX": adj_x, "AdjY": adj_y}
        check("BATCH_MATMUL", [a, b], [spec((), 0.2)], "BatchMatMulOptions", options, version=2)


VERSIONS = {
    "RESHAPE": 1,
    "SQUEEZE": 1,
    "EXPAND_DIMS": 1,
    "TILE": 1,
    "REVERSE_V2": 1,
    "BROADCAST_TO": 2,
    "DEPTH_TO_SPACE": 1,
}


def mover(
    code: str, operands: Sequence[Any], outs: int = 1, table: str = "", **options: Any
) -> None:
    """An operator that moves values, on float32 and int8; shapes are live operands."""
    for dtype in (F, I8):
        make = Spec if dtype == F else q
        ins = [s if isinstance(s, Spec) else make(s) for s in operands]
        version = VERSIONS.get(code, 1 if dtype == F else 2)
        check(code, ins, [make() for _ in range(outs)], table, options, version=version)


def test_moves() -> None:
    x = (2, 3, 4)
    mover("CONCATENATION", [x, (2, 5, 4)], table="ConcatenationOptions", Axis=-2)
    mover("PACK", [x, x], table="PackOptions", Axis=1, ValuesCount=2)
    mover("UNPACK", [x], 3, table="UnpackOptions", Axis=1, Num=3)
    mover("RESHAPE", [x, const([4, -1])], table="ReshapeOptions", NewShape=[4, 6])
    mover("SQUEEZE", [(1, 3, 1, 4)], table="SqueezeOptions", SqueezeDims=[0])
    mover("EXPAND_DIMS", [x, const([-2])])
    mover("TRANSPOSE", [x, const([2, 0, 1])])
    mover("TILE", [x, const([1, 2, 3])])
    mover("SLICE", [x, const([0, 1, 1]), const([2, -1, 2])])
    mover("SPLIT", [const([2]), x], 2, table="SplitOptions", NumSplits=2)
    mover("SPLIT_V", [x, const([1, -1]), const(1)], 2, table="SplitVOptions", NumSplits=2)
    mover("GATHER", [x, const([2, 0, 1, 1])], table="GatherOptions", Axis=1)
    mover("PAD", [x, const([[0, 0], [1, 2], [3, 0]])])
    mover("MIRROR_PAD", [x, const([[0, 0], [1, 2], [3, 0]])], table="MirrorPadOptions", Mode=0)
    mover("REVERSE_V2", [x, const([1])])
    mover("BROADCAST_TO", [(3, 1), const([2, 3, 4])])
    image = (1, 4, 6, 8)
    mover("SPACE_TO_DEPTH", [image], table="SpaceToDepthOptions", BlockSize=2)
    mover("DEPTH_TO_SPACE", [image], table="DepthToSpaceOptions", BlockSize=2)
    begin, end, step = const([-1, 0, 3]), const([9, 3, 0]), const([1, 2, -2])
    mover(
        "STRIDED_SLICE",
        [x, begin, end, step],
        table="StridedSliceOptions",
        ShrinkAxisMask=1,
        EndMask=4,
    )


def test_padv2_fills_with_its_operand() -> None:
    widths = const([[0, 1], [2, 0]])
    check("PADV2", [Spec((2, 3)), widths, const(1.5, F)], [Spec()])
    fill = const(17, I8, scale=0.05, zero=-3)
    check("PADV2", [q((2, 3)), widths, fill], [q()], version=2)


@pytest.mark.parametrize("keep", [False, True])
def test_reductions(keep: bool) -> None:
    options = {"KeepDims": keep}
    for code in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"):
        x, axes = (1, 5, 6, 3), const([1, 2])
        check(code, [Spec(x), axes], [Spec()], "ReducerOptions", options)
        if code in ("MEAN", "SUM"):
            out = q((), 0.07 if code == "MEAN" else 0.4, 9)
            check(code, [q(x), axes], [out], "ReducerOptions", options, version=2)
        elif code != "REDUCE_PROD":
            check(code, [q(x), axes], [q()], "ReducerOptions", options, version=2)


def test_arg_max_softmax_and_casts() -> None:
    x = (2, 9)
    for kind in (np.int32, np.int64):
        options = {"OutputType": 2 if kind == np.int32 else 4}
        for t, version in ((Spec(x), 1), (q(x), 2)):
            check(
                "ARG_MAX",
                [t, const(1)],
                [Spec((), kind)],
                "ArgMaxOptions",
                options,
                version=version,
            )
    check("SOFTMAX", [Spec(x)], [Spec()], "SoftmaxOptions", {"Beta": 0.7})
    check("SOFTMAX", [q(x)], [q((), 1 / 256, -128)], "SoftmaxOptions", {"Beta": 1.0}, version=2)
    u8 = q(x, 0.05, 130, np.uint8)
    check("SOFTMAX", [u8], [q((), 1 / 256, 0, np.uint8)], "SoftmaxOptions", {"Beta": 1.0})
    check("QUANTIZE", [Spec(x)], [q()], "QuantizeOptions")
    check("QUANTIZE", [q(x)], [q((), 0.11, 20)], "QuantizeOptions", version=2)
    check("QUANTIZE", [u8], [q((), 0.05, 2)], "QuantizeOptions", version=2)
    check("DEQUANTIZE", [q(x)], [Spec()], "DequantizeOptions", version=2)
    check(
        "CAST", [Spec(x)], [Spec((), np.int32)], "CastOptions", {"InDataType": 0, "OutDataType": 2}
    )


@pytest.mark.parametrize("mode", [{}, {"AlignCorners": True}, {"HalfPixelCenters": True}])
@pytest.mark.parametrize("size", [(9, 11), (3, 4)])
def test_resizes(mode: dict[str, bool], size: tuple[int, int]) -> None:
    for kind, code in (
        ("Bilinear", "RESIZE_BILINEAR"),
        ("NearestNeighbor", "RESIZE_NEAREST_NEIGHBOR"),
    ):
        for x, y, version in ((Spec(IMAGE), Spec(), 3), (q(IMAGE), q(), 3)):
            check(code, [x, const(size)], [y], f"Resize{kind}Options", mode, version=version)


def test_shapes_that_the_graph_computes_are_folded() -> None:
    """RESHAPE to (SHAPE(x)[0], 12), as converters write it, at the stored and at another batch."""
    tensors = {
        "x": Spec((1, 3, 4)),
        "s": Spec((), np.int32),
        "b": const([0]),
        "e": const([1]),
        "k": const([1]),
        "n": Spec((), np.int32),
        "c": const(12),
        "to": Spec((), np.int32),
        "y": Spec(),
    }
    nodes = [
        Node("SHAPE", ["x"], ["s"], {"OutType": 2}, "ShapeOptions"),
        Node(
            "STRIDED_SLICE",
            ["s", "b", "e", "k"],
            ["n"],
            {"ShrinkAxisMask": 1},
            "StridedSliceOptions",
        ),
        Node("PACK", ["n", "c"], ["to"], {"ValuesCount": 2}, "PackOptions"),
        Node("RESHAPE", ["x", "to"], ["y"], {}, "ReshapeOptions"),
    ]
    data = w.write(tensors, nodes, ["x"])
    for batch in (1, 5):
        graph = tflite.load(data, {"x": (batch, 3, 4)})
        assert [op.type for op in graph.ops] == ["reshape"]
        assert graph.tensors[graph.outputs[0]].shape == (batch, 12)


def test_unknown_operators_are_listed_once_with_counts() -> None:
    names = [f"t{i}" for i in range(5)]
    nodes = [
        Node("COS", ["t0"], ["t1"]),
        Node("CUSTOM", ["t1"], ["t2"], {}, "Detect"),
        Node("WHERE", ["t2"], ["t3"]),
        Node("WHERE", ["t3"], ["t4"]),
    ]
    data = w.write({n: Spec((2,)) for n in names}, nodes, ["t0"])
    with pytest.raises(ModelError) as e:
        tflite.load(data)
    assert "CUSTOM Detect x 1 (t2)" in e.value.what
    assert "WHERE x 2 (t3, t4)" in e.value.what
    assert "COS" not in e.value.what


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: b"", "not a TFLite model"),
        (lambda: b"\x08\x00\x00\x00ONNX" + bytes(100), "not a TFLite model"),
        (lambda: b"\xff\xff\xff\x7fTFL3" + bytes(100), "damaged"),
        (lambda: net({"x": Spec((2, 0))}), "dynamic"),
        (lambda: net({"x": q((1, 6, 6, 3), dtype=np.int16)}), "16-bit"),
        (lambda: net({"p": q((1, 4, 4, 4))}), "the file says"),
        (lambda: net({"x": q((1, 6, 6, 5))}), "CONV_2D"),
    ],
)
def test_foreign_files_are_refused_with_a_sentence(make: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        tflite.load(make())


def net(changes: Mapping[str, Spec] | None = None) -> bytes:
    """A small quantized net: convolution, pool, reshape, linear, softmax."""
    x = q((1, 6, 6, 3), 0.05, -128)
    k, m = weights((4, 3, 3, 3), 0, I8), weights((5, 36), 0, I8)
    m.scale = 0.01
    a = q((1, 6, 6, 4))
    tensors = {
        "x": x, "k": k, "b": bias(4, I8, k, x), "a": a, "p": q((1, 3, 3, 4)),
        "s": const([1, -1]), "r": q((1, 36)),
        "m": m, "n": bias(5, I8, m, a), "l": q((1, 5), 0.2), "y": q((1, 5), 1 / 256, -128),
        **(changes or {}),
    }  # fmt: skip
    pool = {"StrideW": 2, "StrideH": 2, "FilterWidth": 2, "FilterHeight": 2}
    nodes = [
        Node("CONV_2D", ["x", "k", "b"], ["a"], {"StrideW": 1, "StrideH": 1}, "Conv2DOptions", 3),
        Node("AVERAGE_POOL_2D", ["a"], ["p"], pool, "Pool2DOptions", 2),
        Node("RESHAPE", ["p", "s"], ["r"], {}, "ReshapeOptions"),
        Node("FULLY_CONNECTED", ["r", "m", "n"], ["l"], {}, "FullyConnectedOptions", 4),
        Node("SOFTMAX", ["l"], ["y"], {"Beta": 1.0}, "SoftmaxOptions", 2),
    ]
    return w.write(tensors, nodes, ["x"])


def test_truncated_and_mutated_files_are_refused_or_read_but_never_crash() -> None:
    data = net()
    tflite.load(data)
    refused = 0
    rng = np.random.default_rng(6)
    broken = [data[:n] for n in range(0, len(data), 17)]
    for _ in range(1500):
        mutant = bytearray(data)
        for at in rng.integers(8, len(data), rng.integers(1, 4)):
            mutant[at] = rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))])
        broken.append(bytes(mutant))
    for one in broken:
        try:
            tflite.load(one).check()
        except ModelError as e:
            assert e.what
            refused += 1
    assert refused > len(broken) // 4

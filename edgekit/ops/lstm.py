"""LSTM over a sequence: x (batch, time, in) -> y (batch, time, units).

With `final` the last h and c (batch, units) are results too.

Operands: x, w (4u, in), r (4u, u), b (4u), h0 (batch, u), c0 (batch, u), tables (2, 513); all but
the first three may be absent (zeros; `tables()`).  The gates lie in the order i, f, g, o (input,
forget, cell, output), u rows each:

    a = w x + b + r h;   i, f, o = sigmoid(a_i, a_f, a_o);   g = tanh(a_g)
    c' = f c + i g, clipped to +-cell_clip where that is not 0;   h' = o tanh(c')

int8 is exact.  x and h are int8 (h has the quantization of y), w and r symmetric int8 with one
scale per row, b is int32 in units of sx * sw, c is int16 in units of 2^-cell_bits.  Steps are
rounded to float32 one by one:

    p = float32(sum x w) * S + B
        S = float32(sx * sw * 2^12),  B = float32((b - zx * sum w) * S)
    q = the same of h and r, without b
    a = sat16(p + q), p and q clamped to int16 and rounded half to even: Q3.12
    sigmoid, tanh: 513 int16 each (units of 2^-15) over [0, 8], interpolated: see `table_lookup`
    c' = clip(sat16(((f c + 2^14) >> 15) + ((i g + 2^(29 - cell_bits)) >> (30 - cell_bits))))
    h' = requantize(o * tanh(c'), float32(2^-30 / sy), zy)

This is TFLite's integer LSTM (Q3.12 gates, int16 cell, int8 hidden state) with our one rounding
rule; its importer gives tables sampled from TFLite's own functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgekit import qmath
from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op, QuantSpec, Tensor
from edgekit.layout import Target, Variant, pack_gemm
from edgekit.ops import fixedpoint, recurrent
from edgekit.ops.base import Field, OpDef, TensorType, need, onnx, scale_zero, tflite
from edgekit.ops.conv2d import pack_float

if TYPE_CHECKING:
    from edgekit.frontends.onnx import Importer

F = np.float32
GATE_BITS = 12  # fraction bits of a gate's argument
TABLE = 512  # intervals over [0, 8]


def tables() -> npt.NDArray[np.int16]:
    """(2, 513): sigmoid and tanh at 0, 1/64 .. 8 in units of 2^-15."""
    x = np.arange(TABLE + 1) / 64.0
    both = np.stack([1 / (1 + np.exp(-x)), np.tanh(x)]) * 32768.0
    return np.minimum(np.rint(both), 32767).astype(np.int16)


def table_lookup(table: Array, x: Array, bits: int, *, sigmoid: bool) -> Array:
    """int32 value in 2^-15 of the function at x (int32) * 2^-bits, bits 6..15.

    Linear between entries, half up; the end value from |x| >= 8 on.  Negative x by symmetry: 2^15 -
    s(|x|), -t(|x|).
    """
    a, n = np.abs(x.astype(np.int32)), bits - 6
    at = np.minimum(a >> n, TABLE)
    lo, hi = (table[np.minimum(at + d, TABLE)].astype(np.int32) for d in (0, 1))
    frac = a & ((1 << n) - 1)
    y = lo + (((hi - lo) * frac + ((1 << n) >> 1)) >> n)
    return np.asarray(np.where(x < 0, (32768 if sigmoid else 0) - y, y))


def shape(op: Op, xs: Sequence[Tensor | None]) -> list[TensorType]:
    x, r = need(xs, 0, "input"), need(xs, 2, "recurrent weights")
    if len(x.shape) != 3 or len(r.shape) != 2:
        raise ModelError(f"LSTM of {x.shape} with recurrent weights {r.shape}")
    n, t, _ = x.shape
    u = r.shape[1]
    if r.shape[0] != 4 * u:
        raise ModelError(f"LSTM: recurrent weights {r.shape} are not (4 units, units)")
    final: list[TensorType] = [((n, u), x.dtype), ((n, u), "i16" if x.dtype == "i8" else "f32")]
    return [((n, t, u), x.dtype), *(final if op.attrs["final"] else [])]


def gate_constants(
    w: Array, wq: QuantSpec, b: Array | None, sx: float, zx: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(S, B) of int8 gates, float32 (4u,)."""
    scale = qmath.requant_scale(
        num=np.broadcast_to(wq.scale, (len(w),)).astype(np.float64) * sx, den=2.0**-GATE_BITS
    )
    offset = -zx * w.astype(np.int64).sum(1) + (0 if b is None else b.astype(np.int64))
    return scale, (offset * scale.astype(np.float64)).astype(F)


def _steps(op: Op, time: int) -> list[int]:
    return list(range(time))[:: -1 if op.attrs["reverse"] else 1]


def _float(op: Op, xs: Sequence[Array | None]) -> list[Array]:
    x, w, r, b, h, c = (*xs, None, None, None)[:6]
    assert x is not None and w is not None and r is not None
    n, time, _ = x.shape
    u = r.shape[1]
    h = np.zeros((n, u), F) if h is None else h
    c = np.zeros((n, u), F) if c is None else c
    y = np.empty((n, time, u), F)
    clip = op.attrs["cell_clip"]
    for t in _steps(op, time):
        a = x[:, t].astype(np.float64) @ w.T + h.astype(np.float64) @ r.T + (0 if b is None else b)
        i, f, g, o = np.split(a, 4, axis=1)
        i, f, o = (1 / (1 + np.exp(-v)) for v in (i, f, o))
        c = f * c + i * np.tanh(g)
        c = np.clip(c, -clip, clip) if clip > 0 else c
        c = c.astype(F)
        h = (o * np.tanh(c.astype(np.float64))).astype(F)
        y[:, t] = h
    return [y, h, c]


def _gemm(a: Array, w: Array, scale: Array, offset: Array) -> Array:
    """int32 within int16: float32(sum) * scale + offset, clamped, half to even."""
    acc = np.rint(a.astype(np.float64) @ w.astype(np.float64).T).astype(np.int32)
    y = (acc.astype(F) * scale).astype(F) + offset
    return np.rint(np.minimum(np.maximum(y, F(-32768)), F(32767))).astype(np.int32)


def _int8(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    x, w, r, b, h, c, both = (*xs, None, None, None, None)[:7]
    assert x is not None and w is not None and r is not None
    (sx, zx), (sy, zy) = scale_zero(g, op.inputs[0]), scale_zero(g, op.outputs[0])
    wq, rq = (g.tensors[op.inputs[k]].quant for k in (1, 2))
    assert wq is not None and rq is not None
    n, time, _ = x.shape
    u, bits = r.shape[1], op.attrs["cell_bits"]
    h = np.full((n, u), zy, np.int8) if h is None else h
    c = np.zeros((n, u), np.int16) if c is None else c
    sig, tan = tables() if both is None else both
    hidden = qmath.requant_scale(num=2.0**-30, den=sy)
    limit = cell_limit(op)
    px, ph = gate_constants(w, wq, b, sx, zx), gate_constants(r, rq, None, sy, zy)
    y = np.empty((n, time, u), np.int8)
    for t in _steps(op, time):
        a = np.clip(_gemm(x[:, t], w, *px) + _gemm(h, r, *ph), -32768, 32767)
        i, f, cell, o = np.split(a, 4, axis=1)
        i, f, o = (table_lookup(sig, v, GATE_BITS, sigmoid=True) for v in (i, f, o))
        cell = table_lookup(tan, cell, GATE_BITS, sigmoid=False)
        kept = (f * c.astype(np.int32) + (1 << 14)) >> 15
        new = (i * cell + (1 << (29 - bits))) >> (30 - bits)
        c = np.clip(np.clip(kept + new, -32768, 32767), -limit, limit).astype(np.int16)
        out = o * table_lookup(tan, c.astype(np.int32), bits, sigmoid=False)
        h = qmath.requantize(out, hidden, qmath.QMIN - zy, qmath.QMAX - zy, zy)
        y[:, t] = h
    return [y, h, c]


def cell_limit(op: Op) -> int:
    """Largest magnitude of an int16 cell; 32768: no clipping."""
    clip = op.attrs["cell_clip"]
    return min(32768, round(clip * 2.0 ** op.attrs["cell_bits"])) if clip > 0 else 32768


def reference(op: Op, g: Graph, xs: Sequence[Array | None]) -> list[Array]:
    assert xs[0] is not None
    results = _float(op, xs) if xs[0].dtype == F else _int8(op, g, xs)
    return results[: len(op.outputs)]


def pack_dynamic(g: Graph, name: str, w: Array, scale: Array, offset: Array, target: Target) -> str:
    """Weights (n, k) int8 for gemm_dyn: float32(sum) * scale + offset, one variant per layout."""
    variants = tuple(
        Variant(la, "i8", pack_gemm(w, offset.view(np.int32), scale, la)) for la in target.dyn()
    )
    return g.add_tensor(Tensor(g.unique(name + ".packed"), w.shape, "packed", variants=variants))


def lower(op: Op, g: Graph, target: Target) -> Op:
    """Operands become x, packed w, packed r, tables (int8), h0, c0."""
    x, wn, rn, bn, h, c, both = (*op.inputs, "", "", "", "")[:7]
    w, r, b = g.value(wn), g.value(rn), g.value(bn) if bn else None
    if w is None or r is None or (bn and b is None):
        raise ModelError("the weights of an LSTM must be constant", where=op.name)
    if g.tensors[x].dtype == "f32":
        zeros = np.zeros(len(w), F)
        packed = pack_float(g, wn, w, zeros if b is None else b, 1, target)
        return op.with_(inputs=(x, packed, pack_float(g, rn, r, zeros, 1, target), "", h, c))
    (sx, zx), (sy, zy) = scale_zero(g, x), scale_zero(g, op.outputs[0])
    wq, rq = g.tensors[wn].quant, g.tensors[rn].quant
    if wq is None or rq is None or np.any(wq.zero) or np.any(rq.zero):
        raise ModelError("an int8 LSTM needs symmetric weights", where=op.name)
    packed = pack_dynamic(g, wn, w, *gate_constants(w, wq, b, sx, zx), target)
    packed_r = pack_dynamic(g, rn, r, *gate_constants(r, rq, None, sy, zy), target)
    inputs = (x, packed, packed_r, both or g.const(f"{op.name}.tables", tables()), h, c)
    scale = float(qmath.requant_scale(num=2.0**-30, den=sy))
    return op.with_(inputs=inputs, attrs=dict(op.attrs, scale=scale, limit=cell_limit(op)))


def scratch(op: Op, g: Graph, target: Target) -> int:
    """Bytes: a block of projected inputs, the recurrent projection, c and h.  Twin of `bytes` in
    native/ops/lstm.c.
    """
    x, w, r = (g.tensors[n] for n in op.inputs[:3])
    return recurrent.rnn_scratch(x, w, r, 4, min(x.shape[1], target.tile_rows))


def macs(op: Op, g: Graph) -> int:
    x, u = g.tensors[op.inputs[0]], g.tensors[op.outputs[0]].shape[2]
    n, t, k = x.shape
    return n * t * 4 * u * (k + u)


def _case(
    rng: np.random.Generator,
    dims: tuple[int, int, int, int],
    int8: bool,
    attrs: dict[str, Any],
    start: bool,
) -> Graph:
    n, t, k, u = dims
    g = Graph("lstm")
    if int8:
        ws, rs = (np.repeat(rng.uniform(0.002, 0.01, 4), u).astype(F) for _ in range(2))
        qx, qh = QuantSpec.per_tensor(0.03, -7), QuantSpec.per_tensor(1 / 127.5, -1)
        w = g.const(
            "w", rng.integers(-127, 128, (4 * u, k)).astype(np.int8), QuantSpec.per_axis(ws, 0)
        )
        r = g.const(
            "r", rng.integers(-127, 128, (4 * u, u)).astype(np.int8), QuantSpec.per_axis(rs, 0)
        )
        b = g.const("b", rng.integers(-3000, 3000, 4 * u).astype(np.int32))
        qc = QuantSpec.per_tensor(2.0 ** -attrs.get("cell_bits", 11), 0)
        kinds: tuple[tuple[str, QuantSpec | None], ...] = (("i8", qx), ("i8", qh), ("i16", qc))
    else:
        w, r = (
            g.const(m, rng.normal(scale=0.4, size=(4 * u, q)).astype(F))
            for m, q in (("w", k), ("r", u))
        )
        b = g.const("b", rng.normal(size=4 * u).astype(F))
        qh = None
        kinds = (("f32", None),) * 3
    names = [("x", (n, t, k)), ("h0", (n, u)), ("c0", (n, u))]
    for (name, s), (dtype, quant) in list(zip(names, kinds, strict=True))[: 3 if start else 1]:
        g.add_tensor(Tensor(name, s, dtype, None, quant))
        g.inputs.append(name)
    inputs = ["x", w, r, b, *(("h0", "c0") if start else ())]
    g.emit("lstm", inputs, attrs, name="y", quant=qh, dtype=kinds[0][0])
    g.outputs = list(g.ops[0].outputs)
    return g


def samples() -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    rng = np.random.default_rng(23)
    cases: tuple[tuple[str, tuple[int, int, int, int], dict[str, Any], bool], ...] = (
        ("plain", (1, 6, 13, 10), {}, False),
        ("aligned", (1, 20, 16, 16), {"final": 1}, False),
        ("batch", (3, 5, 7, 6), {"final": 1, "reverse": 1}, True),
        ("clip", (1, 9, 33, 5), {"cell_clip": 0.25, "final": 1}, True),
        ("one", (2, 1, 1, 1), {}, False),
    )
    for label, dims, attrs, start in cases:
        for int8 in (False, True):
            for bits in (11, 15, 6) if int8 and label == "batch" else (11,):
                g = _case(rng, dims, int8, {**attrs, "cell_bits": bits}, start)
                feed: dict[str, Array] = {}
                for name in g.inputs:
                    t = g.tensors[name]
                    top = {"i8": 128, "i16": 20000}.get(t.dtype, 0)
                    data = rng.integers(-top, top, t.shape) if top else rng.normal(size=t.shape)
                    feed[name] = data.astype({"i8": np.int8, "i16": np.int16}.get(t.dtype, F))
                yield f"{'i8' if int8 else 'f32'}_{label}_{bits}", g, feed


OP = OpDef(
    name="lstm",
    code=23,
    fields=(
        Field("reverse", "u32", 1, 0, "1: time runs backwards"),
        Field("cell_clip", "f32", 1, 0.0, "bound of the cell's magnitude, 0: none"),
        Field("cell_bits", "u32", 1, 11, "int8: fraction bits of the int16 cell, 6..15"),
        Field("final", "u32", 1, 0, "1: the last h and c are outputs too", host=True),
        Field("scale", "f32", 1, None, "int8: 2^-30 / sy", lowered=True),
        Field(
            "limit",
            "i32",
            1,
            None,
            "int8: bound of the cell's magnitude, 32768: none",
            lowered=True,
        ),
    ),
    shape=shape,
    reference=reference,
    samples=samples,
    lower=lower,
    scratch=scratch,
    macs=macs,
)


def _stack(imp: Any, names: Sequence[str], x: str, stem: str) -> str:
    """The four gates' weights or biases as one constant; int8 weights get a scale per row."""
    parts = [imp.weights(n, x) if imp.tensor(n).dtype == "i8" else n for n in names]
    arrays = [imp.value(p) for p in parts]
    if any(a is None for a in arrays):
        raise ModelError("the weights of an LSTM must be constant")
    specs = [imp.tensor(p).quant for p in parts]
    quant = None
    if imp.tensor(parts[0]).dtype == "i8":
        scale = np.concatenate(
            [np.broadcast_to(s.scale, (len(a),)) for s, a in zip(specs, arrays, strict=True)]
        )
        zero = np.concatenate(
            [np.broadcast_to(s.zero, (len(a),)) for s, a in zip(specs, arrays, strict=True)]
        )
        quant = QuantSpec.per_axis(scale, 0, zero)
    return str(imp.const(stem, np.concatenate(arrays), quant))


def _cell_bits(imp: Any, h: str, c: str) -> int:
    """Fraction bits of an int8 LSTM's cell; ModelError where the states are not what the rule
    needs.
    """
    cell, quant = imp.tensor(c).quant if c else None, imp.out()[1]
    if cell is None or quant is None or (h and imp.tensor(h).quant != quant):
        raise ModelError(
            "an int8 LSTM needs a quantized cell, and hidden state and result of one scale"
        )
    bits = -np.log2(float(cell.scale))
    if bits != int(bits) or not 6 <= bits <= 15 or int(cell.zero):
        raise ModelError(f"cell scale {float(cell.scale)} is no power of two in 2^-15 .. 2^-6")
    return int(bits)


@tflite("UNIDIRECTIONAL_SEQUENCE_LSTM")
def tflite_lstm(
    imp: Any, x: str, wi: str, wf: str, wc: str, wo: str, ri: str, rf: str, rc: str, ro: str,
    pi: str, pf: str, po: str, bi: str, bf: str, bc: str, bo: str, projection: str,
    projection_bias: str, h: str, c: str, *norms: str, fused_activation_function: int = 4,
    cell_clip: float = 0.0, time_major: bool = False,
) -> str:  # fmt: skip
    """Its state tensors become states of the graph, read and written by the op."""
    for name, odd in (
        ("peepholes", (pi, pf, po)),
        ("a projection", (projection, projection_bias)),
        ("layer norms", norms),
    ):
        if any(odd):
            raise ModelError(f"an LSTM with {name} is not supported")
    if not (wi and ri and bi):
        raise ModelError("an LSTM without an input gate is not supported")
    if fused_activation_function != 4:
        raise ModelError("an LSTM with another activation than tanh is not supported")
    w = _stack(imp, (wi, wf, wc, wo), x, "w")
    r = _stack(imp, (ri, rf, rc, ro), x, "r")
    attrs: dict[str, Any] = {"cell_clip": cell_clip}
    if imp.is_int8(x):
        attrs["cell_bits"] = _cell_bits(imp, h, c)
    if time_major:
        x = imp.step("transpose", [x], {"perm": (1, 0, 2)}, quant=imp.tensor(x).quant)
    operands = [x, w, r, _stack(imp, (bi, bf, bc, bo), x, "b"), h, c]
    if imp.is_int8(x):
        at = np.minimum(np.arange(TABLE + 1) * 64, 32767)
        sampled = np.stack([fixedpoint.sigmoid(at, GATE_BITS), fixedpoint.tanh(at, GATE_BITS)])
        operands.append(imp.const("tables", sampled.astype(np.int16)))
    if time_major:
        y = imp.step("lstm", operands, attrs, quant=imp.out()[1])
    else:
        y = imp.emit("lstm", operands, attrs)
    op = imp.graph.ops[-1]
    if h in imp.graph.states and c in imp.graph.states:
        imp.graph.ops[-1] = op.with_(outputs=(y, h, c), attrs=dict(op.attrs, final=1))
    return str(imp.emit("transpose", [y], {"perm": (1, 0, 2)}) if time_major else y)


@onnx("LSTM")
def import_onnx(
    imp: Importer, x: str, w: str, r: str, b: str = "", lengths: str = "", h0: str = "",
    c0: str = "", p: str = "", *, activations: Sequence[str] = (),
    activation_alpha: Sequence[float] = (), activation_beta: Sequence[float] = (),
    clip: float = 0.0, direction: str = "forward", hidden_size: int = 0, input_forget: int = 0,
    layout: int = 0,
) -> list[str]:  # fmt: skip
    """Y, Y_h, Y_c; bidirectional is two ops joined."""
    recurrent.refuse_odd(imp, activations, ("Sigmoid", "Tanh", "Tanh"), clip, lengths, x, layout)
    if input_forget or (p and np.any(imp.const(p, "peepholes"))):
        raise ModelError("LSTM with peepholes or coupled gates is not supported")
    seq = recurrent.OnnxSequence(imp, x, w, r, b, direction, layout, 4)
    final = int(len(imp.node.output) > 1)
    made = []
    for d, reverse in enumerate(seq.reverse):
        bias = ""
        if seq.b is not None:
            bias = imp.add_const(
                seq.gates(seq.b[d][: 4 * seq.u]) + seq.gates(seq.b[d][4 * seq.u :]), "b"
            )
        states = [seq.start(s, d) if s else "" for s in (h0, c0)]
        made.append(
            seq.emit(
                "lstm",
                [seq.x, *seq.weights(d), bias, *states],
                {"reverse": reverse, "final": final},
            )
        )
    results = [seq.whole([m[0] for m in made])]
    return results + [seq.last([m[k] for m in made]) for k in (1, 2) if final]

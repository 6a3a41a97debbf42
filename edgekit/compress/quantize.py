"""Float graph + observed ranges -> int8 graph: per-channel symmetric weights, asymmetric
activations.

Scheme: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference" (2018), with per-channel weights in [-127, 127]; bias correction
after Nagel et al., "Data-Free Quantization" (2019), from the observed channel means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit import ops
from edgekit.compress.calibrate import Observed
from edgekit.compress.widths import (
    PACKABLE,
    Given,
    excluded,
    has_int16,
    kind_of,
    narrowed,
    quantize_weights,
    wide_least,
    wide_spec,
)
from edgekit.errors import ModelError, UsageError
from edgekit.ir import NUMPY, Array, Graph, Op, QuantSpec, Tensor
from edgekit.ops.conv2d import CHANNEL_AXIS
from edgekit.ops.lut import table_of
from edgekit.ops.short import shorten
from edgekit.qmath import LIMITS

F = np.float32
FIXED = {"sigmoid": (1 / 256, -128), "tanh": (1 / 128, 0), "hardsigmoid": (1 / 256, -128)}


def dynamic(graph: Graph, exclude: Sequence[str] = ()) -> Graph:
    """int8 weights for every linear op; activations are quantized row by row when the model runs.

    ModelError where the graph has no such op: nothing would have changed.
    """
    skip = excluded(graph, exclude)
    g = graph.copy()
    count = 0
    for i, op in enumerate(g.ops):
        w = g.value(op.inputs[1]) if op.type == "linear" else None
        if w is None or w.dtype != F or op.name in skip:
            continue
        q, spec = quantize_weights(w, 0)
        g.ops[i] = op.with_(
            inputs=(op.inputs[0], g.const(op.inputs[1] + ".i8", q, spec), *op.inputs[2:])
        )
        count += 1
    if not count:
        raise ModelError(
            "dynamic quantization changed nothing: no matrix product has constant weights",
            todo="use --precision int8 with calibration data",
        )
    g.drop_unused()
    return g


def _covers(spec: QuantSpec, lo: float, hi: float) -> bool:
    """Whether the range lies inside what the spec can hold, up to one step."""
    s, z = float(spec.scale), int(spec.zero)
    return lo >= s * (-129 - z) and hi <= s * (128 - z)


@dataclass
class _Quantizer:
    src: Graph
    seen: dict[str, Observed]
    skip: set[str]
    correct: bool
    io: str
    bits: dict[str, int]
    given: dict[str, Given]
    ranged: dict[str, QuantSpec]
    out: Graph = field(init=False)
    specs: dict[str, QuantSpec] = field(default_factory=dict)
    i8: dict[str, str] = field(default_factory=dict)  # float tensor -> its integers in `out`
    i16: dict[str, str] = field(default_factory=dict)  # likewise, where those are int8, widened
    f32: dict[str, str] = field(default_factory=dict)

    def mode(self, op: Op) -> str:
        """How this op is quantized; "" keeps it float."""
        if op.name in self.skip or self.src.tensors[op.outputs[0]].dtype != "f32":
            return ""
        mode = ops.get(op.type).int8(op)
        if mode == "weights" and self.src.value(op.inputs[1]) is None:
            return ""
        if mode == "softmax":
            return mode
        return mode if all(o in self.seen or o in self.specs for o in op.outputs) else ""

    def ranges(self) -> None:
        """A spec for every activation; tensors that must share one get the union of their
        ranges."""
        parent: dict[str, str] = {}

        def find(a: str) -> str:
            while parent.setdefault(a, a) != a:
                parent[a] = parent[parent[a]]
                a = parent[a]
            return a

        g = self.src
        for op in g.ops:
            mode = self.mode(op)
            if mode in ("same", "same0"):
                tied = [
                    n
                    for n in (op.inputs if mode == "same" else op.inputs[:1])
                    if n and g.tensors[n].dtype == "f32"
                ]
                for n in tied:
                    parent[find(n)] = find(op.outputs[0])
                for o in op.outputs:
                    parent[find(o)] = find(op.outputs[0])
        fixed = self.fixed()
        groups: dict[str, list[str]] = {}
        for n, t in g.tensors.items():
            if t.dtype == "f32" and (n in self.seen or n in parent):
                groups.setdefault(find(n), []).append(n)
        for members in groups.values():
            lo = min(self._lo(n) for n in members)
            hi = max(self._hi(n) for n in members)
            decided = [self.ranged[n] for n in members if n in self.ranged]
            if decided:
                self.specs.update(dict.fromkeys(members, decided[0]))
                continue
            pinned = {fixed[n] for n in members if n in fixed}
            spec = pinned.pop() if len(pinned) == 1 else None
            self.specs.update(
                dict.fromkeys(
                    members, spec if spec and _covers(spec, lo, hi) else QuantSpec.covering(lo, hi)
                )
            )

    def _lo(self, n: str) -> float:
        t = self.src.tensors[n]
        return (
            self.seen[n].lo
            if n in self.seen
            else float(np.min(t.data))
            if t.data is not None
            else 0.0
        )

    def _hi(self, n: str) -> float:
        t = self.src.tensors[n]
        return (
            self.seen[n].hi
            if n in self.seen
            else float(np.max(t.data))
            if t.data is not None
            else 0.0
        )

    def fixed(self) -> dict[str, QuantSpec]:
        """Outputs whose range is known from the function itself."""
        out: dict[str, QuantSpec] = {}
        for op in self.src.ops:
            mode = self.mode(op)
            if mode == "softmax":
                out[op.outputs[0]] = QuantSpec.per_tensor(1 / 256, -128)
            elif mode == "lut" and op.attrs["kind"] in FIXED:
                out[op.outputs[0]] = QuantSpec.per_tensor(*FIXED[op.attrs["kind"]])
        return out

    def as_i8(self, name: str) -> str:
        """The int8 (or int16, as its spec says) version of a float tensor in the output graph, made
        where there is none."""
        if name in self.i8:
            return self.i8[name]
        data = self.src.value(name)
        if data is not None:
            spec = self.specs.get(name) or QuantSpec.covering(float(data.min()), float(data.max()))
            self.i8[name] = self.constant(name, data, spec)
        else:
            if name not in self.specs:
                raise ModelError(f"no range was observed for {name!r}")
            self.i8[name] = self.cast(name, self.f32[name], self.specs[name], "quantize")
        return self.i8[name]

    def constant(self, name: str, data: Array, spec: QuantSpec) -> str:
        """A float constant as integers of a spec."""
        lo, hi = LIMITS[kind_of(spec)]
        q = np.clip(np.rint(data / spec.scale) + spec.zero, lo, hi)
        return self.out.const(f"{name}.{kind_of(spec)}", q.astype(NUMPY[kind_of(spec)]), spec)

    def cast(self, name: str, source: str, spec: QuantSpec, what: str) -> str:
        """The tensor `source`, which stands for `name`, in another representation."""
        to = kind_of(spec)
        target = self.out.unique(f"{name}.{to}")
        return self.out.emit(
            "cast", [source], {"to": to}, name=f"{name}/{what}", outputs=[target], quant=spec
        )

    def as_i16(self, name: str) -> str:
        """The int16 version of a float tensor: of int8 ones the same values, widened."""
        if name not in self.i16:
            data = self.src.value(name)
            if data is not None:
                spec = wide_spec(float(data.min()), float(data.max()))
                self.i16[name] = self.constant(name, data, spec)
                return self.i16[name]
            small = self.as_i8(name)
            quant = self.out.tensors[small].quant
            assert quant is not None
            if quant.bits == 16:
                self.i16[name] = small
            else:
                self.i16[name] = self.cast(name, small, QuantSpec.wide(float(quant.scale)), "widen")
        return self.i16[name]

    def wide(self, op: Op) -> bool:
        """Whether an op reads or writes int16."""
        ends = (*op.inputs, *op.outputs)
        return any(self.specs[n].bits == 16 for n in ends if n in self.specs)

    def as_f32(self, name: str) -> str:
        """The float version of a tensor in the output graph, made where there is none."""
        if not name or name in self.f32:
            return self.f32.get(name, name)
        t = self.src.tensors[name]
        if t.data is not None:
            if name not in self.out.tensors:
                self.out.add_tensor(t)
            self.f32[name] = name
        else:
            target = name if name not in self.out.tensors else self.out.unique(name + ".f32")
            self.f32[name] = self.out.emit(
                "cast",
                [self.i8[name]],
                {"to": "f32"},
                name=t.name + "/dequantize",
                outputs=[target],
            )
        return self.f32[name]

    def out_name(self, name: str) -> str:
        """int8 tensors keep the float tensor's name, except outputs of the graph that
        stay float."""
        keeps = name not in self.src.outputs or self.io == "int8"
        return name if keeps else self.out.unique(name + ".i8")

    def weights(self, op: Op) -> None:
        g = self.src
        w = g.value(op.inputs[1])
        assert w is not None
        x = op.inputs[0]
        axis = CHANNEL_AXIS.get(op.type, 0)
        given = self.given.get(op.name)
        n = w.shape[axis]
        bias_name = op.inputs[2] if len(op.inputs) > 2 else ""
        b = g.value(bias_name) if bias_name else None
        bias = np.zeros(n, np.float64) if b is None else b.astype(np.float64)
        if given is not None and given.bias is not None:
            bias = given.bias.astype(np.float64)
        if given is None:
            least = wide_least(op, g, self.specs)
            q, spec = quantize_weights(w, axis, self.bits.get(op.name, 8), least=least)
        else:
            q, spec = given.weights, given.spec
        xi = self.as_i16(x) if self.wide(op) else self.as_i8(x)
        if self.correct and x in self.seen and given is None:
            bias = bias - _shift(op, w, spec.dequantize(q), self.seen[x].mean)
        sx = self.out.tensors[xi].quant
        assert sx is not None
        unit = float(sx.scale) * spec.scale.astype(np.float64)
        top = 2**30 - self.wide(op)  # with 256 products of int16 it fits 32 bits
        bi = np.clip(np.rint(bias / unit), -top, top).astype(np.int32)
        inputs = [
            xi,
            self.out.const(op.inputs[1] + ".i8", q, spec),
            self.out.const((bias_name or op.name + ".bias") + ".i32", bi),
        ]
        self.emit(op, op.type, inputs, op.attrs)

    def emit(self, op: Op, type: str, inputs: Sequence[str], attrs: dict[str, Any]) -> None:
        """Appends the int8 form of an op."""
        names = [self.out_name(o) for o in op.outputs]
        spec = self.specs[op.outputs[0]]
        if spec.bits < 8:
            attrs = narrowed(attrs, spec)
        to = kind_of(spec)
        self.out.emit(type, inputs, attrs, name=op.name, outputs=names, quant=spec, dtype=to)
        for o, n in zip(op.outputs, names, strict=True):
            self.i8[o] = n

    def op(self, op: Op) -> None:
        mode = self.mode(op)
        if mode and self.wide(op) and not has_int16(op, self.src):
            mode = ""
        if mode == "weights":
            self.weights(op)
        elif mode == "lut" and self.wide(op):
            self.lut16(op)
        elif mode == "lut":
            xi = self.as_i8(op.inputs[0])
            sx = self.out.tensors[xi].quant
            assert sx is not None
            a = op.attrs
            table = table_of(a["kind"], a["alpha"], a["beta"], sx, self.specs[op.outputs[0]])
            self.emit(op, "lut", [xi, self.out.const(op.name + ".table", table)], {})
        elif mode == "free" and self.wide(op):
            self.free16(op)
        elif mode in ("free", "same", "same0", "softmax"):
            first = (
                op.inputs[:1]
                if mode in ("same0", "softmax") or op.type == "layer_norm"
                else op.inputs
            )
            inputs = [self._operand(n, n in first) for n in op.inputs]
            attrs = dict(op.attrs)
            if op.type == "pad":  # the one attribute that is a stored value
                spec = self.specs[op.outputs[0]]
                q = np.rint(attrs["value"] / spec.scale) + spec.zero
                attrs["value"] = float(np.clip(q, *LIMITS[kind_of(spec)]))
            self.emit(op, op.type, inputs, attrs)
        else:
            inputs = [self._operand(n, False) for n in op.inputs]
            self.out.emit(op.type, inputs, op.attrs, name=op.name, outputs=op.outputs)
            for o in op.outputs:
                self.f32[o] = o

    def free16(self, op: Op) -> None:
        """An op of int16 operands with scales of their own; those of two write int16 alone."""
        inputs = [self.as_i16(n) if n in self.seen or n in self.specs else n for n in op.inputs]
        if op.type == "binary":
            self.emit16(op, op.type, inputs, op.attrs, self.spec16(op))
        else:
            self.emit(op, op.type, inputs, op.attrs)

    def lut16(self, op: Op) -> None:
        """A function of int16."""
        x, spec, a = self.as_i16(op.inputs[0]), self.spec16(op), op.attrs
        sx = self.out.tensors[x].quant
        assert sx is not None
        table = table_of(a["kind"], a["alpha"], a["beta"], sx, spec)
        self.emit16(op, "lut", [x, self.out.const(op.name + ".table", table)], {}, spec)

    def spec16(self, op: Op) -> QuantSpec:
        """The int16 spec of an output that others may want in int8."""
        out = op.outputs[0]
        spec = self.specs[out]
        return spec if spec.bits == 16 else wide_spec(self._lo(out), self._hi(out))

    def emit16(
        self, op: Op, type: str, inputs: Sequence[str], attrs: dict[str, Any], spec: QuantSpec
    ) -> None:
        """Appends an op that writes int16, and a cast where int8 is wanted."""
        out = op.outputs[0]
        if self.specs[out].bits == 16:
            self.emit(op, type, inputs, attrs)
            return
        name = self.out.unique(out + ".i16")
        y = self.out.emit(
            type, inputs, attrs, name=op.name, outputs=[name], quant=spec, dtype="i16"
        )
        self.i8[out] = self.cast(out, y, self.specs[out], "requantize")

    def _operand(self, name: str, int8: bool) -> str:
        if not name:
            return ""
        if self.src.tensors[name].dtype != "f32":
            if name not in self.out.tensors:
                self.out.add_tensor(self.src.tensors[name])
            return name
        return self.as_i8(name) if int8 else self.as_f32(name)

    def run(self) -> Graph:
        g, io = self.src, self.io
        self.out = Graph(g.name, meta=dict(g.meta), states=list(g.states))
        self.ranges()
        for n in g.inputs:
            t = g.tensors[n]
            if io == "int8" and t.dtype == "f32":
                spec = self.specs[n]
                self.out.add_tensor(Tensor(n, t.shape, kind_of(spec), None, spec))
                self.i8[n] = n
            else:
                self.out.add_tensor(t)
                self.f32[n] = n
            self.out.inputs.append(n)
        for op in g.ops:
            self.op(op)
        for n in g.outputs:
            if io == "int8" and n in self.i8:
                self.out.outputs.append(self.i8[n])
            else:
                self.out.outputs.append(self._operand(n, False))
        self.out.drop_unused()
        self.out.check()
        return self.out


def _shift(op: Op, w: Array, wq: Array, mean: Array) -> Array:
    """Expected change of each output channel by the rounding of its weights, given channel means of
    the input."""
    d = (wq - w).astype(np.float64)
    if op.type == "depthwise_conv2d":
        return np.asarray(d.sum((0, 1)) * mean)
    groups = int(op.attrs.get("groups", 1))
    per = d.reshape(d.shape[0], -1, d.shape[-1]).sum(1)  # (o, ci)
    if op.type == "conv_transpose2d":  # an output meets one tap of each stride
        per = per / np.prod(op.attrs["stride"])
    if groups == 1:
        return np.asarray(per @ mean)
    og, ci = len(per) // groups, d.shape[-1]
    return np.concatenate(
        [per[i * og : (i + 1) * og] @ mean[i * ci : (i + 1) * ci] for i in range(groups)]
    )


def quantize(
    graph: Graph,
    seen: dict[str, Observed],
    *,
    exclude: Sequence[str] = (),
    io: str = "model",
    bias_correction: bool = True,
    bits: dict[str, int] | None = None,
    given: dict[str, Given] | None = None,
    ranged: dict[str, QuantSpec] | None = None,
) -> tuple[Graph, dict[str, str]]:
    """int8 graph, and the map float tensor -> int8 tensor for comparing the two.

    Biases and scales have few bits (`edgekit/ops/short.py`), for whatever target it will be.
    Ops named in `exclude` (patterns allowed) stay float.  `io` "int8" gives int8 inputs and
    outputs, "model" keeps the model's own.  ModelError where no op could be quantized.
    `bits`: op name -> bits of its weights (8, 4 or 2; ops of PACKABLE only).  `given`: op name ->
    integers decided elsewhere (reconstruction, training).  `ranged`: tensor -> spec, likewise;
    those of 16 bits (`wide_specs`) make the ops around them read and write int16.
    """
    kinds = {op.name: op.type for op in graph.ops}
    for name, b in (bits or {}).items():
        if b not in (8, 4, 2) or (b < 8 and kinds.get(name) not in PACKABLE):
            raise UsageError(
                f"{name!r} cannot have weights of {b} bits",
                todo=f"8, or 4 or 2 for ops of type {', '.join(PACKABLE)}",
            )
    wide = {n for n, s in (ranged or {}).items() if s.bits == 16}
    for op in graph.ops if bits else ():
        if wide & {*op.inputs, *op.outputs} and (bits or {}).get(op.name, 8) < 8:
            raise UsageError(
                f"{op.name!r} cannot have weights below 8 bits and activations of 16",
                todo="name its layer with 8 bits, or leave it out of the wide ones",
            )
    skip = excluded(graph, exclude)
    q = _Quantizer(graph, seen, skip, bias_correction, io, bits or {}, given or {}, ranged or {})
    out = shorten(q.run())
    if not any(t.dtype in LIMITS for t in out.tensors.values()):
        raise ModelError("quantization changed nothing: no op of this model has an int8 form")
    return out, {f: n for f, n in q.i8.items() if n in out.tensors and not out.is_const(n)}

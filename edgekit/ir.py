"""The intermediate representation: Graph, Tensor, Op and QuantSpec.

One small IR for every front end.  Images are NHWC, convolution weights OHWI, linear weights (n, k).
A tensor with `data` is a constant; a tensor with `quant` holds integers whose real value is
`scale * (q - zero)`.  Op attributes are plain values named in `edgekit.ops.<op>`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import ModelError

Array = npt.NDArray[Any]

NUMPY: dict[str, Any] = {
    "f32": np.float32,
    "i8": np.int8,
    "u8": np.uint8,
    "i16": np.int16,
    "i32": np.int32,
    "i64": np.int64,
    "bool": np.bool_,
}
NAMES = {np.dtype(v): k for k, v in NUMPY.items()}


def dtype_of(array: Array) -> str:
    """IR name of a numpy dtype; ModelError where the IR has none."""
    name = NAMES.get(array.dtype)
    if name is None:
        raise ModelError(f"element type {array.dtype} is not supported")
    return name


@dataclass(frozen=True)
class QuantSpec:
    """real = scale * (q - zero), per tensor (`axis` None, scale ()) or per index of one axis (scale
    (n,)).

    `group` > 0: weights (n, k) whose scale (n, ceil(k / group)) holds for that many inputs each;
    axis 0.  `bits` 4 or 2: weights whose int8 values fit [-8, 7] or [-2, 1], packed when lowered;
    16: activations in int16.
    `short`: weights whose requantization scale has few bits (`compact.short_scale`).
    """

    scale: Array  # float32 () or (n,)
    zero: Array  # int32, same shape
    axis: int | None = None
    bits: int = 8
    group: int = 0
    short: bool = False

    @staticmethod
    def covering(lo: float, hi: float, bits: int = 8) -> QuantSpec:
        """Asymmetric integers of 8 or fewer bits for a range, widened to hold 0 exactly."""
        lo, hi = min(lo, 0.0), max(hi, 0.0)
        half = 1 << bits - 1
        scale = np.float32(max((hi - lo) / (2 * half - 1), 2.0**-30))
        zero = int(np.clip(np.rint(-half - lo / float(scale)), -half, half - 1))
        return QuantSpec(np.asarray(scale), np.asarray(zero, np.int32), None, bits)

    @staticmethod
    def per_tensor(scale: float, zero: int) -> QuantSpec:
        return QuantSpec(np.asarray(scale, np.float32), np.asarray(zero, np.int32))

    @staticmethod
    def wide(scale: float) -> QuantSpec:
        """Symmetric int16 activations."""
        return QuantSpec(np.asarray(scale, np.float32), np.asarray(0, np.int32), None, 16)

    @staticmethod
    def per_axis(scale: Array, axis: int, zero: Array | None = None, bits: int = 8) -> QuantSpec:
        s = np.asarray(scale, np.float32)
        z = np.zeros(s.shape, np.int32) if zero is None else np.asarray(zero, np.int32)
        return QuantSpec(s, z, axis, bits)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, QuantSpec)
            and self.axis == other.axis
            and (self.bits, self.group, self.short) == (other.bits, other.group, other.short)
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero, other.zero)
        )

    def __hash__(self) -> int:
        return hash((self.axis, self.bits, self.scale.tobytes(), self.zero.tobytes()))

    def broadcast(self, rank: int) -> tuple[Array, Array]:
        """(scale, zero) shaped to broadcast against a tensor of that rank; ValueError where groups
        of inputs have their own."""
        if self.group:
            raise ValueError("scales of groups do not broadcast")
        if self.axis is None:
            return self.scale, self.zero
        shape = [1] * rank
        shape[self.axis] = -1
        return self.scale.reshape(shape), self.zero.reshape(shape)

    def dequantize(self, q: Array) -> npt.NDArray[np.float32]:
        """float32 of integers (shape kept)."""
        scale, zero = (
            (np.repeat(a, self.group, axis=1)[:, : q.shape[1]] for a in (self.scale, self.zero))
            if self.group
            else self.broadcast(q.ndim)
        )
        real = (q.astype(np.int64) - zero).astype(np.float32) * scale
        return np.asarray(real, np.float32)


@dataclass(frozen=True)
class Tensor:
    """A value of the graph: activation, constant (`data`) or state (`data` = initial value)."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "f32"
    data: Array | None = None
    quant: QuantSpec | None = None
    variants: tuple[Any, ...] = ()  # dtype "packed": layout.Variant, one per weight layout

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes in memory; of weights of 4 or 2 bits, packed."""
        packed = self.data is not None and self.quant is not None and self.quant.bits < 8
        if packed and self.quant is not None:
            return -(-self.size * self.quant.bits // 8)
        return self.size * int(np.dtype(NUMPY[self.dtype]).itemsize)


@dataclass(frozen=True)
class Op:
    """One operation.  `inputs` may hold "" for an absent optional operand."""

    type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: dict[str, Any] = field(default_factory=dict)

    def with_(self, **changes: Any) -> Op:
        return dataclasses.replace(self, **changes)


@dataclass
class Graph:
    """Ops in execution order over named tensors.  `states` persist between runs.

    `views`: tensor -> (tensor it is a part of, first byte there); only of lowered graphs.
    """

    name: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    views: dict[str, tuple[str, int]] = field(default_factory=dict)

    def copy(self) -> Graph:
        """A shallow copy: tensors and ops are immutable, the containers are new."""
        return Graph(
            self.name,
            dict(self.tensors),
            list(self.ops),
            list(self.inputs),
            list(self.outputs),
            list(self.states),
            dict(self.meta),
            dict(self.views),
        )

    def with_constants(self, data: dict[str, Array]) -> Graph:
        """A copy with those values in place of its own, by name."""
        g = self.copy()
        for n, a in data.items():
            g.tensors[n] = dataclasses.replace(g.tensors[n], data=a)
        return g

    def unique(self, stem: str) -> str:
        """A tensor name that is not taken yet."""
        if stem not in self.tensors:
            return stem
        i = 1
        while f"{stem}.{i}" in self.tensors:
            i += 1
        return f"{stem}.{i}"

    def add_tensor(self, tensor: Tensor) -> str:
        if tensor.name in self.tensors:
            raise ModelError(f"two tensors are named {tensor.name!r}")
        self.tensors[tensor.name] = tensor
        return tensor.name

    def const(self, stem: str, data: Array, quant: QuantSpec | None = None) -> str:
        """Adds a constant and returns its name."""
        data = np.asarray(data, order="C")  # keeps rank 0
        t = Tensor(self.unique(stem), tuple(data.shape), dtype_of(data), data, quant)
        return self.add_tensor(t)

    def emit(
        self,
        type: str,
        inputs: Sequence[str],
        attrs: dict[str, Any] | None = None,
        *,
        name: str = "",
        outputs: Sequence[str] | None = None,
        quant: QuantSpec | None = None,
        dtype: str | None = None,
    ) -> str:
        """Appends an op, infers its output tensors' shapes and types, returns the first output's
        name.

        `outputs` names the outputs; `quant`/`dtype` are set on output 0 where given.
        """
        from edgekit import ops

        definition = ops.get(type)
        filled = definition.fill(attrs or {})
        stem = name or (outputs[0] if outputs else type)
        proto = Op(type, stem, tuple(inputs), (), filled)
        types = definition.shape(proto, [self.tensors.get(i) for i in inputs])
        names = list(outputs) if outputs else []
        for i in range(len(names), len(types)):
            names.append(self.unique(f"{stem}:{i}" if i else stem))
        for i, (n, (shape, kind)) in enumerate(zip(names, types, strict=True)):
            if i == 0 and dtype is not None:
                kind = dtype
            self.add_tensor(Tensor(n, tuple(shape), kind, None, quant if i == 0 else None))
        self.ops.append(proto.with_(outputs=tuple(names)))
        return names[0]

    def producers(self) -> dict[str, Op]:
        return {o: op for op in self.ops for o in op.outputs}

    def consumers(self) -> dict[str, list[Op]]:
        out: dict[str, list[Op]] = {}
        for op in self.ops:
            for i in op.inputs:
                if i:
                    out.setdefault(i, []).append(op)
        return out

    def is_const(self, name: str) -> bool:
        return (
            name in self.tensors and self.tensors[name].data is not None and name not in self.states
        )

    def value(self, name: str) -> Array | None:
        """Data of a constant, None of anything else (states and activations included)."""
        return self.tensors[name].data if name and self.is_const(name) else None

    def drop_unused(self) -> None:
        """Removes tensors no op, input, output or state mentions."""
        used = {*self.inputs, *self.outputs, *self.states}
        for op in self.ops:
            used.update(op.inputs, op.outputs)
        self.tensors = {k: v for k, v in self.tensors.items() if k in used}

    def check(self) -> None:
        """Asserts the invariants every pass must keep: order, names, shapes and types."""
        from edgekit import ops

        known = {*self.inputs, *self.states}
        known.update(n for n, t in self.tensors.items() if t.data is not None)
        for op in self.ops:
            for i in op.inputs:
                if i and i not in known:
                    raise ModelError(f"input {i!r} is used before it is made", where=op.name)
            types = ops.get(op.type).shape(op, [self.tensors.get(i) for i in op.inputs])
            for o, (shape, _) in zip(op.outputs, types, strict=True):
                if tuple(shape) != self.tensors[o].shape:
                    raise ModelError(
                        f"{op.type} makes {tuple(shape)}, its output says {self.tensors[o].shape}",
                        where=op.name,
                    )
                known.add(o)
        for o in self.outputs:
            if o not in known:
                raise ModelError(f"output {o!r} is never made")


def rename(names: Iterable[str], mapping: dict[str, str]) -> tuple[str, ...]:
    """Names with those in `mapping` replaced."""
    return tuple(mapping.get(n, n) for n in names)

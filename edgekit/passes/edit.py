"""How passes change a graph: an Editor over a copy, with producers and consumers kept current."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgekit import ops
from edgekit.ir import Array, Graph, Op, QuantSpec


class Editor:
    """Edits a copy of a graph.  `finish` sorts the ops, drops dead ones and checks the result."""

    def __init__(self, graph: Graph) -> None:
        self.g = graph.copy()
        self.ops: dict[str, Op] = {}  # by first output, in order; new ops at the end
        self.made: dict[str, str] = {}  # tensor -> key of its op
        self.users: dict[
            str, dict[str, None]
        ] = {}  # tensor -> keys of the ops that read it, in order
        for op in self.g.ops:
            self._enter(op)

    def _enter(self, op: Op) -> None:
        key = op.outputs[0]
        self.ops[key] = op
        self.made.update(dict.fromkeys(op.outputs, key))
        for i in op.inputs:
            if i:
                self.users.setdefault(i, {})[key] = None

    def _leave(self, op: Op) -> None:
        key = op.outputs[0]
        for i in op.inputs:
            self.users.get(i, {}).pop(key, None)
        for o in op.outputs:
            self.made.pop(o, None)

    def producer(self, tensor: str, *types: str) -> Op | None:
        """The op that makes a tensor, if it is of one of the types (any, where none is named).

        A state is made before the run: None.
        """
        key = self.made.get(tensor) if tensor not in self.g.states else None
        op = self.ops[key] if key is not None else None
        return op if op is not None and (not types or op.type in types) else None

    def consumers(self, tensor: str) -> list[Op]:
        return [self.ops[k] for k in self.users.get(tensor, {})]

    def sole(self, tensor: str) -> Op | None:
        """The only reader of a tensor that is no output or state of the graph."""
        readers = self.consumers(tensor)
        kept = tensor in self.g.outputs or tensor in self.g.states
        return readers[0] if len(readers) == 1 and not kept else None

    def private(self, op: Op) -> bool:
        """Whether one op alone reads this op's only output."""
        return len(op.outputs) == 1 and self.sole(op.outputs[0]) is not None

    def shape(self, tensor: str) -> tuple[int, ...]:
        return self.g.tensors[tensor].shape

    def value(self, tensor: str) -> Array | None:
        return self.g.value(tensor)

    def scalar(self, tensor: str) -> float | None:
        """The value of a constant of one element."""
        data = self.g.value(tensor)
        return float(data.ravel()[0]) if data is not None and data.size == 1 else None

    def const(self, stem: str, data: Array) -> str:
        return self.g.const(stem, data)

    def emit(
        self,
        type: str,
        inputs: Sequence[str],
        attrs: dict[str, Any] | None = None,
        *,
        name: str,
        quant: QuantSpec | None = None,
        dtype: str | None = None,
    ) -> str:
        """Adds an op (its place is found by `finish`) and returns its first output."""
        out = self.g.emit(type, inputs, attrs, name=name, quant=quant, dtype=dtype)
        self._enter(self.g.ops.pop())
        return out

    def swap(self, old: Op, new: Op) -> Op:
        """Puts `new` in the place of `old`; same outputs, whose shapes and types are inferred
        again.
        """
        assert old.outputs == new.outputs
        self._leave(old)
        self._enter(new)
        types = ops.get(new.type).shape(new, [self.g.tensors.get(i) for i in new.inputs])
        for o, (shape, _) in zip(new.outputs, types, strict=True):
            self.g.tensors[o] = dataclasses.replace(self.g.tensors[o], shape=tuple(shape))
        return new

    def change(self, op: Op, inputs: Sequence[str] | None = None, **attrs: Any) -> Op:
        """Swaps an op for itself with other inputs or attributes."""
        new = op.with_(attrs={**op.attrs, **attrs})
        return self.swap(op, new if inputs is None else new.with_(inputs=tuple(inputs)))

    def remove(self, op: Op) -> None:
        self._leave(op)
        del self.ops[op.outputs[0]]

    def replace(self, op: Op, by: str) -> str:
        """Removes an op of one output; whoever read that reads `by`.  Returns what `by` is called
        now.

        A graph output keeps its name: `by` is renamed to it, or copied where it has a name to keep
        itself. What is written to a state is copied into it.
        """
        (old,) = op.outputs
        self.remove(op)
        if old in self.g.states:
            self._enter(Op("reshape", op.name, (by,), (old,), {"shape": self.shape(by)}))
            return by
        for user in self.consumers(old):
            inputs = tuple(by if i == old else i for i in user.inputs)
            self._leave(user)
            self._enter(user.with_(inputs=inputs))
        if old not in self.g.outputs:
            return by
        del self.g.tensors[old]
        if by in self.made and by not in self.g.outputs and by not in self.g.states:
            self._rename(by, old)
            return old
        self.g.emit("reshape", [by], {"shape": self.shape(by)}, name=op.name, outputs=[old])
        self.g.tensors[old] = dataclasses.replace(
            self.g.tensors[old], quant=self.g.tensors[by].quant
        )
        self._enter(self.g.ops.pop())
        return by

    def _rename(self, old: str, new: str) -> None:
        maker = self.ops[self.made[old]]
        self.remove(maker)
        self.g.tensors[new] = dataclasses.replace(self.g.tensors.pop(old), name=new)
        self._enter(maker.with_(outputs=tuple(new if o == old else o for o in maker.outputs)))
        for user in self.consumers(old):
            self._leave(user)
            self._enter(user.with_(inputs=tuple(new if i == old else i for i in user.inputs)))

    def as_const(self, tensor: str, data: Array) -> None:
        """Makes a computed tensor a constant; the op that made it must have been removed."""
        t = self.g.tensors[tensor]
        self.g.tensors[tensor] = dataclasses.replace(
            t, data=np.asarray(data, order="C"), shape=tuple(data.shape)
        )

    def order(self) -> list[Op]:
        """Live ops: every op after those that make its inputs, otherwise in the order they had.

        Who reads a state reads its value from before the run: that is no dependency on who writes
        it.
        """
        done: dict[str, Op] = {}
        live = [self.made[t] for t in (*self.g.outputs, *self.g.states) if t in self.made]
        needed: set[str] = set()
        while live:
            key = live.pop()
            if key not in needed:
                needed.add(key)
                live.extend(self.made[i] for i in self.ops[key].inputs if i in self.made)
        for first in self.ops:
            stack = [first] if first in needed else []
            while stack:
                key = stack[-1]
                needs = (
                    i for i in self.ops[key].inputs if i in self.made and i not in self.g.states
                )
                missing = [self.made[i] for i in needs if self.made[i] not in done]
                if missing:
                    stack.extend(missing)
                    continue
                done.setdefault(key, self.ops[key])
                stack.pop()
        return list(done.values())

    def walk(self, reverse: bool = False) -> Iterator[Op]:
        """Each op as it is when its turn comes, in execution order; those removed meanwhile are
        left out.
        """
        order = self.order()
        for op in reversed(order) if reverse else order:
            current = self.ops.get(op.outputs[0])
            if current is not None:
                yield current

    def finish(self) -> Graph:
        """The edited graph: sorted, without dead ops and unused tensors, checked."""
        self.g.ops = self.order()
        self.g.drop_unused()
        self.g.check()
        return self.g


def is_constant_quant(g: Graph, op: Op) -> bool:
    """A cast that dequantizes a constant: kept until the quantized ops are formed."""
    to_float = op.type == "cast" and op.attrs["to"] == "f32"
    return to_float and g.is_const(op.inputs[0]) and g.tensors[op.inputs[0]].quant is not None

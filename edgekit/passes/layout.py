"""Moves transposes down the graph until they meet their inverse: the NCHW of foreign models
disappears.

An op whose operand is a transpose computes on the operand before it, in that order of axes, and is
followed by the transpose instead.  Front ends write NCHW -> NHWC before every spatial op and NHWC
-> NCHW after it, so almost all cancel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from edgekit.ir import Graph, Op
from edgekit.ops.reduce import axes_of, mask
from edgekit.passes.edit import Editor

Perm = tuple[int, ...]
Rule = Callable[[Editor, Op], bool]


def inverse(perm: Perm) -> Perm:
    out = [0] * len(perm)
    for i, p in enumerate(perm):
        out[p] = i
    return tuple(out)


def _perm(op: Op) -> Perm:
    return tuple(int(p) for p in op.attrs["perm"])


def _source(e: Editor, tensor: str) -> tuple[str, Perm] | None:
    """(operand, perm) of the transpose that makes a tensor."""
    op = e.producer(tensor, "transpose")
    return (op.inputs[0], _perm(op)) if op is not None else None


def _finish(e: Editor, op: Op, inputs: Sequence[str], perm: Perm, **attrs: Any) -> bool:
    """Replaces op by itself on other inputs, followed by a transpose."""
    old = e.g.tensors[op.outputs[0]]
    y = e.emit(
        op.type, inputs, {**op.attrs, **attrs}, name=op.name, quant=old.quant, dtype=old.dtype
    )
    if perm != tuple(range(len(perm))):
        y = e.emit("transpose", [y], {"perm": perm}, name=f"{op.name}.order", quant=old.quant)
    e.replace(op, y)
    return True


def _compose(e: Editor, op: Op) -> bool:
    source = _source(e, op.inputs[0])
    if source is None:
        return False
    x, first = source
    perm = tuple(first[p] for p in _perm(op))
    if perm == tuple(range(len(perm))):
        if op.outputs[0] in e.g.outputs and x not in e.made:
            return False
        e.replace(op, x)
    else:
        e.change(op, inputs=[x], perm=perm)
    return True


def _elementwise(e: Editor, op: Op) -> bool:
    source = _source(e, op.inputs[0])
    return source is not None and _finish(e, op, [source[0], *op.inputs[1:]], source[1])


def _reordered(e: Editor, tensor: str, perm: Perm, name: str) -> str | None:
    """`tensor` (its shape already full rank) with the axes of a transpose's operand; None where
    that costs a copy.
    """
    source = _source(e, tensor)
    if source is not None and source[1] == perm:
        return source[0]
    shape = e.shape(tensor)
    back = inverse(perm)
    if e.value(tensor) is None and [p for p in back if shape[p] != 1] != [
        p for p in range(len(perm)) if shape[p] != 1
    ]:
        return None
    if len(set(shape)) == 1 and shape[:1] == (1,):
        return tensor
    data = e.value(tensor)
    if data is not None:
        t = e.g.tensors[tensor]
        return e.g.const(tensor, data.transpose(back), t.quant)
    return e.emit(
        "transpose", [tensor], {"perm": back}, name=f"{name}.order", quant=e.g.tensors[tensor].quant
    )


def _full_rank(e: Editor, tensor: str, rank: int, name: str) -> str:
    shape = e.shape(tensor)
    if len(shape) == rank:
        return tensor
    to = (1,) * (rank - len(shape)) + shape
    data, t = e.value(tensor), e.g.tensors[tensor]
    if data is not None:
        return e.g.const(tensor, data.reshape(to), t.quant)
    return e.emit("reshape", [tensor], {"shape": to}, name=f"{name}.rank", quant=t.quant)


def _binary(e: Editor, op: Op) -> bool:
    """One operand at least is a transpose; the other is one too, a constant, small, or must be
    copied.
    """
    rank = len(e.shape(op.outputs[0]))
    sources = [_source(e, i) for i in op.inputs]
    for k in sorted(range(2), key=lambda i: -e.g.tensors[op.inputs[i]].size):
        source = sources[k]
        if source is None or len(source[1]) != rank:
            continue
        perm, other = source[1], op.inputs[1 - k]
        if e.g.tensors[other].size == 1 and e.value(other) is not None:
            moved: str | None = other
        else:
            moved = _reordered(e, _full_rank(e, other, rank, op.name), perm, op.name)
        if moved is None:
            if (
                sources[1 - k] is not None
                or e.g.tensors[other].size > e.g.tensors[op.inputs[k]].size
            ):
                continue
            full = _full_rank(e, other, rank, op.name)
            moved = e.emit("transpose", [full], {"perm": inverse(perm)}, name=f"{op.name}.order",
                           quant=e.g.tensors[other].quant)  # fmt: skip
        inputs = [source[0], moved] if k == 0 else [moved, source[0]]
        return _finish(e, op, inputs, perm)
    return False


def _concat(e: Editor, op: Op) -> bool:
    """Taken where the operands that are transposes of one kind outweigh the others, which are then
    copied.
    """
    weight: dict[Perm, int] = {}
    for i in op.inputs:
        source = _source(e, i)
        if source is not None:
            weight[source[1]] = weight.get(source[1], 0) + e.g.tensors[i].size
    if not weight:
        return False
    perm = max(weight, key=lambda p: weight[p])
    if 2 * weight[perm] < sum(e.g.tensors[i].size for i in op.inputs):
        return False
    inputs = []
    for i in op.inputs:
        moved = _reordered(e, i, perm, op.name)
        if moved is None:
            moved = e.emit(
                "transpose",
                [i],
                {"perm": inverse(perm)},
                name=f"{op.name}.order",
                quant=e.g.tensors[i].quant,
            )
        inputs.append(moved)
    return _finish(e, op, inputs, perm, axis=perm[op.attrs["axis"]])


def _per_axis(*names: str) -> Rule:
    """An op whose listed attributes hold one value per axis."""

    def rule(e: Editor, op: Op) -> bool:
        source = _source(e, op.inputs[0])
        if source is None:
            return False
        back = inverse(source[1])
        return _finish(
            e, op, [source[0]], source[1], **{n: tuple(op.attrs[n][b] for b in back) for n in names}
        )

    return rule


def _reduce(e: Editor, op: Op) -> bool:
    source = _source(e, op.inputs[0])
    if source is None:
        return False
    x, perm = source
    gone = set(axes_of(op))
    axes = mask((perm[a] for a in gone), len(perm))
    if op.attrs["keepdims"]:
        return _finish(e, op, [x], perm, axes=axes)
    kept = [perm[i] for i in range(len(perm)) if i not in gone]
    return _finish(e, op, [x], tuple(sorted(kept).index(k) for k in kept), axes=axes)


def _last_axis(e: Editor, op: Op) -> bool:
    """An op along the last axis that mixes nothing else (linear, softmax, layer_norm)."""
    source = _source(e, op.inputs[0])
    if source is None or source[1][-1] != len(source[1]) - 1:
        return False
    return _finish(e, op, [source[0], *op.inputs[1:]], source[1])


def _gather(e: Editor, op: Op) -> bool:
    """Indices of rank 1 keep the rank; a scalar index removes the axis."""
    source = _source(e, op.inputs[0])
    rank = len(e.shape(op.inputs[1]))
    if source is None or rank > 1:
        return False
    x, perm = source
    axis = perm[op.attrs["axis"]]
    if rank == 0:
        kept = [p for p in perm if p != axis]
        perm = tuple(sorted(kept).index(k) for k in kept)
    return _finish(e, op, [x, op.inputs[1]], perm, axis=axis)


def _groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]] | None:
    """Runs of axes of `old` and `new` with equal products, axes of size 1 left out; None for size
    0.
    """
    out: list[tuple[list[int], list[int]]] = []
    a = [i for i, d in enumerate(old) if d != 1]
    b = [i for i, d in enumerate(new) if d != 1]
    i = j = 0
    while i < len(a) or j < len(b):
        left, right = [a[i]] if i < len(a) else [], [b[j]] if j < len(b) else []
        if not left or not right:
            return None
        i, j = i + 1, j + 1
        p, q = old[left[0]], new[right[0]]
        while p != q:
            if p < q and i < len(a):
                left.append(a[i])
                p *= old[a[i]]
                i += 1
            elif q < p and j < len(b):
                right.append(b[j])
                q *= new[b[j]]
                j += 1
            else:
                return None
        out.append((left, right))
    return out


def _with_ones(order: Sequence[int], rank: int) -> Perm:
    """`order` with the axes it leaves out (those of size 1), each behind the axis it follows."""
    out = list(order)
    for j in range(rank):
        if j not in order:
            out.insert(out.index(j - 1) + 1 if j else 0, j)
    return tuple(out)


def _reshape(e: Editor, op: Op) -> bool:
    """reshape(transpose(x)) -> transpose'(reshape'(transpose''(x))): only what lies inside a
    merged group stays before.

    Taken where nothing stays before, or where what comes after is an NHWC -> NCHW that is likely
    to cancel.
    """
    source = _source(e, op.inputs[0])
    if source is None:
        return False
    x, perm = source
    old, new = e.shape(op.inputs[0]), e.shape(op.outputs[0])
    groups = _groups(old, new)
    if not groups or 0 in old:
        return False
    moved = sorted(groups, key=lambda g: min(perm[i] for i in g[0]))
    inner = [perm[i] for g in moved for i in g[0]]
    stays = inner != sorted(inner)
    after = [j for g in moved for j in g[1]]
    outer = _with_ones(after, len(new))
    if stays and (after == sorted(after) or not _image_order(after, new)):
        return False
    if stays:
        quant = e.g.tensors[x].quant
        x = e.emit(
            "transpose",
            [x],
            {"perm": _with_ones(inner, len(perm))},
            name=f"{op.name}.inner",
            quant=quant,
        )
    return _finish(e, op, [x], inverse(outer), shape=tuple(new[j] for j in outer))


def _image_order(after: list[int], new: Sequence[int]) -> bool:
    """Whether the new order puts an image's channels last."""
    return len(new) == 4 and after[-1] == 1


RULES: dict[str, Rule] = {
    "transpose": _compose,
    "unary": _elementwise,
    "cast": _elementwise,
    "lut": _elementwise,
    "binary": _binary,
    "concat": _concat,
    "slice": _per_axis("begin", "size", "step"),
    "pad": _per_axis("before", "after"),
    "tile": _per_axis("repeats"),
    "reduce": _reduce,
    "softmax": _last_axis,
    "linear": _last_axis,
    "layer_norm": _last_axis,
    "gather": _gather,
    "reshape": _reshape,
}


def sink_transposes(graph: Graph) -> Graph:
    """One walk in execution order; every op is asked once whether it can compute before its
    operand's transpose.
    """
    e = Editor(graph)
    for op in e.walk():
        rule = RULES.get(op.type)
        if rule is not None and len(op.outputs) == 1:
            rule(e, op)
    return e.finish()


def permute_linear(graph: Graph) -> Graph:
    """linear(reshape(transpose(x))): the weights' columns take the order of x instead (flatten
    before a classifier).
    """
    e = Editor(graph)
    for op in e.walk():
        if op.type != "linear":
            continue
        flat = e.producer(op.inputs[0], "reshape")
        source = _source(e, flat.inputs[0]) if flat is not None else None
        w = e.value(op.inputs[1])
        if flat is None or source is None or w is None or not e.private(flat):
            continue
        x, perm = source
        rows = e.shape(flat.inputs[0])
        lead = next((i for i in range(len(rows)) if math.prod(rows[i:]) == w.shape[1]), None)
        if (
            lead is None
            or perm[:lead] != tuple(range(lead))
            or math.prod(e.shape(flat.outputs[0])[:-1]) != math.prod(rows[:lead])
        ):
            continue
        back = [0, *(1 + b - lead for b in inverse(perm)[lead:])]
        columns = w.reshape(len(w), *rows[lead:]).transpose(back).reshape(w.shape)
        quant = e.g.tensors[op.inputs[1]].quant
        y = e.emit(
            "reshape",
            [x],
            {"shape": e.shape(flat.outputs[0])},
            name=flat.name,
            quant=e.g.tensors[x].quant,
        )
        e.change(op, inputs=[y, e.g.const(op.inputs[1], columns, quant), *op.inputs[2:]])
    return e.finish()


def transposes_to_reshapes(graph: Graph) -> Graph:
    """A transpose that only moves axes of 1 copies nothing: it is a reshape."""
    e = Editor(graph)
    for op in e.walk():
        if op.type != "transpose":
            continue
        shape, perm = e.shape(op.inputs[0]), _perm(op)
        long = [p for p in perm if shape[p] != 1]
        if long == sorted(long):
            e.swap(
                op, Op("reshape", op.name, op.inputs, op.outputs, {"shape": e.shape(op.outputs[0])})
            )
    return e.finish()

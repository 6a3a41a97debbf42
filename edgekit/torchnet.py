"""A graph as a differentiable torch function of its constants and activations, for any batch.

Tensors keep the IR's layouts (NHWC, OHWI); axis 0 of activations is the batch.  Only the float ops
that convolutional nets and decoders need are here: ModelError names any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgekit.errors import ModelError
from edgekit.ir import Array, Graph, Op
from edgekit.ops import resize

Tensor = Any  # torch.Tensor: torch is imported where it is used
Hook = Callable[[Op, Tensor], Tensor]
FIXED = ("softmax",)  # ops whose int8 output's scale is part of their meaning


def tensors(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    """float32 or integer arrays as torch tensors."""
    import torch

    return {k: torch.from_numpy(np.array(a)) for k, a in arrays.items()}


def constants(graph: Graph) -> dict[str, Tensor]:
    """Every constant of the graph as a torch tensor, by name."""
    return tensors({n: t.data for n, t in graph.tensors.items() if t.data is not None})


def logits_of(graph: Graph) -> str:
    """The tensor a classifier's loss is taken from: the first output, before its softmax."""
    op = graph.producers()[graph.outputs[0]]
    return op.inputs[0] if op.type == "softmax" else op.outputs[0]


def unsupported(graph: Graph) -> list[str]:
    """Types of the graph's ops that have no differentiable form here."""
    return sorted({op.type for op in graph.ops} - set(FORMS))


def run(
    ops: Sequence[Op],
    values: dict[str, Tensor],
    weights: Mapping[str, Tensor],
    hook: Hook | None = None,
) -> dict[str, Tensor]:
    """Runs ops over `values` (activations by name, changed in place) and `weights` (constants).

    `hook(op, y)` may replace an op's first output, as fake quantization does.
    """
    for op in ops:
        form = FORMS.get(op.type)
        if form is None:
            raise ModelError(f"{op.type} has no differentiable form", where=op.name)
        xs = [values[n] if n in values else weights[n] if n else None for n in op.inputs]
        y = form(op, xs)
        values[op.outputs[0]] = y if hook is None else hook(op, y)
    return values


def clamped(op: Op, y: Tensor) -> Tensor:
    """A result between the op's `lo` and `hi`."""
    import torch.nn.functional as nn

    lo, hi = float(op.attrs["lo"]), float(op.attrs["hi"])
    if np.isinf(lo) and np.isinf(hi):
        return y
    if lo == 0 and np.isinf(hi):  # these two have a quicker gradient than clamp
        return nn.relu(y)
    if not np.isinf(lo) and not np.isinf(hi):
        return nn.hardtanh(y, lo, hi)
    return y.clamp(None if np.isinf(lo) else lo, None if np.isinf(hi) else hi)


def _padded(x: Tensor, pad: Sequence[int], value: float = 0.0) -> Tensor:
    """NCHW padded by top, left, bottom, right."""
    import torch.nn.functional as nn

    top, left, bottom, right = pad
    return nn.pad(x, (left, right, top, bottom), value=value) if any(pad) else x


def _conv(op: Op, xs: list[Tensor]) -> Tensor:
    import torch.nn.functional as nn

    a, (x, w) = op.attrs, xs[:2]
    depthwise = op.type == "depthwise_conv2d"
    kernel = w.permute(2, 0, 1).unsqueeze(1) if depthwise else w.permute(0, 3, 1, 2)
    groups = w.shape[2] if depthwise else a["groups"]
    top, left, bottom, right = a["pad"]
    even = (top, left) == (bottom, right)
    x = x.permute(0, 3, 1, 2)
    x = x if even else _padded(x, a["pad"])
    bias = xs[2] if len(xs) > 2 else None
    pad = (top, left) if even else (0, 0)
    y = nn.conv2d(x, kernel, bias, tuple(a["stride"]), pad, tuple(a["dilation"]), groups)
    return clamped(op, y.permute(0, 2, 3, 1))


def _linear(op: Op, xs: list[Tensor]) -> Tensor:
    import torch.nn.functional as nn

    return clamped(op, nn.linear(xs[0], xs[1], xs[2] if len(xs) > 2 else None))


def _binary(op: Op, xs: list[Tensor]) -> Tensor:
    import torch

    a, b = xs
    forms: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
        "min": torch.minimum,
        "max": torch.maximum,
        "prelu": lambda a, b: torch.where(a < 0, a * b, a),
    }
    if op.attrs["kind"] not in forms:
        raise ModelError(f"{op.attrs['kind']} has no differentiable form", where=op.name)
    return clamped(op, forms[op.attrs["kind"]](a, b))


def _unary(op: Op, xs: list[Tensor]) -> Tensor:
    import torch
    import torch.nn.functional as nn

    x, alpha, beta = xs[0], op.attrs["alpha"], op.attrs["beta"]
    forms: dict[str, Callable[[], Tensor]] = {
        "clamp": lambda: x.clamp(alpha, beta),
        "sigmoid": lambda: torch.sigmoid(x),
        "tanh": lambda: torch.tanh(x),
        "exp": lambda: torch.exp(x),
        "neg": lambda: -x,
        "abs": lambda: x.abs(),
        "sqrt": lambda: x.sqrt(),
        "gelu": lambda: nn.gelu(x),
        "gelu_tanh": lambda: nn.gelu(x, approximate="tanh"),
        "silu": lambda: nn.silu(x),
        "hardswish": lambda: nn.hardswish(x),
        "hardsigmoid": lambda: (alpha * x + beta).clamp(0, 1),
        "leaky_relu": lambda: torch.where(x < 0, alpha * x, x),
        "elu": lambda: torch.where(x < 0, alpha * torch.expm1(x), x),
        "softplus": lambda: nn.softplus(x),
        "mish": lambda: nn.mish(x),
    }
    if op.attrs["kind"] not in forms:
        raise ModelError(f"{op.attrs['kind']} has no differentiable form", where=op.name)
    return forms[op.attrs["kind"]]()


def _avg_pool(op: Op, xs: list[Tensor]) -> Tensor:
    import torch
    import torch.nn.functional as nn

    a = op.attrs
    x = _padded(xs[0].permute(0, 3, 1, 2), a["pad"])
    mask = _padded(torch.ones_like(xs[0][:1, :, :, :1].permute(0, 3, 1, 2)), a["counted"], 1.0)
    extra = [p - c for p, c in zip(a["pad"], a["counted"], strict=True)]
    mask = _padded(mask, extra)
    kernel, stride = tuple(a["kernel"]), tuple(a["stride"])
    if any(d != 1 for d in a["dilation"]):
        raise ModelError("a dilated mean has no differentiable form", where=op.name)
    share = nn.avg_pool2d(mask, kernel, stride).clamp_min(1e-9)
    return clamped(op, (nn.avg_pool2d(x, kernel, stride) / share).permute(0, 2, 3, 1))


def _max_pool(op: Op, xs: list[Tensor]) -> Tensor:
    import torch.nn.functional as nn

    a = op.attrs
    x = _padded(xs[0].permute(0, 3, 1, 2), a["pad"], -np.inf)
    y = nn.max_pool2d(x, tuple(a["kernel"]), tuple(a["stride"]), 0, tuple(a["dilation"]))
    return y.permute(0, 2, 3, 1)


def _reduce(op: Op, xs: list[Tensor]) -> Tensor:
    a = op.attrs
    axes = tuple(i for i in range(xs[0].ndim) if int(a["axes"]) >> i & 1)
    keep = bool(a["keepdims"])
    if a["kind"] == "mean":
        return xs[0].mean(axes, keepdim=keep)
    if a["kind"] == "sum":
        return xs[0].sum(axes, keepdim=keep)
    if a["kind"] == "max":
        return xs[0].amax(axes, keepdim=keep)
    raise ModelError(f"{a['kind']} has no differentiable form", where=op.name)


def _reshape(op: Op, xs: list[Tensor]) -> Tensor:
    shape = list(op.attrs["shape"])
    if shape[0] != 1:
        raise ModelError("a reshape that moves the batch axis", where=op.name)
    return xs[0].reshape(-1, *shape[1:])


def _resize(op: Op, xs: list[Tensor]) -> Tensor:
    import torch

    x = xs[0]
    for axis, line in zip((1, 2), resize.lines(op, x.shape), strict=True):
        if op.attrs["mode"] == "nearest":
            x = x.index_select(
                axis, torch.from_numpy(resize.nearest_index(*line, op.attrs["nearest"]))
            )
            continue
        low, part = resize.linear_index(*line)
        part = torch.from_numpy(part).to(x.dtype).reshape([-1] + [1] * (3 - axis))
        high = np.minimum(low + 1, line[0] - 1)
        a, b = (x.index_select(axis, torch.from_numpy(i)) for i in (low, high))
        x = torch.lerp(a, b, part.expand_as(a))
    return x


def _pad(op: Op, xs: list[Tensor]) -> Tensor:
    import torch.nn.functional as nn

    a, rank = op.attrs, xs[0].ndim
    if a["mode"] != "constant":
        raise ModelError(f"padding {a['mode']!r} has no differentiable form", where=op.name)
    pairs = zip(a["before"][:rank], a["after"][:rank], strict=True)
    flat = [n for pair in reversed(list(pairs)) for n in pair]
    return nn.pad(xs[0], flat, value=float(a["value"]))


def _slice(op: Op, xs: list[Tensor]) -> Tensor:
    import torch

    x, a = xs[0], op.attrs
    for axis in range(1, x.ndim):
        begin, step, size = a["begin"][axis], a["step"][axis], a["size"][axis]
        if begin == 0 and step == 1 and size == x.shape[axis]:
            continue
        x = torch.index_select(x, axis, torch.arange(size) * step + begin)
    return x


def _gather(op: Op, xs: list[Tensor]) -> Tensor:
    if int(op.attrs["axis"]) != 0:
        raise ModelError("a gather along an axis of its own", where=op.name)
    return xs[0][xs[1].long()]


def _matmul(op: Op, xs: list[Tensor]) -> Tensor:
    return xs[0] @ (xs[1].transpose(-1, -2) if op.attrs["trans_b"] else xs[1])


def _layer_norm(op: Op, xs: list[Tensor]) -> Tensor:
    import torch

    x = xs[0] if op.attrs["rms"] else xs[0] - xs[0].mean(-1, keepdim=True)
    y = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + float(op.attrs["eps"]))
    gain, shift = (*xs[1:], None, None)[:2]
    y = y if gain is None else y * gain
    return y if shift is None else y + shift


def _cast(op: Op, xs: list[Tensor]) -> Tensor:
    if op.attrs["to"] not in ("i32", "i64"):
        raise ModelError(f"a cast to {op.attrs['to']} has no differentiable form", where=op.name)
    return xs[0].long()


FORMS: dict[str, Callable[[Op, list[Tensor]], Tensor]] = {
    "conv2d": _conv,
    "depthwise_conv2d": _conv,
    "linear": _linear,
    "matmul": _matmul,
    "layer_norm": _layer_norm,
    "gather": _gather,
    "cast": _cast,
    "binary": _binary,
    "unary": _unary,
    "avg_pool2d": _avg_pool,
    "max_pool2d": _max_pool,
    "reduce": _reduce,
    "reshape": _reshape,
    "resize": _resize,
    "pad": _pad,
    "slice": _slice,
    "concat": lambda op, xs: __import__("torch").cat(xs, int(op.attrs["axis"])),
    "transpose": lambda op, xs: xs[0].permute(*op.attrs["perm"][: xs[0].ndim]),
    "softmax": lambda op, xs: _softmax(op, xs[0]),
}


def _softmax(op: Op, x: Tensor) -> Tensor:
    import torch

    z = x * float(op.attrs["beta"])
    return torch.log_softmax(z, -1) if op.attrs["log"] else torch.softmax(z, -1)

"""The reference runtime: a graph evaluated op by op with numpy.  Slow, and the truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from edgekit import ops
from edgekit.errors import DataError
from edgekit.ir import NUMPY, Array, Graph


def _feed(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The graph's inputs, checked for names, shapes and types."""
    unknown = sorted(set(inputs) - set(graph.inputs))
    if unknown:
        raise DataError(
            f"no input is named {unknown[0]!r}", todo=f"inputs: {', '.join(graph.inputs)}"
        )
    out = {}
    for name in graph.inputs:
        if name not in inputs:
            raise DataError(f"input {name!r} is missing")
        t, x = graph.tensors[name], np.asarray(inputs[name])
        if tuple(x.shape) != t.shape:
            raise DataError(f"input {name!r} is {tuple(x.shape)}, the model wants {t.shape}")
        kind = np.dtype(NUMPY[t.dtype])
        if x.dtype != kind and not np.can_cast(x.dtype, kind, "same_kind"):
            raise DataError(f"input {name!r} is {x.dtype}, the model wants {kind}")
        out[name] = x.astype(kind, copy=False)
    return out


def steps(
    graph: Graph, inputs: Mapping[str, Array], states: dict[str, Array] | None = None
) -> Iterator[tuple[str, Array]]:
    """Yields (tensor name, value) in execution order and forgets what no later op reads.

    `states` holds the persistent tensors between calls and is updated in place; a name it lacks
    starts at the tensor's initial value.
    """
    values = _feed(graph, inputs)
    states = {} if states is None else states
    for name in graph.states:
        data = graph.tensors[name].data
        if name not in states and data is not None:
            states[name] = data.copy()
        values[name] = states[name]
    values.update(
        (n, t.data) for n, t in graph.tensors.items() if t.data is not None and n not in values
    )
    last = {i: k for k, op in enumerate(graph.ops) for i in op.inputs}
    for k, op in enumerate(graph.ops):
        operands = [values[i] if i else None for i in op.inputs]
        results = ops.get(op.type).reference(op, graph, operands)
        for name, value in zip(op.outputs, results, strict=True):
            values[name] = value
            if name in graph.states:
                states[name] = value
            yield name, value
        for i in op.inputs:
            if i and last[i] == k and not graph.is_const(i) and i not in graph.outputs:
                values.pop(i, None)


def run(
    graph: Graph, inputs: Mapping[str, Array], states: dict[str, Array] | None = None
) -> dict[str, Array]:
    """Every tensor that is computed, by name (see `steps`)."""
    return dict(steps(graph, inputs, states))


def outputs(
    graph: Graph, inputs: Mapping[str, Array], states: dict[str, Array] | None = None
) -> dict[str, Array]:
    """The graph's outputs by name (see `steps`)."""
    wanted = set(graph.outputs)
    found = {n: v for n, v in steps(graph, inputs, states) if n in wanted}
    return {n: found[n] for n in graph.outputs}

"""Every sample of every op in one package, one entry each: a device runs them all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit import ops, package, plan
from edgekit.ir import Array, Graph
from edgekit.layout import Target
from edgekit.passes.lower import lower

TOLERANCE = 1e-4  # of the largest value, for ops that are not exact


@dataclass(frozen=True)
class Case:
    """One sample: the bytes that go in, what the numpy reference gives, and whether bit for bit."""

    name: str
    inputs: bytes
    outputs: tuple[Array, ...]
    exact: bool


def all_cases(target: Target) -> tuple[bytes, list[Case]]:
    """Package bytes and its cases, entry by entry."""
    entries = []
    cases = []
    for name, op_def in ops.table().items():
        for label, graph, inputs in op_def.samples():
            lowered = lower(graph, target)
            entries.append((f"{name} {label}"[:90], lowered, plan.make(lowered, target)))
            values = graph_outputs(graph, inputs)
            exact = all(ops.get(op.type).exact(op, graph) for op in graph.ops)
            data = b"".join(np.ascontiguousarray(inputs[i]).tobytes() for i in graph.inputs)
            cases.append(Case(f"{name} {label}", data, values, exact))
    return package.write(entries, meta={}), cases


def graph_outputs(graph: Graph, inputs: dict[str, Array]) -> tuple[Array, ...]:
    """The graph's outputs by the numpy references of its ops."""
    values: dict[str, Array] = dict(inputs)
    for tensor in graph.tensors.values():
        if tensor.data is not None:
            values[tensor.name] = tensor.data
    for op in graph.ops:
        operands = [values[n] if n else None for n in op.inputs]
        results = ops.get(op.type).reference(op, graph, operands)
        values.update(zip(op.outputs, results, strict=True))
    return tuple(values[o] for o in graph.outputs)


def differences(cases: Sequence[Case], outputs: Sequence[bytes]) -> list[str]:
    """What is wrong with a device's outputs; empty when all is right."""
    if len(outputs) != len(cases):
        return [f"{len(outputs)} outputs for {len(cases)} cases"]
    found = []
    for case, got in zip(cases, outputs, strict=True):
        want = b"".join(np.ascontiguousarray(a).tobytes() for a in case.outputs)
        if len(got) != len(want):
            found.append(f"{case.name}: {len(got)} bytes, not {len(want)}")
        elif case.exact and got != want:
            wrong = sum(a != b for a, b in zip(got, want, strict=True))
            found.append(f"{case.name}: {wrong} of {len(want)} bytes differ")
        elif not case.exact and not close(case.outputs, got):
            found.append(f"{case.name}: not within {TOLERANCE} of the largest value")
    return found


def close(want: Sequence[Array], got: bytes) -> bool:
    """Whether the float outputs in ``got`` lie within the tolerance of ``want``."""
    at = 0
    for array in want:
        values = np.frombuffer(got, array.dtype, array.size, at).astype(np.float64)
        at += array.nbytes
        reference = array.astype(np.float64).ravel()
        largest = np.max(np.abs(reference), initial=0.0)
        if not np.all(np.abs(values - reference) <= TOLERANCE * largest + 1e-30):
            return False
    return True

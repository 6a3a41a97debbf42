"""Graph -> Graph: every pass works on a copy and returns a checked graph."""

from __future__ import annotations

from collections.abc import Callable

from edgekit.ir import Graph
from edgekit.passes import attention, fuse, layout, qdq, recognize, simplify

Pass = Callable[[Graph], Graph]

CLEAN: tuple[Pass, ...] = (
    simplify.fold_constants,
    simplify.drop_identities,
    simplify.strength,
    simplify.merge_equal,
)
PASSES: tuple[Pass, ...] = (
    *CLEAN,
    layout.sink_transposes,
    *CLEAN,
    layout.sink_transposes,
    fuse.transpose_into_matmul,
    layout.permute_linear,
    layout.transposes_to_reshapes,
    *CLEAN,
    fuse.matmul_to_linear,
    recognize.norms,
    recognize.fold_norm_affine,
    recognize.activations,
    attention.scalars_after_matmul,
    attention.scale_into_softmax,
    fuse.fold_pads,
    fuse.fold_affine,
    fuse.fuse_clamps,
    fuse.fold_input_affine,
    qdq.sink_dequantize,
    qdq.form_integer_ops,
    qdq.sink_dequantize,
    simplify.fold_dequantized,
    *CLEAN,
)


def simplify_all(graph: Graph) -> tuple[Graph, list[str]]:
    """Every pass in order; returns the graph and a line for each pass that changed its number of
    ops.
    """
    notes = []
    for p in PASSES:
        before = _count(graph)
        graph = p(graph)
        after = _count(graph)
        if before != after:
            diff = {k: after.get(k, 0) - before.get(k, 0) for k in sorted({*before, *after})}
            changed = ", ".join(f"{k} {d:+d}" for k, d in diff.items() if d)
            notes.append(
                f"{p.__name__}: {sum(before.values())} -> {sum(after.values())} ops ({changed})"
            )
    return graph, notes


def _count(graph: Graph) -> dict[str, int]:
    out: dict[str, int] = {}
    for op in graph.ops:
        out[op.type] = out.get(op.type, 0) + 1
    return out

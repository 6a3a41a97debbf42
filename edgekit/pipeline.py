"""The straight line, one function per stage: model -> Graph -> compress -> plan -> package -> measurement."""

from __future__ import annotations

from typing import Any

from edgekit import package, plan
from edgekit.ir import Graph
from edgekit.layout import Target
from edgekit.package import Golden
from edgekit.passes.lower import lower


def package_graph(
    graph: Graph,
    target: Target,
    *,
    keep: bool = False,
    meta: dict[str, Any] | None = None,
    model_id: bytes = b"",
    goldens: list[Golden] | None = None,
) -> bytes:
    """Lowers, plans and writes one graph as the entry "main"; returns the package's bytes.

    `keep` plans every tensor its own memory, so that Session.tensor reads any of them after a run.
    """
    graph.check()
    lowered = lower(graph, target)
    p = plan.make(lowered, target, keep=keep)
    return package.write([("main", lowered, p)], meta=meta or {}, model_id=model_id, goldens=goldens)

"""The operations, one file each.  `ALL` finds the files; nothing else lists them.

An op file defines `OP = OpDef(...)`.  Adding an op is that file plus native/ops/<op>.c; `make gen`
writes the C lists, attribute structures and op codes from here.  `add` registers an op of a user.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import runpy
from pathlib import Path

from edgekit.errors import EdgeKitError, ModelError, UsageError
from edgekit.ir import Graph
from edgekit.ops.base import OpDef

OWN = 0x8000  # codes from here to 0xfffe are of ops that users add
_ADDED: dict[str, OpDef] = {}


@functools.cache
def table() -> dict[str, OpDef]:
    """Every op by name, in the order of op codes."""
    found: dict[str, OpDef] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        definition = getattr(module, "OP", None)
        if isinstance(definition, OpDef):
            found[definition.name] = definition
    found |= _ADDED
    by_code = sorted(found.values(), key=lambda d: d.code)
    codes = [d.code for d in by_code]
    if len(set(codes)) != len(codes):
        raise AssertionError(f"two ops share a code: {codes}")
    return {d.name: d for d in by_code}


def get(name: str) -> OpDef:
    """The definition of one op; ModelError names the unknown."""
    try:
        return table()[name]
    except KeyError:
        raise ModelError(f"no op is named {name!r}", todo=f"known: {', '.join(table())}") from None


def add(definition: OpDef) -> OpDef:
    """Registers an op of your own, whose C hook goes into the list `ek_config.ops`.

    Raises UsageError for a code that is not among those of users (0x8000 to 0xfffe) or is taken.
    """
    taken = {d.name for d in table().values() if d.code == definition.code} - {definition.name}
    if not OWN <= definition.code <= 0xFFFE or taken or definition.name in table().keys() - _ADDED:
        raise UsageError(
            f"op {definition.name!r} cannot have the code {definition.code:#x}",
            todo="take a free one from 0x8000 to 0xfffe, and a name that no other op has",
        )
    _ADDED[definition.name] = definition
    table.cache_clear()
    return definition


def load(file: Path) -> None:
    """Runs a Python file that adds ops, and importers of them; UsageError where it fails or adds
    none."""
    before = dict(_ADDED)
    try:
        runpy.run_path(str(file))
    except EdgeKitError:
        raise
    except Exception as e:  # whatever a user's file may raise
        raise UsageError(f"{file} does not run: {e or type(e).__name__}") from None
    if before == _ADDED:
        raise UsageError(f"{file} adds no op", todo="call edgekit.ops.add(OpDef(...)) in it")


def own(graph: Graph) -> list[str]:
    """Types of a graph's ops that are a user's: only a C hook of theirs runs them."""
    return [t for t in dict.fromkeys(op.type for op in graph.ops) if get(t).code >= OWN]

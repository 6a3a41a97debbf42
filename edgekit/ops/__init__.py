"""The operations, one file each.  `ALL` finds the files; nothing else lists them.

An op file defines `OP = OpDef(...)`.  Adding an op is that file plus native/ops/<op>.c; `make gen`
writes the C lists, attribute structures and op codes from here.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

from edgekit.errors import ModelError
from edgekit.ops.base import OpDef


@functools.cache
def table() -> dict[str, OpDef]:
    """Every op by name, in the order of op codes."""
    found: dict[str, OpDef] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        definition = getattr(module, "OP", None)
        if isinstance(definition, OpDef):
            found[definition.name] = definition
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

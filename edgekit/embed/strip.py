"""A package without what only people read: metadata, and all names but of entries and ends."""

from __future__ import annotations

import struct

from edgekit import package

NAMED = {
    "TENS": 64,
    "OPS ": 32,
    "ENTR": 32,
}  # tables whose records begin with a name; their strides


def strip(data: bytes) -> bytes:
    """The same package, smaller: same ops, places, weights and golden vectors, so the same bits.

    Names of entries, inputs and outputs stay, since `ek_find` looks them up.
    """
    parts = package.sections(data)
    parts.pop("META", None)
    parts.pop("SIGN", None)  # it was made over the other bytes
    old = parts["STRS"]
    kept = _ends(parts)
    strings = bytearray(b"\0")
    places: dict[int, int] = {}

    def place(at: int) -> int:
        """Where the name that began at ``at`` begins now."""
        if at not in places:
            places[at] = len(strings)
            strings.extend(old[at : old.index(b"\0", at) + 1])
        return places[at]

    for kind, stride in NAMED.items():
        table = bytearray(parts.get(kind, b""))
        for i in range(len(table) // stride):
            (at,) = struct.unpack_from("<I", table, i * stride)
            keep = kind == "ENTR" or (kind == "TENS" and i in kept)
            struct.pack_into("<I", table, i * stride, place(at) if keep else 0)
        if kind in parts:
            parts[kind] = bytes(table)
    parts["STRS"] = bytes(strings)
    return package.reassemble(data, parts)


def _ends(parts: dict[str, bytes]) -> set[int]:
    """Indices of the tensors that are inputs or outputs of an entry."""
    found: set[int] = set()
    for i in range(len(parts["ENTR"]) // NAMED["ENTR"]):
        first, inputs, outputs = struct.unpack_from("<IHH", parts["ENTR"], i * NAMED["ENTR"] + 12)
        found |= set(struct.unpack_from(f"<{inputs + outputs}I", parts["REFS"], 4 * first))
    return found

"""A package without what only people read: metadata, and all names but of entries and ends."""

from __future__ import annotations

import struct

from edgekit import layout, ops, package

# encodings of weights that are all there, byte 0
PLAIN = bytes((layout.PLAIN, layout.PAIRS))
CONVOLUTIONS = {ops.get(t).code for t in ("conv2d", "depthwise_conv2d", "linear")}


def strip(data: bytes) -> bytes:
    """The same package, smaller: same ops, places, weights and golden vectors, so the same bits.

    Names of entries, inputs and outputs stay, since `ek_find` looks them up.  Nothing is
    aligned to more than a microcontroller asks for.
    """
    parts, strides = package.sections(data), package.strides(data)
    for kind in ("META", "SIGN"):  # a signature was made over the other bytes
        parts.pop(kind, None)
    size = strides["REFS"]
    refs = struct.unpack(f"<{len(parts['REFS']) // size}{'H' if size == 2 else 'I'}", parts["REFS"])
    parts["OPS "] = package.columns(parts["OPS "], strides["OPS "], package.UNNAMED_OP)
    strides["OPS "] = package.UNNAMED_OP
    vari, wide = parts.get("VARI", b""), strides.get("VARI", 0)
    tails = [vari[i + package.PLAIN_VARIANT : i + wide] for i in range(0, len(vari), wide or 1)]
    if not any(map(any, (tail[:1].strip(PLAIN) for tail in tails))):
        _shapes(parts, refs, strides)
    _names(parts, refs, strides["ENTR"])
    return package.reassemble(data, parts, strides, align=package.UNIT)


def _shapes(parts: dict[str, bytes], refs: tuple[int, ...], strides: dict[str, int]) -> None:
    """Leaves out the logical shapes of packed weights that CONVOLUTIONS read, which know them from
    their other operands; sparse weights are checked against theirs."""
    stride, free = strides["TENS"], set[int]()
    for at in range(0, len(parts["OPS "]), strides["OPS "]):
        code, _, outs, ins, _, first, _, _ = struct.unpack_from(package.OP[:-1], parts["OPS "], at)
        if code in CONVOLUTIONS:
            free |= set(refs[first : first + ins + outs])
    tensors, words = bytearray(parts["TENS"]), bytearray()
    for at in range(0, len(tensors), stride):
        offset, first, dtype, rank, place, variants = struct.unpack_from(
            package.TENSOR, tensors, at
        )
        if dtype == package.DTYPES["packed"] and at // stride in free:
            rank = 0
        count = rank + (2 if place & package.QUANTIZED else 0)
        own = parts["WORD"][4 * first : 4 * (first + count)]
        what = (package.word(words, own), dtype, rank, place, variants)
        struct.pack_into(package.TENSOR, tensors, at, offset, *what)
    parts["TENS"], parts["WORD"] = bytes(tensors), bytes(words)


def _names(parts: dict[str, bytes], refs: tuple[int, ...], stride: int) -> None:
    """Leaves the strings of entries and of their inputs and outputs; those lie first in NAME."""
    old, strings = parts["STRS"], bytearray(b"\0")
    places: dict[int, int] = {}

    def place(at: int) -> int:
        """Where the name that began at ``at`` begins now."""
        if at not in places:
            places[at] = len(strings)
            strings.extend(old[at : old.index(b"\0", at) + 1])
        return places[at]

    entries, kept = bytearray(parts["ENTR"]), set()
    for at in range(0, len(entries), stride):
        name, _, _, first, inputs, outputs = struct.unpack_from(package.ENTRY, entries, at)
        kept |= set(refs[first : first + inputs + outputs])
        struct.pack_into("<I", entries, at, place(name))
    names = struct.unpack(f"<{len(parts['NAME']) // 4}I", parts["NAME"])[: max(kept) + 1]
    new = (place(n) if i in kept else 0 for i, n in enumerate(names))
    parts["NAME"] = struct.pack(f"<{len(names)}I", *new)
    parts["ENTR"], parts["STRS"] = bytes(entries), bytes(strings)

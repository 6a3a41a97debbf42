"""Makes the C twin of the wire table and the tables of native/WIRE.md."""

from __future__ import annotations

import re
from enum import IntEnum

from . import paths, wire

BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"
_NOTE = "/* Made by edgekit/wire_gen.py from edgekit/wire.py: do not edit. */\n"
_KINDS = {"B": "U8", "H": "U16", "I": "U32", "Q": "U64", "i": "U32", "q": "U64", "f": "U32"}


def c_sources() -> dict[str, str]:
    """Path in the repository -> text: native/gen/wire.{h,c}, and WIRE.md with new tables."""
    old = paths.data("native", "WIRE.md").read_text()
    text = old[: old.index(BEGIN)] + markdown() + old[old.index(END) + len(END) :]
    return {
        "native/gen/wire.h": _header(),
        "native/gen/wire.c": _source(),
        "native/WIRE.md": text,
    }


def markdown() -> str:
    """The generated part of native/WIRE.md, between its markers."""
    parts = [BEGIN, "### Messages\n"]
    layouts = list(wire.LAYOUTS.values())
    parts += [_table(x) for x in sorted((x for x in layouts if x.code >= 0), key=lambda x: x.code)]
    parts.append("### Records\n")
    parts += [_table(x) for x in layouts if x.code < 0]
    parts.append("### Numbers\n")
    for prefix, enum in wire.ENUMS.items():
        doc = (enum.__doc__ or "").strip()
        rows = ", ".join(f"{m.value} {m.name}" for m in enum)
        parts.append(f"`{prefix}` {doc} {rows}\n")
    return "\n".join([*parts, END])


def _table(lay: wire.Layout) -> str:
    title = f"#### 0x{lay.code:02X} {lay.name}" if lay.code >= 0 else f"#### {lay.name}"
    rows = [f"{title}\n\n{lay.doc}\n", "| offset | type | field | meaning |", "|---|---|---|---|"]
    at = 0
    for field in lay.fields:
        size = _size(field.kind)
        kind = f"{field.kind.c}[{field.kind.count}]" if field.kind.count > 1 else field.kind.c
        rows.append(f"| {at} | {kind} | {field.name} | {field.doc} |")
        at += size
    if lay.tail:
        item = f"{lay.item}[]" if lay.item else "bytes"
        rows.append(f"| {at} | {item} | {lay.tail} | {lay.tail_doc} |")
    return "\n".join(rows) + "\n"


def _size(kind: wire.Scalar) -> int:
    return kind.count if kind.count > 1 else {"B": 1, "H": 2, "Q": 8, "q": 8}.get(kind.fmt, 4)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _header() -> str:
    out = [_NOTE, "#ifndef EK_GEN_WIRE_H", "#define EK_GEN_WIRE_H"]
    out += ["#include <stddef.h>", "#include <stdint.h>", ""]
    out += [
        f"#define EK_WIRE_VERSION {wire.VERSION}u",
        f"#define EK_WIRE_OVERHEAD {wire.OVERHEAD}u /* header and CRC-32 of a frame */",
        f"#define EK_WIRE_MAX_BODY {wire.MAX_BODY}u",
        f"#define EK_WIRE_MIN_BODY {wire.MIN_BODY}u",
        f"#define EK_WIRE_TEXT_MAX {wire.TEXT_MAX}u",
    ]
    for name in ("STREAM_CONTROL", "STREAM_RUN", "CAP_RESIDENT", "CAP_UPLOAD", "CAP_EMULATED"):
        out.append(f"#define EK_{name} {getattr(wire, name)}u")
    for name in ("ACK_RESEND", "TRACE_SATURATED"):
        out.append(f"#define EK_{name} {getattr(wire, name)}u")
    out.append("")
    out += [_enum(prefix, enum) for prefix, enum in wire.ENUMS.items()]
    codes = [f"    EK_MSG_{_snake(x.name).upper()} = 0x{x.code:02x}" for x in _messages()]
    out += ["/* Type numbers of messages. */", "enum {", ",\n".join(codes), "};", ""]
    out += [_structure(x) for x in wire.LAYOUTS.values()]
    out += [
        "enum { EK_FIELD_U8 = 1, EK_FIELD_U16 = 2, EK_FIELD_U32 = 4, EK_FIELD_U64 = 8, "
        "EK_FIELD_BYTES = 16 };",
        "/* One field: where it is in the C structure, its kind, and its bytes on the wire. */",
        "typedef struct ek_wire_field { uint16_t at; uint8_t kind, size; } ek_wire_field;",
        "/* One body.  `tail` is the offset of its tail pointer (its length follows); 0: none. */",
        "typedef struct ek_wire_layout {",
        "    const ek_wire_field *fields;",
        "    uint16_t size, item; /* bytes on the wire without tail; bytes of a tail's item */",
        "    uint16_t tail;",
        "    uint8_t count, reserved;",
        "} ek_wire_layout;",
        "",
    ]
    out += [f"extern const ek_wire_layout ek_layout_{_snake(x.name)};" for x in _layouts()]
    return "\n".join([*out, "", "#endif", ""])


def _enum(prefix: str, enum: type[IntEnum]) -> str:
    rows = ",\n".join(f"    {prefix}_{m.name} = {m.value}" for m in enum)
    return f"/* {(enum.__doc__ or '').strip()} */\nenum {{\n{rows}\n}};\n"


def _structure(lay: wire.Layout) -> str:
    rows = []
    for field in lay.fields:
        count = f"[{field.kind.count}]" if field.kind.count > 1 else ""
        doc = f" /* {field.doc} */" if field.doc else ""
        rows.append(f"    {field.kind.c} {field.name}{count};{doc}")
    if lay.tail:
        what = f"{lay.item} items" if lay.item else (lay.tail_doc or "bytes")
        rows.append(f"    const uint8_t *{lay.tail}; /* {what} */")
        rows.append(f"    uint32_t {lay.tail}_len; /* bytes */")
    name = _snake(lay.name)
    doc = f"/* {lay.doc} */" if lay.doc else ""
    return "\n".join([doc, f"typedef struct ek_msg_{name} {{", *rows, f"}} ek_msg_{name};", ""])


def _source() -> str:
    out = [_NOTE, '#include "wire.h"', ""]
    for lay in _layouts():
        name = _snake(lay.name)
        rows = []
        for field in lay.fields:
            kind = "BYTES" if field.kind.count > 1 else _KINDS[field.kind.fmt]
            at = f"offsetof(ek_msg_{name}, {field.name})"
            rows.append(f"    {{{at}, EK_FIELD_{kind}, {_size(field.kind)}}}")
        out.append(f"static const ek_wire_field fields_{name}[] = {{\n" + ",\n".join(rows) + "\n};")
        item = wire.item_size(lay.item) if lay.item else (1 if lay.tail else 0)
        tail = f"offsetof(ek_msg_{name}, {lay.tail})" if lay.tail else "0"
        out.append(
            f"const ek_wire_layout ek_layout_{name} = "
            f"{{fields_{name}, {lay.struct.size}, {item}, {tail}, {len(lay.fields)}, 0}};\n"
        )
    return "\n".join(out)


def _layouts() -> list[wire.Layout]:
    return list(wire.LAYOUTS.values())


def _messages() -> list[wire.Layout]:
    return sorted((x for x in wire.LAYOUTS.values() if x.code >= 0), key=lambda x: x.code)

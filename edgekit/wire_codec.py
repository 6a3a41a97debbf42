"""Machinery of the wire format: bodies from annotated classes, frames, COBS, authentication.

The table itself is in wire.py.  Standard library only.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any, TypeVar, dataclass_transform, get_type_hints

VERSION = 1
HEADER = struct.Struct("<BBHIQ")  # version<<4|flags, type, stream, seq, t
OVERHEAD = HEADER.size + 4
MAX_BODY = 65_000
MIN_BODY = 240
TEXT_MAX = 96  # longest sentence taken from a peer, bytes


class WireError(ValueError):
    """Bytes that are not a valid frame or body."""


class Framing(IntEnum):
    """How frames are told apart on a link."""

    COBS = 0  # COBS and a 0x00 after each: serial lines
    LENGTH = 1  # u16 length before each: TCP


# ---- field kinds ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Scalar:
    """A field: ``fmt`` for struct, C type, and element count (above 1: bytes or text)."""

    fmt: str
    c: str
    count: int = 1
    text: bool = False


@dataclass(frozen=True)
class Rest:
    """The variable end of a body: whole items of the record ``item`` ("" = bytes)."""

    item: str = ""


U8 = Annotated[int, Scalar("B", "uint8_t")]
U16 = Annotated[int, Scalar("H", "uint16_t")]
U32 = Annotated[int, Scalar("I", "uint32_t")]
U64 = Annotated[int, Scalar("Q", "uint64_t")]
I32 = Annotated[int, Scalar("i", "int32_t")]
I64 = Annotated[int, Scalar("q", "int64_t")]
F32 = Annotated[float, Scalar("f", "float")]
B16 = Annotated[bytes, Scalar("16s", "uint8_t", 16)]
B32 = Annotated[bytes, Scalar("32s", "uint8_t", 32)]
S32 = Annotated[str, Scalar("32s", "char", 32, True)]
S96 = Annotated[str, Scalar("96s", "char", 96, True)]
Tail = Annotated[bytes, Rest()]


@dataclass(frozen=True)
class Field:
    """One row of the table: name, kind and meaning."""

    name: str
    kind: Scalar
    doc: str


@dataclass(frozen=True)
class Layout:
    """How one body lies in bytes."""

    name: str
    code: int  # message type, or -1 for a record inside other bodies
    doc: str
    fields: tuple[Field, ...]
    struct: struct.Struct
    tail: str = ""  # name of the tail's field
    item: str = ""  # record the tail is made of
    tail_doc: str = ""


LAYOUTS: dict[type[Body], Layout] = {}
MESSAGES: dict[int, type[Body]] = {}


@dataclass_transform(frozen_default=True)
class Body:
    """Base of every message (``code`` = type number) and record (no code)."""

    def __init_subclass__(cls, code: int = -1) -> None:
        dataclass(frozen=True)(cls)
        _register(cls, code)


def _register(cls: type[Body], code: int) -> None:
    rows: list[Field] = []
    tail = item = tail_doc = ""
    for name, hint in get_type_hints(cls, include_extras=True).items():
        kind, *docs = hint.__metadata__
        doc = docs[0] if docs else ""
        if tail:
            raise TypeError(f"{cls.__name__}.{name}: the tail must be the last field")
        if isinstance(kind, Rest):
            tail, tail_doc = name, next((d for d in docs if isinstance(d, str)), "")
            item = next((d.item for d in docs if isinstance(d, Rest)), "")
        else:
            rows.append(Field(name, kind, doc))
    packed = struct.Struct("<" + "".join(r.kind.fmt for r in rows))
    doc = (cls.__doc__ or "").strip()
    LAYOUTS[cls] = Layout(cls.__name__, code, doc, tuple(rows), packed, tail, item, tail_doc)
    if code >= 0:
        if code in MESSAGES:
            raise TypeError(f"type {code:#x} is used twice")
        MESSAGES[code] = cls


# ---- encoding -------------------------------------------------------------------------------

B = TypeVar("B", bound=Body)


def encode(body: Body) -> bytes:
    """Bytes of a body.  Raises WireError where a value does not fit its field."""
    lay = LAYOUTS[type(body)]
    values: list[Any] = []
    for field in lay.fields:
        value = getattr(body, field.name)
        if field.kind.text:
            value = cut(value, field.kind.count - 1)
        elif field.kind.count > 1 and len(value) != field.kind.count:
            raise WireError(f"{lay.name}.{field.name} needs {field.kind.count} bytes")
        values.append(value)
    try:
        head = lay.struct.pack(*values)
    except struct.error as error:
        raise WireError(f"{lay.name}: {error}") from None
    return head + getattr(body, lay.tail) if lay.tail else head


def decode(cls: type[B], data: bytes) -> B:
    """A body from its bytes.  Raises WireError where it is too short or its tail is broken."""
    lay = LAYOUTS[cls]
    size = lay.struct.size
    if len(data) < size:
        raise WireError(f"{lay.name} has {len(data)} bytes, needs {size}")
    values: list[Any] = [
        clean(value) if field.kind.text else value
        for field, value in zip(lay.fields, lay.struct.unpack_from(data), strict=True)
    ]
    if lay.tail:
        if lay.item and (len(data) - size) % item_size(lay.item):
            raise WireError(f"{lay.name}: {len(data) - size} bytes are not whole items")
        values.append(bytes(data[size:]))
    return cls(*values)


def item_size(item: str) -> int:
    """Bytes of one item of a tail: a record's name or ``u64``."""
    return 8 if item == "u64" else next(x.struct.size for x in LAYOUTS.values() if x.name == item)


def items(cls: type[B], data: bytes) -> Iterator[B]:
    """Records of a tail."""
    lay = LAYOUTS[cls]
    for values in lay.struct.iter_unpack(data):
        yield cls(*values)


def cut(text: str, limit: int) -> bytes:
    """UTF-8 of `text`, cut to `limit` bytes between characters."""
    data = text.encode()
    return data if len(data) <= limit else data[:limit].decode(errors="ignore").encode()


def clean(data: bytes) -> str:
    """Text from a peer: up to the first NUL, without control characters."""
    text = data.split(b"\0", 1)[0][:TEXT_MAX].decode(errors="replace")
    return "".join(c if c.isprintable() else "?" for c in text)


# ---- frames ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """One frame; `t` is the sender's clock."""

    type: int
    body: bytes
    stream: int = 0
    seq: int = 0
    t: int = 0
    flags: int = 0


def frame(body: Body, *, stream: int = 0, seq: int = 0, t: int = 0) -> Frame:
    """A frame that carries `body`."""
    return Frame(LAYOUTS[type(body)].code, encode(body), stream, seq, t)


def encode_frame(f: Frame) -> bytes:
    """Header, body and CRC-32."""
    if len(f.body) > MAX_BODY:
        raise WireError(f"a body of {len(f.body)} bytes is over {MAX_BODY}")
    head = HEADER.pack(VERSION << 4 | f.flags, f.type, f.stream, f.seq & 0xFFFFFFFF, f.t)
    data = head + f.body
    return data + struct.pack("<I", zlib.crc32(data))


def decode_frame(data: bytes) -> Frame:
    """Inverse of `encode_frame`.  Raises WireError on a wrong length, CRC or version."""
    if not OVERHEAD <= len(data) <= OVERHEAD + MAX_BODY:
        raise WireError("wrong length")
    if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise WireError("wrong CRC")
    mark, kind, stream, seq, t = HEADER.unpack_from(data)
    if mark >> 4 != VERSION:
        raise WireError("other version")
    return Frame(kind, bytes(data[HEADER.size : -4]), stream, seq, t, mark & 15)


def wrap(f: Frame, framing: Framing) -> bytes:
    """Bytes on the line for one frame."""
    data = encode_frame(f)
    if framing is Framing.LENGTH:
        return struct.pack("<H", len(data)) + data
    return cobs_encode(data) + b"\0"


def cobs_encode(data: bytes) -> bytes:
    """Consistent overhead byte stuffing (Cheshire and Baker 1999): no zero byte in the result."""
    out = bytearray()
    chunks = data.split(b"\0")
    for number, chunk in enumerate(chunks):
        last = number == len(chunks) - 1
        while len(chunk) > 254 or (len(chunk) == 254 and not last):
            out.append(255)
            out += chunk[:254]
            chunk = chunk[254:]
        out.append(len(chunk) + 1)
        out += chunk
    return bytes(out)


def cobs_decode(data: bytes) -> bytes:
    """Inverse of `cobs_encode`.  Raises WireError on a zero byte or a block that runs out."""
    out = bytearray()
    at, end = 0, len(data)
    if 0 in data:
        raise WireError("zero byte inside")
    while at < end:
        code = data[at]
        if at + code > end:
            raise WireError("block runs out")
        out += data[at + 1 : at + code]
        at += code
        if code < 255 and at < end:
            out.append(0)
    return bytes(out)


class Reader:
    """Cuts received bytes into frames; damaged ones are counted in `bad` and left out."""

    def __init__(self, framing: Framing, max_body: int = MAX_BODY) -> None:
        self.framing, self.bad = framing, 0
        self.limit = max_body + OVERHEAD
        self._buffer = bytearray()
        self._skip = False

    def feed(self, data: bytes) -> list[Frame]:
        """Frames completed by `data`.  Raises WireError where a length prefix makes no sense."""
        self._buffer += data
        chunks = self._by_length() if self.framing is Framing.LENGTH else self._by_zero()
        found = []
        for chunk in chunks:
            try:
                raw = chunk if self.framing is Framing.LENGTH else cobs_decode(chunk)
                found.append(decode_frame(raw))
            except WireError:
                self.bad += 1
        return found

    def _by_length(self) -> list[bytes]:
        out = []
        while len(self._buffer) >= 2:
            size = int.from_bytes(self._buffer[:2], "little")
            if not OVERHEAD <= size <= self.limit:
                raise WireError(f"a frame of {size} bytes is announced, at most {self.limit}")
            if len(self._buffer) < 2 + size:
                break
            out.append(bytes(self._buffer[2 : 2 + size]))
            del self._buffer[: 2 + size]
        return out

    def _by_zero(self) -> list[bytes]:
        *whole, rest = bytes(self._buffer).split(b"\0")
        longest = self.limit + self.limit // 254 + 1
        if self._skip and whole:
            whole, self._skip = whole[1:], False
        if len(rest) > longest:  # no delimiter in sight: drop it, up to the next zero
            self.bad += not self._skip
            self._skip, rest = True, b""
        elif self._skip:
            rest = b""
        self._buffer = bytearray(rest)
        self.bad += sum(len(x) > longest for x in whole)
        return [x for x in whole if 0 < len(x) <= longest]


# ---- authentication -------------------------------------------------------------------------


def proof(token: bytes, role: str, hello: bytes, hello_ack: bytes) -> bytes:
    """HMAC-SHA256 of the role and both hello bodies (so of both nonces) under the token."""
    digest = hashlib.sha256(hello + hello_ack).digest()
    return hmac.new(token, f"EKP1 {role}".encode() + digest, hashlib.sha256).digest()


def same(a: bytes, b: bytes) -> bool:
    """Comparison in constant time."""
    return hmac.compare_digest(a, b)

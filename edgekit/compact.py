"""Constants stored in few bits, which a session unpacks once when it opens: section UNPK.

A short scale has 9 significant bits, a short bias counts units of 1/64 to 1/32 of an output step:
what that changes is far below the rounding of the outputs.  `edgekit/ops/short.py` rounds
them in the graph, so that every runtime and the numpy references compute with the same ones;
`blocks` stores them in as many bits as their range in a layer needs.  Twin of native/src/unpack.c.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LEFT_OUT = 15  # bits of a float32 that a short scale does not have
STEP = 121  # biased exponent of a scale whose biases count single units
MOST_SHIFT = 30
BLOCKS, POWERS, TEXT = 1, 2, 3  # kinds of segments, ek_segment in native/src/format.h
LEAST, WINDOW, TRIED = 3, 1 << 15, 64  # of a repeat: bytes, distance, and places that are looked at
HEAD = "<BBBBBBHHHi"  # kind, nr, kr, bits, bias_bits, scale_bits, base, n, k, low
SLACK = 8  # bytes behind the last segment: readers load 8 at a time
ALIGN = 16


def short_scale(scale: Array) -> npt.NDArray[np.float32]:
    """Positive float32 to 9 significant bits, half to even."""
    raw = np.ascontiguousarray(scale, np.float32).view(np.uint32).astype(np.uint64)
    half = (1 << LEFT_OUT - 1) - 1 + (raw >> LEFT_OUT & 1)
    return np.asarray((raw + half) >> LEFT_OUT << LEFT_OUT, np.uint32).view(np.float32)


def shifts(scale: Array) -> npt.NDArray[np.int64]:
    """Logarithms of the units of short biases; `scale`: the requantization scales, output steps
    per unit of a sum."""
    raw = np.ascontiguousarray(scale, np.float32).view(np.uint32)
    return np.clip(STEP - (raw >> 23).astype(np.int64), 0, MOST_SHIFT)


def short_bias(bias: Array, scale: Array) -> npt.NDArray[np.int64]:
    """Folded biases (n,) to the units that short scales (n,) give them, half to even."""
    unit = 2.0 ** shifts(scale)
    return np.asarray(np.rint(bias / unit) * unit, np.int64)


def is_short(bias: Array, scale: Array) -> bool:
    """Whether folded biases and scales (n,) are what `short_bias` and `short_scale` leave."""
    return bool(
        np.array_equal(short_scale(scale), scale) and np.array_equal(short_bias(bias, scale), bias)
    )


def blocks(bias: Array, scale: Array, nr: int, kr: int = 1, w: Array | None = None) -> bytes:
    """The segment that unpacks to blocks of nr outputs, [bias nr][scale nr] and, where w (n, k) is
    given, their weights [ceil(k / kr)][nr][kr] as int8; those of [-8, 7] are stored in 4 bits.

    ValueError where bias and scale (n,) are not short.
    """
    if not is_short(bias, scale):
        raise ValueError("constants of more bits than a segment holds")
    raw = np.ascontiguousarray(scale, np.float32).view(np.uint32).astype(np.int64) >> LEFT_OUT
    units = bias.astype(np.int64) >> shifts(scale)
    base, low = int(raw.min()), int(units.min())
    codes = units - low, raw - base
    wide = [int(c.max()).bit_length() for c in codes]
    bits, k, body = 0, 0, b""
    if w is not None:
        k = w.shape[1]
        bits = 4 if w.min() >= -8 and w.max() < 8 else 8
        body = _weights(w, nr, kr, bits)
    head = struct.pack(HEAD, BLOCKS, nr, kr, bits, *wide, base, len(bias), k, low)
    return head + _packed(codes, wide) + body


def _packed(codes: tuple[Array, ...], wide: list[int]) -> bytes:
    """Codes of n outputs one after the other, the lowest bits first."""
    total, at = 0, 0
    for row in zip(*(c.tolist() for c in codes), strict=True):
        for code, bits in zip(row, wide, strict=True):
            total |= code << at
            at += bits
    return total.to_bytes(-(-at // 8), "little")


def _weights(w: Array, nr: int, kr: int, bits: int) -> bytes:
    """Weights (n, k) in the order of a kernel's blocks, without the outputs past n."""
    w = np.pad(w, ((0, 0), (0, -w.shape[1] % kr)))
    parts = [
        w[i : i + nr].reshape(len(w[i : i + nr]), -1, kr).transpose(1, 0, 2).ravel()
        for i in range(0, len(w), nr)
    ]
    flat = np.concatenate(parts)
    if bits == 8:
        return flat.astype(np.int8).tobytes()
    flat = np.append(flat, np.zeros(len(flat) % 2, flat.dtype)) + 8
    return np.asarray(flat[::2] | flat[1::2] << 4, np.uint8).tobytes()


def powers(table: Array) -> bytes | None:
    """The segment that unpacks to uint32 t[i] = round(t[0] * r^i); None where no r gives them."""
    n, first = len(table), int(table[0])
    t = np.asarray(table[1:], np.float64)
    if not 0 < first < 1 << 31 or n < 2 or n > 0xFFFF or t.min() < 0:
        return None
    i = np.arange(1, n)
    with np.errstate(divide="ignore"):  # an entry of 0 has no least ratio
        low, high = (((np.maximum(t + h, 0)) / first) ** (1 / i) for h in (-0.5, 0.5))
    ratio = int((low.max() + high.min()) / 2 * 2**64)
    if not 0 < ratio < 1 << 64 or not np.array_equal(_powers(first, ratio, n), table):
        return None
    return struct.pack(HEAD, POWERS, 0, 0, 0, 0, 0, 0, n, 0, first) + struct.pack("<Q", ratio)


def _powers(first: int, ratio: int, n: int) -> npt.NDArray[np.int64]:
    value, out = first << 32, []
    for _ in range(n):
        out.append((value + (1 << 31)) >> 32)
        value = value * ratio >> 64
    return np.asarray(out, np.int64)


def text(data: bytes) -> bytes:
    """The segment that unpacks to bytes which repeat themselves: literals, and repeats of what came
    before, so chosen that they take least."""
    body = _tokens(data, _choices(data))
    half = len(body) & 0xFFFF, len(body) >> 16
    return struct.pack(HEAD, TEXT, 0, 0, 0, 0, 0, 0, *half, len(data)) + body


def _repeats(data: bytes) -> list[list[tuple[int, int]]]:
    """Of each place the longest (length, distance), near where one byte tells it and far."""
    seen: dict[bytes, list[int]] = {}
    out: list[list[tuple[int, int]]] = []
    for i in range(len(data)):
        best: dict[bool, tuple[int, int]] = {}
        places = seen.setdefault(data[i : i + LEAST], [])
        for j in reversed(places[-TRIED:]):
            n = 0
            while i + n < len(data) and data[j + n] == data[i + n]:
                n += 1
            near = i - j < 128
            if n >= LEAST and i - j < WINDOW and n > best.get(near, (0, 0))[0]:
                best[near] = n, i - j
        places.append(i)
        out.append(list(best.values()))
    return out


def _choices(data: bytes) -> list[tuple[int, int] | None]:
    """Of each place the repeat to take there, None: a literal."""
    cost, choice = [0] * (len(data) + 1), [None] * len(data)  # type: list[int], list[Any]
    for i, found in reversed(list(enumerate(_repeats(data)))):
        cost[i] = cost[i + 1] + 1
        for most, distance in found:
            for n in {most, *range(LEAST, min(most, 18) + 1)}:
                long = 0 if n < LEAST + 15 else 1 + (n - LEAST - 15) // 255
                price = cost[i + n] + 2 + (distance >= 128) + long
                if price < cost[i]:
                    cost[i], choice[i] = price, (n, distance)
    return choice


def _tokens(data: bytes, choice: list[tuple[int, int] | None]) -> bytes:
    out, i = bytearray(), 0

    def rest(n: int) -> bytes:
        return b"" if n < 15 else b"\xff" * ((n - 15) // 255) + bytes([(n - 15) % 255])

    while i < len(data):
        end = next((j for j in range(i, len(data)) if choice[j]), len(data))
        n, distance = (choice[end] if end < len(data) else None) or (LEAST, 0)
        out.append(min(end - i, 15) << 4 | min(n - LEAST, 15))
        out += rest(end - i) + data[i:end]
        if end == len(data):
            break
        far = distance >= 128
        out += bytes([128 | distance & 127, distance >> 7]) if far else bytes([distance])
        out += rest(n - LEAST)
        i = end + n
    return bytes(out)


def _read(body: bytes, size: int) -> bytes:
    """What tokens unpack to; ValueError where that is not `size` bytes."""
    out, at = bytearray(), 0

    def length(n: int) -> int:
        nonlocal at
        more = 255 if n == 15 else 0
        while more == 255:
            more, at = body[at], at + 1
            n += more
        return n

    try:
        while len(out) < size:
            token, at = body[at], at + 1
            n = length(token >> 4)
            out += body[at : at + n]
            at += n
            if len(out) == size:
                break
            distance, at = body[at], at + 1
            if distance & 128:
                distance, at = distance & 127 | body[at] << 7, at + 1
            for _ in range(length(token & 15) + LEAST):
                out.append(out[-distance])
    except IndexError:
        raise ValueError("a text of section UNPK ends too soon") from None
    if len(out) != size or at != len(body):
        raise ValueError("a text of section UNPK has another length")
    return bytes(out)


def sizes(stream: bytes, at: int) -> tuple[int, int]:
    """Bytes of the segment there, and of what it unpacks to, a multiple of ALIGN.

    ValueError where it is none.
    """
    kind, nr, kr, bits, bias, scale, _, n, k, low = struct.unpack_from(HEAD, stream, at)
    size = struct.calcsize(HEAD)
    if kind == TEXT:
        return size + (n | k << 16), -(-low // ALIGN) * ALIGN
    if kind == POWERS:
        return size + 8, -(-4 * n // ALIGN) * ALIGN
    if kind != BLOCKS or not nr or not kr or bits not in (0, 4, 8):
        raise ValueError("a segment of section UNPK is of no known kind")
    deep = -(-k // kr) * kr if bits else 0
    out = -(-n // nr) * nr * (8 + deep)
    return size + -(-n * (bias + scale) // 8) + -(-n * deep * bits // 8), -(-out // ALIGN) * ALIGN


def unpack(stream: bytes) -> dict[int, tuple[bytes, bytes]]:
    """Offset in the unpacked bytes -> (segment, what it unpacks to).

    ValueError where they do not add up.
    """
    out: dict[int, tuple[bytes, bytes]] = {}
    at = place = 0
    while at + SLACK < len(stream):
        size, grown = sizes(stream, at)
        segment = stream[at : at + size]
        if len(segment) < size or not grown:
            raise ValueError("section UNPK ends too soon")
        made = _unpacked(segment)
        out[place] = segment, made + bytes(grown - len(made))
        at, place = at + size, place + grown
    return out


def _unpacked(segment: bytes) -> bytes:
    kind, nr, kr, bits, bias_bits, scale_bits, base, n, k, low = struct.unpack_from(HEAD, segment)
    body = segment[struct.calcsize(HEAD) :]
    if kind == TEXT:
        return _read(body, low)
    if kind == POWERS:
        (ratio,) = struct.unpack("<Q", body)
        return _powers(low, ratio, n).astype("<u4").tobytes()
    blocks_, both = -(-n // nr), bias_bits + scale_bits
    codes = int.from_bytes(body[: -(-n * both // 8)], "little")
    rows = [codes >> i * both & (1 << both) - 1 for i in range(n)]
    raw = np.asarray([(base + (c >> bias_bits)) << LEFT_OUT for c in rows], np.uint32)
    units = np.asarray([low + (c & (1 << bias_bits) - 1) for c in rows], np.int64)
    bias = (units << shifts(raw.view(np.float32))).astype(np.int32).view(np.uint8).reshape(n, 4)
    scale = raw.view(np.uint8).reshape(n, 4)
    flat = np.frombuffer(body[-(-n * both // 8) :], np.uint8)
    if bits == 4:
        flat = (np.stack([flat & 15, flat >> 4], 1).ravel() - 8).astype(np.uint8)
    deep, at, out = -(-k // kr) if bits else 0, 0, bytearray()
    for b in range(blocks_):
        for part in (bias, scale):
            real = part[b * nr : (b + 1) * nr]
            out += real.tobytes() + bytes(4 * (nr - len(real)))
        for _ in range(deep):
            got = flat[at : at + len(real) * kr].tobytes()
            out += got + bytes((nr - len(real)) * kr)
            at += len(got)
    return bytes(out)

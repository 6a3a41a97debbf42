"""Weight layouts: what each ISA's kernels read, and the packing.

A layout is blocks of `nr` outputs, `kr` inputs deep; one index formula, which portable C reads too
(native/src/kernels.h).  The facts of an ISA live in native/kernels/<isa>/isa.toml.
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgekit import compact, paths
from edgekit.ir import Array

XOFF_ANY = 255
PLAIN, NM, GROUPS, BLOCKS, PAIRS = 0, 1, 2, 4, 5  # encodings of format.h; NM: plus N << 8
APART, UNPACKED = 6, 7  # of variants that have a segment of section UNPK, edgekit/compact.py
CHUNK = 64  # inputs that the N of NM are of


@dataclass(frozen=True)
class Layout:
    """Blocks of nr outputs x kr inputs; xoff (0 or 128) is added to int8 activations by the
    kernel.  `encoding` NM and BLOCKS: see ek_gemm in native/src/kernels.h; PAIRS: `_pairs`."""

    nr: int
    kr: int
    xoff: int = 0
    encoding: int = PLAIN

    @property
    def pairs(self) -> bool:
        """Whether the bytes of two outputs lie side by side."""
        return self.encoding == PAIRS

    @property
    def sparse(self) -> bool:
        """Whether zeros are left out."""
        return self.encoding & 0xFF in (NM, BLOCKS)

    @property
    def deep(self) -> int:
        """Rows of activations are readable up to k rounded up to this."""
        return CHUNK if self.encoding & 0xFF == NM else self.kr


@dataclass(frozen=True)
class Sparse:
    """Sparse int8 weights an ISA has a kernel for, and how many of them it still gains from: `most`
    of CHUNK inputs (NM), or `most` of all blocks (BLOCKS, a share)."""

    nr: int
    kr: int
    most: float


@dataclass(frozen=True)
class Isa:
    """One folder of native/kernels: which bit, which order of preference, which layouts."""

    name: str
    id: int
    rank: int
    when: str
    s8: Layout
    f32_nr: int
    dw_s8_nr: int
    dw_f32_nr: int
    windows: bool = False  # its GEMM kernels read windows of an image (ek_kernels.windows)
    odd_k: int = 0  # inputs up to which their int8 runs need not be multiples of kr
    dw_image: bool = False  # its 3x3 depthwise kernel takes padded images (ek_kernels.dw_image)
    winograd: bool = False  # it has Winograd's transforms (ek_kernels.wino_in)
    nm: Sparse | None = None
    blocks: Sparse | None = None
    apart: bool = False  # its int8 kernels take constants of outputs apart (ek_gemm.heads)


PORTABLE = Isa("portable", 0, 0, "1", Layout(4, 4, 0), 4, 4, 4, apart=True)


@functools.cache
def isas() -> dict[str, Isa]:
    """Every ISA that has a folder, by name, lowest rank first."""
    found = []
    for path in sorted(paths.data("native", "kernels").glob("*/isa.toml")):
        raw = tomllib.loads(path.read_text())
        raw["s8"] = Layout(**raw["s8"])
        raw |= {n: Sparse(**raw[n]) for n in ("nm", "blocks") if n in raw}
        found.append(Isa(name=path.parent.name, **raw))
    return {i.name: i for i in sorted(found, key=lambda i: (i.rank, i.id))}


@dataclass(frozen=True)
class Variant:
    """One packed layout of a constant: the blob that lies in the package, and the segment of
    section UNPK that a session unpacks to what precedes its weights (APART) or to all (UNPACKED).
    """

    layout: Layout
    dtype: str  # "f32", "i8", "i4" or "i2"; of a table "i32"
    blob: bytes
    segment: bytes = b""

    @property
    def stored(self) -> int:
        """Bytes in the package."""
        return len(self.blob) + len(self.segment)


@dataclass(frozen=True)
class Target:
    """What lowering and planning need to know of a board: its ISAs, best last, and tile sizes."""

    isas: tuple[str, ...] = ()
    tile_rows: int = 16
    linux: bool = True

    def kernels(self) -> list[Isa]:
        """Its ISAs, or the portable one."""
        return [isas()[n] for n in self.isas] or [PORTABLE]

    def compact(self) -> bool:
        """Whether constants may be unpacked into the session's memory: on systems, where weights
        have one layout, all of whose kernels can find them there."""
        return self.linux and len(self.s8()) == 1 and all(i.apart for i in self.kernels())

    def dw_image(self) -> bool:
        """Whether depthwise convolutions of 3x3 need no border made for them: all ISAs do it."""
        return all(i.dw_image for i in self.kernels())

    def windows(self) -> bool:
        """Whether one of its ISAs reads windows of an image without gathering them."""
        return any(i.windows for i in self.kernels())

    def bands(self) -> bool:
        """Whether there is memory too for padded copies of rows, in which all windows lie
        (EK_BANDS)."""
        return self.linux and self.windows()

    def takes_runs(self) -> bool:
        """Whether one of its ISAs has a use for kernel rows of whole words."""
        return self.bands() or any(i.s8.pairs for i in self.kernels())

    def winograd(self) -> bool:
        """Whether one of its ISAs has Winograd's transforms."""
        return self.linux and any(i.winograd for i in self.kernels())

    def odd_k(self) -> int:
        """Inputs up to which the runs of int8 windows need no padding."""
        return min(i.odd_k for i in self.kernels())

    def s8(self) -> list[Layout]:
        """Distinct int8 GEMM layouts the ISAs want (an "any" offset joins a sibling's or becomes
        0)."""
        want = [i.s8 for i in self.kernels()]
        fixed = {(w.nr, w.kr) for w in want if w.xoff != XOFF_ANY}
        out = [
            w if w.xoff != XOFF_ANY else replace(w, xoff=0)
            for w in want
            if w.xoff != XOFF_ANY or (w.nr, w.kr) not in fixed
        ]
        return list(dict.fromkeys(out))

    def sparse(self, w: Array) -> list[Layout]:
        """Encodings of int8 weights (n, k) that pay: of each ISA the one that saves most."""
        out = []
        for i in self.kernels():
            xoff = 0 if i.s8.xoff == XOFF_ANY else i.s8.xoff
            found: list[tuple[float, Layout]] = []
            if i.nm is not None and w.shape[1] >= CHUNK:  # fewer inputs make any row look sparse
                slots = nm_slots(w, i.nm.kr)
                form = Layout(i.nm.nr, i.nm.kr, xoff, NM | slots << 8)
                found.append((slots / i.nm.most, form))
            if i.blocks is not None:
                b = i.blocks
                share = float(listed(w, b.nr, b.kr).mean())
                found.append((share / b.most, Layout(b.nr, b.kr, xoff, BLOCKS)))
            out += [la for cost, la in sorted(found, key=lambda f: f[0])[:1] if cost <= 1]
        return list(dict.fromkeys(out))

    def dyn(self) -> list[Layout]:
        """Those of int8 weights whose bias is a float, which cannot carry a folded offset."""
        return list(dict.fromkeys(replace(la, xoff=0) for la in self.s8()))

    def f32(self) -> list[Layout]:
        return list(dict.fromkeys(Layout(i.f32_nr, 1) for i in self.kernels()))

    def dw_s8(self) -> list[Layout]:
        return list(dict.fromkeys(Layout(i.dw_s8_nr, 1) for i in self.kernels()))

    def dw_f32(self) -> list[Layout]:
        return list(dict.fromkeys(Layout(i.dw_f32_nr, 1) for i in self.kernels()))


WASTE = 4  # blobs of which outputs past the last one are a part of this or more
SMALL = 4096  # bytes of weights that may be unpacked into memory to save that


def compacted(
    w: Array, bias: Array, scale: Array, layout: Layout, bits: int
) -> tuple[Variant, ...]:
    """Weights (n, k) with constants (n) that a segment of section UNPK holds, alone where they are
    small and much of the blob would be outputs past n; () where the constants have too many bits.
    """
    n, k = w.shape
    if not compact.is_short(bias, scale) or max(n, k) > 0xFFFF:
        return ()
    past = -n % layout.nr * k
    if layout.kr == 1 or (w.size <= SMALL and past * WASTE >= w.size + past):
        segment = compact.blocks(bias, scale, layout.nr, layout.kr, w)
        form = replace(layout, encoding=UNPACKED)
        return (Variant(form, "i8", b"", segment),)
    segment = compact.blocks(bias, scale, layout.nr)
    blob = pack_gemm(w, bias, None, layout, bits, heads=False)
    return (Variant(replace(layout, encoding=APART), f"i{bits}", blob, segment),)


def _blocks(a: Array, nr: int) -> Array:
    """(n, ...) -> (ceil(n/nr), nr, ...), padded with zeros."""
    pad = -len(a) % nr
    a = np.concatenate([a, np.zeros((pad, *a.shape[1:]), a.dtype)]) if pad else a
    return a.reshape(-1, nr, *a.shape[1:])


def pack_gemm(
    w: Array,
    bias: Array,
    scale: Array | None,
    layout: Layout,
    bits: int = 8,
    heads: bool = True,
) -> bytes:
    """Weights (n, k) int8 or float32, bias (n), scale (n) or None -> blocks as in kernels.h.

    `bits` 4 or 2: the weights of each block are packed (`pack_bits`).  `heads`: with bias and
    scale before its weights.
    """
    k = w.shape[1]
    kp = -(-k // layout.kr) * layout.kr
    w = np.pad(w, ((0, 0), (0, kp - k)))
    body = (
        _blocks(w, layout.nr)
        .reshape(-1, layout.nr, kp // layout.kr, layout.kr)
        .transpose(0, 2, 1, 3)
    )
    body = _pairs(body, bits) if layout.pairs else np.ascontiguousarray(body)
    body = body if bits == 8 else pack_bits(body, bits)
    return _join(bias, scale, body, layout.nr) if heads else body.tobytes()


def nm_slots(w: Array, kr: int) -> int:
    """The most weights that are not 0 among CHUNK inputs of an output, a multiple of kr, at least
    kr; w is (n, k)."""
    chunks = _chunks(w, CHUNK)
    return int(-(-max(1, int((chunks != 0).sum(2).max(initial=0))) // kr) * kr)


def listed(w: Array, nr: int, kr: int) -> npt.NDArray[np.bool_]:
    """(blocks of nr outputs, groups of kr inputs): whether a weight of it is not 0."""
    found = (_blocks(_chunks(w, kr), nr) != 0).any(axis=(1, 3))
    return np.asarray(found, np.bool_)


def _chunks(w: Array, size: int) -> Array:
    """(n, k) -> (n, ceil(k / size), size), padded with zeros."""
    return np.pad(w, ((0, 0), (0, -w.shape[1] % size))).reshape(len(w), -1, size)


def pack_sparse(w: Array, bias: Array, scale: Array, layout: Layout) -> bytes:
    """Weights (n, k) int8, bias and scale (n) -> blocks of `layout`'s encoding, as in kernels.h."""
    nr, kr = layout.nr, layout.kr
    heads = [_blocks(np.ascontiguousarray(a), nr).view(np.uint8) for a in (bias, scale)]
    out = bytearray()
    if layout.encoding & 0xFF == NM:
        slots = layout.encoding >> 8
        chunks = _chunks(w, CHUNK)
        # the places of the weights, in order, then of zeros, which weigh nothing
        place = np.argsort(chunks == 0, axis=2, kind="stable")[:, :, :slots]
        value = np.take_along_axis(chunks, place, 2)
        both = np.stack([place.astype(np.uint8), value.view(np.uint8)])
        both = both.reshape(2, len(w), -1, kr)
        body = np.stack([_blocks(b, nr).transpose(0, 2, 1, 3) for b in both], 2)
        for i, b in enumerate(np.ascontiguousarray(body)):
            out += heads[0][i].tobytes() + heads[1][i].tobytes() + b.tobytes()
        return bytes(out)
    chunks = _blocks(_chunks(w, kr), nr).transpose(0, 2, 1, 3)
    for i, keep in enumerate(listed(w, nr, kr)):
        places = np.flatnonzero(keep).astype(np.uint16)
        out += heads[0][i].tobytes() + heads[1][i].tobytes()
        out += np.uint32(len(places)).tobytes() + places.tobytes() + b"\0\0" * (len(places) % 2)
        out += np.ascontiguousarray(chunks[i, keep]).tobytes()
    return bytes(out)


def bfloat16(x: Array) -> npt.NDArray[np.float32]:
    """float32 values of 8 significant bits, to nearest."""
    raw = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return np.asarray(((raw + 0x8000) >> 16 << 16).astype(np.uint32)).view(np.float32)


def pack_groups(w: Array, bias: Array, scale: Array, layout: Layout, bits: int) -> bytes:
    """Weights (n, k) int8, bias (n) float32, scale (n, groups) -> blocks of `layout`, whose
    encoding says how many inputs share a scale: [bias nr], per group [scale nr, bfloat16][weights].

    ValueError where a scale is no bfloat16.
    """
    size = layout.encoding >> 8
    raw = np.ascontiguousarray(scale, np.float32).view(np.uint32)
    if size % layout.kr or np.any(raw & 0xFFFF):
        raise ValueError("groups are whole runs of kr inputs, their scales bfloat16")
    plain = Layout(layout.nr, layout.kr)
    head = _blocks(np.ascontiguousarray(bias, np.float32), layout.nr)
    parts = [head.view(np.uint8).reshape(len(head), -1)]
    for j in range(scale.shape[1]):
        half = _blocks((raw[:, j] >> 16).astype(np.uint16), layout.nr)
        parts.append(half.view(np.uint8).reshape(len(head), -1))
        blob = pack_gemm(w[:, j * size : (j + 1) * size], bias, None, plain, bits)
        body = np.frombuffer(blob, np.uint8).reshape(len(head), -1)
        parts.append(body[:, 4 * layout.nr :])  # without its biases
    return np.concatenate(parts, axis=1).tobytes()


def _pairs(body: Array, bits: int) -> Array:
    """(blocks, k / 4, nr, 4) int8 -> the same bytes, (k0 k2 | k1 k3) by pairs of outputs: a word is
    k0 of both, k2 of both.  Even outputs are stored plus 128, so that a halfword of it is 256 times
    the odd output's weight plus a byte without sign (native/kernels/dsp/gemm.c)."""
    blocks, deep, nr, _ = body.shape
    # (.., pair of outputs, output, k / 2, k % 2) -> (.., k % 2, pair of outputs, k / 2, output)
    body = body.reshape(blocks, deep, nr // 2, 2, 2, 2).transpose(0, 1, 5, 2, 4, 3)
    body = np.ascontiguousarray(body)
    if bits == 8:
        body[..., 0] ^= -128
    return body


def pack_bits(body: Array, bits: int) -> npt.NDArray[np.uint8]:
    """(blocks, ...) int8 -> (blocks, bytes): element i of a block lies in byte i % bytes, the
    lowest bits first, stored plus 2^(bits - 1).  Twin of `unpack` in native/src/gemm.c."""
    half, planes = 1 << bits - 1, 8 // bits
    if body.min(initial=0) < -half or body.max(initial=0) >= half:
        raise ValueError(f"weights do not fit {bits} bits")
    flat = (body.reshape(len(body), planes, -1).astype(np.int16) + half).astype(np.uint8)
    shift = (np.arange(planes) * bits).astype(np.uint8).reshape(1, -1, 1)
    return np.asarray(np.bitwise_or.reduce(flat << shift, axis=1), np.uint8)


def pack_dw(w: Array, bias: Array, scale: Array | None, nr: int) -> bytes:
    """Weights (taps, c), bias (c), scale (c) or None -> blocks of nr channels as in kernels.h."""
    body = _blocks(np.ascontiguousarray(w.T), nr).transpose(0, 2, 1)
    return _join(bias, scale, np.ascontiguousarray(body), nr)


def _join(bias: Array, scale: Array | None, body: Array, nr: int) -> bytes:
    parts: list[npt.NDArray[np.uint8]] = []
    for a in (bias, scale):
        if a is not None:
            parts.append(_blocks(np.ascontiguousarray(a), nr).view(np.uint8).reshape(len(body), -1))
    parts.append(body.view(np.uint8).reshape(len(body), -1))
    return np.concatenate(parts, axis=1).tobytes()

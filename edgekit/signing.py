"""Ed25519 signatures of packages (RFC 8032): keys and signing on the host.

The device checks with `ek_verify` and a public key (native/src/signature.c); native/FORMAT.md says
what is signed. Python's integers do not run in constant time: sign on a machine of your own.
"""

from __future__ import annotations

import hashlib
import secrets
import struct

from edgekit import package
from edgekit.errors import PackageError, UsageError

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
BASE_Y = 4 * pow(5, -1, P) % P
BASE_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
Point = tuple[int, int, int, int]  # X, Y, Z, T with x = X/Z, y = Y/Z, xy = T/Z
BASE: Point = (BASE_X, BASE_Y, 1, BASE_X * BASE_Y % P)
KEY_BYTES = 32


def new_key() -> bytes:
    """A secret key: 32 random bytes."""
    return secrets.token_bytes(KEY_BYTES)


def public_key(secret: bytes) -> bytes:
    """The public key, 32 bytes, of a secret one."""
    return _pack(_times(_expand(secret)[0], BASE))


def sign_bytes(secret: bytes, message: bytes) -> bytes:
    """The signature, 64 bytes, of a message."""
    scalar, prefix = _expand(secret)
    key = _pack(_times(scalar, BASE))
    r = _number(prefix, message) % ORDER
    point = _pack(_times(r, BASE))
    s = (r + _number(point, key, message) * scalar) % ORDER
    return point + s.to_bytes(32, "little")


def sign(data: bytes, secret: bytes, rollback: int | None = None) -> bytes:
    """A package with its section SIGN made again; ``rollback`` sets the counter of its header."""
    parts = package.sections(data)
    if rollback is not None:
        if not 0 <= rollback < 2**64:
            raise UsageError(f"the rollback counter {rollback} is not within 0 and 2^64 - 1")
        data = data[:56] + struct.pack("<Q", rollback) + data[64:]
    parts["SIGN"] = bytes(64) + public_key(secret)
    unsigned = package.reassemble(data, parts)
    parts["SIGN"] = sign_bytes(secret, message(unsigned)) + public_key(secret)
    return package.reassemble(data, parts)


def message(data: bytes) -> bytes:
    """What is signed: header and section table with CRCs of header and SIGN as 0, and the SHA-512
    of every other section that lies in the file."""
    parts = package.stored(data)
    head = bytearray(data[: 128 + 32 * len(parts)])
    struct.pack_into("<I", head, 28, 0)
    for i, kind in enumerate(parts):
        if kind == "SIGN":
            struct.pack_into("<I", head, 128 + 32 * i + 24, 0)
    signed = (part for kind, part in parts.items() if kind != "SIGN" and part is not None)
    digests = [hashlib.sha512(part).digest() for part in signed]
    return bytes(head) + b"".join(digests)


def signer(data: bytes) -> bytes:
    """The public key that a package says it was signed with; PackageError where it is unsigned."""
    part = package.sections(data).get("SIGN", b"")
    if len(part) < 96:
        raise PackageError("the package is not signed", todo="run `edgekit sign`")
    return part[64:96]


def read_key(text: str, where: str) -> bytes:
    """A key from the text of a file that `edgekit keys` wrote: 64 hexadecimal digits."""
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise UsageError(f"{where} holds no key", todo="`edgekit keys -o NAME` makes a pair")
    return key


def header(key: bytes, name: str) -> str:
    """A C header with a public key."""
    body = ", ".join(f"0x{b:02x}" for b in key)
    return (
        "/* Public key for ek_verify. Written by `edgekit keys`. */\n#include <stdint.h>\n"
        f"static const uint8_t {name}[32] = {{\n    {body},\n}};\n"
    )


def _expand(secret: bytes) -> tuple[int, bytes]:
    if len(secret) != KEY_BYTES:
        raise UsageError(f"a secret key has 32 bytes, not {len(secret)}")
    digest = hashlib.sha512(secret).digest()
    low = int.from_bytes(digest[:32], "little")
    return low & (2**254 - 8) | 2**254, digest[32:]


def _number(*parts: bytes) -> int:
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")


def _plus(p: Point, q: Point) -> Point:
    """Complete addition on -x^2 + y^2 = 1 + d x^2 y^2."""
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * D * p[3] * q[3] % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(n: int, p: Point) -> Point:
    total: Point = (0, 1, 1, 0)
    while n:
        if n & 1:
            total = _plus(total, p)
        p = _plus(p, p)
        n >>= 1
    return total


def _pack(p: Point) -> bytes:
    inverse = pow(p[2], -1, P)
    x, y = p[0] * inverse % P, p[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")

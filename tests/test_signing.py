"""Signed packages: RFC 8032 vectors, refusals on the host and on emulated boards."""

from __future__ import annotations

import ctypes
import hashlib
import os
import random
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, need, need_program
from package_cases import int8_net, table
from package_cases import repaired as crcs

from edgekit import boards, cli, emulate, package, signing, toolchain

COMPAT = ROOT / "tests" / "compat" / "0.1.0.ekp"
VECTORS = [  # RFC 8032, 7.1: secret key, public key, message, signature
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b4"
        "6bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d"
        "8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6"
        "594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
DRIVER = r"""
#include "signature.h"
int try_it(const uint8_t *sig, const uint8_t *key, const uint8_t *m, size_t n);
int try_it(const uint8_t *sig, const uint8_t *key, const uint8_t *m, size_t n)
{
    ek_sha512 h;
    ek_sha512_begin(&h);
    ek_sha512_add(&h, sig, 32);
    ek_sha512_add(&h, key, 32);
    ek_sha512_add(&h, m, n);
    return ek_ed25519_check(sig, key, &h);
}
void digest(const uint8_t *m, size_t n, uint8_t *out);
void digest(const uint8_t *m, size_t n, uint8_t *out)
{
    ek_sha512 h;
    ek_sha512_begin(&h);
    ek_sha512_add(&h, m, n);
    ek_sha512_end(&h, out);
}
"""


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    need_program("gcc", "gcc")
    folder = tmp_path_factory.mktemp("signature")
    (folder / "driver.c").write_text(DRIVER)
    src = ROOT / "native" / "src"
    include = [f"-I{src}", f"-I{ROOT / 'native/include'}", f"-I{ROOT / 'native/gen'}"]
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    out = folder / "driver.so"
    files = [str(folder / "driver.c"), str(src / "signature.c")]
    subprocess.run(["gcc", *flags, *include, *files, "-o", str(out)], check=True)
    return ctypes.CDLL(str(out))


def check(native: ctypes.CDLL, signature: bytes, key: bytes, message: bytes) -> bool:
    return bool(native.try_it(signature, key, message, ctypes.c_size_t(len(message))))


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
def test_rfc_8032_vectors(
    native: ctypes.CDLL, secret: str, public: str, message: str, signature: str
) -> None:
    key, text, wanted = bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature)
    assert signing.public_key(bytes.fromhex(secret)) == key
    assert signing.sign_bytes(bytes.fromhex(secret), text) == wanted
    assert check(native, wanted, key, text)
    assert not check(native, wanted, key, text + b"x")


def test_random_messages_and_every_flipped_bit(native: ctypes.CDLL) -> None:
    rng = random.Random(5)
    for size in (0, 1, 63, 111, 112, 127, 128, 129, 1000):
        secret, text = rng.randbytes(32), rng.randbytes(size)
        key, signature = signing.public_key(secret), signing.sign_bytes(secret, text)
        out = ctypes.create_string_buffer(64)
        native.digest(text, ctypes.c_size_t(size), out)
        assert out.raw == hashlib.sha512(text).digest()
        assert check(native, signature, key, text)
    for bit in range(512):
        wrong = bytearray(signature)
        wrong[bit // 8] ^= 1 << bit % 8
        assert not check(native, bytes(wrong), key, text), bit
    beyond = int.from_bytes(signature[32:], "little") + signing.ORDER  # malleable: must be refused
    assert not check(native, signature[:32] + beyond.to_bytes(32, "little"), key, text)


class Key(ctypes.Structure):
    _fields_ = (("ed25519", ctypes.c_char_p), ("min_rollback", ctypes.c_uint64))


@pytest.fixture(scope="module")
def verify() -> object:
    """Code of ek_verify for (package, public key, least counter)."""
    library = ctypes.CDLL(
        os.environ.get("EDGEKIT_LIBRARY") or toolchain.shared_library(boards.load("host"))
    )

    def run(data: bytes, key: bytes | None, least: int = 0) -> int:
        room = ctypes.create_string_buffer(len(data) + 64)
        at = -ctypes.addressof(room) % 64
        ctypes.memmove(ctypes.addressof(room) + at, data, len(data))
        start = ctypes.c_void_p(ctypes.addressof(room) + at)
        wanted = ctypes.byref(Key(key, least))
        return int(library.ek_verify(start, ctypes.c_size_t(len(data)), wanted)) & 0xFF

    return run


def test_packages(verify: object) -> None:
    run = verify
    secret = bytes(range(32))
    key = signing.public_key(secret)
    signed = signing.sign(COMPAT.read_bytes(), secret, rollback=7)
    assert run(signed, key, 7) == 0  # type: ignore[operator]
    assert run(signed, key, 8) == 18  # type: ignore[operator]
    assert run(signed, signing.public_key(bytes(32)), 0) == 17  # type: ignore[operator]
    assert run(COMPAT.read_bytes(), key) == 17  # type: ignore[operator]
    assert run(COMPAT.read_bytes(), None) == 0  # type: ignore[operator]
    assert signing.sign(signed, secret) == signed
    rng = random.Random(1)
    covered = [i for s in package_spans(signed) for i in s]
    for at in rng.sample(covered, 60):
        wrong = bytearray(signed)
        wrong[at] ^= 1 << rng.randrange(8)
        if repaired(bytes(wrong)) != signed:  # reserved bytes are written as 0
            assert run(repaired(bytes(wrong)), key) != 0, at  # type: ignore[operator]
        assert run(bytes(wrong), key) != 0, at  # type: ignore[operator]


def test_packages_whose_tables_are_packed(verify: object) -> None:
    key = signing.public_key(bytes(range(32)))
    signed = signing.sign(int8_net("phone_i8mm", 20), bytes(range(32)), rollback=7)
    assert package.stored(signed)["OPS "] is None
    assert verify(signed, key, 7) == 0 and verify(signed, key, 8) == 18  # type: ignore[operator]
    assert verify(signed, signing.public_key(bytes(32))) == 17  # type: ignore[operator]
    for kind in ("UNPK", "DATA"):
        at, _, size = table(signed, kind)
        for i in range(at, at + size, 97):
            wrong = bytearray(signed)
            wrong[i] ^= 1
            assert verify(crcs(wrong), key, 7) == 17, i  # type: ignore[operator]


def package_spans(data: bytes) -> list[range]:
    """Bytes a signature covers: header, table and sections."""
    parts = package.sections(data)
    spans = [range(32, 128 + 32 * len(parts))]
    for kind in parts:
        at, _, size = table(data, kind)
        spans.append(range(at, at + size))
    spans[-1] = range(spans[-1].start, spans[-1].start + 64)  # SIGN: the key is a hint
    return spans


def repaired(data: bytes) -> bytes:
    """The package with every checksum right again, as an attacker would leave it."""
    try:
        return package.reassemble(data, package.sections(data))
    except Exception:
        return data


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.ekp"
    path.write_bytes(COMPAT.read_bytes())
    assert cli.main(["keys", "-o", str(tmp_path / "device")]) == 0
    assert (tmp_path / "device.key").stat().st_mode & 0o077 == 0
    assert cli.main(["keys", "-o", str(tmp_path / "device")]) == 2
    key = str(tmp_path / "device.key")
    assert cli.main(["sign", str(path), "--key", key, "--rollback", "3"]) == 0
    assert "rollback counter 3" in " ".join(capsys.readouterr().out.split())
    public = bytes.fromhex((tmp_path / "device.pub").read_text())
    assert signing.signer(path.read_bytes()) == public
    assert cli.main(["sign", str(path), "--key", str(path)]) != 0


MAIN = """
#include "edgekit.h"
#include "port.h"
static const uint8_t key[32] = {{ {key} }};
int main(void)
{{
    ek_key k = {{ key, {least} }};
    ek_port_print("code ");
    ek_port_print_u32(EK_CODE(ek_verify(ek_package, ek_package_size, &k)));
    ek_port_print("\\n");
    return 0;
}}
"""


@pytest.mark.parametrize("name", ["qemu_mps2_an386", "qemu_mps3_an547"])
@pytest.mark.parametrize(
    ("owner", "least", "flip", "code"),
    [(1, 4, False, 0), (2, 4, False, 17), (1, 5, False, 18), (1, 4, True, 17)],
    ids=["signed", "other key", "older counter", "flipped bit"],
)
def test_on_boards(
    name: str, owner: int, least: int, flip: bool, code: int, tmp_path: Path
) -> None:
    board = boards.load(name)
    need(emulate.missing(board))
    signed = signing.sign(COMPAT.read_bytes(), bytes([1] * 32), rollback=4)
    if flip:
        wrong = bytearray(signed)
        wrong[package_spans(signed)[-2].start] ^= 1
        signed = repaired(bytes(wrong))
    (tmp_path / "net.ekp").write_bytes(signed)
    text = ", ".join(map(str, signing.public_key(bytes([owner] * 32))))
    (tmp_path / "main.c").write_text(MAIN.format(key=text, least=least))
    elf = toolchain.firmware(board, tmp_path / "main.c", tmp_path / "net.ekp")
    assert f"code {code}\n" in emulate.run_elf(board, elf)

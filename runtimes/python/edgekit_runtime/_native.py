"""The native library through ctypes: structures of edgekit.h and native/port/host.h, and its
functions."""

from __future__ import annotations

import ctypes as c
import functools
import os
import sys
from pathlib import Path

MEM_KINDS = ("session", "main", "fast", "state", "scratch")
AT = ("", "op", "tensor", "section", "entry", "memory")
ALIGN = 64


class EdgeKitRuntimeError(RuntimeError):
    """A package cannot be opened or run; the message says what, where and what to do."""


class Tensor(c.Structure):
    _fields_ = [
        ("data", c.c_void_p),
        ("bytes", c.c_size_t),
        ("dims", c.c_uint32 * 8),
        ("rank", c.c_uint8),
        ("dtype", c.c_uint8),
        ("quantized", c.c_uint8),
        ("reserved", c.c_uint8),
        ("scale", c.c_float),
        ("zero", c.c_int32),
        ("name", c.c_char_p),
    ]


class Config(c.Structure):
    _fields_ = [
        ("size", c.c_uint32),
        ("threads", c.c_uint32),
        ("package", c.c_void_p),
        ("package_len", c.c_size_t),
        ("mem", c.c_void_p * 5),
        ("mem_len", c.c_size_t * 5),
        ("ops", c.c_void_p),
        ("cpu_mask", c.c_uint32),
        ("reserved", c.c_uint32),
        ("parallel", c.c_void_p),
        ("clock", c.c_void_p),
        ("cancel", c.c_void_p),
        ("trace", c.c_void_p),
        ("log", c.c_void_p),
        ("ctx", c.c_void_p),
    ]


class Counts(c.Structure):
    _fields_ = [(n, c.c_uint32) for n in ("entries", "ops", "tensors", "goldens")]


class Ref(c.Structure):
    _fields_ = [
        ("kind", c.c_uint8),
        ("reserved", c.c_uint8),
        ("entry", c.c_uint16),
        ("index", c.c_uint32),
    ]


class OpInfo(c.Structure):
    _fields_ = [
        ("name", c.c_char_p),
        ("type", c.c_char_p),
        ("isa", c.c_char_p),
        ("entry", c.c_uint32),
        ("version", c.c_uint32),
        ("inputs", c.c_uint32),
        ("outputs", c.c_uint32),
        ("exact", c.c_uint32),
        ("kernel", c.c_uint32),
    ]


class HostOp(c.Structure):
    _fields_ = [
        ("op", c.c_uint32),
        ("reserved", c.c_uint32),
        ("begin", c.c_uint64),
        ("end", c.c_uint64),
    ]


def _path() -> Path:
    """$EDGEKIT_LIBRARY, else the library this wheel was built with."""
    given = os.environ.get("EDGEKIT_LIBRARY")
    if given:
        return Path(given)
    name = {"win32": "edgekit.dll", "darwin": "libedgekit.dylib"}.get(sys.platform, "libedgekit.so")
    return Path(__file__).with_name(name)


@functools.cache
def lib() -> c.CDLL:
    """The loaded library with its functions' types set."""
    path = _path()
    try:
        dll = c.CDLL(str(path))
    except OSError as e:
        raise EdgeKitRuntimeError(
            f"{path}: cannot load the native library ({e})\n"
            "  install the edgekit-runtime wheel made for this system"
        ) from None
    u32, size, ptr = c.c_uint32, c.c_size_t, c.c_void_p
    for name, result, args in (
        ("ek_arena_size", u32, [ptr, size, c.c_uint, c.POINTER(size * 5)]),
        ("ek_open", u32, [c.POINTER(ptr), c.POINTER(Config)]),
        ("ek_find", u32, [ptr, c.c_char_p, c.POINTER(Ref)]),
        ("ek_input", u32, [ptr, c.c_uint, c.c_uint, c.POINTER(Tensor)]),
        ("ek_output", u32, [ptr, c.c_uint, c.c_uint, c.POINTER(Tensor)]),
        ("ek_tensor_at", u32, [ptr, u32, c.POINTER(Tensor)]),
        ("ek_run", u32, [ptr, c.c_uint]),
        ("ek_reset", u32, [ptr]),
        ("ek_verify", u32, [ptr, size, ptr]),
        ("ek_selftest", u32, [ptr]),
        ("ek_count", u32, [ptr, c.POINTER(Counts)]),
        ("ek_entry", u32, [ptr, c.c_uint, c.POINTER(c.c_char_p), c.POINTER(u32), c.POINTER(u32)]),
        ("ek_op", u32, [ptr, u32, c.POINTER(OpInfo)]),
        ("ek_op_tensor", u32, [ptr, u32, u32, c.POINTER(u32)]),
        ("ek_cpu", u32, []),
        ("ek_isa_name", c.c_char_p, [c.c_uint]),
        ("ek_version", c.c_char_p, []),
        ("ek_strerror", c.c_char_p, [u32]),
        ("ek_host_create", ptr, [c.c_uint, c.c_uint]),
        ("ek_host_destroy", None, [ptr]),
        ("ek_host_attach", None, [ptr, c.POINTER(Config)]),
        ("ek_host_trace", c.c_uint, [ptr, c.POINTER(c.POINTER(HostOp))]),
        ("ek_host_clear", None, [ptr]),
        ("ek_host_time", u32, [ptr, c.c_uint, c.c_uint, c.POINTER(c.c_uint64)]),
    ):
        f = getattr(dll, name)
        f.restype, f.argtypes = result, args
    return dll


def isa_bits() -> dict[str, int]:
    """ISA name -> bit number, for every ISA the library knows."""
    out: dict[str, int] = {}
    for i in range(1, 32):
        name = lib().ek_isa_name(i)
        if name:
            out[name.decode()] = i
    return out


def cpu_isas() -> list[str]:
    """Names of the ISAs that this CPU and this build have."""
    have = int(lib().ek_cpu())
    return [n for n, i in isa_bits().items() if have >> i & 1]


def version() -> str:
    """Version of the native runtime."""
    return str(lib().ek_version().decode())


def sentence(status: int) -> str:
    """What, and where: the text of a status."""
    text = lib().ek_strerror(status).decode()
    at, index = status >> 8 & 15, status >> 12
    where = (
        f"{AT[at]} {MEM_KINDS[index] if at == 5 and index < 5 else index}: "
        if 0 < at < len(AT)
        else ""
    )
    return where + str(text)


def check(status: int, where: str = "") -> None:
    """Raises EdgeKitRuntimeError unless the status is 0."""
    if status:
        raise EdgeKitRuntimeError(f"{where}: {sentence(status)}" if where else sentence(status))

"""Session: opens a package and runs its entries.  No arithmetic on tensors happens in Python."""

from __future__ import annotations

import ctypes as c
import json
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_runtime import _native as n
from edgekit_runtime._native import EdgeKitRuntimeError

Array = npt.NDArray[Any]
DTYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype(np.float32),
    1: np.dtype(np.int8),
    2: np.dtype(np.uint8),
    3: np.dtype(np.int16),
    4: np.dtype(np.int32),
    5: np.dtype(np.int64),
    6: np.dtype(np.bool_),
}


@dataclass(frozen=True)
class TensorInfo:
    """An input, output or inner tensor.  Quantized: real = scale * (value - zero); else scale is
    0."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    zero: int


@dataclass(frozen=True)
class OpInfo:
    """One op: node name, type, the ISA whose kernel runs it, whether its bits are the same
    everywhere.

    kernel: EK_K_* of native/src/kernels.h, 255 where the op has loops of its own.
    """

    name: str
    type: str
    isa: str
    entry: int
    exact: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kernel: int = 255


@dataclass(frozen=True)
class OpTime:
    """One op of the last run; `start_us` counts from the first op's begin."""

    index: int
    name: str
    type: str
    isa: str
    latency_us: float
    start_us: float = 0.0


def _aligned(size: int) -> tuple[Any, int]:
    """(owner, address) of zeroed memory at a multiple of 64."""
    raw = np.zeros(max(size, 1) + n.ALIGN, np.uint8)
    return raw, (raw.ctypes.data + n.ALIGN - 1) // n.ALIGN * n.ALIGN


class _Package:
    """Package bytes at an aligned address: a memory map of a file, or an aligned copy of bytes."""

    def __init__(self, source: str | Path | bytes) -> None:
        self.where = "package" if isinstance(source, bytes) else str(source)
        self.map: mmap.mmap | None = None
        if isinstance(source, bytes):
            self.owner, self.address = _aligned(len(source))
            c.memmove(self.address, source, len(source))
            self.size = len(source)
            return
        try:
            with open(source, "rb") as f:
                f.seek(0, 2)
                self.size = f.tell()
                if self.size == 0:
                    raise EdgeKitRuntimeError(f"{source}: the file is empty; copy it again")
                self.map = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as e:
            raise EdgeKitRuntimeError(
                f"{source}: cannot be read: {e.strerror}; check the path"
            ) from None
        self.owner = np.frombuffer(self.map, np.uint8)
        self.address = self.owner.ctypes.data

    def section(self, kind: bytes) -> bytes:
        """Bytes of one section (after the native side has checked the table); b"" where absent, or
        where they are packed in another one."""
        raw = c.string_at(self.address, min(self.size, 128 + 64 * 32))
        for i in range(struct.unpack_from("<I", raw, 24)[0]):
            k, flags, offset, _, size = struct.unpack_from("<4sIIIQ", raw, 128 + 32 * i)
            if k == kind and not flags & 2:
                return c.string_at(self.address + offset * 16, size)
        return b""

    def close(self) -> None:
        self.owner = None
        if self.map is not None:
            self.map.close()


class Session:
    """An opened package: memory is allocated once, runs allocate only their results.

    source: path of a .ekp file (memory-mapped) or its bytes.  threads: cores used by one run.
    isa: names of the ISAs allowed ([] = portable C only; None = all this CPU has).
    trace: record the time of each op.  preprocess: `run` applies the package's stored preprocessing
    to raw inputs.  Raises EdgeKitRuntimeError for anything that is not a valid package.
    """

    def __init__(
        self,
        source: str | Path | bytes,
        *,
        threads: int = 1,
        isa: list[str] | None = None,
        trace: bool = False,
        preprocess: bool = False,
    ) -> None:
        self._host: int | None = None
        self._handle = c.c_void_p()
        lib = n.lib()
        self._package = _Package(source)
        self._where = self._package.where
        if not 1 <= threads <= 256:
            raise EdgeKitRuntimeError(f"threads={threads}: give 1 to 256")
        sizes = _sizes(self._package, threads)
        self.memory: dict[str, int] = dict(zip(n.MEM_KINDS, sizes, strict=True))
        self._owners = []
        cfg = n.Config(
            size=c.sizeof(n.Config), package=self._package.address, package_len=self._package.size
        )
        for i, size in enumerate(sizes):
            owner, address = _aligned(size)
            self._owners.append(owner)
            cfg.mem[i], cfg.mem_len[i] = address, size
        cfg.cpu_mask = self._mask(isa)
        self._host = lib.ek_host_create(threads, 65536 if trace else 0)
        if not self._host:
            raise EdgeKitRuntimeError(f"cannot start {threads} threads")
        lib.ek_host_attach(self._host, c.byref(cfg))
        try:
            n.check(lib.ek_open(c.byref(self._handle), c.byref(cfg)), self._where)
        except EdgeKitRuntimeError:
            self.close()
            raise
        self._counts = n.Counts()
        lib.ek_count(self._handle, c.byref(self._counts))
        self.entries = [self._entry(i)[0] for i in range(self._counts.entries)]
        self.meta: dict[str, Any] = self._meta()
        self._preprocess = preprocess

    @staticmethod
    def _mask(isa: list[str] | None) -> int:
        if isa is None:
            return 0xFFFFFFFF
        bits = n.isa_bits()
        unknown = [i for i in isa if i not in bits]
        if unknown:
            raise EdgeKitRuntimeError(f"no ISA is named {unknown[0]!r}; known: {', '.join(bits)}")
        return sum(1 << bits[i] for i in isa)

    def _meta(self) -> dict[str, Any]:
        try:
            meta = json.loads(self._package.section(b"META") or b"{}")
        except ValueError:
            return {}
        return meta if isinstance(meta, dict) else {}

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees threads, memory and the file mapping; the session cannot be used afterwards."""
        self._handle = c.c_void_p()
        if self._host:
            n.lib().ek_host_destroy(self._host)
            self._host = None
        self._package.close()

    def __del__(self) -> None:
        if getattr(self, "_host", None):
            self.close()

    def _open(self) -> c.c_void_p:
        if not self._handle:
            raise EdgeKitRuntimeError(f"{self._where}: the session is closed")
        return self._handle

    def _entry(self, entry: int | str) -> tuple[str, int, int, int]:
        if isinstance(entry, str):
            if entry not in self.entries:
                raise EdgeKitRuntimeError(
                    f"{self._where}: no entry {entry!r}; there are {', '.join(self.entries)}"
                )
            entry = self.entries.index(entry)
        name, ins, outs = c.c_char_p(), c.c_uint32(), c.c_uint32()
        n.check(
            n.lib().ek_entry(self._open(), entry, c.byref(name), c.byref(ins), c.byref(outs)),
            self._where,
        )
        return (name.value or b"").decode(), ins.value, outs.value, entry

    @staticmethod
    def _info(t: n.Tensor) -> TensorInfo:
        scale = float(t.scale) if t.quantized else 0.0
        dtype = DTYPES.get(t.dtype, np.dtype(np.void))
        return TensorInfo(
            (t.name or b"").decode(), tuple(t.dims[: t.rank]), dtype, scale, int(t.zero)
        )

    def _io(self, entry: int | str, output: bool) -> list[n.Tensor]:
        _, ins, outs, index = self._entry(entry)
        get = n.lib().ek_output if output else n.lib().ek_input
        found = []
        for i in range(outs if output else ins):
            t = n.Tensor()
            n.check(get(self._open(), index, i, c.byref(t)), self._where)
            found.append(t)
        return found

    def inputs(self, entry: int | str = 0) -> list[TensorInfo]:
        """What `run` takes, in order."""
        return [self._info(t) for t in self._io(entry, False)]

    def outputs(self, entry: int | str = 0) -> list[TensorInfo]:
        """What `run` returns, in order."""
        return [self._info(t) for t in self._io(entry, True)]

    @staticmethod
    def _view(t: n.Tensor) -> Array:
        buffer = (c.c_uint8 * t.bytes).from_address(t.data)
        flat: Array = np.frombuffer(buffer, DTYPES[t.dtype])
        return flat.reshape(tuple(t.dims[: t.rank]))

    def set_inputs(self, inputs: Mapping[str, Array] | Array, entry: int | str = 0) -> None:
        """Writes the inputs of the next run; shapes and types must be the entry's own."""
        slots = self._io(entry, False)
        infos = [self._info(t) for t in slots]
        if not isinstance(inputs, Mapping):
            if len(slots) != 1:
                names = ", ".join(i.name for i in infos)
                raise EdgeKitRuntimeError(f"{self._where}: give a dict with the inputs {names}")
            inputs = {infos[0].name: inputs}
        missing = [i.name for i in infos if i.name not in inputs]
        extra = [k for k in inputs if k not in {i.name for i in infos}]
        if missing or extra:
            raise EdgeKitRuntimeError(f"{self._where}: inputs missing: {missing}, unknown: {extra}")
        for t, info in zip(slots, infos, strict=True):
            value = np.asarray(inputs[info.name])
            if self._preprocess:
                value = self._prepare(value, info)
            if value.shape != info.shape or value.dtype != info.dtype:
                raise EdgeKitRuntimeError(
                    f"input {info.name!r}: got {value.dtype}{list(value.shape)}, the package wants "
                    f"{info.dtype}{list(info.shape)}"
                )
            np.copyto(self._view(t), value)

    def _prepare(self, value: Array, info: TensorInfo) -> Array:
        from edgekit_runtime.preprocess import apply

        return apply(value, info, self.meta.get("preprocess", {}))

    def execute(self, entry: int | str = 0) -> None:
        """Runs with the inputs as they are."""
        index = self._entry(entry)[3]
        n.lib().ek_host_clear(self._host)
        n.check(n.lib().ek_run(self._open(), index), self._where)

    def run(self, inputs: Mapping[str, Array] | Array, entry: int | str = 0) -> dict[str, Array]:
        """Outputs by name, as copies."""
        self.set_inputs(inputs, entry)
        self.execute(entry)
        return {self._info(t).name: self._view(t).copy() for t in self._io(entry, True)}

    def time(self, count: int, entry: int | str = 0) -> npt.NDArray[np.float64]:
        """Latency of `count` runs in microseconds (count,), timed around ek_run in C."""
        ns = (c.c_uint64 * count)()
        n.lib().ek_host_clear(self._host)
        n.check(n.lib().ek_host_time(self._open(), self._entry(entry)[3], count, ns), self._where)
        return np.asarray(ns, np.float64) / 1000.0

    def reset(self) -> None:
        """State back to its initial values."""
        n.check(n.lib().ek_reset(self._open()), self._where)

    def selftest(self) -> int:
        """Runs the golden vectors; returns how many there were.  Overwrites inputs and state."""
        n.check(n.lib().ek_selftest(self._open()), self._where)
        return int(self._counts.goldens)

    def tensor(self, name: str) -> Array:
        """A copy of any tensor by name.  Inner tensors keep their values only in packages built to
        keep them."""
        ref = n.Ref()
        n.check(
            n.lib().ek_find(self._open(), name.encode(), c.byref(ref)), f"{self._where}: {name!r}"
        )
        t = n.Tensor()
        if ref.kind in (1, 2):
            get = n.lib().ek_input if ref.kind == 1 else n.lib().ek_output
            n.check(get(self._open(), ref.entry, ref.index, c.byref(t)), self._where)
        else:
            n.check(n.lib().ek_tensor_at(self._open(), ref.index, c.byref(t)), self._where)
        if t.dtype not in DTYPES:
            raise EdgeKitRuntimeError(f"{name!r} is packed for a kernel and has no plain values")
        return self._view(t).copy()

    def tensors(self) -> list[TensorInfo]:
        """Every tensor of the package."""
        found = []
        for i in range(self._counts.tensors):
            t = n.Tensor()
            n.check(n.lib().ek_tensor_at(self._open(), i, c.byref(t)), self._where)
            found.append(self._info(t))
        return found

    def ops(self) -> list[OpInfo]:
        """Every op and the kernel that really runs it on this CPU."""
        names = [t.name for t in self.tensors()]
        out = []
        for i in range(self._counts.ops):
            o = n.OpInfo()
            n.check(n.lib().ek_op(self._open(), i, c.byref(o)), self._where)
            refs = []
            for k in range(o.inputs + o.outputs):
                r = c.c_uint32()
                n.lib().ek_op_tensor(self._open(), i, k, c.byref(r))
                refs.append("" if r.value == 0xFFFFFFFF else names[r.value])
            out.append(
                OpInfo(
                    o.name.decode(),
                    o.type.decode(),
                    o.isa.decode(),
                    o.entry,
                    bool(o.exact),
                    tuple(refs[: o.inputs]),
                    tuple(refs[o.inputs :]),
                    int(o.kernel),
                )
            )
        return out

    def trace(self) -> list[OpTime]:
        """Per-op times of the last run; needs Session(..., trace=True)."""
        first = c.POINTER(n.HostOp)()
        count = n.lib().ek_host_trace(self._host, c.byref(first))
        ops = self.ops() if count else []
        return [
            OpTime(
                r.op,
                ops[r.op].name,
                ops[r.op].type,
                ops[r.op].isa,
                (r.end - r.begin) / 1000.0,
                (r.begin - first[0].begin) / 1000.0,
            )
            for r in (first[i] for i in range(count))
        ]


def _sizes(p: _Package, threads: int) -> c.Array[c.c_size_t]:
    sizes = (c.c_size_t * 5)()
    n.check(n.lib().ek_arena_size(p.address, p.size, threads, c.byref(sizes)), p.where)
    return sizes


def memory(source: str | Path | bytes, threads: int = 1) -> dict[str, int]:
    """Bytes of each kind of memory a package needs here, whatever ops it has.

    Raises EdgeKitRuntimeError for what is no package.
    """
    p = _Package(source)
    try:
        return dict(zip(n.MEM_KINDS, _sizes(p, threads), strict=True))
    finally:
        p.close()


def verify(source: str | Path | bytes) -> None:
    """Checks every checksum of a package; raises EdgeKitRuntimeError where one differs."""
    p = _Package(source)
    try:
        n.check(n.lib().ek_verify(p.address, p.size, None), p.where)
    finally:
        p.close()

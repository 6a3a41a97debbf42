"""Boards are data: one ``boards/<id>.toml`` each, checked here against the dataclasses below.

Units stand in the keys. An unknown key, a missing one or a wrong type is an error that names the
file and the key. A user's own file is loaded by its path.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit import paths
from edgekit.errors import BoardError

SYSTEMS = ("host", "linux", "bare")
ISAS = ("avx2", "avx512vnni", "neon", "dotprod", "i8mm", "dsp", "mve")
BANKS = ("flash", "main", "fast")
LINKS = ("none", "tcp", "serial")


@dataclass(frozen=True)
class Bank:
    """One contiguous memory: ``flash`` holds code and package, ``main`` and ``fast`` are RAM."""

    name: str
    kind: str
    base: int
    size_kib: int


@dataclass(frozen=True)
class Target:
    """How code is compiled: by zig (triple and CPU) or by GCC (tool prefix and flags)."""

    zig: str
    zig_cpu: str = ""
    gcc: str = ""
    gcc_flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Link:
    """How the agent is reached; ``uart`` is a driver of runtimes/bare, "" where there is none."""

    kind: str = "none"
    baud: int = 115200
    uart: str = ""
    uart_base: int = 0
    uart_irq: int = 0


@dataclass(frozen=True)
class Power:
    """Sensor of edgekit/agent/sensors, or "none" with the reason."""

    sensor: str = "none"
    reason: str = ""


@dataclass(frozen=True)
class Emulator:
    """How the board is run without hardware: ``program args... [-cpu cpu] image``.

    ``package`` is the Debian package of the program. ``cpus`` are the values of ``cpu`` worth
    testing: each offers another set of ISAs.
    """

    program: str
    package: str
    args: tuple[str, ...] = ()
    cpu: str = ""
    cpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Board:
    """A board, phone or machine; ``source`` is where its facts were read.

    ``flash_kib`` is None where storage is not the limit, ``clock_mhz`` where it varies.
    ``vectors_base`` is set where the vector table does not lie at the start of flash.
    """

    id: str
    name: str
    system: str
    core: str
    ram_kib: int
    target: Target
    source: str
    isa: tuple[str, ...] = ()
    cores: int = 1
    clock_mhz: int | None = None
    flash_kib: int | None = None
    align_bytes: int = 64
    stack_kib: int = 8
    vectors_base: int | None = None
    memory: tuple[Bank, ...] = ()
    link: Link = Link()
    power: Power = Power()
    emulator: Emulator | None = None

    @property
    def bare(self) -> bool:
        """Runs without an operating system."""
        return self.system == "bare"

    @property
    def flash_bytes(self) -> int | None:
        """Bytes for code and package, None where storage is not the limit."""
        return None if self.flash_kib is None else self.flash_kib * 1024

    @property
    def ram_bytes(self) -> int:
        """Bytes of all RAM."""
        return self.ram_kib * 1024

    def bank(self, kind: str) -> Bank | None:
        """The largest bank of a kind: one memory kind of a package must lie in one piece."""
        found = [b for b in self.memory if b.kind == kind]
        return max(found, key=lambda b: b.size_kib) if found else None


def ids() -> list[str]:
    """Ids of the boards that ship with EdgeKit, sorted."""
    return sorted(p.stem for p in paths.data("boards").glob("*.toml"))


def load(board: str | Path) -> Board:
    """The board of an id or of a path to a ``.toml``. Raises BoardError."""
    text = str(board)
    if text.endswith(".toml"):
        return parse(Path(text))
    known = ids()
    if text not in known:
        near = difflib.get_close_matches(text, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise BoardError(
            f"no board {text!r}",
            todo=f"{hint}known boards: {', '.join(known)}; or give the path of a .toml file",
        )
    return parse(paths.data("boards", f"{text}.toml"))


def parse(path: Path) -> Board:
    """Reads and checks one board file. Raises BoardError naming the file and the key."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BoardError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BoardError(f"is not TOML: {error}", where=str(path)) from None
    if "id" in table:
        raise BoardError("the id is the file's name: remove the key `id`", where=str(path))
    board = _record(Board, {**table, "id": path.stem}, "", str(path))
    assert isinstance(board, Board)
    _check(board, str(path))
    return board


def fits(
    board: Board, flash_bytes: int, ram_bytes: int, *, arena_bytes: int = 0, fast_bytes: int = 0
) -> None:
    """Raises BoardError unless code and package fit the flash and all memories fit the RAM.

    ``ram_bytes`` counts everything (arena, state, scratch, session, stack); ``arena_bytes`` and
    ``fast_bytes`` are the parts that need one contiguous bank of kind main and fast. The error
    gives the numbers, how many bytes are missing and which known boards would do.
    """
    short = shortages(board, flash_bytes, ram_bytes, arena_bytes, fast_bytes)
    if not short:
        return
    what = "; ".join(
        f"{name}: {need:,} B needed, {have:,} B there, {need - have:,} B too many"
        for name, need, have in short
    )
    others = [
        b.id
        for b in map(load, ids())
        if b.bare == board.bare
        and b.emulator is None
        and not shortages(b, flash_bytes, ram_bytes, arena_bytes, fast_bytes)
    ]
    raise BoardError(
        f"the package does not fit: {what}",
        where=board.id,
        todo=f"boards it would fit: {', '.join(others)}"
        if others
        else "no known board of this kind is large enough: make the model smaller or quantize it",
    )


def shortages(
    board: Board, flash_bytes: int, ram_bytes: int, arena_bytes: int = 0, fast_bytes: int = 0
) -> list[tuple[str, int, int]]:
    """(resource, bytes needed, bytes there) of each that is too small, worst ratio first."""
    wanted = [("flash", flash_bytes, board.flash_bytes), ("RAM", ram_bytes, board.ram_bytes)]
    for kind, need in (("main", arena_bytes), ("fast", fast_bytes)):
        bank = board.bank(kind)
        if need and bank is not None:
            wanted.append((f"{kind} bank {bank.name}", need, bank.size_kib * 1024))
    short = [(name, need, have) for name, need, have in wanted if have is not None and need > have]
    return sorted(short, key=lambda s: s[1] / max(s[2], 1), reverse=True)


def _record(cls: type[Any], table: dict[str, Any], prefix: str, where: str) -> Any:
    """An instance of the dataclass ``cls`` from a TOML table; every key and type is checked."""
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in table:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.0)
            raise BoardError(
                f"unknown key `{prefix}{key}`",
                where=where,
                todo=f"the nearest key is `{prefix}{near[0]}`; known are: {', '.join(fields)}",
            )
    for name, field in fields.items():
        if name not in table and field.default is dataclasses.MISSING:
            raise BoardError(f"key `{prefix}{name}` is missing", where=where)
    return cls(**{k: _value(hints[k], v, f"{prefix}{k}", where) for k, v in table.items()})


def _value(hint: Any, value: Any, key: str, where: str) -> Any:
    """``value`` as the type ``hint`` of a field, or BoardError."""
    if isinstance(hint, types.UnionType):  # only `X | None`; TOML has no null
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _record(typing.cast(type[Any], hint), value, f"{key}.", where)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        item = typing.get_args(hint)[0]
        return tuple(_value(item, v, f"{key}[{i}]", where) for i, v in enumerate(value))
    if hint in (int, str) and type(value) is hint:
        if hint is int and value < 0:
            raise BoardError(f"key `{key}` is negative: {value}", where=where)
        return value
    kind = getattr(hint, "__name__", str(hint))
    raise BoardError(f"key `{key}` must be of type {kind}, not {value!r}", where=where)


def _check(board: Board, where: str) -> None:
    """What the types alone do not say."""
    one_of: list[tuple[str, str, tuple[str, ...]]] = [("system", board.system, SYSTEMS)]
    one_of += [("link.kind", board.link.kind, LINKS)]
    one_of += [("isa", i, ISAS) for i in board.isa]
    one_of += [(f"memory {b.name}: kind", b.kind, BANKS) for b in board.memory]
    for key, value, known in one_of:
        if value not in known:
            raise BoardError(
                f"key `{key}` cannot be {value!r}", where=where, todo=f"known: {', '.join(known)}"
            )
    if board.align_bytes != (16 if board.bare else 64):
        raise BoardError("key `align_bytes` is 16 on bare metal and 64 elsewhere", where=where)
    if board.power.sensor == "none" and not board.power.reason:
        raise BoardError("key `power.reason` must say why there is no power sensor", where=where)
    if not board.bare:
        return
    if board.flash_kib is None or board.clock_mhz is None or not board.memory:
        raise BoardError("a bare board needs flash_kib, clock_mhz and [[memory]]", where=where)
    flash = sum(b.size_kib for b in board.memory if b.kind == "flash")
    ram = sum(b.size_kib for b in board.memory if b.kind != "flash")
    if (flash, ram) != (board.flash_kib, board.ram_kib):
        raise BoardError(
            f"flash_kib = {board.flash_kib} and ram_kib = {board.ram_kib}, but the banks of "
            f"[[memory]] add up to {flash} and {ram}",
            where=where,
        )

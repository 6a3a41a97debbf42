"""Runs packages on boards that are emulated (the board's ``[emulator]`` table).

The same program or firmware runs as on the board itself. Speed is counted in executed instructions
by our own plugin for QEMU (bench/qemu/ekcount.c); milliseconds of an emulator would mean nothing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit import layout, paths, toolchain
from edgekit.boards import Board, Emulator
from edgekit.errors import BoardError, PackageError, ToolchainError, UsageError

MARK_BEGIN, MARK_OP, MARK_END = 96, 97, 98  # native/port/marker.h
FAULT = 99  # exit code of the firmware's fault handler


@dataclass(frozen=True)
class EmulatedOp:
    """One op as it ran: whose kernel, type and name of the node."""

    isa: str
    type: str
    name: str


@dataclass(frozen=True)
class Emulation:
    """What came out of one emulated run.

    ``outputs``: for each sample the bytes of all outputs. ``memory_bytes``: session, main, fast,
    state, scratch. ``instructions`` and ``op_instructions`` (per sample, per sample and op) are
    empty unless counted. ``sections``: bytes of the firmware by section, empty on Linux.
    """

    outputs: list[bytes]
    console: str
    ops: list[EmulatedOp]
    memory_bytes: list[int]
    stack_bytes: int | None
    instructions: list[int]
    op_instructions: list[list[int]]
    sections: dict[str, int]


@dataclass(frozen=True)
class EmulatedAgent:
    """Where an emulated agent is reached and the token it wants, "" for none."""

    url: str
    token: str


def run_package(
    board: Board,
    package: str | Path,
    inputs: Sequence[bytes] = (),
    *,
    entry: int | Sequence[int] = 0,
    isa: Sequence[str] | None = None,
    count: bool = False,
    profile: Path | None = None,
    compiler: str = "auto",
    cpu: str = "",
    timeout_s: float = 300,
) -> Emulation:
    """Runs the package's golden vectors and then each of ``inputs`` on an emulated board.

    One of ``inputs`` is the bytes of all inputs of its entry, one after the other; ``entry`` is one
    for all or one for each. ``cpu`` is another CPU of the emulator, ``isa`` the allowed ISAs (None:
    all that the CPU has, []: portable C); both only on Linux boards. ``profile``, with ``count``: a
    file that gets the instructions which the last of ``inputs`` executed (bench/qemu/ekcount.c).
    Raises BoardError for a board without emulator, ToolchainError where a tool is missing or the
    program crashes, PackageError with the runtime's sentence where it refuses the package.
    """
    emulator = require(board)
    if board.bare and (cpu or isa is not None):
        raise BoardError("its firmware is compiled for one CPU", where=board.id)
    source = Path(package)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        work = Path(folder)
        (work / "in.bin").write_bytes(job(entry, inputs))
        sections: dict[str, int] = {}
        if board.bare:
            elf = toolchain.firmware(board, "selftest", source, kind=compiler)
            sections = toolchain.section_sizes(elf)
            semihosting = ["-semihosting-config", "enable=on,target=native"]
            command = [*emulator.args, "-serial", "null", *semihosting, "-kernel", str(elf)]
        else:
            program = toolchain.run_program(board, compiler)
            mask = ["--isa", str(_mask(isa))]
            files = [str(source.resolve()), "in.bin", "out.bin"]
            command = ["-cpu", cpu or emulator.cpu, str(program), *files, *mask]
        more = f",profile={profile.resolve()}" if profile else ""
        plugin = ["-plugin", f"{counter()},out=marks.txt{more}"] if count else []
        console = _execute(board, [emulator.program, *plugin, *command], work, timeout_s)
        out = (work / "out.bin").read_bytes()
        marks = (work / "marks.txt").read_text() if count else ""
    totals, per_op = _read_marks(marks)
    return Emulation(
        outputs=split_outputs(out),
        console=console,
        ops=[EmulatedOp(*fields) for fields in _console(console, "op", 3)],
        memory_bytes=[int(fields[0]) for fields in _console(console, "memory", 1)],
        stack_bytes=next((int(fields[0]) for fields in _console(console, "stack", 1)), None),
        instructions=totals[-len(inputs) :] if inputs else [],
        op_instructions=per_op[-len(inputs) :] if inputs else [],
        sections=sections,
    )


def run_elf(board: Board, elf: Path, timeout_s: float = 60) -> str:
    """Console of firmware on an emulated board. Raises as ``run_package`` does."""
    emulator = require(board)
    semihosting = ["-semihosting-config", "enable=on,target=native"]
    command = [emulator.program, *emulator.args, "-serial", "null", *semihosting]
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        return _execute(board, [*command, "-kernel", str(elf)], Path(folder), timeout_s)


def missing(board: Board) -> str:
    """Why the board cannot be emulated here, "" where it can."""
    if board.emulator is None:
        return f"{board.id} has no [emulator]"
    if shutil.which(board.emulator.program) is None:
        return (
            f"{board.emulator.program} is not installed (apt-get install {board.emulator.package})"
        )
    try:
        toolchain.compiler(board)
    except ToolchainError as error:
        return str(error)
    return ""


def require(board: Board) -> Emulator:
    """The board's emulator, or an error saying what is missing."""
    if board.emulator is None:
        raise BoardError("has no [emulator] table", where=board.id)
    toolchain.tool(board.emulator.program, board.emulator.package)
    return board.emulator


def counter() -> Path:
    """The instruction counting plugin for QEMU, compiled for this machine."""
    source = paths.data("bench", "qemu", "ekcount.c")
    return toolchain.host_object(source, "libekcount.so", ["-std=gnu11", "-shared", "-fPIC"])


@contextlib.contextmanager
def agent(
    board: Board, package: str | Path | None = None, *, cpu: str = "", start_s: float = 20
) -> Iterator[EmulatedAgent]:
    """Runs the agent on an emulated board until the block ends; its clock counts instructions.

    Bare boards are reached over their UART (carried by TCP), Linux boards by TCP with a token made
    for this run. ``package`` is there without an upload. Raises as ``run_package`` does.
    """
    emulator = require(board)
    port = free_port()
    source = None if package is None else Path(package).resolve()
    if board.bare:
        elf = toolchain.firmware(board, "agent", source)
        uart = ["-serial", f"tcp:127.0.0.1:{port},server=on,wait=off"]
        clock = ["-icount", f"shift={toolchain.ICOUNT_SHIFT}"]
        command = [emulator.program, *emulator.args, *uart, *clock, "-kernel", str(elf)]
        with process(command, port, start_s):
            yield EmulatedAgent(f"serial+tcp://127.0.0.1:{port}", "")
        return
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        shared = Path(folder) / "instructions"
        shared.write_bytes(bytes(4096))
        plugin = f"{counter()},out={Path(folder) / 'marks.txt'},counter={shared}"
        command = [emulator.program, "-cpu", cpu or emulator.cpu, "-plugin", plugin]
        command += [str(toolchain.agent_program(board)), "--listen", f"127.0.0.1:{port}"]
        command += ["--name", board.id, "--counter", str(shared)]
        command += ["--package", str(source)] if source else []
        with process(command, port, start_s, {**os.environ, "EDGEKIT_TOKEN": token}):
            yield EmulatedAgent(f"tcp://127.0.0.1:{port}", token)


@contextlib.contextmanager
def process(
    command: Sequence[str], port: int, start_s: float, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program that listens on a local port, from when it listens until the block ends."""
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )
        try:
            deadline = time.monotonic() + start_s
            while not _listening(port):
                if child.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    text = log.read().decode(errors="replace").strip()
                    raise ToolchainError(f"{command[0]} did not start: {text[-2000:]}")
                time.sleep(0.02)
            yield child
        finally:
            child.terminate()
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listening(port: int) -> bool:
    """Whether a socket listens there; looked up, since a connection would be taken for a peer."""
    wanted = f"0100007F:{port:04X}"
    try:
        lines = Path("/proc/net/tcp").read_text().splitlines()
    except OSError:  # not Linux: bind instead
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return True
            return False
    return any(f[1] == wanted and f[3] == "0A" for f in (line.split() for line in lines))


def _execute(board: Board, command: Sequence[str], work: Path, timeout_s: float) -> str:
    """Console of an emulated program; an error where its exit code is not 0."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("QEMU_")}
    try:
        done = subprocess.run(
            command,
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ToolchainError(f"no end after {timeout_s:g} s", where=board.id) from None
    console = done.stdout.decode(errors="replace")
    if done.returncode == 1:
        line = next((x for x in console.splitlines() if x.startswith("error: ")), console.strip())
        raise PackageError(line.removeprefix("error: "), where=board.id)
    if done.returncode != 0:
        what = "fault" if done.returncode == FAULT else f"exit code {done.returncode}"
        raise ToolchainError(f"the program crashed ({what}): {console[-2000:]}", where=board.id)
    return console


def job(entry: int | Sequence[int], inputs: Sequence[bytes]) -> bytes:
    """in.bin of the programs: number of samples, then entry and input bytes of each."""
    entries = [entry] * len(inputs) if isinstance(entry, int) else entry
    parts = [struct.pack("<I", e) + data for e, data in zip(entries, inputs, strict=True)]
    return struct.pack("<I", len(inputs)) + b"".join(parts)


def _mask(isa: Sequence[str] | None) -> int:
    """Bits (1 << ek_isa) of the ISAs, all for None."""
    if isa is None:
        return 0xFFFFFFFF
    known = layout.isas()
    unknown = [name for name in isa if name not in known]
    if unknown:
        raise UsageError(f"no ISA {unknown[0]!r}", todo=f"known: {', '.join(known)}")
    return sum(1 << known[name].id for name in isa)


def split_outputs(out: bytes) -> list[bytes]:
    """The outputs of each sample from out.bin: size and bytes of each."""
    found = []
    at = 0
    while at < len(out):
        (size,) = struct.unpack_from("<I", out, at)
        found.append(out[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def _console(console: str, word: str, fields: int) -> list[list[str]]:
    """The console's lines that begin with ``word``, without it, cut into ``fields``."""
    found = [
        line.split(" ", fields)[1:] for line in console.splitlines() if line.startswith(word + " ")
    ]
    return [line for line in found if len(line) == fields]


def _read_marks(text: str) -> tuple[list[int], list[list[int]]]:
    """Instructions of each run between its begin and end marks, and of each op within."""
    totals: list[int] = []
    per_op: list[list[int]] = []
    begin = last = 0
    running = False
    for line in text.splitlines():
        word, number = line.split()
        if word == "total":
            continue
        mark, at = int(word), int(number)
        if mark == MARK_BEGIN:
            begin = last = at
            running = True
            per_op.append([])
        elif mark == MARK_OP and running:
            per_op[-1].append(at - last)
            last = at
        elif mark == MARK_END:
            totals.append(at - begin)
            running = False
    return totals, per_op

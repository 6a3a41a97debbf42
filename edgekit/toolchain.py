"""Compiles the runtime for a board and links programs: zig, arm-none-eabi-gcc or the system's cc.

Every target compiles the same files with the same flags (`SOURCES`, `FLAGS`); ISA files guard
themselves. Objects and programs are kept in the cache by the hash of all they are made of, so that
only what changed is compiled again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgekit import paths
from edgekit.boards import Bank, Board, load
from edgekit.errors import BoardError, ToolchainError

SOURCES = ("src/*.c", "ops/*.c", "gen/*.c", "kernels/*/*.c")
INCLUDES = ("include", "src", "gen", "port", "agent")
# No flag for floating point: rounding is kept apart in the code, so users may compile as they like.
FLAGS = ("-std=c11", "-O2", "-ffunction-sections", "-fdata-sections")
AGENT = ("agent.c", "agent_run.c", "codec.c", "sha256.c")
KINDS = ("auto", "zig", "gcc")
ICOUNT_SHIFT = 5  # emulated: one instruction takes 2^5 ns of the emulator's time


@dataclass(frozen=True)
class Compiler:
    """A C compiler for one target: the command, what it is, and flags for code and for links."""

    command: tuple[str, ...]
    kind: str
    version: str
    flags: tuple[str, ...]
    link_flags: tuple[str, ...]


def compiler(board: Board, kind: str = "auto") -> Compiler:
    """The compiler for a board: "zig", "gcc" or, with "auto", the first of these that is there.

    On the host "gcc" means `$CC`, cc, gcc or clang and comes first; elsewhere zig comes first,
    since GCC 12 makes no tail-predicated loops for Helium. ``$EDGEKIT_COMPILER`` replaces "auto".
    Raises ToolchainError saying what to install.
    """
    if kind == "auto":
        kind = os.environ.get("EDGEKIT_COMPILER", "auto")
    if kind not in KINDS:
        raise ToolchainError(f"no compiler kind {kind!r}", todo=f"known: {', '.join(KINDS)}")
    order = [kind] if kind != "auto" else ["zig", "gcc"]
    if kind == "auto" and board.system == "host":
        order.reverse()
    for candidate in order:
        found = _zig(board) if candidate == "zig" else _gcc(board)
        if found is not None:
            return found
    gcc = f"{board.target.gcc}gcc" if board.target.gcc else "cc"
    raise ToolchainError(
        f"no compiler for {board.id}",
        todo="run `pip install ziglang`" + (f" or install {gcc}" if "gcc" in order else ""),
    )


def compile_objects(
    board: Board,
    sources: Sequence[Path] | None = None,
    *,
    kind: str = "auto",
    flags: Sequence[str] = (),
) -> list[Path]:
    """Objects of ``sources`` (default: the whole runtime) for a board, cached.

    Raises ToolchainError with the compiler's message.
    """
    files = runtime_sources() if sources is None else sources
    return _objects(board, compiler(board, kind), files, flags)


def runtime_sources() -> list[Path]:
    """The runtime's C files, the same for every target."""
    native = paths.data("native")
    files = [f for pattern in SOURCES for f in sorted(native.glob(pattern))]
    if not files:
        raise ToolchainError("no C sources", where=str(native))
    return files


def shared_library(board: Board, *, kind: str = "auto", flags: Sequence[str] = ()) -> Path:
    """The runtime with the hosted port as a shared library; ``flags`` such as sanitizers."""
    port = [paths.data("native", "port", "posix.c")]
    cc = compiler(board, kind)
    with_flags = dataclasses.replace(
        cc, flags=(*cc.flags, "-fPIC", *flags), link_flags=(*cc.link_flags, *flags)
    )
    objects = _objects(board, with_flags, [*runtime_sources(), *port])
    return _link(board, with_flags, objects, ["-shared", "-lpthread"], "libedgekit.so")


def linux_program(board: Board, name: str, sources: Sequence[Path], *, kind: str = "auto") -> Path:
    """A program of ``sources`` and the runtime for a hosted board; static except on the host."""
    files = [*sources, *runtime_sources()]
    cc = compiler(board, kind)
    static = [] if board.system == "host" else ["-static", "-s"]
    flags = [*static, "-Wl,--gc-sections", "-lpthread"]
    return _link(board, cc, _objects(board, cc, files), flags, name)


def run_program(board: Board, kind: str = "auto") -> Path:
    """``ek-run`` (native/port/run_main.c) for a hosted board."""
    return linux_program(board, "ek-run", [paths.data("native", "port", "run_main.c")], kind=kind)


def agent_program(board: Board, kind: str = "auto") -> Path:
    """``edgekit-agent``: the agent as a static program for a Linux board without Python."""
    agent = paths.data("native", "agent")
    sources = [agent / name for name in (*AGENT, "main_posix.c", "sensors_posix.c")]
    return linux_program(board, "edgekit-agent", sources, kind=kind)


def firmware(
    board: Board,
    main: str | Path,
    package: Path | None = None,
    *,
    kind: str = "auto",
    emulated: bool = True,
) -> Path:
    """ELF file for a bare board: ``main`` is "selftest", "agent" or a C file of your own.

    ``package`` goes into flash; ``emulated`` makes the clock count instructions. Raises BoardError
    for a board that is not bare or has no UART driver, ToolchainError where something does not
    compile or does not fit.
    """
    if not board.bare:
        raise BoardError(
            "runs an operating system: it takes a program, not firmware", where=board.id
        )
    if main == "agent" and not board.link.uart:
        raise BoardError(
            "no UART driver for this board in runtimes/bare",
            where=board.id,
            todo="see port.h there",
        )
    bare = paths.data("runtimes", "bare")
    cc = compiler(board, kind)
    defines = _board_defines(board, emulated)
    sources = [bare / f for f in ("startup.c", "semihost.c", "memory.c", "uart_cmsdk.c")]
    if main == "agent":
        sources += [paths.data("native", "agent") / f for f in (*AGENT, "tiny.c")]
    objects = _objects(board, cc, runtime_sources())
    program = bare / f"{main}_main.c" if isinstance(main, str) else main
    objects += _objects(board, cc, [*sources, program], [f"-D{d}" for d in defines])
    objects.append(_package_object(board, cc, bare / "package.S", package))
    script = linker_script(board, bare / "sections.ld")
    # -nostartfiles keeps zig's compiler-rt; GCC would add newlib, which we do not want
    libs = ["-nostartfiles"] if cc.kind == "zig" else ["-nostdlib"]
    tail = [] if cc.kind == "zig" else ["-lgcc"]
    flags = [*libs, "-Wl,--gc-sections", f"-Wl,-T,{script}", *tail]
    return _link(board, cc, objects, flags, f"{program.stem}.elf")


def session_bytes(board: Board, kind: str = "auto", *, unpack: bool = False) -> int:
    """Bytes of EK_MEM_SESSION on a 32-bit board, without what constants unpack to there; `unpack`:
    in a build that can."""
    text = """#include "session.h"
extern const unsigned char ek_probe[(sizeof(ek_session) + 15) / 16 * 16];
const unsigned char ek_probe[] = { [(sizeof(ek_session) + 15) / 16 * 16 - 1] = 1 };
"""
    path = paths.cache("sources") / f"session-{_digest(text)}.c"
    _cached(path, lambda out: out.write_text(text, encoding="utf-8"))
    flags = ["-DEK_UNPACK=1"] if unpack else []
    (made,) = compile_objects(board, [path], kind=kind, flags=flags)
    return section_sizes(made)[".rodata.ek_probe"]


def section_sizes(elf: Path) -> dict[str, int]:
    """Bytes of each allocated section of a 32-bit little-endian ELF file, by name."""
    data = elf.read_bytes()
    u32 = functools.partial(_u, data, 4)
    u16 = functools.partial(_u, data, 2)
    if data[:6] != b"\x7fELF\x01\x01":
        raise ToolchainError("is not a 32-bit ELF file", where=str(elf))
    table, size, count, names_at = u32(32), u16(46), u16(48), u16(50)
    names = u32(table + names_at * size + 16)
    found: dict[str, int] = {}
    for i in range(count):
        at = table + i * size
        if u32(at + 8) & 2:  # SHF_ALLOC
            start = names + u32(at)
            found[data[start : data.index(0, start)].decode()] = u32(at + 20)
    return found


def tool(name: str, package: str) -> str:
    """Path of a program, or ToolchainError naming the Debian package that holds it."""
    found = shutil.which(name)
    if found is None:
        raise ToolchainError(f"{name} is not installed", todo=f"apt-get install {package}")
    return found


def host_object(source: Path, name: str, flags: Sequence[str]) -> Path:
    """One C file as a program or library for this machine, outside the runtime: QEMU's plugin."""
    cc = compiler(load("host"))
    key = _digest(cc.version, *flags, source.read_bytes())
    command = [*cc.command, *cc.flags, "-O2", *flags, str(source), "-o"]
    return _cached(paths.cache("programs", key) / name, lambda out: execute([*command, str(out)]))


def _zig(board: Board) -> Compiler | None:
    if importlib.util.find_spec("ziglang") is None:
        return None
    target = board.target
    # zig would compile for exactly this CPU: ISAs are chosen when a package runs
    flags = ["-mcpu=baseline"] if target.zig == "native" else ["-target", target.zig]
    if target.zig_cpu:
        flags.append(f"-mcpu={target.zig_cpu}")
    # Without it clang stops at undefined behaviour with an illegal instruction.
    code = [*flags, "-fno-sanitize=undefined"]
    if board.bare:
        code += ["-ffreestanding", "-fno-stack-protector", "-fno-unwind-tables"]
        code += ["-fno-asynchronous-unwind-tables"]
    command = (sys.executable, "-m", "ziglang", "cc")
    return Compiler(command, "zig", _version(command), tuple(code), tuple(flags))


def _gcc(board: Board) -> Compiler | None:
    target = board.target
    names = [f"{target.gcc}gcc"] if target.gcc else ["cc", "gcc", "clang"]
    if board.system == "host" and os.environ.get("CC"):
        command = tuple(shlex.split(os.environ["CC"]))
    elif board.system != "host" and not target.gcc:
        return None
    else:
        command = next(((p,) for p in map(shutil.which, names) if p), ())
    if not command:
        return None
    flags = (*target.gcc_flags, "-ffreestanding") if board.bare else target.gcc_flags
    return Compiler(command, "gcc", _version(command), flags, target.gcc_flags)


@functools.cache
def _version(command: tuple[str, ...]) -> str:
    """What tells one release of a compiler from the next."""
    if command[-2:] == ("ziglang", "cc"):
        return "zig " + importlib.metadata.version("ziglang")
    return execute([*command, "--version"]).splitlines()[0]


def _board_defines(board: Board, emulated: bool) -> list[str]:
    defines = [
        f'EK_BOARD_NAME="{board.id}"',
        f'EK_BOARD_CORE="{board.core}"',
        f'EK_POWER_REASON="{board.power.reason}"',
        f"EK_CLOCK_HZ={(board.clock_mhz or 0) * 1_000_000}u",
    ]
    if emulated:
        defines.append(f"EK_ICOUNT_SHIFT={ICOUNT_SHIFT}")
    if board.link.uart:
        defines += [
            f"EK_UART_{board.link.uart.upper()}",
            f"EK_UART_BASE={board.link.uart_base:#x}u",
            f"EK_UART_IRQ={board.link.uart_irq}u",
        ]
    return defines


def linker_script(board: Board, sections: Path) -> Path:
    """MEMORY from the board's banks and behind it ``sections``; kept in the cache by content."""
    flash, main, fast = (board.bank(kind) for kind in ("flash", "main", "fast"))
    if flash is None or main is None:
        raise BoardError(
            "firmware needs a memory of kind flash and one of kind main", where=board.id
        )
    fast = fast or Bank("none", "fast", main.base, 0)
    vectors = "FLASH"
    banks = [("FLASH", "rx", flash), ("RAM", "rwx", main), ("FAST", "rwx", fast)]
    if board.vectors_base is not None:
        vectors = "VECTORS"
        banks.append((vectors, "rx", Bank("vectors", "flash", board.vectors_base, 1)))
    lines = [
        f"  {name} ({access}) : ORIGIN = {bank.base:#x}, LENGTH = {bank.size_kib}K"
        for name, access, bank in banks
    ]
    body = sections.read_text(encoding="utf-8").replace("> VECTORS", f"> {vectors}")
    body = body.replace("EK_STACK_BYTES", str(board.stack_kib * 1024))
    text = "MEMORY\n{\n" + "\n".join(lines) + "\n}\n" + body
    path = paths.cache("scripts") / f"{board.id}-{_digest(text)}.ld"
    return _cached(path, lambda out: out.write_text(text, encoding="utf-8"))


def _package_object(board: Board, cc: Compiler, source: Path, package: Path | None) -> Path:
    """package.S with the bytes of ``package``; each package has its own object."""
    content = b"" if package is None else package.read_bytes()
    key = _digest(cc.version, *cc.flags, source.read_bytes(), content)
    # zig has a cache of its own that does not look into .incbin: the key makes the command differ
    define = [f"-DEK_PACKAGE_KEY={key}"]
    define += [] if package is None else [f'-DEK_PACKAGE_FILE="{package.resolve()}"']
    path = paths.cache("objects", "packages") / f"package-{key}.o"
    return _cached(path, lambda out: _compile(cc, [*cc.flags, *define], source, out))


def _objects(
    board: Board, cc: Compiler, files: Sequence[Path], extra: Sequence[str] = ()
) -> list[Path]:
    flags = [*cc.flags, *FLAGS, *extra]
    headers = _headers_digest()
    folder = paths.cache("objects", board.target.zig if cc.kind == "zig" else board.core)

    def one(source: Path) -> Path:
        own = [*flags, *size_flags(board, source)]
        key = _digest(cc.version, *own, headers, source.name, source.read_bytes())
        return _cached(
            folder / f"{source.stem}-{key}.o", lambda out: _compile(cc, own, source, out)
        )

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, files))


def size_flags(board: Board, source: Path) -> list[str]:
    """Flash is scarce on bare boards: all but the kernels is compiled for size."""
    portable = source.name == "portable.c" and not board.isa  # then these are the board's kernels
    kernel = portable or source.parent.parent.name == "kernels"
    return ["-Os"] if board.bare and not kernel else []


def _compile(cc: Compiler, flags: Sequence[str], source: Path, out: Path) -> None:
    native = paths.data("native")
    include = [f"-I{native / d}" for d in INCLUDES]
    bare = paths.data("runtimes", "bare")
    include.append(f"-I{bare}")
    if "-ffreestanding" in flags:  # such a compiler brings no string.h
        include += ["-isystem", str(bare / "include")]
    execute([*cc.command, *flags, *include, "-c", str(source), "-o", str(out)])


def _link(
    board: Board, cc: Compiler, objects: Sequence[Path], flags: Sequence[str], name: str
) -> Path:
    # objects and scripts are named by their hashes, so their names stand for their contents
    key = _digest(cc.version, *cc.link_flags, *flags, *(o.name for o in objects))
    command = [*cc.command, *cc.link_flags, *map(str, objects), *flags, "-o"]
    path = paths.cache("programs", f"{board.id}-{key}") / name
    return _cached(path, lambda out: execute([*command, str(out)]))


def _headers_digest() -> str:
    """Hash of every header: objects are made again when any of them changes."""
    folders = (paths.data("native"), paths.data("runtimes", "bare"))
    files = [f for folder in folders for p in ("**/*.h", "**/*.inc") for f in folder.glob(p)]
    return _digest(*(part for f in sorted(files) for part in (f.name, f.read_bytes())))


def _digest(*parts: str | bytes) -> str:
    """16 hexadecimal digits of the SHA-256 over the parts and their lengths."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def _cached(path: Path, make: Callable[[Path], object]) -> Path:
    """``path``, made by ``make(temporary path)`` if it is not there: complete or absent."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as tmp:
            out = Path(tmp) / path.name
            make(out)
            out.replace(path)
    return path


def execute(command: Sequence[str]) -> str:
    """Standard output of a command; ToolchainError with its message where it fails."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=600,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError(f"{shlex.join(command)}: {error}") from None
    if done.returncode != 0:
        message = (done.stderr or done.stdout).strip()
        raise ToolchainError(f"{shlex.join(command)} failed:\n{message[-4000:]}")
    return done.stdout


def _u(data: bytes, size: int, at: int) -> int:
    return int.from_bytes(data[at : at + size], "little")

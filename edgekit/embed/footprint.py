"""What a project really needs: linked for its board, split by the map, its stack painted."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgekit import boards, contents, emulate, paths, toolchain
from edgekit.boards import Board
from edgekit.embed.project import PORT, Project, save
from edgekit.errors import PackageError, ToolchainError
from edgekit.toolchain import Compiler

AMPLE_KIB = 16 * 1024
FRAME = 112  # bytes: what an interrupt may push onto the painted stack (FPU registers too)
PARTS = ("core", "ops", "kernels", "model", "program", "helpers")
# files of native/src that only ops call: arithmetic, not the core
SHARED = ("portable", "gemm", "fmath", "rnn", "move")


@dataclass(frozen=True)
class Footprint:
    """Flash and RAM of one project after a real link; bytes.

    `code`: core, ops, kernels, model (its op list), program (main.c and start-up), helpers of the
    compiler; without a map (zig) all of it is "engine". `stack` is None where it cannot be measured
    here, `stack_painted` what the run used. `undefined`: symbols the engine takes from elsewhere.
    """

    board: str
    compiler: str
    code: dict[str, int]
    weights: int
    metadata: int
    memory: dict[str, int]
    stack: int | None
    stack_painted: int | None
    stack_note: str
    undefined: tuple[str, ...]
    flash_there: int
    ram_there: int

    @property
    def engine(self) -> int:
        """Code without main.c and start-up."""
        return sum(n for part, n in self.code.items() if part != "program")

    @property
    def flash(self) -> int:
        """Everything in flash."""
        return sum(self.code.values()) + self.weights + self.metadata

    @property
    def ram(self) -> int:
        """All memories and the stack, where it is known."""
        return sum(self.memory.values()) + (self.stack or 0)


def measure(made: Project, kind: str = "auto") -> Footprint:
    """What `pieces` says of the whole."""
    return pieces(made, kind)[1]


def pieces(made: Project, kind: str = "auto") -> tuple[dict[str, int], Footprint]:
    """Links a bare board's project and runs it where an emulator has the core.

    Also returns the bytes of every piece of code, "part|object:section", none without a map.  GCC
    is taken where it is installed, since its map tells every part; ToolchainError where no compiler
    is there.
    """
    board = made.board
    cc = _compiler(board, kind)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as tmp:
        folder = Path(tmp)
        save(made, folder)
        objects = _compile(made, cc, folder)
        elf = _link(board, cc, objects, folder, _script(board))
        parts, total = _code(elf, made)
        undefined = _undefined(cc, objects, board)
        stack, painted, note = _stack(made, cc, objects, folder)
    weights = next((s.bytes for s in contents.read(made.package).sections if s.kind == "DATA"), 0)
    code = dict.fromkeys(PARTS, 0)
    for piece, n in parts.items():
        code[piece.split("|")[0]] += n
    return parts, Footprint(
        board=board.id,
        compiler=cc.version,
        code=code if parts else {"engine": total - len(made.package)},
        weights=weights,
        metadata=len(made.package) - weights,
        memory=made.memory,
        stack=stack,
        stack_painted=painted,
        stack_note=note,
        undefined=undefined,
        flash_there=board.flash_bytes or 0,
        ram_there=board.ram_bytes,
    )


def rows(f: Footprint) -> list[tuple[str, int | None, str]]:
    """(what, bytes, note) of the table people read."""
    found: list[tuple[str, int | None, str]] = [
        (f"flash: {part}", n, NOTES.get(part, "")) for part, n in f.code.items() if n
    ]
    found += [("flash: weights", f.weights, ""), ("flash: metadata of the package", f.metadata, "")]
    found.append(("flash together", f.flash, _share(f.flash, f.flash_there)))
    found += [(f"RAM: {k}", n, "") for k, n in f.memory.items() if n]
    found.append(("RAM: stack", f.stack, f.stack_note))
    found.append(("RAM together", f.ram, _share(f.ram, f.ram_there)))
    return found


NOTES = {
    "core": "loader, session, checks, self-test",
    "ops": "only those of this model",
    "program": "main.c, start-up, console",
    "helpers": "of the compiler",
    "engine": "with main.c and start-up: this linker writes no map",
}


def fit(f: Footprint) -> list[str]:
    """What would have to change for the project to fit its board; nothing where it does."""
    said = []
    if f.flash > f.flash_there:
        over = f.flash - f.flash_there
        most = "weights" if f.weights > f.engine else "code"
        said.append(
            f"flash: {over:,} B too many of {f.flash_there:,}; the largest part is {most}: "
            + (_fewer(f, over) if most == "weights" else "use fewer kinds of ops")
        )
    if f.ram > f.ram_there:
        over = f.ram - f.ram_there
        kind, n = max(f.memory.items(), key=lambda m: m[1])
        said.append(
            f"RAM: {over:,} B too many of {f.ram_there:,}; the largest part is {kind}, {n:,} B: "
            "smaller inputs or earlier strides shrink the activations"
        )
    return said


def _fewer(f: Footprint, over: int) -> str:
    for bits in (4, 2):
        saved = f.weights * (8 - bits) // 8
        if saved >= over:
            return (
                f"weights of {bits} bits instead of 8 save up to {saved:,} B (`edgekit compress`)"
            )
    return "quantize or prune the model, or take one with fewer weights"


def markdown(f: Footprint) -> str:
    """The table of the README."""
    lines = ["| what | bytes | |", "|---|---:|---|"]
    for what, n, note in rows(f):
        lines.append(f"| {what} | {'not known' if n is None else f'{n:,}'} | {note} |")
    return "\n".join(lines) + f"\n\nLinked for {f.board} with {f.compiler}.\n"


def _share(need: int, there: int) -> str:
    return f"{100 * need / there:.1f} % of {there:,}" if there else ""


def _script(board: Board) -> Path:
    """The board's linker script with ample memory: what does not fit is to be counted too."""
    ample = tuple(dataclasses.replace(b, size_kib=AMPLE_KIB) for b in board.memory)
    board = dataclasses.replace(board, memory=ample)
    return toolchain.linker_script(board, paths.data("runtimes", "bare", "sections.ld"))


def _compiler(board: Board, kind: str) -> Compiler:
    if kind != "auto":
        return toolchain.compiler(board, kind)
    try:
        return toolchain.compiler(board, "gcc")
    except ToolchainError:
        return toolchain.compiler(board)


def _compile(made: Project, cc: Compiler, folder: Path) -> list[Path]:
    """Objects of the library: model, package, core, kernels."""
    prefix = made.name
    jobs = [(f, "-Os") for f in (*made.core, f"{prefix}.c", f"{prefix}_package.S")]
    jobs += [(f, "-O2") for f in made.kernels]

    def one(job: tuple[str, str]) -> Path:
        out = folder / "build" / (job[0] + ".o")
        out.parent.mkdir(parents=True, exist_ok=True)
        toolchain.execute([*_flags(cc, folder), job[1], "-c", str(folder / job[0]), "-o", str(out)])
        return out

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, jobs))


def _flags(cc: Compiler, folder: Path) -> list[str]:
    include = [f"-I{folder / f}" for f in ("", "edgekit/include", "edgekit/src", "edgekit/gen")]
    flags = ["-std=c11", "-ffunction-sections", "-fdata-sections", "-Wall", "-Wextra", "-Werror"]
    own = ["-isystem", str(folder / "port" / "include")]
    return [*cc.command, *cc.flags, *flags, *include, *own]


def _link(board: Board, cc: Compiler, objects: Sequence[Path], folder: Path, script: Path) -> Path:
    port = folder / "port"
    defines = [
        "-DEK_PORT",
        "-DEK_PORT_NO_IRQS",
        f"-DEK_CLOCK_HZ={(board.clock_mhz or 0) * 1_000_000}u",
        f"-I{port}",
    ]
    sources = [folder / "main.c", *(port / f for f in PORT if f.endswith(".c"))]
    more = []
    for source in sources:
        out = folder / "build" / f"program-{board.id}-{source.stem}.o"
        toolchain.execute([*_flags(cc, folder), "-Os", *defines, "-c", str(source), "-o", str(out)])
        more.append(out)
    elf = folder / f"{board.id}.elf"
    zig = cc.kind == "zig"
    libs = ["-nostartfiles"] if zig else ["-nostdlib", "-lgcc", f"-Wl,-Map={elf}.map"]
    files = [str(p) for p in (*more, *objects)]
    flags = ["-Wl,--gc-sections", f"-Wl,-T,{script}", *libs]
    toolchain.execute([*cc.command, *cc.link_flags, *files, *flags, "-o", str(elf)])
    return elf


def _code(elf: Path, made: Project) -> tuple[dict[str, int], int]:
    """(bytes of code by piece, {} without a map; bytes of flash with the package)."""
    sizes = toolchain.section_sizes(elf)
    total = sum(n for name, n in sizes.items() if not name.startswith((".bss", ".stack")))
    map_file = elf.with_name(elf.name + ".map")
    if not map_file.exists():
        return {}, total
    found: dict[str, int] = {}
    text = map_file.read_text(encoding="utf-8").split("Linker script and memory map")[-1]
    pattern = r"^ (\.(?:text|rodata|data|vectors|ARM\.ex)\S*)\s+0x[0-9a-f]+\s+0x([0-9a-f]+)\s+(\S+)"
    for name, size, path in re.findall(pattern, text, re.M):
        if not name.startswith(f".rodata.{made.name}_package"):
            piece = f"{_part(path, made)}|{Path(path).name.split('.')[0]}:{name}"
            found[piece] = found.get(piece, 0) + int(size, 16)
    # what alignment fills belongs to nobody: to the program
    found["program|fill"] = total - len(made.package) - sum(found.values())
    return found, total


def _part(path: str, made: Project) -> str:
    stem = Path(path).name.split(".")[0]
    if ".a(" in path:
        return "helpers"
    if "/edgekit/kernels/" in path or any(Path(k).stem == stem == "portable" for k in made.kernels):
        return "kernels"
    if "/edgekit/ops/" in path or "/build/ops/" in path or stem in SHARED:
        return "ops"
    if "/edgekit/" in path:
        return "core"
    return "program" if "/program-" in path else "model"


def _undefined(cc: Compiler, objects: Sequence[Path], board: Board) -> tuple[str, ...]:
    """Symbols the whole library needs and does not define, after unused functions are gone."""
    nm = f"{board.target.gcc}nm"
    out = objects[0].with_name("engine.o")
    if cc.kind == "zig":
        return ()
    prefix = next(o.name.split(".")[0] for o in objects if o.name.endswith("_package.S.o"))
    roots = [f"-Wl,-u,{prefix.removesuffix('_package')}_config"]
    roots += [f"-Wl,-u,{f}" for f in ("ek_open", "ek_run", "ek_selftest", "ek_verify", "ek_output")]
    gather = ["-nostdlib", "-r", "-Wl,--gc-sections"]
    files = [str(o) for o in objects]
    toolchain.execute([*cc.command, *cc.link_flags, *gather, *roots, *files, "-o", str(out)])
    text = toolchain.execute([nm, "-u", str(out)])
    return tuple(sorted(line.split()[-1] for line in text.splitlines() if line.strip()))


def _stack(
    made: Project, cc: Compiler, objects: Sequence[Path], folder: Path
) -> tuple[int | None, int | None, str]:
    """(upper bound, painted bytes, how they were found)."""
    board = made.board
    known = [b for b in map(boards.load, boards.ids()) if b.bare and b.emulator is not None]
    same = [b for b in known if b.core == board.core and b.isa == board.isa]
    place = next((b for b in (board, *same) if b.emulator is not None), None)
    if place is None:
        return None, None, f"no emulator of this core ({board.core}) here: reserve and paint yours"
    why = emulate.missing(place)
    if why:
        return None, None, why
    elf = folder / f"{board.id}.elf"
    if place.id != board.id:
        elf = _link(place, cc, objects, folder, _script(place))
    console = emulate.run_elf(place, elf)
    said = re.search(r"^stack (\d+)$", console, re.M)
    if said is None or "self-test passed" not in console:
        raise PackageError(f"main.c did not finish: {console.strip()[-500:]}", where=place.id)
    painted = int(said[1])
    return painted + FRAME, painted, f"painted on {place.id}: {painted:,}, and one interrupt"

"""The files of a C project for one package and one board.  Templates: runtimes/bare/project."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from edgekit_runtime import Session
from edgekit_runtime import memory as arena_size

from edgekit import boards, contents, gen, layout, ops, package, paths, pipeline, plan, toolchain
from edgekit.boards import Board
from edgekit.contents import Contents
from edgekit.embed.strip import strip
from edgekit.errors import PackageError, UsageError
from edgekit.explain import isa_slots, slot_names
from edgekit.ir import Graph, Tensor
from edgekit.layout import GROUPS, Layout, isas

PORT = ("startup.c", "semihost.c", "memory.c", "port.h")
C_TYPES = {"f32": "float", "i8": "int8_t", "u8": "uint8_t", "i16": "int16_t", "i32": "int32_t"}
# an op of the first slot may also call the second
ALSO = {"binary_f32": "unary_f32"}


@dataclass(frozen=True)
class Project:
    """A C project: path -> text or bytes, and which C files are core (-Os) and kernels (-O2).

    `memory`: bytes per kind, session as the board's core counts it.
    """

    name: str
    board: Board
    files: Mapping[str, str | bytes]
    core: tuple[str, ...]
    kernels: tuple[str, ...]
    package: bytes
    memory: dict[str, int]


def project(data: bytes, board: Board, name: str, hooks: Sequence[Path] = ()) -> Project:
    """The files for a package on a board; ``name`` becomes the prefix of its C names.

    ``hooks``: C files that define `ek_op_<type>` of the ops of your own; they go to `ops/`.
    Raises UsageError where they are missing, EdgeKitRuntimeError for a package the loader refuses,
    ToolchainError without a compiler that tells the session's size.
    """
    prefix = identifier(name)
    slots = _slots(data, board)
    data = strip(data)
    found = contents.read(data)
    memory = arena_size(data)
    own = _hooks(found, hooks)
    core, kernels = _sources(found, board)
    bare = board if board.bare else boards.load("qemu_mps2_an386")
    few = found.memory["session"] if unpacks(found) else 0
    session32 = toolchain.session_bytes(bare, unpack=unpacks(found)) + few
    session64 = memory["session"]
    memory["session"] = session32 if board.bare else session64
    values = {
        "name": prefix,
        "NAME": prefix.upper(),
        "package": str(len(data)),
        "session32": str(session32),
        "session64": str(session64),
        "count": str(sum(len(e.graph.ops) for e in found.entries)),
        **{k: str(-(-memory.get(k, 0) // 16) * 16) for k in ("main", "fast", "state", "scratch")},
        "ops": "".join(f"    &ek_op_{t},\n" for t in op_types(found)),
        "slots": f"{slots:#x}",
        "narrow": str(int(narrow(found))),
        "w_zero": str(int(zeros(found))),
        "unpack": str(int(unpacks(found))),
        "unpacked": str(few),
        "own": _own(found, board),
        "yours": "".join(f"extern const ek_op_def ek_op_{t};\n" for t in _own_types(found)),
    }
    files: dict[str, str | bytes] = {
        path: (paths.data("native") / path.removeprefix("edgekit/")).read_bytes()
        for path in (*core, *kernels, *_headers(board))
        if path != "edgekit/gen/isas.c"
    }
    files |= own
    core = (*core, *own)
    files["edgekit/gen/isas.c"] = gen.isas_c(board.isa, _covered(board, slots))
    files["edgekit/src/ek_build.h"] = fill("ek_build.h", values)
    files[f"{prefix}.h"] = fill("model.h", {**values, "ends": _ends_c(found, prefix)})
    files[f"{prefix}.c"] = fill("model.c", values)
    files[f"{prefix}.ekp"] = data
    files[f"{prefix}_package.c"] = package_c(data, prefix)
    files[f"{prefix}_package.S"] = _package_s(prefix)
    files["main.c"] = fill("main.c", values)
    files["CMakeLists.txt"] = fill("CMakeLists.txt", {**values, **_lists(core, kernels, " ")})
    files["zephyr/module.yml"] = fill("module.yml", values)
    files["Makefile"] = _makefile(values, board, core, kernels)
    files["port/include/string.h"] = paths.data("runtimes/bare/include/string.h").read_bytes()
    if board.bare:
        files |= {f"port/{f}": paths.data("runtimes", "bare", f).read_bytes() for f in PORT}
        files["port/link.ld"] = toolchain.linker_script(
            board, paths.data("runtimes", "bare", "sections.ld")
        ).read_text(encoding="utf-8")
    return Project(prefix, board, files, core, kernels, data, memory)


def write(made: Project, folder: Path, readme: str = "") -> None:
    """Writes the project and, if given, a README: into a new folder beside it first, then renamed.

    An older project of the same name is replaced; another folder that is not empty is refused.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    if folder.exists() and any(folder.iterdir()) and not (folder / f"{made.name}.ekp").exists():
        raise UsageError(f"{folder} holds other files", todo="give a new folder")
    package.folder(folder.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=".edgekit-", dir=folder.parent) as tmp:
            new = Path(tmp) / "new"
            save(made, new)
            if readme:
                (new / "README.md").write_text(readme, encoding="utf-8")
            if folder.exists():
                folder.replace(Path(tmp) / "old")
            new.replace(folder)
    except OSError as e:
        raise PackageError(f"cannot write: {e.strerror}", where=str(folder),
                           todo="free space or choose another folder") from None  # fmt: skip


def save(made: Project, folder: Path) -> None:
    """Every file but the README, below ``folder``."""
    for path, content in made.files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)


def readme(made: Project, table: str, undefined: tuple[str, ...] = ()) -> str:
    """The README: how to build it, ``table`` of what it needs, rules, what it calls."""
    board, name = made.board, made.name
    run = board.emulator is not None and board.bare
    libc = {"memcpy", "memset", "memmove", "memcmp"}
    helpers = sorted(set(undefined) - libc)
    commands = ["make"] + ([f"make run         # {name}.elf on QEMU"] if run else [])
    if board.bare and not run:
        commands.append(f"make {name}.elf     # the library, main.c and the start-up in port/")
    if not board.bare:
        commands.append(f"make run         # {name}_main on this machine")
    port = "| `port/` | start-up, linker script and console (semihosting) of the board |\n"
    values = {
        "name": name,
        "NAME": name.upper(),
        "board_name": board.name,
        "commands": "\n".join(commands),
        "board_files": port if board.bare else "",
        "table": table,
        "ends": end_lines(made),
        "helpers": f", and of the compiler's helpers {', '.join(helpers)}" if helpers else "",
    }
    return fill("README.md", values)


def end_lines(made: Project) -> str:
    """A line of Markdown for each input and output of entry 0."""
    ends = _ends(contents.read(made.package))
    return "\n".join(f"- {role} {i}: {_end_text(t)}" for role, i, t in ends)


def identifier(name: str) -> str:
    """A C identifier in lower case from any name."""
    text = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()
    return text if text and not text[0].isdigit() else f"model_{text}".rstrip("_")


def slot_mask(session: Session) -> int:
    """Bits of the kernels that the ops of a package use (native/src/kernels.h)."""
    names = slot_names()
    found = session.ops()
    used = {names[o.kernel] for o in found if o.kernel < len(names)}
    used |= {k for o in found for k in ops.get(o.type).kernels}
    used |= {ALSO[n] for n in used if n in ALSO}
    return sum(1 << i for i, n in enumerate(names) if n in used)


def _own_types(found: Contents) -> list[str]:
    return list(dict.fromkeys(t for e in found.entries for t in ops.own(e.graph)))


def _hooks(found: Contents, hooks: Sequence[Path]) -> dict[str, bytes]:
    """The user's C files by their place in the folder."""
    if _own_types(found) and not hooks:
        wanted = " and ".join(f"ek_op_{t}" for t in _own_types(found))
        raise UsageError(
            f"the package has ops of your own, and no C file defines {wanted}",
            todo="with --ops FILE.py, write them into FILE.c beside it",
        )
    try:
        return {f"ops/{h.name}": h.read_bytes() for h in hooks}
    except OSError as e:
        raise UsageError(f"{e.filename} cannot be read: {e.strerror}") from None


def _slots(data: bytes, board: Board) -> int:
    """Bits of the kernels that a package's ops use; ops of the user's own are taken to use none."""
    found = contents.read(data)
    if not _own_types(found):
        with Session(data, isa=[]) as s:
            return slot_mask(s)
    target, slots = pipeline.target_of(board), 0
    for e in found.entries:
        g = _without(e.graph, ops.own(e.graph))
        if g.ops:
            one = package.write([(e.name, g, plan.make(g, target))], meta={})
            with Session(one, isa=[]) as s:
                slots |= slot_mask(s)
    return slots


def _without(g: Graph, types: Sequence[str]) -> Graph:
    """The graph without the ops of these types: what they made is an input, what they read an
    output."""
    kept = [op for op in g.ops if op.type not in types]
    gone = [op for op in g.ops if op.type in types]
    made = {n for op in kept for n in op.outputs}
    read = [*g.outputs, *(n for op in gone for n in op.inputs if n)]
    part = g.copy()
    part.ops = kept
    part.inputs = list(dict.fromkeys([*g.inputs, *(n for op in gone for n in op.outputs)]))
    part.outputs = [n for n in dict.fromkeys(read) if n in made]
    return part


def op_types(found: Contents) -> list[str]:
    """Types of the package's ops, each once, in order."""
    return list(dict.fromkeys(op.type for e in found.entries for op in e.graph.ops))


def narrow(found: Contents) -> bool:
    """Whether the package has weights of 4 or 2 bits, or with scales by group."""
    tensors = (t for e in found.entries for t in e.graph.tensors.values())
    return any(
        v.dtype in ("i4", "i2") or v.layout.encoding & 0xFF == GROUPS
        for t in tensors
        for v in t.variants or ()
    )


def unpacks(found: Contents) -> bool:
    """Whether constants are unpacked when a session opens."""
    return any(s.kind == "UNPK" for s in found.sections)


def zeros(found: Contents) -> bool:
    """Whether weights of the package have a zero point; those of a matmul are activations."""
    every = [op for e in found.entries for op in e.graph.ops]
    return any(op.type == "matmul" or op.attrs.get("w_zero") for op in every)


def _own(found: Contents, board: Board) -> str:
    """Says that no portable kernel reads the package's int8 weights, where the compiler has the ISA
    that they are packed for; "" if there is none."""
    packed = [v for e in found.entries for t in e.graph.tensors.values() for v in t.variants or ()]
    for isa in (i for i in isas().values() if board.bare and i.name in board.isa):
        if all(v.dtype == "i8" and v.layout in (isa.s8, Layout(isa.dw_s8_nr, 1)) for v in packed):
            told = "#define EK_FOREIGN 0 /* weights in the ISA's own layouts alone */"
            return f"#if {isa.when}\n{told}\n#endif\n"
    return ""


def fill(template: str, values: Mapping[str, str], folder: str = "bare/project") -> str:
    """A template of a folder of runtimes/ with every @key@ replaced."""
    text = (paths.data("runtimes") / folder / template).read_text(encoding="utf-8")
    return re.sub(r"@(\w+)@", lambda m: values[m[1]], text)


def package_c(data: bytes, prefix: str) -> str:
    """The package as a C array, 24 bytes a line."""
    rows = (data[i : i + 24] for i in range(0, len(data), 24))
    body = "".join("    " + ",".join(map(str, row)) + ",\n" for row in rows)
    return (
        f'/* {prefix}.ekp. Written by `edgekit build --format c`. */\n#include "{prefix}.h"\n\n'
        f"EK_ALIGNED(64) const uint8_t {prefix}_package[{prefix.upper()}_PACKAGE_BYTES] = {{\n"
        f"{body}}};\n"
    )


def _package_s(prefix: str) -> str:
    return (
        f"/* Instead of {prefix}_package.c: assembles in no time, found by -I of this folder. */\n"
        f'    .section .rodata.{prefix}_package, "a"\n    .balign 64\n'
        f'    .global {prefix}_package\n{prefix}_package:\n    .incbin "{prefix}.ekp"\n'
    )


def _sources(found: Contents, board: Board) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(core, kernels): the runtime's C files below edgekit/ that this model and board need."""
    native = paths.data("native")
    src = [f"edgekit/src/{p.name}" for p in sorted(native.glob("src/*.c"))]
    if not unpacks(found):
        src.remove("edgekit/src/unpack.c")
    own = _own_types(found)
    types = [t for t in op_types(found) if t not in own]
    called = [c for t in types for c in ops.get(t).calls]
    mine = [f"edgekit/ops/{t}.c" for t in dict.fromkeys([*types, *called])]
    kernels = [
        f"edgekit/kernels/{isa}/{p.name}"
        for isa in board.isa
        for p in sorted(native.glob(f"kernels/{isa}/*.c"))
    ]
    if not board.isa:  # then the portable kernels are what runs
        src.remove("edgekit/src/portable.c")
        kernels.append("edgekit/src/portable.c")
    return (*src, "edgekit/gen/isas.c", *mine), tuple(kernels)


def _covered(board: Board, used: int) -> dict[str, str]:
    """ISA -> a better one of a bare board whose kernels fill every used slot of it: both are there
    or not when the compiler runs, and the package has the layout of the better one alone."""
    names = {n for i, n in enumerate(slot_names()) if used >> i & 1}
    slots = {isa: have & names for isa, have in isa_slots().items()}
    ranked = [n for n in slots if n in board.isa] if board.bare else []
    return {
        low: high
        for i, low in enumerate(ranked)
        for high in ranked[i + 1 :]
        if slots[low] <= slots[high]
    }


def _headers(board: Board) -> list[str]:
    native = paths.data("native")
    found = [*native.glob("src/*.h"), native / "include" / "edgekit.h", *native.glob("kernels/*.h")]
    found += [native / "gen" / f for f in ("attrs.h", "isas.h", "oplist.h")]
    known = layout.isas()
    found += [p for isa in board.isa if isa in known for p in native.glob(f"kernels/{isa}/*.h")]
    return [f"edgekit/{p.relative_to(native).as_posix()}" for p in sorted(found)]


def _lists(core: tuple[str, ...], kernels: tuple[str, ...], join: str) -> dict[str, str]:
    return {"core": join.join(core), "kernels": join.join(kernels)}


def _makefile(
    values: dict[str, str], board: Board, core: tuple[str, ...], kernels: tuple[str, ...]
) -> str:
    name, target = values["name"], board.target
    gcc = [*target.gcc_flags, *(["-ffreestanding"] if board.bare else [])]
    zig = f"-target {target.zig}" + (f" -mcpu={target.zig_cpu}" if target.zig_cpu else "")
    lines = {
        "board": board.id,
        "core_name": board.core,
        "goal": "run        on QEMU" if board.bare and board.emulator else f"{name}.elf",
        "cc": f"{target.gcc}gcc" if target.gcc else "cc",
        "ar": f"{target.gcc}ar" if target.gcc else "ar",
        "cpu": " ".join(gcc),
        "zig": zig if target.zig != "native" else "",
        # a freestanding compiler brings no string.h
        "system": "-isystem port/include " if board.bare else "",
        "program": _program(name, board),
    }
    if not board.bare:
        lines["goal"] = "run        main.c on this machine"
    return fill("Makefile", {**values, **_lists(core, kernels, " "), **lines})


def _program(name: str, board: Board) -> str:
    """Make rules for main.c: firmware on bare boards, a program elsewhere."""
    if not board.bare:
        return (
            f"{name}_main: $(MAIN) lib{name}.a\n\t$(CC) $(FLAGS) -Os $^ -o $@\n"
            f"run: {name}_main\n\t./{name}_main\n"
        )
    mhz = (board.clock_mhz or 0) * 1_000_000
    text = (
        f"# zig keeps its helpers by themselves; GCC would add newlib without -nostdlib\n"
        "LINK = -Wl,--gc-sections -Wl,-T,port/link.ld\n"
        "LIBS = $(if $(findstring zig,$(CC)),-nostartfiles,-nostdlib -lgcc -Wl,-Map=$@.map)\n"
        "PORT = port/startup.c port/semihost.c port/memory.c\n"
        f"DEFINES = -DEK_PORT -DEK_PORT_NO_IRQS -DEK_CLOCK_HZ={mhz}u -Iport\n"
        f"{name}.elf: $(MAIN) $(PORT) lib{name}.a port/link.ld\n"
        f"\t$(CC) $(FLAGS) -Os $(DEFINES) $(MAIN) $(PORT) lib{name}.a $(LINK) $(LIBS) -o $@\n"
    )
    if board.emulator is not None:
        args = " ".join((board.emulator.program, *board.emulator.args))
        text += (
            f"run: {name}.elf\n\t{args} -serial null -semihosting-config "
            "enable=on,target=native -kernel $<\n"
        )
    return text


def _ends(found: Contents) -> list[tuple[str, int, Tensor]]:
    g = found.entries[0].graph
    return [
        (role, i, g.tensors[n])
        for role, names in (("input", g.inputs), ("output", g.outputs))
        for i, n in enumerate(names)
    ]


def _end_text(t: Tensor) -> str:
    shape = ", ".join(map(str, t.shape))
    text = f"`{t.name}` {C_TYPES.get(t.dtype, t.dtype)} ({shape})"
    if t.quant is not None and t.dtype != "f32":
        text += f", real = {float(t.quant.scale):.9g} * (value - {int(t.quant.zero)})"
    return text


def _ends_c(found: Contents, prefix: str) -> str:
    """Macros of entry 0's inputs and outputs: elements, dims, scale and zero point."""
    lines = []
    for role, i, t in _ends(found):
        head = f"#define {prefix.upper()}_{role.upper()}{i}"
        lines.append(f"/* {role} {i}: {_end_text(t)} */".replace("`", ""))
        lines.append(f"{head}_ELEMENTS {int(np.prod(t.shape))}u")
        lines.append(f"{head}_DIMS {{ {', '.join(map(str, t.shape))} }}")
        if t.quant is not None and t.dtype != "f32":
            scale = f"{float(t.quant.scale):.9g}"
            lines.append(f"{head}_SCALE {scale if set('.e') & set(scale) else scale + '.0'}f")
            lines.append(f"{head}_ZERO ({int(t.quant.zero)})")
    return "\n".join(lines) + "\n"

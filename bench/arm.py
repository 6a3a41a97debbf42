"""Guest instructions and modelled cycles of EdgeKit on emulated Arm cores; writes arm.json.

    python bench/arm.py [--nets KWS,AD] [--profiles FOLDER] [--gate]

Counted by bench/qemu/ekcount.c between the marks around ek_run: exact, the same every time.  Cycles
are models (cycles.py), never milliseconds.  --gate writes counts.json, what tests/test_counts.py
holds the tree to.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cycles
import numpy as np
import profiles

from edgekit import boards, contents, emulate, explain, pipeline, toolchain
from edgekit.ir import Graph, QuantSpec, Tensor

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data" / "models"
OUT = HERE / "results" / "arm.json"
COUNTS = HERE / "counts.json"
TINY = {
    "AD": "ad01_int8.tflite",
    "KWS": "kws_ref_model.tflite",
    "IC": "pretrainedResnet_quant.tflite",
    "VWW": "vww_96_int8.tflite",
}


KERNELS = {"GEMM 256x256x256 int8": (256, 256, 256), "GEMV 4096x1024 int8": (1, 1024, 4096)}


@dataclass(frozen=True)
class Core:
    """Where a package is counted: board, CPU of the emulator ("" its own), models of cycles.

    `isa`: what the package is packed for, None for all that the board has.
    """

    name: str
    board: str
    cpu: str
    models: tuple[str, ...]
    isa: tuple[str, ...] | None = None


CORES = (
    Core("a72 neon", "qemu_arm64", "cortex-a72", ("neoverse-n1",), ("neon",)),
    Core("n1 dotprod", "qemu_arm64", "neoverse-n1", ("neoverse-n1",), ("neon", "dotprod")),
    Core("max i8mm", "qemu_arm64", "max,sme=off", ("neoverse-n2",)),
    Core("Cortex-M4", "qemu_mps2_an386", "", ("m4",)),
    Core("Cortex-M55", "qemu_mps3_an547", "", ("cortex-m55",)),
)
GATE = (
    ("AD", "Cortex-M4"),
    ("AD", "Cortex-M55"),
    ("AD", "n1 dotprod"),
    ("KWS", "n1 dotprod"),
    ("KWS", "max i8mm"),
    ("KWS", "Cortex-M4"),
    ("KWS", "Cortex-M55"),
)


def core(name: str) -> Core:
    """The core of that name."""
    return next(c for c in CORES if c.name == name)


def count(
    data: bytes, where: Core, *, profile: bool = True, keep: Path | None = None
) -> dict[str, Any]:
    """Instructions of one inference of a package, by op too; cycles by model, memory in bytes.

    `keep`: where the profile is left for bench/profiles.py.
    """
    board = boards.load(where.board)
    read = contents.read(data)
    graph = read.entries[0].graph
    rng = np.random.default_rng(1)
    given = b"".join(_made(graph.tensors[n], rng) for n in graph.inputs)
    with tempfile.TemporaryDirectory() as folder:
        package, path = Path(folder) / "m.ekp", keep or Path(folder) / "m.profile"
        package.write_bytes(data)
        ran = emulate.run_package(
            board, package, [given], count=True, profile=path if profile else None, cpu=where.cpu
        )
        found: dict[str, Any] = {"instructions": ran.instructions[0]}
        if profile:
            executed = profiles.read(path)
            found["profiled"] = executed.instructions
            found["cycles"] = {m: round(cycles.modelled(executed, m)) for m in where.models}
            found["functions"] = _functions(executed)
    costs = explain.explain(data, read, board)
    found["macs"] = costs.macs
    found["memory"] = sum(ran.memory_bytes)
    per_op = zip(ran.ops, ran.op_instructions[0], costs.ops)
    found["ops"] = [[o.name, o.type, o.isa, n, c.macs] for o, n, c in per_op]
    return found


def _made(tensor: Any, rng: np.random.Generator) -> bytes:
    """Bytes of an input: noise."""
    if tensor.dtype == "f32":
        return bytes(rng.random(tensor.shape, dtype=np.float32))
    return bytes(rng.integers(0, 128, tensor.shape).astype(np.int8))


def _functions(profile: profiles.Profile, top: int = 6) -> list[tuple[str, int]]:
    """Instructions by function, the largest first; none where the program has no symbols."""
    by: dict[str, int] = {}
    for b in profile.blocks:
        by[b.symbol] = by.get(b.symbol, 0) + b.count * len(b.code)
    return sorted(((k, v) for k, v in by.items() if k != "?"), key=lambda x: -x[1])[:top]


def tiny(file: str, where: Core) -> bytes:
    """Package of a model of ../shared/data."""
    return pipeline.build(DATA / file, board=where.board, isa=where.isa).data


def linear(m: int, k: int, n: int) -> Graph:
    """(m, k) int8 times (n, k) int8 with requantization: a GEMM, or with m = 1 a GEMV."""
    rng = np.random.default_rng(2)
    g = Graph("linear", inputs=["x"], outputs=["y"])
    g.tensors["x"] = Tensor("x", (m, k), "i8", quant=QuantSpec.per_tensor(0.05, 11))
    weights = rng.integers(-127, 128, (n, k)).astype(np.int8)
    scales = QuantSpec.per_axis(rng.uniform(0.001, 0.02, n), 0)
    g.tensors["w"] = Tensor("w", (n, k), "i8", weights, scales)
    bias = rng.integers(-3000, 3000, n).astype(np.int32)
    g.tensors["b"] = Tensor("b", (n,), "i32", bias)
    y = QuantSpec.per_tensor(0.3, -8)
    g.emit("linear", ["x", "w", "b"], {}, outputs=["y"], quant=y, dtype="i8")
    return g


def packages(where: Core, wanted: list[str]) -> dict[str, Any]:
    """name -> function that builds the package: the MLPerf Tiny models, on Linux MobileNetV2."""
    found: dict[str, Any] = {}
    for name, file in TINY.items():
        if (DATA / file).exists() and (not wanted or name in wanted):
            found[name] = lambda f=file: tiny(f, where)
    for name, sizes in KERNELS.items():
        if where.board == "qemu_arm64" and (not wanted or name in wanted):
            found[name] = lambda s=sizes: (
                pipeline.build(linear(*s), board=where.board, isa=where.isa).data
            )
    if where.board == "qemu_arm64" and (not wanted or "MobileNetV2" in wanted):
        import nets

        net = next(n for n in nets.nets() if n.name == "MobileNetV2")
        for precision in ("int8", "float32"):
            found[f"MobileNetV2 {precision}"] = lambda p=precision: nets.package(
                net, p, where.board, where.isa
            )[0]
    return found


def gate() -> dict[str, Any]:
    """What counts.json holds: the compiler, and instructions of the pairs of GATE."""
    found = {}
    for name, where in GATE:
        data = tiny(TINY[name], core(where))
        found[f"{name} {where}"] = count(data, core(where), profile=False)["instructions"]
    return {"compiler": compiler(), "instructions": found}


def compiler() -> str:
    """The compiler that all boards of GATE use: counts of another one differ."""
    versions = {toolchain.compiler(boards.load(core(where).board)).version for _, where in GATE}
    return ", ".join(sorted(versions))


def main() -> int:
    """Counts everything and writes the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--nets", default="", help="names, by comma; default all")
    parser.add_argument("--gate", action="store_true", help="write counts.json alone")
    parser.add_argument("--profiles", type=Path, help="folder to leave the profiles in")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    if args.gate:
        COUNTS.write_text(json.dumps(gate(), indent=1) + "\n")
        return 0
    from run import machine, write

    facts: dict[str, Any] = {"machine": machine(), "results": []}
    for where in CORES:
        for name, build in packages(where, [n for n in args.nets.split(",") if n]).items():
            keep = None
            if args.profiles:
                args.profiles.mkdir(parents=True, exist_ok=True)
                keep = args.profiles / f"{name} {where.name}.profile".replace(" ", "-")
            found = count(build(), where, keep=keep)
            facts["results"].append({"net": name, "core": where.name, **found})
            told = "  ".join(f"{m} {c:,} cycles" for m, c in found["cycles"].items())
            per = found["macs"] / found["instructions"]
            head = f"{name:20} {where.name:11} {found['instructions']:12,}"
            print(f"{head}  {per:6.2f} MAC each  {told}")
            sys.stdout.flush()
    write(args.out, facts)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

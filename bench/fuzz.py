"""Mutates packages under ASan and UBSan: `make fuzz`, and 5,000 of them in `make test`.

    python bench/fuzz.py [--mutants N] [--every] [--ops|--array] [--seed S] [--jobs N] [--json F]

Three small real packages from the data outside the repository, or three of our own where that is
absent.  Every mutant must be refused with a sentence or run safely.  --array: the packages as
arrays of the folders that `edgekit build --format c` writes, with only their ops.  A campaign of
many mutants is cut into parts of 50,000; those done for the same program are not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgekit import boards, embed, ops, package, paths, pipeline, plan
from edgekit.errors import ToolchainError
from edgekit.passes.lower import lower

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("EDGEKIT_SHARED_DATA", ROOT.parent / "shared" / "data"))
REAL = ("kws_ref_model.tflite", "ad01_int8.tflite", "mnist_valid_f.tflite")
PART = 50_000  # mutants of one process
RUN_MACS = 100_000  # a net of this size is run for every mutant, a larger one for fewer of them
FLAGS = ["-std=c11", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@dataclass(frozen=True)
class Subject:
    """A package to mutate and how many multiply-accumulates one run of it has.

    `project`: of the package as an array; then its sources are fuzzed, not the whole runtime.
    """

    name: str
    data: bytes
    macs: int
    project: embed.Project | None = None

    @property
    def run_each(self) -> int:
        return max(1, round(self.macs / RUN_MACS))


@dataclass(frozen=True)
class Result:
    """What became of the mutants of one package: counts, `opens` and `runs` by status code."""

    name: str
    bytes: int
    macs: int
    mutants: int
    past: int
    opened: int
    ran: int
    opens: dict[str, int]
    runs: dict[str, int]
    seconds: float


def subjects() -> list[Subject]:
    """Three small real packages, or three of our own where the data is absent."""
    if all((SHARED / "models" / m).is_file() for m in REAL):
        built = [pipeline.build(SHARED / "models" / m) for m in REAL]
        return [Subject(m, b.data, pipeline.macs(b.graph)) for m, b in zip(REAL, built)]
    sys.path.insert(0, str(ROOT / "tests"))
    import package_cases

    net = pipeline.build(package_cases.conv_net())
    macs = pipeline.macs(net.graph)
    return [
        Subject("conv_net", net.data, macs),
        Subject("int8_net", package_cases.int8_net(), macs),
        Subject("two_entries", package_cases.two_entries(), 0),
    ]


def array_subjects() -> list[Subject]:
    """The packages of `subjects` as C projects for this machine."""
    host, found = boards.load("host"), []
    for s in subjects():
        made = embed.project(s.data, host, Path(s.name).stem)
        found.append(replace(s, data=made.package, project=made))
    return found


def op_subjects(samples: int = 6) -> list[Subject]:
    """A package per op: a few of its samples, spread over all, as entries of their own."""
    target = pipeline.target_of(boards.load("host"))
    found = []
    for name, definition in ops.table().items():
        graphs = [g for _, g, _ in definition.samples()]
        graphs = graphs[:: -(-len(graphs) // samples)]
        entries, goldens = [], []
        for i, g in enumerate(graphs):
            lowered = lower(g, target)
            entries.append((f"{name}{i}", lowered, plan.make(lowered, target)))
            goldens += [replace(v, entry=i) for v in pipeline.make_goldens(g, target)]
        data = package.write(entries, meta={}, goldens=goldens)
        found.append(Subject(name, data, sum(map(pipeline.macs, graphs))))
    return found


def compiler() -> str:
    """A C compiler with sanitizers; ToolchainError where there is none (zig brings no ASan)."""
    for name in (os.environ.get("CC"), "gcc", "clang"):
        if not name:
            continue
        probe = [name, *SANITIZE, "-x", "c", "-", "-o", os.devnull]
        try:
            done = subprocess.run(
                probe, input="int main(void){return 0;}", capture_output=True, text=True
            )
        except OSError:
            continue
        if done.returncode == 0:
            return name
    raise ToolchainError("no C compiler with AddressSanitizer", todo="install gcc or clang")


def executable(optimize: str = "-O1", made: embed.Project | None = None) -> Path:
    """The mutator with the whole runtime or a project's files, built once per content."""
    flags = [optimize, *FLAGS, *SANITIZE]
    native = paths.data("native")
    cc = compiler()
    digest = hashlib.sha256(" ".join([cc, *flags]).encode())
    main = ROOT / "tests" / "fuzz_package.c"
    digest.update(main.read_bytes())
    with tempfile.TemporaryDirectory() as tmp:
        if made is None:
            folders = ("src/*.c", "ops/*.c", "gen/*.c", "kernels/*/*.c")
            sources = [p for f in folders for p in sorted(native.glob(f))]
            headers = [p for f in folders for p in sorted(native.glob(f.replace(".c", ".h")))]
            headers += [native / "include" / "edgekit.h", *sorted(native.glob("kernels/*.h"))]
            for p in (*sources, *headers):
                digest.update(p.read_bytes())
            includes = [f"-I{native / d}" for d in ("include", "src", "gen")]
        else:
            for path, content in sorted(made.files.items()):
                digest.update(path.encode())
                digest.update(content.encode() if isinstance(content, str) else content)
            embed.save(made, Path(tmp))
            code = [*made.core, *made.kernels, f"{made.name}.c", f"{made.name}_package.c"]
            sources = [Path(tmp) / f for f in code]
            parts = ("", "edgekit/include", "edgekit/src", "edgekit/gen")
            includes = [f"-I{Path(tmp) / d}" for d in parts]
            flags += ["-DEK_SENTENCES", f'-DFUZZ_HEADER="{made.name}.h"']
            flags += [f"-DFUZZ_{k}={made.name}_{k.lower()}" for k in ("PACKAGE", "CONFIG")]
        program = paths.cache("fuzz") / f"fuzz_package-{digest.hexdigest()[:20]}"
        if not program.exists():
            part = program.with_name(f"{program.name}.{os.getpid()}")
            done = subprocess.run(
                [cc, *flags, *includes, *map(str, sources), str(main), "-o", str(part)],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise ToolchainError(f"the fuzzer does not build: {done.stderr[-2000:]}")
            part.replace(program)
    return program


def mutate(
    subject: Subject,
    count: int,
    seed: int,
    every: bool = False,
    limit_s: float | None = None,
    optimize: str = "-O0",
) -> Result:
    """Runs `count` seeded mutants; ToolchainError with the report where one crashes or hangs.

    optimize: "-O1" takes three times as long to build and pays off in a long campaign.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.ekp"
        path.write_bytes(subject.data)
        command = [
            str(executable(optimize, subject.project)),
            "-" if subject.project else str(path),
            str(count),
            str(seed),
            str(subject.run_each),
        ]
        begin = time.monotonic()
        done = subprocess.run(
            [*command, *(["--every"] if every else [])],
            capture_output=True,
            text=True,
            timeout=limit_s,
        )
        seconds = time.monotonic() - begin
    if done.returncode:
        raise ToolchainError(
            f"{subject.name}: seed {seed}: exit {done.returncode}\n{done.stderr[-4000:]}"
        )
    words = done.stdout.split()
    pairs = dict(zip(words[::2], map(int, words[1::2])))
    by: dict[str, dict[str, int]] = {"open": {}, "run": {}}
    for key, value in pairs.items():
        if ":" in key:
            kind, status = key.split(":")
            by[kind][status] = value
    return Result(
        name=subject.name,
        bytes=len(subject.data),
        macs=subject.macs,
        **{k: pairs[k] for k in ("mutants", "past", "opened", "ran")},
        opens=by["open"],
        runs=by["run"],
        seconds=round(seconds, 1),
    )


def campaign(
    mutants: int,
    seed: int = 1,
    every: bool = False,
    found: list[Subject] | None = None,
    jobs: int = 1,
) -> list[Result]:
    """`mutants` over all subjects together; `every`: each structural byte of them besides."""
    found = found or subjects()
    each = -(-mutants // len(found))
    parts: list[tuple[Subject, int, int, bool]] = []
    for i, s in enumerate(found):
        counts = [min(PART, each - at) for at in range(0, each, PART)] or [0]
        parts += [(s, n, seed + i + 1000 * k, every and not k) for k, n in enumerate(counts)]
        executable("-O1", s.project)
    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda p: kept(*p), parts))
    return [together([r for r in results if r.name == s.name]) for s in found]


def kept(subject: Subject, count: int, seed: int, every: bool) -> Result:
    """A part of a campaign; when it was done before by the same program, what it gave then."""
    key = hashlib.sha256(subject.data + executable("-O1", subject.project).name.encode())
    key.update(f"{count} {seed} {every} {subject.run_each}".encode())
    path = paths.cache("fuzz", "results") / f"{key.hexdigest()[:20]}.json"
    if not path.exists():
        result = mutate(subject, count, seed, every, optimize="-O1")
        part = path.with_name(f"{path.name}.{os.getpid()}")
        part.write_text(json.dumps(asdict(result)))
        part.replace(path)
    return Result(**json.loads(path.read_text()))


def together(parts: list[Result]) -> Result:
    """One result of the parts of one subject."""
    totals = {k: sum(getattr(r, k) for r in parts) for k in ("mutants", "past", "opened", "ran")}
    counts = {}
    for k in ("opens", "runs"):
        keys = dict.fromkeys(code for r in parts for code in getattr(r, k))
        counts[k] = {c: sum(getattr(r, k).get(c, 0) for r in parts) for c in keys}
    seconds = round(sum(r.seconds for r in parts), 1)
    return replace(parts[0], **totals, **counts, seconds=seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mutants", type=int, default=200_000)
    parser.add_argument(
        "--every", action="store_true", help="each structural byte, 1 %% of the weights"
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--ops", action="store_true", help="packages of op samples instead")
    kind.add_argument("--array", action="store_true", help="folders of `build --format c` instead")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (1)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    try:
        found = op_subjects() if args.ops else array_subjects() if args.array else None
        results = campaign(args.mutants, args.seed, args.every, found, args.jobs)
    except ToolchainError as e:
        print(e, file=sys.stderr)
        return 1
    for r in results:
        print(
            f"{r.name}: {r.bytes} B, {r.mutants} mutants, {r.past / r.mutants:.1%} past the CRC, "
            f"{r.opened} opened, {r.ran} run, {r.seconds:.0f} s; "
            f"ek_open by status {r.opens}, ek_run, self-test and ek_verify {r.runs}"
        )
    if args.json:
        args.json.write_text(json.dumps([asdict(r) for r in results], indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

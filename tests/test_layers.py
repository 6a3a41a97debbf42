"""The layers of DESIGN.md section 3: who may import whom."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT
from imports import Import, imports, modules

# lowest first; a module or folder imports only from the groups before its own
LAYERS = tuple(
    set(names.split())
    for names in (
        "edgekit errors wire_codec",
        "paths wire",
        "ir qmath compact boards link wire_gen mfcc",
        "layout remote",
        "ops toolchain agent",
        "torchnet cost",
        "frontends passes compress train plan evaluate data adapters emulate gen hub",
        "package patchwise shrink measure devices remote_bench console",
        "contents signing pipeline",
        "explain check",
        "embed",
        "layers show report recipe",
        "search",
        "commands",
        "cli",
        "__main__",
    )
)
# inside a function: Graph.emit asks the op for its shape, the table of messages writes its C
LATE = {("ir", "ops"), ("wire", "wire_gen")}
HEAVY = [
    "torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "tflite",
    "ai_edge_litert",
    "serial",
    "PIL",
    "sklearn",
    "matplotlib",
    "ziglang",
    "gguf",
    "tokenizers",
    "duckdb",
]
DEVICE = {"agent", "wire", "wire_codec", "link", "errors"}  # files of the runtime wheel


def part(module: str) -> str:
    """File or folder of edgekit/ a module belongs to."""
    names = module.split(".")
    return names[1] if len(names) > 1 else names[0]


@pytest.fixture(scope="module")
def found() -> list[Import]:
    return imports(ROOT / "edgekit")


def test_every_module_has_a_layer() -> None:
    known = set().union(*LAYERS)
    missing = {part(m) for m in modules(ROOT / "edgekit")} - known
    assert not missing, f"give {missing} a layer here and in DESIGN.md"


def test_modules_import_only_from_below(found: list[Import]) -> None:
    rank = {name: i for i, names in enumerate(LAYERS) for name in names}
    wrong = set()
    for i in found:
        if i.imported.split(".")[0] != "edgekit":
            continue
        a, b = part(i.importer), part(i.imported)
        if a != b and rank[b] >= rank[a] and not (i.late and (a, b) in LATE):
            wrong.add(f"{i.importer} -> {i.imported}")
    assert not wrong


def test_front_ends_do_not_know_each_other(found: list[Import]) -> None:
    """A front end is one file, or that and parts named after it."""
    for i in found:
        if part(i.importer) == part(i.imported) == "frontends":
            own = i.imported.startswith(f"{i.importer}_")
            assert (
                own
                or i.importer == "edgekit.frontends"
                or i.imported
                in (
                    "edgekit.frontends.onnx",  # torch enters through torch.onnx.export
                )
            ), i


def test_heavy_packages_are_imported_inside_functions(found: list[Import]) -> None:
    wrong = [i for i in found if not i.late and i.imported.split(".")[0] in HEAVY]
    assert not wrong


def test_files_of_the_runtime_wheel_need_no_compiler(found: list[Import]) -> None:
    for i in found:
        if part(i.importer) in DEVICE and i.imported.startswith("edgekit.") and not i.late:
            assert part(i.imported) in DEVICE, i


def test_the_runtime_knows_no_edgekit() -> None:
    package = ROOT / "runtimes" / "python" / "edgekit_runtime"
    for i in imports(package):
        assert i.imported.split(".")[0] in {"edgekit_runtime", "numpy", *sys.stdlib_module_names}, i


def test_help_is_instant() -> None:
    """No heavy package is loaded by `edgekit --help`."""
    code = (
        "import sys\nfrom edgekit import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        f"print('LOADED', sorted(set(sys.modules) & set({[*HEAVY, 'numpy']!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"

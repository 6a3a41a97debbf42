"""What is generated is up to date; every op, ISA and code is where a reader looks for it."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT

from edgekit import gen, layout, ops

NATIVE = ROOT / "native"
CORE = ("src", "ops", "kernels", "gen")
FREESTANDING = {
    "cpuid.h",
    "string.h",
    "stdint.h",
    "stddef.h",
    "immintrin.h",
    "arm_neon.h",
    "arm_mve.h",
    "arm_acle.h",
}


@pytest.mark.parametrize("name", sorted(gen.sources()))
def test_generated_files_are_up_to_date(name: str) -> None:
    want = gen.sources()[name]
    assert (ROOT / name).read_text(encoding="utf-8") == want, "run python -m edgekit.gen"


def test_gen_check_says_what_is_stale(capsys: pytest.CaptureFixture[str]) -> None:
    assert gen.main(["--check"]) == 0
    assert "up to date" in capsys.readouterr().out


def test_every_op_is_one_python_file_and_one_c_file() -> None:
    c_files = {p.stem for p in (NATIVE / "ops").glob("*.c")}
    assert c_files == set(ops.table())
    for name in ops.table():
        assert (ROOT / "edgekit" / "ops" / f"{name}.py").is_file()


def test_op_codes_are_the_ones_of_the_format() -> None:
    """Codes never change: the table of native/FORMAT.md names them."""
    section = (
        (NATIVE / "FORMAT.md")
        .read_text(encoding="utf-8")
        .split("**Codes.**")[1]
        .split("**Attributes.**")[0]
    )
    documented = {name: int(code) for code, name in re.findall(r"\| (\d+) \| (\w+) ", section)}
    assert {n: d.code for n, d in ops.table().items()}.items() <= documented.items()
    assert len(set(documented.values())) == len(documented)


def test_format_md_names_every_section_and_record_size() -> None:
    text = (NATIVE / "FORMAT.md").read_text(encoding="utf-8")
    header = (NATIVE / "src" / "format.h").read_text(encoding="utf-8")
    for four in re.findall(r"EK_FOURCC\('(.)', '(.)', '(.)', '(.)'\)", header):
        assert f"`{''.join(four)}`" in text
    for record, size in re.findall(r"sizeof\(ek_(\w+)\) == (\d+)", header):
        assert f"{size} bytes" in text, record


def test_every_isa_is_one_folder_of_guarded_files() -> None:
    for name in layout.isas():
        folder = NATIVE / "kernels" / name
        sources = sorted(folder.glob("*.c"))
        assert sources, name
        assert {p.suffix for p in folder.iterdir()} <= {".c", ".h", ".toml"}
        for path in sources:
            text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S).strip()
            assert text.startswith("#if"), f"{path}: the whole file must be guarded"
            assert text.endswith("#endif"), path
        assert any(f"void ek_kernels_{name}(" in p.read_text(encoding="utf-8") for p in sources)


@pytest.mark.parametrize("folder", CORE)
def test_the_core_is_freestanding(folder: str) -> None:
    for path in sorted((NATIVE / folder).rglob("*.[ch]")):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S)
        assert set(re.findall(r"#include <([\w./]+)>", text)) <= FREESTANDING, path
        assert not re.search(
            r"\b(malloc|calloc|realloc|free|printf|abort|exit|errno)\s*\(", text
        ), path
        for name, body in re.findall(
            r"^static (?!inline|const)(?:[\w ]+?)(\w+)(\[[^;={(]*)?\s*[;=]", text, re.M
        ):
            raise AssertionError(f"{path}: {name}{body} is writable and lives forever")

"""The package of every release, by tests/compat/make.py, still loads and gives what it gave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime import Session, cpu_isas, verify

from edgekit import contents

FOLDER = Path(__file__).parent / "compat"
RELEASES = sorted(p.stem for p in FOLDER.glob("*.ekp"))
ISAS = [[], *([i] for i in cpu_isas()), None]


def test_the_first_release_is_kept_and_small() -> None:
    assert "0.1.0" in RELEASES
    assert all((FOLDER / f"{r}.ekp").stat().st_size < 20_000 for r in RELEASES)
    assert all((FOLDER / f"{r}.npz").is_file() for r in RELEASES)


@pytest.mark.parametrize("isa", ISAS, ids=str)
@pytest.mark.parametrize("release", RELEASES)
def test_old_packages_give_the_same_bytes(release: str, isa: list[str] | None) -> None:
    path = FOLDER / f"{release}.ekp"
    verify(path)
    with np.load(FOLDER / f"{release}.npz") as z, Session(path, isa=isa) as s:
        assert s.selftest() == len(s.entries)
        for entry in s.entries:
            got = next(iter(s.run(z[f"{entry}.in"], entry).values()))
            want = z[f"{entry}.out"]
            assert got.dtype == want.dtype
            if want.dtype == np.int8:
                assert np.array_equal(got, want), entry
            else:
                assert np.max(np.abs(got - want)) <= 1e-5 * np.max(np.abs(want)), entry


@pytest.mark.parametrize("release", RELEASES)
def test_the_host_reads_old_packages(release: str) -> None:
    read = contents.read((FOLDER / f"{release}.ekp").read_bytes())
    assert read.version.startswith("1.") and len(read.entries) == read.goldens
    assert all(s.intact for s in read.sections)

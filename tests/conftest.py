"""What all tests share: data that lies outside the repository, and tools that may be missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def need(missing: str) -> None:
    """Skips the test for the reason ``missing``; in CI, where nothing may be missing, fails it."""
    if not missing:
        return
    if os.environ.get("EDGEKIT_REQUIRE_EMULATORS") == "1":
        pytest.fail(f"EDGEKIT_REQUIRE_EMULATORS=1, but {missing}")
    pytest.skip(missing)


def need_program(name: str, package: str) -> str:
    """Path of a program, or a skip naming the Debian package that holds it."""
    found = shutil.which(name)
    need("" if found else f"{name} is not installed (apt-get install {package})")
    return str(found)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Models and sets for development, outside the repository; skips where they are absent."""
    path = Path(os.environ.get("EDGEKIT_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"{path} is absent")
    return path

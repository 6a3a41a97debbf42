"""Figures that a closing note may quote: a registry of small functions, one per figure."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("EDGEKIT_SHARED_DATA", ROOT.parent / "shared" / "data"))
MODELS, SETS = SHARED / "models", SHARED / "sets"
sys.path.insert(0, str(ROOT / "tests"))  # op cases and torch nets are shared with the tests


class Skip(Exception):
    """The figure cannot be made here, with the reason."""


@dataclass(frozen=True)
class Outcome:
    """What was found, and whether it meets the bar."""

    figure: Any
    holds: bool


@dataclass(frozen=True)
class Item:
    """A figure: its dotted name, the bar it must meet in words, and the function that makes it."""

    name: str
    bar: str
    run: Callable[[], Outcome]


ITEMS: dict[str, Item] = {}


def item(name: str, bar: str) -> Callable[[Callable[[], Outcome]], Callable[[], Outcome]]:
    """Registers a function of no arguments as the figure `name`."""

    def add(run: Callable[[], Outcome]) -> Callable[[], Outcome]:
        if name in ITEMS:
            raise ValueError(f"two figures are named {name!r}")
        ITEMS[name] = Item(name, bar, run)
        return run

    return add


def model(name: str) -> Path:
    """Path of a model outside the repository; Skip where it is absent."""
    path = MODELS / name
    if not path.is_file():
        raise Skip(f"{path} is absent")
    return path


def points(x: float) -> float:
    """A share as percentage points, two digits."""
    return round(100 * x, 2)

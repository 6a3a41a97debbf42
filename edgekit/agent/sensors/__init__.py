"""Sensors of a Linux device, read from sysfs and procfs below a root that is a parameter.

A sensor is one module here with ``find(root) -> list[Sensor]``; adding a file adds a sensor.  A
sensor that exists but cannot be read is returned as unmeasurable with the reason and the way out.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ... import wire


@dataclass(frozen=True)
class Channel:
    """What a sensor tells; ``reason`` says how it measures, or why it cannot."""

    kind: wire.Kind
    unit: wire.Unit
    quality: wire.Quality
    name: str
    site: str
    reason: str


@dataclass(frozen=True)
class Value:
    """A reading in the channel's unit; ``counter``: a monotonic total, unwrapped."""

    value: int
    counter: bool = False


@dataclass(frozen=True)
class Lost:
    """No reading, and why."""

    reason: wire.GapReason


class Sensor(Protocol):
    """One channel."""

    @property
    def channel(self) -> Channel:
        """What is measured."""

    def read(self) -> Value | Lost:
        """The value now."""


@dataclass(frozen=True)
class FileSensor:
    """A file with one integer, times ``scale`` = (multiply, divide)."""

    channel: Channel
    path: Path
    scale: tuple[int, int] = (1, 1)

    def read(self) -> Value | Lost:
        number = read_int(self.path)
        if number is None:
            return Lost(wire.GapReason.READ_FAILED)
        return Value(number * self.scale[0] // self.scale[1])


@dataclass(frozen=True)
class Unmeasurable:
    """A channel that only states its reason."""

    channel: Channel

    def read(self) -> Value | Lost:
        return Lost(wire.GapReason.READ_FAILED)


def unmeasurable(kind: wire.Kind, unit: wire.Unit, name: str, site: str, reason: str) -> Sensor:
    """A channel that cannot be read here, with the reason."""
    return Unmeasurable(Channel(kind, unit, wire.Quality.UNMEASURABLE, name, site, reason))


def discover(root: str | Path = "/") -> list[Sensor]:
    """Every sensor below `root`; power is always answered for, if only by a reason."""
    found: list[Sensor] = []
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        found += importlib.import_module(f"{__name__}.{module}").find(Path(root))
    power = (wire.Kind.POWER, wire.Kind.ENERGY)
    if not any(s.channel.kind in power for s in found):
        reason = "no hwmon power channel, no RAPL zone, no power_supply with power or current"
        found.append(unmeasurable(wire.Kind.POWER, wire.Unit.UW, "power", "board", reason))
    return found


def emulated() -> list[Sensor]:
    """What an emulated device can tell: nothing, and why."""
    reason = "emulated: there is no power to measure"
    return [unmeasurable(wire.Kind.POWER, wire.Unit.UW, "power", "board", reason)]


def read_text(path: Path) -> str | None:
    """The file's text without blanks around it; None if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """The integer in a file; None if there is none."""
    try:
        return int(read_text(path) or "")
    except ValueError:
        return None


def denied(path: Path) -> bool:
    """Whether the file is there but may not be read by us."""
    try:
        path.read_bytes()
    except PermissionError:
        return True
    except OSError:
        return False
    return False

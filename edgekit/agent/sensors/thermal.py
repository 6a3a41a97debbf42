"""Temperatures of thermal zones (sys/class/thermal), m°C."""

from __future__ import annotations

from pathlib import Path

from ... import wire
from . import Channel, FileSensor, Sensor, read_int, read_text


def find(root: Path) -> list[Sensor]:
    """Zones that give a number now."""
    found: list[Sensor] = []
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        if read_int(zone / "temp") is None:
            continue
        channel = Channel(
            wire.Kind.TEMPERATURE,
            wire.Unit.MILLICELSIUS,
            wire.Quality.MEASURED,
            zone.name,
            read_text(zone / "type") or "",
            "thermal zone",
        )
        found.append(FileSensor(channel, zone / "temp"))
    return found

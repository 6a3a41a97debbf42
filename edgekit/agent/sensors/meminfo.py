"""Memory the system can still give (proc/meminfo, MemAvailable), bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ... import wire
from . import Channel, Lost, Sensor, Value, read_text


@dataclass(frozen=True)
class Available:
    """MemAvailable of one meminfo file."""

    channel: Channel
    path: Path

    def read(self) -> Value | Lost:
        for line in (read_text(self.path) or "").splitlines():
            name, _, rest = line.partition(":")
            words = rest.split()
            if name == "MemAvailable" and words and words[0].isdigit():
                return Value(int(words[0]) * 1024)
        return Lost(wire.GapReason.READ_FAILED)


def find(root: Path) -> list[Sensor]:
    """The system's memory, where the kernel tells it."""
    channel = Channel(
        wire.Kind.MEMORY,
        wire.Unit.BYTES,
        wire.Quality.MEASURED,
        "available",
        "system",
        "MemAvailable",
    )
    sensor = Available(channel, root / "proc/meminfo")
    return [sensor] if isinstance(sensor.read(), Value) else []

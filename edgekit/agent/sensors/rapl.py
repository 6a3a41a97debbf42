"""Energy counters of RAPL zones (sys/class/powercap), µJ.

The counter wraps at max_energy_range_uj.  Where that is not known a step back is a gap, never a
number (joules from a guessed range are how 260 kW readings come about).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ... import wire
from . import Channel, Lost, Sensor, Value, denied, read_int, read_text, unmeasurable


@dataclass
class Zone:
    """One zone; its total starts at 0 when it is first read."""

    channel: Channel
    path: Path
    _last: int | None = field(default=None, repr=False)
    _total: int = field(default=0, repr=False)

    def read(self) -> Value | Lost:
        now = read_int(self.path / "energy_uj")
        if now is None or now < 0:
            return Lost(wire.GapReason.READ_FAILED)
        last, self._last = self._last, now
        if last is None:
            return Value(self._total, counter=True)
        step = now - last
        if step < 0:
            span = read_int(self.path / "max_energy_range_uj")
            if span is None or span < last:
                return Lost(wire.GapReason.WRAP_UNKNOWN)
            step += span + 1
        self._total += step
        return Value(self._total, counter=True)


def find(root: Path) -> list[Sensor]:
    """Every zone; one that only root may read says so."""
    found: list[Sensor] = []
    for zone in sorted(root.glob("sys/class/powercap/*:*")):
        site = read_text(zone / "name") or zone.name
        if read_int(zone / "energy_uj") is not None:
            channel = Channel(
                wire.Kind.ENERGY,
                wire.Unit.UJ,
                wire.Quality.COUNTER,
                zone.name,
                site,
                "RAPL energy counter",
            )
            found.append(Zone(channel, zone))
        elif denied(zone / "energy_uj"):
            reason = "energy_uj is readable by root only: run the agent as root or chmod the file"
            found.append(unmeasurable(wire.Kind.ENERGY, wire.Unit.UJ, zone.name, site, reason))
    return found

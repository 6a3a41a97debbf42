"""Power drawn from a battery (sys/class/power_supply), µW.

Only a discharging battery tells what the device draws.  Vendors disagree on units and signs of
current_now (µA by the kernel's rule, mA in fact), so an implausible product is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ... import wire
from . import Channel, FileSensor, Lost, Sensor, Value, read_int, read_text, unmeasurable

LOW_UW, HIGH_UW = 20_000, 200_000_000  # 20 mW .. 200 W: outside, the unit is wrong


@dataclass(frozen=True)
class Battery:
    """µV times µA."""

    channel: Channel
    path: Path

    def read(self) -> Value | Lost:
        power = product_uw(self.path)
        return Lost(wire.GapReason.READ_FAILED) if power is None else Value(power)


def product_uw(path: Path) -> int | None:
    """Voltage times the magnitude of the current; the sign means nothing across vendors."""
    volt, ampere = read_int(path / "voltage_now"), read_int(path / "current_now")
    return None if volt is None or ampere is None else volt * abs(ampere) // 1_000_000


def find(root: Path) -> list[Sensor]:
    """Batteries; one that charges or makes no sense says so."""
    found: list[Sensor] = []
    for supply in sorted(root.glob("sys/class/power_supply/*")):
        if read_text(supply / "type") != "Battery":
            continue
        direct = read_int(supply / "power_now")
        power = direct if direct is not None else product_uw(supply)
        if power is None:
            continue
        reason = ""
        status = read_text(supply / "status") or "not known"
        if status != "Discharging":
            reason = f"battery status is {status}: unplug the charger, its current hides ours"
        elif not LOW_UW <= abs(power) <= HIGH_UW:
            reason = f"battery tells {power} uW, which cannot be: unknown unit of current_now"
        if reason:
            found.append(
                unmeasurable(wire.Kind.POWER, wire.Unit.UW, supply.name, "battery", reason)
            )
            continue
        how = "power_now" if direct is not None else "voltage_now x current_now"
        channel = Channel(
            wire.Kind.POWER, wire.Unit.UW, wire.Quality.MEASURED, supply.name, "battery", how
        )
        found.append(
            FileSensor(channel, supply / "power_now")
            if direct is not None
            else Battery(channel, supply)
        )
    return found

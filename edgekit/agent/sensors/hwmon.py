"""Power, voltage times current, energy and temperature of hwmon chips (sys/class/hwmon).

Units of the kernel: power µW, voltage mV, current mA, energy µJ, temperature m°C.  Where a chip
tells voltage and current of one rail their product is taken, not its rounded power register.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ... import wire
from . import Channel, FileSensor, Lost, Sensor, Value, read_int, read_text


@dataclass(frozen=True)
class Product:
    """mV times mA = µW."""

    channel: Channel
    millivolt: Path
    milliampere: Path

    def read(self) -> Value | Lost:
        volt, ampere = read_int(self.millivolt), read_int(self.milliampere)
        if volt is None or ampere is None:
            return Lost(wire.GapReason.READ_FAILED)
        return Value(volt * ampere)


@dataclass(frozen=True)
class Counter:
    """An energy register; hwmon drivers unwrap it themselves, so a step back is a reset: a gap."""

    channel: Channel
    path: Path

    def read(self) -> Value | Lost:
        now = read_int(self.path)
        return Lost(wire.GapReason.READ_FAILED) if now is None else Value(now, counter=True)


def find(root: Path) -> list[Sensor]:
    """Channels of every chip."""
    found: list[Sensor] = []
    for chip in sorted(root.glob("sys/class/hwmon/hwmon*")):
        site = read_text(chip / "name") or chip.name
        found += [*_power(chip, site), *_energy(chip, site), *_temperature(chip, site)]
    return found


def _label(chip: Path, stem: str) -> str:
    return read_text(chip / f"{stem}_label") or f"{chip.name} {stem}"


def _power(chip: Path, site: str) -> list[Sensor]:
    found: list[Sensor] = []
    rails = set()
    for current in sorted(chip.glob("curr*_input")):
        number = current.name.removeprefix("curr").removesuffix("_input")
        # chips number a rail's bus voltage alike (INA3221) or put the shunt first (INA2xx: in1)
        for volt in (f"in{number}", "in1"):
            label = _label(chip, volt)
            voltage = chip / f"{volt}_input"
            if read_int(voltage) is None or read_int(current) is None or label == "NC":
                continue
            if volt == "in1" and number != "1":
                continue
            reason = f"{volt}_input x {current.name}"
            channel = Channel(
                wire.Kind.POWER, wire.Unit.UW, wire.Quality.MEASURED, label, site, reason
            )
            found.append(Product(channel, voltage, current))
            rails.add(number)
            break
    for name in ("input", "average"):
        for power in sorted(chip.glob(f"power*_{name}")):
            number = power.name.removeprefix("power").removesuffix(f"_{name}")
            if number in rails or read_int(power) is None:
                continue
            channel = Channel(
                wire.Kind.POWER,
                wire.Unit.UW,
                wire.Quality.MEASURED,
                _label(chip, f"power{number}"),
                site,
                power.name,
            )
            found.append(FileSensor(channel, power))
            rails.add(number)
    return found


def _energy(chip: Path, site: str) -> list[Sensor]:
    found: list[Sensor] = []
    for path in sorted(chip.glob("energy*_input")):
        if read_int(path) is None:
            continue
        label = _label(chip, path.name.removesuffix("_input"))
        channel = Channel(
            wire.Kind.ENERGY, wire.Unit.UJ, wire.Quality.COUNTER, label, site, path.name
        )
        found.append(Counter(channel, path))
    return found


def _temperature(chip: Path, site: str) -> list[Sensor]:
    found: list[Sensor] = []
    for path in sorted(chip.glob("temp*_input")):
        if read_int(path) is None:
            continue
        label = _label(chip, path.name.removesuffix("_input"))
        channel = Channel(
            wire.Kind.TEMPERATURE,
            wire.Unit.MILLICELSIUS,
            wire.Quality.MEASURED,
            label,
            site,
            path.name,
        )
        found.append(FileSensor(channel, path))
    return found

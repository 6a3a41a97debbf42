"""Sensors on a made-up sysfs: units, quality, wrapping counters, reasons instead of guesses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgekit import wire
from edgekit.agent import sensors
from edgekit.agent.device import Device
from edgekit.agent.sensors import Lost, Value
from edgekit.remote_bench import Collector, _energy

K, Q, U = wire.Kind, wire.Quality, wire.Unit


def tree(root: Path, **files: str) -> Path:
    """Writes files; in their names `__` stands for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def one(root: Path, kind: wire.Kind) -> sensors.Sensor:
    [found] = [s for s in sensors.discover(root) if s.channel.kind == kind]
    return found


def test_nothing_there_is_said_once(tmp_path: Path) -> None:
    [only] = sensors.discover(tmp_path)
    c = only.channel
    assert (c.kind, c.quality) == (K.POWER, Q.UNMEASURABLE)
    assert "no hwmon" in c.reason
    assert isinstance(only.read(), Lost)


def test_temperature_and_clock(tmp_path: Path) -> None:
    tree(
        tmp_path,
        sys__class__thermal__thermal_zone0__temp="47123",
        sys__class__thermal__thermal_zone0__type="cpu-thermal",
        sys__class__thermal__thermal_zone1__temp="not a number",
        sys__devices__system__cpu__cpufreq__policy0__scaling_cur_freq="1500000",
        sys__devices__system__cpu__cpufreq__policy0__scaling_governor="ondemand",
        sys__devices__system__cpu__cpufreq__policy4__scaling_cur_freq="2400000",
        sys__devices__system__cpu__cpufreq__policy4__cpuinfo_cur_freq="2100000",
        proc__meminfo="MemTotal: 100 kB\nMemAvailable:   50 kB",
    )
    heat = one(tmp_path, K.TEMPERATURE)
    assert heat.channel.site == "cpu-thermal"
    assert heat.read() == Value(47123)
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").write_text("-500")
    assert heat.read() == Value(-500)
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").unlink()
    assert heat.read() == Lost(wire.GapReason.READ_FAILED)
    asked, hard = [s for s in sensors.discover(tmp_path) if s.channel.kind == K.FREQUENCY]
    assert (asked.channel.quality, asked.channel.site) == (Q.ESTIMATED, "ondemand")
    assert (hard.channel.quality, hard.read()) == (Q.MEASURED, Value(2100000))
    assert one(tmp_path, K.MEMORY).read() == Value(50 * 1024)


def test_hwmon_multiplies_voltage_and_current(tmp_path: Path) -> None:
    """INA2xx: in0 is the shunt, in1 the bus; the product beats the rounded power register."""
    tree(
        tmp_path,
        sys__class__hwmon__hwmon3__name="ina226",
        sys__class__hwmon__hwmon3__in0_input="3",
        sys__class__hwmon__hwmon3__in1_input="5012",
        sys__class__hwmon__hwmon3__curr1_input="611",
        sys__class__hwmon__hwmon3__power1_input="3050000",
    )
    power = one(tmp_path, K.POWER)
    assert power.channel.site == "ina226"
    assert power.read() == Value(5012 * 611)


def test_hwmon_rails_have_names(tmp_path: Path) -> None:
    """INA3221 of a Jetson: three rails, one not connected."""
    files = {"sys__class__hwmon__hwmon0__name": "ina3221"}
    for n, label in ((1, "VDD_IN"), (2, "NC"), (3, "VDD_SOC")):
        base = "sys__class__hwmon__hwmon0__"
        files |= {f"{base}in{n}_label": label, f"{base}in{n}_input": "5000"}
        files[f"{base}curr{n}_input"] = str(100 * n)
    tree(tmp_path, **files)
    rails = [s for s in sensors.discover(tmp_path) if s.channel.kind == K.POWER]
    assert [(s.channel.name, s.read()) for s in rails] == [
        ("VDD_IN", Value(500_000)),
        ("VDD_SOC", Value(1_500_000)),
    ]


def test_hwmon_power_energy_and_temperature(tmp_path: Path) -> None:
    base = "sys__class__hwmon__hwmon1__"
    files = {
        "name": "scpi",
        "power1_average": "1200",
        "energy1_input": "77",
        "temp1_input": "40000",
    }
    tree(tmp_path, **{base + k: v for k, v in files.items()})
    assert one(tmp_path, K.POWER).read() == Value(1200)
    assert one(tmp_path, K.ENERGY).read() == Value(77, counter=True)
    assert one(tmp_path, K.ENERGY).channel.quality == Q.COUNTER
    assert one(tmp_path, K.TEMPERATURE).read() == Value(40000)


ZONE = "sys__class__powercap__intel-rapl:0__"


def rapl(root: Path, energy: int | None, top: int | None = None) -> Path:
    zone = root / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "name").write_text("package-0\n")
    if energy is not None:
        (zone / "energy_uj").write_text(f"{energy}\n")
    if top is not None:
        (zone / "max_energy_range_uj").write_text(f"{top}\n")
    return root


def test_rapl_counts_over_its_wrap(tmp_path: Path) -> None:
    zone = one(rapl(tmp_path, 900, 1000), K.ENERGY)
    assert (zone.channel.site, zone.channel.quality) == ("package-0", Q.COUNTER)
    got = [zone.read()]
    for energy in (950, 20, 999, 999, 0):
        rapl(tmp_path, energy)
        got.append(zone.read())
    # 900 -> 950 -> (1001 values) 20 -> 999 -> 999 -> 0
    assert got == [Value(v, counter=True) for v in (0, 50, 121, 1100, 1100, 1102)]


@pytest.mark.parametrize("top", [None, 100])
def test_rapl_wrap_of_unknown_range_is_a_gap(tmp_path: Path, top: int | None) -> None:
    """No maximum, or one that cannot be true: no number, and counting goes on after it."""
    zone = one(rapl(tmp_path, 900, top), K.ENERGY)
    zone.read()
    rapl(tmp_path, 10)
    assert zone.read() == Lost(wire.GapReason.WRAP_UNKNOWN)
    rapl(tmp_path, 35)
    assert zone.read() == Value(25, counter=True)
    rapl(tmp_path, None)
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("broken")
    assert zone.read() == Lost(wire.GapReason.READ_FAILED)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_rapl_for_root_only_says_so(tmp_path: Path) -> None:
    rapl(tmp_path, 5, 10)
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").chmod(0)
    c = one(tmp_path, K.ENERGY).channel
    assert (c.quality, "root" in c.reason) == (Q.UNMEASURABLE, True)


BATTERY = "sys__class__power_supply__bat__"


def battery(root: Path, **files: str) -> sensors.Channel:
    tree(root, **{BATTERY + k: v for k, v in {"type": "Battery", **files}.items()})
    found = one(root, K.POWER)
    return found.channel


def test_battery_tells_only_while_it_drains(tmp_path: Path) -> None:
    volts = {"voltage_now": "3800000", "current_now": "-400000"}
    c = battery(tmp_path, status="Charging", **volts)
    assert (c.quality, "unplug" in c.reason) == (Q.UNMEASURABLE, True)
    c = battery(tmp_path, status="Discharging", **volts)
    assert c.quality == Q.MEASURED
    assert one(tmp_path, K.POWER).read() == Value(1_520_000)  # whatever the vendor's sign


def test_battery_in_unknown_units_is_refused(tmp_path: Path) -> None:
    """current_now in mA: 3.8 V x 400 "uA" = 1.5 mW, which no device draws."""
    c = battery(tmp_path, status="Discharging", voltage_now="3800000", current_now="400")
    assert (c.quality, "cannot be" in c.reason) == (Q.UNMEASURABLE, True)
    c = battery(tmp_path, status="Discharging", power_now="3000000")
    assert (c.quality, c.reason) == (Q.MEASURED, "power_now")


def test_mains_are_no_battery(tmp_path: Path) -> None:
    tree(tmp_path, **{BATTERY + "type": "Mains", BATTERY + "power_now": "5000000"})
    assert one(tmp_path, K.POWER).channel.quality == Q.UNMEASURABLE


def test_device_turns_lost_readings_into_gaps(tmp_path: Path) -> None:
    rapl(tmp_path, 900)
    device = Device(tmp_path / "work", sysroot=tmp_path)
    device.run = 4
    device.sample(now=True)
    rapl(tmp_path, 10)
    device.sample(now=True)
    kinds = [wire.decode(wire.MESSAGES[f.type], f.body) for f in device.queue.pending()]
    assert isinstance(kinds[0], wire.Counter)
    assert isinstance(kinds[1], wire.Gap)
    assert kinds[1].reason == wire.GapReason.WRAP_UNKNOWN


# ---- energy of one inference ----------------------------------------------------------------

HELLO = wire.HelloAck(1, bytes(16), bytes(16), 1_000_000, 1008, 1008, 0, 1, 1, 0)  # us ticks


def collected(
    kind: wire.Kind, readings: list[tuple[int, int]], *, end_us: int = 2_000_000
) -> Collector:
    """A run of 1000 inferences between marks at 0 and `end_us`."""
    c = Collector(1)
    quality = Q.COUNTER if kind == K.ENERGY else Q.MEASURED
    c.channels[16] = wire.ChannelDesc(1, 16, kind, quality, U.UW, name="rail", site="board")
    c.readings[16] = readings
    c.marks = {1: 0, 2: end_us}
    c.end = wire.RunEnd(1, 0, 0, 0, 1000, 0)
    return c


def test_energy_from_a_counter() -> None:
    """3 W for 2 s over 1000 inferences are 6000 uJ each."""
    readings = [(t, 3 * t) for t in range(0, 2_000_001, 100_000)]
    got = _energy(collected(K.ENERGY, readings), HELLO)
    assert (got.value, got.unit, got.quality) == (pytest.approx(6000), "uj", "counter")


def test_energy_from_power() -> None:
    readings = [(t, 3_000_000) for t in range(0, 2_000_001, 100_000)]
    got = _energy(collected(K.POWER, readings), HELLO)
    assert (got.value, got.quality) == (pytest.approx(6000), "measured")


def test_energy_is_refused_where_readings_do_not_carry_it() -> None:
    few = [(t, 3) for t in range(0, 2_000_001, 500_000)]
    assert "20 are needed" in _energy(collected(K.POWER, few), HELLO).note
    still = [(t, 5) for t in range(0, 2_000_001, 100_000)]
    assert "moved 0 times" in _energy(collected(K.ENERGY, still), HELLO).note
    short = _energy(collected(K.POWER, still, end_us=10_000), HELLO)
    assert (short.value, "at least 100" in short.note) == (None, True)
    gaps = collected(K.POWER, still)
    gaps.gaps[16] = 2
    assert "2 readings are missing" in _energy(gaps, HELLO).note
    none = collected(K.POWER, still)
    none.channels.clear()
    assert _energy(none, HELLO).quality == "unmeasurable"
    ticks = wire.HelloAck(1, bytes(16), bytes(16), 0, 1008, 1008, 4, 2, 1, 1)
    assert _energy(collected(K.POWER, still), ticks).value is None

"""Clock of each CPU frequency policy (sys/devices/system/cpu/cpufreq), kHz."""

from __future__ import annotations

from pathlib import Path

from ... import wire
from . import Channel, FileSensor, Sensor, read_int, read_text


def find(root: Path) -> list[Sensor]:
    """One channel a policy; its site is the governor."""
    found: list[Sensor] = []
    for policy in sorted(root.glob("sys/devices/system/cpu/cpufreq/policy*")):
        for name in ("cpuinfo_cur_freq", "scaling_cur_freq"):  # hardware's own word first
            if read_int(policy / name) is None:
                continue
            quality = wire.Quality.MEASURED if name[0] == "c" else wire.Quality.ESTIMATED
            channel = Channel(
                wire.Kind.FREQUENCY,
                wire.Unit.KHZ,
                quality,
                policy.name,
                read_text(policy / "scaling_governor") or "",
                name,
            )
            found.append(FileSensor(channel, policy / name))
            break
    return found

"""Benchmark of a package on a device through its agent, as one Measurement.

What the agent streams is collected, joined by channel and judged: every figure has a unit and says
where it comes from, and energy is given only where the readings support it.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from . import wire
from .errors import PackageError
from .remote import REASONS, Remote, status_text

Numbers = npt.NDArray[np.float64]

MIN_WINDOW_S = 1.0  # of the measured loop, below which energy is not told
MIN_READINGS = 20  # power readings within it
MIN_STEPS = 10  # changes of an energy counter within it


@dataclass(frozen=True)
class Figure:
    """A number with its unit and origin; ``value`` is None where it cannot be told."""

    value: float | None
    unit: str
    quality: str
    note: str = ""


@dataclass(frozen=True)
class Series:
    """Readings of one sensor: ``time_s`` and ``values`` (n,), time from the first reading."""

    name: str
    kind: str
    site: str
    unit: str
    quality: str
    note: str
    time_s: Numbers
    values: Numbers
    gaps: int = 0


@dataclass(frozen=True)
class OpCost:
    """Median cost of one op over the traced inferences, in the measurement's unit."""

    index: int
    name: str
    type: str
    isa: str
    median: float


@dataclass(frozen=True)
class Measurement:
    """One benchmark of one package on one device.

    ``unit`` is "us", "instructions" or "ticks", as the device announces its clock, and "" without
    clock (then no latencies). ``samples``: every measured inference (runs,) in that unit.
    ``memory_bytes``: session, main, fast, state, scratch. ``energy_uj``: of one inference.
    """

    device: str
    firmware: str
    agent: str
    emulated: bool
    package_sha256: str
    unit: str
    quality: str
    samples: Numbers
    p50: float | None
    p90: float | None
    p99: float | None
    first: float | None
    open: float | None
    runs: int
    traced: int
    ops: tuple[OpCost, ...]
    memory_bytes: dict[str, int]
    peak_rss_bytes: int | None
    stack_bytes: int | None
    sensors: tuple[Series, ...]
    energy_uj: Figure
    reconnects: int = 0
    duplicates: int = 0


@dataclass
class Collector:
    """Takes the frames of one run, in order, each once."""

    run: int
    channels: dict[int, wire.ChannelDesc] = field(default_factory=dict)
    latencies: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    count: int = 0
    traces: dict[int, list[wire.OpTime]] = field(default_factory=dict)
    readings: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    gaps: dict[int, int] = field(default_factory=dict)
    marks: dict[int, int] = field(default_factory=dict)
    end: wire.RunEnd | None = None

    def take(self, f: wire.Frame, body: wire.Body) -> None:
        """One frame; those of other runs are acknowledged and forgotten."""
        if getattr(body, "run", None) != self.run:
            return
        if isinstance(body, wire.ChannelDesc):
            self.channels[body.channel] = body
        elif isinstance(body, wire.Samples):
            block = np.frombuffer(body.values, "<u8")
            if body.first != self.count:
                raise PackageError(f"samples {self.count} to {body.first} are missing")
            self.count += len(block)
            self.latencies.append(block)
        elif isinstance(body, wire.OpTrace):
            self.traces.setdefault(body.index, []).extend(wire.items(wire.OpTime, body.items))
        elif isinstance(body, wire.Metric):
            for r in wire.items(wire.Reading, body.items):
                self.readings.setdefault(r.channel, []).append((f.t, r.value))
        elif isinstance(body, wire.Counter):
            self.readings.setdefault(body.channel, []).append((f.t, body.value))
        elif isinstance(body, wire.Gap):
            self.gaps[body.channel] = self.gaps.get(body.channel, 0) + max(body.count, 1)
        elif isinstance(body, wire.Mark):
            self.marks[body.kind] = f.t
        elif isinstance(body, wire.RunEnd):
            self.end = body


def bench(
    url: str,
    package: str | Path | bytes | None,
    *,
    token: bytes = b"",
    runs: int = 100,
    warmup: int = 10,
    traced: int = 3,
    entry: int = 0,
    threads: int = 1,
    isa_mask: int = 0,
    inputs: list[bytes] | None = None,
    limit_s: float = 600.0,
    remote: Remote | None = None,
) -> Measurement:
    """Uploads and benchmarks a package (None: the device's resident one).

    ``inputs``: bytes of each input of the entry; zeros otherwise.  Raises LinkError, PackageError.
    """
    data = package if isinstance(package, bytes) or package is None else _read(Path(package))
    with remote or Remote(url, token, slow_s=limit_s) as r:
        source = wire.Source.RESIDENT
        if data is not None:
            r.upload(data)
            source = wire.Source.UPLOADED
        r.verify(source)
        r.open(source, threads=threads, isa_mask=isa_mask)
        for i, value in enumerate(inputs or []):
            r.set_input(i, value, entry)
        collected = _collect(r, runs, warmup, traced, entry, limit_s)
        ops = r.ops() if collected.traces else []
        return _measure(r, collected, ops, hashlib.sha256(data).hexdigest() if data else "")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PackageError(f"cannot be read ({error.strerror})", where=str(path)) from None


def _collect(
    r: Remote, runs: int, warmup: int, traced: int, entry: int, limit_s: float
) -> Collector:
    """Starts the benchmark and takes its stream to the end."""
    c = Collector(secrets.randbits(32))
    with r.sink(c.take):
        r.command(
            wire.Command.BENCH,
            entry=entry,
            count=runs,
            offset=warmup,
            index=traced,
            run=c.run,
            limit_ms=min(int(limit_s * 1000), 0xFFFFFFFF),
        )
        r.follow(lambda: c.end is not None, limit_s + 30)
    assert c.end is not None
    if c.end.code != wire.Code.OK:
        text = wire.clean(c.end.text)
        if c.end.code == wire.Code.STATUS and c.end.status:
            text = status_text(c.end.status)
        known = c.end.code in set(wire.Code)
        raise PackageError(
            text or (REASONS[wire.Code(c.end.code)] if known else f"code {c.end.code}"),
            where=f"{r.hello.name} bench",
        )
    return c


def _measure(r: Remote, c: Collector, ops: list[wire.OpInfo], sha256: str) -> Measurement:
    assert c.end is not None
    unit, scale = _unit(r.hello)
    raw = np.concatenate(c.latencies) if c.latencies else np.zeros(0, np.uint64)
    samples = raw.astype(np.float64) * scale
    latency = c.channels.get(wire.Channel.LATENCY)
    some = samples.size > 0
    p50, p90, p99 = (float(x) for x in np.percentile(samples, [50, 90, 99])) if some else [None] * 3

    def last(channel: int) -> int | None:
        values = c.readings.get(channel)
        return values[-1][1] if values else None

    def scaled(channel: int) -> float | None:
        value = last(channel)
        return None if value is None else value * scale

    kinds = ("session", "main", "fast", "state", "scratch")
    return Measurement(
        device=r.hello.name,
        firmware=r.hello.firmware,
        agent=wire.AgentKind(r.hello.agent).name.lower() if r.hello.agent < 3 else "unknown",
        emulated=bool(r.hello.caps & wire.CAP_EMULATED),
        package_sha256=sha256,
        unit=unit if some else "",
        quality=_name(wire.Quality, latency.quality) if latency else "",
        samples=samples,
        p50=p50,
        p90=p90,
        p99=p99,
        first=scaled(wire.Channel.FIRST),
        open=scaled(wire.Channel.OPEN),
        runs=c.end.runs,
        traced=c.end.traced,
        ops=_ops(c, ops, scale),
        memory_bytes={k: last(wire.Channel.MEM_SESSION + i) or 0 for i, k in enumerate(kinds)},
        peak_rss_bytes=last(wire.Channel.PEAK_RSS),
        stack_bytes=last(wire.Channel.STACK),
        sensors=tuple(_series(c, r.hello)),
        energy_uj=_energy(c, r.hello),
        reconnects=r.reconnects,
        duplicates=r.inbox.duplicates,
    )


def _unit(hello: wire.HelloAck) -> tuple[str, float]:
    """Unit of latencies and what one clock unit is in it; only a clock of time gives us."""
    if hello.clock_kind == wire.ClockKind.TIME and hello.clock_hz:
        return "us", 1e6 / hello.clock_hz
    if hello.clock_kind == wire.ClockKind.INSTRUCTIONS:
        return "instructions", 1.0
    return "ticks", 1.0


def _ops(c: Collector, ops: list[wire.OpInfo], scale: float) -> tuple[OpCost, ...]:
    taken: dict[int, list[int]] = {}
    for trace in c.traces.values():
        for item in trace:
            taken.setdefault(item.op, []).append(item.duration)
    return tuple(
        OpCost(i, ops[i].name, ops[i].type, ops[i].isa, float(np.median(taken[i])) * scale)
        for i in sorted(taken)
        if i < len(ops)
    )


def _name(enum: type[wire.Quality] | type[wire.Unit] | type[wire.Kind], value: int) -> str:
    return enum(value).name.lower() if value in set(enum) else str(value)


def _series(c: Collector, hello: wire.HelloAck) -> list[Series]:
    """One series a sensor, the unmeasurable ones without values."""
    out = []
    to_s = 1.0 / hello.clock_hz if hello.clock_hz else 0.0
    for number, d in sorted(c.channels.items()):
        if number < wire.Channel.FIRST_SENSOR:
            continue
        readings = np.array(c.readings.get(number, []), np.float64).reshape(-1, 2)
        time_s = (readings[:, 0] - readings[0, 0]) * to_s if len(readings) else readings[:, 0]
        out.append(
            Series(
                d.name,
                _name(wire.Kind, d.kind),
                d.site,
                _name(wire.Unit, d.unit),
                _name(wire.Quality, d.quality),
                d.reason,
                time_s,
                readings[:, 1],
                c.gaps.get(number, 0),
            )
        )
    return out


def _energy(c: Collector, hello: wire.HelloAck) -> Figure:
    """Energy of one inference by the loop method, gross (idle power included).

    Every measured inference ran back to back between two marks.  A counter's growth between them,
    or the mean of at least MIN_READINGS powers times the window, divided by the runs.  Otherwise
    the reason, and what would suffice.
    """
    assert c.end is not None
    why = "the device has no power sensor"
    for number, d in sorted(c.channels.items()):
        if d.kind not in (wire.Kind.POWER, wire.Kind.ENERGY):
            continue
        if d.quality == wire.Quality.UNMEASURABLE:
            why = d.reason
            continue
        got = _window(c, hello, number, d)
        if isinstance(got, float):
            return Figure(got, "uj", _name(wire.Quality, d.quality), f"{d.name} ({d.site}), gross")
        why = got
    return Figure(None, "uj", "unmeasurable", why)


def _window(c: Collector, hello: wire.HelloAck, number: int, d: wire.ChannelDesc) -> float | str:
    """µJ of one inference from one channel, or why not."""
    assert c.end is not None
    begin, end = c.marks.get(1), c.marks.get(2)
    if begin is None or end is None or not hello.clock_hz or not c.end.runs:
        return "the device has no clock that is time"
    window = (end - begin) / hello.clock_hz
    if window < MIN_WINDOW_S:
        runs = int(c.end.runs * MIN_WINDOW_S / max(window, 1e-9)) + 1
        return f"the measured loop took {window:.2g} s: use at least {runs} runs"
    if c.gaps.get(number):
        return f"{d.name}: {c.gaps[number]} readings are missing"
    # a reading belongs to the window if it was taken in it; the agent reads at both marks too
    edge = 0.01 * hello.clock_hz
    inside = [(t, v) for t, v in c.readings.get(number, []) if begin - edge <= t <= end + edge]
    if d.kind == wire.Kind.ENERGY:
        steps = sum(a[1] != b[1] for a, b in itertools.pairwise(inside))
        if steps < MIN_STEPS:
            return f"{d.name}: the counter moved {steps} times, {MIN_STEPS} are needed"
        span = (inside[-1][0] - inside[0][0]) / hello.clock_hz
        return (inside[-1][1] - inside[0][1]) * window / span / c.end.runs
    if len(inside) < MIN_READINGS:
        return f"{d.name}: {len(inside)} readings in the loop, {MIN_READINGS} are needed"
    times = np.array([t for t, _ in inside], np.float64)
    power = np.array([v for _, v in inside], np.float64)
    mean = np.trapezoid(power, times) / (times[-1] - times[0])
    return float(mean * window / c.end.runs)

"""The agent without its link: sessions with hosts, uploads, the runner and the queue."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from .. import wire
from ..link import Link
from . import sensors
from .queue import Queue
from .runner import Limits, Runner, emulated
from .store import Store

FIRMWARE = "edgekit python 0.1"
SENSOR_PERIOD_S = 0.1
NEW, HELLO, READY = 0, 1, 2


class Device:
    """Everything that outlives a link; `work` is called whenever something may have happened."""

    def __init__(
        self,
        work_dir: Path,
        *,
        token: bytes = b"",
        sysroot: str | Path = "/",
        name: str = "linux",
        max_body: int = 16384,
        limits: Limits | None = None,
        queue_bytes: int = 4 << 20,
    ) -> None:
        self.token, self.name, self.max_body = token, name, max_body
        self.limits = limits or Limits()
        self.boot = secrets.randbits(64) | 1
        self.uid = hashlib.sha256(_machine(name)).digest()[:16]
        self.emulated = emulated()
        self.queue = Queue(queue_bytes)
        self.store = Store(work_dir)
        # what an emulated device sees in /sys is the machine it is emulated on
        self.sensors = sensors.emulated() if self.emulated else sensors.discover(sysroot)
        self.runner: Runner | None = None
        self.session = 0
        self.ctr = 0
        self.pending: wire.Cmd | None = None  # in the child, not yet answered
        self.last: wire.Result | None = None
        self.run: int | None = None  # benchmark that is going on
        self.peer: Peer | None = None
        self._sampled = 0.0
        self._skipped = 0
        self._epitaph = ""  # how the last child died

    # ---- output ----

    def reply(self, result: wire.Result) -> None:
        """Answers the newest command, now and when it is repeated."""
        self.last, self.pending = result, None
        if self.peer is not None:
            self.peer.send(result)

    def emit(self, body: wire.Body) -> None:
        """Queues a data frame and sends it if there is a link."""
        code = wire.LAYOUTS[type(body)].code
        self.emit_raw(code, wire.encode(body), time.perf_counter_ns())

    def emit_raw(self, kind: int, body: bytes, t: int) -> None:
        f = self.queue.put(wire.STREAM_RUN, kind, body, t)
        if self.peer is not None and self.peer.state == READY:
            self.peer.write(f)

    # ---- commands ----

    def command(self, cmd: wire.Cmd) -> None:
        """Executes a command once; a repetition gets the same answer."""
        if cmd.ctr < self.ctr or (self.pending is not None and cmd.ctr == self.pending.ctr):
            return
        if cmd.ctr == self.ctr and self.last is not None:
            if self.peer is not None:
                self.peer.send(self.last)
            return
        self.ctr = cmd.ctr
        if cmd.op == wire.Command.CANCEL:
            if self.run is not None and self.runner is not None:
                self.runner.send(cmd)
            self.reply(wire.Result(cmd.ctr, cmd.op, wire.Code.OK))
        elif self.run is not None:
            self.refuse(cmd, wire.Code.BUSY, "a benchmark is running")
        elif cmd.op == wire.Command.CLOSE:
            self.stop()
            self.reply(wire.Result(cmd.ctr, cmd.op, wire.Code.OK))
        else:
            self.forward(cmd)

    def refuse(self, cmd: wire.Cmd, code: wire.Code, text: str = "") -> None:
        self.reply(wire.Result(cmd.ctr, cmd.op, code, data=wire.cut(text, wire.TEXT_MAX)))

    def forward(self, cmd: wire.Cmd) -> None:
        """Gives the command to the child, a new one for OPEN."""
        if cmd.op in (wire.Command.OPEN, wire.Command.VERIFY):
            if cmd.index != wire.Source.UPLOADED or self.store.package is None:
                self.refuse(cmd, wire.Code.NO_PACKAGE, "upload a package first")
                return
            self.stop()
            self._epitaph = ""
            self.runner = Runner(self.store.package, self.max_body, self.limits)
        if self.runner is None:
            text = f"{self._epitaph}: open it again" if self._epitaph else "open a package first"
            self.refuse(cmd, wire.Code.NO_SESSION, text)
            return
        self.pending = cmd
        if cmd.op == wire.Command.BENCH:
            self.begin_run(cmd)
        self.runner.send(cmd)

    def begin_run(self, cmd: wire.Cmd) -> None:
        """Announces the channels of a benchmark."""
        self.run, self._sampled, self._skipped = cmd.run, 0.0, 0
        unit, how = wire.Unit.NS, "CLOCK_MONOTONIC around ek_run"
        quality = wire.Quality.MEASURED
        if self.emulated:
            unit, quality = wire.Unit.NONE, wire.Quality.UNMEASURABLE
            how = "emulated: time means nothing here"
        kind = wire.Kind.LATENCY
        first = sensors.Channel(kind, unit, quality, "latency", "ek_run", how)
        self.describe(cmd.run, wire.Channel.LATENCY, first)
        for i, sensor in enumerate(self.sensors):
            self.describe(cmd.run, wire.Channel.FIRST_SENSOR + i, sensor.channel)

    def describe(self, run: int, number: int, c: sensors.Channel) -> None:
        rate = 0 if number < wire.Channel.FIRST_SENSOR else round(1e3 / SENSOR_PERIOD_S)
        body = wire.ChannelDesc(
            run,
            number,
            c.kind,
            c.quality,
            c.unit,
            rate_mhz=rate,
            name=c.name,
            site=c.site,
            reason=c.reason,
        )
        self.emit(body)

    def stop(self) -> None:
        """Ends the child."""
        if self.runner is not None:
            self.runner.kill()
            self.runner = None

    # ---- work ----

    def work(self) -> None:
        """Takes what the child says, unless the queue is full, and looks at limits and sensors."""
        if self.runner is None:
            return
        if self.run is not None:
            self.sample()
        if self.queue.full:
            self.runner.hold()
        else:
            frames = self.runner.read()
            if frames is None:
                self.died(wire.Code.CRASHED, self.runner.epitaph())
                return
            for f in frames:
                self.from_child(f)
        if self.runner is not None and self.runner.late:
            text = f"not done within {self.runner.limit_s:g} s: killed"
            self.runner.kill()
            self.died(wire.Code.TIMEOUT, text)

    def from_child(self, f: wire.Frame) -> None:
        """A RESULT or data frame of the child."""
        if f.stream == wire.STREAM_CONTROL:
            result = wire.decode(wire.Result, f.body)
            if self.pending is None or result.ctr != self.pending.ctr:
                return  # of a session that is over
            if result.code != wire.Code.OK and result.op == wire.Command.BENCH:
                self.run = None
            if self.run is None and self.runner is not None:
                self.runner.deadline = 0.0
            self.reply(result)
            return
        if f.type == wire.LAYOUTS[wire.Mark].code:
            self.sample(now=True)  # counters are read at both ends of the measured loop
        self.emit_raw(f.type, f.body, f.t)
        if f.type == wire.LAYOUTS[wire.RunEnd].code:
            self.run = None
            if self.runner is not None:
                self.runner.deadline = 0.0

    def died(self, code: wire.Code, text: str) -> None:
        """Answers for a child that cannot any more."""
        self.runner, self._epitaph = None, text
        if self.pending is not None:
            if self.pending.op == wire.Command.BENCH:
                self.run = None
            self.refuse(self.pending, code, text)
        if self.run is not None:
            end = wire.RunEnd(self.run, code, 0, 0, 0, 0, wire.cut(text, wire.TEXT_MAX))
            self.run = None
            self.emit(end)

    def sample(self, *, now: bool = False) -> None:
        """Reads every sensor when it is time; what cannot be read becomes a GAP."""
        moment = time.monotonic()
        if self.run is None or (not now and moment - self._sampled < SENSOR_PERIOD_S):
            return
        self._sampled = moment
        if self.queue.full:
            self._skipped += 1
            return
        if self._skipped:
            policy = wire.GapReason.POLICY
            self.emit(wire.Gap(self.run, 0, policy, time.perf_counter_ns(), self._skipped))
            self._skipped = 0
        readings = []
        for i, sensor in enumerate(self.sensors):
            c, number = sensor.channel, wire.Channel.FIRST_SENSOR + i
            if c.quality == wire.Quality.UNMEASURABLE:
                continue
            got = sensor.read()
            t = time.perf_counter_ns()
            if isinstance(got, sensors.Lost):
                self.emit(wire.Gap(self.run, number, got.reason, t, 1))
            elif got.counter:
                value = got.value & 0xFFFFFFFFFFFFFFFF
                self.emit(wire.Counter(self.run, number, c.quality, c.unit, value))
            else:
                readings.append(wire.encode(wire.Reading(number, c.quality, c.unit, got.value)))
        if readings:
            self.emit(wire.Metric(self.run, b"".join(readings)))


class Peer:
    """One link and how far its host has proven itself."""

    def __init__(self, device: Device, link: Link) -> None:
        self.device, self.link, self.state = device, link, NEW
        self.heard = self.started = time.monotonic()
        self.max_body = wire.MIN_BODY
        self._reader = wire.Reader(link.framing, device.max_body)
        self._hello = self._answer = b""
        self._types: dict[type[wire.Body], Callable[..., None]] = {
            wire.Sync: self._sync,
            wire.Ack: self._ack,
            wire.Cmd: device.command,
            wire.XferBegin: self._xfer_begin,
            wire.XferData: lambda m: self.send(device.store.data(m)),
            wire.XferEnd: self._xfer_end,
            wire.Bye: self._bye,
        }

    def send(self, body: wire.Body) -> None:
        """A control frame.  Raises LinkDown."""
        self.write(wire.frame(body, t=time.perf_counter_ns()))

    def write(self, f: wire.Frame) -> None:
        self.link.write(wire.wrap(f, self.link.framing))

    def feed(self, data: bytes) -> None:
        """Handles received bytes.  Raises LinkDown, WireError on a stream out of step."""
        self.heard = time.monotonic()
        for f in self._reader.feed(data):
            cls = wire.MESSAGES.get(f.type)
            if cls is None:
                continue  # of a newer version
            try:
                body = wire.decode(cls, f.body)
            except wire.WireError:
                continue
            self._handle(body, f)

    def _handle(self, body: wire.Body, f: wire.Frame) -> None:
        if isinstance(body, wire.Hello):
            self._on_hello(body, f.body)
        elif isinstance(body, wire.Auth):
            self._on_auth(body)
        elif self.state != READY:
            if not isinstance(body, wire.Bye):
                self.send(wire.Error(wire.Code.AUTH, f.type))
        elif type(body) in self._types:
            self._types[type(body)](body)

    def _on_hello(self, m: wire.Hello, raw: bytes) -> None:
        d = self.device
        if self.state != NEW and raw == self._hello:
            self.write(wire.Frame(wire.LAYOUTS[wire.HelloAck].code, self._answer))
            return
        if m.max_body < wire.MIN_BODY:
            self.send(wire.Error(wire.Code.ARGUMENT, wire.LAYOUTS[wire.Hello].code))
            return
        self.max_body = min(m.max_body, d.max_body)
        kind = wire.ClockKind.NONE if d.emulated else wire.ClockKind.TIME
        answer = wire.HelloAck(
            boot=d.boot,
            nonce=secrets.token_bytes(16),
            uid=d.uid,
            clock_hz=0 if d.emulated else 1_000_000_000,
            max_body=self.max_body,
            window=d.store.window if self.link.framing is wire.Framing.LENGTH else 4096,
            caps=wire.CAP_UPLOAD | (wire.CAP_EMULATED if d.emulated else 0),
            clock_kind=kind,
            auth=int(bool(d.token)),
            agent=wire.AgentKind.PYTHON,
            name=d.name,
            firmware=FIRMWARE,
        )
        self._hello, self._answer = raw, wire.encode(answer)
        self._session = m.session
        self.state = HELLO
        self.send(answer)
        if not d.token:
            self._ready()

    def _on_auth(self, m: wire.Auth) -> None:
        d = self.device
        if self.state == NEW or not d.token:
            return
        bodies = self._hello, self._answer
        if not wire.same(m.proof, wire.proof(d.token, "host", *bodies)):
            self.state = NEW
            self.send(wire.Error(wire.Code.AUTH, wire.LAYOUTS[wire.Auth].code))
            return
        self.send(wire.AuthAck(wire.proof(d.token, "device", *bodies)))
        if self.state != READY:
            self._ready()

    def _ready(self) -> None:
        d = self.device
        self.state = READY
        if self._session != d.session:
            d.session, d.ctr, d.last, d.pending = self._session, 0, None, None
        for f in d.queue.pending():
            self.write(f)

    def _sync(self, m: wire.Sync) -> None:
        t = time.perf_counter_ns()
        self.send(wire.SyncReply(m.t1, t, time.perf_counter_ns()))

    def _ack(self, m: wire.Ack) -> None:
        for f in self.device.queue.acknowledge(m):
            self.write(f)

    def _xfer_begin(self, m: wire.XferBegin) -> None:
        if self.device.run is not None:
            ident = int.from_bytes(m.sha256[:4], "little")
            self.send(wire.XferAck(ident, wire.Code.BUSY, 0, 0, 0))
            return
        self.send(self.device.store.begin(m))

    def _xfer_end(self, m: wire.XferEnd) -> None:
        self.send(self.device.store.end(m))

    def _bye(self, _: wire.Bye) -> None:
        self.state = NEW


def _machine(name: str) -> bytes:
    """What stays the same on every start: the system's own id, else the name."""
    try:
        return b"edgekit" + Path("/etc/machine-id").read_bytes().strip() + name.encode()
    except OSError:
        return b"edgekit" + name.encode()

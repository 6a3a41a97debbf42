"""Client of a device's agent: connect, prove the token, upload, command, benchmark.

``Remote`` is the conversation; ``bench`` is what `edgekit bench --on URL` calls.  A lost link is
made again behind the scenes: commands are repeated under the same number, the device executes them
once, and what it measured meanwhile is delivered from its queue, each frame once.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from . import wire
from .errors import DataError, LinkError, PackageError
from .link import Inbox, Link, LinkDown, open_link

B = TypeVar("B", bound=wire.Body)

REASONS = {
    wire.Code.BUSY: "the device is busy",
    wire.Code.UNKNOWN: "the agent does not know this command",
    wire.Code.ARGUMENT: "an index or size is out of range",
    wire.Code.NO_PACKAGE: "the device has no such package",
    wire.Code.NO_SESSION: "no package is open on the device",
    wire.Code.TIMEOUT: "the time limit ended it",
    wire.Code.CRASHED: "the process that ran the package died",
    wire.Code.NO_SPACE: "the package or its memory does not fit on the device",
    wire.Code.HASH: "the uploaded bytes arrived damaged",
    wire.Code.AUTH: "the device refuses our token",
    wire.Code.CANCELLED: "cancelled",
    wire.Code.NO_CLOCK: "the device has no usable clock",
    wire.Code.INTERNAL: "the agent failed",
    wire.Code.VERSION: "the agent speaks another version of the protocol",
}


_COMPUTES = (
    wire.Command.OPEN,
    wire.Command.VERIFY,
    wire.Command.RUN,
    wire.Command.SELFTEST,
    wire.Command.GET_OUTPUT,
    wire.Command.GET_TENSOR,
)

# enum of native/include/edgekit.h
_STATUS = (
    "ok",
    "wrong argument",
    "wrong alignment",
    "not an EdgeKit package",
    "made for a newer version",
    "needs a feature this build lacks",
    "truncated",
    "checksum differs",
    "a table is out of range",
    "a tensor is not valid",
    "an op is not valid",
    "an op is not linked into this build",
    "memory too small",
    "no such name",
    "a run-time value is out of range",
    "cancelled",
    "the golden vector gives other values on this machine",
    "signature missing or wrong",
    "older than the device allows",
)


class Remote:
    """A conversation with one agent.

    ``url`` as in `link.open_link`, or a function that makes a new link.  ``patience_s`` is how long
    a silent or lost device is waited for, ``slow_s`` how long where it computes (open, verify, run,
    self-test): an agent without threads is silent meanwhile.  Raises LinkError.
    """

    def __init__(
        self,
        url: str | Callable[[], Link],
        token: bytes = b"",
        *,
        patience_s: float = 20.0,
        retry_s: float = 0.5,
        slow_s: float = 300.0,
    ) -> None:
        self._open: Callable[[], Link] = partial(open_link, url) if isinstance(url, str) else url
        self.where = url if isinstance(url, str) else "device"
        self._token, self._patience, self._retry = token, patience_s, retry_s
        self._slow = max(slow_s, patience_s)
        self._session = secrets.randbits(64) | 1
        self._ctr = 0
        self._link: Link | None = None
        self._reader = wire.Reader(wire.Framing.LENGTH)
        self._mail: list[tuple[wire.Frame, wire.Body]] = []
        self._sink: Callable[[wire.Frame, wire.Body], None] | None = None
        self._asked = 0.0
        self._sent = self._heard = 0.0
        self.inbox = Inbox()
        self.reconnects = 0
        self.hello: wire.HelloAck = self._connect(None)

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Says goodbye and closes the link."""
        if self._link is not None:
            with contextlib.suppress(LinkDown):
                self._send(wire.Bye(wire.Code.OK))
            self._drop()

    # ---- link ----

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _send(self, body: wire.Body) -> None:
        if self._link is None:
            raise LinkDown("not connected", where=self.where)
        self._sent = time.monotonic()
        f = wire.frame(body, t=time.monotonic_ns())
        self._link.write(wire.wrap(f, self._link.framing))

    def _line_s(self, count: int) -> float:
        """How long the line takes for `count` bytes; 0 where it is fast."""
        return self._link.byte_s * count if self._link else 0.0

    def _connect(self, boot: int | None) -> wire.HelloAck:
        """Makes a link and authenticates, until `patience_s` is over."""
        end, pause = time.monotonic() + self._patience, 0.05
        while True:
            try:
                self._drop()
                self._link = self._open()
                hello = self._handshake(self._link, end)
                if boot is not None and hello.boot != boot:
                    raise LinkError(
                        "the device has restarted; what it had not yet delivered is lost",
                        where=self.where,
                        todo="run the command again",
                    )
                self.inbox.restart(hello.boot)
                return hello
            except LinkDown:
                self._drop()
                if time.monotonic() + pause > end:
                    raise
                time.sleep(pause)
                pause = min(pause * 2, 2.0)
            except LinkError:
                self._drop()
                raise

    def _handshake(self, link: Link, end: float) -> wire.HelloAck:
        self._reader = wire.Reader(link.framing)
        self._mail.clear()
        hello = wire.Hello(self._session, secrets.token_bytes(16), wire.MAX_BODY)
        if link.framing is wire.Framing.COBS:
            link.write(b"\0")  # ends whatever half a frame is on the line
        answer = self._wait(wire.HelloAck, lambda: self._send(hello), end)
        if not answer.auth:
            if self._token and link.framing is wire.Framing.LENGTH:
                raise LinkError(
                    "the device does not ask for the token: it may not be yours", where=self.where
                )
            return answer
        if not self._token:
            raise LinkError(
                "the device asks for a token", where=self.where, todo="give it with --token-file"
            )
        bodies = wire.encode(hello), wire.encode(answer)
        auth = wire.Auth(wire.proof(self._token, "host", *bodies))
        theirs = self._wait(wire.AuthAck, lambda: self._send(auth), end)
        if not wire.same(theirs.proof, wire.proof(self._token, "device", *bodies)):
            raise LinkError("the device does not know the token", where=self.where)
        return answer

    def _wait(
        self,
        kind: type[B],
        send: Callable[[], None],
        end: float,
        fits: Callable[[B], bool] = lambda _: True,
    ) -> B:
        """Sends until the answer comes; raises LinkDown at `end` or on a lost link."""
        pause, due = self._retry + self._line_s(2 * wire.MIN_BODY), 0.0
        while True:
            answer = self._take(kind, fits)
            if answer is not None:
                return answer
            now = time.monotonic()
            if now >= end:
                raise LinkDown("no answer", where=self.where, todo="is the agent running there?")
            if now >= due:
                send()
                due, pause = now + pause, min(pause * 2, 5.0)
            self._pump(min(due, end) - now)

    def _take(self, kind: type[B], fits: Callable[[B], bool]) -> B | None:
        """The first fitting message in the mail; older ones are dropped."""
        while self._mail:
            body = self._mail.pop(0)[1]
            if isinstance(body, wire.Error):
                self._refuse(body)
            elif isinstance(body, kind) and fits(body):
                return body
        return None

    def _refuse(self, error: wire.Error) -> None:
        code = _code(error.code)
        if code is wire.Code.AUTH and error.type != wire.LAYOUTS[wire.Auth].code:
            raise LinkDown("the device wants a new handshake", where=self.where)
        text = wire.clean(error.text) or REASONS.get(code, "refused")
        raise LinkError(text, where=self.where)

    def _pump(self, wait_s: float) -> None:
        """Takes what has arrived; data frames go to the sink in order and are then acknowledged."""
        if self._link is None:
            raise LinkDown("not connected", where=self.where)
        data = self._link.read(max(wait_s, 0.0))
        if data:
            self._heard = time.monotonic()
        try:
            frames = self._reader.feed(data) if data else []
        except wire.WireError as error:
            raise LinkDown(f"the byte stream makes no sense ({error})", where=self.where) from None
        touched = set()
        for f in frames:
            cls = wire.MESSAGES.get(f.type)
            if cls is None:
                continue
            if f.stream != wire.STREAM_CONTROL:
                touched.add(f.stream)
                for ready in self.inbox.accept(f):
                    self._deliver(ready)
                continue
            try:
                self._mail.append((f, wire.decode(cls, f.body)))
            except wire.WireError:
                continue
        for stream in touched:
            self._acknowledge(stream)

    def _acknowledge(self, stream: int) -> None:
        now = time.monotonic()
        resend = self.inbox.missing(stream) and now - self._asked > min(0.2, self._retry)
        if resend:
            self._asked = now
        self._send(self.inbox.ack(stream, resend=resend))

    def _deliver(self, f: wire.Frame) -> None:
        cls = wire.MESSAGES.get(f.type)
        if cls is not None and self._sink is not None:
            try:
                self._sink(f, wire.decode(cls, f.body))
            except wire.WireError as error:
                raise LinkError(f"the agent sent nonsense ({error})", where=self.where) from None

    def _persist(self, work: Callable[[float], B], patience_s: float = 0.0) -> B:
        """Runs `work(end)`; on a lost link connects again and repeats it."""
        patience_s = patience_s or self._patience
        end = time.monotonic() + patience_s
        while True:
            try:
                return work(end)
            except LinkDown:
                if time.monotonic() >= end:
                    raise
                self.hello = self._connect(self.hello.boot)
                self.reconnects += 1
                end = time.monotonic() + patience_s

    # ---- commands ----

    def command(self, op: wire.Command, *, data: bytes = b"", **args: int) -> wire.Result:
        """Sends a command and returns its RESULT.  Raises PackageError where it is refused."""
        self._ctr += 1
        cmd = wire.Cmd(self._ctr, op, data=data, **args)
        result = self._persist(
            lambda end: self._wait(
                wire.Result, lambda: self._send(cmd), end, lambda r: r.ctr == cmd.ctr
            ),
            self._slow if op in _COMPUTES else self._patience,
        )
        if result.code != wire.Code.OK:
            raise PackageError(self._why(result), where=f"{self.hello.name} {op.name.lower()}")
        return result

    def _why(self, result: wire.Result) -> str:
        code = _code(result.code)
        if result.data:
            return wire.clean(result.data)
        if code is wire.Code.STATUS:
            return status_text(result.status)
        return REASONS.get(code, code.name)

    def ping(self) -> float:
        """Round trip in seconds."""
        begin = time.monotonic()
        mark = time.monotonic_ns()
        self._persist(
            lambda end: self._wait(
                wire.SyncReply, lambda: self._send(wire.Sync(mark)), end, lambda r: r.t1 == mark
            )
        )
        return time.monotonic() - begin

    def upload(self, package: bytes, progress: Callable[[int], None] | None = None) -> int:
        """Sends a package, going on where an earlier attempt stopped; bytes sent now."""
        digest = hashlib.sha256(package).digest()
        ident = int.from_bytes(digest[:4], "little")
        sent = 0

        def attempt(end: float) -> wire.XferAck:
            nonlocal sent
            begin = wire.XferBegin(digest, len(package))
            ack = self._xfer(lambda: self._send(begin), ident, end)
            while not ack.done and ack.offset < len(package):
                ack, count = self._burst(package, ident, ack, end)
                sent += count
                end = time.monotonic() + self._patience
                if progress:
                    progress(ack.offset)
            if ack.done:
                return ack
            return self._xfer(lambda: self._send(wire.XferEnd(ident)), ident, end, final=True)

        self._persist(attempt)
        return sent

    def _xfer(
        self, send: Callable[[], None], ident: int, end: float, final: bool = False
    ) -> wire.XferAck:
        ack = self._wait(
            wire.XferAck, send, end, lambda a: a.id == ident and bool(a.code or a.done or not final)
        )
        if ack.code != wire.Code.OK:
            code = _code(ack.code)
            text = wire.clean(ack.text) or REASONS.get(code, code.name)
            raise PackageError(text, where=f"{self.hello.name} upload")
        return ack

    def _burst(
        self, package: bytes, ident: int, ack: wire.XferAck, end: float
    ) -> tuple[wire.XferAck, int]:
        """Keeps one window of data in flight until its end or silence; newest ack, bytes sent."""
        chunk = self.hello.max_body - wire.LAYOUTS[wire.XferData].struct.size
        at, count = ack.offset, 0
        while ack.offset < len(package):
            limit = min(ack.offset + max(ack.window, chunk), len(package))
            while at < limit:
                piece = package[at : min(at + chunk, limit)]
                self._send(wire.XferData(ident, 0, at, piece))
                at += len(piece)
                count += len(piece)
            try:
                quiet = self._retry + self._line_s(max(ack.window, chunk) + chunk)
                newer = self._xfer(lambda: None, ident, min(end, time.monotonic() + quiet))
            except LinkDown:
                if self._link is None or time.monotonic() >= end:
                    raise
                break  # silence: go back to what is acknowledged
            if newer.done:
                return newer, count
            if newer.offset > ack.offset:
                end = time.monotonic() + self._patience
                ack = newer
        return self._xfer(
            lambda: self._send(wire.XferBegin(_sha(package), len(package))), ident, end
        ), count

    def open(
        self,
        source: wire.Source = wire.Source.UPLOADED,
        *,
        threads: int = 1,
        isa_mask: int = 0,
    ) -> wire.PackageInfo:
        """Opens the uploaded or the resident package."""
        self.command(wire.Command.OPEN, index=source, count=threads, flags=isa_mask)
        return self.info(wire.PackageInfo, wire.Info.PACKAGE)

    def verify(self, source: wire.Source = wire.Source.UPLOADED) -> int:
        """Checks every CRC on the device; CRC-32 of the package's bytes."""
        return self.command(wire.Command.VERIFY, index=source).value

    def selftest(self) -> None:
        """Runs the package's golden vectors on the device.  Raises PackageError."""
        self.command(wire.Command.SELFTEST)

    def info(self, kind: type[B], what: wire.Info, index: int = 0, entry: int = 0) -> B:
        """One record about the open package."""
        r = self.command(wire.Command.INFO, index=what, offset=index, entry=entry)
        return wire.decode(kind, r.data)

    def entry(self, entry: int = 0) -> wire.EntryInfo:
        """Name and numbers of inputs and outputs."""
        return self.info(wire.EntryInfo, wire.Info.ENTRY, entry=entry)

    def ops(self) -> list[wire.OpInfo]:
        """Every op of the open package."""
        count = self.info(wire.PackageInfo, wire.Info.PACKAGE).ops
        return [self.info(wire.OpInfo, wire.Info.OP, i) for i in range(count)]

    def set_input(self, index: int, data: bytes, entry: int = 0) -> None:
        """Gives the bytes of one input.  Raises DataError where their number is wrong."""
        chunk = self.hello.max_body - wire.LAYOUTS[wire.Cmd].struct.size
        for at in range(0, len(data), chunk):
            r = self.command(
                wire.Command.SET_INPUT,
                entry=entry,
                index=index,
                offset=at,
                data=data[at : at + chunk],
            )
            if r.total != len(data):
                raise DataError(f"input {index} has {r.total} bytes, {len(data)} were given")

    def run(self, entry: int = 0, *, stop_after: int = -1) -> int:
        """One inference; its time in clock units.  ``stop_after``: op after which it ends."""
        limit = int(self._slow * 1000)
        r = self.command(wire.Command.RUN, entry=entry, count=stop_after + 1, limit_ms=limit)
        return r.value

    def output(self, index: int, entry: int = 0) -> bytes:
        """Bytes of one output after `run`."""
        return self._read(wire.Command.GET_OUTPUT, index, entry)

    def tensor(self, index: int) -> bytes:
        """Bytes of any tensor; an intermediate one directly after `run(stop_after=its op)`."""
        return self._read(wire.Command.GET_TENSOR, index, 0)

    def _read(self, op: wire.Command, index: int, entry: int) -> bytes:
        out = bytearray()
        while True:
            r = self.command(op, index=index, entry=entry, offset=len(out), count=1 << 30)
            out += r.data
            if len(out) >= r.total:
                break
            if not r.data:
                raise LinkError("the agent sends no bytes", where=self.where)
        if zlib.crc32(out) != r.value:
            raise LinkError("the tensor changed while it was read", where=self.where)
        return bytes(out)

    @contextlib.contextmanager
    def sink(self, take: Callable[[wire.Frame, wire.Body], None]) -> Iterator[None]:
        """Within: every data frame goes to `take`, in order, once, before it is acknowledged."""
        self._sink = take
        try:
            yield
        finally:
            self._sink = None

    def follow(self, done: Callable[[], bool], limit_s: float) -> None:
        """Takes data frames until `done()`; raises LinkError after `limit_s`."""
        end = time.monotonic() + limit_s
        while not done():
            self._persist(lambda _: self._listen())
            if time.monotonic() > end:
                raise LinkError(f"not finished within {limit_s:g} s", where=self.where)

    def _listen(self) -> wire.Body:
        self._pump(min(0.25, self._retry))
        self._take(wire.Bye, lambda _: False)  # what is refused now tells of a restarted device
        now = time.monotonic()
        if now - max(self._sent, self._heard) > 2 * self._retry:
            # tells that we live, and fetches what was lost on the line
            self._send(self.inbox.ack(wire.STREAM_RUN, resend=True))
        return wire.Bye(0)


def _sha(package: bytes) -> bytes:
    return hashlib.sha256(package).digest()


def _code(value: int) -> wire.Code:
    try:
        return wire.Code(value)
    except ValueError:
        return wire.Code.INTERNAL


def status_text(status: int) -> str:
    """A sentence for an `ek_status`."""
    at = ("", " op", " tensor", " section", " entry", " memory")
    code, kind, index = status & 0xFF, status >> 8 & 0xF, status >> 12
    name = _STATUS[code] if code < len(_STATUS) else str(code)
    place = f" (at{at[kind]} {index})" if 0 < kind < len(at) else ""
    return f"the runtime refuses: {name}{place}"

"""Byte links to a device (TCP, serial line) and exactly-once delivery of what it sends.

A link has one narrow door, ``Link``; a socket pair is its in-memory twin.  pyserial is imported
only when a serial line is opened.
"""

from __future__ import annotations

import contextlib
import select
import socket
from typing import Any, Protocol
from urllib.parse import urlsplit

from . import wire
from .errors import LinkError, UsageError

HOLD = 32  # frames kept while an earlier one is missing: the width of Ack.bitmap


class LinkDown(LinkError):
    """The link is gone; a new one may be made."""


class Link(Protocol):
    """What every transport offers."""

    framing: wire.Framing
    name: str
    byte_s: float  # what one byte takes on the line, seconds; 0: too little to matter

    def read(self, timeout_s: float) -> bytes:
        """Bytes at hand, at the latest after `timeout_s`; b"" if none.  Raises LinkDown."""

    def write(self, data: bytes) -> None:
        """Sends all of `data`.  Raises LinkDown."""

    def fileno(self) -> int:
        """Descriptor to wait for, -1 if there is none."""

    def close(self) -> None:
        """Gives the link up."""


class SocketLink:
    """A connected stream socket."""

    byte_s = 0.0

    def __init__(
        self, sock: socket.socket, name: str = "", framing: wire.Framing = wire.Framing.LENGTH
    ) -> None:
        self._sock, self.name, self.framing = sock, name, framing
        sock.settimeout(10.0)

    def read(self, timeout_s: float) -> bytes:
        try:
            if not select.select([self._sock], [], [], max(timeout_s, 0))[0]:
                return b""
            data = self._sock.recv(1 << 16)
        except (OSError, ValueError) as error:
            raise LinkDown(f"connection lost ({error})", where=self.name) from None
        if not data:
            raise LinkDown("the other side closed the connection", where=self.name)
        return data

    def write(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except (OSError, ValueError) as error:
            raise LinkDown(f"connection lost ({error})", where=self.name) from None

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


class SerialLink:
    """A serial line, opened by pyserial (ports, pseudo-terminals and its URLs)."""

    framing = wire.Framing.COBS

    def __init__(self, port: str, baud: int) -> None:
        try:
            import serial
        except ImportError:
            raise LinkError(
                "serial lines need pyserial", where=port, todo="pip install 'edgekit[serial]'"
            ) from None
        self.name, self.byte_s = port, 10.0 / max(baud, 1)
        try:
            self._port: Any = serial.serial_for_url(
                port, baudrate=baud, timeout=0, write_timeout=10
            )
        except (OSError, ValueError) as error:
            raise LinkDown(f"cannot be opened ({error})", where=port) from None

    def read(self, timeout_s: float) -> bytes:
        try:
            waiting = self._port.in_waiting
            if not waiting:
                self._port.timeout = max(timeout_s, 0)
                first: bytes = self._port.read(1)
                waiting = self._port.in_waiting if first else 0
            else:
                first = b""
            self._port.timeout = 0
            return first + bytes(self._port.read(waiting)) if waiting else first
        except (OSError, TypeError) as error:  # SerialException is an OSError
            raise LinkDown(f"the serial line is gone ({error})", where=self.name) from None

    def write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except (OSError, TypeError) as error:
            raise LinkDown(f"the serial line is gone ({error})", where=self.name) from None

    def fileno(self) -> int:
        try:
            return int(self._port.fileno())
        except (AttributeError, OSError):
            return -1

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._port.close()


def open_link(url: str, timeout_s: float = 5.0) -> Link:
    """Opens ``tcp://host:port``, ``serial:///dev/ttyX[?baud=115200]`` or ``serial+tcp://host:port``.

    The last is a serial line carried over TCP (QEMU's UART, ser2net): COBS frames, raw bytes.
    Raises LinkDown where nothing answers, UsageError for another URL.
    """
    parts = urlsplit(url)
    if parts.scheme in ("tcp", "serial+tcp"):
        framing = wire.Framing.LENGTH if parts.scheme == "tcp" else wire.Framing.COBS
        try:
            if not parts.hostname or not parts.port:
                raise ValueError
        except ValueError:
            raise UsageError("needs a host and a port", where=url, todo="tcp://host:port") from None
        try:
            sock = socket.create_connection((parts.hostname, parts.port), timeout_s)
        except OSError as error:
            raise LinkDown(
                f"no connection ({error})", where=url, todo="is the agent running there?"
            ) from None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return SocketLink(sock, url, framing)
    if parts.scheme == "serial" and parts.path:
        baud = dict(p.split("=", 1) for p in parts.query.split("&") if "=" in p).get(
            "baud", "115200"
        )
        if not baud.isdigit():
            raise UsageError(f"baud={baud} is not a number", where=url)
        return SerialLink(parts.path, int(baud))
    raise UsageError(
        "not a link", where=url, todo="use tcp://host:port or serial:///dev/ttyX?baud=115200"
    )


class Inbox:
    """Puts a device's streams in order: every frame once, none twice, whatever the link does.

    The key of a frame is (boot, stream, seq); a new boot starts anew.
    """

    def __init__(self, boot: int = 0) -> None:
        self.boot = boot
        self._next: dict[int, int] = {}
        self._held: dict[int, dict[int, wire.Frame]] = {}
        self.duplicates = 0

    def restart(self, boot: int) -> None:
        """Forgets everything if the device has restarted."""
        if boot != self.boot:
            self.__init__(boot)  # type: ignore[misc]

    def accept(self, f: wire.Frame) -> list[wire.Frame]:
        """Frames that are now in order, `f` perhaps among them."""
        due = self._next.setdefault(f.stream, 1)
        held = self._held.setdefault(f.stream, {})
        ahead = f.seq - due
        if ahead < 0 or f.seq in held:
            self.duplicates += 1
            return []
        if ahead > HOLD:
            return []  # will be sent again: it was not acknowledged
        held[f.seq] = f
        ready = []
        while due in held:
            ready.append(held.pop(due))
            due += 1
        self._next[f.stream] = due
        return ready

    def missing(self, stream: int) -> bool:
        """Whether later frames wait for an earlier one."""
        return bool(self._held.get(stream))

    def ack(self, stream: int, *, resend: bool = False) -> wire.Ack:
        """What to tell the device about `stream`."""
        seq = self._next.get(stream, 1) - 1
        bitmap = sum(1 << (s - seq - 1) for s in self._held.get(stream, {}) if s - seq - 1 < 32)
        return wire.Ack(stream, wire.ACK_RESEND if resend else 0, seq, bitmap)

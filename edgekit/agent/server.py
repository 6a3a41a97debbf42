"""Serves a device to hosts over TCP or a serial line: one host at a time, one thread."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .. import wire
from ..errors import LinkError, UsageError
from ..link import Link, LinkDown, SocketLink, open_link
from .device import READY, Device, Peer
from .runner import Limits

TICK_S = 0.05
HANDSHAKE_S = 5.0
SILENCE_S = 10.0  # after this another host may take the place of one that went away


def serve(
    host: str,
    port: int,
    token: bytes,
    sysroot: str | Path = "/",
    work_dir: str | Path = "edgekit-agent",
    *,
    name: str = "",
    limits: Limits | None = None,
    stop: threading.Event | None = None,
    ready: Callable[[int], None] | None = None,
) -> None:
    """Serves TCP until `stop` is set.  ``ready`` is called with the port that is listened on.

    Raises UsageError without a token, LinkError where the address cannot be had.
    """
    if len(token) < 8:
        raise UsageError("TCP needs a token of at least 8 bytes", todo="give --token-file FILE")
    device = Device(
        Path(work_dir),
        token=token,
        sysroot=sysroot,
        name=name or socket.gethostname(),
        limits=limits,
    )
    try:
        listener = socket.create_server((host, port), backlog=4)
    except OSError as error:
        raise LinkError(f"cannot listen ({error.strerror})", where=f"{host}:{port}") from None
    with contextlib.closing(listener):
        if ready:
            ready(listener.getsockname()[1])
        Server(device, listener, stop or threading.Event()).loop()


def serve_serial(
    url: str,
    token: bytes = b"",
    sysroot: str | Path = "/",
    work_dir: str | Path = "edgekit-agent",
    *,
    name: str = "",
    limits: Limits | None = None,
    stop: threading.Event | None = None,
    ready: Callable[[], None] | None = None,
) -> None:
    """Serves a serial line (``serial:///dev/ttyX?baud=115200``); a lost line is opened again."""
    device = Device(
        Path(work_dir),
        token=token,
        sysroot=sysroot,
        name=name or socket.gethostname(),
        max_body=1008,
        limits=limits,
    )
    server = Server(device, None, stop or threading.Event())
    server.adopt(open_link(url))  # a wrong name is an error now, not a silent wait
    if ready:
        ready()
    server.loop(lambda: open_link(url))


class Server:
    """The loop: bytes of the host, words of the child, sensors, a host that waits its turn."""

    def __init__(
        self, device: Device, listener: socket.socket | None, stop: threading.Event
    ) -> None:
        self.device, self.listener, self.stop = device, listener, stop

    def loop(self, reopen: Callable[[], Link] | None = None) -> None:
        """Runs until `stop`."""
        try:
            while not self.stop.is_set():
                self.turn(reopen)
        finally:
            self.device.stop()
            self.drop()

    def turn(self, reopen: Callable[[], Link] | None) -> None:
        """Waits for something and deals with it."""
        if self.device.peer is None and reopen is not None:
            try:
                self.adopt(reopen())
            except LinkError:
                self.stop.wait(0.5)
        self.wait()
        try:
            if self.device.peer is not None:
                data = self.device.peer.link.read(0)
                if data:
                    self.device.peer.feed(data)
            self.device.work()
        except (LinkDown, wire.WireError):
            self.drop()
        self.rotate()

    def wait(self) -> None:
        """Until a byte, a word of the child or a host comes, or a tick is over."""
        peer, runner = self.device.peer, self.device.runner
        watched = [peer.link.fileno()] if peer else []
        if runner is not None and not self.device.queue.full:
            watched.append(runner.fileno())
        if self.listener is not None and peer is None:
            watched.append(self.listener.fileno())
        if any(fd < 0 for fd in watched) or not watched:  # a link without descriptor is polled
            time.sleep(0.005)
            return
        with contextlib.suppress(OSError, ValueError):
            select.select(watched, [], [], TICK_S)

    def adopt(self, link: Link) -> None:
        """A new link; the session goes on if the host proves to be the same."""
        self.drop()
        self.device.peer = Peer(self.device, link)

    def drop(self) -> None:
        """Forgets the link; queue, upload and benchmark stay."""
        if self.device.peer is not None:
            self.device.peer.link.close()
            self.device.peer = None

    def rotate(self) -> None:
        """Takes the next host if there is none or the present one is silent or proves nothing."""
        if self.listener is None:
            return
        peer, now = self.device.peer, time.monotonic()
        waiting = bool(select.select([self.listener], [], [], 0)[0])
        if peer is not None:
            dumb = peer.state != READY and now - peer.started > HANDSHAKE_S
            silent = now - peer.heard > SILENCE_S
            if not dumb and not (silent and waiting):
                return
            self.drop()
        if waiting:
            sock, address = self.listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.adopt(SocketLink(sock, f"{address[0]}:{address[1]}"))

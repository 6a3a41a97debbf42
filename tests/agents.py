"""Agents, links and packages for the tests of the agent."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import select
import socket
import subprocess
import tempfile
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgekit import boards, pipeline, toolchain
from edgekit.agent import Limits, serve
from edgekit.ir import Graph, Tensor

TOKEN = b"a token of the tests"


@functools.cache
def package(board: str = "host", keep: bool = False) -> bytes:
    """A float net of two ops, x (1, 64) -> y (1, 10), about 12 KB."""
    g, rng = Graph("tiny"), np.random.default_rng(1)
    g.add_tensor(Tensor("x", (1, 64)))
    g.inputs.append("x")

    def weights(name: str, *shape: int) -> str:
        return g.const(name, rng.standard_normal(shape).astype(np.float32))

    h = g.emit("linear", ("x", weights("w1", 32, 64), weights("b1", 32)), name="fc1")
    g.emit("linear", (h, weights("w2", 10, 32), weights("b2", 10)), name="fc2", outputs=("y",))
    g.outputs.append("y")
    return pipeline.package_graph(g, pipeline.target_of(boards.load(board)), keep=keep)


@contextlib.contextmanager
def python_agent(
    folder: Path, sysroot: str | Path = "/", limits: Limits | None = None
) -> Iterator[str]:
    """The Python agent on loopback TCP, in a thread; its URL."""
    ready, stop, ports = threading.Event(), threading.Event(), [0]

    def said(port: int) -> None:
        ports[0] = port
        ready.set()

    thread = threading.Thread(
        target=serve,
        args=("127.0.0.1", 0, TOKEN, sysroot, folder),
        kwargs={"name": "py", "stop": stop, "ready": said, "limits": limits},
        daemon=True,
    )
    thread.start()
    assert ready.wait(10)
    try:
        yield f"tcp://127.0.0.1:{ports[0]}"
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


@contextlib.contextmanager
def program_agent(*command: str, options: tuple[str, ...] = ()) -> Iterator[str]:
    """A program that speaks like edgekit-agent, on loopback TCP; its URL."""
    env = {**os.environ, "EDGEKIT_TOKEN": TOKEN.decode()}
    line = [*command, "--listen", "127.0.0.1:0", "--name", "prog", *options]
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, env=env, text=True)
        assert child.stdout is not None
        try:
            first = child.stdout.readline()
            log.seek(0)
            assert first.startswith("listening on "), log.read().decode()
            yield f"tcp://127.0.0.1:{first.split()[-1]}"
        finally:
            child.terminate()
            child.wait(10)
            child.stdout.close()


def c_program() -> str:
    """edgekit-agent for this machine."""
    return str(toolchain.agent_program(boards.load("host")))


@contextlib.contextmanager
def agent(kind: str, folder: Path, sysroot: str | Path = "/") -> Iterator[str]:
    """An agent of either implementation."""
    if kind == "python":
        with python_agent(folder, sysroot) as url:
            yield url
    else:
        with program_agent(c_program(), options=("--sysroot", str(sysroot))) as url:
            yield url


class Proxy:
    """TCP in front of an agent that cuts connections after seeded numbers of bytes.

    Half of the cuts lose what is under way (reset), half close in order.  ``cuts``: how many.
    """

    def __init__(self, url: str, *, seed: int, every: int, cuts: int) -> None:
        self._port = int(url.rsplit(":", 1)[1])
        self._random, self._every, self.left = random.Random(seed), every, cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)
        self._listener.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            if select.select([self._listener], [], [], 0.02)[0]:
                near = self._listener.accept()[0]
                with near, socket.create_connection(("127.0.0.1", self._port)) as far:
                    self._relay(near, far)

    def _relay(self, near: socket.socket, far: socket.socket) -> None:
        budget = self._random.randrange(self._every // 2, self._every * 2)
        while not self._stop.is_set():
            for source in select.select([near, far], [], [], 0.02)[0]:
                target = far if source is near else near
                try:
                    data = source.recv(4096)
                    if not data:
                        return
                    budget -= len(data)
                    if budget < 0 and self.left > 0:
                        self.left -= 1
                        if self._random.random() < 0.5:
                            target.sendall(data[: len(data) // 2])  # ends within a frame
                        return
                    target.sendall(data)
                except OSError:
                    return


@contextlib.contextmanager
def wire_pair(noise: float = 0.0, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Two pseudo-terminals joined like a serial cable; ``noise``: share of damaged bytes."""
    rng, stop = random.Random(seed), threading.Event()
    ends = [os.openpty() for _ in range(2)]
    for _, slave in ends:
        tty.setraw(slave)
    masters = [m for m, _ in ends]

    def carry() -> None:
        while not stop.is_set():
            for fd in select.select(masters, [], [], 0.02)[0]:
                other = masters[1 - masters.index(fd)]
                try:
                    data = bytearray(os.read(fd, 4096))
                except OSError:
                    return
                if noise:
                    spoil(data, noise, rng)
                os.write(other, data)

    thread = threading.Thread(target=carry, daemon=True)
    thread.start()
    try:
        yield os.ttyname(ends[0][1]), os.ttyname(ends[1][1])
    finally:
        stop.set()
        thread.join(5)
        for pair in ends:
            for fd in pair:
                os.close(fd)


def spoil(data: bytearray, share: float, rng: random.Random) -> None:
    """Flips, drops and inserts bytes in place."""
    for at in range(len(data) - 1, -1, -1):
        if rng.random() < share:
            how = rng.randrange(3)
            if how == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif how == 1:
                del data[at]
            else:
                data.insert(at, rng.randrange(256))

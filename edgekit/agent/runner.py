"""The parent's side of the process that runs a package: start, commands, time limit, death."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from .. import wire


@dataclass(frozen=True)
class Limits:
    """What a package may use; 0 bytes: as much as the system gives."""

    time_s: float = 600.0
    memory_bytes: int = 0


class Runner:
    """One child process with one package."""

    def __init__(self, package: Path, max_body: int, limits: Limits) -> None:
        self.limits, self.limit_s, self.deadline = limits, limits.time_s, 0.0
        self._reader = wire.Reader(wire.Framing.LENGTH)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._left = 0.0
        cpu = int(limits.time_s * (os.cpu_count() or 1)) + 1
        numbers = [str(x) for x in (max_body, limits.memory_bytes, cpu)]
        command = [sys.executable, "-m", f"{__package__}.child", str(package), *numbers]
        env = {k: v for k, v in os.environ.items() if not k.startswith("EDGEKIT_TOKEN")}
        root = str(Path(__file__).resolve().parents[2])
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [root, env.get("PYTHONPATH", "")]))
        env.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy does nothing here but copy
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=env,
            start_new_session=True,
        )
        assert self._child.stdin is not None and self._child.stdout is not None
        self._in, self._out = self._child.stdin, self._child.stdout

    def fileno(self) -> int:
        """Readable when the child has said something or died."""
        return self._out.fileno()

    def send(self, cmd: wire.Cmd) -> None:
        """Hands a command over and starts its time limit."""
        limit = cmd.limit_ms / 1000 if cmd.limit_ms else self.limits.time_s
        self.limit_s = min(limit, self.limits.time_s)
        self.deadline = time.monotonic() + self.limit_s
        with contextlib.suppress(OSError):  # a dead child is noticed when its output ends
            self._in.write(wire.wrap(wire.frame(cmd), wire.Framing.LENGTH))
            self._in.flush()

    def read(self) -> list[wire.Frame] | None:
        """Frames at hand; None when the child is gone."""
        if not select.select([self._out], [], [], 0)[0]:
            return []
        data = os.read(self._out.fileno(), 1 << 16)
        if not data:
            return None
        try:
            return self._reader.feed(data)
        except wire.WireError:  # not our child any more
            self.kill()
            return None

    @property
    def late(self) -> bool:
        """Whether the time limit is over."""
        self._left = self.deadline - time.monotonic()
        return bool(self.deadline) and self._left < 0

    def hold(self) -> None:
        """Stops the clock of the time limit: the child waits for a host that is away."""
        if self.deadline:
            self.deadline = time.monotonic() + max(self._left, 0.1)

    def kill(self) -> None:
        """Ends the child and whatever it started."""
        with contextlib.suppress(OSError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        for f in (self._in, self._out):
            with contextlib.suppress(OSError):
                f.close()

    def epitaph(self) -> str:
        """Why a dead child died."""
        code = self._child.wait()
        self._errors.seek(0)
        lines = self._errors.read()[-4000:].decode(errors="replace").strip().splitlines()
        if code >= 0:
            return f"exit code {code}: {lines[-1] if lines else 'no message'}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(-code)
        return f"killed by {name}"


def emulated() -> bool:
    """Under qemu-user the process is named after the emulator, whatever /proc/self/exe says."""
    try:
        return Path("/proc/self/comm").read_text().startswith("qemu-")
    except OSError:
        return False

"""Packages received from a host: written to a temporary file, checked, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from .. import wire


class Store:
    """A folder of packages named by their SHA-256; at most one is being received."""

    def __init__(self, folder: Path, window: int = 1 << 18) -> None:
        self.folder, self.window = folder, window
        folder.mkdir(parents=True, exist_ok=True)
        self.package: Path | None = None
        self._begin: wire.XferBegin | None = None
        self._ident = self._offset = 0
        self._hash = hashlib.sha256()
        self._file: int | None = None

    def begin(self, m: wire.XferBegin) -> wire.XferAck:
        """Starts an upload, or goes on with one that stopped; also after a restart of the agent."""
        if self._begin == m and self._file is not None:
            return self._ack()
        self._close()
        self._begin, self._ident = m, int.from_bytes(m.sha256[:4], "little")
        self._offset, self._hash = 0, hashlib.sha256()
        done = self.folder / f"{m.sha256.hex()}.ekp"
        if done.is_file() and done.stat().st_size == m.size and _sha256(done) == m.sha256:
            self.package, self._offset = done, m.size
            return self._ack(done=True)
        try:
            self._resume(m)
            free = self._make_room(m.size - self._offset)
        except OSError as error:
            return self._fail(f"{self.folder} cannot be written ({error.strerror})")
        if free < m.size - self._offset:
            return self._fail(f"disk full: {m.size} bytes to come, {free} free")
        return self._ack()

    def _resume(self, m: wire.XferBegin) -> None:
        part = self._part()
        self._file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        have = os.fstat(self._file).st_size
        if have > m.size:
            os.ftruncate(self._file, 0)
            have = 0
        while self._offset < have:
            block = os.read(self._file, 1 << 16)
            self._hash.update(block)
            self._offset += len(block)

    def _make_room(self, wanted: int) -> int:
        """Free bytes, after deleting the oldest packages where that makes enough of them."""
        packages = sorted(self.folder.glob("*.ekp"), key=lambda p: p.stat().st_mtime)
        old = [p for p in packages if p != self.package]
        free = shutil.disk_usage(self.folder).free
        if free + sum(p.stat().st_size for p in old) < wanted:
            return free
        while free < wanted and old:
            old.pop(0).unlink()
            free = shutil.disk_usage(self.folder).free
        return free

    def data(self, m: wire.XferData) -> wire.XferAck:
        """Appends bytes that continue what is there; others only repeat the acknowledgement."""
        if self._begin is None or m.id != self._ident:
            return wire.XferAck(m.id, wire.Code.NO_PACKAGE, 0, 0, 0)
        if self._file is None:
            return self._ack(done=self.package is not None)
        if m.offset == self._offset and len(m.data) <= self._begin.size - self._offset:
            try:
                written = 0
                while written < len(m.data):
                    written += os.write(self._file, m.data[written:])
            except OSError as error:
                return self._fail(f"disk full or not writable ({error.strerror})")
            self._hash.update(m.data)
            self._offset += len(m.data)
        return self._ack()

    def end(self, m: wire.XferEnd) -> wire.XferAck:
        """Takes the package if all bytes are there and have the announced SHA-256."""
        if self._begin is None or m.id != self._ident:
            return wire.XferAck(m.id, wire.Code.NO_PACKAGE, 0, 0, 0)
        if self._file is None:
            return self._ack(done=self.package is not None)
        if self._offset < self._begin.size:
            return self._ack()
        if self._hash.digest() != self._begin.sha256:
            return self._fail("the bytes arrived damaged", wire.Code.HASH)
        try:
            os.fsync(self._file)
            target = self.folder / f"{self._begin.sha256.hex()}.ekp"
            os.replace(self._part(), target)
        except OSError as error:
            return self._fail(f"cannot be stored ({error.strerror})")
        self._close()
        self.package = target
        return self._ack(done=True)

    def _part(self) -> Path:
        assert self._begin is not None
        return self.folder / f"{self._begin.sha256.hex()}.part"

    def _ack(self, *, done: bool = False) -> wire.XferAck:
        return wire.XferAck(self._ident, wire.Code.OK, int(done), self._offset, self.window)

    def _fail(self, text: str, code: wire.Code = wire.Code.NO_SPACE) -> wire.XferAck:
        self._close()
        with contextlib.suppress(OSError):
            self._part().unlink()
        self._begin = None
        return wire.XferAck(self._ident, code, 0, 0, 0, wire.cut(text, wire.TEXT_MAX))

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _sha256(path: Path) -> bytes:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").digest()

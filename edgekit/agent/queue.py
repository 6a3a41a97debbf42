"""Frames that the host has not acknowledged, in memory: they survive the link, not the power."""

from __future__ import annotations

from .. import wire


class Queue:
    """Numbers frames per stream and keeps them until they are acknowledged."""

    def __init__(self, limit_bytes: int = 4 << 20) -> None:
        self.limit, self.bytes = limit_bytes, 0
        self._frames: dict[int, dict[int, wire.Frame]] = {}
        self._next: dict[int, int] = {}

    @property
    def full(self) -> bool:
        """Whether producers must wait: nothing is dropped to make room."""
        return self.bytes >= self.limit

    def put(self, stream: int, kind: int, body: bytes, t: int) -> wire.Frame:
        """Numbers and keeps a frame; the caller sends it."""
        seq = self._next.get(stream, 1)
        self._next[stream] = seq + 1
        f = wire.Frame(kind, body, stream, seq, t)
        self._frames.setdefault(stream, {})[seq] = f
        self.bytes += len(body) + wire.OVERHEAD
        return f

    def acknowledge(self, ack: wire.Ack) -> list[wire.Frame]:
        """Forgets what was processed; frames to send again, if that is asked for."""
        frames = self._frames.get(ack.stream, {})
        if ack.seq >= self._next.get(ack.stream, 1):
            return []  # speaks of frames we never sent
        for seq in [s for s in frames if s <= ack.seq]:
            self.bytes -= len(frames.pop(seq).body) + wire.OVERHEAD
        if not ack.flags & wire.ACK_RESEND:
            return []
        have = {ack.seq + 1 + i for i in range(32) if ack.bitmap >> i & 1}
        return [f for s, f in frames.items() if s not in have]

    def pending(self) -> list[wire.Frame]:
        """Everything not acknowledged, oldest first."""
        return [f for frames in self._frames.values() for f in frames.values()]

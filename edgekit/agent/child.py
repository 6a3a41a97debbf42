"""The process that runs a package for the agent: commands on stdin, results and samples on stdout.

It speaks the frames of the wire (length framing) with its parent and nothing with the network.  A
package that crashes, hangs or eats memory takes this process with it, not the agent.
"""

from __future__ import annotations

import select
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from edgekit_runtime import EdgeKitRuntimeError, Session, _native, verify
from edgekit_runtime.session import DTYPES, TensorInfo

from .. import wire
from .runner import emulated

CODES = {dtype: code for code, dtype in DTYPES.items()}
PACKED = 11  # ek_dtype of weights in a kernel's layout
Handler = Callable[[wire.Cmd], wire.Result]


class Refused(Exception):
    """A command that cannot be done; becomes the code and text of its RESULT."""

    def __init__(self, code: wire.Code, text: str = "") -> None:
        super().__init__(text)
        self.code, self.text = code, text


class Engine:
    """Executes commands on one package."""

    def __init__(self, path: str, max_body: int, source: BinaryIO, sink: BinaryIO) -> None:
        self.path, self.max_body, self.source, self.sink = path, max_body, source, sink
        self.reader = wire.Reader(wire.Framing.LENGTH)
        self.session: Session | None = None
        self.threads = 1
        self.isa: list[str] | None = None
        self.timed = not emulated()
        self.inputs: dict[tuple[int, int], bytearray] = {}
        self.cancelled = False
        self.handlers: dict[int, Handler] = {
            wire.Command.OPEN: self.open,
            wire.Command.VERIFY: self.verify,
            wire.Command.INFO: self.info,
            wire.Command.SET_INPUT: self.set_input,
            wire.Command.RUN: self.run,
            wire.Command.GET_OUTPUT: self.get_output,
            wire.Command.GET_TENSOR: self.get_tensor,
            wire.Command.BENCH: self.bench,
            wire.Command.SELFTEST: self.selftest,
            wire.Command.RESET: self.reset,
        }

    # ---- conversation ----

    def send(self, body: wire.Body, stream: int = wire.STREAM_CONTROL) -> None:
        """One frame to the parent; blocks while the parent's queue is full."""
        f = wire.frame(body, stream=stream, t=time.perf_counter_ns())
        self.sink.write(wire.wrap(f, wire.Framing.LENGTH))
        self.sink.flush()

    def take(self) -> list[wire.Cmd] | None:
        """Commands that have arrived; None at the end of input."""
        data = self.source.read1(1 << 16)  # type: ignore[attr-defined]
        if not data:
            return None
        return [wire.decode(wire.Cmd, f.body) for f in self.reader.feed(data)]

    def serve(self) -> None:
        """Executes commands until the input ends."""
        while (commands := self.take()) is not None:
            for cmd in commands:
                self.execute(cmd)

    def execute(self, cmd: wire.Cmd) -> None:
        """One command and its RESULT."""
        try:
            handler = self.handlers.get(cmd.op)
            if handler is None:
                raise Refused(wire.Code.UNKNOWN)
            result = handler(cmd)
        except Refused as error:
            result = self.refuse(cmd, error.code, error.text)
        except EdgeKitRuntimeError as error:
            result = self.refuse(cmd, wire.Code.STATUS, str(error))
        except MemoryError:
            result = self.refuse(cmd, wire.Code.NO_SPACE, "not enough memory")
        if cmd.op == wire.Command.BENCH and result.code == wire.Code.OK:
            return  # answered before it began
        self.send(result)

    @staticmethod
    def refuse(cmd: wire.Cmd, code: wire.Code, text: str) -> wire.Result:
        return wire.Result(cmd.ctr, cmd.op, code, data=wire.cut(text, wire.TEXT_MAX))

    @staticmethod
    def ok(cmd: wire.Cmd, **fields: Any) -> wire.Result:
        return wire.Result(cmd.ctr, cmd.op, wire.Code.OK, **fields)

    @property
    def opened(self) -> Session:
        if self.session is None:
            raise Refused(wire.Code.NO_SESSION)
        return self.session

    # ---- commands ----

    def open(self, cmd: wire.Cmd) -> wire.Result:
        """Checks every byte, then opens."""
        if self.session is not None:
            self.session.close()
            self.session = None
        verify(self.path)
        mask = cmd.flags or 0xFFFFFFFF
        names = [name for name, bit in _native.isa_bits().items() if mask >> bit & 1]
        self.isa = None if mask == 0xFFFFFFFF else names
        self.threads = max(cmd.count, 1)
        self.session = Session(self.path, threads=self.threads, isa=self.isa)
        self.inputs.clear()
        return self.ok(cmd)

    def verify(self, cmd: wire.Cmd) -> wire.Result:
        verify(self.path)
        crc = 0
        with open(self.path, "rb") as f:
            while block := f.read(1 << 20):
                crc = zlib.crc32(block, crc)
        return self.ok(cmd, value=crc)

    def info(self, cmd: wire.Cmd) -> wire.Result:
        s, at = self.opened, cmd.offset
        entry = self.entry(cmd.entry)
        lists: dict[int, Callable[[], Sequence[TensorInfo]]] = {
            wire.Info.INPUT: lambda: s.inputs(entry),
            wire.Info.OUTPUT: lambda: s.outputs(entry),
            wire.Info.TENSOR: s.tensors,
        }
        body: wire.Body
        if cmd.index == wire.Info.PACKAGE:
            body = self.package()
        elif cmd.index == wire.Info.ENTRY:
            body = wire.EntryInfo(len(s.inputs(entry)), len(s.outputs(entry)), s.entries[entry])
        elif cmd.index == wire.Info.OP:
            body = self.op(at)
        elif cmd.index in lists:
            body = tensor_info(self.pick(lists[cmd.index](), at))
        else:
            raise Refused(wire.Code.ARGUMENT, f"INFO knows no kind {cmd.index}")
        return self.ok(cmd, data=wire.encode(body))

    def entry(self, entry: int) -> int:
        if entry >= len(self.opened.entries):
            raise Refused(wire.Code.ARGUMENT, f"there is no entry {entry}")
        return entry

    @staticmethod
    def pick(things: Sequence[Any], index: int) -> Any:
        if index >= len(things):
            raise Refused(wire.Code.ARGUMENT, f"index {index} of {len(things)}")
        return things[index]

    def package(self) -> wire.PackageInfo:
        s = self.opened
        with open(self.path, "rb") as f:
            size = f.seek(0, 2)
        m = s.memory
        cpu = sum(1 << b for n, b in _native.isa_bits().items() if n in self.allowed())
        return wire.PackageInfo(
            len(s.entries),
            len(s.ops()),
            len(s.tensors()),
            s._counts.goldens,
            size,
            m["session"],
            m["main"],
            m["fast"],
            m["state"],
            m["scratch"],
            cpu,
            1,
        )

    def allowed(self) -> list[str]:
        have = _native.cpu_isas()
        return have if self.isa is None else [n for n in have if n in self.isa]

    def op(self, index: int) -> wire.OpInfo:
        o = self.pick(self.opened.ops(), index)
        names = [t.name for t in self.opened.tensors()]
        output = names.index(o.outputs[0]) if o.outputs and o.outputs[0] in names else 0xFFFFFFFF
        return wire.OpInfo(o.entry, 0, int(o.exact), output, o.type, o.isa, o.name)

    def set_input(self, cmd: wire.Cmd) -> wire.Result:
        t = self.pick(self.opened.inputs(self.entry(cmd.entry)), cmd.index)
        held = self.inputs.setdefault((cmd.entry, cmd.index), bytearray(size(t)))
        if cmd.offset + len(cmd.data) > len(held):
            raise Refused(wire.Code.ARGUMENT, f"input {t.name} has {len(held)} bytes")
        held[cmd.offset : cmd.offset + len(cmd.data)] = cmd.data
        return self.ok(cmd, total=len(held), offset=cmd.offset + len(cmd.data))

    def place_inputs(self, entry: int) -> None:
        """Writes the given inputs (zeros where none were given) for the next run."""
        s = self.opened
        values = {}
        for i, t in enumerate(s.inputs(entry)):
            raw = self.inputs.setdefault((entry, i), bytearray(size(t)))
            values[t.name] = np.frombuffer(raw, t.dtype).reshape(t.shape)
        s.set_inputs(values, entry)

    def once(self, entry: int) -> int:
        """One inference, ns around ek_run in C; 0 where time means nothing."""
        self.place_inputs(entry)
        taken = self.opened.time(1, entry)[0]
        return round(float(taken) * 1000) if self.timed else 0

    def run(self, cmd: wire.Cmd) -> wire.Result:
        if cmd.count:
            text = "this agent does not stop within a run: build the package to keep its tensors"
            raise Refused(wire.Code.ARGUMENT, text)
        return self.ok(cmd, value=self.once(self.entry(cmd.entry)))

    def read(self, cmd: wire.Cmd, name: str) -> wire.Result:
        data = self.opened.tensor(name).tobytes()
        room = self.max_body - wire.LAYOUTS[wire.Result].struct.size
        part = data[cmd.offset : cmd.offset + min(cmd.count, room)]
        crc = zlib.crc32(data)
        return self.ok(cmd, offset=cmd.offset, total=len(data), value=crc, data=part)

    def get_output(self, cmd: wire.Cmd) -> wire.Result:
        return self.read(cmd, self.pick(self.opened.outputs(self.entry(cmd.entry)), cmd.index).name)

    def get_tensor(self, cmd: wire.Cmd) -> wire.Result:
        return self.read(cmd, self.pick(self.opened.tensors(), cmd.index).name)

    def selftest(self, cmd: wire.Cmd) -> wire.Result:
        return self.ok(cmd, value=self.opened.selftest())

    def reset(self, cmd: wire.Cmd) -> wire.Result:
        self.opened.reset()
        return self.ok(cmd)

    # ---- benchmark ----

    def bench(self, cmd: wire.Cmd) -> wire.Result:
        """Answers at once, then streams samples, traces, figures and the end."""
        entry = self.entry(cmd.entry)
        if not cmd.count:
            raise Refused(wire.Code.ARGUMENT, "a benchmark needs at least one run")
        self.send(self.ok(cmd))
        self.cancelled = False
        code, text, done, traced = wire.Code.OK, "", 0, 0
        try:
            opened = self.reopen()
            first = self.once(entry)
            for _ in range(cmd.offset):
                self.once(entry)
                self.poll()
            done = self.measure(cmd, entry)
            if not self.cancelled:
                traced = self.trace(cmd, entry)
            self.figures(cmd.run, opened, first)
        except EdgeKitRuntimeError as error:
            code, text = wire.Code.STATUS, str(error)
        if self.cancelled:
            code = wire.Code.CANCELLED
        end = wire.RunEnd(cmd.run, code, 0, 0, done, traced, wire.cut(text, wire.TEXT_MAX))
        self.send(end, wire.STREAM_RUN)
        return self.ok(cmd)

    def reopen(self) -> int:
        """Opens the package anew; ns."""
        self.opened.close()
        begin = time.perf_counter_ns()
        self.session = Session(self.path, threads=self.threads, isa=self.isa)
        return time.perf_counter_ns() - begin

    def poll(self) -> None:
        """Looks for a CANCEL between two inferences."""
        if self.cancelled or not select.select([self.source], [], [], 0)[0]:
            return
        commands = self.take()
        self.cancelled = commands is None or any(c.op == wire.Command.CANCEL for c in commands)

    def measure(self, cmd: wire.Cmd, entry: int) -> int:
        """The measured loop, one block of samples at least every half second."""
        room = (self.max_body - wire.LAYOUTS[wire.Samples].struct.size) // 8
        block: list[int] = []
        first, done, begin = 0, 0, time.monotonic()
        self.send(wire.Mark(cmd.run, 1, 1, 0), wire.STREAM_RUN)
        while done < cmd.count and not self.cancelled:
            block.append(self.once(entry))
            done += 1
            if len(block) == room or time.monotonic() - begin > 0.5 or done == cmd.count:
                self.samples(cmd.run, first, block)
                block, first, begin = [], done, time.monotonic()
                self.poll()
        if block:
            self.samples(cmd.run, first, block)
        self.send(wire.Mark(cmd.run, 1, 2, done), wire.STREAM_RUN)
        return done

    def samples(self, run: int, first: int, block: list[int]) -> None:
        if not self.timed:
            return
        data = np.array(block, "<u8").tobytes()
        body = wire.Samples(run, wire.Channel.LATENCY, 8, wire.Quality.MEASURED, first, data)
        self.send(body, wire.STREAM_RUN)

    def trace(self, cmd: wire.Cmd, entry: int) -> int:
        """Traced inferences, in a session of its own so that the measured one has no hooks."""
        if not cmd.index or not self.timed:
            return 0
        plain, room = self.opened, self.max_body - wire.LAYOUTS[wire.OpTrace].struct.size
        size_of = wire.LAYOUTS[wire.OpTime].struct.size
        with Session(self.path, threads=self.threads, isa=self.isa, trace=True) as traced:
            self.session = traced
            try:
                for index in range(cmd.index):
                    self.place_inputs(entry)
                    traced.execute(entry)
                    data = b"".join(
                        wire.encode(op_time(o.index, o.start_us, o.latency_us))
                        for o in traced.trace()
                    )
                    for at in range(0, len(data), room // size_of * size_of):
                        part = data[at : at + room // size_of * size_of]
                        self.send(wire.OpTrace(cmd.run, index, part), wire.STREAM_RUN)
            finally:
                self.session = plain
        return cmd.index

    def figures(self, run: int, opened: int, first: int) -> None:
        readings = []
        if self.timed:
            readings = [
                wire.Reading(wire.Channel.OPEN, wire.Quality.MEASURED, wire.Unit.NS, opened),
                wire.Reading(wire.Channel.FIRST, wire.Quality.MEASURED, wire.Unit.NS, first),
            ]
        for i, size_ in enumerate(self.opened.memory.values()):
            channel = wire.Channel.MEM_SESSION + i
            readings.append(wire.Reading(channel, wire.Quality.MEASURED, wire.Unit.BYTES, size_))
        peak = peak_rss() if self.timed else 0
        if peak:
            readings.append(
                wire.Reading(wire.Channel.PEAK_RSS, wire.Quality.MEASURED, wire.Unit.BYTES, peak)
            )
        data = b"".join(wire.encode(r) for r in readings)
        self.send(wire.Metric(run, data), wire.STREAM_RUN)


def op_time(op: int, start_us: float, latency_us: float) -> wire.OpTime:
    """A trace record in ns."""
    duration = round(latency_us * 1000)
    flags = wire.TRACE_SATURATED if duration > 0xFFFFFFFF else 0
    start = min(round(start_us * 1000), 0xFFFFFFFF)
    return wire.OpTime(op, flags, start, min(duration, 0xFFFFFFFF))


def size(t: TensorInfo) -> int:
    """Bytes of a plain tensor."""
    return int(np.prod(t.shape, dtype=np.int64)) * t.dtype.itemsize


def tensor_info(t: TensorInfo) -> wire.TensorInfo:
    """The wire's record of a tensor."""
    dtype = CODES.get(t.dtype, PACKED)
    d = [*t.shape, *[0] * (8 - len(t.shape))]
    return wire.TensorInfo(
        size(t), d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7],
        len(t.shape), int(dtype), int(t.scale != 0.0), 0, t.scale, t.zero, t.name,
    )  # fmt: skip


def peak_rss() -> int:
    """Largest resident memory of this process, bytes; 0 where the system does not tell."""
    try:  # ru_maxrss of Linux starts with what the process was before exec
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return 0


def limit(memory_bytes: int, cpu_s: int) -> None:
    """Bounds what this process may use: memory, CPU time, files, core dumps."""
    try:
        import resource
    except ImportError:  # Windows: the parent's time limit remains
        return
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 1 << 20,  # its last words on stderr, a file of the parent
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_AS: memory_bytes,
    }
    for kind, value in limits.items():
        if value < 0 or (value == 0 and kind in (resource.RLIMIT_CPU, resource.RLIMIT_AS)):
            continue
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (value, value) if hard < 0 or value <= hard else (hard, hard))


def main() -> None:
    """``python -m edgekit.agent.child PACKAGE MAX_BODY MEMORY_BYTES CPU_S``."""
    path, *numbers = sys.argv[1:]
    max_body, memory, cpu = (int(x) for x in numbers)
    limit(memory, cpu)
    Engine(path, max_body, sys.stdin.buffer, sys.stdout.buffer).serve()


if __name__ == "__main__":
    main()

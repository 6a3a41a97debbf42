"""The agent in C: as a microcontroller would run it (in memory), on Linux, on arm64, and fuzzed."""

from __future__ import annotations

import ctypes as c
import dataclasses
import random
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import agents
import numpy as np
import pytest
from conftest import need
from edgekit_runtime import Session

from edgekit import boards, emulate, paths, pipeline, remote_bench, toolchain, wire
from edgekit.errors import LinkError, PackageError
from edgekit.ir import Graph, Tensor
from edgekit.link import LinkDown
from edgekit.remote import Remote

X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wmissing-prototypes", "-Werror")
SOURCES = ("agent/agent.c", "agent/agent_run.c", "agent/codec.c", "agent/sha256.c", "gen/wire.c")
OK, IDLE, BUSY, DOWN, BAD_CONFIG = range(5)


def include() -> list[str]:
    return [f"-I{paths.data('native', d)}" for d in ("include", "gen", "agent", "src", "port")]


# ---- the agent in this process --------------------------------------------------------------

Rx = c.CFUNCTYPE(c.c_size_t, c.c_void_p, c.POINTER(c.c_uint8), c.c_size_t)
Tx = c.CFUNCTYPE(c.c_int, c.c_void_p, c.POINTER(c.c_uint8), c.c_size_t)
Clock = c.CFUNCTYPE(c.c_uint64, c.c_void_p)


class Config(c.Structure):
    """ek_agent_config; ek_agent_init refuses it where its size is not the compiler's."""

    _fields_ = [
        ("size", c.c_uint32),
        ("framing", c.c_uint8),
        ("clock_kind", c.c_uint8),
        ("max_body", c.c_uint16),
        ("queue_frames", c.c_uint16),
        ("agent_kind", c.c_uint8),
        ("emulated", c.c_uint8),
        ("rx_window", c.c_uint32),
        ("clock_hz", c.c_uint64),
        ("clock", Clock),
        ("rx", Rx),
        ("tx", Tx),
        ("describe", c.c_void_p),
        ("metrics", c.c_void_p),
        ("stack_used", c.c_void_p),
        ("ctx", c.c_void_p),
        ("channels", c.c_uint),
        ("name", c.c_char_p),
        ("firmware", c.c_char_p),
        ("uid", c.c_char_p),
        ("token", c.c_char_p),
        ("token_len", c.c_size_t),
        ("entropy", c.c_char_p),
        ("entropy_len", c.c_size_t),
        ("work", c.c_void_p),
        ("work_len", c.c_size_t),
        ("ram", c.c_void_p),
        ("ram_len", c.c_size_t),
        ("mem", c.c_void_p * 5),
        ("mem_len", c.c_size_t * 5),
        ("resident", c.c_void_p),
        ("resident_len", c.c_size_t),
        ("ops", c.c_void_p),
        ("parallel", c.c_void_p),
        ("parallel_ctx", c.c_void_p),
        ("threads", c.c_uint32),
        ("store_begin", c.c_void_p),
        ("memory", c.c_void_p),
    ]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> c.CDLL:
    """The agent as a library for this machine."""
    host = boards.load("host")
    cc, runtime = toolchain.compiler(host), toolchain.shared_library(host)
    out = tmp_path_factory.mktemp("agent") / "libagent.so"
    sources = [str(paths.data("native", *s.split("/"))) for s in SOURCES]
    flags = [*cc.flags, *WARNINGS, "-O1", "-fPIC", "-shared", f"-Wl,-rpath,{runtime.parent}"]
    subprocess.run(
        [*cc.command, *flags, *include(), *sources, str(runtime), "-o", str(out)], check=True
    )
    return c.CDLL(str(out))


class Board:
    """A microcontroller in memory: small buffers, a counting clock, a line that damages bytes."""

    def __init__(
        self,
        library: c.CDLL,
        *,
        max_body: int = 240,
        queue: int = 3,
        ram: int = 48 << 10,
        resident: bytes = b"",
        token: bytes = b"",
        noise: float = 0.0,
        seed: int = 0,
        **changes: int,
    ) -> None:
        self.library, self.noise, self.random = library, noise, random.Random(seed)
        self.toward, self.back, self.ticks = bytearray(), bytearray(), 0
        frame = max_body + 20
        work = frame + frame // 254 + 2 + (max_body + 24) * (2 + queue) + 16
        self.memory = [aligned(work), aligned(max(ram, 1)), aligned(len(resident) + 1)]
        c.memmove(self.memory[2][1], resident, len(resident))
        self.hooks = Rx(self._rx), Tx(self._tx), Clock(self._clock)
        cfg = Config(
            size=c.sizeof(Config),
            max_body=max_body,
            queue_frames=queue,
            agent_kind=wire.AgentKind.MCU,
            clock_kind=wire.ClockKind.INSTRUCTIONS,
            clock=self.hooks[2],
            rx=self.hooks[0],
            tx=self.hooks[1],
            name=b"memory",
            firmware=b"test",
            token=token or None,
            token_len=len(token),
            entropy=b"different on every boot" if token else None,
            entropy_len=23 if token else 0,
            work=self.memory[0][1],
            work_len=work,
            ram=self.memory[1][1],
            ram_len=ram,
            resident=self.memory[2][1] if resident else None,
            resident_len=len(resident),
        )
        for name, value in changes.items():
            setattr(cfg, name, value)
        self.cfg = cfg
        self.agent = (c.c_uint64 * 192)()
        self.state = library.ek_agent_init(c.byref(self.agent), c.byref(cfg))

    def _rx(self, _: int, buf: c.Array[c.c_uint8], cap: int) -> int:
        n = min(cap, len(self.toward), 1 + self.random.randrange(100))
        c.memmove(buf, bytes(self.toward[:n]), n)
        del self.toward[:n]
        return n

    def _tx(self, _: int, data: c.Array[c.c_uint8], size: int) -> int:
        self.back += self.damaged(c.string_at(data, size))
        return 0

    def _clock(self, _: int) -> int:
        self.ticks += 10
        return self.ticks

    def damaged(self, data: bytes) -> bytearray:
        out = bytearray(data)
        if self.noise:
            agents.spoil(out, self.noise, self.random)
        return out

    def step(self) -> int:
        state: int = self.library.ek_agent_step(c.byref(self.agent))
        return state


def aligned(size: int) -> tuple[object, int]:
    raw = (c.c_uint8 * (size + 64))()
    return raw, (c.addressof(raw) + 63) // 64 * 64


class MemoryLink:
    """The host's end of the line: reading lets the board work."""

    framing = wire.Framing.COBS
    name, byte_s = "memory", 0.0

    def __init__(self, board: Board, cut_after: int = 0) -> None:
        self.board, self.left = board, cut_after
        self.cut = bool(cut_after)

    def read(self, timeout_s: float) -> bytes:
        if self.cut and self.left <= 0:
            raise LinkDown("cut")
        for _ in range(100_000):
            if self.board.back or (self.board.step() == IDLE and not self.board.toward):
                break
        data = bytes(self.board.back[:200])
        del self.board.back[:200]
        self.left -= len(data)
        if not data:  # nothing more will come: let the host's patience run
            threading.Event().wait(min(timeout_s, 0.002))
        return data

    def write(self, data: bytes) -> None:
        if self.cut and self.left <= 0:
            raise LinkDown("cut")
        self.left -= len(data)
        self.board.toward += self.board.damaged(data)

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        if self.cut:  # what was under way is lost, and the board notices
            self.board.toward.clear()
            self.board.back.clear()
            self.board.library.ek_agent_link_lost(c.byref(self.board.agent))


def connect(board: Board, token: bytes = b"") -> Remote:
    return Remote(lambda: MemoryLink(board), token, patience_s=20, retry_s=0.02)


@pytest.fixture
def board(library: c.CDLL) -> Board:
    return Board(library, resident=agents.package())


# ---- as on a microcontroller ----------------------------------------------------------------


def test_resident_package(board: Board) -> None:
    with connect(board) as r:
        h = r.hello
        assert (h.name, h.max_body, h.auth, h.clock_hz) == ("memory", 240, 0, 0)
        assert h.caps == wire.CAP_RESIDENT | wire.CAP_UPLOAD | wire.CAP_EMULATED
        m = remote_bench.bench("", None, runs=70, warmup=2, traced=2, remote=r)
    assert (m.unit, m.quality, m.emulated, m.agent) == ("instructions", "counter", True, "mcu")
    assert list(m.samples) == [10.0] * 70  # the clock of this board adds 10 at every look
    assert (m.p50, m.p99, m.first) == (10.0, 10.0, 10.0)
    assert [o.name for o in m.ops] == ["fc1", "fc2"]
    with Session(agents.package()) as s:
        assert m.memory_bytes == s.memory


def test_uploaded_package_in_ram(library: c.CDLL) -> None:
    board, data = Board(library), agents.package()
    with connect(board) as r:
        assert not r.hello.caps & wire.CAP_RESIDENT
        assert r.upload(data) == len(data)
        r.verify()
        r.open()
        r.set_input(0, X.tobytes())
        r.run()
        with Session(data) as s:
            assert r.output(0) == s.run(X)["y"].tobytes()
        r.selftest()
        r.run()  # the self-test used the inputs' memory; they are put back
        with Session(data) as s:
            assert r.output(0) == s.run(X)["y"].tobytes()


def test_every_inner_tensor_without_keeping_it(board: Board) -> None:
    """A run that ends at an op shows the op's output, though its memory is used again later."""
    with connect(board) as r, Session(agents.package(keep=True)) as s:
        r.open(wire.Source.RESIDENT)
        r.set_input(0, X.tobytes())
        s.run(X)
        for number, op in enumerate(r.ops()):
            r.run(stop_after=number)
            assert r.tensor(op.output) == s.tensor(s.ops()[number].outputs[0]).tobytes()
        r.run()
        assert r.output(0) == s.tensor("y").tobytes()


def test_what_does_not_fit_is_refused(library: c.CDLL) -> None:
    data = agents.package()
    with connect(Board(library, ram=len(data) - 1)) as r, pytest.raises(PackageError, match="fit"):
        r.upload(data)
    with connect(Board(library, ram=len(data) + 200)) as r:  # no room for the session
        r.upload(data)
        with pytest.raises(PackageError, match="fit"):
            r.open()
    with connect(Board(library, ram=0)) as r:
        assert not r.hello.caps & wire.CAP_UPLOAD
        with pytest.raises(PackageError, match="fit"):
            r.upload(data)
    with Session(data) as s:
        need_ram = sum((n + 63) // 64 * 64 for n in s.memory.values())
    with connect(Board(library, ram=need_ram, resident=data)) as r:  # no room for extras
        info = r.open(wire.Source.RESIDENT)
        assert info.flags == 0  # inputs are not kept
        m = remote_bench.bench("", None, runs=3, traced=5, remote=r)
        assert (m.runs, m.traced, m.ops) == (3, 0, ())


def test_separate_banks(library: c.CDLL) -> None:
    """Session memories given by kind, as a fast bank."""
    board = Board(library, resident=agents.package(), ram=4096)
    bank = aligned(8192)
    board.cfg.mem[1], board.cfg.mem_len[1] = bank[1], 8192
    assert library.ek_agent_init(c.byref(board.agent), c.byref(board.cfg)) == OK
    with connect(board) as r:
        r.open(wire.Source.RESIDENT)
        r.set_input(0, X.tobytes())
        r.run()
        with Session(agents.package()) as s:
            want = s.run(X)["y"].tobytes()
        assert r.output(0) == want
        assert want in bytes(bank[0])  # type: ignore[call-overload]


@pytest.mark.parametrize("seed", range(4))
def test_noise_on_the_line(library: c.CDLL, seed: int) -> None:
    """One byte in 500 damaged in both directions: slower, nothing else."""
    board = Board(library, noise=0.002, seed=seed, queue=2 + seed, resident=agents.package())
    with connect(board) as r:
        m = remote_bench.bench("", None, runs=300, warmup=0, traced=4, remote=r)
        assert list(m.samples) == [10.0] * 300
        assert m.traced == 4
        r.upload(agents.package())
        r.open()
        r.set_input(0, X.tobytes())
        r.run()
        with Session(agents.package()) as s:
            assert r.output(0) == s.run(X)["y"].tobytes()


@pytest.mark.parametrize("seed", range(4))
def test_cut_lines(library: c.CDLL, seed: int) -> None:
    """The line breaks after some bytes, again and again, with a token to prove each time."""
    board = Board(library, seed=seed, queue=4, token=agents.TOKEN, resident=agents.package())
    rng = random.Random(seed)
    links = [0]

    def make() -> MemoryLink:
        links[0] += 1
        return MemoryLink(board, cut_after=rng.randrange(500, 4000))

    with Remote(make, agents.TOKEN, patience_s=20, retry_s=0.02) as r:
        m = remote_bench.bench("", agents.package(), runs=1500, remote=r)
    assert list(m.samples) == [10.0] * 1500
    assert links[0] > 10


def test_restart_is_noticed(library: c.CDLL) -> None:
    """A device that forgets everything in the middle is an error, not a short benchmark."""
    board = Board(library, resident=agents.package())
    got: list[wire.Body] = []

    def take(_: wire.Frame, body: wire.Body) -> None:
        got.append(body)
        if isinstance(body, wire.Samples) and len(got) < 1000:
            got.extend([body] * 1000)  # once
            library.ek_agent_init(c.byref(board.agent), c.byref(board.cfg))

    with connect(board) as r:
        r.open(wire.Source.RESIDENT)
        with r.sink(take), pytest.raises(LinkError, match="restarted"):
            r.command(wire.Command.BENCH, count=5000, run=1)
            r.follow(lambda: False, 30)


def test_token(library: c.CDLL) -> None:
    board = Board(library, token=agents.TOKEN)
    with connect(board, agents.TOKEN) as r:
        assert r.hello.auth == 1
    for token in (b"", b"wrong"):
        with pytest.raises(LinkError, match="token"):
            connect(board, token)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 8},
        {"framing": 2},
        {"clock_kind": 4},
        {"max_body": 239},
        {"queue_frames": 1},
        {"queue_frames": 33},
        {"work_len": 100},
        {"clock_kind": 1},  # time without clock_hz
        {"clock_kind": 1, "clock_hz": 1000, "emulated": 1},  # an emulator has no time
        {"token": b"secret", "entropy_len": 7},  # too little entropy
        {"channels": 1},  # without describe
    ],
    ids=str,
)
def test_wrong_configurations_are_refused(library: c.CDLL, changes: dict[str, int]) -> None:
    assert Board(library).state == OK
    assert Board(library, **changes).state == BAD_CONFIG


def test_agent_needs_no_libc(tmp_path: Path) -> None:
    """Freestanding for a Cortex-M0+: the only unknown symbols are the runtime's and four mem*."""
    import sys

    pytest.importorskip("ziglang")
    target = ["-target", "thumb-freestanding-eabi", "-mcpu=cortex_m0plus", "-ffreestanding", "-Os"]
    strings = paths.data("runtimes", "bare", "include")
    command = [sys.executable, "-m", "ziglang", "cc", *target, *WARNINGS, *include()]
    command += ["-isystem", str(strings), "-fno-sanitize=undefined", "-c"]
    defined, wanted = set(), set()
    for source in SOURCES:
        out = tmp_path / Path(source).with_suffix(".o").name
        subprocess.run(
            [*command, str(paths.data("native", *source.split("/"))), "-o", str(out)], check=True
        )
        have, want = symbols(out.read_bytes())
        defined |= have
        wanted |= want
    extra = wanted - defined
    runtime = {s for s in extra if s.startswith("ek_")}
    allowed = {"memcpy", "memset", "memmove", "memcmp"}
    helpers = {s for s in extra if s.startswith("__aeabi_")}  # of the compiler: 64-bit arithmetic
    assert extra - runtime - helpers <= allowed
    assert {"ek_run", "ek_open", "ek_crc32"} <= runtime


def symbols(elf: bytes) -> tuple[set[str], set[str]]:
    """Global names that a 32-bit object defines, and that it wants."""
    u16 = lambda at: int.from_bytes(elf[at : at + 2], "little")  # noqa: E731
    u32 = lambda at: int.from_bytes(elf[at : at + 4], "little")  # noqa: E731
    table, size, count = u32(32), u16(46), u16(48)
    have, want = set(), set()
    for s in range(count):
        at = table + s * size
        if u32(at + 4) != 2:  # SHT_SYMTAB
            continue
        names = u32(table + u32(at + 24) * size + 16)
        for sym in range(u32(at + 16), u32(at + 16) + u32(at + 20), 16):
            name = elf[names + u32(sym) :].split(b"\0", 1)[0].decode()
            if name and elf[sym + 12] >> 4:
                (have if u16(sym + 14) else want).add(name)
    return have, want


# ---- fuzz -----------------------------------------------------------------------------------


def transcript(library: c.CDLL) -> list[wire.Frame]:
    """Everything a host sends in a session that uses every command."""
    board, sent = Board(library, resident=agents.package()), bytearray()

    class Spy(MemoryLink):
        def write(self, data: bytes) -> None:
            sent.extend(data)
            super().write(data)

    with Remote(lambda: Spy(board), patience_s=20, retry_s=5) as r:
        r.upload(agents.package())
        for source in wire.Source:
            r.verify(source)
            r.open(source)
            r.entry()
            r.ops()
            r.info(wire.TensorInfo, wire.Info.TENSOR, 1)
            r.set_input(0, X.tobytes())
            r.run(stop_after=0)
            r.tensor(1)
            r.run()
            r.output(0)
            r.selftest()
            r.command(wire.Command.RESET)
        remote_bench.bench("", None, runs=30, remote=r)
    return wire.Reader(wire.Framing.COBS).feed(bytes(sent))


def hostile_command(cmd: wire.Cmd, rng: random.Random) -> bytes:
    """Another command or limits of its fields, under a number that is executed."""
    edge = [0, 1, 2, 3, 31, 255, 256, 257, 1 << 12, 1 << 31, (1 << 32) - 1]
    names = ["entry", "index", "offset", "count", "flags", "limit_ms"]
    changes = {n: rng.choice(edge) for n in rng.sample(names, rng.randrange(1, 4))}
    changes["entry"] = changes.get("entry", 0) & 0xFFFF
    if rng.random() < 0.4:
        changes["op"] = rng.randrange(14)
    return wire.encode(dataclasses.replace(cmd, **changes))


def mutated(frames: list[wire.Frame], rng: random.Random) -> bytes:
    """The session with a third of its frames changed and sealed again, repeated or left out."""
    line = bytearray()
    acks = [wire.frame(wire.Ack(1, rng.randrange(2), s, rng.randrange(9))) for s in range(1, 80)]
    sweep = b"".join(wire.wrap(a, wire.Framing.COBS) for a in acks)  # lets a benchmark go on
    for f in frames:
        line += sweep * (rng.randrange(40) == 0)
        how = rng.randrange(12)
        body = bytearray(f.body)
        kind, seq = f.type, f.seq
        if how == 0 and body:
            for _ in range(rng.randrange(1, 5)):
                body[rng.randrange(len(body))] = rng.choice(
                    [0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)]
                )
        elif how == 1:
            body = body[: rng.randrange(len(body) + 1)]
        elif how == 2:
            body += rng.randbytes(rng.randrange(240))
        elif how == 3:
            kind, seq = rng.randrange(256), rng.getrandbits(32)
        elif how in (6, 7) and kind == wire.LAYOUTS[wire.Cmd].code:
            body = bytearray(hostile_command(wire.decode(wire.Cmd, f.body), rng))
        data = wire.wrap(wire.Frame(kind, bytes(body[:900]), f.stream, seq, f.t), wire.Framing.COBS)
        repeat = rng.choice([0, 1, 2]) if how == 4 else 1
        line += data * repeat
        if how == 5:
            line += rng.randbytes(rng.randrange(600))
    return bytes(line)


@pytest.fixture(scope="session")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The agent with ASan and UBSan, where the host's compiler has them."""
    host = boards.load("host")
    cc = toolchain.compiler(host)
    out = tmp_path_factory.mktemp("fuzz") / "agent_fuzz"
    sources = [str(paths.data("native", *s.split("/"))) for s in SOURCES]
    sources.append(str(Path(__file__).parent / "agent_fuzz.c"))
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
    runtime = toolchain.shared_library(host)
    flags = [*cc.flags, *WARNINGS, *sanitize, f"-Wl,-rpath,{runtime.parent}"]
    command = [*cc.command, *flags, *include(), *sources, str(runtime), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "asan" in done.stderr:
        pytest.skip(f"{cc.command[0]} has no sanitizers")
    assert done.returncode == 0, done.stderr
    return str(out)


def fuzz(fuzzer: str, library: c.CDLL, tmp_path: Path, seeds: range) -> None:
    frames = transcript(library)
    package = tmp_path / "package.bin"
    package.write_bytes(agents.package())
    for seed in seeds:
        rng = random.Random(seed)
        lines = [tmp_path / f"{i}.bin" for i in range(40)]
        for line in lines:
            line.write_bytes(mutated(frames, rng))
        command = [fuzzer, str(package), *map(str, lines)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"seed {seed}: {done.returncode}\n{done.stderr[-3000:]}"


def test_hostile_frames(fuzzer: str, library: c.CDLL, tmp_path: Path) -> None:
    """24,000 frames, half of them with a right CRC and wrong contents."""
    fuzz(fuzzer, library, tmp_path, range(4))


@pytest.mark.slow
def test_hostile_frames_long(fuzzer: str, library: c.CDLL, tmp_path: Path) -> None:
    fuzz(fuzzer, library, tmp_path, range(100, 180))


# ---- the Linux program ----------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.0002])
def test_program_on_a_serial_line(tmp_path: Path, noise: float) -> None:
    pytest.importorskip("serial")
    package = tmp_path / "p.ekp"
    package.write_bytes(agents.package())
    with agents.wire_pair(noise, seed=5) as (near, far):
        command = [
            agents.c_program(),
            "--serial",
            far,
            "--baud",
            "921600",
            "--package",
            str(package),
            "--name",
            "tty",
        ]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == f"listening on {far}\n"
            with Remote(f"serial://{near}?baud=921600", patience_s=15, retry_s=0.1) as r:
                assert r.hello.caps & wire.CAP_RESIDENT
                m = remote_bench.bench("", agents.package(), runs=400, remote=r)
                assert r.upload(agents.package()) == 0
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
    assert (m.device, m.unit, m.samples.shape) == ("tty", "us", (400,))


def test_program_refuses_nonsense(tmp_path: Path) -> None:
    program = agents.c_program()
    for wrong in (
        [],
        ["--listen"],
        ["--listen", "0", "--serial", "x"],
        ["--listen", "0", "--token-file", str(tmp_path / "none")],
        ["--serial", "/dev/null"],
        ["--serial", "/dev/tty", "--baud", "1"],
        ["--listen", "256.256.256.256:1", "--token-file", "/etc/hostname"],
    ):
        done = subprocess.run([program, *wrong], capture_output=True, text=True, env={}, timeout=10)
        assert done.returncode in (1, 2), wrong
        assert "edgekit-agent" in done.stderr


@pytest.mark.emulator
def test_firmware_on_a_pseudo_terminal(tmp_path: Path) -> None:
    """A Cortex-M4 whose UART is a pty, as a board's USB serial line would be."""
    pytest.importorskip("serial")
    mcu = boards.load("qemu_mps2_an386")
    need(emulate.missing(mcu))
    emulator = emulate.require(mcu)
    elf = toolchain.firmware(mcu, "agent")
    command = [emulator.program, *emulator.args, "-serial", "pty"]
    command += ["-icount", f"shift={toolchain.ICOUNT_SHIFT}", "-kernel", str(elf)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            line = next(x for x in child.stdout if "/dev/" in x)
            port = next(w for w in line.split() if w.startswith("/dev/"))
            data, _ = int8_package(mcu.id)
            with Remote(f"serial://{port}?baud=921600") as r:
                m = remote_bench.bench("", data, runs=30, remote=r)
        finally:
            child.kill()
    assert (m.device, m.agent, m.unit, m.runs) == (mcu.id, "mcu", "instructions", 30)
    assert m.p50 is not None and m.p50 > 64 * 32 / 8
    assert m.stack_bytes


@pytest.fixture(scope="session")
def arm64() -> str:
    board = boards.load("qemu_arm64")
    need(emulate.missing(board))
    return str(toolchain.agent_program(board))


@pytest.fixture
def arm64_command(
    arm64: str, tmp_path: Path
) -> Callable[[bool], tuple[list[str], tuple[str, ...]]]:
    def make(count: bool) -> tuple[list[str], tuple[str, ...]]:
        board = boards.load("qemu_arm64")
        emulator = emulate.require(board)
        shared = tmp_path / "count"
        plugin = f"{emulate.counter()},out={tmp_path / 'marks'},counter={shared}"
        options = ["-plugin", plugin] if count else []
        command = [emulator.program, *options, "-cpu", emulator.cpu, arm64]
        return command, ("--counter", str(shared)) if count else ()

    return make


def int8_package(board: str) -> tuple[bytes, bytes]:
    """A quantized net for a board and its bytes for the host: the same integers everywhere."""
    g, rng = Graph("q"), np.random.default_rng(3)
    g.add_tensor(Tensor("x", (1, 64)))
    g.inputs.append("x")
    w1 = g.const("w1", rng.standard_normal((32, 64)).astype(np.float32))
    w2 = g.const("w2", rng.standard_normal((10, 32)).astype(np.float32))
    h = g.emit("linear", ("x", w1), {"lo": 0.0}, name="fc1")
    g.emit("linear", (h, w2), name="fc2", outputs=("y",))
    g.outputs.append("y")
    samples = {"x": rng.standard_normal((32, 1, 64)).astype(np.float32)}

    def build(target: str) -> bytes:
        return pipeline.build(
            g.copy(), board=target, precision="int8", calibration=samples, io="int8"
        ).data

    return build(board), build("host")


@pytest.mark.emulator
def test_arm64_gives_the_same_integers_and_counts_instructions(
    arm64_command: Callable[[bool], tuple[list[str], tuple[str, ...]]],
) -> None:
    """Under qemu-aarch64: bytes as on the host; cost in instructions, the same every time."""
    data, host = int8_package("qemu_arm64")
    x = np.arange(-32, 32, dtype=np.int8).reshape(1, 64)
    with Session(host) as s:
        [want] = s.run(x).values()
    costs = []
    for _ in range(2):
        command, options = arm64_command(True)
        with agents.program_agent(*command, options=options) as url:
            with Remote(url, agents.TOKEN) as r:
                assert r.hello.clock_kind == wire.ClockKind.INSTRUCTIONS
                assert r.hello.caps & wire.CAP_EMULATED
                r.upload(data)
                r.open()
                r.set_input(0, x.tobytes())
                r.run()
                assert r.output(0) == want.tobytes()
                r.selftest()
            m = remote_bench.bench(url, data, token=agents.TOKEN, runs=20)
        assert (m.unit, m.quality, m.emulated) == ("instructions", "counter", True)
        assert m.p50 is not None and m.p50 > 64 * 32 / 64
        assert sum(o.median for o in m.ops) <= m.p50 * 1.2
        assert m.energy_uj.quality == "unmeasurable"
        costs.append(list(m.samples))
    assert costs[0] == costs[1]
    assert set(costs[0]) == {costs[0][0]}


@pytest.mark.emulator
def test_emulated_time_is_not_told(
    arm64_command: Callable[[bool], tuple[list[str], tuple[str, ...]]],
) -> None:
    """Without a counter: results, no latencies and the reason."""
    data, _ = int8_package("qemu_arm64")
    command, options = arm64_command(False)
    with agents.program_agent(*command, options=options) as url:
        m = remote_bench.bench(url, data, token=agents.TOKEN, runs=20)
    assert (m.unit, m.quality, m.runs) == ("", "unmeasurable", 20)
    assert m.samples.size == 0
    assert (m.p50, m.first, m.open, m.peak_rss_bytes) == (None, None, None, None)

"""The agents, Python and C, through their client: sessions, uploads, commands, benchmarks, loss."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import agents
import numpy as np
import pytest
from edgekit_runtime import Session

from edgekit import remote_bench, wire
from edgekit.agent import Limits, serve_serial
from edgekit.agent.queue import Queue
from edgekit.agent.store import Store
from edgekit.errors import LinkError, PackageError, UsageError
from edgekit.link import open_link
from edgekit.remote import Remote

X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)


@pytest.fixture(params=["python", "c"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An agent of each implementation on loopback TCP."""
    with agents.agent(request.param, tmp_path / "agent", tmp_path) as found:
        yield found


@pytest.fixture
def remote(url: str) -> Iterator[Remote]:
    with Remote(url, agents.TOKEN, patience_s=10) as found:
        yield found


def raw(url: str) -> socket.socket:
    """A connection without a client."""
    return socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), 5)


def ask(sock: socket.socket, *frames: wire.Frame, answers: int) -> list[wire.Frame]:
    """Sends frames and takes that many answers; 0: sees that none comes for a moment."""
    reader, got = wire.Reader(wire.Framing.LENGTH), []
    sock.sendall(b"".join(wire.wrap(f, wire.Framing.LENGTH) for f in frames))
    sock.settimeout(10 if answers else 0.2)
    while len(got) < max(answers, 1):
        try:
            data = sock.recv(1 << 16)
        except TimeoutError:
            break
        assert data, "the agent closed the connection"
        got += reader.feed(data)
    return got


def bodies(frames: list[wire.Frame]) -> list[wire.Body]:
    return [wire.decode(wire.MESSAGES[f.type], f.body) for f in frames]


# ---- sessions -------------------------------------------------------------------------------


def test_hello_tells_what_the_device_is(remote: Remote) -> None:
    h = remote.hello
    assert h.auth == 1
    assert h.clock_kind == wire.ClockKind.TIME
    assert h.clock_hz == 1_000_000_000
    assert h.caps & wire.CAP_UPLOAD
    assert h.name in ("py", "prog")
    assert remote.ping() < 5


@pytest.mark.parametrize("token", [b"", b"another token", agents.TOKEN + b"x"])
def test_token_is_needed(url: str, token: bytes) -> None:
    with pytest.raises(LinkError, match="token"):
        Remote(url, token, patience_s=3)


def test_nothing_works_before_authentication(url: str) -> None:
    """Every type but HELLO and AUTH is refused, also between HELLO and AUTH, and has no effect."""
    package = agents.package()
    begin = wire.XferBegin(hashlib.sha256(package).digest(), len(package))
    frames = [
        wire.frame(wire.Cmd(1, wire.Command.OPEN, index=1)),
        wire.frame(begin),
        wire.frame(wire.Sync(1)),
        wire.frame(wire.Ack(1, 1, 0, 0)),
        wire.frame(wire.AuthAck(bytes(32))),
    ]
    hello = wire.frame(wire.Hello(5, bytes(16), 65000))
    with raw(url) as sock:
        got = bodies(ask(sock, *frames, hello, *frames, answers=11))
        errors = [b for b in got if isinstance(b, wire.Error)]
        assert [e.code for e in errors] == [wire.Code.AUTH] * 10
        assert len(got) == 11
        got = bodies(ask(sock, wire.frame(wire.Auth(bytes(32))), frames[0], answers=2))
        assert [b.code for b in got if isinstance(b, wire.Error)] == [wire.Code.AUTH] * 2
        assert len(got) == 2


def test_recorded_proof_is_worth_nothing(url: str) -> None:
    """HELLO and AUTH of an earlier connection, replayed, do not authenticate."""
    hello = wire.Hello(5, b"n" * 16, 65000)
    with raw(url) as sock:
        [answer] = ask(sock, wire.frame(hello), answers=1)
        proof = wire.proof(agents.TOKEN, "host", wire.encode(hello), answer.body)
        [ack] = bodies(ask(sock, wire.frame(wire.Auth(proof)), answers=1))
        assert isinstance(ack, wire.AuthAck)
        theirs = wire.proof(agents.TOKEN, "device", wire.encode(hello), answer.body)
        assert ack.proof == theirs
    with raw(url) as sock:
        got = bodies(ask(sock, wire.frame(hello), wire.frame(wire.Auth(proof)), answers=2))
        assert isinstance(got[0], wire.HelloAck)
        assert isinstance(got[1], wire.Error)
        assert got[1].code == wire.Code.AUTH


def test_host_refuses_a_false_device(tmp_path: Path) -> None:
    """One that lets everybody in, or does not know the token itself."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"

    def play(auth: int) -> None:
        sock = listener.accept()[0]
        reader = wire.Reader(wire.Framing.LENGTH)
        with sock:
            while data := sock.recv(4096):
                for f in reader.feed(data):
                    body: wire.Body = wire.AuthAck(bytes(32))
                    if f.type == 0:
                        body = wire.HelloAck(1, bytes(16), bytes(16), 0, 1008, 1008, 0, 0, auth, 0)
                    sock.sendall(wire.wrap(wire.frame(body), wire.Framing.LENGTH))

    for auth, text in ((0, "does not ask"), (1, "does not know")):
        thread = threading.Thread(target=play, args=(auth,), daemon=True)
        thread.start()
        with pytest.raises(LinkError, match=text):
            Remote(url, agents.TOKEN, patience_s=3)
        thread.join(5)
    listener.close()


def test_repeated_hello_changes_nothing(url: str) -> None:
    hello = wire.frame(wire.Hello(5, b"n" * 16, 65000))
    with raw(url) as sock:
        first, second = ask(sock, hello, hello, answers=2)
        assert first.body == second.body


def test_unknown_types_are_skipped_and_bad_lengths_end_the_link(url: str) -> None:
    with raw(url) as sock:
        hello = wire.frame(wire.Hello(1, bytes(16), 65000))
        [answer] = ask(sock, hello, answers=1)
        proof = wire.proof(agents.TOKEN, "host", hello.body, answer.body)
        sync = wire.frame(wire.Sync(9))
        later = wire.Frame(0x7E, b"of a newer version")
        got = ask(sock, wire.frame(wire.Auth(proof)), later, sync, answers=2)
        assert [f.type for f in got] == [0x09, 0x03]
        sock.sendall(b"\x00\x00 garbage")
        sock.settimeout(5)
        assert sock.recv(100) == b""
    with Remote(url, agents.TOKEN, patience_s=5) as r:  # the next host is served
        assert r.hello.boot


def test_second_host_waits_its_turn(url: str) -> None:
    with Remote(url, agents.TOKEN) as first:
        with raw(url) as sock:
            assert ask(sock, wire.frame(wire.Hello(1, bytes(16), 65000)), answers=0) == []
            assert first.ping() < 5
        boot = first.hello.boot
    with Remote(url, agents.TOKEN) as second:
        assert second.hello.boot == boot


# ---- uploads and commands -------------------------------------------------------------------


def test_results_are_those_of_the_runtime(remote: Remote, tmp_path: Path) -> None:
    """Upload, check, run: the same output bytes, tensors, ops and memory as a local session."""
    data = agents.package(keep=True)
    assert remote.upload(data) == len(data)
    assert remote.upload(data) == 0
    import zlib

    assert remote.verify() == zlib.crc32(data)
    info = remote.open()
    assert (info.entries, info.ops, info.package_bytes) == (1, 2, len(data))
    remote.set_input(0, X.tobytes())
    assert remote.run() > 0
    with Session(data) as s:
        want = s.run(X)
        assert remote.output(0) == want["y"].tobytes()
        sizes = [info.mem_session, info.mem_main, info.mem_fast, info.mem_state, info.mem_scratch]
        assert sizes == list(s.memory.values())
        entry = remote.entry()
        assert (entry.inputs, entry.outputs, entry.name) == (1, 1, s.entries[0])
        ops = remote.ops()
        assert [(o.name, o.type, o.isa) for o in ops] == [(o.name, o.type, o.isa) for o in s.ops()]
        assert remote.tensor(ops[0].output) == s.tensor("fc1").tobytes()
    t = remote.info(wire.TensorInfo, wire.Info.INPUT)
    assert (t.name, t.rank, t.dim0, t.dim1, t.bytes) == ("x", 2, 1, 64, 256)
    remote.selftest()
    remote.command(wire.Command.RESET)
    assert remote.run() > 0  # inputs are put back after the self-test
    assert remote.output(0) == want["y"].tobytes()


def test_wrong_commands_are_refused_with_a_sentence(remote: Remote) -> None:
    with pytest.raises(PackageError, match="package"):
        remote.open()
    with pytest.raises(PackageError, match="package"):
        remote.run()
    remote._ctr += 1
    unknown = wire.Cmd(remote._ctr, 99)
    end = time.monotonic() + 5
    answer = remote._wait(wire.Result, lambda: remote._send(unknown), end)
    assert answer.code in (wire.Code.UNKNOWN, wire.Code.NO_SESSION)
    remote.upload(agents.package())
    remote.open()
    for call in (
        lambda: remote.info(wire.TensorInfo, wire.Info.INPUT, 3),
        lambda: remote.info(wire.OpInfo, wire.Info.OP, 99),
        lambda: remote.output(5),
        lambda: remote.tensor(99),
        lambda: remote.run(entry=4),
        lambda: remote.command(wire.Command.INFO, index=77),
        lambda: remote.command(wire.Command.SET_INPUT, index=0, offset=250, data=bytes(9)),
        lambda: remote.command(wire.Command.SET_INPUT, index=3, data=bytes(1)),
        lambda: remote.command(wire.Command.BENCH, count=0),
    ):
        with pytest.raises(PackageError):
            call()
    assert remote.run() > 0


def test_damaged_packages_are_refused(remote: Remote) -> None:
    good = bytearray(agents.package())
    for at in (0, 40, len(good) // 2):  # magic, tables, weights
        bad = bytearray(good)
        bad[at] ^= 0x55
        remote.upload(bytes(bad))
        with pytest.raises(PackageError):
            remote.verify()
    for junk in (bytes(100), os.urandom(5000), bytes(good[: len(good) // 2])):
        remote.upload(junk)
        with pytest.raises(PackageError):
            remote.open()
    remote.upload(bytes(good))
    remote.open()
    assert remote.run() > 0


def test_too_large_is_refused_before_it_is_sent(remote: Remote) -> None:
    begin = wire.XferBegin(b"h" * 32, 1 << 50)
    ident = int.from_bytes(b"hhhh", "little")
    with pytest.raises(PackageError, match=r"fit|full"):
        remote._xfer(lambda: remote._send(begin), ident, time.monotonic() + 5)
    remote.upload(agents.package())
    remote.open()


def test_upload_goes_on_after_a_lost_link(url: str) -> None:
    """A host that dies in the middle; the next one sends only the rest."""
    data = os.urandom(200_000)
    ident = int.from_bytes(hashlib.sha256(data).digest()[:4], "little")
    with Remote(url, agents.TOKEN) as r:
        begin = wire.XferBegin(hashlib.sha256(data).digest(), len(data))
        r._xfer(lambda: r._send(begin), ident, time.monotonic() + 5)
        r._send(wire.XferData(ident, 0, 0, data[:10_000]))
        r._send(wire.XferData(ident, 0, 20_000, b"too far ahead"))
        r.ping()
    with Remote(url, agents.TOKEN) as r:
        assert r.upload(data) == len(data) - 10_000


def test_upload_of_other_bytes_is_noticed(remote: Remote) -> None:
    data = agents.package()
    digest = hashlib.sha256(data).digest()
    ident, end = int.from_bytes(digest[:4], "little"), time.monotonic() + 5
    remote._xfer(lambda: remote._send(wire.XferBegin(digest, len(data))), ident, end)
    wrong = bytes([data[0] ^ 1]) + data[1:]
    for at in range(0, len(data), 8000):
        remote._send(wire.XferData(ident, 0, at, wrong[at : at + 8000]))
    remote.ping()
    with pytest.raises(PackageError, match="damaged"):
        remote._xfer(lambda: remote._send(wire.XferEnd(ident)), ident, end, final=True)
    remote.upload(data)
    remote.open()


def test_repeated_commands_are_executed_once(remote: Remote) -> None:
    """The same number three times gives one benchmark and three equal answers."""
    remote.upload(agents.package())
    remote.open()
    seen: list[wire.Body] = []
    remote._ctr += 1
    cmd = wire.Cmd(remote._ctr, wire.Command.BENCH, count=20, run=77)
    with remote.sink(lambda _, body: seen.append(body)):
        for _ in range(3):
            remote._send(cmd)
        remote.follow(lambda: any(isinstance(b, wire.RunEnd) for b in seen), 20)
        again = remote._wait(wire.Result, lambda: remote._send(cmd), time.monotonic() + 5)
        remote.ping()
    assert (again.ctr, again.code) == (cmd.ctr, wire.Code.OK)
    assert sum(isinstance(b, wire.RunEnd) for b in seen) == 1
    assert sum(len(b.values) for b in seen if isinstance(b, wire.Samples)) == 20 * 8


# ---- benchmarks -----------------------------------------------------------------------------


def test_bench_gives_figures_with_unit_and_origin(url: str) -> None:
    m = remote_bench.bench(
        url, agents.package(), token=agents.TOKEN, runs=300, inputs=[X.tobytes()]
    )
    assert (m.unit, m.quality, m.runs, m.traced) == ("us", "measured", 300, 3)
    assert m.samples.shape == (300,)
    assert m.p50 is not None and m.p90 is not None and m.p99 is not None
    assert 0 < m.p50 <= m.p90 <= m.p99 <= m.samples.max()
    assert m.first is not None and m.first > 0
    assert m.open is not None and m.open > 0
    assert [(o.name, o.type) for o in m.ops] == [("fc1", "linear"), ("fc2", "linear")]
    assert sum(o.median for o in m.ops) < 50 * m.p50
    with Session(agents.package()) as s:
        assert m.memory_bytes == s.memory
    assert m.peak_rss_bytes is not None and 1 << 18 < m.peak_rss_bytes < 1 << 29
    assert m.energy_uj.value is None  # the tests' sysroot has no power sensor
    assert (m.energy_uj.quality, bool(m.energy_uj.note)) == ("unmeasurable", True)


def test_sensors_travel_with_the_benchmark(tmp_path: Path) -> None:
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    chip = tmp_path / "sys/class/hwmon/hwmon0"
    for folder in (zone, chip):
        folder.mkdir(parents=True)
    (zone / "temp").write_text("48500\n")
    (zone / "type").write_text("cpu-thermal\n")
    (chip / "name").write_text("ina260\n")
    (chip / "power1_input").write_text("2500000\n")
    for kind in ("python", "c"):
        with agents.agent(kind, tmp_path / kind, tmp_path) as url:
            m = remote_bench.bench(url, agents.package(), token=agents.TOKEN, runs=50)
        by_kind = {s.kind: s for s in m.sensors}
        heat, power = by_kind["temperature"], by_kind["power"]
        assert (heat.site, heat.unit, heat.quality) == ("cpu-thermal", "millicelsius", "measured")
        assert set(heat.values) == {48500.0}
        assert (power.site, power.unit, power.quality) == ("ina260", "uw", "measured")
        assert set(power.values) == {2.5e6}
        assert m.energy_uj.value is None
        assert "use at least" in m.energy_uj.note  # 50 runs are too short a window


@pytest.mark.parametrize("kind", ["python", "c"])
def test_lost_links_lose_and_double_nothing(kind: str, tmp_path: Path) -> None:
    """Cuts during upload, commands and the benchmark's stream: every sample once, in order."""
    with agents.agent(kind, tmp_path / "agent", tmp_path) as url:
        data = agents.package()
        with agents.Proxy(url, seed=3, every=9000, cuts=12) as proxy:
            remote = Remote(proxy.url, agents.TOKEN, patience_s=15, retry_s=0.1)
            m = remote_bench.bench("", data, runs=9000, warmup=5, remote=remote)
            assert proxy.left == 0, "the proxy was to cut more often"
    assert m.reconnects >= 12 - 2  # a cut may hit while a new link is being made
    assert m.samples.shape == (9000,)  # the collector checks that no index is missing or doubled
    assert (m.runs, m.traced) == (9000, 3)
    assert [o.name for o in m.ops] == ["fc1", "fc2"]


def test_a_host_that_is_away_stops_the_bench_not_the_data(url: str) -> None:
    """Data wait in the queue; the same session returns later and gets every sample."""
    got: list[wire.Body] = []
    with Remote(url, agents.TOKEN) as r:
        r.upload(agents.package())
        r.open()
        with r.sink(lambda _, body: got.append(body)):
            r.command(wire.Command.BENCH, count=30_000, run=5)
            r._link.close()  # type: ignore[union-attr]
            time.sleep(0.3)
            r.follow(lambda: isinstance(got[-1] if got else None, wire.RunEnd), 30)
    blocks = [b for b in got if isinstance(b, wire.Samples)]
    count = 0
    for b in blocks:
        assert b.first == count
        count += len(b.values) // 8
    assert count == 30_000
    assert r.reconnects == 1


def test_cancel_ends_a_benchmark(remote: Remote) -> None:
    remote.upload(agents.package())
    remote.open()
    ends: list[wire.RunEnd] = []

    def take(_: wire.Frame, body: wire.Body) -> None:
        if isinstance(body, wire.RunEnd):
            ends.append(body)

    with remote.sink(take):
        remote.command(wire.Command.BENCH, count=2_000_000_000, run=8)
        with pytest.raises(PackageError, match=r"busy|running"):
            remote.run()
        remote.command(wire.Command.CANCEL)
        remote.follow(lambda: bool(ends), 20)
    assert (ends[0].run, ends[0].code) == (8, wire.Code.CANCELLED)
    assert remote.run() > 0


def test_limit_ends_a_benchmark(remote: Remote) -> None:
    remote.upload(agents.package())
    remote.open()
    ends: list[wire.RunEnd] = []

    def take(_: wire.Frame, body: wire.Body) -> None:
        if isinstance(body, wire.RunEnd):
            ends.append(body)

    with remote.sink(take):
        remote.command(wire.Command.BENCH, count=2_000_000_000, run=8, limit_ms=300)
        remote.follow(lambda: bool(ends), 20)
    assert ends[0].code == wire.Code.TIMEOUT


@pytest.mark.parametrize("noise", [0.0, 0.0002])
def test_python_agent_on_a_serial_line(tmp_path: Path, noise: float) -> None:
    """Over pseudo-terminals, clean and with damaged bytes."""
    pytest.importorskip("serial")
    ready, stop = threading.Event(), threading.Event()
    with agents.wire_pair(noise, seed=2) as (near, far):
        thread = threading.Thread(
            target=serve_serial,
            args=(f"serial://{far}", b"", tmp_path, tmp_path / "agent"),
            kwargs={"stop": stop, "ready": ready.set, "name": "pty"},
            daemon=True,
        )
        thread.start()
        assert ready.wait(10)
        remote = Remote(f"serial://{near}?baud=921600", patience_s=15, retry_s=0.1)
        assert (remote.hello.auth, remote.hello.max_body) == (0, 1008)
        m = remote_bench.bench("", agents.package(), runs=400, remote=remote)
        stop.set()
        thread.join(10)
    assert m.samples.shape == (400,)
    assert m.device == "pty"


# ---- the Python agent's own -----------------------------------------------------------------


def test_a_package_that_crashes_or_hangs_takes_only_its_process(tmp_path: Path) -> None:
    limits = Limits(time_s=1.0)
    with agents.python_agent(tmp_path, tmp_path, limits) as url, Remote(url, agents.TOKEN) as r:
        r.upload(agents.package())
        r.open()
        for number, text in ((signal.SIGSEGV, "killed by SIGSEGV"), (signal.SIGSTOP, "1 s")):
            r.open()
            os.kill(_child_of(os.getpid()), number)
            with pytest.raises(PackageError, match=text):
                r.run()
            with pytest.raises(PackageError, match="open"):
                r.run()
        r.open()
        assert r.run() > 0


def _child_of(pid: int) -> int:
    """The newest process with `edgekit.agent.child` in its command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            if parent == pid and any(w.endswith(b"agent.child") for w in words):
                found.append(int(entry.name))
    return max(found)


def test_a_package_cannot_eat_the_memory(tmp_path: Path) -> None:
    """The limit is on the process: opening fails with a sentence, the agent lives."""
    limits = Limits(memory_bytes=64 << 20)
    with agents.python_agent(tmp_path, tmp_path, limits) as url, Remote(url, agents.TOKEN) as r:
        r.upload(agents.package())
        with pytest.raises(PackageError):
            r.open()
        assert r.ping() < 5


def test_store_resumes_after_a_restart_and_leaves_no_rest(tmp_path: Path) -> None:
    data = os.urandom(50_000)
    begin = wire.XferBegin(hashlib.sha256(data).digest(), len(data))
    ident = int.from_bytes(begin.sha256[:4], "little")
    first = Store(tmp_path)
    assert first.begin(begin).offset == 0
    assert first.data(wire.XferData(ident, 0, 0, data[:30_000])).offset == 30_000
    again = Store(tmp_path)
    assert again.begin(begin).offset == 30_000
    assert again.package is None
    assert again.data(wire.XferData(ident, 0, 30_000, data[30_000:])).offset == 50_000
    assert again.end(wire.XferEnd(ident)).done == 1
    assert again.package is not None
    assert again.package.read_bytes() == data
    assert [p.suffix for p in tmp_path.iterdir()] == [".ekp"]
    third = Store(tmp_path)
    assert third.begin(begin).done == 1
    again.package.write_bytes(data[:-1] + b"?")  # bit rot: the name is not believed
    fourth = Store(tmp_path)
    assert (fourth.begin(begin).done, fourth.package) == (0, None)


def test_full_disk_is_told(tmp_path: Path) -> None:
    """A write that fails: a sentence, no half file, and the next upload works."""
    code = f"""
import hashlib, os, resource, signal
from pathlib import Path
from edgekit import wire
from edgekit.agent.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
store, data = Store(Path({str(tmp_path)!r})), bytes(50000)
begin = wire.XferBegin(hashlib.sha256(data).digest(), len(data))
ident = int.from_bytes(begin.sha256[:4], "little")
store.begin(begin)
def put(at): return store.data(wire.XferData(ident, 0, at, data[at:at + 10000]))
acks = [put(at) for at in range(0, 50000, 10000)]
print([int(a.code) for a in acks], acks[2].text.decode(), sorted(os.listdir({str(tmp_path)!r})))
small = wire.XferBegin(hashlib.sha256(b"x" * 99).digest(), 99)
ident = int.from_bytes(small.sha256[:4], "little")
store.begin(small), store.data(wire.XferData(ident, 0, 0, b"x" * 99))
print(store.end(wire.XferEnd(ident)).done)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = out.stdout.splitlines()
    no_space, gone = int(wire.Code.NO_SPACE), int(wire.Code.NO_PACKAGE)
    assert lines[0].startswith(f"[0, 0, {no_space}, {gone}, {gone}] disk full")
    assert lines[0].endswith("[]")
    assert lines[1] == "1"
    ack = Store(tmp_path).begin(wire.XferBegin(b"h" * 32, 1 << 60))
    assert ack.code == wire.Code.NO_SPACE
    assert b"disk full" in ack.text


def test_old_packages_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first, and only as many as needed."""
    for i, name in enumerate(("old", "mid", "new")):
        (tmp_path / f"{name}.ekp").write_bytes(bytes(1000))
        os.utime(tmp_path / f"{name}.ekp", (i, i))

    def usage(folder: Path) -> shutil._ntuple_diskusage:
        used = sum(p.stat().st_size for p in tmp_path.iterdir())
        return shutil._ntuple_diskusage(3500, used, 3500 - used)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    ack = Store(tmp_path).begin(wire.XferBegin(b"h" * 32, 1200))
    assert ack.code == wire.Code.OK
    assert sorted(p.stem for p in tmp_path.glob("*.ekp")) == ["mid", "new"]
    assert Store(tmp_path).begin(wire.XferBegin(b"i" * 32, 9000)).code == wire.Code.NO_SPACE
    assert sorted(p.stem for p in tmp_path.glob("*.ekp")) == ["mid", "new"]  # not in vain


def test_queue_forgets_only_what_is_acknowledged() -> None:
    q = Queue(limit_bytes=500)
    frames = [q.put(1, 0x11, bytes(10), t) for t in range(10)]
    assert [f.seq for f in frames] == list(range(1, 11))
    assert q.pending() == frames
    assert not q.full
    assert q.acknowledge(wire.Ack(1, 0, 4, 0)) == []
    assert q.pending() == frames[4:]
    again = q.acknowledge(wire.Ack(1, wire.ACK_RESEND, 4, 0b10))  # 6 is there
    assert again == [frames[4], *frames[6:]]
    assert q.acknowledge(wire.Ack(1, 0, 99, 0)) == []  # of frames never sent
    assert q.acknowledge(wire.Ack(1, 0, 2, 0)) == []  # late
    assert q.pending() == frames[4:]
    assert q.bytes == 6 * (10 + wire.OVERHEAD)
    while not q.full:
        q.put(1, 0x11, bytes(100), 0)
    assert q.bytes >= 500


def test_command_line_of_the_agent(tmp_path: Path) -> None:
    """It serves a host, refuses to start without a token, and ends on a signal."""
    base = [sys.executable, "-m", "edgekit.agent"]
    options = ("--work-dir", str(tmp_path), "--sysroot", str(tmp_path))
    with (
        agents.program_agent(*base, options=options) as url,
        Remote(url, agents.TOKEN) as r,
    ):
        r.upload(agents.package())
        assert r.open().ops == 2
        assert r.run() > 0
    env = {k: v for k, v in os.environ.items() if k != "EDGEKIT_TOKEN"}
    for wrong in (
        ["--listen", "0"],
        ["--listen", "x"],
        [],
        ["--serial", "/dev/none", "--listen", "1"],
    ):
        done = subprocess.run([*base, *wrong], capture_output=True, text=True, env=env)
        assert done.returncode == 1
        assert done.stderr.startswith("edgekit-agent: ")
        assert "Traceback" not in done.stderr


def test_urls_are_checked() -> None:
    for url in (
        "",
        "tcp://",
        "tcp://host",
        "tcp://host:x",
        "http://a:1",
        "serial://x",
        "serial:///d?baud=x",
    ):
        with pytest.raises(UsageError):
            open_link(url)
    with pytest.raises(LinkError, match="no connection"):
        open_link("tcp://127.0.0.1:1")
    with pytest.raises(LinkError, match="cannot be opened"):
        open_link("serial:///dev/no-such-port")


def test_measurement_is_data(url: str) -> None:
    m = remote_bench.bench(url, agents.package(), token=agents.TOKEN, runs=5, traced=0)
    assert m.ops == ()
    assert dataclasses.asdict(m)["unit"] == "us"
    with pytest.raises(dataclasses.FrozenInstanceError):
        m.unit = "ms"  # type: ignore[misc]

"""Latency of EdgeKit beside other runtimes on this machine, interleaved; writes host.json.

    python bench/run.py [--nets KWS,IC] [--peers onnxruntime,litert] [--threads 1]

Every runtime lives in a child process (peers.py).  In each of ROUNDS rounds every runtime takes a
turn of about TURN_S seconds, in rotated order, after some inferences that only warm up; so what
else the machine does hits all alike.  The ratio is that of the smallest times; with one thread and
models above LONG_US, of the smallest processor times.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import files
import nets
import numpy as np
import venvs

from edgekit import boards, contents, explain
from edgekit.errors import EdgeKitError

HERE = Path(__file__).resolve().parent
OUT = HERE / "results" / "host.json"
PEERS = ("onnxruntime", "litert", "openvino", "ncnn", "mnn", "executorch")
ROUNDS = 10
TURN_S = 0.04
WARM = 3
PILOT = 5
LONG_US = 1000
CEILING = ("IC", "MobileNetV2", "ResNet-18")  # in one cache, and not
Paths = dict[str, Path]
Times = dict[str, Any]


@dataclass
class Child:
    """A runtime's process."""

    name: str
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        native = self.name == "edgekit"
        venv = "executorch" if self.name == "executorch" else "peers"
        program = Path(sys.executable) if native else venvs.python(venv)
        self.process = subprocess.Popen(
            [str(program), str(HERE / "peers.py"), self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=venvs.environment(native),
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request; RuntimeError with the runtime's words where it failed."""
        self.send(**request)
        return self.answer()

    def send(self, **request: Any) -> None:
        """Asks without waiting."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass

    def answer(self) -> dict[str, Any]:
        """The answer to what was asked last; RuntimeError as `ask`."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.__post_init__()
            raise RuntimeError(f"its process ended with {code}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply

    def stop(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def prepare(net: nets.Net, precision: str, names: Sequence[str]) -> tuple[Paths, dict[str, str]]:
    """(files by runtime, why others have none): every conversion, before anything is timed."""
    found: Paths = {}
    without: dict[str, str] = {}
    for name in names:
        try:
            found[name] = files.model_file(net, precision, name)
        except (files.Unavailable, EdgeKitError) as reason:
            without[name] = str(reason)
    return found, without


def compare(
    net: nets.Net, precision: str, threads: int, children: Sequence[Child], ready: Any
) -> dict[str, Any]:
    """One network, precision and thread count: times by runtime, and why others have none."""
    paths, without = ready[0], dict(ready[1])
    opened: dict[str, dict[str, Any]] = {}
    for child in children:
        if child.name not in paths:
            continue
        try:
            opened[child.name] = child.ask(
                do="open", path=str(paths[child.name]), threads=threads, precision=precision
            )
            child.ask(do="time", count=PILOT)
        except RuntimeError as reason:
            opened.pop(child.name, None)
            without[child.name] = str(reason)
    taken, cpu = interleave([c for c in children if c.name in opened], threads == 1)
    for name, us in taken.items():
        facts = {"min_us": float(us.min()), "median_us": float(np.median(us)), "runs": len(us)}
        if name in cpu:
            facts["cpu_us"] = float(cpu[name].min())
        opened[name].update({k: round(v, 3) for k, v in facts.items()})
    found: dict[str, Any] = {"runtimes": opened, "without": without, "macs": macs(paths)}
    if threads == 1 and "edgekit" in opened:
        ours = next(c for c in children if c.name == "edgekit")
        found["ops"] = ours.ask(do="ops")["ops"]
    for child in children:
        child.ask(do="close")
    return {"net": net.name, "precision": precision, "threads": threads, **found}


def merged(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """`facts` and, after them, what an earlier run measured and this one did not."""
    if not path.exists():
        return facts
    here = {(r["net"], r["precision"], r["threads"]) for r in facts["results"]}
    before = json.loads(path.read_text())["results"]
    kept = [r for r in before if (r["net"], r["precision"], r["threads"]) not in here]
    ceiling = facts.get("ceiling", json.loads(path.read_text()).get("ceiling", {}))
    return {**facts, "results": facts["results"] + kept, "ceiling": ceiling}


def macs(paths: Paths) -> int | None:
    """Multiply-adds of EdgeKit's package."""
    if "edgekit" not in paths:
        return None
    data = paths["edgekit"].read_bytes()
    return explain.explain(data, contents.read(data), boards.load("host")).macs


def interleave(children: Sequence[Child], alone: bool) -> tuple[Times, Times]:
    """Microseconds (n,) of every runtime; where it is `alone` (one thread), processor time too.

    That of one inference above LONG_US is hardly ever undisturbed on a machine with other work.
    """
    counts = {}
    for child in children:
        pilot = float(np.min(child.ask(do="time", count=PILOT)["us"]))
        alone = alone and (pilot > LONG_US or child.name != children[0].name)
        counts[child.name] = int(np.clip(TURN_S * 1e6 / max(pilot, 1.0), 3, 2000))
    taken: dict[str, list[Any]] = {c.name: [] for c in children}
    cpu: dict[str, list[Any]] = {c.name: [] for c in children}
    call = {c.name: float("inf") for c in children}
    for r in range(ROUNDS):
        for k in range(len(children)):
            child = children[(k + r) % len(children)]
            told = child.ask(do="time", count=WARM + counts[child.name])
            taken[child.name].append(told["us"][WARM:])
            call[child.name] = min(call[child.name], told["call_us"])
            if alone:
                cpu[child.name].append(child.ask(do="cpu", count=counts[child.name])["us"])
    return _joined(taken, call), _joined(cpu, call) if alone else {}


def _joined(parts: dict[str, list[Any]], call: dict[str, float]) -> Times:
    """All turns, less the Python call."""
    return {name: np.maximum(np.concatenate(p) - call[name], 0.0) for name, p in parts.items()}


def ceiling(path: Path) -> float:
    """How much faster two processors are than one: a network on one thread, in one process and two.

    2 where they share nothing; less where they are threads of one core or share its caches.
    """
    two = [Child("edgekit"), Child("edgekit")]
    alone, both = [], []
    try:
        for child in two:
            child.ask(do="open", path=str(path), threads=1, precision="int8")
        pilot = float(np.min(two[0].ask(do="time", count=PILOT)["us"]))
        count = int(np.clip(TURN_S * 1e6 / pilot, 3, 2000))
        for _ in range(ROUNDS):
            alone.append(min(two[0].ask(do="time", count=count)["us"]))
            for child in two:
                child.send(do="time", count=count)
            both.append(max(min(child.answer()["us"]) for child in two))
    finally:
        for child in two:
            child.stop()
    return 2 * min(alone) / min(both)


def machine() -> dict[str, str]:
    """What was measured on: CPU, cores, system, commit, load before the run."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True
    )
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": git.stdout.strip(),
        "cpu": cpu,
        "cores": str(os.cpu_count()),
        "system": platform.platform(terse=True),
        "load_before": f"{os.getloadavg()[0]:.1f}",
    }


def main() -> int:
    """Measures and writes the results as they come."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--nets", default="", help="names, by comma; default all")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--precision", default="int8,float32")
    parser.add_argument("--add", action="store_true", help="keep what earlier runs measured")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    wanted, gone = nets.present([n for n in args.nets.split(",") if n])
    names = ["edgekit", *filter(None, args.peers.split(","))]
    precisions = args.precision.split(",")
    ready = {(n.name, p): prepare(n, p, names) for p in precisions for n in wanted}
    children = [Child(n) for n in names]
    facts: dict[str, Any] = {"machine": machine(), "gone": gone, "results": []}
    began = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is measured is still written
    try:
        for net in wanted if args.threads != "1" else []:
            if (net.name, "int8") in ready and net.name in CEILING:
                facts.setdefault("ceiling", {})[net.name] = ceiling(
                    ready[net.name, "int8"][0]["edgekit"]
                )
        told = ", ".join(f"{k} {v:.2f}" for k, v in facts.get("ceiling", {}).items())
        print(
            f"two processors are at most so many times as fast as one: {told}" if told else "",
            flush=True,
        )
        for threads in map(int, args.threads.split(",")):
            for precision in precisions:
                for net in wanted:
                    found = compare(net, precision, threads, children, ready[net.name, precision])
                    facts["results"].append({**found, "commit": facts["machine"]["commit"]})
                    show(found)
    finally:
        for child in children:
            child.stop()
        facts["machine"]["seconds"] = f"{time.monotonic() - began:.0f}"
        if facts["results"]:
            write(args.out, merged(args.out, facts) if args.add else facts)
    return 0


def write(path: Path, facts: dict[str, Any]) -> None:
    """Results as JSON."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(facts, indent=1) + "\n")
    part.rename(path)


def show(found: dict[str, Any]) -> None:
    """One line on the console."""
    times = {k: v.get("cpu_us", v["min_us"]) for k, v in found["runtimes"].items()}
    ours = times.pop("edgekit", float("nan"))
    rest = "  ".join(f"{k} {v:.1f}" for k, v in sorted(times.items(), key=lambda x: x[1]))
    ratio = ours / min(times.values(), default=float("nan"))
    head = f"{found['net']:18} {found['precision']:7} x{found['threads']}"
    print(f"{head}  EdgeKit {ours:9.1f} us  {ratio:5.2f} of the fastest  {rest}", flush=True)
    for name, reason in found["without"].items():
        print(f"    without {name}: {reason}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())

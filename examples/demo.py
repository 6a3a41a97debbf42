"""The whole line in one go: `make demo`, or `python examples/demo.py [FOLDER]`.

Trains a small CNN on scikit-learn's digits, builds INT8 packages, runs them here and on emulated boards through
their agents, and ends with a table and an HTML report.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from edgekit import boards, check, console, contents, devices, emulate, explain, measure, package, pipeline, report
from edgekit import remote_bench as remote
from edgekit.errors import EdgeKitError
from edgekit.remote import Remote
from edgekit_runtime import Session

EMULATED = ("qemu_arm64", "qemu_mps2_an386", "qemu_mps3_an547")
EPOCHS, BATCH, TEST = 20, 64, 450
SAME = 25  # test images whose bits are compared with the host's, per board
SCALE = 1 / 16  # digits are 0..16


@dataclass(frozen=True)
class Line:
    """One row of the closing table."""

    where: str
    precision: str
    accuracy: str
    package_bytes: int
    arena_bytes: int
    cost: str


class Net(nn.Module):
    """8x8 digits -> 10 classes: two plain convolutions and a depthwise-separable one."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x)


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images (n, 1, 8, 8) float32 in 0..1 and labels, then test images and labels."""
    bunch = load_digits()
    x = (bunch.images[:, None] * SCALE).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], bunch.target[order]
    return x[TEST:], y[TEST:], x[:TEST], y[:TEST]


def train(x: np.ndarray, y: np.ndarray) -> nn.Module:
    """The trained network, in eval mode."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the layers are too small to share
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(EPOCHS):
        for i in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[i]), labels[i]).backward()
            optimizer.step()
        schedule.step()
    return net.eval()


def on_board(board: boards.Board, blob: bytes, x: np.ndarray, want: list[np.ndarray]) -> tuple[remote.Measurement, int]:
    """Benchmark of a package on an emulated board, and how many of the outputs are the host's, bit for bit."""
    with devices.reach(board.id) as (url, token):
        m = remote.bench(url, blob, token=token, runs=20, inputs=[x[:1].tobytes()])
        with Remote(url, token) as r:
            r.upload(blob)
            r.open()
            same = 0
            for image, y in zip(x, want):
                r.set_input(0, image[None].tobytes())
                r.run()
                same += r.output(0) == y.tobytes()
    return m, same


def main() -> int:
    """Runs the demo; exit code 1 where the INT8 package lost more than two points or a board gave other bits."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo")
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    x, y, xt, yt = digits()
    net = train(x, y)
    print(f"trained on {len(x)} digits, {len(xt)} kept for the test: {time.monotonic() - begin:.1f} s")

    shapes = {"x": (1, 1, 8, 8)}
    built_float = pipeline.build(net, shapes=shapes)
    host = pipeline.build(net, shapes=shapes, precision="int8", calibration={"x": x})
    paths = {"float32": folder / "digits_float32.ekp", "int8": folder / "digits_int8.ekp"}
    package.save(paths["float32"], built_float.data)
    package.save(paths["int8"], host.data)
    test = folder / "test.npz"
    np.savez(test, x=xt, y=yt)
    print("\n".join(f"  {line}" for line in host.log))

    with torch.no_grad():
        right = float((net(torch.from_numpy(xt)).argmax(1).numpy() == yt).mean())
    found = {k: check.accuracy(p, test) for k, p in paths.items()}
    print(f"top-1: torch {100 * right:.2f} %, float32 {100 * found['float32'].package:.2f} %, "
          f"int8 {100 * found['int8'].package:.2f} %")  # fmt: skip
    loss = check.paired_loss(found["float32"].scores, found["int8"].scores)

    lines, parts, failed = [], [], loss.value > 0.02
    timings = measure.bench([paths["float32"], paths["int8"]], [exported(net, folder)])
    for t, (kind, path) in zip(timings, paths.items()):
        costs = contents.read(path.read_bytes()).memory
        cost = f"{t.quantile(0.5):.1f} us (p99 {t.quantile(0.99):.1f})"
        lines.append(Line("this machine", kind, f"{100 * found[kind].package:.2f} %", path.stat().st_size, costs["main"], cost))
    for t in timings[2:]:
        cost = f"{t.quantile(0.5):.1f} us (p99 {t.quantile(0.99):.1f})"
        lines.append(Line(t.label, t.precision, f"{100 * right:.2f} %", (folder / t.file).stat().st_size, 0, cost))

    with Session(host.data) as s:
        want = [s.run(image[None])[s.outputs()[0].name] for image in xt[:SAME]]
    for board in map(boards.load, EMULATED):
        why = emulate.missing(board)
        if why:
            print(f"{board.id}: skipped, {why}")
            lines.append(Line(board.id, "int8", "-", 0, 0, f"skipped: {why}"))
            continue
        start = time.monotonic()
        built = pipeline.build(net, board=board, shapes=shapes, precision="int8", calibration={"x": x})
        try:
            m, same = on_board(board, built.data, xt[:SAME], want)
        except EdgeKitError as e:
            print(f"{board.id}: {e}", file=sys.stderr)
            failed = True
            continue
        failed |= same != SAME
        print(f"{board.id}: {same} of {SAME} outputs equal the host's bit for bit ({time.monotonic() - start:.1f} s "
              "with its program's compilation)")  # fmt: skip
        package.save(folder / f"digits_{board.id}.ekp", built.data)
        accuracy = f"{100 * found['int8'].package:.2f} % (same bits)" if same == SAME else "OTHER BITS"
        cost = f"emulated: {m.p50:,.0f} {m.unit}" if m.p50 is not None else "no clock"
        lines.append(Line(m.device, "int8", accuracy, len(built.data), m.memory_bytes["main"], cost))
        parts += report.measurement_parts(f"digits_{board.id}.ekp", m)
    close(folder, lines, parts, host, timings, loss, begin)
    return 1 if failed else 0


def exported(net: nn.Module, folder: Path) -> Path:
    """The network as an ONNX file, for onnxruntime."""
    path = folder / "digits.onnx"
    logging.disable(logging.WARNING)  # the exporter tells its progress and what it misses
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (torch.zeros(1, 1, 8, 8),), path, dynamo=True, external_data=False, verbose=False)
    logging.disable(logging.NOTSET)
    return path


def close(
    folder: Path, lines: list[Line], parts: list[str], host: pipeline.Built, timings: list[measure.Timing],
    loss: check.Interval, begin: float,
) -> None:  # fmt: skip
    """Prints the table and writes the report."""
    columns = ("where", "precision", "top-1", ">package B", ">arena B", "p50 latency")
    rows = [(r.where, r.precision, r.accuracy, r.package_bytes, r.arena_bytes or None, r.cost) for r in lines]
    console.table("\ndigits CNN", columns, rows)
    interval = f"{100 * loss.lo:+.2f} .. {100 * loss.hi:+.2f}"
    print(f"net loss of int8: {100 * loss.value:+.2f} points (95 % interval {interval}, paired, {TEST} digits)")
    costs = explain.explain(host.data, contents.read(host.data), host.board)
    text = report.page(
        "EdgeKit: a CNN on digits, from torch to a microcontroller",
        [
            report.table(columns, rows),
            report.note(f"Net loss of int8 {100 * loss.value:+.2f} points, 95 % interval {interval}, paired."),
            report.note("Emulated boards count instructions; QEMU tells nothing about their time."),
            report.heading("Stages"), report.lines(host.log), *report.sqnr_parts(host),
            *report.timing_parts(timings), *report.explain_parts(costs, explain.needs(host.data, host.board)), *parts,
        ],
    )  # fmt: skip
    path = folder / "report.html"
    report.save(path, text)
    digest = hashlib.sha256(host.data).hexdigest()[:12]
    print(f"run time: {time.monotonic() - begin:.1f} s; package {digest}; report: {path.resolve()}")


if __name__ == "__main__":
    raise SystemExit(main())

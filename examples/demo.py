"""The whole line in one go: `make demo`, or `python examples/demo.py [FOLDER]`.

Trains a small CNN on scikit-learn's digits, builds INT8 packages, runs them here and on emulated
boards through their agents, and ends with a table and an HTML report.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from edgekit_runtime import Session
from sklearn.datasets import load_digits
from torch import nn

from edgekit import (
    boards,
    check,
    console,
    contents,
    devices,
    emulate,
    explain,
    measure,
    package,
    pipeline,
    report,
    toolchain,
)
from edgekit import remote_bench as remote
from edgekit.adapters import MissingRuntime
from edgekit.remote import Remote

EMULATED = ("qemu_arm64", "qemu_mps2_an386", "qemu_mps3_an547")
EPOCHS, BATCH, TEST = 20, 64, 450
SAME = 25  # test images whose bits are compared with the host's, per board
SCALE = 1 / 16  # digits are 0..16


@dataclass(frozen=True)
class Line:
    """One row of the closing table."""

    where: str
    precision: str
    top1: str
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


def on_board(
    board: boards.Board, blob: bytes, x: np.ndarray, want: list[np.ndarray]
) -> tuple[remote.Measurement, int]:
    """Benchmark of a package on an emulated board; how many outputs are the host's, bit for bit."""
    with devices.reach(board.id) as (url, token):
        m = remote.bench(url, blob, token=token, runs=20, inputs=[x[:1].tobytes()])
        with Remote(url, token) as r:
            r.upload(blob)
            r.open()
            same = 0
            for image, y in zip(x, want, strict=True):
                r.set_input(0, image[None].tobytes())
                r.run()
                same += r.output(0) == y.tobytes()
    return m, same


def exported(net: nn.Module, folder: Path) -> Path:
    """The network as an ONNX file, for onnxruntime."""
    path = folder / "digits.onnx"
    logging.disable(logging.WARNING)  # the exporter tells its progress and what it misses
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.zeros(1, 1, 8, 8),)
        torch.onnx.export(net, example, path, dynamo=True, external_data=False, verbose=False)
    logging.disable(logging.NOTSET)
    return path


def on_host(
    folder: Path, net: nn.Module, blobs: dict[str, bytes], test: Path
) -> tuple[list[Line], list[measure.Timing], dict[str, check.Accuracy]]:
    """Accuracy and latency on this machine, beside onnxruntime where it is installed."""
    paths = {kind: folder / f"digits_{kind}.ekp" for kind in blobs}
    for kind, path in paths.items():
        package.save(path, blobs[kind])
    found = {kind: check.accuracy(path, test) for kind, path in paths.items()}
    try:
        timings = measure.bench([*paths.values()], [exported(net, folder)])
    except MissingRuntime as e:
        print(f"no peer beside us: {e}")
        timings = measure.bench([*paths.values()])
    lines = []
    for t in timings:
        cost = f"{t.quantile(0.5):.1f} us (p99 {t.quantile(0.99):.1f})"
        size = (folder / t.file).stat().st_size
        if t.file.endswith(".ekp"):
            arena = contents.read((folder / t.file).read_bytes()).memory["main"]
            top1 = f"{100 * found[t.precision].package:.2f} %"
            lines.append(Line("this machine", t.precision, top1, size, arena, cost))
        else:
            lines.append(Line(t.label, t.precision, "-", size, 0, cost))
    return lines, timings, found


def compiled(names: tuple[str, ...]) -> tuple[list[boards.Board], list[Line]]:
    """The boards that can be emulated here, their agents compiled; a line for each that cannot."""
    ready, lines = [], []
    for board in map(boards.load, names):
        why = emulate.missing(board)
        if why:
            print(f"{board.id}: skipped, {why}")
            lines.append(Line(board.id, "int8", "-", 0, 0, f"skipped: {why}"))
            continue
        if board.bare:
            toolchain.firmware(board, "agent")
        else:
            toolchain.agent_program(board)
        emulate.counter()
        ready.append(board)
    return ready, lines


def main() -> int:
    """Runs the demo; 1 where int8 lost more than two points or a board gave other bits."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo")
    folder.mkdir(parents=True, exist_ok=True)
    clock = [time.monotonic()]
    x, y, xt, yt = digits()
    net = train(x, y)
    test = folder / "test.npz"
    np.savez(test, x=xt, y=yt)
    clock.append(time.monotonic())
    ready, skipped = compiled(EMULATED)
    clock.append(time.monotonic())

    int8 = {"shapes": {"x": (1, 1, 8, 8)}, "precision": "int8", "calibration": {"x": x}}
    built_float = pipeline.build(net, shapes={"x": (1, 1, 8, 8)})
    host = pipeline.build(net, **int8)
    print("\n".join(host.log))
    blobs = {"float32": built_float.data, "int8": host.data}
    lines, timings, found = on_host(folder, net, blobs, test)
    loss = check.paired_loss(found["float32"].scores, found["int8"].scores)
    failed = loss.value > 0.02

    with Session(host.data) as s:
        want = [next(iter(s.run(image[None]).values())) for image in xt[:SAME]]
    parts: list[str] = []
    for board in ready:
        blob = pipeline.build(net, board=board, **int8).data
        name = f"digits_{board.id}.ekp"
        package.save(folder / name, blob)
        m, same = on_board(board, blob, xt[:SAME], want)
        failed |= same != SAME
        print(f"{board.id}: {same} of {SAME} outputs are the host's, bit for bit")
        cost = f"emulated: {m.p50 or 0:,.0f} {m.unit}"
        bits = f"{same}/{SAME} same bits"
        lines.append(Line(m.device, "int8", bits, len(blob), m.memory_bytes["main"], cost))
        parts += report.measurement_parts(name, m)
    save_report(folder / "report.html", [*lines, *skipped], parts, host, timings, loss)
    clock.append(time.monotonic())
    trained, tools, rest = np.diff(clock)
    print(
        f"training {trained:.1f} s, compiling for the boards {tools:.1f} s, all else {rest:.1f} s"
    )
    print(f"report: {(folder / 'report.html').resolve()}")
    return 1 if failed else 0


def save_report(
    path: Path,
    lines: list[Line],
    parts: list[str],
    host: pipeline.Built,
    timings: list[measure.Timing],
    loss: check.Interval,
) -> None:
    """Prints the table and writes the report."""
    columns = ("where", "precision", "top-1", ">package B", ">arena B", "p50")
    rows = [
        (r.where, r.precision, r.top1, r.package_bytes or None, r.arena_bytes or None, r.cost)
        for r in lines
    ]
    console.table("CNN on digits", columns, rows)
    text = (
        f"int8 loses {100 * loss.value:+.2f} points of top-1 (95 % interval "
        f"{100 * loss.lo:+.2f} .. {100 * loss.hi:+.2f}, paired, {TEST} digits)"
    )
    print(text)
    costs = explain.explain(host.data, contents.read(host.data), host.board)
    page = [
        report.table(columns, rows),
        report.note(text),
        report.note("Emulated boards count instructions; QEMU tells nothing about their time."),
        report.heading("Stages"),
        report.lines(host.log),
        *report.sqnr_parts(host),
        *report.timing_parts(timings),
        *report.explain_parts(costs, explain.needs(host.data, host.board)),
        *parts,
    ]
    title = "EdgeKit: a CNN on digits, from torch to a microcontroller"
    report.save(path, report.page(title, page))


if __name__ == "__main__":
    raise SystemExit(main())

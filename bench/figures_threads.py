"""What a second thread gives: one thread's least time over two threads', measured in turns."""

from __future__ import annotations

import os
import time

import files
import nets
from edgekit_runtime import Session
from figures import Outcome, Skip, item
from peers import made

BAR = 1.7
BARS = ("MobileNetV2 int8", "ResNet-18 int8")
MODELS = ("MobileNetV2", "ResNet-18", "SqueezeNet", "EfficientNet-Lite0", "MobileNetV3-small")
SECONDS = 4.0  # of a model: minima of a shared machine need many tries
RUNS = 8  # of one session, one after the other


def least_us(path: str) -> list[float]:
    """The least time of a run with one and with two threads, timed in C."""
    sessions = [Session(path, threads=n) for n in (1, 2)]
    for s in sessions:
        s.set_inputs({i.name: made(i.shape, i.dtype) for i in s.inputs()})
    least = [float("inf")] * 2
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for k, s in enumerate(sessions):
            least[k] = min(least[k], *(float(t) for t in s.time(RUNS)))
    for s in sessions:
        s.close()
    return least


@item("host.threads", f"two threads at least {BAR} x one on {' and '.join(BARS)}")
def threads() -> Outcome:
    if (os.cpu_count() or 1) < 2:
        raise Skip("this machine has one core")
    figure = {}
    for precision in ("int8", "float32"):
        for net in nets.present(MODELS)[0]:
            one, two = least_us(str(files.model_file(net, precision, "edgekit")))
            label = f"{net.name} {precision}"
            figure[label] = {"us": [round(one), round(two)], "ratio": round(one / two, 2)}
    return Outcome(figure, all(n in figure and figure[n]["ratio"] >= BAR for n in BARS))

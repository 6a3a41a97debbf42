"""Training: distillation, halving a CNN and a transformer, integers that training saw."""

from __future__ import annotations

import gzip
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import train_cifar
from edgekit_runtime import Session
from figures import ROOT, Outcome, Skip, item, points
from samples import _file, jpeg_cifar

from edgekit import boards, frontends, measure, passes, pipeline, recipe
from edgekit.compress import store
from edgekit.ir import Array, Graph
from edgekit.recipe.run import Run
from edgekit.recipe.samples import material, predictions

HOST = "host"
TEST = 3000
RUNS = Path(os.environ.get("EDGEKIT_RUNS", ROOT / "bench" / "out" / "runs"))


def mnist() -> tuple[Array, Array]:
    """The 10,000 images (n, 1, 28, 28) in 0..1 and their classes."""
    with gzip.open(_file("t10k-images-idx3-ubyte.gz")) as f:
        x = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(_file("t10k-labels-idx1-ubyte.gz")) as f:
        y = np.frombuffer(f.read(), np.uint8, offset=8)
    return (x / np.float32(255)).astype(np.float32), y.astype(np.int64)


def runner(
    graph: Graph, seed: int, train: int = 7000, teacher: Graph | None = None, board: str = HOST,
    held: int = 0,
) -> Run:  # fmt: skip
    """3,000 test images, the same for all seeds; the seed picks the others' order.  `held`: so many
    of those, behind the ones that train, take the test images' place."""
    x, y = mnist()
    order = np.random.default_rng(seed).permutation(len(x) - TEST) + TEST
    test, order = order[train : train + held] if held else np.arange(TEST), order[:train]
    made = material(
        {"x": x[test], "y": y[test]}, graph, test=len(test), train=train,
        training={"x": x[order], "y": y[order]},
    )  # fmt: skip
    return Run(graph, made, boards.load(board), teacher=teacher)


def graph_of(net: Any) -> Graph:
    import torch

    made = frontends.load(net.eval(), args=(torch.zeros(1, 1, 28, 28),))
    return passes.simplify_all(made)[0]


def cnn(seed: int, *widths: int, mean: bool = False) -> Graph:
    """Convolutions 3x3 with batch norm, the first two of stride 2; linear, of all pixels or of
    their mean."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for k, (i, o) in enumerate(zip((1, *widths), widths, strict=False)):
        layers += [nn.Conv2d(i, o, 3, 2 if k < 2 else 1, 1), nn.BatchNorm2d(o, momentum=None)]
        layers += [nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1)] if mean else []
    wide = widths[-1] if mean else 49 * widths[-1]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(wide, 10))
    with torch.no_grad():
        net.train()(torch.from_numpy(mnist()[0][-256:]))  # settles the statistics
    return graph_of(net)


def vit(seed: int, dim: int = 64, heads: int = 4, depth: int = 4) -> Graph:
    """A transformer over 49 patches: pre-norm blocks, mean of the tokens, linear."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.n1, self.n2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
            self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

        def forward(self, x: Tensor) -> Tensor:
            h, n = self.n1(x), x.shape[1]
            q, k, v = (m(h).reshape(-1, n, heads, dim // heads).transpose(1, 2)
                       for m in (self.q, self.k, self.v))  # fmt: skip
            w = torch.softmax(q @ k.transpose(-1, -2) * (dim // heads) ** -0.5, -1)
            x = x + self.o((w @ v).transpose(1, 2).reshape(-1, n, dim))
            return x + self.down(F.gelu(self.up(self.n2(x))))

    class Vit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.norm = nn.Conv2d(1, dim, 4, 4), nn.LayerNorm(dim)
            self.place = nn.Parameter(0.1 * torch.randn(1, 49, dim))
            self.blocks = nn.Sequential(*(Block() for _ in range(depth)))
            self.head = nn.Linear(dim, 10)

        def forward(self, x: Tensor) -> Tensor:
            y = self.patch(x).flatten(2).transpose(1, 2) + self.place
            return self.head(self.norm(self.blocks(y)).mean(1))

    torch.manual_seed(seed)
    return graph_of(Vit())


def step(do: str, **settings: Any) -> recipe.Step:
    return recipe.Step(do, settings)


def faster(a: Graph, b: Graph, count: int = 1000) -> float:
    """How many times quicker b runs than a on this machine: least times, in rounds of many runs, so
    that neither finds in the caches what the other left."""
    target = pipeline.target_of(boards.load(HOST))
    with (
        Session(pipeline.package_graph(a, target)) as s,
        Session(pipeline.package_graph(b, target)) as t,
    ):
        one, other = measure.interleave((s, t), count)
    return float(one.min() / other.min())


def halved(
    make: Callable[[int], Graph], learn: dict[str, Any], cut: dict[str, Any], board: str = HOST
) -> Outcome:
    """Trains, prunes and distils with 3 seeds; the mean of the metric, the least of the rest."""
    rows, kept, gone, quick = [], [], [], []
    for seed in range(3):
        taught = step("finetune", **learn | {"seed": seed})
        trained = runner(make(seed), seed).run((taught,))[0]
        run = runner(trained, seed, board=board)
        again = step("distill", **learn | {"seed": seed})
        small, entries = run.run((step("prune", **cut), again))
        before, after = run.float_accuracy or 0.0, entries[-1].accuracy or 0.0
        rows.append([points(before), points(after)])
        kept.append(100 * after / before)
        gone.append(100 - 100 * pipeline.weight_bytes(small) / pipeline.weight_bytes(trained))
        quick.append(faster(trained, small))
    mean = float(np.mean(kept))
    figure = {
        "float_halved": rows, "kept": round(mean, 1),
        "parameters_gone": [round(g) for g in gone], "times_faster": [round(q, 2) for q in quick],
    }  # fmt: skip
    return Outcome(figure, mean >= 96.4 and min(gone) >= 50 and min(quick) >= 2.0)


LEARN: dict[str, Any] = {"steps": 300, "batch": 64, "rate": 3e-3, "norms": True, "seed": 0}
BAR = "50 % of parameters gone, >= 96.4 % of the metric, >= 2.0 x as fast, 3 seeds"


@item("training.halved_cnn", BAR)
def halved_cnn() -> Outcome:
    cut = {"share": 0.5, "granule": 16, "importance": "fisher", "repair": True}
    return halved(lambda seed: cnn(seed, 32, 64, 64), LEARN, cut)


@item("training.halved_transformer", BAR)
def halved_transformer() -> Outcome:
    """Cut by the modelled cycles of a phone's core, all ops counted; the speed is measured here."""
    learn = {"steps": 600, "batch": 64, "rate": 2e-3, "warmup": 0.1}
    cut = {"latency": 2.6, "granule": 16, "importance": "fisher", "layers": True, "samples": 256}
    return halved(vit, learn, cut, "phone_i8mm")


@item(
    "training.seventh",
    "one CNN, whole file <= 1/7 of its FP16 weights, >= 99 % of the accuracy, QAT, mean of 3 seeds",
)
def seventh() -> Outcome:
    """2 bits but for the first and the last layer; the file is a phone's, with all it needs.  Steps
    were chosen on 1,500 images that neither train nor test (400: 99.4 % kept, 1,200: 100.1 %)."""
    down = step("quantize", bits=2)
    taught = step("qat", **LEARN | {"steps": 1200, "rate": 1e-3, "soft": 0.7, "freeze": 0.02})
    rows: list[list[float]] = []
    small: list[float] = []
    for seed in range(3):
        fresh = runner(cnn(seed, 64, 128, 128, mean=True), seed)
        trained = fresh.run((step("finetune", **LEARN | {"seed": seed}),))[0]
        run = runner(trained, seed, board="phone_i8mm")
        rounded, e = run.run((down, taught))[1]
        half = pipeline.weight_bytes(trained) // 2
        small.append(half / e.package_bytes)
        rows.append([points(a or 0.0) for a in (run.float_accuracy, rounded.accuracy, e.accuracy)])
    kept = 100 * float(np.mean([c / a for a, _, c in rows]))
    figure = {
        "fp16_bytes": half, "file_bytes": e.package_bytes, "times_smaller": min(small),
        "float_rounded_trained": rows, "kept": round(kept, 2),
    }  # fmt: skip
    return Outcome(figure, min(small) >= 7 and kept >= 99.0)


SOFT = ((0.5, 4.0), (0.9, 2.0), (0.9, 4.0), (0.9, 8.0))  # share and temperature


@item("training.distill", "student >= +1.0 point over its own training, 3 seeds, equal steps")
def distill() -> Outcome:
    """Teacher and student see the same 500 images; the teacher's are moved about.  Share and
    temperature are chosen on 1,500 images that neither trains nor tests, with seeds of their own.
    """
    learn = {"batch": 64, "rate": 5e-3, "norms": True}

    def teacher(seed: int) -> Graph:
        taught = step("finetune", steps=300, seed=seed, shift=2, **learn)
        return runner(cnn(seed, 32, 64, 64), 0, 500).run((taught,))[0]

    def scored(run: Run, do: str, seed: int, **more: float) -> float:
        entry = run.run((step(do, steps=200, seed=seed, **learn, **more),))[1][-1]
        return 100 * (entry.accuracy or 0.0)

    trials = dict.fromkeys(SOFT, 0.0)
    for seed in (10, 11):
        run = runner(cnn(seed, 4, 8), 0, 500, teacher(seed), held=1500)
        for soft, t in SOFT:
            trials[soft, t] += scored(run, "distill", seed, soft=soft, temperature=t) / 2
    soft, t = max(SOFT, key=trials.__getitem__)
    pairs = []
    for seed in range(3):
        run = runner(cnn(seed, 4, 8), 0, 500, teacher(seed))
        taught = scored(run, "distill", seed, soft=soft, temperature=t)
        pairs.append((round(scored(run, "finetune", seed), 2), round(taught, 2)))
    gain = round(float(np.mean([b - a for a, b in pairs])), 2)
    found = {f"{s} at {k}": round(v, 2) for (s, k), v in trials.items()}
    figure = {"chosen": f"{soft} at {t}", "held": found, "alone_taught": pairs, "gain": gain}
    return Outcome(figure, gain >= 1.0)


def trained(name: str) -> tuple[Graph, list[dict[str, Any]]]:
    """What a run of hours left, and its ledger; Skip where it is absent."""
    ledger = RUNS / name / "ledger.jsonl"
    if not ledger.is_file():
        raise Skip(f"{ledger} is absent: bench/train_cifar.py makes it in hours")
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    return store.load(RUNS / name / f"{lines[-1]['key']}.npz"), lines


def epochs(lines: list[dict[str, Any]]) -> int:
    """Passes over the training images that a ledger's steps made."""
    return sum(line["settings"].get("epochs", 0) for line in lines)


def right(*graphs: Graph) -> list[Array]:
    """Which of the 10,000 test images (n,) each of the graphs has right, on the native runtime."""
    x, y = jpeg_cifar("test")
    made = material(
        {"x": x, "y": y}, graphs[0], train_cifar.PREPROCESS, test=len(y), training={"x": x[:64]}
    )
    target = pipeline.target_of(boards.load(HOST))
    return [predictions(g, made.test, target)[0] == made.labels for g in graphs]


@item("training.w4a4", "ResNet-20, W4A4 by QAT, mean of 3 seeds, 10,000 images: loss <= 0.5 points")
def w4a4() -> Outcome:
    """The graphs that recipes/resnet20.toml and, for 3 seeds, qat_w4a4.toml ended with, in folders
    `resnet20` and `w4a4.0` to `w4a4.2` of EDGEKIT_RUNS."""
    runs = [trained(name) for name in ("resnet20", *(f"w4a4.{seed}" for seed in range(3)))]
    base, *taught = (points(float(r.mean())) for r in right(*(g for g, _ in runs)))
    loss = round(base - float(np.mean(taught)), 2)
    figure = {
        "float": base, "rounded": points(runs[1][1][0]["accuracy"]), "trained": taught,
        "loss": loss, "seconds": [round(sum(e["seconds"] for e in lines)) for _, lines in runs],
    }  # fmt: skip
    return Outcome(figure, loss <= 0.5)


@item(
    "training.resnet56",
    "2.1 x fewer MACs, <= 0.1 points below the dense net of equal steps, speed >= 0.75 of it",
)
def resnet56() -> Outcome:
    """The graphs that recipes/dense.toml and pruned.toml ended with, in folders `dense` and
    `pruned` of EDGEKIT_RUNS, on all 10,000 test images; p: exact, of the images they differ on."""
    (a, first), (b, second) = trained("dense"), trained("pruned")
    whole, cut = right(a, b)
    one, other = int(np.sum(whole & ~cut)), int(np.sum(cut & ~whole))
    n = one + other
    tail = 2 * sum(math.comb(n, k) for k in range(min(one, other) + 1)) / 2**n
    ratio, quick = pipeline.macs(a) / pipeline.macs(b), faster(a, b, 2000)
    figure = {
        "dense_pruned": [points(float(r.mean())) for r in (whole, cut)],
        "only_dense_only_pruned": [one, other],
        "p": float(f"{min(1.0, tail):.2g}"),
        "times_fewer_macs": round(ratio, 3), "times_faster": round(quick, 2),
        "epochs": [epochs(run) for run in (first, second)],
        "hours": [round(sum(e["seconds"] for e in run) / 3600, 2) for run in (first, second)],
    }  # fmt: skip
    drop = float(whole.mean() - cut.mean())
    fair = epochs(second) <= epochs(first)  # whose first two the pruned net begins from
    return Outcome(figure, fair and drop <= 0.001 and ratio >= 2.1 and quick >= 0.75 * ratio)

"""Runs a recipe on the JPEG CIFAR-10 set of ../shared/data; goes on after a kill.

python bench/train_cifar.py MODEL RECIPE.toml FOLDER [--test N] [--teacher MODEL]

MODEL: .onnx, or a graph (.npz) of another run.  The ledger is FOLDER/ledger.jsonl.  See
bench/recipes/ for those behind the figures in bench/NOTES.md; they take hours on one core:
dense.toml trains ResNet-56 for 2 epochs and then for 10 more; pruned.toml takes the graph after
those 2 as its MODEL (and teacher), and distils for 10.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import samples

from edgekit import boards, frontends, passes, recipe
from edgekit.compress import store
from edgekit.ir import Graph

PREPROCESS = {
    "scale": 1 / 255, "mean": samples.IMAGENET_MEAN, "std": samples.IMAGENET_STD, "layout": "nchw",
}  # fmt: skip
TRAIN = 25_000


def graph_of(path: Path) -> Graph:
    if path.suffix == ".npz":
        return store.load(path)
    return passes.simplify_all(frontends.load(path))[0]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("model", "recipe", "folder"):
        p.add_argument(name, type=Path)
    p.add_argument("--test", type=int, default=10_000)
    p.add_argument("--teacher", type=Path)
    a = p.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    graph, last = graph_of(a.model), time.monotonic()

    def progress(what: str, i: int, n: int) -> None:
        nonlocal last
        if time.monotonic() - last > 20:
            last = time.monotonic()
            print(time.strftime("%H:%M:%S"), what, i, n, flush=True)

    test, train = ({"x": x, "y": y} for x, y in map(samples.jpeg_cifar, ("test", "train")))
    made = recipe.material(test, graph, PREPROCESS, test=a.test, train=TRAIN, training=train)
    teacher = graph_of(a.teacher) if a.teacher else None
    run = recipe.Run(graph, made, boards.load("host"), a.folder, progress, teacher)
    print("before:", run.float_accuracy, flush=True)
    for e in run.run(recipe.load(a.recipe))[1]:
        print(f"{e.do}: {e.accuracy} after {e.seconds} s; {e.macs} MACs; {e.effect}", flush=True)


if __name__ == "__main__":
    main()

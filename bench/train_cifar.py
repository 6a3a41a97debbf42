"""Runs a recipe on the JPEG CIFAR-10 set of ../shared/data; goes on after a kill.

python bench/train_cifar.py MODEL RECIPE.toml FOLDER [--test N] [--teacher MODEL ...] [--seed N]

MODEL: .onnx, or a graph (.npz) of another run.  The ledger is FOLDER/ledger.jsonl.  The recipes
behind `training.resnet56` and `training.w4a4` (bench/recipes) take half an hour to four hours each
on one core: dense.toml trains ResNet-56; pruned.toml takes its graph after the first step as MODEL,
and as --teacher that of ten epochs more (dense.toml with `epochs = 10`) and the graph of
teacher_cifar.py; resnet20.toml trains the float net that is MODEL for qat_w4a4.toml, with the first
of these teachers and --seed 0, 1 and 2.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import samples

from edgekit import boards, frontends, passes, recipe
from edgekit.compress import store
from edgekit.ir import Graph
from edgekit.recipe.run import Run
from edgekit.recipe.samples import material

PREPROCESS = {
    "scale": 1 / 255, "mean": samples.IMAGENET_MEAN, "std": samples.IMAGENET_STD, "layout": "nchw",
}  # fmt: skip
TRAIN = 25_000


def graph_of(path: Path) -> Graph:
    if path.suffix == ".npz":
        return store.load(path)
    return passes.simplify_all(frontends.load(path))[0]


def given(step: recipe.Step, a: argparse.Namespace) -> dict[str, object]:
    """What the command line sets of a step: a seed where it has one, teachers where it can."""
    seed = {"seed": a.seed} if a.seed is not None and "seed" in step.settings else {}
    taught = a.teacher and "teacher" in recipe.settings.STEPS[step.do]
    return seed | ({"teacher": a.teacher} if taught else {})


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("model", "recipe", "folder"):
        p.add_argument(name, type=Path)
    p.add_argument("--test", type=int, default=10_000)
    p.add_argument("--teacher", nargs="+", help="in place of the float model as it came")
    p.add_argument("--seed", type=int, help="in place of the steps' own")
    a = p.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    graph, last = graph_of(a.model), time.monotonic()

    def progress(what: str, i: int, n: int) -> None:
        nonlocal last
        if time.monotonic() - last > 20:
            last = time.monotonic()
            print(time.strftime("%H:%M:%S"), what, i, n, flush=True)

    test, train = ({"x": x, "y": y} for x, y in map(samples.jpeg_cifar, ("test", "train")))
    made = material(test, graph, PREPROCESS, test=a.test, train=TRAIN, training=train)
    run = Run(graph, made, boards.load("host"), a.folder, progress)
    print("before:", run.float_accuracy, flush=True)
    steps = [replace(s, settings=s.settings | given(s, a)) for s in recipe.load(a.recipe)]
    for e in run.run(tuple(steps))[1]:
        print(f"{e.do}: {e.accuracy} after {e.seconds} s; {e.macs} MACs; {e.effect}", flush=True)


if __name__ == "__main__":
    main()

"""Compression without training: accuracy of few bits, sizes, the simulator and the runtime."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import samples
from edgekit_runtime import Session
from figures import Outcome, Skip, item, model, points
from figures_accuracy import RESNETS

from edgekit import (
    boards,
    check,
    contents,
    data,
    emulate,
    evaluate,
    frontends,
    package,
    passes,
    pipeline,
    search,
)
from edgekit.compress import groups
from edgekit.ir import Array, Graph
from edgekit.ops.conv2d import WEIGHTED
from edgekit.passes.channels import remove_constant_channels
from edgekit.recipe import Step
from edgekit.recipe.run import Run
from edgekit.recipe.samples import Material, material, predictions

CALIBRATION = 256
LEARNED = 2048  # images of CIFAR whose rounding is learned: what 256 teach fits those
CROPS = 10_000
WHOLE = {"window": 0, "steps": 3000, "batch": 48, "drop": 0.0, "push": 5.0}
PHONE = "phone_i8mm"  # its float packages hold no transformed weights to look good against
FEW_BITS = Step("quantize", {"bits": 4})
LIGHT_WIDE = Step("quantize", {"bits": 4, "light": 0.05})  # depthwise nets suffer in small layers


def graph_of(name: str) -> Graph:
    return passes.simplify_all(frontends.load(model(name)))[0]


def cifar(
    name: str, test: int | None = None, board: str = "host", calibration: int = CALIBRATION
) -> Run:
    """Calibrated on training images, tested on the 10,000 others."""
    file, spec = RESNETS[name]
    g = graph_of(file)
    cal = data.load({"x": samples.jpeg_cifar("train", calibration)[0]})
    x, y = samples.jpeg_cifar("test", test)
    infos = data.input_infos(g)
    parts = [list(data.feed(d, infos, spec)) for d in (cal, data.load({"x": x}))]
    return Run(g, Material(parts[0], parts[1], y, name), boards.load(board))


def small(name: str, spec: dict[str, Any], x: Any, y: Any, board: str = "host") -> Run:
    """Half of the calibration images are not tested; the rest of the set is."""
    g = graph_of(name)
    made = material({"x": x, "y": y}, g, spec, calibration=CALIBRATION // 2)
    return Run(g, made, boards.load(board))


def loss(run: Run, steps: tuple[Step, ...]) -> dict[str, Any]:
    """The last line of the ledger against float, with its interval, and the processor time."""
    begin = time.process_time()
    graph, entries = run.run(steps)
    seconds = time.process_time() - begin
    top, _ = predictions(graph, run.samples.test, run.host)
    y = run.samples.labels
    found = check.paired_loss((run.top == y).astype(float), (top == y).astype(float))
    return {
        "samples": len(run.samples.test),
        "float": points(float((run.top == y).mean())),
        "compressed": points(float((top == y).mean())),
        "loss": points(found.value),
        "interval95": [points(found.lo), points(found.hi)],
        "agreement": points(entries[-1].agreement),
        "sqnr_db": round(entries[-1].sqnr_db, 1),
        "package_share": points(entries[-1].package_bytes / run.float_bytes),
        "cpu_seconds": round(seconds, 1),
    }


SEEDS = range(3)


def learn(seed: int, **settings: Any) -> Step:
    """Reconstruction at its defaults: no setting was chosen on images that are tested."""
    return Step("reconstruct", {"seed": seed, **settings})


def vww(board: str = "host") -> Run:
    z = samples.npz("vww_rgb96.npz")
    return small("vww_96_float.tflite", {"scale": 1 / 255}, z["x"], z["y"], board)


def kws() -> Run:
    return small("kws_ref_model_float32.tflite", {}, *samples.kws())


def mbnet128(board: str = "host") -> Run:
    spec = {"resize": [128, 128], "scale": 1 / 127.5, "mean": 1.0}
    return small("mbnet128_0.25_f.tflite", spec, *samples.imagenet(), board)


def mbnet128_crops() -> Run:
    """With parts of its calibration images, and of other photographs, to learn from."""
    run, (x, _) = mbnet128(), samples.imagenet()
    parts = samples.crops(x[data.spread(len(x), CALIBRATION // 2)], CROPS, 128)
    train = {run.graph.inputs[0]: parts.astype(np.float32) / np.float32(127.5) - 1}
    made = replace(run.samples, train=train, id=f"{run.samples.id} {CROPS} crops")
    return Run(run.graph, made, boards.load("host"))


def spectra() -> Run:
    """The autoencoder of anomaly detection, for a phone, calibrated on 1,024 normal windows."""
    g = graph_of("ad01_fp32.tflite")
    cal = [{g.inputs[0]: row[None]} for row in samples.ad_windows(1024, label=0)]
    return Run(g, Material(cal, cal[:8], None, "ad"), boards.load(PHONE))


def seeds(run: Run, before: tuple[Step, ...], **settings: Any) -> dict[str, Any]:
    """`loss` of every seed of the learning that ends the steps, and the means."""
    rows = [loss(run, (*before, learn(seed, **settings))) for seed in SEEDS]
    means = {k: round(float(np.mean([r[k] for r in rows])), 2) for k in ("loss", "cpu_seconds")}
    return means | {"seeds": rows}


def few_bits(
    make: Any, bar: float, most: float = np.inf, start: Step = FEW_BITS, **settings: Any
) -> Outcome:
    """Weights of 4 bits (light first and last layers, and depthwise ones, 8), activations of 8."""
    run = make()
    learned = seeds(run, (start,), **settings)
    figure = {"quantize": start.settings, "nearest": loss(run, (start,)), "learned": learned}
    return Outcome(figure, learned["loss"] <= bar and learned["cpu_seconds"] <= most)


for _name, _make, _settings in (
    ("kws", kws, {}), ("vww", vww, {}), ("mbnet128", mbnet128_crops, WHOLE)
):  # fmt: skip
    item(f"compress.w4a8.{_name}", "mean of 3 seeds: net loss <= 1.0 points")(
        lambda make=_make, settings=_settings: few_bits(  # type: ignore[misc]
            make, 1.0, start=LIGHT_WIDE, **settings
        )
    )
for _name, _most, _steps in (("resnet8", 180, 600), ("resnet20", 180, 250), ("resnet56", 900, 250)):
    item(
        f"compress.w4a8.{_name}",
        f"10,000 images, 3 seeds: mean loss <= 0.5 points in <= {_most} s of processor each",
    )(
        lambda name=_name, most=_most, steps=_steps: few_bits(  # type: ignore[misc]
            lambda: cifar(name, calibration=LEARNED), 0.5, most, steps=steps
        )
    )


@item("compress.w4a8.ad", "ends of 4 bits too, 3 seeds: AUC above the public int8's 0.858")
def ad() -> Outcome:
    """The autoencoder's ends hold 62 % of its weights, so INT4's size needs them; the two layers at
    its neck hold 1 % and keep 8 bits.  A window of two gives the better SQNR in calibration."""
    run, z = spectra(), samples.npz("ad_spectra.npz")
    weights = {op.name: run.graph.tensors[op.inputs[1]].size
               for op in run.graph.ops if op.type == "linear"}  # fmt: skip
    neck = {n: 8 for n, size in weights.items() if size <= 1024}
    start = Step("quantize", {"bits": 4, "layers": neck})

    def auc(graph: Graph) -> float:
        blob = pipeline.package_graph(graph, run.host)
        rows = {"x": z["x"], "y": z["y"]}
        return check.accuracy(blob, rows, metric="auc", window=640, stride=128).package

    learned = [run.run((start, learn(seed, window=2))) for seed in SEEDS]
    aucs = [auc(graph) for graph, _ in learned]
    figure = {
        "float": auc(run.graph), "nearest": auc(run.run((start,))[0]), "learned": aucs,
        "share": points(learned[0][1][-1].package_bytes / run.float_bytes),
    }  # fmt: skip
    return Outcome(figure, float(np.mean(aucs)) > 0.858)


@item("compress.w4a4", "ResNet-20, activations of 4 bits too, as narrow int8: loss <= 1.5 points")
def w4a4() -> Outcome:
    """2,048 images: what is learned from 256 of them fits those (2.21 points lost)."""
    narrow = Step("quantize", {"bits": 4, "act_bits": 4})
    learned = Step("reconstruct", {"steps": 250, "window": 2})
    found = loss(cifar("resnet20", calibration=LEARNED), (narrow, learned))
    return Outcome(found, found["loss"] <= 1.5)


@item("compress.w2a8.window", "two-block window: loss <= 0.9 x that of one block, equal time")
def window() -> Outcome:
    """ResNet-20, 3 seeds; the window takes fewer steps, so that both take the same time, and longer
    ones, so that a weight can go as far.  One block gains nothing by longer ones (NOTES)."""
    run, figure = cifar("resnet20", calibration=LEARNED), {}
    start = Step("quantize", {"bits": 2})
    for name, settings in (
        ("one", {"steps": 250}),
        ("two", {"steps": 130, "window": 2, "rate": 0.04}),
    ):
        rows = [loss(run, (start, learn(seed, **settings))) for seed in SEEDS]
        figure[name] = {k: [r[k] for r in rows] for k in ("loss", "cpu_seconds")}
    lost, spent = ({n: sum(f[k]) for n, f in figure.items()} for k in ("loss", "cpu_seconds"))
    return Outcome(figure, lost["two"] <= 0.9 * lost["one"] and spent["two"] <= 1.1 * spent["one"])


def differing(q: Graph, inputs: list[dict[str, Array]]) -> dict[str, int]:
    """Integers of every tensor of a graph, numpy against the native runtime."""
    total = wrong = 0
    with Session(
        pipeline.package_graph(q, pipeline.target_of(boards.load("host")), keep=True)
    ) as s:
        for x in inputs:
            given = {n: pipeline.as_input(q, n, x[n]) for n in q.inputs}
            want = evaluate.run(q, given)
            s.run(given)
            for op in q.ops:
                for o in op.outputs:
                    if q.tensors[o].dtype in ("i8", "i16"):
                        total += want[o].size
                        wrong += int(np.sum(want[o] != s.tensor(o)))
    return {"integers": total, "differ": wrong}


@item("compress.exact", "0 integers differ between the simulator of these figures and the runtime")
def exact() -> Outcome:
    """Every int8 and int16 tensor, in numpy and natively, of the schemes these figures use."""
    schemes = {
        "w8a8": {"bits": 8}, "w4a8": {"bits": 4}, "w2a8": {"bits": 2},
        "w4a4": {"bits": 4, "act_bits": 4}, "w8a16": {"act_bits": 16},
    }  # fmt: skip
    quick = Step("reconstruct", {"steps": 5})
    figure = {}
    for name, run in (("resnet20", cifar("resnet20", 200)), ("vww", vww())):
        for scheme, settings in schemes.items():
            steps = (Step("quantize", settings), *([quick] if scheme != "w8a8" else []))
            q, _ = run.run(steps)
            figure[f"{name} {scheme}"] = differing(q, run.samples.test[:20])
    return Outcome(figure, all(f["differ"] == 0 < f["integers"] for f in figure.values()))


SIZED: dict[str, Callable[[], Run]] = {
    "resnet8": lambda: cifar("resnet8", 8, PHONE),
    "resnet20": lambda: cifar("resnet20", 8, PHONE),
    "resnet56": lambda: cifar("resnet56", 8, PHONE),
    "vww": lambda: vww(PHONE),
    "ad": spectra,
    "mbnet128": lambda: mbnet128(PHONE),
}


@item("compress.size", "whole files against our float package: INT8 <= 26 %, INT4 <= 14 %")
def size() -> Outcome:
    """Calibrated on real data, which decides what channels are constant.  INT4: first and last
    layers of more than a tenth of the weights too."""
    figure, holds = {}, True
    for name, make in SIZED.items():
        run = make()
        row: dict[str, Any] = {"float_bytes": run.float_bytes}
        for bits, bar in ((8, 26.0), (4, 14.0)):
            q, entries = run.run((Step("quantize", {"bits": bits}),))
            share = points(entries[-1].package_bytes / run.float_bytes)
            row[f"int{bits}"] = {"share": share} | parts_of(q, run)
            holds = holds and (share <= bar or run.float_bytes < 300_000)
        figure[name] = row
    return Outcome(figure, holds)


def parts_of(q: Graph, run: Run) -> dict[str, int]:
    """Bytes of a package: bits of weights, what else is data (constants of channels, padding,
    tables), and all that is no data; RAM that unpacked constants take."""
    blob, q = pipeline.package_graph(q, run.target), remove_constant_channels(q)
    ws = [q.tensors[op.inputs[1]] for op in q.ops if op.type in WEIGHTED]
    weights = sum(w.size * (8 if w.quant is None else w.quant.bits) // 8 for w in ws)
    parts = package.sections(blob)
    held = len(parts["DATA"]) + len(parts.get("UNPK", b""))
    return {
        "bytes": len(blob), "weights": weights, "constants": held - weights,
        "records": len(blob) - held, "ram": contents.read(blob).memory["session"],
    }  # fmt: skip


LENGTH = 128


def text_loss(g: Graph, target: Any, tokens: Array) -> float:
    """Mean nats per token of (n, LENGTH + 1) tokens on the native runtime."""
    total = 0.0
    with Session(pipeline.package_graph(g, target)) as s:
        for row in tokens:
            z = s.run({g.inputs[0]: row[None, :-1]})[g.outputs[0]][0].astype(np.float64)
            z -= z.max(-1, keepdims=True)
            chosen = z[np.arange(len(z)), row[1:]]
            total += float((np.log(np.exp(z).sum(-1)) - chosen).mean())
    return total / len(tokens)


@item("compress.stories260K", "loss over float: INT4, group 32, <= 1.5 %; INT8 <= 0.1 %")
def stories260k() -> Outcome:
    """On stories the model writes (each set of other seeds; learning sees each story once) and its
    golden text; the classifier keeps 8 bits, as is usual."""
    import stories

    net = stories.Decoder(stories.checkpoint(), LENGTH)
    g, target = stories.graph(net, LENGTH), pipeline.target_of(boards.load("host"))
    test, cal = (stories.written(net, n, LENGTH, seed) for n, seed in ((512, 1), (48, 2)))
    gold = stories.golden()
    texts = {"stories": test, "golden": np.stack([gold[i : i + LENGTH + 1] for i in (0, LENGTH)])}
    layers = [op.name for op in g.ops if groups.weighs(g, op)]
    with pipeline.every_tensor(g, target) as run:
        fed = ({g.inputs[0]: row[None, :LENGTH]} for row in cal)
        inputs = groups.moments(g, run, fed, layers)
    base = {n: text_loss(g, target, t) for n, t in texts.items()}
    figure: dict[str, Any] = {"float": {n: round(x, 4) for n, x in base.items()}}
    more: dict[str, float] = {}

    def report(name: str, q: Graph) -> None:
        found = {n: text_loss(q, target, t) / base[n] - 1 for n, t in texts.items()}
        figure[name] = {n: f"{100 * x:+.2f} %" for n, x in found.items()}
        more[name] = found["stories"]

    for bits in (8, 4, 2):
        q, _ = groups.weights_only(g, bits, inputs=inputs, widths={layers[-1]: 8})
        report(f"int{bits}", q)
        if bits == 4:
            begin = time.process_time()
            text = np.concatenate([stories.written(net, 1500, LENGTH, 3 + i) for i in range(8)])
            options = groups.Options(steps=len(text) // 8, batch=8)
            report("int4 learned", groups.learn(g, q, {g.inputs[0]: text[:, :LENGTH]}, options)[0])
            figure["learning_cpu_seconds"] = round(time.process_time() - begin, 1)
    return Outcome(figure, more["int4 learned"] <= 0.015 and more["int8"] <= 0.001)


@item("compress.pareto", "ResNet-8: <= 15 minutes, >= 8 points, hypervolume >= 1.1 x best uniform")
def pareto() -> Outcome:
    """The search for an emulated Cortex-M4; every package of the front runs there, with the bits it
    gives here."""
    name, limit = "qemu_mps2_an386", 15 * 60
    board = boards.load(name)
    if why := emulate.missing(board):
        raise Skip(why)
    x, y = samples.jpeg_cifar("test")
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        found = search.compress(
            model("pretrainedResnet.tflite"), {"x": x, "y": y}, board=name, max_drop=0.5,
            folder=Path(folder),
        )  # fmt: skip
        seconds = time.process_time() - begin
        front = [p for p in found.points if p.front]
        image = x[0][None].astype(np.float32)
        wrong = 0
        for p in front:
            path = Path(folder) / f"{p.name}.ekp"
            with Session(path) as s:
                here = b"".join(v.tobytes() for v in s.run({s.inputs()[0].name: image}).values())
            there = emulate.run_package(board, path, [image.tobytes()], entry=0, isa=None)
            wrong += there.outputs[0] != here
    gain = found.hypervolume / found.uniform_hypervolume
    figure = {
        "float": points(found.float_accuracy),
        "front": [
            {
                "point": p.name, "package_share": points(p.package_bytes / found.float_bytes),
                "accuracy": points(p.accuracy), "flash": p.flash_bytes, "ram": p.ram_bytes,
                "cycles_estimated": p.cycles,
            }
            for p in front
        ],
        "chosen": found.chosen.name if found.chosen else found.why,
        "hypervolume_gain": round(gain, 3),
        "cpu_seconds": round(seconds, 1),
        "differ_on_board": wrong,
    }  # fmt: skip
    fits = all(p.fits for p in front) and not wrong
    return Outcome(figure, fits and len(front) >= 8 and gain >= 1.1 and seconds <= limit)

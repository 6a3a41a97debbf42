"""INT8 accuracy against the float model, paired, by edgekit.check on our own runtime."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import samples
from figures import Outcome, Skip, item, model, points

from edgekit import boards, check, data, pipeline, recipe
from edgekit.recipe.run import Run
from edgekit.recipe.samples import Material, predictions

IMAGENET = "ImageNet, 500 images of even classes, middle 7/8"
TORCH_CIFAR = {
    "scale": 1 / 255, "mean": samples.IMAGENET_MEAN, "std": samples.IMAGENET_STD, "layout": "nchw",
}  # fmt: skip
METHOD = inspect.signature(pipeline.build).parameters["method"].default


def compare(
    name: Any, spec: dict[str, Any], calibration: Any, source: Any, label: str, **options: Any
) -> tuple[check.Accuracy, dict[str, Any]]:
    """Builds int8 with the defaults, runs both over the set; the result and what is reported."""
    path = model(name) if isinstance(name, str) else name
    built = pipeline.build(path, precision="int8", calibration=calibration, preprocess=spec)
    d = data.load(source)
    found = check.accuracy(built.data, d, model=path, preprocess=spec, **options)
    assert found.loss is not None and found.reference is not None
    scale = points if found.metric == "top1" else (lambda x: round(x, 4))
    figure = {
        "set": label,
        "samples": found.count,
        "calibration": f"{len(data.load(calibration))} inputs, method {METHOD}",
        "float": scale(found.reference),
        "int8": scale(found.package),
        "loss": scale(found.loss.value),
        "interval95": [scale(found.loss.lo), scale(found.loss.hi)],
        "reference": found.reference_label,
        "package_bytes": len(built.data),
    }
    if found.agreement is not None and found.sqnr_db is not None:
        figure["agreement"] = points(found.agreement)
        figure["kl"] = None if found.kl is None else round(found.kl, 4)
        figure["sqnr_db"] = round(found.sqnr_db, 1)
    worst = min(built.sqnr, key=lambda la: la.sqnr_db)
    figure["worst_layer"] = f"{worst.op}: {worst.sqnr_db:.1f} dB"
    return found, figure


def top1(found: check.Accuracy, loss: float, agreement: float = 0.0) -> bool:
    assert found.loss is not None and found.agreement is not None
    return 100 * found.loss.value <= loss + 1e-9 and 100 * found.agreement >= agreement


@item("accuracy.kws", "net loss <= 0.6 points, agreement >= 98 %")
def kws() -> Outcome:
    x, y = samples.kws()
    cal = {"x": x[data.spread(len(x), 100)]}
    found, figure = compare(
        "kws_ref_model_float32.tflite", {}, cal, {"x": x, "y": y}, "MLPerf Tiny KWS, half"
    )
    return Outcome(figure, top1(found, 0.6, 98))


@item("accuracy.vww", "net loss <= 0.6 points, agreement >= 98 %")
def vww() -> Outcome:
    z = samples.npz("vww_rgb96.npz")
    cal = {"x": z["x"][data.spread(len(z["x"]), 100)]}
    spec = {"scale": 1 / 255}
    found, figure = compare(
        "vww_96_float.tflite", spec, cal, {"x": z["x"], "y": z["y"]}, "MLPerf Tiny VWW, half"
    )
    return Outcome(figure, top1(found, 0.6, 98))


RESNETS = {
    "resnet8": ("pretrainedResnet.tflite", {}),
    "resnet20": ("resnet20_cifar10.onnx", TORCH_CIFAR),
    "resnet56": ("resnet56_cifar10.onnx", TORCH_CIFAR),
}


def resnet(name: str) -> tuple[check.Accuracy, dict[str, Any]]:
    cal = {"x": samples.jpeg_cifar("train", 200)[0]}
    x, y = samples.jpeg_cifar("test")
    file, spec = RESNETS[name]
    return compare(file, spec, cal, {"x": x, "y": y}, "CIFAR-10 as JPEG, test")


@item("accuracy.resnets", "10,000 images each: mean loss <= 0.15 points, worst <= 0.30")
def resnets() -> Outcome:
    found = {name: resnet(name) for name in RESNETS}
    losses = [100 * f.loss.value for f, _ in found.values() if f.loss is not None]
    figure: dict[str, Any] = {name: f for name, (_, f) in found.items()}
    mean = sum(losses) / len(losses)
    figure |= {"mean_loss": round(mean, 3), "worst_loss": round(max(losses), 2)}
    whole = all(f.count == 10_000 for f, _ in found.values())
    return Outcome(figure, whole and mean <= 0.15 + 1e-9 and max(losses) <= 0.30 + 1e-9)


@item("accuracy.ad", "AUC >= 0.910 (float 0.912, the public int8 0.858)")
def ad() -> Outcome:
    z = samples.npz("ad_spectra.npz")
    cal = {"x": samples.ad_windows(300, label=0)}
    found, figure = compare(
        "ad01_fp32.tflite", {}, cal, {"x": z["x"], "y": z["y"]}, "MLPerf Tiny AD, half",
        metric="auc", window=640, stride=128,
    )  # fmt: skip
    return Outcome(figure, found.package >= 0.910)


@item("accuracy.mbnet128", "net loss <= 0.6 points, agreement >= 95 % (public int8: 4.9 lost)")
def mbnet128() -> Outcome:
    x, y = samples.imagenet()
    spec = {"resize": [128, 128], "scale": 1 / 127.5, "mean": 1.0}
    cal = {"x": x[data.spread(len(x), 128, seed=1)]}
    found, figure = compare("mbnet128_0.25_f.tflite", spec, cal, {"x": x, "y": y}, IMAGENET)
    return Outcome(figure, top1(found, 0.6, 95))


@item("accuracy.mbnet128.w8a16", "net loss <= 0.6 points, agreement >= 95 %; 0 integers differ")
def mbnet128_wide() -> Outcome:
    """int16 activations, the rounding of the 8-bit weights learned on the inputs that calibrate;
    agreement also on the others alone, and of nearest rounding.  Half an hour on a busy machine,
    three minutes of processor."""
    from figures_compress import differing, graph_of

    x, y = samples.imagenet()
    g = graph_of("mbnet128_0.25_f.tflite")
    spec = {"resize": [128, 128], "scale": 1 / 127.5, "mean": 1.0}
    every = list(data.feed(data.load({"x": x}), data.input_infos(g), spec))
    few = data.spread(len(x), 128, seed=1)
    made = Material([every[i] for i in few], every, np.asarray(y), "mbnet128")
    run = Run(g, made, boards.load("host"))
    steps = (recipe.Step("quantize", {"act_bits": 16}), recipe.Step("reconstruct", {"steps": 250}))
    graph, (nearest, learned) = run.run(steps)
    top, outputs = predictions(graph, every, run.host)
    found = check.paired_loss((run.top == y).astype(float), (top == y).astype(float))
    rest = np.setdiff1d(np.arange(len(x)), few)
    same = differing(graph, every[:8])
    kl = check.divergence(run.outputs, outputs)
    figure = {
        "set": IMAGENET,
        "samples": len(x),
        "float": points(float((run.top == y).mean())),
        "w8a16": points(float((top == y).mean())),
        "loss": points(found.value),
        "interval95": [points(found.lo), points(found.hi)],
        "agreement": points(learned.agreement),
        "agreement_of_unseen": points(float((top == run.top)[rest].mean())),
        "agreement_nearest": points(nearest.agreement),
        "kl": None if kl is None else round(kl, 4),
        "sqnr_db": round(learned.sqnr_db, 1),
        "package_bytes": learned.package_bytes,
        **same,
    }
    holds = found.value <= 0.006 + 1e-9 and learned.agreement >= 0.95 and not same["differ"]
    return Outcome(figure, holds)


@item("accuracy.efficientnet_lite0", "net loss <= 0.6 points, agreement >= 95 %")
def efficientnet() -> Outcome:
    from torch_nets import efficientnet_onnx

    x, y = samples.imagenet()
    spec = {"scale": 1 / 128, "mean": 127 / 128, "layout": "nchw"}
    cal = {"x": x[data.spread(len(x), 128, seed=1)]}
    with efficientnet_onnx() as path:
        found, figure = compare(path, spec, cal, {"x": x, "y": y}, IMAGENET)
    return Outcome(figure, top1(found, 0.6, 95))


QUANTIZED = {
    "kws_ref_model.tflite": "kws",
    "pretrainedResnet_quant.tflite": "cifar",
    "vww_96_int8.tflite": "vww",
    "mobilenet_v1_0.25_128_quant.tflite": "imagenet",
    "mobilenet_v2_1.0_224_quant.tflite": "imagenet",
    "tf2_mobilenet_v2_1.0_224_ptq.tflite": "imagenet",
    "mbnet128_0.25_q.tflite": "imagenet",
}


def labelled(name: str) -> tuple[Any, Any]:
    """Inputs in the model's domain and labels, all there are."""
    kind = QUANTIZED[name]
    if kind == "kws":
        return samples.kws()
    if kind == "cifar":  # of the lossless set there are 100: one image would be a whole point
        x, y = samples.jpeg_cifar("test")
        return x.astype(np.float32), y
    if kind == "vww":
        z = samples.npz("vww_rgb96.npz")
        return z["x"].astype(np.float32) / np.float32(255), z["y"]
    y = samples.imagenet()[1]
    background = "mbnet" not in name
    side = 128 if "128" in name else 224
    return samples.of(name, (1, side, side, 3), 500)[0], y + background


def _quantized(name: str) -> Outcome:
    path = model(name)
    x, y = labelled(name)
    found = check.accuracy(pipeline.build(path).data, {"x": x, "y": y}, model=path, preprocess={})
    if found.reference is None or found.loss is None or found.agreement is None:
        raise Skip("no LiteRT")
    figure = {
        "samples": found.count,
        "litert": points(found.reference),
        "ours": points(found.package),
        "agreement": points(found.agreement),
    }
    return Outcome(figure, abs(found.loss.value) <= 0.005 + 1e-9)


for _name in QUANTIZED:
    item(f"accuracy.quantized.{_name.split('.tflite')[0]}", "within 0.5 points of LiteRT")(
        lambda name=_name: _quantized(name)  # type: ignore[misc]
    )

"""What the settings of a recipe's steps may be; a recipe is refused before its first step runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.compress import calibrate
from edgekit.errors import UsageError
from edgekit.train import importance, precision, workers


@dataclass(frozen=True)
class Kind:
    """What a value must be, in words, and whether one is that."""

    says: str
    fits: Callable[[Any], bool]


def _whole(least: int) -> Kind:
    return Kind(f"a whole number from {least}", lambda v: type(v) is int and v >= least)


def _number(least: float, most: float = math.inf, *, ends: bool = True) -> Kind:
    """A finite number from `least` to `most`, or between them."""

    def fits(v: Any) -> bool:
        if type(v) not in (int, float) or not math.isfinite(v):
            return False
        return bool(least <= v <= most if ends else least < v < most)

    if math.isinf(most):
        return Kind(f"a number {'from' if ends else 'above'} {least:g}", fits)
    return Kind(f"a number {'from' if ends else 'between'} {least:g} "
                f"{'to' if ends else 'and'} {most:g}", fits)  # fmt: skip


def _one_of(*values: Any) -> Kind:
    said = ["true or false" if v is True else f'"{v}"' if isinstance(v, str) else str(v)
            for v in values if v is not False]  # fmt: skip
    known = {(type(v), v) for v in values}
    return Kind(
        " or ".join(filter(None, (", ".join(said[:-1]), said[-1]))),
        lambda v: isinstance(v, (str, int)) and (type(v), v) in known,
    )


def _table(of: Kind) -> Kind:
    """Name -> value."""
    return Kind(
        f"a table of names, each with {of.says}",
        lambda v: (
            isinstance(v, dict) and all(isinstance(k, str) and of.fits(x) for k, x in v.items())
        ),
    )


TEXT = Kind("a text", lambda v: isinstance(v, str))
NAMES = Kind(
    "a list of names",
    lambda v: isinstance(v, (list, tuple)) and all(isinstance(n, str) for n in v),
)
FILES = Kind("a file or a list of files", lambda v: TEXT.fits(v) or (bool(v) and NAMES.fits(v)))
FLAG, COUNT, SEED = _one_of(True, False), _whole(1), _whole(0)
ABOVE_0, FROM_0, SHARE = _number(0, ends=False), _number(0), _number(0, 1)
PART, TIMES, BITS = _number(0, 1, ends=False), _number(1, ends=False), _one_of(8, 4, 2)
RATE = _number(0, 1000, ends=False)

TRAINING = {
    "steps": COUNT, "epochs": ABOVE_0, "batch": COUNT, "rate": RATE, "seed": SEED,
    "optimizer": _one_of("adam", "sgd"), "decay": FROM_0, "warmup": SHARE, "norms": FLAG,
    "estimate": COUNT, "flip": FLAG, "shift": _whole(0),
    "precision": _one_of("auto", *precision.PRECISIONS), "gradients": _one_of(*workers.KINDS),
    "top": SHARE, "wait_s": ABOVE_0,
}  # fmt: skip
TEACHING = {
    "soft": SHARE, "temperature": ABOVE_0, "kind": _one_of("kd", "dkd"), "hints": FROM_0,
    "pairs": _table(TEXT), "teacher": FILES, "variants": _whole(0),
}  # fmt: skip
FLOAT = ("prune", "sparsify", "finetune", "distill")  # steps that come before quantize
STEPS: dict[str, dict[str, Kind]] = {
    "quantize": {
        "method": _one_of(*calibrate.METHODS), "samples": COUNT, "bits": BITS,
        "layers": _table(BITS), "act_bits": _one_of(2, 3, 4, 5, 6, 7, 8, 16), "exclude": NAMES,
        "bias_correction": FLAG, "equalize": FLAG, "light": SHARE, "wide": NAMES,
    },
    "prune": {
        "share": PART, "granule": COUNT, "macs": TIMES, "latency": TIMES,
        "importance": _one_of("norm", *importance.KINDS), "layers": FLAG, "samples": COUNT,
        "seed": SEED, "repair": _one_of(True, False, "outputs"), "rounds": COUNT,
    },
    "sparsify": {"pattern": TEXT, "share": PART, "exclude": NAMES},
    "finetune": TRAINING,
    "distill": TRAINING | TEACHING,
    "qat": TRAINING | TEACHING | {"freeze": SHARE},
    "reconstruct": {
        "steps": COUNT, "batch": COUNT, "rate": RATE, "window": _one_of(0, 1, 2),
        "rank": _whole(0), "drop": SHARE, "push": FROM_0, "samples": COUNT, "seed": SEED,
    },
}  # fmt: skip


def check(do: Any, given: dict[str, Any]) -> None:
    """UsageError names a step that is unknown, or a setting that it has not or that is wrong."""
    if not isinstance(do, str) or do not in STEPS:
        raise UsageError(f"do = {do!r} is unknown", todo=f"known: {', '.join(STEPS)}")
    kinds = STEPS[do]
    for name, value in given.items():
        if name not in kinds:
            known = ", ".join(sorted(kinds))
            raise UsageError(f"{do} has no setting {name!r}", todo=f"it has {known}")
        if not kinds[name].fits(value):
            raise UsageError(f"{do}: {name} = {value!r}", todo=f"it is {kinds[name].says}")


def order(names: Sequence[str]) -> None:
    """UsageError names a step that is out of place."""
    seen: set[str] = set()
    for i, do in enumerate(names):
        where, integers = f"step {i}: {do}", "quantize" in seen
        if do in FLOAT and integers:
            raise UsageError(f"{where} comes before quantize", todo="qat trains after it")
        if do in ("reconstruct", "qat") and not integers:
            raise UsageError(f"{where} needs a quantize step before it")
        if do == "quantize" and integers:
            raise UsageError(f"{where}: the recipe quantizes twice")
        if do == "reconstruct" and "qat" in seen:
            raise UsageError(f"{where} would round the weights from before qat again",
                             todo="put it before qat")  # fmt: skip
        seen.add(do)

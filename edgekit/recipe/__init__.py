"""A recipe: compression steps in order, as TOML.  recipe/run.py runs it: each step is proven on the
native kernels and written to a ledger.

    [[step]]
    do = "quantize"        # method, samples, bits (of all; a first or last layer keeps 8 where it
    bits = 8               # is light), act_bits, exclude, bias_correction, equalize (ranges of
                           # channels across layers), light: the smallest layers that together hold
                           # at most that share of the weights keep 8 bits; act_bits = 16: int16
                           # activations, around the ops that `wide` names, else everywhere
    [step.layers]          # bits of single ops
    "conv2" = 4

    [[step]]
    do = "reconstruct"     # steps, batch, rate, window, rank, drop, push, samples, seed

prune takes a share of every family of channels, or what does least damage until there are `macs`
times fewer multiplications or the modelled `latency` (edgekit.cost: all ops; where it knows no such
core, multiplications in whole tiles) is so many times less; `edgekit.shrink.Options` says the rest:
importance, layers, repair, rounds, granule, samples, seed.  finetune, distill and qat train as
`train.fit.Options` says (epochs for steps; the workers of torchrun share the batches); the teacher
of distill and qat is the float model as it came, or before the integers, or the file that `teacher`
names; of several files the mean of their logits.  prune, sparsify (pattern, share, exclude),
finetune and distill come before quantize, qat after it.  A step that changes nothing is an error.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit import shrink
from edgekit.errors import UsageError
from edgekit.recipe import settings


@dataclass(frozen=True)
class Step:
    """What to do, and its settings as written."""

    do: str
    settings: dict[str, Any]


def parse(text: str, where: str = "recipe") -> tuple[Step, ...]:
    """Steps of a TOML recipe; UsageError names what is wrong."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise UsageError(f"is not TOML: {e}", where=where) from None
    unknown = sorted(set(raw) - {"step"})
    if unknown or not raw.get("step") or not isinstance(raw["step"], list):
        what = f"{unknown[0]!r} is unknown" if unknown else "has no [[step]]"
        raise UsageError(what, where=where, todo='a recipe is a list of [[step]] do = "..."')
    steps = []
    for i, s in enumerate(raw["step"]):
        if not isinstance(s, dict):
            raise UsageError(f"step {i} is no table", where=where, todo="write [[step]]")
        do = s.pop("do", None)
        try:
            settings.check(do, s)
        except UsageError as e:
            raise UsageError(f"step {i}: {e.what}", where=where, todo=e.todo) from None
        steps.append(Step(do, s))
    try:
        settings.order([step.do for step in steps])
    except UsageError as e:
        raise UsageError(e.what, where=where, todo=e.todo) from None
    return tuple(steps)


def load(path: Path) -> tuple[Step, ...]:
    """Steps of a recipe file."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as e:
        raise UsageError(f"cannot be read: {e.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise UsageError("is not UTF-8", where=str(path), todo="a recipe is TOML") from None


def dump(steps: tuple[Step, ...]) -> str:
    """The recipe as TOML; `parse` gives the same steps."""
    out = []
    for s in steps:
        out += ["[[step]]", f'do = "{s.do}"']
        tables = {k: v for k, v in s.settings.items() if isinstance(v, dict)}
        out += [f"{k} = {json.dumps(v)}" for k, v in s.settings.items() if k not in tables]
        for k, t in tables.items():
            out += [f"[step.{k}]", *(f"{json.dumps(n)} = {json.dumps(v)}" for n, v in t.items())]
        out.append("")
    return "\n".join(out)


def trains(step: Step) -> bool:
    """Whether a step wants training samples."""
    s = step.settings
    if step.do == "prune":
        return shrink.Options(**s).trains
    return step.do in ("finetune", "distill", "qat")


def teachers(settings: dict[str, Any]) -> list[Path]:
    """The files that a step's `teacher` names."""
    named = settings.get("teacher", [])
    return [Path(n) for n in ([named] if isinstance(named, str) else named)]


def key(before: str, step: Step) -> str:
    """Names a step by all that it follows from: those before it, settings, what files hold."""
    digest = hashlib.sha256((before + step.do).encode())
    digest.update(json.dumps(step.settings, sort_keys=True).encode())
    for path in teachers(step.settings):
        try:
            digest.update(path.read_bytes())
        except OSError as e:
            raise UsageError(f"cannot be read: {e.strerror}", where=str(path)) from None
    return digest.hexdigest()[:16]

"""Predicted instructions, cycles and time of every op on a board: an estimate, before any run.

`cost.json` holds, per ISA and kind of op, how many instructions an op takes for itself, a pixel or
row, an output and a multiply-accumulate, fitted to exact counts on emulated cores, and cycles per
instruction by the models that may be believed (bench/cycles.py).  `python bench/cost.py` renews it.
Memory is ideal in these models: no wait states of a flash, no cache misses.
"""

from __future__ import annotations

import functools
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit import ops
from edgekit.boards import Board
from edgekit.ir import Graph, Op

FEATURES = ("op", "pixels", "outputs", "macs")
# What is known of the models' error where silicon was timed: TFLite Micro with CMSIS-NN in the same
# model of cycles against MLPerf Tiny closed results v1.0 to v1.3.
IDEAL = "throughput with ideal caches, no published figures of this software"
ERROR = {
    "m4": "rates CMSIS-NN +2 % (IC) and -2 % (KWS) beside a product of it on M4 silicon; "
    "flash wait states come on top",
    "cortex-m55": "rates TFLite Micro +10 % (IC), +7 % (KWS), -3 % (VWW) beside M85 silicon; "
    "none is published for M55",
    "neoverse-n1": IDEAL,
    "neoverse-n2": IDEAL,
}


@dataclass(frozen=True)
class OpTime:
    """One op's estimate; ``seconds`` is None for boards whose clock varies."""

    name: str
    type: str
    instructions: int
    cycles: int
    seconds: float | None


@dataclass(frozen=True)
class Estimate:
    """All ops of an entry.  ``core``: on which emulated core the counts were taken, ``model``: of
    cycles, ``note``: what is known of its error."""

    board: str
    core: str
    model: str
    note: str
    ops: tuple[OpTime, ...]

    @property
    def instructions(self) -> int:
        return sum(o.instructions for o in self.ops)

    @property
    def cycles(self) -> int:
        return sum(o.cycles for o in self.ops)

    @property
    def seconds(self) -> float | None:
        """Of one inference; None where the board's clock is not known."""
        times = [o.seconds for o in self.ops if o.seconds is not None]
        return sum(times) if len(times) == len(self.ops) else None


@functools.cache
def table() -> dict[str, Any]:
    """The committed rates."""
    text = Path(__file__).with_name("cost.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def isa_of(board: Board) -> str | None:
    """The best of the board's ISAs that has rates; None where no emulated core stands for it.

    The board `host` lists ISAs of more than one kind of machine: those of Arm count on an Arm one.
    """
    if board.core == "native" and platform.machine() not in ("aarch64", "arm64"):
        return None
    known = table()["isas"]
    return next((n for n in reversed(list(known)) if n in board.isa), None)


def predict(graph: Graph, board: Board) -> Estimate | None:
    """Estimate for a graph of `pipeline.build` (lowered or not) or of `contents.read` on a board.

    None where no emulated core stands for the board's (x86 hosts, cores without DSP), and of int16
    activations, for which no rates are fitted.
    """
    isa = isa_of(board)
    if isa is None or any(_wide(op, graph) for op in graph.ops):
        return None
    core = table()["isas"][isa]
    hz = board.clock_mhz * 1e6 if board.clock_mhz else None
    found = []
    for op in graph.ops:
        key = kind(op, graph)
        rates = core["rates"].get(key) or core["rates"][fallback(key)]
        n = sum(rates[f] * x for f, x in zip(FEATURES, features(op, graph)))
        cycles = n * rates["cycles"]
        found.append(OpTime(op.name, op.type, round(n), round(cycles), cycles / hz if hz else None))
    return Estimate(board.id, core["core"], core["model"], ERROR[core["model"]], tuple(found))


def _wide(op: Op, g: Graph) -> bool:
    """Whether an op multiplies int16 activations."""
    weighs = op.type in ("conv16", "conv2d", "depthwise_conv2d", "linear")
    return weighs and g.tensors[op.inputs[0]].dtype == "i16"


def kind(op: Op, g: Graph) -> str:
    """Which rates an op goes by: its type, its form, its precision."""
    x = g.tensors[next(n for n in op.inputs if n)]
    name = op.type
    if name in ("conv2d", "conv2d_add"):
        kernel = op.attrs["kernel"] or g.tensors[op.inputs[1]].shape[1:3]
        point = tuple(kernel) == (1, 1) and tuple(op.attrs["stride"]) == (1, 1)
        name = "pointwise" if point else "conv2d"
    if name == "reshape":
        return name
    return name + ("_f32" if x.dtype == "f32" else "") + _bits(op, g)


def _bits(op: Op, g: Graph) -> str:
    """Suffix of packed weights below 8 bits."""
    if op.type not in ("conv2d", "conv2d_add", "linear"):
        return ""
    w = g.tensors[op.inputs[1]]
    narrow = {v.dtype for v in w.variants} & {"i4", "i2"}
    bits = w.quant.bits if w.quant is not None and not w.variants else 8
    return "_i4" if "i4" in narrow or bits == 4 else "_i2" if "i2" in narrow or bits == 2 else ""


def fallback(key: str) -> str:
    """Rates for an op that has none of its own: those of its type, else of elementwise loops."""
    base = key.removesuffix("_i4").removesuffix("_i2")
    if base in ("conv2d_f32", "pointwise_f32", "linear_f32", "depthwise_conv2d_f32"):
        return base
    if base in ("conv2d", "pointwise", "linear", "depthwise_conv2d"):
        return base
    return "unary_f32" if base.endswith("_f32") else "pad"


def features(op: Op, g: Graph) -> tuple[float, ...]:
    """The numbers that FEATURES names: 1, pixels or rows, outputs, multiply-accumulates.

    Of ops without multiply-accumulates the last is the number of input elements.
    """
    y = g.tensors[op.outputs[0]]
    outputs = sum(g.tensors[n].size for n in op.outputs)
    macs = int(ops.get(op.type).macs(op, g))
    if not macs:
        macs = max((g.tensors[n].size for n in op.inputs if n), default=0)
    return 1.0, float(y.size // max(1, y.shape[-1] if y.shape else 1)), float(outputs), float(macs)


def text(e: Estimate) -> str:
    """One line: instructions, cycles, time, on what they rest."""
    time = "" if e.seconds is None else f", {1e3 * e.seconds:,.3g} ms at the board's clock"
    return (
        f"estimate: {e.instructions:,} instructions, {e.cycles:,} cycles{time} "
        f"(counts of {e.core}, cycles of {e.model}: {e.note})"
    )


def facts(e: Estimate) -> dict[str, Any]:
    """The estimate as plain data, for --json."""
    return {
        "instructions": e.instructions,
        "cycles": e.cycles,
        "seconds": e.seconds,
        "core": e.core,
        "model": e.model,
        "error": e.note,
    }

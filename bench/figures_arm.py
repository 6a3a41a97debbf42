"""Guest instructions of arm64 kernels, each beside its bar."""

from __future__ import annotations

from typing import Any

import arm
from figures import Outcome, Skip, item

from edgekit import boards, emulate

MILLION, THOUSAND = 1_000_000, 1_000
MOST = {  # core -> net -> instructions of one inference; Tiny: shares of LiteRT without its call
    "a72 neon": {"MobileNetV2 int8": 95 * MILLION, "MobileNetV2 float32": 95 * MILLION},
    "n1 dotprod": {
        "MobileNetV2 int8": 42 * MILLION,
        "KWS": 499 * THOUSAND,
        "IC": 1230 * THOUSAND,
        "VWW": 964 * THOUSAND,
        "AD": 37 * THOUSAND,
    },
    "max i8mm": {"MobileNetV2 int8": 36 * MILLION},
}
LEAST = {  # core -> multiply-accumulates of an instruction: GEMM, GEMV
    "n1 dotprod": (12.5, 8.0),
    "max i8mm": (20.0, 10.0),
}


def counted(where: arm.Core, names: list[str]) -> dict[str, dict[str, Any]]:
    missing = emulate.missing(boards.load(where.board))
    if missing:
        raise Skip(missing)
    wanted = [n.split(" int8")[0].split(" float32")[0] if "Mobile" in n else n for n in names]
    builds = arm.packages(where, wanted)
    absent = [n for n in names if n not in builds]
    if absent:
        raise Skip(f"{absent[0]} is absent from {arm.DATA}")
    return {n: arm.count(builds[n](), where, profile=False) for n in names}


@item("arm64.models", "instructions of an inference at most those of MOST in bench/figures_arm.py")
def models() -> Outcome:
    figure: dict[str, Any] = {}
    holds = True
    for name, bars in MOST.items():
        found = counted(arm.core(name), list(bars))
        for net, most in bars.items():
            n = found[net]["instructions"]
            figure[f"{net}, {name}"] = {"instructions": n, "at most": most}
            holds = holds and n <= most
    return Outcome(figure, holds)


@item("arm64.gemm", "MAC each, requantization included: GEMM 12.5, GEMV 8; with i8mm 20, 10")
def gemm() -> Outcome:
    figure: dict[str, float] = {}
    holds = True
    for name, bars in LEAST.items():
        for net, least in zip(arm.KERNELS, bars):
            found = counted(arm.core(name), [net])[net]
            each = found["macs"] / found["instructions"]
            figure[f"{net}, {name}"] = round(each, 2)
            holds = holds and each >= least
    return Outcome(figure, holds)

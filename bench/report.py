"""Writes RESULTS.md and its plots from results/host.json and results/arm.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PLOTS = HERE / "plots"
PEERS = ("onnxruntime", "litert", "openvino", "ncnn", "mnn", "executorch")
SLOWEST = 10
# LiteRT 2.3.0 (XNNPACK), ncnn 20261020, thousands of arm64 instructions per inference, counted with
# the same emulator on the same models (MobileNetV2 with random weights); LiteRT's about 10 thousand
# of the Python call are taken off.  ncnn for float32.
ARM_PEERS: dict[tuple[str, str], float] = {
    ("AD", "a72 neon"): 106 - 10,
    ("KWS", "a72 neon"): 1951 - 10,
    ("IC", "a72 neon"): 4333 - 10,
    ("VWW", "a72 neon"): 3627 - 10,
    ("AD", "n1 dotprod"): 56.6 - 10,
    ("KWS", "n1 dotprod"): 723 - 10,
    ("IC", "n1 dotprod"): 1510 - 10,
    ("VWW", "n1 dotprod"): 1939 - 10,
    ("AD", "max i8mm"): 53.1 - 10,
    ("KWS", "max i8mm"): 745 - 10,
    ("IC", "max i8mm"): 1264 - 10,
    ("VWW", "max i8mm"): 1912 - 10,
    ("GEMM 256x256x256 int8", "n1 dotprod"): 256**3 / 11.57 / 1000,
    ("GEMM 256x256x256 int8", "max i8mm"): 256**3 / 17.14 / 1000,
    ("GEMV 4096x1024 int8", "n1 dotprod"): 4096 * 1024 / 7.31 / 1000,
    ("GEMV 4096x1024 int8", "max i8mm"): 4096 * 1024 / 8.51 / 1000,
    ("MobileNetV2 int8", "a72 neon"): 113_700,
    ("MobileNetV2 int8", "n1 dotprod"): 49_200,
    ("MobileNetV2 int8", "max i8mm"): 44_100,
    ("MobileNetV2 float32", "a72 neon"): 101_200,
    ("MobileNetV2 float32", "n1 dotprod"): 101_200,
    ("MobileNetV2 float32", "max i8mm"): 101_200,
}
# Millions of cycles: (TFLite Micro + CMSIS-NN by the same model of cycles, best closed engine
# published on an STM32L4R5 by MLPerf Tiny v1.0 to v1.3, latency times clock).
M4_PEERS = {"AD": (0.709, 0.486), "KWS": (9.05, 5.18), "IC": (35.04, 19.8), "VWW": (28.79, 10.7)}
M55_PEERS = {"AD": 0.120, "KWS": 1.78, "IC": 4.49, "VWW": 6.21}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table in Markdown, numbers to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return ["| " + " | ".join(map(str, r)) + " |" for r in (head, rule, *rows)]


def us(value: float) -> str:
    """Microseconds with three digits that mean something."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def ratio(result: dict[str, Any]) -> float | None:
    """Smallest time of EdgeKit over that of the fastest peer; None where either is missing."""
    times = {k: best(v) for k, v in result["runtimes"].items()}
    ours = times.pop("edgekit", None)
    return ours / min(times.values()) if ours and times else None


def best(found: dict[str, Any]) -> float:
    """The time that counts: of the processor where it was taken, else the smallest."""
    return float(found.get("cpu_us", found["min_us"]))


def geometric(values: Iterable[float | None]) -> float:
    """Geometric mean of what is there."""
    there = [v for v in values if v is not None]
    return float(np.exp(np.mean(np.log(there)))) if there else float("nan")


def host(facts: dict[str, Any]) -> list[str]:
    """Latencies beside the peers, one table per precision and thread count."""
    out = ["## This machine, beside other runtimes", ""]
    out += [
        "Microseconds of one inference, smallest (median) of all rounds, taken in turns in one run "
        "(`bench/run.py`). EdgeKit and OpenVINO are timed in C, the others around the Python call "
        "less that of a call that does nothing (`bench/peers.py`). Ratio: EdgeKit's smallest time "
        "over the fastest peer's; below 1 is faster. MAC per ns: multiply-adds of EdgeKit's "
        "package (after exact removal of dead channels) over its time; AVX-512 VNNI ends at 64 "
        "each cycle. Bold, with one thread and models above 1 ms: smallest processor time, which "
        "other work on the machine disturbs less; the ratio is then of these.",
        "",
    ]
    labels = {k: v for r in facts["results"] for k, v in r["runtimes"].items()}
    for r in facts["results"]:
        labels.update({(k, r["precision"]): v for k, v in r["runtimes"].items()})
    for precision, threads in _groups(facts):
        group = [
            r for r in facts["results"] if (r["precision"], r["threads"]) == (precision, threads)
        ]
        names = [p for p in PEERS if any(p in r["runtimes"] for r in group)]
        ran = [f"{labels[p, precision]['label']}: {labels[p, precision]['ran']}" for p in names]
        out += [f"### {precision}, {threads} thread{'s' * (threads > 1)}", ""]
        head = [
            "model",
            "EdgeKit",
            *(labels[p, precision]["label"] for p in names),
            "ratio",
            "MAC per ns",
        ]
        rows = [
            [r["net"], *(_cell(r, n) for n in ("edgekit", *names)), _ratio(r), _rate(r)]
            for r in group
        ]
        mean = geometric(ratio(r) for r in group)
        rows.append(["**geometric mean**", *[""] * (len(names) + 1), f"**{mean:.2f}**", ""])
        out += [*table(head, rows), "", "Ran: " + "; ".join(ran) + ".", ""]
    out += _without(facts)
    return out


def _groups(facts: dict[str, Any]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((r["precision"], r["threads"]) for r in facts["results"]))


def _cell(result: dict[str, Any], name: str) -> str:
    found = result["runtimes"].get(name)
    if not found:
        return "-"
    cpu = f" **{us(found['cpu_us'])}**" if "cpu_us" in found else ""
    return f"{us(found['min_us'])} ({us(found['median_us'])}){cpu}"


def _ratio(result: dict[str, Any]) -> str:
    value = ratio(result)
    return "-" if value is None else f"{value:.2f}"


def _rate(result: dict[str, Any]) -> str:
    """Multiply-adds of EdgeKit's package in a nanosecond."""
    ours = result["runtimes"].get("edgekit")
    return f"{result['macs'] / best(ours) / 1000:.0f}" if ours and result.get("macs") else "-"


def _without(facts: dict[str, Any]) -> list[str]:
    """Who was not measured, and why."""
    why: dict[tuple[str, str, str], list[str]] = {}
    for r in facts["results"]:
        for name, reason in r["without"].items():
            nets = why.setdefault((name, r["precision"], reason), [])
            if r["net"] not in nets:
                nets.append(r["net"])
    if not why:
        return []
    rows = [f"- {n}, {p} ({', '.join(nets)}): {reason}" for (n, p, reason), nets in why.items()]
    return ["Not measured:", "", *rows, ""]


def speedup(facts: dict[str, Any]) -> list[str]:
    """Two threads over one."""
    times = {
        (r["net"], r["precision"], r["threads"]): r["runtimes"]["edgekit"]["min_us"]
        for r in facts["results"]
        if "edgekit" in r["runtimes"]
    }
    rows = [
        [
            net,
            precision,
            us(one),
            us(times[net, precision, 2]),
            f"{one / times[net, precision, 2]:.2f}",
        ]
        for (net, precision, threads), one in times.items()
        if threads == 1 and (net, precision, 2) in times
    ]
    head = ["model", "precision", "1 thread, us", "2 threads, us", "times faster"]
    if not rows:
        return []
    most = ", ".join(f"{net} {r:.2f}" for net, r in facts.get("ceiling", {}).items())
    note = (
        "What two processors of this machine can give, measured in the same run as twice the time "
        f"of one process over that of two at once, int8 on one thread each: {most}."
    )
    return ["## Two threads", "", *table(head, rows), "", *([note, ""] if most else [])]


def slowest(facts: dict[str, Any]) -> list[str]:
    """The ops that take most of each model."""
    out = ["## Where EdgeKit's time goes", ""]
    for r in facts["results"]:
        if not r.get("ops"):
            continue
        total = sum(o[3] for o in r["ops"])
        worst = sorted(r["ops"], key=lambda o: -o[3])[:SLOWEST]
        rows = [
            [f"`{n}`", t, isa, f"{t_us:.1f}", f"{t_us / total:.0%}"] for n, t, isa, t_us in worst
        ]
        head = ["op", "type", "ISA", "us", "share"]
        title = f"{r['net']}, {r['precision']}: {us(total)} us in {len(r['ops'])} ops"
        out += [
            f"<details><summary>{title}</summary>",
            "",
            *table(head, rows),
            "",
            "</details>",
            "",
        ]
    return out


def arm(facts: dict[str, Any]) -> list[str]:
    """Instructions and modelled cycles on emulated cores."""
    out = ["## Emulated Arm cores", ""]
    out += [
        "Guest instructions of one inference between the marks around `ek_run`, counted exactly by "
        "`bench/qemu/ekcount.c` (`bench/arm.py`). Cycles are models (`bench/cycles.py`): for "
        "Cortex-M4 our table of the reference manual's timings with memory that never waits, for "
        "the rest llvm-mca with ideal caches. No milliseconds: an emulator has none. Peers' counts "
        "are those of LiteRT 2.3.0 (int8) and ncnn 20261020 (float32) under the same emulator.",
        "",
    ]
    by = {(r["net"], r["core"]): r for r in facts["results"]}
    rows = []
    for (net, core), r in by.items():
        if core.startswith("Cortex-M"):
            continue
        peer = ARM_PEERS.get((net, core))
        mine = r["instructions"]
        told = [f"{peer:,.0f}", f"{mine / peer / 1000:.2f}"] if peer else ["-", "-"]
        model, n = next(iter(r["cycles"].items()))
        per = f"{r['macs'] / mine:.2f}"
        rows.append([net, core, f"{mine / 1000:,.0f}", *told, per, f"{n / 1000:,.0f} ({model})"])
    head = ["model", "core", "instructions, 10^3", "peer, 10^3", "ratio", "MAC each"]
    out += [*table([*head, "modelled cycles, 10^3"], rows), ""]
    out += [
        "LiteRT's MobileNetV2 by the same model neoverse-n1: int8 22.6, float32 46.8 million.",
        "",
    ]
    return out + _mcu(by)


def _mcu(by: dict[tuple[str, str], dict[str, Any]]) -> list[str]:
    rows = []
    for (net, core), r in by.items():
        if not core.startswith("Cortex-M"):
            continue
        n = next(iter(r["cycles"].values())) / 1e6
        small = M4_PEERS[net][0] if core == "Cortex-M4" else M55_PEERS[net]
        best = f"{M4_PEERS[net][1]:.3f}" if core == "Cortex-M4" else "-"
        counted = f"{r['instructions']:,}"
        per = f"{r['macs'] / n / 1e6:.2f}"
        row = [net, core, counted, f"{n:.3f}", per, f"{small:.3f}", f"{n / small:.2f}", best]
        rows.append([*row, f"{r['memory']:,}"])
    head = ["model", "core", "instructions", "modelled cycles, 10^6", "MAC per cycle"]
    head += ["TFLM + CMSIS-NN, 10^6", "ratio", "best published on silicon, 10^6", "RAM, bytes"]
    note = (
        "The published figures are of products on an STM32L4R5 with flash that waits; ours is a "
        "model without waiting, so it shows a distance, not a victory."
    )
    return [*table(head, rows), "", note, ""]


def hot(facts: dict[str, Any]) -> list[str]:
    """The ops and functions that execute most instructions of each model and core."""
    out = ["## Where EdgeKit's instructions go", ""]
    for r in facts["results"]:
        worst = sorted(r["ops"], key=lambda o: -o[3])[:SLOWEST]
        total = r["instructions"]
        rows = [
            [
                f"`{n}`",
                t,
                isa,
                f"{count:,}",
                f"{count / total:.0%}",
                f"{count / macs:.2f}" if macs else "-",
            ]
            for n, t, isa, count, macs in worst
        ]
        head = ["op", "type", "ISA", "instructions", "share", "per MAC"]
        title = f"{r['net']}, {r['core']}: {total:,} instructions in {len(r['ops'])} ops"
        out += [f"<details><summary>{title}</summary>", "", *table(head, rows), ""]
        if r["functions"]:
            told = ", ".join(f"`{f}` {count / total:.0%}" for f, count in r["functions"])
            out += [f"By function: {told}.", ""]
        out += ["</details>", ""]
    return out


def plot(facts: dict[str, Any]) -> list[str]:
    """One bar per model and precision, one thread: EdgeKit over the fastest peer."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    groups = [g for g in _groups(facts) if g[1] == 1]
    names = list(dict.fromkeys(r["net"] for r in facts["results"]))
    figure, axes = pyplot.subplots(figsize=(8, 3.4), layout="constrained")
    for k, (precision, threads) in enumerate(groups):
        found = {
            r["net"]: ratio(r)
            for r in facts["results"]
            if (r["precision"], r["threads"]) == (precision, threads)
        }
        at = np.arange(len(names)) + (k - (len(groups) - 1) / 2) * 0.38
        axes.bar(at, [found.get(n) or 0 for n in names], 0.36, label=precision)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_ylabel("EdgeKit / fastest peer")
    axes.set_title("Latency, one thread; below 1 EdgeKit is faster")
    axes.legend()
    PLOTS.mkdir(exist_ok=True)
    figure.savefig(PLOTS / "host.png", dpi=80, metadata={"Software": None})
    pyplot.close(figure)
    return ["![ratio to the fastest peer](plots/host.png)", ""]


def head(title: str, facts: dict[str, Any]) -> str:
    """What was measured where and when."""
    m = facts["machine"]
    others = {r.get("commit", m["commit"]) for r in facts["results"]} - {m["commit"]}
    also = f" (some rows at {', '.join(f'`{c}`' for c in sorted(others))})" if others else ""
    return (
        f"- {title}: {m['date']}, commit `{m['commit']}`{also}, {m['cpu']}, {m['cores']} cores, "
        f"{m['system']}, load before {m['load_before']}."
    )


def main() -> int:
    """Writes RESULTS.md from what has been measured."""
    out = ["# Results", "", "Written by `make bench`; do not edit.", ""]
    parts: list[str] = []
    tail: list[str] = []
    for name, title in (("host", "host"), ("arm", "emulated cores")):
        path = RESULTS / f"{name}.json"
        if not path.exists():
            continue
        facts = json.loads(path.read_text())
        out.append(head(title, facts))
        if name == "host":
            parts += [*host(facts), *plot(facts), *speedup(facts)]
            tail += slowest(facts)
        else:
            parts += arm(facts)
            tail += hot(facts)
    (HERE / "RESULTS.md").write_text("\n".join([*out, "", *parts, *tail]).rstrip() + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

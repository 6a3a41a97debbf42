"""Self-contained HTML reports: tables and inline SVG, one file, no script, no network."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import __version__, package
from edgekit.console import number, tail

if TYPE_CHECKING:
    from edgekit.check import Accuracy
    from edgekit.explain import Explained, Needs, Place
    from edgekit.measure import Timing
    from edgekit.pipeline import Built
    from edgekit.remote_bench import Measurement

WIDTH = 860
COLOURS = ("#3465a4", "#cc6b2c", "#4e8a3a", "#8c5a9e", "#a8324a", "#2f8f8f", "#8a6d3b", "#606a76")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em;
color: #222 } h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em; border-bottom: 1px
solid #ccc } table { border-collapse: collapse; margin: 1em 0; font-size: 13px } td, th { padding:
3px 10px; text-align: left } th { border-bottom: 2px solid #888 } tr:nth-child(even) td {
background: #f5f6f8 } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } p.note {
color: #666; font-size: 13px } svg { display: block; margin: 1em 0; max-width: 100% } svg text {
font: 12px system-ui, sans-serif; fill: #333 }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """The whole HTML document."""
    head = f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{esc(title)}</title>"
    made = time.strftime("%Y-%m-%d %H:%M")
    foot = f"<p class='note'>EdgeKit {__version__}, {made}</p>"
    body = f"<body><h1>{esc(title)}</h1>{''.join(parts)}{foot}</body>"
    return f"{head}<style>{STYLE}</style></head>{body}</html>\n"


def save(path: Path, text: str) -> None:
    """Writes a report, whole or not at all."""
    package.save(path, text.encode())


def esc(text: object) -> str:
    """Text safe within HTML."""
    return html.escape(str(text))


def heading(text: str) -> str:
    return f"<h2>{esc(text)}</h2>"


def note(text: str) -> str:
    return f"<p class='note'>{esc(text)}</p>"


def lines(texts: Sequence[str]) -> str:
    return f"<pre>{esc(chr(10).join(texts))}</pre>"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; columns whose title begins with `>` are aligned to the right."""
    right = [c.startswith(">") for c in columns]

    def cell(tag: str, value: object, is_right: bool) -> str:
        return f"<{tag}{' class=n' if is_right else ''}>{esc(_cell(value))}</{tag}>"

    head = "".join(cell("th", c.removeprefix(">"), r) for c, r in zip(columns, right))
    body = "".join(
        "<tr>" + "".join(cell("td", v, r) for v, r in zip(row, right)) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return number(value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


# ---- plots ----


def bars(rows: Sequence[tuple[str, float]], unit: str, limit: int = 40) -> str:
    """Horizontal bars (label, value at least 0), in the order given; at most `limit`, and it says
    so."""
    shown = list(rows)[:limit]
    top = max((v for _, v in shown), default=0.0) or 1.0
    left, right, step = 300, 150, 20
    scale = (WIDTH - left - right) / top
    out = []
    for i, (label, value) in enumerate(shown):
        y = i * step
        out.append(f"<text x='{left - 8}' y='{y + 14}' text-anchor='end'>{esc(tail(label))}</text>")
        out.append(
            f"<rect x='{left}' y='{y + 3}' width='{max(value, 0) * scale:.1f}' height='14' "
            f"fill='{COLOURS[0]}'/>"
        )
        x = left + max(value, 0) * scale + 6
        out.append(f"<text x='{x:.1f}' y='{y + 14}'>{esc(number(float(value)))} {esc(unit)}</text>")
    more = note(f"the first {limit} of {len(rows)}") if len(rows) > limit else ""
    return _svg(out, len(shown) * step + 4) + more


def curves(series: Sequence[tuple[str, Any]], x_label: str) -> str:
    """Cumulative distribution of each series of samples; the axis is logarithmic."""
    series = [(label, np.sort(np.asarray(v, np.float64))) for label, v in series if len(v)]
    if not series:
        return ""
    lo = max(min(float(v[0]) for _, v in series), 1e-3)
    hi = max(float(np.quantile(v, 0.99)) for _, v in series)
    hi = max(hi, lo) * 1.1
    left, top, height, wide = 50, 10, 220, WIDTH - 80
    span = np.log(hi / lo)

    def at(x: float) -> float:
        return left + wide * float(np.clip(np.log(max(x, lo) / lo) / span, 0, 1))

    out = [
        f"<rect x='{left}' y='{top}' width='{wide}' height='{height}' fill='none' stroke='#bbb'/>"
    ]
    for share in (0, 0.5, 0.9, 1):
        y = top + height * (1 - share)
        out.append(
            f"<text x='{left - 6}' y='{y + 4:.0f}' text-anchor='end'>{100 * share:.0f} %</text>"
        )
        out.append(
            f"<line x1='{left}' x2='{left + wide}' y1='{y:.0f}' y2='{y:.0f}' stroke='#ddd'/>"
        )
    for tick in np.geomspace(lo, hi, 6):
        out.append(
            f"<text x='{at(tick):.0f}' y='{top + height + 16}' text-anchor='middle'>"
            f"{esc(number(tick))}</text>"
        )
    for i, (label, v) in enumerate(series):
        shares = np.linspace(0, 1, 120)
        points = " ".join(
            f"{at(x):.1f},{top + height * (1 - s):.1f}"
            for x, s in zip(np.quantile(v, shares), shares)
        )
        colour = COLOURS[i % len(COLOURS)]
        out.append(f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='2'/>")
        y = top + height + 40 + 18 * i
        out.append(f"<rect x='{left}' y='{y - 10}' width='12' height='12' fill='{colour}'/>")
        out.append(f"<text x='{left + 18}' y='{y}'>{esc(label)}</text>")
    out.append(
        f"<text x='{left + wide}' y='{top + height + 34}' text-anchor='end'>{esc(x_label)}</text>"
    )
    return _svg(out, top + height + 50 + 18 * len(series))


def arena(places: Sequence[Place], op_count: int, size: int) -> str:
    """The arena: tensors as boxes, ops from left to right, addresses downwards."""
    left, height = 80, 240
    wide = (WIDTH - left) / max(op_count + 1, 1)
    tall = height / max(size, 1)
    out = []
    for i, p in enumerate(places):
        x, w = left + (p.first + 1) * wide, (min(p.last, op_count - 1) - p.first + 1) * wide
        colour = COLOURS[i % len(COLOURS)]
        tip = esc(f"{p.name}: {p.bytes:,} B at {p.offset:,}, ops {p.first} to {p.last}")
        out.append(
            f"<rect x='{x:.1f}' y='{p.offset * tall:.1f}' width='{w:.1f}' "
            f"height='{max(p.bytes * tall, 0.5):.1f}' fill='{colour}' fill-opacity='0.75' "
            f"stroke='white'><title>{tip}</title></rect>"
        )
    out.append(
        f"<rect x='{left}' y='0' width='{WIDTH - left}' height='{height}' fill='none' "
        f"stroke='#888'/>"
    )
    out.append(f"<text x='{left - 6}' y='12' text-anchor='end'>0</text>")
    out.append(f"<text x='{left - 6}' y='{height}' text-anchor='end'>{size:,} B</text>")
    out.append(f"<text x='{left}' y='{height + 16}'>before the first op</text>")
    out.append(f"<text x='{WIDTH}' y='{height + 16}' text-anchor='end'>op {op_count - 1}</text>")
    return _svg(out, height + 20)


def scatter(points: Sequence[tuple[float, float, str, bool]], x_unit: str, y_unit: str) -> str:
    """Points (x, y, name, filled); the filled ones are joined."""
    if not points:
        return ""
    left, top, height, wide = 60, 10, 260, WIDTH - 190
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    x0, x1, y0, y1 = min(0.0, *xs), max(xs) * 1.05 or 1.0, min(ys), max(ys)
    y0, y1 = y0 - 0.05 * (y1 - y0 or 1), y1 + 0.05 * (y1 - y0 or 1)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + wide * (x - x0) / (x1 - x0), top + height * (y1 - y) / (y1 - y0)

    out = [
        f"<rect x='{left}' y='{top}' width='{wide}' height='{height}' fill='none' stroke='#bbb'/>"
    ]
    for i in range(6):
        x, y = x0 + (x1 - x0) * i / 5, y0 + (y1 - y0) * i / 5
        px, py = at(x, y)
        out.append(
            f"<text x='{px:.0f}' y='{top + height + 16}' text-anchor='middle'>{x:.1f}</text>"
        )
        out.append(f"<text x='{left - 6}' y='{py + 4:.0f}' text-anchor='end'>{y:.1f}</text>")
    joined = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y, _, f in sorted(points) if f)
    out.append(f"<polyline points='{joined}' fill='none' stroke='{COLOURS[0]}' stroke-width='2'/>")
    for x, y, name, filled in points:
        px, py = at(x, y)
        fill = COLOURS[0] if filled else "none"
        out.append(
            f"<circle cx='{px:.1f}' cy='{py:.1f}' r='4' fill='{fill}' stroke='{COLOURS[0]}'/>"
        )
        out.append(f"<text x='{px + 7:.0f}' y='{py + 4:.0f}'>{esc(name)}</text>")
    out.append(
        f"<text x='{left + wide}' y='{top + height + 34}' text-anchor='end'>"
        f"{esc(x_unit)} against {esc(y_unit)}</text>"
    )
    return _svg(out, top + height + 44)


def _svg(parts: Sequence[str], height: float) -> str:
    size = f"viewBox='0 0 {WIDTH} {height:.0f}' width='{WIDTH}' height='{height:.0f}'"
    return f"<svg {size}>{''.join(parts)}</svg>"


# ---- sections ----


def explain_parts(e: Explained, n: Needs) -> list[str]:
    """Totals, arena and ops of one package on one board."""
    rows: list[tuple[object, ...]] = [("package", n.package)]
    rows += [("runtime's code", n.code), ("flash together", n.flash)] if n.code is not None else []
    rows += [(f"RAM: {k}", v) for k, v in n.memory.items() if v]
    rows += [("RAM: stack", n.stack)] if n.stack else []
    rows += [("RAM together", n.ram), ("MACs of one inference", e.macs)]
    parts = [heading(f"Cost on {e.board}"), table(("", ">bytes"), rows)]
    for entry, places in e.arena.items():
        count = sum(o.entry == entry for o in e.ops)
        parts += [heading(f"Arena of {entry}"), arena(places, count, e.memory["main"])]
    said = "predicted from the board's ISA list" if e.predicted else "as the runtime says"
    ops = [
        (
            o.index,
            tail(o.name),
            o.type,
            "x".join(map(str, o.shape)),
            o.isa,
            o.why,
            o.macs,
            o.flash_bytes,
            o.output_bytes,
        )
        for o in e.ops
    ]
    columns = (
        ">",
        "node",
        "op",
        "output",
        "ISA",
        "why not the best",
        ">MACs",
        ">flash B",
        ">RAM B",
    )
    return [*parts, heading(f"Ops (kernels {said})"), table(columns, ops)]


def of_explain(name: str, e: Explained, n: Needs) -> str:
    return page(f"{name} on {e.board}", explain_parts(e, n))


def of_build(built: Built, e: Explained, n: Needs) -> str:
    """What every stage did, where int8 loses, and what it costs."""
    parts = [heading("Stages"), lines(built.log), *sqnr_parts(built)]
    return page(f"{built.reference.name} for {built.board.id}", [*parts, *explain_parts(e, n)])


def sqnr_parts(built: Built) -> list[str]:
    """SQNR per layer, where the model was quantized."""
    if not built.sqnr:
        return []
    rows = [(s.op, s.sqnr_db) for s in built.sqnr]
    return [heading("Signal to quantization noise per layer"), bars(rows, "dB")]


def of_bench(timings: Sequence[Timing]) -> str:
    """Runtimes beside each other."""
    return page("Benchmark", timing_parts(timings))


def timing_parts(timings: Sequence[Timing]) -> list[str]:
    """Table and distribution of latencies on this machine, in us."""
    from edgekit import measure

    series = [(f"{t.label}, {t.file}", t.samples) for t in timings]
    return [
        heading("Latency on this machine, us"), table(measure.COLUMNS, [t.row() for t in timings]),
        curves(series, "us, share of inferences at most so long"),
        note("Runtimes took turns in one process; first inference, load time and memory come "
             "from fresh processes."),
    ]  # fmt: skip


def of_remote(found: Sequence[tuple[Path, Measurement]]) -> str:
    """Measurements on a device."""
    parts = []
    for path, m in found:
        parts += measurement_parts(path.name, m)
    return page("Benchmark on " + ", ".join(sorted({m.device for _, m in found})), parts)


def measurement_parts(name: str, m: Measurement) -> list[str]:
    unit = m.unit or "no clock"
    label = " (emulated: instructions, not time)" if m.emulated else ""
    energy = m.energy_uj
    rows = [
        ("device", f"{m.device}, {m.agent} agent"),
        (f"median of {m.runs} inferences, {unit}", m.p50),
        (f"99th percentile, {unit}", m.p99), (f"first inference, {unit}", m.first),
        *((f"memory: {k}, B", v) for k, v in m.memory_bytes.items() if v),
        ("stack, B", m.stack_bytes),
        ("energy, uJ", f"not measurable: {energy.note}" if energy.value is None else energy.value),
    ]  # fmt: skip
    parts = [heading(f"{name} on {m.device}{label}"), table(("", ">"), rows)]
    if m.ops:
        parts.append(bars([(f"{o.name} ({o.isa})", o.median) for o in m.ops], unit))
    for s in m.sensors:
        if len(s.values) > 1:
            parts.append(
                note(
                    f"{s.name}: {s.values.min():,.0f} to {s.values.max():,.0f} {s.unit} "
                    f"({s.quality}, {s.site})"
                )
            )
    return parts


def of_check(name: str, a: Accuracy) -> str:
    """Accuracy beside the float model."""
    return page(f"Accuracy of {name}", accuracy_parts(a))


def accuracy_parts(a: Accuracy) -> list[str]:
    from edgekit import check

    parts = [heading("Accuracy"), lines(check.text(a))]
    if a.metric == "cosine":
        parts.append(
            curves(
                [("1 - cosine", np.maximum(1 - a.scores, 1e-9))],
                "1 - cosine, share of samples at most so far",
            )
        )
    return parts

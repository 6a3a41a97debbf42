"""What the commands print: tables for people, plain data for --json."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgekit import boards as board_files
from edgekit import console, contents
from edgekit.explain import Explained, Needs

Facts = dict[str, Any]


def needs_text(n: Needs) -> str:
    parts = ", ".join(f"{k} {v:,}" for k, v in n.memory.items() if v)
    stack = f", stack {n.stack:,}" if n.stack else ""
    code = f"flash {n.flash:,} B with {n.code:,} B of code; " if n.code is not None else ""
    if n.code is None and n.stack:
        code = f"flash {n.flash:,} B without the runtime's code ({n.code_note}); "
    return f"{code}RAM {n.ram:,} B ({parts}{stack})"


def footprint(rows: Any, found: Any) -> None:
    """Table of a linked project: what, bytes, note."""
    console.table("", ("", ">bytes", ""), rows)
    needs = ", ".join(found.undefined) or "nothing"
    console.say(f"  linked with {found.compiler}; the engine calls {needs}")


def culprits(layers: Any) -> None:
    from edgekit.compress import sqnr

    worst = sqnr.culprits(layers)
    if worst:
        rows = [
            (console.tail(w.op, 60), w.type, f"{w.sqnr_db:.1f}", f"{w.drop_db:.1f}") for w in worst
        ]
        console.table(
            "where int8 loses most (SQNR against float)",
            ("node", "op", ">SQNR dB", ">lost dB"),
            rows,
        )


def built_facts(args: argparse.Namespace, built: Any, n: Needs) -> Facts:
    return {
        "package": str(args.output),
        "board": built.board.id,
        "bytes": len(built.data),
        "log": list(built.log),
        "ops_model": len(built.reference.ops),
        "ops_package": len(built.lowered.ops),
        "memory": n.memory,
        "code_bytes": n.code,
        "flash_bytes": n.flash,
        "ram_bytes": n.ram,
        "live_set_bytes": built.plan.live_bytes,
        "sqnr": [vars(s) for s in built.sqnr],
    }


def ends(e: contents.Entry) -> list[tuple[str, str]]:
    g = e.graph
    return [
        (role, n)
        for role, names in (("in", g.inputs), ("out", g.outputs), ("state", g.states))
        for n in names
    ]


def tensor_row(t: Any) -> tuple[object, ...]:
    q = t.quant
    shape = "x".join(map(str, t.shape))
    return (
        t.name,
        shape,
        t.dtype,
        f"{float(q.scale):.6g}" if q else "-",
        str(int(q.zero)) if q else "-",
    )


def attr_text(attrs: Facts) -> str:
    def value(v: Any) -> str:
        return ",".join(
            f"{x:g}" if isinstance(x, float) else str(x)
            for x in (v if isinstance(v, tuple) else (v,))
        )

    return " ".join(f"{k}={value(v)}" for k, v in attrs.items() if v is not None)


def inspect_facts(args: argparse.Namespace, c: contents.Contents) -> Facts:
    def tensor(t: Any) -> Facts:
        q = t.quant
        quant = {"scale": float(q.scale), "zero": int(q.zero)} if q else None
        return {"name": t.name, "shape": list(t.shape), "dtype": t.dtype, "quant": quant}

    return {
        "package": str(args.package),
        "version": c.version,
        "bytes": c.file_bytes,
        "model_id": c.model_id,
        "memory": c.memory,
        "meta": c.meta,
        "goldens": c.goldens,
        "sections": [vars(s) for s in c.sections],
        "entries": [
            {
                "name": e.name,
                "inputs": [tensor(e.graph.tensors[n]) for n in e.graph.inputs],
                "outputs": [tensor(e.graph.tensors[n]) for n in e.graph.outputs],
                "tensors": len(e.graph.tensors),
                "ops": [
                    {
                        "name": o.name,
                        "type": o.type,
                        "inputs": o.inputs,
                        "outputs": o.outputs,
                        "attrs": o.attrs,
                    }
                    for o in e.graph.ops
                ],
            }
            for e in c.entries
        ],
    }


def explained(name: str, e: Explained, n: Needs, board: board_files.Board) -> None:
    from edgekit import cost
    from edgekit import explain as costs

    said = (
        "predicted from the board's ISA list"
        if e.predicted
        else "as the runtime on this machine says"
    )
    console.say(f"{name} on {e.board} ({', '.join(e.isas) or 'portable C only'}): kernels {said}")
    rows = [
        (
            o.index,
            console.tail(o.name, 16),
            o.type,
            "x".join(map(str, o.shape)),
            o.isa,
            o.macs,
            "" if o.cycles is None else o.cycles,
            o.flash_bytes,
            o.output_bytes,
            o.scratch_bytes,
        )
        for o in e.ops
    ]
    console.table(
        "",
        (
            ">",
            "node",
            "op",
            "output",
            "ISA",
            ">MACs",
            ">cycles",
            ">flash B",
            ">RAM B",
            ">scratch B",
        ),
        rows,
    )
    reasons: dict[str, list[str]] = {}
    for o in e.ops:
        if o.why:
            reasons.setdefault(f"{o.isa}: {o.why}", []).append(o.name)
    for why, names in reasons.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        console.say(f"  {why} ({', '.join(console.tail(n, 20) for n in names[:3])}{more})")
    exact = (
        f"exact up to {e.exact_until}, within a tolerance from there"
        if e.exact_until
        else "exact: same bits everywhere"
    )
    console.say(f"  {exact}")
    for entry, places in e.arena.items():
        count = sum(o.entry == entry for o in e.ops)
        size = e.memory["main"]
        at, live = costs.peak(places, count)
        node = "before the first op" if at < 0 else "at the end" if at >= count else f"at op {at}"
        console.say()
        console.say(
            f"arena of {entry}: {size:,} B; most is alive {node}: {live:,} B "
            "(addresses down, ops across)"
        )
        print("\n".join(costs.arena_map(places, count, size)))
    _totals(e, n, board)
    for estimate in e.estimates:
        console.say(cost.text(estimate))
    if not e.estimates:
        console.say("no estimate of time: no emulated core stands for this one")


def _totals(e: Explained, n: Needs, board: board_files.Board) -> None:
    def share(need: int, have: int | None) -> str:
        return f"{100 * need / have:.1f} % of {have:,}" if have else ""

    rows: list[tuple[object, ...]] = [("package", n.package, "")]
    if board.bare:
        rows.append(("runtime's code", n.code, n.code_note))
        rows.append(("flash together", n.flash, share(n.flash, board.flash_bytes)))
    session = "at most" + (f", {e.unpacked:,} of unpacked constants" if e.unpacked else "")
    rows += [(f"RAM: {k}", v, session if k == "session" else "") for k, v in n.memory.items() if v]
    rows += [("RAM: stack", n.stack, "reserved")] if n.stack else []
    rows += [
        ("RAM together", n.ram, share(n.ram, board.ram_bytes)),
        ("MACs of one inference", e.macs, ""),
    ]
    console.table("\ntotals", ("", ">bytes", ""), rows)


def measured_facts(m: Any) -> Facts:
    facts = {
        k: v for k, v in vars(m).items() if k not in ("ops", "sensors", "energy_uj", "samples")
    }
    facts["samples"] = m.samples.tolist()
    facts["ops"] = [vars(o) for o in m.ops]
    facts["energy_uj"] = vars(m.energy_uj)
    facts["sensors"] = [
        {**vars(s), "time_s": s.time_s.tolist(), "values": s.values.tolist()} for s in m.sensors
    ]
    return facts


def measurement(path: Path, m: Any) -> None:
    unit = m.unit or "no clock"
    label = " (emulated: instructions, not time)" if m.emulated else ""
    console.say(f"{path} on {m.device} ({m.agent} agent {m.firmware}){label}")
    rows = [
        (
            m.runs,
            m.p50,
            m.p90,
            m.p99,
            float(m.samples.min()) if m.samples.size else None,
            m.first,
            m.open,
        )
    ]
    columns = (">runs", f">p50 {unit}", ">p90", ">p99", ">min", ">first", ">open")
    console.table("", columns, rows)
    memory = ", ".join(f"{k} {v:,} B" for k, v in m.memory_bytes.items() if v)
    stack = f", stack {m.stack_bytes:,} B" if m.stack_bytes else ""
    rss = f", peak RSS {m.peak_rss_bytes:,} B" if m.peak_rss_bytes else ""
    console.say(f"memory: {memory}{stack}{rss}")
    energy = m.energy_uj
    if energy.value is None:
        console.say(f"energy: not measurable here: {energy.note}")
    else:
        console.say(
            f"energy: {console.number(energy.value)} uJ per inference "
            f"({energy.quality}, {energy.note})"
        )
    if m.ops:
        total = sum(o.median for o in m.ops) or 1.0
        top = sorted(m.ops, key=lambda o: -o.median)[:10]
        ops = [
            (
                o.index,
                console.tail(o.name, 30),
                o.type,
                o.isa,
                o.median,
                f"{100 * o.median / total:.1f} %",
            )
            for o in top
        ]
        console.table(
            f"costliest ops ({m.traced} traced)",
            (">", "node", "op", "ISA", f">{unit}", ">share"),
            ops,
        )


def flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {flat(v)}" for k, v in value.items() if v not in (None, (), [], ""))
    if isinstance(value, (tuple, list)):
        return "; ".join(map(flat, value))
    return (
        f"{value:,}"
        if isinstance(value, int) and value < 1 << 24
        else hex(value)
        if isinstance(value, int)
        else str(value)
    )

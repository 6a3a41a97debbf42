"""What the command prints: tables at most 100 columns wide, progress on long work, JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

WIDTH = 100


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table; columns whose title begins with `>` are aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    out = Table(
        title=title or None, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for c in columns:
        out.add_column(
            c.removeprefix(">"), justify="right" if c.startswith(">") else "left", overflow="fold"
        )
    for row in rows:
        out.add_row(*(_text(cell) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal or console.width > WIDTH:
        console = Console(highlight=False, width=WIDTH)
    console.print(out)


def _text(cell: object) -> str:
    from rich.markup import escape

    if cell is None:
        return "-"
    if isinstance(cell, float):
        return number(cell)
    return (
        f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else escape(str(cell))
    )


def number(x: float) -> str:
    """Four figures: 12,345 / 123.4 / 1.234; whole numbers without decimals."""
    if not math.isfinite(x) or x == int(x):
        return f"{x:,.0f}"
    size = abs(x)
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 3
    return f"{x:,.{digits}f}"


def tail(name: str, most: int = 40) -> str:
    """The end of a long name: where node names differ."""
    return name if len(name) <= most else "…" + name[1 - most :]


def say(text: str = "") -> None:
    """A sentence on stdout, folded at WIDTH; what is indented stays so."""
    import textwrap

    indent = text[: len(text) - len(text.lstrip())]
    folded = textwrap.wrap(
        text, WIDTH, subsequent_indent=indent + "  ", break_long_words=False, break_on_hyphens=False
    )
    print("\n".join(folded))


def emit(facts: dict[str, Any]) -> None:
    """Facts as JSON on stdout; numpy values become plain ones."""
    print(json.dumps(facts, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A function (what, done, total) that draws a bar on stderr where that is a terminal, else
    nothing."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield advance

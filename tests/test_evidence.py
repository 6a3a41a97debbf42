"""The runner of bench/evidence.py: records, resumes, skips with a reason, never hides a failure."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import evidence
import figures
import pytest
from figures import Item, Outcome, Skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs the command with items of our own: run(items, *arguments) -> (exit code, records)."""
    out = tmp_path / "evidence.json"

    def go(items: list[Item], *args: str) -> tuple[int, dict[str, dict[str, object]]]:
        monkeypatch.setattr(evidence, "ITEMS", {i.name: i for i in items})
        monkeypatch.setattr(evidence, "register", lambda: None)
        monkeypatch.setattr(sys, "argv", ["evidence.py", "--out", str(out), *args])
        return evidence.main(), evidence.load(out)

    return go


def test_every_figure_has_a_bar_and_a_name_of_its_own() -> None:
    evidence.register()
    assert len(figures.ITEMS) > 60
    assert all(i.bar and i.name == n for n, i in figures.ITEMS.items())
    with pytest.raises(ValueError, match="two figures"):
        figures.item("plan", "again")(lambda: Outcome(0, True))


def test_figures_are_recorded_and_not_made_twice(run) -> None:
    calls = []

    def make() -> Outcome:
        calls.append(1)
        return Outcome({"loss": 0.1}, True)

    items = [Item("a.b", "loss <= 0.3", make)]
    assert run(items)[0] == run(items)[0] == 0
    assert len(calls) == 1
    code, found = run(items, "--fresh")
    assert code == 0 and len(calls) == 2
    assert found["a.b"]["command"] == "python bench/evidence.py a.b"
    assert found["a.b"]["figure"] == {"loss": 0.1} and found["a.b"]["holds"] is True


def test_a_figure_is_made_again_when_the_code_changed(run, monkeypatch) -> None:
    items = [Item("a", "bar", lambda: Outcome(1, True))]
    run(items)
    monkeypatch.setattr(evidence, "code_key", lambda: "other")
    assert run(items)[1]["a"]["code"] == "other"


def test_what_is_missing_is_skipped_with_its_reason_and_tried_again(run) -> None:
    def absent() -> Outcome:
        raise Skip("the set is absent")

    code, found = run([Item("a", "bar", absent)])
    assert code == 0
    assert found["a"]["figure"] == "skipped: the set is absent" and found["a"]["holds"] is None
    assert run([Item("a", "bar", lambda: Outcome(1, True))])[1]["a"]["holds"] is True


def test_what_does_not_hold_or_fails_is_said_and_the_rest_goes_on(run, capsys) -> None:
    def broken() -> Outcome:
        raise RuntimeError("no luck")

    items = [
        Item("a", "bar", broken),
        Item("b", "bar", lambda: Outcome(9, False)),
        Item("c", "bar", lambda: Outcome(1, True)),
    ]
    code, found = run(items)
    assert code == 1
    assert found["a"]["figure"] == "failed: RuntimeError: no luck"
    assert [found[n]["holds"] for n in "abc"] == [False, False, True]
    assert "do not hold: a, b" in capsys.readouterr().err


def test_groups_and_unknown_names(run) -> None:
    items = [Item(n, "bar", lambda: Outcome(1, True)) for n in ("p.a", "p.b", "pq")]
    assert set(run(items, "p")[1]) == {"p.a", "p.b"}
    with pytest.raises(SystemExit, match="no figure"):
        run(items, "nothing")


def test_an_interrupted_run_keeps_what_was_finished(run, tmp_path: Path) -> None:
    def stop() -> Outcome:
        raise KeyboardInterrupt

    items = [Item("a", "bar", lambda: Outcome(1, True)), Item("b", "bar", stop)]
    with pytest.raises(KeyboardInterrupt):
        run(items)
    kept = json.loads((tmp_path / "evidence.json").read_text())
    assert [f["item"] for f in kept["figures"]] == ["a"]

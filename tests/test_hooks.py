"""What a caller in C relies on: hooks, sentences, sessions side by side, an op of its own."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tiny
from conftest import ROOT, need_program
from edgekit_runtime import Session

from edgekit import boards, embed, ops, pipeline
from edgekit.errors import UsageError

HEADER = ROOT / "native" / "include" / "edgekit.h"
MAIN = r"""
#include <stdio.h>
#include <string.h>
#include "net.h"

struct seen { unsigned calls, stop_at, logged; ek_status last; };
static int cancel(void *ctx)
{
    struct seen *s = (struct seen *)ctx;
    return ++s->calls == s->stop_at;
}
static void note(void *ctx, ek_status e)
{
    struct seen *s = (struct seen *)ctx;
    s->logged++;
    s->last = e;
}

EK_ALIGNED(64) static uint8_t one[NET_MEMORY_BYTES], two[NET_MEMORY_BYTES];

static ek_session *start(struct seen *s, uint8_t *memory)
{
    ek_config c;
    ek_session *made = 0;
    net_config(&c, memory);
    c.cancel = cancel;
    c.log = note;
    c.ctx = s;
    return ek_open(&made, &c) == EK_OK ? made : 0;
}

static void put(ek_session *s, int first)
{
    ek_tensor t;
    ek_input(s, 0, 0, &t);
    for (size_t i = 0; i < t.bytes; i++)
        ((int8_t *)t.data)[i] = (int8_t)(first + (int)i);
}

static void tell(ek_session *s)
{
    ek_tensor t;
    ek_output(s, 0, 0, &t);
    for (size_t i = 0; i < t.bytes; i++)
        printf("%d ", ((const int8_t *)t.data)[i]);
    printf("\n");
}

int main(void)
{
    struct seen a = { 0, 0, 0, 0 }, b = { 0, 0, 0, 0 };
    ek_session *s = start(&a, one), *t = start(&b, two);
    ek_counts counts;
    if (!s || !t)
        return 1;
    ek_count(s, &counts);
    put(s, 0);
    put(t, 7);
    if (ek_run(t, 0) || ek_run(s, 0)) /* the second's work leaves the first's input alone */
        return 2;
    tell(s);
    tell(t);
    printf("ops %u yields %u logged %u\n", counts.ops, a.calls, a.logged);
    a.stop_at = a.calls + 2;
    ek_status e = ek_run(s, 0);
    printf("cancelled %u at %u index %u", EK_CODE(e), EK_AT(e), EK_INDEX(e));
    printf(" logged %u same %d\n", a.logged, a.last == e);
    for (ek_status code = EK_OK; code <= EK_ERR_ROLLBACK; code++)
        printf("%s\n", ek_strerror(code));
    return b.logged != 0;
}
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Lines of MAIN with the folder of a tiny net; and two lines of what the host gives."""
    need_program("gcc", "gcc")
    folder = tmp_path_factory.mktemp("hooks")
    source = tiny.write(folder)
    how = {"calibration": source / "train.npz", "io": "int8"}
    data = pipeline.build(source / "model.onnx", board="rp2040", **how).data  # type: ignore[arg-type]
    made = embed.project(data, boards.load("rp2040"), "net")
    embed.write(made, folder / "net", embed.readme(made, ""))
    (folder / "main.c").write_text(MAIN)
    code = (*made.core, *made.kernels, "net.c", "net_package.c")
    files = [str(folder / "net" / f) for f in code]
    include = [f"-I{folder / 'net' / d}" for d in ("", *(f"edgekit/{p}" for p in PARTS))]
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-DEK_SENTENCES"]
    flags += ["-fsanitize=address,undefined"]
    out = str(folder / "main")
    line = ["gcc", *flags, *include, str(folder / "main.c"), *files, "-o", out]
    subprocess.run(line, check=True)
    done = subprocess.run([out], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    inputs = [(np.arange(64) + k).astype(np.int8).reshape(1, 1, 8, 8) for k in (0, 7)]
    with Session(data, isa=[]) as s:
        want = [next(iter(s.run(x).values())).ravel().tolist() for x in inputs]
    return [*(" ".join(map(str, w)) for w in want), *done.stdout.splitlines()]


PARTS = ("include", "src", "gen")


def test_sessions_beside_each_other_give_the_bits_of_the_host(said: list[str]) -> None:
    assert [line.strip() for line in said[2:4]] == said[:2]


def test_the_yield_hook_runs_after_each_op_and_cancels(said: list[str]) -> None:
    found = re.fullmatch(r"ops (\d+) yields (\d+) logged 0", said[4])
    assert found is not None and found[1] == found[2] and int(found[1]) > 2
    # code 15, EK_AT_OP, op 1; logged once with the status that was returned
    assert said[5] == "cancelled 15 at 1 index 1 logged 1 same 1"


def test_every_status_has_a_sentence(said: list[str]) -> None:
    sentences = said[6:]
    codes = re.findall(r"^    EK_(?:OK|ERR_\w+) = (\d+)", HEADER.read_text(), re.M)
    assert [int(c) for c in codes] == list(range(len(sentences)))
    assert len(set(sentences)) == len(sentences) and all(len(x) > 5 for x in sentences)


def test_the_header_is_short_and_states_its_rules() -> None:
    text = HEADER.read_text()
    assert len(text.splitlines()) <= 250
    for rule in ("Re-entrant", "interrupt", "Stack", "Versioning", "yield"):
        assert rule in text, rule


def test_the_readme_states_the_rules_and_its_op_compiles(tmp_path: Path) -> None:
    need_program("gcc", "gcc")
    source = tiny.write(tmp_path)
    data = pipeline.build(source / "model.onnx", board="rp2040").data
    made = embed.project(data, boards.load("rp2040"), "net")
    embed.write(made, tmp_path / "net", embed.readme(made, ""))
    text = (tmp_path / "net" / "README.md").read_text()
    for rule in ("interrupt", "stack", "cancel", "log", "thread"):
        assert rule in text, rule
    block = re.search(r"```c\n(.*?)```", text, re.S)
    assert block is not None
    (tmp_path / "own.c").write_text("extern const struct ek_op_def my_op;\n" + block[1])
    include = [f"-I{tmp_path / 'net' / 'edgekit' / p}" for p in PARTS]
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    subprocess.run(["gcc", *flags, *include, "-c", "own.c"], cwd=tmp_path, check=True)


@pytest.mark.parametrize(("name", "code"), [("mine", 5), ("mine", 0xFFFF), ("conv2d", 0x8000)])
def test_codes_that_are_not_a_users_are_refused(name: str, code: int) -> None:
    definition = dataclasses.replace(ops.get("lut"), name=name, code=code)
    with pytest.raises(UsageError, match="cannot have the code"):
        ops.add(definition)

"""The next addition costs the files DESIGN.md promises: made in a copy of the project and used.

An op is one .py and one .c, an ISA one folder, a board one .toml, a sensor one .py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

COPIED = ("edgekit", "native", "boards", "runtimes/python/edgekit_runtime")

OP_PY = """
from collections.abc import Iterator
import numpy as np
from edgekit.ir import Tensor
from edgekit.ops.base import Field, OpDef, need, onnx, sample_graph

def shape(op, xs):
    x = need(xs, 0, "input")
    return [(x.shape, x.dtype)]

def reference(op, g, xs):
    return [xs[0] * xs[0] + np.float32(op.attrs["offset"])]

def samples():
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    yield "f32", sample_graph("squares", {"x": Tensor("x", (2, 3, 4))}, {"offset": 0.5}), {"x": x}

OP = OpDef(
    name="squares", code=900, fields=(Field("offset", "f32", 1, 0.0, "added"),),
    shape=shape, reference=reference, samples=samples,
)

@onnx("Squares")
def import_squares(imp, x, *, offset=0.0):
    return imp.emit("squares", [x], {"offset": offset})
"""

OP_C = """
#include "attrs.h"
#include "op.h"
static int check(const ek_ctx *c)
{
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    return ek_is(&x, EK_F32, 0xff) && ek_is(&y, EK_F32, 0xff) && x.count == y.count;
}
static int run(const ek_ctx *c)
{
    const ek_attr_squares *a = (const ek_attr_squares *)c->attr;
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    const float *from = (const float *)(const void *)x.data;
    float *to = (float *)(void *)y.data;
    for (uint32_t i = 0; i < y.count; i++)
        to[i] = ek_mul_f32(from[i], from[i]) + a->offset;
    return 1;
}
const ek_op_def ek_op_squares = { EK_OP_SQUARES, 1, sizeof(ek_attr_squares), 1, 1, 1, 1, "squares",
                                  check, run, 0 };
"""

USE_OP = """
import numpy as np
from edgekit import ops, pipeline
from edgekit.layout import Target
from edgekit_runtime import Session
label, g, xs = next(ops.get("squares").samples())
with Session(pipeline.package_graph(g, Target())) as s:
    assert np.array_equal(s.run(xs)["y"], xs["x"] * xs["x"] + np.float32(0.5))
    assert s.ops()[0].type == "squares"
from edgekit.ops.base import ONNX
assert "Squares" in ONNX
"""

ISA_TOML = """
id = 15
rank = 99
when = "defined(__linux__) || defined(__APPLE__)"
s8 = { nr = 16, kr = 4, xoff = 255 }
f32_nr = 16
dw_s8_nr = 16
dw_f32_nr = 16
"""

ISA_C = """
#if defined(__linux__) || defined(__APPLE__)
#include "kernels.h"
int ek_has_toy(void) { return 1; }
static void lut_s8(const int8_t *x, const int8_t *table, int8_t *y, size_t n)
{
    while (n--)
        *y++ = table[*x++ + 128];
}
void ek_kernels_toy(ek_kernels *k) { EK_SET(k, lut_s8, LUT_S8, lut_s8, EK_ISA_TOY); }
#endif
"""

USE_ISA = """
import numpy as np
from edgekit import explain, layout, ops, pipeline
from edgekit_runtime import Session, cpu_isas
assert "toy" in cpu_isas() and layout.isas()["toy"].id == 15
assert explain.isa_slots()["toy"] == {"lut_s8"}
label, g, xs = next(ops.get("lut").samples())
want = ops.get("lut").reference(g.ops[0], g, [xs["x"], g.tensors[g.ops[0].inputs[1]].data])[0]
with Session(pipeline.package_graph(g, layout.Target(("toy",)))) as s:
    assert np.array_equal(s.run(xs)[g.outputs[0]], want)
    assert s.ops()[0].isa == "toy"
"""

USE_BOARD = """
from edgekit import boards, pipeline
sys.path.insert(0, TESTS)
from package_cases import conv_net
assert "toy" in boards.ids()
board = boards.load("toy")
built = pipeline.build(conv_net(), board="toy")
assert built.board.id == "toy" and built.target.isas == ("dsp",)
"""

SENSOR_PY = '''
"""Fan speed, rpm, of a made-up tree."""
from ... import wire
from . import Channel, FileSensor

def find(root):
    path = root / "sys/class/toy/fan"
    kind = next(iter(wire.Kind))
    channel = Channel(kind, next(iter(wire.Unit)), wire.Quality.MEASURED, "fan", "toy", "toy")
    return [FileSensor(channel, path)] if path.exists() else []
'''

USE_SENSOR = """
from pathlib import Path
from edgekit.agent import sensors
root = Path("tree")
(root / "sys/class/toy").mkdir(parents=True)
(root / "sys/class/toy/fan").write_text("1200")
found = [s for s in sensors.discover(root) if s.channel.name == "fan"]
assert found[0].read().value == 1200
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what is shipped."""
    skip = shutil.ignore_patterns("__pycache__", "*.so", "_data")
    for name in COPIED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=skip)
    return tmp_path


def python(project: Path, code: str) -> None:
    """Runs code against the copy and its own library."""
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(project), str(project / "runtimes" / "python")]),
        "EDGEKIT_LIBRARY": str(project / "libedgekit.so"),
    }
    code = f"import sys\nTESTS = {str(ROOT / 'tests')!r}\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def build(project: Path) -> None:
    """Regenerates native/gen and compiles the runtime with the one build rule."""
    python(project, "from edgekit import gen; gen.main([])")
    cc = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    compiler = [cc] if cc else [sys.executable, "-m", "ziglang", "cc"]
    native = project / "native"
    globs = ("src/*.c", "ops/*.c", "gen/*.c", "kernels/*/*.c", "port/posix.c")
    sources = [str(p) for g in globs for p in sorted(native.glob(g))]
    includes = [f"-I{native / d}" for d in ("include", "src", "gen")]
    flags = ["-std=c11", "-O0", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    output = ["-lpthread", "-o", str(project / "libedgekit.so")]
    command = [*compiler, *flags, *includes, *sources, *output]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="posix shared library")
def test_an_op_is_two_files_and_an_isa_one_folder(project: Path) -> None:
    (project / "edgekit" / "ops" / "squares.py").write_text(OP_PY)
    (project / "native" / "ops" / "squares.c").write_text(OP_C)
    isa = project / "native" / "kernels" / "toy"
    isa.mkdir()
    (isa / "isa.toml").write_text(ISA_TOML)
    (isa / "toy.c").write_text(ISA_C)
    build(project)
    python(project, USE_OP)
    python(project, USE_ISA)


def test_a_board_is_one_file(project: Path) -> None:
    text = (project / "boards" / "rp2350.toml").read_text()
    (project / "boards" / "toy.toml").write_text(text.replace("RP2350", "Toy"))
    shutil.copy(_library(), project / "libedgekit.so")
    python(project, USE_BOARD)


def test_a_sensor_is_one_file(project: Path) -> None:
    (project / "edgekit" / "agent" / "sensors" / "toy.py").write_text(SENSOR_PY)
    python(project, USE_SENSOR)


def _library() -> Path:
    from edgekit_runtime import _native

    return Path(_native._path())

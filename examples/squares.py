"""An op of your own in Python: its meaning, and how it is read from an ONNX file.

edgekit build model.onnx --ops examples/squares.py --board qemu_mps2_an386 --format c -o model/
"""

from typing import Any

import numpy as np

from edgekit import ops
from edgekit.ops.base import Field, OpDef, need, onnx

ops.add(
    OpDef(
        name="squares",
        code=0x8001,  # 0x8000 to 0xfffe are yours
        fields=(Field("offset", "f32", 1, 0.0, "added"),),
        shape=lambda op, xs: [(need(xs, 0, "input").shape, "f32")],
        reference=lambda op, g, xs: [xs[0] * xs[0] + np.float32(op.attrs["offset"])],
        samples=lambda: iter(()),
    )
)


@onnx("mine.Squares")  # domain and operator
def squares(imp: Any, x: str, *, offset: float = 0.0) -> str:
    """Such a node; its attributes are the keywords."""
    made: str = imp.emit("squares", [x], {"offset": offset})
    return made

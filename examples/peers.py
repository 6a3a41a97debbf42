"""One contract for three runtimes: a package, an .onnx and a .tflite file, each run and timed.

python examples/peers.py model.ekp model.onnx
"""

from __future__ import annotations

import sys

import numpy as np
from edgekit_runtime import Session

from edgekit.adapters import open_peer
from edgekit.measure import random_inputs

for path in sys.argv[1:]:
    with Session(path) if path.endswith(".ekp") else open_peer(path) as runtime:
        inputs = random_inputs(runtime.inputs())
        outputs = runtime.run(inputs)
        name, y = next(iter(outputs.items()))
        us = np.median(runtime.time(50))
        print(f"{path}: {name} {y.dtype}{list(y.shape)}, largest at {y.argmax()}, {us:.1f} us")

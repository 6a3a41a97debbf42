"""A torch module becomes an int8 package: calibrate, look where int8 loses, keep that node float.

python examples/quantize_torch.py
"""

from __future__ import annotations

import numpy as np
import torch
from edgekit_runtime import Session
from torch import nn

from edgekit import frontends, pipeline
from edgekit.compress import sqnr

torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.Hardswish(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
).eval()  # fmt: skip
images = np.random.default_rng(0).random((64, 3, 16, 16), np.float32)

graph = frontends.load(net, shapes={"input": (1, 3, 16, 16)})  # named as forward's parameter
built = pipeline.build(graph, precision="int8", calibration=images)
worst = sqnr.culprits(built.sqnr)[0]
print(f"int8 loses most at {worst.op} ({worst.type}): {worst.drop_db:.1f} dB")
mixed = pipeline.build(graph, precision="int8", calibration=images, exclude=[worst.op])

with torch.no_grad():
    want = net(torch.from_numpy(images)).numpy()
for name, blob in (("all int8", built.data), (f"{worst.op} in float", mixed.data)):
    with Session(blob) as session:
        got = np.concatenate([next(iter(session.run(x[None]).values())) for x in images])
    error = float(np.abs(got - want).mean() / np.abs(want).mean())
    print(f"{name}: {len(blob):,} B, mean error {100 * error:.3f} %")

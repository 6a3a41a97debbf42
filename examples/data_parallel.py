"""Two processes train one net; their gradients travel as int8 or as the largest per cent.

torchrun --nproc-per-node 2 examples/data_parallel.py
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgekit import frontends, passes
from edgekit.train import fit, workers

torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
).eval()  # fmt: skip
graph = passes.simplify_all(frontends.load(net, shapes={"input": (1, 3, 16, 16)}))[0]
rng = np.random.default_rng(0)
classes = rng.integers(0, 5, 512)
images = rng.normal(size=(5, 3, 16, 16))[classes] + rng.normal(size=(512, 3, 16, 16))

for kind in ("none", "fp16", "int8", "topk"):
    options = fit.Options(steps=60, batch=32, rate=0.01, gradients=kind, top=0.05)
    found = fit.fit(graph, {"input": images.astype(np.float32)}, classes, options)
    if workers.rank() == 0:
        first, last = found.losses
        print(
            f"{kind}: loss {first:.3f} -> {last:.3f}; {found.sent or 'one process sends nothing'}"
        )

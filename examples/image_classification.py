"""Handwritten digits (scikit-learn's, 8 x 8) on this machine and on two emulated microcontrollers.

python examples/image_classification.py
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from edgekit_runtime import Session
from sklearn.datasets import load_digits
from torch import nn

from edgekit import boards, emulate, pipeline

TEST = 450
digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.images))
x, y = (digits.images[order, None] / 16).astype(np.float32), digits.target[order]

torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
    nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.BatchNorm2d(32), nn.ReLU(),
    nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.Conv2d(32, 64, 1), nn.BatchNorm2d(64),
    nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
)  # fmt: skip
adam = torch.optim.AdamW(net.parameters(), 3e-3)
images, labels = torch.tensor(x[TEST:]), torch.tensor(y[TEST:])
for batch in (b for _ in range(12) for b in torch.randperm(len(images)).split(64)):
    adam.zero_grad()
    nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
    adam.step()
net.eval()

how = {"shapes": {"input": (1, 1, 8, 8)}, "calibration": {"input": x[TEST:]}}
with torch.no_grad():
    exact = net(torch.tensor(x[:TEST])).argmax(1).numpy()
built = pipeline.build(net, **how)
with Session(built.data) as session:
    scores = [next(iter(session.run(image[None]).values())) for image in x[:TEST]]
right = np.mean([s.argmax() for s in scores] == y[:TEST])
print(f"top-1: float {100 * np.mean(exact == y[:TEST]):.1f} %, int8 {100 * right:.1f} %")

for board in map(boards.load, ("qemu_mps2_an386", "qemu_mps3_an547")):
    if why := emulate.missing(board):
        print(f"{board.id}: skipped, {why}")
        continue
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "digits.ekp"
        package.write_bytes(pipeline.build(net, board=board, **how).data)
        inputs = [image.tobytes() for image in x[:8]]
        done = emulate.run_package(board, package, inputs, count=True)
    same = done.outputs == [s.tobytes() for s in scores[:8]]
    bits = "the bits of this machine" if same else "OTHER BITS"
    print(f"{board.id}: {bits}, {done.instructions[-1]:,} instructions an image")

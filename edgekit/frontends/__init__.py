"""What reads foreign models: one file per format, picked here by suffix or type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.errors import ModelError, UsageError
from edgekit.ir import Graph

SUFFIXES = {".onnx": "onnx", ".tflite": "tflite", ".pt2": "torch"}
EXTRAS = {"onnx": "onnx", "tflite": "tflite", "torch": "torch"}


def load(
    model: Any,
    shapes: Mapping[str, Sequence[int]] | None = None,
    args: tuple[Any, ...] | None = None,
) -> Graph:
    """Reads a model: path of .onnx, .tflite or .pt2, torch module, or ModelProto.

    `shapes` fixes the inputs' dimensions by name; `args` are example inputs of a torch module,
    which it may replace.  ModelError: what cannot be read or is not supported.
    """
    kind = _kind(model)
    try:
        if kind == "torch":
            from edgekit.frontends import torch

            return torch.load(model, shapes, args)
        if kind == "onnx":
            from edgekit.frontends import onnx

            return onnx.load(model, shapes)
        from edgekit.frontends import tflite
    except ModuleNotFoundError as e:
        if e.name is None or e.name.startswith("edgekit"):
            raise
        raise UsageError(
            f"reading this model needs the package {e.name!r}",
            todo=f"pip install 'edgekit[{EXTRAS[kind]}]'",
        ) from None
    return tflite.load(model, shapes)


def _kind(model: Any) -> str:
    if isinstance(model, (str, Path)):
        path = Path(model)
        if not path.is_file():
            raise ModelError("no such file", where=str(path))
        kind = SUFFIXES.get(path.suffix.lower())
        if kind is None:
            raise ModelError(f"{path.suffix or 'no suffix'!r} is no model format", where=str(path),
                             todo=f"known: {', '.join(SUFFIXES)}")  # fmt: skip
        return kind
    if type(model).__name__ == "ModelProto":
        return "onnx"
    if any(c.__module__.startswith("torch.") for c in type(model).__mro__):
        return "torch"
    raise UsageError(f"cannot read a model from a {type(model).__name__}")

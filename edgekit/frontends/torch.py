"""torch modules and .pt2 programs -> Graph, by way of torch.onnx.export."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.errors import ModelError, UsageError
from edgekit.frontends import onnx
from edgekit.ir import Graph

OPSET = 20  # the first with Gelu; LayerNormalization and HardSwish are whole as well


def load(
    model: Any,
    shapes: Mapping[str, Sequence[int]] | None = None,
    args: tuple[Any, ...] | None = None,
) -> Graph:
    """Reads a torch.nn.Module, a torch.export.ExportedProgram or the path of a .pt2 file.

    A module needs example inputs: `args` tensors, or `shapes` by parameter name of its forward
    (float32). A program has the shapes it was exported with.  ModelError: torch cannot export it.
    """
    import torch

    name = type(model).__name__
    if isinstance(model, (str, Path)):
        name = Path(model).stem
        try:
            model = torch.export.load(str(model))
        except Exception as e:
            raise ModelError(
                f"not a program saved by torch.export.save ({type(e).__name__})", where=name
            ) from None
    if isinstance(model, torch.nn.Module):
        if args is None:
            args = _examples(model, shapes or {})
        proto = _export(model.eval(), args, name)
        shapes = None
    elif isinstance(model, torch.export.ExportedProgram):
        proto = _export(model, None, name)
    else:
        raise UsageError(f"a {name} is neither a torch module nor an exported program")
    proto.graph.name = name
    graph = onnx.load(proto, shapes)
    graph.meta["source"] = "torch"
    return graph


def _examples(module: Any, shapes: Mapping[str, Sequence[int]]) -> tuple[Any, ...]:
    """Zeros for every parameter of the module's forward, of the given shapes."""
    import torch

    parameters = [
        p
        for p in inspect.signature(module.forward).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    names = [p.name for p in parameters]
    wrong = sorted(set(shapes) - set(names))
    if wrong:
        raise ModelError(f"no input is named {wrong[0]!r}", todo=f"inputs: {', '.join(names)}")
    missing = [p.name for p in parameters if p.name not in shapes and p.default is p.empty]
    if missing:
        raise ModelError(
            f"the shape of input {missing[0]!r} is not known",
            todo=f"give it: --shape {missing[0]}=1,3,224,224",
        )
    given = [n for n in names if n in shapes]
    if given != names[: len(given)]:
        raise ModelError(f"a shape is given for {given[-1]!r}, but not for the inputs before it")
    return tuple(torch.zeros(tuple(int(d) for d in shapes[n])) for n in given)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress, and warns of packages nobody here needs."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _export(model: Any, args: tuple[Any, ...] | None, name: str) -> Any:
    """ModelProto of a module or program."""
    import torch

    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                args or (),
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                verbose=False,
            )
    except ModuleNotFoundError:
        raise
    except Exception as e:
        lines = [line.strip() for line in str(e).splitlines() if line.strip()]
        raise ModelError(
            f"torch.onnx.export failed: {lines[0] if lines else type(e).__name__}", where=name
        ) from e
    assert program is not None
    return program.model_proto

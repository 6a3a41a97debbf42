"""What commands share: files and options of the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime import verify

from edgekit import boards as board_files
from edgekit.errors import PackageError, UsageError
from edgekit.explain import Needs

Facts = dict[str, Any]


def read_package(path: Path) -> bytes:
    """Bytes of a package whose every checksum is right.  Raises PackageError,
    EdgeKitRuntimeError."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise PackageError(
            f"cannot be read: {e.strerror}", where=str(path), todo="check the path"
        ) from None
    verify(path)
    return data


def model_file(path: Path) -> None:
    from edgekit.errors import ModelError

    if not path.is_file():
        raise ModelError("no such file", where=str(path), todo="check the path of the model")


def preprocess_of(args: argparse.Namespace) -> Facts:
    """The preprocessing given on the command line, with the keys packages store."""
    if np.any(np.asarray(1.0 if args.std is None else args.std) == 0):
        raise UsageError("--std is 0", todo="values are divided by it")
    keys = ("scale", "mean", "std", "resize", "layout", "label_offset")
    return {k: getattr(args, k) for k in keys if getattr(args, k) is not None}


def compression_of(args: argparse.Namespace) -> Facts:
    """Arguments of pipeline.build that say how a model is quantized."""
    return {
        "precision": args.precision,
        "calibration": args.calibrate,
        "method": args.method,
        "samples": args.samples,
        "exclude": tuple(args.exclude),
        "shapes": dict(args.shape) or None,
        "io": args.io,
        "preprocess": preprocess_of(args),
    }


def require_fit(board: board_files.Board, wanted: Needs) -> None:
    """BoardError with the numbers where a package cannot fit."""
    memory = wanted.memory
    board_files.fits(
        board,
        wanted.flash,
        wanted.ram,
        arena_bytes=memory["main"],
        fast_bytes=memory.get("fast", 0),
    )


def token_of(path: Path | None) -> bytes:
    """The token from a file or $EDGEKIT_TOKEN, without the line's end."""
    from edgekit.agent.__main__ import token_of as read

    return read(path)

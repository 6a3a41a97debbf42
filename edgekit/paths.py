"""Where the data of the project lies: in a checkout beside the package, in a wheel inside it."""

from __future__ import annotations

import os
from pathlib import Path

from edgekit.errors import EdgeKitError


def data(*parts: str) -> Path:
    """Path of a file or folder of the project, such as ``data("native", "include")``.

    An installed wheel carries native/, boards/, runtimes/bare and bench/qemu under ``_data``.
    Raises EdgeKitError where it does not exist: the installation is not complete.
    """
    package = Path(__file__).resolve().parent
    for root in (package / "_data", package.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise EdgeKitError(
        f"{'/'.join(parts)} is missing from the installation",
        where=str(package),
        todo="install again with `pip install --force-reinstall edgekit`",
    )


def cache(*parts: str) -> Path:
    """Folder for what can be made again: ``$EDGEKIT_CACHE``, else ``~/.cache/edgekit``. Created."""
    root = os.environ.get("EDGEKIT_CACHE") or os.environ.get("XDG_CACHE_HOME")
    if os.environ.get("EDGEKIT_CACHE"):
        base = Path(str(root))
    else:
        base = (Path(root) if root else Path.home() / ".cache") / "edgekit"
    path = base.joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path

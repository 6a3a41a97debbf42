"""What each command of `edgekit` does: read arguments, call the pipeline, print.  One function per
command."""

from edgekit.commands.devices import agent, boards
from edgekit.commands.making import build, compress, keys, sign
from edgekit.commands.reading import explain, inspect
from edgekit.commands.running import bench, check, run

__all__ = [
    "agent", "bench", "boards", "build", "check", "compress", "explain", "inspect", "keys", "run",
    "sign",
]  # fmt: skip

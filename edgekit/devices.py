"""Where a package can be run that is not this process: an emulated board by its id, or an agent by
its address."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from edgekit import boards, emulate
from edgekit.errors import BoardError


@contextlib.contextmanager
def reach(where: str, token: bytes = b"") -> Iterator[tuple[str, bytes]]:
    """(url, token) of an agent; an emulated board runs until the block ends.

    where: tcp://host:port, serial:///dev/ttyX, or the id of a board with an emulator.  Raises
    BoardError, ToolchainError.
    """
    if "://" in where:
        yield where, token
        return
    board = boards.load(where)
    if board.emulator is None:
        raise BoardError(
            "has no emulator here",
            where=board.id,
            todo="run `edgekit agent` on the board and give its address, as tcp://host:7330 or serial:///dev/ttyACM0",
        )
    with emulate.agent(board) as found:
        yield found.url, found.token.encode()

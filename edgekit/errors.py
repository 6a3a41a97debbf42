"""One tree of errors meant for users: what is wrong, where, and what to do about it."""

from __future__ import annotations


class EdgeKitError(Exception):
    """An error with a sentence for the user.

    ``what`` says what is wrong, ``where`` names the file, node or link, ``todo`` what to do.
    """

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        self.what, self.where, self.todo = what, where, todo
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  {self.todo}" if self.todo else text

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.todo)


class ModelError(EdgeKitError):
    """The model cannot be read or holds what EdgeKit does not know."""


class PackageError(EdgeKitError):
    """A package is damaged, does not fit or cannot be made."""


class BoardError(EdgeKitError):
    """A board file is wrong, or a board cannot do what is asked."""


class LinkError(EdgeKitError):
    """A device cannot be reached, refuses us, or went away."""


class DataError(EdgeKitError):
    """A data set cannot be read or does not match the model."""


class UsageError(EdgeKitError):
    """The command or call is not meaningful as given."""


class ToolchainError(EdgeKitError):
    """A compiler, linker or emulator is missing or failed."""


def first_line(e: Exception) -> str:
    """What a foreign library's error says, on one line of at most 200 characters."""
    return (str(e).strip().splitlines() or [type(e).__name__])[0][:200]


def _rebuild(kind: type[EdgeKitError], what: str, where: str, todo: str) -> EdgeKitError:
    return kind(what, where=where, todo=todo)

"""`edgekit build --format arduino`: the files of a C project as an Arduino library.

Arduino compiles everything below src/ with src/ as the only include folder, so the runtime's files
lie together in src/edgekit, the C files named by the folder they come from. Templates:
runtimes/arduino.
"""

from __future__ import annotations

import dataclasses
from pathlib import PurePosixPath

from edgekit.embed.project import Project, end_lines, fill

FOLDER = "arduino"


def library(made: Project) -> Project:
    """The same project with the layout of an Arduino library; its README is in it."""
    values = {
        "name": made.name,
        "NAME": made.name.upper(),
        "board": made.board.id,
        "board_name": made.board.name,
        "core_name": made.board.core,
        "ends": end_lines(made),
        "ram": f"{sum(made.memory.values()):,}",
        "package": f"{len(made.package):,}",
    }
    files: dict[str, str | bytes] = {
        place: content
        for path, content in made.files.items()
        if (place := _place(path, made.name)) is not None
    }
    files["library.properties"] = fill("library.properties", values, FOLDER)
    files["examples/selftest/selftest.ino"] = fill("selftest.ino", values, FOLDER)
    files["README.md"] = fill("README.md", values, FOLDER)
    return dataclasses.replace(made, files=files)


def _place(path: str, name: str) -> str | None:
    """Where a file of the C project goes, None where Arduino has no use for it."""
    p = PurePosixPath(path)
    if path in (f"{name}.h", "edgekit/include/edgekit.h"):
        return f"src/{p.name}"
    if path == f"{name}.ekp":
        return path
    if path in (f"{name}.c", f"{name}_package.c"):
        return f"src/edgekit/{p.name}"
    if p.parts[0] not in ("edgekit", "ops"):
        return None
    return f"src/edgekit/{p.name if p.suffix == '.h' else f'{p.parent.name}_{p.name}'}"

"""`edgekit build --format c`: a folder with the package as an array, the runtime's sources for this
model alone, a main.c and the numbers of a real link."""

from __future__ import annotations

from edgekit.embed.arduino import library
from edgekit.embed.footprint import Footprint, fit, markdown, measure, rows
from edgekit.embed.project import Project, project, readme, save, write
from edgekit.embed.sizes import predict

__all__ = [
    "Footprint",
    "Project",
    "fit",
    "library",
    "markdown",
    "measure",
    "predict",
    "project",
    "readme",
    "rows",
    "save",
    "write",
]

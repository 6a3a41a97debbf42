"""The agent that serves a device: takes packages, runs them in a child process, streams figures.

Runs on a board with only edgekit-runtime and numpy installed; it imports nothing of edgekit but
wire, link and errors.
"""

from .runner import Limits
from .server import serve, serve_serial

__all__ = ["Limits", "serve", "serve_serial"]

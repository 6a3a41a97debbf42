"""Command line of the agent: ``python -m edgekit.agent`` and ``edgekit-agent``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from ..errors import EdgeKitError, UsageError
from . import Limits, serve, serve_serial


def parser() -> argparse.ArgumentParser:
    """Options of the agent."""
    p = argparse.ArgumentParser(
        prog="edgekit-agent",
        description="Serves this device to `edgekit bench --on`.",
        epilog="example: edgekit-agent --listen 0.0.0.0:7330 --token-file token.txt",
    )
    p.add_argument("--listen", metavar="[ADDRESS:]PORT", help="serve TCP; needs a token")
    p.add_argument("--serial", metavar="DEVICE", help="serve a serial line, as /dev/ttyGS0")
    p.add_argument("--baud", type=int, default=115200)
    p.add_argument("--token-file", type=Path, help="file with the token (else $EDGEKIT_TOKEN)")
    p.add_argument("--work-dir", type=Path, default=Path.home() / ".cache" / "edgekit-agent")
    p.add_argument("--sysroot", default="/", help="where sys/ and proc/ are")
    p.add_argument("--name", default="", help="name of the device")
    p.add_argument("--time-limit-s", type=float, default=600.0, help="of one command")
    p.add_argument("--memory-mib", type=int, default=0, help="address space of a package's process")
    return p


def token_of(path: Path | None) -> bytes:
    """The token from a file or $EDGEKIT_TOKEN, without the line's end."""
    if path is None:
        return os.environ.get("EDGEKIT_TOKEN", "").encode()
    try:
        return path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=str(path)) from None


def run(args: argparse.Namespace) -> None:
    """Serves until a signal."""
    if bool(args.listen) == bool(args.serial):
        raise UsageError("give --listen or --serial", todo="edgekit-agent --help")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    limits = Limits(args.time_limit_s, args.memory_mib << 20)
    token = token_of(args.token_file)
    common = {"sysroot": args.sysroot, "work_dir": args.work_dir, "name": args.name}
    if args.serial:
        url = f"serial://{args.serial}?baud={args.baud}"

        def said() -> None:
            print(f"listening on {args.serial}", flush=True)

        serve_serial(url, token, **common, limits=limits, stop=stop, ready=said)
        return
    host, _, port = args.listen.rpartition(":")
    if not port.isdigit():
        raise UsageError("not an address and a port", where=args.listen)
    serve(
        host or "127.0.0.1",
        int(port),
        token,
        **common,
        limits=limits,
        stop=stop,
        ready=lambda number: print(f"listening on {number}", flush=True),
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit code."""
    try:
        run(parser().parse_args(argv))
    except EdgeKitError as error:
        print(f"edgekit-agent: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

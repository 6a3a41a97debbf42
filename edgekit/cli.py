"""The command `edgekit`: arguments and errors.  What each command does is in edgekit/commands.

Exit codes: 0 done, 1 an error, 2 wrong usage.  EDGEKIT_DEBUG=1 shows tracebacks.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.errors import EdgeKitError, UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code.  Errors are sentences on stderr, never tracebacks."""
    args = parser().parse_args(argv)
    if os.environ.get("EDGEKIT_DEBUG") == "1":
        return _run(args)
    try:
        return _run(args)
    except EdgeKitError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2 if isinstance(e, UsageError) else 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        print(
            "error: not enough memory\n  close other programs or use a smaller data set",
            file=sys.stderr,
        )
        return 1
    except Exception as e:
        if (
            type(e).__name__ == "EdgeKitRuntimeError"
        ):  # its module would load the native library's wrapper
            print(f"error: {e}", file=sys.stderr)
        else:
            print(
                f"error: internal: {type(e).__name__}: {e}\n  this is a bug of EdgeKit: please "
                "report what EDGEKIT_DEBUG=1 edgekit ... prints",
                file=sys.stderr,
            )
        return 1


def _run(args: argparse.Namespace) -> int:
    from edgekit import commands

    code = getattr(commands, args.command)(args)
    sys.stdout.flush()
    return int(code or 0)


def parser() -> argparse.ArgumentParser:
    """The arguments of every command."""
    p = argparse.ArgumentParser(
        prog="edgekit",
        description="Takes a trained model to an Arm board, phone or microcontroller "
        "and says what it costs there.",
        epilog="edgekit COMMAND --help shows the options and an example.",
    )
    p.add_argument("--version", action="version", version=f"edgekit {__version__}")
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str, example: str) -> argparse.ArgumentParser:
        c = commands.add_parser(
            name, help=help, description=help[0].upper() + help[1:] + ".",
            epilog="example:\n  " + example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        c.add_argument("--json", action="store_true", help="print JSON instead of tables")
        return c

    for add in (
        _build,
        _compress,
        _inspect,
        _explain,
        _check,
        _run_args,
        _bench,
        _boards,
        _agent,
        _keys,
        _sign,
    ):
        add(command)
    return p


Add = Callable[..., argparse.ArgumentParser]


def _build(command: Add) -> None:
    c = command(
        "build",
        "turn a model into a package for a board",
        "edgekit build model.onnx -o model.ekp --board rpi5 --calibrate images/ --scale 0.00392157",
    )
    c.add_argument("model", type=Path, metavar="MODEL", help=".onnx, .tflite or .pt2")
    c.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.ekp|DIR/")
    c.add_argument(
        "--format",
        choices=("ekp", "c", "arduino"),
        default="ekp",
        help="c: a folder for firmware with the package as an array, the runtime and a main.c, for "
        "make, CMake, Zephyr, ESP-IDF and the Pico SDK; arduino: the same as an Arduino library",
    )
    c.add_argument(
        "--board",
        default="host",
        metavar="ID",
        help="`edgekit boards` lists them; or a .toml (host)",
    )
    _compression(c)
    c.add_argument(
        "--ops",
        type=Path,
        metavar="FILE.py",
        help="ops of your own: a file that calls edgekit.ops.add; --format c takes their C hooks, "
        "ek_op_<name>, from FILE.c beside it",
    )
    c.add_argument(
        "--arena",
        type=_positive,
        metavar="BYTES",
        help="RAM for activations: above it the first layers run in bands (the board's RAM)",
    )
    _preprocess(c)
    c.add_argument("--report", type=Path, metavar="OUT.html", help="also write an HTML report")


def _compression(c: argparse.ArgumentParser) -> None:
    """How a model is quantized: `build`, and `check --layers`, which builds it again."""
    c.add_argument(
        "--precision",
        choices=("auto", "float32", "int8", "w8a16", "dynamic", "w8", "w4", "w2"),
        default="auto",
        help="auto: int8 where there is --calibrate, else float32; quantized models as they are; "
        "w8a16: int8 weights, int16 activations; "
        "w8, w4, w2: weights alone, by groups of 32 inputs (language models)",
    )  # fmt: skip
    c.add_argument(
        "--calibrate", type=Path, metavar="DATA", help=".npz, .npy or a folder of images"
    )
    c.add_argument(
        "--method", choices=("minmax", "percentile", "mse"), default="mse", help="of calibration"
    )
    c.add_argument(
        "--samples", type=_positive, default=128, metavar="N", help="calibration samples used (128)"
    )
    c.add_argument("--exclude", nargs="+", default=[], metavar="NAME", help="nodes that stay float")
    _shapes(c)
    c.add_argument(
        "--io", choices=("model", "int8"), default="model", help="types of inputs and outputs"
    )


def _shapes(c: argparse.ArgumentParser) -> None:
    c.add_argument(
        "--shape",
        action="append",
        type=_shape,
        default=[],
        metavar="NAME=1,3,224,224",
        help="fixes dynamic dimensions",
    )


def _preprocess(c: argparse.ArgumentParser) -> None:
    g = c.add_argument_group(
        "preprocessing", "x = (resized * scale - mean) / std; stored in the package by `build`"
    )
    g.add_argument(
        "--scale", type=float, metavar="F", help="factor, as 0.00392157 for pixels to 0..1"
    )
    g.add_argument(
        "--mean", type=_numbers, metavar="F[,F,F]", help="after scaling; one or one per channel"
    )
    g.add_argument("--std", type=_numbers, metavar="F[,F,F]")
    g.add_argument("--resize", type=_size, metavar="N|HxW", help="bilinear")
    g.add_argument("--layout", choices=("nhwc", "nchw"), help="what the model's image input wants")
    g.add_argument(
        "--label-offset",
        type=int,
        metavar="N",
        help="added to labels; 1 where class 0 is background",
    )


def _compress(command: Add) -> None:
    c = command(
        "compress",
        "search the bits of every layer for a board, or run a recipe",
        "edgekit compress model.onnx --board nrf52840dk --data d.npz --max-drop 0.5 -o out/",
    )
    c.add_argument("model", type=Path, metavar="MODEL", help=".onnx, .tflite or .pt2, in float")
    c.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    c.add_argument(
        "--data", type=Path, required=True, metavar="DATA", help=".npz with y, or class folders"
    )
    c.add_argument("--board", default="host", metavar="ID")
    c.add_argument(
        "--max-drop", type=float, default=0.5, metavar="P", help="points of accuracy (0.5)"
    )
    c.add_argument(
        "--max-cycles", type=_positive, metavar="N", help="predicted, of one inference: an estimate"
    )
    c.add_argument("--recipe", type=Path, metavar="R.toml", help="run this instead of searching")
    c.add_argument(
        "--train", type=Path, metavar="DATA", help="with --recipe: calibrates and trains (--data)"
    )
    c.add_argument("--points", type=_positive, default=12, metavar="N", help="to try (12)")
    c.add_argument(
        "--test", type=_positive, default=1000, metavar="N", help="samples of accuracy (1000)"
    )
    _shapes(c)
    _preprocess(c)


def _inspect(command: Add) -> None:
    c = command("inspect", "show what is in a package", "edgekit inspect model.ekp")
    c.add_argument("package", type=Path, metavar="PKG")


def _explain(command: Add) -> None:
    c = command(
        "explain",
        "say what a model or package costs on a board: kernels, flash, RAM, arena, MACs",
        "edgekit explain model.ekp --board nrf52840dk",
    )
    c.add_argument("source", type=Path, metavar="MODEL_OR_PKG")
    c.add_argument("--board", metavar="ID", help="(the board it was built for)")
    _shapes(c)
    c.add_argument(
        "--link",
        action="store_true",
        help="link it for a bare board: flash by the linker's map, stack painted on an emulator",
    )
    c.add_argument("--report", type=Path, metavar="OUT.html", help="also write an HTML report")


def _check(command: Add) -> None:
    c = command(
        "check",
        "compare a package's accuracy, or every layer, with its float model",
        "edgekit check model.ekp --model model.onnx --data test.npz --metric top1",
    )
    c.add_argument("package", type=Path, metavar="PKG")
    c.add_argument(
        "--model",
        type=Path,
        metavar="MODEL",
        help="the float model, in its own runtime where installed",
    )
    c.add_argument(
        "--data",
        type=Path,
        metavar="DATA",
        help=".npz (inputs or x, and y), .npy, or a folder per class",
    )
    c.add_argument("--metric", choices=("top1", "auc", "cosine"), default="top1")
    c.add_argument(
        "--limit", type=_positive, metavar="N", help="use N samples, spread over the set"
    )
    c.add_argument("--output", metavar="NAME", help="output that is compared (the first)")
    c.add_argument(
        "--window", type=_positive, metavar="N", help="auc: values per window of a file's row"
    )
    c.add_argument("--stride", type=_positive, metavar="N", help="auc: values between windows")
    c.add_argument(
        "--layers", action="store_true", help="compare every tensor instead, with the host's"
    )
    c.add_argument(
        "--on", metavar="WHERE", help="layers: a board id with an emulator, tcp:// or serial://"
    )
    c.add_argument("--token-file", type=Path, metavar="FILE", help="of --on (else $EDGEKIT_TOKEN)")
    c.add_argument("--report", type=Path, metavar="OUT.html", help="also write an HTML report")
    _compression(c)
    _preprocess(c)


def _run_args(command: Add) -> None:
    c = command(
        "run",
        "run a package on this machine",
        "edgekit run model.ekp --input x.npy -o y.npz",
    )
    c.add_argument("package", type=Path, metavar="PKG")
    c.add_argument(
        "--input",
        type=Path,
        required=True,
        metavar="X",
        help=".npy, .npz with one array per input, or image",
    )
    c.add_argument("-o", "--output", type=Path, metavar="Y.npz", help="write all outputs")
    c.add_argument("--entry", default="0", metavar="NAME", help="entry point, by name or number")
    c.add_argument("--preprocess", action="store_true", help="apply the package's preprocessing")
    c.add_argument("--threads", type=_positive, default=1)
    c.add_argument("--isa", type=_names, metavar="A,B", help="ISAs allowed; portable: none")
    c.add_argument("--trace", action="store_true", help="time of every op")


def _bench(command: Add) -> None:
    c = command(
        "bench",
        "measure a package, beside onnxruntime and LiteRT or on a device",
        "edgekit bench model.ekp --model model.onnx\n"
        "  edgekit bench model.ekp --on qemu_mps2_an386",
    )
    c.add_argument("package", type=Path, nargs="+", metavar="PKG")
    c.add_argument(
        "--model",
        type=Path,
        action="append",
        default=[],
        metavar="MODEL",
        help="also run this in its runtime",
    )
    c.add_argument("--threads", type=_positive, default=1)
    c.add_argument(
        "-n",
        type=_positive,
        metavar="N",
        help="inferences (about a second's worth; 100 on devices)",
    )
    c.add_argument("--isa", type=_names, metavar="A,B", help="ISAs allowed; portable: none")
    _shapes(c)
    c.add_argument(
        "--on",
        metavar="WHERE",
        help="a board id with an emulator, tcp://host:port or serial:///dev/ttyX",
    )
    c.add_argument("--token-file", type=Path, metavar="FILE", help="of --on (else $EDGEKIT_TOKEN)")
    c.add_argument("--report", type=Path, metavar="OUT.html", help="also write an HTML report")


def _boards(command: Add) -> None:
    c = command("boards", "list the boards, or show one", "edgekit boards rpi5")
    c.add_argument("board", nargs="?", metavar="ID")


def _agent(command: Add) -> None:
    c = command(
        "agent",
        "serve this device to `edgekit bench --on`",
        "EDGEKIT_TOKEN=a-long-secret edgekit agent --listen 0.0.0.0:7330",
    )
    c.add_argument("--listen", metavar="[ADDRESS:]PORT", help="serve TCP; needs a token")
    c.add_argument("--serial", metavar="DEVICE", help="serve a serial line, as /dev/ttyGS0")
    c.add_argument("--baud", type=_positive, default=115200)
    c.add_argument(
        "--token-file", type=Path, metavar="FILE", help="file with the token (else $EDGEKIT_TOKEN)"
    )
    c.add_argument(
        "--work-dir", type=Path, default=Path.home() / ".cache" / "edgekit-agent", metavar="FOLDER"
    )
    c.add_argument("--sysroot", default="/", metavar="FOLDER", help="where sys/ and proc/ are")
    c.add_argument("--name", default="", help="name of the device")
    c.add_argument("--time-limit-s", type=float, default=600.0, metavar="S", help="of one command")
    c.add_argument(
        "--memory-mib",
        type=int,
        default=0,
        metavar="N",
        help="address space of a package's process",
    )


def _keys(command: Add) -> None:
    c = command(
        "keys",
        "make a pair of keys for signed packages",
        "edgekit keys -o device",
    )
    c.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="NAME",
        help="writes NAME.key (keep it secret), NAME.pub and NAME_key.h",
    )


def _sign(command: Add) -> None:
    c = command(
        "sign",
        "sign a package; devices check it with ek_verify and the public key",
        "edgekit sign model.ekp --key device.key --rollback 3",
    )
    c.add_argument("package", type=Path, metavar="PKG")
    c.add_argument("--key", type=Path, required=True, metavar="NAME.key")
    c.add_argument("-o", "--output", type=Path, metavar="OUT.ekp", help="(in place)")
    c.add_argument(
        "--rollback",
        type=int,
        metavar="N",
        help="counter in the package; devices refuse those below their own",
    )


# ---- values ----


def _positive(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return value


def _numbers(text: str) -> Any:
    try:
        values = [float(t) for t in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number, nor numbers with commas"
        ) from None
    return values[0] if len(values) == 1 else values


def _size(text: str) -> list[int]:
    parts = text.lower().split("x")
    if not all(p.isdigit() and int(p) > 0 for p in parts) or len(parts) > 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: give 224 or 224x224")
    return [int(parts[0]), int(parts[-1])]


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, dims = text.rpartition("=")
    values = dims.replace("x", ",").split(",")
    if not name or not all(v.isdigit() and int(v) > 0 for v in values):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=1,3,224,224")
    return name, tuple(int(v) for v in values)


def _names(text: str) -> list[str]:
    return [] if text in ("", "portable") else text.split(",")


if __name__ == "__main__":
    raise SystemExit(main())

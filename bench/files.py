"""The file in which each runtime takes a network: converted by that runtime's own tools, once."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import nets
import numpy as np
import torch
import venvs
from nets import FILES, Net
from torch import nn

from edgekit import package

HERE = Path(__file__).resolve().parent
TOOL_S = 300  # of a converter


class Unavailable(Exception):
    """This runtime has no path for that network at that precision; the text says why."""


def model_file(net: Net, precision: str, runtime: str) -> Path:
    """The file for one runtime; Unavailable where its tools give none."""
    match runtime:
        case "edgekit":
            path = FILES / f"{net.name}.{precision}.ekp"
            package.save(path, nets.package(net, precision)[0])  # other runs may have it mapped
            return path
        case "onnxruntime" | "openvino":
            return nets.onnx_file(net) if precision == "float32" else nets.qdq_file(net)
        case "litert":
            if precision not in net.lite or not (nets.DATA / net.lite[precision]).exists():
                raise Unavailable("there is no .tflite of it")
            return nets.DATA / net.lite[precision]
        case "ncnn":
            return _ncnn(net, precision)
        case "mnn":
            return _mnn(net, precision)
        case "executorch":
            return _executorch(net, precision)
    raise ValueError(runtime)


def _ncnn(net: Net, precision: str) -> Path:
    if precision != "float32":
        raise Unavailable("its quantizer, ncnn2int8, is in no wheel")
    folder = FILES / "ncnn"
    stem = net.name.replace("-", "_")  # as pnnx does
    path = folder / f"{stem}.ncnn.param"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        source = folder / f"{stem}.onnx"
        source.write_bytes(nets.onnx_file(net).read_bytes())  # pnnx writes beside its input
        shape = "inputshape=[" + ",".join(map(str, net.shape)) + "]"
        _tool([str(venvs.python("executorch").parent / "pnnx"), str(source), shape], path)
    path.with_suffix(".json").write_text((FILES / f"{net.name}.json").read_text())
    return path


def _mnn(net: Net, precision: str) -> Path:
    if precision != "float32":
        raise Unavailable("mnnconvert 3.6.1 crashes on the QDQ model; mnnquant wants image files")
    path = FILES / f"{net.name}.mnn"
    if not path.exists():
        convert = str(venvs.python("peers").parent / "mnnconvert")
        source = str(nets.onnx_file(net))
        command = [convert, "-f", "ONNX", "--modelFile", source, "--MNNModel", str(path)]
        _tool([*command, "--bizCode", "x"], path)
    return path


def _executorch(net: Net, precision: str) -> Path:
    path = FILES / f"{net.name}.{precision}.pte"
    if path.exists():
        return path
    trivial = FILES / "trivial.pte"
    if not trivial.exists():
        _lower(nn.ReLU(), torch.zeros(1), trivial, None)
    given = list(nets.inputs(net))
    calibration = np.stack(given) if precision == "int8" else None
    _lower(nets.module(net), torch.from_numpy(given[0]), path, calibration)
    path.with_suffix(".json").write_text((FILES / f"{net.name}.json").read_text())
    return path


def _lower(module: nn.Module, x: torch.Tensor, path: Path, calibration: Any) -> None:
    """torch.export here, the rest in ExecuTorch's environment."""
    program, arrays = path.with_suffix(".pt2"), path.with_suffix(".npy")
    torch.export.save(torch.export.export(module.eval(), (x,)), program)
    args = [str(program), str(path)]
    if calibration is not None:
        np.save(arrays, calibration)
        args.append(str(arrays))
    tool = str(venvs.python("executorch"))
    _tool([tool, str(HERE / "lower_executorch.py"), *args], path)
    program.unlink()
    arrays.unlink(missing_ok=True)


def _tool(command: list[str], path: Path) -> None:
    """Runs a converter; Unavailable where it leaves no file.  A slow one is not tried again."""
    late = path.with_name(f"{path.name}.late")
    if late.exists():
        raise Unavailable(late.read_text())
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TOOL_S,
            env=venvs.environment(False), cwd=path.parent, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        late.write_text(f"{Path(command[1]).name} takes more than {TOOL_S} s")
        raise Unavailable(late.read_text()) from None
    if done.returncode != 0 or not path.exists():
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no message"]
        raise Unavailable(f"{Path(command[0]).name} failed: {said[-1][:160]}")

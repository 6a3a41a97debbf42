"""Virtual environments under build/bench for the peers and their converters, pinned versions.

ExecuTorch and pnnx (the converter of ncnn) need torch, so they have one of their own.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "build" / "bench"
WHEELS = {
    "peers": (
        ("numpy==2.4.6", "onnx==1.23.2", "onnxruntime==1.32.0", "ai-edge-litert==2.3.0"),
        ("openvino==2026.4.1", "ncnn==1.0.20261020", "MNN==3.6.1"),
    ),
    "executorch": (("torch==2.13.0",), ("executorch==1.5.1", "numpy==2.4.6", "pnnx==20261020")),
}


def python(name: str) -> Path:
    """The interpreter of an environment, made on first use or when its pins change."""
    folder = FOLDER / f"venv-{name}"
    pins = WHEELS[name]
    stamp = folder / f".made-{hashlib.sha256(repr(pins).encode()).hexdigest()[:12]}"
    program = folder / "bin" / "python"
    if not stamp.exists():
        print(f"making {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        for wheels in pins:
            pip = [str(program), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            subprocess.run([*pip, *wheels], check=True, stdin=subprocess.DEVNULL)
        stamp.touch()
    return program


def environment(native: bool) -> dict[str, str]:
    """Environment of a child: ours finds this interpreter's modules, a peer only its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return {**kept, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)} if native else kept

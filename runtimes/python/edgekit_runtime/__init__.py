"""Runs EdgeKit packages on the device.  numpy and one native library, nothing else.

from edgekit_runtime import Session

with Session("kws.ekp") as s:
    y = s.run({"x": x})["y"]
"""

from edgekit_runtime._native import EdgeKitRuntimeError, cpu_isas, version
from edgekit_runtime.session import OpInfo, OpTime, Session, TensorInfo, memory, verify

__all__ = [
    "EdgeKitRuntimeError",
    "OpInfo",
    "OpTime",
    "Session",
    "TensorInfo",
    "cpu_isas",
    "memory",
    "verify",
    "version",
]
__version__ = "0.1.0"

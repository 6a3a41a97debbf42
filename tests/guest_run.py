"""Runs inside an emulated Python: every entry of a package through the installed runtime.

    python guest_run.py SITE package.ekp in.bin out.bin

in.bin holds the input bytes of each entry, one after the other; out.bin gets for each entry a u32
size and the bytes of its outputs, as ek-run writes them.
"""

import struct
import sys

sys.path.insert(0, sys.argv[1])

import numpy as np
from edgekit_runtime import Session

with (
    Session(sys.argv[2]) as session,
    open(sys.argv[3], "rb") as given,
    open(sys.argv[4], "wb") as out,
):
    for entry in range(len(session.entries)):
        inputs = {}
        for info in session.inputs(entry):
            count = int(np.prod(info.shape, dtype=int))
            dtype = np.dtype(info.dtype)
            data = given.read(count * dtype.itemsize)
            inputs[info.name] = np.frombuffer(data, dtype).reshape(info.shape)
        results = session.run(inputs, entry=entry)
        data = b"".join(results[info.name].tobytes() for info in session.outputs(entry))
        out.write(struct.pack("<I", len(data)) + data)

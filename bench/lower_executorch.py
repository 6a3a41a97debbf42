"""Lowers a torch.export program to ExecuTorch's XNNPACK backend; runs in ExecuTorch's environment.

    python lower_executorch.py model.pt2 model.pte [calibration.npy]

With calibration inputs (n, ...) the model becomes int8: symmetric, weights per channel.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.exir import to_edge_transform_and_lower
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e


def main() -> int:
    """Writes the .pte and says how many operators are left outside XNNPACK."""
    program = torch.export.load(sys.argv[1])
    if len(sys.argv) > 3:
        given = [torch.from_numpy(x) for x in np.load(sys.argv[3])]
        config = get_symmetric_quantization_config(is_per_channel=True)
        model = prepare_pt2e(program.module(), XNNPACKQuantizer().set_global(config))
        for x in given:
            model(x)
        program = torch.export.export(convert_pt2e(model), (given[0],))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    nodes = [n for n in lowered.exported_program().graph.nodes if n.op == "call_function"]
    outside = [str(n.target) for n in nodes if "delegate" not in str(n.target)]
    print("outside XNNPACK:", sorted(o for o in set(outside) if "getitem" not in o))
    with open(sys.argv[2], "wb") as file:
        lowered.to_executorch().write_to_file(file)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""INT8 beside our own float32, op by op: says which int8 ops are slower, exit code 1 where one is.

    python bench/slower.py [--nets KWS,IC]

Both packages of a network are traced in turns in this process; the time of an op is the smallest of
all rounds.  Ops are told by their names, in networks whose two files name them differently by their
order among the ops of their kind.  An int8 op counts from FLOOR_US on and may take SLACK more than
the float one, which is how far repeated runs differ.  What only one of the two has (a cast, a
transpose) counts in the sum of the model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import files
import nets
from edgekit_runtime import Session
from peers import made

ROUNDS = 12
RUNS = 8  # of one precision, one after the other
FLOOR_US = 5.0
SLACK = 1.05
KINDS = {"winograd": "conv2d", "unary": "lut"}  # the same work by another name


@dataclass(frozen=True)
class Timed:
    """An op: its smallest time in a run of its network."""

    name: str
    kind: str
    us: float


def times(paths: Sequence[str]) -> list[list[Timed]]:
    """The ops of each package, measured in turns."""
    sessions = [Session(p, threads=1, trace=True) for p in paths]
    least: list[list[float]] = [[] for _ in paths]
    for s in sessions:
        s.set_inputs({i.name: made(i.shape, i.dtype) for i in s.inputs()})
    for _ in range(ROUNDS):
        for k, s in enumerate(sessions):
            for _ in range(RUNS):
                s.execute()
                now = [o.latency_us for o in s.trace()]
                least[k] = [min(a, b) for a, b in zip(least[k], now)] if least[k] else now
    found = []
    for s, us in zip(sessions, least):
        ops = s.trace()
        found.append([Timed(o.name, KINDS.get(o.type, o.type), t) for o, t in zip(ops, us)])
        s.close()
    return found


def pairs(ints: Sequence[Timed], floats: Sequence[Timed]) -> list[tuple[Timed, Timed]]:
    """Ops of both that do the same work."""
    there = {o.name: o for o in floats}
    named = [(o, there[o.name]) for o in ints if o.name in there]
    if 2 * len(named) > len(ints):
        return named
    found = []
    for kind in dict.fromkeys(o.kind for o in ints):
        mine, other = ([o for o in side if o.kind == kind] for side in (ints, floats))
        if len(mine) == len(other):
            found += list(zip(mine, other))
    return found


def main() -> int:
    """Prints one line per network and one for every op that is slower."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--nets", default="", help="names, by comma; default all")
    args = parser.parse_args()
    wanted, gone = nets.present([n for n in args.nets.split(",") if n])
    print(*gone, sep="\n" if gone else "", file=sys.stderr)
    worse = 0
    for net in wanted:
        both = [str(files.model_file(net, p, "edgekit")) for p in ("int8", "float32")]
        ints, floats = times(both)
        met = pairs(ints, floats)
        slow = [(a, b) for a, b in met if a.us > max(FLOOR_US, SLACK * b.us)]
        total, other = (sum(o.us for o in side) for side in (ints, floats))
        print(
            f"{net.name:18} int8 {total:9.1f} us  float32 {other:9.1f} us  {total / other:5.2f}  "
            f"{len(met)} of {len(ints)} ops compared, {len(slow)} slower",
            flush=True,
        )
        for a, b in slow:
            print(f"    {a.kind:18} {a.name}: {a.us:.1f} us, float32 {b.us:.1f} us ({b.kind})")
        worse += len(slow) + (total > other)
    return 1 if worse else 0


if __name__ == "__main__":
    raise SystemExit(main())

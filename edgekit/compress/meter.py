"""What a step of compression costs in energy, where this machine has a counter for it."""

from __future__ import annotations

from pathlib import Path

from edgekit.agent.sensors import Unmeasurable, Value, rapl

NONE = "not measurable here: no RAPL package counter"


class Meter:
    """Energy of whole processor packages since it was made; `source` says how, or why not.

    `read` often enough (a package's counter wraps within the hour); a reading that is lost makes
    the rest unmeasurable instead of too small.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        found = [s for s in rapl.find(root) if s.channel.site.startswith("package")]
        self.zones = [s for s in found if isinstance(s, rapl.Zone)]
        denied = [s.channel.reason for s in found if isinstance(s, Unmeasurable)]
        self.source = f"not measurable here: {denied[0]}" if denied else NONE
        if self.zones and not denied:
            names = ", ".join(z.channel.site for z in self.zones)
            self.source = f"RAPL counter of {names}: all that ran on it"
        else:
            self.zones = []
        self.last = 0.0
        self.read()

    def read(self) -> float | None:
        """Joules so far; None where there is no counter, or it was lost."""
        values = [z.read() for z in self.zones]
        if any(not isinstance(v, Value) for v in values):
            self.zones, self.source = [], "not measurable here: a RAPL counter was lost"
        if not self.zones:
            return None
        self.last = sum(v.value for v in values if isinstance(v, Value)) / 1e6
        return self.last

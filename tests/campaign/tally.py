"""What a campaign has tried and what came of it."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

log = logging.getLogger("campaign")


@dataclass
class Tally:
    """Counts and faults of one part.

    Attributes:
        part: its name.
        counts: how often what was tried, and with which outcome.
        faults: what must not happen, one line each.
        said: what was measured, one line each.
    """

    part: str
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def count(self, *whats: str) -> None:
        """One more of each."""
        self.counts.update(whats)

    def require(self, held: bool, otherwise: str) -> None:
        """Note a fault unless something held."""
        self.count("checks")
        if not held:
            self.faults.append(otherwise)
            log.warning("%s: FAULT %s", self.part, otherwise)

    def note(self, what: str) -> None:
        """Tell who waits how far it is."""
        log.info("%s: %s, %d checks, %d faults", self.part, what, self.counts["checks"], len(self.faults))

    def say(self, line: str) -> None:
        """Add a line to the report."""
        self.said.append(line)

    def __str__(self) -> str:
        width = max(map(len, self.counts), default=0)
        lines = [f"{self.part}: {len(self.faults)} faults"]
        lines += [f"  {what:<{width}}  {number:>7,}" for what, number in sorted(self.counts.items())]
        return "\n".join([*lines, *(f"  {line}" for line in self.said), *(f"  FAULT {fault}" for fault in self.faults)])

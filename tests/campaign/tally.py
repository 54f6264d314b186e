"""What a campaign has tried and what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts and faults of one part.

    Attributes:
        part: its name.
        counts: how often what was tried, and with which outcome.
        faults: what must not happen, one line each.
    """

    part: str
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def count(self, *whats: str) -> None:
        """One more of each."""
        self.counts.update(whats)

    def require(self, held: bool, otherwise: str) -> None:
        """Note a fault unless something held."""
        self.count("checks")
        if not held:
            self.faults.append(otherwise)

    def __str__(self) -> str:
        width = max(map(len, self.counts), default=0)
        lines = [f"{self.part}: {len(self.faults)} faults"]
        lines += [f"  {what:<{width}}  {number:>7,}" for what, number in sorted(self.counts.items())]
        return "\n".join([*lines, *(f"  FAULT {fault}" for fault in self.faults)])

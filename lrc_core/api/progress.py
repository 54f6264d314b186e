"""Bars of tqdm, in a notebook or a terminal."""

from __future__ import annotations

from typing import Any


class ProgressBar:
    """One bar for each phase of a run.

    Args:
        shown: whether there are any.
    """

    def __init__(self, shown: bool) -> None:
        self._shown, self._phase = shown, ""
        self._bar: Any = None

    def show(self, phase: str, step: int, total: int) -> None:
        """Where the run stands.

        Args:
            phase: what is being done.
            step: steps done in this phase.
            total: of how many, 0 where that is unknown.
        """
        if not self._shown:
            return
        if phase != self._phase or self._bar is None:
            self.close()
            self._phase, self._bar = phase, _bar(phase, total)
        self._bar.total = total or None
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Leave the last bar as it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _bar(phase: str, total: int) -> Any:
    from tqdm.auto import tqdm

    return tqdm(desc=phase, total=total or None)

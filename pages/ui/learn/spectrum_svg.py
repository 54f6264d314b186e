"""A small spectrum for the flipbooks: the values as a curve, the kept part filled, break-even and the cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pages.ui.shared import svg


@dataclass(frozen=True)
class SpectrumPanel:
    """Where a spectrum is drawn, and of what.

    Attributes:
        sigma: [r] values, descending.
        even: break-even rank.
        left, top, width, height: of the plot, without its labels.
    """

    sigma: NDArray[np.float64]
    even: float
    left: float
    top: float
    width: float
    height: float

    def share(self, rank: float) -> float:
        """Where a rank lies between none and all, 0..1; a square root spreads the first ones out."""
        return float(np.sqrt(min(rank, len(self.sigma)) / len(self.sigma)))

    def x(self, rank: float) -> float:
        """Where a rank lies in the drawing."""
        return self.left + self.width * self.share(rank)

    def y(self, value: float) -> float:
        """Where a value lies, also on a square root."""
        top = self.sigma[0] if self.sigma[0] > 0 else 1.0
        return self.top + self.height * (1 - float(np.sqrt(max(0.0, value) / top)))

    def _points(self, last: int) -> list[tuple[float, float]]:
        ranks = np.unique(np.geomspace(1, max(last, 1), min(120, max(1, last))).round().astype(int))
        return [(self.x(rank), self.y(self.sigma[rank - 1])) for rank in ranks]

    def base(self) -> str:
        """Axes, curve and the break-even line."""
        bottom = self.top + self.height
        said = "singular values, largest first; both axes show square roots, so that small ones can be seen"
        edge = self.x(self.even)
        ticks = [rank for rank in (1, 10, 50, 100, 250, 500, 1000, 2500, 5000) if rank < 0.85 * len(self.sigma)]
        return (
            svg.line((self.left, bottom), (self.left + self.width, bottom))
            + svg.polyline(self._points(len(self.sigma)), svg.ORANGE)
            + svg.line((edge, self.top), (edge, bottom), dash="5 4")
            + svg.text(edge, self.top - 7, f"break-even {self.even:.0f}", size=15)
            + "".join(svg.text(self.x(rank), bottom + 17, str(rank), size=14) for rank in (*ticks, len(self.sigma)))
            + svg.text(self.left + self.width / 2, bottom + 38, said, size=15, extra='fill-opacity="0.8"')
        )

    def cut(self, rank: int) -> str:
        """The kept part and the cut behind it."""
        bottom, at = self.top + self.height, self.x(rank)
        area = [(self.left, bottom), (self.left, self.y(self.sigma[0])), *self._points(rank), (at, bottom)]
        return svg.polygon(area, svg.ORANGE) + svg.line((at, self.top), (at, bottom), color=svg.ORANGE)

"""``spectra``: the singular values of every layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lrc_core.api.load import NamedModel
from lrc_core.api.parts import calibration_spec
from lrc_core.api.shown import Facts, ShownResult
from lrc_core.decompose.measures import effective_rank, energy_rank
from lrc_core.kinds import KINDS
from lrc_core.results.archive import AnyRun
from lrc_core.results.spectra import Values, spectra_of
from lrc_core.runs.spec import SpectraSpec
from lrc_core.words import percent


class LayerSpectra(ShownResult):
    """Singular values of every layer under some decompositions.

    Attributes:
        view: the run.
        found: card and values.
    """

    def __init__(self, view: AnyRun) -> None:
        self.view, self.found = view, spectra_of(view)

    @property
    def id(self) -> str:
        """Of the run."""
        return self.view.id

    @property
    def decompositions(self) -> tuple[str, ...]:
        """Their names."""
        return self.found.decompositions

    def __getitem__(self, decomposition: str) -> Mapping[str, Values]:
        """Singular values [min(m, n)] of every layer, descending, by its full name; read-only float64."""
        return self.found.values[decomposition]

    def ranks(self, energy: float = 0.95, decomposition: str = "") -> dict[str, int]:
        """How many directions of every layer hold that share of its energy.

        Args:
            energy: share of the sum of squared singular values, from 0 to 1.
            decomposition: the first one where none is named.
        """
        values = self[decomposition or self.decompositions[0]]
        return {name: energy_rank(sigma, energy) for name, sigma in values.items()}

    def facts(self) -> Facts:
        """Means over the layers."""
        means = {}
        for name, by_layer in self.found.values.items():
            ranks = [effective_rank(sigma) / len(sigma) for sigma in by_layer.values()]
            means[f"{name}, effective rank"] = f"{percent(sum(ranks) / len(ranks), 0)} of full"
        return {"spectra": self.found.card.name, "layers": str(len(self.found.card.layers)), **means, "run": self.id}


def spectra(
    model: NamedModel, decompositions: Sequence[str] | str = ("svd", "asvd", "whitened"), *,
    calibration: Mapping[str, Any] | None = None,
) -> LayerSpectra:  # fmt: skip
    """Singular values of every block linear.

    Args:
        model: see :func:`~lrc_core.api.load.load`.
        decompositions: ``svd`` (of the weights alone), ``asvd``, ``whitened`` (by the error of the outputs) or ``kfac``
            (in nats per token).
        calibration: text for those that need any: ``texts``, ``windows``, ``window`` (tokens), ``seed``.

    Returns:
        ``found[decomposition][layer]`` are values [min(m, n)], descending.

    Raises:
        UnknownNameError: no such decomposition.
        TextError, ModelError, ResourceError: a text or the model cannot be read.
    """
    names = (decompositions,) if isinstance(decompositions, str) else tuple(decompositions)
    base: SpectraSpec = KINDS["spectra"].base
    spec = SpectraSpec(model.ref, names, calibration_spec(calibration or {}, base.calibration.seed))
    return LayerSpectra(model.work.done(spec))

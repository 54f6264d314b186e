"""``compare``: methods at the same budgets, measured alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from lrc_core.api.load import NamedModel
from lrc_core.api.parts import calibration_spec, evaluation_spec
from lrc_core.api.shown import rows_html
from lrc_core.formats.grids import format_named
from lrc_core.jobs.manager import result_in
from lrc_core.kinds import KINDS
from lrc_core.names import method_label
from lrc_core.plan import DEFAULT_STORAGE
from lrc_core.quality.rows import accuracy_of, named
from lrc_core.quality.tables import evaluated_table
from lrc_core.results.archive import AnyRun
from lrc_core.runs.spec import CompareSpec
from lrc_core.types import Storage
from lrc_core.words import aligned


class ComparedMethods:
    """A row for each method and size, and one for the dense model.

    Attributes:
        view: the run.
        rows: as ``result.json`` has them: ``method``, ``keep_target``, ``keep_achieved``, ``perplexity`` and so on.
    """

    def __init__(self, view: AnyRun) -> None:
        self.view = view
        self.rows: list[dict[str, Any]] = result_in(view.run)["rows"]

    @property
    def id(self) -> str:
        """Of the run."""
        return self.view.id

    def frame(self) -> pd.DataFrame:
        """One row each: ``method``, ``kept`` (0 to 1), a column of perplexities per text, of accuracies per task."""
        return pd.DataFrame(
            {
                "method": named(row),
                "kept": row["keep_achieved"],
                **{f"perplexity {text}": score["value"] for text, score in row["perplexity"].items()},
                **{task: scores[accuracy_of(scores)[0]] for task, scores in row["zero_shot"].items()},
            }
            for row in self.rows
        )

    def _table(self) -> tuple[list[str], list[list[str]]]:
        return evaluated_table(self.rows, lambda row: method_label(named(row)))

    def __repr__(self) -> str:
        return aligned(*self._table())

    def _repr_html_(self) -> str:
        return rows_html(*self._table())


def compare(  # noqa: PLR0913 - each is a setting of its own
    model: NamedModel, methods: Sequence[str] = ("uniform", "strs", "llrc"), keep: Sequence[float] | float = (0.9, 0.8),
    *, decomposition: str = "whitened", presets: Mapping[str, str] | None = None, update: str = "none",
    calibration: Mapping[str, Any] | None = None, evaluation: Mapping[str, Any] | None = None, seed: int = 0,
    storage: Storage = DEFAULT_STORAGE, formats: Sequence[str] | None = None,
) -> ComparedMethods:  # fmt: skip
    """Allocate with each method at each size, and measure every plan and the dense model alike.

    Args:
        model: see :func:`~lrc_core.api.load.load`.
        methods: as ``lrc methods`` lists them.
        keep: shares of the block linears to keep, each above 0 and at most 1.
        decomposition: what the factors are of.
        presets: named settings of those methods that are not on their first ones.
        update: what is done to the factors of every plan: ``none``, ``left``, ``both``, ``tuned``.
        calibration: ``texts``, ``windows``, ``window`` (tokens), ``seed``.
        evaluation: ``texts``, ``tasks``, ``window``, ``max_windows``, ``items`` and so on; two tasks by default.
        seed: of methods, calibration and evaluation.
        storage: how low-rank layers are stored: ``pair`` or ``pivoted``.
        formats: number formats of further rows, in which the model is quantised instead: all by default.

    Raises:
        UnknownNameError, SettingsError, TextError, EvaluationError: a name or number is wrong.
        LrcError: a part failed; in its words.
    """
    base: CompareSpec = KINDS["compare"].base
    keeps = (keep,) if isinstance(keep, int | float) else tuple(keep)
    spec = replace(
        base,
        model=model.ref,
        methods=tuple(methods),
        keeps=keeps,
        decomposition=decomposition,
        presets=dict(presets or {}),
        calibration=calibration_spec(calibration or {}, seed),
        evaluation=evaluation_spec({"seed": seed, **(evaluation or {})}, base.evaluation),
        seed=seed,
        update=update,
        storage=storage,
        formats=base.formats if formats is None else tuple(format_named(name).name for name in formats),
    )
    return ComparedMethods(model.work.done(spec))

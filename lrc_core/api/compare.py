"""``compare``: methods at the same budgets, measured alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from lrc_core.api.load import NamedModel
from lrc_core.api.parts import calibration_spec, evaluation_spec
from lrc_core.api.shown import rows_html, rows_text
from lrc_core.formats.grids import format_named
from lrc_core.jobs.manager import result_in
from lrc_core.kinds import KINDS
from lrc_core.names import method_label
from lrc_core.plan import DEFAULT_STORAGE, PAIR, variant_name
from lrc_core.quality.rows import accuracy_of
from lrc_core.results.archive import AnyRun
from lrc_core.runs.spec import CompareSpec
from lrc_core.texts.label import text_labels
from lrc_core.types import Storage
from lrc_core.words import percent, rounded


def _variant(row: Mapping[str, Any]) -> str:
    return variant_name(str(row["method"]), str(row.get("update", "")), row.get("storage", PAIR))


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
                "method": _variant(row),
                "kept": row["keep_achieved"],
                **{f"perplexity {text}": score["value"] for text, score in row["perplexity"].items()},
                **{task: scores[accuracy_of(scores)[0]] for task, scores in row["zero_shot"].items()},
            }
            for row in self.rows
        )

    def _table(self) -> tuple[list[str], list[list[str]]]:
        texts = list(dict.fromkeys(text for row in self.rows for text in row["perplexity"]))
        tasks = list(dict.fromkeys(task for row in self.rows for task in row["zero_shot"]))
        labels = text_labels(texts)
        header = ["method", "kept", *(f"{labels[text]} ppl" for text in texts), *tasks]
        return header, [self._line(row, texts, tasks) for row in self.rows]

    @staticmethod
    def _line(row: Mapping[str, Any], texts: Sequence[str], tasks: Sequence[str]) -> list[str]:
        scores = [row["perplexity"].get(text) for text in texts]
        answers = [row["zero_shot"].get(task) for task in tasks]
        return [
            method_label(_variant(row)),
            percent(row["keep_achieved"]),
            *("–" if score is None else rounded(score["value"], score.get("stderr")) for score in scores),
            *("–" if not found else percent(found[accuracy_of(found)[0]]) for found in answers),
        ]

    def __repr__(self) -> str:
        return rows_text(*self._table())

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

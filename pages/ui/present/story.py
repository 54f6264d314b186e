"""What a presentation is about: one model, one size, what was measured there, and the plan that lost least."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from lrc_core import words
from lrc_core.budget import USUAL_KEEP
from lrc_core.errors import LrcError
from lrc_core.formats.grids import METHODS
from lrc_core.names import in_order, method_color, method_label
from lrc_core.plan import Plan, split_variant
from lrc_core.quality.decision import Choice
from lrc_core.quality.footprint import served
from lrc_core.quality.quantised import compresses
from lrc_core.quality.rows import dense_row, mean_loss
from lrc_core.results import comparisons
from lrc_core.results.archive import RunView, archive
from lrc_core.results.decisions import decision_of
from lrc_core.results.plans import load_plan, nearest, passes_rates, recorded_plans
from lrc_core.runs.spec import AllocateSpec, EvaluateSpec, ModelRef
from lrc_core.texts.label import text_label
from lrc_core.types import ModelCard
from pages.ui.shared import pictures
from pages.ui.shared.summary import ShownSpectra, shown_spectra

MOST_BARS = 3
"""Compressed rows in a picture of bars: the best, and the last to compare with."""
MOST_ROWS = 6
"""Methods that one slide has room for."""


@dataclass(frozen=True)
class Story:
    """The material of the slides. What is not there is left out of them.

    Attributes:
        ref: the model.
        card: of it.
        shown: its spectra.
        keep: share of the block linears that is kept.
        rows: as measured: the dense model, then methods at this size.
        best: the compressed row of lowest perplexity.
        plan: that it measured.
        sample: whether all of it is shipped.
        source: id of the comparison.
        sources: ids of all runs that measured what is told.
        decided: every measured way to a smaller model, at every size.
    """

    ref: ModelRef
    card: ModelCard
    shown: ShownSpectra | None
    keep: float
    rows: tuple[comparisons.Row, ...]
    best: comparisons.Row | None
    plan: Plan | None
    sample: bool
    source: str
    decided: tuple[Choice, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def removed(self) -> str:
        """``20 %``."""
        return words.removed(self.keep)

    @property
    def dense(self) -> comparisons.Row | None:
        return dense_row(self.rows)

    @property
    def others(self) -> list[comparisons.Row]:
        """Compressed rows, the best first."""
        return sorted((row for row in self.rows if compresses(row)), key=mean_loss)

    @property
    def formats(self) -> list[comparisons.Row]:
        """Rows of number formats alone."""
        return [row for row in self.rows if row["method"] in METHODS]

    @property
    def best_label(self) -> str:
        return method_label(str(self.best["method"])) if self.best is not None else ""

    @property
    def texts(self) -> list[str]:
        """Texts that every row was measured on."""
        return [text for text in self.rows[0]["perplexity"] if all(text in row["perplexity"] for row in self.rows)]

    def bars(self, text: str, *, with_table: bool = True) -> str:
        """Perplexities on one text."""
        # Number formats alone stand in the decision picture; a slide has room for four bars of a text.
        few = self.others if len(self.others) <= MOST_BARS else [*self.others[: MOST_BARS - 1], self.others[-1]]
        shown = [*([self.dense] if self.dense is not None else []), *few]
        return pictures.bars(
            [_bar(row, text) for row in shown],
            f"Perplexity on {text_label(text)}",
            "lower is better, ± standard error",
            with_table=with_table,
        )

    def learned(self) -> RunView[AllocateSpec] | None:
        """The run whose film shows how ranks are learned: the best row's own, else any of this model."""
        views = [view for view in archive().runs(AllocateSpec, self.ref) if view.done and passes_rates(view.spec)]
        return next((view for view in views if self.made_by(view)), views[0] if views else None)

    def made_by(self, view: RunView[AllocateSpec]) -> bool:
        """Whether the plan of the slides comes from this run."""
        origin = str(self.plan.origin.get("run_id") or "") if self.plan is not None else ""
        return view.id in (str((self.best or {}).get("allocate_run_id")), origin, self.source)


def score_words(row: comparisons.Row, text: str) -> str:
    """``38.7 ± 1.9``."""
    score: dict[str, Any] = row["perplexity"][text]
    return words.measured(float(score["value"]), score.get("stderr"))


def _bar(row: comparisons.Row, text: str) -> pictures.Bar:
    method, score = str(row["method"]), row["perplexity"][text]
    return pictures.Bar(
        method_label(method),
        method_color(method),
        float(score["value"]),
        score.get("stderr"),
        score_words(row, text),
        reference=method == "dense",
    )


def story_of(ref: ModelRef, keep: float = USUAL_KEEP) -> Story | None:
    """The story of a model, else that of the shipped sample; None where there is neither.

    Args:
        keep: share of the block linears' parameters; the nearest measured one counts.
    """
    for model in dict.fromkeys((ref, ModelRef())):
        known = archive().newest_card(model)
        if known is not None:
            return _story(model, known[0], keep)
    return None


def _story(ref: ModelRef, card: ModelCard, wanted: float) -> Story:
    card = served(card)
    own_spectra = archive().best_spectra(ref) is not None
    shown = shown_spectra(ref) if own_spectra else None
    for group in comparisons.groups(ref):
        if not group.sizes:
            continue
        keep = min(group.sizes, key=lambda known: abs(known - wanted))
        rows = group.best_at(keep)
        kept = _best_of_laws(row for row in rows if compresses(row))
        chosen = [row for row in rows if not compresses(row)] + kept[:MOST_ROWS]
        order = in_order(str(row["method"]) for row in chosen)
        chosen.sort(key=lambda row: order.index(str(row["method"])))
        whole = tuple(view.id for view in group.views if not isinstance(view.spec, EvaluateSpec))
        sources = whole or (group.views[0].id,)
        return Story(
            ref, card, shown, keep, tuple(chosen), kept[0], _plan(card, kept[0]), group.sample, sources[0],
            tuple(decision_of(ref, group)), sources,
        )  # fmt: skip
    found = nearest(recorded_plans(archive().runs(AllocateSpec, ref)), wanted)
    plan = _fitting(card, partial(load_plan, found.path)) if found is not None else None
    keep = plan.keep_target if plan is not None else wanted
    sample = all(view.sample for view in archive().runs(ref=ref))
    return Story(ref, card, shown, keep, (), None, plan, sample, found.view.id if found is not None else "")


def _best_of_laws(rows: Iterable[comparisons.Row]) -> list[comparisons.Row]:
    """Of each method with its update the row of least loss, however its layers are stored; the best first.

    A rival stored in a way that costs it more is no measure of a plan stored in the better one.
    """
    found: dict[tuple[str, str], comparisons.Row] = {}
    for row in sorted(rows, key=mean_loss):
        method, update, _ = split_variant(str(row["method"]))
        found.setdefault((method, update), row)
    return list(found.values())


def _plan(card: ModelCard, row: comparisons.Row) -> Plan | None:
    return _fitting(card, partial(comparisons.plan_of, row))


def _fitting(card: ModelCard, load: Callable[[], Plan | None]) -> Plan | None:
    """A plan, unless it is damaged or of other layers: there may have been another model under this name."""
    try:
        found = load()
        if found is not None:
            found.full_ranks(card.layers)
    except LrcError:
        return None
    return found

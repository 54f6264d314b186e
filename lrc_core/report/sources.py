"""Which runs a report is made of: comparisons, the plans behind their rows, answers to prompts. Files only."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from lrc_core.errors import LrcError, PlanError, RunError
from lrc_core.names import in_order, method_label
from lrc_core.plan import Plan, plan_variant
from lrc_core.quality.quantised import at_rate
from lrc_core.quality.rows import Scores
from lrc_core.quality.votes import read_votes, votes_path
from lrc_core.report.measured import Row, Wanted, is_measuring, measured_rows, missing_cells, require_alike, with_tests
from lrc_core.results.answers import BLIND
from lrc_core.results.archive import Archive, archive
from lrc_core.results.identity import changed
from lrc_core.results.plans import find_plan
from lrc_core.runs.integrity import unaltered
from lrc_core.runs.spec import AllocateSpec, CompareSpec, EvaluateSpec, GenerateSpec, QualitySpec
from lrc_core.runs.store import Run
from lrc_core.types import ModelCard
from lrc_core.words import removed

MOST_PLANS, MOST_ANSWERS = 6, 3


@dataclass(frozen=True)
class ReportPlan:
    """A plan with its origin.

    Attributes:
        method: with its update, such as ``llrc+left``.
        source: run id, or the name of a file.
    """

    method: str
    plan: Plan
    source: str

    @property
    def keep(self) -> float:
        """Share to keep."""
        return self.plan.keep_target

    @property
    def label(self) -> str:
        """``LLRC, 20 %``."""
        return f"{method_label(self.method)}, {removed(self.keep)}"


@dataclass(frozen=True)
class Sources:
    """What a report is made of.

    Attributes:
        card: of the model.
        comparisons: finished runs that measured alike, the one that leads first; none where nothing was measured.
        rows: theirs, what follows from them included; failed cells too.
        missing: cells that were asked for and are not there.
        baselines: what rows are tested against, in the order of their signs.
        tested: whether single outcomes were at hand, so that tests could be made.
        plans: what is drawn.
        lost: names of rows whose plan is gone.
        answers: finished ``generate`` runs.
        sealed: how many more there are that have not been judged yet.
        archive: where runs are looked up.
    """

    card: ModelCard
    comparisons: tuple[Run, ...]
    rows: tuple[Row, ...]
    missing: tuple[Wanted, ...]
    baselines: tuple[str, ...]
    tested: bool
    plans: tuple[ReportPlan, ...]
    lost: tuple[str, ...]
    answers: tuple[Run, ...]
    sealed: int
    archive: Archive

    @property
    def shipped(self) -> bool:
        """Whether all that was measured is among the samples that the program ships."""
        shipped = [run.path.parent == self.archive.shipped for run in self.comparisons]
        return bool(shipped) and all(shipped)

    def changed(self) -> tuple[str, ...]:
        """What is no longer as it was when these runs were computed, in words."""
        runs: list[Run | None] = [*self.comparisons, *self.answers]
        runs += [self.archive.folder(shown.source.partition("@")[0]) for shown in self.plans]
        looked: dict[str, str | None] = {}
        found: list[str] = []
        for run in filter(None, runs):
            with suppress(LrcError):
                found += changed(run.spec, looked)
        return tuple(dict.fromkeys(found))

    def scores(self) -> Scores:
        """Single outcomes of the rows."""
        return _scores(self.comparisons, self.archive)


@dataclass(frozen=True)
class Asked:
    """What a report was asked to be about.

    Attributes:
        model: as the user names it; "" for any.
        compare: comparisons, benches and single measurements, each by run id or folder, that measured alike: of cells
            that several have, the first named counts. () for the newest comparison or bench and those like it.
        plans: plan files, run ids or RUN@20; () for those behind the comparison.
        answers: ``generate`` runs; () for the newest.
    """

    model: str = ""
    compare: tuple[str, ...] = ()
    plans: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


def find_sources(asked: Asked, found: Archive | None = None) -> Sources:
    """The runs of a report.

    Raises:
        RunError: a run is unknown, of another kind, not finished or measured otherwise than the first, or there is
            nothing to report on.
        PlanError: a named plan is unknown, damaged or of another model.
    """
    found = archive() if found is None else found
    comparisons = _named(asked, found) if asked.compare else _newest(asked.model, found, bool(asked.plans))
    names, rows = with_tests(comparisons, measured_rows(comparisons, found), _scores(comparisons, found))
    plans_named = tuple(_named_plan(text, found) for text in asked.plans)
    behind, lost = _plans_of(rows, found)
    plans = plans_named or behind or (() if comparisons else _newest_plans(asked.model, found))
    card = _card(comparisons, rows, behind or plans, found)
    for shown in plans:
        shown.plan.check_model(card)
    model = _model(comparisons[0]) if comparisons else (asked.model or card.identity.source)
    answers, sealed = _answers(asked.answers, model, found)
    return Sources(
        card, comparisons, rows, missing_cells(comparisons, rows), names, any(row.get("paired") for row in rows),
        plans, () if plans_named else lost, answers, sealed, found,
    )  # fmt: skip


def _scores(runs: Sequence[Run], found: Archive) -> Scores:
    """Single outcomes of evaluations, beside the runs that name them."""
    return Scores(*(dict.fromkeys(run.path.parent for run in runs) or [found.stores[0].root]))


def _named(asked: Asked, found: Archive) -> tuple[Run, ...]:
    runs = {(run := found.named(text)).id: run for text in asked.compare}
    for run in runs.values():
        if not is_measuring(run.spec):
            raise RunError(
                f"Run {run.id} compares nothing.",
                "Name runs of `lrc compare`, `lrc bench quality` or `lrc evaluate`; `lrc runs list` shows them.",
            )
        _require_done(run)
        if asked.model and _model(run) != asked.model:
            raise RunError(f"Run {run.id} is about {_model(run)}, not about {asked.model}.")
    first, *others = runs.values()
    for run in others:
        require_alike(first, run)
    return (first, *others)


def _require_done(run: Run) -> None:
    status = run.status()
    if status.state != "done":
        remedy = "Wait until it is done." if not status.final else f"Go on with it: `lrc runs resume {run.id}`."
        raise RunError(f"Run {run.id} is not finished, it is {status.state}: a report would be incomplete.", remedy)


def _model(run: Run) -> str:
    return run.spec.model.source


def _newest(model: str, found: Archive, optional: bool) -> tuple[Run, ...]:
    """The newest finished comparison or bench, and after it all others that measured alike."""
    if optional:
        return ()
    done = [
        view.run
        for view in found.runs()
        if view.done
        and isinstance(view.spec, CompareSpec | QualitySpec)
        and (not model or view.spec.model.source == model)
    ]
    return tuple(run for run in done if _alike(done[0], run))


def _alike(first: Run, other: Run) -> bool:
    try:
        require_alike(first, other)
    except RunError:
        return False
    return True


def _plans_of(rows: Sequence[Row], found: Archive) -> tuple[tuple[ReportPlan, ...], tuple[str, ...]]:
    """The plans behind measured rows of a rate, and the rows whose plan is gone."""
    plans, lost = [], []
    for row in rows:
        if not at_rate(row) or "error" in row:
            continue
        run = found.folder(str(row.get("run_id") or "-"))
        plan = None
        if run is not None:
            with suppress(LrcError):
                spec = run.spec
                plan = Plan.from_dict(dict(spec.plan)) if isinstance(spec, EvaluateSpec) and spec.plan else None
        if plan is None:
            lost.append(f"{method_label(str(row['method']))}, {removed(float(row['keep_target']))}")
        else:
            plans.append(ReportPlan(str(row["method"]), plan, str(row["run_id"])))
    return tuple(plans), tuple(lost)


def _named_plan(text: str, found: Archive) -> ReportPlan:
    problem: LrcError | None = None
    for store in found.stores:
        try:
            plan = Plan.from_dict(find_plan(text, store).plan, text)
        except LrcError as error:
            problem = problem or error
            continue
        return ReportPlan(plan_variant(plan), plan, Path(text).name)
    raise problem or PlanError(f"There is no plan {text!r}.")


def _newest_plans(model: str, found: Archive) -> tuple[ReportPlan, ...]:
    """Plans of the newest finished allocations, where nothing was compared.

    Raises:
        RunError: there are none.
    """
    plans: list[ReportPlan] = []
    for view in found.finished(AllocateSpec):
        if (model and view.spec.model.source != model) or len(plans) == MOST_PLANS:
            continue
        with suppress(LrcError):
            plan = Plan.load(unaltered(view.path / "plan.json"))
            if not plans or plan.model.fingerprint == plans[0].plan.model.fingerprint:
                plans.append(ReportPlan(plan_variant(plan), plan, view.id))
    if not plans:
        of = f" of {model}" if model else ""
        raise RunError(
            f"There is nothing to report on: no comparison{of} is finished.", f"Run `lrc compare {model or 'starter'}`."
        )
    order = in_order(shown.method for shown in plans)
    return tuple(sorted(plans, key=lambda shown: (-shown.keep, order.index(shown.method))))


def _card(runs: Sequence[Run], rows: Sequence[Row], plans: Sequence[ReportPlan], found: Archive) -> ModelCard:
    """The model's card, from a run behind a row or a plan, else from any run of that model.

    Raises:
        RunError: no run has one.
    """
    wanted = plans[0].plan.model.fingerprint if plans else None
    behind = [str(row.get(name)) for row in rows for name in ("run_id", "allocate_run_id") if row.get(name)]
    behind += [shown.source.partition("@")[0] for shown in plans]
    named = [run for run in (found.folder(run_id) for run_id in behind) if run is not None]
    model = _model(runs[0]) if runs else (plans[0].plan.model.source if plans else "")
    others = (view.run for view in found.with_cards() if view.spec.model.source == model)
    for run in chain(named, others):
        with suppress(LrcError, KeyError, TypeError):
            card = run.card()
            if not card.identity.header_only and wanted in (None, card.identity.fingerprint):
                return card
    raise RunError(f"No run knows the layers of {model or 'this model'}.", f"Run `lrc spectra {model or 'MODEL'}`.")


def _answers(named: Sequence[str], model: str, found: Archive) -> tuple[tuple[Run, ...], int]:
    """Finished questions of a model, newest first, and how many more wait for a blind judgement.

    Raises:
        RunError: a named run is no question, not finished, about another model or not judged yet.
    """
    judged = {vote.run_id for store in found.stores for vote in read_votes(votes_path(store.root))}

    def sealed(run: Run) -> bool:
        return (run.path / BLIND).exists() and run.id not in judged

    if named:
        chosen = [found.named(text) for text in named]
        for run in chosen:
            if not isinstance(run.spec, GenerateSpec):
                raise RunError(f"Run {run.id} holds no answers.", "Name a run of `lrc generate`.")
            if _model(run) != model:
                raise RunError(f"Run {run.id} asked {_model(run)}, not {model}.")
            _require_done(run)
            if sealed(run):
                raise RunError(
                    f"Run {run.id} is a blind comparison without a vote yet.", "Vote on the Talk page first."
                )
        return tuple(chosen), 0
    every = [view.run for view in found.finished(GenerateSpec) if view.spec.model.source == model]
    return tuple(run for run in every if not sealed(run))[:MOST_ANSWERS], sum(sealed(run) for run in every)

"""``plan``: one that is there already, or one made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrc_core.allocate.curves.hand import HAND, spend_rest
from lrc_core.api.load import NamedModel
from lrc_core.api.shown import Facts, ShownResult
from lrc_core.budget import check_keep, fit_budget, stored_card, uniform_ranks
from lrc_core.errors import PlanError, SettingsError
from lrc_core.names import method_label
from lrc_core.plan import DEFAULT_STORAGE, Plan, make_plan, plan_variant
from lrc_core.results.archive import archive, card_of
from lrc_core.results.plans import copy_plan, find_plan
from lrc_core.results.spectra import known_losses
from lrc_core.runs.spec import CalibrationSpec
from lrc_core.runs.store import Run, RunStore
from lrc_core.types import ModelCard
from lrc_core.words import percent


@dataclass(frozen=True, repr=False)
class ChosenPlan(ShownResult):
    """A rank for every layer of a model.

    Attributes:
        plan: the content of its file.
        card: of the model.
        folder: of its weights or structure file, relative to the runs or absolute; "" where it has none.
        calibration: text of its factors.
        run: where it was made; None for one from elsewhere.
    """

    plan: Plan
    card: ModelCard
    folder: str
    calibration: CalibrationSpec
    run: Run | None = None

    @property
    def ranks(self) -> dict[str, int]:
        """Rank of every layer by its full name; of dense ones min(m, n)."""
        return self.plan.full_ranks(self.card.layers)

    @property
    def keep(self) -> float:
        """Share of the block linears' parameters that it keeps, from 0 to 1."""
        return self.plan.keep_achieved

    def save(self, file: str | Path) -> Path:
        """Write it as a plan file, with the weights that belong to it beside it; ``plan(file)`` reads it again.

        Raises:
            ResourceError: the disk is full, or the folder cannot be written.
        """
        home = RunStore().root / self.folder if self.plan.files else Path()
        copy_plan(self.plan, home, Path(file))
        return Path(file)

    def facts(self) -> Facts:
        """Method and size."""
        plan = self.plan
        return {
            "plan": method_label(plan_variant(plan)),
            "decomposition": plan.decomposition,
            "kept": f"{percent(plan.keep_achieved)} of the block linears, {percent(plan.keep_whole_model)} of it all",
            "layers": f"{len(plan.ranks)} of low rank, {len(plan.dense)} dense",
            "of": plan.model.source,
            **({"run": self.run.id} if self.run else {}),
        }


def plan(
    source: str | Path | NamedModel, *, model: NamedModel | None = None, keep: float = 0.8,
    ranks: Mapping[str, int] | None = None, decomposition: str = "whitened", storage: str = DEFAULT_STORAGE,
) -> ChosenPlan:  # fmt: skip
    """A plan that is there, or of a model one made by hand: some ranks are set, the allocator spends the rest.

    Args:
        source: a plan file, a run, ``RUN@20`` for the plan that it recorded at 20 % removed; or a model.
        model: of the plan; by default the newest one of that name that a run has read.
        keep: of a plan by hand: share of the block linears to keep, above 0 and at most 1.
        ranks: by hand: rank of some layers by full name, from 1 to min(m, n).
        decomposition: by hand: what the factors are of.
        storage: by hand: ``pair`` or ``pivoted``.

    Raises:
        PlanError: there is no such plan, it is damaged, or it is of another model.
        BudgetError: the ranks that were set leave too little for the rest.
        SettingsError: a rank is out of range, or of no layer.
    """
    if isinstance(source, NamedModel):
        return _by_hand(source, keep, dict(ranks or {}), decomposition, storage)
    found = find_plan(str(source), RunStore())
    made = Plan.from_dict(found.plan)
    card = model.card if model else _card_of(made)
    made.check_model(card)
    run_id = made.origin.get("run_id")
    run = archive().folder(str(run_id)) if run_id else None
    return ChosenPlan(made, card, found.folder, found.calibration or CalibrationSpec(), run)


def _card_of(made: Plan) -> ModelCard:
    for view in archive().with_cards():
        card = card_of(view)
        if card.identity.fingerprint == made.model.fingerprint:
            return card
    raise PlanError(f"No run has read {made.model.source} yet.", "Load the model, and name it: plan(..., model=...).")


def _by_hand(
    model: NamedModel, keep: float, set_ranks: dict[str, int], decomposition: str, storage: Any
) -> ChosenPlan:  # fmt: skip
    check_keep(keep)
    card = stored_card(model.card, storage)
    for layer in card.layers:
        if not 1 <= set_ranks.get(layer.name, 1) <= layer.full_rank:
            raise SettingsError(f"The rank of {layer.name} must be from 1 to {layer.full_rank}.")
    if unknown := set_ranks.keys() - {layer.name for layer in card.layers}:
        raise SettingsError(f"The model has no layer {min(unknown)!r}.", f"A layer is called {card.layers[0].name}.")
    begun = fit_budget(card.layers, uniform_ranks(card.layers, keep), keep) | set_ranks
    losses, _ = known_losses(model.ref, card, archive())
    final = spend_rest(card.layers, begun, set(set_ranks), keep, losses)
    hand = {"name": "From Python", "base": "uniform", "locked": sorted(set_ranks)}
    made = make_plan(card, final, decomposition=decomposition, method=HAND, keep_target=keep, origin={"hand": hand})
    return ChosenPlan(made, model.card, "", CalibrationSpec())

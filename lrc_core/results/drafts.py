"""A plan being made by hand: its record, its moves, and where it is kept."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lrc_core.allocate.curves.hand import HAND, spend_rest
from lrc_core.budget import Ranks, fit_budget, is_dense, normalised, stored_card, uniform_ranks, whole_percent
from lrc_core.errors import PlanError, RecordError
from lrc_core.files import write_json
from lrc_core.paths import plans_home, read_only
from lrc_core.plan import Plan, make_plan
from lrc_core.records import load_record, parse, typed
from lrc_core.runs.spec import CalibrationSpec
from lrc_core.types import ModelCard, Storage

_CHOOSE = "Choose a plan.json that this program wrote."

MOST_DRAFTS = 20
"""Remembered drafts of one model; older ones go."""


@dataclass(frozen=True)
class Draft:
    """A plan in the making.

    Attributes:
        name: what it is called in the score list.
        base: what it began as, in words; with the run id where it was a run's.
        decomposition: of its factors.
        ranks: of every layer.
        locked: layers that keep their rank when the rest is spent.
        calibration: text that the factors come from, as a plan's origin has it; empty for the default.
        storage: law by which low-rank layers are stored.
    """

    name: str
    base: str
    decomposition: str
    ranks: Mapping[str, int]
    locked: tuple[str, ...] = ()
    calibration: Mapping[str, Any] = field(default_factory=dict)
    storage: Storage = "pair"

    def stored(self, card: ModelCard) -> ModelCard:
        """The model's card with its layers as the draft stores them."""
        return stored_card(card, self.storage)

    def with_storage(self, card: ModelCard, storage: Storage) -> Draft:
        """The same ranks stored by another law; a layer that would save nothing there is dense."""
        changed = replace(self, storage=storage)
        return replace(changed, ranks=normalised(changed.stored(card).layers, self.ranks))

    def with_rank(self, card: ModelCard, name: str, rank: int) -> Draft:
        """One layer at another rank, and locked: what was set by hand stays."""
        ranks = normalised(self.stored(card).layers, {**self.ranks, name: rank})
        return replace(self, ranks=ranks, locked=tuple(sorted({*self.locked, name})))

    def with_locks(self, names: Collection[str], locked: bool) -> Draft:
        """Some layers locked or free."""
        kept = set(self.locked) | set(names) if locked else set(self.locked) - set(names)
        return replace(self, locked=tuple(sorted(kept)))

    def spent(self, card: ModelCard, keep: float, losses: Mapping[str, np.ndarray] | None) -> Draft:
        """What is not locked gets the rest of the budget.

        Raises:
            BudgetError: the locked layers leave too little.
        """
        return replace(self, ranks=spend_rest(self.stored(card).layers, self.ranks, self.locked, keep, losses))


def uniform_draft(card: ModelCard, keep: float) -> Draft:
    """The uniform rule as a beginning."""
    ranks = fit_budget(card.layers, uniform_ranks(card.layers, keep), keep)
    return Draft("My plan", "the uniform rule", "whitened", ranks, storage=card.layers[0].storage)


def draft_of(plan: Plan, card: ModelCard, base: str) -> Draft:
    """A plan of this model as a beginning; components are counted from the largest.

    Raises:
        PlanError: it is another model's, damaged, or brings weights of its own, which ranks say nothing of.
    """
    plan.check_model(card)
    if plan.files:
        raise PlanError(
            f"This plan needs the file {plan.files[0]}; its ranks alone are not the plan.",
            "Choose the plan that it was made from.",
        )
    written = plan.origin.get("hand")
    hand = written if isinstance(written, Mapping) else {}
    known = {layer.name for layer in card.layers}
    return Draft(
        name=str(hand.get("name") or "My plan"),
        base=base,
        decomposition=plan.decomposition,
        ranks=plan.full_ranks(card.layers),
        locked=tuple(name for name in hand.get("locked") or () if name in known),
        calibration=dict(plan.origin.get("calibration") or {}),
        storage=plan.storage,
    )


def plan_of(draft: Draft, card: ModelCard, keep: float) -> Plan:
    """The draft as a plan file says it."""
    origin: dict[str, Any] = {"hand": {"name": draft.name, "base": draft.base, "locked": list(draft.locked)}}
    if draft.calibration:
        origin["calibration"] = dict(draft.calibration)
    return make_plan(
        draft.stored(card),
        draft.ranks,
        decomposition=draft.decomposition,
        method=HAND,
        keep_target=keep,
        origin=origin,
    )


def calibration_of(draft: Draft) -> CalibrationSpec:
    """The text that the draft's factors come from."""
    made = dict(draft.calibration)
    return CalibrationSpec(**{**made, "texts": tuple(made["texts"])}) if made else CalibrationSpec()


def imported(data: bytes, card: ModelCard, name: str) -> Draft:
    """An uploaded plan file as a draft.

    Raises:
        PlanError: not a plan, or not of this model.
    """
    try:
        content = parse(data, name, strict=True)
    except RecordError as error:
        raise PlanError(f"{name} is not JSON that can be read. {error.message}", _CHOOSE) from error
    return draft_of(Plan.from_dict(content, name), card, f"the file {name}")


def summary(draft: Draft, card: ModelCard) -> dict[str, int]:
    """How many layers are dense, of low rank and locked."""
    dense = sum(is_dense(layer, draft.ranks[layer.name]) for layer in draft.stored(card).layers)
    return {"dense": dense, "low": len(card.layers) - dense, "locked": len(draft.locked)}


def _folder(card: ModelCard) -> Path:
    return plans_home() / card.identity.fingerprint[:16]


def keep_draft(draft: Draft, card: ModelCard, tab: str) -> None:
    """Remember the draft of a tab, so that a reload finds it; in the read-only mode the tab alone has it.

    Args:
        draft: what is remembered.
        tab: its name in its link.

    Raises:
        ResourceError, RunError: it cannot be written.
    """
    if read_only():
        return
    _folder(card).mkdir(parents=True, exist_ok=True)
    write_json(_draft_file(card, tab), {**asdict(draft), "ranks": dict(draft.ranks)})
    for path in _drafts(card)[MOST_DRAFTS:]:
        path.unlink(missing_ok=True)


def _draft_file(card: ModelCard, tab: str) -> Path:
    return _folder(card) / f".draft-{re.sub(r'[^0-9a-f]', '', tab)[:16]}.json"


def _drafts(card: ModelCard) -> list[Path]:
    """All remembered drafts of a model, the newest first; earlier versions had one for all tabs, ``.draft.json``."""
    return sorted(_folder(card).glob(".draft*.json"), key=lambda path: -path.stat().st_mtime)


def newest_draft(card: ModelCard) -> tuple[Draft, float] | None:
    """The draft that was changed last in any tab, and when; None where there is none that can be used."""
    for path in _drafts(card):
        if (draft := _read_draft(path, card)) is not None:
            return draft, path.stat().st_mtime
    return None


def kept_draft(card: ModelCard, tab: str) -> Draft | None:
    """The remembered draft of a tab; None where there is none that can be used."""
    return _read_draft(_draft_file(card, tab), card) if tab else None


def _read_draft(path: Path, card: ModelCard) -> Draft | None:
    try:
        draft = typed(Draft, load_record(path, strict=True), str(path))
        ranks: Ranks = normalised(draft.stored(card).layers, {name: int(rank) for name, rank in draft.ranks.items()})
    except Exception:  # whatever is wrong with it, a new one is begun
        return None
    return replace(draft, ranks=ranks)


def plan_file(draft: Draft, card: ModelCard, keep: float) -> Path:
    """Where the draft is saved."""
    words = re.sub(r"[^a-z0-9]+", "-", draft.name.lower()).strip("-") or "plan"
    return _folder(card) / f"{words}-{whole_percent(keep):02d}.json"


def save_plan(draft: Draft, card: ModelCard, keep: float) -> Path:
    """Write the draft as a plan file under its name and return the path.

    Raises:
        ResourceError, RunError: it cannot be written.
    """
    path = plan_file(draft, card, keep)
    path.parent.mkdir(parents=True, exist_ok=True)
    plan_of(draft, card, keep).save(path)
    return path


def saved_plans(card: ModelCard) -> list[Path]:
    """Plan files that were saved for this model, newest first."""
    found = [path for path in _folder(card).glob("*.json") if not path.name.startswith(".")]
    return sorted(found, key=lambda path: -path.stat().st_mtime)

"""``lrc plan``: a plan changed by hand, the rest of the budget spent by the allocator. No model is loaded."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lrc_core.allocate.curves.hand import HAND, spend_rest
from lrc_core.allocate.curves.loss_curves import predicted_loss
from lrc_core.budget import check_keep, fit_budget, stored_card, uniform_ranks
from lrc_core.cli.output import emit, emit_json, fixed_percent
from lrc_core.errors import LrcError, PlanError, SettingsError
from lrc_core.files import disk_errors
from lrc_core.kinds.words.flags import model_ref
from lrc_core.plan import DEFAULT_STORAGE, Plan, make_plan
from lrc_core.results.archive import Archive, card_of
from lrc_core.results.plans import find_plan
from lrc_core.results.spectra import known_losses
from lrc_core.runs.spec import ModelRef
from lrc_core.runs.store import RunStore
from lrc_core.types import LinearShape, ModelCard

UNIFORM = "uniform"


def plan(arguments: argparse.Namespace) -> None:
    """``lrc plan``."""
    store, ref = RunStore(), model_ref(arguments)
    check_keep(arguments.keep)
    own = Archive((store,))
    card = _card(ref, own)
    begun = None if arguments.begin == UNIFORM else Plan.from_dict(find_plan(arguments.begin, store).plan)
    card = stored_card(card, arguments.storage or (begun.storage if begun is not None else DEFAULT_STORAGE))
    ranks, locked = _beginning(card, begun, arguments.keep)
    for name, rank in (_rank(word, card) for word in arguments.rank or ()):
        ranks[name] = rank
        locked.add(name)
    for word in arguments.lock or ():
        locked |= _fitting(word, card)
    losses, source = known_losses(ref, card, own)
    final = spend_rest(card.layers, ranks, locked, arguments.keep, losses)
    hand = {"name": arguments.name, "base": arguments.begin, "locked": sorted(locked)}
    origin: dict[str, Any] = {"hand": hand}
    if begun is not None and "calibration" in begun.origin:
        origin["calibration"] = begun.origin["calibration"]
    made = make_plan(
        card,
        final,
        decomposition=begun.decomposition if begun else arguments.decomposition,
        method=HAND,
        keep_target=arguments.keep,
        origin=origin,
    )
    with disk_errors(Path(arguments.save)):
        made.save(Path(arguments.save))
    loss = None if losses is None else predicted_loss(card.layers, final, losses)
    if arguments.json:
        emit_json({"plan": made.to_dict(), "predicted_loss": loss, "loss_from": source})
        return
    emit(
        f"{len(locked)} {'layer' if len(locked) == 1 else 'layers'} locked, {len(made.dense)} dense; "
        f"{fixed_percent(made.keep_achieved)} kept of "
        f"{fixed_percent(made.keep_target)}. Plan: {arguments.save}"
    )
    if loss is not None:
        emit(f"Predicted loss (K-FAC, {source}; an estimate): {loss:.4f} nats per token.")


def _card(ref: ModelRef, own: Archive) -> ModelCard:
    """The model's card from the newest run that loaded it.

    Raises:
        PlanError: no run has read this model yet.
    """
    for view in own.with_cards(ref):
        card = card_of(view)
        if not card.identity.header_only:
            return card
    raise PlanError(f"No run has read {ref.source} yet.", f"Run `lrc spectra {ref.source}` first.")


def _beginning(card: ModelCard, begun: Plan | None, keep: float) -> tuple[dict[str, int], set[str]]:
    if begun is None:
        return fit_budget(card.layers, uniform_ranks(card.layers, keep), keep), set()
    begun.check_model(card)
    if begun.files:
        raise PlanError(f"This plan needs the file {begun.files[0]}; its ranks alone are not the plan.")
    hand = begun.origin.get("hand")
    locked = hand.get("locked", ()) if isinstance(hand, Mapping) else ()
    return begun.full_ranks(card.layers), set(locked) & {layer.name for layer in card.layers}


def _rank(word: str, card: ModelCard) -> tuple[str, int]:
    """``LAYER=RANK``; ``LAYER=dense`` for the full rank."""
    name, _, value = word.rpartition("=")
    layer = next((layer for layer in card.layers if layer.name == name), None)
    if layer is None:
        raise SettingsError(f"The model has no layer {name!r}.", f"A layer is called {card.layers[0].name}.")
    if value == "dense":
        return name, layer.full_rank
    if not value.isdigit() or not 1 <= int(value) <= layer.full_rank:
        raise SettingsError(f"The rank of {name} must be from 1 to {layer.full_rank}, or dense, not {value!r}.")
    return name, int(value)


def _fitting(word: str, card: ModelCard) -> set[str]:
    """Layers whose name holds the word."""
    found: list[LinearShape] = [layer for layer in card.layers if word in layer.name]
    if not found:
        raise LrcError(f"No layer's name holds {word!r}.", f"A layer is called {card.layers[0].name}.")
    return {layer.name for layer in found}

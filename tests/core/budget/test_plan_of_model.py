"""Plans of another model are refused before anything is queued, whatever takes a plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lrc_core import kinds
from lrc_core.errors import PlanError
from lrc_core.models.outline import read_outline
from lrc_core.plan import make_plan
from lrc_core.results.identity import identified
from lrc_core.runs.spec import AnswerSpec, EvaluateSpec, ExportSpec, GenerateSpec, ModelRef, SpectraSpec, UpdateSpec
from lrc_core.runs.store import RunStore
from lrc_core.types import ModelCard
from tests.factories import run_factory
from tests.factories.tiny_models import save_tiny

TAKERS: list[Callable[[ModelRef, Any], Any]] = [
    lambda model, plan: EvaluateSpec(model, plan),
    lambda model, plan: GenerateSpec(model, "Why?", (AnswerSpec(), AnswerSpec(plan))),
    lambda model, plan: ExportSpec(model, plan),
    lambda model, plan: UpdateSpec(model, plan),
]


def plan_of(card: ModelCard) -> dict[str, Any]:
    ranks = {layer.name: layer.full_rank // 4 for layer in card.layers}
    return make_plan(card, ranks, decomposition="svd", method="uniform", keep_target=0.5).to_dict()


def loaded(store: RunStore, folder: Path, mark: str) -> ModelCard:
    """A run has loaded the model."""
    card = read_outline(ModelRef(str(folder))).card
    card = replace(card, identity=replace(card.identity, fingerprint=mark * 64))
    run = store.create(identified(SpectraSpec(ModelRef(str(folder)))))
    run_factory.write_json(run.path / "card.json", card.to_dict())
    run_factory.finish(run, {})
    return card


@pytest.mark.parametrize("taker", TAKERS)
def test_another_model_of_the_same_layers_is_known_from_a_run(tmp_path: Path, taker: Callable[..., Any]) -> None:
    store = RunStore()
    cards = [loaded(store, save_tiny(tmp_path / name, seed=seed), name[0]) for seed, name in enumerate(("a", "b"))]
    plan, own, other = plan_of(cards[0]), *(ModelRef(card.identity.source) for card in cards)
    kinds.check(identified(taker(own, plan)), runs=store.root)
    with pytest.raises(PlanError, match=f"{own.source} .*, not for {other.source}"):
        kinds.check(identified(taker(other, plan)), runs=store.root)
    # The folder holds another model by now: what was known of it says nothing.
    save_tiny(tmp_path / "b", seed=3)
    kinds.check(identified(taker(other, plan)), runs=store.root)


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("family", ["gpt_neox", "phi"])
def test_a_model_of_other_layers_that_nobody_loaded_is_known_by_its_headers(
    tmp_path: Path, taker: Callable[..., Any], family: str
) -> None:
    plan = plan_of(read_outline(ModelRef(str(save_tiny(tmp_path / "a")))).card)
    folder = save_tiny(tmp_path / family, family)
    with pytest.raises(PlanError, match="layers are not"):
        kinds.check(identified(taker(ModelRef(str(folder)), plan)), runs=RunStore().root)


def test_a_model_that_has_become_another_is_named_once(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "a")
    plan = plan_of(read_outline(ModelRef(str(folder))).card)
    (folder / "model.safetensors").unlink()
    save_tiny(folder, "phi")
    with pytest.raises(PlanError, match="has now"):
        kinds.check(identified(EvaluateSpec(ModelRef(str(folder)), plan)), runs=RunStore().root)

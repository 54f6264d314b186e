"""Plans: the one file that every command and page reads and writes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from lrc_core.budget import dense_ranks, keep_ratio
from lrc_core.errors import BudgetError, PlanError
from lrc_core.plan import Plan, make_plan, pruned_plan
from lrc_core.types import ModelCard, ModelIdentity
from tests.factories.tiny_methods import grid_of_shapes

LAYERS = grid_of_shapes([(64, 64), (48, 144)], blocks=2)
FIRST, SECOND, THIRD, FOURTH = (layer.name for layer in LAYERS)
CARD = ModelCard(
    identity=ModelIdentity("tiny", "", "a" * 64, "LlamaForCausalLM"),
    name="tiny",
    params_total=30000,
    params_linear=sum(layer.params for layer in LAYERS),
    n_blocks=2,
    hidden_size=64,
    vocab_size=100,
    max_positions=64,
    dtype="float32",
    dtype_bytes=4,
    device="cpu",
    layers=LAYERS,
)
RANKS = {FIRST: 10, SECOND: 48, THIRD: 40, FOURTH: 20}


def a_plan(**more: object) -> Plan:
    return make_plan(CARD, RANKS, decomposition="svd", method="uniform", keep_target=0.8, **more)  # type: ignore[arg-type]


def test_a_plan_lists_low_rank_and_dense_layers_apart() -> None:
    plan = a_plan()
    assert plan.ranks == {FIRST: 10, FOURTH: 20}  # 40 of 64 is above break-even and therefore dense
    assert plan.dense == (SECOND, THIRD)
    assert plan.keep_achieved == keep_ratio(LAYERS, RANKS)
    kept_linear = plan.keep_achieved * CARD.params_linear
    assert plan.keep_whole_model == pytest.approx((kept_linear + 30000 - CARD.params_linear) / 30000)
    assert plan.full_ranks(LAYERS) == {FIRST: 10, SECOND: 48, THIRD: 64, FOURTH: 20}


def test_kept_indices_are_held_for_low_rank_layers_only() -> None:
    kept = {name: list(range(1, rank + 1)) for name, rank in RANKS.items()}
    plan = a_plan(kept=kept)
    assert plan.kept == {FIRST: tuple(range(1, 11)), FOURTH: tuple(range(1, 21))}


def test_the_dense_model_is_a_plan() -> None:
    plan = make_plan(CARD, dense_ranks(LAYERS), decomposition="svd", method="uniform", keep_target=1.0)
    assert (plan.ranks, plan.keep_achieved, plan.keep_whole_model) == ({}, 1.0, 1.0)
    assert plan.full_ranks(LAYERS) == dense_ranks(LAYERS)


@pytest.mark.parametrize("kept", [None, {FIRST: range(10), FOURTH: range(3, 23)}])
def test_a_plan_goes_through_json_unchanged(tmp_path: Path, kept: object) -> None:
    plan = a_plan(kept=kept, origin={"run_id": "allocate-1", "seed": 0})
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_weights_and_kept_indices_exclude_each_other() -> None:
    plan = dataclasses.replace(a_plan(kept={FIRST: range(10), FOURTH: range(3, 23)}), weights_file="own.safetensors")
    with pytest.raises(PlanError, match="only one"):
        Plan.from_dict(plan.to_dict())


def a_pruned_plan() -> Plan:
    dense = make_plan(CARD, dense_ranks(LAYERS), decomposition="svd", method="llm_pruner", keep_target=0.8)
    return pruned_plan(dense, CARD, {SECOND: (48, 72), THIRD: (32, 64)}, "structure.safetensors")


def test_a_pruned_plan_counts_what_is_left(tmp_path: Path) -> None:
    plan = a_pruned_plan()
    assert (plan.ranks, plan.dense, plan.files) == ({}, (FIRST, FOURTH), ("structure.safetensors",))
    left = 64 * 64 + 48 * 72 + 32 * 64 + 48 * 144
    assert plan.keep_achieved == left / CARD.params_linear
    assert plan.keep_whole_model == pytest.approx(1 - (CARD.params_linear - left) / 30000)
    assert plan.full_ranks(LAYERS) == dense_ranks(LAYERS)
    plan.check_model(CARD)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


@pytest.mark.parametrize(
    "change",
    [
        {"structure_file": None},
        {"pruned": None},
        {"structure_file": "../structure.safetensors"},
        {"structure_file": "/etc/structure.safetensors"},
        {"ranks": {FIRST: 3}, "dense": [FOURTH]},
        {"pruned": {SECOND: [48], THIRD: [32, 64]}},
        {"pruned": {SECOND: [48, 72, 1], THIRD: [32, 64]}},
    ],
)
def test_a_pruned_plan_that_cannot_be_is_damaged(change: dict[str, object]) -> None:
    with pytest.raises(PlanError, match="damaged"):
        Plan.from_dict({**a_pruned_plan().to_dict(), **change})


@pytest.mark.parametrize("shape", [(49, 72), (48, 145), (0, 72)])
def test_a_shape_outside_the_layer_is_damage(shape: tuple[int, int]) -> None:
    plan = a_pruned_plan()
    with pytest.raises(PlanError, match=f"left of {SECOND}"):
        dataclasses.replace(plan, pruned={**(plan.pruned or {}), SECOND: shape}).check_model(CARD)


def test_files_of_a_plan_must_lie_beside_it(tmp_path: Path) -> None:
    a_plan().require_files("", tmp_path)
    for folder in ("", str(tmp_path)):
        with pytest.raises(PlanError, match=r"structure\.safetensors"):
            a_pruned_plan().require_files(folder, tmp_path)
    (tmp_path / "structure.safetensors").touch()
    a_pruned_plan().require_files(str(tmp_path), tmp_path)


def test_the_file_is_the_documented_one(tmp_path: Path) -> None:
    a_plan().save(tmp_path / "plan.json")
    data = json.loads((tmp_path / "plan.json").read_text())
    assert (data["format"], data["version"]) == ("lrc-plan", 1)
    assert set(data["model"]) == {"source", "revision", "fingerprint", "architecture"}
    documented = {"decomposition", "method", "keep_target", "keep_achieved", "keep_whole_model", "ranks", "dense"}
    documented |= {"kept", "weights_file", "structure_file", "origin", "format", "version", "model"}
    assert set(data) == documented


@pytest.mark.parametrize("version", [3, 0, "two"])
def test_a_version_that_is_not_known_has_a_remedy(version: object) -> None:
    with pytest.raises(PlanError) as caught:
        Plan.from_dict({**a_plan().to_dict(), "version": version})
    assert ("newer" in caught.value.remedy) == (version == 3) and caught.value.remedy


def test_a_plan_of_another_model_is_refused_by_name() -> None:
    other = dataclasses.replace(CARD, identity=ModelIdentity("big", "", "b" * 64, "LlamaForCausalLM"))
    with pytest.raises(PlanError, match=r"tiny \(a{12}\).*big \(b{12}\)"):
        a_plan().check_model(other)
    a_plan().check_model(CARD)


def test_a_plan_with_other_layers_names_one() -> None:
    with pytest.raises(PlanError, match=FOURTH):
        a_plan().full_ranks(LAYERS[:3])
    fewer = dataclasses.replace(CARD, layers=LAYERS[:3])
    with pytest.raises(PlanError, match=FOURTH):
        a_plan().check_model(fewer)


def test_a_rank_outside_the_layer_is_damage() -> None:
    plan = dataclasses.replace(a_plan(), ranks={FIRST: 65, FOURTH: 20})
    with pytest.raises(PlanError, match="damaged: Rank 65"):
        plan.check_model(CARD)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"version": 2},
        {"model": None},
        {"model": {"source": "x"}},
        {"ranks": None},
        {"ranks": {FIRST: "many"}},
        {"kept": {FIRST: ["x"]}},
        {"surprise": 1},
        {"dense": None},
    ],
)
def test_damaged_content_is_a_plan_error(change: dict[str, object]) -> None:
    with pytest.raises(PlanError):
        Plan.from_dict({**a_plan().to_dict(), **change})


@pytest.mark.parametrize("data", [None, [], "plan", 3, {}])
def test_what_is_no_record_is_no_plan(data: object) -> None:
    with pytest.raises(PlanError, match="not a plan"):
        Plan.from_dict(data)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"no file .*nothing\.json"):
        Plan.load(tmp_path / "nothing.json")
    (tmp_path / "text.json").write_text("not json")
    with pytest.raises(PlanError, match=r"text\.json is damaged"):
        Plan.load(tmp_path / "text.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError):
        Plan.load(tmp_path / "bytes.json")


def test_ranks_of_every_layer_are_needed() -> None:
    with pytest.raises(BudgetError, match=SECOND):
        make_plan(CARD, {FIRST: 1}, decomposition="svd", method="uniform", keep_target=0.5)

"""Budgets in bytes: predicted losses against explicit forms, hulls against all mixtures, and whole allocations."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lrc_core.allocate.curves.mixtures import Curves, best_mixture, least_bytes, on_hull, smallest_cost, ways
from lrc_core.allocate.curves.rounding_losses import dense_loss, pair_losses, pivot_loss
from lrc_core.budget import stored
from lrc_core.decompose.factorise import Factors, Transform, factorise
from lrc_core.errors import BudgetError, LrcError
from lrc_core.formats.budgets import VARY, byte_budget, require_reach
from lrc_core.formats.grids import FORMATS, Q4_0, Q5_1, Q8_0, QUANTISED
from lrc_core.formats.rounding import on_grid, packed, unpacked
from lrc_core.formats.sizes import layer_bytes, layer_states, stored_matrices, whole_bytes
from lrc_core.kinds import check, command_for
from lrc_core.lowrank.apply import compressed
from lrc_core.lowrank.linear import LowRankLinear, PivotedLinear
from lrc_core.lowrank.rounding import unit_columns
from lrc_core.models.blocks.linears import block_linears, get_module, weight_of
from lrc_core.plan import Plan
from lrc_core.registry import ALLOCATORS
from lrc_core.runs.spec import (
    AllocateSpec,
    CalibrationSpec,
    EvaluateSpec,
    EvaluationSpec,
    ExportSpec,
    ModelRef,
    UpdateSpec,
)
from lrc_core.types import LinearShape
from tests.factories.pipeline_helpers import result_of, run
from tests.factories.tiny_models import save_tiny, tiny_model, tiny_text


def metric(rows: int, columns: int, seed: int = 0) -> Transform:
    """Two triangular roots with directions of very different weight."""
    draw = torch.Generator().manual_seed(seed)

    def root(size: int) -> torch.Tensor:
        basis = torch.linalg.qr(torch.randn(size, size, generator=draw, dtype=torch.float64)).Q
        return torch.linalg.cholesky(basis @ torch.diag(torch.logspace(0, -3, size, dtype=torch.float64)) @ basis.T)

    return Transform(root(columns), root(rows))


@pytest.mark.parametrize("shape", [(40, 96), (96, 64)])
@pytest.mark.parametrize("form", [Q8_0, Q5_1, Q4_0], ids=lambda form: form.name)
def test_predicted_losses_are_the_quadratic_form(shape: tuple[int, int], form: Any) -> None:
    """Half of tr(R R^T D L L^T D^T), D the difference of the weights, for dense weights and for pairs of every rank."""
    weight, transform = torch.randn(*shape, generator=torch.Generator().manual_seed(1)), metric(*shape)
    outputs, inputs = transform.output @ transform.output.T, transform.matrix @ transform.matrix.T

    def explicit(other: torch.Tensor) -> float:
        error = (weight - other).double()
        return 0.5 * float(torch.trace(outputs @ error @ inputs @ error.T))

    back = torch.tensor(unpacked(packed(weight.numpy(), form), form, shape[1]))
    assert dense_loss(weight, transform, form) == pytest.approx(explicit(back), rel=1e-3)
    found = factorise(weight, transform)
    losses, full = pair_losses(found, transform, form), min(shape)
    assert len(losses) == full + 1 and losses[0] == 0 and (np.diff(losses) >= 0).all()
    for rank in (32, full):
        truncated = 0.5 * float(found.sigma[rank:].double().square().sum())
        pair = torch.matmul(*(on_grid(part, form) for part in unit_columns(found.left[:, :rank], found.right[:rank])))
        assert truncated + losses[rank] == pytest.approx(explicit(pair), rel=0.1)


def test_pivots_bear_eight_bits_and_no_fewer() -> None:
    """What the storage of low formats goes by: rounding costs pivots much more than pairs once steps are coarse."""
    weight, transform = torch.randn(96, 128, generator=torch.Generator().manual_seed(2)), metric(96, 128)
    found = factorise(weight, transform)
    truncated = 0.5 * float(found.sigma[48:].double().square().sum())
    eight, five = (pivot_loss(found, transform, form, 48) for form in (Q8_0, Q5_1))
    assert eight < 0.05 * truncated < five
    assert five > 2 * pair_losses(found, transform, Q5_1)[48]
    (layer,) = stored([LinearShape("a.0.x", 0, "x", 96, 128)], "pivoted")
    assert stored_matrices(layer, 48, Q8_0) == ((48, 128), (48, 48))
    assert stored_matrices(layer, 48, Q5_1) == ((96, 48), (48, 128))
    assert layer_bytes(layer, 96, Q8_0) == 96 * 4 * 34


def random_curves(layer: LinearShape, seed: int) -> Curves:
    draw = np.random.default_rng(seed)
    components = np.sort(draw.random(layer.full_rank))[::-1] ** 3 * draw.uniform(0.1, 3)
    scale = draw.uniform(0.01, 0.3)
    dense = {form: scale * step for form, step in zip(QUANTISED, (0.01, 0.5, 2.0), strict=True)}
    factors = {form: np.linspace(0, 2 * loss, layer.full_rank + 1) for form, loss in dense.items()}
    return Curves(components, dense, factors)


@pytest.mark.parametrize("vary", VARY)
@pytest.mark.parametrize("storage", ["pair", "pivoted"])
def test_the_mixture_is_the_best_at_its_own_bytes(vary: str, storage: Any) -> None:
    """Of all mixtures, none that takes no more bytes loses less (Everett 1963): found by trying them all."""
    layers = stored([LinearShape(f"a.{i}.x", i, "x", 64, 96) for i in range(2)], storage)
    curves = {layer.name: random_curves(layer, seed) for seed, layer in enumerate(layers)}
    every = {layer.name: ways(layer, curves[layer.name], vary) for layer in layers}
    hulls = {name: on_hull(found) for name, found in every.items()}
    least = sum(hull[0].cost for hull in hulls.values())
    for allowed in range(least, whole_bytes(layers) + 1, whole_bytes(layers) // 15):
        found = best_mixture(layers, hulls, allowed)
        assert found.cost == sum(one.bytes for one in layer_states(layers, found.ranks, found.formats)) <= allowed
        prices = [hulls[layer.name] for layer in layers]
        best = min(
            sum(way.loss for way in mix) for mix in product(*prices) if sum(way.cost for way in mix) <= found.cost
        )
        gap = max(one.loss - two.loss for hull in prices for one, two in pairwise(hull))
        assert found.loss - best <= gap + 1e-12
        one, two = (every[layer.name] for layer in layers)
        fits = one.costs[::7, None] + two.costs[None, ::7] <= found.cost
        assert (one.losses[::7, None] + two.losses[None, ::7])[fits].min(initial=np.inf) >= found.loss - gap - 1e-12
    for layer in layers:
        found = every[layer.name]
        assert (set(found.forms) == {"bf16"}) == (vary == "ranks")
        assert (set(found.ranks) == {layer.full_rank}) == (vary == "bits")
        for size, rank, form in zip(found.costs, found.ranks, found.forms, strict=True):
            assert rank % FORMATS[form].block == 0 and size == layer_bytes(layer, int(rank), FORMATS[form])


def test_a_budget_below_reach_says_the_smallest() -> None:
    layers = (LinearShape("a.0.x", 0, "x", 64, 96),)
    hulls = {"a.0.x": on_hull(ways(layers[0], random_curves(layers[0], 0), "bits"))}
    with pytest.raises(BudgetError, match=r"0\.2813") as caught:
        require_reach(smallest_cost(hulls), 1000, layers)
    assert "bytes:0.2813" in caught.value.remedy


@pytest.mark.parametrize("text", ["0.45", "bytes:", "bytes:0", "bytes:1.2", "mb:-3", "gb:2", "bytes:nan", "mb:inf", ""])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(BudgetError):
        byte_budget(text)


class _Plain:
    """Plain factors of a model."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def factors(self, name: str, _: int) -> Factors:
        return factorise(weight_of(get_module(self._model, name)), Transform())

    def sigma(self, name: str, block: int) -> torch.Tensor:
        return self.factors(name, block).sigma


def test_pivots_in_low_formats_are_put_on_as_pairs() -> None:
    model = tiny_model()
    layers = stored(block_linears(model)[:3], "pivoted")
    source = _Plain(model)
    ranks = {layer.name: layer.full_rank // 2 for layer in layers}
    formats = {layers[0].name: "Q8_0", layers[1].name: "Q5_1"}
    with compressed(model, layers, ranks, source, None, formats):
        kinds = [type(get_module(model, layer.name)) for layer in layers[:3]]
    assert kinds == [PivotedLinear, LowRankLinear, PivotedLinear]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("bytes")
    (folder / "text.txt").write_text(tiny_text(20000))
    calibration = CalibrationSpec((str(folder / "text.txt"),), windows=8, window=32)
    return {"model": ModelRef(str(save_tiny(folder / "tiny"))), "calibration": calibration}


def allocated(parts: dict[str, Any], budget: str, **more: Any) -> AllocateSpec:
    more = {"method": "lagrangian", **more}
    return AllocateSpec(decomposition="kfac", keep=1.0, budget=budget, **more, **parts)


@pytest.mark.parametrize("storage", ["pair", "pivoted"])
@pytest.mark.parametrize("method", [entry.name for entry in ALLOCATORS if entry.by_bytes])
def test_a_plan_of_bytes_is_made_measured_and_kept(parts: dict[str, Any], method: str, storage: Any) -> None:
    settings = ALLOCATORS.get(method).tiny
    spec = allocated(parts, "bytes:0.4", storage=storage, method=method, settings=settings)
    check(spec)
    assert "--budget bytes:0.4" in command_for(spec) and "--keep" not in command_for(spec)
    found = run(spec)
    plan, card = Plan.load(found.path / "plan.json"), found.card()
    assert plan.formats and plan.bytes_share(plan.stored(card).layers) <= 0.4
    assert plan.origin["budget"] == "bytes:0.4"
    evaluation = EvaluationSpec(parts["calibration"].texts, window=32, max_windows=2)
    row = result_of(
        run(EvaluateSpec(parts["model"], plan.to_dict(), str(found.path), parts["calibration"], evaluation))
    )
    assert row["bytes_share"] == plan.bytes_share(plan.stored(card).layers)
    assert sum(row["formats"].values()) == len(plan.formats) and row["budget"] == "bytes:0.4"
    check(ExportSpec(parts["model"], plan.to_dict(), str(found.path), parts["calibration"]))  # packed
    with pytest.raises(LrcError, match="round"):
        check(UpdateSpec(parts["model"], plan.to_dict(), str(found.path), {"kind": "left"}, parts["calibration"]))


def test_damaged_losses_of_formats_are_measured_anew(
    parts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRC_CACHE", str(tmp_path))
    first = Plan.load(run(allocated(parts, "bytes:0.65")).path / "plan.json")
    (losses,) = tmp_path.rglob("rounding.npz")
    whole = losses.read_bytes()
    for raw in (b"", whole[:300], b"[5]"):
        losses.write_bytes(raw)
        monkeypatch.setenv("LRC_RUNS", str(tmp_path / f"runs-{len(raw)}"))
        again = Plan.load(run(allocated(parts, "bytes:0.65")).path / "plan.json")
        assert (again.ranks, again.formats) == (first.ranks, first.formats)
        assert losses.with_name("rounding.npz.damaged").read_bytes() == raw


def test_budgets_are_met_within_what_may_vary(parts: dict[str, Any]) -> None:
    losses = {}
    for vary in VARY:
        found = run(allocated(parts, "bytes:0.7", vary=vary))
        plan = Plan.load(found.path / "plan.json")
        assert bool(plan.formats) == (vary != "ranks") and bool(plan.ranks) <= (vary != "bits")
        losses[vary] = result_of(found)["details"]["predicted_loss_increase"]
    assert losses["both"] <= min(losses.values()) + 1e-9
    card = found.card()
    rest = 2 * (card.params_total - card.params_linear)
    whole = (rest + 0.7 * whole_bytes(card.layers)) / 1e6
    assert byte_budget(f"mb:{whole}").allowed(card) == pytest.approx(0.7 * whole_bytes(card.layers), abs=2)
    with pytest.raises(BudgetError, match="smallest possible"):
        run(allocated(parts, "bytes:0.2", vary="bits"))
    with pytest.raises(BudgetError):
        byte_budget(f"mb:{rest / 2e6}").allowed(card)


@pytest.mark.parametrize(
    "change", [{"method": "uniform"}, {"decomposition": "whitened"}, {"vary": "bytes"}, {"budget": "bytes:2"}]
)
def test_budgets_that_cannot_be_given_are_refused_at_once(parts: dict[str, Any], change: dict[str, Any]) -> None:
    with pytest.raises(LrcError):
        check(dataclasses.replace(allocated(parts, "bytes:0.6"), **change))


def test_records_of_earlier_runs_keep_their_ids() -> None:
    plain = AllocateSpec()
    assert not {"budget", "vary"} & set(plain.to_dict())
    assert json.loads(json.dumps(plain.to_dict())) == plain.to_dict()


@pytest.mark.parametrize("vary", VARY)
def test_the_least_bytes_are_those_of_the_cheapest_choices_whatever_the_losses(vary: str) -> None:
    """Of all ways to store each layer: whole blocks and odd widths, both storage laws, a rank multiple."""
    drawn = np.random.default_rng(0)
    layers = [
        LinearShape("a", 0, "a", 96, 64),
        LinearShape("b", 0, "b", 40, 50),
        LinearShape("c", 1, "c", 64, 64, "pivoted"),
        LinearShape("d", 1, "d", 128, 64, "pair", 8),
    ]
    hulls = {}
    for layer in layers:
        each = np.sort(drawn.random(layer.full_rank))[::-1]
        fitting = {name: drawn.random() for name in QUANTISED if FORMATS[name].fits(layer.in_features)}
        rounding = {name: np.concatenate([[0.0], np.cumsum(drawn.random(layer.full_rank))]) for name in QUANTISED}
        hulls[layer.name] = on_hull(ways(layer, Curves(each, fitting, rounding), vary))
    least = least_bytes(layers, vary)
    assert least == smallest_cost(hulls) and best_mixture(layers, hulls, least).cost == least
    with pytest.raises(BudgetError):
        require_reach(least, least - 1, layers)

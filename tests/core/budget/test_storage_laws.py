"""Pairs and pivots: what they cost, that budgets obey them, and that the pivot form is the same matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lrc_core.allocate.curves.loss_curves import cheapest_ranks, component_prices
from lrc_core.budget import (
    LAWS,
    break_even,
    check_target,
    factor_params,
    fit_budget,
    is_dense,
    keep_ratio,
    largest_low_rank,
    layer_params,
    params_per_component,
    params_per_rank,
    plan_params,
    rank_of_share,
    smallest_rank,
    storage_law,
    stored,
    stored_card,
    uniform_ranks,
    whole_rank_of_share,
)
from lrc_core.decompose.factorise import Factors
from lrc_core.errors import BudgetError, NumericalError, PlanError
from lrc_core.lowrank.apply import compressed, pivoted_layer
from lrc_core.lowrank.linear import LowRankLinear, PivotedLinear
from lrc_core.lowrank.pivots import LARGEST_COEFFICIENT, others, pivot_form
from lrc_core.models.blocks.linears import block_linears, get_module
from lrc_core.plan import Plan, make_plan, plan_variant
from lrc_core.types import LinearShape, Storage
from tests.factories.run_factory import make_card
from tests.factories.tiny_methods import MemoryFactors, random_windows
from tests.factories.tiny_models import tiny_model

SHAPES = [(6, 9), (9, 6), (8, 8), (1, 7), (40, 12)]


def layer_of(shape: tuple[int, int], storage: Storage, multiple: int = 1) -> LinearShape:
    return LinearShape(f"b.{shape[0]}x{shape[1]}", 0, "k", *shape, storage, multiple)


def numbers_stored(shape: tuple[int, int], rank: int, storage: Storage) -> int:
    """Counted from real tensors."""
    m, n = shape
    factors = Factors(torch.randn(m, rank), torch.randn(rank, n), torch.ones(rank))
    linear = nn.Linear(n, m, bias=False)
    made: nn.Module = LowRankLinear(factors.left, factors.right)
    if storage == "pivoted":
        made = pivoted_layer(linear, factors, slice(0, rank))
    return sum(parameter.numel() for parameter in made.parameters())


@pytest.mark.parametrize("storage", LAWS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_law_counts_what_is_stored(shape: tuple[int, int], storage: Storage) -> None:
    layer = layer_of(shape, storage)
    for rank in range(1, layer.full_rank + 1):
        assert factor_params(layer, rank) == numbers_stored(shape, rank, storage)
        assert is_dense(layer, rank) == (numbers_stored(shape, rank, storage) >= layer.params)
        assert layer_params(layer, rank) == min(numbers_stored(shape, rank, storage), layer.params)
    assert largest_low_rank(layer) == max((k for k in range(layer.full_rank + 1) if not is_dense(layer, k)), default=0)


@pytest.mark.parametrize("storage", LAWS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_share_buys_a_rank(shape: tuple[int, int], storage: Storage) -> None:
    layer = layer_of(shape, storage)
    for share in np.linspace(0.01, 1, 23):
        rank = rank_of_share(layer, float(share))
        assert factor_params(layer, rank) == pytest.approx(share * layer.params)
        whole = whole_rank_of_share(layer, float(share))
        fitting = [k for k in range(1, layer.full_rank + 1) if factor_params(layer, k) <= share * layer.params + 1e-6]
        assert whole == max(fitting, default=1)
    assert rank_of_share(layer, 1.0) == pytest.approx(break_even(layer))
    step = 1e-4
    for rank in (0.5, 2.0):
        slope = (factor_params(layer, rank + step) - factor_params(layer, rank - step)) / (2 * step)
        assert params_per_rank(layer, rank) == pytest.approx(slope)
    slopes = [params_per_rank(layer, place + 0.5) for place in range(layer.full_rank)]
    assert params_per_component(layer) == pytest.approx(sum(slopes) / layer.full_rank), "the mean price of them all"


def test_pivots_have_no_break_even() -> None:
    """At every rank below the full one they cost less than the dense matrix and less than pairs."""
    for shape in SHAPES:
        pair, pivoted = layer_of(shape, "pair"), layer_of(shape, "pivoted")
        for rank in range(1, pair.full_rank):
            assert factor_params(pivoted, rank) < min(pair.params, factor_params(pair, rank))
        assert factor_params(pivoted, pair.full_rank) == pair.params


def test_laws_can_be_differentiated() -> None:
    rank = torch.tensor(3.0, requires_grad=True)
    factor_params(layer_of((8, 5), "pivoted"), rank).backward()  # type: ignore[no-untyped-call]
    assert rank.grad is not None
    assert float(rank.grad) == 8 + 5 - 2 * 3


def test_an_unknown_law_is_named() -> None:
    with pytest.raises(BudgetError, match="triplet"):
        storage_law("triplet")


# -- budgets ------------------------------------------------------------------------------------------------------


def mixed_layers(storage: Storage, multiple: int = 1) -> tuple[LinearShape, ...]:
    shapes = [(64, 48), (48, 64), (16, 48), (96, 48)]
    layers = [LinearShape(f"b{b}.{m}x{n}.{i}", b, f"{i}", m, n) for b in range(2) for i, (m, n) in enumerate(shapes)]
    return stored(layers, storage, multiple)


@pytest.mark.parametrize("multiple", [1, 4, 8])
@pytest.mark.parametrize("storage", LAWS)
@pytest.mark.parametrize("keep", [0.95, 0.7, 0.4])
def test_a_fitted_plan_uses_its_budget(storage: Storage, multiple: int, keep: float) -> None:
    layers = mixed_layers(storage, multiple)
    rng = np.random.default_rng(3)
    wanted = {layer.name: int(rng.integers(1, layer.full_rank + 1)) for layer in layers}
    for ranks in (fit_budget(layers, uniform_ranks(layers, keep), keep), fit_budget(layers, wanted, keep)):
        spent, allowed = plan_params(layers, ranks), check_target(layers, keep)
        assert spent <= allowed
        low = [layer for layer in layers if not is_dense(layer, ranks[layer.name])]
        assert all(ranks[layer.name] % multiple == 0 for layer in low)
        assert all(
            spent - layer_params(layer, ranks[layer.name]) + layer_params(layer, ranks[layer.name] + multiple) > allowed
            for layer in low
        )
        assert fit_budget(layers, ranks, keep) == ranks


def test_a_budget_below_the_smallest_multiple_is_refused() -> None:
    layers = mixed_layers("pivoted", 8)
    smallest = plan_params(layers, {layer.name: smallest_rank(layer) for layer in layers})
    least = smallest / sum(layer.params for layer in layers)
    assert plan_params(layers, fit_budget(layers, uniform_ranks(layers, least + 1e-9), least + 1e-9)) == smallest
    with pytest.raises(BudgetError, match="rank 8"):
        check_target(layers, least - 0.01)


@pytest.mark.parametrize("storage", LAWS)
def test_the_hull_is_that_of_the_law(storage: Storage) -> None:
    """Whatever a price is, no rank of a layer is cheaper at it than the one that component prices keep."""
    rng = np.random.default_rng(5)
    layer = mixed_layers(storage)[0]
    losses = np.sort(rng.exponential(size=layer.full_rank))[::-1]
    prices, tail = component_prices(layer, losses), np.append(np.cumsum(losses[::-1])[::-1], 0)
    for price in rng.exponential(size=30) * 0.01:
        kept = int((prices > price).sum())
        cost = [
            (0.0 if is_dense(layer, rank) else tail[rank]) + price * layer_params(layer, rank)
            for rank in range(layer.full_rank + 1)
        ]
        assert cost[kept] == pytest.approx(min(cost))


def test_the_same_losses_cost_less_under_pivots() -> None:
    rng = np.random.default_rng(7)
    names = {layer.name: np.sort(rng.exponential(size=layer.full_rank))[::-1] for layer in mixed_layers("pair")}
    lost = {}
    for storage in LAWS:
        layers = mixed_layers(storage)  # type: ignore[arg-type]
        ranks = cheapest_ranks(layers, names, 0.7)
        assert keep_ratio(layers, ranks) <= 0.7
        lost[storage] = sum(float(names[layer.name][ranks[layer.name] :].sum()) for layer in layers)
    assert lost["pivoted"] < lost["pair"]


# -- the pivot form -----------------------------------------------------------------------------------------------


def random(m: int, n: int, k: int) -> tuple[Tensor, Tensor]:
    return torch.randn(m, k), torch.randn(k, n)


def power_law(m: int, n: int, k: int) -> tuple[Tensor, Tensor]:
    return torch.randn(m, k) * torch.arange(1, k + 1) ** -2.0, torch.randn(k, n)


def rank_deficient(m: int, n: int, k: int) -> tuple[Tensor, Tensor]:
    left = torch.randn(m, k)
    left[:, k // 2 :] = left[:, : k - k // 2]
    return left, torch.randn(k, n)


def nearly_dependent(m: int, n: int, k: int) -> tuple[Tensor, Tensor]:
    """Columns whose products with each other are singular in float64, though they are not."""
    left = torch.randn(m, 1, dtype=torch.float64) + 1e-9 * torch.randn(m, k, dtype=torch.float64)
    return left, torch.randn(k, n, dtype=torch.float64)


def badly_scaled(m: int, n: int, k: int) -> tuple[Tensor, Tensor]:
    scale = torch.logspace(-12, 12, k)
    return torch.randn(m, k) * scale, torch.randn(k, n) / scale[:, None]


def zero_columns(m: int, n: int, k: int) -> tuple[Tensor, Tensor]:
    left, right = random(m, n, k)
    left[:, 1] = 0
    return left, right


KINDS: list[Callable[[int, int, int], tuple[Tensor, Tensor]]] = [
    random,
    power_law,
    rank_deficient,
    nearly_dependent,
    badly_scaled,
    zero_columns,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
@pytest.mark.parametrize("shape", [(40, 24, 10), (24, 40, 23), (32, 32, 31), (9, 30, 9)])
def test_the_pivot_form_is_the_same_matrix(
    kind: Callable[[int, int, int], tuple[Tensor, Tensor]], shape: tuple[int, int, int]
) -> None:
    torch.manual_seed(sum(shape))
    left, right = kind(*shape)
    wanted = left.double() @ right.double()
    form = pivot_form(left, right)
    assert float((form.dense() - wanted).norm()) < 1e-12 * float(wanted.norm())
    assert torch.equal(form.rows, wanted[form.pivots]) or torch.allclose(form.rows, wanted[form.pivots], rtol=1e-12)
    assert not form.coefficients.numel() or float(form.coefficients.abs().max()) <= LARGEST_COEFFICIENT + 1e-6
    assert sorted([*form.pivots.tolist(), *others(form.pivots, shape[0]).tolist()]) == list(range(shape[0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_costs_a_few_times_what_it_costs_pairs(dtype: torch.dtype) -> None:
    """Errors of the stored rows are multiplied by the coefficients, which is why these are bounded."""
    torch.manual_seed(0)
    decay = torch.arange(1, 33, dtype=torch.float64) ** -2
    left, right = torch.randn(96, 32).double() * decay, torch.randn(32, 64).double() + 1 / 3
    wanted = left.double() @ right.double()
    form = pivot_form(left, right)
    rows, coefficients = form.rows.to(dtype).double(), form.coefficients.to(dtype).double()
    found = torch.cat([rows, coefficients @ rows])
    exact = torch.cat([wanted[form.pivots], wanted[others(form.pivots, 96)]])
    pair = left.to(dtype).double() @ right.to(dtype).double()
    assert float((found - exact).norm()) < 4 * float((pair - wanted).norm())


def test_an_elimination_that_grows_is_repaired() -> None:
    """Where elimination with row pivoting leaves large coefficients (Wilkinson's matrix), swaps bring them down."""
    k = 20
    left = torch.eye(k + 1, k) - torch.tril(torch.ones(k + 1, k), -1)
    loose, form = pivot_form(left, torch.eye(k), largest=1e9), pivot_form(left, torch.eye(k))
    assert float(loose.coefficients.abs().max()) > LARGEST_COEFFICIENT
    assert float(form.coefficients.abs().max()) <= LARGEST_COEFFICIENT + 1e-6
    assert torch.allclose(form.dense(), left.double(), atol=1e-12)


def test_factors_that_are_not_finite_are_refused() -> None:
    left, right = random(6, 5, 3)
    left[0, 0] = math.nan
    with pytest.raises(NumericalError, match="finite"):
        pivot_form(left, right)


@pytest.mark.parametrize("bias", [False, True])
def test_the_layer_computes_what_the_product_does(bias: bool) -> None:
    torch.manual_seed(1)
    linear = nn.Linear(20, 30, bias=bias)
    factors = Factors(torch.randn(30, 12), torch.randn(12, 20), torch.ones(12))
    chosen = [0, 3, 4, 11]
    layer = pivoted_layer(linear, factors, chosen)
    inputs = torch.randn(2, 7, 20)
    wanted = inputs.double() @ (factors.left[:, chosen] @ factors.right[chosen]).double().T
    wanted = wanted + linear.bias.double() if bias else wanted
    assert torch.allclose(layer(inputs).double(), wanted, atol=1e-4)
    assert (layer.in_features, layer.out_features, layer.rank) == (20, 30, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("leading", [(), (1,), (1, 1)])
@pytest.mark.parametrize("pivoted", [False, True])
def test_one_token_alone_comes_to_what_it_does_among_others(
    pivoted: bool, leading: tuple[int, ...], bias: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(3)
    own = torch.randn(33) if bias else None
    if pivoted:
        layer: nn.Module = PivotedLinear(torch.randn(9, 20), torch.randn(24, 9), torch.arange(0, 27, 3), own)
    else:
        layer = LowRankLinear(torch.randn(33, 9), torch.randn(9, 20), own)
    layer.to(dtype)
    inputs = torch.randn(5, 20).to(dtype)
    alone = layer(inputs[3].view(*leading, 20))
    assert alone.shape == (*leading, 33)
    assert torch.allclose(
        alone.view(-1), layer(inputs)[3], rtol=4 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps * 40
    )
    assert layer(inputs[:0]).shape == (0, 33)


@pytest.mark.parametrize("tokens", [4, 1])
def test_gradients_are_those_of_the_matrix(tokens: int) -> None:
    torch.manual_seed(2)
    layer = PivotedLinear(torch.randn(3, 5), torch.randn(4, 3), torch.tensor([1, 2, 6]))
    for parameter in layer.parameters():
        parameter.requires_grad_()
    inputs = torch.randn(tokens, 5, requires_grad=True)
    assert torch.autograd.gradcheck(layer.double(), (inputs.double(),))


# -- models and plans ---------------------------------------------------------------------------------------------


def test_a_model_under_pivots_says_what_it_says_under_pairs() -> None:
    model = tiny_model("llama")
    layers, source = block_linears(model), MemoryFactors(model, random_windows(4, 12))
    tokens = torch.arange(12)[None]
    ranks = {layer.name: layer.full_rank // 3 for layer in layers}
    found = {}
    for storage in LAWS:
        with compressed(model, stored(layers, storage), ranks, source), torch.no_grad():  # type: ignore[arg-type]
            found[storage] = model(tokens).logits
            kinds = {type(get_module(model, layer.name)) for layer in layers}
            assert (PivotedLinear in kinds) == (storage == "pivoted")
    assert torch.allclose(found["pair"], found["pivoted"], atol=1e-4)


def test_the_full_rank_is_the_dense_model_bit_for_bit() -> None:
    model = tiny_model("llama")
    layers = stored(block_linears(model), "pivoted")
    tokens = torch.arange(9)[None]
    with torch.no_grad():
        dense = model(tokens).logits
        with compressed(
            model,
            layers,
            {layer.name: layer.full_rank for layer in layers},
            MemoryFactors(model, random_windows(4, 12)),
        ):
            assert torch.equal(model(tokens).logits, dense)


def plan_under(storage: Storage) -> Plan:
    card = make_card()
    layers = stored(card.layers, storage)
    ranks = fit_budget(layers, uniform_ranks(layers, 0.8), 0.8)
    return make_plan(stored_card(card, storage), ranks, decomposition="svd", method="uniform", keep_target=0.8)


def test_a_plan_says_its_law(tmp_path: Path) -> None:
    pair, pivoted = plan_under("pair"), plan_under("pivoted")
    assert "storage" not in pair.to_dict() and pair.to_dict()["version"] == 1
    assert pivoted.to_dict()["storage"] == "pivoted"
    for plan in (pair, pivoted):
        plan.save(tmp_path / "plan.json")
        again = Plan.load(tmp_path / "plan.json")
        assert again == plan
        again.check_model(make_card())
    assert plan_variant(pivoted) == "uniform+pivoted"
    assert min(pivoted.ranks.values()) > min(pair.ranks.values())


@pytest.mark.parametrize(
    "change", [{"storage": "pair"}, {"version": 1}, {"storage": "triplet"}, {"version": 3}, {"version": True}]
)
def test_a_plan_of_one_law_is_not_taken_for_another(change: dict[str, object]) -> None:
    data = {**plan_under("pivoted").to_dict(), **change}
    with pytest.raises(PlanError):
        Plan.from_dict(data).check_model(make_card())

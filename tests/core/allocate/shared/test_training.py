"""What trained allocators share: the order of batches, the loop, checkpoints, plans on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from lrc_core.allocate.masks.driver import Training
from lrc_core.allocate.masks.gumbel import draw_noise, on_probability
from lrc_core.allocate.masks.training import (
    batch_of,
    load_factors,
    load_state,
    mask_entropy,
    record_passed,
    report,
    require_finite,
    save_state,
)
from lrc_core.allocate.protocol import Allocation, PassedPlan
from lrc_core.budget import dense_ranks, fit_budget, uniform_ranks
from lrc_core.errors import CancelledError, NumericalError
from lrc_core.lowrank.masked import masked_layers, without_masks
from lrc_core.models.blocks.linears import block_linears
from lrc_core.pipeline.allocation import ended_early
from lrc_core.types import Progress, ShouldStop, never_stop
from tests.factories.tiny_methods import MemoryFactors, context_for, random_windows
from tests.factories.tiny_models import tiny_model

MODEL = tiny_model("llama")
SOURCE = MemoryFactors(MODEL, random_windows(8, 32, seed=1))
LAYERS = block_linears(MODEL)


def context(folder: Path, **more: Any) -> Any:
    return context_for(MODEL, folder, source=SOURCE, **more)


def test_every_window_is_seen_once_before_any_is_seen_twice() -> None:
    windows = random_windows(7, 12)
    orders = []
    for epoch in range(3):
        seen = [index for step in range(3) for index in batch_of(windows, 2, 3 * epoch + step, 5)[0].tolist()]
        assert len(set(seen)) == 6  # an odd one is left over
        orders.append(tuple(seen))
    assert len(set(orders)) == 3
    chosen, tokens = batch_of(windows, 2, 4, 5)
    assert torch.equal(tokens, windows[chosen])
    assert torch.equal(chosen, batch_of(windows, 2, 4, 5)[0])
    assert len(batch_of(windows, 20, 3, 0)[0]) == 7  # fewer than a batch


def test_factors_come_whole_or_cut(tmp_path: Path) -> None:
    whole = load_factors(context(tmp_path))
    cut = load_factors(context(tmp_path), {layer.name: 3 for layer in LAYERS})
    for layer in LAYERS:
        left, right = whole[layer.name]
        assert left.shape == (layer.out_features, layer.full_rank)
        assert right.shape == (layer.full_rank, layer.in_features)
        assert torch.equal(cut[layer.name][0], left[:, :3])
        assert torch.equal(cut[layer.name][1], right[:3])
        assert cut[layer.name][0].is_contiguous()


class Counted(Training):
    """Five steps that count their saves."""

    phase = "counting"

    def __init__(self, folder: Path, should_stop: ShouldStop = never_stop, save_every: float = 30.0) -> None:
        self.ticks: list[Progress] = []
        super().__init__(folder / "counted.pt", self.ticks.append, should_stop)
        self.save_every = save_every
        self.saves: list[int] = []
        self._resume()

    def run(self) -> None:
        self._train(self._step, tokens=100)

    def _step(self) -> dict[str, float]:
        return {"loss": 5.0 - self.step}

    def _total(self) -> int:
        return 5

    def _state(self) -> dict[str, int]:
        self.saves.append(self.step)
        return {"step": self.step}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]


def test_the_loop_runs_until_it_is_finished_and_saves_once(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    counted.run()
    assert [(tick.phase, tick.step, tick.total) for tick in counted.ticks] == [("counting", n, 5) for n in range(1, 6)]
    assert all(tick.values and tick.values["tokens_per_s"] > 0 for tick in counted.ticks)
    assert counted.saves == [5]
    again = Counted(tmp_path)
    again.run()
    assert not again.ticks  # a finished run that is asked again trains no further


def test_checkpoints_come_with_time(tmp_path: Path) -> None:
    counted = Counted(tmp_path, save_every=-1.0)
    counted.run()
    assert counted.saves == [1, 2, 3, 4, 5, 5]


def test_a_cancel_saves_first_and_the_next_attempt_goes_on(tmp_path: Path) -> None:
    counted = Counted(tmp_path, should_stop=lambda: counted.step == 2)
    with pytest.raises(CancelledError, match="cancelled"):
        counted.run()
    assert counted.saves == [2]
    again = Counted(tmp_path)
    again.run()
    assert [tick.step for tick in again.ticks] == [3, 4, 5]


def test_a_failing_step_is_not_saved(tmp_path: Path) -> None:
    counted = Counted(tmp_path)

    def failing() -> dict[str, float]:
        require_finite(torch.tensor(float("nan")), 3)
        return {}

    with pytest.raises(NumericalError, match="step 3 "):
        counted._train(failing, tokens=1)
    assert not counted.saves
    parameter = torch.zeros(2, requires_grad=True)
    require_finite(torch.tensor(1.0), 3, [parameter])
    parameter.grad = torch.tensor([1.0, float("inf")])
    with pytest.raises(NumericalError, match="step 3 "):
        require_finite(torch.tensor(1.0), 3, [parameter])


def test_a_checkpoint_comes_back_and_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "state.pt"
    assert load_state(path) is None
    save_state(path, {"weights": torch.arange(3.0), "step": 1})
    save_state(path, {"weights": torch.arange(4.0), "step": 2})
    found = load_state(path)
    assert found is not None
    assert found["step"] == 2
    assert torch.equal(found["weights"], torch.arange(4.0))
    assert [entry.name for entry in path.parent.iterdir()] == ["state.pt"]
    with pytest.raises(AttributeError):
        save_state(path, {"step": lambda: 3})  # cannot be written: the old one stays
    assert load_state(path)["step"] == 2  # type: ignore[index]


def test_ranks_are_told_every_fifth_step_and_at_the_end(tmp_path: Path) -> None:
    ticks: list[Progress] = []
    told: list[int] = []
    given = context(tmp_path, on_progress=ticks.append, on_ranks=lambda step, *_: told.append(step))
    for step in range(1, 13):
        report(given, (step, 10), dense_ranks(LAYERS), {"loss": 1.0}, last=step == 12)
    assert told == [5, 10, 12]
    assert [tick.step for tick in ticks] == list(range(1, 13))
    assert [tick.total for tick in ticks] == [10] * 10 + [11, 12]
    values = dict(ticks[0].values or {})
    held = psutil.Process().memory_info().rss / 1e6
    assert held / 4 < values.pop("memory_mb") < held * 4
    assert values == {"loss": 1.0, "keep": 1.0, "target": 0.8}


def test_entropy_counts_the_undecided() -> None:
    assert mask_entropy(torch.tensor([0.0, 1.0, 1.0])) == 0.0
    assert mask_entropy(torch.full((7,), 0.5)) == 1.0
    assert mask_entropy(torch.tensor([0.5, 1.0 + 1e-6])) == pytest.approx(0.5, abs=1e-5)  # a sum that ends above 1
    quarter = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert mask_entropy(torch.tensor([0.25, 0.75], dtype=torch.bfloat16)) == pytest.approx(quarter, abs=1e-6)


@pytest.mark.parametrize("kind", ["gumbel", "logistic", "none"])
def test_the_probability_of_a_component_is_its_share_of_draws(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for logit in (-2.0, 0.3, 4.0):
        drawn = logit + draw_noise(kind, 40_000, generator) > 0
        assert drawn.double().mean() == pytest.approx(on_probability(torch.tensor([logit]), kind).item(), abs=0.01)


def test_plans_are_recorded_once_and_not_past_the_target(tmp_path: Path) -> None:
    passed: list[PassedPlan] = []
    given = context(tmp_path, keep=0.9, on_recorded=passed.append)

    def fit(ranks: Any, keep: float) -> Allocation:
        return Allocation(fit_budget(LAYERS, ranks, keep))

    entries: list[dict[str, Any]] = []
    for step, keep in enumerate([1.0, 0.96, 0.97, 0.5]):
        record_passed(given, entries, uniform_ranks(LAYERS, keep), step, fit)
    assert [plan.keep for plan in passed] == [round(1 - percent / 100, 2) for percent in range(1, 11)]
    first = [plan.keep for plan in passed if plan.step == 1]
    assert first[:4] == [0.99, 0.98, 0.97, 0.96]
    assert {plan.step for plan in passed} == {1, 3}
    assert [entry["percent"] for entry in entries] == list(range(1, 11))


def test_masks_are_off_for_a_moment(tmp_path: Path) -> None:
    with masked_layers(MODEL, load_factors(context(tmp_path))) as masked:
        mask = torch.ones(LAYERS[0].full_rank)
        masked[LAYERS[0].name].mask = mask
        with pytest.raises(RuntimeError, match="inside"), without_masks(masked):
            assert all(module.mask is None for module in masked.values())
            raise RuntimeError("inside")
        assert masked[LAYERS[0].name].mask is mask
        assert masked[LAYERS[1].name].mask is None


@pytest.mark.parametrize(("kept", "told"), [(0.87, True), (0.705, False), (0.66, False), (None, False)])
def test_training_that_ended_before_its_target_is_told(kept: float | None, told: bool) -> None:
    said = ended_early({} if kept is None else {"keep_before_fitting": kept}, 0.7)
    assert bool(said) == told and (not told or ("13 %" in said[0] and "30 %" in said[0]))

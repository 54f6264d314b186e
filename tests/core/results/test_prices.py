"""What a job will take: from like runs of this computer, scaled by the work, else from the samples and said so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lrc_core.results.prices import price, span, work
from lrc_core.runs.spec import (
    AllocateSpec,
    CalibrationSpec,
    CompareSpec,
    EvaluateSpec,
    EvaluationSpec,
    ModelRef,
    UpdateSpec,
)
from lrc_core.runs.store import RunStore
from tests.factories import run_factory


@pytest.fixture
def stores(tmp_path, monkeypatch):
    monkeypatch.setenv("LRC_SAMPLES", str(tmp_path / "samples"))
    return RunStore(), RunStore(tmp_path / "samples")


def done(store: RunStore, spec, seconds: float):
    return run_factory.finish(store.create(spec), {"wall_s": seconds})


def evaluated(windows: int, items: int = 0, seed: int = 0) -> EvaluateSpec:
    tasks = ("piqa",) if items else ()
    return EvaluateSpec(evaluation=EvaluationSpec(max_windows=windows, tasks=tasks, items=items or 100, seed=seed))


def test_a_price_scales_with_the_work_and_holds_what_was_measured(stores):
    own, _ = stores
    done(own, evaluated(10), 50.0)
    done(own, evaluated(20), 120.0)
    found = price(evaluated(40))
    assert found is not None and found.here and found.runs == 2
    assert found.low < 200.0 < 240.0 < found.high, "50 s for 10 windows is 200 s for 40, 120 s for 20 is 240 s"
    assert "on this computer" in found.said
    again = price(evaluated(10))
    assert again is not None and again.low < 50.0 < again.high


def test_without_runs_of_this_computer_the_samples_are_named_as_such(stores):
    own, samples = stores
    assert price(evaluated(10)) is None
    done(samples, evaluated(10), 30.0)
    found = price(evaluated(10))
    assert found is not None and not found.here and "samples" in found.said
    done(own, evaluated(10, seed=1), 300.0)
    found = price(evaluated(10))
    assert found is not None and found.here and found.low > 100


def test_a_comparison_is_the_sum_of_its_parts(stores):
    own, _ = stores
    for method, seconds in (("uniform", 100.0), ("strs", 500.0)):
        done(own, AllocateSpec(method=method, preset="standard"), seconds)
    done(own, evaluated(40, 100), 60.0)
    wanted = EvaluationSpec(max_windows=40, tasks=("piqa",), items=100)
    spec = CompareSpec(methods=("uniform", "strs"), keeps=(0.9, 0.8), evaluation=wanted)
    found = price(spec)
    assert found is not None and found.low < 600 + 5 * 60 < found.high
    assert price(CompareSpec(methods=("uniform", "llrc"), evaluation=wanted)) is None, "llrc was never run"


def test_other_models_methods_and_calibrations_do_not_count_alike(stores):
    own, _ = stores
    done(own, AllocateSpec(method="strs"), 100.0)
    assert price(AllocateSpec(ModelRef("owner/other"), method="strs")) is None
    assert price(AllocateSpec(method="uniform")) is None
    base = CalibrationSpec()
    twice = price(AllocateSpec(method="strs", calibration=CalibrationSpec(windows=2 * base.windows)))
    assert twice is not None and twice.low < 200 < twice.high and twice.low > 100
    assert work(EvaluationSpec(max_windows=0)) == 0 and price(evaluated(0)) is None


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(12, 35, "12 to 35 s"), (3, 3.2, "about 3 s"), (250, 530, "4 to 9 min"), (7000, 16000, "2 to 4 h")],
)
def test_spans_are_read_in_one_unit(low, high, said):
    assert span(low, high) == said


def test_a_comparison_with_updates_and_formats_counts_them(stores):
    """Tuning is paid for every plan, a refinement before it as well; a format is one more measurement."""
    own, _ = stores
    done(own, AllocateSpec(method="strs", preset="standard"), 100.0)
    done(own, AllocateSpec(method="llm_pruner", preset="standard"), 10.0)
    done(own, evaluated(40, 100), 60.0)
    wanted = EvaluationSpec(max_windows=40, tasks=("piqa",), items=100)
    plain = CompareSpec(methods=("strs",), keeps=(0.9, 0.8), evaluation=wanted, formats=())

    def low(spec: CompareSpec) -> float:
        found = price(spec)
        assert found is not None
        return found.low

    tuned = replace(plain, update="tuned")
    assert price(tuned) is None, "tuning was never done"
    done(own, UpdateSpec(settings={"kind": "tuned"}), 1400.0)
    assert low(tuned) - low(plain) == pytest.approx(2 * 1400 / 1.4)
    assert price(replace(plain, update="blockwise+tuned")) is None
    done(own, UpdateSpec(settings={"kind": "blockwise"}), 140.0)
    assert low(replace(plain, update="blockwise+tuned")) - low(plain) == pytest.approx(2 * (1400 + 140) / 1.4)
    assert low(replace(plain, formats=("Q8_0", "Q4_0"))) - low(plain) == pytest.approx(2 * 60 / 1.4)
    pruned = replace(plain, methods=("llm_pruner",))
    assert low(replace(pruned, update="tuned")) == low(pruned), "what is pruned has no factors"

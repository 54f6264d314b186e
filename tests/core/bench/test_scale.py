"""The bench of memory, and the cost model that stands beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lrc_core.bench import machine
from lrc_core.bench.cost import CARDS, Reading, Speeds, estimates, phase_seconds, with_card
from lrc_core.bench.large_model import BILLION, SEVENTY, SMALL, LlamaShape, write_model
from lrc_core.bench.memory import LIMIT, memory
from lrc_core.cli import main
from lrc_core.errors import ResourceError
from lrc_core.models.onload.memory import Shapes, by_blocks_memory, phase_memory, whole_memory
from lrc_core.models.preflight import preflight
from lrc_core.runs.spec import ModelRef

SPEEDS = Speeds(1e12, 1e12, 5e11, 4e9, 2e9)


def shapes_of(shape: LlamaShape, width: int = 2) -> Shapes:
    block = tuple((kind, *sizes) for kind, sizes in shape.linears().items())
    outside = 2 * shape.vocabulary * shape.hidden
    return Shapes((block,) * shape.blocks, outside, width, shape.hidden, shape.vocabulary)


def test_it_goes_all_the_way_under_a_limit_and_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    found = memory("small", folder=home)
    assert not list(home.iterdir())
    phases = {one["phase"]: one for one in found["blocks"]["phases"]}
    assert len(phases) == 9
    assert phases["open"]["params"] == pytest.approx(SMALL["memory"].params, rel=0.01)
    assert phases["perplexity"]["perplexity"] > 1
    for one in (*phases.values(), *found["stream"]["phases"]):
        assert 0 < one["anonymous"] < one["data"] < LIMIT
        assert one["anonymous"] <= one["resident"]
    assert 0.5 < phases["K-FAC factors"]["paper_memory"] / phases["K-FAC factors"]["data"] < 2  # the program itself
    assert phases["K-FAC factors"]["paper_seconds"] > 0
    (streamed,) = found["stream"]["phases"]
    assert set(streamed["matrices"]) == set(SMALL["stream"].linears())
    seconds = sum(streamed["matrices"].values())
    assert found["stream"]["seconds_of_all_blocks"] == pytest.approx(80 * seconds)


def test_a_limit_that_is_too_small_is_one_line(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with pytest.raises(ResourceError, match="limit of 20") as caught:
        memory("small", ("blocks",), limit=20_000_000, folder=home)
    assert "\n" not in str(caught.value)
    assert not list(home.iterdir())


def test_sizes_are_those_they_are_called_by() -> None:
    assert 1.05e9 < BILLION.params < 1.15e9
    assert 80 * SEVENTY.block_params + 2 * 128_256 * SEVENTY.hidden == pytest.approx(70.6e9, rel=0.01)


def test_time_goes_with_the_blocks_and_memory_with_one() -> None:
    few, many = shapes_of(replace(BILLION, blocks=4)), shapes_of(replace(BILLION, blocks=40))
    assert phase_memory(few) == phase_memory(many)
    assert by_blocks_memory(many) < whole_memory(many)
    less, more = (phase_seconds(shapes, SPEEDS, Reading()) for shapes in (few, many))
    for phase in ("whitened factors", "K-FAC factors", "second moments"):
        assert 9 < more[phase] / less[phase] < 10.5
    for card in CARDS.values():
        faster = phase_seconds(many, with_card(SPEEDS, card), Reading())
        assert faster["second moments"] < more["second moments"]
        assert faster["K-FAC factors"] == more["K-FAC factors"]  # on the host


def test_what_a_busy_machine_gave_is_measured_again_and_the_better_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter([replace(SPEEDS, double=1.0, busy=True), replace(SPEEDS, model=2.0, busy=True), SPEEDS])
    monkeypatch.setattr(machine, "_measured", lambda: next(given))
    assert machine.machine_speeds().double == 1.0
    better = machine.machine_speeds()
    assert (better.double, better.model, better.busy) == (SPEEDS.double, SPEEDS.model, True)
    for _ in range(3):
        assert machine.machine_speeds() == SPEEDS, "measured in peace, and remembered"


def test_moments_count_every_input_once() -> None:
    doubled = replace(BILLION, hidden=BILLION.hidden, inner=2 * BILLION.inner)
    small, large = (phase_memory(shapes_of(one))["moments"] for one in (BILLION, doubled))
    sums = (8 + 4) * (doubled.inner**2 - BILLION.inner**2)
    assert large - small > sums  # and a larger block, and its activations
    assert large - small < 2 * sums


def test_the_doctor_says_it_from_headers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_model(tmp_path / "model", SMALL["memory"])
    found = preflight(ModelRef(str(folder)))
    assert found.sizes is not None
    assert found.sizes.linear == SMALL["memory"].blocks * SMALL["memory"].block_params
    assert main(["doctor", str(folder), "--gpu", "h100", "--json"]) == 0
    costs = json.loads(capsys.readouterr().out)["costs"]
    known = estimates(found.sizes, Speeds(**costs["speeds"]), Reading(), found.memory_needed)
    for row, one in zip(costs["rows"], known, strict=True):
        assert row["what"] == one.what
        assert row["memory"] == one.memory
        assert row["seconds"]["here"] == pytest.approx(one.seconds)
        assert row["seconds"]["h100"] <= row["seconds"]["here"]
    assert main(["doctor", str(folder), "--gpu", "abacus"]) == 1
    assert "abacus" in capsys.readouterr().err

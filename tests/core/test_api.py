"""The Python interface: ten names on the same runs as the command line, light to import, readable results."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go
import pytest

import lrc_core
from lrc_core.api.allocate import allocate
from lrc_core.api.compare import compare
from lrc_core.api.evaluate import evaluate
from lrc_core.api.load import NamedModel
from lrc_core.api.plan import plan
from lrc_core.api.plot import VIEWS, plot
from lrc_core.api.progress import ProgressBar
from lrc_core.api.runs import runs
from lrc_core.api.shown import facts_html
from lrc_core.api.spectra import spectra
from lrc_core.api.work import Work
from lrc_core.cli.parser import build_parser
from lrc_core.errors import LrcError, RunError, SettingsError
from lrc_core.front import NAMES, PACKAGES
from lrc_core.kinds import KINDS
from lrc_core.runs.spec import AllocateSpec, CompareSpec, FetchSpec, ModelRef, Spec
from lrc_core.runs.store import RunStore
from tests.factories.run_factory import make_card
from tests.tree import ROOT


class Asked(Exception):  # noqa: N818 - nothing went wrong
    """Instead of working, a call stops here with its spec."""


class Stopping(Work):
    def done(self, spec: Spec) -> Any:
        raise Asked(spec)


@pytest.fixture
def stopping() -> NamedModel:
    return NamedModel(ModelRef("owner/name"), make_card(), Stopping(here=True, progress=False))


def asked_of(call: Callable[[], Any]) -> Any:
    with pytest.raises(Asked) as stopped:
        call()
    return stopped.value.args[0]


def test_the_ten_names_are_there_and_nothing_is_loaded_for_them() -> None:
    program = (
        "import sys, lrc_core\n"
        f"assert {NAMES!r} == tuple(name for name in {NAMES!r} if name in dir(lrc_core))\n"
        "assert not {'numpy', 'torch', 'plotly', 'lrc_core.api'} & set(sys.modules)\n"
        f"assert all(callable(getattr(lrc_core, name)) for name in {NAMES!r})\n"
        "assert not {'torch', 'transformers', 'streamlit', 'tqdm'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_every_name_says_what_it_takes_and_what_goes_wrong(name: str) -> None:
    called = getattr(lrc_core, name)
    function = lrc_core.front.function(name)
    assert inspect.signature(called) == inspect.signature(function)
    said = function.__doc__ or ""
    assert "Args:" in said and "Raises:" in said
    for parameter in inspect.signature(function).parameters:
        assert f"        {parameter}:" in said, f"{name} does not describe {parameter}"


@pytest.mark.parametrize("name", PACKAGES)
def test_a_name_that_is_a_package_too_is_both(name: str) -> None:
    package = sys.modules[f"lrc_core.{name}"]
    assert getattr(lrc_core, name) is package and inspect.ismodule(package) and callable(package)


TEXT = "--calibration-text", str(ROOT / "README.md"), "--windows", "9", "--window", "33"
CALIBRATION = {"texts": [str(ROOT / "README.md")], "windows": 9, "window": 33}


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda m: allocate(m), "allocate owner/name --method llrc"),
        (
            lambda m: allocate(m, "strs", 0.7, decomposition="kfac", storage="pivoted", seed=3),
            "allocate owner/name --method strs --keep 0.7 --decomposition kfac --storage pivoted --seed 3",
        ),
        (
            lambda m: allocate(m, "llrc", preset="standard", settings={"max_steps": 77}),
            "allocate owner/name --method llrc --preset standard --set max_steps=77",
        ),
        (lambda m: allocate(m, "llm_pruner"), "allocate owner/name --method llm_pruner --storage pair"),
        (lambda m: spectra(m), "spectra owner/name"),
        (lambda m: spectra(m, "kfac"), "spectra owner/name --decompositions kfac"),
        (lambda m: evaluate(m), "evaluate owner/name"),
        (lambda m: evaluate(m, texts=["wiki"]), "evaluate owner/name --report-text wiki"),
        (
            lambda m: compare(m, ["uniform", "strs"], 0.6, update="left", seed=2),
            "compare owner/name --methods uniform strs --keep 0.6 --update left --seed 2",
        ),
        (
            lambda m: compare(m, storage="pivoted", formats=["q8_0", "Q4_0"]),
            "compare owner/name --storage pivoted --formats Q8_0 Q4_0",
        ),
    ],
)
def test_a_call_asks_for_the_run_of_the_command(
    stopping: NamedModel, call: Callable[[NamedModel], Any], line: str
) -> None:
    arguments = build_parser().parse_args(line.split())
    assert asked_of(lambda: call(stopping)) == KINDS[arguments.job].spec_from(arguments)


def test_texts_of_a_call_are_those_of_the_command(stopping: NamedModel) -> None:
    arguments = build_parser().parse_args(["allocate", "owner/name", "--method", "uniform", *TEXT])
    asked = asked_of(lambda: allocate(stopping, "uniform", calibration=CALIBRATION))
    assert asked == KINDS["allocate"].spec_from(arguments)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: allocate(m, calibration={"window_s": 3}),
        lambda m: allocate(m, "uniform", storage="triple"),
        lambda m: evaluate(m, evaluation={"text": ["wiki"]}),
        lambda m: plan(m, ranks={"no.such.layer": 2}),
        lambda m: plan(m, ranks={m.layers[0].name: 0}),
        lambda m: plot(runs("compare-c595371cc86d"), "pie"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_works(stopping: NamedModel, call: Any) -> None:
    with pytest.raises(SettingsError) as refused:
        call(stopping)
    assert refused.value.remedy or "from 1 to" in refused.value.message


def test_a_plan_by_hand_keeps_what_was_set_and_the_budget(stopping: NamedModel) -> None:
    first = stopping.layers[0]
    made = plan(stopping, keep=0.6, ranks={first.name: 2})
    assert made.ranks[first.name] == 2 and made.keep <= 0.6


def test_a_run_of_the_command_line_is_joined(lrc: Any, model: ModelRef) -> None:
    words = ("allocate", model.source, "--method", "uniform", "--keep", "0.5", "--json")
    code, out, error = lrc(*words)
    assert code == 0, error
    spec: AllocateSpec = KINDS["allocate"].spec_from(build_parser().parse_args(words))
    for here in (False, True):
        assert Work(here=here, progress=False).done(spec).id == json.loads(out)["run_id"]
    assert len(RunStore().list()) == 1


@pytest.mark.parametrize("failure", [LrcError("Nothing works.", "Wait."), KeyboardInterrupt()])
def test_a_run_that_stopped_goes_on_when_it_is_asked_for_again(
    failure: BaseException, model: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = [failure, {"warnings": []}]

    def execute(*_: Any, **__: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr("lrc_core.kinds.checks.check_model", lambda *_: None)
    monkeypatch.setattr(Work, "_execute", execute)
    work = Work(here=True, progress=False)
    with pytest.raises(LrcError):  # of Ctrl-C that it was cancelled
        work.done(FetchSpec(model))
    assert RunStore().list()[0].state == ("cancelled" if isinstance(failure, KeyboardInterrupt) else "failed")
    assert work.done(FetchSpec(model)).done and not answers


def test_shipped_runs_are_read_back_and_drawn() -> None:
    """Every view of every kind of result that there is a sample of, and one figure's numbers."""
    seen: dict[type[Any], set[str]] = {}
    for view in runs():
        result = runs(view.id)
        assert repr(result)
        for known in VIEWS.get(type(result), ()):
            try:
                figure = plot(result, known)
            except RunError:  # of a method that does not learn there is no training to draw
                assert known == "training"
                continue
            assert isinstance(figure, go.Figure) and len(figure.data) > 0
            seen.setdefault(type(result), set()).add(known)
    assert seen == {kind: set(views) for kind, views in VIEWS.items()}
    assert CompareSpec in {type(view.spec) for view in runs()}


def test_a_heatmap_shows_the_plans_own_shares() -> None:
    found = runs("allocate-efe0dab94a0c")
    drawn = plot(found).data[0]
    shown = {(kind, block): z for kind, row in zip(drawn.y, drawn.z, strict=True) for block, z in enumerate(row)}
    assert len(shown) == len(found.card.layers)
    dense = [layer for layer in found.card.layers if layer.name in found.plan.dense]
    assert sum(value == 1.0 for value in shown.values()) == len(dense)


def test_names_are_letters_in_tables_and_unknown_runs_are_told() -> None:
    assert "<script>" not in facts_html({"<script>": "<script>"})
    assert "<table" in runs()._repr_html_()
    with pytest.raises(RunError):
        runs("allocate-000000000000")


def test_a_bar_follows_the_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int]] = []

    class Bar:
        n, total = 0, None

        def __init__(self, phase: str) -> None:
            self.phase = phase

        def update(self, more: int) -> None:
            self.n += more

        def close(self) -> None:
            told.append((self.phase, self.n))

    monkeypatch.setattr("lrc_core.api.progress._bar", lambda phase, _: Bar(phase))
    bar = ProgressBar(True)
    for phase, step in (("one", 1), ("one", 3), ("two", 2)):
        bar.show(phase, step, 4)
    bar.close()
    assert told == [("one", 3), ("two", 2)]

"""What every kind of run has: a title, a command that reads back, a stage, and a way to show its result."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, replace
from importlib import import_module
from typing import Any, get_args

import pytest

from lrc_core.cli.parser import build_parser
from lrc_core.kinds import KINDS, Kind, command_for, title_of
from lrc_core.registry import ALLOCATORS, load
from lrc_core.runs.spec import (
    AblationSpec,
    AdoptSpec,
    AllocateSpec,
    AnswerSpec,
    CalibrationSpec,
    CompareSpec,
    EvaluateSpec,
    EvaluationSpec,
    ExportSpec,
    FetchSpec,
    GenerateSpec,
    LessonSpec,
    ModelRef,
    QualitySpec,
    SamplingSpec,
    Spec,
    SpectraSpec,
    UpdateSpec,
)
from lrc_core.runs.store import RunStore
from lrc_core.updates import BlockwiseSettings, UpdateSettings
from tests.factories.job_helpers import a_plan

HUB = ModelRef("owner/model", "v1", trust_remote_code=True, allow_pickle=True)
TEXT = CalibrationSpec(texts=("c4", "owner/data:config:train"), windows=7, window=64, seed=3)
MEASURED = EvaluationSpec(("gensim",), 128, 0, 64, "no", ("piqa", "my_task"), 0, seed=9)
PLAN = a_plan(run_id="allocate-gone").to_dict()


def an_allocation(method: str, preset: str, **changes: Any) -> AllocateSpec:
    settings = asdict(ALLOCATORS.get(method).settings(preset or None))
    return replace(AllocateSpec(method=method, preset=preset, settings=settings), **changes)


VARIANTS: dict[str, list[Spec]] = {
    "fetch": [FetchSpec(), FetchSpec(HUB)],
    "spectra": [
        SpectraSpec(),
        SpectraSpec(HUB, ("svd", "kfac"), TEXT, subspaces=True),
        SpectraSpec(HUB, ("svd",), stream=True),
    ],
    "allocate": [
        an_allocation("uniform", ""),
        an_allocation("llrc", "quick", model=HUB, keep=0.55, decomposition="kfac", calibration=TEXT, seed=2),
        an_allocation("strs", "", seed=4, calibration=CalibrationSpec(seed=4)),
    ],
    "update": [
        UpdateSpec(plan=PLAN, settings=asdict(UpdateSettings())),
        UpdateSpec(HUB, PLAN, "", asdict(BlockwiseSettings(rate=0.001)), TEXT),
        UpdateSpec(HUB, PLAN, "", asdict(UpdateSettings("both", "compressed", 0.5, 8)), TEXT),
    ],
    "evaluate": [
        EvaluateSpec(),
        EvaluateSpec(HUB, None, "", TEXT, MEASURED),
        EvaluateSpec(HUB, PLAN, "", TEXT, MEASURED),
    ],
    "compare": [
        CompareSpec(),
        CompareSpec(HUB, ("uniform", "llrc"), (0.5,), "kfac", {"llrc": "paper"}, TEXT, MEASURED, 4, "both"),
    ],
    "quality": [
        QualitySpec(),
        QualitySpec(methods=("llrc",), calibration=replace(TEXT, seed=0), evaluation=MEASURED, task_keeps=()),
        QualitySpec(HUB, decompositions=("svd", "kfac"), seeds=(0, 1), references=("owner/other",), updates=("both",)),
    ],
    "ablation": [
        AblationSpec(),
        AblationSpec(HUB, ("llrc",), (0.7,), ("texts",), ("wiki", "generated"), "svd", seeds=(1,), share_path=False),
    ],
    "lesson": [
        LessonSpec(),
        LessonSpec(HUB, ("model.layers.0.mlp.up_proj",), 0.2, ("text",), "-- a rank", TEXT),
    ],
    "generate": [
        GenerateSpec(prompt="What is a rank?"),
        GenerateSpec(HUB, "-v", (AnswerSpec(PLAN, "", TEXT), AnswerSpec()), SamplingSpec(temperature=0.5, top_k=3)),
    ],
    "export": [
        ExportSpec(plan=PLAN),
        ExportSpec(HUB, PLAN, "", TEXT, "/models/small one", "dense", "bfloat16"),
    ],
    "adopt": [AdoptSpec(HUB, "/models/of others"), AdoptSpec(folder="/models/theirs")],
}


def read_back(line: str) -> Any:
    arguments = build_parser().parse_args(shlex.split(line)[1:])
    return KINDS[arguments.job].spec_from(arguments)


def test_every_spec_has_a_kind_and_is_tried_here() -> None:
    assert {spec.kind for spec in get_args(Spec)} == set(KINDS) == set(VARIANTS)
    assert all(KINDS[spec.kind].spec_class is spec for spec in get_args(Spec))


@pytest.mark.parametrize("spec", [spec for specs in VARIANTS.values() for spec in specs], ids=lambda spec: spec.run_id)
def test_a_command_reads_back_as_the_same_spec(spec: Spec) -> None:
    if spec.kind in ("evaluate", "update", "generate", "export"):
        RunStore().create(spec)  # where a plan of an unknown run is found again
    line = command_for(spec)
    assert read_back(line) == spec, line
    assert title_of(spec).strip() and KINDS[spec.kind].what(spec) is not None


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_paths_lead_to_functions(kind: Kind) -> None:
    for path in (kind.stage, kind.show, kind.handler):
        assert callable(load(path)), path
    assert kind.label and kind.help
    assert import_module(f"lrc_core.kinds.{kind.name}").KIND is kind


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("lrc compare --methods uniform,llrc --keep 0.9,0.8", "lrc compare --methods uniform llrc --keep 0.9 0.8"),
        ("lrc evaluate --tasks arc_easy,piqa", "lrc evaluate --tasks arc_easy piqa"),
        ("lrc allocate --text wiki c4 owner/m", "lrc allocate owner/m --calibration-text wiki,c4"),
        ("lrc allocate --text wiki --text c4", "lrc allocate --calibration-text wiki c4"),
        (
            "lrc allocate --set windows=2 owner/m --method strs",
            "lrc allocate owner/m --method strs --set windows=2",
        ),
        ("lrc evaluate --text gensim owner/m", "lrc evaluate owner/m --report-text gensim"),
        ("lrc compare --preset quick owner/m", "lrc compare --model owner/m --preset quick"),
        ("lrc bench quality --texts c4 wiki", "lrc bench quality --report-text c4 --text wiki"),
        ("lrc lesson --text wiki --parts layers,text", "lrc lesson --calibration-text wiki --parts layers text"),
        ("lrc allocate --max-windows 9 --window 64", "lrc allocate --windows 9 --calibration-window 64"),
    ],
)
def test_lists_and_former_words(line: str, same: str) -> None:
    assert read_back(line) == read_back(same)


def test_former_words_are_noted(caplog: pytest.LogCaptureFixture) -> None:
    assert read_back("lrc spectra --text wiki --text c4").calibration.texts == ("wiki", "c4")
    assert [re.findall(r"--[\w-]+", note) for note in caplog.messages] == [["--text", "--calibration-text"]]
    assert read_back("lrc evaluate --text c4").evaluation.texts == ("c4",)
    assert [re.findall(r"--[\w-]+", note) for note in caplog.messages[1:]] == [["--text", "--report-text"]]

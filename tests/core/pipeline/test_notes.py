"""What there is to know of a model reaches the result of every kind of run, and what is made of the results."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from lrc_core.pipeline.session import Session, with_warnings
from lrc_core.runs.spec import (
    AnswerSpec,
    CompareSpec,
    EvaluateSpec,
    EvaluationSpec,
    GenerateSpec,
    ModelRef,
    SamplingSpec,
)
from lrc_core.types import ignore_progress, never_stop
from tests.factories.gguf_files import write_gguf
from tests.factories.pipeline_helpers import result_of, run
from tests.factories.tiny_models import tiny_text


@pytest.fixture
def packed(tmp_path: Path) -> ModelRef:
    write_gguf(tmp_path / "m.gguf", packing=gguf.GGMLQuantizationType.Q4_1)
    return ModelRef(str(tmp_path / "m.gguf"))


@pytest.fixture
def evaluation(tmp_path: Path) -> EvaluationSpec:
    (tmp_path / "text.txt").write_text(tiny_text(2000))
    return EvaluationSpec(texts=(str(tmp_path / "text.txt"),), window=32, max_windows=2)


def test_results_say_how_the_weights_were_packed(packed: ModelRef, evaluation: EvaluationSpec) -> None:
    generate = GenerateSpec(packed, prompt="abc", answers=(AnswerSpec(),), sampling=SamplingSpec(max_new_tokens=2))
    for spec in (EvaluateSpec(packed, evaluation=evaluation), generate):
        assert any("Q4_1" in warning for warning in result_of(run(spec))["warnings"])


def test_a_comparison_that_only_gathers_says_so_as_well(packed: ModelRef, evaluation: EvaluationSpec) -> None:
    run(EvaluateSpec(packed, evaluation=evaluation))
    result = result_of(run(CompareSpec(packed, methods=(), keeps=(0.5,), evaluation=evaluation)))
    (told,) = result["warnings"]
    assert "Q4_1" in told and result["rows"][0]["warnings"] == [told]


def test_a_note_is_told_once_and_silence_adds_nothing() -> None:
    session = Session(ModelRef(), ignore_progress, never_stop)
    rows = [{"warnings": ["a", "b"]}, {"warnings": ["b"]}, {}]
    assert with_warnings({"rows": rows, "warnings": ["c", "a"]}, session)["warnings"] == ["a", "b", "c"]
    assert with_warnings({"x": 1}, session) == {"x": 1}

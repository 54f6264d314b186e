"""The lesson job on a tiny model: what it leaves, what it refuses, and its command line."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrc_core.cli.jobs import print_result
from lrc_core.cli.parser import build_parser
from lrc_core.errors import CancelledError, SettingsError, UnknownNameError
from lrc_core.kinds import KINDS, check, command_for
from lrc_core.pipeline import execute
from lrc_core.runs.spec import CalibrationSpec, LessonSpec, ModelRef, spec_from_dict
from lrc_core.runs.store import Run, RunStore
from lrc_core.types import ModelCard
from tests.factories.tiny_models import save_tiny, tiny_text
from tests.samples import copy_sample


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> LessonSpec:
    folder = tmp_path_factory.mktemp("lesson")
    save_tiny(folder / "tiny")
    (folder / "text.txt").write_text(tiny_text(12000), encoding="utf-8")
    calibration = CalibrationSpec((str(folder / "text.txt"),), windows=40, window=64)
    return LessonSpec(model=ModelRef(str(folder / "tiny")), calibration=calibration, prompt="the rank of")


def run(spec: LessonSpec, stop: Any = lambda: False) -> tuple[Run, dict[str, Any]]:
    found = RunStore().create(spec)
    result = execute(found, on_progress=lambda _: None, should_stop=stop)
    found.write_result(result)
    return found, result


@pytest.fixture(scope="module")
def lesson(spec: LessonSpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, Any]]:
    """A whole lesson, made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRC_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("LRC_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("lrc_core.pipeline.lesson.PROBES", _small_probes())
        found, _ = run(spec)
    return found, json.loads((found.path / "lesson.json").read_text(encoding="utf-8"))


def _small_probes() -> Any:
    from lrc_core.allocate.probing.grid import ProbeText

    return ProbeText(windows=2, window=48)


def test_three_layers_of_the_middle_block_rank_by_rank(lesson: tuple[Run, dict[str, Any]]) -> None:
    found, content = lesson
    card = ModelCard.from_dict(json.loads((found.path / "card.json").read_text(encoding="utf-8")))
    by_name = {layer.name: layer for layer in card.layers}
    assert len(content["layers"]) == 3
    with np.load(found.path / "pictures.npz") as pictures:
        for entry in content["layers"]:
            layer, ranks = by_name[entry["name"]], entry["ranks"]
            assert layer.block == 1
            assert ranks[0] == 1 and ranks[-1] == layer.full_rank
            assert len(pictures[f"{layer.name}/kept"]) == len(ranks)
            for kind in ("weight_error", "output_error"):
                for errors in entry[kind].values():
                    assert len(errors) == len(ranks)
                    assert errors[-1] == pytest.approx(0, abs=1e-3)
                    assert errors == sorted(errors, reverse=True)
            assert entry["input_energy"]["share"][-1] == pytest.approx(1, abs=1e-3)


def test_every_layer_is_squeezed_alone_and_texts_are_written_with_the_worst_and_the_mildest(
    lesson: tuple[Run, dict[str, Any]],
) -> None:
    found, content = lesson
    card = ModelCard.from_dict(json.loads((found.path / "card.json").read_text(encoding="utf-8")))
    sensitivity = {name: entry for name, entry in content["sensitivity"].items() if name}
    assert set(sensitivity) == {layer.name for layer in card.layers}
    assert all(entry["divergence"] >= 0 and entry["rank"] >= 1 for entry in sensitivity.values())
    dense, *squeezed = content["texts"]
    assert dense["layer"] is None and dense["text"]
    ordered = sorted(sensitivity, key=lambda name: -sensitivity[name]["divergence"])
    assert squeezed[0]["layer"] == ordered[0] and squeezed[-1]["layer"] == ordered[-1]
    assert {entry["prompt"] for entry in content["texts"]} == {"the rank of"}


def test_a_lesson_holds_no_weights_and_becomes_a_sample(lesson: tuple[Run, dict[str, Any]], tmp_path: Path) -> None:
    found, _ = lesson
    copy_sample(found, tmp_path)
    copied = tmp_path / found.id
    assert {"lesson.json", "pictures.npz", "card.json", "spec.json"} <= {path.name for path in copied.iterdir()}
    assert sum(path.stat().st_size for path in copied.iterdir()) < 400_000
    with np.load(copied / "pictures.npz") as pictures:
        assert {pictures[name].dtype for name in pictures.files} == {np.dtype(np.uint8)}
        assert max(max(pictures[name].shape[-2:]) for name in pictures.files) <= 32


def test_the_terminal_shows_the_texts(lesson: tuple[Run, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    found, content = lesson
    print_result(found, found.result() or {}, as_json=False)
    shown = capsys.readouterr().out
    assert all((entry["layer"] or "dense") in shown for entry in content["texts"])
    assert str(found.path / "lesson.json") in shown


def test_one_named_layer_is_squeezed_and_the_model_is_left_as_it_was(
    spec: LessonSpec, lesson: tuple[Run, dict[str, Any]]
) -> None:
    name = lesson[1]["texts"][1]["layer"]
    small, _ = run(replace(spec, layers=(name,), parts=("text",), keep=0.2))
    content = json.loads((small.path / "lesson.json").read_text(encoding="utf-8"))
    assert [entry["layer"] for entry in content["texts"]] == [None, name]
    assert content["texts"][0]["text"] == lesson[1]["texts"][0]["text"]
    assert not content["layers"] and not content["sensitivity"]
    assert not (small.path / "pictures.npz").exists()


def test_refusals_name_the_thing(spec: LessonSpec) -> None:
    with pytest.raises(UnknownNameError, match=r"no layer 'model\.layers\.9\.q'"):
        run(replace(spec, layers=("model.layers.9.q",), parts=("text",)))
    with pytest.raises(SettingsError, match="no part 'songs'"):
        check(replace(spec, parts=("songs",)), model_too=False)
    with pytest.raises(CancelledError):
        run(replace(spec, parts=("text",), prompt="other"), stop=lambda: True)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layers": ("model.layers.3.mlp.up_proj", "model.layers.0.q"), "parts": ("layers",)},
        {"keep": 0.2, "prompt": "It's a dog's life", "parts": ("text", "sensitivity")},
        {"calibration": CalibrationSpec(("wiki",), windows=8, window=128, seed=3)},
    ],
)
def test_the_command_line_reads_back_as_the_same_spec(changes: dict[str, Any]) -> None:
    wanted = LessonSpec(**changes)
    words = shlex.split(command_for(wanted))
    assert words[:3] == ["lrc", "lesson", "starter"]
    assert KINDS["lesson"].spec_from(build_parser().parse_args(words[1:])) == wanted
    assert spec_from_dict(json.loads(json.dumps(wanted.to_dict()))) == wanted

"""Runs and caches are keyed by content: what changes a number is another question, what does not is the same one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lrc_core import digests
from lrc_core.cli import main
from lrc_core.digests import file_digest
from lrc_core.errors import RunError
from lrc_core.jobs import manager
from lrc_core.models.content import model_content
from lrc_core.models.fingerprint import forward_digest, tokenizer_digest
from lrc_core.models.load import load_model
from lrc_core.models.source import unpacked_folder
from lrc_core.paths import cache_home, samples_home
from lrc_core.pipeline.session import Session
from lrc_core.registry import ALLOCATORS
from lrc_core.results.archive import archive
from lrc_core.results.comparisons import groups
from lrc_core.results.identity import as_asked_before, changed, identified, measured_contents, part_of, what_to_do
from lrc_core.runs.spec import (
    AllocateSpec,
    CalibrationSpec,
    CompareSpec,
    EvaluateSpec,
    EvaluationSpec,
    GenerateSpec,
    ModelRef,
    QualitySpec,
    SpectraSpec,
    spec_from_dict,
)
from lrc_core.runs.store import RunStore
from lrc_core.types import ignore_progress, never_stop
from tests.factories.pipeline_helpers import result_of, run
from tests.factories.run_factory import finish, make_card, write_json
from tests.factories.tiny_models import save_tiny, tiny_text


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "model")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "mine.txt"
    path.write_text(tiny_text(6000), encoding="utf-8")
    return path


def question(model: Path, text: Path, **more: Any) -> EvaluateSpec:
    """The dense model on the text, tiny."""
    evaluation = EvaluationSpec((str(text),), 32, 4, **more)
    return identified(EvaluateSpec(ModelRef(str(model)), evaluation=evaluation))


def overwrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def new_weights(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, model / "model.safetensors", {"format": "pt"})


OTHER_QUESTIONS: dict[str, Callable[[Path, Path], Any]] = {
    "weights": lambda model, _: new_weights(model),
    "rotary base": lambda model, _: overwrite(model / "config.json", lambda data: data.update(rope_theta=77.0)),
    "end of text": lambda model, _: (model / "generation_config.json").write_text('{"eos_token_id": 5}'),
    "tokenizer": lambda model, _: overwrite(model / "tokenizer_config.json", lambda data: data.update(add_bos=True)),
    "text": lambda _, text: text.write_text(tiny_text(6000, seed=1), encoding="utf-8"),
}
SAME_QUESTION: dict[str, Callable[[Path, Path], Any]] = {
    "times": lambda model, text: [os.utime(path, (9e8, 9e8)) for path in (*model.iterdir(), text)],
    "the same bytes again": lambda model, text: [p.write_bytes(p.read_bytes()) for p in (*model.iterdir(), text)],
    "library's version": lambda model, _: overwrite(
        model / "config.json", lambda data: data.update(transformers_version="0", _name_or_path="elsewhere")
    ),
    "a note beside it": lambda model, _: (model / "README.md").write_text("Trained on a Tuesday."),
}


@pytest.mark.parametrize("what", OTHER_QUESTIONS)
def test_what_changes_a_number_is_another_run(what: str, model: Path, text: Path) -> None:
    before = question(model, text)
    OTHER_QUESTIONS[what](model, text)
    after = question(model, text)
    assert after.run_id != before.run_id
    assert changed(before) and not changed(after)
    assert measured_contents(before) != measured_contents(after)


@pytest.mark.parametrize("what", SAME_QUESTION)
def test_the_same_bytes_are_the_same_run(what: str, model: Path, text: Path) -> None:
    before = question(model, text)
    SAME_QUESTION[what](model, text)
    assert question(model, text) == before and not changed(before)


def test_task_files_plan_files_and_references_count(model: Path, text: Path, tmp_path: Path) -> None:
    tasks, beside, other = tmp_path / "tasks", tmp_path / "plans", save_tiny(tmp_path / "other", seed=1)
    tasks.mkdir(), beside.mkdir()
    (tasks / "mine.yaml").write_text("task: mine")
    (beside / "w.safetensors").write_bytes(b"one")
    plan = {"weights_file": "w.safetensors", "decomposition": "svd"}
    asked: list[Callable[[], Any]] = [
        lambda: question(model, text, tasks=("mine",), include_path=str(tasks)),
        lambda: identified(EvaluateSpec(ModelRef(str(model)), plan=plan, plan_folder=str(beside))),
        lambda: identified(SpectraSpec(ModelRef(str(model)), calibration=CalibrationSpec((str(text),)))),
    ]
    before = [ask().run_id for ask in asked]
    (tasks / "mine.yaml").write_text("task: mine\nmetric: other")
    (beside / "w.safetensors").write_bytes(b"two")
    text.write_text("other")
    assert all(ask().run_id != run_id for ask, run_id in zip(asked, before, strict=True))
    bench = identified(QualitySpec(ModelRef(str(model)), references=(str(other),)))
    new_weights(other)
    assert identified(replace(bench, contents=())).run_id != bench.run_id


def test_a_gguf_file_is_known_by_all_its_parts(tmp_path: Path) -> None:
    parts = [tmp_path / f"m[1]-0000{number}-of-00002.gguf" for number in (1, 2)]
    for path in parts:
        path.write_bytes(path.name.encode())
    ref = ModelRef(str(parts[0]))
    before = model_content(ref)
    parts[1].write_bytes(b"retrained")
    assert model_content(ref) != before != ""
    unpacked, stat = unpacked_folder(parts[0]), parts[1].stat()
    parts[1].write_bytes(b"trained u")
    os.utime(parts[1], ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a copy that keeps times does
    assert unpacked_folder(parts[0]) != unpacked


def test_a_newer_version_of_the_code_is_another_question(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, comparison = AllocateSpec(method="strs"), CompareSpec(methods=("uniform", "strs"))
    before = identified(spec), identified(comparison)
    assert before == (spec, comparison), "what is shipped and of the first version is known by its name"
    monkeypatch.setitem(ALLOCATORS._entries, "strs", replace(ALLOCATORS.get("strs"), version=2))
    assert identified(spec).run_id != spec.run_id and identified(comparison).run_id != comparison.run_id
    assert changed(spec), "the old run says that the program has moved on"
    monkeypatch.setitem(ALLOCATORS._entries, "strs", replace(ALLOCATORS.get("strs"), version=1, versions={"pair": 2}))
    for storage, moved_on in (("pair", True), ("pivoted", False)):
        one, many = replace(spec, storage=storage), QualitySpec(methods=("strs",), storages=(storage,))
        assert (identified(one) != one) is (identified(many) != many) is moved_on, "of what its numbers changed for"
    both = QualitySpec(methods=("strs",), storages=("pair", "pivoted"))
    assert identified(both) != both
    for storage in ("pair", "pivoted"):
        part = part_of(replace(spec, storage=storage), dict(identified(both).contents))
        assert part == identified(replace(spec, storage=storage)) and not changed(part), "a part is of its own law"
    monkeypatch.setattr(EvaluateSpec, "code_version", 2)
    assert identified(EvaluateSpec()).run_id != EvaluateSpec().run_id


def test_shipped_runs_and_runs_without_contents_are_read_and_found() -> None:
    for path in samples_home().glob("*/spec.json"):
        spec = spec_from_dict(json.loads(path.read_text(encoding="utf-8")))
        assert spec.run_id == identified(spec).run_id == path.parent.name
        assert not changed(spec)
    for group in groups(ModelRef()):
        assert not group.changed, "nor beside another, of whose law a method has another version"


def test_contents_survive_the_record(model: Path, text: Path) -> None:
    spec = question(model, text)
    again = spec_from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec and again.run_id == spec.run_id and dict(spec.contents)[f"text {text}"] == file_digest(text)
    with pytest.raises(RunError, match="damaged"):
        spec_from_dict({**spec.to_dict(), "contents": ["abc"]})


def test_a_file_is_read_once_and_again_when_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "big.bin", []
    path.write_bytes(b"a" * (digests._SMALL + 1))
    really = digests._read
    monkeypatch.setattr(digests, "_read", lambda name: read.append(name) or really(name))
    monkeypatch.setattr(digests, "SETTLED_NS", 0)
    first = file_digest(path)
    digests._known.clear()  # as another process
    assert file_digest(path) == first and len(read) == 1 and list((cache_home() / digests.FOLDER).iterdir())
    before = path.stat()
    path.write_bytes(b"b" * (digests._SMALL + 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy that keeps times does
    assert file_digest(path) != first and len(read) == 2


def test_what_was_written_a_moment_ago_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("a" * 99)
    file_digest(path)
    assert not digests._known.get(os.path.realpath(path)), "its clock may not have moved on when it is written again"


def test_long_files_are_hashed_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    path = tmp_path / "long.bin"
    data = os.urandom(10_000)
    path.write_bytes(data)
    assert file_digest(path) == hashlib.sha256(data).hexdigest()
    monkeypatch.setattr(digests, "PIECE", 3000)
    pieces = b"".join(hashlib.sha256(data[start : start + 3000]).digest() for start in range(0, 10_000, 3000))
    assert file_digest(path) == hashlib.sha256(pieces).hexdigest()


def test_an_unwritable_cache_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LRC_CACHE", str(tmp_path / "file"))
    path = tmp_path / "big.bin"
    path.write_bytes(b"a" * (digests._SMALL + 1))
    assert len(file_digest(path)) == 64


def test_a_job_refuses_what_it_was_not_asked_for(model: Path, text: Path) -> None:
    asked = question(model, text)
    text.write_text(tiny_text(6000, seed=2), encoding="utf-8")
    with pytest.raises(RunError, match=r"mine\.txt has changed"):
        run(asked)


@pytest.mark.parametrize("gone", ["", "model", "text"])
def test_what_is_not_there_cannot_be_started_again(gone: str, model: Path, text: Path) -> None:
    spec = identified(question(model, text))
    text.write_text(tiny_text(6100), encoding="utf-8")
    if gone:
        (model if gone == "model" else text).rename(model.parent / "elsewhere")
    assert ("put it back" in what_to_do(changed(spec))) == bool(gone)


def test_a_change_while_it_works_is_noticed(model: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lrc_core.pipeline import evaluation

    measure = evaluation.measure_cost

    def edited(*args: Any, **kwargs: Any) -> Any:
        text.write_text("something else", encoding="utf-8")
        return measure(*args, **kwargs)

    monkeypatch.setattr(evaluation, "measure_cost", edited)
    with pytest.raises(RunError, match=r"mine\.txt has changed"):
        run(question(model, text))


def test_cells_of_a_comparison_are_of_what_it_was_asked_for(model: Path, text: Path, tmp_path: Path) -> None:
    calibration = tmp_path / "b.txt"
    calibration.write_text(tiny_text(6000, seed=5), encoding="utf-8")
    asked = CompareSpec(
        ModelRef(str(model)), ("uniform",), (0.9,), "svd", calibration=CalibrationSpec((str(calibration),), 4, 32),
        evaluation=EvaluationSpec((str(text),), 32, 4),
    )  # fmt: skip
    first = result_of(run(identified(asked)))
    text.write_text(tiny_text(6000, seed=1), encoding="utf-8")
    wider = replace(asked, keeps=(0.9, 0.8))
    second = result_of(run(identified(wider)))
    assert not {row["run_id"] for row in first["rows"]} & {row["run_id"] for row in second["rows"]}
    truth = result_of(run(question(model, text)))["perplexity"][str(text)]["value"]
    dense = next(row for row in second["rows"] if row["method"] == "dense")
    assert dense["perplexity"][str(text)]["value"] == pytest.approx(truth, rel=1e-6)
    plans = {row["allocate_run_id"] for row in first["rows"]} & {row["allocate_run_id"] for row in second["rows"]}
    assert len(plans - {None}) == 1, "what the edited text has no part in is shared"


def test_parts_take_only_what_concerns_them(model: Path, text: Path) -> None:
    whole = identified(CompareSpec(ModelRef(str(model)), evaluation=EvaluationSpec((str(text),))))
    allocation = part_of(AllocateSpec(ModelRef(str(model))), dict(whole.contents))
    assert [thing for thing, _ in allocation.contents] == [f"model {model}"]


def test_cached_statistics_depend_on_configuration_and_on_the_whole_text(model: Path, text: Path) -> None:
    lines = [json.dumps({"text": tiny_text(600, seed)}) for seed in range(10)]
    text.write_text("\n".join(lines), encoding="utf-8")
    calibration = CalibrationSpec((str(text),), 2, 32)

    def keys() -> tuple[str, str, str]:
        session = Session(ModelRef(str(model)), ignore_progress, never_stop)
        calibrated = session.calibrated(calibration)
        return (
            calibrated.key(),
            session.probing_key(calibrated, calibration, "common"),
            calibrated.key("svd", text=False),
        )

    first = keys()
    text.write_text("\n".join([*lines[:-1], lines[0]]), encoding="utf-8")  # a document of which nothing was drawn
    second = keys()
    assert first[0] == second[0] and first[1] != second[1]
    overwrite(model / "config.json", lambda data: data.update(rms_norm_eps=0.1))
    third = keys()
    assert third[0] != second[0] and third[1] != second[1], "other norms, other inputs of every layer"
    assert third[2] == second[2], "singular values of the weights are what they were"


def test_digests_of_models_and_tokenizers_in_memory(model: Path) -> None:
    loaded = load_model(ModelRef(str(model)))
    before = forward_digest(loaded.model), tokenizer_digest(loaded.tokenizer)
    again = load_model(ModelRef(str(model)))
    assert before == (forward_digest(again.model), tokenizer_digest(again.tokenizer))
    again.model.register_buffer("scale", torch.ones(1))
    again.tokenizer.add_tokens(["<new>"])
    assert forward_digest(again.model) != before[0] and tokenizer_digest(again.tokenizer) != before[1]


def test_a_model_in_memory_serves_only_its_own_content(model: Path) -> None:
    asked = identified(GenerateSpec(ModelRef(str(model)), "x"))
    session = Session(asked.model, ignore_progress, never_stop, dict(asked.contents))
    assert session.serves(asked)
    new_weights(model)
    assert not session.serves(identified(replace(asked, contents=())))


def test_a_hub_model_downloaded_by_its_first_run_is_the_same_question(monkeypatch: pytest.MonkeyPatch) -> None:
    commit, store = "c" * 40, RunStore()
    spec = SpectraSpec(ModelRef("owner/name"))
    monkeypatch.setattr("lrc_core.models.content.cached_snapshot", lambda ref: None)
    assert identified(spec) == spec
    first = store.create(spec)
    monkeypatch.setattr("lrc_core.models.content.cached_snapshot", lambda ref: Path("/hub") / commit)
    now = identified(spec)
    assert dict(now.contents) == {"model owner/name": commit}
    assert as_asked_before(now, store) == spec, "it waits or works: what it downloads is what is here"
    card = make_card("owner/name")
    write_json(first.path / "card.json", replace(card, identity=replace(card.identity, revision="d" * 40)).to_dict())
    finish(first, {})
    assert as_asked_before(now, store) == now, "it was of another commit"
    write_json(first.path / "card.json", replace(card, identity=replace(card.identity, revision=commit)).to_dict())
    assert as_asked_before(now, store) == spec


def test_submitting_fills_the_contents_in_and_pages_prefer_what_is_there_now(
    model: Path, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lrc_core.jobs.manager._launch", lambda *_: None)
    ref = ModelRef(str(model))
    spec = SpectraSpec(ref, ("svd",), CalibrationSpec((str(text),)))
    card = make_card(str(model))
    ids = []
    for _ in range(2):
        found = manager.submit(spec)
        assert manager.submit(spec).id == found.id and manager.replace_queued(spec) == []
        write_json(found.path / "card.json", card.to_dict())
        finish(found, {"card": card.to_dict(), "decompositions": ["svd"]})
        ids.append(found.id)
        new_weights(model)
    assert ids[0] != ids[1]
    new_weights_again = manager.submit(spec)
    assert new_weights_again.id not in ids
    best = archive().best_spectra(ref)
    assert best is not None and best.id == ids[1], "of two stale ones the newer"
    manager.cancel(new_weights_again.id)
    assert main(["runs", "show", ids[0], "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["contents"] == dict(RunStore().open(ids[0]).spec.contents)
    assert shown["changed"] == [f"the model {model} has changed"]

"""Writing text: the same as transformers' own generate, streamed without loss, with plans swapped in."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lrc_core.cli.parser import build_parser
from lrc_core.errors import CancelledError, EvaluationError, PlanError, SettingsError
from lrc_core.evaluate.cost import count_bytes
from lrc_core.evaluate.generate import chosen, prompt_ids, write_answer
from lrc_core.kinds import KINDS, check, command_for
from lrc_core.kinds.generate import MOST_ANSWERS
from lrc_core.models.load import load_model
from lrc_core.pipeline import execute
from lrc_core.plan import Plan
from lrc_core.quality.footprint import params_under
from lrc_core.results.plans import find_plan
from lrc_core.runs.recorder import record
from lrc_core.runs.spec import (
    AllocateSpec,
    AnswerSpec,
    CalibrationSpec,
    GenerateSpec,
    ModelRef,
    SamplingSpec,
    spec_from_dict,
)
from lrc_core.runs.store import Run, RunStore
from lrc_core.runs.transcript import FILE, Answer, TranscriptWriter, read_answers
from tests.factories.tiny_models import FAMILIES, POSITIONS, tiny_model, tiny_tokenizer

PROMPT = "the rank of a layer"


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_greedy_is_what_transformers_generates(family: str) -> None:
    model, tokenizer = tiny_model(family), tiny_tokenizer(add_bos=family == "gemma")
    ids = prompt_ids(tokenizer, PROMPT)
    theirs = model.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False, pad_token_id=2)[0, len(ids) :]
    ours = write_answer(model, tokenizer, ids, SamplingSpec(max_new_tokens=16))
    assert ours.text == tokenizer.decode(theirs, skip_special_tokens=True)
    assert ours.prompt_tokens == len(ids)


def test_the_streamed_pieces_are_the_text() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    pieces: list[tuple[str, int, float]] = []
    ids = prompt_ids(tokenizer, PROMPT)
    sampling = SamplingSpec(max_new_tokens=12, temperature=1.0)
    written = write_answer(model, tokenizer, ids, sampling, on_text=lambda *piece: pieces.append(piece))
    assert "".join(text for text, _, _ in pieces) == written.text
    assert [count for _, count, _ in pieces] == sorted(count for _, count, _ in pieces)
    assert written.tokens_per_s is not None and written.tokens_per_s > 0


def test_a_seed_repeats_its_draws_and_another_changes_them() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    ids = prompt_ids(tokenizer, PROMPT)

    def text(seed: int) -> str:
        return write_answer(model, tokenizer, ids, SamplingSpec(40, temperature=1.5, seed=seed)).text

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_top_k_and_top_p_cut_what_may_be_drawn() -> None:
    scores = torch.tensor([0.1, 0.5, 0.3, 0.1]).log()
    generator = torch.Generator().manual_seed(0)

    def drawn(**limits: Any) -> set[int]:
        sampling = SamplingSpec(temperature=1.0, **limits)
        return {chosen(scores, sampling, generator) for _ in range(400)}

    assert drawn() == {0, 1, 2, 3}
    assert drawn(top_k=2) == {1, 2}
    assert drawn(top_p=0.5) == {1}, "the first alone reaches one half"
    assert drawn(top_p=0.51) == {1, 2}
    assert drawn(top_p=0.01) == {1}, "one always stays"
    assert chosen(scores, SamplingSpec(), generator) == 1


def test_draws_follow_the_model_at_temperature_one() -> None:
    scores = torch.tensor([0.7, 0.2, 0.1]).log()
    generator = torch.Generator().manual_seed(3)
    draws = [chosen(scores, SamplingSpec(temperature=1.0), generator) for _ in range(4000)]
    assert draws.count(0) / 4000 == pytest.approx(0.7, abs=0.04)


def test_chat_template_where_there_is_one() -> None:
    tokenizer = tiny_tokenizer()
    plain = prompt_ids(tokenizer, "hello")
    with pytest.raises(EvaluationError, match="no chat template"):
        prompt_ids(tokenizer, "hello", "yes")
    each, last = "[{{ m.role }}] {{ m.content }}", "{% if add_generation_prompt %} [me] {% endif %}"
    tokenizer.chat_template = "{% for m in messages %}" + each + "{% endfor %}" + last
    assert tokenizer.decode(prompt_ids(tokenizer, "hello")) == "[user] hello [me] "
    assert prompt_ids(tokenizer, "hello", "no") == plain
    with pytest.raises(EvaluationError, match="no tokens"):
        prompt_ids(tokenizer, "", "no")


def test_cancel_between_two_tokens() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    seen: list[str] = []
    with pytest.raises(CancelledError):
        write_answer(
            model,
            tokenizer,
            prompt_ids(tokenizer, PROMPT),
            SamplingSpec(temperature=1.0, max_new_tokens=200),
            on_text=lambda text, *_: seen.append(text),
            should_stop=lambda: len(seen) >= 3,
        )
    assert len(seen) == 3


def test_half_a_character_is_held_back() -> None:
    class Bytes:
        """One token a byte, as byte-level tokenizers have for rare characters."""

        eos_token_id = None

        def decode(self, ids: list[int], **_: Any) -> str:
            return bytes(ids).decode("utf-8", "replace")

    from lrc_core.evaluate.generate import _Decoder

    data, decoder, told = list("añ€".encode()), _Decoder(Bytes(), list(b"go ")), ""
    for end in range(1, len(data) + 1):
        told += decoder.fresh(data[:end])
        assert "\ufffd" not in told
    assert told == "añ€"


# ---- the job, on a tiny model in a folder


def done(spec: Any) -> Run:
    run = RunStore().create(spec)
    record(run, lambda tick, stop: execute(run, on_progress=tick, should_stop=stop))
    return run


@pytest.fixture
def allocated(model: ModelRef, texts: tuple[str, str]) -> Run:
    return done(AllocateSpec(model, keep=0.6, calibration=CalibrationSpec(texts[:1], windows=20, window=48)))


def question(model: ModelRef, allocated: Run, **sampling: Any) -> GenerateSpec:
    found = find_plan(allocated.id, RunStore())
    assert found.calibration is not None
    answers = (AnswerSpec(found.plan, found.folder, found.calibration), AnswerSpec())
    return GenerateSpec(model, PROMPT, answers, SamplingSpec(**{"max_new_tokens": 10, **sampling}))


def test_answers_are_those_of_the_model_under_each_plan(model: ModelRef, allocated: Run) -> None:
    spec = question(model, allocated)
    run = done(spec)
    plan, loaded = Plan.load(allocated.path / "plan.json"), load_model(model)
    ids = prompt_ids(loaded.tokenizer, PROMPT)
    theirs = loaded.model.generate(torch.tensor([ids]), max_new_tokens=10, do_sample=False, pad_token_id=2)
    compressed, dense = read_answers(run)[0], read_answers(run)[1]
    assert dense.text == loaded.tokenizer.decode(theirs[0, len(ids) :], skip_special_tokens=True)
    assert dense.bytes == count_bytes(loaded.model) and compressed.bytes < dense.bytes
    assert dense.params == params_under(loaded.card, None)
    assert compressed.params == params_under(loaded.card, plan), "what the card counts is what was in memory"
    result = run.result()
    assert result is not None
    assert [answer["who"]["method"] for answer in result["answers"]] == ["uniform", "dense"]
    assert result["answers"][1]["text"] == dense.text


def test_spec_round_trips_and_its_command_finds_the_plan(model: ModelRef, allocated: Run) -> None:
    spec = question(model, allocated, temperature=0.7, top_k=5)
    assert spec_from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    command = command_for(spec)
    assert f"--plan {allocated.id} dense" in command and f"--prompt '{PROMPT}'" in command
    assert "--temperature 0.7 --top-k 5" in command and "--seed" not in command
    odd = replace(spec, prompt='-5 + 3 = "what?"\n', answers=spec.answers[::-1])
    for asked in (spec, odd, replace(spec, answers=spec.answers[:1])):
        arguments = build_parser().parse_args(shlex.split(command_for(asked))[1:])
        assert KINDS["generate"].spec_from(arguments, RunStore()) == asked
    run = RunStore().create(spec)
    again = find_plan(f"{run.id}@1", RunStore())
    assert again.plan == dict(spec.answers[0].plan or {})
    with pytest.raises(PlanError, match=f"{run.id}@1"):
        find_plan(f"{run.id}@2", RunStore())


def test_a_prompt_without_room_is_refused_and_a_long_one_leaves_less_for_the_answer(model: ModelRef) -> None:
    with pytest.raises(EvaluationError, match=f"{POSITIONS} positions"):
        done(GenerateSpec(model, "x" * POSITIONS))
    run = done(GenerateSpec(model, "x" * (POSITIONS - 5), sampling=SamplingSpec(temperature=1.0)))
    answer = read_answers(run)[0]
    assert answer.prompt_tokens == POSITIONS - 5 and answer.tokens <= 5


def test_complete_answers_of_a_stopped_run_are_kept(model: ModelRef, allocated: Run) -> None:
    run = RunStore().create(question(model, allocated))
    TranscriptWriter(run).done(0, Answer("as before", 2, done=True))
    record(run, lambda tick, stop: execute(run, on_progress=tick, should_stop=stop))
    assert read_answers(run)[0].text == "as before"
    assert read_answers(run)[1].tokens > 0


def test_a_half_written_line_waits_for_its_end(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create(GenerateSpec(prompt="x"))
    ticks = iter(range(100))
    writer = TranscriptWriter(run, clock=lambda: float(next(ticks)))
    writer.piece(0, "one", 1, 0.0)
    writer.piece(0, " two", 3, 0.5)
    with (run.path / FILE).open("a") as file:
        file.write('{"answer": 0, "text": " thr')
    answer = read_answers(run)[0]
    assert (answer.text, answer.tokens, answer.tokens_per_s, answer.done) == ("one two", 3, 4.0, False)
    writer.done(0, Answer("one two three", 4))
    assert read_answers(run)[0].done


def test_questions_that_cannot_be_answered_are_refused(model: ModelRef, allocated: Run) -> None:
    spec = question(model, allocated)
    check(spec, model_too=False)
    with pytest.raises(SettingsError, match="empty"):
        check(GenerateSpec(model, "  "), model_too=False)
    with pytest.raises(SettingsError, match=f"{MOST_ANSWERS + 1} models"):
        check(GenerateSpec(model, "x", (AnswerSpec(),) * (MOST_ANSWERS + 1)), model_too=False)
    with pytest.raises(SettingsError, match="temperature"):
        check(GenerateSpec(model, "x", sampling=SamplingSpec(temperature=9.0)), model_too=False)
    lacking = AnswerSpec({**dict(spec.answers[0].plan or {}), "weights_file": "gone.safetensors"})
    with pytest.raises(PlanError, match="gone"):
        check(GenerateSpec(model, "x", (lacking,)), model_too=False)

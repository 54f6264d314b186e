"""The ``generate`` job: one prompt, answered by the dense model and under plans, one after the other."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from lrc_core.errors import CancelledError, EvaluationError
from lrc_core.evaluate.cost import count_bytes, count_params
from lrc_core.evaluate.forward import max_positions
from lrc_core.evaluate.generate import prompt_ids, write_answer
from lrc_core.files import write_json
from lrc_core.pipeline.planned import under_plan
from lrc_core.pipeline.session import Session
from lrc_core.plan import Plan, plan_variant
from lrc_core.runs.spec import AnswerSpec, GenerateSpec
from lrc_core.runs.store import Run
from lrc_core.runs.transcript import Answer, TranscriptWriter
from lrc_core.types import Progress


def generation_run(run: Run, session: Session) -> dict[str, Any]:
    """Every answer, streamed into ``answers.jsonl`` as it is written. Answers of an earlier attempt are kept."""
    spec = run.spec_as(GenerateSpec)
    loaded = session.loaded
    write_json(run.path / "card.json", loaded.card.to_dict())
    for wanted in spec.answers:  # all of them before the first answer
        if wanted.plan is not None:
            _plan_of(run, session, wanted)
    transcript = TranscriptWriter(run)
    ids = prompt_ids(loaded.tokenizer, spec.prompt, spec.sampling.chat)
    limit = max_positions(loaded.model)
    if limit is not None and len(ids) >= limit:
        raise EvaluationError(
            f"The prompt has {len(ids)} tokens, but the model has {limit} positions for prompt and answer together.",
            "Shorten the prompt.",
        )
    for number in range(len(spec.answers)):
        if number in transcript.kept:
            continue
        if session.should_stop():
            raise CancelledError("Cancelled between two answers.")
        transcript.done(number, _answered(run, session, transcript, number, ids))
    return {
        "answers": [
            {"who": who(wanted), **transcript.kept[number].to_dict()} for number, wanted in enumerate(spec.answers)
        ],
        "device": str(loaded.device),
        "dtype": loaded.card.dtype,
    }


def who(answer: AnswerSpec) -> dict[str, Any]:
    """Whose answer it is, for records: method (``dense``, ``llrc``, ``llrc+left``), target and run of the plan."""
    if answer.plan is None:
        return {"method": "dense", "keep_target": 1.0, "run_id": ""}
    plan = Plan.from_dict(dict(answer.plan))
    method = plan_variant(plan)
    return {"method": method, "keep_target": plan.keep_target, "run_id": str(plan.origin.get("run_id", ""))}


def _answered(run: Run, session: Session, transcript: TranscriptWriter, number: int, ids: list[int]) -> Answer:
    spec = run.spec_as(GenerateSpec)
    model, count = session.loaded.model, len(spec.answers)
    limit = max_positions(model)
    # Where there is no room for both, the answer is shorter: dropping the prompt's beginning would change the question.
    length = spec.sampling.max_new_tokens if limit is None else min(spec.sampling.max_new_tokens, limit - len(ids))
    session.on_progress(Progress(f"swapping the factors in for answer {number + 1} of {count}"))
    begun = time.perf_counter()
    with _as_wanted(run, session, spec.answers[number]):
        swap_s = time.perf_counter() - begun
        phase = f"writing answer {number + 1} of {count}"
        session.on_progress(Progress(phase, 0, length))

        def on_text(text: str, tokens: int, seconds: float) -> None:
            transcript.piece(number, text, tokens, seconds)
            session.on_progress(Progress(phase, tokens, length))

        written = write_answer(
            model,
            session.loaded.tokenizer,
            ids,
            replace(spec.sampling, max_new_tokens=length),
            on_text=on_text,
            should_stop=session.should_stop,
        )
        size, params = count_bytes(model), count_params(model)
    return Answer(
        text=written.text,
        tokens=written.tokens,
        seconds=round(written.decode_s, 4),
        done=True,
        prompt_tokens=written.prompt_tokens,
        prefill_s=round(written.prefill_s, 4),
        tokens_per_s=written.tokens_per_s,
        ended=written.ended,
        bytes=size,
        params=params,
        swap_s=round(swap_s, 3),
    )


def _as_wanted(run: Run, session: Session, wanted: AnswerSpec) -> AbstractContextManager[Any]:
    """The model as one who answers: dense, or under a plan."""
    if wanted.plan is None:
        return nullcontext(session.loaded.model)
    plan = _plan_of(run, session, wanted)
    return under_plan(session, plan, wanted.plan_folder, wanted.calibration, run.path.parent)


def _plan_of(run: Run, session: Session, wanted: AnswerSpec) -> Plan:
    """The plan behind an answer, which must be of this model and whole."""
    plan = Plan.from_dict(dict(wanted.plan or {}))
    plan.check_model(session.loaded.card)
    plan.require_files(wanted.plan_folder, run.path.parent)
    return plan

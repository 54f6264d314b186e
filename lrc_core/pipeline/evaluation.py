"""The ``evaluate`` job: what a plan, or the dense model, scores and costs."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import OutOfMemoryError, Tensor

from lrc_core.errors import CancelledError, EvaluationError, TextError
from lrc_core.evaluate.cost import Cost, held_size, measure_cost, paces
from lrc_core.evaluate.perplexity import perplexity
from lrc_core.evaluate.sample import DEFAULT_PROMPT, greedy_sample
from lrc_core.files import write_json
from lrc_core.formats.grids import METHODS
from lrc_core.models.checks.fit import model_positions, require_fit
from lrc_core.models.checks.positions import length_warning, require_length
from lrc_core.models.gguf.packing import bits_of
from lrc_core.models.load import NOT_CAUSAL, LoadedModel
from lrc_core.models.onload.residence import require_whole, residence_of
from lrc_core.pipeline.planned import under_plan
from lrc_core.pipeline.session import Session
from lrc_core.plan import PAIR, Plan
from lrc_core.quality.quantised import format_notes, sizes_of
from lrc_core.results.identity import differs_from_plan
from lrc_core.runs.spec import EvaluateSpec, EvaluationSpec
from lrc_core.runs.store import Run
from lrc_core.texts.documents import load_documents
from lrc_core.texts.files import is_file
from lrc_core.texts.label import text_label
from lrc_core.texts.unseen import unseen_documents
from lrc_core.texts.windows import sequential_windows, wants_bos
from lrc_core.types import OnProgress, Progress

_NO_SAMPLE = "No text sample was written and no speed measured: they need the whole model in memory."

if TYPE_CHECKING:
    from lrc_core.evaluate.zero_shot import TaskScore


def evaluation_run(run: Run, session: Session) -> dict[str, Any]:
    """A result row, and ``scores.json`` with the loss of every window and the outcome of every item."""
    spec = run.spec_as(EvaluateSpec)
    loaded = session.loaded
    write_json(run.path / "card.json", loaded.card.to_dict())
    if spec.plan is None:
        head = {
            "method": "dense",
            "decomposition": "",
            "keep_target": 1.0,
            "keep_achieved": 1.0,
            "keep_whole_model": 1.0,
        }
        scores, _ = _measure(run, spec.evaluation, session, spec.calibration.texts)
        return {**head, **sizes_of(loaded.card, None), **scores, "run_id": run.id, "allocate_run_id": None}
    plan = Plan.from_dict(dict(spec.plan))
    plan.check_model(loaded.card)
    plan.require_files(spec.plan_folder, run.path.parent)
    plan.save(run.path / "plan.json")
    timed = not plan.formats  # with number formats the forward pass is still the one in 16 bits
    if timed:
        session.on_progress(Progress("speed of the dense model"))
    before = _cost(session, timed=timed)
    session.on_progress(Progress("putting the plan on the model"))
    with under_plan(session, plan, spec.plan_folder, spec.calibration, run.path.parent):
        first = _cost(session, timed=timed)
        scores, last = _measure(run, spec.evaluation, session, _calibrated_on(plan, spec), timed=timed)
    if timed:  # beside the dense model, before and after everything else: whatever the computer does, it does to both
        session.on_progress(Progress("speed of the dense model"))
        scores["cost"]["paces"] = paces([(first, before), (last, _cost(session, timed=True))])
    head = {
        name: getattr(plan, name)
        for name in ("method", "decomposition", "keep_target", "keep_achieved", "keep_whole_model")
    }
    if plan.method in METHODS:
        head["decomposition"] = ""
    if plan.formats:
        scores = _of_formats(scores, plan, loaded)
        head["formats"] = dict(sorted(Counter(plan.formats.values()).items()))
    if budget := plan.origin.get("budget"):
        head["budget"] = str(budget)
    head |= sizes_of(loaded.card, plan)
    ids = {"run_id": run.id, "allocate_run_id": plan.origin.get("allocate_run_id", plan.origin.get("run_id"))}
    warnings = [*scores.get("warnings", []), *differs_from_plan(plan.origin, spec)]
    updated = {"update": plan.update, "update_run_id": plan.origin.get("run_id")} if plan.update else {}
    updated |= {"storage": plan.storage} if plan.storage != PAIR else {}
    return {**head, **scores, **ids, **updated, **({"warnings": warnings} if warnings else {})}


def _of_formats(scores: dict[str, Any], plan: Plan, loaded: LoadedModel) -> dict[str, Any]:
    """Scores of a plan with number formats: its true bytes, no speed (that of 16 bits would be), and notes."""
    packed = f"{loaded.packed} ({bits_of(loaded.packed):g} bits per weight)" if loaded.packed else ""
    notes = format_notes(loaded.card, plan, packed)
    cost = {**scores["cost"], "bytes": sizes_of(loaded.card, plan)["model_bytes"]}
    said = [f"{plan.method.upper() if plan.method in METHODS else plan.method}: {note}." for note in notes[:-1]]
    return {**scores, "cost": cost, "note": "; ".join(notes), "warnings": [*scores.get("warnings", []), *said]}


def _calibrated_on(plan: Plan, spec: EvaluateSpec) -> list[str]:
    """Texts that the plan's ranks and factors come from; of files that are gone nothing can be reported on."""
    made_with = plan.origin.get("calibration")
    ranks = made_with.get("texts", ()) if isinstance(made_with, dict) else ()
    return [*spec.calibration.texts, *(text for text in map(str, ranks) if is_file(text))]


def _reported(name: str, spec: EvaluationSpec, calibrated_on: Sequence[str], tokenizer: Any) -> tuple[Tensor, str]:
    """[n, window] token ids of what is reported on of a text, and what the user should know about it."""
    cut = partial(
        sequential_windows,
        tokenizer=tokenizer,
        window=spec.window,
        max_windows=spec.max_windows,
        stride=spec.stride,
        bos=wants_bos(spec.bos, tokenizer),
    )
    found = unseen_documents(name, calibrated_on)
    try:
        return cut(found.documents), found.warning
    except TextError:
        if not found.warning:
            raise
        words = f"What is left of {text_label(name)} is too short for a window: all of it is scored. {found.warning}"
        return cut(load_documents(name)), words.replace(" and are not reported on", "")


def _measure(
    run: Run, spec: EvaluationSpec, session: Session, calibrated_on: Sequence[str], *, timed: bool = True
) -> tuple[dict[str, Any], Cost]:
    """Perplexities, accuracies, a text sample and the cost of the model as it is now; and that cost by itself."""
    model, tokenizer = session.loaded.model, session.loaded.tokenizer
    _require_perplexity(session, spec)
    texts, details, warnings = {}, {}, []
    for name in spec.texts:
        windows, warning = _reported(name, spec, calibrated_on, tokenizer)
        warnings += [warning] if warning else []
        require_fit(model, windows)
        score = perplexity(
            model,
            windows,
            stride=spec.stride,
            seed=spec.seed,
            on_progress=_named(session.on_progress, name),
            should_stop=session.should_stop,
        )
        texts[name] = {"value": score.value, "stderr": score.stderr}
        details[name] = {
            "losses": score.window_losses,
            "tokens": score.window_tokens,
            "bytes": _scored_bytes(windows, score.window_tokens, tokenizer),
            "digest": hashlib.sha256(windows.numpy().tobytes()).hexdigest()[:16],
        }
    tasks = _zero_shot(spec, session) if spec.tasks else {}
    session.on_progress(Progress("text sample and speed"))
    write_json(run.path / "scores.json", {"windows": details, "tasks": {k: asdict(v) for k, v in tasks.items()}})
    sample, failed = _sample(session)
    cost = _cost(session, timed=timed)
    said = [*session.loaded.warnings, length_warning(model_positions(model), spec.window), failed, cost.note]
    scores = {
        "perplexity": texts,
        "zero_shot": {name: score.to_dict() for name, score in tasks.items()},
        "sample": {"prompt": DEFAULT_PROMPT, "text": sample},
        "cost": cost.to_dict(),
        "dtype": str(session.loaded.dtype).removeprefix("torch."),
        "warnings": [*warnings, *(words for words in said if words)],
    }
    return scores, cost


def _require_perplexity(session: Session, spec: EvaluationSpec) -> None:
    """Refuse before the first pass what cannot be measured: a model that sees what follows, or too long a window.

    Raises:
        EvaluationError: says which.
    """
    if not session.loaded.causal:
        raise EvaluationError(
            f"{NOT_CAUSAL} Its loss on a text is not that of predicting it, so it has no perplexity.",
            "Choose a causal language model (decoder only); of this one the spectra can be looked at.",
        )
    require_length(model_positions(session.loaded.model), spec.window)


def _sample(session: Session) -> tuple[str, str]:
    """The text sample, and what went wrong with it: what is measured is not thrown away for it."""
    if residence_of(session.loaded.model) is not None:
        return "", _NO_SAMPLE
    try:
        return greedy_sample(session.loaded.model, session.loaded.tokenizer), ""
    except (CancelledError, MemoryError, OutOfMemoryError):
        raise
    except Exception as error:  # a family's own code raises whatever it likes
        return "", f"No text sample could be written: {str(error).strip() or type(error).__name__}"


def _cost(session: Session, *, timed: bool) -> Cost:
    """Size and speed of the model as it is now; one whose blocks come and go is only counted."""
    model = session.loaded.model
    if residence_of(model) is None and timed:
        return measure_cost(model, should_stop=session.should_stop)
    return Cost(*held_size(model), None, None)


def _zero_shot(spec: EvaluationSpec, session: Session) -> dict[str, TaskScore]:
    require_whole(session.loaded.model, "Scoring tasks")
    from lrc_core.evaluate.zero_shot import zero_shot  # lm-eval takes seconds to import

    return zero_shot(
        session.loaded.model,
        session.loaded.tokenizer,
        spec.tasks,
        items=spec.items,
        seed=spec.seed,
        include_path=spec.include_path,
        on_progress=session.on_progress,
        should_stop=session.should_stop,
    )


def _scored_bytes(windows: Tensor, tokens: Sequence[int], tokenizer: Any) -> list[int]:
    """UTF-8 bytes of the text scored in every window: what makes models with different tokenizers comparable."""
    parts = [row[-count:].tolist() for row, count in zip(windows, tokens, strict=True)]
    return [len(tokenizer.decode(part, skip_special_tokens=True).encode()) for part in parts]


def _named(on_progress: OnProgress, name: str) -> OnProgress:
    def call(tick: Progress) -> None:
        on_progress(replace(tick, phase=f"{tick.phase} on {text_label(name)}"))

    return call

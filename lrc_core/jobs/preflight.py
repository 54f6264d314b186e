"""What can be said before a job is queued: names, targets, settings, files, and the model by its headers. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lrc_core.allocate
import lrc_core.decompose  # noqa: F401 - registers the decompositions, as the line above does the allocators
from lrc_core.errors import BudgetError, EvaluationError, ModelError, SettingsError, TextError
from lrc_core.paths import runs_home
from lrc_core.plan import Plan
from lrc_core.quality.variants import PARTS, variants
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS
from lrc_core.runs.spec import (
    GENERATED,
    LESSON_PARTS,
    AblationSpec,
    AllocateSpec,
    AnswerSpec,
    CalibrationSpec,
    CompareSpec,
    EvaluateSpec,
    EvaluationSpec,
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
from lrc_core.settings import build
from lrc_core.tune.kinds import NO_UPDATE, check_kinds, update_settings

MOST_ANSWERS = 4
"""Models that answer one prompt: the dense one and three plans."""


def check(spec: Spec, *, model_too: bool = True, runs: Path | None = None) -> None:
    """Refuse a job that cannot succeed, before it waits for its turn.

    Args:
        spec: what to do.
        model_too: look at the model's headers as well.
        runs: the folder of runs, which plans name their files' folders relative to; the user's by default.

    Raises:
        LrcError: naming the value, file or model that is wrong.
    """
    _check_plans(spec, runs or runs_home())
    if type(spec) in _OWN:
        _OWN[type(spec)](spec)
    if not isinstance(spec, FetchSpec | GenerateSpec):
        check_calibration(spec.calibration)
    if isinstance(spec, EvaluateSpec | CompareSpec | QualitySpec | AblationSpec):
        check_evaluation(spec.evaluation)
    if model_too:
        _check_models(spec)


def _check_allocate(spec: AllocateSpec) -> None:
    check_keep(spec.keep)
    check_decompositions([spec.decomposition])
    ALLOCATORS.get(spec.method).settings(None, spec.settings)


def _check_update(spec: UpdateSpec) -> None:
    update_settings(spec.settings)


def check_keep(keep: float) -> None:
    """Refuse a share that no model can keep; what the smallest plan of a model allows is checked by the job.

    Raises:
        BudgetError: not a number above 0 and at most 1.
    """
    if not (isinstance(keep, int | float) and math.isfinite(keep) and 0 < keep <= 1):
        raise BudgetError(
            f"The share to keep must be above 0 and at most 1, not {keep}.", "A compression of 20 % keeps 0.8."
        )


def check_decompositions(names: Iterable[str]) -> None:
    """Refuse unknown decompositions.

    Raises:
        UnknownNameError: with the closest known names.
    """
    for name in names:
        DECOMPOSITIONS.get(name)


def _check_models(spec: Spec) -> None:
    if isinstance(spec, SpectraSpec) and spec.stream:
        check_outline(spec.model)
        return
    check_model(spec.model)
    for source in spec.references if isinstance(spec, QualitySpec) else ():
        check_model(ModelRef(source))


def _check_spectra(spec: SpectraSpec) -> None:
    check_decompositions(spec.decompositions)
    if spec.stream and spec.decompositions != ("svd",):
        raise SettingsError(
            "Only the plain SVD can be streamed: the other decompositions need the model's activations.",
            "Ask for the decomposition svd, or do not stream.",
        )
    if spec.stream and spec.subspaces:
        raise SettingsError("Streaming reads singular values only, not the subspaces.", "Leave one of the two away.")


def _check_generate(spec: GenerateSpec) -> None:
    if not spec.prompt.strip():
        raise SettingsError("The prompt is empty.", "Write a question, or the beginning of a text.")
    if not 1 <= len(spec.answers) <= MOST_ANSWERS:
        raise SettingsError(
            f"{len(spec.answers)} models are asked, but it must be 1 to {MOST_ANSWERS}.",
            "The dense model and up to three compressed ones stand side by side.",
        )
    build(SamplingSpec, asdict(spec.sampling))


def _check_plans(spec: Spec, runs: Path) -> None:
    """Refuse plans that are damaged or whose files are missing."""
    with_plans = spec.answers if isinstance(spec, GenerateSpec) else [spec]
    for one in with_plans:
        if isinstance(one, AnswerSpec | EvaluateSpec | UpdateSpec) and one.plan is not None:
            Plan.from_dict(dict(one.plan)).require_files(one.plan_folder, runs)


def _check_compare(spec: CompareSpec) -> None:
    for keep in spec.keeps:
        check_keep(keep)
    check_decompositions([spec.decomposition])
    for method in spec.methods:
        ALLOCATORS.get(method).settings(spec.presets.get(method))
    check_kinds([spec.update] if spec.update != NO_UPDATE else [])
    if unused := set(spec.presets) - set(spec.methods):
        raise SettingsError(f"A preset is given for {sorted(unused)[0]!r}, which is not compared.")
    if not spec.methods or not spec.keeps:
        raise SettingsError("A comparison needs at least one method and one share to keep.")


def _check_quality(spec: QualitySpec) -> None:
    _check_bench(spec)
    check_decompositions(spec.decompositions)
    for name in spec.baselines:
        method, _, update = name.partition("+")
        ALLOCATORS.get(method)
        check_kinds([update] if update else [])
    check_kinds([update for update in spec.updates if update != NO_UPDATE])
    if not spec.updates:
        raise SettingsError("A bench needs at least one kind of update.", f"{NO_UPDATE!r}: plans as allocated.")
    if not spec.decompositions:
        raise SettingsError("A bench needs at least one decomposition.")


def _check_ablation(spec: AblationSpec) -> None:
    _check_bench(spec)
    check_decompositions([spec.decomposition])
    if unknown := set(spec.parts) - set(PARTS):
        raise SettingsError(f"There is no ablation {sorted(unknown)[0]!r}.", f"Choose from {', '.join(PARTS)}.")
    for method in spec.methods:
        preset = spec.presets.get(method, next(iter(ALLOCATORS.get(method).presets)))
        variants(method, preset, spec.parts, spec.texts)
    if "texts" in spec.parts:
        _check_texts(spec.texts)


def _check_bench(spec: QualitySpec | AblationSpec) -> None:
    for keep in (*spec.keeps, *spec.task_keeps):
        check_keep(keep)
    for method in spec.methods:
        ALLOCATORS.get(method).settings(spec.presets.get(method))
    if unused := set(spec.presets) - set(spec.methods):
        raise SettingsError(f"A preset is given for {sorted(unused)[0]!r}, which is not on the bench.")
    if not spec.methods or not spec.keeps or not spec.seeds:
        raise SettingsError("A bench needs at least one method, one share to keep and one seed.")


def _check_lesson(spec: LessonSpec) -> None:
    check_keep(spec.keep)
    if unknown := set(spec.parts) - set(LESSON_PARTS):
        known = ", ".join(LESSON_PARTS)
        raise SettingsError(f"A lesson has no part {sorted(unknown)[0]!r}.", f"Choose from {known}.")
    if not spec.parts:
        raise SettingsError("A lesson needs at least one part.", f"Choose from {', '.join(LESSON_PARTS)}.")


def check_calibration(calibration: CalibrationSpec) -> None:
    """Refuse calibration without text or windows.

    Raises:
        TextError, SettingsError: naming the file or the number.
    """
    _check_texts(calibration.texts)
    _check_number("calibration windows", calibration.windows, 1)
    _check_number("calibration window", calibration.window, 2)


def check_evaluation(evaluation: EvaluationSpec) -> None:
    """Refuse an evaluation whose files or numbers cannot be right.

    Raises:
        TextError, EvaluationError, SettingsError: naming the file or the number.
    """
    _check_texts(evaluation.texts)
    if GENERATED in evaluation.texts:
        raise TextError(f"The text {GENERATED} is written by the model itself and can only be calibrated on.")
    _check_number("window", evaluation.window, 2)
    for name, value in (
        ("max-windows", evaluation.max_windows),
        ("stride", evaluation.stride),
        ("items", evaluation.items),
    ):
        _check_number(name, value, 0)
    if evaluation.stride > evaluation.window:
        raise SettingsError(f"The stride {evaluation.stride} is longer than the window {evaluation.window}.")
    if evaluation.bos not in ("auto", "yes", "no"):
        raise SettingsError(f"BOS cannot be {evaluation.bos!r}.", "Choose one of auto, yes, no.")
    if evaluation.include_path and not Path(evaluation.include_path).is_dir():
        raise EvaluationError(f"There is no folder {evaluation.include_path} of task files.")


def check_model(model: ModelRef) -> None:
    """Look at the model's headers without loading it.

    Raises:
        ModelError: it cannot be found, read or compressed, or memory or disk do not suffice.
    """
    from lrc_core.models.preflight import preflight

    found = preflight(model)
    if found.problems:
        raise ModelError(" ".join(found.problems))


def check_outline(model: ModelRef) -> None:
    """Look at a model that is to be streamed: its headers must be readable and its largest matrix must fit.

    Raises:
        ModelError: it cannot be found, or its files hold no matrices of decoder blocks.
        ResourceError: memory or disk do not suffice for one matrix or shard.
    """
    from lrc_core.models.outline import read_outline, require_room

    require_room(read_outline(model))


def _check_texts(texts: Sequence[str]) -> None:
    if not texts:
        raise TextError("No text is named.", "The built-in ones are wiki, c4 and gensim.")
    for text in texts:
        if Path(text).is_absolute() and not Path(text).is_file():
            raise TextError(f"There is no text file {text}.")


def _check_number(name: str, value: int, least: int) -> None:
    if value < least:
        raise SettingsError(f"The number given for {name} is {value}, but must be at least {least}.")


_OWN: dict[type, Callable[[Any], None]] = {
    SpectraSpec: _check_spectra,
    AllocateSpec: _check_allocate,
    UpdateSpec: _check_update,
    CompareSpec: _check_compare,
    QualitySpec: _check_quality,
    AblationSpec: _check_ablation,
    LessonSpec: _check_lesson,
    GenerateSpec: _check_generate,
}
"""What is asked of each kind alone."""

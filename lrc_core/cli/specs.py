"""From the words of a command to the spec of its job. No torch."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lrc_core.allocate  # noqa: F401 - registers the allocators
from lrc_core.errors import EvaluationError, SettingsError, TextError
from lrc_core.jobs.command import BENCH_PRESET, COMPARE_TASKS, NO_PRESET
from lrc_core.models.starter import TEXTS
from lrc_core.quality.presets import PRESETS, BenchPreset, bench_preset, method_presets
from lrc_core.quality.variants import methods_with_terms
from lrc_core.registry import ALLOCATORS
from lrc_core.results.plans import find_plan
from lrc_core.runs.spec import (
    GENERATED,
    AblationSpec,
    AllocateSpec,
    CalibrationSpec,
    CompareSpec,
    EvaluateSpec,
    EvaluationSpec,
    FetchSpec,
    LessonSpec,
    ModelRef,
    QualitySpec,
    SpectraSpec,
    UpdateSpec,
)
from lrc_core.runs.store import RunStore
from lrc_core.tune.kinds import update_settings

_BUILT_IN = (*TEXTS, "gensim", GENERATED)
_FILE_ENDINGS = (".txt", ".md", ".json", ".jsonl", ".utf8")


def model_ref(arguments: argparse.Namespace) -> ModelRef:
    """The model; a local folder or file by its absolute path, so that the worker finds it."""
    source = _source(getattr(arguments, "named_model", None) or arguments.model)
    return ModelRef(source, arguments.revision, arguments.trust_remote_code, arguments.allow_pickle)


def fetch_spec(arguments: argparse.Namespace) -> FetchSpec:
    """Spec of ``lrc fetch``."""
    return FetchSpec(model_ref(arguments))


def spectra_spec(arguments: argparse.Namespace) -> SpectraSpec:
    """Spec of ``lrc spectra``. A streamed one needs no text, so that no text makes it another run."""
    if arguments.stream:
        wanted = tuple(arguments.decompositions or ("svd",))
        return SpectraSpec(model_ref(arguments), wanted, subspaces=arguments.subspaces, stream=True)
    return SpectraSpec(
        model=model_ref(arguments),
        decompositions=tuple(arguments.decompositions or SpectraSpec().decompositions),
        subspaces=arguments.subspaces,
        calibration=_with(
            CalibrationSpec(seed=arguments.seed),
            texts=_texts(arguments.text),
            windows=arguments.windows,
            window=arguments.window,
        ),
    )


def allocate_spec(arguments: argparse.Namespace) -> AllocateSpec:
    """Spec of ``lrc allocate``: preset and single settings become the complete settings."""
    entry = ALLOCATORS.get(arguments.method)
    preset = next(iter(entry.presets), "") if arguments.preset is None else arguments.preset
    preset = "" if preset == NO_PRESET else preset
    settings = entry.settings(preset or None, dict(_pair(word) for word in arguments.set))
    return AllocateSpec(
        model=model_ref(arguments),
        method=entry.name,
        decomposition=arguments.decomposition,
        keep=arguments.keep,
        preset=preset,
        settings=asdict(settings),
        calibration=_with(
            CalibrationSpec(seed=arguments.seed),
            texts=_texts(arguments.text),
            windows=arguments.windows,
            window=arguments.window,
            seed=arguments.calibration_seed,
        ),
        seed=arguments.seed,
    )


def update_spec(arguments: argparse.Namespace, store: RunStore) -> UpdateSpec:
    """Spec of ``lrc update``. A run's plan is updated on that run's calibration text unless told otherwise.

    Raises:
        PlanError: there is no such plan.
    """
    found = find_plan(arguments.plan, store)
    settings = update_settings({"kind": arguments.kind, **dict(_pair(word) for word in arguments.set)})
    return UpdateSpec(
        model=model_ref(arguments),
        plan=found.plan,
        plan_folder=found.folder,
        settings=asdict(settings),
        calibration=_calibration(arguments, found.calibration or CalibrationSpec()),
    )


def evaluate_spec(arguments: argparse.Namespace, store: RunStore) -> EvaluateSpec:
    """Spec of ``lrc evaluate``. A run's plan is measured with that run's calibration unless told otherwise.

    Raises:
        PlanError: there is no such plan.
    """
    found = find_plan(arguments.plan, store) if arguments.plan else None
    calibration = (found.calibration if found else None) or CalibrationSpec()
    return EvaluateSpec(
        model=model_ref(arguments),
        plan=found.plan if found else None,
        plan_folder=found.folder if found else "",
        calibration=_calibration(arguments, calibration),
        evaluation=_evaluation(arguments, EvaluationSpec(seed=arguments.seed)),
    )


def compare_spec(arguments: argparse.Namespace) -> CompareSpec:
    """Spec of ``lrc compare``."""
    evaluation = _evaluation(arguments, EvaluationSpec(tasks=COMPARE_TASKS, seed=arguments.seed))
    return CompareSpec(
        model=model_ref(arguments),
        methods=tuple(arguments.methods),
        keeps=tuple(arguments.keep),
        decomposition=arguments.decomposition,
        presets=_presets(arguments.preset, arguments.methods),
        calibration=_calibration(arguments, CalibrationSpec(seed=arguments.seed)),
        evaluation=_with(evaluation, seed=arguments.evaluation_seed),
        seed=arguments.seed,
        update=arguments.update,
    )


def quality_spec(arguments: argparse.Namespace) -> QualitySpec:
    """Spec of ``lrc bench quality``: every registered method unless some are named."""
    size, words = _bench_size(arguments.preset)
    methods = tuple(arguments.methods or ALLOCATORS.names())
    return QualitySpec(
        model=model_ref(arguments),
        methods=methods,
        keeps=tuple(arguments.keep),
        decompositions=tuple(arguments.decomposition),
        seeds=tuple(arguments.seeds),
        presets={**method_presets(size, methods), **_presets(words, methods)},
        references=tuple(_source(name) for name in arguments.references),
        baselines=tuple(arguments.against),
        updates=tuple(arguments.update),
        calibration=_calibration(arguments, size.calibration),
        evaluation=_with(_evaluation(arguments, size.evaluation), seed=arguments.evaluation_seed),
        task_keeps=tuple(arguments.task_keeps),
        share_path=arguments.share_path,
    )


def ablation_spec(arguments: argparse.Namespace) -> AblationSpec:
    """Spec of ``lrc bench ablation``: every registered method whose loss terms are known unless some are named."""
    size, words = _bench_size(arguments.preset)
    methods = tuple(arguments.methods or methods_with_terms())
    evaluation = _evaluation(arguments, replace(size.evaluation, tasks=()))
    return AblationSpec(
        model=model_ref(arguments),
        methods=methods,
        keeps=tuple(arguments.keep),
        parts=tuple(arguments.parts),
        texts=_texts(arguments.ablation_texts) or (),
        decomposition=arguments.decomposition,
        seeds=tuple(arguments.seeds),
        presets={**method_presets(size, methods), **_presets(words, methods)},
        calibration=_calibration(arguments, size.calibration),
        evaluation=_with(evaluation, seed=arguments.evaluation_seed),
        task_keeps=tuple(arguments.task_keeps),
        share_path=arguments.share_path,
    )


def lesson_spec(arguments: argparse.Namespace) -> LessonSpec:
    """Spec of ``lrc lesson``."""
    return LessonSpec(
        model=model_ref(arguments),
        layers=tuple(arguments.layers or ()),
        keep=arguments.keep,
        parts=tuple(arguments.parts),
        prompt=arguments.prompt,
        calibration=_with(
            CalibrationSpec(seed=arguments.seed),
            texts=_texts(arguments.text),
            windows=arguments.windows,
            window=arguments.window,
        ),
    )


def _bench_size(words: Sequence[str]) -> tuple[BenchPreset, list[str]]:
    """The bench's own preset among the words of ``--preset``, and the words that are about methods."""
    sizes = [word for word in words if word in PRESETS]
    return bench_preset(sizes[-1] if sizes else BENCH_PRESET), [word for word in words if word not in PRESETS]


def _source(name: str) -> str:
    """A model as the worker finds it: a local folder or file by its absolute path."""
    path = Path(name).expanduser()
    return os.path.abspath(path) if name != "starter" and path.exists() else name


def _calibration(arguments: argparse.Namespace, default: CalibrationSpec) -> CalibrationSpec:
    return _with(
        default,
        texts=_texts(arguments.calibration_text),
        windows=arguments.windows,
        window=arguments.calibration_window,
        seed=arguments.calibration_seed,
    )


def _evaluation(arguments: argparse.Namespace, default: EvaluationSpec) -> EvaluationSpec:
    return _with(
        default,
        texts=_texts(arguments.text),
        window=arguments.window,
        max_windows=arguments.max_windows,
        stride=arguments.stride,
        bos=arguments.bos,
        tasks=None if arguments.tasks is None else tuple(arguments.tasks),
        items=arguments.items,
        include_path=_folder(arguments.include_path),
    )


def _with(record: Any, **values: Any) -> Any:
    """The record with what the user gave; None means that nothing was."""
    return replace(record, **{name: value for name, value in values.items() if value is not None})


def _texts(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return tuple(_text(name) for name in names) if names else None


def _text(name: str) -> str:
    """Built-in names as they are, files by absolute path, hub data sets as they are."""
    if name in _BUILT_IN:
        return name
    path = Path(name).expanduser()
    if path.is_file():
        return os.path.abspath(path)
    looks_like_file = path.is_absolute() or name.startswith((".", "~")) or path.suffix in _FILE_ENDINGS
    if looks_like_file or "/" not in name:
        raise TextError(
            f"There is no text {name!r}.",
            f"Name a file, a hub data set (owner/name), or one of {', '.join(_BUILT_IN)}.",
        )
    return name


def _folder(name: str | None) -> str | None:
    if name is None:
        return None
    path = Path(name).expanduser()
    if not path.is_dir():
        raise EvaluationError(f"There is no folder {name} of task files.", "Give --include-path a folder.")
    return os.path.abspath(path)


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not (key and equals):
        raise SettingsError(f"--set needs KEY=VALUE, not {word!r}.")
    return key.strip().replace("-", "_"), value


def _presets(words: Sequence[str], methods: Sequence[str]) -> dict[str, str]:
    """``NAME`` counts for every method that has it (left out where it is the first one), ``METHOD=NAME`` for one."""
    presets: dict[str, str] = {}
    for word in words:
        method, equals, name = word.partition("=")
        if equals:
            presets[method] = name
            continue
        entries = [ALLOCATORS.get(method) for method in methods]
        having = [entry for entry in entries if word in entry.presets]
        if not having:
            known = sorted({preset for entry in entries for preset in entry.presets})
            raise SettingsError(f"No compared method has a preset {word!r}.", f"Choose one of {', '.join(known)}.")
        presets |= {entry.name: word for entry in having if next(iter(entry.presets)) != word}
    return presets

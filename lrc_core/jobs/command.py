"""The command line that does what a spec says, ready to copy. Reading it back gives the same spec. No torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import lrc_core.allocate  # noqa: F401 - registers the allocators
from lrc_core.quality.presets import bench_preset
from lrc_core.registry import ALLOCATORS
from lrc_core.results.plans import DENSE_WORD, find_plan, own_words, words_for, words_for_answer
from lrc_core.runs.spec import (
    AblationSpec,
    AllocateSpec,
    CalibrationSpec,
    CompareSpec,
    EvaluateSpec,
    EvaluationSpec,
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
from lrc_core.tune.kinds import KINDS, update_settings

COMPARE_TASKS = ("arc_easy", "piqa")
"""Zero-shot tasks of a comparison when none are named: two of the starter pack's, so that no network is needed."""
BENCH_PRESET = "bench"
"""Preset of a bench when none is named."""
NO_PRESET = "none"
"""How the command line says that settings are given without a preset."""


def command_for(spec: Spec, store: RunStore | None = None) -> str:
    """The ``lrc ...`` line that submits this spec.

    Args:
        spec: any spec.
        store: where a plan's run is looked up; the user's runs by default.
    """
    if isinstance(spec, SpectraSpec):
        arguments = _spectra(spec)
    elif isinstance(spec, AllocateSpec):
        arguments = _allocate(spec)
    elif isinstance(spec, UpdateSpec):
        arguments = _update(spec, store or RunStore())
    elif isinstance(spec, EvaluateSpec):
        arguments = _evaluate(spec, store or RunStore())
    elif isinstance(spec, CompareSpec):
        arguments = _compare(spec)
    elif isinstance(spec, QualitySpec):
        arguments = _quality(spec)
    elif isinstance(spec, AblationSpec):
        arguments = _ablation(spec)
    elif isinstance(spec, LessonSpec):
        arguments = _lesson(spec)
    elif isinstance(spec, GenerateSpec):
        arguments = _generate(spec, store or RunStore())
    else:
        arguments = []
    command = ["bench", spec.kind] if isinstance(spec, QualitySpec | AblationSpec) else [spec.kind]
    return shlex.join(["lrc", *command, spec.model.source, *_model(spec.model), *arguments])


def _model(model: ModelRef) -> list[str]:
    return [
        *_option("--revision", model.revision, ""),
        *(["--trust-remote-code"] if model.trust_remote_code else []),
        *(["--allow-pickle"] if model.allow_pickle else []),
    ]


def _spectra(spec: SpectraSpec) -> list[str]:
    if spec.stream:
        return ["--stream"]
    decompositions = spec.decompositions
    return [
        *(["--decompositions", *decompositions] if decompositions != SpectraSpec().decompositions else []),
        *(["--subspaces"] if spec.subspaces else []),
        *_calibration(spec.calibration, CalibrationSpec(), own=True),
    ]


def _allocate(spec: AllocateSpec) -> list[str]:
    entry = ALLOCATORS.get(spec.method)
    base = asdict(entry.settings(spec.preset or None))
    changed = {key: value for key, value in spec.settings.items() if key not in base or base[key] != value}
    return [
        *("--method", spec.method),
        *("--keep", str(spec.keep)),
        *("--decomposition", spec.decomposition),
        *("--preset", spec.preset or NO_PRESET),
        *(word for key, value in changed.items() for word in ("--set", f"{key}={value}")),
        *_option("--seed", spec.seed, 0),
        *_calibration(spec.calibration, CalibrationSpec(seed=spec.seed), own=True, seed_flag="--calibration-seed"),
    ]


def _evaluate(spec: EvaluateSpec, store: RunStore) -> list[str]:
    if spec.plan is None:
        return [
            *evaluation_words(spec.evaluation),
            *_calibration(spec.calibration, CalibrationSpec()),
        ]
    words, default = _plan_words(spec, store)
    return [
        *("--plan", words),
        *evaluation_words(spec.evaluation),
        *_calibration(spec.calibration, default),
    ]


def _update(spec: UpdateSpec, store: RunStore) -> list[str]:
    words, default = _plan_words(spec, store)
    base = asdict(update_settings({"kind": spec.settings.get("kind", KINDS[0])}))
    settings = {**base, **spec.settings}
    changed = {key: value for key, value in settings.items() if key not in base or base[key] != value}
    changed.pop("kind", None)
    return [
        *("--plan", words),
        *("--kind", str(settings["kind"])),
        *(word for key, value in changed.items() for word in ("--set", f"{key}={value}")),
        *_calibration(spec.calibration, default),
    ]


def _plan_words(spec: EvaluateSpec | UpdateSpec, store: RunStore) -> tuple[str, CalibrationSpec]:
    """What finds the plan, and the calibration that it brings along."""
    words = words_for(spec, store)
    if words == own_words(spec):
        return words, spec.calibration
    return words, find_plan(words, store).calibration or CalibrationSpec()


def _compare(spec: CompareSpec) -> list[str]:
    return [
        *("--keep", *(str(keep) for keep in spec.keeps)),
        *("--methods", *spec.methods),
        *_option("--decomposition", spec.decomposition, "whitened"),
        *(word for method, preset in spec.presets.items() for word in ("--preset", f"{method}={preset}")),
        *_option("--update", spec.update, CompareSpec().update),
        *_evaluation(spec.evaluation, EvaluationSpec(tasks=COMPARE_TASKS)),
        *_option("--seed", spec.seed, 0),
        *_option("--evaluation-seed", spec.evaluation.seed, spec.seed),
        *_calibration(spec.calibration, CalibrationSpec(seed=spec.seed)),
    ]


def _quality(spec: QualitySpec) -> list[str]:
    default = QualitySpec()
    return [
        *("--decomposition", *spec.decompositions),
        *_list("--references", spec.references, ()),
        *_list("--against", spec.baselines, default.baselines),
        *_list("--update", spec.updates, default.updates),
        *_bench(spec, bench_preset(BENCH_PRESET).evaluation),
    ]


def _ablation(spec: AblationSpec) -> list[str]:
    default = AblationSpec()
    return [
        *("--decomposition", spec.decomposition),
        *_list("--parts", spec.parts, default.parts),
        *_list("--ablation-texts", spec.texts, default.texts),
        *_bench(spec, replace(bench_preset(BENCH_PRESET).evaluation, tasks=())),
    ]


def _bench(spec: QualitySpec | AblationSpec, evaluation: EvaluationSpec) -> list[str]:
    """What both benches have; options that take several words go last but for single flags."""
    return [
        *("--keep", *(str(keep) for keep in spec.keeps)),
        *("--methods", *spec.methods),
        *(word for method, preset in spec.presets.items() for word in ("--preset", f"{method}={preset}")),
        *_list("--seeds", spec.seeds, (0,)),
        *_list("--task-keeps", spec.task_keeps, QualitySpec().task_keeps),
        *_evaluation(spec.evaluation, evaluation),
        *_option("--evaluation-seed", spec.evaluation.seed, 0),
        *_calibration(spec.calibration, CalibrationSpec()),
        *([] if spec.share_path else ["--no-share-path"]),
    ]


def _lesson(spec: LessonSpec) -> list[str]:
    default = LessonSpec()
    return [
        *_list("--layers", spec.layers, ()),
        *_option("--keep", spec.keep, default.keep),
        *_list("--parts", spec.parts, default.parts),
        *_option("--prompt", spec.prompt, ""),
        *_calibration(spec.calibration, CalibrationSpec(), own=True, seed_flag="--seed"),
    ]


def _generate(spec: GenerateSpec, store: RunStore) -> list[str]:
    """Answers are named in their order; the dense model, which comes first by itself, only where it does not."""
    dense = [number for number, answer in enumerate(spec.answers) if answer.plan is None]
    named = [
        DENSE_WORD if answer.plan is None else words_for_answer(spec, number, store)
        for number, answer in enumerate(spec.answers)
    ]
    default, sampling = asdict(SamplingSpec()), asdict(spec.sampling)
    return [
        *(["--no-dense"] if not dense else []),
        *_list("--plan", named[1:] if dense == [0] else named, ()),
        *([f"--prompt={spec.prompt}"] if spec.prompt.startswith("-") else ["--prompt", spec.prompt]),
        *(
            word
            for name, value in sampling.items()
            for word in _option(f"--{name.replace('_', '-')}", value, default[name])
        ),
    ]


def _list(flag: str, values: Iterable[Any], default: Iterable[Any]) -> list[str]:
    return [] if tuple(values) == tuple(default) else [flag, *(str(value) for value in values)]


def _calibration(
    calibration: CalibrationSpec, default: CalibrationSpec, *, own: bool = False, seed_flag: str = ""
) -> list[str]:
    """Calibration flags; ``own``: the command has no other text, so that they go without a prefix."""
    prefix = "--" if own else "--calibration-"
    texts = [] if calibration.texts == default.texts else _each(f"{prefix}text", calibration.texts)
    return [
        *texts,
        *_option("--windows", calibration.windows, default.windows),
        *_option(f"{prefix}window", calibration.window, default.window),
        *_option(seed_flag or f"{prefix}seed", calibration.seed, default.seed),
    ]


def _evaluation(evaluation: EvaluationSpec, default: EvaluationSpec) -> list[str]:
    return [
        *([] if evaluation.texts == default.texts else _each("--text", evaluation.texts)),
        *_option("--window", evaluation.window, default.window),
        *_option("--max-windows", evaluation.max_windows, default.max_windows),
        *_option("--stride", evaluation.stride, default.stride),
        *_option("--bos", evaluation.bos, default.bos),
        *([] if evaluation.tasks == default.tasks else ["--tasks", *evaluation.tasks]),
        *_option("--items", evaluation.items, default.items),
        *_option("--include-path", evaluation.include_path, default.include_path),
    ]


def evaluation_words(evaluation: EvaluationSpec) -> list[str]:
    """The flags of ``lrc evaluate`` that say what is measured."""
    return [*_evaluation(evaluation, EvaluationSpec()), *_option("--seed", evaluation.seed, 0)]


def _option(flag: str, value: Any, default: Any) -> list[str]:
    return [] if value == default else [flag, str(value)]


def _each(flag: str, values: Iterable[str]) -> list[str]:
    return [word for value in values for word in (flag, value)]

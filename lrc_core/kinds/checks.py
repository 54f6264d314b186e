"""Checks that several kinds of run share: names, targets, texts, numbers, and the model by its headers. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lrc_core.allocate
import lrc_core.decompose  # noqa: F401 - registers the decompositions, as the line above does the allocators
from lrc_core.errors import (
    EvaluationError,
    LrcError,
    ModelError,
    OtherModelError,
    PlanError,
    ResourceError,
    SettingsError,
    TextError,
)
from lrc_core.models.checks.positions import require_lengths
from lrc_core.models.onload.choice import LAYER_LOCAL
from lrc_core.paths import samples_home
from lrc_core.plan import OTHER_MODEL, Plan
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS
from lrc_core.results.archive import Archive
from lrc_core.runs.spec import (
    GENERATED,
    AllocateSpec,
    CalibrationSpec,
    CompareSpec,
    EvaluateSpec,
    EvaluationSpec,
    ExportSpec,
    FetchSpec,
    ModelRef,
    SpectraSpec,
    UpdateSpec,
)
from lrc_core.runs.store import RunStore
from lrc_core.texts.documents import load_documents, require_known
from lrc_core.texts.files import is_file
from lrc_core.types import ModelCard
from lrc_core.updates import UPDATES
from lrc_core.words import data_size

EVALUATED = "evaluation window"
"""What the window of an evaluation is called where it is too long."""
_NO_WINDOWS: Mapping[str, int] = {}


def check_decompositions(names: Iterable[str]) -> None:
    """Refuse unknown decompositions.

    Raises:
        UnknownNameError: with the closest known names.
    """
    for name in names:
        DECOMPOSITIONS.get(name)


def check_calibration(calibration: CalibrationSpec) -> None:
    """Refuse calibration without text or windows.

    Raises:
        TextError, SettingsError: naming the file or the number.
    """
    check_texts(calibration.texts)
    _check_number("calibration windows", calibration.windows, 1)
    _check_number("calibration window", calibration.window, 2)


def check_evaluation(evaluation: EvaluationSpec) -> None:
    """Refuse an evaluation whose files or numbers cannot be right.

    Raises:
        TextError, EvaluationError, SettingsError: naming the file or the number.
    """
    check_texts(evaluation.texts)
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
    if evaluation.tasks and find_spec("lm_eval") is None:
        remedy = 'Install it: `pip install "low-rank-compression-explorer[zero-shot]"`. Perplexities do without it.'
        raise EvaluationError("Accuracies on benchmark items need the package lm-eval.", remedy)
    if evaluation.include_path and not Path(evaluation.include_path).is_dir():
        raise EvaluationError(f"There is no folder {evaluation.include_path} of task files.")


def check_model(model: ModelRef, windows: Mapping[str, int] = _NO_WINDOWS, whole: str = "") -> None:
    """Look at the model's headers without loading it.

    Args:
        model: as the user names it.
        windows: lengths in tokens that it will be run on, by what they are called; see :func:`windows_of`.
        whole: what of the job needs the whole model in memory; see :func:`needs_whole`.

    Raises:
        ModelError: it cannot be found, read or compressed, or memory or disk do not suffice.
        EvaluationError: a window is longer than its positions.
        ResourceError: the job needs the whole model, and memory does not suffice for it.
    """
    from lrc_core.models.preflight import preflight

    found = preflight(model)
    if found.problems:
        raise ModelError(" ".join(found.problems))
    if whole and found.too_large:
        raise ResourceError(
            f"{whole} needs the whole model in memory: its weights take {data_size(found.weight_bytes)}, and "
            f"{data_size(found.memory_available)} are free.",
            LAYER_LOCAL,
        )
    require_lengths(found.positions, windows)


BY_BLOCKS = (SpectraSpec, AllocateSpec, UpdateSpec, EvaluateSpec, CompareSpec, ExportSpec)
"""Kinds of runs of which some, at least, can be done with one block of the model in memory at a time."""


def needs_whole(spec: Any) -> str:
    """What of a job needs the whole model in memory, as the subject of a sentence; "" where a block will do."""
    if isinstance(spec, BY_BLOCKS):
        reasons = (_writing(spec), _method(spec), _update(spec), _measurement(spec))
        return next((reason for reason in reasons if reason), "")
    return "" if isinstance(spec, FetchSpec) else "This kind of run"


def _writing(spec: Any) -> str:
    texts = getattr(getattr(spec, "calibration", None), "texts", ())
    return "Calibrating on text that the model writes itself" if GENERATED in texts else ""


def _method(spec: Any) -> str:
    names = (spec.method,) if isinstance(spec, AllocateSpec) else getattr(spec, "methods", ())
    curve = dict(getattr(spec, "settings", None) or {}).get("curve")
    for name in names:
        if spec.decomposition not in ALLOCATORS.get(name).layer_local or curve == "sensitivity":
            return f"The method {name} on the decomposition {spec.decomposition}"
    return ""


def _update(spec: Any) -> str:
    kinds = str(dict(spec.settings).get("kind")) if isinstance(spec, UpdateSpec) else getattr(spec, "update", "")
    reasons = (UPDATES.get(kind).whole for kind in kinds.split("+") if kind in UPDATES)
    return next(filter(None, reasons), "")


def _measurement(spec: Any) -> str:
    if getattr(getattr(spec, "evaluation", None), "tasks", ()):
        return "Scoring tasks (--tasks without a name leaves them out)"
    return "A plan that prunes structure" if (getattr(spec, "plan", None) or {}).get("structure_file") else ""


def windows_of(spec: Any) -> dict[str, int]:
    """Tokens of the windows that a job of that spec runs the model on, as far as it says, by what they are called."""
    evaluation, calibration = getattr(spec, "evaluation", None), getattr(spec, "calibration", None)
    found = {} if evaluation is None else {EVALUATED: evaluation.window}
    plan = getattr(spec, "plan", None) or {}
    names = (
        getattr(spec, "decomposition", ""),
        *getattr(spec, "decompositions", ()),
        "" if plan.get("weights_file") else plan.get("decomposition", ""),
    )
    if calibration is not None and any(name and DECOMPOSITIONS.get(name).statistics != "none" for name in names):
        found["calibration window"] = calibration.window
    settings = dict(getattr(spec, "settings", None) or {})
    own = {name: value for name, value in settings.items() if name.split("_")[-1] == "window" and value}
    return found | {f"setting '{name}'": value for name, value in own.items()}


def check_outline(model: ModelRef) -> None:
    """Look at a model that is to be streamed: its headers must be readable and its largest matrix must fit.

    Raises:
        ModelError: it cannot be found, or its files hold no matrices of decoder blocks.
        ResourceError: memory or disk do not suffice for one matrix or shard.
    """
    from lrc_core.models.outline import read_outline, require_room

    require_room(read_outline(model))


def check_texts(texts: Sequence[str]) -> None:
    """Refuse no text, names that stand for none, and files that are not there, are no text or hold none.

    Raises:
        TextError: naming the text or the file, what it is and how to convert it.
    """
    if not texts:
        raise TextError("No text is named.", "The built-in ones are wiki, c4 and gensim.")
    for text in texts:
        if Path(text).is_absolute() and not is_file(text):
            raise TextError(f"There is no text file {text}.")
        require_known(text)
        if is_file(text):
            load_documents(text)


def _check_number(name: str, value: int, least: int) -> None:
    if value < least:
        raise SettingsError(f"The number given for {name} is {value}, but must be at least {least}.")


def check_presets(presets: Mapping[str, str], methods: Sequence[str], where: str) -> None:
    """Refuse unknown methods and presets, and presets of methods that take no part.

    Args:
        where: what a method without a part is not: ``compared``.

    Raises:
        LrcError: naming the method or preset.
    """
    for method in methods:
        ALLOCATORS.get(method).settings(presets.get(method))
    if unused := set(presets) - set(methods):
        raise SettingsError(f"A preset is given for {sorted(unused)[0]!r}, which is not {where}.")


def check_plans_model(spec: Any, plans: Sequence[Plan], runs: Path) -> None:
    """Refuse plans of another model than a job's, as far as that is known without loading it.

    Args:
        spec: of the job, with the contents of what it names.

    Raises:
        PlanError: names both models.
    """
    card = Archive((RunStore(runs), RunStore(samples_home()))).loaded_card(spec)
    for plan in plans:
        if card is not None:
            plan.check_model(card)
        elif outline := _outline_here(spec.model):
            _require_layers(plan, outline)


def _outline_here(model: ModelRef) -> ModelCard | None:
    """A model by its headers, where they lie on this computer and can be read."""
    from lrc_core.models.hub import cached_snapshot
    from lrc_core.models.outline import read_outline
    from lrc_core.models.source import find_source

    with suppress(LrcError):
        if find_source(model).kind != "hub" or cached_snapshot(model) is not None:
            return read_outline(model).card
    return None


def _require_layers(plan: Plan, card: ModelCard) -> None:
    try:
        plan.check_layers(card)
    except PlanError as error:
        made, asked = plan.model.source, card.identity.source
        whose = f"those of {asked}" if made != asked else "those that the model has now"
        raise OtherModelError(
            f"This plan was made for {made}, and its layers are not {whose}: {error.message}", OTHER_MODEL
        ) from error

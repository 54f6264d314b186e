"""What a job is asked to do. Immutable; its hash is the run's id, so asking twice joins the same run. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, get_args

from lrc_core.errors import RunError
from lrc_core.settings import setting

SPEC_VERSION = 1
GENERATED = "generated"
"""Name of the calibration text that the model writes itself."""
LESSON_PARTS = ("layers", "sensitivity", "text")
"""Parts of a lesson: some layers rank by rank, what squeezing each layer alone costs, and what is written then."""


@dataclass(frozen=True)
class ModelRef:
    """A model as the user names it. A hub token is never part of it: it comes from the environment.

    Attributes:
        source: ``starter``, hub id, directory or GGUF file.
        revision: hub revision, "" for the default branch.
        trust_remote_code: the user's consent to run the model's own code.
        allow_pickle: the user's consent to load weights that are not safetensors.
    """

    source: str = "starter"
    revision: str = ""
    trust_remote_code: bool = False
    allow_pickle: bool = False


@dataclass(frozen=True)
class CalibrationSpec:
    """Text for second moments, probes and mask training; only calibration parts of built-in texts are read.

    Attributes:
        texts: names of built-in texts (``wiki``, ``c4``), files, hub data sets, ``generated``; an equal share of each.
        windows: token windows for the second moments.
        window: tokens in a window.
        seed: chooses the windows.
    """

    texts: tuple[str, ...] = ("wiki", "c4")
    windows: int = 128
    window: int = 512
    seed: int = 0


@dataclass(frozen=True)
class EvaluationSpec:
    """What is measured of a compressed model.

    Attributes:
        texts: ``gensim``, ``c4`` (report parts), files, or hub data sets.
        window: tokens in a window.
        max_windows: windows a text, 0 for all.
        stride: tokens between window starts; 0 means the window, so that windows do not overlap.
        bos: ``auto`` (as the tokenizer does), ``yes`` or ``no``.
        tasks: zero-shot tasks.
        items: items a task, 0 for all.
        include_path: folder of the user's own lm-eval task files, or "".
        seed: chooses items and bootstrap samples.
    """

    texts: tuple[str, ...] = ("gensim", "c4")
    window: int = 512
    max_windows: int = 40
    stride: int = 0
    bos: str = "auto"
    tasks: tuple[str, ...] = ()
    items: int = 100
    include_path: str = ""
    seed: int = 0


class _Spec:
    """Shared behaviour of the job kinds."""

    kind: ClassVar[str]
    model: ModelRef
    added_later: ClassVar[tuple[str, ...]] = ()
    """Fields that came when runs of this kind already existed: left out of the record while at their default, so that
    the ids of older runs, which are hashes of the record, stay what they were. Every such field belongs in here."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form with kind and version."""
        data = json.loads(json.dumps(asdict(self)))  # type: ignore[call-overload]
        defaults = {f.name: f.default for f in fields(self)}  # type: ignore[arg-type]
        for name in self.added_later:
            if data[name] == defaults[name]:
                del data[name]
        return {"kind": self.kind, "version": SPEC_VERSION, **data}

    @property
    def run_id(self) -> str:
        """``kind-`` and twelve hexadecimal digits of the spec's hash."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return f"{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class FetchSpec(_Spec):
    """Download a model (or the starter pack) and check that it can be compressed."""

    kind: ClassVar[str] = "fetch"
    model: ModelRef = ModelRef()


@dataclass(frozen=True)
class SpectraSpec(_Spec):
    """Singular spectra of every block linear under each decomposition.

    Attributes:
        subspaces: also store how far the leading singular vectors of neighbouring blocks span the same space.
        stream: read matrix after matrix from the weight files; the model is never loaded. Plain SVD only.
    """

    kind: ClassVar[str] = "spectra"
    added_later: ClassVar[tuple[str, ...]] = ("subspaces", "stream")
    model: ModelRef = ModelRef()
    decompositions: tuple[str, ...] = ("svd", "asvd", "whitened")
    calibration: CalibrationSpec = CalibrationSpec()
    subspaces: bool = False
    stream: bool = False


@dataclass(frozen=True)
class AllocateSpec(_Spec):
    """Choose the rank of every layer.

    Attributes:
        settings: the method's settings, complete (presets are resolved before the spec is made).
    """

    kind: ClassVar[str] = "allocate"
    model: ModelRef = ModelRef()
    method: str = "uniform"
    decomposition: str = "whitened"
    keep: float = 0.8
    preset: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    calibration: CalibrationSpec = CalibrationSpec()
    seed: int = 0


@dataclass(frozen=True)
class EvaluateSpec(_Spec):
    """Measure one plan, or the dense model.

    Attributes:
        plan: content of a plan file, None for the dense model.
        plan_folder: folder that holds the plan's weights or structure file, or "". Relative to the folder of runs where
            it is a run's, so that runs can move.
    """

    kind: ClassVar[str] = "evaluate"
    model: ModelRef = ModelRef()
    plan: Mapping[str, Any] | None = None
    plan_folder: str = ""
    calibration: CalibrationSpec = CalibrationSpec()
    evaluation: EvaluationSpec = EvaluationSpec()


@dataclass(frozen=True)
class UpdateSpec(_Spec):
    """Update a plan's factors in closed form: the same ranks, with weights of their own.

    Attributes:
        plan: content of a plan file, of whatever method.
        plan_folder: as of :class:`EvaluateSpec`.
        settings: complete settings, see :class:`~lrc_core.calibrate.update_settings.UpdateSettings`.
        calibration: of the plan's factors; the same text is read for the update.
    """

    kind: ClassVar[str] = "update"
    model: ModelRef = ModelRef()
    plan: Mapping[str, Any] = field(default_factory=dict)
    plan_folder: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    calibration: CalibrationSpec = CalibrationSpec()


@dataclass(frozen=True)
class CompareSpec(_Spec):
    """Allocate with each method at each target, evaluate every plan and the dense model. Cells are runs of their own.

    Attributes:
        presets: preset of each method that is not on its first one.
        update: which factors of every plan are updated before it is measured: ``none``, ``left`` or ``both``.
    """

    kind: ClassVar[str] = "compare"
    added_later: ClassVar[tuple[str, ...]] = ("update",)
    model: ModelRef = ModelRef()
    methods: tuple[str, ...] = ("uniform", "strs", "llrc")
    keeps: tuple[float, ...] = (0.9, 0.8)
    decomposition: str = "whitened"
    presets: Mapping[str, str] = field(default_factory=dict)
    calibration: CalibrationSpec = CalibrationSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    seed: int = 0
    update: str = "none"


@dataclass(frozen=True)
class QualitySpec(_Spec):
    """Every method on one bench: each method under each decomposition at each target with each seed.

    Attributes:
        methods: what is compared.
        keeps: shares to keep.
        decompositions: every method runs under each of them.
        seeds: one matrix each; a seed is the method's and that of its calibration windows, whose own is not used.
        presets: preset of each method that is not on its first one.
        references: other models (hub id, folder, GGUF) measured on the same texts and tasks, for a dense model of the
            same size; consents of ``model`` are not theirs.
        baselines: methods that every other one is tested against.
        task_keeps: targets at which zero-shot tasks are run; perplexity is measured at all.
        share_path: whether plans that a learning method recorded on its way to the smallest target serve the others.
    """

    kind: ClassVar[str] = "quality"
    model: ModelRef = ModelRef()
    methods: tuple[str, ...] = ("uniform", "strs", "llrc")
    keeps: tuple[float, ...] = (0.9, 0.8, 0.7, 0.6)
    decompositions: tuple[str, ...] = ("whitened",)
    seeds: tuple[int, ...] = (0,)
    presets: Mapping[str, str] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ("uniform", "strs")
    calibration: CalibrationSpec = CalibrationSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    task_keeps: tuple[float, ...] = (0.8,)
    share_path: bool = True


@dataclass(frozen=True)
class AblationSpec(_Spec):
    """What the parts of a trained method are worth: its loss terms alone and left out, and its calibration text.

    Attributes:
        methods: methods whose loss terms are known.
        keeps: shares to keep.
        parts: ``losses``, ``texts`` or both.
        texts: calibration texts, each alone; ``generated`` is sampled from the model itself.
        decomposition: of all runs.
        seeds: as of :class:`QualitySpec`.
        presets: preset of each method that is not on its first one.
        task_keeps: targets at which zero-shot tasks are run.
        share_path: as of :class:`QualitySpec`.
    """

    kind: ClassVar[str] = "ablation"
    model: ModelRef = ModelRef()
    methods: tuple[str, ...] = ("llrc",)
    keeps: tuple[float, ...] = (0.8,)
    parts: tuple[str, ...] = ("losses", "texts")
    texts: tuple[str, ...] = ("wiki", "c4", "code", "generated")
    decomposition: str = "whitened"
    seeds: tuple[int, ...] = (0,)
    presets: Mapping[str, str] = field(default_factory=dict)
    calibration: CalibrationSpec = CalibrationSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    task_keeps: tuple[float, ...] = (0.8,)
    share_path: bool = True


@dataclass(frozen=True)
class LessonSpec(_Spec):
    """What the guided path shows of a model that no other run holds: derived pictures, curves and texts, no weights.

    Attributes:
        layers: full names of the layers that are looked at; () for a choice that shows differences.
        keep: share of one layer's parameters that is left when it is squeezed alone.
        parts: of ``LESSON_PARTS``.
        prompt: what the model goes on with, "" for the prompt of every text sample.
        calibration: of the whitened factors.
    """

    kind: ClassVar[str] = "lesson"
    model: ModelRef = ModelRef()
    layers: tuple[str, ...] = ()
    keep: float = 0.1
    parts: tuple[str, ...] = LESSON_PARTS
    prompt: str = ""
    calibration: CalibrationSpec = CalibrationSpec()


@dataclass(frozen=True)
class SamplingSpec:
    """How tokens are chosen. Every answer starts from the same seed."""

    max_new_tokens: int = setting(
        128, "Longest answer", "In tokens; an English word has about 1.3.", minimum=1, maximum=4096
    )
    temperature: float = setting(
        0.0,
        "Temperature",
        "0 always takes the most probable token, so that the answer is the same every time. Above 0 tokens are drawn; "
        "1 draws them as probable as the model says.",
        minimum=0.0,
        maximum=5.0,
    )
    top_p: float = setting(
        1.0,
        "Top-p",
        "Draw from the most probable tokens that together have this probability; 1 draws from all.",
        minimum=0.01,
        maximum=1.0,
    )
    top_k: int = setting(
        0, "Top-k", "Draw from so many of the most probable tokens; 0 draws from all.", minimum=0, maximum=1_000_000
    )
    seed: int = setting(0, "Seed", "Of the draws; another seed, another answer.", minimum=0, maximum=2**31 - 1)
    chat: str = setting(
        "auto",
        "Chat template",
        "Put the prompt into the form of a question to an assistant, as the tokenizer's template says; auto does so "
        "where there is one. Without it the model continues the text.",
        choices=("auto", "yes", "no"),
    )


@dataclass(frozen=True)
class AnswerSpec:
    """Who answers: the dense model, or a plan.

    Attributes:
        plan: content of a plan file, None for the dense model.
        plan_folder: as of :class:`EvaluateSpec`.
        calibration: of the plan's factors.
    """

    plan: Mapping[str, Any] | None = None
    plan_folder: str = ""
    calibration: CalibrationSpec = CalibrationSpec()


@dataclass(frozen=True)
class GenerateSpec(_Spec):
    """One prompt that several models answer, one after the other.

    Attributes:
        answers: who answers, in this order.
    """

    kind: ClassVar[str] = "generate"
    model: ModelRef = ModelRef()
    prompt: str = ""
    answers: tuple[AnswerSpec, ...] = (AnswerSpec(),)
    sampling: SamplingSpec = SamplingSpec()


Spec = (
    FetchSpec
    | SpectraSpec
    | AllocateSpec
    | UpdateSpec
    | EvaluateSpec
    | CompareSpec
    | QualitySpec
    | AblationSpec
    | LessonSpec
    | GenerateSpec
)
_KINDS: dict[str, type[Any]] = {spec.kind: spec for spec in get_args(Spec)}
_PARTS: dict[str, type[Any]] = {
    "model": ModelRef,
    "calibration": CalibrationSpec,
    "evaluation": EvaluationSpec,
    "sampling": SamplingSpec,
}


def spec_from_dict(data: Any, where: str = "The spec") -> Spec:
    """Inverse of ``Spec.to_dict``.

    Raises:
        RunError: unknown kind or version, or a damaged record.
    """
    try:
        if data["version"] != SPEC_VERSION:
            raise RunError(f"{where} has version {data['version']}; this program reads version {SPEC_VERSION}.")
        spec_class = _KINDS[data["kind"]]
        values = {key: value for key, value in data.items() if key not in ("kind", "version")}
        for key, part in _PARTS.items():
            if key in values:
                values[key] = _with_tuples(part, values[key])
        if "answers" in values:
            values["answers"] = [_answer(answer) for answer in values["answers"]]
        spec: Spec = _with_tuples(spec_class, values)
        return spec
    except (KeyError, TypeError) as error:
        raise RunError(f"{where} is damaged: {error}.", "Delete the run and start it again.") from error


def _answer(values: Mapping[str, Any]) -> AnswerSpec:
    calibration = _with_tuples(CalibrationSpec, values["calibration"])
    answer: AnswerSpec = _with_tuples(AnswerSpec, {**values, "calibration": calibration})
    return answer


def _with_tuples(record: type[Any], values: Mapping[str, Any]) -> Any:
    known = {f.name for f in fields(record)}
    if unknown := set(values) - known:
        raise TypeError(f"unknown field {sorted(unknown)[0]!r}")
    return record(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})

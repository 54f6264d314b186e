"""What a job is asked to do. Immutable; its hash is the run's id, so asking twice joins the same run. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

from lrc_core.errors import RecordError
from lrc_core.formats.budgets import BOTH, VARY
from lrc_core.records import AGAIN, Label, Name, Place, Positive, Share, typed
from lrc_core.runs.spec_parts import (
    SPEC_VERSION,
    AnswerSpec,
    CalibrationSpec,
    EvaluationSpec,
    JobSpec,
    ModelRef,  # noqa: F401 - asked for here
    SamplingSpec,
    argument,
)
from lrc_core.types import Storage

GENERATED = "generated"
"""Name of the calibration text that the model writes itself."""
FORMATS_HELP = "number formats that all block linears are measured in instead, without ranks; none: --formats alone"
RANK_MULTIPLES = (1, 8, 16, 32, 64)
STORAGES = get_args(Storage)
STORAGE_HELP = "how low-rank layers are stored and counted: pair, k(m+n) parameters; pivoted, k(m+n-k)"
LESSON_PARTS = ("layers", "sensitivity", "text")
"""Parts of a lesson: some layers rank by rank, what squeezing each layer alone costs, and what is written then."""
IMPORTED = "imported"
"""Method of plans that another program made."""
FORMS = ("lowrank", "dense")
"""Forms of an exported folder: small, low-rank layers as they are; or stock shapes, as large as ever."""
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class FetchSpec(JobSpec):
    """Download a model (or the starter pack) and check that it can be compressed."""

    kind: ClassVar[str] = "fetch"


@dataclass(frozen=True)
class SpectraSpec(JobSpec):
    """Singular spectra of every block linear under each decomposition."""

    kind: ClassVar[str] = "spectra"
    added_later: ClassVar[tuple[str, ...]] = ("subspaces", "stream")
    decompositions: tuple[Name, ...] = argument(("svd", "asvd", "whitened"), names="decomposition")
    calibration: CalibrationSpec = CalibrationSpec()
    subspaces: bool = argument(
        False, "also store how far leading singular vectors of neighbouring blocks span one space"
    )
    stream: bool = argument(False, "matrix by matrix from the files, for a model too large to load; svd only")


@dataclass(frozen=True)
class AllocateSpec(JobSpec):
    """Choose the rank of every layer.

    Attributes:
        settings: the method's settings, complete (presets are resolved before the spec is made).
        budget: see :mod:`~lrc_core.formats.budgets`; ``keep`` is 1 then and not read.
    """

    kind: ClassVar[str] = "allocate"
    added_later: ClassVar[tuple[str, ...]] = ("storage", "rank_multiple", "budget", "vary")
    method: Name = argument("uniform", "a method by name, see `lrc methods`", always=True)
    decomposition: Name = argument("whitened", names="decomposition", always=True)
    keep: Share = argument(0.8, "share of the block linears to keep", always=True)
    preset: Label = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    calibration: CalibrationSpec = CalibrationSpec()
    seed: int = argument(0, "of the method and its calibration", also=("calibration.seed",))
    budget: Label = argument(
        "", "another budget instead: bytes:0.45, a share of what the block linears take in 16 bits; mb:250, the whole "
        "model; latency:0.7, a share of the time that they take dense on this device", metavar="UNIT:N"
    )  # fmt: skip
    vary: Name = argument(BOTH, "what a budget in bytes may choose", choices=VARY)
    storage: Storage = argument("pair", STORAGE_HELP, choices=STORAGES)
    rank_multiple: Positive = argument(1, "ranks are multiples of this, as fast kernels want", choices=RANK_MULTIPLES)


@dataclass(frozen=True)
class EvaluateSpec(JobSpec):
    """Measure one plan, or the dense model.

    Attributes:
        plan: content of a plan file, None for the dense model.
        plan_folder: folder that holds the plan's weights or structure file, or "". Relative to the folder of runs where
            it is a run's, so that runs can move.
    """

    kind: ClassVar[str] = "evaluate"
    plan: Mapping[str, Any] | None = None
    plan_folder: Place = ""
    calibration: CalibrationSpec = CalibrationSpec()
    evaluation: EvaluationSpec = EvaluationSpec()


@dataclass(frozen=True)
class UpdateSpec(JobSpec):
    """Update a plan's factors, in closed form or by tuning: the same ranks, with weights of their own.

    Attributes:
        plan: content of a plan file, of whatever method.
        plan_folder: as of :class:`EvaluateSpec`.
        settings: complete settings, see :func:`~lrc_core.updates.update_settings`.
        calibration: of the plan's factors; the same text is read for the update.
    """

    kind: ClassVar[str] = "update"
    plan: Mapping[str, Any] = field(default_factory=dict)
    plan_folder: Place = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    calibration: CalibrationSpec = CalibrationSpec()


@dataclass(frozen=True)
class CompareSpec(JobSpec):
    """Allocate with each method at each target, evaluate every plan and the dense model. Cells are runs of their own.

    Attributes:
        presets: preset of each method that is not on its first one.
    """

    kind: ClassVar[str] = "compare"
    added_later: ClassVar[tuple[str, ...]] = ("update", "storage", "formats")
    methods: tuple[Name, ...] = argument(
        ("uniform", "strs", "llrc"), "what is compared, see `lrc methods`", metavar="METHOD", always=True
    )
    keeps: tuple[Share, ...] = argument((0.9, 0.8), "shares to keep", word="--keep", always=True)
    decomposition: Name = argument("whitened", names="decomposition")
    presets: Mapping[str, Label] = field(default_factory=dict)
    calibration: CalibrationSpec = CalibrationSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    seed: int = argument(0, "of methods, calibration and evaluation", also=("calibration.seed", "evaluation.seed"))
    update: Name = argument("none", "what is done to the factors of every plan before it is measured")
    formats: tuple[Label, ...] = argument((), FORMATS_HELP, none=True, names="format")
    storage: Storage = argument("pair", STORAGE_HELP, choices=STORAGES)


@dataclass(frozen=True, kw_only=True)
class _BenchSpec(JobSpec):
    """What every bench of methods is asked for.

    Attributes:
        seeds: a seed is the method's and that of its calibration windows, whose own is not used.
        presets: preset of each method that is not on its first one.
    """

    seeds: tuple[int, ...] = argument((0,), "one matrix for each")
    presets: Mapping[str, Label] = field(default_factory=dict)
    calibration: CalibrationSpec = CalibrationSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    task_keeps: tuple[Share, ...] = argument(
        (0.8,), "targets with tasks; perplexity is measured at every one", none=True
    )
    share_path: bool = argument(
        True,
        "train a learning method anew for every target instead of using the plans recorded on the way",
        word="--no-share-path",
    )


@dataclass(frozen=True)
class QualitySpec(_BenchSpec):
    """Every method on one bench: each method under each decomposition at each target with each seed.

    Attributes:
        references: for a dense model of the same size; consents of ``model`` are not theirs.
        updates: ``none``, or one of the kinds of :class:`UpdateSpec`.
    """

    kind: ClassVar[str] = "quality"
    added_later: ClassVar[tuple[str, ...]] = ("storages", "formats", "budgets")
    methods: tuple[Name, ...] = argument(
        ("uniform", "strs", "llrc"), "default: every one", metavar="METHOD", always=True
    )
    keeps: tuple[Share, ...] = argument((0.9, 0.8, 0.7, 0.6), "shares to keep", word="--keep", always=True)
    decompositions: tuple[Name, ...] = argument(
        ("whitened",), word="--decomposition", names="decomposition", always=True
    )
    references: tuple[Place, ...] = argument((), "other models measured on the same texts and tasks", names="model")
    baselines: tuple[Label, ...] = argument(
        ("uniform", "strs"),
        "methods that every other one is tested against, as it is stored itself; llrc+tuned for updated factors",
        word="--against",
        metavar="METHOD",
    )
    updates: tuple[Name, ...] = argument(
        ("none",), "what is done to the factors of every plan, each in rows of its own", word="--update"
    )
    formats: tuple[Label, ...] = argument((), FORMATS_HELP, none=True, names="format")
    budgets: tuple[Label, ...] = argument(
        (), "budgets in bytes as well (bytes:0.45, mb:250), spent on ranks, on number formats and on both",
        word="--budget", none=True, metavar="UNIT:N",
    )  # fmt: skip
    storages: tuple[Storage, ...] = argument(
        ("pair",), "how low-rank layers are stored and counted, each in rows of its own", word="--storage"
    )


@dataclass(frozen=True)
class AblationSpec(_BenchSpec):
    """What the parts of a trained method are worth: its loss terms alone and left out, and its calibration text.

    Attributes:
        parts: ``losses``, ``texts`` or both.
    """

    kind: ClassVar[str] = "ablation"
    methods: tuple[Name, ...] = argument(
        ("llrc",), "default: every one whose loss terms are known", metavar="METHOD", always=True
    )
    keeps: tuple[Share, ...] = argument((0.8,), "shares to keep", word="--keep", always=True)
    parts: tuple[Label, ...] = argument(("losses", "texts"), "what is left out or swapped", metavar="PART")
    texts: tuple[Place, ...] = argument(
        ("wiki", "c4", "code", "generated"),
        "calibration texts, each alone; generated: written by the model",
        word="--ablation-texts",
        names="listed text",
    )
    decomposition: Name = argument("whitened", names="decomposition", always=True)


@dataclass(frozen=True)
class LessonSpec(JobSpec):
    """What the guided path shows of a model that no other run holds: derived pictures, curves and texts, no weights.

    Attributes:
        layers: () for a choice that shows differences.
        calibration: of the whitened factors.
    """

    kind: ClassVar[str] = "lesson"
    layers: tuple[Label, ...] = argument((), "layers by full name (default: chosen by spectra)", metavar="NAME")
    keep: Share = argument(0.1, "share of its parameters that is left of a layer squeezed alone")
    parts: tuple[Label, ...] = argument(
        LESSON_PARTS, "what is made (default: all)", choices=LESSON_PARTS, metavar="PART"
    )
    prompt: str = argument("", "what the model goes on with (default: that of text samples)", metavar="TEXT")
    calibration: CalibrationSpec = CalibrationSpec()


@dataclass(frozen=True)
class GenerateSpec(JobSpec):
    """One prompt that several models answer, one after the other.

    Attributes:
        answers: who answers, in this order.
    """

    kind: ClassVar[str] = "generate"
    prompt: str = argument("", "the question; - reads standard input", metavar="TEXT", always=True)
    answers: tuple[AnswerSpec, ...] = (AnswerSpec(),)
    sampling: SamplingSpec = SamplingSpec()


@dataclass(frozen=True)
class ExportSpec(JobSpec):
    """A plan on its model as a folder that other software loads.

    Attributes:
        plan: content of a plan file, of whatever method.
        plan_folder: as of :class:`EvaluateSpec`.
        calibration: of the plan's factors; the folder is checked on the same text.
        to: the folder to write, absolute; "" for one inside the run.
    """

    kind: ClassVar[str] = "export"
    plan: Mapping[str, Any] = field(default_factory=dict)
    plan_folder: Place = ""
    calibration: CalibrationSpec = CalibrationSpec()
    to: Place = argument("", "folder to write (default: one inside the run)", metavar="FOLDER", names="new folder")
    form: Name = argument(
        FORMS[0], "lowrank: small; dense: stock shapes that load anywhere, as large as the original", choices=FORMS
    )
    dtype: Name = argument(PRECISIONS[0], "of the weights; auto: as files, or as held in 16 bits", choices=PRECISIONS)


@dataclass(frozen=True)
class AdoptSpec(JobSpec):
    """Another project's compressed folder as a plan with weights on the model that it was made of.

    Attributes:
        folder: absolute; its content is part of the question.
    """

    kind: ClassVar[str] = "adopt"
    folder: Place = ""


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
    | ExportSpec
    | AdoptSpec
)
_KINDS: dict[str, type[Any]] = {spec.kind: spec for spec in get_args(Spec)}


@dataclass(frozen=True)
class _SpecFile:
    """What is read of a spec first."""

    version: int
    kind: str


@dataclass(frozen=True)
class _PlanInside:
    """What lists of runs show of the plan in a spec; all of it is read where the plan is used."""

    method: Name = ""
    decomposition: Name = ""
    keep_target: Share = 0.0
    origin: Mapping[str, Any] = field(default_factory=dict)


def spec_from_dict(data: Any, where: str = "The spec") -> Spec:
    """Inverse of ``Spec.to_dict``.

    Raises:
        RecordError: unknown kind or version, or a damaged record; names the field.
    """
    head = typed(_SpecFile, data, where, others=True)
    if head.version != SPEC_VERSION:
        raise RecordError(f"{where} has version {head.version}; this program reads version {SPEC_VERSION}.", AGAIN)
    if head.kind not in _KINDS:
        raise RecordError(f"{where} is damaged: field kind is {head.kind[:60]!r}, which is none.", AGAIN, where, "kind")
    spec: Spec = typed(
        _KINDS[head.kind], {key: value for key, value in data.items() if key not in ("kind", "version")}, where
    )
    for plan in _plans_in(spec):
        typed(_PlanInside, plan, f"The plan in {where}", others=True)
    return spec


def _plans_in(spec: Spec) -> list[Mapping[str, Any]]:
    holders = spec.answers if isinstance(spec, GenerateSpec) else (spec,)
    return [plan for holder in holders if (plan := getattr(holder, "plan", None))]

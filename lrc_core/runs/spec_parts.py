"""What specs are made of: the model, the text, the measurement, the sampling; and what all kinds share. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

from lrc_core.records import Count, Place
from lrc_core.settings import setting

SPEC_VERSION = 1


def argument(default: Any, help: str = "", **flag: Any) -> Any:
    """A field with its flag of the command line.

    Args:
        default: value when the user says nothing.
        help: what it is.
        flag: where the flag is not simply ``--name`` with a value of the field's type: as
            :class:`~lrc_core.kinds.words.flags.Flag` has it; ``names`` says that a word names a ``text``, ``folder``,
            ``model`` or ``decomposition``.
    """
    return field(default=default, metadata={"help": help, **flag})


@dataclass(frozen=True)
class ModelRef:
    """A model as the user names it. A hub token is never part of it: it comes from the environment.

    Attributes:
        source: ``starter``, hub id, directory or GGUF file.
        revision: hub revision, "" for the default branch.
        trust_remote_code: the user's consent to run the model's own code.
        allow_pickle: the user's consent to load weights that are not safetensors.
    """

    source: Place = "starter"
    revision: Place = ""
    trust_remote_code: bool = False
    allow_pickle: bool = False


@dataclass(frozen=True)
class CalibrationSpec:
    """Text for second moments, probes and mask training; only calibration parts of built-in texts are read."""

    texts: tuple[Place, ...] = argument(
        ("wiki", "c4"),
        "built-in text, file (FILE#field=NAME) or hub data set to calibrate on (repeatable); an equal share of each",
        word="--calibration-text",
        names="text",
    )
    windows: Count = argument(128, "calibration windows")
    window: Count = argument(512, "tokens in a calibration window")
    seed: int = argument(0, "chooses calibration windows")


@dataclass(frozen=True)
class EvaluationSpec:
    """What is measured of a compressed model; of built-in texts the report parts."""

    texts: tuple[Place, ...] = argument(
        ("gensim", "c4"),
        "text to report on (repeatable): built-in, file (FILE#field=NAME), hub data set",
        word="--report-text",
        names="text",
    )
    window: Count = argument(512, "tokens in a window")
    max_windows: Count = argument(40, "windows per text, 0 for all")
    stride: Count = argument(0, "tokens between window starts, 0: the window, so that windows do not overlap")
    bos: str = argument("auto", "start windows with BOS; auto: as the tokenizer does", choices=("auto", "yes", "no"))
    tasks: tuple[Place, ...] = argument((), "zero-shot tasks: any that lm-eval knows", none=True, metavar="TASK")
    items: Count = argument(100, "items per task, 0 for all")
    include_path: Place = argument("", "folder of your own lm-eval task files", names="folder")
    seed: int = argument(0, "chooses items and bootstrap samples", word="--evaluation-seed")


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
        "Sample from the fewest most probable tokens whose probabilities add up to this; 1 is all of them.",
        minimum=0.01,
        maximum=1.0,
    )
    top_k: int = setting(
        0, "Top-k", "Sample from this many of the most probable tokens; 0 is all of them.", minimum=0, maximum=1_000_000
    )
    seed: int = setting(0, "Seed", "Of sampling; another seed gives another answer.", minimum=0, maximum=2**31 - 1)
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
        plan_folder: as of ``EvaluateSpec``.
        calibration: of the plan's factors.
    """

    plan: Mapping[str, Any] | None = None
    plan_folder: Place = ""
    calibration: CalibrationSpec = CalibrationSpec()


@dataclass(frozen=True)
class JobSpec:
    """Shared behaviour of the job kinds.

    Attributes:
        contents: digests of what the names in the spec stood for when it was asked for, as (thing, digest): an edited
            text or an overwritten model is another question. Put in when a job is submitted; what is shipped with the
            program or named by a commit needs none. See :mod:`lrc_core.results.identity`.
    """

    kind: ClassVar[str]
    code_version: ClassVar[int] = 1
    """Of the code that does the work: to be raised when the same spec would come to other numbers."""
    model: ModelRef = ModelRef()
    contents: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)
    added_later: ClassVar[tuple[str, ...]] = ()
    """Fields that came when runs of this kind already existed: left out of the record while at their default, so that
    the ids of older runs, which are hashes of the record, stay what they were. Every such field belongs in here."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form with kind and version."""
        data = json.loads(json.dumps(asdict(self)))
        defaults = {f.name: list(f.default) if isinstance(f.default, tuple) else f.default for f in fields(self)}
        if not self.contents:
            del data["contents"]
        for name in self.added_later:
            if data[name] == defaults[name]:
                del data[name]
        return {"kind": self.kind, "version": SPEC_VERSION, **data}

    @property
    def run_id(self) -> str:
        """``kind-`` and twelve hexadecimal digits of the spec's hash."""
        return id_of(self.kind, self.to_dict())


def id_of(kind: str, record: Mapping[str, Any]) -> str:
    """The id of the run whose ``spec.json`` holds this record."""
    text = json.dumps(record, sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

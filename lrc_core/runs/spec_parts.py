"""What specs are made of: the model, the text, the measurement, the sampling; and what all kinds share. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, ClassVar

from lrc_core.records import Count, OneOf, Place
from lrc_core.settings import setting

SPEC_VERSION = 1


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
    """Text for second moments, probes and mask training; only calibration parts of built-in texts are read.

    Attributes:
        texts: names of built-in texts (``wiki``, ``c4``), files, hub data sets, ``generated``; an equal share of each.
        windows: token windows for the second moments.
        window: tokens in a window.
        seed: chooses the windows.
    """

    texts: tuple[Place, ...] = ("wiki", "c4")
    windows: Count = 128
    window: Count = 512
    seed: int = 0


@dataclass(frozen=True)
class EvaluationSpec:
    """What is measured of a compressed model.

    Attributes:
        texts: ``gensim``, ``c4`` (report parts), files, or hub data sets.
        window: tokens in a window.
        max_windows: windows per text, 0 for all.
        stride: tokens between window starts; 0 means the window, so that windows do not overlap.
        bos: ``auto`` (as the tokenizer does), ``yes`` or ``no``.
        tasks: zero-shot tasks.
        items: items per task, 0 for all.
        include_path: folder of the user's own lm-eval task files, or "".
        seed: chooses items and bootstrap samples.
    """

    texts: tuple[Place, ...] = ("gensim", "c4")
    window: Count = 512
    max_windows: Count = 40
    stride: Count = 0
    bos: Annotated[str, OneOf(("auto", "yes", "no"))] = "auto"
    tasks: tuple[Place, ...] = ()
    items: Count = 100
    include_path: Place = ""
    seed: int = 0


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
        plan_folder: as of ``EvaluateSpec``.
        calibration: of the plan's factors.
    """

    plan: Mapping[str, Any] | None = None
    plan_folder: Place = ""
    calibration: CalibrationSpec = CalibrationSpec()


class JobSpec:
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
        return id_of(self.kind, self.to_dict())


def id_of(kind: str, record: Mapping[str, Any]) -> str:
    """The id of the run whose ``spec.json`` holds this record."""
    text = json.dumps(record, sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

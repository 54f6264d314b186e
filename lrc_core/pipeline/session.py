"""The model that a job holds, and what every stage needs of it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrc_core.allocate.masks.teacher import TeacherStates
from lrc_core.calibrate.factor_model import Calibrated, factors
from lrc_core.calibrate.generated import Wanted, generated_windows
from lrc_core.decompose.factorise import Factors
from lrc_core.decompose.store import FactorStore
from lrc_core.digests import digest_of
from lrc_core.errors import PlanError
from lrc_core.files import write_json
from lrc_core.lowrank.apply import FactorSource, PlanWeights
from lrc_core.models.checks.fit import require_fit
from lrc_core.models.content import pinned
from lrc_core.models.end_tokens import end_tokens
from lrc_core.models.fingerprint import forward_digest, tokenizer_digest
from lrc_core.models.load import LoadedModel, load_model
from lrc_core.models.resources import own_peak_memory
from lrc_core.paths import require_cache
from lrc_core.plan import Plan
from lrc_core.registry import DECOMPOSITIONS
from lrc_core.results.identity import model_key, text_content, text_key
from lrc_core.runs.spec import GENERATED, CalibrationSpec, ModelRef, Spec
from lrc_core.runs.store import Run
from lrc_core.texts.windows import mixed_windows
from lrc_core.types import OnProgress, ShouldStop


@dataclass
class Session:
    """One model in memory, with the callbacks of the job that holds it.

    Attributes:
        ref: the model as the user names it.
        on_progress: called at every step.
        should_stop: asked at every step.
        contents: digests of what the job's names stand for, by thing; see :mod:`lrc_core.results.identity`.
        stores: decompositions that were asked for: finding one means reading its whole calibration text.
        answers: the dense model's to the windows that plans are tuned on, for the newest way of asking.
    """

    ref: ModelRef
    on_progress: OnProgress
    should_stop: ShouldStop
    contents: Mapping[str, str] = field(default_factory=dict)
    stores: dict[tuple[str, CalibrationSpec, tuple[str, ...]], FactorStore] = field(default_factory=dict)
    answers: dict[str, TeacherStates] = field(default_factory=dict)

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model, loaded when first needed."""
        ref = pinned(self.ref, self.contents.get(model_key(self.ref), ""))
        return load_model(ref, on_progress=self.on_progress, should_stop=self.should_stop)

    def release(self) -> None:
        """Let the model go; it is loaded anew when it is needed again."""
        self.__dict__.pop("loaded", None)
        self.answers.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def serves(self, spec: Spec) -> bool:
        """Whether the model in memory is the one that a spec means: of that name, and of that content."""
        key = model_key(spec.model)
        return self.ref == spec.model and self.contents.get(key) == dict(spec.contents).get(key)

    @cached_property
    def forward(self) -> str:
        """Digest of what the forward pass depends on besides the parameters."""
        return forward_digest(self.loaded.model)

    def watched_by(self, on_progress: OnProgress, should_stop: ShouldStop) -> Session:
        """The same model for another job's callbacks."""
        other = replace(self, on_progress=on_progress, should_stop=should_stop)
        other.__dict__["loaded"] = self.loaded
        other.__dict__["forward"] = self.forward
        return other

    def calibrated(self, spec: CalibrationSpec) -> Calibrated:
        """The model with the text its statistics come from; only calibration parts of built-in texts are read."""
        loaded = self.loaded
        windows = self.windows(spec, spec.windows, spec.window, spec.seed)
        weights = loaded.card.identity.fingerprint
        return Calibrated(loaded.model, loaded.card.layers, weights, windows, require_cache(), self.forward)

    def probing_key(self, calibrated: Calibrated, spec: CalibrationSpec, *parts: Any) -> str:
        """Cache key of what methods measure on windows of their own: of the whole texts, and of ``parts``."""
        texts = [(name, self.contents.get(text_key(name)) or text_content(name)) for name in spec.texts]
        return calibrated.key(*parts, texts)

    def windows(self, spec: CalibrationSpec, count: int, window: int, seed: int, part: str = "calibrate") -> Tensor:
        """[n, window] token ids of the calibration text, or of another part of it."""
        return mixed_windows(
            spec.texts,
            self.loaded.tokenizer,
            part=part,
            window=window,
            count=count,
            seed=seed,
            made={GENERATED: self._generated},
        )

    @cached_property
    def _writing(self) -> str:
        """Digest of what text depends on that the model writes itself, besides its parameters."""
        ends = sorted(end_tokens(self.loaded.model, self.loaded.tokenizer))
        return digest_of((self.forward, tokenizer_digest(self.loaded.tokenizer), ends))

    def fitting(self, spec: CalibrationSpec, count: int, window: int, seed: int) -> Tensor:
        """As :meth:`windows`, for passes of the model.

        Raises:
            EvaluationError: the model cannot read them; see :func:`~lrc_core.models.checks.fit.require_fit`.
        """
        found = self.windows(spec, count, window, seed)
        require_fit(self.loaded.model, found)
        return found

    def answers_to(self, windows: Tensor, *batches: int) -> TeacherStates:
        """What the dense model answered to the same windows before, in the same batches: plans of a job share it."""
        key = digest_of([windows.tolist(), batches])
        if key not in self.answers:
            self.answers.clear()
        return self.answers.setdefault(key, {})

    def _generated(self, count: int, window: int, seed: int) -> Tensor:
        """[count, window] token ids that the dense model itself wrote; kept in the cache."""
        loaded = self.loaded
        return generated_windows(
            loaded.model,
            loaded.tokenizer,
            Wanted(count, window, seed),
            require_cache() / "generated" / f"{loaded.card.identity.fingerprint[:20]}-{self._writing[:12]}",
            on_progress=self.on_progress,
            should_stop=self.should_stop,
        )


def write_card(run: Run, session: Session) -> dict[str, Any]:
    """Load the model and leave its card in the folder."""
    card = session.loaded.card.to_dict()
    write_json(run.path / "card.json", card)
    return {"card": card, "warnings": list(session.loaded.warnings)}


def factors_for(session: Session, decomposition: str, spec: CalibrationSpec) -> FactorStore:
    """Factors of the session's model under a decomposition, computed when they are not in the cache."""
    key = decomposition, spec, tuple(session.contents.get(text_key(name), "") for name in spec.texts)
    known = session.stores.get(key)
    if known is None or not known.complete:  # the cache may have been cleaned meanwhile
        entry = DECOMPOSITIONS.get(decomposition)
        known = factors(session.calibrated(spec), entry, entry.settings(), session.on_progress, session.should_stop)
        session.stores[key] = known
    return known


def factors_of(session: Session, plan: Plan, folder: str, spec: CalibrationSpec, runs: Path) -> FactorSource:
    """Factors of a plan: those that it brings along, else those of its decomposition.

    Args:
        folder: where its weights file lies, relative to ``runs`` or absolute.
        spec: the text that its decomposition comes from.

    Raises:
        PlanError: it prunes structure, or its weights cannot be read.
    """
    if plan.structure_file:
        raise PlanError(f"This plan prunes structure ({plan.structure_file}), which this version cannot apply.")
    rest = _WhenNeeded(session, plan.decomposition, spec)
    if not plan.weights_file:
        return rest.store if plan.ranks else rest
    return PlanWeights(runs / folder / plan.weights_file, rest, plan.digest(plan.weights_file))


class _WhenNeeded:
    """Factors of a decomposition that are not computed for a plan that brings all of its own."""

    def __init__(self, session: Session, decomposition: str, spec: CalibrationSpec) -> None:
        self._asked = session, decomposition, spec

    @cached_property
    def store(self) -> FactorStore:
        return factors_for(*self._asked)

    def factors(self, name: str, block: int) -> Factors:
        return self.store.factors(name, block)

    def sigma(self, name: str, block: int) -> Tensor:
        return self.store.sigma(name, block)


def with_warnings(result: dict[str, Any], session: Session) -> dict[str, Any]:
    """A stage's result with what there is to know of the model it was computed from, and of the models of its rows."""
    loaded = vars(session).get("loaded")
    told = [
        *(loaded.warnings if loaded else ()),
        *(warning for row in result.get("rows", []) for warning in row.get("warnings", [])),
        *result.get("warnings", []),
    ]
    return {**result, "warnings": list(dict.fromkeys(told))} if told else result


def timed_result(stage: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of a stage with its wall-clock time and its own peak of memory."""
    started = time.monotonic()
    with own_peak_memory() as peak:
        result = stage()
        reached = peak()
    wall = round(time.monotonic() - started, 2)
    return {**result, "wall_s": wall, "peak_memory_mb": round(reached / 2**20)}

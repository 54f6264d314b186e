"""Which plans can answer a prompt, and what has been asked and answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from lrc_core import words
from lrc_core.budget import USUAL_KEEP, same_percent, same_size, size_key, whole_percent
from lrc_core.errors import LrcError, PlanError, RecordError
from lrc_core.names import in_order, method_color, method_label
from lrc_core.paths import cache_home
from lrc_core.plan import Plan, plan_variant, storage_of, update_of, variant_name
from lrc_core.quality.votes import Vote, read_votes, votes_path
from lrc_core.records import load_record, typed
from lrc_core.results.archive import AnyRun, RunView, archive, asks_for
from lrc_core.results.plans import find_plan, lacks_factors, load_plan, recorded_plans
from lrc_core.runs.spec import (
    IMPORTED,
    AdoptSpec,
    AllocateSpec,
    AnswerSpec,
    CalibrationSpec,
    EvaluateSpec,
    GenerateSpec,
    ModelRef,
    SamplingSpec,
    UpdateSpec,
)
from lrc_core.runs.store import RunStore
from lrc_core.runs.transcript import read_answers

BLIND = "blind"
"""Flag in a run's folder: its answers are in random order, and nobody may see whose they are before voting."""
HoldsPlan = AdoptSpec | AllocateSpec | UpdateSpec | EvaluateSpec
_PREFERRED = (
    ("lagrangian+tuned+pivoted", "lagrangian+pivoted", "llrc+pivoted", "llrc"),
    ("uniform+pivoted", "uniform"),
)
"""What lost least on the starter, what the paper learns, and what stands beside it: of each the first there is."""


@dataclass(frozen=True)
class PlanChoice:
    """A plan that can be asked.

    Attributes:
        key: what finds it: a run, or ``RUN@20``; also what stands after ``--plan`` for the user's own runs.
        method: with its update, such as ``llrc+left``.
        keep: share to keep.
        view: the run that holds it.
        path: its file; None where the run's record holds it.
    """

    key: str
    method: str
    keep: float
    view: RunView[HoldsPlan]
    path: Path | None

    @property
    def label(self) -> str:
        """Method and size, as a list offers it."""
        name = f"{method_label(self.method)} at {words.removed(self.keep)}"
        return name + (" · sample" if self.view.sample else "")


def choices(ref: ModelRef) -> list[PlanChoice]:
    """Plans of finished runs: allocated, updated, and those that comparisons measured and whose own run was deleted."""
    views = archive().runs(ref=ref)
    found: dict[str, PlanChoice] = {}
    known: set[str] = set()
    for view in views:
        with suppress(LrcError):  # a damaged plan hinders no other
            for choice in plans_of(view) if view.done else ():
                known.add(view.id)
                if not _left_out(choice):
                    found.setdefault(choice.key, choice)
    for view in views:
        if view.done and asks_for(view, EvaluateSpec) and view.spec.plan:
            origin = view.spec.plan.get("origin") or {}
            if origin.get("run_id") not in known:
                found.setdefault(view.id, _of_record(view))
    order = in_order(choice.method for choice in found.values())
    return sorted(found.values(), key=lambda choice: _place(choice, order))


def _left_out(choice: PlanChoice) -> bool:
    """Whether it is a shipped plan whose factors did not ship with it: it has figures, and cannot be asked."""
    if not choice.view.sample or choice.path is None:
        return False
    return lacks_factors(load_plan(choice.path).to_dict(), choice.path.parent)


def _place(choice: PlanChoice, order: list[str]) -> tuple[bool, float, int, bool]:
    """Round sizes first, then by size and method."""
    odd = "@" in choice.key and whole_percent(choice.keep) % 5 != 0
    return odd, -size_key(choice.keep), order.index(choice.method), choice.view.sample


def plans_of(view: AnyRun) -> Iterable[PlanChoice]:
    """Plans of one finished allocation or update: its own, and those that it recorded on its way to other rates."""
    if asks_for(view, UpdateSpec):
        yield _of_record(view, view.path / "plan.json")
    elif asks_for(view, AllocateSpec):
        yield from _recorded(view)
    elif asks_for(view, AdoptSpec):
        path = view.path / "plan.json"
        yield PlanChoice(view.id, IMPORTED, load_plan(path).keep_target, view, path)


def _recorded(view: RunView[AllocateSpec]) -> Iterable[PlanChoice]:
    for plan in recorded_plans([view]):
        if plan.final:
            yield PlanChoice(view.id, variant_name(view.spec.method, "", view.spec.storage), plan.keep, view, plan.path)
        elif not same_size(plan.keep, view.spec.keep):  # the final plan stands for that size
            key = f"{view.id}@{plan.path.stem}"
            yield PlanChoice(key, variant_name(view.spec.method, "", view.spec.storage), plan.keep, view, plan.path)


def _of_record(view: RunView[EvaluateSpec] | RunView[UpdateSpec], path: Path | None = None) -> PlanChoice:
    """The plan in the record of an update or evaluation."""
    spec = view.spec
    plan = spec.plan or {}
    update = str(spec.settings.get("kind", "")) if isinstance(spec, UpdateSpec) else update_of(plan.get("origin"))
    method = variant_name(str(plan.get("method")), update, storage_of(plan))
    return PlanChoice(view.id, method, float(plan.get("keep_target", 1)), view, path)


def usual(found: list[PlanChoice]) -> list[str]:
    """Who is asked when nobody says: the best plan and the uniform one at the usual size, else the first two.

    Those whose plan is damaged are not.
    """
    near = [choice for choice in found if same_percent(choice.keep, USUAL_KEEP)]
    keys = [
        next((choice.key for name in names for choice in near if choice.method == name and _opens(choice)), "")
        for names in _PREFERRED
    ]
    return [key for key in keys if key] or [choice.key for choice in islice(filter(_opens, found), 2)]


def _opens(choice: PlanChoice) -> bool:
    try:
        answer_of(choice)
    except LrcError:
        return False
    return True


def answer_of(choice: PlanChoice) -> AnswerSpec:
    """The plan as a job takes it.

    Raises:
        PlanError: the plan has gone or is damaged.
    """
    spec = choice.view.spec
    calibration = CalibrationSpec() if isinstance(spec, AdoptSpec) else spec.calibration
    if not choice.view.sample:
        found = find_plan(choice.key, RunStore())
        return AnswerSpec(found.plan, found.folder, found.calibration or calibration)
    if choice.path is None:
        if isinstance(spec, AllocateSpec | AdoptSpec):
            raise PlanError(f"The plan of run {choice.view.id} is missing.", "Delete the run and start it again.")
        return AnswerSpec(dict(spec.plan or {}), spec.plan_folder, calibration)
    plan = load_plan(choice.path)
    folder = str(choice.path.parent.absolute()) if plan.files else ""
    return AnswerSpec(plan.to_dict(), folder, calibration)


def plan_of(answer: AnswerSpec) -> Plan | None:
    """The plan behind an answer, None for the dense model."""
    return None if answer.plan is None else Plan.from_dict(dict(answer.plan))


def name_of(answer: AnswerSpec) -> str:
    """Who answers, for the file of votes: ``dense``, ``llrc at 20 %``."""
    plan = plan_of(answer)
    if plan is None:
        return "dense"
    return f"{plan_variant(plan)} at {words.removed(plan.keep_target)}"


def label_of(name: str) -> str:
    """The same as people read it: ``Dense model``, ``LLRC at 20 %``."""
    method, at, rate = name.partition(" at ")
    return "Dense model" if method == "dense" else f"{method_label(method)}{at}{rate}"


def color_of(name: str) -> str:
    """The method's colour."""
    return method_color(name.partition(" at ")[0])


def letter(number: int) -> str:
    """The name of an answer in a blind vote: ``Answer A``."""
    return f"Answer {ascii_uppercase[number]}"


def questions(ref: ModelRef) -> list[RunView[GenerateSpec]]:
    """What was asked of a model, newest first; where nobody has had an answer, the shipped questions behind it."""
    own = archive().runs(GenerateSpec, ref, samples=False)
    return own if any(view.done for view in own) else archive().runs(GenerateSpec, ref)


PlanKey = tuple[str, float]
"""The run that made a plan, and its target: one run may record plans of several sizes on its way."""
DENSE_KEY: PlanKey = ("", 1.0)


@dataclass(frozen=True)
class AnsweredPrompt:
    """What was asked in the same words and drawn in the same way, whichever runs asked it.

    Attributes:
        texts: what was answered, by :func:`plan_key`.
    """

    prompt: str
    sampling: SamplingSpec
    texts: Mapping[PlanKey, str]

    def answers(self, rows: Iterable[Mapping[str, Any] | None]) -> list[str | None]:
        """What the models of rows answered, None where they were not asked; "" is a text that ended at once."""
        return [None if row is None else self.texts.get(plan_key(row)) for row in rows]


NOTHING = "It wrote nothing: the first token ended the text."
"""What stands in place of an empty answer."""


def answered(asked: Iterable[RunView[GenerateSpec]]) -> list[AnsweredPrompt]:
    """The questions of finished runs, in their order; of two answers by one plan the first counts.

    What was asked blindly is left out until somebody voted.
    """
    found: dict[tuple[str, SamplingSpec], dict[PlanKey, str]] = {}
    for view in asked:
        if not view.done or hidden(view):
            continue
        said = found.setdefault((view.spec.prompt, view.spec.sampling), {})
        written = read_answers(view.run)
        for number, answer in enumerate(view.spec.answers):
            if number in written:
                said.setdefault(_key_of(answer.plan), written[number].text)
    return [AnsweredPrompt(prompt, sampling, texts) for (prompt, sampling), texts in found.items()]


def _key_of(plan: Mapping[str, Any] | None) -> PlanKey:
    if plan is None:
        return DENSE_KEY
    return str((plan.get("origin") or {}).get("run_id", "?")), size_key(plan.get("keep_target", 1))


def plan_key(row: Mapping[str, Any]) -> PlanKey:
    """The key of a measured row's plan."""
    if row["method"] == "dense":
        return DENSE_KEY
    return str(row.get("update_run_id") or row.get("allocate_run_id") or "none"), size_key(row["keep_target"])


def votes() -> list[Vote]:
    """All votes on this computer."""
    return read_votes(votes_path(RunStore().root))


def mark_blind(run_id: str) -> None:
    """Note in a run's folder that it was asked blindly."""
    with suppress(OSError):
        (RunStore().root / run_id / BLIND).touch()


def is_blind(view: AnyRun) -> bool:
    """Whether a run was asked blindly."""
    return (view.path / BLIND).exists()


def vote_on(view: AnyRun) -> Vote | None:
    """The vote on a run."""
    return next((vote for vote in votes() if vote.run_id == view.id), None)


def hidden(view: AnyRun) -> bool:
    """Whether it must not show whose answers these are."""
    return is_blind(view) and vote_on(view) is None


def without_factors(answers: Iterable[AnswerSpec]) -> list[str]:
    """Decompositions that these plans need and that are not on this computer yet, so that an answer has to wait."""
    have = set()
    for path in (cache_home() / "decompositions").glob("*/complete.json"):
        with suppress(RecordError):
            description = typed(dict[str, Any], load_record(path), str(path))
            have.add((description.get("decomposition"), description.get("fingerprint")))
    lacking = []
    for answer in answers:
        with suppress(PlanError):
            plan = plan_of(answer)
            if plan is None or plan.files or not plan.ranks:  # dense layers, in whatever number format, have no factors
                continue
            if (plan.decomposition, plan.model.fingerprint) not in have:
                lacking.append(plan.decomposition)
    return list(dict.fromkeys(lacking))

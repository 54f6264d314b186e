"""Finding plans: by the words a user has for one (a file, or a run and perhaps a rate), or among runs. No torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lrc_core.budget import keep_at, size_key
from lrc_core.errors import LrcError, PlanError
from lrc_core.files import disk_errors
from lrc_core.names import learns
from lrc_core.paths import expanded, samples_home
from lrc_core.plan import Plan
from lrc_core.records import typed
from lrc_core.results.archive import Archive, RunView, Stamp, stamp_of
from lrc_core.runs.integrity import unaltered
from lrc_core.runs.spec import (
    AdoptSpec,
    AllocateSpec,
    CalibrationSpec,
    EvaluateSpec,
    ExportSpec,
    GenerateSpec,
    UpdateSpec,
)
from lrc_core.runs.store import Run, RunStore
from lrc_core.words import removed


@dataclass(frozen=True)
class PlanSource:
    """A plan that was found.

    Attributes:
        plan: content of the plan file.
        folder: folder of the plan's weights or structure file, relative to the runs where it is one of them; "" when it
            has none.
        calibration: of the run it came from, None where the plan does not say.
    """

    plan: dict[str, Any]
    folder: str
    calibration: CalibrationSpec | None


DENSE_WORD = "dense"
"""What stands for the dense model where plans are named."""
BEFORE = "before"
"""``RUN@before`` is the plan that an update began with."""


def find_plan(text: str, store: RunStore) -> PlanSource:
    """The plan meant by ``FILE``, ``RUN`` (its final plan) or ``RUN@20`` (recorded at 20 % compression).

    ``RUN`` may also be an update, an evaluation or an export: the plan that it measured or wrote. ``RUN@2`` of
    a side by side is the plan behind its second answer. A run that is not in the store may be one of the shipped
    samples.

    Raises:
        PlanError: there is no such file, run or recorded plan, or it is damaged.
        RunError: the run is damaged.
    """
    path = expanded(text)
    if os.path.isfile(path):
        return _from_file(path.absolute(), None, store)
    run_id, _, rate = text.partition("@")
    run = _run(run_id, store)
    if run is None:
        raise PlanError(f"There is no plan file and no run {text!r}.", "`lrc runs list` shows the runs.")
    spec = run.spec
    if isinstance(spec, EvaluateSpec | ExportSpec) and spec.plan and not rate:
        return PlanSource(dict(spec.plan), spec.plan_folder, spec.calibration)
    if isinstance(spec, GenerateSpec):
        return _from_answer(spec, run_id, rate)
    if isinstance(spec, UpdateSpec) and rate == BEFORE:
        return PlanSource(dict(spec.plan), spec.plan_folder, spec.calibration)
    if isinstance(spec, AdoptSpec) and not rate:
        return _from_file(_file_in(run, ""), None, store)
    if not isinstance(spec, AllocateSpec | UpdateSpec):
        raise PlanError(f"Run {run_id} holds no plan.", "Name a run of `lrc allocate`, or a plan file.")
    return _from_file(_file_in(run, rate), spec.calibration, store)


def lacks_factors(plan: Mapping[str, Any], folder: Path) -> bool:
    """Whether files that a plan needs do not lie beside it: it has figures, and can be neither asked nor taken away."""
    names = [plan.get(kind) for kind in ("weights_file", "structure_file")]
    return any(name and not (folder / str(name)).is_file() for name in names)


def shipped_without_factors(run_id: str, store: RunStore) -> bool:
    """The same of the plan of a shipped run; of one's own runs never."""
    if (store.root / run_id).exists():
        return False
    found = find_plan(run_id, store)
    return lacks_factors(found.plan, Path(found.folder))


def words_for(spec: EvaluateSpec | ExportSpec | UpdateSpec, store: RunStore) -> str:
    """What to write after ``--plan`` to find this spec's plan again.

    The run it came from where that still holds it; else the job itself, whose record contains the plan.
    """
    found = _words_in_store(dict(spec.plan or {}), spec.plan_folder, store)
    return found or own_words(spec)


def words_for_answer(spec: GenerateSpec, number: int, store: RunStore) -> str:
    """The same for one answer's plan."""
    answer = spec.answers[number]
    found = _words_in_store(dict(answer.plan or {}), answer.plan_folder, store, answer.calibration)
    return found or f"{spec.run_id}@{number + 1}"


def _words_in_store(
    plan: dict[str, Any], folder: str, store: RunStore, calibration: CalibrationSpec | None = None
) -> str:
    """A run that holds this plan (with this calibration, where one is given); "" when none does."""
    run = _run(str((plan.get("origin") or {}).get("run_id", "")), store)
    for words in _words_of(run) if run is not None else ():
        try:
            found = find_plan(words, store)
        except LrcError:
            continue
        same_text = calibration is None or found.calibration in (None, calibration)
        if (found.plan, found.folder) == (plan, folder) and same_text:
            return words
    return ""


def _run(run_id: str, store: RunStore) -> Run | None:
    """A run of the user's, else a shipped one."""
    return Archive((store, RunStore(samples_home()))).folder(run_id)


def own_words(spec: EvaluateSpec | ExportSpec | UpdateSpec) -> str:
    """What finds a spec's plan in the record of its own run."""
    return f"{spec.run_id}@{BEFORE}" if isinstance(spec, UpdateSpec) else spec.run_id


def _from_answer(spec: GenerateSpec, run_id: str, place: str) -> PlanSource:
    known = {str(number + 1): answer for number, answer in enumerate(spec.answers) if answer.plan is not None}
    if place not in known:
        hint = f"Name one of {', '.join(f'{run_id}@{number}' for number in known)}." if known else ""
        raise PlanError(f"Run {run_id} has no plan behind answer {place or 0}.", hint)
    answer = known[place]
    return PlanSource(dict(answer.plan or {}), answer.plan_folder, answer.calibration)


def _words_of(run: Run) -> Iterator[str]:
    yield run.id
    for path in sorted((run.path / "plans").glob("*.json")):
        yield f"{run.id}@{path.stem}"


def _file_in(run: Run, rate: str) -> Path:
    if not rate:
        path = run.path.absolute() / "plan.json"
        if not path.exists():
            raise PlanError(f"Run {run.id} has no plan yet: it is {run.status().state}.", "Wait for it, or resume it.")
        return path
    recorded = sorted(path.stem for path in (run.path / "plans").glob("*.json"))
    wanted = rate.removesuffix("%").zfill(2)
    if wanted not in recorded:
        known = f"Recorded: {', '.join(recorded)}." if recorded else "It recorded none on its way."
        raise PlanError(f"Run {run.id} recorded no plan at {rate} % compression.", known)
    return run.path.absolute() / "plans" / f"{wanted}.json"


def _from_file(path: Path, calibration: CalibrationSpec | None, store: RunStore) -> PlanSource:
    plan = Plan.load(unaltered(path))
    folder = _folder_of(path, store) if plan.files else ""
    if calibration is None and (made_with := plan.origin.get("calibration")):
        # The file remembers the text that its factors were made from: other text would mean other factors.
        calibration = typed(CalibrationSpec, made_with, f"The calibration in {path}")
    return PlanSource(plan.to_dict(), folder, calibration)


def _folder_of(path: Path, store: RunStore) -> str:
    root = store.root.absolute()
    return str(path.parent.relative_to(root) if path.is_relative_to(root) else path.parent)


@dataclass(frozen=True)
class RecordedPlan:
    """One plan that a run recorded, learned or computed, at one size."""

    view: RunView[AllocateSpec]
    keep: float
    path: Path
    final: bool

    @property
    def words(self) -> str:
        """Size and run, for a list to choose from."""
        return f"{removed(self.keep)} · {self.view.id}" + (" · sample" if self.view.sample else "")


def passes_rates(spec: AllocateSpec) -> bool:
    """Whether a run goes through shares of parameters and records a plan at each: it learns, to such a share."""
    return learns(spec.method) and not spec.budget


def recorded_plans(views: Iterable[RunView[AllocateSpec]]) -> list[RecordedPlan]:
    """Every plan in allocate runs: those written on the way, and the final ones."""
    found = []
    for view in views:
        folder = view.path / "plans"
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
            if path.stem.isdigit():
                found.append(RecordedPlan(view, keep_at(int(path.stem)), path, final=False))
        if (view.path / "plan.json").is_file():
            path = view.path / "plan.json"
            found.append(RecordedPlan(view, _kept(view.spec, path), path, final=True))
    return found


def _kept(spec: AllocateSpec, path: Path) -> float:
    """The target of a final plan: of a budget in bytes it is the plan that says what it keeps."""
    if spec.budget:
        with suppress(LrcError):
            return load_plan(path).keep_target
    return spec.keep


def nearest(plans: list[RecordedPlan], keep: float) -> RecordedPlan | None:
    """The recorded plan closest to a size; at equal distance the final one, then the newer run."""
    if not plans:
        return None
    return min(plans, key=lambda plan: (size_key(abs(plan.keep - keep)), not plan.final, plan.view.sample))


@lru_cache(maxsize=512)
def _plan(path: str, stamp: Stamp) -> Plan:
    return Plan.load(Path(path))


def load_plan(path: Path) -> Plan:
    """A plan file, cached until it changes."""
    if not path.is_file():
        raise PlanError(f"The plan {path} is missing.", "Delete the run on the Runs page and start it again.")
    return _plan(str(unaltered(path)), stamp_of(path))


def copy_plan(plan: Plan, folder: Path, target: Path) -> None:
    """Write a plan to a file; what belongs beside it goes along, named after the copy.

    Args:
        folder: where its own files lie.
        target: the new plan file.

    Raises:
        ResourceError: the disk is full, or the folder cannot be written.
    """
    renamed = {name: f"{target.stem}.{name}" for name in plan.files}
    with disk_errors(target):
        for name, new in renamed.items():
            shutil.copyfile(folder / name, target.with_name(new))
        copy = replace(
            plan,
            weights_file=renamed.get(plan.weights_file or ""),
            structure_file=renamed.get(plan.structure_file or ""),
            digests={renamed[name]: digest for name, digest in plan.digests.items() if name in renamed},
        )
        copy.save(target)

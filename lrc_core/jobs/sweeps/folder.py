"""A sweep's folder, ``.sweeps/ID`` beside the runs: its steps, where each was sent, and which run each is. No torch.

Which run an evaluation is depends on the plan that it measures: that is found out when the plan is there, on whatever
machine looks. So the state of a sweep is the state of its runs, and nothing is kept twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lrc_core.errors import LrcError
from lrc_core.files import disk_errors, write_json
from lrc_core.jobs.sweeps.steps import ALLOCATE, FETCH, TABLE, Step
from lrc_core.plan import Plan
from lrc_core.quality.quantised import quantised_plan
from lrc_core.records import Label, load_record, typed
from lrc_core.results.cells import folder_of, recorded_plan, update_spec
from lrc_core.results.identity import part_of
from lrc_core.runs.integrity import unaltered
from lrc_core.runs.spec import AllocateSpec, EvaluateSpec, UpdateSpec, spec_from_dict
from lrc_core.runs.store import Run, RunStore

HOME = ".sweeps"
VERSION = 1


@dataclass(frozen=True)
class _SweepFile:
    steps: tuple[Step, ...]
    version: int = VERSION


@dataclass(frozen=True)
class Failure:
    """Why a step has no run: what went wrong on its node before there was one."""

    ticket: Label
    error: str
    remedy: str = ""


class SweepFolder:
    """One sweep.

    Args:
        path: its folder, below the folder of runs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = RunStore(path.parent.parent)

    @classmethod
    def make(cls, steps: Sequence[Step], store: RunStore) -> SweepFolder:
        """The folder of a sweep with these steps; the same steps have the same one."""
        record = json.loads(json.dumps(asdict(_SweepFile(tuple(steps)))))
        name = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]
        found = cls(store.root.resolve() / HOME / name)
        with disk_errors(found.path):
            for folder in ("jobs", "failed", "log"):
                (found.path / folder).mkdir(parents=True, exist_ok=True)
        if not (found.path / "sweep.json").exists():
            write_json(found.path / "sweep.json", record)
        return found

    @cached_property
    def steps(self) -> dict[str, Step]:
        """All steps by key, each after those that it needs."""
        file = self.path / "sweep.json"
        return {step.key: step for step in typed(_SweepFile, load_record(file), str(file)).steps}

    def placement_file(self, key: str) -> Path:
        """Where the job of a step is recorded."""
        return self.path / "jobs" / f"{key}.json"

    def log(self, key: str) -> Path:
        """Where the output of a step's job goes."""
        return self.path / "log" / f"{key}.log"

    def failure(self, key: str, ticket: str) -> Failure | None:
        """Why that submission of a step came to nothing."""
        file = self.path / "failed" / f"{key}.json"
        if not file.exists():
            return None
        found = typed(Failure, load_record(file), str(file))
        return found if found.ticket == ticket else None

    def write_failure(self, key: str, ticket: str, error: LrcError) -> None:
        """Keep why a step has no run."""
        write_json(self.path / "failed" / f"{key}.json", asdict(Failure(ticket, error.message, error.remedy)))

    def spec(self, key: str) -> Any:
        """The spec of a step's run; None while a plan that it takes is not there, or where it needs no run."""
        step = self.steps[key]
        spec: Any = spec_from_dict(dict(step.spec), f"Step {key}")
        contents = dict(spec.contents)
        if step.kind in (FETCH, TABLE):
            return spec if step.kind == FETCH or all(map(self.is_done, step.after)) else None
        if step.format:
            dense = self.run(step.after[0])
            if dense is None or not _is_done(dense):
                return None
            spec = replace(spec, plan=quantised_plan(dense.card(), step.format).to_dict())
        elif step.plan:
            if (path := self.plan(step.plan)) is None:
                return None
            spec = self._with_plan(step, spec, path)
        return part_of(spec, contents)

    def _with_plan(self, step: Step, spec: Any, path: Path) -> EvaluateSpec | UpdateSpec:
        if step.update:
            like = AllocateSpec(spec.model, calibration=spec.calibration)
            return replace(update_spec(path, step.update, like, self.store), contents=spec.contents)
        plan = Plan.load(unaltered(path))
        found: EvaluateSpec = replace(spec, plan=plan.to_dict(), plan_folder=folder_of(plan, path, self.store))
        return found

    def run(self, key: str) -> Run | None:
        """The run of a step, None while there is none."""
        if passed := self._passed(key):
            return passed
        spec = self.spec(key)
        if spec is None or not (self.store.root / spec.run_id / "spec.json").exists():
            return None
        return Run(self.store.root / spec.run_id)

    def make_run(self, key: str) -> Run | None:
        """The run of a step, made where there is none; None while it cannot be known."""
        if passed := self._passed(key):
            return passed
        spec = self.spec(key)
        return None if spec is None else self.store.create(spec)

    def plan(self, key: str) -> Path | None:
        """File of the plan that a step came to, None while it is not done."""
        run = self.run(key)
        if run is None or not _is_done(run):
            return None
        step = self.steps[key]
        recorded = recorded_plan(run, step.keep) if self._passed(key) else None
        return recorded or run.path / "plan.json"

    def is_done(self, key: str) -> bool:
        """Whether a step has come to its end."""
        run = self.run(key)
        return run is not None and _is_done(run)

    def _passed(self, key: str) -> Run | None:
        """The training that passed the rate of this allocation on its way."""
        step = self.steps[key]
        if step.kind != ALLOCATE or not step.shared:
            return None
        training = self.run(step.shared)
        if training is None or not _is_done(training) or recorded_plan(training, step.keep) is None:
            return None
        return training


def _is_done(run: Run) -> bool:
    return run.status().state == "done"

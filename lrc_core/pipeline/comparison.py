"""The ``compare`` job: every method at every target and the dense model, each cell a separate run."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lrc_core.budget import removed_percent
from lrc_core.files import write_json
from lrc_core.formats.grids import METHODS
from lrc_core.pipeline.parts import do_part, warnings_of
from lrc_core.pipeline.session import Session
from lrc_core.plan import Plan
from lrc_core.quality.quantised import quantised_plan
from lrc_core.registry import ALLOCATORS
from lrc_core.results.cells import folder_of, recorded_plan, update_spec
from lrc_core.runs.integrity import unaltered
from lrc_core.runs.spec import AllocateSpec, CompareSpec, EvaluateSpec, UpdateSpec
from lrc_core.runs.store import Run, RunStore
from lrc_core.updates import NO_UPDATE


def comparison_run(run: Run, session: Session) -> dict[str, Any]:
    """Every method at every target and the dense model; ``rows.json`` grows row by row on the way."""
    spec = run.spec_as(CompareSpec)
    comparison = _Comparison(run, spec, session)
    comparison.evaluate(None, "dense model")
    for name in spec.formats:
        comparison.quantised(name)
    for method in spec.methods:
        comparison.compare(method)
    return {"model": spec.model.source, "rows": comparison.sorted_rows(), **warnings_of(comparison.sorted_rows())}


class _Comparison:
    """The cells of one comparison, each done at most once by whichever run asks first."""

    def __init__(self, run: Run, spec: CompareSpec, session: Session) -> None:
        self._run, self._spec, self._session = run, spec, session
        self._store = RunStore(run.path.parent)
        self._rows: list[dict[str, Any]] = []

    def compare(self, method: str) -> None:
        """Allocate with one method at every target and evaluate the plans."""
        entry, spec = ALLOCATORS.get(method), self._spec
        preset = spec.presets.get(method, next(iter(entry.presets)))
        base = AllocateSpec(
            model=spec.model,
            method=method,
            decomposition=spec.decomposition,
            preset=preset,
            settings=asdict(entry.settings(preset)),
            calibration=spec.calibration,
            seed=spec.seed,
            storage=entry.storage(spec.storage),
        )
        learned: Run | None = None
        for keep in sorted(spec.keeps):  # the smallest first: one training run serves every rate on its way
            label = f"{entry.label} at {removed_percent(keep):g} %"
            path = recorded_plan(learned, keep) if learned else None
            if path is None:
                allocated = self._part(replace(base, keep=keep), label)
                path = allocated.path / "plan.json"
                learned = learned or (allocated if entry.learns else None)
            if spec.update == NO_UPDATE or entry.structured:
                self.evaluate(path, label)
            else:
                for kind in spec.update.split("+"):
                    updated = self._part(update_spec(path, kind, spec, self._store), label)
                    path = updated.path / "plan.json"
                self.evaluate(path, label)

    def quantised(self, name: str) -> None:
        """Add the row of the model with every block linear in a number format."""
        self._measure(quantised_plan(self._session.loaded.card, name), "", name)

    def evaluate(self, path: Path | None, label: str) -> None:
        """Add the row of a plan, or of the dense model."""
        plan = None if path is None else Plan.load(unaltered(path))
        folder = "" if path is None or plan is None else folder_of(plan, path, self._store)
        self._measure(plan, folder, label)

    def _measure(self, plan: Plan | None, folder: str, label: str) -> None:
        wanted = EvaluateSpec(
            model=self._spec.model,
            plan=None if plan is None else plan.to_dict(),
            plan_folder=folder,
            calibration=self._spec.calibration,
            evaluation=self._spec.evaluation,
        )
        row = self._part(wanted, label).result()
        assert row is not None  # a run that ended without an error has a result
        self._rows.append(row)
        write_json(self._run.path / "rows.json", self.sorted_rows())

    def sorted_rows(self) -> list[dict[str, Any]]:
        """Rows by target, the dense model first, methods in the order asked for."""
        order = {name: number for number, name in enumerate(("dense", *METHODS, *self._spec.methods))}
        return sorted(self._rows, key=lambda row: (-row["keep_target"], order[row["method"]]))

    def _part(self, wanted: AllocateSpec | UpdateSpec | EvaluateSpec, label: str) -> Run:
        return do_part(self._store, self._session, wanted, label)

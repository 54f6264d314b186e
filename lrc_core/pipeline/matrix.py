"""A matrix of cells: allocations at several targets, each measured; a cell that fails does not stop the others."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lrc_core.budget import removed_percent, same_size
from lrc_core.errors import CancelledError, LrcError
from lrc_core.files import write_json
from lrc_core.formats.grids import BF16
from lrc_core.models.gguf.packing import stored_bytes
from lrc_core.models.gguf.split_files import whole_header
from lrc_core.models.source import find_source
from lrc_core.pipeline.parts import do_part, warnings_of
from lrc_core.pipeline.session import Session
from lrc_core.plan import PAIR, Plan
from lrc_core.quality.quantised import quantised_plan
from lrc_core.quality.rows import Partners, Row, Scores, completed, dense_row
from lrc_core.registry import ALLOCATORS
from lrc_core.results.bench_lines import BenchLine, evaluation_at
from lrc_core.results.cells import folder_of, recorded_plan, update_spec
from lrc_core.runs.integrity import unaltered
from lrc_core.runs.spec import AblationSpec, AllocateSpec, EvaluateSpec, ModelRef, QualitySpec
from lrc_core.runs.store import Run, RunStore
from lrc_core.updates import NO_UPDATE


class Matrix:
    """The cells of one job; ``rows.json`` in its folder grows row by row.

    Args:
        run: the job.
        session: its model.
        partners: what every row is tested against.
        total: cells in all, for the progress.
    """

    def __init__(self, run: Run, session: Session, partners: Partners, total: int) -> None:
        spec = run.spec
        assert isinstance(spec, QualitySpec | AblationSpec)
        self._spec, self._run, self._session = spec, run, session
        self._partners, self._total, self._count = partners, total, 0
        self._store = RunStore(run.path.parent)
        self._scores = Scores(self._store.root)
        self._measured: list[Row] = []
        self.rows: list[Row] = []

    def reference(self, source: str) -> None:
        """Measure another model. It is gone from memory before the next is loaded."""
        held = self._session
        session = Session(ModelRef(source), held.on_progress, held.should_stop, held.contents)
        wanted = EvaluateSpec(model=session.ref, evaluation=evaluation_at(self._spec, None))
        row: Row = {"method": "reference", "decomposition": "", "keep_target": 1.0, "name": source}
        self._cell(row, session, wanted)
        del session
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def dense(self) -> None:
        """Measure the model itself. A failure here is the whole job's: nothing could be compared.

        Raises:
            LrcError: whatever went wrong.
        """
        run = do_part(self._store, self._session, self._evaluation(None), self._next("dense model"))
        self._add({**_result(run), **_size(run)})

    def quantised(self, name: str) -> None:
        """Measure the model with every block linear in a number format."""
        plan = quantised_plan(self._session.loaded.card, name)
        row: Row = {"method": plan.method, "decomposition": "", "keep_target": 1.0}
        self._cell(row, self._session, self._evaluation(plan), name)

    def _evaluation(
        self, plan: Plan | None, base: AllocateSpec | None = None, path: Path | None = None
    ) -> EvaluateSpec:
        """What measures a plan, or the dense model: at the plan's size and on its text where it was allocated."""
        calibration = replace(self._spec.calibration, seed=self._spec.seeds[0]) if base is None else base.calibration
        return EvaluateSpec(
            model=self._spec.model,
            plan=None if plan is None else plan.to_dict(),
            plan_folder="" if plan is None or path is None else folder_of(plan, path, self._store),
            calibration=calibration,
            evaluation=evaluation_at(self._spec, None if plan is None or base is None else plan.keep_target),
        )

    def line(self, line: BenchLine) -> None:
        """Allocate and measure at every target, the smallest first: one training run may serve them all."""
        entry, learned = ALLOCATORS.get(line.base.method), None
        for keep in sorted(self._spec.keeps):
            label = self._next(f"{line.label} at {removed_percent(keep):g} %")
            row: Row = {
                "method": line.base.method,
                "decomposition": line.base.decomposition,
                "keep_target": keep,
                "seed": line.base.seed,
                **({"update": line.update} if line.update != NO_UPDATE else {}),
                **({"storage": line.base.storage} if line.base.storage != PAIR else {}),
                **line.columns,
            }
            try:
                path = recorded_plan(learned, keep) if learned is not None else None
                source = learned
                if path is None or source is None:
                    source = do_part(self._store, self._session, replace(line.base, keep=keep), label)
                    path = source.path / "plan.json"
                    if self._spec.share_path and entry.learns:
                        learned = learned or source
                spent = _spent(source, keep)
                if line.update != NO_UPDATE:
                    path, seconds = self._updated(path, line, label)
                    spent["allocation"]["update_wall_s"] = seconds
                plan = Plan.load(unaltered(path))
                wanted = self._evaluation(plan, line.base, path)
                found = do_part(self._store, self._session, wanted, label)
                self._add(_noted({**_result(found), **row, **_size(found), "dense_layers": len(plan.dense), **spent}))
            except CancelledError:
                raise
            except LrcError as error:
                self._add({**row, "error": error.message, "remedy": error.remedy})

    def _updated(self, path: Path, line: BenchLine, label: str) -> tuple[Path, float]:
        """The plan behind every update of a line, and the seconds that they took."""
        seconds = 0.0
        for kind in line.update.split("+"):
            run = do_part(self._store, self._session, update_spec(path, kind, line.base, self._store), label)
            path = run.path / "plan.json"
            seconds += float((run.result() or {}).get("wall_s") or 0)
        return path, seconds

    def within_bytes(self, line: BenchLine) -> None:
        """Allocate a budget in bytes and measure the plan."""
        base, label = line.base, self._next(line.label)
        row: Row = {"method": base.method, "decomposition": base.decomposition, "seed": base.seed, **line.columns}
        row |= {"storage": base.storage} if base.storage != PAIR else {}
        try:
            source = do_part(self._store, self._session, base, label)
            plan = Plan.load(unaltered(source.path / "plan.json"))
            found = do_part(self._store, self._session, self._evaluation(plan, base), label)
            details = (source.result() or {}).get("details") or {}
            more = {"dense_layers": len(plan.dense), "predicted_loss": details.get("predicted_loss_increase")}
            self._add({**_result(found), **row, **_size(found), **more, **_spent(source, base.keep)})
        except CancelledError:
            raise
        except LrcError as error:
            self._add({"keep_target": 1.0, **row, "error": error.message, "remedy": error.remedy})

    def sort(self, key: Callable[[Row], Any]) -> None:
        """Put the rows in order."""
        self.rows.sort(key=key)
        write_json(self._run.path / "rows.json", self.rows)

    def result(self, **more: Any) -> dict[str, Any]:
        """Content of ``result.json``."""
        failed = [row for row in self.rows if "error" in row]
        warnings = warnings_of(self.rows).get("warnings", [])
        if failed:
            warnings.append(
                f"{len(failed)} of {len(self.rows)} cells failed; their rows say why. To try them again: "
                f"`lrc runs delete {self._run.id}`, then the same command; what is measured is kept."
            )
        return {"model": self._spec.model.source, "rows": self.rows, "warnings": warnings, **more}

    def _cell(self, row: Row, session: Session, wanted: EvaluateSpec, label: str = "") -> None:
        """Add the row of another model, or of this one under a plan that needs no allocation."""
        try:
            run = do_part(self._store, session, wanted, self._next(label or str(row["name"])))
        except CancelledError:
            raise
        except LrcError as error:
            self._add({**row, "error": error.message, "remedy": error.remedy})
            return
        card = run.card()
        known = {"name": card.name, **_file_bytes(session.ref)} if "name" in row else {"dense_layers": len(card.layers)}
        self._add({**_result(run), **_size(run), **row, **known})

    def _next(self, label: str) -> str:
        self._count += 1
        return f"{self._count}/{self._total} {label}"

    def _add(self, row: Row) -> None:
        self._measured.append(row)
        self.rows = completed(_with_shares(self._measured), self._partners, self._scores)
        write_json(self._run.path / "rows.json", self.rows)


def _result(run: Run) -> Row:
    """The row of a measured run, without what belongs to the run and not to its figures."""
    row = run.result()
    assert row is not None  # a run that ended without an error has a result
    return {key: value for key, value in row.items() if key not in ("wall_s", "peak_memory_mb", "warnings")}


def _size(run: Run) -> Row:
    card = run.card()
    return {
        "params_linear": card.params_linear,
        "params_total": card.params_total,
        "layers": len(card.layers),
    }


def _spent(run: Run, keep: float) -> Row:
    """What the allocation cost. ``shared_from``: the target of the run whose recorded plan this is."""
    result = run.result() or {}
    known = result.get("allocation") or {key: result.get(key) for key in ("wall_s", "peak_memory_mb")}
    spec = run.spec_as(AllocateSpec)
    shared = None if same_size(spec.keep, keep) else spec.keep
    before = (result.get("details") or {}).get("keep_before_fitting")
    return {
        "allocate_run_id": run.id,
        "allocation": {**known, "shared_from": shared},
        "keep_before_fitting": before if shared is None else None,
    }


def _noted(row: Row) -> Row:
    """Say so where training ended far from the budget and the plan was fitted to it."""
    before = row.pop("keep_before_fitting", None)
    if before is None or abs(before - row["keep_target"]) <= 0.01:
        return row
    words = f"training ended at {100 * before:.1f} % kept; fitted to the budget"
    return {**row, "note": "; ".join(filter(None, [row.get("note"), words]))}


def _file_bytes(ref: ModelRef) -> Row:
    """What a packed file takes as it lies on the disk: its blocks' matrices, and all of it; nothing of other models."""
    source = find_source(ref)
    if source.kind != "gguf" or source.path is None:
        return {}
    blocks, every = stored_bytes(whole_header(source.path))
    return {"blocks_bytes": blocks, "model_bytes": every}


def _with_shares(rows: Sequence[Row]) -> list[Row]:
    """Reference models get shares of the dense model's parameters and bytes in place of their own."""
    dense = dense_row(rows)
    if dense is None:
        return [dict(row) for row in rows]
    return [_shared(row, dense) if row["method"] == "reference" and "error" not in row else dict(row) for row in rows]


def _shared(row: Row, dense: Row) -> Row:
    blocks = row.get("blocks_bytes", BF16.block_bytes * row["params_linear"])
    return {
        **row,
        "keep_achieved": row["params_linear"] / dense["params_linear"],
        "keep_whole_model": row["params_total"] / dense["params_total"],
        "bytes_share": blocks / (BF16.block_bytes * dense["params_linear"]),
    }

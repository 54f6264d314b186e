"""Stringing the stages together: what a job of each kind does, and which files it leaves in its run folder."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

import lrc_core.allocate
import lrc_core.decompose  # noqa: F401  both packages register their methods
from lrc_core.allocate.protocol import Allocation, Context, Recorded
from lrc_core.calibrate.factor_model import Calibrated, factors, spectra
from lrc_core.decompose.store import FactorStore
from lrc_core.errors import PlanError
from lrc_core.evaluate.cost import measure_cost
from lrc_core.evaluate.perplexity import perplexity
from lrc_core.evaluate.running import adds_bos
from lrc_core.evaluate.sample import DEFAULT_PROMPT, greedy_sample
from lrc_core.lowrank.apply import compressed
from lrc_core.models.load import LoadedModel, load_model
from lrc_core.models.resources import peak_memory_bytes
from lrc_core.paths import cache_home
from lrc_core.plan import Plan, make_plan
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS
from lrc_core.runs.recorder import record
from lrc_core.runs.spec import (
    AllocateSpec,
    CalibrationSpec,
    CompareSpec,
    EvaluateSpec,
    EvaluationSpec,
    FetchSpec,
    ModelRef,
    SpectraSpec,
)
from lrc_core.runs.store import Run, RunStore
from lrc_core.texts import BUILT_IN, load_documents, mixed_windows, sequential_windows
from lrc_core.types import OnProgress, Progress, ShouldStop

if TYPE_CHECKING:
    from lrc_core.evaluate.zero_shot import TaskScore


def execute(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """Do what a run asks for, write its files into its folder and return the content of ``result.json``.

    Args:
        run: a run that this process has claimed.
        on_progress: told at every step.
        should_stop: asked at every step.

    Raises:
        LrcError: whatever a stage cannot do; the message names the thing and the remedy.
    """
    return _execute(run, Session(run.spec.model, on_progress, should_stop))


@dataclass
class Session:
    """One model in memory, with the callbacks of the job that holds it.

    Attributes:
        ref: the model as the user names it.
        on_progress: told at every step.
        should_stop: asked at every step.
    """

    ref: ModelRef
    on_progress: OnProgress
    should_stop: ShouldStop

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model, loaded when first needed."""
        return load_model(self.ref, on_progress=self.on_progress, should_stop=self.should_stop)

    def watched_by(self, on_progress: OnProgress, should_stop: ShouldStop) -> Session:
        """The same model for another job's callbacks."""
        other = replace(self, on_progress=on_progress, should_stop=should_stop)
        other.__dict__["loaded"] = self.loaded
        return other

    def calibrated(self, spec: CalibrationSpec) -> Calibrated:
        """The model with the text its statistics come from; only calibration parts of built-in texts are read."""
        loaded = self.loaded
        windows = self.windows(spec, spec.windows, spec.window, spec.seed)
        return Calibrated(loaded.model, loaded.card.layers, loaded.card.identity.fingerprint, windows, cache_home())

    def windows(self, spec: CalibrationSpec, count: int, window: int, seed: int) -> Tensor:
        """[n, window] token ids of the calibration text."""
        return mixed_windows(spec.texts, self.loaded.tokenizer, part="calibrate", window=window, count=count, seed=seed)


def _execute(run: Run, session: Session) -> dict[str, Any]:
    spec = run.spec
    started = time.monotonic()
    if isinstance(spec, FetchSpec):
        result = _card(run, session)
    elif isinstance(spec, SpectraSpec):
        result = _spectra(run, spec, session)
    elif isinstance(spec, AllocateSpec):
        result = _allocate(run, spec, session)
    elif isinstance(spec, EvaluateSpec):
        result = _evaluate(run, spec, session)
    else:
        result = _compare(run, spec, session)
    wall = round(time.monotonic() - started, 2)
    return {**result, "wall_s": wall, "peak_memory_mb": round(peak_memory_bytes() / 2**20)}


def _card(run: Run, session: Session) -> dict[str, Any]:
    """Load the model and leave its card in the folder."""
    card = session.loaded.card.to_dict()
    _write_json(run.path / "card.json", card)
    return {"card": card, "warnings": list(session.loaded.warnings)}


def _spectra(run: Run, spec: SpectraSpec, session: Session) -> dict[str, Any]:
    """``spectra.npz``: singular values of every layer under each decomposition."""
    result = _card(run, session)
    calibrated = session.calibrated(spec.calibration)
    arrays: dict[str, Any] = {}
    for name in spec.decompositions:
        entry = DECOMPOSITIONS.get(name)
        found = spectra(calibrated, entry, entry.settings(), session.on_progress, session.should_stop)
        arrays.update({f"{name}/{layer}": sigma.float().cpu().numpy() for layer, sigma in found.items()})
    temporary = run.path / "spectra.tmp.npz"
    np.savez_compressed(temporary, **arrays)
    temporary.replace(run.path / "spectra.npz")
    return {**result, "decompositions": list(spec.decompositions)}


# -- allocation ------------------------------------------------------------------------------------------------------


def _allocate(run: Run, spec: AllocateSpec, session: Session) -> dict[str, Any]:
    """``plan.json``, and on the way ``plans/<percent>.json`` and ``ranks.jsonl``."""
    result = _card(run, session)
    card = session.loaded.card
    entry = ALLOCATORS.get(spec.method)
    settings = entry.settings(None, spec.settings)
    store = _factors(session, spec.decomposition, spec.calibration)
    origin = {"run_id": run.id, "preset": spec.preset, "seed": spec.seed, "calibration": asdict(spec.calibration)}
    recorded: dict[int, dict[str, Any]] = _recorded_before(run)

    def plan_of(ranks: Mapping[str, int], kept: Any, keep: float, **more: Any) -> Plan:
        return make_plan(
            card,
            ranks,
            decomposition=spec.decomposition,
            method=spec.method,
            keep_target=keep,
            kept=kept,
            origin={**origin, **more},
        )

    def on_recorded(passed: Recorded) -> None:
        percent = round(100 * (1 - passed.keep))
        (run.path / "plans").mkdir(exist_ok=True)
        plan = plan_of(passed.ranks, passed.kept, passed.keep, recorded_at_step=passed.step)
        plan.save(run.path / "plans" / f"{percent:02d}.json")
        recorded[percent] = {
            "compression": percent,
            "keep_achieved": plan.keep_achieved,
            "file": f"plans/{percent:02d}.json",
        }

    def on_ranks(step: int, keep: float, ranks: Mapping[str, int]) -> None:
        line = {"step": step, "keep": round(keep, 6), "ranks": [ranks[layer.name] for layer in card.layers]}
        with (run.path / "ranks.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    context = Context(
        model=session.loaded.model,
        layers=card.layers,
        source=store,
        windows=lambda count, window, seed: session.windows(spec.calibration, count, window, seed + 1),
        keep=spec.keep,
        seed=spec.seed,
        checkpoint=run.path / "checkpoint",
        shared=_shared_folder(session, spec, store),
        on_progress=session.on_progress,
        should_stop=session.should_stop,
        on_recorded=on_recorded,
        on_ranks=on_ranks,
    )
    found: Allocation = entry.load()(context, settings)
    plan = plan_of(found.ranks, found.kept, spec.keep)
    plan.save(run.path / "plan.json")
    warnings = [*result["warnings"], *_damping_warnings(store)]
    return {
        **result,
        "warnings": warnings,
        "plan": plan.to_dict(),
        "recorded": [recorded[percent] for percent in sorted(recorded)],
        "details": dict(found.details or {}),
    }


def _factors(session: Session, decomposition: str, spec: CalibrationSpec) -> FactorStore:
    entry = DECOMPOSITIONS.get(decomposition)
    return factors(session.calibrated(spec), entry, entry.settings(), session.on_progress, session.should_stop)


def _shared_folder(session: Session, spec: AllocateSpec, store: FactorStore) -> Path:
    """Folder for what runs of one method share whatever their target, STRS's probes for instance."""
    calibrated = session.calibrated(spec.calibration)
    key = calibrated.key(spec.method, dict(spec.settings), store.folder.name, spec.seed)
    return cache_home() / "allocators" / f"{spec.method}-{key}"


def _recorded_before(run: Run) -> dict[int, dict[str, Any]]:
    """Plans that an interrupted attempt of the same run has recorded."""
    found = {}
    for path in sorted((run.path / "plans").glob("*.json")):
        plan = Plan.load(path)
        found[int(path.stem)] = {
            "compression": int(path.stem),
            "keep_achieved": plan.keep_achieved,
            "file": f"plans/{path.name}",
        }
    return found


def _damping_warnings(store: FactorStore) -> list[str]:
    damped = store.description.get("damped", {})
    if not damped:
        return []
    worst = max(damped, key=lambda name: damped[name])
    return [
        f"The second moments of {len(damped)} layers were not positive definite and were damped, most that of {worst} "
        f"(by {damped[worst]:.1e} of the mean input energy). More calibration text avoids it."
    ]


# -- evaluation ------------------------------------------------------------------------------------------------------


def _evaluate(run: Run, spec: EvaluateSpec, session: Session) -> dict[str, Any]:
    """A result row, and ``scores.json`` with the loss of every window and the outcome of every item."""
    loaded = session.loaded
    _write_json(run.path / "card.json", loaded.card.to_dict())
    if spec.plan is None:
        head = {
            "method": "dense",
            "decomposition": "",
            "keep_target": 1.0,
            "keep_achieved": 1.0,
            "keep_whole_model": 1.0,
        }
        scores = _measure(run, spec.evaluation, session)
        return {**head, **scores, "run_id": run.id, "allocate_run_id": None}
    plan = Plan.from_dict(dict(spec.plan))
    plan.check_model(loaded.card)
    if plan.structure_file or plan.weights_file:
        raise PlanError("This plan changes more than ranks (weights or structure), which this version cannot apply.")
    store = _factors(session, plan.decomposition, spec.calibration)
    plan.save(run.path / "plan.json")
    with compressed(loaded.model, loaded.card.layers, plan.full_ranks(loaded.card.layers), store, plan.kept):
        scores = _measure(run, spec.evaluation, session)
    head = {
        name: getattr(plan, name)
        for name in ("method", "decomposition", "keep_target", "keep_achieved", "keep_whole_model")
    }
    return {**head, **scores, "run_id": run.id, "allocate_run_id": plan.origin.get("run_id")}


def _measure(run: Run, spec: EvaluationSpec, session: Session) -> dict[str, Any]:
    """Perplexities, accuracies, a text sample and the cost of the model as it is now."""
    model, tokenizer = session.loaded.model, session.loaded.tokenizer
    texts, details = {}, {}
    for name in spec.texts:
        documents = load_documents(name, "report" if name in BUILT_IN else "all")
        windows = sequential_windows(
            documents,
            tokenizer,
            window=spec.window,
            max_windows=spec.max_windows,
            stride=spec.stride,
            bos=adds_bos(tokenizer) if spec.bos == "auto" else spec.bos == "yes",
        )
        score = perplexity(
            model,
            windows,
            stride=spec.stride,
            seed=spec.seed,
            on_progress=_named(session.on_progress, name),
            should_stop=session.should_stop,
        )
        texts[name] = {"value": score.value, "stderr": score.stderr}
        details[name] = {"losses": score.window_losses, "tokens": score.window_tokens}
    tasks = _zero_shot(spec, session) if spec.tasks else {}
    session.on_progress(Progress("text sample and speed"))
    _write_json(run.path / "scores.json", {"windows": details, "tasks": {k: asdict(v) for k, v in tasks.items()}})
    return {
        "perplexity": texts,
        "zero_shot": {name: score.to_dict() for name, score in tasks.items()},
        "sample": {"prompt": DEFAULT_PROMPT, "text": greedy_sample(model, tokenizer)},
        "cost": measure_cost(model, should_stop=session.should_stop).to_dict(),
    }


def _zero_shot(spec: EvaluationSpec, session: Session) -> dict[str, TaskScore]:
    from lrc_core.evaluate.zero_shot import zero_shot  # lm-eval takes seconds to import

    return zero_shot(
        session.loaded.model,
        session.loaded.tokenizer,
        spec.tasks,
        items=spec.items,
        seed=spec.seed,
        include_path=spec.include_path,
        on_progress=session.on_progress,
        should_stop=session.should_stop,
    )


# -- comparison ------------------------------------------------------------------------------------------------------


def _compare(run: Run, spec: CompareSpec, session: Session) -> dict[str, Any]:
    """Every method at every target and the dense model. Each cell is a run of its own, done at most once."""
    store = RunStore(run.path.parent)
    rows: list[dict[str, Any]] = []

    def part(wanted: AllocateSpec | EvaluateSpec, label: str) -> Run:
        child = store.create(wanted)

        def work(on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
            def both(tick: Progress) -> None:
                on_progress(tick)
                session.on_progress(replace(tick, phase=f"{label}: {tick.phase}"))

            return _execute(child, session.watched_by(both, should_stop))

        record(child, work, should_stop=session.should_stop)
        return child

    def evaluate(plan: Plan | None, label: str) -> None:
        wanted = EvaluateSpec(
            model=spec.model,
            plan=None if plan is None else plan.to_dict(),
            calibration=spec.calibration,
            evaluation=spec.evaluation,
        )
        rows.append(part(wanted, label).result() or {})
        _write_json(run.path / "rows.json", rows)

    evaluate(None, "dense model")
    for method in spec.methods:
        entry = ALLOCATORS.get(method)
        preset = spec.presets.get(method, next(iter(entry.presets)))
        base = AllocateSpec(
            model=spec.model,
            method=method,
            decomposition=spec.decomposition,
            preset=preset,
            settings=asdict(entry.settings(preset)),
            calibration=spec.calibration,
            seed=spec.seed,
        )
        runs: dict[float, Run] = {}
        for keep in sorted(spec.keeps):  # the smallest first: one training run serves every rate on its way
            label = f"{entry.label} at {100 * (1 - keep):g} %"
            recorded = _recorded_plan(next(iter(runs.values()), None), keep) if entry.learns else None
            if recorded is None:
                runs[keep] = part(replace(base, keep=keep), label)
                recorded = Plan.load(runs[keep].path / "plan.json")
            evaluate(recorded, label)
    order = {"dense": -1, **{method: i for i, method in enumerate(spec.methods)}}
    rows.sort(key=lambda row: (-row["keep_target"], order[row["method"]]))
    _write_json(run.path / "rows.json", rows)
    return {"model": spec.model.source, "rows": rows}


def _recorded_plan(run: Run | None, keep: float) -> Plan | None:
    """The plan that a learned run passed at that rate, if it is a whole percent."""
    percent = 100 * (1 - keep)
    if run is None or abs(percent - round(percent)) > 1e-6:
        return None
    path = run.path / "plans" / f"{round(percent):02d}.json"
    return Plan.load(path) if path.exists() else None


def _named(on_progress: OnProgress, name: str) -> OnProgress:
    def call(tick: Progress) -> None:
        on_progress(replace(tick, phase=f"{tick.phase} on {Path(name).name}"))

    return call


def _write_json(path: Path, data: Any) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(data, indent=1), encoding="utf-8")
    temporary.replace(path)

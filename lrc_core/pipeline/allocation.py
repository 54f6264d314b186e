"""Jobs that look at a model or choose its ranks: ``fetch``, ``spectra`` and ``allocate``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lrc_core.allocate.protocol import Allocation, Context, Recorded
from lrc_core.calibrate.factor_model import spectra
from lrc_core.decompose.store import FactorStore
from lrc_core.paths import cache_home
from lrc_core.pipeline.session import Session, factors_for, write_card
from lrc_core.plan import Plan, make_plan
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS
from lrc_core.runs.spec import AllocateSpec, SpectraSpec
from lrc_core.runs.store import Run


def spectra_run(run: Run, session: Session) -> dict[str, Any]:
    """``spectra.npz``: singular values of every layer under each decomposition."""
    spec = run.spec
    assert isinstance(spec, SpectraSpec)
    result = write_card(run, session)
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


def allocation_run(run: Run, session: Session) -> dict[str, Any]:
    """``plan.json``, and on the way ``plans/<percent>.json`` and ``ranks.jsonl``."""
    spec = run.spec
    assert isinstance(spec, AllocateSpec)
    result = write_card(run, session)
    card = session.loaded.card
    entry = ALLOCATORS.get(spec.method)
    settings = entry.settings(None, spec.settings)
    store = factors_for(session, spec.decomposition, spec.calibration)
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

"""Half-finished runs and the cache they filled are damaged, and resumed.

What must hold: a damaged run does not fail twice when it is resumed, and ends as the undamaged one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lrc_core.errors import CancelledError, LrcError
from lrc_core.jobs import manager
from lrc_core.runs.spec import Spec, UpdateSpec
from lrc_core.runs.store import Run, RunStore
from tests.campaign.kills import Ground, figures_in
from tests.campaign.tally import Tally
from tests.factories.malformed import spoiled
from tests.factories.pipeline_helpers import run

_COMPARED = ("plan.json", "ranks.jsonl", "result.json", "scores.json", "spectra.npz")
_MAY_CHANGE = {"warnings", "recorded", "allocation"}
"""Of a result: warnings tell the damage; a recorded plan, or what was spent, may be what was damaged."""
_DAMAGED = (".json", ".jsonl", ".npz", ".pt", ".safetensors", ".npy", ".sha256")


def damage_what_is_resumed(folder: Path, *, seed: int, times: int, methods: tuple[str, ...], others: bool) -> Tally:
    """Damage what a cancelled job left in its run folder and in the cache, one file at a time, and resume it.

    Args:
        folder: for everything.
        seed: of files and damages.
        times: files of each job.
        methods: whose allocations are resumed.
        others: whether jobs of other kinds are resumed too.
    """
    tally, ground = Tally("resumes of damaged runs"), Ground.made(folder)
    jobs: dict[str, Spec] = {method: ground.allocation(method) for method in methods}
    if others:
        with _at(folder / "plan"):
            plan = json.loads((run(jobs[methods[0]]).path / "plan.json").read_text())
        jobs |= ground.others(plan)
        jobs |= {f"update {kind}": _updated(ground, plan, kind) for kind in ("tuned", "blockwise")}
    for name, spec in jobs.items():
        _damage_one(name, spec, folder / name.replace(" ", "-"), random.Random(f"{seed} {name}"), times, tally)
        tally.note(name)
    return tally


def _updated(ground: Ground, plan: dict[str, object], kind: str) -> Spec:
    return UpdateSpec(ground.model, plan, settings={"kind": kind}, calibration=ground.calibration)


def _damage_one(name: str, spec: Spec, folder: Path, chance: random.Random, times: int, tally: Tally) -> None:
    with _at(folder / "whole"):
        whole = run(spec)
    last = [event for event in whole.events() if event["total"] > 1][-1]
    with _at(folder / "half"):
        try:
            run(spec, stop_at=last["phase"], stop_after=max(1, last["total"] // 3))
        except CancelledError:
            tally.count("runs stopped on their way", f"in {last['phase']}")
        else:
            tally.require(False, f"{name} was not stopped on its way")
            return
    for number in range(times):
        half = folder / f"damaged-{number}"
        shutil.copytree(folder / "half", half)
        files = [path for path in sorted(half.rglob("*")) if path.is_file() and path.suffix in _DAMAGED]
        path = chance.choice([path for path in files if path.name != "spec.json"])
        way, raw = spoiled(path.read_bytes(), chance)
        path.write_bytes(raw)
        tally.count("files damaged", f"with {way}")
        _resume(spec, whole, half, f"{name}: {path.relative_to(half)}, {way}", tally)
        shutil.rmtree(half)


@contextlib.contextmanager
def _at(folder: Path) -> Iterator[None]:
    with patch.dict(os.environ, {"LRC_RUNS": str(folder / "runs"), "LRC_CACHE": str(folder / "cache")}):
        yield


def _resume(spec: Spec, whole: Run, half: Path, said: str, tally: Tally) -> None:
    with _at(half):
        for attempt in ("first", "second"):
            found = RunStore().create(spec)
            if next(row for row in RunStore().list() if row.id == found.id).state == "damaged":
                tally.count("shown as damaged, deleted and asked for again")
                manager.delete(found.id)
            try:
                found = run(spec)
            except LrcError as error:
                tally.count(f"{attempt} resume refused")
                tally.require(attempt == "first", f"fails twice ({error}): {said}")
                continue
            tally.count(f"done with the {attempt} resume")
            for name in _COMPARED:
                if (whole.path / name).exists():
                    tally.require(_said(whole.path / name) == _said(found.path / name), f"{name} differs: {said}")
            before, now = (_recorded(each) for each in (whole, found))
            tally.require(before >= now and len(before - now) <= 1, f"more than one recorded plan differs: {said}")
            return


def _recorded(run: Run) -> set[str]:
    """Plans that the result offers beside the last one, by rate and size."""
    return {json.dumps(plan, sort_keys=True) for plan in (run.result() or {}).get("recorded", [])}


def _said(path: Path) -> Any:
    """Its figures, without what damage may change: warnings, plans recorded on the way, what was spent."""
    found = figures_in(path)
    return {key: found[key] for key in found.keys() - _MAY_CHANGE} if isinstance(found, dict) else found

"""Jobs that look at a model or choose its ranks: ``fetch``, ``spectra`` and ``allocate``."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from lrc_core.allocate.protocol import Allocation, Bytes, Context, Latency, PassedPlan, allocated
from lrc_core.budget import keep_at, removed_percent, size_key, stored_card, whole_percent
from lrc_core.calibrate.factor_model import block_transforms, spectra
from lrc_core.calibrate.statistics import Notes
from lrc_core.calibrate.subspaces import neighbour_overlaps
from lrc_core.damage import earlier, read_lines
from lrc_core.decompose.factorise import Factors, Transform
from lrc_core.errors import PlanError
from lrc_core.files import append_line, write_arrays, write_json, write_tensors
from lrc_core.formats.budgets import byte_budget, latency_share
from lrc_core.kinds.checks import needs_whole
from lrc_core.lowrank.structure import STRUCTURE_FILE, write_structure
from lrc_core.lowrank.timing import layer_times
from lrc_core.models.onload.residence import require_whole
from lrc_core.models.resources import own_peak_memory
from lrc_core.paths import cache_home
from lrc_core.pipeline.session import Session, factors_for, write_card
from lrc_core.pipeline.streaming import streamed_spectra_run
from lrc_core.plan import PAIR, Plan, make_plan, pruned_plan
from lrc_core.records import load_record, typed
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS
from lrc_core.runs.spec import AllocateSpec, SpectraSpec
from lrc_core.runs.store import Run
from lrc_core.types import ModelCard
from lrc_core.words import removed

FAR = 0.01
"""How much more than the target may be kept at the end of training before it is told."""


def spectra_run(run: Run, session: Session) -> dict[str, Any]:
    """``spectra.npz``: singular values of every layer under each decomposition; where asked, ``subspaces.json``."""
    spec = run.spec_as(SpectraSpec)
    if spec.stream:
        return streamed_spectra_run(run, session.on_progress, session.should_stop)
    result = write_card(run, session)
    calibrated = session.calibrated(spec.calibration)
    arrays: dict[str, Any] = {}
    warnings = list(result["warnings"])
    for name in spec.decompositions:
        entry = DECOMPOSITIONS.get(name)
        notes = Notes()
        found = spectra(calibrated, entry, entry.settings(), session.on_progress, session.should_stop, notes)
        warnings += notes.sentences()
        arrays.update({f"{name}/{layer}": sigma.float().cpu().numpy() for layer, sigma in found.items()})
    write_arrays(run.path / "spectra.npz", arrays)
    if spec.subspaces:
        loaded = session.loaded
        found = neighbour_overlaps(loaded.model, loaded.card.layers, session.on_progress, session.should_stop)
        write_json(run.path / "subspaces.json", found)
    return {**result, "warnings": list(dict.fromkeys(warnings)), "decompositions": list(spec.decompositions)}


def allocation_run(run: Run, session: Session) -> dict[str, Any]:
    """``plan.json`` and the files it names, and on the way ``plans/<percent>.json`` and ``ranks.jsonl``."""
    spec = run.spec_as(AllocateSpec)
    result = write_card(run, session)
    entry = ALLOCATORS.get(spec.method)
    settings = entry.settings(None, spec.settings)
    if reason := needs_whole(spec):
        require_whole(session.loaded.model, reason)
    needs_none = entry.structured or entry.arithmetic
    store = None if needs_none else factors_for(session, spec.decomposition, spec.calibration)
    factors = store.folder.name if store else ""
    key = _probing_key(session, spec)
    storage = entry.storage(spec.storage)
    version = entry.version_for(storage)
    law = () if storage == PAIR else (storage,)  # what is probed above one law's break-even is dense
    card = stored_card(session.loaded.card, storage, spec.rank_multiple)
    writer = _PlanWriter(run, spec, card)
    context = Context(
        model=session.loaded.model,
        layers=card.layers,
        source=store or _NoFactors(),
        decomposition=spec.decomposition,
        windows=lambda count, window, seed: session.fitting(spec.calibration, count, window, seed + 1),
        keep=spec.keep,
        seed=spec.seed,
        checkpoint=run.path / "checkpoint",
        shared=_folder(spec.method, key(spec.method, version, dict(spec.settings), factors, spec.seed, *law)),
        common=_folder("common", key("common", factors, spec.seed, *law)),
        on_progress=session.on_progress,
        should_stop=session.should_stop,
        on_recorded=writer.on_recorded,
        on_ranks=writer.on_ranks,
        bytes=_bytes(spec, session.loaded.card),
        latency=_latency(spec, session, card),
        weighing=lambda: _weighing(session, spec),
    )
    spent = _Spent(run.path / "spent.json", context.shared)
    with spent:
        found = allocated(entry, context, settings)
    plan = writer.save(found)
    return {
        **result,
        "warnings": [
            *result["warnings"],
            *(Notes.of(store.description).sentences() if store else []),
            *ended_early(found.details, spec.keep),
        ],
        "plan": plan.to_dict(),
        "recorded": _recorded(run),
        "details": dict(found.details or {}),
        "allocation": spent.to_dict(),
    }


def ended_early(details: Mapping[str, Any] | None, keep: float) -> list[str]:
    """That training was over before the ranks came down to the target, in words."""
    before = (details or {}).get("keep_before_fitting")
    if before is None or before - keep <= FAR:
        return []
    return [
        f"Training ended with {removed(before)} removed: from there to {removed(keep)} the ranks were scaled down, not "
        "learned. More steps let it get there."
    ]


def _probing_key(session: Session, spec: AllocateSpec) -> Callable[..., str]:
    """What gives cache keys of what a method measures; one that measures nothing reads no text for them."""
    if ALLOCATORS.get(spec.method).arithmetic:
        return lambda *parts: "nothing-measured"
    return partial(session.probing_key, session.calibrated(spec.calibration), spec.calibration)


def _bytes(spec: AllocateSpec, card: ModelCard) -> Bytes | None:
    """The budget in bytes, where it is one."""
    if not spec.budget or latency_share(spec.budget) is not None:
        return None
    return Bytes(byte_budget(spec.budget).allowed(card), spec.vary)


def _latency(spec: AllocateSpec, session: Session, card: ModelCard) -> Latency | None:
    """The budget in time, where it is one: layers are timed now unless they were timed on this device before."""
    share = latency_share(spec.budget) if spec.budget else None
    if share is None:
        return None
    like = next(session.loaded.model.parameters())
    times = layer_times(card.layers, like, cache_home() / "latency", session.on_progress, session.should_stop)
    return Latency(share, times)


def _weighing(session: Session, spec: AllocateSpec) -> Iterator[tuple[int, Mapping[str, Transform]]]:
    """How the decomposition weighs errors, block by block."""
    entry = DECOMPOSITIONS.get(spec.decomposition)
    watch = (session.on_progress, session.should_stop)
    return block_transforms(session.calibrated(spec.calibration), entry, entry.settings(), Notes(), watch)


class _Spent:
    """Time and memory of an allocator itself, without loading and decomposing, over all attempts of its run."""

    def __init__(self, path: Path, shared: Path) -> None:
        self._path = path
        self._shared = shared.is_dir() and any(shared.iterdir())
        self._before = earlier(path, _spent_before) or {}
        self._stack = ExitStack()

    def __enter__(self) -> None:
        self._peak = self._stack.enter_context(own_peak_memory())
        self._gpu = torch.cuda.is_available()
        if self._gpu:
            torch.cuda.reset_peak_memory_stats()
        self._started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        now = {
            "wall_s": round(self._before.get("wall_s", 0.0) + time.monotonic() - self._started, 2),
            "peak_memory_mb": max(self._before.get("peak_memory_mb", 0), round(self._peak() / 2**20)),
            "found_probes": self._before.get("found_probes", self._shared),
        }
        if self._gpu:
            reached = round(torch.cuda.max_memory_allocated() / 2**20)
            now["peak_gpu_mb"] = max(self._before.get("peak_gpu_mb", 0), reached)
        self._stack.close()
        self._before = now
        write_json(self._path, now)

    def to_dict(self) -> dict[str, Any]:
        """``found_probes``: whether an earlier run had left probes that this one did not have to make."""
        return self._before


def _spent_before(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = load_record(path)
    typed(_SpentBefore, data, str(path), others=True)
    return data


@dataclass(frozen=True)
class _SpentBefore:
    """What earlier attempts have spent."""

    wall_s: float
    peak_memory_mb: float


class _PlanWriter:
    """Writes into the run's folder what an allocator reports on its way."""

    def __init__(self, run: Run, spec: AllocateSpec, card: ModelCard) -> None:
        self._run, self._spec, self._card = run, spec, card
        read_lines(run.path / "ranks.jsonl", lambda line: isinstance(line.get("ranks"), list))  # mended before it grows

    def save(self, found: Allocation) -> Plan:
        """Write the final plan, its file first: a plan that is there is whole."""
        plan = self.plan(found.ranks, found.kept, self._spec.keep)
        if self._spec.budget:
            plan = _within_budget(plan, self._spec.budget, found.formats or {})
        if found.structure is not None:
            path = self._run.path / STRUCTURE_FILE
            write_structure(path, found.structure, found.weights)
            plan = pruned_plan(plan, self._card, found.structure.shapes(self._card.layers), path.name)
        return _saved(plan, self._run.path / "plan.json", found.gains)

    def plan(self, ranks: Mapping[str, int], kept: Any, keep: float, **more: Any) -> Plan:
        """A plan that remembers this run."""
        spec = self._spec
        origin: dict[str, Any] = {"run_id": self._run.id, "preset": spec.preset, "seed": spec.seed}
        if spec.contents:
            more = {"contents": dict(spec.contents), **more}
        return make_plan(
            self._card,
            ranks,
            decomposition=spec.decomposition,
            method=spec.method,
            keep_target=keep,
            kept=kept,
            origin={**origin, "calibration": asdict(spec.calibration), **more},
        )

    def on_recorded(self, passed: PassedPlan) -> None:
        """``plans/<percent>.json``."""
        folder = self._run.path / "plans"
        folder.mkdir(exist_ok=True)
        plan = self.plan(passed.ranks, passed.kept, passed.keep, recorded_at_step=passed.step)
        _saved(plan, folder / f"{whole_percent(passed.keep):02d}.json", passed.gains)

    def on_ranks(self, step: int, keep: float, ranks: Mapping[str, int]) -> None:
        """One line of ``ranks.jsonl``."""
        line = {"step": step, "keep": size_key(keep), "ranks": [ranks[layer.name] for layer in self._card.layers]}
        append_line(self._run.path / "ranks.jsonl", json.dumps(line))


def _within_budget(plan: Plan, budget: str, formats: Mapping[str, str]) -> Plan:
    """A plan of a budget in bytes or time: its target is the whole percent of parameters that it is within."""
    keep = keep_at(math.floor(1e-6 + removed_percent(plan.keep_achieved)))
    return replace(plan, keep_target=keep, formats=dict(formats), origin={**plan.origin, "budget": budget})


def _saved(plan: Plan, path: Path, gains: Mapping[str, Tensor] | None) -> Plan:
    """Write a plan, and first the gains of its components where it has any."""
    if gains:
        plan = replace(plan, weights_file=path.with_suffix(".gains.safetensors").name)
        write_tensors(path.with_name(str(plan.weights_file)), {f"{name}.gain": gain for name, gain in gains.items()})
    plan = plan.with_digests(path.parent)
    plan.save(path)
    return plan


class _NoFactors:
    """Takes the place of factors for methods that prune structure or only count, which never ask for any."""

    def factors(self, name: str, block: int) -> Factors:
        raise PlanError(f"This method was given no factors of {name}.")

    def sigma(self, name: str, block: int) -> Tensor:
        raise PlanError(f"This method was given no singular values of {name}.")


def _folder(name: str, key: str) -> Path:
    """Folder for what runs share whatever their target: those of one method and settings, or of any method."""
    return cache_home() / "allocators" / f"{name}-{key}"


def _recorded(run: Run) -> list[dict[str, Any]]:
    """Plans recorded on the way, including those of earlier attempts of the same run."""
    found = []
    for path in sorted((run.path / "plans").glob("*.json")):
        if (plan := earlier(path, _whole_plan)) is not None:
            record = {"compression": int(path.stem), "keep_achieved": plan.keep_achieved, "file": f"plans/{path.name}"}
            found.append(record)
    return found


def _whole_plan(path: Path) -> Plan:
    """A plan whose files are beside it and as long as they say."""
    plan = Plan.load(path)
    for name in plan.files:
        with safe_open(str(path.with_name(name)), "pt"):
            pass
    return plan

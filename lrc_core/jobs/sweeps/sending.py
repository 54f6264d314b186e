"""Sending a sweep to an engine, all at once, and what is missing of it again. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from lrc_core.errors import LrcError
from lrc_core.jobs import manager, placed
from lrc_core.jobs.engines.choice import engine_of
from lrc_core.jobs.engines.engine import EngineTask
from lrc_core.jobs.engines.placement import (
    Placement,
    new_placement,
    note_placement,
    placement_in,
    profile_of,
    write_placement,
)
from lrc_core.jobs.engines.profile import Profile
from lrc_core.jobs.surroundings import require_disk_space
from lrc_core.jobs.sweeps.file import read_benches
from lrc_core.jobs.sweeps.folder import SweepFolder
from lrc_core.jobs.sweeps.progress import DONE, StepState, SweepProgress
from lrc_core.jobs.sweeps.steps import Steps
from lrc_core.kinds import check
from lrc_core.models.source import find_source
from lrc_core.paths import require_writable
from lrc_core.results.identity import identified
from lrc_core.runs.store import RunStore


def plan_sweep(path: str, store: RunStore) -> Steps:
    """The steps that a sweep's file asks for, after every check that can be made before work starts.

    Raises:
        LrcError: whatever is wrong with the file, a model, a text or a setting.
    """
    steps = Steps()
    for spec in read_benches(path, store):
        check(spec, runs=store.root)
        steps.add_bench(identified(spec), fetch=find_source(spec.model).kind == "hub")
    return steps


def send_missing(folder: SweepFolder, profile: Profile) -> int:
    """Submit every step that is not done and that no job is there for. Returns how many.

    Raises:
        LrcError: the engine cannot be reached or refuses; what it took before is kept.
    """
    require_writable("no job is started")
    require_disk_space(folder.store.root)
    engine = engine_of(profile, folder.store.root)
    engine.reach()
    states = SweepProgress(folder).states()
    jobs = {key: placement.job for key, placement in _live(folder, states).items()}
    wanted = [key for key, state in states.items() if state.ended and state.state != DONE]
    works, sent = [], {}
    for key in wanted:
        step = folder.steps[key]
        sent[key] = new_placement(profile)
        write_placement(folder.placement_file(key), sent[key])
        words = placed.node_words(folder.path, sent[key], profile, key)
        after = tuple(other for other in step.after if other in jobs or other in sent)
        works.append(EngineTask(key, words, f"lrc {step.label}", folder.log(key), after))
    try:
        for key, job in engine.submit(works, jobs):
            note_placement(folder.placement_file(key), sent.pop(key).ticket, job=job)
    finally:
        for key in sent:  # what was not taken is missing
            folder.placement_file(key).unlink(missing_ok=True)
    return len(works)


def cancel_sweep(folder: SweepFolder) -> int:
    """Take back what waits and stop what runs. Returns how many steps that concerned."""
    states = SweepProgress(folder).states()
    live = _live(folder, states)
    by_engine: dict[str, list[Placement]] = {}
    for placement in live.values():
        by_engine.setdefault(repr((placement.engine, placement.profile)), []).append(placement)
    for group in by_engine.values():
        engine = engine_of(profile_of(group[0]), folder.store.root)
        engine.reach()
        engine.cancel([placement.job for placement in group])
    for key in live:
        if states[key].run_id:
            try:
                manager.cancel(states[key].run_id, store=folder.store)
            except LrcError:  # it has just ended
                continue
        note_placement(folder.placement_file(key), live[key].ticket, reason="cancelled")
    return len(live)


def _live(folder: SweepFolder, states: Mapping[str, StepState]) -> dict[str, Placement]:
    """Steps that a job is there for."""
    found = {key: placement_in(folder.placement_file(key)) for key, state in states.items() if not state.ended}
    return {key: placement for key, placement in found.items() if placement is not None and placement.job}

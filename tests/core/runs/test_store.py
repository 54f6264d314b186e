"""Run folders: atomic records, events that bear half-written lines, damage, full disks."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lrc_core.errors import RecordError, ResourceError, RunError
from lrc_core.files import write_json
from lrc_core.runs.records import Status, event_from
from lrc_core.runs.spec import AllocateSpec, EvaluateSpec, SpectraSpec
from lrc_core.runs.store import Run, RunStore
from lrc_core.types import Progress


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def test_create_joins_the_run_of_the_same_spec(store: RunStore) -> None:
    first = store.create(AllocateSpec(keep=0.8))
    assert store.create(AllocateSpec(keep=0.8)).path == first.path
    assert store.create(AllocateSpec(keep=0.7)).path != first.path
    assert first.status().state == "queued"
    assert first.status().pid is None


def test_spec_comes_back_as_it_was(store: RunStore) -> None:
    spec = EvaluateSpec(plan={"ranks": {"a": 1}, "dense": ["b"]})
    assert Run(store.create(spec).path).spec == spec


def _create(root: Path) -> str:
    return RunStore(root).create(SpectraSpec()).id


def test_processes_that_create_at_once_share_one_complete_folder(store: RunStore) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        ids = pool.map(_create, [store.root] * 16)
    assert len(set(ids)) == 1
    assert store.ids() == [ids[0]]
    assert not [name for name in os.listdir(store.root) if name.startswith(".new")]


def test_events_are_read_on_from_an_offset(store: RunStore) -> None:
    run = store.create(SpectraSpec())
    assert run.read_events() == ([], 0)
    run.append_event(event_from(Progress("a", 1, 2), 1.0))
    events, offset = run.read_events()
    assert events == [{"t": 1.0, "phase": "a", "step": 1, "total": 2, "values": None}]
    assert run.read_events(offset) == ([], offset)
    run.append_event(event_from(Progress("a", 2, 2, {"loss": 0.5}), 2.0))
    assert [event["step"] for event in run.events(offset)] == [2]


def test_a_half_written_event_is_left_until_it_is_whole(store: RunStore) -> None:
    run = store.create(SpectraSpec())
    run.append_event(event_from(Progress("a"), 1.0))
    line = json.dumps(event_from(Progress("b"), 2.0))
    path = run.path / "events.jsonl"
    with path.open("a") as file:
        file.write(line[:10])
    events, offset = run.read_events()
    assert [event["phase"] for event in events] == ["a"]
    with path.open("a") as file:
        file.write(line[10:] + "\n")
    assert [event["phase"] for event in run.events(offset)] == ["b"]


def test_an_event_after_a_killed_writers_half_line_is_not_lost(store: RunStore) -> None:
    run = store.create(SpectraSpec())
    run.append_event(event_from(Progress("a"), 1.0))
    with (run.path / "events.jsonl").open("ab") as file:
        file.write(b'{"t": 3, "phase": "\xff')
    run.append_event(event_from(Progress("b"), 2.0))
    assert [event["phase"] for event in run.events()] == ["a", "b"]


def test_events_of_a_file_that_became_shorter_are_read_from_the_start(store: RunStore) -> None:
    run = store.create(SpectraSpec())
    run.append_event(event_from(Progress("a"), 1.0))
    assert [event["phase"] for event in run.events(10_000)] == ["a"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"state": "dancing", "version": 1}', '{"state": "done", "version": 9}']
)
def test_a_damaged_status_names_its_file(store: RunStore, content: str) -> None:
    run = store.create(SpectraSpec())
    (run.path / "status.json").write_text(content)
    with pytest.raises(RunError, match=r"status\.json"):
        run.status()


def test_a_status_that_is_torn_while_its_worker_lives_is_read_again(store: RunStore) -> None:
    """As a network disk shows a file that was just replaced: the new content at the old length."""
    run = store.create(AllocateSpec())
    whole = (run.path / "status.json").read_text(encoding="utf-8")
    (run.path / "status.json").write_text(whole[:-20], encoding="utf-8")
    with pytest.raises(RecordError):
        run.status()  # nobody is there who would write it anew
    run.beat()
    with ThreadPoolExecutor() as others:
        others.submit(lambda: (time.sleep(0.3), (run.path / "status.json").write_text(whole, encoding="utf-8")))
        assert run.status().state == "queued"


def test_a_damaged_status_is_told_though_its_worker_lives(store: RunStore) -> None:
    run = store.create(AllocateSpec())
    (run.path / "status.json").write_text("{", encoding="utf-8")
    run.beat()
    with pytest.raises(RecordError):
        run.status()


@pytest.mark.parametrize("content", ["", "null", '{"kind": "spectra"}', '{"kind": "waltz", "version": 1}'])
def test_a_damaged_spec_names_its_file(store: RunStore, content: str) -> None:
    run = store.create(SpectraSpec())
    (run.path / "spec.json").write_text(content)
    with pytest.raises(RunError, match=r"spec\.json"):
        _ = Run(run.path).spec


def test_damaged_runs_are_listed_and_can_be_deleted(store: RunStore) -> None:
    good = store.create(SpectraSpec())
    bad = store.create(AllocateSpec())
    (bad.path / "status.json").write_text("{")
    (store.root / "spectra-000000000000").mkdir()
    states = {summary.id: summary.state for summary in store.list()}
    assert states == {good.id: "queued", bad.id: "damaged", "spectra-000000000000": "damaged"}
    damaged = next(summary for summary in store.list() if summary.id == bad.id)
    assert "status.json" in damaged.damaged
    assert damaged.kind == "allocate"
    store.delete(bad.id)
    store.delete("spectra-000000000000")
    assert store.ids() == [good.id]


def test_list_is_newest_first_and_fast(store: RunStore) -> None:
    for seed in range(200):
        run = store.create(AllocateSpec(seed=seed))
        run.write_status(Status(created_at=1000.0 + seed))
    started = time.perf_counter()
    summaries = store.list()
    assert time.perf_counter() - started < 1.0
    assert [summary.created_at for summary in summaries] == sorted((s.created_at for s in summaries), reverse=True)


def test_an_empty_store_lists_nothing_and_makes_no_folder(store: RunStore) -> None:
    assert store.list() == []
    assert not store.root.exists()


@pytest.mark.parametrize("state", ["queued", "running"])
def test_an_unfinished_run_is_not_deleted(store: RunStore, state: str) -> None:
    run = store.create(SpectraSpec())
    run.write_status(Status(state=state))
    with pytest.raises(RunError, match="Cancel it first"):
        store.delete(run.id)
    assert run.path.exists()


def test_a_claimed_run_is_not_deleted(store: RunStore) -> None:
    run = store.create(SpectraSpec())
    run.write_status(Status(state="done"))
    with run.claim() as held, run.claim() as again:
        assert held
        assert not again
        with pytest.raises(RunError):
            store.delete(run.id)
    store.delete(run.id)
    assert store.ids() == []


@pytest.mark.parametrize("run_id", ["../etc", "", ".lock", "a/b", ".."])
def test_ids_cannot_leave_the_store(store: RunStore, run_id: str) -> None:
    with pytest.raises(RunError, match="run id"):
        store.open(run_id)


def test_an_unknown_id_suggests_a_close_one(store: RunStore) -> None:
    run = store.create(SpectraSpec())
    with pytest.raises(RunError, match=run.id):
        store.open(run.id[:-1])


def test_cancelling_is_seen_while_running_only(store: RunStore) -> None:
    run = store.create(SpectraSpec())
    run.write_status(Status(state="running"))
    run.request_cancel()
    assert run.status().state == "cancelling"
    run.write_status(Status(state="done"))
    assert run.status().state == "done"


def test_a_full_disk_leaves_the_old_file_and_says_what_to_do(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run = store.create(SpectraSpec())
    before = (run.path / "status.json").read_text()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match=r"full.*Free"):
        write_json(run.path / "status.json", {"state": "done"}, durable=True)
    assert (run.path / "status.json").read_text() == before
    assert not list(run.path.glob(".*.tmp"))


def test_a_full_disk_while_creating_leaves_no_run(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError):
        store.create(SpectraSpec())
    assert os.listdir(store.root) == []


def test_a_run_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file"):
        RunStore(tmp_path / "file").create(SpectraSpec())


def test_log_tail(store: RunStore) -> None:
    run = store.create(SpectraSpec())
    assert run.log_tail() == ""
    (run.path / "stdout.log").write_text("".join(f"line {i}\n" for i in range(100)))
    assert run.log_tail(2) == "line 98\nline 99"
    assert run.log_tail(0) == ""


def test_result_is_none_until_written_and_damage_is_named(store: RunStore) -> None:
    run = store.create(SpectraSpec())
    assert run.result() is None
    run.write_result({"wall_s": 1})
    assert run.result() == {"wall_s": 1}
    (run.path / "result.json").write_text("[1")
    with pytest.raises(RunError, match=r"result\.json"):
        run.result()


def test_eta_follows_the_pace_or_the_workers_own_estimate() -> None:
    status = Status(state="running", step=6, total=10, phase_first_step=2, phase_started_at=100.0, updated_at=108.0)
    assert status.eta_s(108.0) == pytest.approx(8.0)
    assert status.eta_s(110.0) == pytest.approx(6.0)
    assert Status(state="running", updated_at=5.0, values={"eta_s": 60.0}).eta_s(15.0) == pytest.approx(50.0)
    assert Status(state="running").eta_s(0.0) is None
    assert Status(state="done", step=1, total=2, phase_started_at=1.0, updated_at=2.0).eta_s(2.0) is None

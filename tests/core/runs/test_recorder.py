"""Recording work into a run folder: throttling, final states, failures in plain words."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from lrc_core.errors import CancelledError, LrcError, ResourceError, RunError
from lrc_core.runs import recorder as recorder_module
from lrc_core.runs.recorder import Recorder, explained, record
from lrc_core.runs.records import Status
from lrc_core.runs.spec import SpectraSpec
from lrc_core.runs.store import Run, RunStore
from lrc_core.types import OnProgress, Progress, ShouldStop


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return RunStore(tmp_path / "runs").create(SpectraSpec())


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_fast_ticks_are_thinned_but_ends_of_phases_are_kept(run: Run) -> None:
    clock = Clock()
    recorder = Recorder(run, Status(state="running"), clock)
    for step in range(1, 1001):
        clock.now += 0.001
        recorder.progress(Progress("first", step, 0))
    for step in range(1, 11):
        recorder.progress(Progress("second", step, 10))
    recorder.end("done")
    events = run.events()
    first = [event["step"] for event in events if event["phase"] == "first"]
    assert first[0] == 1
    assert first[-1] == 1000
    assert len(first) < 10
    assert [event["step"] for event in events if event["phase"] == "second"] == [1, 10]


@pytest.mark.parametrize(("takes_s", "least", "most"), [(0.001, 36, 41), (0.03, 12, 18), (5.0, 3, 6)])
def test_a_slow_disk_gets_the_status_less_often(
    run: Run, monkeypatch: pytest.MonkeyPatch, takes_s: float, least: int, most: int
) -> None:
    clock, writes = Clock(), []
    recorder = Recorder(run, Status(state="running"), clock)

    def slowly(_: Run, status: Status) -> None:
        clock.now += takes_s
        writes.append(status)

    monkeypatch.setattr(Run, "write_status", slowly)
    recorder.progress(Progress("only", 0, 10**6))
    writes.clear()
    computed = 0.0
    for step in range(1, 5000):  # ten seconds of work
        clock.now += 0.002
        computed += 0.002
        recorder.progress(Progress("only", step, 10**6))
    assert least <= len(writes) <= most, f"{len(writes)} in {computed:.0f} s"


def test_status_is_written_a_few_times_a_second(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, writes = Clock(), []
    recorder = Recorder(run, Status(state="running"), clock)
    original = Run.write_status
    monkeypatch.setattr(Run, "write_status", lambda self, status: (writes.append(status), original(self, status)))
    for step in range(1000):
        clock.now += 0.001
        recorder.progress(Progress("only", step, 2000, {"loss": 1.0}))
    assert 3 <= len(writes) <= 6


def test_figures_stay_within_a_phase(run: Run) -> None:
    recorder = Recorder(run, Status(state="running"))
    recorder.progress(Progress("a", 1, 3, {"loss": 1.0}))
    recorder.progress(Progress("a", 2, 3))
    assert recorder.status.values == {"loss": 1.0}
    recorder.progress(Progress("b", 1, 3))
    assert recorder.status.values is None


def test_done(run: Run) -> None:
    def work(on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
        on_progress(Progress("all", 1, 1))
        assert run.status().state == "running"
        assert not should_stop()
        return {"answer": 42}

    assert record(run, work) == {"answer": 42}
    status = run.status()
    assert (status.state, status.phase, status.step) == ("done", "all", 1)
    assert status.ended_at >= status.started_at > 0
    assert run.result() == {"answer": 42}


def test_a_done_run_is_not_done_again(run: Run) -> None:
    record(run, lambda *_: {"answer": 42})
    assert record(run, lambda *_: {"answer": 43}) == {"answer": 42}


def test_an_expected_failure_keeps_message_and_remedy(run: Run) -> None:
    def work(*_: Any) -> dict[str, Any]:
        raise ResourceError("Out of paper.", "Buy some.")

    with pytest.raises(ResourceError):
        record(run, work)
    assert (run.status().state, run.status().error, run.status().remedy) == ("failed", "Out of paper.", "Buy some.")


def test_an_unexpected_failure_is_one_clear_line_and_the_traceback_is_logged(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    def work(*_: Any) -> dict[str, Any]:
        raise ValueError("first line\nsecond line")

    with pytest.raises(LrcError):
        record(run, work)
    error = run.status().error
    assert "ValueError: first line" in error and "second" not in error
    assert "Traceback" in caplog.text


def test_cancel(run: Run) -> None:
    def work(on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
        run.request_cancel()
        assert should_stop()
        raise CancelledError("Cancelled.")

    with pytest.raises(CancelledError):
        record(run, work)
    assert run.status().state == "cancelled"
    assert run.status().resumable


@pytest.mark.parametrize("state", ["cancelled", "running"])
def test_a_stopped_or_dead_run_starts_again_without_its_old_cancel(run: Run, state: str) -> None:
    run.request_cancel()
    run.write_status(Status(state=state, attempt=1))
    record(run, lambda _, should_stop: {"stop": should_stop()})
    assert run.result() == {"stop": False}
    assert run.status().attempt == 2


def test_a_run_has_one_worker(run: Run) -> None:
    with run.claim(), pytest.raises(RunError, match="another process"):
        record(run, lambda *_: {})


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_out_of_memory_is_said_as_that(error: BaseException) -> None:
    told = explained(error)
    assert isinstance(told, ResourceError)
    assert "memory" in told.message
    assert told.remedy


def test_a_full_disk_is_said_as_that_even_when_wrapped() -> None:
    assert isinstance(explained(OSError(errno.ENOSPC, "No space")), ResourceError)
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("safetensors could not write") from error
    except RuntimeError as wrapped:
        assert isinstance(explained(wrapped), ResourceError)


def test_the_end_is_recorded_on_a_full_disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk = ResourceError("The disk is full.", "Free some space.")

    def work(on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
        def full(*_: Any, **__: Any) -> None:
            raise full_disk

        monkeypatch.setattr("lrc_core.runs.run.write_json", full)
        monkeypatch.setattr("lrc_core.runs.run.append_line", full)
        on_progress(Progress("writing", 1, 1))
        return {}

    with pytest.raises(ResourceError):
        record(run, work)
    assert (run.status().state, run.status().error) == ("failed", full_disk.message)


def test_a_folder_removed_meanwhile_does_not_hide_the_error(run: Run) -> None:
    def work(*_: Any) -> dict[str, Any]:
        run.path.rename(run.path.with_name("elsewhere"))
        raise ResourceError("The first error.")

    with pytest.raises(ResourceError, match="The first error"):
        record(run, work)


def test_the_heartbeat_beats_and_held_back_progress_is_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.factories.job_helpers import wait_for

    monkeypatch.setattr(recorder_module, "BEAT_EVERY_S", 0.02)
    monkeypatch.setattr(recorder_module, "STATUS_EVERY_S", 1e6)
    monkeypatch.setattr(recorder_module, "FIGURES_EVERY_S", 1e6)

    def work(on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
        for step in range(1, 5):
            on_progress(Progress("quiet", step, 10, {"loss": 1.0}))
        wait_for(lambda: run.status().step == 4, "the held-back status")
        wait_for(lambda: run.events()[-1]["step"] == 4, "the held-back event")
        assert run.heartbeat_age(run.status().updated_at) is not None
        return {}

    record(run, work)

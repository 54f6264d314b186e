"""Jobs as real processes: joined, queued in order, cancelled, killed, resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from lrc_core import kinds
from lrc_core.errors import BudgetError, ModelError, ResourceError, RunError, TextError, UnknownNameError
from lrc_core.jobs import ending, launch, manager
from lrc_core.kinds import checks
from lrc_core.runs.process import host_name, identity, process_of
from lrc_core.runs.records import Status
from lrc_core.runs.spec import AllocateSpec, CalibrationSpec, CompareSpec, EvaluationSpec, ModelRef, SpectraSpec
from lrc_core.runs.store import Run, RunStore
from tests.factories.job_helpers import EXECUTE_VARIABLE, kill_workers, processes_of, wait_for
from tests.tree import ROOT


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunStore]:
    monkeypatch.setattr("lrc_core.jobs.manager.check", lambda spec, **_: None)
    store = RunStore()
    yield store
    kill_workers(store)


@pytest.fixture
def doing(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda name: monkeypatch.setenv(EXECUTE_VARIABLE, f"tests.factories.job_helpers:{name}")


def spec(seed: int = 0) -> SpectraSpec:
    return SpectraSpec(calibration=CalibrationSpec(seed=seed))


def wait_state(run: Run, *states: str) -> Status:
    wait_for(lambda: run.status().state in states, f"{states}, log: {run.log_tail()}")
    return run.status()


def go(store: RunStore) -> None:
    (store.root / "go").touch()


def counting(run: Run) -> Status:
    wait_for(lambda: run.status().step > 0, f"a first step, log: {run.log_tail()}")
    return run.status()


def test_a_job_runs_to_its_end_in_a_process_of_its_own(store: RunStore, doing: Any) -> None:
    doing("finish")
    run = manager.submit(spec())
    status = wait_state(run, "done", "failed")
    assert status.state == "done", status
    assert run.result() == {"run_id": run.id, "pid_ran": True}
    assert status.pid != os.getpid()
    assert status.host == host_name()
    assert run.events()[-1]["phase"] == "working"
    assert manager.submit(spec()).status().attempt == 1, "a done run is returned, not started again"


def test_two_processes_submitting_at_once_start_one_worker(store: RunStore, doing: Any) -> None:
    doing("work")
    code = (
        "import lrc_core.jobs.manager as m, lrc_core.runs.spec as s\n"
        "m.check = lambda spec, **_: None\n"
        "print(m.submit(s.SpectraSpec()).status().pid, flush=True)\n"
    )
    command = [sys.executable, "-c", code]
    tabs = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    pids = {tab.communicate(timeout=30)[0].strip() for tab in tabs}
    assert len(pids) == 1, pids
    run = store.open(SpectraSpec().run_id)
    assert str(counting(run).pid) in pids, "it survived the processes that asked for it"
    go(store)
    assert wait_state(run, "done").attempt == 1


def test_a_failed_job_is_offered_for_resume_not_restarted(store: RunStore, doing: Any) -> None:
    doing("fail")
    run = manager.submit(spec())
    status = wait_state(run, "failed")
    assert (status.error, status.remedy) == ("model.layers.0.q_proj holds NaN.", "Download it again.")
    assert manager.submit(spec()).status().state == "failed"
    doing("finish")
    manager.resume(run.id)
    assert wait_state(run, "done").attempt == 2


def test_a_running_job_is_cancelled_and_goes_on_from_its_checkpoint(store: RunStore, doing: Any) -> None:
    doing("work")
    run = manager.submit(spec())
    counting(run)
    assert manager.cancel(run.id, wait=True).state == "cancelled"
    done = int((run.path / "checkpoint" / "step.json").read_text())
    with pytest.raises(RunError, match="no run spectra-000000000000"):
        manager.resume("spectra-000000000000")
    go(store)
    manager.resume(run.id)
    wait_state(run, "done")
    assert run.result() == {"first": done, "steps": done}
    assert manager.cancel(run.id).state == "done", "cancelling what is final changes nothing"
    with pytest.raises(RunError, match="nothing to resume"):
        manager.resume(run.id)


def test_kill_minus_nine_is_noticed_and_resumed(store: RunStore, doing: Any) -> None:
    doing("work")
    run = manager.submit(spec())
    status = counting(run)
    with pytest.raises(RunError, match="running"):
        manager.resume(run.id)
    assert manager.reconcile() == []
    os.kill(status.pid, signal.SIGKILL)  # type: ignore[arg-type]
    wait_for(lambda: process_of(status) is None, "the worker's death")
    assert run.status().state == "running", "nobody has looked yet"
    assert [changed.id for changed in manager.reconcile()] == [run.id]
    assert run.status().state == "interrupted"
    assert "died" in run.status().error
    manager.resume(run.id)
    assert counting(run).attempt == 2
    go(store)
    wait_state(run, "done")
    assert run.result()["first"] > 0  # type: ignore[index]


def test_sigterm_is_a_cancel(store: RunStore, doing: Any) -> None:
    doing("work")
    run = manager.submit(spec())
    os.kill(counting(run).pid, signal.SIGTERM)  # type: ignore[arg-type]
    assert wait_state(run, "cancelled", "failed").state == "cancelled"


def test_a_worker_that_does_not_listen_is_stopped_by_sigterm(
    store: RunStore, doing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    doing("deaf")
    monkeypatch.setattr(ending, "TERM_AFTER_S", 0.2)
    run = manager.submit(spec())
    wait_for(lambda: run.status().phase == "not listening", "the deaf worker")
    assert manager.cancel(run.id, wait=True).state == "cancelled"


def test_a_stopped_worker_is_killed(store: RunStore, doing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    doing("deaf")
    monkeypatch.setattr(ending, "TERM_AFTER_S", 0.1)
    monkeypatch.setattr(ending, "KILL_AFTER_S", 0.3)
    run = manager.submit(spec())
    wait_for(lambda: run.status().phase == "not listening", "the deaf worker")
    os.kill(run.status().pid, signal.SIGSTOP)  # type: ignore[arg-type]
    assert manager.cancel(run.id, wait=True).state == "cancelled"


def test_one_job_at_a_time_in_the_order_of_submission(store: RunStore, doing: Any) -> None:
    doing("work")
    first = manager.submit(spec(0))
    counting(first)
    doing("in_turn")
    others = [manager.submit(spec(seed)) for seed in (5, 3, 4)]
    assert [run.status().state for run in others] == ["queued"] * 3
    assert [manager.queue_position(run.id) for run in others] == [1, 2, 3]
    go(store)
    for run in others:
        wait_state(run, "done")
    lines = (store.root / "order.txt").read_text().splitlines()
    assert lines == [f"{word} {run.id}" for run in others for word in ("begin", "end")]


def test_a_queued_job_is_cancelled_and_deleted_at_once(store: RunStore, doing: Any) -> None:
    doing("work")
    first, second, third = (manager.submit(spec(seed)) for seed in range(3))
    counting(first)
    with pytest.raises(RunError, match="Cancel it first"):
        manager.delete(second.id)
    assert manager.cancel(second.id).state == "cancelled"
    manager.delete(second.id)
    assert not second.path.exists()
    assert manager.queue_position(third.id) == 1
    with pytest.raises(RunError, match="Cancel it first"):
        manager.delete(first.id)
    go(store)
    wait_state(third, "done")
    manager.delete(first.id)
    assert store.ids() == [third.id]


def test_a_cancelled_queued_job_resumed_at_once_has_one_worker(store: RunStore, doing: Any) -> None:
    doing("work")
    first, second = manager.submit(spec(0)), manager.submit(spec(1))
    counting(first)
    manager.cancel(second.id)
    manager.resume(second.id)
    assert manager.queue_position(second.id) == 1
    go(store)
    assert wait_state(second, "done").attempt == 2


def test_the_queue_goes_on_when_the_first_is_killed(store: RunStore, doing: Any) -> None:
    doing("work")
    first, second, third = (manager.submit(spec(seed)) for seed in range(3))
    assert [process_of(run.status()) for run in (second, third)] == [None, None], "who waits is a ticket"
    os.kill(counting(first).pid, signal.SIGKILL)  # type: ignore[arg-type]
    os.kill(counting(second).pid, signal.SIGKILL)  # type: ignore[arg-type]
    counting(third)
    manager.reconcile()
    assert [run.status().state for run in (first, second)] == ["interrupted", "interrupted"]


@pytest.mark.parametrize("who", ["the worker's end", "a look"])
def test_a_killed_dispatcher_is_replaced(store: RunStore, doing: Any, who: str) -> None:
    doing("work")
    first, second = (manager.submit(spec(seed)) for seed in range(2))
    counting(first)
    (killed,) = wait_for(lambda: processes_of(store, "dispatcher"), "the dispatcher")
    killed.kill()
    killed.wait(30)
    # What a machine that went down leaves: nothing that runs, and a stamp that is old by the time it is up again.
    for stamp in (store.root / ".queue").rglob("dispatcher.started"):
        os.utime(stamp, (1.0, 1.0))
    assert manager.poll(second.id).state == "queued" if who == "a look" else second.status().state == "queued"
    go(store)
    wait_state(second, "done")
    wait_for(lambda: not processes_of(store), "everybody's end")


def test_dispatchers_started_at_once_are_one(store: RunStore, doing: Any) -> None:
    doing("work")
    counting(manager.submit(spec()))
    manager.submit(spec(1))
    for _ in range(3):
        launch.start_process(("dispatcher", str(store.root)), store.root / "more.log", "Another dispatcher")
    wait_for(lambda: len(processes_of(store, "dispatcher")) == 1, "the others' end")


def test_a_job_that_knows_a_secret_waits_in_a_process_of_its_own(store: RunStore, doing: Any) -> None:
    doing("work")
    first = manager.submit(spec())
    counting(first)
    doing("tell_token")
    second = manager.submit(spec(1), env={"HF_TOKEN": "hf_secret_value"})
    wait_for(lambda: process_of(second.status()), "its process")
    assert not [path for path in store.root.rglob("*") if path.is_file() and b"hf_secret" in path.read_bytes()]
    go(store)
    wait_state(second, "done")
    assert second.result() == {"length": len("hf_secret_value")}


def test_no_more_wait_than_may(store: RunStore, doing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    doing("work")
    monkeypatch.setenv("LRC_MOST_WAITING", "2")
    first, second, third = (manager.submit(spec(seed)) for seed in range(3))
    counting(first)
    with pytest.raises(ResourceError, match="2 jobs") as refused:
        manager.submit(spec(3))
    assert "LRC_MOST_WAITING" in refused.value.remedy and len(store.ids()) == 3
    assert manager.submit(spec(2)).id == third.id, "who waits already is joined"
    manager.cancel(second.id)
    manager.submit(spec(3))
    with pytest.raises(ResourceError, match="2 jobs"):
        manager.resume(second.id)


def test_a_newer_wish_replaces_automatic_jobs_that_wait(store: RunStore, doing: Any) -> None:
    doing("work")
    running, old, other = (
        manager.submit(AllocateSpec(keep=0.9), automatic=True),
        manager.submit(AllocateSpec(keep=0.8), automatic=True),
        manager.submit(spec(), automatic=True),
    )
    counting(running)
    wish = AllocateSpec(keep=0.7)
    assert manager.replace_queued(replace(wish, model=ModelRef("elsewhere"))) == []
    assert manager.replace_queued(wish) == [old.id]
    assert set(store.ids()) == {running.id, other.id}
    assert running.status().state == "running"


def test_what_was_asked_for_is_never_replaced(store: RunStore, doing: Any) -> None:
    doing("work")
    counting(manager.submit(spec()))
    asked, joined, resumed = (AllocateSpec(keep=keep) for keep in (0.9, 0.8, 0.7))
    manager.submit(asked)
    manager.submit(asked, automatic=True)  # the slider comes by later: the run stays what it is
    manager.submit(joined, automatic=True)
    manager.submit(joined)
    manager.submit(resumed, automatic=True)
    manager.cancel(resumed.run_id)
    manager.resume(resumed.run_id)
    assert manager.replace_queued(AllocateSpec(keep=0.6)) == []


def test_a_dead_pid_that_another_process_took_is_not_mistaken_for_the_worker(store: RunStore) -> None:
    run = store.create(spec())
    run.write_status(Status(state="running", pid=os.getpid(), pid_started=1.0, host=host_name()))
    manager.reconcile()
    assert run.status().state == "interrupted"


def test_a_worker_of_another_machine_is_judged_by_its_heartbeat(store: RunStore) -> None:
    run = store.create(spec())
    run.write_status(Status(state="running", pid=1, pid_started=1.0, host="another-machine", updated_at=1.0))
    run.beat()
    assert manager.reconcile() == []
    old = time.time() - 1000
    os.utime(run.path / "heartbeat", (old, old))
    manager.reconcile()
    assert run.status().state == "interrupted"


def test_reconcile_trusts_a_written_result_and_bears_damage(store: RunStore) -> None:
    done, damaged, starting = (store.create(spec(seed)) for seed in range(3))
    done.write_status(Status(state="running", pid=2**22 - 1, pid_started=1.0, host=host_name()))
    done.write_result({"answer": 42})
    (damaged.path / "status.json").write_text("{")
    manager.reconcile()
    assert done.status().state == "done"
    assert starting.status().state == "queued", "its worker may be on its way"
    starting.write_status(replace(starting.status(), updated_at=1.0))
    manager.reconcile()
    assert starting.status().state == "interrupted"
    with pytest.raises(RunError, match=r"status\.json"):
        manager.submit(spec(1))
    manager.delete(damaged.id)


def test_signals_reach_a_runs_own_worker_only(store: RunStore) -> None:
    run = store.create(spec())
    process = process_of(Status(pid=os.getpid(), pid_started=0.0, host=host_name()))
    assert process is None
    mine = Status(state="running", **identity(os.getpid()))
    assert process_of(mine) is not None
    assert not launch.signal_worker(run, mine, signal.SIGKILL)


def test_a_worker_that_cannot_start_fails_the_run(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: Any, **__: Any) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", no_memory)
    with pytest.raises(ResourceError, match="be started"):
        manager.submit(spec())
    assert store.open(spec().run_id).status().state == "failed"


def test_nothing_is_queued_when_the_preflight_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "check_model", lambda *_: None)
    with pytest.raises(BudgetError):
        manager.submit(AllocateSpec(keep=float("nan")))
    assert RunStore().list() == []


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (CompareSpec(keeps=(0.9, 1.5)), BudgetError),
        (CompareSpec(keeps=(0.0,)), BudgetError),
        (AllocateSpec(keep=-0.5), BudgetError),
        (AllocateSpec(method="magic"), UnknownNameError),
        (SpectraSpec(decompositions=("svdd",)), UnknownNameError),
        (SpectraSpec(calibration=CalibrationSpec(texts=("/no/such/file.txt",))), TextError),
        (CompareSpec(evaluation=EvaluationSpec(texts=("/no/such/file.txt",)), methods=("uniform",)), TextError),
    ],
)
def test_preflight_names_what_is_wrong(wrong: Any, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "check_model", lambda *_: None)
    with pytest.raises(error):
        kinds.check(wrong)


def test_preflight_refuses_a_model_with_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: ModelRef, *_: Any) -> None:
        raise ModelError("no config.json")

    monkeypatch.setattr(checks, "check_model", refuse)
    with pytest.raises(ModelError):
        kinds.check(SpectraSpec())


def test_a_token_reaches_the_worker_and_no_file(store: RunStore, doing: Any) -> None:
    doing("tell_token")
    run = manager.submit(spec(), env={"HF_TOKEN": "hf_secret"})
    wait_state(run, "done")
    assert run.result() == {"length": len("hf_secret")}
    assert "HF_TOKEN" not in os.environ
    for path in run.path.rglob("*"):
        assert not path.is_file() or b"hf_secret" not in path.read_bytes()

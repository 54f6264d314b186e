"""The worker, in this process where that suffices."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lrc_core.files import lock_if_free
from lrc_core.jobs import worker
from lrc_core.runs.process import host_name, start_time
from lrc_core.runs.records import Status
from lrc_core.runs.spec import FetchSpec, SpectraSpec
from lrc_core.runs.store import Run, RunStore
from tests.factories.job_helpers import EXECUTE_VARIABLE, deaf, fail, finish
from tests.tree import ROOT


@pytest.fixture
def run() -> Run:
    return RunStore().create(SpectraSpec())


@pytest.mark.parametrize("work", ["finish", "leave_a_thread"])
def test_works_from_any_folder_on_nothing_but_the_run_folder(run: Run, tmp_path: Path, work: str) -> None:
    """And ends with its work, whatever threads that has left."""
    command = [sys.executable, "-m", "lrc_core.jobs.worker", str(run.path)]
    subprocess.run(
        command,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]]),
            EXECUTE_VARIABLE: f"tests.factories.job_helpers:{work}",
        },
        check=True,
        timeout=30,
    )
    assert run.status().state == "done"


def test_what_is_left_to_do_at_the_end_is_done(tmp_path: Path) -> None:
    """Output is written, and what was registered runs, before the threads that nobody wakes go."""
    code = (
        "import atexit, pathlib, threading; from lrc_core.runs.process import leave; print('said'); "
        f"atexit.register(pathlib.Path({str(tmp_path / 'left')!r}).touch); "
        "threading.Thread(target=threading.Event().wait).start(); leave(3)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (3, "said\n")
    assert (tmp_path / "left").exists()


def test_no_torch_before_its_turn() -> None:
    code = "import sys, lrc_core.jobs.worker, lrc_core.jobs.manager; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def test_exit_codes_follow_the_end(run: Run) -> None:
    assert worker.main(run.path, fail) == worker.FAILED
    assert run.status().state == "failed"
    assert worker.main(run.path, finish) == worker.NOT_MINE, "a final run goes on only through a resume"


def test_cancelled_before_its_turn(run: Run) -> None:
    run.request_cancel()
    assert worker.main(run.path, deaf) == worker.CANCELLED
    assert run.status().state == "cancelled"


def test_leaves_a_run_with_a_live_worker_alone(run: Run) -> None:
    parent = os.getppid()
    run.write_status(replace(run.status(), pid=parent, pid_started=start_time(parent), host=host_name()))
    assert worker.main(run.path, finish) == worker.NOT_MINE
    assert run.status().pid == parent


def test_takes_over_from_a_dead_worker(run: Run) -> None:
    run.write_status(replace(run.status(), pid=os.getpid(), pid_started=1.0, host=host_name()))
    assert worker.main(run.path, finish) == worker.DONE


@pytest.mark.parametrize("name", ["spec.json", "status.json"])
def test_a_damaged_run_is_an_error_not_a_crash(run: Run, name: str, caplog: pytest.LogCaptureFixture) -> None:
    (run.path / name).write_text("{")
    assert worker.main(run.path, finish) == worker.FAILED
    assert name in caplog.text


def test_a_missing_folder_is_an_error_not_a_crash(tmp_path: Path) -> None:
    assert worker.main(tmp_path / "nowhere" / "spectra-1", finish) == worker.FAILED


def test_downloads_do_not_wait_for_the_device() -> None:
    store = RunStore()
    run = store.create(FetchSpec())
    with lock_if_free(store.root / ".queue" / host_name() / "slot") as held:
        assert held
        assert worker.main(run.path, finish) == worker.DONE


def test_a_run_that_another_process_did_meanwhile_is_left_as_it_is(run: Run) -> None:
    """A comparison may do a queued part itself while that part's own worker waits."""
    store = RunStore()

    def do_it_elsewhere(_: Any) -> bool:
        run.write_status(Status(state="done"))
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lrc_core.jobs.queue.DeviceQueue.is_next", lambda self, run_id: do_it_elsewhere(run_id))
        assert worker.main(run.path, deaf) == worker.NOT_MINE
    assert store.open(run.id).status().state == "done"

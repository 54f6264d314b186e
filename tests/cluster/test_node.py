"""What a job does on its node, and what is told of jobs that an engine ended: without an engine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lrc_core.errors import CancelledError, ResourceError, RunError
from lrc_core.jobs import manager, node, placed, surroundings
from lrc_core.jobs.engines import slurm
from lrc_core.jobs.engines.engine import JobState
from lrc_core.jobs.engines.placement import FILE, Placement, new_placement, placement_of, write_placement
from lrc_core.jobs.engines.profile import Profile
from lrc_core.jobs.engines.ray import RayEngine
from lrc_core.jobs.engines.slurm import SlurmEngine
from lrc_core.jobs.surroundings import program
from lrc_core.runs.process import host_name, identity
from lrc_core.runs.spec import AllocateSpec, CalibrationSpec
from lrc_core.runs.store import Run, RunStore

SLURM = Profile(engine="slurm")


def sent(seed: int = 0, **status: Any) -> tuple[Run, Placement]:
    """A run that was sent to Slurm, in a state."""
    run = RunStore().create(AllocateSpec(calibration=CalibrationSpec(seed=seed)))
    run.write_status(replace(run.status(), **status))
    placement = replace(new_placement(SLURM), job="7")
    write_placement(run.path / FILE, placement)
    return run, placement


def work(run: Run, placement: Placement, *more: str) -> int:
    return node.main((str(run.path), placement.ticket, *more), name="node1")


@pytest.fixture
def executes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Run], dict[str, Any]]], None]:
    def be(function: Callable[[Run], dict[str, Any]]) -> None:
        monkeypatch.setattr("lrc_core.jobs.worker._pipeline", lambda run, **_: function(run))

    return be


def dead() -> dict[str, Any]:
    """Whose run it is when its process has died."""
    return {**identity(os.getpid()), "pid_birth": "gone/1"}


def test_a_job_works_on_its_run_and_a_second_one_finds_it_done(executes: Any) -> None:
    ran = []
    executes(lambda run: ran.append(run.id) or {})
    run, placement = sent()
    assert work(run, placement, "--program", program()) == node.DONE
    assert work(run, placement) == node.DONE
    assert ran == [run.id] and run.status().state == "done"
    assert (known := placement_of(run.path)) is not None and known.node == "node1" and known.began_at > 0


def test_a_job_of_an_earlier_submission_leaves_the_run_alone(executes: Any) -> None:
    executes(lambda run: pytest.fail("worked"))
    run, placement = sent()
    assert work(run, replace(placement, ticket="older")) == node.NOT_MINE
    assert run.status().state == "queued"


@pytest.mark.parametrize("host", ["", "lost-node"])
def test_a_run_whose_node_was_lost_is_taken_over(host: str, executes: Any) -> None:
    executes(lambda run: {"went_on": True})
    owner = {**dead(), **({"host": host} if host else {})}
    run, placement = sent(state="running", **owner)
    run.beat()
    assert work(run, placement) == node.DONE
    assert run.status().attempt == 2


def test_a_run_that_another_job_works_on_is_waited_for(executes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    executes(lambda run: pytest.fail("worked"))
    run, mine = sent(state="running", **{**identity(os.getppid()), "host": host_name()})
    write_placement(run.path / FILE, replace(mine, ticket="other"))
    step = replace(mine, ticket="step")

    def ends(_: float) -> None:
        run.write_result({})
        run.write_status(replace(run.status(), state="done"))

    monkeypatch.setattr(node.time, "sleep", ends)
    assert node._work_on(run, step) == node.DONE


def test_what_the_scheduler_takes_back_waits_and_what_a_user_cancels_ends(executes: Any) -> None:
    def stopped(run: Run) -> dict[str, Any]:
        raise CancelledError("Stopped.")

    executes(stopped)
    run, placement = sent()
    assert work(run, placement) == node.HANDED_BACK
    assert (run.status().state, run.status().attempt) == ("queued", 2)
    run.request_cancel()
    assert work(run, placement) == node.CANCELLED
    assert run.status().state == "cancelled"


def test_a_folder_that_is_not_there_and_another_program_are_refused(tmp_path: Path, executes: Any) -> None:
    executes(lambda run: pytest.fail("worked"))
    assert node.main((str(tmp_path / "elsewhere"), "ticket")) == node.UNSEEN
    run, placement = sent()
    assert work(run, placement, "--program", "0.0/other") == node.FAILED
    assert run.status().state == "failed" and program() in run.status().error and run.status().remedy


@pytest.mark.parametrize(
    ("answer", "gpus", "refused"),
    [("100, 80000\n", 1, ""), ("70000, 80000\n", 1, "taken"), ("100, 80000\n", 2, "1 GPU"), (None, 1, "0 GPU")],
)
def test_a_gpu_that_is_missing_or_taken_is_refused(
    answer: str | None, gpus: int, refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if answer is not None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\nprintf '{answer}'\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    if not refused:
        surroundings.check_node("n", tmp_path, "", gpus)
        return
    with pytest.raises(ResourceError, match=refused):
        surroundings.check_node("n", tmp_path, "", gpus)


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "LEAST_DISK", 2**62)
    with pytest.raises(ResourceError, match="full"):
        surroundings.require_disk_space(tmp_path / "not" / "yet")


class Says:
    """An engine that says one thing of every job."""

    def __init__(self, found: JobState) -> None:
        self.found, self.cancelled = found, list[str]()

    def look(self, jobs: list[str]) -> dict[str, JobState]:
        return dict.fromkeys(jobs, self.found)

    def cancel(self, jobs: list[str]) -> None:
        self.cancelled += jobs


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Says]:
    def be(state: Any, **more: str) -> Says:
        engine = Says(JobState(state, **more))
        monkeypatch.setattr(placed, "engine_of", lambda *_: engine)
        monkeypatch.setattr(placed, "LAG_S", 0.0)
        return engine

    return be


@pytest.mark.parametrize(
    ("ending", "state", "told"),
    [
        ("CANCELLED", "cancelled", "cancelled"),
        ("TIMEOUT", "interrupted", "time limit"),
        ("OUT_OF_MEMORY", "interrupted", "memory"),
        ("NODE_FAIL", "interrupted", "lost node3"),
        ("FAILED", "interrupted", "without a word"),
        ("lost", "interrupted", "not known"),
        ("cannot see the folder", "failed", "does not see"),
    ],
)
def test_what_an_engine_ended_is_told_as_that(ending: str, state: str, told: str, says: Any) -> None:
    says("ended", ending=ending, node="node3")
    run, placement = sent(state="running", **{**dead(), "host": "node3"})
    write_placement(run.path / FILE, replace(placement, began_at=1.0))
    status = manager.poll(run.id)
    assert status.state == state and told in status.error and status.remedy


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        ("echo slurm_load_jobs error: Invalid job id specified >&2; exit 1", "lost"),
        ("echo JobId=7 JobState=FAILED ExitCode=1:0 NodeList=node3", "FAILED"),
        ("echo JobId=7 JobState=FAILED ExitCode=0:53 NodeList=node3", "cannot see the folder"),
        ("echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1", ""),
    ],
)
def test_what_slurm_says_of_a_job_that_is_in_no_list(
    answer: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, script in (("squeue", ""), ("scontrol", answer)):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(slurm, "_seen", (0.0, {}))
    found = SlurmEngine(SLURM, tmp_path).look(["7"])["7"]
    assert (found.state, found.ending) == ("ended" if ending else "unknown", ending)


def test_a_job_that_never_began_is_told_as_that(says: Any) -> None:
    says("ended", ending="FAILED", node="node3")
    run, _ = sent()
    status = manager.poll(run.id)
    assert status.state == "failed" and "before the program began" in status.error


def test_a_requeued_run_waits_again_and_an_engine_that_is_silent_changes_nothing(says: Any) -> None:
    says("pending", reason="Resources")
    run, _ = sent(state="running", **dead())
    assert manager.poll(run.id).state == "queued"
    assert (known := placement_of(run.path)) is not None and known.reason == "Resources"
    says("unknown")
    waits, _ = sent(seed=1, updated_at=1.0)
    assert manager.poll(waits.id).state == "queued"


def test_a_waiting_run_is_taken_back_from_its_engine(says: Any) -> None:
    engine = says("pending")
    run, _ = sent()
    assert manager.cancel(run.id).state == "cancelled"
    assert engine.cancelled == ["7"]


def test_engines_that_do_not_answer_say_so_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    pytest.importorskip("submitit")
    with pytest.raises(ResourceError, match="Slurm"):
        SlurmEngine(SLURM, tmp_path).reach()
    ray = pytest.importorskip("ray")
    assert not ray.is_initialized()
    with pytest.raises(ResourceError, match=r"127\.0\.0\.1:9"):
        RayEngine(Profile(engine="ray", address="127.0.0.1:9"), tmp_path).reach()


def test_a_submission_that_is_refused_leaves_a_run_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrc_core.kinds.checks.check_model", lambda *_: None)
    monkeypatch.setenv("PATH", "")
    pytest.importorskip("submitit")
    with pytest.raises((ResourceError, RunError)):
        manager.submit(AllocateSpec(method="uniform"), on=SLURM)
    (summary,) = RunStore().list()
    assert summary.state == "failed" and json.loads((summary.path / "status.json").read_text())["error"]

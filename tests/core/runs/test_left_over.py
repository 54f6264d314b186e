"""What kills, clocks and other users do to a folder of runs: left-overs are swept, identity holds, nobody looks in."""

from __future__ import annotations

import multiprocessing
import os
import stat
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from lrc_core.calibrate.generated import Wanted, generated_windows
from lrc_core.jobs import cache, generator, manager
from lrc_core.jobs.queue import DeviceQueue
from lrc_core.paths import cache_home
from lrc_core.runs import process
from lrc_core.runs.process import birth, host_name, identity, is_alive, is_mine, process_of
from lrc_core.runs.records import Status
from lrc_core.runs.spec import CalibrationSpec, SpectraSpec
from lrc_core.runs.store import Run, RunStore
from tests.factories.tiny_models import tiny_model, tiny_tokenizer

LEFT = (
    "{run}/.status.json.77.3.tmp",
    "{run}/spent.json.tmp",
    "{run}/spectra.tmp.npz",
    "{run}/parts/3.tmp.npy",
    "{run}/checkpoint/.masks.pt.77.0.tmp",
    ".app-settings.tmp",
    "../cache/decompositions/svd-1/.block-0000.safetensors.77.2.tmp",
    "../cache/decompositions/svd-1/block-0001.tmp",
)
KEPT = (
    "{run}/events.jsonl",
    "{run}/checkpoint/masks.pt",
    "{run}/masks.pt.damaged",
    "{run}/.claim",
    "{run}/notes.tmp.txt",
    ".queue/host/generator.json",
    "../cache/decompositions/svd-1/complete.json",
)


def made(store: RunStore, seed: int = 0) -> Run:
    return store.create(SpectraSpec(calibration=CalibrationSpec(seed=seed)))


def written(path: Path, age_s: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 1000)
    os.utime(path, (time.time() - age_s, time.time() - age_s))
    return path


@pytest.mark.parametrize("age_s", [60.0, 100_000.0, -3600.0])
def test_what_is_half_written_goes_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age_s: float) -> None:
    monkeypatch.setenv("LRC_CACHE", str(tmp_path / "cache"))
    store = RunStore(tmp_path / "runs")
    run = made(store)
    left, kept = ([store.root / name.format(run=run.id) for name in names] for names in (LEFT, KEPT))
    for path in (*left, *kept):
        written(path, age_s)
    unborn = written(store.root / ".new-spectra-1-ffff" / "spec.json", age_s).parent
    os.utime(unborn, (time.time() - age_s, time.time() - age_s))
    manager.reconcile(store=store)
    old = age_s > 86_400
    assert [path for path in (*left, unborn) if path.exists()] == ([] if old else [*left, unborn])
    assert all(path.exists() for path in kept)
    assert store.ids() == [run.id]
    late = written(store.root / run.id / ".late.1.1.tmp", 100_000.0)
    manager.reconcile(store=store)
    assert late.exists(), "a folder is looked through once a day"


def test_graves_go_at_once_and_are_no_runs(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    run = made(store)
    manager.reconcile(store=store)
    before = cache.runs_size(store)
    grave = written(store.root / ".gone-spectra-1-ab12" / "checkpoint" / "masks.pt", 0.0).parents[1]
    assert store.ids() == [run.id] and [one.id for one in store.list()] == [run.id]
    assert cache.runs_size(store) == before
    manager.reconcile(store=store)
    assert not grave.exists()


def _dies_while_deleting(root: Path, run_id: str) -> None:
    import lrc_core.runs.store as module

    module.shutil.rmtree = lambda *_, **__: os._exit(1)
    RunStore(root).delete(run_id)


def test_a_kill_while_deleting_leaves_nothing_for_long(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    run = made(store)
    run.write_status(replace(run.status(), state="done"))
    killed = multiprocessing.get_context("fork").Process(target=_dies_while_deleting, args=(store.root, run.id))
    killed.start()
    killed.join(30)
    assert killed.exitcode == 1
    assert [path.name[:6] for path in store.root.iterdir() if path.is_dir()] == [".gone-"]
    manager.reconcile(store=store)
    assert [path for path in store.root.iterdir() if path.is_dir()] == []


def test_reading_sweeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunStore(tmp_path / "runs")
    made(store)
    grave = written(store.root / ".gone-x" / "spec.json", 0.0)
    monkeypatch.setenv("LRC_READ_ONLY", "1")
    manager.reconcile(store=store)
    assert grave.exists()
    manager.reconcile(store=RunStore(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


# -- which process it is ------------------------------------------------------------------------------------------


@pytest.fixture(params=[3600.0, -3600.0, 2.5])
def stepped(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """The clock is set while processes run: start times that are worked out from now on differ by the step."""
    told, step = psutil.Process.create_time, float(request.param)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: told(self) + step)
    return step


ME = identity(os.getpid())


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_step_of_the_clock_ends_no_job(tmp_path: Path, stepped: float, state: str) -> None:
    store = RunStore(tmp_path / "runs")
    run = made(store)
    now = time.time()
    run.write_status(Status(state=state, queued_at=now, created_at=now, updated_at=now, **ME))
    DeviceQueue(store).enter(run, now)
    assert manager.reconcile(store=store) == []
    assert run.status().state == state
    assert DeviceQueue(store).order() == [run.id]
    assert is_mine(run.status())


def test_a_step_of_the_clock_does_not_hide_the_generator(stepped: float) -> None:
    told = generator.Generator(ME["pid"], ME["pid_started"], pid_birth=ME["pid_birth"])
    assert told.process is not None
    assert generator.Generator(**asdict(told)).process is not None


def test_another_process_of_the_same_number_is_not_it() -> None:
    boot, _, ticks = ME["pid_birth"].rpartition("/")
    for other in (f"{boot}/{int(ticks) + 1}", f"00000000-0000-0000-0000-000000000000/{ticks}"):
        status = Status(state="running", **{**ME, "pid_birth": other})
        assert process_of(status) is None and is_alive(status) is False and not is_mine(status)


def test_records_of_older_versions_go_by_their_time() -> None:
    old = {key: value for key, value in Status(state="running", **ME).to_dict().items() if key != "pid_birth"}
    assert process_of(Status.from_dict(old)) is not None
    assert process_of(Status.from_dict({**old, "pid_started": old["pid_started"] - 60})) is None


def test_where_the_system_does_not_say_times_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "birth", lambda pid: "")
    assert process_of(Status(state="running", **ME)) is not None
    assert process_of(Status(state="running", **{**ME, "pid_started": 1.0})) is None


def test_a_name_full_of_brackets_is_read_past(tmp_path: Path) -> None:
    """The second field of /proc/PID/stat is the program's name, which may hold blanks and brackets."""
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    started = psutil.Popen([str(program), "30"])
    try:
        boot, _, ticks = birth(started.pid).rpartition("/")
        assert boot and int(ticks) >= int(ME["pid_birth"].rpartition("/")[2])
        assert birth(started.pid) == birth(started.pid)
    finally:
        started.kill()
        started.wait()
    assert birth(started.pid) == ""


def test_start_time_and_host_stay_in_the_record() -> None:
    """An older version reads on: it goes by these."""
    assert abs(psutil.Process().create_time() - ME["pid_started"]) < 1
    assert (ME["pid"], ME["host"]) == (os.getpid(), host_name())


# -- who may look in ----------------------------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_runs_and_written_texts_are_their_users_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        run = made(RunStore(tmp_path / "lrc" / "runs"))
        texts = cache_home() / "generated" / "model"
        generated_windows(tiny_model(), tiny_tokenizer(), Wanted(1, 4, 0), texts)
    finally:
        os.umask(before)
    assert [mode(path) for path in (run.path, run.path.parent, texts)] == [0o700] * 3


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (0o755, 0o700),
        (0o775, 0o700),
        (0o700, 0o700),
        (0o500, 0o500),
        (0o1777, 0o1777),
        (0o2775, 0o2775),
        (0o777, 0o777),
    ],
)
@pytest.mark.parametrize("how", ["create", "reconcile"])
def test_a_folder_that_is_there_is_closed_unless_it_is_shared_on_purpose(
    tmp_path: Path, given: int, wanted: int, how: str
) -> None:
    root = tmp_path / "runs"
    root.mkdir()
    root.chmod(given)
    store = RunStore(root)
    try:
        if how == "reconcile":
            manager.reconcile(store=store)
        elif given & 0o200:
            assert mode(made(store).path) & 0o777 == 0o700
        assert mode(root) == wanted
    finally:
        root.chmod(0o700)

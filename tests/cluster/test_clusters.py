"""The real engines on this machine: nothing lost, nothing computed twice, and the very numbers of a local run."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from lrc_core.jobs import manager
from lrc_core.jobs.engines.placement import placement_of
from lrc_core.jobs.engines.profile import Profile
from lrc_core.jobs.sweeps.folder import SweepFolder
from lrc_core.jobs.sweeps.progress import SweepProgress
from lrc_core.jobs.sweeps.sending import send_missing
from lrc_core.jobs.sweeps.steps import EVALUATE, Steps
from lrc_core.paths import runs_home
from lrc_core.results.identity import identified
from lrc_core.runs.spec import AllocateSpec, CalibrationSpec, EvaluationSpec, ModelRef, QualitySpec
from lrc_core.runs.store import Run, RunStore
from tests.factories.clusters import NODES, SlurmCluster, add_ray_node, ray_cluster, why_no_slurm
from tests.factories.job_helpers import EXECUTE_VARIABLE, wait_for
from tests.pages.conftest import text_of
from tests.tree import ROOT

ASKED = "LRC_TEST_CLUSTERS"
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.process,
    pytest.mark.skipif(not os.environ.get(ASKED), reason=f"they start Slurm and Ray: `make clusters`, or {ASKED}=1"),
]


def skip_loudly(why: str) -> None:
    """In the summary of every run of the tests, and on the terminal."""
    warnings.warn(f"A cluster's tests are skipped: {why}.", stacklevel=2)
    pytest.skip(why)


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmCluster]:
    if why := why_no_slurm() or ("" if find_spec("submitit") else "submitit is not installed"):
        skip_loudly(why)
    folder = Path(tempfile.mkdtemp(prefix="lrc", dir="/tmp"))
    cluster = SlurmCluster(folder / "s")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def on_slurm(slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    monkeypatch.setenv("SLURM_CONF", slurm.configuration)
    return slurm


@pytest.fixture(scope="module")
def ray_nodes() -> Iterator[Any]:
    if find_spec("ray") is None:
        skip_loudly("ray is not installed")
    with ray_cluster() as cluster:
        if cluster is None:
            skip_loudly("this machine is too busy for Ray, whose agents must start within 15 s")
        yield cluster


@pytest.fixture
def on_ray(ray_nodes: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("RAY_ADDRESS", ray_nodes.address)
    return ray_nodes


def profile(engine: str) -> Profile:
    return Profile(engine=engine)


def counting(engine: str, monkeypatch: pytest.MonkeyPatch, count: int) -> list[Run]:
    """Runs that count until a file appears, all sent at once."""
    monkeypatch.setenv(EXECUTE_VARIABLE, "tests.factories.job_helpers:work")
    monkeypatch.setattr("lrc_core.kinds.checks.check_model", lambda *_: None)
    specs = [AllocateSpec(calibration=CalibrationSpec(seed=seed)) for seed in range(count)]
    return [manager.submit(spec, on=profile(engine)) for spec in specs]


def state(of: Run) -> str:
    return manager.poll(of.id).state


def node_of(of: Run) -> str:
    known = placement_of(of.path)
    assert known is not None
    return known.node


def job_of(of: Run) -> str:
    known = placement_of(of.path)
    assert known is not None
    return known.job


def reason_of(of: Run) -> str:
    manager.poll(of.id)
    known = placement_of(of.path)
    assert known is not None
    return known.reason


def counted(of: Run) -> int:
    """How far its checkpoint is."""
    file = of.path / "checkpoint" / "step.json"
    return int(json.loads(file.read_text())) if file.exists() else 0


def let_go() -> None:
    (runs_home() / "go").touch()


def once_and_further(runs: list[Run], lost: Run) -> None:
    """All ended; each was computed once but the one whose node was lost, which went on from where it was."""
    for one in runs:
        result = one.result()
        assert result is not None
        assert (one.status().attempt, result["first"] > 0) == ((2, True) if one.id == lost.id else (1, False))


def test_slurm_loses_nothing_when_nodes_and_controller_go(
    on_slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third, fourth = runs = counting("slurm", monkeypatch, 4)
    wait_for(lambda: counted(first) and counted(second), "two runs that count")
    assert {node_of(first), node_of(second)} == {"node1", "node2"}
    reason = wait_for(lambda: reason_of(third), "a reason")
    assert reason in ("Resources", "Priority", "None")
    on_slurm.stop_controller()
    assert {state(one) for one in runs} == {"running", "queued"}  # an engine that is silent changes nothing
    on_slurm.start_controller()
    on_slurm.ask("scancel", job_of(fourth))
    wait_for(lambda: state(fourth) == "cancelled", "a job that scancel took", 30)
    assert "cancelled" in fourth.status().error
    lost = node_of(second)
    on_slurm.lose_node(lost)
    wait_for(lambda: state(second) == "queued", "a run that waits again")
    on_slurm.start_node(lost)
    # Slurm itself lets two minutes pass before it begins a requeued job.
    on_slurm.ask("scontrol", "update", f"jobid={job_of(second)}", "starttime=now")
    let_go()
    for one in (first, second, third):
        wait_for(lambda one=one: state(one) == "done", f"the end of {one.id}", 120)
    once_and_further(runs[:3], second)


def test_a_page_sends_a_job_to_slurm_says_where_it_is_and_takes_it_back(
    on_slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cluster.toml").write_text('engine = "slurm"\n')
    monkeypatch.setenv("LRC_PROFILE", str(tmp_path / "cluster.toml"))
    monkeypatch.setenv("LRC_SAMPLES", str(tmp_path / "samples"))  # in which the spectra are not shown already
    monkeypatch.setenv(EXECUTE_VARIABLE, "tests.factories.job_helpers:work")
    monkeypatch.setattr("lrc_core.kinds.checks.check_model", lambda *_: None)
    open_page("spectra").button(key="start_spectra").click().run()
    (summary,) = RunStore().list()
    run = Run(summary.path)
    wait_for(lambda: counted(run), "a run that counts")
    page = open_page("runs", ru_run=run.id)
    assert node_of(run) in NODES and node_of(run) in text_of(page)
    page.button(key=f"cancel_{run.id}").click().run()
    wait_for(lambda: state(run) == "cancelled", "the end of the run")
    wait_for(lambda: job_of(run) not in on_slurm.ask("squeue", "-h", "-t", "running", "-o", "%i"), "the end of the job")


def open_page(name: str, **query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    for key, value in query.items():
        app.query_params[key] = value
    app.switch_page(f"pages/{name}.py")
    return app.run()


def test_ray_begins_again_elsewhere_what_a_lost_node_had(on_ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = runs = counting("ray", monkeypatch, 3)
    wait_for(lambda: sum(counted(one) > 0 for one in runs) == 2, "two runs that count")
    busy = [one for one in runs if counted(one)]
    waits = next(one for one in runs if one not in busy)
    manager.cancel(waits.id)
    (node,) = on_ray.worker_nodes
    lost = next(one for one in busy if node_of(one).endswith(node.node_id[:6]))
    on_ray.remove_node(node, allow_graceful=False)
    with monkeypatch.context() as patch:  # a node hands what it finds around it on to every job
        patch.delenv(EXECUTE_VARIABLE)
        add_ray_node(on_ray)
    before = node_of(lost)
    wait_for(lambda: node_of(lost) != before and counted(lost), "the run on another node", 120)
    let_go()
    for one in busy:
        wait_for(lambda one=one: state(one) == "done", f"the end of {one.id}", 120)
    once_and_further(busy, lost)
    assert state(waits) == "cancelled" and not counted(waits)
    assert {first.id, second.id, third.id} == {one.id for one in runs}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[QualitySpec, Path]:
    """A bench of a tiny model, and the folder of its runs on this machine."""
    from tests.factories.pipeline_helpers import run
    from tests.factories.tiny_models import save_tiny, tiny_text

    home = tmp_path_factory.mktemp("reference")
    text = home / "text.txt"
    text.write_text(tiny_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRC_RUNS", str(home / "runs"))
        patch.setenv("LRC_CACHE", str(home / "cache"))
        spec = identified(
            QualitySpec(
                model=ModelRef(str(save_tiny(home / "model"))),
                methods=("uniform",),
                keeps=(0.8,),
                baselines=(),
                calibration=CalibrationSpec((str(text),), windows=8, window=24),
                evaluation=EvaluationSpec((str(text),), window=24, max_windows=4),
                task_keeps=(),
            )
        )
        run(spec)
    return spec, home / "runs"


@pytest.mark.parametrize("engine", ["slurm", "ray"])
def test_a_sweep_comes_to_the_numbers_of_this_machine(
    engine: str, reference: tuple[QualitySpec, Path], request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(f"on_{engine}")
    spec, local = reference
    steps = Steps()
    steps.add_bench(spec, fetch=False)
    folder = SweepFolder.make(steps.all, RunStore())
    assert send_missing(folder, profile(engine)) == 4
    progress = SweepProgress(folder)
    wait_for(lambda: all(found.ended for found in progress.states().values()), "the end of the sweep", 240)
    states = progress.states()
    assert {found.state for found in states.values()} == {"done"}, states
    assert send_missing(folder, profile(engine)) == 0
    assert {path.name for path in local.iterdir() if (path / "spec.json").exists()} == set(RunStore().ids())
    for key, found in states.items():
        ours, theirs = Run(runs_home() / found.run_id), Run(local / found.run_id)
        assert ours.status().attempt == 1
        for name in ("plan.json", "scores.json"):
            assert (ours.path / name).exists() == (theirs.path / name).exists()
            if (ours.path / name).exists():
                assert (ours.path / name).read_bytes() == (theirs.path / name).read_bytes(), (key, name)
        if folder.steps[key].kind == EVALUATE:
            assert (ours.result() or {})["perplexity"] == (theirs.result() or {})["perplexity"]

"""Jobs that pages send to the cluster of the server's profile, and those that stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from lrc_core.errors import ResourceError
from lrc_core.jobs import manager
from lrc_core.jobs.engines.engine import EngineTask, JobState
from lrc_core.jobs.engines.placement import placement_of
from lrc_core.jobs.engines.profile import LOCAL, Profile
from lrc_core.runs.spec import AllocateSpec, CalibrationSpec, FetchSpec, GenerateSpec, SpectraSpec
from lrc_core.runs.store import RunStore
from pages.ui.shared import engine
from tests.pages.conftest import text_of


class FullCluster:
    """An engine in which every job waits."""

    lasting = True

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.cancelled: list[str] = []
        self.answers = True

    def reach(self) -> None:
        if not self.answers:
            raise ResourceError("The controller login7 is silent.", "Is it up?")

    def submit(self, works: Sequence[EngineTask], jobs: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        for work in works:
            self.sent.append(work.key)
            yield work.key, str(len(self.sent))

    def look(self, jobs: Sequence[str]) -> dict[str, JobState]:
        return {job: JobState("pending", reason="Resources") for job in jobs}

    def cancel(self, jobs: Sequence[str]) -> None:
        self.cancelled += jobs


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FullCluster:
    """The cluster of the server's profile; nothing is computed on this machine either."""
    file = tmp_path / "cluster.toml"
    file.write_text('engine = "slurm"\npartition = "gpu"\ngpus = 2\n')
    monkeypatch.setenv("LRC_PROFILE", str(file))
    made = FullCluster()
    monkeypatch.setattr("lrc_core.jobs.placed.engine_of", lambda *_: made)
    monkeypatch.setattr(manager, "check", lambda *_, **__: None)
    monkeypatch.setattr(manager, "start_run", lambda *_: None)
    monkeypatch.setattr("lrc_core.jobs.dispatcher.ensure", lambda *_: None)
    return made


def test_a_job_goes_to_the_cluster_and_shows_why_it_waits(open_page, store: RunStore, cluster: FullCluster) -> None:
    app = open_page("spectra")
    control = app.segmented_control(key=engine.KEY)
    assert "2 GPUs" in control.help and "gpu" in control.help
    app.button(key="start_spectra").click().run()
    (run_id,) = cluster.sent
    placement = placement_of(store.root / run_id)
    assert placement is not None and placement.profile["gpus"] == 2
    manager.poll(run_id)
    assert "Resources" in text_of(app.run())


def test_this_computer_can_be_chosen_and_a_link_keeps_it(open_page, store: RunStore, cluster: FullCluster) -> None:
    app = open_page("spectra", **{engine.KEY: "This computer"})
    app.button(key="start_spectra").click().run()
    (summary,) = store.list()
    assert not cluster.sent and placement_of(summary.path) is None


@pytest.mark.parametrize(
    ("spec", "env", "goes"),
    [
        (SpectraSpec(), None, True),
        (SpectraSpec(), {"HF_TOKEN": "secret"}, False),
        (FetchSpec(), None, False),
        (GenerateSpec(), None, False),
    ],
)
def test_what_cannot_be_done_there_stays(spec, env, goes: bool, cluster: FullCluster) -> None:
    found = engine.chosen(spec, env)
    assert found is not None and (found.engine != LOCAL) == goes


def test_a_cluster_that_does_not_answer_is_said_and_nothing_is_lost(
    open_page, store: RunStore, cluster: FullCluster
) -> None:
    cluster.answers = False
    app = open_page("spectra")
    app.button(key="start_spectra").click().run()
    assert "login7" in text_of(app)
    (summary,) = store.list()
    assert summary.state == "failed" and not cluster.sent
    cluster.answers = True
    open_page("runs", ru_run=summary.id).button(key=f"resume_{summary.id}").click().run()
    assert cluster.sent == [summary.id]


def test_what_stopped_is_resumed_where_the_tab_sends_jobs(open_page, store: RunStore, cluster: FullCluster) -> None:
    run = manager.submit(SpectraSpec(), store=store, on=Profile(engine="slurm"))
    manager.cancel(run.id, store=store)
    page = open_page("runs", ru_run=run.id, **{engine.KEY: "This computer"})
    page.button(key=f"resume_{run.id}").click().run()
    assert cluster.sent == [run.id] and placement_of(run.path) is None and run.status().state == "queued"


def test_without_a_profile_and_in_the_demo_there_is_no_choice(
    open_page, cluster: FullCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRC_READ_ONLY", "1")
    assert engine.cluster() is None
    monkeypatch.delenv("LRC_READ_ONLY")
    monkeypatch.delenv("LRC_PROFILE")
    assert engine.cluster() is None
    assert engine.KEY not in {control.key for control in open_page("spectra").get("button_group")}


def test_a_newer_wish_takes_the_older_one_back_from_the_cluster(store: RunStore, cluster: FullCluster) -> None:
    specs = [AllocateSpec(calibration=CalibrationSpec(seed=seed)) for seed in (1, 2)]
    first = manager.submit(specs[0], store=store, automatic=True, on=Profile(engine="slurm"))
    assert manager.replace_queued(specs[1], store=store) == [first.id]
    assert cluster.cancelled == ["1"]

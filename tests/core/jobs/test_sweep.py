"""A sweep is the bench's own runs in another order, whichever of the two is first; bad files are refused."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from lrc_core.cli import main
from lrc_core.cli.parser import build_parser
from lrc_core.errors import LrcError, SettingsError
from lrc_core.jobs import node
from lrc_core.jobs.engines.placement import new_placement, write_placement
from lrc_core.jobs.engines.profile import Profile, chosen_profile, offer_profile, read_profile
from lrc_core.jobs.node import FAILED
from lrc_core.jobs.sweeps.file import read_benches
from lrc_core.jobs.sweeps.folder import SweepFolder
from lrc_core.jobs.sweeps.progress import SweepProgress
from lrc_core.jobs.sweeps.steps import ALLOCATE, EVALUATE, Steps
from lrc_core.paths import runs_home
from lrc_core.results.identity import identified
from lrc_core.runs.spec import QualitySpec
from lrc_core.runs.store import RunStore
from tests.factories.pipeline_helpers import run
from tests.tree import ROOT

EXAMPLES = ROOT / "examples"


def sweep_of(spec: QualitySpec) -> SweepFolder:
    steps = Steps()
    steps.add_bench(spec, fetch=False)
    return SweepFolder.make(steps.all, RunStore())


def test_after_the_bench_every_step_is_done_but_what_failed(bench_parts: dict[str, Any]) -> None:
    spec = identified(
        QualitySpec(
            methods=("failing", "llrc", "uniform"),
            keeps=(0.9, 0.85, 0.7),
            seeds=(0,),
            updates=("none", "left"),
            storages=("pair", "pivoted"),
            formats=("Q8_0",),
            **{**bench_parts, "baselines": ("uniform",)},
        )
    )
    run(spec)
    states = SweepProgress(sweep_of(spec)).states()
    failed = {key for key, state in states.items() if state.state == "failed"}
    steps = sweep_of(spec).steps
    assert {(steps[key].kind, steps[key].spec["method"], steps[key].spec["keep"]) for key in failed} == {
        (ALLOCATE, "failing", 0.7)
    }
    assert {state.state for key, state in states.items() if key not in failed} == {"done", "skipped"}
    rows = {state.run_id for key, state in states.items() if steps[key].kind == EVALUATE and state.state == "done"}
    assert len(rows) == 1 + 1 + 2 * 2 * (3 + 3 + 2)


def test_the_table_of_a_sweep_has_every_figure_of_its_runs(
    bench_parts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = identified(QualitySpec(methods=("failing", "uniform"), keeps=(0.7,), **{**bench_parts, "baselines": ()}))
    run(spec)
    steps = Steps()
    steps.add_bench(spec, fetch=False)
    monkeypatch.setattr("lrc_core.cli.clusters.sweeps.plan_sweep", lambda *_: steps)
    monkeypatch.setattr("lrc_core.cli.clusters.sweeps.send_missing", lambda *_: 0)
    assert main(["sweep", "sweep.toml", "--csv", str(tmp_path / "rows.csv")]) == 1, "one of its rows failed"
    rows = list(csv.DictReader((tmp_path / "rows.csv").open(encoding="utf-8")))
    assert [bool(row["error"]) for row in rows] == [row["method"] == "failing" for row in rows]
    assert {row["model"] for row in rows} == {spec.model.source}
    for row in rows:
        if not row["error"]:
            measured = RunStore().open(row["evaluate_run"]).result() or {}
            for task, score in measured["zero_shot"].items():
                counted = {name: row[f"{task}_{name}"] for name in ("acc", "acc_norm")}
                assert counted == {name: "" if score[name] is None else str(score[name]) for name in counted}


def test_factors_are_made_once_and_one_training_serves_its_rates(bench_parts: dict[str, Any]) -> None:
    spec = QualitySpec(methods=("llrc", "uniform"), keeps=(0.9, 0.8), **{**bench_parts, "baselines": ()})
    steps = list(sweep_of(spec).steps.values())
    allocations = [step for step in steps if step.kind == ALLOCATE]
    first = allocations[0]
    assert first.spec["method"] == "uniform" and not first.after
    assert all(first.key in step.after for step in allocations[1:])
    trained = [step for step in allocations if step.spec["method"] == "llrc"]
    assert [step.shared for step in trained] == ["", trained[0].key]
    place = {step.key: number for number, step in enumerate(steps)}
    assert all(place[other] < place[step.key] for step in steps for other in step.after)


@pytest.mark.parametrize(
    ("text", "close"),
    [
        ("method = ['uniform']", "methods"),
        ("model = ['starter']", "models"),
        ("calibration-windos = 3", "calibration-window"),
        ("detach = true", ""),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest(text: str, close: str, tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as told:
        read_benches(str(file), RunStore())
    assert close in told.value.remedy and text.split(" ")[0] in told.value.message


def commands_of_manifests() -> list[list[str]]:
    sky = yaml.safe_load((EXAMPLES / "skypilot.yaml").read_text())
    job = yaml.safe_load((EXAMPLES / "kubernetes.yaml").read_text())
    container = job["spec"]["template"]["spec"]["containers"][0]
    return [*map(shlex.split, sky["run"].splitlines()), [*container["command"], *container["args"]]]


@pytest.mark.parametrize("words", commands_of_manifests(), ids=lambda words: words[1])
def test_commands_of_manifests_can_be_read(words: list[str]) -> None:
    assert words[0] == "lrc" and build_parser().parse_args(words[1:]).handler


def test_the_example_measures_every_method_at_every_rate() -> None:
    (spec,) = read_benches(str(EXAMPLES / "sweep.toml"), RunStore())
    steps = sweep_of(spec).steps.values()
    assert sum(step.kind == EVALUATE for step in steps) == 1 + len(spec.methods) * len(spec.keeps)


@pytest.mark.parametrize("text", ["keep = [", "models = 'starter'", "keep = ['much']", "keep = {a = 1}", "models = []"])
def test_what_cannot_be_read_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(text)
    with pytest.raises(LrcError) as told:
        read_benches(str(file), RunStore())
    assert "\n" not in str(told.value)


def test_a_profile_is_read_and_the_command_line_comes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text('engine = "slurm"\npartition = "gpu"\ngpus = 2\nsetup = ["module load cuda"]\nenv = {A = "b"}')
    found = read_profile(str(file))
    assert (found.engine, found.partition, found.gpus, found.setup) == ("slurm", "gpu", 2, ("module load cuda",))
    monkeypatch.setenv("LRC_PROFILE", str(file))
    assert chosen_profile("", "") == found
    assert chosen_profile("ray", "").engine == "ray" and chosen_profile("ray", "").gpus == 2
    assert chosen_profile("local", "") == Profile()


@pytest.mark.parametrize(
    ("text", "named"),
    [("gpu = 1", "gpus"), ("partitions = 'a'", "partition"), ("gpus = 'two'", "gpus"), ("engine = 'lsf'", "slurm")],
)
def test_a_wrong_profile_is_refused(text: str, named: str, tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as told:
        read_profile(str(file))
    assert named in str(told.value)


def test_a_step_that_fails_before_its_run_says_why(bench_parts: dict[str, Any]) -> None:
    folder = sweep_of(QualitySpec(methods=("uniform",), keeps=(0.8,), **{**bench_parts, "baselines": ()}))
    placement = new_placement(Profile(engine="slurm"))
    write_placement(folder.placement_file("0000"), placement)
    words = (str(folder.path), placement.ticket, "--step", "0000", "--program", "0.0/other")
    assert node.main(words, job="7", name="node1") == FAILED
    state = SweepProgress(folder).states()["0000"]
    assert state.state == "failed" and "node1" in state.error


def test_a_server_offers_the_cluster_of_its_profile_and_uses_its_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LRC_RUNS", "LRC_CACHE", "LRC_PROFILE"):
        monkeypatch.setenv(name, "")  # put back afterwards, whatever the call writes
    file = tmp_path / "cluster.toml"
    file.write_text(f'engine = "ray"\nruns = "{tmp_path / "shared"}"')
    monkeypatch.chdir(tmp_path)
    offer_profile("cluster.toml")
    monkeypatch.chdir("/")
    assert chosen_profile("", "").engine == "ray"
    assert runs_home() == tmp_path / "shared"
    with pytest.raises(SettingsError, match=r"other\.toml"):
        offer_profile("other.toml")

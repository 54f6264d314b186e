"""Words to specs and back, help, doctor, starter, bench."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import types
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from lrc_core.cli import main
from lrc_core.cli.parser import build_parser
from lrc_core.errors import PlanError, RunError, SettingsError
from lrc_core.kinds import KINDS, command_for
from lrc_core.quality.presets import bench_preset
from lrc_core.registry import ALLOCATORS
from lrc_core.results.plans import find_plan
from lrc_core.runs.records import Status
from lrc_core.runs.spec import (
    AblationSpec,
    AllocateSpec,
    CalibrationSpec,
    CompareSpec,
    EvaluateSpec,
    EvaluationSpec,
    FetchSpec,
    ModelRef,
    QualitySpec,
    Spec,
    SpectraSpec,
    UpdateSpec,
)
from lrc_core.runs.store import Run, RunStore
from lrc_core.updates import UpdateSettings
from lrc_core.words import data_size, times
from tests.factories.job_helpers import CARD, a_plan, canned
from tests.factories.tiny_models import save_tiny
from tests.tree import ROOT


def read_back(line: str, store: RunStore | None = None) -> Spec:
    """What a command line submits."""
    words = shlex.split(line)
    assert words[0] == "lrc"
    arguments = build_parser().parse_args(words[1:])
    made: Spec = KINDS[arguments.job].spec_from(arguments, store)
    return made


def an_allocation(method: str, preset: str = "", **settings: Any) -> AllocateSpec:
    complete = asdict(ALLOCATORS.get(method).settings(preset or None, settings))
    return AllocateSpec(method=method, preset=preset, settings=complete)


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "it's a text.txt"
    path.write_text("words")
    return str(path)


def every_spec(text: str, folder: Path) -> list[Spec]:
    """Specs of every kind of job, as they are from the start and with all that can be asked for."""
    hub = ModelRef("owner/model", "v1", trust_remote_code=True, allow_pickle=True)
    calibration = CalibrationSpec(texts=(text, "owner/data:config:train"), windows=7, window=64, seed=3)
    evaluation = EvaluationSpec(
        texts=("gensim", text),
        window=128,
        max_windows=0,
        stride=64,
        bos="no",
        tasks=("piqa", "my_task"),
        items=0,
        include_path=str(folder),
        seed=9,
    )
    return [
        FetchSpec(),
        FetchSpec(hub),
        SpectraSpec(),
        SpectraSpec(hub, ("svd",), calibration),
        EvaluateSpec(),
        EvaluateSpec(hub, None, "", calibration, evaluation),
        CompareSpec(),
        CompareSpec(hub, ("uniform", "llrc"), (0.5,), "svd", {"llrc": "paper"}, calibration, evaluation, 4),
        CompareSpec(evaluation=EvaluationSpec(tasks=("arc_easy", "piqa"), seed=2), seed=2),
        CompareSpec(evaluation=EvaluationSpec(tasks=("arc_easy", "piqa")), update="both"),
        QualitySpec(),
        QualitySpec(evaluation=bench_preset("bench").evaluation, share_path=False),
        QualitySpec(
            hub,
            ("uniform", "llrc"),
            (0.5,),
            ("whitened", "svd"),
            ("owner/other", "starter"),
            ("strs",),
            seeds=(0, 3),
            presets={"llrc": "paper"},
            calibration=replace(calibration, seed=0),
            evaluation=evaluation,
            task_keeps=(0.5, 0.9),
        ),
        AblationSpec(),
        AblationSpec(
            hub,
            ("llrc",),
            (0.7,),
            ("texts",),
            ("wiki", "generated", text),
            "svd",
            seeds=(1,),
            presets={"llrc": "paper"},
        ),
        AllocateSpec(seed=5, calibration=CalibrationSpec(seed=5)),
        replace(an_allocation("uniform"), model=hub, calibration=calibration, decomposition="svd", keep=0.123456),
        *(an_allocation(entry.name, preset) for entry in ALLOCATORS for preset in ("", *entry.presets)),
        an_allocation("llrc", "quick", learning_rate=0.033, export="any_k", dense_switch=False, settle_steps=1),
        replace(an_allocation("llrc", "paper"), seed=1, calibration=CalibrationSpec(seed=2)),
    ]


def test_every_spec_reads_back_from_its_command(text: str, tmp_path: Path) -> None:
    for spec in every_spec(text, tmp_path):
        line = command_for(spec)
        back = read_back(line)
        assert back == spec, line
        assert back.run_id == spec.run_id, line


def test_a_plans_command_names_its_run_and_rate() -> None:
    store = RunStore()
    run = store.create(an_allocation("llrc", "quick"))
    run.write_status(Status(state="done"))
    canned(run, on_progress=lambda _: None, should_stop=lambda: False)
    for name, words in (("plan.json", run.id), ("plans/10.json", f"{run.id}@10")):
        plan = json.loads((run.path / name).read_text())
        spec = EvaluateSpec(plan=plan, calibration=run.spec.calibration)  # type: ignore[union-attr]
        assert f"--plan {words}" in command_for(spec)
        assert read_back(command_for(spec)) == spec
        other = replace(spec, calibration=CalibrationSpec(windows=9), evaluation=EvaluationSpec(seed=8))
        assert read_back(command_for(other)) == other


def test_an_updates_command_names_its_plan_and_settings(tmp_path: Path) -> None:
    store = RunStore()
    run = store.create(an_allocation("llrc", "quick"))
    canned(run, on_progress=lambda _: None, should_stop=lambda: False)
    plan = json.loads((run.path / "plans" / "10.json").read_text())
    spec = UpdateSpec(plan=plan, settings=asdict(UpdateSettings()), calibration=run.spec.calibration)  # type: ignore[union-attr]
    assert command_for(spec) == f"lrc update starter --plan {run.id}@10 --kind left"
    assert read_back(command_for(spec)) == spec
    other = replace(
        spec,
        settings=asdict(UpdateSettings(kind="both", target="compressed", damping=0.5, use_windows=8)),
        calibration=CalibrationSpec(windows=9),
    )
    assert read_back(command_for(other)) == other
    nowhere = replace(spec, plan=a_plan(run_id="allocate-gone").to_dict())
    store.create(nowhere)
    assert f"--plan {nowhere.run_id}@before" in command_for(nowhere)
    assert read_back(command_for(nowhere)) == nowhere


def test_a_plan_from_nowhere_is_found_in_its_own_evaluation() -> None:
    spec = EvaluateSpec(plan=a_plan(run_id="allocate-gone").to_dict(), calibration=CalibrationSpec(windows=9))
    RunStore().create(spec)
    line = command_for(spec)
    assert f"--plan {spec.run_id}" in line
    assert read_back(line).run_id == spec.run_id


def test_plans_that_cannot_be_found_say_why() -> None:
    store = RunStore()
    run = store.create(an_allocation("llrc", "quick"))
    with pytest.raises(PlanError, match="queued"):
        find_plan(run.id, store)
    canned(run, on_progress=lambda _: None, should_stop=lambda: False)
    with pytest.raises(PlanError, match="Recorded: 10"):
        find_plan(f"{run.id}@35", store)
    spectra = store.create(SpectraSpec())
    with pytest.raises(PlanError, match="holds no plan"):
        find_plan(spectra.id, store)


def test_a_plan_with_weights_beside_it_keeps_its_folder(tmp_path: Path) -> None:
    replace(a_plan(), weights_file="weights.safetensors").save(tmp_path / "plan.json")
    assert find_plan(str(tmp_path / "plan.json"), RunStore()).folder == str(tmp_path)
    store = RunStore()
    run = store.create(an_allocation("llrc", "quick"))
    replace(a_plan(), weights_file="weights.safetensors").save(run.path / "plan.json")
    assert find_plan(run.id, store).folder == find_plan(str(run.path / "plan.json"), store).folder == run.id


@pytest.mark.parametrize("method", ALLOCATORS.names())
@pytest.mark.parametrize("asked", ["", "--storage pair", "--storage pivoted"])
def test_what_prunes_structure_is_of_pairs_and_the_rest_as_asked(method: str, asked: str) -> None:
    spec = read_back(f"lrc allocate starter --method {method} {asked}")
    assert isinstance(spec, AllocateSpec)
    wanted = asked.removeprefix("--storage ") or "pivoted"
    assert spec.storage == ("pair" if ALLOCATORS.get(method).structured else wanted)
    assert read_back(command_for(spec)) == spec


def test_presets_of_a_comparison() -> None:
    llrc = next(iter(ALLOCATORS.get("llrc").presets))
    assert read_back(f"lrc compare --preset {llrc}").presets == {}  # type: ignore[union-attr]
    assert read_back("lrc compare --preset paper").presets["llrc"] == "paper"  # type: ignore[union-attr]
    spec = read_back("lrc compare --preset paper --preset llrc=standard --methods uniform llrc")
    assert spec.presets == {"llrc": "standard"}  # type: ignore[union-attr]
    with pytest.raises(SettingsError, match="No compared method"):
        read_back("lrc compare --preset paper --methods uniform")


def test_sizes_of_a_bench() -> None:
    small, large = (read_back(f"lrc bench quality --preset {name}") for name in ("bench", "gpu"))
    assert isinstance(small, QualitySpec) and isinstance(large, QualitySpec)
    assert small == read_back("lrc bench quality")
    assert small.methods == ALLOCATORS.names() and small.task_keeps == (0.8,) and small.evaluation.items == 100
    assert large.presets["llrc"] == "standard" and large.evaluation.items == 0 and large.evaluation.max_windows >= 200
    mixed = read_back("lrc bench quality --preset gpu --preset llrc=quick --items 50 --texts c4 wiki --model owner/m")
    assert isinstance(mixed, QualitySpec)
    assert mixed.presets["llrc"] == "quick" and mixed.presets["strs"] == "standard"
    assert (mixed.evaluation.items, mixed.evaluation.texts, mixed.model.source) == (50, ("c4", "wiki"), "owner/m")


@pytest.mark.parametrize(
    "words", ["spectra a/b --model c/d", "allocate a/b --model c/d", "evaluate a/b --model starter"]
)
def test_two_models_are_refused(words: str) -> None:
    with pytest.raises(SettingsError, match="a/b"):
        read_back(f"lrc {words}")
    twice = words.replace("a/b", words.rpartition(" ")[2])
    assert read_back(f"lrc {twice}").model.source == words.rpartition(" ")[2]  # type: ignore[union-attr]


def test_one_seed_for_everything_unless_told_otherwise() -> None:
    spec = read_back("lrc allocate --seed 3")
    assert (spec.seed, spec.calibration.seed) == (3, 3)  # type: ignore[union-attr]
    spec = read_back("lrc compare --seed 3 --evaluation-seed 4")
    assert (spec.seed, spec.calibration.seed, spec.evaluation.seed) == (3, 3, 4)  # type: ignore[union-attr]


@pytest.mark.parametrize("words", [["--help"], ["allocate", "--help"], ["--version"], ["runs", "list"]])
def test_help_and_lists_load_no_torch(words: list[str]) -> None:
    code = (
        "import sys\nfrom lrc_core.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "False False"


def test_submitting_loads_no_torch() -> None:
    code = (
        "import sys, lrc_core.kinds.checks as p\np.check_model = lambda model: None\n"
        "from lrc_core.cli import main\nmain(['allocate', '--detach'])\n"
        "print('torch' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LRC_TEST_EXECUTE": "tests.factories.job_helpers:finish"},
    )
    assert done.stderr.splitlines()[-1] == "False"


def test_doctor_says_what_there_is_and_cleans(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from lrc_core.paths import cache_home

    folder = cache_home() / "decompositions" / "abc"
    folder.mkdir(parents=True)
    (folder / "block-0000.safetensors").write_bytes(b"x" * 1000)
    (folder / "complete.json").write_text(json.dumps({"decomposition": "whitened", "fingerprint": "f" * 64}))
    (cache_home() / "starter").mkdir()
    (cache_home() / "starter" / "kept").write_text("kept")
    run = RunStore().create(SpectraSpec())
    run.write_status(Status(state="done"))
    (run.path / "card.json").write_text(json.dumps(CARD.to_dict()))
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"python", "torch", "device", "dtype", "threads", "starter", "cache", "runs", "model"} <= set(report)
    assert report["model"]["params"] > 1e8
    (entry,) = report["cache"]["entries"]
    assert (entry["kind"], entry["model"], entry["what"]) == ("decompositions", "starter", "whitened")
    assert entry["bytes"] > 1000
    assert main(["doctor", "--clean"]) == 0
    assert f"Removed {data_size(entry['bytes'])}" in capsys.readouterr().out
    assert not folder.exists()
    assert (cache_home() / "starter" / "kept").exists()


def test_doctor_does_not_clean_under_a_running_job(capsys: pytest.CaptureFixture[str]) -> None:
    from lrc_core.runs.process import host_name, start_time

    run = RunStore().create(SpectraSpec())
    pid = os.getpid()
    run.write_status(Status(state="running", pid=pid, pid_started=start_time(pid), host=host_name()))
    assert main(["doctor", "--clean"]) == 1
    assert run.id in capsys.readouterr().err


def test_starter_fetches_and_reports(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrc_core.cli.doctor.fetch_all", lambda on_progress: None)
    assert main(["starter", "--json"]) == 0
    assert {part["name"] for part in json.loads(capsys.readouterr().out)["parts"]} >= {"model", "texts", "tasks"}


def test_bench_prints_what_was_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"name": "mask-step", "ratio": 1.5, "meaning": "times", "baseline_s": 2.0, "candidate_s": 3.0, "detail": {}}
    monkeypatch.setitem(
        sys.modules, "lrc_core.bench.speed", types.SimpleNamespace(mask_step=lambda ref, on_progress: found)
    )
    assert main(["bench", "mask-step", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert main(["bench", "mask-step"]) == 0
    assert "mask-step: 1.50" in capsys.readouterr().out


def test_a_run_done_without_a_result_is_an_error() -> None:
    from lrc_core.cli.follow import result_of

    run: Run = RunStore().create(SpectraSpec())
    run.write_status(Status(state="done"))
    with pytest.raises(RunError, match="no result"):
        result_of(run)


def test_a_ratio_near_one_keeps_what_it_has_over_one() -> None:
    assert [times(ratio) for ratio in (1.003, 1.068, 1.84, 1.998, 5.253, 14.78)] == [
        "1.00", "1.07", "1.84", "2", "5.3", "15",
    ]  # fmt: skip
    assert times(float("nan")) == times(None) == "–"


@pytest.mark.parametrize("words", ["runs list", "allocate", "bench quality", "plan", "export", "app", "runs film"])
def test_an_unknown_flag_is_answered_by_the_command_that_was_typed(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = {"plan": ["--save", "plan.json"], "export": ["allocate-1", "starter"], "runs film": ["allocate-1"]}
    with pytest.raises(SystemExit):
        build_parser().parse_args([*words.split(), *needed.get(words, []), "--no-such-flag"])
    said = capsys.readouterr().err
    assert "--no-such-flag" in said and f"`lrc {words} --help`" in said


@pytest.mark.usefixtures("known_speeds")
@pytest.mark.parametrize("source", ["{}", "{}/config.json"])
def test_doctor_counts_the_parameters_of_a_small_model(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["doctor", source.format(save_tiny(tmp_path / "small"))])
    assert "27.4 k" in capsys.readouterr().out

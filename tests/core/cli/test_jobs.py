"""Commands that submit jobs and tell what came of them, end to end with a pretended pipeline."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lrc_core.budget import dense_ranks
from lrc_core.cli.follow import ProgressLine
from lrc_core.cli.jobs import print_plan, save_plan
from lrc_core.plan import Plan, make_plan, pruned_plan
from lrc_core.quality.quantised import quantised_plan, sizes_of
from lrc_core.quality.variants import methods_with_terms
from lrc_core.results.plans import find_plan
from lrc_core.runs.spec import AllocateSpec
from lrc_core.runs.store import RunStore
from lrc_core.words import data_size
from tests.factories.job_helpers import CARD, a_plan
from tests.factories.run_factory import make_card
from tests.tree import ROOT


@pytest.fixture(autouse=True)
def _plans_of_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Canned plans are of no model."""
    monkeypatch.setattr("lrc_core.kinds.checks.check_plans_model", lambda *_: None)


def test_spectra_json_and_table(lrc: Any) -> None:
    code, out, err = lrc("spectra", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert set(result) >= {"card", "decompositions", "wall_s", "run_id"}
    code, out, err = lrc("spectra")
    assert code == 0
    assert "mlp.up_proj" in out
    assert "break-even" in out
    assert result["run_id"] in err


def test_allocate_json_table_and_saved_plan(lrc: Any, tmp_path: Path) -> None:
    code, out, err = lrc(
        "allocate", "--method", "uniform", "--keep", "0.8", "--json", "--save", str(tmp_path / "p.json")
    )
    assert code == 0, err
    result = json.loads(out)
    assert set(result) >= {"card", "plan", "recorded", "run_id"}
    assert Plan.load(tmp_path / "p.json").to_dict() == result["plan"]
    code, out, _ = lrc("allocate", "--method", "uniform", "--keep", "0.8")
    assert code == 0
    assert f"{result['run_id']}@NN" in out


def test_a_saved_plan_takes_its_file_along(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store = RunStore()
    run = store.create(AllocateSpec(method="llm_pruner"))
    dense = make_plan(CARD, dense_ranks(CARD.layers), decomposition="svd", method="llm_pruner", keep_target=0.8)
    plan = pruned_plan(dense, CARD, {CARD.layers[0].name: (4, 6)}, "structure.safetensors")
    plan.save(run.path / "plan.json")
    (run.path / "structure.safetensors").write_bytes(b"content")
    save_plan(run, tmp_path / "small.json")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "small.json",
        "small.structure.safetensors",
    ]
    found = find_plan(str(tmp_path / "small.json"), store)
    assert (found.plan["structure_file"], found.folder) == ("small.structure.safetensors", str(tmp_path))
    assert (tmp_path / "small.structure.safetensors").read_bytes() == b"content"
    Plan.from_dict(found.plan).require_files(found.folder, store.root)
    print_plan(run, {"plan": plan.to_dict()})
    assert "pruned" in capsys.readouterr().out


def test_other_budgets_than_parameters_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = RunStore(tmp_path).create(AllocateSpec())
    card = make_card()  # wide enough for a block
    plan = quantised_plan(card, "Q8_0")
    details = {"milliseconds": 30.0, "dense_milliseconds": 40.0}
    print_plan(run, {"plan": plan.to_dict(), "card": card.to_dict(), "details": details})
    said = capsys.readouterr().out
    sizes = sizes_of(card, plan)
    assert plan.formats and f"{len(plan.formats)} in Q8_0" in said
    assert f"{100 * sizes['bytes_share']:.1f} %" in said and data_size(sizes["model_bytes"]) in said
    assert "30.0 ms of 40.0" in said and "75 %" in said
    print_plan(run, {"plan": a_plan().to_dict(), "card": CARD.to_dict()})
    assert not {"Bytes:", "Time:"} & set(capsys.readouterr().out.split())


def test_evaluate_takes_a_file_a_run_and_a_recorded_rate(lrc: Any, tmp_path: Path) -> None:
    run_id = json.loads(lrc("allocate", "--json", "--windows", "32")[1])["run_id"]
    a_plan(2).save(tmp_path / "plan.json")
    ranks = []
    for words in (str(tmp_path / "plan.json"), run_id, f"{run_id}@10"):
        code, out, err = lrc("evaluate", "--plan", words, "--json")
        assert code == 0, err
        row = json.loads(out)
        assert set(row) >= {
            "method",
            "decomposition",
            "keep_target",
            "keep_achieved",
            "perplexity",
            "zero_shot",
            "run_id",
        }
        spec = RunStore().open(row["run_id"]).spec
        ranks.append(set(spec.plan["ranks"].values()))  # type: ignore[union-attr, index]
        assert spec.calibration.windows == (128 if words.endswith(".json") else 32)  # type: ignore[union-attr]
    assert ranks == [{2}, {2}, {3}]
    code, out, _ = lrc("evaluate")
    assert code == 0
    assert "dense" in out
    assert "→ is blue" in out


def test_update_takes_what_evaluate_takes_and_is_taken_by_it(lrc: Any) -> None:
    run_id = json.loads(lrc("allocate", "--json", "--windows", "32")[1])["run_id"]
    code, out, err = lrc("update", "--plan", f"{run_id}@10", "--kind", "both", "--set", "damping=0.01")
    assert code == 0, err
    assert out.splitlines()[1].split()[0] == "llrc+both"
    assert "4.0 %" in out and "2.0 %" in out
    (update,) = [name for name in RunStore().ids() if name.startswith("update-")]
    spec = RunStore().open(update).spec
    assert spec.settings["damping"] == 0.01  # type: ignore[union-attr]
    assert spec.calibration.windows == 32  # type: ignore[union-attr]
    row = json.loads(lrc("evaluate", "--plan", update, "--json")[1])
    assert RunStore().open(row["run_id"]).spec.plan_folder == update  # type: ignore[union-attr]
    listed = {entry["id"]: entry["what"] for entry in json.loads(lrc("runs", "list", "--json")[1])["runs"]}
    assert listed[update] == listed[row["run_id"]] == "llrc+both, keep 0.8"
    assert f"lrc update starter --plan {run_id}@10 --kind both --set damping=0.01" in lrc("runs", "show", update)[1]
    code, out, err = lrc("update", "--plan", run_id, "--set", "damping=2")
    assert (code, out) == (1, "")
    assert "damping" in err


def test_compare_json_is_model_and_rows(lrc: Any) -> None:
    words = ("compare", "starter", "--keep", "0.9", "0.8", "--methods", "uniform", "strs", "llrc")
    code, out, err = lrc(*words, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert set(result) == {"model", "rows"}
    assert len(result["rows"]) == 7
    assert result["rows"][0]["method"] == "dense"
    code, out, _ = lrc(*words)
    assert out.splitlines()[0].split() == ["method", "target", "kept", "bytes", "gensim", "ppl", "arc_easy"]
    assert "20.00 ± 0.50" in out


def test_bench_quality_writes_json_csv_and_markdown(lrc: Any, tmp_path: Path) -> None:
    words = ("bench", "quality", "--keep", "0.8", "--methods", "uniform", "strs", "--model", "starter")
    files = (tmp_path / "out" / "table.csv", tmp_path / "out" / "table.md")
    code, out, err = lrc(*words, "--json", "--csv", str(files[0]), "--markdown", str(files[1]))
    assert code == 0, err
    result = json.loads(out)
    assert set(result) >= {"model", "rows", "baselines", "run_id"}
    assert len(files[0].read_text().splitlines()) == 1 + len(result["rows"])
    assert "failed: Too small." in files[1].read_text()
    code, out, _ = lrc(*words)
    assert code == 0
    assert out.strip() == files[1].read_text().strip()
    code, out, err = lrc("bench", "ablation", "--json")
    assert code == 0, err
    assert json.loads(out)["run_id"].startswith("ablation-")
    assert f"{', '.join(methods_with_terms())}, keep 0.8" in lrc("runs", "list")[1]


@pytest.mark.parametrize(
    "words",
    [
        ("allocate", "--keep", "1.5"),
        ("allocate", "--keep", "nan"),
        ("allocate", "--keep", "-1"),
        ("allocate", "--keep", "much"),
        ("allocate", "--method", "magic"),
        ("allocate", "--method", "uniform", "--preset", "fast"),
        ("allocate", "--set", "no-such=1"),
        ("allocate", "--set", "window"),
        ("allocate", "--set", "window=many"),
        ("allocate", "--decomposition", "svdd"),
        ("allocate", "--text", "no-such-file.txt"),
        ("allocate", "--windows", "0"),
        ("allocate", "--detach", "--save", "plan.json"),
        ("spectra", "--decompositions", "svdd"),
        ("evaluate", "--plan", "no-such-plan.json"),
        ("evaluate", "--plan", "allocate-000000000000@20"),
        ("evaluate", "--bos", "perhaps"),
        ("evaluate", "--include-path", "no-such-folder"),
        ("evaluate", "--stride", "9999"),
        ("compare", "--preset", "fast"),
        ("compare", "--preset", "strss=quick"),
        ("compare", "--keep", "0.9", "2"),
        ("compare", "--update", "right"),
        ("update",),
        ("update", "--plan", "no-such-plan.json"),
        ("update", "--plan", "p.json", "--kind", "right"),
        ("bench", "everything"),
        ("bench", "quality", "--keep", "1.5"),
        ("bench", "quality", "--methods", "magic"),
        ("bench", "quality", "--against", "magic"),
        ("bench", "quality", "--preset", "huge"),
        ("bench", "quality", "--decomposition", "svdd"),
        ("bench", "quality", "--texts", "generated"),
        ("bench", "quality", "--detach", "--csv", "table.csv"),
        ("bench", "ablation", "--methods", "uniform"),
        ("bench", "ablation", "--parts", "everything"),
        ("bench", "ablation", "--ablation-texts", "no-such-file.txt"),
        ("runs", "show", "no-such-run"),
        ("runs", "delete", "../x"),
        ("dance",),
        (),
    ],
)
def test_bad_input_is_one_line_and_nothing_on_stdout(lrc: Any, words: tuple[str, ...]) -> None:
    code, out, err = lrc(*words)
    assert code != 0
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert "Traceback" not in err
    assert RunStore().list() == []


def test_a_damaged_plan_file_is_one_line(lrc: Any, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{")
    code, out, err = lrc("evaluate", "--plan", str(tmp_path / "plan.json"))
    assert (code, out) == (1, "")
    assert "plan.json" in err


def test_an_unexpected_error_is_one_line(lrc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(*_: Any, **__: Any) -> None:
        raise ValueError("one\ntwo")

    monkeypatch.setattr("lrc_core.jobs.manager.submit", surprise)
    code, out, err = lrc("spectra")
    assert (code, out) == (1, "")
    (line,) = err.strip().splitlines()
    assert "ValueError: one" in line and "two" not in line and "LRC_DEBUG=1" in line


def test_the_model_folder_is_named_absolutely(lrc: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "own.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]]))
    run_id = json.loads(lrc("spectra", "./model", "--text", "own.txt", "--text", "wiki", "--json")[1])["run_id"]
    spec = RunStore().open(run_id).spec
    assert spec.model.source == str(tmp_path / "model")
    assert spec.calibration.texts == (str(tmp_path / "own.txt"), "wiki")  # type: ignore[union-attr]


def test_a_model_that_the_preflight_refuses_is_one_line(lrc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from lrc_core.errors import ModelError

    def refuse(model: Any, *_: Any) -> None:
        raise ModelError(f"{model.source} has no config.json.", "Name a model folder.")

    monkeypatch.setattr("lrc_core.kinds.checks.check_model", refuse)
    code, out, err = lrc("spectra", "somewhere/else")
    assert (code, out) == (1, "")
    (line,) = err.strip().splitlines()
    assert "somewhere/else has no config.json." in line and "Name a model" in line


def test_a_log_has_a_line_for_news_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    moments = iter((1.0, 100.0, 200.0, 201.0, 202.0))
    monkeypatch.setattr("lrc_core.cli.follow.time.monotonic", lambda: next(moments))
    line = ProgressLine()
    for text, phase in (("queued", "q"), ("queued", "q"), ("step 1", "s"), ("step 2", "s"), ("done", "d")):
        line.show(text, phase)
    assert capsys.readouterr().err.split("\n")[:-1] == ["queued", "step 1", "done"]

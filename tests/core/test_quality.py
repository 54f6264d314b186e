"""The bench through real run folders on a tiny model: nothing twice, failures noted, tests on the right pairs."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.allocate.uniform import UniformSettings
from lrc_core.budget import fit_budget, uniform_ranks
from lrc_core.cli.parser import build_parser
from lrc_core.cli.specs import quality_spec
from lrc_core.errors import BudgetError, CancelledError, SettingsError
from lrc_core.evaluate.zero_shot import PACK_TASKS, TaskScore
from lrc_core.jobs.command import command_for
from lrc_core.jobs.preflight import check
from lrc_core.pipeline import execute
from lrc_core.quality.paired import log_perplexity, mcnemar
from lrc_core.quality.presets import TASKS
from lrc_core.quality.rows import Scores, completed
from lrc_core.quality.tables import records, to_csv, to_markdown
from lrc_core.quality.variants import ALL, TERMS, methods_with_terms, variants
from lrc_core.registry import ALLOCATORS, MethodEntry
from lrc_core.runs.recorder import record
from lrc_core.runs.spec import (
    AblationSpec,
    AllocateSpec,
    CalibrationSpec,
    CompareSpec,
    EvaluationSpec,
    ModelRef,
    QualitySpec,
    Spec,
    spec_from_dict,
)
from lrc_core.runs.store import Run, RunStore
from tests.tiny_models import save_tiny, tiny_text

LLRC: dict[str, Any] = {
    "documents": 5,
    "window": 12,
    "batch": 2,
    "ramp_high": 2.0,
    "ramp_low": 0.2,
    "learning_rate": 0.15,
    "alpha_low": 8.0,
    "alpha_high": 8.0,
    "settle_steps": 2,
    "max_steps": 40,
    "tv_weight": 0.0,
}
CALLS: list[tuple[str, float]] = []


def tilted(context: Context, _: UniformSettings) -> Allocation:
    """Uniform, but the first block gives more."""
    CALLS.append(("tilted", context.keep))
    ranks = uniform_ranks(context.layers, context.keep)
    wanted = {layer.name: max(1, ranks[layer.name] - 3 * (layer.block == 0)) for layer in context.layers}
    return Allocation(fit_budget(context.layers, wanted, context.keep))


def failing(context: Context, _: UniformSettings) -> Allocation:
    """Works at small compression only."""
    CALLS.append(("failing", context.keep))
    if context.keep < 0.75:
        raise BudgetError("The smallest plan of failing keeps 0.75.", "Ask for more.")
    return tilted(context, _)


def entry(name: str) -> MethodEntry:
    return MethodEntry(
        name, name.capitalize(), "For tests.", "–", "#123456", f"tests.core.test_quality:{name}", UniformSettings
    )


@pytest.fixture(autouse=True)
def _methods(monkeypatch: pytest.MonkeyPatch) -> None:
    CALLS.clear()
    small = dataclasses.replace(ALLOCATORS.get("llrc"), presets={"quick": LLRC})
    monkeypatch.setitem(ALLOCATORS._entries, "llrc", small)
    for name in ("tilted", "failing"):
        monkeypatch.setitem(ALLOCATORS._entries, name, entry(name))


@pytest.fixture(autouse=True)
def _tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero-shot outcomes that depend on the model's weights alone."""

    def zero_shot(spec: EvaluationSpec, session: Any) -> dict[str, TaskScore]:
        found = {}
        for number, task in enumerate(spec.tasks):
            count = spec.items + 10 * number
            tokens = torch.randint(3, 120, (count, 6), generator=torch.Generator().manual_seed(number))
            with torch.no_grad():
                logits = session.loaded.model(input_ids=tokens.to(session.loaded.model.device)).logits[:, -1]
            items = (logits.argmax(-1) % 2).tolist()
            rate = sum(items) / count
            error = math.sqrt(rate * (1 - rate) / (count - 1))
            found[task] = TaskScore(rate, error, rate, error, count, items={"acc": items, "acc_norm": items})
        return found

    monkeypatch.setattr("lrc_core.pipeline.evaluation._zero_shot", zero_shot)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> dict[str, Any]:
    texts = []
    for seed in (0, 1):
        path = tmp_path_factory.mktemp("texts") / f"text{seed}.txt"
        path.write_text(tiny_text(6000, seed), encoding="utf-8")
        texts.append(str(path))
    return {
        "model": ModelRef(str(folder)),
        "calibration": CalibrationSpec((texts[0],), windows=24, window=48),
        "evaluation": EvaluationSpec((texts[1],), window=48, max_windows=6, tasks=("one", "two"), items=20),
    }


def run(spec: Spec, stop_at: str = "") -> Run:
    """Carry out a spec as a worker does; stop when a phase says so."""
    found = RunStore().create(spec)
    seen: list[str] = []

    def work(on_progress: Any, should_stop: Any) -> dict[str, Any]:
        def both(tick: Any) -> None:
            seen.append(tick.phase)
            on_progress(tick)

        def stop() -> bool:
            return should_stop() or bool(stop_at and any(stop_at in phase for phase in seen))

        return execute(found, on_progress=both, should_stop=stop)

    record(found, work)
    return found


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Ids of runs that were computed (not joined), in order."""
    from lrc_core.pipeline import parts as module

    done: list[str] = []
    for name in ("allocation_run", "evaluation_run"):
        stage = getattr(module, name)

        def counted(child: Run, session: Any, stage: Any = stage) -> dict[str, Any]:
            done.append(child.id)
            return stage(child, session)

        monkeypatch.setattr(module, name, counted)
    yield done


def test_the_matrix_goes_on_past_failures_and_computes_nothing_twice(
    parts: dict[str, Any], computed: list[str], tmp_path: Path
) -> None:
    other = str(save_tiny(tmp_path / "other", seed=3))
    spec = QualitySpec(
        methods=("uniform", "tilted", "failing"),
        keeps=(0.8, 0.6),
        seeds=(0, 1),
        decompositions=("whitened", "svd"),
        references=(other, str(tmp_path / "missing")),
        baselines=("uniform",),
        **parts,
    )
    found = run(spec)
    result = found.result()
    assert result is not None and found.status().state == "done"
    rows = result["rows"]
    assert [row["method"] for row in rows[:3]] == ["dense", "reference", "reference"]
    assert len(rows) == 3 + 3 * 2 * 2 * 2
    failed = [row for row in rows if "error" in row]
    assert {(row["method"], row["keep_target"]) for row in failed} == {("failing", 0.6), ("reference", 1.0)}
    assert all(row["error"] and row["remedy"] for row in failed if row["method"] == "failing")
    assert any("cells failed" in words for words in result["warnings"])
    assert json.loads((found.path / "rows.json").read_text()) == rows
    assert len(computed) == len(set(computed))

    # Asked for again in another shape: every finished cell is joined, only what failed is tried again.
    done, calls = list(computed), list(CALLS)
    again = run(dataclasses.replace(spec, keeps=(0.6,), references=(), task_keeps=(0.7,)))
    assert {child for child in computed[len(done) :] if not child.startswith("allocate")} <= {
        row["run_id"]
        for row in again.result()["rows"]
        if row["method"] == "dense"  # type: ignore[index]
    }
    assert CALLS[len(calls) :] == [("failing", 0.6)] * 4


def test_tasks_run_at_chosen_targets_only(parts: dict[str, Any]) -> None:
    result = run(QualitySpec(methods=("uniform", "tilted"), keeps=(0.9, 0.8), **parts)).result()
    assert result is not None
    with_tasks = [(row["method"], row["keep_target"]) for row in result["rows"] if row["zero_shot"]]
    assert with_tasks == [("dense", 1.0), ("uniform", 0.8), ("tilted", 0.8)]
    assert all(row["perplexity"] for row in result["rows"])
    # At the other targets nothing about tasks tells runs apart: other items cost nothing there.
    more = dataclasses.replace(parts["evaluation"], items=25)
    other = run(QualitySpec(methods=("uniform",), keeps=(0.9,), **{**parts, "evaluation": more})).result()
    assert other is not None
    ids = {(row["method"], row["keep_target"]): row["run_id"] for row in result["rows"]}
    assert other["rows"][1]["run_id"] == ids["uniform", 0.9]
    assert other["rows"][0]["run_id"] != ids["dense", 1.0]


def test_derived_figures_are_what_scores_say(parts: dict[str, Any]) -> None:
    result = run(QualitySpec(methods=("uniform", "tilted"), keeps=(0.7,), task_keeps=(0.7,), **parts)).result()
    assert result is not None
    dense, uniform, tilt = result["rows"]
    text = parts["evaluation"].texts[0]
    scores = {
        row["method"]: json.loads((RunStore().root / row["run_id"] / "scores.json").read_text())
        for row in result["rows"]
    }
    mine, theirs = scores["tilted"]["windows"][text], scores["uniform"]["windows"][text]
    expected = log_perplexity(mine["losses"], theirs["losses"], mine["tokens"])
    assert tilt["paired"]["uniform"]["perplexity"][text] == expected.to_dict()
    assert math.exp(expected.difference) == pytest.approx(
        tilt["perplexity"][text]["value"] / uniform["perplexity"][text]["value"]
    )
    pair = [scores[name]["tasks"]["two"]["items"]["acc_norm"] for name in ("tilted", "uniform")]
    assert tilt["paired"]["uniform"]["zero_shot"]["two"] == mcnemar(*pair).to_dict()
    assert tilt["relative"][text] == pytest.approx(
        tilt["perplexity"][text]["value"] / dense["perplexity"][text]["value"]
    )
    accuracies = [tilt["zero_shot"][task]["acc_norm"] for task in ("one", "two")]
    assert tilt["zero_shot_mean"]["value"] == pytest.approx(sum(accuracies) / 2)
    assert tilt["paired"]["uniform"]["mean"]["difference"] == pytest.approx(
        tilt["zero_shot_mean"]["value"] - uniform["zero_shot_mean"]["value"]
    )
    assert set(uniform["paired"]) == {"dense"}
    assert tilt["allocation"]["wall_s"] >= 0 and tilt["allocation"]["peak_memory_mb"] > 10
    assert tilt["allocation"]["shared_from"] is None
    assert 0 <= tilt["dense_layers"] < tilt["layers"]


def test_a_learned_path_serves_larger_targets_unless_told_otherwise(parts: dict[str, Any]) -> None:
    spec = QualitySpec(methods=("llrc",), keeps=(0.9, 0.8), baselines=(), **parts)
    rows = run(spec).result()["rows"][1:]  # type: ignore[index]
    assert [row["allocation"]["shared_from"] for row in rows] == [0.8, None]
    assert len({row["allocate_run_id"] for row in rows}) == 1
    rows = run(dataclasses.replace(spec, share_path=False)).result()["rows"][1:]  # type: ignore[index]
    assert [row["allocation"]["shared_from"] for row in rows] == [None, None]
    assert len({row["allocate_run_id"] for row in rows}) == 2


def test_what_prunes_structure_runs_once_and_under_no_decomposition(parts: dict[str, Any]) -> None:
    spec = QualitySpec(methods=("uniform", "llm_pruner"), keeps=(0.7,), decompositions=("svd", "whitened"), **parts)
    rows = run(spec).result()["rows"]  # type: ignore[index]
    found = {(row["method"], row["decomposition"]): row for row in rows}
    assert list(found) == [("dense", ""), ("llm_pruner", ""), ("uniform", "svd"), ("uniform", "whitened")]
    text, pruned = parts["evaluation"].texts[0], found["llm_pruner", ""]
    ratio = pruned["perplexity"][text]["value"] / found["uniform", "svd"]["perplexity"][text]["value"]
    assert math.exp(pruned["paired"]["uniform"]["perplexity"][text]["difference"]) == pytest.approx(ratio)
    assert "uniform" not in found["uniform", "whitened"]["paired"]


def test_every_kind_of_update_has_rows_of_its_own(parts: dict[str, Any]) -> None:
    """Tuned and as allocated, with tests against both; what prunes structure has one row."""
    spec = QualitySpec(
        methods=("uniform", "llm_pruner"),
        keeps=(0.7, 0.6),
        task_keeps=(),
        baselines=("uniform", "uniform+left"),
        updates=("none", "left"),
        **parts,
    )
    result = run(spec).result()
    assert result is not None
    rows = [row for row in result["rows"] if row["method"] != "dense"]
    found = [(row["keep_target"], row["method"], row.get("update", "")) for row in rows]
    assert found == [
        (keep, *cell) for keep in (0.7, 0.6) for cell in (("llm_pruner", ""), ("uniform", ""), ("uniform", "left"))
    ]
    pruned, plain, updated = rows[:3]
    assert plain["allocate_run_id"] == updated["allocate_run_id"]
    assert updated["allocation"]["update_wall_s"] > 0
    assert "update_wall_s" not in plain["allocation"]
    assert plain["perplexity"] != updated["perplexity"]
    assert set(plain["paired"]) == {"dense", "uniform+left"}
    assert set(updated["paired"]) == {"dense", "uniform"}
    assert set(pruned["paired"]) == {"dense", "uniform", "uniform+left"}
    table = to_markdown(result)
    assert "| Uniform + update | " in table
    assert "† Uniform + update" in table
    line = command_for(spec)
    assert "--update none left " in line
    assert quality_spec(build_parser().parse_args(shlex.split(line)[1:])).run_id == spec.run_id


def test_a_bench_refuses_updates_that_do_not_exist(parts: dict[str, Any]) -> None:
    for wrong in ({"updates": ("tunes",)}, {"baselines": ("uniform+tunes",)}):
        with pytest.raises(SettingsError, match="no update 'tunes'"):
            check(QualitySpec(**{**parts, **wrong}))
    with pytest.raises(SettingsError, match="at least one kind of update"):
        check(QualitySpec(updates=(), **parts))


def test_cells_of_a_comparison_are_joined(parts: dict[str, Any], computed: list[str]) -> None:
    run(CompareSpec(methods=("uniform",), keeps=(0.8,), **parts))
    before = list(computed)
    run(QualitySpec(methods=("uniform",), keeps=(0.8,), **parts))
    assert computed == before


def test_a_cancelled_bench_goes_on(parts: dict[str, Any], computed: list[str]) -> None:
    spec = QualitySpec(methods=("uniform", "tilted"), keeps=(0.8, 0.7), **parts)
    with pytest.raises(CancelledError):
        run(spec, stop_at="Tilted at 30 %")
    found = RunStore().create(spec)
    assert found.status().state == "cancelled"
    so_far = json.loads((found.path / "rows.json").read_text())
    assert [row["method"] for row in so_far] == ["dense", "uniform", "uniform"]
    finished = [row["run_id"] for row in so_far]
    count = len(computed)
    result = run(spec).result()
    assert result is not None and len(result["rows"]) == 5
    assert not set(finished) & set(computed[count:])


def test_a_reference_model_is_a_row_of_its_own(parts: dict[str, Any], tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "small-dense", family="gpt2", seed=3)
    result = run(QualitySpec(methods=("uniform",), keeps=(0.8,), references=(str(other),), **parts)).result()
    assert result is not None
    dense, reference, uniform = result["rows"]
    assert (reference["method"], reference["name"]) == ("reference", "small-dense")
    assert reference["keep_whole_model"] == reference["params_total"] / dense["params_total"]
    assert reference["cost"]["params"] != uniform["cost"]["params"]
    assert set(reference["paired"]) == {"dense"}
    text = parts["evaluation"].texts[0]
    assert "own_tokens" not in reference["perplexity"][text]  # the same tokenizer: the same windows
    assert "small-dense" in to_markdown(result)


def test_perplexity_of_another_tokenizer_is_converted_by_bytes(tmp_path: Path) -> None:
    """Twice the bytes a token: a loss of 2 nats a token is 1 nat a token of the dense model's."""
    windows = {
        "dense": {"losses": [100.0], "tokens": [50], "bytes": [100], "digest": "a"},
        "other": {"losses": [100.0], "tokens": [50], "bytes": [200], "digest": "b"},
        "old": {"losses": [100.0], "tokens": [50]},
    }
    for name, found in windows.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "scores.json").write_text(json.dumps({"windows": {"t": found}, "tasks": {}}))
    score = {"value": math.exp(2.0), "stderr": 0.5}
    rows: list[dict[str, Any]] = [
        {"method": method, "keep_target": 1.0, "run_id": name, "perplexity": {"t": score}}
        for method, name in (("dense", "dense"), ("reference", "other"), ("reference", "old"))
    ]
    _, other, old = completed(rows, lambda row, rows: {}, Scores(tmp_path))
    assert other["perplexity"]["t"]["value"] == pytest.approx(math.exp(1.0))
    assert other["perplexity"]["t"]["stderr"] == pytest.approx(math.exp(1.0) * 0.5 * 0.5 / math.exp(2.0))
    assert other["perplexity"]["t"]["own_tokens"] == score
    assert other["relative"]["t"] == pytest.approx(math.exp(-1.0))
    assert "perplexity" not in other["paired"].get("dense", {})
    assert old["perplexity"]["t"] == score and "not comparable" in old["note"]


def test_tables_hold_every_row(parts: dict[str, Any]) -> None:
    result = run(
        QualitySpec(methods=("uniform", "tilted", "failing"), keeps=(0.8, 0.6), task_keeps=(0.6,), **parts)
    ).result()
    assert result is not None
    flat = list(csv.DictReader(io.StringIO(to_csv(result))))
    assert len(flat) == len(result["rows"]) == len(records(result))
    columns = set(flat[0])
    assert {
        "label",
        "seed",
        "keep_achieved",
        "dense_layers",
        "error",
        "one_acc_norm",
        "mean_accuracy",
        "sample",
    } <= columns
    assert {"perplexity_text1.txt_stderr", "perplexity_text1.txt_log_vs_uniform_p", "one_vs_uniform_p"} <= columns
    assert {"allocation_wall_s", "allocation_peak_memory_mb", "allocate_run", "evaluate_run", "bytes"} <= columns
    markdown = to_markdown(result)
    assert "failed: The smallest plan of failing keeps 0.75." in markdown
    assert "McNemar" in markdown and "* Uniform" in markdown
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert len({line.count("|") for line in lines[: len(flat)]}) == 1


# -- ablation -----------------------------------------------------------------------------------------------------


def test_every_known_term_is_a_setting_of_its_method() -> None:
    for method in methods_with_terms():
        for preset in ALLOCATORS.get(method).presets:
            found = variants(method, preset, ("losses",), ())
            assert len(found) == 1 + 2 * len(TERMS[method])
            assert found[0].name == ALL
    with pytest.raises(SettingsError, match="not known"):
        variants("uniform", "quick", ("losses",), ())


def test_all_terms_means_all(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {variant.name: variant for variant in variants("llrc", "quick", ("losses",), ())}
    build = ALLOCATORS.get("llrc").settings
    made = {name: build("quick", variant.overrides) for name, variant in found.items()}
    assert made[ALL].tv_weight > 0 and made[ALL].distillation != "none" and made[ALL].compression != "none"
    only = made["only tv"]
    assert only.tv_weight == made[ALL].tv_weight
    assert (only.distillation, only.compression) == ("none", "none")
    assert made["without tv"] == build("quick")
    assert {name for name, variant in found.items() if variant.note} == {
        "only distill",
        "only tv",
        "without compression",
    }


def test_ablation_runs_every_variant_and_text(parts: dict[str, Any], computed: list[str]) -> None:
    text = parts["calibration"].texts[0]
    spec = AblationSpec(texts=(text, "generated"), task_keeps=(), **parts)
    result = run(spec).result()
    assert result is not None
    rows = result["rows"]
    names = [row.get("variant") for row in rows]
    assert names == [
        None,
        *("all terms", "only distill", "only compression", "only tv"),
        *("without distill", "without compression", "without tv"),
        *("text as preset", f"text {text}", "text generated"),
    ]
    assert not any("error" in row for row in rows)
    by_name = {row["variant"]: row for row in rows[1:]}
    assert by_name["without tv"]["run_id"] == by_name["text as preset"]["run_id"]  # one run, two questions
    assert "fitted to the budget" in by_name["only distill"]["note"]
    assert "training ended at" in by_name["only tv"]["note"]
    assert set(by_name["only tv"]["paired"]) == {"base", "dense"}
    assert set(by_name[ALL]["paired"]) == {"dense"}
    assert all(row["keep_achieved"] <= 0.8 for row in rows[1:])
    assert len(computed) == len(set(computed))
    assert "LLRC, without distill" in to_markdown(result)
    calibrated = RunStore().open(by_name["text generated"]["allocate_run_id"]).spec
    assert isinstance(calibrated, AllocateSpec) and calibrated.calibration.texts == ("generated",)


# -- records ------------------------------------------------------------------------------------------------------


def test_ids_of_earlier_specs_stay() -> None:
    """Shipped samples are found by these ids."""
    assert CompareSpec().run_id == "compare-324fd64688b2"
    for spec in (
        QualitySpec(),
        AblationSpec(),
        QualitySpec(references=("a",), seeds=(1, 2), presets={"llrc": "paper"}),
    ):
        assert spec_from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_tasks_of_the_bench_are_the_packs() -> None:
    assert TASKS == PACK_TASKS

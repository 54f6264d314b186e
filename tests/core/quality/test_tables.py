"""What a bench leaves: its rows and tables, the ablation's variants, and records that older ones agree with."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from lrc_core.errors import SettingsError
from lrc_core.quality.rows import Scores, completed
from lrc_core.quality.tables import records, rows_csv, to_markdown
from lrc_core.quality.variants import ALL, methods_with_terms, variants
from lrc_core.registry import ALLOCATORS
from lrc_core.runs.spec import AblationSpec, AllocateSpec, CompareSpec, QualitySpec, spec_from_dict
from lrc_core.runs.store import RunStore
from lrc_core.words import measured
from tests.factories.pipeline_helpers import result_of, run

# -- tables -------------------------------------------------------------------------------------------------------


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


def test_every_row_of_a_table_stands_beside_the_dense_model_of_its_own() -> None:
    def row(model: str, method: str, speed: float) -> dict[str, Any]:
        return {"model": model, "method": method, "keep_target": 0.8, "cost": {"decode_tokens_per_s": speed}}

    rows = [row("a", "dense", 10.0), row("b", "dense", 40.0), row("a", "llrc", 5.0), row("b", "llrc", 10.0)]
    paces = [found["decode_times_dense"] for found in records({"rows": rows})]
    assert paces == pytest.approx([1.0, 1.0, 0.5, 0.25])


def test_tables_hold_every_row(bench_parts: dict[str, Any]) -> None:
    spec = QualitySpec(methods=("uniform", "tilted", "failing"), keeps=(0.8, 0.6), task_keeps=(0.6,), **bench_parts)
    result = result_of(run(spec))
    flat = list(csv.DictReader(io.StringIO(rows_csv(result))))
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
    assert {"perplexity_report.txt_stderr", "perplexity_report.txt_log_vs_uniform_p", "one_vs_uniform_p"} <= columns
    assert {"allocation_wall_s", "allocation_peak_memory_mb", "allocate_run", "evaluate_run", "bytes"} <= columns
    markdown = to_markdown(result)
    assert "failing keeps 0.75." in markdown
    assert "McNemar" in markdown and "* Uniform" in markdown
    scores = [score for row in result["rows"] for score in (row.get("perplexity") or {}).values()]
    assert scores and all(measured(score["value"], score["stderr"]) in markdown for score in scores)
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert len({line.count("|") for line in lines[: len(flat)]}) == 1


# -- ablation -----------------------------------------------------------------------------------------------------


def test_every_known_term_is_a_setting_of_its_method() -> None:
    for method in methods_with_terms():
        for preset in ALLOCATORS.get(method).presets:
            found = variants(method, preset, ("losses",), ())
            assert len(found) == 1 + 2 * len(ALLOCATORS.get(method).terms)
            assert found[0].name == ALL
    with pytest.raises(SettingsError, match="not known"):
        variants("uniform", "quick", ("losses",), ())


def test_all_terms_means_all() -> None:
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


def test_ablation_runs_every_variant_and_text(bench_parts: dict[str, Any], computed: list[str]) -> None:
    text = bench_parts["calibration"].texts[0]
    spec = AblationSpec(texts=(text, "generated"), task_keeps=(), **bench_parts)
    result = result_of(run(spec))
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
    assert "budget" in by_name["only distill"]["note"]
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

"""The bench through real run folders on a tiny model: nothing twice, failures noted, tests on the right pairs."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from pathlib import Path
from typing import Any

import pytest

from lrc_core.cli.parser import build_parser
from lrc_core.errors import CancelledError, SettingsError
from lrc_core.kinds import KINDS, check, command_for
from lrc_core.models.gguf.split_files import whole_header
from lrc_core.quality.alternatives import QUESTION, why_not_quantise
from lrc_core.quality.paired import log_perplexity, mcnemar
from lrc_core.quality.rows import Scores
from lrc_core.quality.tables import to_markdown
from lrc_core.runs.spec import CompareSpec, QualitySpec
from lrc_core.runs.store import RunStore
from tests.factories.gguf_files import write_gguf
from tests.factories.pipeline_helpers import result_of, run
from tests.factories.quality_helpers import CALLS
from tests.factories.tiny_models import save_tiny


def test_the_matrix_goes_on_past_failures_and_computes_nothing_twice(
    bench_parts: dict[str, Any], computed: list[str], tmp_path: Path
) -> None:
    other = str(save_tiny(tmp_path / "other", seed=3))
    spec = QualitySpec(
        methods=("tilted", "failing"),
        keeps=(0.8, 0.6),
        seeds=(0, 1),
        decompositions=("whitened", "svd"),
        references=(other, str(tmp_path / "missing")),
        baselines=("tilted",),
        **bench_parts,
    )
    found = run(spec)
    result = result_of(found)
    rows = result["rows"]
    assert [row["method"] for row in rows[:3]] == ["dense", "reference", "reference"]
    assert len(rows) == 3 + 2 * 2 * 2 * 2
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
        row["run_id"] for row in result_of(again)["rows"] if row["method"] == "dense"
    }
    assert CALLS[len(calls) :] == [("failing", 0.6)] * 4


def test_tasks_run_at_chosen_targets_only(bench_parts: dict[str, Any]) -> None:
    result = result_of(run(QualitySpec(methods=("uniform", "tilted"), keeps=(0.9, 0.8), **bench_parts)))
    with_tasks = [(row["method"], row["keep_target"]) for row in result["rows"] if row["zero_shot"]]
    assert with_tasks == [("dense", 1.0), ("uniform", 0.8), ("tilted", 0.8)]
    assert all(row["perplexity"] for row in result["rows"])
    # At the other targets nothing about tasks tells runs apart: other items cost nothing there.
    more = dataclasses.replace(bench_parts["evaluation"], items=25)
    other = result_of(run(QualitySpec(methods=("uniform",), keeps=(0.9,), **{**bench_parts, "evaluation": more})))
    ids = {(row["method"], row["keep_target"]): row["run_id"] for row in result["rows"]}
    assert other["rows"][1]["run_id"] == ids["uniform", 0.9]
    assert other["rows"][0]["run_id"] != ids["dense", 1.0]


def test_derived_figures_are_what_scores_say(bench_parts: dict[str, Any]) -> None:
    result = result_of(run(QualitySpec(methods=("uniform", "tilted"), keeps=(0.7,), task_keeps=(0.7,), **bench_parts)))
    dense, uniform, tilt = result["rows"]
    text = bench_parts["evaluation"].texts[0]
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


def test_a_learned_path_serves_larger_targets_unless_told_otherwise(bench_parts: dict[str, Any]) -> None:
    spec = QualitySpec(methods=("llrc",), keeps=(0.9, 0.8), baselines=(), **bench_parts)
    rows = result_of(run(spec))["rows"][1:]
    assert [row["allocation"]["shared_from"] for row in rows] == [0.8, None]
    assert len({row["allocate_run_id"] for row in rows}) == 1
    rows = result_of(run(dataclasses.replace(spec, share_path=False)))["rows"][1:]
    assert [row["allocation"]["shared_from"] for row in rows] == [None, None]
    assert len({row["allocate_run_id"] for row in rows}) == 2


def test_what_prunes_structure_runs_once_and_under_no_decomposition(bench_parts: dict[str, Any]) -> None:
    spec = QualitySpec(
        methods=("uniform", "llm_pruner"), keeps=(0.7,), decompositions=("svd", "whitened"), **bench_parts
    )
    rows = result_of(run(spec))["rows"]
    found = {(row["method"], row["decomposition"]): row for row in rows}
    assert list(found) == [("dense", ""), ("llm_pruner", ""), ("uniform", "svd"), ("uniform", "whitened")]
    text, pruned = bench_parts["evaluation"].texts[0], found["llm_pruner", ""]
    ratio = pruned["perplexity"][text]["value"] / found["uniform", "svd"]["perplexity"][text]["value"]
    assert math.exp(pruned["paired"]["uniform"]["perplexity"][text]["difference"]) == pytest.approx(ratio)
    assert "uniform" not in found["uniform", "whitened"]["paired"]


def test_every_kind_of_update_has_rows_of_its_own(bench_parts: dict[str, Any]) -> None:
    """Tuned and as allocated, with tests against both; what prunes structure has one row."""
    spec = QualitySpec(
        methods=("uniform", "llm_pruner"),
        keeps=(0.7, 0.6),
        task_keeps=(),
        baselines=("uniform", "uniform+left"),
        updates=("none", "left"),
        **bench_parts,
    )
    result = result_of(run(spec))
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
    assert KINDS["quality"].spec_from(build_parser().parse_args(shlex.split(line)[1:])).run_id == spec.run_id


@pytest.mark.parametrize(
    "more",
    [
        {"seeds": (0, 1, 0)},
        {"keeps": (0.8, 0.8)},
        {"methods": ("uniform", "uniform")},
        {"storages": ("pair", "pair")},
        {"decompositions": ("svd", "svd")},
        {"updates": ("none", "none")},
    ],
)
def test_a_bench_refuses_what_would_be_measured_twice(bench_parts: dict[str, Any], more: dict[str, Any]) -> None:
    """A seed that counts twice would make the spread between seeds smaller than it is."""
    with pytest.raises(SettingsError, match=f"twice.*{next(iter(more))}"):
        check(QualitySpec(**{**bench_parts, "methods": ("uniform",), **more}))


def test_a_bench_refuses_updates_that_do_not_exist(bench_parts: dict[str, Any]) -> None:
    for wrong in ({"updates": ("tunes",)}, {"baselines": ("uniform+tunes",)}):
        with pytest.raises(SettingsError, match="no update 'tunes'"):
            check(QualitySpec(**{**bench_parts, **wrong}))
    with pytest.raises(SettingsError, match="one kind of"):
        check(QualitySpec(updates=(), **bench_parts))


def test_cells_of_a_comparison_are_joined(bench_parts: dict[str, Any], computed: list[str]) -> None:
    run(CompareSpec(methods=("uniform",), keeps=(0.8,), **bench_parts))
    before = list(computed)
    run(QualitySpec(methods=("uniform",), keeps=(0.8,), **bench_parts))
    assert computed == before


def test_a_cancelled_bench_goes_on(bench_parts: dict[str, Any], computed: list[str]) -> None:
    spec = QualitySpec(methods=("uniform", "tilted"), keeps=(0.8, 0.7), **bench_parts)
    with pytest.raises(CancelledError):
        run(spec, stop_at="Tilted at 30 %")
    found = RunStore().create(spec)
    assert found.status().state == "cancelled"
    so_far = json.loads((found.path / "rows.json").read_text())
    assert [row["method"] for row in so_far] == ["dense", "uniform", "uniform"]
    finished = [row["run_id"] for row in so_far]
    count = len(computed)
    result = result_of(run(spec))
    assert len(result["rows"]) == 5
    assert not set(finished) & set(computed[count:])


def test_a_reference_model_is_a_row_of_its_own(bench_parts: dict[str, Any], tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "small-dense", family="gpt2", seed=3)
    result = result_of(run(QualitySpec(methods=("uniform",), keeps=(0.8,), references=(str(other),), **bench_parts)))
    dense, reference, uniform = result["rows"]
    assert (reference["method"], reference["name"]) == ("reference", "small-dense")
    assert reference["keep_whole_model"] == reference["params_total"] / dense["params_total"]
    assert reference["cost"]["params"] != uniform["cost"]["params"]
    assert set(reference["paired"]) == {"dense"}
    text = bench_parts["evaluation"].texts[0]
    assert "own_tokens" not in reference["perplexity"][text]  # the same tokenizer: the same windows
    assert "small-dense" in to_markdown(result)


def test_formats_alone_are_rows_with_their_bytes(bench_parts: dict[str, Any], tmp_path: Path) -> None:
    """Who asks why not to quantise finds the answer in the rows; a GGUF file stands there at its file's bytes."""
    path = tmp_path / "other.gguf"
    write_gguf(path, "llama")
    spec = QualitySpec(
        methods=("uniform",), keeps=(0.8,), formats=("Q8_0", "Q4_0"), references=(str(path),), **bench_parts
    )
    result = result_of(run(spec))
    dense, reference, eight, four, uniform = result["rows"]
    assert [row["method"] for row in (eight, four)] == ["q8_0", "q4_0"]
    assert dense["bytes_share"] == 1 and uniform["bytes_share"] == uniform["keep_achieved"]
    assert four["bytes_share"] < eight["bytes_share"] < uniform["bytes_share"]
    header = whole_header(path)
    assert reference["model_bytes"] == sum(tensor.bytes for tensor in header.tensors)
    card = RunStore().open(eight["run_id"]).card()
    wide = {layer.name for layer in card.layers if layer.in_features % 32 == 0}
    counted = sum(
        layer.out_features * (layer.in_features // 32 * 34 if layer.name in wide else 2 * layer.in_features)
        for layer in card.layers
    )
    assert eight["bytes_share"] == counted / (2 * card.params_linear)
    assert eight["model_bytes"] == eight["cost"]["bytes"] == counted + 2 * (card.params_total - card.params_linear)
    assert eight["cost"]["decode_tokens_per_s"] is None  # it ran in 16 bits
    assert "dense" in four["paired"]
    written = to_markdown(result)
    assert "Q8_0 alone" in written and f"{eight['bytes_share']:.3f}" in written
    assert why_not_quantise(result["rows"], Scores(RunStore().root)).startswith(QUESTION)

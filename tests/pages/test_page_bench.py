"""The bench and the ablations on the Compare page."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from urllib.parse import parse_qsl

import pytest

from lrc_core.kinds import KINDS
from lrc_core.names import method_color
from lrc_core.quality.tables import rows_csv, to_markdown
from lrc_core.results import benches as bench_data
from lrc_core.results import comparisons as compare_data
from lrc_core.results.starter_tables import ABLATIONS, BENCH, COMMANDS, MACHINE, shipped_table
from lrc_core.runs.spec import AblationSpec, ModelRef, QualitySpec
from pages.ui.bench import figures
from tests.factories import run_factory, table_factory
from tests.pages.conftest import text_of


@pytest.fixture
def bench(store, card) -> bench_data.Bench:
    table_factory.quality_run(store, card)
    (found,) = bench_data.benches(ModelRef(), QualitySpec)
    return found


def test_empty_states_start_a_bench_and_an_ablation(open_page, submitted):
    app = open_page("compare", co_section="Bench")
    assert "Shipped table" in text_of(app) and "No bench yet" not in text_of(app)
    next(button for button in app.button if button.label == "Start the bench").click().run()
    spec = submitted[-1][0]
    assert isinstance(spec, QualitySpec)
    assert spec.keeps == (0.9, 0.8, 0.7, 0.6) and spec.evaluation.items == 100 and spec.task_keeps == (0.8,)
    app = open_page("compare", co_section="Ablations")
    assert "Shipped table" in text_of(app) and "No ablation yet" not in text_of(app)
    next(button for button in app.button if button.label == "Start the ablation").click().run()
    spec = submitted[-1][0]
    assert isinstance(spec, AblationSpec)
    assert spec.methods[0] == "llrc" and spec.evaluation.tasks == ()


def test_a_bench_is_drawn_with_its_table_signs_and_failures(open_page, store, card):
    run = table_factory.quality_run(store, card)
    app = open_page("compare", co_section="Bench")
    assert not app.error
    table = app.dataframe[0].value
    assert list(table["Method"][:3]) == ["Dense model", "Small-100M", "Uniform"]
    llrc = table[table["Method"] == "LLRC"].iloc[0]
    assert llrc["Perplexity, gensim"].endswith("*") and "±" in llrc["Perplexity, gensim"]
    assert llrc["Mean accuracy"].endswith("*")
    assert "Keeping 0.6" in table[table["Method"] == "STRS"].iloc[1]["Note"]
    text = text_of(app)
    assert "STRS at 40 %" in text and "Keeping 0.6" in text
    assert "* Uniform, † STRS" in text and "exact McNemar" in text
    assert run.id in text and "lrc bench quality" in text


def test_the_ablation_is_drawn(open_page, store, card):
    table_factory.ablation_run(store, card)
    app = open_page("compare", co_section="Ablations")
    assert not app.error
    text = text_of(app)
    assert "LLRC: loss terms" in text and "LLRC: calibration text" in text
    assert list(app.dataframe[-1].value["Method"])[1] == "LLRC, all terms"


def test_a_running_bench_shows_its_progress_and_its_rows(open_page, store, card):
    run = table_factory.quality_run(store, card, done=False)
    app = open_page("compare", co_section="Bench")
    assert app.button(key=f"cancel_{run.id}").label == "Cancel"
    assert len(app.dataframe[0].value) == 8


def test_the_chart_has_a_line_a_method_errors_the_dense_line_and_named_points(bench):
    for axis in bench_data.AXES:
        figure = figures.pareto(bench, "gensim", axis, log=True)
        lines = {trace.name: trace for trace in figure.data}
        assert set(lines) == {"Uniform", "STRS", "LLRC", "Reference models"}
        assert lines["LLRC"].line.color == method_color("llrc")
        assert len(lines["LLRC"].x) == 2 and len(lines["STRS"].x) == 1  # the failed cell is not a point
        assert all(error > 0 for error in lines["LLRC"].error_y.array)
        assert lines["Reference models"].text == ("Small-100M",)
        assert len(figure.layout.shapes) == 1 and "dense" in figure.layout.annotations[0].text
        assert figure.layout.annotations[0].y == pytest.approx(math.log10(18.2))  # exponents on a log axis
    figure = figures.pareto(bench, bench_data.ACCURACY, "model", log=True)
    assert figure.layout.yaxis.type == "linear"
    assert {trace.name: len(trace.x) for trace in figure.data}["LLRC"] == 1  # tasks at 0.8 only


def test_one_decomposition_is_drawn_at_a_time_or_all(bench):
    rows = list(bench.rows)
    rows += [{**row, "decomposition": "kfac"} for row in rows if row["method"] == "llrc"]
    rows.append(table_factory.bench_row("llm_pruner", 0.8, decomposition=""))
    several = replace(bench, rows=tuple(rows))
    assert bench_data.decompositions_of(several) == ["whitened", "kfac"]
    drawn = {
        under: [trace.name for trace in figures.pareto(several, "gensim", "linear", log=True, decomposition=under).data]
        for under in ("whitened", "kfac", "")
    }
    assert drawn["whitened"] == ["Uniform", "STRS", "LLRC", "LLM-Pruner", "Reference models"]
    assert drawn["kfac"] == ["LLRC", "LLM-Pruner", "Reference models"]
    assert "LLM-Pruner" in drawn[""] and "LLRC · Two-sided (K-FAC)" in drawn[""]  # a pruned model has nothing to add


def test_seeds_are_taken_together_and_widen_the_error(store, card):
    rows = [table_factory.bench_row("llrc", 0.8, seed=seed) for seed in (0, 1)]
    (alone,) = bench_data.points(rows[:1], "gensim", "linear")
    (same,) = bench_data.points(rows, "gensim", "linear")
    assert (same.y, same.error) == (alone.y, alone.error)
    score = rows[1]["perplexity"]["gensim"]
    rows[1]["perplexity"]["gensim"] = {**score, "value": score["value"] + 4}
    (wider,) = bench_data.points(rows, "gensim", "linear")
    assert wider.y == pytest.approx(alone.y + 2)
    assert wider.error == pytest.approx((alone.error**2 + 8) ** 0.5)


def test_bars_of_variants_mark_the_base(store, card):
    table_factory.ablation_run(store, card)
    (found,) = bench_data.benches(ModelRef(), AblationSpec)
    rows = [row for row in found.measured if row.get("part") == "losses"]
    figure = figures.variants_side_by_side(found, rows, bench_data.measures(found), log=True)
    assert list(figure.data[0].x) == ["all terms", "only tv", "without distill"]
    assert list(figure.data[0].marker.opacity) == [1.0, 0.55, 0.55]
    assert all(error > 0 for error in figure.data[0].error_y.array)


def test_downloads_hold_every_row(bench):
    flat = list(csv.DictReader(io.StringIO(rows_csv(bench.result))))
    assert len(flat) == len(bench.rows)
    assert flat[2]["perplexity_gensim_log_vs_strs_p"] == "0.2"
    assert "Small-100M" in to_markdown(bench.result)


def test_side_by_side_takes_a_bench_for_a_comparison_but_no_variant_for_a_method(store, card, open_page):
    table_factory.quality_run(store, card, seeds=(0, 1))
    table_factory.ablation_run(store, card)
    (group,) = compare_data.groups(ModelRef())
    ids = {row["run_id"] for row in group.rows}
    assert "evaluate-llrc-0.6-0" in ids and "evaluate-llrc-0.6-1" not in ids
    assert {row.get("variant") for row in group.rows} == {None, "text as preset"}  # the latter is LLRC as it is
    assert {row["method"] for row in group.rows} == {"dense", "uniform", "strs", "llrc"}
    assert not open_page("compare").error


def test_a_link_opens_the_bench_that_it_names_and_leaves_the_choice_free(store, card, open_page):
    older, newer = (table_factory.quality_run(store, card, seeds=seeds) for seeds in ((0,), (0, 1)))
    places = [one.view.id for one in bench_data.benches(ModelRef(), QualitySpec)]
    for run in (older, newer):
        page, _, query = KINDS["quality"].page.format(id=run.id).partition("?")
        app = open_page(page, **dict(parse_qsl(query)))
        assert app.selectbox(key="co_bench").value == places.index(run.id)
        app.selectbox(key="co_bench").select_index(1 - places.index(run.id)).run()
        assert app.selectbox(key="co_bench").value != places.index(run.id)


def test_the_bench_that_ships_shows_its_cells_its_origin_and_its_command(open_page):
    app = open_page("compare", co_section="Bench")
    table = app.dataframe[0].value
    assert len(table) == sum(row["decomposition"] in ("", "kfac") for row in shipped_table(BENCH).rows)
    row = table[(table["method"] == "Uniform") & (table["removed"] == "20 %")].iloc[0]
    assert row["gensim"] == "81.1 ± 5.9†‡" and row["× dense, c4"] == "12.1"
    assert MACHINE in text_of(app) and COMMANDS[BENCH] in text_of(app)
    bars = open_page("compare", co_section="Ablations")
    assert all(COMMANDS[name] in text_of(bars) for name in ABLATIONS) and len(bars.dataframe) == 6


def test_several_seeds_are_asked_for_and_have_a_table_of_their_own(open_page, store, card, submitted):
    app = open_page("compare", co_section="Bench")
    app.number_input(key="co_bench_seeds").set_value(3)
    next(button for button in app.button if button.label == "Start the bench").click().run()
    assert submitted[-1][0].seeds == (0, 1, 2)
    table_factory.quality_run(store, card, seeds=(0, 1, 2))
    app = open_page("compare", co_section="Bench")
    table = next(found.value for found in app.dataframe if "Seeds" in found.value)
    assert set(table["Target"]) == {"20 %", "40 %"}  # what is removed, as in all tables of the page
    assert len(table) == 5 and set(table["Seeds"]) == {"0, 1, 2"}  # STRS failed at one rate
    assert [head.partition(":")[0] for head in table.columns[-2:]] == ["Nats above Uniform", "Nats above STRS"]


def test_another_model_has_no_shipped_bench(open_page, store):
    run_factory.spectra_run(store, run_factory.make_card("owner/other"))
    assert "No bench yet" in text_of(open_page("compare", co_section="Bench", model="owner/other"))


def test_damaged_rows_are_left_out(open_page, store, card):
    run = table_factory.quality_run(store, card)
    (run.path / "rows.json").write_text('[{"method": "llrc"}, 3, null]')
    assert "Shipped table" in text_of(open_page("compare", co_section="Bench"))


@pytest.mark.parametrize("kind", ["quality", "ablation"])
def test_the_runs_page_knows_them(open_page, store, card, kind):
    run = getattr(table_factory, f"{kind}_run")(store, card)
    app = open_page("runs", ru_run=run.id)
    assert not app.error
    assert f"lrc bench {kind}" in text_of(app)

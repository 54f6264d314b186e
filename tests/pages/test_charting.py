"""Every chart has words, a table, and where the page does not say it elsewhere, a reading."""

from __future__ import annotations

import json

import pytest

from lrc_core.figures.measured import perplexity_by_method, perplexity_curves
from lrc_core.quality.rows import Scores
from lrc_core.results import benches as bench_data
from lrc_core.runs.spec import AblationSpec, ModelRef, QualitySpec
from pages.ui.bench import readings as bench_readings
from pages.ui.compare import readings as compare_readings
from pages.ui.compare import views as compare_views
from pages.ui.present import closing
from pages.ui.present.story import Story
from pages.ui.shared.charting import TABLE, without_marks
from tests.factories import run_factory, table_factory
from tests.pages.conftest import text_of
from tests.pages.test_page_spectra import heatmaps

WITH_CHARTS = [
    *(("compare", {"co_view": view}) for view in ("Overview", "Curve", "Zero-shot", "Ranks", "Size and speed")),
    ("compare", {"co_section": "Bench"}),
    ("compare", {"co_section": "Ablations"}),
    *(("learn", {"learn_step": step}) for step in ("3", "4", "6")),
]
"""Allocate and Spectra draw with components of their own, which the browser tests look at."""


@pytest.fixture
def runs(store, card):
    run_factory.spectra_run(store, card)
    run_factory.allocate_run(store, card)
    run_factory.lesson_run(store, card)
    table_factory.compare_run(store, card)


@pytest.mark.parametrize(("page", "query"), WITH_CHARTS, ids=[f"{page} {query}" for page, query in WITH_CHARTS])
def test_every_chart_has_words_and_a_table(open_page, runs, store, card, page, query):
    if "co_section" in query:
        table_factory.quality_run(store, card)
        table_factory.ablation_run(store, card)
    app = open_page(page, **query)
    assert not app.error
    charts = [*app.get("plotly_chart"), *app.get("vega_lite_chart"), *app.get("arrow_vega_lite_chart")]
    grids = heatmaps(app)
    assert charts or grids, "this page has charts"
    assert all(len(grid["label"]) > 10 and "**" not in grid["label"] for grid in grids)
    assert all(len(chart.proto.alt) > 10 for chart in charts)
    assert not any("**" in chart.proto.alt for chart in charts)
    folds = [fold for fold in app.expander if fold.label == TABLE]
    tables = [table for table in app.dataframe if table.proto.alt.startswith("In numbers: ")]
    lazy = [fold for fold in folds if not fold.dataframe]
    assert len(tables) + len(lazy) >= len(charts) + len(grids)


@pytest.mark.parametrize(("page", "query"), WITH_CHARTS, ids=[f"{page} {query}" for page, query in WITH_CHARTS])
def test_charts_show_in_both_themes_and_can_be_saved(open_page, runs, store, card, page, query):
    """Plotly's own lines are as dark as the dark theme, and a logarithmic axis has no zero for a bar to begin at."""
    if "co_section" in query:
        table_factory.quality_run(store, card)
        table_factory.ablation_run(store, card)
    for chart in open_page(page, **query).get("plotly_chart"):
        figure, options = json.loads(chart.proto.spec), json.loads(chart.proto.config)
        assert options["modeBarButtons"] == [["toImage"]]
        assert options.get("displayModeBar") is not False
        assert options["toImageButtonOptions"]["filename"]
        assert all(line["line"].get("color") for line in figure["layout"].get("shapes", []))
        for trace in figure["data"]:
            errors = [trace[name] for name in ("error_x", "error_y") if trace.get(name, {}).get("array")]
            assert all(error.get("color") or trace.get("line", {}).get("color") for error in errors)
            if trace["type"] == "bar":
                names = (trace.get("xaxis", "x"), trace.get("yaxis", "y"))
                axes = [figure["layout"].get(f"{name[0]}axis{name[1:]}", {}) for name in names]
                assert not any(axis.get("type") == "log" for axis in axes)


def test_markdown_is_taken_out_of_words():
    assert without_marks("**LLRC** keeps `q_proj`") == "LLRC keeps q_proj"


def test_readings_follow_the_rows():
    rows = [table_factory.row("dense", 1.0)]
    rows += [table_factory.row(method, keep) for method in ("uniform", "llrc") for keep in (0.9, 0.8)]
    at = [row for row in rows if row["keep_target"] in (1.0, 0.8)]
    best = compare_readings.best(at)
    assert "**LLRC** is best" in best and "Uniform follows" in best and "18.2" in best
    swapped = [{**row, "method": {"llrc": "uniform", "uniform": "llrc"}.get(row["method"], "dense")} for row in at]
    assert "**Uniform** is best" in compare_readings.best(swapped)
    assert "At 20 % removed **LLRC**" in compare_readings.growth(rows) and "at 10 %" in compare_readings.growth(rows)
    assert "**LLRC** answers" in compare_readings.accuracy(at, "acc")
    assert "16 % smaller" in compare_readings.cost(at)
    beside = {"decode": {"value": 0.65, "stderr": 0.03}, "prefill": {"value": 0.85, "stderr": 0.02}}
    slow = {**at[1], "method": "strs", "cost": {**at[1]["cost"], "paces": beside}}
    said = compare_readings.cost([*at, slow])
    assert "**STRS**, writes at 0.65" in said and "timed beside" in said, "one timing each names no winner"
    form = {**at[0], "method": "q4_0", "model_bytes": round(0.4 * 2 * at[0]["cost"]["params"])}
    assert "60 %" in compare_readings.cost([*at, form])
    alone = [row for row in rows if row["method"] == "dense"]
    lossless = {**at[0], "method": "uniform", "perplexity": alone[0]["perplexity"]}
    assert "free" in best and "free" not in compare_readings.best([*alone, lossless])
    better = {**lossless, "perplexity": {"gensim": {"value": 1.5, "stderr": 0.1}}}
    assert "more" in compare_readings.best([*alone, better]) and "free" not in compare_readings.best([*alone, better])
    for reading in (compare_readings.best, compare_readings.growth):
        assert "dense model" in reading(alone) and "Q4_0" not in reading(alone)
        assert "Q4_0" in reading([*alone, form]), "what was measured beside it is not denied"


def test_a_page_says_once_whether_two_models_differ_by_more_than_chance(tmp_path):
    """Over the same windows, as the sentence below it does; their own errors overlap."""
    hard, rows = [300.0, 200.0, 100.0, 250.0], []
    for method, more, stderr in (("uniform", 4.0, 5.0), ("llrc", 0.0, 5.0)):
        windows = {"losses": [loss + more + loss / 1000 for loss in hard], "tokens": [100] * 4, "digest": "x"}
        (tmp_path / method).mkdir()
        (tmp_path / method / "scores.json").write_text(json.dumps({"windows": {"gensim": windows}}))
        value = 30.0 if more else 28.8
        row = {**table_factory.row(method, 0.8), "perplexity": {"gensim": {"value": value, "stderr": stderr}}}
        rows.append({**row, "run_id": method})
    assert "may be chance" in compare_readings.best(rows)
    said = compare_readings.best(rows, Scores(tmp_path))
    assert "chance" in said and "may be" not in said


def test_two_texts_of_one_name_have_columns_of_their_own_beside_a_chart():
    scores = {f"/home/me/{folder}/held.txt": {"value": 11.0, "stderr": 1.0} for folder in ("old", "new")}
    row = {**table_factory.row("llrc", 0.8), "perplexity": scores}
    columns = [name for name in compare_views._readable([row]).columns if "held.txt" in name]
    assert len(columns) == 2 and all("/home/me" not in name for name in columns)


def test_a_text_of_ones_own_goes_by_its_name_not_by_its_place(card):
    """Slides and charts are shown to others, and a folder of this computer says nothing to them."""
    rows = [table_factory.row("dense", 1.0)]
    rows += [table_factory.row(method, keep) for method in ("uniform", "llrc") for keep in (0.9, 0.8)]
    rows = [{**row, "perplexity": {"/home/me/held.txt": next(iter(row["perplexity"].values()))}} for row in rows]
    at = [row for row in rows if row["keep_target"] in (1.0, 0.8)]
    said = [compare_readings.best(at), compare_readings.growth(rows), compare_readings.best(at[:1])]
    said += [
        note.text
        for drawn in (perplexity_by_method(at), perplexity_curves(rows, log=True))
        for note in drawn.layout.annotations
    ]
    story = Story(ModelRef(), card, None, 0.8, tuple(at), None, None, sample=False, source="compare-1")
    said += [story.bars("/home/me/held.txt")]
    assert all("/home" not in one for one in said) and sum("held.txt" in one for one in said) >= 5


@pytest.mark.parametrize(("last", "decides"), [(20.1, False), (60.0, True)])
def test_that_the_way_matters_is_said_only_beyond_chance(last, decides):
    best, worst = ({"method": "llrc", "perplexity": {"c4": {"value": one, "stderr": 1.0}}} for one in (20.0, last))
    assert ("no difference" in closing._decides(best, worst, "c4")) != decides


def test_readings_of_a_bench(store, card, open_page):
    table_factory.quality_run(store, card)
    table_factory.ablation_run(store, card)
    from lrc_core.runs.spec import ModelRef

    (bench,) = bench_data.benches(ModelRef(), QualitySpec)
    assert "**LLRC** at 20 %, 40 % removed" in bench_readings.leaders(bench, "gensim", "Perplexity")
    (ablation,) = bench_data.benches(ModelRef(), AblationSpec)
    rows = [dict(row) for row in ablation.measured if row.get("part") == "losses"]
    assert "no variant differs" in bench_readings.worst_variant(ablation, rows)
    rows[1]["perplexity"] = {"gensim": {"value": 99.0, "stderr": 1.0}}
    assert f"“{rows[1]['variant']}” 99" in bench_readings.worst_variant(ablation, rows)


def test_a_table_that_is_costly_is_made_when_it_is_opened(open_page, runs):
    app = open_page("spectra")
    fold = next(fold for fold in app.expander if fold.label == TABLE)
    assert not fold.dataframe
    assert "directions" in text_of(app)

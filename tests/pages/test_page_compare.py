"""Compare: only what was measured alike stands side by side; what is missing is named and can be filled."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from lrc_core.figures import measured as figures
from lrc_core.formats.grids import QUANTISED
from lrc_core.kinds import command_for
from lrc_core.registry import ALLOCATORS
from lrc_core.report.build import make_report
from lrc_core.report.content import visible_texts
from lrc_core.report.sources import Asked
from lrc_core.results import comparisons as compare_data
from lrc_core.results.archive import archive
from lrc_core.results.decisions import decision_of
from lrc_core.results.identity import identified
from lrc_core.results.prices import price
from lrc_core.runs.spec import AllocateSpec, CompareSpec, EvaluateSpec, EvaluationSpec, ModelRef, UpdateSpec
from pages.ui.compare import ranks
from pages.ui.shared import choices
from tests.factories import run_factory, table_factory
from tests.pages.conftest import text_of
from tests.pages.test_page_spectra import heatmaps


def test_empty_state_with_a_form_that_starts_one(open_page, submitted):
    app = open_page("compare")
    assert "Nothing measured yet" in text_of(app)
    next(button for button in app.button if button.label == "Start the comparison").click().run()
    spec = submitted[0][0]
    assert isinstance(spec, CompareSpec)
    assert spec.methods == ("uniform", "strs", "llrc") and spec.keeps == (0.9, 0.8)


def test_rows_of_the_sample_are_labelled(open_page, samples, card):
    run = table_factory.compare_run(samples, card)
    text = text_of(open_page("compare"))
    assert "Shipped run" in text and run.id in text


def test_overview_shows_the_rows_of_one_budget_with_errors(open_page, store, card):
    table_factory.compare_run(store, card)
    app = open_page("compare", co_rate="10 %")
    table = app.dataframe[0].value
    assert list(table["Method"]) == ["Dense", "Uniform", "STRS", "LLRC"]
    assert "Run" not in table, "ids stand behind a button"
    assert table["Removed"].iloc[1] == "10.04 %"
    assert "±" in table["Perplexity, gensim"].iloc[1]
    assert "Not measured yet" not in text_of(app)


@pytest.mark.parametrize("view", ["Decide", "Curve", "Zero-shot", "Ranks", "Text", "Size and speed"])
def test_every_view_draws(open_page, store, card, view):
    run_factory.spectra_run(store, card)
    table_factory.compare_run(store, card)
    app = open_page("compare", co_view=view)
    assert not app.error
    if view == "Decide":
        assert "--formats" in text_of(app) and set(app.dataframe[0].value["On the frontier"]) == {"yes", ""}
    if view == "Text":
        assert "capital of France" in text_of(app)
    if view == "Ranks":
        assert "LLRC minus STRS" in text_of(app)
        difference, *plans = heatmaps(app)
        kept = [{name: value for _, _, name, value, *_ in plan["cells"]} for plan in plans]
        assert difference["diverging"] and not difference["picks"] and len(kept) == 2
        for _, _, name, value, words, _ in difference["cells"]:
            assert value == pytest.approx(kept[0][name] - kept[1][name]) and "LLRC: rank" in words


def test_an_update_can_be_asked_for_and_is_in_the_command(open_page, submitted):
    app = open_page("compare")
    assert app.selectbox(key="co_new_update").value == "none"
    app.selectbox(key="co_new_update").set_value("both")
    next(button for button in app.button if button.label == "Start the comparison").click().run()
    spec = submitted[0][0]
    assert spec.update == "both" and "--update both" in command_for(spec)
    assert "both factors" in text_of(app)


@pytest.mark.parametrize(
    ("choice", "methods", "storage", "update"),
    [("best", ("lagrangian",), "pivoted", "tuned"), ("fast", ("lagrangian",), "pivoted", "none"),
     ("baseline", ("strs", "uniform"), "pair", "none")],
)  # fmt: skip
def test_one_of_three_choices_fills_the_form(open_page, submitted, choice, methods, storage, update):
    app = open_page("compare")
    app.button(key=f"co_take_{choice}").click().run()
    assert not submitted, "choosing starts nothing"
    assert app.button(key=f"co_take_{choice}").proto.icon == choices.CHOSEN
    next(button for button in app.button if button.label == "Start the comparison").click().run()
    spec = submitted[0][0]
    assert tuple(sorted(spec.methods)) == methods
    assert (spec.decomposition, spec.storage, spec.update) == ("kfac", storage, update)


def test_tuning_can_be_asked_for(open_page, submitted):
    app = open_page("compare")
    app.selectbox(key="co_new_update").set_value("tuned")
    next(button for button in app.button if button.label == "Start the comparison").click().run()
    spec = submitted[0][0]
    assert spec.update == "tuned" and "--update tuned" in command_for(spec)
    assert spec.formats == QUANTISED
    assert "with tuned factors" in text_of(app)


def test_the_button_says_the_price_with_the_tuning_as_soon_as_it_is_chosen(open_page, store, submitted):
    """The sum is of the parts that were done here; what was chosen redraws it, and starts nothing."""
    base = CompareSpec(keeps=(0.9, 0.8), evaluation=EvaluationSpec(tasks=("arc_easy", "piqa")), formats=QUANTISED)
    for method in base.methods:
        run_factory.finish(store.create(AllocateSpec(method=method)), {"wall_s": 60.0})
    run_factory.finish(store.create(EvaluateSpec(evaluation=base.evaluation)), {"wall_s": 60.0})
    run_factory.finish(store.create(UpdateSpec(settings={"kind": "tuned"})), {"wall_s": 36_000.0})
    app = open_page("compare")
    app.selectbox(key="co_new_update").set_value("none").run()
    plain = price(base)
    assert plain is not None and plain.said in text_of(app)
    app.selectbox(key="co_new_update").set_value("tuned").run()
    tuned = price(replace(base, update="tuned"))
    assert tuned is not None and tuned.said in text_of(app) and tuned.low > 10 * plain.high and not submitted


def test_updated_plans_stand_beside_those_as_allocated(open_page, store, card):
    run_factory.spectra_run(store, card)
    table_factory.compare_run(store, card)
    table_factory.compare_run(store, card, methods=("uniform", "llrc"), update="left")
    app = open_page("compare", co_rate="10 %")
    expected = ["Dense", "Uniform", "Uniform + update", "STRS", "LLRC", "LLRC + update"]
    assert list(app.dataframe[0].value["Method"]) == expected
    for view in ("Curve", "Zero-shot", "Ranks"):
        assert not open_page("compare", co_view=view).error
    group = compare_data.groups(ModelRef())[0]
    curves = {line.name: line for line in figures.perplexity_curves(group.rows, log=False).data}
    plain, updated = curves["LLRC"].line, curves["LLRC + update"].line
    assert plain.color == updated.color and plain.dash != updated.dash
    bars = figures.perplexity_by_method(group.at("whitened", 0.9)).data[0].marker
    assert len({(color, shape) for color, shape in zip(bars.color, bars.pattern.shape, strict=True)}) == 6


def test_a_comparison_of_updated_plans_alone_misses_nothing(store, card):
    table_factory.compare_run(store, card, update="both")
    group = compare_data.groups(ModelRef())[0]
    assert compare_data.missing(group, "whitened", ("uniform", "strs", "llrc")) == []
    assert figures.label("llrc+both") == f"{figures.label('llrc')} + update of both"


def test_a_pruned_plan_stands_beside_ranks(open_page, store, card):
    run_factory.spectra_run(store, card)
    table_factory.compare_run(store, card, methods=("uniform", "llm_pruner"))
    app = open_page("compare", co_view="Ranks")
    assert not app.error
    assert "LLM-Pruner minus Uniform" in text_of(app)


def test_a_heatmap_shows_what_pruning_leaves(card):
    plan = run_factory.pruned_plan_at(card, 0.5)
    frame = ranks.rank_frame(card, plan).set_index([[layer.name for layer in card.layers]])
    up = frame.loc["model.layers.1.mlp.up_proj"]
    assert (up["kept"], up["rank"], up["state"]) == (0.5, 48, "pruned to 64 × 48")
    assert frame.loc["model.layers.1.mlp.down_proj", "state"] == "pruned to 48 × 64"
    assert frame.loc["model.layers.0.mlp.up_proj", ["kept", "state"]].tolist() == [1.0, "dense"]
    params = [layer.params for layer in card.layers]
    assert (frame["kept"] * params).sum() / sum(params) == pytest.approx(plan.keep_achieved)


def test_missing_cells_are_named_and_filled_by_a_job(open_page, store, card, submitted):
    table_factory.compare_run(store, card, skip=(("strs", 0.8),))
    app = open_page("compare")
    assert "STRS at 20 %" in text_of(app)
    app.button(key="co_fill").click().run()
    spec = submitted[0][0]
    assert spec.keeps == (0.9, 0.8) and "strs" in spec.methods and spec.evaluation == table_factory.EVALUATION


def test_rows_appear_while_the_comparison_runs(open_page, store, card):
    run = table_factory.compare_run(store, card, skip=(("strs", 0.8), ("llrc", 0.8)), done=False)
    app = open_page("compare")
    assert app.button(key=f"cancel_{run.id}").label == "Cancel"
    assert len(app.dataframe[0].value) == 2


def test_different_measurements_are_never_mixed(store, card):
    table_factory.compare_run(store, card)
    other = replace(table_factory.EVALUATION, window=1024)
    single = store.create(EvaluateSpec(plan=run_factory.plan_at(card, 0.8).to_dict(), evaluation=other))
    run_factory.finish(single, table_factory.row("llrc", 0.8, run_id=single.id))
    groups = compare_data.groups(ModelRef())
    assert [len(group.rows) for group in groups] == [7, 1]
    assert {group.evaluation.window for group in groups} == {512, 1024}


def test_a_pruned_model_stands_beside_every_decomposition():
    rows = tuple(
        table_factory.row(*cell) for cell in (("dense", 1.0), ("uniform", 0.8), ("uniform", 0.8), ("llm_pruner", 0.8))
    )
    for one, name in zip(rows, ("", "whitened", "kfac", ""), strict=True):
        one["decomposition"] = name
    group = compare_data.Group(table_factory.EVALUATION, rows, 0, (), ())
    assert compare_data.decompositions_of(group) == ["whitened", "kfac"]
    for name in ("whitened", "kfac"):
        assert [one["method"] for one in group.at(name, 0.8)] == ["dense", "uniform", "llm_pruner"]
    assert [one["method"] for one in group.at("kfac", 0.6)] == ["dense"]


def test_differences_are_said(store, card):
    table_factory.compare_run(store, card)
    group = compare_data.groups(ModelRef())[0]
    rows = [dict(row) for row in group.at("whitened", None)]
    assert compare_data.differences(rows, group) == []
    alike = [{**row, "dtype": "bfloat16"} for row in rows]
    assert compare_data.differences(alike, group) == []
    assert "float32" in " ".join(compare_data.differences([{**alike[0], "dtype": "float32"}, *alike[1:]], group))
    assert "dense model itself" in " ".join(compare_data.differences(rows, replace(group, unsteady=0.0004)))
    rows[-1]["keep_achieved"] = 0.7
    assert "achieved compressions differ" in compare_data.differences(rows, group)[0]


def test_a_dense_model_that_came_out_otherwise_is_said(store, card):
    table_factory.compare_run(store, card, methods=("uniform",))
    other = table_factory.compare_run(store, card, methods=("strs",), done=False)
    assert compare_data.groups(ModelRef())[0].unsteady == 0
    rows = json.loads((other.path / "rows.json").read_text())
    rows[0] = {**rows[0], "perplexity": {**rows[0]["perplexity"], "c4": {"value": 25.0, "stderr": 0.6}}}
    run_factory.write_json(other.path / "rows.json", rows)
    run_factory.finish(other, {"model": "starter", "rows": rows})
    assert compare_data.groups(ModelRef())[0].unsteady == pytest.approx(25.0 / 24.9 - 1)


def test_damaged_rows_are_left_out(open_page, store, card):
    run = table_factory.compare_run(store, card)
    (run.path / "rows.json").write_text(json.dumps([{"method": "llrc"}, 3, None]))
    assert not open_page("compare").error


def test_flat_table_has_every_figure_and_its_error():
    [record] = compare_data.records([table_factory.row("llrc", 0.8, run_id="r")], figures.label)
    assert record["perplexity_c4_stderr"] is not None and record["piqa_acc_norm_stderr"] is not None
    assert record["compression_target"] == 0.2


def test_bars_carry_error_bars_and_the_registered_colours():
    rows = [table_factory.row("dense", 1.0), table_factory.row("llrc", 0.8)]
    figure = figures.perplexity_by_method(rows)
    assert all(bar.error_y.array[1] > 0 for bar in figure.data)
    assert figure.data[0].marker.color[1] == figures.color("llrc")
    assert figures.zero_shot_bars(rows, "acc_norm").data[1].y[0] == rows[1]["zero_shot"]["arc_easy"]["acc_norm"]


def test_many_methods_lie_below_each_other_with_the_best_on_top():
    methods = [name for name in ALLOCATORS.names() if not ALLOCATORS.get(name).structured][:9]
    rows = [table_factory.row("dense", 1.0), *({**table_factory.row("llrc", 0.8), "method": name} for name in methods)]
    for number, one in enumerate(rows):
        one["perplexity"]["gensim"]["value"] = 999.0 if number == 4 else 20.0 + number
    points = figures.perplexity_by_method(rows).data[0]
    assert len(points.y) == 10
    assert list(points.x) == sorted(points.x, reverse=True)  # plotly draws upwards
    assert points.y[0] == figures.label(rows[4]["method"]) and points.y[-1] == "Dense"
    assert points.marker.color[0] == figures.color(rows[4]["method"])


@pytest.mark.parametrize("log", [True, False])
def test_lengths_are_drawn_only_where_they_begin_at_zero(log):
    rows = [table_factory.row("dense", 1.0), table_factory.row("llrc", 0.8)]
    figure = figures.perplexity_by_method(rows, log=log)
    assert {trace.type for trace in figure.data} == {"scatter" if log else "bar"}
    assert all(trace.mode == "markers" for trace in figure.data if log)
    assert log or all(axis.rangemode == "tozero" for axis in figure.select_yaxes())


@pytest.mark.parametrize("update", ["left", "both", "blockwise", "tuned", "blockwise+tuned"])
@pytest.mark.parametrize("log", [True, False])
def test_an_updated_method_looks_unlike_the_same_without(update, log):
    rows = [{**table_factory.row("llrc", 0.8), "method": method} for method in ("llrc", f"llrc+{update}")]
    marker = figures.perplexity_by_method(rows, log=log).data[0].marker
    assert marker.color[0] == marker.color[1]
    assert len(set(marker.symbol if log else marker.pattern.shape)) == 2


def test_the_dense_line_is_named_where_it_is_on_both_axes():
    rows = [table_factory.row("dense", 1.0), table_factory.row("llrc", 0.8)]
    for log, height in ((False, 18.2), (True, math.log10(18.2))):
        figure = figures.perplexity_curves(rows, log=log)
        (note,) = [note for note in figure.layout.annotations if note.text == "dense 18.20"]
        assert note.y == pytest.approx(height)


def test_a_comparison_whose_every_row_is_an_evaluation_of_its_own_has_a_report(open_page, store, card):
    """As real ones are, the dense model's row included: the page said that these were single measurements."""
    run = table_factory.compare_run(store, card, done=False)
    dense = store.create(EvaluateSpec(model=ModelRef("starter"), evaluation=table_factory.EVALUATION))
    rows = json.loads((run.path / "rows.json").read_text())
    rows[0]["run_id"] = dense.id
    run_factory.finish(dense, rows[0])
    run_factory.write_json(run.path / "rows.json", rows)
    run_factory.finish(run, {"model": "starter", "rows": rows})
    assert [view.id for view in compare_data.groups(ModelRef())[0].views] == [run.id]
    run_factory.spectra_run(store, card)
    assert f"lrc report --compare {run.id} --keep" in text_of(open_page("compare"))


def test_what_was_chosen_for_bytes_stands_at_no_rate_but_where_bytes_decide(open_page, store, card):
    """A mixture of formats and ranks that keeps 95 % of the parameters in 30 % of the bytes is no plan of 5 %."""
    run_factory.spectra_run(store, card)
    compared = table_factory.compare_run(store, card, methods=("uniform", "llrc"))
    for share in (0.45, 0.3):
        mixed = table_factory.evaluate_run(
            store, card, "uniform", 0.95, budget=f"bytes:{share}", bytes_share=share, warnings=["uniform: of few bits"]
        )
    (group,) = compare_data.groups(ModelRef())
    assert group.sizes == [0.9, 0.8] and {row["bytes_share"] for row in group.by_bytes} == {0.45, 0.3}
    for decomposition in ("whitened", compare_data.EVERY):
        assert not any(row.get("budget") for row in group.at(decomposition, None) + group.best_at(0.95))
        named = [one.row["run_id"] for one in decision_of(ModelRef(), group, decomposition)]
        assert mixed.id in named
    assert any("of few bits" in note for note in compare_data.differences(group.at("whitened", None), group))
    assert not open_page("compare", co_view="Decide").error
    report = make_report(Asked(compare=(compared.id, mixed.id)), None, archive())
    assert [choice.label for choice in report.targets] == ["10 %", "20 %"]
    assert any("in 30 %" in text for text in visible_texts(report))


def test_the_report_is_of_all_runs_that_are_shown(open_page, store, card):
    run_factory.spectra_run(store, card)
    lone = table_factory.evaluate_run(store, card, "llrc", 0.6)
    assert f"lrc report --compare {lone.id}" in text_of(open_page("compare")), "a single measurement has one, too"
    compared = table_factory.compare_run(store, card, methods=("uniform", "strs"))
    said = text_of(open_page("compare"))
    assert all(run.id in said.partition("lrc report --compare")[2].partition("--keep")[0] for run in (compared, lone))


def test_report_of_a_finished_comparison(open_page, store, card):
    run = table_factory.compare_run(store, card)
    app = open_page("compare")
    assert "`lrc spectra starter`" in text_of(app), "no run knows the layers yet"
    run_factory.spectra_run(store, card)
    app = open_page("compare")
    assert f"lrc report --compare {run.id} --keep 0.8" in text_of(app)
    app.text_input(key="co_report_title").set_value("Für den Vorstand").run()
    assert "--title 'Für den Vorstand'" in text_of(app)
    assert {"Report (HTML)", "Report (PDF)"} <= {button.label for button in app.get("download_button")}


def test_rows_of_an_edited_text_stand_apart_and_say_so(store, tmp_path, open_page):
    text = tmp_path / "mine.txt"
    asked = EvaluateSpec(
        ModelRef("starter"), evaluation=replace(table_factory.EVALUATION, texts=(str(text),), tasks=())
    )
    for content in ("as it was", "as it is now"):
        text.write_text(content)
        run = store.create(identified(asked))
        run_factory.finish(run, table_factory.row("dense", 1.0, run_id=run.id, tasks=False))
    now, before = compare_data.groups(ModelRef("starter"))
    assert len(now.rows) == len(before.rows) == 1 and not now.changed
    assert "mine.txt has changed" in before.changed[0] and before.label != now.label
    assert any("mine.txt has changed" in note for note in compare_data.differences(before.rows, before))
    for group, changed in ((before, True), (now, False)):
        assert ("since this run" in text_of(open_page("runs", ru_run=group.views[0].id))) is changed


@pytest.mark.parametrize(
    "methods", [("uniform",), ("uniform", "strs", "llrc", "lagrangian", "greedy", "ara", "dobi", "ars")]
)
def test_no_axis_or_whisker_leads_to_a_perplexity_that_cannot_be(methods):
    """700 ± 1,400 after six windows drew an axis down to -500."""
    wide = {"perplexity": {"c4": {"value": 700.0, "stderr": 1400.0}}}
    rows = [{**table_factory.row("uniform", 0.8), **wide, "method": method} for method in methods]
    for figure in (figures.perplexity_by_method(rows), figures.perplexity_curves(rows, log=False)):
        for trace in figure.data:
            error = trace.error_x if trace.error_x.array is not None else trace.error_y
            values = trace.x if trace.error_x.array is not None else trace.y
            assert all(value - down >= 1 for value, down in zip(values, error.arrayminus, strict=True))
            assert list(error.array) == [1400.0] * len(values)
    assert figures.perplexity_curves(rows, log=False).layout.yaxis.rangemode == "tozero"


@pytest.mark.parametrize("count", [3, 9])
@pytest.mark.parametrize("log", [True, False])
def test_an_axis_on_which_lengths_are_no_amounts_says_so(count, log):
    """Bars of many methods, and curves that are asked to, stand on a logarithmic axis."""
    names = ["uniform", "strs", "llrc", "ars", "ara", "lems", "zerosum", "drank", "dobi"][:count]
    rows = [table_factory.row("dense", 1.0), *({**table_factory.row("llrc", 0.8), "method": name} for name in names)]
    for figure in (figures.perplexity_by_method(rows), figures.perplexity_curves(rows, log=log)):
        axes = [*figure.select_yaxes(), *figure.select_xaxes()]
        said = ["logarithmic" in str(axis.title.text) for axis in axes]
        assert any(said) == any(axis.type == "log" for axis in axes)


@pytest.mark.parametrize("methods", [("uniform",), ("uniform", "strs")])
def test_no_cell_is_missing_that_nobody_asked_for(open_page, store, card, methods):
    """A comparison of one method misses no other; of two, nothing but what is not there of them."""
    table_factory.compare_run(store, card, methods=methods, skip=((methods[-1], 0.9),))
    (group,) = compare_data.groups(ModelRef())
    assert set(compare_data.asked_for(group, "whitened")) == set(methods)
    said = text_of(open_page("compare"))
    assert "LLRC at" not in said and (len(methods) == 1 or "STRS at 10 %" in said)

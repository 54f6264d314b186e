"""Plans: begin, edit, lock, spend, undo, take in, give out, measure, and the score list."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from lrc_core import visitors
from lrc_core.budget import keep_ratio, stored, uniform_ranks
from lrc_core.errors import PlanError
from lrc_core.paths import plans_home
from lrc_core.plan import Plan
from lrc_core.quality.footprint import footprint, served
from lrc_core.results import drafts as plan_draft
from lrc_core.results import scores as plan_scores
from lrc_core.runs.spec import AdoptSpec, EvaluateSpec, EvaluationSpec, ModelRef, SpectraSpec
from pages.ui.allocate.slider import figures
from tests.factories import run_factory, table_factory
from tests.pages.conftest import text_of
from tests.pages.test_page_spectra import cell, heatmaps


@pytest.fixture
def page(open_page, store, card):
    """The page on a model that has been read."""
    run_factory.spectra_run(store, card)
    return lambda **query: open_page("plans", **query)


def draft(app, card) -> plan_draft.Draft:
    return app.session_state["pl_draft"][card.identity.fingerprint]


def test_without_a_model_it_says_what_is_needed(open_page):
    assert "not been read" in text_of(open_page("plans"))


def test_a_rank_that_is_set_is_locked_and_the_rest_is_spent_around_it(page, card):
    app = page(rate="30")
    app.session_state["pl_layer"] = card.layers[4].name
    app.run()
    assert "Block 0, mlp.gate_proj" in text_of(app)
    app.number_input(key="pl_rank").set_value(7).run()
    assert draft(app, card).ranks[card.layers[4].name] == 7 and draft(app, card).locked == (card.layers[4].name,)
    assert cell(heatmaps(app)[0], card.layers[4].name)[5] == "●"
    app.button(key="pl_spend").click().run()
    ranks = draft(app, card).ranks
    assert ranks[card.layers[4].name] == 7 and 0.69 < keep_ratio(card.layers, ranks) <= 0.7
    assert "no loss curve" in text_of(app)
    app.button(key="pl_undo").click().run()
    assert draft(app, card).ranks != ranks


@pytest.mark.parametrize("press", ["pl_spend", "pl_set_Dense", "pl_lock_0", "pl_lock_2"])
def test_a_press_before_the_page_is_drawn_anew_keeps_the_last_change(page, card, press):
    """The button that is pressed knows of the draft before, as when it is pressed while the page is being drawn."""
    app = page(rate="30")
    app.button(key="pl_set_Half its parameters").click().run()
    last = card.layers[-1].name
    changed = draft(app, card).with_rank(card, last, 3)
    app.session_state["pl_draft"] = {card.identity.fingerprint: changed}
    app.button(key=press).click().run()
    assert draft(app, card).ranks[last] == 3 and last in draft(app, card).locked


@pytest.mark.parametrize("press", ["pl_set_Half its parameters", "pl_set_Dense", "pl_lock_0", "pl_lock_2", "pl_spend"])
@pytest.mark.parametrize("rate", [20, 40])
def test_the_first_press_can_be_taken_back_too(page, card, press, rate):
    """To what a tab without a draft shows: the uniform rule at its own rate."""
    app = page(rate=str(rate))
    first = plan_draft.uniform_draft(card, 1 - rate / 100)
    app.button(key=press).click().run()
    assert not app.button(key="pl_undo").disabled
    app.button(key="pl_undo").click().run()
    assert draft(app, card).ranks == first.ranks and not draft(app, card).locked


def test_storage_changes_what_the_ranks_cost_and_undo_takes_it_back(page, card):
    app = page(rate="20")
    app.segmented_control(key="pl_storage").set_value("pivoted").run()
    assert draft(app, card).storage == "pivoted"
    assert keep_ratio(stored(card.layers, "pivoted"), draft(app, card).ranks) < 0.75
    app.button(key="pl_undo").click().run()
    assert draft(app, card).storage == "pair"


def test_a_draft_keeps_its_ranks_under_another_law(card):
    before = plan_draft.uniform_draft(card, 0.8)
    after = before.with_storage(card, "pivoted")
    assert (
        after.ranks == before.ranks
        and plan_draft.plan_of(after, card, 0.8).keep_achieved < plan_draft.plan_of(before, card, 0.8).keep_achieved
    )
    assert keep_ratio(after.stored(card).layers, after.spent(card, 0.8, None).ranks) > 0.79
    again = plan_draft.draft_of(plan_draft.plan_of(after, card, 0.8), card, "a file")
    assert again.storage == "pivoted" and plan_draft.plan_of(again, card, 0.8).to_dict()["storage"] == "pivoted"


def test_a_plan_over_its_budget_cannot_be_measured(page, card, submitted):
    app = page(rate="20")
    app.button(key="pl_set_Dense").click().run()
    assert "parameters too many" in app.get("progress")[0].proto.text
    assert app.button(key="pl_measure").disabled and "the budget" in text_of(app)


def test_measuring_submits_the_plan_and_saves_it(page, card, submitted):
    app = page(rate="20")
    app.text_input(key="pl_name").set_value("Steep middle").run()
    assert any(":material/schedule:" in caption.value for caption in app.caption), "its price is said first"
    app.button(key="pl_measure").click().run()
    spec = submitted[0][0]
    assert isinstance(spec, EvaluateSpec) and spec.plan["method"] == "hand"
    assert spec.plan["origin"]["hand"]["name"] == "Steep middle"
    plan = Plan.from_dict(dict(spec.plan))
    plan.check_model(card)
    assert plan.keep_achieved <= 0.8
    (saved,) = plans_home().rglob("steep-middle-20.json")
    assert json.loads(saved.read_text()) == spec.plan
    assert f"--plan {saved}" in text_of(app)


def test_spending_follows_the_two_sided_spectra_where_there_are_any(open_page, store, card):
    run = store.create(SpectraSpec(ModelRef("starter"), ("svd", "kfac")))
    (run.path / "card.json").write_text(json.dumps(card.to_dict()), encoding="utf-8")
    arrays = {
        f"{name}/{layer.name}": run_factory.sigma_of(layer, "whitened")
        for name in ("svd", "kfac")
        for layer in card.layers
    }
    np.savez(run.path / "spectra.npz", **arrays)
    run_factory.finish(run, {})
    app = open_page("plans")
    assert re.search(r"\(K-FAC, \d+ \w+, \d\d:\d\d\)", text_of(app)) and "estimate" in text_of(app)


def test_a_draft_belongs_to_its_tab_which_its_link_names(page, card):
    """A fresh browser opened with somebody else's locked layers: one file was every tab's."""
    app, first = page(), card.layers[0].name
    before = cell(heatmaps(app)[0], first)[3]
    app.button(key="pl_set_Half its parameters").click().run()
    assert cell(heatmaps(app)[0], first)[3] == pytest.approx(0.5, abs=0.03)
    named = app.query_params["pl_tab"]
    other = page()
    assert cell(heatmaps(other)[0], first)[3] == before
    other.button(key="pl_take_up").click().run()  # unless its owner asks for it
    assert cell(heatmaps(other)[0], first)[3] == pytest.approx(0.5, abs=0.03)
    assert other.query_params["pl_tab"] != named
    other.button(key="pl_set_Dense").click().run()
    again = page(pl_tab=named)
    assert cell(heatmaps(again)[0], first)[3] == pytest.approx(0.5, abs=0.03)


def test_old_and_hostile_names_of_drafts_do_no_harm(page, card, tmp_path):
    beginning = plan_draft.uniform_draft(card, 0.6)
    plan_draft.keep_draft(beginning, card, "ab12")
    folder = next(plans_home().glob("*/.draft-ab12.json"))
    folder.rename(folder.with_name(".draft.json"))  # as earlier versions wrote it
    found = plan_draft.newest_draft(card)
    assert found is not None and found[0].ranks == beginning.ranks
    plan_draft.keep_draft(beginning, card, "../../../x")
    assert not [path for path in tmp_path.rglob("*x*.json")]
    for number in range(plan_draft.MOST_DRAFTS + 3):
        plan_draft.keep_draft(beginning, card, f"{number:x}")
    assert len(list(folder.parent.glob(".draft*"))) == plan_draft.MOST_DRAFTS
    assert page(pl_tab="/etc/passwd").get("bidi_component")


def test_it_begins_with_a_recorded_plan(page, store, card):
    run = run_factory.allocate_run(store, card, keep=0.7)
    app = page(rate="25")
    options = app.selectbox(key="pl_start").options
    label = next(option for option in options if option.startswith("LLRC"))
    assert run.id in label and "25 %" in label
    app.selectbox(key="pl_start").set_value(str(run.path / "plans" / "25.json")).run()
    app.button(key="pl_begin").click().run()
    assert draft(app, card).ranks == run_factory.plan_at(card, 0.75).full_ranks(card.layers)


def test_a_plan_goes_out_and_comes_in_again(card):
    ranks = {**uniform_ranks(card.layers, 0.7), card.layers[0].name: 3}
    before = plan_draft.Draft("Mine", "the uniform rule", "whitened", ranks, (card.layers[0].name,))
    data = json.dumps(plan_draft.plan_of(before, card, 0.7).to_dict()).encode()
    after = plan_draft.imported(data, card, "mine.json")
    assert (after.ranks, after.locked, after.name) == (before.ranks, before.locked, "Mine")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "not JSON"), (b"[]", "not a plan"), (b"\xff\xfe", "not JSON")],
)
def test_what_is_no_plan_is_refused_in_words(card, content, message):
    with pytest.raises(PlanError, match=message):
        plan_draft.imported(content, card, "file.json")


def test_plans_of_other_models_and_pruned_ones_are_refused(card):
    other = run_factory.plan_at(run_factory.make_card("/other"), 0.8)
    with pytest.raises(PlanError, match="was made for"):
        plan_draft.imported(json.dumps(other.to_dict()).encode(), card, "other.json")
    pruned = run_factory.pruned_plan_at(card, 0.8)
    with pytest.raises(PlanError, match=r"structure\.safetensors"):
        plan_draft.imported(json.dumps(pruned.to_dict()).encode(), card, "pruned.json")


def measured(store, card, value: float, name: str = "", method: str = "llrc", stderr: float | None = 0.1):
    """A finished evaluation at 20 %."""
    plan = {
        **run_factory.plan_at(card, 0.8).to_dict(),
        "method": method,
        "origin": {"hand": {"name": name}, "v": value},
    }
    run = store.create(EvaluateSpec(model=ModelRef("starter"), plan=plan, evaluation=EvaluationSpec()))
    row = {**table_factory.row("llrc", 0.8, run_id=run.id), "method": method}
    row["perplexity"] = {text: {"value": value, "stderr": stderr} for text in ("gensim", "c4")}
    return run_factory.finish(run, row)


def test_the_score_list_says_who_wins_and_whether_it_is_sure(page, store, card):
    machine = measured(store, card, 30.0)
    mine = measured(store, card, 28.0, "Steep middle", "hand")
    app = page()
    table = app.dataframe[-1].value
    assert list(table["who"]) == ["You · Steep middle", "LLRC"] and list(table["run"]) == [mine.id, machine.id]
    assert "You beat" in text_of(app)
    measured(store, card, 27.95, method="strs")
    assert "a draw" in text_of(page())


def test_nobody_wins_by_a_difference_whose_error_is_not_known(store, card):
    measured(store, card, 30.0, stderr=None)
    measured(store, card, 29.9, "Mine", "hand", stderr=None)
    assert "a draw" in plan_scores.verdict(plan_scores.update(ModelRef("starter")))


def test_a_score_outlives_its_run(page, store, card):
    run = measured(store, card, 28.0, "Kept", "hand")
    page()
    assert (plans_home() / plan_scores.FILE).is_file()
    shutil.rmtree(run.path)
    assert "You · Kept" in list(page().dataframe[-1].value["who"])


def test_only_equal_measurements_at_this_budget_compare(store, card):
    measured(store, card, 28.0, "Mine", "hand")
    scores = plan_scores.update(ModelRef("starter"))
    assert len(plan_scores.comparable(scores, 0.8, EvaluationSpec(tasks=("piqa",)))) == 1, "tasks change no perplexity"
    assert not plan_scores.comparable(scores, 0.7, EvaluationSpec())
    assert not plan_scores.comparable(scores, 0.8, EvaluationSpec(max_windows=10))
    over = [replace(score, keep_achieved=0.801) for score in scores]
    assert not plan_scores.comparable(over, 0.8, EvaluationSpec()), "a plan above the budget does not count"


def test_windows_are_compared_in_pairs_where_both_kept_them(store, card):
    runs = measured(store, card, 30.0), measured(store, card, 29.9, "Mine", "hand", stderr=5.0)
    for number, run in enumerate(runs):
        losses = [100.0 + window - 0.4 * number + 0.01 * (window % 3) * number for window in range(20)]
        windows = {"losses": losses, "tokens": [50] * 20, "digest": "same"}
        content = {"windows": {"gensim": windows, "c4": windows}}
        (run.path / "scores.json").write_text(json.dumps(content), encoding="utf-8")
    scores = plan_scores.comparable(plan_scores.update(ModelRef("starter")), 0.8, EvaluationSpec())
    assert "You beat" in plan_scores.verdict(scores) and "paired" in plan_scores.verdict(scores)


def test_a_model_of_which_only_the_headers_are_known_cannot_be_measured(open_page, store, card):
    from dataclasses import replace

    header = replace(card, identity=replace(card.identity, fingerprint="header-123"))
    run_factory.spectra_run(store, header)
    app = open_page("plans")
    assert app.button(key="pl_measure").disabled and "Only the headers" in text_of(app)


def test_sizes_are_those_of_serving_whatever_was_loaded(card):
    """Loaded in 32 bits by a processor, every size on the page doubled."""
    half, loaded = replace(card, dtype="bfloat16", dtype_bytes=2), replace(card, dtype="float32", dtype_bytes=4)
    assert figures(half)["size"] == figures(loaded)["size"]
    assert footprint(served(loaded), None, 100) == footprint(half, None, 100)
    byte = replace(card, dtype="q8", dtype_bytes=1)
    assert served(byte) is byte


def test_a_folder_of_another_project_is_imported(page, store, submitted, tmp_path):
    app = page()
    assert app.button(key="pl_folder_start").disabled
    app.text_input(key="pl_folder").set_value(f"{tmp_path}/a/../theirs").run()
    assert any(code.value.startswith("lrc import") and str(tmp_path / "theirs") in code.value for code in app.code)
    app.button(key="pl_folder_start").click().run()
    spec = submitted[0][0]
    assert spec == AdoptSpec(spec.model, str(tmp_path / "theirs"))
    assert any(button.key == f"cancel_{spec.run_id}" for button in app.button)
    run_factory.finish(store.open(spec.run_id), {"details": {"layers": 7, "project": "ASVD"}})
    app.run()
    assert "7 layers of ASVD" in text_of(app)


def test_a_folder_is_imported_before_the_model_is_read(open_page, submitted, tmp_path):
    app = open_page("plans")
    app.text_input(key="pl_folder").set_value(str(tmp_path)).run()
    app.button(key="pl_folder_start").click().run()
    assert submitted[0][0].folder == str(tmp_path)


def test_a_visitor_imports_from_named_folders_only_and_a_guest_nothing(page, store, monkeypatch, tmp_path):
    monkeypatch.setattr(visitors, "_who", lambda: "a" * 32)
    app = page()
    app.text_input(key="pl_folder").set_value(str(tmp_path)).run()
    app.button(key="pl_folder_start").click().run()
    assert app.error and not [run for run in store.list() if run.kind == "adopt"]
    monkeypatch.setenv("LRC_READ_ONLY", "1")
    app = page()
    assert "lrc import FOLDER starter" in text_of(app)
    assert "pl_folder_start" not in [button.key for button in app.button]


def test_a_model_that_has_changed_is_told(open_page, known, monkeypatch):
    assert "whatever" not in text_of(open_page("plans"))
    monkeypatch.setattr("pages.ui.shared.jobs.changed", lambda spec: ("the model whatever has changed",))
    assert "whatever" in text_of(open_page("plans"))

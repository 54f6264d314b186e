"""Home: the picture, the card, the picker with its pre-flight."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lrc_core.budget import LAWS, whole_percent
from lrc_core.errors import ModelError
from lrc_core.jobs import manager
from lrc_core.models import consent
from lrc_core.models.pack.starter import PartStatus
from lrc_core.names import method_label, model_label
from lrc_core.paths import runs_home
from lrc_core.plan import split_variant
from lrc_core.results import comparisons
from lrc_core.results.answers import NOTHING
from lrc_core.results.archive import archive
from lrc_core.runs.spec import GenerateSpec, ModelRef, SpectraSpec
from lrc_core.runs.transcript import read_answers
from pages.ui.home import size_slider
from pages.ui.shared import cards, state
from tests.factories import run_factory, table_factory
from tests.pages.conftest import text_of


def test_it_stands_without_any_run(open_page):
    text = text_of(open_page())
    assert "Not fetched yet" in text
    assert "will be here" in text


def test_a_first_job_under_way_is_shown_beside_its_button(open_page, store, card):
    run = run_factory.spectra_run(store, card, done=False)
    app = open_page()
    assert "Not fetched yet" not in text_of(app)
    assert any(f"ru_run={run.id}" in link.proto.query_string for link in app.get("page_link"))


def test_the_first_screen_leads_to_the_film(open_page, samples, card):
    run_factory.spectra_run(samples, card)
    table_factory.compare_run(samples, card)
    ways = [link.proto.label for link in open_page().get("page_link") if link.proto.page == "watch"]
    assert max(map(ways.count, ways)) == 2, "the same words beside the first figures and among the ways in"


def test_three_sentences(open_page):
    first = open_page().markdown
    intro = next(element.value for element in first if element.value.startswith("Every linear layer"))
    assert intro.count(". ") + 1 == 3


def test_the_sample_is_shown_and_labelled(open_page, samples, card):
    run = run_factory.spectra_run(samples, card)
    text = text_of(open_page())
    assert "Sample" in text and run.id in text
    assert "SmolLM2-135M" in text and "LlamaForCausalLM" in text


def test_the_users_run_takes_the_place_of_the_sample(open_page, samples, store, card):
    run_factory.spectra_run(samples, card)
    run_factory.spectra_run(store, card)
    assert "badge[:material/inventory_2: Sample]" not in text_of(open_page())


def test_another_model_has_no_sample_card_but_still_a_picture(open_page, samples, card):
    run_factory.spectra_run(samples, card)
    text = text_of(open_page(model="owner/other"))
    assert "Not fetched yet" in text
    assert "90 % of" in text


def test_three_ways_in_lead_to_every_page(open_page, samples, card):
    run_factory.spectra_run(samples, card)
    app = open_page()
    text = text_of(app)
    assert all(f" {way}" in text for way in ("Explore", "Teach", "Convince"))
    linked = {link.proto.page for link in app.get("page_link")}
    assert linked >= {"spectra", "allocate", "watch", "plans", "runs", "learn", "present", "compare", "talk"}
    asked = {part for link in app.get("page_link") for part in link.proto.query_string.split("&")}
    assert {"learn_step=1", "learn_step=7", "model=starter"} <= asked


@pytest.mark.parametrize("method", ["llrc", "lagrangian"])
def test_what_to_do_next_follows_from_what_is_there(open_page, store, samples, card, method):
    run_factory.spectra_run(samples, card)
    app = open_page()
    assert "computed on this" in text_of(app)
    assert app.button(key="start_spectra").label
    run_factory.spectra_run(store, card)
    assert "find the ranks" in text_of(open_page())
    run_factory.allocate_run(store, card, keep=0.7, method=method)
    assert "the other methods" in text_of(open_page())
    table_factory.compare_run(store, card)
    assert "Present the result" in text_of(open_page())


def test_spectra_are_not_said_to_be_here_where_only_ranks_were_computed(open_page, store, card):
    run_factory.allocate_run(store, card, keep=0.8, method="uniform")
    assert "spectra are here" not in text_of(open_page())
    run_factory.spectra_run(store, card)
    assert "spectra are here" in text_of(open_page())


def test_preflight_then_fetch(open_page, submitted):
    app = open_page()
    app.button(key="home_check").click().run()
    assert "134.5 M" in text_of(app) and "≈ 1.5 GB" in text_of(app)
    app.button(key="home_start").click().run()
    assert [spec for spec, _ in submitted] == [SpectraSpec()]
    assert "Waiting" in str([badge.value for badge in app.get("markdown")])


def test_problems_are_said_before_anything_is_fetched(open_page, report):
    report.update(problems=("The config names no decoder blocks.",), warnings=("Memory is short.",))
    app = open_page()
    app.button(key="home_check").click().run()
    assert "no decoder blocks" in text_of(app)
    assert "Memory is short" in text_of(app)


def test_an_unknown_model_is_an_error_in_words(open_page, monkeypatch):
    def refuse(ref):
        raise ModelError(f"There is no model {ref.source}.", "Check the spelling.")

    monkeypatch.setattr(cards, "preflight", refuse)
    app = open_page(model="owner/nothing")
    app.button(key="home_check").click().run()
    assert "no model owner/nothing" in text_of(app)
    assert "Check the spelling." in text_of(app)


def test_a_model_that_is_not_there_is_not_taken(open_page, report, submitted, monkeypatch):
    report.update(exists=False, problems=("There is no folder or file /nonsense.",))
    app = open_page(model="/nonsense")
    remembered = state.settings_path().exists()
    for key in ("home_use", "home_start"):
        app.button(key=key).click().run()
        assert any("/nonsense" in error.value for error in app.error)
    assert not submitted and state.settings_path().exists() == remembered


def test_the_picture_says_whose_it_is(open_page, samples, card):
    run_factory.spectra_run(samples, card)
    assert "this is SmolLM2-135M" in text_of(open_page(model="owner/other"))
    assert "this is SmolLM2-135M" not in text_of(open_page())


def test_the_token_goes_into_the_jobs_environment_and_nowhere_else(open_page, submitted):
    app = open_page(model="owner/gated", revision="abc")
    app.text_input(key="home_hub_token").set_value("hf_secret_value")
    app.button(key="home_start").click().run()
    spec, env = submitted[0]
    assert env == {"HF_TOKEN": "hf_secret_value"}
    assert (spec.model.source, spec.model.revision) == ("owner/gated", "abc")
    written = [path.read_bytes() for path in runs_home().rglob("*") if path.is_file()]
    assert written and not any(b"hf_secret_value" in content for content in written)
    assert "hf_secret_value" not in str(dict(app.query_params))


def test_the_choice_is_remembered(open_page, submitted):
    app = open_page(model="owner/other")
    app.button(key="home_use").click().run()
    assert json.loads(state.settings_path().read_text())["model"] == {"source": "owner/other", "revision": ""}
    again = open_page()
    assert again.query_params["model"] == "owner/other"


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("given", "link", "trusted"),
    [
        (f"owner/other@{COMMIT}", {"model": "owner/other", "revision": COMMIT}, True),
        (f"owner/first@{COMMIT}, owner/other@{COMMIT}", {"model": "owner/other", "revision": COMMIT}, True),
        (f"owner/other@{COMMIT}", {"model": "owner/other", "revision": "refs/pr/7"}, False),
        (f"owner/other@{COMMIT}", {"model": "owner/other"}, False),
        ("owner/other", {"model": "owner/other", "revision": "refs/pr/7"}, False),
        (f"owner/other@{COMMIT}", {"model": "owner/stranger", "revision": COMMIT}, False),
        ("", {"model": "owner/other", "revision": COMMIT, "trust_remote_code": "true"}, False),
    ],
)
def test_consent_is_the_servers_for_one_source_at_one_revision(open_page, submitted, monkeypatch, given, link, trusted):
    old = {"consents": {"owner/other": {"trust_remote_code": True, "allow_pickle": True}}}
    state.settings_path().parent.mkdir(parents=True, exist_ok=True)
    state.settings_path().write_text(json.dumps(old))  # what a visitor ticked in former versions
    for name in (consent.TRUST_REMOTE_CODE, consent.ALLOW_PICKLE):
        monkeypatch.setenv(name, given)
    app = open_page(**link)
    assert not app.checkbox, "a visitor has nothing to tick"
    app.button(key="home_start").click().run()
    model = submitted[0][0].model
    assert (model.trust_remote_code, model.allow_pickle) == (trusted, trusted)


@pytest.mark.parametrize(
    ("link", "entry"),
    [
        ({"model": "owner/other"}, "owner/other@COMMIT"),
        ({"model": "owner/other", "revision": "main"}, "owner/other@COMMIT"),
        ({"model": "owner/other", "revision": COMMIT}, f"owner/other@{COMMIT}"),
        ({"model": "/srv/models/mine"}, "/srv/models/mine"),
    ],
)
def test_the_consent_that_is_shown_would_be_taken(open_page, link, entry):
    lines = [code.value for code in open_page(**link).code]
    assert f"{consent.TRUST_REMOTE_CODE}={entry} make app" in lines


@pytest.mark.parametrize("name", ["/srv/models/there", "/srv/models/gone", "~/x", "../y", "/" + "b" * 300, "a" * 390])
def test_a_models_label_does_not_depend_on_the_disk(open_page, monkeypatch, name):
    expected = model_label(ModelRef(name))
    assert len(expected) <= 60
    for answer in (True, False):
        monkeypatch.setattr(Path, "exists", lambda _path, answer=answer: answer)
        assert model_label(ModelRef(name)) == expected
    monkeypatch.undo()
    assert "not be drawn" not in text_of(open_page(model=name))


def test_a_failed_fetch_says_why_and_offers_to_resume(open_page, store, card):
    run = run_factory.spectra_run(store, card, done=False)
    run_factory.set_state(run, "failed", error="The download was cut off.", remedy="Resume the run.")
    app = open_page()
    assert run.status().error in text_of(app)
    assert app.button(key=f"resume_{run.id}").label == "Resume"


def test_starting_again_goes_on_with_the_job_that_stopped_and_hands_the_new_token_on(
    open_page, store, submitted, monkeypatch
):
    run = store.create(SpectraSpec(model=ModelRef("owner/gated")))
    run_factory.set_state(run, "failed", error="This model is gated.", remedy="Give a token.")
    asked = []

    def resume(run_id, *, env=None, on=None):
        asked.append((run_id, env))
        return run

    monkeypatch.setattr(manager, "resume", resume)
    app = open_page(model="owner/gated")
    app.text_input(key="home_hub_token").set_value("hf_new")
    app.button(key="home_start").click().run()
    assert asked == [(run.id, {"HF_TOKEN": "hf_new"})]


def test_damaged_settings_file_is_no_obstacle(open_page):
    state.settings_path().parent.mkdir(parents=True)
    state.settings_path().write_text("{half")
    assert "Low-rank compression explorer" in text_of(open_page())


def test_the_first_thing_is_a_slider_over_what_was_measured(open_page, samples, card):
    """Texts, sizes and losses of every stop are those of the rows; without texts there is no slider."""
    run_factory.spectra_run(samples, card)
    assert all(part.proto.component_name != "lrc_live" for part in open_page().get("bidi_component"))
    table_factory.compare_run(samples, card, keeps=(0.9, 0.8))
    app = open_page()
    first = app.get("bidi_component")[0].proto
    assert first.component_name == "lrc_live"
    data = json.loads(first.json)
    assert [stop["rate"] for stop in data["stops"]] == [0, 10, 20] and data["start"] == 2
    dense = table_factory.row("dense", 1.0)["perplexity"]["gensim"]["value"]
    (prompt,) = data["prompts"]
    for stop, texts in zip(data["stops"][1:], prompt["texts"][1:], strict=True):
        for model, text, method in zip(stop["models"], texts, ("llrc", "uniform"), strict=True):
            row = table_factory.row(method, 1 - stop["rate"] / 100)
            assert model["factor"] == pytest.approx(row["perplexity"]["gensim"]["value"] / dense)
            assert row["sample"]["text"].strip() in text and "±" in model["said"]
    assert {model["name"] for model in data["stops"][0]["models"]} == {"Dense model"}


@pytest.mark.parametrize("storage", list(LAWS))
@pytest.mark.parametrize("decomposition", ["whitened", "kfac"])
def test_the_baseline_is_found_however_its_layers_are_stored(samples, card, storage, decomposition):
    table_factory.compare_run(samples, card, storage=storage, decomposition=decomposition)
    stops = size_slider.shown_rows(comparisons.groups(ModelRef())[0])
    assert [split_variant(even["method"]) for _, even in stops[1:]] == [("uniform", "", storage)] * 2


def test_the_slider_tells_of_the_best_that_was_measured_at_each_size():
    """Whatever its method and decomposition: what was measured at one size alone is the best of that size."""
    base = {keep: table_factory.row("llrc", keep) for keep in (0.9, 0.8)}
    even = {keep: table_factory.row("uniform", keep) for keep in (0.9, 0.8)}

    def better(row, name, factor):
        scores = {text: {**score, "value": score["value"] * factor} for text, score in row["perplexity"].items()}
        return {**row, "method": name, "decomposition": "kfac", "perplexity": scores}

    rows = (
        table_factory.row("dense", 1.0), *base.values(), *even.values(),
        *(better(row, "lagrangian+pivoted", 0.9) for row in base.values()),
        better(base[0.8], "lagrangian+tuned+pivoted", 0.5),
    )  # fmt: skip
    group = comparisons.Group(table_factory.EVALUATION, rows, 0, (), ())
    found = size_slider.payload(group, [])["stops"]
    assert [stop["rate"] for stop in found] == [0, 10, 20]
    names = ["lagrangian+pivoted", "lagrangian+tuned+pivoted"]
    assert [stop["models"][0]["name"] for stop in found[1:]] == list(map(method_label, names))
    fitted = {**better(rows[1], "lagrangian+tuned+pivoted", 0.1), "update": "tuned"}
    beyond = comparisons.Group(table_factory.EVALUATION, (*rows, fitted), 0, (), ())
    said = [stop["models"][0]["said"] for stop in size_slider.payload(beyond, [])["stops"]]
    assert ["fitted" in one for one in said] == [False, True, False], "why it is better than the dense model"
    alone = comparisons.Group(table_factory.EVALUATION, (rows[0], *even.values()), 0, (), ())
    assert len(size_slider.shown_rows(alone)) == 1, "nothing better than the baseline"
    lonely = comparisons.Group(table_factory.EVALUATION, tuple(row for row in rows if row is not even[0.9]), 0, (), ())
    stop = size_slider.payload(lonely, [])["stops"][1]
    assert stop["rate"] == 10 and [bool(model["factor"]) for model in stop["models"]] == [True, False]
    assert "±" not in stop["models"][1]["said"]


@pytest.mark.parametrize("together", [True, False])
def test_a_question_that_both_sides_answered_comes_first(store, card, together):
    """Whether one run asked both sides or two runs one side each; what was drawn in another way is no part of it."""
    run_of = {"llrc": "allocate-aaaaaaaaaaaa", "uniform": "allocate-bbbbbbbbbbbb"}
    rows = [table_factory.row("dense", 1.0)]
    rows += [table_factory.row(method, 0.8, allocate_run_id=run) for method, run in run_of.items()]
    group = comparisons.Group(table_factory.EVALUATION, tuple(rows), 0, (), ())

    dense, llrc, uniform = ("", 1.0), *((run, 0.8) for run in run_of.values())
    said = {dense: "dense says", llrc: "llrc says", uniform: "", (run_of["llrc"], 0.9): "llrc of another size"}
    for names in [(dense, llrc, uniform)] if together else [(dense, llrc), (uniform,)]:
        run_factory.question_run(store, {name: said[name] for name in names})
    run_factory.question_run(store, {uniform: "another draw"}, temperature=0.9)
    run_factory.question_run(store, {(run_of["llrc"], 0.9): said[run_of["llrc"], 0.9]})
    run_factory.question_run(store, dict.fromkeys(said, "a secret"), prompt="Who?", blind=True)
    first, second = size_slider.payload(group, archive().runs(GenerateSpec, ModelRef()))["prompts"]
    assert first["prompt"] == "Why?" and second["goes_on"]
    (whole, also), (left, right) = first["texts"]
    assert (whole, also, left) == ("dense says", "dense says", "llrc says")
    assert "nothing" in right, "a text that ended at once is an answer"


def test_the_slider_shows_what_shipped_plans_answered_to_questions(monkeypatch):
    """Every figure of what ships: a prompt stands in the list where the plans of all sizes answered it."""
    monkeypatch.delenv("LRC_SAMPLES")
    group = next(group for group in comparisons.groups(ModelRef()) if group.tells)
    asked = archive().runs(GenerateSpec, ModelRef())
    data = size_slider.payload(group, asked)
    assert [stop["rate"] for stop in data["stops"]] == [0, *(whole_percent(keep) for keep in group.sizes)]
    assert all(model["factor"] for stop in data["stops"] for model in stop["models"]), "both sides at every size"
    first, *others = data["prompts"]
    assert not first["goes_on"] and all(left and right for left, right in first["texts"])
    assert [prompt["goes_on"] for prompt in others].count(True) == 1
    written = {" ".join(answer.text.split()) for view in asked for answer in read_answers(view.run).values()}
    for prompt in data["prompts"]:
        shown = [text.removesuffix(" …") for pair in prompt["texts"] for text in pair if text]
        shown = [text for text in shown if text != f"({NOTHING})"]
        assert prompt["goes_on"] or all(any(whole.startswith(text) for whole in written) for text in shown)


@pytest.mark.parametrize("present", [True, False])
def test_a_download_is_announced_only_where_there_is_one(open_page, monkeypatch, present):
    part = PartStatus("model", "starter model", present, 541_600_000, 92_900_000, "", "")
    monkeypatch.setattr(cards, "pack_status", lambda: (part,))
    app = open_page("home")
    said = next(caption.value for caption in app.caption if "starter pack" in caption.value)
    assert ("92.9 MB to download" in said) is not present
    assert ("541.6 MB" in said) is present


@pytest.mark.parametrize("lies", [True, False])
def test_a_hub_model_that_lies_here_is_not_fetched(open_page, monkeypatch, lies):
    cards._cached.clear()
    monkeypatch.setattr("lrc_core.models.hub.cached_snapshot", lambda ref: Path("/hub") if lies else None)
    app = open_page("home", model="somebody/model")
    assert ("Fetch" in app.button(key="home_start").label) is not lies

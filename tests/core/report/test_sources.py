"""What a report is made of: what is taken unasked, what may be asked for, and errors that name the remedy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lrc_core.errors import LrcError, PlanError, RunError, SettingsError
from lrc_core.files import write_json
from lrc_core.quality.footprint import footprint
from lrc_core.quality.votes import Vote, keep_vote, votes_path
from lrc_core.report.build import ReportOptions, make_report
from lrc_core.report.content import visible_texts
from lrc_core.report.pdf.document import report_pdf
from lrc_core.report.sources import Asked, find_sources
from lrc_core.results.archive import archive
from lrc_core.runs.spec import CompareSpec, EvaluateSpec
from lrc_core.types import ModelCard
from tests.factories import run_factory, table_factory
from tests.factories.pdf_reader import Pdf
from tests.factories.report_reader import Make, looked_up
from tests.samples import BEST, COMPARISON


def test_default_is_the_newest_finished_comparison(make: Make, stores: Any, card: ModelCard) -> None:
    shipped = table_factory.compare_run(stores[1], card, keeps=(0.7,))
    assert make().source == shipped.id, "the samples where the user has none"
    assert "shipped" in make().subtitle
    own = table_factory.compare_run(stores[0], card)
    table_factory.compare_run(stores[0], card, keeps=(0.5,), done=False)
    assert make().source == own.id, "what is not finished does not count"
    status = own.status()
    own.write_status(replace(status, created_at=1.0))
    bench = table_factory.quality_run(stores[0], card)
    assert make().source == bench.id
    assert make(model="starter").source == bench.id
    with pytest.raises(RunError, match="nothing to report"):
        make(model="owner/other")


def test_unasked_it_is_of_all_that_measured_like_the_newest(make: Make, stores: Any, card: ModelCard) -> None:
    """As Compare shows them: what a plan is worth is seen beside the others of its size."""
    table_factory.compare_run(stores[1], card, methods=("uniform",))
    elsewhere = replace(table_factory.EVALUATION, window=64)
    table_factory.compare_run(stores[0], card, methods=("llrc",), evaluation=elsewhere)
    own = table_factory.compare_run(stores[0], card, methods=("strs",))
    made = make()
    assert made.source == own.id
    assert {method.label for method in made.methods} == {"STRS", "Uniform"}


def test_a_difference_is_paired_where_windows_are_kept(make: Make, stores: Any, card: ModelCard) -> None:
    """As slides and Compare have it: errors over all text hide what every window shows."""
    run = table_factory.compare_run(stores[0], card, methods=("llrc", "llm_pruner"), keeps=(0.8,))
    unpaired = " ".join(visible_texts(make()))
    for number, row in enumerate((run.result() or {})["rows"][1:]):
        losses = [100.0 + 30 * (window % 3) + number * (2 + window / 50) for window in range(20)]
        kept = {"losses": losses, "tokens": [50] * 20, "bytes": [200] * 20, "digest": "alike"}
        folder = stores[0].open(row["run_id"]).path
        write_json(folder / "scores.json", {"windows": dict.fromkeys(("gensim", "c4"), kept), "tasks": {}})
    paired = " ".join(visible_texts(make()))
    assert "paired over" not in unpaired and "paired over" in paired


def test_without_a_comparison_plans_are_shown_and_nothing_is_claimed(make: Make, stores: Any, card: ModelCard) -> None:
    run = run_factory.allocate_run(stores[0], card, keep=0.7)
    made = make()
    assert made.source == run.id
    text = " ".join(visible_texts(made))
    assert "Nothing was measured" in text and "plans only" in made.subtitle
    named = make(plans=(f"{run.id}@15", run.id))
    assert [choice.label for choice in named.targets] == ["15 %", "30 %"]
    assert named.methods[0].label == "LLRC"
    assert len(Pdf(report_pdf(named)).pages) >= 2


def test_bad_input_is_named(make: Make, stores: Any, card: ModelCard) -> None:
    own = stores[0]
    finished = table_factory.compare_run(own, card)
    running = table_factory.compare_run(own, card, keeps=(0.5,), done=False)
    spectra = run_factory.spectra_run(own, card)
    other = run_factory.allocate_run(own, run_factory.make_card("owner/other", blocks=3), keep=0.8)
    for error, words, asked in (
        (RunError, "no run compare-0", {"compare": ("compare-0",)}),
        (RunError, "not finished", {"compare": (running.id,)}),
        (RunError, "compares nothing", {"compare": (spectra.id,)}),
        (RunError, "holds no answers", {"answers": (spectra.id,)}),
        (RunError, "not about owner/x", {"compare": (finished.id,), "model": "owner/x"}),
        (PlanError, "no plan file and no run", {"plans": ("nothing",)}),
        (LrcError, "owner/other", {"compare": (finished.id,), "plans": (other.id,)}),
    ):
        with pytest.raises(error, match=words):
            make(**asked)
    for frame in (
        ReportOptions(keep=1.5),
        ReportOptions(price=-1),
        ReportOptions(context=-5),
        ReportOptions(sequences=0),
    ):
        with pytest.raises(SettingsError):
            make(frame, compare=(finished.id,))


def test_blind_answers_stay_sealed_until_somebody_voted(make: Make, stores: Any, card: ModelCard) -> None:
    comparison = table_factory.compare_run(stores[0], card)
    run = run_factory.generate_run(stores[0], card, blind=True)
    sealed = make(compare=(comparison.id,))
    assert run.id not in " ".join(visible_texts(sealed)) and "vote" in " ".join(visible_texts(sealed))
    assert "lrc generate starter" in " ".join(visible_texts(sealed)), "it says how to record some"
    with pytest.raises(RunError, match="blind"):
        make(compare=(comparison.id,), answers=(run.id,))
    keep_vote(votes_path(stores[0].root), Vote(1.0, run.id, "starter", "?", ("dense",), "dense", 0))
    assert run.id in " ".join(visible_texts(make(compare=(comparison.id,))))


def test_deleted_plans_are_reported_not_dropped(make: Make, stores: Any, card: ModelCard) -> None:
    run = table_factory.compare_run(stores[0], card)
    gone = find_sources(Asked(compare=(run.id,)), looked_up(stores)).plans[-1]
    stores[0].delete(gone.source)
    text = " ".join(visible_texts(make(compare=(run.id,))))
    assert f"deleted: {gone.label}" in text


def test_figures_are_those_of_the_evaluations_that_rows_name() -> None:
    """The dense model of a shipped comparison was measured again since its row was copied there."""
    found = archive()
    checked = 0
    for view in found.runs(CompareSpec):
        for row in find_sources(Asked(compare=(view.id,))).rows:
            evaluation = found.open(str(row["run_id"]), EvaluateSpec)
            assert evaluation is not None
            recorded = evaluation.run.result() or {}
            assert row["perplexity"] == recorded["perplexity"] and row["zero_shot"] == recorded["zero_shot"]
            checked += 1
    assert checked > 10


def test_memory_is_counted_as_served_whatever_precision_a_run_loaded(make: Make, stores: Any, card: ModelCard) -> None:
    wide = replace(card, dtype="float32", dtype_bytes=4)
    assert footprint(wide, None, 128) == footprint(replace(card, dtype="bfloat16", dtype_bytes=2), None, 128)


@pytest.mark.parametrize(("spec", "alike"), [(COMPARISON, True), (BEST, False)])
def test_what_methods_have_in_common_is_said_of_these_rows(spec: CompareSpec, alike: bool) -> None:
    text = " ".join(visible_texts(make_report(Asked(compare=(spec.run_id,)))))
    assert ("differ only in" in text) is alike and ("one method" in text) is not alike


def test_several_comparisons_are_reported_as_one_and_the_first_counts(make: Make, stores: Any, card: ModelCard) -> None:
    one = table_factory.compare_run(stores[0], card, methods=("uniform", "llrc"))
    other = table_factory.compare_run(stores[0], card, methods=("llrc", "strs"), keeps=(0.8, 0.7))
    lone = table_factory.evaluate_run(stores[0], card, "llrc", 0.6)
    whole = find_sources(Asked(compare=(one.id, other.id, lone.id)), looked_up(stores))
    cells = [(row["method"], row["keep_target"]) for row in whole.rows]
    assert len(set(cells)) == len(cells) == 1 + 4 + 3 + 1, "one dense model, and the cell of both once"
    shared = next(row for row in whole.rows if (row["method"], row["keep_target"]) == ("llrc", 0.8))
    assert shared["run_id"] in [row["run_id"] for row in (one.result() or {})["rows"]]
    text = " ".join(visible_texts(make(compare=(one.id, other.id, lone.id))))
    for run in (one, other, lone):
        assert text.count(run.id) >= 2, "in the command and among the runs"
    backwards = find_sources(Asked(compare=(lone.id, other.id, one.id, other.id)), looked_up(stores))
    assert sorted((row["method"], row["keep_target"]) for row in backwards.rows) == sorted(cells)
    assert backwards.baselines == whole.baselines == ("uniform", "strs")


def test_what_was_measured_otherwise_does_not_stand_beside(make: Make, stores: Any, card: ModelCard) -> None:
    one = table_factory.compare_run(stores[0], card)
    shorter = replace(table_factory.EVALUATION, window=64)
    other = table_factory.evaluate_run(stores[0], card, "llrc", 0.6, evaluation=shorter)
    with pytest.raises(RunError, match=f"{other.id}.*{one.id}.*windows"):
        make(compare=(one.id, other.id))

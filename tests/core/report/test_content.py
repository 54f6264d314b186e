"""What a report says: its tables, its names, and numbers rounded to what their errors allow."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lrc_core import words as numbers
from lrc_core.quality.decision_words import BESIDE, decision_words
from lrc_core.quality.paired import log_perplexity
from lrc_core.quality.rows import Scores
from lrc_core.report.build import make_report
from lrc_core.report.content import Commands, Table, Words, visible_texts
from lrc_core.report.html.page import report_html
from lrc_core.report.pdf.document import report_pdf
from lrc_core.report.sections import prose
from lrc_core.report.sections.allocation import _ranks
from lrc_core.report.sections.rows import Named, certainty
from lrc_core.report.sources import Asked, ReportPlan, find_sources
from lrc_core.runs.spec import AnswerSpec, GenerateSpec, ModelRef, QualitySpec, UpdateSpec
from lrc_core.types import ModelCard
from lrc_core.words import data_size
from tests.factories import run_factory, table_factory
from tests.factories.pdf_reader import Pdf
from tests.factories.report_reader import Make, Page, looked_up, said, table_of


def test_failed_and_missing_cells_stand_in_the_tables(make: Make, stores: Any, card: ModelCard) -> None:
    failed = make(compare=(table_factory.quality_run(stores[0], card).id,))
    lines = table_of(failed, "Size and perplexity").lines
    assert [line.state for line in lines].count("failed") == 1
    cell = next(line for line in lines if line.state == "failed")
    assert cell.cells[0].text == "STRS"
    assert "Keeping 0.6" in cell.cells[2].text
    lacking = make(compare=(table_factory.compare_run(stores[0], card, skip=(("strs", 0.8),)).id,))
    line = next(line for line in table_of(lacking, "Size and perplexity").lines if line.state == "missing")
    assert [cell.text for cell in line.cells[:3]] == ["STRS", "20", "Not measured"]
    for drawn in (report_html(lacking), Pdf(report_pdf(lacking)).text()):
        assert "Not measured" in drawn


def test_how_sure_a_difference_is_comes_from_the_very_two_rows(tmp_path: Path) -> None:
    """A bench tests against the baseline under the same decomposition, which need not be the one that comes next."""
    losses = {"llrc": [300.0, 200.0, 100.0, 250.0], "uniform": [301.0, 199.0, 101.0, 250.0]}
    for name, found in losses.items():
        (tmp_path / name).mkdir()
        windows = {"gensim": {"losses": found, "tokens": [100] * 4, "digest": "x"}}
        (tmp_path / name / "scores.json").write_text(json.dumps({"windows": windows}))
    recorded = {"uniform": {"perplexity": {"gensim": {"p": 1e-9}}}}
    first = {**table_factory.row("llrc", 0.8, run_id="llrc"), "decomposition": "kfac", "paired": recorded}
    second = table_factory.row("uniform", 0.8, run_id="uniform")
    named: Any = SimpleNamespace(
        texts=["gensim"], text=str, line=lambda row: row["method"],
        sources=SimpleNamespace(baselines=("uniform",), scores=lambda: Scores(tmp_path)),
    )  # fmt: skip
    p = log_perplexity(losses["llrc"], losses["uniform"], [100] * 4).p
    assert prose.p_words(p) in certainty(first, second, named)
    for name in losses:
        (tmp_path / name / "scores.json").unlink()
    assert prose.p_words(1e-9) in certainty(first, second, named), "the recorded test, where no window is left"


def test_what_prunes_structure_is_one_cell_under_no_decomposition(stores: Any, card: ModelCard) -> None:
    run_factory.spectra_run(stores[0], card)
    spec = QualitySpec(methods=("uniform", "llm_pruner"), keeps=(0.8,), decompositions=("whitened", "kfac"))
    run = stores[0].create(spec)
    pruned = {**table_factory.row("llm_pruner", 0.8), "decomposition": ""}
    run_factory.finish(
        run, {"rows": [table_factory.row("dense", 1.0), table_factory.row("uniform", 0.8), pruned], "baselines": []}
    )
    assert find_sources(Asked(compare=(run.id,)), looked_up(stores)).missing == (("uniform", "kfac", 0.8, 0),)
    table = table_of(make_report(Asked(compare=(run.id,)), None, looked_up(stores)), "Size and perplexity")
    assert table.lines[2].cells[0].text == "LLM-Pruner"


@pytest.mark.parametrize(("storage", "update", "found"), [
    ("pair", "none", ("uniform", "strs")), ("pivoted", "none", ("uniform", "strs")), ("pivoted", "tuned", ()),
])  # fmt: skip
def test_baselines_are_found_however_they_are_stored(
    stores: Any, card: ModelCard, storage: str, update: str, found: Any
) -> None:
    run_factory.spectra_run(stores[0], card)
    run = table_factory.compare_run(stores[0], card, storage=storage, update=update)
    assert find_sources(Asked(compare=(run.id,)), looked_up(stores)).baselines == found


def test_signs_of_significance_come_from_the_tests(make: Make, stores: Any, card: ModelCard) -> None:
    made = make(compare=(table_factory.quality_run(stores[0], card).id,))
    table = table_of(made, "Size and perplexity")
    llrc = next(line for line in table.lines if line.key == ("llrc", "0.8"))
    assert {cell.mark for cell in llrc.cells if cell.mark} == {"*"}, "0.01 from uniform, 0.2 from STRS"
    untested = make(compare=(table_factory.compare_run(stores[0], card).id,))
    assert "No paired tests" in table_of(untested, "Size and perplexity").note
    assert not any(cell.mark for line in table_of(untested, "Size and perplexity").lines for cell in line.cells)


def test_every_measured_row_leads_to_its_runs(make: Make, stores: Any, card: ModelCard) -> None:
    run = table_factory.compare_run(stores[0], card)
    made = make(compare=(run.id,))
    listed = {line.cells[0].text for line in table_of(made, "Every run behind this report").lines}
    rows = json.loads((run.path / "rows.json").read_text())
    assert {run.id, *(row["run_id"] for row in rows)} <= listed
    commands = [cell.text for cell in (line.cells[-1] for line in table_of(made, "Every run behind this report").lines)]
    assert sum(text.startswith("lrc evaluate starter --plan") for text in commands) == len(rows) - 1
    assert made.source == run.id and f"lrc report --compare {run.id}" in " ".join(visible_texts(made))


def test_plans_that_answered_can_be_made_again_in_the_order_of_the_commands(
    make: Make, stores: Any, card: ModelCard
) -> None:
    """They may be no rows of the comparison; an update goes on from another run, which comes before it."""
    first = run_factory.allocate_run(stores[0], card, keep=0.6)
    plan = {**json.loads((first.path / "plan.json").read_text()), "origin": {"run_id": first.id}}
    update = stores[0].create(UpdateSpec(ModelRef("starter"), plan))
    updated = {**plan, "origin": {"run_id": update.id, "allocate_run_id": first.id}}
    answers = (AnswerSpec(), AnswerSpec(updated, update.id))
    asked = run_factory.finish(stores[0].create(GenerateSpec(ModelRef("starter"), "Why?", answers)), {"answers": []})
    made = make(compare=(table_factory.compare_run(stores[0], card).id,))
    reproduce = next(section for section in made.sections if section.key == "reproduce")
    (commands,) = [block for block in reproduce.blocks if isinstance(block, Commands)]
    sources = [command.source for command in commands.entries]
    assert sources.index(first.id) < sources.index(update.id) < sources.index(asked.id)
    (table,) = [block for block in reproduce.blocks if isinstance(block, Table)]
    assert {first.id, update.id} <= {line.cells[0].text for line in table.lines}


def test_pruned_plans_and_updates_have_names_and_pictures(make: Make, stores: Any, card: ModelCard) -> None:
    run = table_factory.compare_run(stores[0], card, methods=("uniform", "llm_pruner"), keeps=(0.8,))
    made = make(compare=(run.id,))
    assert "×" in " ".join(visible_texts(made, detail=True)) and "LLM-Pruner, 20 %" in report_html(made)
    updated = make(
        compare=(table_factory.compare_run(stores[0], card, methods=("llrc",), keeps=(0.8,), update="left").id,)
    )
    assert [choice.label for choice in updated.methods] == ["LLRC + update"]


def test_a_layer_is_dense_in_the_table_where_it_is_dense_in_the_plan(card: ModelCard) -> None:
    """By pivots a rank beyond the break-even of a pair is a low rank still."""
    plan = replace(run_factory.plan_at(card, 0.8), storage="pivoted")
    layer = card.layers[0]
    high = layer.full_rank - 1
    plan = replace(plan, ranks={**plan.ranks, layer.name: high}, dense=())
    table = _ranks(card, [ReportPlan("llrc", plan, "run")], ["one"])
    assert table.lines[0].cells[2].text == f"{high:,}"


def test_sizes_are_those_of_serving(make: Make, stores: Any, card: ModelCard) -> None:
    """Whatever precision the computer held that made the run."""
    run = table_factory.compare_run(stores[0], replace(card, dtype="float32", dtype_bytes=4))
    texts = " ".join(visible_texts(make(compare=(run.id,))))
    assert data_size(2 * card.params_total) in texts
    assert data_size(4 * card.params_total) not in texts


def test_numbers_are_rounded_to_what_their_error_allows() -> None:
    assert numbers.rounded(1134.2, 584.1) == "1,130"
    assert numbers.rounded(21.0698, 0.987) == "21.07"
    assert numbers.rounded(21.0698, None) == "21.1"
    assert [numbers.significant(value) for value in (11.04, 525.1, 1134.2, 0.5, 0)] == [
        "11.0", "525", "1,130", "0.500", "0",
    ]  # fmt: skip


def test_perplexities_are_rounded_as_everywhere_else(make: Make, stores: Any, card: ModelCard) -> None:
    made = make(compare=(table_factory.compare_run(stores[0], card).id,))
    row = next(row for row in find_sources(Asked(), looked_up(stores)).rows if row["method"] != "dense")
    score = next(iter(row["perplexity"].values()))
    shown = numbers.measured(score["value"], score["stderr"])
    cells = [cell.text for line in table_of(made, "Size and perplexity").lines for cell in line.cells]
    assert shown in cells


def test_a_difference_has_one_error_in_tile_and_prose(make: Make, stores: Any, card: ModelCard) -> None:
    run_factory.spectra_run(stores[0], card)
    table_factory.compare_run(stores[0], card)
    text = Page(report_html(make())).text
    tile = re.search(r"(±\d+at95%);[\d,]+questionsasked", text)
    assert tile is not None and (f"({tile[1]})" in text or re.search(r"upto\d+", text)), "or how bad it may be"


def test_the_first_section_says_what_to_do_where_there_is_a_choice(make: Make, stores: Any, card: ModelCard) -> None:
    run_factory.spectra_run(stores[0], card)
    run = table_factory.compare_run(stores[0], card)
    advice = decision_words(Named(find_sources(Asked(compare=(run.id,)), looked_up(stores))).choices)
    assert advice and said(advice.removesuffix(BESIDE)) in said(" ".join(visible_texts(make().sections[0])))


def test_every_variant_of_a_row_is_explained(make: Make, stores: Any, card: ModelCard) -> None:
    for update in ("left", "tuned", "bits"):
        run = table_factory.compare_run(stores[0], card, methods=("llrc",), update=update, storage="pivoted")
        section = next(part for part in make(compare=(run.id,)).sections if part.key == "method")
        said = " ".join(block.text for block in section.blocks if isinstance(block, Words))
        assert ("closed form" in said) is (update == "left"), "formats chosen with ranks are no fit of factors"
        assert ("gradient" in said) is (update == "tuned") and ("formats" in said) is (update == "bits")
        assert said.count("**Pivots.**") == 1

"""The report: one content in both files, nothing dropped, nothing fetched, errors that name the remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lrc_core import words as numbers
from lrc_core.cli import main
from lrc_core.errors import LrcError, PlanError, RunError, SettingsError
from lrc_core.quality.votes import Vote, keep_vote, votes_path
from lrc_core.registry import ALLOCATORS
from lrc_core.report.build import ReportOptions, make_report
from lrc_core.report.content import ESTIMATED, Answers, Cards, Report, Table, visible_texts
from lrc_core.report.html.page import report_html
from lrc_core.report.pdf import fonts
from lrc_core.report.pdf.document import report_pdf
from lrc_core.report.sections import prose
from lrc_core.report.sections.allocation import _ranks
from lrc_core.report.sources import Asked, ReportPlan, find_sources
from lrc_core.results.archive import Archive
from lrc_core.runs.spec import AllocateSpec, QualitySpec
from lrc_core.runs.store import RunStore
from lrc_core.types import ModelCard
from lrc_core.words import data_size
from tests.factories import run_factory, table_factory
from tests.factories.pdf_reader import Pdf

Make = Callable[..., Report]


@pytest.fixture
def card() -> ModelCard:
    return run_factory.make_card()


@pytest.fixture
def stores(tmp_path: Path) -> tuple[RunStore, RunStore]:
    return RunStore(tmp_path / "runs"), RunStore(tmp_path / "samples")


def looked_up(stores: tuple[RunStore, RunStore]) -> Archive:
    return Archive(stores, stores[1].root)


@pytest.fixture
def make(stores: tuple[RunStore, RunStore], card: ModelCard) -> Make:
    run_factory.spectra_run(stores[0], card)

    def made(frame: ReportOptions | None = None, **asked: Any) -> Report:
        return make_report(Asked(**asked), frame, looked_up(stores))

    return made


class Page(HTMLParser):
    """Text of a page without scripts and styles, and all its elements."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[str] = []
        self._silent = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._silent = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._silent:
            self._silent = ""

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)

    @property
    def text(self) -> str:
        return squeezed("".join(self.parts))


def squeezed(text: str) -> str:
    return "".join(text.split())


def said(text: str) -> str:
    """A text of the content as a reader sees it."""
    text = re.sub(r"\[([^\]]+)\]\(https://[^)\s]+\)", r"\1", text)
    return squeezed(text.replace("**", "").replace("`", ""))


def table_of(report: Report, caption: str) -> Table:
    return next(b for s in report.sections for b in s.blocks if isinstance(b, Table) and b.caption == caption)


def test_both_files_say_everything_that_the_content_says(make: Make, stores: Any, card: ModelCard) -> None:
    run = table_factory.quality_run(stores[0], card)
    run_factory.generate_run(stores[0], card)
    made = make(compare=run.id)
    page, pdf = Page(report_html(made)), Pdf(report_pdf(made))
    paper = squeezed(pdf.text())
    for text in visible_texts(made):
        assert said(text) in page.text, f"the HTML file lacks {text!r}"
        assert said(text) in paper, f"the PDF lacks {text!r}"
    assert all(said(text) in page.text for text in visible_texts(made, detail=True))


def test_failed_and_missing_cells_stand_in_the_tables(make: Make, stores: Any, card: ModelCard) -> None:
    failed = make(compare=table_factory.quality_run(stores[0], card).id)
    lines = table_of(failed, "Size and perplexity").lines
    assert [line.state for line in lines].count("failed") == 1
    cell = next(line for line in lines if line.state == "failed")
    assert cell.cells[0].text == "STRS"
    assert "Keeping 0.6" in cell.cells[2].text
    lacking = make(compare=table_factory.compare_run(stores[0], card, skip=(("strs", 0.8),)).id)
    line = next(line for line in table_of(lacking, "Size and perplexity").lines if line.state == "missing")
    assert [cell.text for cell in line.cells[:3]] == ["STRS", "20", "Not measured"]
    for drawn in (report_html(lacking), Pdf(report_pdf(lacking)).text()):
        assert "Not measured" in drawn


def test_what_prunes_structure_is_one_cell_under_no_decomposition(stores: Any, card: ModelCard) -> None:
    run_factory.spectra_run(stores[0], card)
    spec = QualitySpec(methods=("uniform", "llm_pruner"), keeps=(0.8,), decompositions=("whitened", "kfac"))
    run = stores[0].create(spec)
    pruned = {**table_factory.row("llm_pruner", 0.8), "decomposition": ""}
    run_factory.finish(
        run, {"rows": [table_factory.row("dense", 1.0), table_factory.row("uniform", 0.8), pruned], "baselines": []}
    )
    assert find_sources(Asked(compare=run.id), looked_up(stores)).missing == (("uniform", "kfac", 0.8, 0),)
    table = table_of(make_report(Asked(compare=run.id), None, looked_up(stores)), "Size and perplexity")
    assert table.lines[2].cells[0].text == "LLM-Pruner"


def test_a_big_bench_fits_on_paper(stores: Any, card: ModelCard) -> None:
    run_factory.spectra_run(stores[0], card)
    methods = [name for name in ALLOCATORS.names() if not ALLOCATORS.get(name).structured]
    tasks = [f"task {number}" for number in range(9)]
    kinds = ("whitened", "kfac", "svd")
    cells = [(name, kind) for kind in kinds for name in methods]
    plan = run_factory.plan_at(card, 0.8)
    rows = [table_factory.row("dense", 1.0)]
    for name, kind in cells:
        run = stores[0].create(AllocateSpec(method=name, decomposition=kind))
        replace(plan, method=name, decomposition=kind).save(run.path / "plan.json")
        row = {
            **table_factory.row("llrc", 0.8, run_id=run.id, allocate_run_id=run.id),
            "method": name,
            "decomposition": kind,
        }
        rows.append(row)
    for row in rows:
        row["zero_shot"] = dict.fromkeys(tasks, row["zero_shot"]["piqa"])
    run = stores[0].create(
        QualitySpec(methods=tuple(methods), keeps=(0.8,), decompositions=("whitened", "kfac", "svd"))
    )
    run_factory.finish(run, {"rows": rows, "baselines": []})
    report = make_report(Asked(compare=run.id), None, looked_up(stores))
    paper = squeezed(Pdf(report_pdf(report)).text())
    assert f"modelsof{len(rows)}withthehighestmeans" in paper
    answers = table_of(report, "Right answers by task")
    assert len(answers.lines) == len(rows)  # the chart chooses, the table does not


def test_signs_of_significance_come_from_the_tests(make: Make, stores: Any, card: ModelCard) -> None:
    made = make(compare=table_factory.quality_run(stores[0], card).id)
    table = table_of(made, "Size and perplexity")
    llrc = next(line for line in table.lines if line.key == ("llrc", "0.8"))
    assert {cell.mark for cell in llrc.cells if cell.mark} == {"*"}, "0.01 from uniform, 0.2 from STRS"
    untested = make(compare=table_factory.compare_run(stores[0], card).id)
    assert "No paired tests" in table_of(untested, "Size and perplexity").note
    assert not any(cell.mark for line in table_of(untested, "Size and perplexity").lines for cell in line.cells)


def test_every_measured_row_leads_to_its_runs(make: Make, stores: Any, card: ModelCard) -> None:
    run = table_factory.compare_run(stores[0], card)
    made = make(compare=run.id)
    listed = {line.cells[0].text for line in table_of(made, "Every run behind this report").lines}
    rows = json.loads((run.path / "rows.json").read_text())
    assert {run.id, *(row["run_id"] for row in rows)} <= listed
    commands = [cell.text for cell in (line.cells[-1] for line in table_of(made, "Every run behind this report").lines)]
    assert sum(text.startswith("lrc evaluate starter --plan") for text in commands) == len(rows) - 1
    assert made.source == run.id and f"lrc report --compare {run.id}" in " ".join(visible_texts(made))


def test_html_holds_everything_and_fetches_nothing(make: Make, stores: Any, card: ModelCard) -> None:
    run_factory.generate_run(stores[0], card, prompt='</script><img src="x" onerror="alert(1)"> & more')
    source = report_html(
        make(ReportOptions(title="<b>Größe</b> & Co"), compare=table_factory.quality_run(stores[0], card).id)
    )
    page = Page(source)
    kinds = [tag for tag, _ in page.elements]
    assert not {"link", "img", "iframe", "object", "embed"} & set(kinds)
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "data", "onerror", "onload"} & set(attributes), tag
        if "href" in attributes:
            assert tag == "a" and str(attributes["href"]).startswith(("#", "https://arxiv.org/"))
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|WebSocket", source)
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy)
    assert squeezed("<b>Größe</b> & Co") in page.text
    pictures = [attributes for tag, attributes in page.elements if tag == "svg" and "aria-hidden" not in attributes]
    assert pictures and all(attributes["role"] == "img" and attributes["aria-label"] for attributes in pictures)
    assert len(source.encode()) < 300_000


def test_estimated_and_measured_look_different(make: Make, stores: Any, card: ModelCard) -> None:
    made = make(compare=table_factory.compare_run(stores[0], card).id)
    cards = next(block for section in made.sections for block in section.blocks if isinstance(block, Cards))
    for entry in cards.entries:
        overhead = [part for part in entry.parts if part.how == ESTIMATED]
        assert [part.key for part in overhead] == ["overhead"] and overhead[0].words.startswith("≈ ")
    source = report_html(made)
    assert source.count('<span class="how estimated">estimated</span>') == len(cards.entries)
    assert source.count('<span class="how measured">measured</span>') > len(cards.entries)
    assert ".how.estimated" in source and ".overhead { background: repeating-linear-gradient" in source


def test_pdf_has_pages_outline_and_embedded_fonts(make: Make, stores: Any, card: ModelCard) -> None:
    title = "Größe & Qualität: наш отчёт, αβγ, 模型 <ok>"
    made = make(ReportOptions(title=title), compare=table_factory.compare_run(stores[0], card).id)
    pdf = Pdf(report_pdf(made))
    assert pdf.title() == title
    assert squeezed(title) in squeezed(pdf.text())
    assert pdf.outline() == [section.title for section in made.sections]
    count = len(pdf.pages)
    assert count >= 4
    for number in range(1, count + 1):
        assert f"{number} of {count}" in pdf.text()
    embedded = {name for name, held in pdf.fonts().items() if held}
    assert any(fonts.SANS in name for name in embedded) and any(fonts.BOLD in name for name in embedded)


def test_answers_of_any_length_and_letters_reach_the_paper(make: Make, stores: Any, card: ModelCard) -> None:
    run = run_factory.generate_run(stores[0], card)
    whole = (run.path / "answers.jsonl").read_text().splitlines()
    first = json.loads(whole[0])
    first["done"]["text"] = "wörd " * 2500 + "x" * 3000 + "\n" * 80 + "\x07\ud800 😀 end"
    (run.path / "answers.jsonl").write_text("\n".join([json.dumps(first), *whole[1:]]) + "\n")
    run_factory.resealed(run)
    made = make(compare=table_factory.compare_run(stores[0], card).id)
    pdf = Pdf(report_pdf(made))
    paper = squeezed(pdf.text())
    assert paper.count("wörd") == 2500 and paper.count("x" * 50) >= 58, "it runs on over the ends of pages"
    assert fonts.ABSENT in paper and f"standas{fonts.ABSENT}(1ofthem)" in paper, (
        "the emoji has no font, and this is said"
    )
    report_html(made).encode()


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
        (RunError, "no run compare-0", {"compare": "compare-0"}),
        (RunError, "not finished", {"compare": running.id}),
        (RunError, "compares nothing", {"compare": spectra.id}),
        (RunError, "holds no answers", {"answers": (spectra.id,)}),
        (RunError, "not about owner/x", {"compare": finished.id, "model": "owner/x"}),
        (PlanError, "no plan file and no run", {"plans": ("nothing",)}),
        (LrcError, "owner/other", {"compare": finished.id, "plans": (other.id,)}),
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
            make(frame, compare=finished.id)


def test_blind_answers_stay_sealed_until_somebody_voted(make: Make, stores: Any, card: ModelCard) -> None:
    comparison = table_factory.compare_run(stores[0], card)
    run = run_factory.generate_run(stores[0], card, blind=True)
    sealed = make(compare=comparison.id)
    assert run.id not in " ".join(visible_texts(sealed)) and "vote" in " ".join(visible_texts(sealed))
    assert "lrc generate starter" in " ".join(visible_texts(sealed)), "it says how to record some"
    with pytest.raises(RunError, match="blindly"):
        make(compare=comparison.id, answers=(run.id,))
    keep_vote(votes_path(stores[0].root), Vote(1.0, run.id, "starter", "?", ("dense",), "dense", 0))
    assert run.id in " ".join(visible_texts(make(compare=comparison.id)))


def test_deleted_plans_are_reported_not_dropped(make: Make, stores: Any, card: ModelCard) -> None:
    run = table_factory.compare_run(stores[0], card)
    gone = find_sources(Asked(compare=run.id), looked_up(stores)).plans[-1]
    stores[0].delete(gone.source)
    text = " ".join(visible_texts(make(compare=run.id)))
    assert f"deleted: {gone.label}" in text


def test_pruned_plans_and_updates_have_names_and_pictures(make: Make, stores: Any, card: ModelCard) -> None:
    run = table_factory.compare_run(stores[0], card, methods=("uniform", "llm_pruner"), keeps=(0.8,))
    made = make(compare=run.id)
    assert "×" in " ".join(visible_texts(made, detail=True)) and "LLM-Pruner, 20 %" in report_html(made)
    updated = make(
        compare=table_factory.compare_run(stores[0], card, methods=("llrc",), keeps=(0.8,), update="left").id
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
    texts = " ".join(visible_texts(make(compare=run.id)))
    assert data_size(2 * card.params_total) in texts
    assert data_size(4 * card.params_total) not in texts


def test_numbers_are_rounded_to_what_their_error_allows() -> None:
    assert numbers.rounded(1134.2, 584.1) == "1,130"
    assert numbers.rounded(21.0698, 0.987) == "21.07"
    assert numbers.rounded(21.0698, None) == "21.1"
    assert [numbers.significant(value) for value in (11.04, 525.1, 1134.2, 0.5, 0)] == [
        "11.0", "525", "1,130", "0.500", "0",
    ]  # fmt: skip
    assert prose.percent_points(0.36, 0.048) == "36 ± 5"
    assert prose.percent_points(0.437, 0.018) == "43.7 ± 1.8"


def test_perplexities_are_rounded_as_everywhere_else(make: Make, stores: Any, card: ModelCard) -> None:
    made = make(compare=table_factory.compare_run(stores[0], card).id)
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


def test_no_page_ends_with_a_heading_and_answers_stay_together(make: Make, stores: Any, card: ModelCard) -> None:
    run_factory.generate_run(stores[0], card)
    for run in (table_factory.quality_run(stores[0], card), table_factory.compare_run(stores[0], card)):
        made = make(compare=run.id)
        pdf = Pdf(report_pdf(made))
        heads = {squeezed(section.title) for section in made.sections}
        heads |= {squeezed(block.title) for s in made.sections for block in s.blocks if isinstance(block, Answers)}
        texts = [pdf.page_text(page) for page in pdf.pages]
        assert not [text for text in texts if squeezed(text.split("\n")[-1]) in heads]
        for block in (block for s in made.sections for block in s.blocks if isinstance(block, Answers | Cards)):
            names = [squeezed(entry.name) for entry in block.entries]
            where = [number for number, text in enumerate(texts) if all(name in squeezed(text) for name in names)]
            assert where, f"{names} are not on one page"


def test_command_line_writes_both_or_nothing(
    stores: Any, card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LRC_RUNS", str(stores[0].root))
    monkeypatch.chdir(tmp_path)
    run_factory.spectra_run(stores[0], card)
    run = table_factory.compare_run(stores[0], card)
    assert main(["report", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    names = [entry["path"] for entry in document["files"]]
    assert names == [f"report-{run.id}.html", f"report-{run.id}.pdf"] and document["run_id"] == run.id
    assert Pdf(Path(names[1]).read_bytes()).title() == document["title"] == f"Making {card.name} smaller"
    held = tmp_path / "held.html"
    held.write_text("before")
    for words in (
        ["--html", "held.html", "--pdf", "nowhere/x.pdf", "--compare", "compare-0"],
        ["--html", "held.html", "--pdf", "./held.html"],
        ["--html", "nowhere/x.html"],
        ["--html", str(tmp_path)],
    ):
        assert main(["report", *words]) == 1
        line = capsys.readouterr().err
        assert line.startswith("lrc: ") and line.count("\n") == 1 and "Traceback" not in line
    assert held.read_text() == "before"
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]

"""One content in both files of a report, nothing dropped, nothing fetched, and both written or neither."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import pytest

from lrc_core.cli import main
from lrc_core.registry import ALLOCATORS
from lrc_core.report.build import ReportOptions, make_report
from lrc_core.report.content import ESTIMATED, Answers, Cards, Pictures, Words, visible_texts
from lrc_core.report.html.page import report_html
from lrc_core.report.pdf import fonts
from lrc_core.report.pdf.document import report_pdf
from lrc_core.report.sources import Asked
from lrc_core.runs.spec import AllocateSpec, QualitySpec
from lrc_core.types import ModelCard
from tests.factories import run_factory, table_factory
from tests.factories.pdf_reader import Pdf
from tests.factories.report_reader import Make, Page, looked_up, said, squeezed, table_of


def test_both_files_say_everything_that_the_content_says(make: Make, stores: Any, card: ModelCard) -> None:
    run = table_factory.quality_run(stores[0], card)
    run_factory.generate_run(stores[0], card)
    made = make(compare=(run.id,))
    page, pdf = Page(report_html(made)), Pdf(report_pdf(made))
    paper = squeezed(pdf.text())
    for text in visible_texts(made):
        assert said(text) in page.text, f"the HTML file lacks {text!r}"
        assert said(text) in paper, f"the PDF lacks {text!r}"
    assert all(said(text) in page.text for text in visible_texts(made, detail=True))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(below <= above + 1 for above, below in pairwise(levels)), "a level of headings is left out"


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
    report = make_report(Asked(compare=(run.id,)), None, looked_up(stores))
    paper = squeezed(Pdf(report_pdf(report)).text())
    assert f"of{len(rows)}modelswiththehighestmeans" in paper
    answers = table_of(report, "Right answers by task")
    assert len(answers.lines) == len(rows)  # the chart chooses, the table does not


def test_html_holds_everything_and_fetches_nothing(make: Make, stores: Any, card: ModelCard) -> None:
    run_factory.generate_run(stores[0], card, prompt='</script><img src="x" onerror="alert(1)"> & more')
    source = report_html(
        make(ReportOptions(title="<b>Größe</b> & Co"), compare=(table_factory.quality_run(stores[0], card).id,))
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
    made = make(compare=(table_factory.compare_run(stores[0], card).id,))
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
    made = make(ReportOptions(title=title), compare=(table_factory.compare_run(stores[0], card).id,))
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
    made = make(compare=(table_factory.compare_run(stores[0], card).id,))
    pdf = Pdf(report_pdf(made))
    paper = squeezed(pdf.text())
    assert paper.count("wörd") == 2500 and paper.count("x" * 50) >= 58, "it runs on over the ends of pages"
    assert fonts.ABSENT in paper and f"standas{fonts.ABSENT}(1ofthem)" in paper, (
        "the emoji has no font, and this is said"
    )
    report_html(made).encode()


def test_no_page_ends_with_a_heading_and_answers_stay_together(make: Make, stores: Any, card: ModelCard) -> None:
    run_factory.generate_run(stores[0], card)
    for run in (table_factory.quality_run(stores[0], card), table_factory.compare_run(stores[0], card)):
        made = make(compare=(run.id,))
        pdf = Pdf(report_pdf(made))
        heads = {squeezed(section.title) for section in made.sections}
        heads |= {squeezed(block.title) for s in made.sections for block in s.blocks if isinstance(block, Answers)}
        texts = [pdf.page_text(page) for page in pdf.pages]
        assert not [text for text in texts if squeezed(text.split("\n")[-1]) in heads]
        for section in made.sections:
            words = list(takewhile(lambda block: isinstance(block, Words), section.blocks))
            for picture in (block for block in section.blocks[len(words) :][:1] if isinstance(block, Pictures)):
                together = [said(section.title), *(said(one.text) for one in words), said(picture.title)]
                assert [text for text in texts if all(one in squeezed(text) for one in together)], section.title
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
    assert [Path(name).name for name in names] == [f"report-{run.id}.html", f"report-{run.id}.pdf"]
    assert {Path(name).parent for name in names} == {tmp_path} and document["run_id"] == run.id
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

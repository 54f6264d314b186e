"""The lesson as a page without a server: whole, offline, and with the app's own sentences."""

from __future__ import annotations

import html
import json
import re

import pytest

from lrc_core.cli import main
from lrc_core.quality.rows import dense_row
from lrc_core.runs.spec import ModelRef
from pages.ui.learn import card, layers, lessons, methods, outputs
from pages.ui.learn.quiz import questions
from pages.ui.learn.site.page import page
from pages.ui.learn.steps import STEPS


@pytest.fixture(scope="module")
def written():
    """The page of the shipped samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LRC_SAMPLES", raising=False)
        yield page(ModelRef())


def text_of(written: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", re.sub(r"<(script|style).*?</\1>", "", written))))


def plain(sentence: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\*\*|`", "", sentence))


def test_it_has_all_steps_and_asks_for_nothing(written):
    assert [f'id="step-{number}"' in written for number in range(1, len(STEPS) + 1)] == [True] * len(STEPS)
    assert not re.search(r"""(?:src|href)=["'](?!#|data:|https://(?:arxiv|doi|github))""", written)
    assert "default-src 'none'" in written and "Nothing of this" not in written
    assert len(written) < 3_000_000


def test_its_words_are_those_of_the_app(written, monkeypatch):
    monkeypatch.delenv("LRC_SAMPLES")
    said = text_of(written).replace("\u00a0", " ")
    lesson = lessons.lessons(ModelRef(), "layers")[0]
    group = methods.usable(ModelRef()).group
    dense, best = dense_row(group.rows), methods.lightest(group, 0.8)
    expected = [outputs.inputs(lesson.content["layers"][0]), layers.sensitivity_sentence(lesson),
                card.cost_sentence(best, dense)]  # fmt: skip
    assert all(plain(sentence) in said for sentence in expected)


def test_its_books_are_those_of_the_app(written):
    books = [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', written)]
    assert [book["label"] for book in books] == ["Rank", "Rank", "Removed", "Rank", "Step"]
    for book in books:
        assert 0 <= book["start"] < len(book["frames"]) and all(frame["words"] for frame in book["frames"])


def test_every_question_has_one_right_answer_and_its_reason(written):
    for number in range(len(questions.SETS)):
        for place, question in enumerate(questions.questions(number)):
            values = re.findall(rf'name="q{number}-{place}" value="([01])"', written)
            assert values.count("1") == 1 and values.index("1") == question.right
            assert question.why[:40] in html.unescape(written)


@pytest.mark.process
def test_the_command_line_writes_a_folder_or_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("LRC_SAMPLES")
    assert main(["lesson", "--html", str(tmp_path / "course"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(tmp_path / "course" / "index.html")
    assert "step-8" in (tmp_path / "course" / "index.html").read_text(encoding="utf-8")
    (tmp_path / "file").write_text("in the way")
    assert main(["lesson", "--html", str(tmp_path / "file" / "x.html")]) == 1
    assert "x.html" in capsys.readouterr().err

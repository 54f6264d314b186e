"""Names from outside as data: escapes against a Markdown reader's rules, cells against a spreadsheet's."""

from __future__ import annotations

import csv
import html
import io
import re

import plotly.graph_objects as go
import pytest

from lrc_core.escape import csv_cell, escaped, in_plotly
from lrc_core.quality import tables, votes
from tests.factories.payloads import ALL, CELLS

_PIECES = re.compile(
    r"\\(?P<escaped>[^\w\s]|_)|(?P<fence>`+)(?P<code>.*?)(?<!`)(?P=fence)(?!`)|(?P<plain>.)", re.DOTALL
)


def pieces(markdown: str, kind: str) -> str:
    """The letters of a line of Markdown that are read as one of ``escaped``, ``code`` and ``plain``, or as any."""
    found = []
    for piece in _PIECES.finditer(markdown):
        code = piece["code"]
        if code is not None and code.startswith(" ") and code.endswith(" ") and code.strip():
            code = code[1:-1]
        letters = {"escaped": piece["escaped"], "code": code, "plain": piece["plain"]}
        found += [text for name, text in letters.items() if text is not None and kind in (name, "any")]
    return "".join(found)


@pytest.mark.parametrize("text", ["plain words, as they are; yes?", "3 mlp.up_proj", "a_b*c", *ALL])
def test_what_is_escaped_reads_as_it_was(text: str) -> None:
    assert pieces(escaped(text), "any") == " ".join(text.splitlines()).lstrip()


@pytest.mark.parametrize("text", ALL)
def test_nothing_with_a_meaning_is_left(text: str) -> None:
    shown = escaped(text)
    assert not re.search(r"[*_\[\]<>#|$&!~`]|:\w|://|www\.|\w@", pieces(shown, "plain"))
    assert "\n" not in shown and not re.match(r"\s|[-+=]|\d+[.)]", shown)


@pytest.mark.parametrize("cell", CELLS)
def test_no_cell_is_a_formula(cell: str) -> None:
    assert csv_cell(cell).startswith("'") and csv_cell(cell)[1:] == cell.replace("\r", "\n")
    assert csv_cell("plain") == "plain" and csv_cell(-1.5) == -1.5
    row = {"method": cell, "keep_target": 0.8, "perplexity": {cell: {"value": 1.0}}, "note": cell}
    vote = votes.Vote(1.0, "run", cell, cell, (cell, "dense"), cell, 0)
    for text in (tables.rows_csv({"rows": [row], "baselines": []}), votes.votes_csv([vote])):
        cells = [cell for line in csv.reader(io.StringIO(text)) for cell in line]
        assert cells and not [cell for cell in cells if cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r"))]


@pytest.mark.parametrize("text", ALL)
def test_plotly_gets_no_tag_but_ours(text: str) -> None:
    figure = go.Figure(go.Bar(x=[text, "b"], y=[1, 2], name=text, hovertemplate=f"{text}<br>%{{y}}<extra></extra>"))
    figure.update_layout(title=text, annotations=[{"text": text}], xaxis={"ticktext": [text]})
    shown = in_plotly(figure.to_dict())
    texts = [shown["layout"]["title"]["text"], shown["layout"]["annotations"][0]["text"], shown["data"][0]["name"]]
    texts += [shown["layout"]["xaxis"]["ticktext"][0], shown["data"][0]["x"][0]]
    assert {html.unescape(part) for part in texts} == {html.unescape(text)}
    assert not any("<" in part.replace("<br>", "") for part in texts)
    assert shown["data"][0]["hovertemplate"].endswith("<br>%{y}<extra></extra>")

"""The first thing on Home: one slider under which a real model's text holds or falls apart, from what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import streamlit as st

from lrc_core import words
from lrc_core.budget import USUAL_KEEP, whole_percent
from lrc_core.names import method_color, method_label
from lrc_core.quality.quantised import compresses, served_bytes
from lrc_core.quality.rows import allocated_by, dense_row, mean_loss
from lrc_core.results import comparisons
from lrc_core.results.answers import NOTHING, answered
from lrc_core.results.archive import RunView, archive
from lrc_core.runs.spec import GenerateSpec, ModelRef
from lrc_core.texts.label import text_labels
from pages.ui.shared.frame import PAGES, page_link, sample_note
from pages.ui.shared.prose import component

BASELINE = "uniform"
_LONGEST = 260


def draw_size(ref: ModelRef) -> None:
    """The slider, where a comparison with texts has been measured; nothing else."""
    found = next(
        ((group, model) for model in (ref, ModelRef()) for group in comparisons.groups(model) if _tells(group)), None
    )
    if found is None:
        return
    group, model = found
    drawn = component("lrc_live", "components/live", '<div class="live"></div>')
    drawn(data=payload(group, archive().runs(GenerateSpec, model)), key="home_live")
    with st.container(horizontal=True, vertical_alignment="center", key="home_film"):
        sample_note(group.sample, *(view.id for view in group.views))
        page_link(PAGES["watch"].file, "Watch ranks being learned", PAGES["watch"].icon)


def _tells(group: comparisons.Group) -> bool:
    """Whether it has the dense model, the baseline at some size and something better there, with what they wrote."""
    found = shown_rows(group)
    return group.tells and any(even is not None for _, even in found[1:])


def _best(rows: Iterable[comparisons.Row]) -> comparisons.Row | None:
    """Of the compressed models at one size that have a text, the one that lost least."""
    written = [row for row in rows if compresses(row) and _text(row)]
    return min(written, key=mean_loss, default=None)


def _text(row: comparisons.Row) -> str:
    return str((row.get("sample") or {}).get("text") or "")


Stop = tuple[comparisons.Row, comparisons.Row | None]
"""What stands side by side at one place of the slider; None where the baseline was not measured."""


def shown_rows(group: comparisons.Group) -> list[Stop]:
    """The dense model, then every size at which something better than the baseline was measured, with a text."""
    dense = dense_row(group.rows)
    if dense is None or not _text(dense):
        return []
    made: list[Stop] = [(dense, dense)]
    for keep in group.sizes:
        rows = group.best_at(keep)
        best, even = _best(rows), _best(row for row in rows if allocated_by(row, (BASELINE,)))
        if best is not None and best is not even:
            made.append((best, even))
    return made


def payload(group: comparisons.Group, questions: Sequence[RunView[GenerateSpec]]) -> dict[str, Any]:
    """Everything that the slider can show, so that it asks nobody.

    Args:
        questions: what was asked of its model; those count that its best plans answered at every size.
    """
    rows = shown_rows(group)
    stops = [_stop(*pair, dense=rows[0][0]) for pair in rows]
    rates = [stop["rate"] for stop in stops]
    usual = whole_percent(USUAL_KEEP)
    prompts = sorted([_continued(rows), *_asked(rows, questions)], key=_place)
    return {"prompts": prompts, "stops": stops, "start": rates.index(usual) if usual in rates else len(rates) - 1}


def _place(prompt: Mapping[str, Any]) -> int:
    """Questions that both sides answered come first: a text that is merely continued soon repeats itself."""
    if prompt["goes_on"]:
        return 1
    return 0 if all(left and right for left, right in prompt["texts"]) else 2


def _continued(rows: list[Stop]) -> dict[str, Any]:
    """The prompt of the comparison, and how every model went on."""
    texts = [[_cut(_text(row)) if row else "" for row in pair] for pair in rows]
    return {"prompt": str(rows[0][0]["sample"].get("prompt", "")), "goes_on": True, "texts": texts}


def _asked(rows: list[Stop], questions: Sequence[RunView[GenerateSpec]]) -> Iterator[dict[str, Any]]:
    """Questions to which the models of the slider's left side have answers, with those of the right where there are."""
    for question in answered(questions):
        found = [question.answers(pair) for pair in rows]
        if all(left is not None for left, _ in found):
            texts = [["" if text is None else _cut(text) or f"({NOTHING})" for text in pair] for pair in found]
            yield {"prompt": question.prompt, "goes_on": False, "texts": texts}


def _cut(text: str) -> str:
    whole = " ".join(text.split())
    return whole if len(whole) <= _LONGEST else f"{whole[:_LONGEST].rstrip()} …"


def _stop(row: comparisons.Row, even: comparisons.Row | None, dense: comparisons.Row) -> dict[str, Any]:
    """One place of the slider: its size, and of both models name and perplexity."""
    whole, size = float(row.get("keep_whole_model") or 1.0), served_bytes(row)
    rate = 0 if row is dense else whole_percent(float(row["keep_target"]))
    missing = {"name": method_label(BASELINE), "color": method_color(BASELINE), "factor": 0,
               "said": f"not measured at {rate} %"}  # fmt: skip
    return {
        "rate": rate,
        "kept": whole,
        "size": (f"{words.data_size(size)}, " if size else "") + f"{words.removed(whole)} smaller",
        "models": [_model(row, dense), missing if even is None else _model(even, dense)],
    }


def _model(row: comparisons.Row, dense: comparisons.Row) -> dict[str, Any]:
    text = next(text for text in dense["perplexity"])
    score = row["perplexity"][text]
    factor = float(score["value"]) / float(dense["perplexity"][text]["value"])
    fitted = ", its factors fitted to text" if factor < 1 and row.get("update") else ""  # the dense model's were not
    return {
        "name": "Dense model" if row["method"] == "dense" else method_label(str(row["method"])),
        "color": method_color(str(row["method"])),
        "factor": factor,
        "said": f"perplexity on {text_labels([text])[text]} "
        f"{words.measured(float(score['value']), score.get('stderr'))}, {words.times(factor)} times dense{fitted}",
    }

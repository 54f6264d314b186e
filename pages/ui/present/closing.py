"""The slides that a decision hangs on: for whom this is nothing, and what the figures allow to conclude."""

from __future__ import annotations

import html

from lrc_core import words
from lrc_core.formats.grids import METHODS
from lrc_core.names import method_label
from lrc_core.quality.alternatives import difference
from lrc_core.quality.decision_words import BESIDE, FITTED, decision_words, loss_words, texts_words
from lrc_core.quality.plain_words import accuracy_loss, difference_words, questions_asked, surprise
from lrc_core.quality.quantised import served_bytes
from lrc_core.quality.rows import Scores
from lrc_core.quality.speeds import PACES, pace_of
from lrc_core.report.drawing.decision import decision_drawing, decision_legend
from lrc_core.report.html.svg import svg, symbol
from lrc_core.results import comparisons
from lrc_core.runs.store import RunStore
from lrc_core.texts.label import text_label
from pages.ui.present.slide import Slide
from pages.ui.present.story import Story, score_words
from pages.ui.shared import pictures


def decision(story: Story) -> Slide:
    """Bytes against loss: every way to a smaller model that was measured, and the sentence that follows."""
    found = story.decided
    # What low rank is for beside formats, and why a plan may be better than dense, stands on Compare and in the notes:
    # the picture needs the room.
    said = (
        decision_words(found).removesuffix(BESIDE).replace(f" {FITTED}", "").strip().replace("**", "").replace("`", "")
    )
    title = f"Bytes against loss on {texts_words(found)}"
    shapes: list[str] = []
    colors: list[str] = []
    for entry in decision_legend(found):
        said_by = colors if entry.symbol == "bar" else shapes
        said_by.append(f"<span>{symbol(entry.symbol, entry.color)} {html.escape(entry.label)}</span>")
    legend = "".join(f"<div>{''.join(part)}</div>" for part in (shapes, colors) if part)
    rows = [
        [one.name, words.percent(one.share), words.data_size(one.size), words.measured(one.times, one.times_error)]
        for one in found
    ]
    figures = pictures.picture_table(title, ["Model", "Bytes", "Size", "Perplexity over dense"], rows)
    warned = comparisons.warned([one.row for one in found])
    mean = html.escape(
        " ".join([f"Loss: perplexity over the dense model's, mean of {texts_words(found)}, ± standard error.", *warned])
    )
    body = (
        f'<div class="decision">{svg(decision_drawing(found), f"{title}. {said}")}'
        f'<div class="legend">{legend}</div><p class="mean">{mean}</p></div>{figures}'
    )
    ids = tuple(dict.fromkeys(str(one.row.get("run_id") or story.source) for one in found))
    return Slide("decision", "What to decide by: bytes against loss", body, said, ids)


def not_for(story: Story) -> Slide:
    """When this is not for you: what the figures of this very model speak against."""
    points = [
        *_against_quantising(story),
        *_against_quality(story),
        *_against_speed(story),
        "If a smaller model of the same family exists: it may be better at this size. None was measured here.",
        f"These are figures of {story.card.name} with {words.count(story.card.params_total)} parameters. "
        "They say nothing about a model many times larger.",
    ]
    ids = tuple(str(row.get("run_id")) for row in (story.dense, story.best) if row is not None)
    return Slide("not_for", "When this is not for you", listed(points), "", ids)


def _against_quantising(story: Story) -> list[str]:
    """The number format that loses least of those measured, of bytes of the whole model as those of the plan are."""
    size, dense = served_bytes(story.best or {}), served_bytes(story.dense or {})
    if not size or not dense:
        return []
    plan = f"this plan {words.removed(size / dense, 0)}"
    formats = [one for one in story.decided if one.row["method"] in METHODS and one.size < size]
    if not formats:
        return [f"If memory is all that counts, number formats of fewer bits may do: none was measured; {plan}."]
    one = min(formats, key=lambda choice: choice.loss)
    return [
        f"If memory is all that counts: {one.name} removes {words.removed(one.share, 0)} of the model's bytes and "
        f"{loss_words(one)}; {plan}. Both can be combined."
    ]


def _against_quality(story: Story) -> list[str]:
    best, dense = story.best, story.dense
    if best is None or dense is None or not surprise(best, dense):
        return []
    return [f"If answers must stay as they were: perplexity is {surprise(best, dense)}."]


def _against_speed(story: Story) -> list[str]:
    paces = {verb: pace_of(story.best or {}, story.dense, what) for what, verb in PACES.items()}
    timed = [f"{verb} at {pace.figure} times the dense pace" for verb, pace in paces.items() if pace]
    said = f"it {' and '.join(timed)}" if timed else "of this plan no speed was timed beside the dense model's"
    return [f"If it must be faster: {said}. Two small products are not always faster than one large."]


def conclusion(story: Story) -> Slide:
    """What to take home: no sentence without a measured loss and its error."""
    best, dense = story.best, story.dense
    assert best is not None
    ids = tuple(str(row.get("run_id")) for row in (dense, best) if row is not None)
    if dense is None or not surprise(best, dense):
        said = "Nothing can be concluded yet: the dense model was not measured beside it, so what was lost is unknown."
        return Slide("conclusion", "What to take home", listed([said]), "", ids)
    points = [_price(story, best, dense)]
    loss = accuracy_loss(best, dense, Scores(RunStore().root))
    if loss is not None:
        points.append(f"{difference_words(loss, story.best_label)} This is of {questions_asked(loss, best)}.")
    if len(story.others) > 1:
        worst, text = story.others[-1], story.texts[0]
        other = f"{method_label(str(worst['method']))} {score_words(worst, text)}"
        points.append(
            f"{_decides(best, worst, text)}: at this size {story.best_label} has perplexity "
            f"{score_words(best, text)} on {text_label(text)}, {other}."
        )
    return Slide("conclusion", "What to take home", listed(points), "", ids)


def _decides(best: comparisons.Row, worst: comparisons.Row, text: str) -> str:
    """Whether it matters how a model is made small: only where the best and the last differ by more than chance."""
    gap = difference(worst, best, text, Scores(RunStore().root))
    if gap.sign > 0:
        return "How it is made that small decides"
    return "How it is made that small makes no difference beyond chance here"


def _price(story: Story, best: comparisons.Row, dense: comparisons.Row) -> str:
    """What is saved and what it costs, in one sentence: neither is told alone."""
    whole = best.get("keep_whole_model")
    saved = (served_bytes(dense) or 0) - (served_bytes(best) or 0)
    gain = f"{story.removed} of the block linears' parameters removed"
    if whole is not None:
        gain += f" make the model {words.removed(float(whole), 0)} smaller"
        gain += f" ({words.data_size(saved)})" if saved > 0 else ""
    texts = [text for text in best["perplexity"] if text in dense["perplexity"]]
    pairs = "; ".join(
        f"{score_words(best, text)} against {score_words(dense, text)} on {text_label(text)}" for text in texts
    )
    lower = all(best["perplexity"][text]["value"] < dense["perplexity"][text]["value"] for text in texts)
    opening = "No price in perplexity: that" if lower else "The price: the perplexity"
    return f"{gain}. {opening} of {story.best_label} is {surprise(best, dense)} ({pairs})."


def listed(points: list[str]) -> str:
    """Sentences as the points of a slide."""
    return "<ul class='points'>" + "".join(f"<li>{html.escape(point)}</li>" for point in points) + "</ul>"

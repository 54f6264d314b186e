"""What each step shows on the page without a server: the app's own pictures and sentences."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable

from lrc_core import words
from lrc_core.allocate.llrc import row as training
from lrc_core.budget import USUAL_KEEP
from lrc_core.names import method_color, method_label
from lrc_core.quality.rows import Scores, dense_row
from lrc_core.report.html.page import inline
from lrc_core.results.archive import archive
from lrc_core.runs.spec import ModelRef
from lrc_core.runs.store import RunStore
from lrc_core.texts.label import text_label
from pages.ui.compare import readings
from pages.ui.learn import card, layers, lessons, mask, methods, outputs, picture, weight
from pages.ui.learn.flipbook import Book
from pages.ui.learn.quiz import questions
from pages.ui.learn.quiz.figures import FIGURES
from pages.ui.learn.site.books import outputs_book, pays_book
from pages.ui.shared import pictures


def book(shown: Book) -> str:
    """A flipbook, which the page's script brings to life."""
    data = {**shown.content(), "start": shown.start, "id": shown.label}
    text = json.dumps(data, ensure_ascii=False).replace("</", "<\\/")
    return f'<div class="book"><div class="flipbook"></div><script type="application/json">{text}</script></div>'


def said(text: str) -> str:
    """A sentence of the app's as a paragraph."""
    return f"<p>{inline(text)}</p>"


def _picture(ref: ModelRef) -> str:
    return book(picture.book())


def _weight(ref: ModelRef) -> str:
    found = lessons.lessons(ref, "layers")
    if not found:
        return ""
    lesson = found[0]
    entry = lesson.content["layers"][0]
    return book(weight.book(lesson, entry, lesson.layer(entry["name"])))


def _pays(ref: ModelRef) -> str:
    made = pays_book(ref)
    return "" if made is None else book(made[0]) + said(made[1])


def _outputs(ref: ModelRef) -> str:
    found = lessons.lessons(ref, "layers")
    if not found:
        return ""
    entry = found[0].content["layers"][0]
    return book(outputs_book(entry, found[0].layer(entry["name"]))) + said(outputs.inputs(entry))


def _layers(ref: ModelRef) -> str:
    found = lessons.lessons(ref, "sensitivity")
    if not found:
        return ""
    lesson, by_name = found[0], found[0].content["sensitivity"]
    logs = {layer.name: math.log10(max(1e-5, float(by_name[layer.name]["divergence"]))) for layer in lesson.card.layers}
    heat = pictures.heat(
        pictures.LayerHeatmap(
            lesson.card, logs, (min(logs.values()), max(logs.values())),
            lambda value: f"{words.figure(10**value, 2)} nats", "the predictions move by, logarithmic",
            "How far the predictions move with one layer squeezed alone",
        )
    )  # fmt: skip
    return heat + said(layers.sensitivity_sentence(lesson)) + _texts(lesson)


def _texts(lesson: lessons.Lesson) -> str:
    """The dense text, and those with the most and with the least sensitive layer squeezed."""
    written = lesson.content["texts"]
    if not written:
        return ""
    dense = next(entry for entry in written if not entry["layer"])
    others = sorted((entry for entry in written if entry["layer"]), key=lambda entry: -(entry.get("divergence") or 0))
    cells = f"<div><b>Dense model</b><p>{html.escape(dense['text'].strip())}</p></div>"
    for entry in [*others[:1], *others[1:][-1:]]:
        label = lessons.layer_label(lesson.layer(entry["layer"]))
        cells += (
            f"<div><b>Only {html.escape(label)} at rank {entry['rank']}</b>"
            f"<p>{html.escape(entry['text'].strip())}</p><p>{html.escape(layers.compare(dense, entry))}</p></div>"
        )
    return f'<p>Prompt: <em>{html.escape(dense["prompt"])}</em></p><div class="answers">{cells}</div>'


def _methods(ref: ModelRef) -> str:
    trio = methods.usable(ref)
    if trio is None:
        return ""
    group, rows = trio.group, trio.rows(USUAL_KEEP)
    charts = ""
    for text in rows[0]["perplexity"]:
        entries = [
            pictures.Bar(
                method_label(str(row["method"])), method_color(str(row["method"])), row["perplexity"][text]["value"],
                row["perplexity"][text].get("stderr"),
                words.measured(row["perplexity"][text]["value"], row["perplexity"][text].get("stderr")),
                reference=row["method"] == "dense",
            )
            for row in rows
        ]  # fmt: skip
        title = f"Perplexity on {text_label(text)}"
        charts += f"<div>{pictures.bars(entries, title, 'lower is better, ± standard error')}</div>"
    plans = methods.plans_of(rows)
    shown = archive().newest_card(group.views[0].spec.model)
    spent = ""
    if shown is not None and {"llrc", "strs"} <= plans.keys():
        spent = said(readings.spending(shown[0], plans["llrc"], plans["strs"]))
    return (
        f'<div class="pair">{charts}</div>'
        + said(f"All three: {trio.basis}.")
        + said(readings.best(rows, Scores(RunStore().root)))
        + said(methods.beyond(group, USUAL_KEEP, rows))
        + spent
    )


def _mask(ref: ModelRef) -> str:
    sigma, _source, _ = mask.row(ref)
    setting = training.Setting()
    steps = training.train(sigma, setting)
    legend = " ".join(f'<span style="color:{color}">↕</span> {name}' for name, color in mask.FORCES.values())
    return f"<p>{legend}</p>" + book(mask.book(sigma, steps, setting)) + said(mask.outcome(sigma, steps[-1], setting))


def _card(ref: ModelRef) -> str:
    trio = methods.usable(ref)
    made = ""
    if trio is not None:
        group = trio.group
        dense, best = dense_row(group.rows), methods.lightest(group, USUAL_KEEP)
        if dense is not None and best is not None and dense.get("cost") and best.get("cost"):
            cells = "".join(
                f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td><td>{html.escape(note)}</td></tr>"
                for name, value, note in card.entries(best, dense)
            )
            title = f"{method_label(str(best['method']))}, {words.removed(best['keep_achieved'])} removed"
            made = f"<table><caption>{title}</caption>{cells}</table>" + said(card.cost_sentence(best, dense))
    return made + "".join(_questions(number) for number in range(len(questions.SETS)))


def _questions(number: int) -> str:
    """A set of questions, each with its explanation behind the answer."""
    asked = []
    for place, question in enumerate(questions.questions(number)):
        name = f"q{number}-{place}"
        drawn = FIGURES[question.figure]().drawing if question.figure else ""
        options = "".join(
            f'<label><input type="radio" name="{name}" value="{int(index == question.right)}"> {html.escape(option)}'
            "</label>"
            for index, option in enumerate(question.options)
        )
        why = f"{html.escape(question.options[question.right])}. {html.escape(question.why)}"
        asked.append(
            f"<fieldset><legend>{place + 1}. {html.escape(question.words)}</legend>{drawn}{options}"
            f'<p class="why" hidden>{why} <a href="#step-{question.step}">Step {question.step}</a></p></fieldset>'
        )
    return f'<form class="quiz"><h3>{("Five questions", "Five more questions")[number]}</h3>{"".join(asked)}</form>'


PARTS: dict[str, Callable[[ModelRef], str]] = {
    "picture": _picture,
    "weight": _weight,
    "pays": _pays,
    "outputs": _outputs,
    "layers": _layers,
    "methods": _methods,
    "mask": _mask,
    "card": _card,
}

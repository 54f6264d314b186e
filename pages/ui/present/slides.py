"""The slides: every figure and sentence comes out of a run. HTML as strings; the browser only turns the pages."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

from lrc_core import words
from lrc_core.budget import break_even, same_size
from lrc_core.decompose.measures import energy_rank
from lrc_core.errors import LrcError
from lrc_core.names import method_color, method_label
from lrc_core.paths import start_command
from lrc_core.quality.alternatives import difference
from lrc_core.quality.card import CardModel, Wishes, card_words, speed_of
from lrc_core.quality.footprint import footprint
from lrc_core.quality.plain_words import surprise
from lrc_core.quality.quantised import compresses
from lrc_core.quality.rows import Scores
from lrc_core.report.drawing.heatmap import plan_sentence
from lrc_core.results import comparisons
from lrc_core.results.answers import NOTHING, answered
from lrc_core.results.archive import RunView, archive
from lrc_core.runs.spec import AllocateSpec, GenerateSpec
from lrc_core.runs.store import RunStore
from lrc_core.texts.label import text_label
from pages.ui.present.closing import conclusion, decision, not_for
from pages.ui.present.glossary import glosses
from pages.ui.present.slide import Slide
from pages.ui.present.story import Story
from pages.ui.shared import pictures, state
from pages.ui.shared.prose import ASSETS
from pages.ui.shared.summary import SHARE, example_of, heat_words, information_heatmap

CONTEXT = 2048
FILM = "film"
"""Key of the slide into which the browser puts the film."""


def slides_of(story: Story) -> list[Slide]:
    """All slides that this story has figures for, with the meaning of their terms and what to say about them."""
    return [_explained(slide) for slide in _slides(story)]


def _explained(slide: Slide) -> Slide:
    views = [archive().open(run_id) for run_id in slide.runs]
    film = "KL, nats per token" if slide.key == FILM else ""  # what the player writes
    return replace(
        slide,
        terms=tuple(glosses(slide.title, slide.body, slide.reading, film)) if slide.key != "reproduce" else (),
        notes=notes().get(slide.key, ""),
        shipped=bool(views) and all(view is not None and view.sample for view in views),
    )


@cache
def notes() -> dict[str, str]:
    """What a speaker may say, by slide: ``assets/text/present.md``."""
    parts = (ASSETS / "text" / "present.md").read_text(encoding="utf-8").strip().removeprefix("## ").split("\n## ")
    return {key.strip(): " ".join(text.split()) for key, _, text in (part.partition("\n") for part in parts)}


def _slides(story: Story) -> Iterator[Slide]:
    yield question(story)
    if story.shown is not None:
        yield idea(story)
        yield where(story)
    if story.learned() is not None:
        yield learning(story)
    if story.plan is not None:
        yield plan(story)
    if story.rows and story.others:
        yield comparison(story)
        if written := answers(story):
            yield written
        if story.decided:
            yield decision(story)
        yield card(story)
        yield not_for(story)
        yield conclusion(story)
    yield reproduce(story)


def question(story: Story) -> Slide:
    """What is asked."""
    model = story.card
    share = model.params_linear / model.params_total
    facts = [
        (words.count(model.params_total), "parameters"),
        (words.data_size(model.params_total * model.dtype_bytes), f"as {model.dtype}"),
        (str(len(model.layers)), f"linear layers in {model.n_blocks} blocks"),
        (words.percent(share, 0), "of the parameters are in them"),
    ]
    asked_for = "How much of each layer is needed?"
    if story.rows:
        asked_for = f"What does it cost to remove {story.removed} of the parameters in its linear layers?"
    return Slide("question", f"How small can {model.name} get?", f'<p class="lead">{asked_for}</p>{_facts(facts)}')


def idea(story: Story) -> Slide:
    """One layer, its factors, its spectrum."""
    assert story.shown is not None
    layer = example_of(story.shown)
    sigma = story.shown.sigmas[layer.name]
    rank, even = energy_rank(sigma, SHARE), break_even(layer)
    body = f'<div class="pair">{pictures.factors(layer, rank)}{pictures.spectrum(sigma, rank, even)}</div>'
    reading = (
        f"Block {layer.block}, {layer.kind}: {words.percent(SHARE)} of its energy lies in the first {rank} of "
        f"{len(sigma)} directions. Two thin factors that keep only those need "
        f"{words.percent(rank / even, 0)} of the layer's parameters; beyond rank {even:.0f} they would cost more than "
        "the layer."
    )
    return Slide("idea", "A layer becomes two thin ones", body, reading, (story.shown.view.id,))


def where(story: Story) -> Slide:
    """The heatmap of the spectra."""
    assert story.shown is not None
    return Slide(
        "where",
        "Where the information lives",
        information_heatmap(story.shown),
        heat_words(story.shown),
        (story.shown.view.id,),
    )


def learning(story: Story) -> Slide:
    """The film; the player says what it shows."""
    view = story.learned()
    assert view is not None
    label = method_label(view.spec.method)
    body = '<div class="film"></div>'
    return Slide(FILM, f"{label} learns what each layer keeps", body, learning_words(story, view), (view.id,))


def learning_words(story: Story, view: RunView[AllocateSpec]) -> str:
    """How a film that is not of the plan of the slides around it, or ends at another size, belongs to them."""
    end, same = words.removed(view.spec.keep), same_size(view.spec.keep, story.keep)
    if story.made_by(view):
        on_its_way = (
            f"This is the whole run, down to {end} removed. It recorded the plan for {story.removed}, "
            "which the next slides are about, on its way."
        )
        return "" if same else on_its_way
    if story.plan is None:
        return "" if same else f"This run goes to {end} removed."
    return (
        f"This run goes to {end} removed; the next slides are about a plan for {story.removed} by "
        f"{method_label(story.plan.method)}, of another run."
    )


def plan(story: Story) -> Slide:
    """What every layer keeps."""
    found, model = story.plan, story.card
    assert found is not None
    run_id = str(found.origin.get("run_id") or (story.best or {}).get("allocate_run_id") or story.source)
    title = f"What {method_label(found.method)} keeps when {story.removed} must go"
    reading = plan_sentence(found.states(model.layers))
    return Slide("plan", title, pictures.kept_map(model, found), reading, (run_id,))


def comparison(story: Story) -> Slide:
    """The same size, several methods."""
    body = '<div class="pair">' + "".join(f"<div>{story.bars(text)}</div>" for text in story.texts[:2]) + "</div>"
    ids = tuple(dict.fromkeys(str(row.get("run_id") or story.source) for row in story.rows))
    return Slide("comparison", f"The same size, measured: {story.removed} removed", body, comparison_words(story), ids)


def comparison_words(story: Story) -> str:
    """How far the best lies ahead of the next one, beside the error of that gap, on every text."""
    if len(story.others) < 2 or not story.texts:
        return _against_dense(story)
    best, second = story.others[:2]
    scores = Scores(RunStore().root)
    gaps = {text: difference(second, best, text, scores) for text in story.texts}
    said = " and ".join(
        f"{gap.value / gap.stderr:.1f} times its error on {text_label(text)}"
        for text, gap in gaps.items()
        if gap.stderr
    )
    names = f"{method_label(str(best['method']))} loses least; {method_label(str(second['method']))} comes next"
    if not said:
        return f"{names}. {_against_dense(story)}"
    sure = all(gap.sign > 0 for gap in gaps.values())
    verdict = "more than chance" if sure else "not beyond chance on every text"
    return f"{names}. The gap is {said}, {verdict}. {_against_dense(story)}"


def _against_dense(story: Story) -> str:
    if story.dense is None or story.best is None:
        return ""
    return f"The perplexity of {story.best_label} is {surprise(story.best, story.dense)}."


def answers(story: Story) -> Slide | None:
    """What they write, where that is known: figures alone hide garbage."""
    best = story.others[0]
    worst = story.others[-1]
    shown = [row for row in (story.dense, best, worst if worst is not best else None) if row is not None]
    prompt, written = _written(story, shown)
    if not written:
        return None
    cells = "".join(
        f'<div class="answer"><b><i class="chip" style="background:{method_color(str(row["method"]))}"></i>'
        f"{html.escape(_name(row))}</b><p>{html.escape(_cut(text.strip()))}</p></div>"
        for row, text in written
    )
    body = f'<p class="prompt">“{html.escape(prompt)}”</p><div class="answers">{cells}</div>'
    reading = (
        "How the most likely text after one prompt begins, word for word. It guards against garbage and "
        "proves nothing: the figures before are the measure." + _looping(written)
    )
    return Slide("answers", "What they write", body, reading, tuple(str(row.get("run_id")) for row, _ in written))


Written = list[tuple[comparisons.Row, str]]
"""Models, each with what it wrote."""


def _written(story: Story, shown: Sequence[comparisons.Row]) -> tuple[str, Written]:
    """A prompt, and what models wrote: a question that all of them were asked, else the comparison's own prompt."""
    for question in answered(archive().runs(GenerateSpec, story.ref)):
        texts = [text for text in question.answers(shown) if text is not None]
        if question.sampling.temperature == 0 and len(texts) == len(shown):
            return question.prompt, [(row, text or NOTHING) for row, text in zip(shown, texts, strict=True)]
    known = [(row, row.get("sample") or {}) for row in shown]
    written = [(row, str(sample["text"])) for row, sample in known if sample.get("text")]
    prompts = [str(sample.get("prompt", "")) for _, sample in known if sample.get("text")]
    return (f"{prompts[0]} …" if prompts else ""), written


def _looping(written: Written) -> str:
    """Which of the models repeat themselves, said before somebody in the room does."""
    said = []
    for row, text in written:
        found = words.words_in(text)
        if found and len(set(found)) < 0.6 * len(found):
            said.append(f"{_name(row)} ({len(set(found))} different words of {len(found)})")
    return f" In a loop: {'; '.join(said)}." if said else ""


def _name(row: comparisons.Row) -> str:
    if row["method"] == "dense":
        return "Dense model"
    if not compresses(row):
        return method_label(str(row["method"]))
    return f"{method_label(str(row['method']))}, {words.removed(float(row['keep_target']))} removed"


def _cut(text: str, most: int = 210) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0] + " …"


def card(story: Story) -> Slide:
    """Memory, speed, quality and money, dense beside compressed."""
    wishes, dense, best = Wishes(CONTEXT, 1, *state.price()), story.dense, story.best
    entries = [CardModel("Dense model", method_color("dense"), None, speed_of(dense or {}), dense, "")]
    if best is not None and story.plan is not None:
        color = method_color(str(best["method"]))
        entries.append(CardModel(_name(best), color, story.plan, speed_of(best), best, ""))
    found = [(entry, footprint(story.card, entry.plan, CONTEXT)) for entry in entries]
    largest = max(size.total for _, size in found)
    cells = ""
    for entry, size in found:
        said = card_words((entry, size), found[0], wishes, Scores(RunStore().root))
        lines = (html.escape(line.replace("**", "")) for line in (said.money, said.speed, said.quality))
        cells += (
            f'<div class="card"><b><i class="chip" style="background:{entry.color}"></i>{html.escape(entry.name)}</b>'
            f'<p class="big">{words.data_size(size.total)}</p>{pictures.memory_bar(size, largest)}'
            f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul></div>"
        )
    reading = f"Memory to answer at {CONTEXT:,} tokens of context: weights and cache counted, overhead estimated."
    ids = tuple(str(row.get("run_id")) for row in (dense, best) if row is not None)
    return Slide("card", "What it costs and gives", f'<div class="cards">{cells}</div>', reading, ids)


def reproduce(story: Story) -> Slide:
    """The commands that make every figure of these slides again."""
    from lrc_core.kinds import command_for

    ids = [story.shown.view.id] if story.shown is not None else []
    film = story.learned()
    ids += [run_id for run_id in (story.source, *story.sources, film.id if film is not None else "") if run_id]
    lines = []
    for run_id in dict.fromkeys(ids):
        view = archive().open(run_id)
        if view is None:
            continue
        try:
            lines.append((command_for(view.spec), run_id))
        except LrcError:
            continue
    rows = "".join(f"<li><code>{html.escape(line)}</code><small>{html.escape(run)}</small></li>" for line, run in lines)
    demo, app = start_command("demo"), start_command("app")
    body = (
        '<p class="lead">Every figure here comes from a run. These commands reproduce them.</p>'
        f"<ul class='commands'><li><code>{demo}</code><small>these runs, read-only, in seconds</small></li>"
        f"<li><code>{app}</code><small>everything, on a model of your own</small></li>{rows}</ul>"
    )
    return Slide("reproduce", "Reproduce it yourself", body, "", tuple(dict.fromkeys(ids)))


def _facts(entries: Sequence[tuple[str, str]]) -> str:
    cells = "".join(
        f"<div><b>{html.escape(value)}</b><span>{html.escape(name)}</span></div>" for value, name in entries
    )
    return f'<div class="facts">{cells}</div>'

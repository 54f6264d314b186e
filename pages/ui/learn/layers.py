"""Step 5: layers differ. What squeezing each one alone costs, and what the model writes then."""

from __future__ import annotations

from typing import Any

import streamlit as st

from lrc_core import words
from lrc_core.escape import escaped
from lrc_core.figures.common import Scale
from lrc_core.results.archive import archive
from lrc_core.runs.spec import LessonSpec, ModelRef
from pages.ui.learn import lessons
from pages.ui.shared import charting, forms, jobs
from pages.ui.shared.cellgrid import OUTLINE, Grid, cell_grid, limits_of, picked_in
from pages.ui.shared.frame import sample_note

CHART, LAYER, WANTED = "learn_map", "learn_squeezed", "learn_wanted"
KEEPS = (0.05, 0.1, 0.2, 0.4)


def draw(ref: ModelRef) -> None:
    """The map of sensitivities, and the texts beside each other."""
    found = lessons.lessons(ref, "sensitivity")
    if found:
        sensitivity(found[0])
    else:
        lessons.nothing_recorded("sensitivities")
    written = lessons.lessons(ref, "texts")
    if written:
        texts(written, already=found[0].view.id if found else "")
    with lessons.live_fold(ref, "Squeeze a layer of your own model and let it write"):
        write_live(ref)


def sensitivity(lesson: lessons.Lesson) -> None:
    """A heatmap of what squeezing each layer alone does to the predictions; a click chooses the layer."""
    card, by_name = lesson.card, lesson.content["sensitivity"]
    values = {layer.name: max(1e-5, float(by_name[layer.name]["divergence"])) for layer in card.layers}
    sentences = {
        layer.name: f"Block {layer.block} {layer.kind}\nrank {by_name[layer.name]['rank']}: the predictions move by "
        f"{words.figure(values[layer.name], 2)} nats"
        for layer in card.layers
    }
    chosen = st.session_state.get(LAYER)
    grid = Grid(
        card=card,
        values=values,
        words=sentences,
        scale=Scale("KL divergence, nats"),
        limits=limits_of(list(values.values()), log=True),
        label=charting.without_marks(sensitivity_sentence(lesson)),
        name="sensitivity",
        chosen={chosen: OUTLINE} if chosen in values else {},
        pins=False,
    )
    cell_grid(grid, CHART, _clicked)
    st.markdown(sensitivity_sentence(lesson))
    sample_note(lesson.view.sample, lesson.view.id)
    ordered = sorted(card.layers, key=lambda layer: -values[layer.name])
    charting.folded(
        {
            "Block": [layer.block for layer in ordered],
            "Layer": [layer.kind for layer in ordered],
            "Rank left": [by_name[layer.name]["rank"] for layer in ordered],
            "KL divergence, nats": [by_name[layer.name]["divergence"] for layer in ordered],
            "Loss, nats per token": [by_name[layer.name]["loss"] for layer in ordered],
        },
        "Sensitivity of every layer, worst first",
    )


def sensitivity_sentence(lesson: lessons.Lesson) -> str:
    """The worst and the mildest layer, and how unequal they are."""
    by_name, layers = lesson.content["sensitivity"], lesson.card.layers
    ordered = sorted(layers, key=lambda layer: -by_name[layer.name]["divergence"])
    worst, mildest = ordered[0], ordered[-1]
    total = sum(max(0.0, by_name[layer.name]["divergence"]) for layer in layers)
    tenth = max(1, len(ordered) // 10)
    share = sum(max(0.0, by_name[layer.name]["divergence"]) for layer in ordered[:tenth]) / (total or 1.0)
    return (
        f"Each layer was squeezed alone to {words.percent(lesson.keep, 0)} of its parameters. Worst is "
        f"**block {worst.block}, `{worst.kind}`** (the predictions move by "
        f"{words.figure(by_name[worst.name]['divergence'], 2)} nats), mildest **block {mildest.block}, "
        f"`{mildest.kind}`** ({words.figure(by_name[mildest.name]['divergence'], 2)} nats). {tenth} of {len(layers)} "
        f"layers account for {words.percent(share, 0)} of all the damage."
    )


def _clicked() -> None:
    """A click or a key on the map chooses the layer whose text is shown."""
    name, _ = picked_in(CHART)
    if name:
        st.session_state[LAYER] = name


def texts(found: list[lessons.Lesson], already: str) -> None:
    """The dense model's text and that of the squeezed one, side by side; ``already``: a run that is named above."""
    st.markdown("**What the model writes**")
    entries: dict[str, tuple[lessons.Lesson, dict[str, Any]]] = {}
    for lesson in found:
        for entry in lesson.content["texts"]:
            if entry["layer"]:
                entries.setdefault(entry["layer"], (lesson, entry))
    if st.session_state.get(WANTED) in {lesson.view.spec.layers[:1] for lesson in found}:
        st.session_state[LAYER] = st.session_state.pop(WANTED)[0]
    clicked = st.session_state.get(LAYER)
    if clicked is not None and clicked not in entries:
        st.caption(
            f":material/info: No text is recorded for {escaped(clicked)}. Your own model can write one: open the fold "
            "below."
        )
        st.session_state[LAYER] = next(iter(entries))
    name = forms.one_of(
        st,
        "Squeezed layer",
        {key: _label(*entry) for key, entry in entries.items()},
        LAYER,
        bind="query-params",
        help="Sorted from the most to the least sensitive. A click on the map chooses as well.",
    )
    lesson, entry = entries[name if name in entries else next(iter(entries))]
    dense = next(other for other in lesson.content["texts"] if not other["layer"])
    st.markdown(f"Prompt: *{escaped(entry['prompt'])}*")
    left, right = st.columns(2)
    layer = lesson.layer(entry["layer"])
    for column, title, shown in (
        (left, "Dense model", dense),
        (right, f"Only {lessons.layer_label(layer)} at rank {entry['rank']} of {layer.full_rank}", entry),
    ):
        with column, st.container(border=True, height="stretch"):
            st.markdown(f"**{escaped(title)}**")
            st.text(shown["text"].strip() or "(nothing)")
    words_of = "recorded" if lesson.view.sample else "written by your model"
    st.caption(f"{words_of.capitalize()}: the most likely continuation, word for word. {compare(dense, entry)}")
    if lesson.view.id != already:
        sample_note(lesson.view.sample, lesson.view.id)


def _label(lesson: lessons.Lesson, entry: dict[str, Any]) -> str:
    layer = lessons.layer_label(lesson.layer(entry["layer"]))
    found = entry.get("divergence")
    return layer if found is None else f"{layer} ({words.figure(found, 2)} nats)"


def compare(dense: dict[str, Any], squeezed: dict[str, Any]) -> str:
    """How far both texts are the same, and whether the squeezed one repeats itself."""
    one, two = dense["text"].split(), squeezed["text"].split()
    same = 0
    for left, right in zip(one, two, strict=False):
        if left != right:
            break
        same += 1
    if one == two:
        return "Not a word has changed."
    said = f"The first {same} words are the same." if same else "It differs from the first word on."
    different = len(set(words.words_in(squeezed["text"])))
    if two and different < 0.6 * len(two):
        said += f" Of {len(two)} words only {different} are different ones: it repeats itself."
    return said


def write_live(ref: ModelRef) -> None:
    """The form of a live generation, and the lesson that measures every layer."""
    known = archive().newest_card(ref)
    if known is None:
        st.caption("Fetch this model on Home first; its layers are then listed here.")
        return
    layers = {layer.name: layer for layer in known[0].layers}
    left, right = st.columns([3, 2])
    labels = {key: lessons.layer_label(layer) for key, layer in layers.items()}
    name = forms.one_of(left, "Layer", labels, "learn_live_layer")
    keep = right.select_slider(
        "Parameters left in it",
        KEEPS,
        value=0.1,
        format_func=lambda share: words.percent(share, 0),
        key="learn_live_keep",
    )
    prompt = st.text_input(
        "Prompt", placeholder="The most important thing to know about the ocean is", key="learn_live_prompt"
    )
    spec = LessonSpec(model=ref, layers=(name,), keep=keep, parts=("text",), prompt=prompt.strip()[:500])
    if lessons.live(ref, spec, "Write with this layer squeezed", "learn_write"):
        st.session_state[WANTED] = (name,)
        st.rerun()
    st.markdown("**All layers at once**")
    spec = LessonSpec(model=ref)
    if (
        not jobs.instead(spec)
        and st.button("Measure every layer of this model", icon=":material/grid_on:", key="learn_measure")
        and jobs.submit(spec)
    ):
        st.rerun()
    st.caption("Squeezes every layer alone and writes with twelve of them: minutes on a small model without a GPU.")

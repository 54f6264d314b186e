"""What Home shows: the first picture, the ways in for three kinds of people, and what to do next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from lrc_core import words
from lrc_core.budget import break_even
from lrc_core.decompose.measures import energy_rank
from lrc_core.escape import escaped
from lrc_core.names import decomposition_label, model_label
from lrc_core.paths import read_only
from lrc_core.results.archive import archive
from lrc_core.runs.spec import AllocateSpec, ModelRef
from pages.ui.shared import pictures
from pages.ui.shared.frame import PAGES, empty, page_link, sample_note
from pages.ui.shared.prose import prose
from pages.ui.shared.summary import SHARE, ShownSpectra, example_of, heat_words, information_heatmap, shown_spectra


def prepare() -> None:
    """Read the samples' files before a user has to wait for them; what is read stays in the caches."""
    from pages.ui.present.story import story_of

    shown_spectra(ModelRef())
    story_of(ModelRef())


def first_picture(shown: ShownSpectra | None, ref: ModelRef) -> None:
    """Where the information lives, drawn before anything else."""
    if shown is None:
        empty("A picture of a real model will be here", "Choose the starter model above to see its first spectra.")
        return
    pictures.draw_picture(information_heatmap(shown), "hero")
    label = decomposition_label(shown.decomposition)
    if archive().best_spectra(ref) is None:
        st.caption(
            f":material/info: {escaped(model_label(ref))} has not been read yet; this is "
            f"{escaped(shown.spectra.card.name)}."
        )
    st.caption(f"{heat_words(shown)} :small[({label} decomposition of {escaped(shown.spectra.card.name)})]")
    sample_note(shown.view.sample, shown.view.id)


# ---- ways in


@dataclass(frozen=True)
class Way:
    """Reasons to open the app, and where each begins.

    Attributes:
        title: in one word.
        text: name of its prose.
        picture: key of what is drawn, a real one.
        links: keys of pages, with a step where one is meant, and the words of their links.
    """

    title: str
    icon: str
    text: str
    picture: Callable[[ShownSpectra, ModelRef], str]
    links: tuple[tuple[str, str], ...]


def _curve(shown: ShownSpectra, ref: ModelRef) -> str:
    layer = example_of(shown)
    sigma = shown.sigmas[layer.name]
    return pictures.spectrum(sigma, energy_rank(sigma, SHARE), break_even(layer))


def _factors(shown: ShownSpectra, ref: ModelRef) -> str:
    layer = example_of(shown)
    return pictures.factors(layer, energy_rank(shown.sigmas[layer.name], SHARE))


def _measured(shown: ShownSpectra, ref: ModelRef) -> str:
    """Perplexities of the comparison; the layer's factors where nothing has been compared."""
    from pages.ui.present.story import story_of  # what it needs is more than Home's first picture should wait for

    story = story_of(ref)
    if story is None or not story.rows:
        return _factors(shown, ref)
    return story.bars(story.texts[0], with_table=False)


WAYS = (
    Way("Explore", ":material/explore:", "way_explore", _curve, (
        ("spectra", "Spectra of every layer"), ("allocate", "Allocate to a size"),
        ("watch", "Watch ranks being learned"), ("plans", "Plans made by hand"), ("runs", "Runs and their logs"),
    )),
    Way("Teach", ":material/school:", "way_teach", _factors, (
        ("learn:1", "Learn, from step 1"), ("learn:3", "When does it pay? Step 3"),
        ("learn:7", "How a mask learns, step 7"), ("learn:8", "What it gives, and a quiz"),
    )),
    Way("Convince", ":material/campaign:", "way_convince", _measured, (
        ("present", "Present, full screen"), ("compare", "Compare, with errors"), ("talk", "Talk to several at once"),
    )),
)  # fmt: skip


def ways_in(shown: ShownSpectra | None, ref: ModelRef) -> None:
    """Three ways in, each with a picture from real runs."""
    with st.grid(len(WAYS), min_column_width=270):
        for way in WAYS:
            with st.container(border=True, height="stretch", gap="small", key=f"way_{way.title.lower()}"):
                st.markdown(f"## {way.icon} {way.title}")
                if shown is not None:
                    pictures.draw_picture(way.picture(shown, ref), f"home_{way.title.lower()}")
                st.caption(prose(way.text).format(**_figures(shown)))
                with st.container(gap="xxsmall"):
                    for target, label in way.links:
                        _link(target, label)


def _figures(shown: ShownSpectra | None) -> dict[str, str]:
    """What the prose below the pictures speaks of."""
    if shown is None:
        return {"layer": "a layer", "share": words.percent(SHARE), "rank": "a few", "full": "hundreds of"}
    layer = example_of(shown)
    sigma = shown.sigmas[layer.name]
    return {
        "layer": f"block {layer.block}, `{layer.kind}`",
        "share": words.percent(SHARE),
        "rank": str(energy_rank(sigma, SHARE)),
        "full": str(len(sigma)),
    }


def _link(target: str, label: str) -> None:
    page, _, step = target.partition(":")
    page_link(PAGES[page].file, label, PAGES[page].icon, query={"learn_step": step} if step else None)


# ---- what to do next


def next_step(ref: ModelRef, fetch: Callable[[], None]) -> None:
    """One sentence on where things stand with this model, and the one link that follows from it.

    Args:
        fetch: draws the button of the first job, where that is what follows.
    """
    own = [view for view in archive().runs(ref=ref, samples=False) if view.done]
    kinds = {view.kind for view in own}
    if read_only():
        said, page = "This is the demo. The slides tell the whole story in figures that were measured.", "present"
    elif not own:
        said, page = f"Nothing of {escaped(model_label(ref))} has been computed on this computer yet.", ""
    elif not any(isinstance(view.spec, AllocateSpec) and view.spec.method != "uniform" for view in own):
        read = "Its spectra are here. " if archive().best_spectra(ref) is not None else ""
        said, page = f"{read}Choose a size and find the ranks.", "allocate"
    elif not kinds & {"compare", "evaluate", "quality"}:
        said, page = "Ranks have been found. Measure them against the other methods at the same size.", "compare"
    else:
        said, page = "It has been measured. Present the result.", "present"
    working = any(not view.final for view in archive().runs(ref=ref, samples=False))
    if not page and working:
        said = "The first job of this model is under way; see Jobs in the sidebar."
    with st.container(horizontal=True, vertical_alignment="center", key="home_next"):
        st.markdown(f":material/arrow_forward: **Next.** {said}", width="content")
        if page:
            page_link(PAGES[page].file, PAGES[page].title, PAGES[page].icon)
        elif not working:
            fetch()

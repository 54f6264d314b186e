"""What every page starts with: page settings, style, navigation, the current model and the badge of running jobs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import streamlit as st

from lrc_core.errors import LrcError
from lrc_core.escape import escaped
from lrc_core.jobs import manager
from lrc_core.kinds import title_of
from lrc_core.names import model_label
from lrc_core.paths import read_only
from lrc_core.results.archive import archive
from lrc_core.runs.spec import ModelRef
from lrc_core.runs.store import RunStore
from pages.ui import classroom
from pages.ui.shared import access, engine, state
from pages.ui.shared.prose import ASSETS, prose

_log = logging.getLogger(__name__)
PRODUCT = "Low-rank compression explorer"


@dataclass(frozen=True)
class PageInfo:
    """A page as the navigation shows it."""

    file: str
    title: str
    icon: str
    summary: str


PAGES = {
    "home": PageInfo("app.py", "Home", ":material/home:", "What this is, and the model in use"),
    "learn": PageInfo("pages/learn.py", "Learn", ":material/school:", "Eight short steps, each a picture to touch"),
    "spectra": PageInfo("pages/spectra.py", "Spectra", ":material/grid_on:", "Where each layer's information lives"),
    "allocate": PageInfo("pages/allocate.py", "Allocate", ":material/tune:", "Choose a size, learn the ranks"),
    "watch": PageInfo("pages/watch.py", "Watch", ":material/movie:", "Ranks as they are learned, live or replayed"),
    "plans": PageInfo("pages/plans.py", "Plans", ":material/edit_square:", "Make a plan by hand, beat the machine"),
    "compare": PageInfo("pages/compare.py", "Compare", ":material/balance:", "Methods side by side, as measured"),
    "talk": PageInfo("pages/talk.py", "Talk", ":material/forum:", "One prompt, several models answer side by side"),
    "runs": PageInfo("pages/runs.py", "Runs", ":material/history:", "Every job, its log and its command"),
    "present": PageInfo("pages/present.py", "Present", ":material/slideshow:", "What was measured, as slides"),
}


@st.cache_resource(show_spinner=False)
def _reconciled(root: str) -> bool:
    """Once per server: jobs whose process is gone are marked as interrupted."""
    if read_only():
        return True
    try:
        manager.reconcile()
    except (LrcError, OSError):
        _log.exception("could not reconcile the runs in %s", root)
    return True


def frame(page: str) -> ModelRef:
    """Set the page up and draw what all pages share; returns the current model.

    Args:
        page: key of the page in ``PAGES``.
    """
    access.install()
    info = PAGES[page]
    st.set_page_config(
        page_title=f"{info.title} · {PRODUCT}" if page != "home" else PRODUCT,
        page_icon=str(ASSETS / "icon.png"),  # a named icon would be fetched from the internet
        layout="wide",
        initial_sidebar_state="auto",
        menu_items={"Get help": None, "Report a bug": None, "About": PRODUCT},
    )
    st.html(ASSETS / "style.css")
    _reconciled(str(RunStore().root))
    if page != "present" and (chosen := state.returned_to(page)) is not None:
        st.switch_page(info.file, query_params=chosen)
    ref = state.current_model()
    if page == "present":
        return ref
    with st.sidebar:
        script = (ASSETS / "history.js").read_text(encoding="utf-8")
        st.html(
            f'<div class="lrc-brand">{PRODUCT}<small>See, learn and compare</small></div><script>{script}</script>',
            unsafe_allow_javascript=True,
        )
        with st.container(gap="xxsmall"):
            for key, entry in PAGES.items():
                if key == "present":
                    _present_button(page)
                    continue
                page_link(entry.file, entry.title, entry.icon, width="stretch")  # a tooltip would cover the next link
        st.space("small")
        with st.container(gap="xxsmall"):
            st.caption("Model")
            st.markdown(f"**{escaped(model_label(ref))}**")
            if page != "home" and not read_only():
                page_link("app.py", "Choose another", ":material/swap_horiz:")
        with guard():
            _job_badge()
            engine.choice()
    return ref


def _present_button(page: str) -> None:
    """Into the presentation, by click or key; a link would know no key."""
    info = PAGES["present"]
    if st.button(info.title, icon=info.icon, type="tertiary", shortcut="Alt+P", key="present_from_here"):
        kept = {key: values for key, values in state.carried().items() if key in (state.MODEL, state.REVISION)}
        st.switch_page(info.file, query_params={**kept, "pr_from": page, **state.way_back()})


def page_link(file: str, label: str, icon: str, *, query: dict[str, str] | None = None, **options: str | None) -> None:
    """A link to another page that keeps the query parameters, with some of them set."""
    parameters = {**state.carried(), **{key: [value] for key, value in (query or {}).items()}}
    st.page_link(file, label=label, icon=icon, query_params=parameters, **options)  # type: ignore[arg-type]


@st.fragment(run_every=5.0)
def _polled_badge() -> None:
    with guard():
        _badge_line()


def _job_badge() -> None:
    """Running and waiting jobs, refreshed while there are any; in the demo, that it is one."""
    if read_only():
        st.badge("Read-only demo", icon=":material/lock:", color="blue")
        text = "class" if classroom.address() else "guest" if access.is_guest() else "demo"
        st.caption(prose(text))
        return
    if any(not view.final for view in archive().runs(samples=False)):
        _polled_badge()
    else:
        _badge_line()


def _badge_line() -> None:
    """One line that says what runs and what waits."""
    views = [view for view in archive().runs(samples=False) if not view.final]
    waiting = sum(view.status.state == "queued" for view in views)
    running = len(views) - waiting
    if waiting:
        manager.keep_going()  # should the dispatcher have been killed
    words_of = f"{running} running" + (f", {waiting} waiting" if waiting else "")
    with st.container(gap="xxsmall"):
        st.caption("Jobs")
        for view in [view for view in views if view.status.state != "queued"][:1]:
            st.progress(view.status.fraction or 0.0, text=escaped(title_of(view.spec)))
        if running:
            st.badge(words_of, icon=":material/sync:", color="green")
        elif waiting:
            st.badge(f"{waiting} waiting", icon=":material/schedule:", color="orange")
        else:
            st.markdown("None running")
        if views:
            page_link(PAGES["runs"].file, "See the job" if not views[1:] else "See the jobs", PAGES["runs"].icon,
                      query={"ru_run": views[0].id})  # fmt: skip


@contextmanager
def guard() -> Iterator[None]:
    """Show what went wrong in words; the details go to the server's log, never onto the page."""
    try:
        yield
    except LrcError as error:
        show_error(error)
    except Exception:
        _log.exception("a page failed")
        st.error(
            "The details are in the server's log (the terminal that runs the app). Your runs are not affected: reload "
            "the page, and if it happens again, delete the run that is shown here on the Runs page.",
            title="This part of the page could not be drawn",
            icon=":material/error:",
        )


def show_error(error: LrcError) -> None:
    """An expected failure: what is wrong, and the remedy."""
    st.error(escaped(error.remedy) or "Nothing was lost.", title=escaped(error.message), icon=":material/error:")


def sample_note(sample: bool, *run_ids: str) -> None:
    """Where the figures on screen come from; in the demo nothing can be run in their place."""
    ids = list(dict.fromkeys(filter(None, run_ids)))
    several = "runs" if ids[1:] else "run"
    count = f"{len(ids)} runs" if ids[1:] else "one run"
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall"):
        if sample:
            said = f":orange-badge[:material/inventory_2: Sample] :small[Shipped {several} on the starter model.]"
        else:
            said = f":gray-badge[:material/folder: Runs] :small[From {count}.]"
        st.markdown(said, width="content")
        show_ids(ids, "Your own runs replace it." if sample and not read_only() else "")


def show_ids(ids: Sequence[str], note: str = "") -> None:
    """The ids of runs, to copy, behind a button: they name a folder and say nothing to a reader."""
    if not ids:
        return
    with st.popover("Ids" if ids[1:] else "Id", icon=":material/content_copy:", type="tertiary"):
        st.code("\n".join(ids), language=None, wrap_lines=True)
        st.caption(f"For `lrc runs show` and the Runs page. {note}".strip())


def empty(title: str, body: str, icon: str = ":material/hourglass_empty:") -> None:
    """The empty state of a view: what will be here and how to get it."""
    with st.container(border=True):
        st.markdown(f"## {icon} {title}")
        st.markdown(body)

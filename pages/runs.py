"""Runs: every job with its state, log, settings and command; and what the caches take."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from urllib.parse import parse_qsl

import pandas as pd
import streamlit as st

from lrc_core import visitors, words
from lrc_core.errors import LrcError
from lrc_core.escape import escaped
from lrc_core.files import folder_size
from lrc_core.jobs import cache, manager, sharing
from lrc_core.jobs.engines.placement import whereabouts
from lrc_core.kinds import KINDS, title_of
from lrc_core.names import model_label
from lrc_core.paths import cache_home, read_only
from lrc_core.results.archive import archive
from lrc_core.results.forecasts import can_be_watched
from lrc_core.results.outcomes import Outcome, measured_plans, outcome
from lrc_core.runs.spec import CompareSpec, ModelRef, QualitySpec
from lrc_core.runs.store import RunStore, RunSummary
from pages.ui.compare import report
from pages.ui.runs import next_steps
from pages.ui.shared import forms, jobs, take_away
from pages.ui.shared.frame import PAGES, empty, frame, guard, page_link
from pages.ui.shared.naming import told_apart
from pages.ui.shared.prose import prose
from pages.ui.watch import training_run

RUN, STATES, TABLE, PARTS = "ru_run", "ru_states", "ru_table", "ru_part"
PART = 200
LOG_LINES = 60


def title(summary: RunSummary) -> str:
    return title_of(summary.spec) if summary.spec is not None else "Damaged run"


def label(summary: RunSummary) -> str:
    """``LLRC at 20 % · Finished · 27 Nov, 14:05``."""
    state = jobs.state_word(summary.state)
    asked = time.strftime("%-d %b, %H:%M", time.localtime(summary.created_at)) if summary.created_at else "no date"
    return f"{title(summary)} · {state} · {asked}"


def overview(summaries: list[RunSummary]) -> pd.DataFrame:
    """One row per run and what came of it; phases only while some run is in one, places only where one is away."""
    phases = [_phase(summary) for summary in summaries]
    places = [whereabouts(summary.path) for summary in summaries]
    measured = measured_plans()
    views = [archive().job(summary.id) for summary in summaries]
    outcomes = [outcome(view, measured) if view is not None else Outcome() for view in views]
    return pd.DataFrame(
        {
            "State": [jobs.state_word(summary.state) for summary in summaries],
            "What": [title(summary) for summary in summaries],
            **({"Phase": phases} if any(phases) else {}),
            **({"Where": places} if any(places) else {}),
            "Result": [found.result for found in outcomes],
            "Quality": [found.quality for found in outcomes],
            "Asked for": pd.to_datetime([summary.created_at for summary in summaries], unit="s"),
            "Model": [model_label(summary.spec.model) if summary.spec else "" for summary in summaries],
            **_starters(summaries),
            "Id": [summary.id for summary in summaries],
        }
    )


def _starters(summaries: list[RunSummary]) -> dict[str, list[str]]:
    """Who asked for each run, where many people share the server."""
    me = visitors.visitor()
    if me is None:
        return {}
    owners = [sharing.owner_of(summary.path) for summary in summaries]
    named = {"": "the server's owner", me: "you"}
    return {"Started by": [named.get(owner) or visitors.shown(owner) for owner in owners]}


def _phase(summary: RunSummary) -> str:
    status = summary.status
    if status is None or status.final or not status.phase:
        return ""
    return status.phase + (f" {status.step}/{status.total}" if status.total else "")


def listing(summaries: list[RunSummary]) -> str:
    """The list with its filter, and the chosen run's id."""
    if made := st.session_state.pop(next_steps.MADE, None):
        st.session_state[RUN] = made
    present = list(dict.fromkeys(summary.state for summary in summaries))
    chosen_states = st.pills(
        "Show only",
        present,
        selection_mode="multi",
        format_func=lambda name: f"{jobs.state_word(name)} {sum(summary.state == name for summary in summaries)}",
        key=STATES,
        help="If none is chosen, all are shown.",
    )
    fitting = [summary for summary in summaries if summary.state in (chosen_states or present)]
    shown = _part(fitting)
    st.dataframe(
        overview(shown),
        hide_index=True,
        alt="All runs with their states",
        height=min(380, 38 + 35 * max(1, len(shown))),
        column_config={
            "Phase": st.column_config.TextColumn(width="medium"),  # measured when the first job has hardly begun
            "Asked for": st.column_config.DatetimeColumn(format="distance"),
        },
        on_select=lambda: _row_chosen([summary.id for summary in shown]),
        selection_mode="single-row",
        key=TABLE,
    )
    offered = [summary.id for summary in shown] or [summaries[0].id]
    linked = str(st.session_state.get(RUN) or st.query_params.get(RUN, ""))
    if linked not in offered and any(summary.id == linked for summary in summaries):
        offered.insert(0, linked)  # a link may name a run of another part of the list
    by_id = {summary.id: summary for summary in summaries}
    labels = told_apart({run_id: label(by_id[run_id]) for run_id in offered})
    if st.session_state.get(RUN) not in offered:
        st.session_state[RUN] = linked if linked in offered else offered[0]
    chosen = forms.one_of(st, "Look at", labels, RUN, help="Or mark a row of the table.")
    st.query_params[RUN] = chosen  # the id, which a label is not
    return chosen


def _part(summaries: list[RunSummary]) -> list[RunSummary]:
    """So many as a browser draws at once; where there are more, a choice of which."""
    parts = -(-len(summaries) // PART)
    if parts < 2:
        return summaries
    number = int(st.number_input(f"Part of {parts}, newest first", 1, parts, key=PARTS, help=f"{PART} runs each."))
    return summaries[(number - 1) * PART : number * PART]


def _row_chosen(ids: list[str]) -> None:
    """A row of the table was marked: look at its run."""
    for row in st.session_state[TABLE].selection.rows:
        if row < len(ids):
            st.session_state[RUN] = ids[row]


def detail(summary: RunSummary) -> None:
    """One run: progress, command, settings, log, and what can be done with it."""
    if summary.spec is None:
        st.error("Delete it; other runs are not affected.", title=summary.damaged, icon=":material/broken_image:")
        remove(summary)
        return
    jobs.panel(summary.id, live=training_run.allocate_live if summary.kind == "allocate" else None)
    with st.container(horizontal=True, vertical_alignment="center"):
        page, _, query = KINDS[summary.kind].page.format(id=summary.id).partition("?")
        info, link = PAGES[page], {"model": summary.spec.model.source, **dict(parse_qsl(query))}
        page_link(info.file, f"See it on {info.title}", info.icon, query=link)
        if can_be_watched(archive().job(summary.id)):
            page_link(
                "pages/watch.py", "Watch it, or export its film", ":material/movie:", query={"wa_run": summary.id}
            )
        if not read_only():
            remove(summary)
    st.markdown("**Command**")
    jobs.command(summary.spec)
    view = archive().job(summary.id)
    if view and view.done and view.kind in next_steps.SOURCES and not read_only():
        next_steps.section(view)
    if view and view.done and view.kind in next_steps.SOURCES:
        take_away.section(view.spec.model, take_away.offers_of(view), f"ru_{view.id}")
    if view and view.done and view.kind == "export":
        with guard():
            take_away.result(view)
    if isinstance(summary.spec, CompareSpec | QualitySpec) and summary.state == "done":
        with guard():
            report.section([view] if view else [], f"ru_{summary.id}")
    with st.expander("Settings", icon=":material/settings:"):
        st.code(json.dumps(summary.spec.to_dict(), indent=2, ensure_ascii=False), language="json", wrap_lines=True)
    with st.expander("Log", icon=":material/article:", expanded=summary.state in ("failed", "interrupted")):
        tail = RunStore().open(summary.id).log_tail(LOG_LINES)
        st.code(
            tail or "The log is empty.",
            language=None,
            height=320 if tail.count("\n") > 14 else "content",
            wrap_lines=True,
        )
    if not read_only() and visitors.visitor() is None:  # where it lies says nothing to whoever is elsewhere
        st.caption(f":material/folder: `{summary.path}`")


def remove(summary: RunSummary) -> None:
    """Delete with a confirmation; a run under way must be cancelled first."""
    if (summary.status is not None and not summary.status.final) or not sharing.is_own(summary.path):
        return
    with st.popover("Delete …", icon=":material/delete:"):
        st.markdown(
            f"Delete **{escaped(title(summary))}** with everything in its folder? Its plans and figures are lost."
        )
        st.button(
            "Delete for good",
            type="primary",
            key=f"ru_delete_{summary.id}",
            on_click=_delete,
            args=(summary.id, title(summary)),
        )


def _delete(run_id: str, named: str) -> None:
    try:
        manager.delete(run_id)
    except LrcError as error:
        st.toast(escaped(str(error)), icon=":material/error:", duration="long")
    else:
        st.toast(escaped(f"{named} was deleted."), icon=":material/delete:")


def _clean_pressed() -> None:
    try:
        freed = cache.clean_cache()
    except LrcError as error:
        st.toast(escaped(str(error)), icon=":material/error:", duration="long")
    else:
        st.toast(f"{words.data_size(freed)} are free again.", icon=":material/mop:")


def caches(busy: bool) -> None:
    """What can be computed again, and how much disk it takes."""
    st.header("Disk")
    entries = sorted(cache.cached(), key=lambda entry: -entry.bytes)
    total = sum(entry.bytes for entry in entries)
    root = RunStore().root
    with st.grid(4, min_column_width=150):
        st.metric("Computed, can be cleaned", words.data_size(total), help=str(cache_home()))
        st.metric("Starter pack", words.data_size(folder_size(cache_home() / "starter")))
        st.metric("Runs", words.data_size(cache.runs_size(RunStore(root))), help=str(root))
        st.metric("Free", words.data_size(shutil.disk_usage(_existing(cache_home())).free))
    st.caption(
        "Decompositions and probes are kept so that the next job on a model starts at once. They can always be "
        "computed again; runs and plans are not touched by cleaning."
    )
    if not entries:
        return
    st.dataframe(
        pd.DataFrame(
            {
                "What": [entry.words for entry in entries],
                "Model": [model_label(ModelRef(entry.model)) if entry.model else "" for entry in entries],
                "Text": [entry.texts for entry in entries],
                "Made": [words.ago(entry.made_at) if entry.made_at else "" for entry in entries],
                "Size": [words.data_size(entry.bytes) for entry in entries],
                "Id": [entry.id for entry in entries],
            }
        ),
        hide_index=True,
        alt="What is kept in the cache, with sizes",
    )
    if visitors.visitor() is not None and not visitors.rules().admin:
        return
    with st.popover("Clean …", icon=":material/mop:", disabled=busy):
        st.markdown(f"Remove **{words.data_size(total)}** of computed files? The next job computes them again.")
        st.button("Clean now", type="primary", key="ru_clean", on_click=_clean_pressed)
    if busy:
        st.caption("Jobs are under way: the cache can be cleaned when they have ended.")


def _existing(path: Path) -> Path:
    """The path or its closest parent that exists."""
    return path if path.exists() or path == path.parent else _existing(path.parent)


def body() -> None:
    st.caption(prose("runs"))
    summaries = RunStore().list()
    if summaries:
        chosen = listing(summaries)
        with guard():
            detail(next(summary for summary in summaries if summary.id == chosen))
    else:
        empty(
            "No runs yet", "Every job that you start, here or with `lrc`, is listed on this page.", ":material/history:"
        )
    if read_only():
        return  # the shipped runs are not to be deleted, and nothing is computed that could fill a disk
    with guard():
        caches(any(summary.status is not None and not summary.status.final for summary in summaries))


frame("runs")
st.title("Runs")
with guard():
    body()
jobs.rerun_if_asked()

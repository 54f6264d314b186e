"""Starting jobs and watching them. Everything shown is read from the run's folder, so a reload loses nothing."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Mapping

import streamlit as st

from lrc_core import words
from lrc_core.errors import LrcError
from lrc_core.escape import escaped
from lrc_core.jobs import manager, sharing
from lrc_core.jobs.engines.placement import whereabouts
from lrc_core.kinds import command_for, title_of
from lrc_core.paths import read_only
from lrc_core.registry import ALLOCATORS
from lrc_core.results.archive import AnyRun, archive
from lrc_core.results.identity import changed, identified, what_to_do
from lrc_core.results.outcomes import outcome
from lrc_core.results.prices import price
from lrc_core.runs.spec import AllocateSpec, Spec
from pages.ui.shared import engine
from pages.ui.shared.frame import guard, page_link, sample_note, show_error, show_ids
from pages.ui.shared.prose import prose

BADGES = {
    "queued": (":material/schedule:", "orange", "Waiting"),
    "running": (":material/sync:", "green", "Running"),
    "cancelling": (":material/hourglass_bottom:", "orange", "Stopping"),
    "cancelled": (":material/cancel:", "gray", "Cancelled"),
    "failed": (":material/error:", "red", "Failed"),
    "interrupted": (":material/power_off:", "orange", "Interrupted"),
    "done": (":material/check_circle:", "green", "Finished"),
    "damaged": (":material/broken_image:", "red", "Damaged"),
}
UPDATE_HELP = (
    "After allocating, a plan's factors are fitted in closed form to the inputs that its layers really get behind "
    "compressed layers (left, or both), or trained by gradient steps on the calibration text: block by block, each to "
    "put out what the dense one does, or all together (tuned). Ranks and size stay the same. A fit costs a few passes "
    "over the calibration text, the others as much as a short training, and the updated plan keeps its weights on disk."
)


def submit(spec: Spec, env: Mapping[str, str] | None = None, *, automatic: bool = False) -> str | None:
    """Start or join a job; returns its id, or shows why it could not be started.

    Args:
        env: environment of the job's process alone, for a token.
        automatic: nobody pressed a button for it: a run of this spec that stopped earlier stays as it is, and while it
            waits a newer wish may take its place.
    """
    try:
        with st.spinner("Checking and queueing …"):
            on = engine.chosen(spec, env)
            run = manager.submit(spec, env=env, automatic=automatic, on=on)
            if not automatic and run.status().resumable:
                run = manager.resume(run.id, env=env, on=on)
    except LrcError as error:
        show_error(error)
        return None
    return str(run.id)


def instead(of: Spec | str) -> bool:
    """In the read-only mode, draw why nothing can be started here and the command that would do it.

    Every control that starts, stops or deletes something asks this first and stays away where it is true.

    Args:
        of: the job, or the command line.

    Returns:
        Whether the mode is on.
    """
    if not read_only():
        return False
    st.caption(f":material/lock: {prose('readonly')}")
    line = of if isinstance(of, str) else command_for(of)
    # Not a code element: its highlighter is a megabyte and a half of script, for which Home's picture would wait.
    st.html(f'<code class="lrc-line">{html.escape(line)}</code>')
    return True


def price_note(spec: Spec) -> None:
    """How long the job of a button will take, where like ones have been done or nothing has to be measured."""
    if isinstance(spec, AllocateSpec) and ALLOCATORS.get(spec.method).arithmetic:
        st.caption(
            ":material/bolt: Ready as soon as the model is loaded: its ranks follow from the shapes of the layers."
        )
        return
    found = price(spec)
    said = f"{found.said[:1].upper()}{found.said[1:]}." if found else "The first one will show how long it takes."
    if engine.is_sent(spec):
        said += " It runs on the cluster, where it may take more or less time." if found else ""
    st.caption(f":material/schedule: {said}")


def offered(spec: Spec) -> bool:
    """Where a finished run or sample answers a spec already: draw what came of it in place of a button.

    Returns:
        Whether there is one; nothing needs to be started then.
    """
    view = archive().open(identified(spec).run_id)
    if view is None or not view.done:
        return False
    found = outcome(view)
    said = " · ".join(part for part in (found.result, found.quality) if part)
    with st.container(border=True):
        st.markdown(f":material/check_circle: **This has been computed already.** {escaped(said)}")
        sample_note(view.sample, view.id)
    return True


def under_way(spec: Spec) -> bool:
    """Where a job of this spec waits or runs already: draw that, and the way to it, in place of a button.

    Returns:
        Whether there is one.
    """
    if all(view.final for view in archive().runs(type(spec), spec.model, samples=False)):
        return False  # asked first: to identify a spec may take reading what it names
    view = archive().job(identified(spec).run_id)
    if view is None or view.final or not sharing.is_own(view.path):
        return False
    with st.container(horizontal=True, vertical_alignment="center"):
        state_badge(view.status.state)
        page_link("pages/runs.py", "See its progress", ":material/history:", query={"ru_run": view.id})
    return True


def state_word(state: str) -> str:
    """``Waiting``: how the app calls a state."""
    return BADGES.get(state, BADGES["damaged"])[2]


def state_badge(state: str) -> None:
    """A badge with icon, colour and word, so that colour is never alone."""
    icon, color, word = BADGES.get(state, BADGES["damaged"])
    st.badge(word, icon=icon, color=color)  # type: ignore[arg-type]


def command(spec: Spec) -> None:
    """The command line that does the same, ready to copy."""
    st.code(command_for(spec), language="bash", wrap_lines=True)


def panel(run_id: str, *, live: Callable[[AnyRun], None] | None = None, every: float = 2.0) -> None:
    """Progress of a job with its buttons; polls while the job is not final and reruns the page when it becomes so.

    Args:
        live: draws more under the progress, also refreshed.
        every: seconds between looks.
    """
    view = archive().job(run_id)
    if view is None:
        st.warning(
            "It was deleted, or the link is from another computer.",
            title=f"There is no run {escaped(run_id[:60])} here",
        )
        return
    polling = not view.final
    st.fragment(_panel, run_every=every if polling else None, key=f"panel_{run_id}")(run_id, live, polling)


def _panel(run_id: str, live: Callable[[AnyRun], None] | None, polling: bool) -> None:
    with guard():
        rerun_if_asked()
        view = archive().job(run_id)
        if view is None or polling == view.final:
            st.rerun()  # the page around shows the new state, and polling stops or starts
        with st.container(border=True, key=f"job_{run_id}"):
            _head(view)
            _progress(view)
            if live is not None:
                live(view)
            _failure(view)
            changed_note(view)


def changed_note(view: AnyRun) -> None:
    """That the model or a text on the disk is no longer what the run was computed from, where that is so."""
    if found := changed(view.spec):
        words_of = "; ".join(found)
        st.warning(
            escaped(f"{words_of[:1].upper()}{words_of[1:]}. {what_to_do(found)}"),
            title="The model or a text has changed since this run",
            icon=":material/history:",
        )


def _head(view: AnyRun) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        state_badge(view.status.state)
        st.markdown(f"**{escaped(title_of(view.spec))}**", width="content")
        show_ids([view.id])
        st.space("stretch")
        _buttons(view)


def _buttons(view: AnyRun) -> None:
    if view.sample:
        return
    if view.status.state in ("queued", "running") and sharing.is_own(view.path):
        st.button(
            "Cancel", icon=":material/stop:", key=f"cancel_{view.id}", on_click=_act, args=(manager.cancel, view.id)
        )
    elif view.status.resumable:
        st.button(
            "Resume",
            icon=":material/play_arrow:",
            key=f"resume_{view.id}",
            on_click=_act,
            args=(_resume, view.id),
        )


def _act(action: Callable[[str], object], run_id: str) -> None:
    """Call the manager from a button; a refusal is said, not raised."""
    try:
        action(run_id)
    except LrcError as error:
        st.toast(escaped(str(error)), icon=":material/error:", duration="long")
    else:
        st.session_state["rerun_page"] = True


def _resume(run_id: str) -> None:
    """Go on with a run where this tab's jobs go."""
    view = archive().job(run_id)
    manager.resume(run_id, on=engine.chosen(view.spec) if view is not None else None)


def rerun_if_asked() -> None:
    """After a button inside a fragment: redraw the whole page once, so that polling starts or stops."""
    if st.session_state.pop("rerun_page", False):
        st.rerun()


def _progress(view: AnyRun) -> None:
    status, now, place = view.status, time.time(), whereabouts(view.path)
    if place:
        st.caption(f":material/dns: {escaped(place)}")
    if status.state == "queued":
        st.caption(f"Asked for {words.ago(status.queued_at)}. {_begins(view, away=bool(place))}")
        return
    if status.final:
        if status.ended_at:
            took = status.ended_at - status.started_at
            after = f"after {words.duration(took)}" if status.started_at else "before it began"
            st.caption(f"Ended {words.ago(status.ended_at)}, {after}.")
        return
    steps = (
        f"step {status.step:,} of {status.total:,}" if status.total else f"step {status.step:,}" if status.step else ""
    )
    # What is left is known of the phase only: how many more a job has depends on what it finds done.
    left = status.eta_s(now) if status.state == "running" else None
    parts = [
        escaped(status.phase[:1].upper() + status.phase[1:]) or "Starting",
        steps,
        f"about {words.duration(left)} left of this phase" if left is not None else "",
        f"{words.duration(now - status.started_at)} so far" if status.started_at else "",
    ]
    st.progress(status.fraction or 0.0, text=" · ".join(part for part in parts if part))


def _begins(view: AnyRun, *, away: bool) -> str:
    """When a waiting job will start, and how many stand before it."""
    if away:
        return "It starts when the cluster has room for it."
    ahead = manager.queue_position(view.id)
    if not ahead:
        return "It starts when the device is free."
    return f"{ahead} {'job has' if ahead == 1 else 'jobs have'} the device first; you can close this page meanwhile."


def _failure(view: AnyRun) -> None:
    """What went wrong; of a finished job, what its worker warned of."""
    status = view.status
    warnings = [str(warning) for warning in ((view.run.result() or {}).get("warnings") or []) if view.done]
    if warnings:
        with st.expander("Notes of the run", icon=":material/notes:"):
            for warning in warnings:
                st.caption(escaped(warning))
    if status.state == "failed":
        st.error(
            escaped(status.remedy) or "The log on the Runs page says more.",
            title=escaped(status.error) or "The job failed",
        )
    elif status.state == "interrupted":
        st.warning(
            escaped(status.remedy) or "Resume the run; it goes on from its checkpoint.",
            title=escaped(status.error) or "Its process is gone",
        )

"""Where the jobs of this tab go, on a server that was started with a cluster's profile (``lrc app --profile``)."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from lrc_core.jobs import generator
from lrc_core.jobs.engines.profile import LOCAL, Profile, chosen_profile
from lrc_core.kinds import KINDS
from lrc_core.paths import read_only
from lrc_core.runs.spec import Spec
from pages.ui.shared import forms

KEY = "on"
"""Key of the control and query parameter."""


def cluster() -> Profile | None:
    """The profile that the server was started with; None where it names no cluster, or nothing can be started.

    Raises:
        SettingsError: its file is no longer what it was.
    """
    if read_only():
        return None
    found = chosen_profile("", "")
    return found if found.engine != LOCAL else None


def choice() -> None:
    """The sidebar's control: this computer or the cluster. Nothing where there is no choice."""
    found = cluster()
    if found is None:
        return
    forms.pick(
        st,
        "New jobs run on",
        {found.engine: found.engine.capitalize(), LOCAL: "This computer"},
        found.engine,
        KEY,
        bind="query-params",
        help=f"{asked(found)} Downloads, answers on Talk, and jobs with a token of their own stay on this computer.",
    )


def chosen(spec: Spec, env: Mapping[str, str] | None = None) -> Profile | None:
    """Where a job is sent; None where the server has no cluster.

    Args:
        spec: the job. One that needs no device, or whose answer is waited for word by word, stays here.
        env: environment of its process alone. A token is never sent, so a job with one stays here.
    """
    found = cluster()
    if found is None:
        return None
    stays = bool(env) or KINDS[spec.kind].light or spec.kind in generator.KINDS
    return Profile() if stays or st.session_state.get(KEY) == LOCAL else found


def is_sent(spec: Spec) -> bool:
    """Whether a job of this tab goes to the cluster."""
    found = chosen(spec)
    return found is not None and found.engine != LOCAL


def asked(profile: Profile) -> str:
    """What each job asks of the cluster, as a sentence."""
    sizes = [
        f"{number} {name}{'s' if number != 1 else ''}"
        for number, name in ((profile.cpus, "CPU"), (profile.gpus, "GPU"))
        if number
    ]
    sizes += [f"{profile.memory_gb} GB of memory"] if profile.memory_gb else []
    sizes += [f"{profile.minutes} minutes"] if profile.minutes else []
    where = f" in the partition {profile.partition}" if profile.partition else ""
    return f"A job on {profile.engine.capitalize()} asks for {', '.join(sizes)}{where}."

"""Whether a model's blocks are brought in one after the other: what the user says, and where memory decides. No torch."""

from __future__ import annotations

import os

from lrc_core.errors import SettingsError

MODES = ("auto", "never", "blocks")
"""When memory does not suffice for the whole model; never; always."""
ONLOAD = "LRC_ONLOAD"
"""Environment variable of a worker that says which. It is no part of a run, whose results are the same either way."""


def onload_mode() -> str:
    """What the environment says, one of :data:`MODES`.

    Raises:
        SettingsError: it says something else.
    """
    found = os.environ.get(ONLOAD, "") or MODES[0]
    if found not in MODES:
        raise SettingsError(f"{ONLOAD} is {found!r}.", f"Set it to one of {', '.join(MODES)}.")
    return found

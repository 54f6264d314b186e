"""Whether a model's blocks are brought in one after the other: as the user says, or as memory decides. No torch."""

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


LAYER_LOCAL = (
    "Block after block, in the memory of one, go spectra, every decomposition, the methods uniform, drank and svdllm2, "
    "lagrangian on the decomposition kfac, updates in closed form and block by block, perplexity and export."
)
"""What would do instead."""

"""Consent to run a model's own code or to load its pickled weights: for one source at one revision, never for more.

On the command line it is a flag of that command. For the app it is given to the server, by whoever starts it::

    LRC_TRUST_REMOTE_CODE=owner/name@COMMIT LRC_ALLOW_PICKLE=/models/old make app

Neither a visitor nor a link can give it. Of a hub model it names the commit, since a branch may hold something else
tomorrow.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace

from lrc_core.errors import ModelError
from lrc_core.runs.spec import ModelRef

TRUST_REMOTE_CODE, ALLOW_PICKLE = "LRC_TRUST_REMOTE_CODE", "LRC_ALLOW_PICKLE"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def entry_of(ref: ModelRef) -> str:
    """How the environment names a model: ``SOURCE``, or ``SOURCE@REVISION``."""
    return f"{ref.source}@{ref.revision}" if ref.revision else ref.source


def with_given(ref: ModelRef) -> ModelRef:
    """The model with the consents that this process's environment gives for exactly this source and revision."""
    return replace(ref, trust_remote_code=_given(TRUST_REMOTE_CODE, ref), allow_pickle=_given(ALLOW_PICKLE, ref))


def is_commit(revision: str) -> bool:
    """Whether a revision of a hub model is a commit, which never changes."""
    return _COMMIT.fullmatch(revision) is not None


def require_commit(ref: ModelRef, commit: str) -> None:
    """Refuse a consent that is not for a commit of a hub model.

    Args:
        ref: a hub model.
        commit: what its revision stands for today.

    Raises:
        ModelError: names the commit to look at and to consent to.
    """
    if (ref.trust_remote_code or ref.allow_pickle) and not is_commit(ref.revision):
        raise ModelError(
            f"{entry_of(ref)} may hold other code tomorrow, so consent to it has to name the commit.",
            f"Today it is {commit}: look at what it holds, and give it as the revision (--revision {commit}).",
        )


def _given(variable: str, ref: ModelRef) -> bool:
    entries = (entry.strip() for entry in os.environ.get(variable, "").split(","))
    return bool(ref.source) and entry_of(ref) in entries

"""Which model the pages talk about: in the URL, so that a link says it, and in one small file, to be remembered.

Consents (running a model's own code, loading pickled weights) come from the server's environment: neither a link nor a
visitor gives them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import streamlit as st

from lrc_core.errors import LrcError, RecordError
from lrc_core.files import make_private, write_json
from lrc_core.models import consent
from lrc_core.paths import read_only, runs_home
from lrc_core.quality.card import CURRENCY, PRICE
from lrc_core.records import load_record
from lrc_core.runs.spec import ModelRef

MODEL, REVISION = "model", "revision"
RATE = "rate"
"""Key and query parameter of the compression slider, in whole percent; shared by Allocate and Spectra on purpose."""
DEFAULT_RATE = 20
QUIET_S = 2.0
"""How long the slider must rest before a job starts automatically."""
_LONGEST_SOURCE = 400
_LONGEST_QUERY = 4000
_SESSION = "app_settings"


def settings_path() -> Path:
    """The user's small settings file, beside the run folders."""
    return runs_home() / ".app-settings.json"


def read_settings() -> dict[str, Any]:
    """The remembered settings; empty when there are none or the file is damaged.

    In the read-only mode they are remembered in the tab alone.
    """
    if read_only():
        return dict(st.session_state.get(_SESSION, {}))
    try:
        data = load_record(settings_path())
    except RecordError:
        return {}
    return data if isinstance(data, dict) else {}


def write_settings(**changes: Any) -> None:
    """Change some settings, keeping the others. A disk that cannot be written costs the memory, not the page."""
    if read_only():
        st.session_state[_SESSION] = {**read_settings(), **changes}
        return
    path = settings_path()
    try:
        make_private(path.parent)
        write_json(path, {**read_settings(), **changes})
    except (OSError, LrcError):
        st.toast("Your choice could not be saved to disk; it holds for this tab only.", icon=":material/warning:")


def price() -> tuple[float, str]:
    """What a GB of memory costs a month, and its currency: as last set on a card, else a usual price."""
    settings = read_settings()
    found = settings.get("price_per_gb")
    usable = float(found) if isinstance(found, int | float) and 0 <= found <= 1e6 else PRICE
    return usable, str(settings.get("currency") or CURRENCY)[:4]


def current_model() -> ModelRef:
    """The model of this tab: the URL's, else the remembered one, else the starter. Writes it into the URL."""
    remembered = read_settings()
    source = str(st.query_params.get(MODEL, ""))[:_LONGEST_SOURCE].strip()
    revision = str(st.query_params.get(REVISION, ""))[:_LONGEST_SOURCE].strip()
    if not source:
        last = remembered.get("model") or {}
        source, revision = str(last.get("source") or "starter"), str(last.get("revision") or "")
        show_in_url(ModelRef(source, revision))  # the starter too: another tab may choose another model meanwhile
    return consent.with_given(ModelRef(source, revision))


def show_in_url(ref: ModelRef) -> None:
    """Put a model into the query parameters."""
    st.query_params[MODEL] = ref.source
    if ref.revision:
        st.query_params[REVISION] = ref.revision
    elif REVISION in st.query_params:
        del st.query_params[REVISION]


def choose_model(ref: ModelRef) -> None:
    """Make a model the current one, here and at the next start."""
    write_settings(model={"source": ref.source, "revision": ref.revision})
    show_in_url(ref)


PRESENTED = "presented_from"
"""Key of what :func:`remember_presented` keeps in the tab."""
_BACK = "pr_back"


def way_back() -> dict[str, str]:
    """Query parameter for a link into the presentation that holds what is chosen on this page.

    It goes in one piece: the presentation has none of this page's widgets, and Streamlit drops the parameters of
    widgets that are not drawn.
    """
    kept = {key: values for key, values in carried().items() if not key.startswith("pr_")}
    return {_BACK: urlencode(kept, doseq=True)}


def chosen_before() -> dict[str, list[str]]:
    """What was chosen on the page that the presentation was started from."""
    here = {key: values for key, values in carried().items() if not key.startswith("pr_")}
    return {**here, **parse_qs(str(st.query_params.get(_BACK, ""))[:_LONGEST_QUERY])}


def remember_presented(page: str) -> None:
    """Keep in the tab where the presentation was started: the browser's own way back brings no parameters along."""
    st.session_state[PRESENTED] = (page, chosen_before())


def returned_to(page: str) -> dict[str, list[str]] | None:
    """What to choose again when a page is reached from the presentation by the browser's way back; None else."""
    presented = st.session_state.pop(PRESENTED, None)
    if presented is None or presented[0] != page or all(carried().get(key) == v for key, v in presented[1].items()):
        return None
    return dict(presented[1])


def carried() -> dict[str, list[str]]:
    """Query parameters for a link to another page: all of them, so that coming back finds everything as it was."""
    return {key: st.query_params.get_all(key) for key in st.query_params}

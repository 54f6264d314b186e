"""Whose session this is: the owner's, who may do everything, or a guest's, who sees the read-only demo.

On loopback without ``--token`` everybody is the owner. Otherwise the owner is who came by the link with the token.
"""

from __future__ import annotations

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner_utils.script_run_context import get_script_run_ctx

from lrc_core import paths
from pages.ui import gate


def is_guest() -> bool:
    """Whether this script run serves somebody without the token. The server's own threads are no guests."""
    context = get_script_run_ctx(suppress_warning=True)
    if context is None or not runtime.exists():
        return False
    if gate.served is None:  # started without us: by `streamlit run`
        return not gate.is_loopback(str(st.get_option("server.address") or ""))
    client = runtime.get_instance().get_client(context.session_id)
    shown = client.client_context if client else None
    return not gate.served.opened_by(shown.cookies if shown else {})


def install() -> None:
    """From now on guests only read."""
    paths.guests_only_read(is_guest)

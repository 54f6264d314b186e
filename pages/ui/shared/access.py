"""Whose session this is: the owner's, who may do everything, or a guest's, who sees the read-only demo.

On loopback without ``--token`` everybody is the owner. Otherwise the owner is who came by the link with the token. On
a server that is shared whoever came by it is a visitor, who is bound by :mod:`lrc_core.visitors`.
"""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner_utils.script_run_context import get_script_run_ctx

from lrc_core import paths, visitors
from pages.ui import gate


def is_guest() -> bool:
    """Whether this script run serves somebody without the token. The server's own threads are no guests."""
    context = get_script_run_ctx(suppress_warning=True)
    if context is None or not runtime.exists():
        return False
    if gate.served is None:  # started without us: by `streamlit run`
        return not gate.is_loopback(str(st.get_option("server.address") or ""))
    return not gate.served.opened_by(_cookies(context.session_id))


def visitor() -> str | None:
    """The key of the browser that this script run serves on a shared server; None elsewhere, and in other threads."""
    context = get_script_run_ctx(suppress_warning=True)
    if gate.served is None or context is None or not runtime.exists():
        return None
    return gate.served.visitor(_cookies(context.session_id))


def install(rules: visitors.Rules | None = None) -> None:
    """From now on guests only read, and where there are ``rules`` for them everybody else is a visitor."""
    paths.guests_only_read(is_guest)
    if rules is not None:
        visitors.share(rules, visitor)


def _cookies(session: str) -> Mapping[str, str]:
    client = runtime.get_instance().get_client(session)
    shown = client.client_context if client else None
    return shown.cookies if shown else {}

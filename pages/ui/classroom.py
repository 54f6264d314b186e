"""A server for a class: an address that every device in the room can open, and the QR code of it.

No Streamlit: the server imports this before it.
"""

from __future__ import annotations

import io
import os
import socket
from urllib.parse import urlencode, urlsplit

import segno

CLASS = "LRC_CLASS"
"""Environment variable that holds the address; set by ``python -m pages.ui.serve --class``."""


def network_address() -> str:
    """This machine's address on the local network; its own one where it has no network. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address of no one: only the way to it is looked up
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def address() -> str:
    """What others open, without a path; "" where this is no class."""
    return os.environ.get(CLASS, "")


def link(page: str = "", **query: str | int) -> str:
    """A link that opens on every device of the class; "" where this is no class.

    Args:
        page: path of the page, "" for Home.
        query: its query parameters.
    """
    if not address():
        return ""
    asked = f"?{urlencode(query)}" if query else ""
    return f"{address().rstrip('/')}/{page}{asked}"


def reachable(url: str) -> bool:
    """Whether other devices can open an address: a loopback one is each device's own."""
    return (urlsplit(url).hostname or "") not in ("127.0.0.1", "localhost", "::1", "")


def qr_picture(target: str) -> str:
    """The QR code of a link as SVG, black on white in both themes, which scanners expect."""
    code = segno.make(target, error="m", micro=False)
    drawn: str = code.svg_inline(scale=5, border=4, dark="#000", light="#fff", omitsize=True)
    label = 'role="img" aria-label="QR code of the address" style="max-width:16rem"'
    return drawn.replace("<svg ", f"<svg {label} ", 1)


def qr_text(target: str) -> str:
    """The same in characters, for the terminal that a beamer may show."""
    out = io.StringIO()
    segno.make(target, error="m", micro=False).terminal(out, compact=True)
    return out.getvalue()

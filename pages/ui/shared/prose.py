"""What pages take from assets: prose, and components of our own."""

from __future__ import annotations

from functools import cache

import streamlit as st
from streamlit.components.v2.types import ComponentRenderer

from lrc_core.paths import assets, start_command

ASSETS = assets()


@cache
def prose(name: str) -> str:
    """A text of assets/text with its lines joined, paragraphs kept; it names the commands that there are here."""
    written = (ASSETS / "text" / f"{name}.md").read_text(encoding="utf-8")
    paragraphs = written.replace("make app", start_command("app")).strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def component(name: str, stem: str, html: str = "", css: str = "", js: str = "") -> ComponentRenderer:
    """A component of our own: script and style of ``assets/<stem>``, behind the parts that it shares with others."""
    style = ASSETS / f"{stem}.css"
    css += style.read_text(encoding="utf-8") if style.is_file() else ""
    js += (ASSETS / f"{stem}.js").read_text(encoding="utf-8")
    return st.components.v2.component(name, html=html or None, css=css or None, js=js)

"""Runs and files by names that people give: what it is and when it was made. Ids are for looking things up."""

from __future__ import annotations

import mimetypes
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import streamlit as st

from lrc_core.kinds import title_of
from lrc_core.results.archive import AnyRun, RunView


def when(view: RunView[Any]) -> str:
    """``27 Nov, 14:05``, or that it is a sample."""
    if view.sample:
        return "sample"
    status = view.status
    moment = status.ended_at or status.started_at or status.created_at
    return time.strftime("%-d %b, %H:%M", time.localtime(moment)) if moment else "no date"


def told_apart(labels: Mapping[str, str]) -> dict[str, str]:
    """The same labels by id; those that are alike get the end of their ids."""
    count = Counter(labels.values())
    return {key: label if count[label] == 1 else f"{label} · …{key[-4:]}" for key, label in labels.items()}


def run_labels(views: Iterable[AnyRun]) -> dict[str, str]:
    """``Learn ranks, LLRC at 30 % · 27 Nov, 14:05`` by id."""
    return told_apart({view.id: f"{title_of(view.spec)} · {when(view)}" for view in views})


def file_name(*parts: str, ending: str) -> str:
    """A name for a download: ``smollm2-135m-llrc-20-percent-removed.json``."""
    text = "-".join(part for part in parts if part).lower().replace("%", "percent")
    return f"{re.sub('[^a-z0-9]+', '-', text).strip('-')[:120] or 'file'}.{ending}"


def download(label: str, content: Any, name: str, **more: Any) -> None:
    """A button that hands over a file of that name; a function as its content is called when it is pressed."""
    more.setdefault("icon", ":material/download:")
    st.download_button(label, content, name, mimetypes.guess_type(name)[0], on_click="ignore", **more)

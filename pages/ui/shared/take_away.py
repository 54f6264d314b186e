"""Take it away: a plan on its model as a folder, on every page that shows finished plans."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from lrc_core.escape import escaped
from lrc_core.kinds.words.flags import model_words
from lrc_core.paths import expanded
from lrc_core.results.answers import plans_of
from lrc_core.results.archive import AnyRun, archive
from lrc_core.results.plans import PlanSource, find_plan
from lrc_core.runs.spec import FORMS, PRECISIONS, CalibrationSpec, ExportSpec, ModelRef
from lrc_core.runs.store import RunStore
from lrc_core.words import data_size, percent
from pages.ui.shared import forms, jobs
from pages.ui.shared.frame import empty, guard

ICON = ":material/archive:"
_FORMS = {"lowrank": "Small, for transformers", "dense": "Dense twin, loads anywhere"}
_PRECISIONS = {
    "auto": "As files, or as held here",
    "float32": "float32",
    "bfloat16": "bfloat16",
    "float16": "float16",
}


@dataclass(frozen=True)
class Offer:
    """A plan that can be taken away.

    Attributes:
        label: as a list offers it.
        words: what finds it on the command line.
        find: reads it; raises an error of the program where it has gone.
        keep: puts it where ``words`` find it, before it is exported.
    """

    label: str
    words: str
    find: Callable[[], PlanSource]
    keep: Callable[[], object] = lambda: None


def offer_of(words: str, label: str) -> Offer:
    """The plan of a run, by what names it."""
    return Offer(label, words, lambda: find_plan(words, RunStore()))


def offers_of(view: AnyRun) -> list[Offer]:
    """Plans of a finished run: its final one, then those that it recorded on its way."""
    found = sorted(plans_of(view), key=lambda choice: choice.key != view.id)
    return [offer_of(choice.key, choice.label) for choice in found]


def section(ref: ModelRef, offers: Sequence[Offer], key: str) -> None:
    """A fold: choose plan and form, start the export, and see the folders that were made of the plan."""
    fold = st.expander("Take it away", icon=ICON, key=f"{key}_take_away", bind="query-params")
    if not fold.open:  # plans are read for those who look
        return
    with fold, guard():
        if not offers:
            empty("No plan to take away yet", "A finished plan becomes a folder that other software loads.", ICON)
            return
        _form(ref, offers, key)


def _form(ref: ModelRef, offers: Sequence[Offer], key: str) -> None:
    st.caption(
        "The compressed model as a Hugging Face folder: configuration, weights, tokenizer, model card. It is loaded "
        "again in another process and compared before it is called finished."
    )
    number = 0
    if len(offers) > 1:
        labels = [offer.label for offer in offers]
        number = st.selectbox("Plan", range(len(offers)), format_func=labels.__getitem__, key=f"{key}_take_plan")
    offer = offers[number]
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    form = forms.pick(
        left, "Form", _FORMS, FORMS[0], f"{key}_take_form",
        help="The small form keeps the low-rank layers. The twin multiplies them out: every program loads it, and it "
        "is as large as the original.",
    )  # fmt: skip
    dtype = right.selectbox("Precision", PRECISIONS, format_func=_PRECISIONS.__getitem__, key=f"{key}_take_dtype")
    line = ["lrc", "export", offer.words, *model_words(ref)]
    line += [*(["--form", form] if form != FORMS[0] else []), *(["--dtype", dtype] if dtype != "auto" else [])]
    if jobs.instead(shlex.join([*line, "--to", "FOLDER"])):
        return
    place = st.text_input(
        "Folder", key=f"{key}_take_to", placeholder="inside the run", help="A new folder on the computer of the server."
    )
    to = os.path.abspath(expanded(place.strip())) if place.strip() else ""
    if st.button("Export", type="primary", icon=ICON, key=f"{key}_take_start"):
        offer.keep()
        found = offer.find()
        spec = ExportSpec(ref, found.plan, found.folder, found.calibration or CalibrationSpec(), to, form, dtype)
        if jobs.submit(spec):
            st.rerun()
    st.code(shlex.join([*line, *(["--to", to] if to else [])]), language="bash", wrap_lines=True)
    plan = offer.find().plan
    for view in archive().runs(ExportSpec, ref, samples=False):
        if dict(view.spec.plan) != plan:
            continue
        jobs.panel(view.id)
        if view.done:
            result(view)


def result(view: AnyRun) -> None:
    """The folder of a finished export: where it is, how large, and how it is loaded."""
    found = view.run.result() or {}
    folder = Path(str(found.get("folder", "")))
    if not folder.is_dir():
        st.warning(
            "Delete the run on the Runs page and export the plan again.",
            title=escaped(f"The folder {folder} is gone"),
            icon=":material/folder_off:",
        )
        return
    share = percent(found["weight_bytes"] / found["base_weight_bytes"])
    check = found["check"]
    same = "every logit has the same bits" if check["equal"] else "logits agree within rounding"
    st.markdown(
        f"**{data_size(found['folder_bytes'])}** on the disk; its weights are {share} of the original's as "
        f"{escaped(found['dtype'])}. Loaded again in another process, {same}."
    )
    st.code(str(folder), language=None, wrap_lines=True)
    for way in found["ways"]:
        st.markdown(f"**{escaped(way['title'])}**")
        st.code(way["code"], language=way["language"], wrap_lines=True)

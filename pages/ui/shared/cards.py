"""The model card, and the picker with its pre-flight."""

from __future__ import annotations

import html
import shlex
from typing import Any

import pandas as pd
import streamlit as st

from lrc_core import words
from lrc_core.coverage import coverage_words
from lrc_core.errors import LrcError
from lrc_core.escape import escaped
from lrc_core.models import consent
from lrc_core.models.onload.memory import Shapes
from lrc_core.models.pack.starter import PartStatus, pack_status
from lrc_core.models.preflight import preflight
from lrc_core.models.source import is_path
from lrc_core.paths import start_command
from lrc_core.quality.footprint import served
from lrc_core.quality.published import published_words
from lrc_core.quality.sizing import MEMORIES, context_words, fitting_words, sizings
from lrc_core.runs.spec import ModelRef, SpectraSpec
from lrc_core.types import ModelCard
from pages.ui.shared import forms, jobs, state
from pages.ui.shared.frame import show_error
from pages.ui.shared.prose import prose

SOURCES = {
    "starter": ("Starter model", ":material/star:"),
    "folder": ("Folder", ":material/folder_open:"),
    "gguf": ("GGUF file", ":material/description:"),
    "hub": ("Hugging Face Hub", ":material/cloud_download:"),
    "config": ("Only a config.json", ":material/data_object:"),
}


def facts(entries: list[tuple[str, str, str]]) -> None:
    """Figures in a grid that reflows: (name, value, note)."""
    cells = "".join(
        f'<div><div class="k">{html.escape(name)}</div><div class="v">{html.escape(value)}</div>'
        f'<div class="n">{html.escape(note)}</div></div>'
        for name, value, note in entries
    )
    st.html(f'<div class="lrc-facts">{cells}</div>')


def model_card(card: ModelCard) -> None:
    """What a model is, in figures."""
    facts(
        [
            ("Model", card.name, card.identity.architecture),
            ("Parameters", words.count(card.params_total), f"{card.params_total:,}"),
            (
                "In block linears",
                words.percent(card.params_linear / card.params_total, 0),
                f"{words.count(card.params_linear)} can be compressed",
            ),
            ("Size", words.data_size(card.params_total * served(card).dtype_bytes), f"{served(card).dtype}, as served"),
            ("Blocks", str(card.n_blocks), f"{len(card.layers)} linear layers"),
            ("Width", f"{card.hidden_size:,}", f"{card.vocab_size:,} tokens, {card.max_positions:,} positions"),
        ]
    )
    coverage(card)


def coverage(card: ModelCard | None) -> None:
    """What shares that are kept are shares of, where not all of the blocks can be compressed."""
    if card is not None and (said := coverage_words(card.coverage)):
        st.caption(f":material/info: {said}")


def _kind_of(ref: ModelRef) -> str:
    if ref.source == "starter":
        return "starter"
    if ref.source.lower().endswith(".gguf"):
        return "gguf"
    return "folder" if is_path(ref.source) else "hub"


def picker(current: ModelRef) -> None:
    """Choose a model, look at it before anything is fetched, and start."""
    if jobs.instead(SpectraSpec(model=current)):
        return
    first = _kind_of(current)
    names = {name: f"{icon} {label}" for name, (label, icon) in SOURCES.items()}
    kind = forms.pick(st, "Where is the model?", names, first, "home_source")
    if kind == "config":
        _configuration()
        return
    ref, token = _reference(kind, current if kind == first else ModelRef(source=""))
    with st.container(horizontal=True, vertical_alignment="center"):
        check = st.button("Check", icon=":material/fact_check:", key="home_check", disabled=not ref.source)
        use = st.button("Use this model", icon=":material/done:", key="home_use", disabled=not ref.source)
        start = st.button(
            "Read its spectra" if _lies_here(kind, ref) else "Fetch it and read its spectra",
            icon=":material/play_arrow:",
            type="primary",
            key="home_start",
            disabled=not ref.source,
            help="Starts a background job: it fetches what is missing, then decomposes every layer.",
        )
    if ref.source and not jobs.under_way(SpectraSpec(model=ref)):
        jobs.price_note(SpectraSpec(model=ref))
    if check or use or start:
        st.session_state["home_checked"] = ref
    usable = bool(token)  # a model that only the job's process may see is looked at there
    if st.session_state.get("home_checked") == ref and ref.source:
        usable = _preflight(ref) or usable
    if not usable:
        return
    if use or start:
        state.choose_model(ref)
    if start:
        run_id = jobs.submit(SpectraSpec(model=ref), {"HF_TOKEN": token} if token else None)
        if run_id:
            st.session_state["home_run"] = run_id
            st.rerun()
    elif use:
        st.rerun()


def _lies_here(kind: str, ref: ModelRef) -> bool:
    """Whether nothing has to be fetched before it can be read."""
    if kind == "hub":
        return bool(ref.source) and _cached(ref)
    return _starter_model().present if kind == "starter" else True


@st.cache_data(ttl=60, max_entries=16, show_spinner=False)
def _cached(ref: ModelRef) -> bool:
    from lrc_core.models.hub import cached_snapshot  # its library takes a while to import

    return cached_snapshot(ref) is not None


def _starter_model() -> PartStatus:
    return next(part for part in pack_status() if part.name == "model")


def _starter_words() -> str:
    model = _starter_model()
    if model.present:
        return f"{words.data_size(model.bytes)} on this computer, nothing to download"
    return f"{words.data_size(model.download_bytes)} to download, once; checked, then unpacked"


def _reference(kind: str, current: ModelRef) -> tuple[ModelRef, str]:
    """The widgets of one kind of source; returns what they say and the token, which is never stored."""
    if kind == "starter":
        st.caption(f"SmolLM2-135M, part of the starter pack: {_starter_words()}.")
        return ModelRef(), ""
    if kind in ("folder", "gguf"):
        label = "Folder with config.json and safetensors" if kind == "folder" else "GGUF file"
        example = "/models/my-model" if kind == "folder" else "/models/my-model.Q8_0.gguf"
        path = st.text_input(label, value=current.source, placeholder=example, key=f"home_path_{kind}").strip()
        return _with_consents(ModelRef(path)) if kind == "folder" else ModelRef(path), ""
    left, right = st.columns([3, 2])
    source = left.text_input(
        "Model id", value=current.source, placeholder="HuggingFaceTB/SmolLM2-360M", key="home_hub_id"
    ).strip()
    revision = right.text_input(
        "Revision", value=current.revision, placeholder="main", key="home_hub_revision", help="Branch, tag or commit."
    ).strip()
    token = st.text_input(
        "Access token (only for gated or private models)",
        type="password",
        key="home_hub_token",
        help="Handed to the job's process alone; never written to disk, to the URL or to a log.",
    ).strip()
    return _with_consents(ModelRef(source, revision)), token


def _with_consents(ref: ModelRef) -> ModelRef:
    """The model with the permissions that the server was started with, and where they come from."""
    given = consent.with_given(ref)
    # A branch may hold something else tomorrow, so that consent to it would be refused.
    named = is_path(ref.source) or consent.is_commit(ref.revision)
    entry = consent.entry_of(ref) if named else f"{ref.source}@COMMIT"
    with st.expander("Permissions for this model", icon=":material/shield:"):
        st.caption(prose("consents"))
        for word, variable, yes in (
            ("Running the model's own code", consent.TRUST_REMOTE_CODE, given.trust_remote_code),
            ("Loading weights that are not safetensors", consent.ALLOW_PICKLE, given.allow_pickle),
        ):
            st.markdown(f"{word}: **{'allowed' if yes else 'not allowed'}**")
            if not yes and ref.source:
                st.code(f"{variable}={shlex.quote(entry)} {start_command('app')}", language=None, wrap_lines=True)
    return given


@st.cache_data(ttl=60, max_entries=16, show_spinner="Looking at the model …")
def _checked(ref: ModelRef) -> Any:
    return preflight(ref)


def _preflight(ref: ModelRef) -> bool:
    """What is known before fetching: exists, size, architecture, memory, disk. Estimates are marked as such.

    Returns:
        Whether there is such a model. One that is too large to load can still be chosen, and be streamed.
    """
    try:
        report = _checked(ref)
    except LrcError as error:
        show_error(error)
        return False
    if not report.exists:
        for problem in report.problems or ("There is no such model.",):
            st.error(escaped(problem), icon=":material/block:")
        return False
    with st.container(border=True):
        entries = [
            ("Found", "yes", str(report.kind)),
            ("Architecture", report.architecture or "–", f"{report.n_blocks or '–'} blocks"),
            ("Parameters", words.count(report.params) if report.params else "–", ""),
            ("Weights", words.data_size(report.weight_bytes) if report.weight_bytes else "–", "as stored"),
            ("Memory", _need(report.memory_needed), f"{_have(report.memory_available)} free"),
            ("Disk", _need(report.disk_needed), f"{_have(report.disk_available)} free"),
        ]
        facts(entries)
        for problem in report.problems:
            st.error(escaped(problem), icon=":material/block:")
        for warning in report.warnings:
            st.warning(escaped(warning), icon=":material/warning:")
        if not report.problems:
            st.caption(":material/check: No problems found. Memory and disk are estimates.")
        if report.sizes is not None:
            _sizes(report.sizes, "" if report.kind == "starter" else published_words(report.params))
    return True


def _configuration() -> None:
    """What can be said of a model that is not here, by its configuration alone."""
    given = st.file_uploader("config.json of any causal language model", type="json", key="home_config")
    if given is None:
        st.caption("Nothing is downloaded and nothing is loaded: its shapes follow from this file.")
        return
    try:
        with st.spinner("Reading the configuration …"):
            shapes = _configured(given.getvalue())
    except LrcError as error:
        show_error(error)
        return
    with st.container(border=True):
        facts(
            [
                ("Parameters", words.count(shapes.params), f"{shapes.params:,}"),
                ("In block linears", words.percent(shapes.linear / shapes.params, 0), "can be compressed"),
                ("Blocks", str(len(shapes.blocks)), f"{sum(map(len, shapes.blocks))} linear layers"),
                ("Width", f"{shapes.hidden:,}", f"{shapes.vocabulary:,} tokens"),
            ]
        )
        _sizes(shapes, published_words(shapes.params))


@st.cache_data(ttl=600, max_entries=16, show_spinner=False)
def _configured(data: bytes) -> Shapes:
    from lrc_core.models.weights.configured import shapes_of_configuration  # torch

    return shapes_of_configuration(data)


def _sizes(shapes: Shapes, quality: str) -> None:
    """A row for every rate: its bytes as it is served, and the cards that hold it while it answers."""
    found = sizings(shapes)
    st.markdown(f"**{fitting_words(found)}**")
    st.dataframe(
        pd.DataFrame(
            [
                {
                    "As it is served": one.name,
                    "Weights": words.data_size(one.size.weights),
                    "With cache": words.data_size(one.size.total),
                    **{f"{memory} GB": "fits" if one.fits(memory) else "–" for memory in MEMORIES},
                }
                for one in found
            ]
        ),
        hide_index=True,
        alt="Bytes at every rate, and the graphics cards that hold the model",
    )
    st.caption(f"Counted from shapes, in 16 bits, for {context_words(shapes)}. {quality}")


def _need(amount: int | None) -> str:
    return f"≈ {words.data_size(amount)}" if amount else "–"


def _have(amount: int | None) -> str:
    return words.data_size(amount) if amount else "–"


def fetch_button(ref: ModelRef) -> None:
    """Start the job that a page without data needs."""
    if jobs.instead(SpectraSpec(model=ref)):
        return
    pressed = st.button("Read this model's spectra", icon=":material/play_arrow:", type="primary", key="start_spectra")
    jobs.price_note(SpectraSpec(model=ref))
    if pressed and jobs.submit(SpectraSpec(model=ref)):
        st.rerun()

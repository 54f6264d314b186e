"""Folders of other projects: compressed weights on this computer become a plan with weights on the chosen model."""

from __future__ import annotations

import os
import shlex

import streamlit as st

from lrc_core.escape import escaped
from lrc_core.kinds import command_for
from lrc_core.paths import expanded
from lrc_core.results.archive import archive
from lrc_core.runs.spec import AdoptSpec, ModelRef
from pages.ui.shared import jobs
from pages.ui.shared.frame import guard, page_link

FOLDER, START, FOLD, NAMED = "pl_folder", "pl_folder_start", "pl_folder_fold", "pl_folder_run"


def section(ref: ModelRef) -> None:
    """A fold: name the folder, start the import, and go on with what came of it."""
    fold = st.expander("Import a compressed folder", icon=":material/drive_folder_upload:", key=FOLD)
    with fold, guard():
        _form(ref)
        named = st.query_params.get(NAMED, "")
        runs = archive().runs(AdoptSpec, ref, samples=False)
        shown = next((view for view in runs if view.id == named), None)
        shown = shown or next((view for view in runs if not view.final), None)
        if shown is None:
            return
        jobs.panel(shown.id)
        if shown.done:
            details = (shown.run.result() or {}).get("details", {})
            st.markdown(
                f"{details.get('layers', 0)} layers of {escaped(str(details.get('project', '')))} are a plan with its "
                "own weights now: measure, update or export it from its run."
            )
            page_link("pages/runs.py", "Go on with it", ":material/forward:", query={"ru_run": shown.id})


def _form(ref: ModelRef) -> None:
    st.caption(
        "What LEMS, ASVD, SVD-LLM, Zero Sum SVD or `lrc export` wrote, made of the model chosen above. The factors are "
        "taken over as they are."
    )
    if jobs.instead(shlex.join(["lrc", "import", "FOLDER", ref.source])):
        return
    typed = st.text_input(
        "Folder", key=FOLDER, placeholder="/models/compressed", help="With safetensors, on the computer of the server."
    ).strip()
    spec = AdoptSpec(ref, os.path.abspath(expanded(typed))) if typed else None
    pressed = st.button("Import it", icon=":material/play_arrow:", key=START, disabled=spec is None)
    if spec is None:
        return
    st.code(command_for(spec), language="bash", wrap_lines=True)
    if pressed and (run_id := jobs.submit(spec)):
        st.query_params[NAMED] = run_id
        st.rerun()

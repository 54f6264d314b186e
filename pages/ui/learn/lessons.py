"""Runs of the ``lesson`` job as the steps read them: the user's own first, then the shipped sample."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from lrc_core.errors import RunError
from lrc_core.escape import escaped
from lrc_core.names import model_label
from lrc_core.results.archive import RunView, archive, card_of, read_content, stamp_of
from lrc_core.results.identity import identified
from lrc_core.runs.integrity import arrays_in
from lrc_core.runs.spec import LessonSpec, ModelRef
from lrc_core.types import LinearShape, ModelCard
from pages.ui.shared import jobs
from pages.ui.shared.frame import empty


@dataclass(frozen=True)
class Lesson:
    """A finished lesson.

    Attributes:
        view: its run.
        card: of its model.
        content: of ``lesson.json``.
    """

    view: RunView[LessonSpec]
    card: ModelCard
    content: dict[str, Any]

    @property
    def keep(self) -> float:
        """Share of a layer's parameters that is left when it is squeezed alone."""
        return float(self.content["keep"])

    def layer(self, name: str) -> LinearShape:
        """A layer of the card by name."""
        return next(layer for layer in self.card.layers if layer.name == name)


def lessons(ref: ModelRef, part: str) -> list[Lesson]:
    """Lessons on this model that hold a part (``layers``, ``sensitivity``, ``texts``), the user's own first.

    Where there is none, those of the shipped sample, whatever its model.
    """
    own = [view for view in archive().runs(LessonSpec, ref) if view.done]
    shipped = [view for view in archive().runs(LessonSpec) if view.done and view.sample]
    found = [lesson for lesson in map(_read, own) if lesson.content.get(part)]
    return found or [lesson for lesson in map(_read, shipped) if lesson.content.get(part)]


def _read(view: RunView[LessonSpec]) -> Lesson:
    path = view.path / "lesson.json"
    return Lesson(view, card_of(view), _content(str(path), stamp_of(path)))


@lru_cache(maxsize=8)
def _content(path: str, stamp: tuple[int, int]) -> dict[str, Any]:
    """Shared by all visitors, whose pages keep it; it must not be written to."""
    content = read_content(Path(path))
    if not isinstance(content, dict) or not {"keep", "layers", "sensitivity", "texts"} <= content.keys():
        raise RunError(f"{path} is damaged.", "Delete the run on the Runs page and start the lesson again.")
    return content


@st.cache_data(max_entries=8, show_spinner=False)
def _pictures(path: str, stamp: tuple[int, int]) -> dict[str, NDArray[np.uint8]]:
    return arrays_in(Path(path))


def pictures(lesson: Lesson) -> dict[str, NDArray[np.uint8]]:
    """``<layer>/weight``, ``<layer>/kept`` and ``<layer>/missing`` of a lesson.

    Raises:
        RunError: the file is missing or damaged.
    """
    path = lesson.view.path / "pictures.npz"
    return _pictures(str(path), stamp_of(path))


def layer_label(layer: LinearShape) -> str:
    """``block 15, mlp.up_proj``."""
    return f"block {layer.block}, {layer.kind}"


def nothing_recorded(what: str) -> None:
    """There is neither an own lesson nor a sample."""
    empty(f"No {what} recorded yet", "Start the lesson below: it computes them in the background.", ":material/school:")


def live_fold(ref: ModelRef, label: str) -> AbstractContextManager[object]:
    """The fold around :func:`live`: open while a lesson is under way or has stopped, so that it is easy to find."""
    own = archive().runs(LessonSpec, ref, samples=False)
    return st.expander(label, icon=":material/bolt:", expanded=bool(own) and not own[0].done)


def live(ref: ModelRef, spec: LessonSpec, label: str, key: str) -> bool:
    """The job that does this step on the user's own model: its state, its button, its command.

    Returns:
        Whether it was started just now; the page should be drawn anew then.
    """
    if jobs.instead(spec):
        return False
    own = archive().runs(LessonSpec, ref, samples=False)
    for view in [view for view in own if not view.final][:2] or [view for view in own[:1] if not view.done]:
        jobs.panel(view.id)
    wanted = identified(spec).run_id
    if any(view.id == wanted and view.done for view in own):
        st.caption(":material/check: This has been computed; the step shows it.")
    elif st.button(label, icon=":material/play_arrow:", key=key) and jobs.submit(spec):
        return True
    st.caption(f"On {escaped(model_label(ref))}, in the background. The same from the command line:")
    jobs.command(spec)
    return False

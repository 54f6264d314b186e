"""``lrc lesson``: pictures and texts of a model for the Learn page."""

from __future__ import annotations

import argparse

from lrc_core.budget import check_keep
from lrc_core.errors import SettingsError
from lrc_core.kinds.kind import Kind
from lrc_core.kinds.words.flags import calibration, flags
from lrc_core.runs.spec import LESSON_PARTS, LessonSpec


def _check(spec: LessonSpec) -> None:
    check_keep(spec.keep)
    known = ", ".join(LESSON_PARTS)
    if unknown := set(spec.parts) - set(LESSON_PARTS):
        raise SettingsError(f"A lesson has no part {sorted(unknown)[0]!r}.", f"Choose from {known}.")
    if not spec.parts:
        raise SettingsError("A lesson needs at least one part.", f"Choose from {known}.")


def _page(parser: argparse.ArgumentParser) -> None:
    words = "write the eight steps of Learn as a page that needs no server, and start nothing"
    parser.add_argument("--html", metavar="FILE_OR_FOLDER", default="", help=words)


KIND = Kind(
    LessonSpec(),
    label="Lesson",
    help="Pictures and texts of a model for the Learn page.",
    stage="lrc_core.pipeline.lesson:lesson_run",
    show="lrc_core.cli.jobs:print_lesson",
    page="learn",
    parts=(
        *flags(LessonSpec, "layers", "keep", "parts", "prompt"),
        *calibration(LessonSpec, alone=True, seed="--seed"),
    ),
    extras=_page,
    handler="lrc_core.cli.lesson:lesson",
    check=_check,
)

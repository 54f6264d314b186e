"""``lrc lesson``: pictures and texts of a model for the Learn page."""

from __future__ import annotations

from lrc_core.errors import SettingsError
from lrc_core.kinds import checks
from lrc_core.kinds.flags import Flag, calibration
from lrc_core.kinds.kind import Kind
from lrc_core.runs.spec import LESSON_PARTS, LessonSpec


def _check(spec: LessonSpec) -> None:
    checks.check_keep(spec.keep)
    known = ", ".join(LESSON_PARTS)
    if unknown := set(spec.parts) - set(LESSON_PARTS):
        raise SettingsError(f"A lesson has no part {sorted(unknown)[0]!r}.", f"Choose from {known}.")
    if not spec.parts:
        raise SettingsError("A lesson needs at least one part.", f"Choose from {known}.")


KIND = Kind(
    LessonSpec(),
    label="Lesson",
    help="Pictures and texts of a model for the Learn page.",
    stage="lrc_core.pipeline.lesson:lesson_run",
    show="lrc_core.cli.jobs:print_lesson",
    parts=(
        Flag("--layers", "layers", "layers by full name (default: chosen by spectra)", many=True, metavar="NAME"),
        Flag("--keep", "keep", "share left of a squeezed layer", float, metavar="SHARE"),
        Flag("--parts", "parts", "what is made (default: all)", many=True, choices=LESSON_PARTS, metavar="PART"),
        Flag("--prompt", "prompt", "what the model goes on with (default: that of text samples)", metavar="TEXT"),
        *calibration(old_text=True, window="--window"),
        Flag("--seed", "calibration.seed", "chooses the windows", int, metavar="N"),
    ),
    check=_check,
)

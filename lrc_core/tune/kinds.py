"""The kinds of updates that a plan's factors can get, each with its settings. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrc_core.calibrate.update_settings import KINDS as CLOSED_FORMS
from lrc_core.calibrate.update_settings import UpdateSettings
from lrc_core.errors import SettingsError
from lrc_core.settings import build
from lrc_core.tune.settings import BLOCKWISE, TUNED, BlockwiseSettings, TuningSettings

KINDS = (*CLOSED_FORMS, BLOCKWISE, TUNED)
SEQUENCES = (f"{BLOCKWISE}+{TUNED}",)
"""Updates one after the other, that a comparison can ask for."""
COMPARED = (*KINDS, *SEQUENCES)
NO_UPDATE = "none"
"""How a comparison says that plans are measured as they were allocated."""


AnyUpdate = UpdateSettings | BlockwiseSettings | TuningSettings


def update_settings(values: Mapping[str, Any]) -> AnyUpdate:
    """Complete settings of an update, of the class that its ``kind`` asks for (the first kind where none is named).

    Raises:
        SettingsError: there is no such kind; a setting is unknown or out of range.
    """
    kind = values.get("kind", KINDS[0])
    check_kinds([kind])
    if kind == TUNED:
        return build(TuningSettings, values)
    if kind == BLOCKWISE:
        return build(BlockwiseSettings, values)
    return build(UpdateSettings, values)


def check_kinds(kinds: list[Any], known: tuple[str, ...] = KINDS) -> None:
    """Refuse what is no kind of update.

    Raises:
        SettingsError: names the first one.
    """
    for kind in kinds:
        if kind not in known:
            raise SettingsError(f"There is no update {kind!r}.", f"Choose from {', '.join(known)}.")

"""The parts of a spec from what a call names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from lrc_core.errors import SettingsError
from lrc_core.kinds.words.flags import absolute_text
from lrc_core.runs.spec import CalibrationSpec, EvaluationSpec

Given = Mapping[str, Any]


def calibration_spec(given: Given, seed: int = 0) -> CalibrationSpec:
    """The text that statistics come from.

    Args:
        given: some of the fields of :class:`~lrc_core.runs.spec.CalibrationSpec`.
        seed: where ``given`` has none.

    Raises:
        SettingsError: there is no such field.
        TextError: there is no such text.
    """
    return _with(CalibrationSpec(seed=seed), given, "calibration")


def evaluation_spec(given: Given, base: EvaluationSpec) -> EvaluationSpec:
    """What is measured; as :func:`calibration_spec`."""
    return _with(base, given, "evaluation")


def _with(base: Any, given: Given, what: str) -> Any:
    known = [field.name for field in fields(base)]
    for name in given:
        if name not in known:
            raise SettingsError(f"There is no {what} field {name!r}.", f"There are {', '.join(known)}.")
    found = {name: _listed(value) for name, value in given.items()}
    if "texts" in found:
        found["texts"] = tuple(absolute_text(text) for text in found["texts"])
    return replace(base, **found)


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | set) else value

"""Settings as flat frozen dataclasses whose fields carry label, help and range once.

The widgets of the Allocate page, `lrc methods` and what `--set` accepts come from the same fields.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar, get_type_hints

from lrc_core.errors import SettingsError

T = TypeVar("T")
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


@dataclass(frozen=True)
class FieldInfo:
    """What a form or a flag needs to know of one setting."""

    name: str
    type: type
    default: Any
    label: str
    help: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()


def setting(
    default: Any,
    label: str,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with the words and limits a form shows.

    Args:
        default: value when the user says nothing.
        label: short name on the form.
        help: one or two sentences: what it does and why this default.
        minimum: smallest allowed number, inclusive.
        maximum: largest allowed number, inclusive.
        choices: allowed strings.
    """
    info = {"label": label, "help": help, "minimum": minimum, "maximum": maximum, "choices": choices}
    return field(default=default, metadata=info)


def fields_of(settings_class: type) -> tuple[FieldInfo, ...]:
    """The fields of a settings dataclass, in order."""
    hints = get_type_hints(settings_class)
    return tuple(
        FieldInfo(f.name, hints[f.name], f.default, **{k: f.metadata[k] for k in f.metadata})
        for f in dataclasses.fields(settings_class)
    )


def build(settings_class: type[T], values: Mapping[str, Any]) -> T:
    """Make settings from typed values or from the strings of ``--set key=value``.

    Raises:
        SettingsError: unknown key (a close one is suggested), wrong type, out of range.
    """
    known = {f.name: f for f in fields_of(settings_class)}
    checked = {}
    for key, value in values.items():
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Known settings: {', '.join(known)}."
            raise SettingsError(f"There is no setting {key!r}.", hint)
        checked[key] = _checked(known[key], value)
    return settings_class(**checked)


def _checked(info: FieldInfo, value: Any) -> Any:
    value = _converted(info, value)
    if info.choices and value not in info.choices:
        raise SettingsError(f"Setting {info.name!r} cannot be {value!r}.", f"Choose one of {', '.join(info.choices)}.")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = info.minimum, info.maximum
        if not math.isfinite(value) or (low is not None and value < low) or (high is not None and value > high):
            limits = f"from {'-∞' if low is None else low} to {'∞' if high is None else high}"
            raise SettingsError(f"Setting {info.name!r} is {value}, but must be a number {limits}.")
    return value


def _converted(info: FieldInfo, value: Any) -> Any:
    try:
        if info.type is bool:
            return _to_bool(value)
        if info.type is int:
            if isinstance(value, float) and not value.is_integer():
                raise ValueError
            return int(value)
        if info.type is float:
            return float(value)
        return str(value)
    except (TypeError, ValueError):
        raise SettingsError(f"Setting {info.name!r} needs {info.type.__name__}, not {value!r}.") from None


def _to_bool(value: Any) -> bool:
    text = str(value).lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError

"""``lrc methods``: what is registered, with settings, ranges and papers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from difflib import get_close_matches
from typing import Any

import lrc_core.allocate
import lrc_core.decompose  # noqa: F401 - both register their entries
from lrc_core.cli.output import answer, emit, emit_table
from lrc_core.errors import UnknownNameError
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS
from lrc_core.settings import FieldInfo, fields_of
from lrc_core.updates import KINDS, UPDATES

_TITLES = {
    "method": "Methods (--method)",
    "decomposition": "Decompositions (--decomposition)",
    "update": "Updates of the factors (--kind, --update)",
}


def methods(arguments: argparse.Namespace) -> None:
    """``lrc methods``: all of them; with a name, one and its settings."""
    found = list(_all())
    if arguments.name:
        known = list(dict.fromkeys(entry["name"] for entry in found))
        found = [entry for entry in found if entry["name"] == arguments.name]
        if not found:
            close = get_close_matches(arguments.name, known, n=2)
            hint = f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(known)}."
            raise UnknownNameError(f"There is no method {arguments.name!r}.", hint)
    answer(arguments, {"methods": found}, _show if arguments.name else _list)


def _all() -> Iterator[dict[str, Any]]:
    for role, registry in (("method", ALLOCATORS), ("decomposition", DECOMPOSITIONS)):
        for entry in registry:
            yield {
                "role": role,
                "name": entry.name,
                "label": entry.label,
                "summary": entry.summary,
                "source": entry.source,
                "presets": {name: dict(values) for name, values in entry.presets.items()},
                "settings": [_of_field(info) for info in fields_of(entry.settings_class)],
            }
    for update in map(UPDATES.get, KINDS):
        yield {
            "role": "update",
            "name": update.name,
            "label": update.label,
            "summary": update.summary,
            "source": "",
            "presets": {},
            "settings": [_of_field(info) for info in fields_of(update.settings_class) if info.name != "kind"],
        }


def _of_field(info: FieldInfo) -> dict[str, Any]:
    return {**asdict(info), "type": info.type.__name__, "choices": list(info.choices)}


def _list(data: Mapping[str, Any]) -> None:
    found = data["methods"]
    width = max(len(entry["name"]) for entry in found) + 2
    for role, title in _TITLES.items():
        emit(title)
        for entry in found:
            if entry["role"] == role:
                emit(f"  {entry['name']:<{width}}{entry['summary']}")
        emit()
    emit("`lrc methods NAME` shows settings, presets and the paper.")


def _show(data: Mapping[str, Any]) -> None:
    for entry in data["methods"]:
        _show_one(entry)


def _show_one(entry: Mapping[str, Any]) -> None:
    emit(f"{entry['name']} ({entry['role']}): {entry['label']}")
    emit(f"  {entry['summary']}")
    if entry["source"]:
        emit(f"  Source: {entry['source']}")
    for name, values in entry["presets"].items():
        changed = ", ".join(f"{key}={value}" for key, value in values.items())
        emit(f"  Preset {name}: {changed or 'the defaults'}")
    if entry["settings"]:
        rows = [[f["name"], str(f["default"]), _range(f), f["help"]] for f in entry["settings"]]
        emit_table(["setting", "default", "range", "what it does"], rows)
    emit()


def _range(info: Mapping[str, Any]) -> str:
    if info["choices"]:
        return "|".join(info["choices"])
    low, high = info["minimum"], info["maximum"]
    if low is None and high is None:
        return str(info["type"])
    return f"{'' if low is None else low}..{'' if high is None else high}"

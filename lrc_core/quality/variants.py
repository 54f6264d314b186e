"""Ablations of the trained methods: which settings switch a term of a loss off, and the variants that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lrc_core.errors import SettingsError
from lrc_core.registry import ALLOCATORS, MethodEntry, Term

PARTS = ("losses", "texts")
ALL, MIX = "all terms", "text as preset"
"""The variants that the others are tested against: of the losses, of the texts."""


@dataclass(frozen=True)
class Variant:
    """One way to run a method.

    Attributes:
        name: in the table.
        part: ``losses`` or ``texts``.
        overrides: settings that differ from the method's preset.
        texts: calibration texts, None for the bench's own.
        note: what has to be known to read its figures.
    """

    name: str
    part: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    texts: tuple[str, ...] | None = None
    note: str = ""


def methods_with_terms() -> tuple[str, ...]:
    """Methods whose entry names the terms of their loss."""
    return tuple(entry.name for entry in ALLOCATORS if entry.terms)


def variants(method: str, preset: str, parts: Sequence[str], texts: Sequence[str]) -> list[Variant]:
    """All variants of a method, those that the others are compared with first.

    Raises:
        SettingsError: the method's terms are not known, or a setting of them is not the method's.
    """
    entry = ALLOCATORS.get(method)
    if not entry.terms:
        known = ", ".join(methods_with_terms())
        raise SettingsError(f"The loss terms of {method!r} are not known.", f"Choose from {known}.")
    found: list[Variant] = []
    if "losses" in parts:
        found += _losses(entry, preset)
    if "texts" in parts:
        found.append(Variant(MIX, "texts"))
        found += [Variant(f"text {text}", "texts", texts=(text,)) for text in texts]
    for variant in found:
        entry.settings(preset, variant.overrides)
    return found


def _losses(entry: MethodEntry, preset: str) -> list[Variant]:
    terms = entry.terms
    base = asdict(entry.settings(preset))
    on: dict[str, Any] = {}
    for term in terms.values():
        if _holds(base, term.off):
            on |= term.on
    found = [Variant(ALL, "losses", on)]
    for name in terms:
        off = {key: value for other, term in terms.items() if other != name for key, value in term.off.items()}
        found.append(Variant(f"only {name}", "losses", {**on, **off}, note=_note(terms, [name])))
    for name, term in terms.items():
        rest = [other for other in terms if other != name]
        found.append(Variant(f"without {name}", "losses", {**on, **term.off}, note=_note(terms, rest)))
    return found


def _holds(settings: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(settings.get(key) == value for key, value in wanted.items())


def _note(terms: Mapping[str, Term], active: Sequence[str]) -> str:
    if any(terms[name].presses for name in active) or not any(term.presses for term in terms.values()):
        return ""
    return "nothing presses towards the budget: the plan is fitted to it from the masks as trained"

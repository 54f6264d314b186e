"""Pages of the site that come from the registry: one per method and decomposition, made when the site is built."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lrc_core.allocate
import lrc_core.decompose  # noqa: F401 - both register their entries
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS, MethodEntry
from lrc_core.settings import FieldInfo, fields_of

MATTERED = Path(__file__).parent / "mattered"
"""What was learned about a method, written by hand: ``NAME.md``, from a second-level heading on."""


def write_pages(folder: Path) -> None:
    """Write every page to a folder, and leave alone those that say the same already (Sphinx reads by date)."""
    folder.mkdir(exist_ok=True)
    pages = method_pages()
    for path in folder.glob("*.md"):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def method_pages() -> dict[str, str]:
    """Markdown by name: methods first, then decompositions, each in the order of their registry."""
    pages = {entry.name: _page(entry, f"lrc allocate starter --method {entry.name} --keep 0.8") for entry in ALLOCATORS}
    for entry in DECOMPOSITIONS:
        pages[entry.name] = _page(entry, f"lrc spectra starter --decomposition {entry.name}")
    return pages


def _page(entry: MethodEntry, command: str) -> str:
    parts = [
        f"# {entry.label}",
        entry.summary,
        f"Source: {_linked(entry.source)}.",
        f"```\n{command}\n```",
        _settings(fields_of(entry.settings_class)),
        _presets(entry),
        _terms(entry),
    ]
    mattered = MATTERED / f"{entry.name}.md"
    if mattered.exists():
        parts.append(mattered.read_text(encoding="utf-8").strip())
    return "\n\n".join(part for part in parts if part) + "\n"


def _linked(source: str) -> str:
    source = re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", source)
    return re.sub(r"aclanthology\.org/(\S+)", r"[\g<0>](https://\g<0>)", source)


def _settings(fields: Iterable[FieldInfo]) -> str:
    rows = [
        (f"`{field.name}`", _value(field.default), _range(field), f"{field.label}. {field.help}") for field in fields
    ]
    return "## Settings\n\n" + _table(("setting", "default", "range", "what it does"), rows) if rows else ""


def _range(field: FieldInfo) -> str:
    if field.choices:
        return ", ".join(map(_value, field.choices))
    if field.minimum is None and field.maximum is None:
        return ""
    low, high = ("" if end is None else f"{end:g}" for end in (field.minimum, field.maximum))
    return f"{low} to {high}" if low and high else f"from {low}" if low else f"up to {high}"


def _presets(entry: MethodEntry) -> str:
    """What each preset sets, where any sets something."""
    names = list(dict.fromkeys(name for values in entry.presets.values() for name in values))
    rows = [(f"`{name}`", *(_value(entry.presets[preset].get(name, "")) for preset in entry.presets)) for name in names]
    if not rows:
        return ""
    return "## Presets\n\nEmpty: the default.\n\n" + _table(("setting", *(f"`{name}`" for name in entry.presets)), rows)


def _terms(entry: MethodEntry) -> str:
    if not entry.terms:
        return ""
    lines = [
        f"- {name}: off with " + ", ".join(f"`--set {key}={value}`" for key, value in term.off.items())
        for name, term in entry.terms.items()
    ]
    return "## Terms of its loss\n\n`lrc bench ablation` switches them off one at a time.\n\n" + "\n".join(lines)


def _value(value: Any) -> str:
    return "" if value == "" else f"`{value}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

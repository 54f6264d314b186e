"""Settings and presets of methods on the command line: ``--set KEY=VALUE`` and ``--preset``, both ways."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from lrc_core.errors import SettingsError
from lrc_core.kinds.words.lists import add_list, pieces_of
from lrc_core.registry import ALLOCATORS


def add_settings(parser: argparse.ArgumentParser) -> None:
    """``--set KEY=VALUE``."""
    words = "one setting (repeatable); `lrc methods` lists them"
    more: dict[str, Any] = {"metavar": "KEY=VALUE", "extend": True, "commas": False, "fits": lambda word: "=" in word}
    add_list(parser, ("--set",), "set", words, **more)


def settings_of(arguments: argparse.Namespace) -> dict[str, str]:
    """What was said with ``--set``.

    Raises:
        SettingsError: a word is no pair.
    """
    return dict(_pair(word) for word in arguments.set or ())


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not (key and equals):
        raise SettingsError(f"--set needs KEY=VALUE, not {word!r}.")
    return key.strip().replace("-", "_"), value


def settings_words(settings: dict[str, Any], base: dict[str, Any]) -> list[str]:
    """``--set`` for every setting that differs."""
    changed = {key: value for key, value in settings.items() if key not in base or base[key] != value}
    return [word for key, value in changed.items() for word in ("--set", f"{key}={value}")]


def add_presets(parser: argparse.ArgumentParser, sizes: Iterable[str], metavar: str, help: str) -> None:
    """``--preset``, of all methods or of one.

    Args:
        sizes: presets that no method knows.
        metavar: what stands for a value in the help.
    """
    known = {*sizes, *(name for entry in ALLOCATORS for name in entry.presets)}
    add_list(
        parser,
        ("--preset",),
        "preset",
        help,
        metavar=metavar,
        extend=True,
        fits=lambda word: all("=" in piece or piece in known for piece in pieces_of(word)),
    )


def presets_of(words: Iterable[str], methods: Sequence[str]) -> dict[str, str]:
    """``NAME`` counts for every method that has it (left out where it is the first one), ``METHOD=NAME`` for one.

    Raises:
        SettingsError: no method has such a preset.
    """
    presets: dict[str, str] = {}
    for word in words:
        method, equals, name = word.partition("=")
        if equals:
            presets[method] = name
            continue
        entries = [ALLOCATORS.get(method) for method in methods]
        having = [entry for entry in entries if word in entry.presets]
        if not having:
            known = sorted({preset for entry in entries for preset in entry.presets})
            raise SettingsError(f"No compared method has a preset {word!r}.", f"Choose one of {', '.join(known)}.")
        presets |= {entry.name: word for entry in having if next(iter(entry.presets)) != word}
    return presets


def presets_words(presets: Any) -> list[str]:
    """``--preset`` for every method that is not on its first one."""
    return [word for method, preset in presets.items() for word in ("--preset", f"{method}={preset}")]

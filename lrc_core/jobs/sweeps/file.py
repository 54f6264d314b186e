"""A sweep as its TOML file describes it: the flags of ``lrc bench quality``, and several models. No torch."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NoReturn

from lrc_core.errors import SettingsError
from lrc_core.jobs.engines.profile import read_toml
from lrc_core.kinds import KINDS
from lrc_core.kinds.words.flags import STARTER
from lrc_core.runs.spec import QualitySpec
from lrc_core.runs.store import RunStore

MODELS = "models"
_NO_KEYS = ("help", "model", "detach", "resume", "csv", "markdown", "on", "profile")


class _Words(argparse.ArgumentParser):
    """Reads the words of a bench; what it does not understand is the file's fault."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"The sweep cannot be read: {message}.", "`lrc bench quality --help` says what fits.")


def read_benches(path: str, store: RunStore) -> list[QualitySpec]:
    """One bench for each model of the file.

    Raises:
        LrcError: the file is not there, a key is unknown, or a value does not fit.
    """
    data = read_toml(path)
    kind, parser = KINDS["quality"], _Words(add_help=False)
    kind.add_arguments(parser)
    known = {word.removeprefix("--"): action for action in parser._actions for word in action.option_strings}
    known = {key: action for key, action in known.items() if key not in _NO_KEYS}
    words: list[str] = []
    for key, value in data.items():
        if key != MODELS:
            words += _words(path, key.replace("_", "-"), value, known)
    models = data.get(MODELS, [STARTER])
    if not isinstance(models, list) or not models or not all(isinstance(model, str) for model in models):
        raise SettingsError(f"{path}: {MODELS} must be a list of models.", f'{MODELS} = ["{STARTER}"]')
    found = []
    for model in dict.fromkeys(models):
        spec: QualitySpec = kind.spec_from(parser.parse_args(["--model", model, *words]), store)
        found.append(spec)
    return found


def _words(path: str, key: str, value: Any, known: Mapping[str, argparse.Action]) -> list[str]:
    """A key and its value as on the command line."""
    if key not in known:
        close = get_close_matches(key, [MODELS, *known], n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Known are {MODELS}, {', '.join(sorted(known))}."
        raise SettingsError(f"The sweep {path} has an unknown key {key!r}.", hint)
    if isinstance(value, bool):
        return [f"--{key}"] if value else []
    if isinstance(value, dict):
        raise SettingsError(f"The sweep {path}: {key} must be one value or a list of values.")
    values = value if isinstance(value, list) else [value]
    if known[key].nargs == 0:
        raise SettingsError(f"The sweep {path}: {key} must be true or false.")
    return [f"--{key}", *map(str, values)]

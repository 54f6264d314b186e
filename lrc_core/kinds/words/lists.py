"""Flags that take several words, with spaces or commas between them."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from typing import Any

from lrc_core.paths import expanded
from lrc_core.texts.files import is_file

log = logging.getLogger("lrc_core.cli")


class _List(argparse.Action):
    """Several words, with spaces or commas between them."""

    def __init__(self, *args: Any, more: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.more = more

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if (instead := self.more["instead"]) and getattr(namespace, self.dest) is None:
            log.warning("%s is now called %s.", option_string, instead)
        words, fits = list(values), self.more["fits"]
        if fits and len(words) > 1 and not fits(words[-1]) and not getattr(namespace, "model", None):
            namespace.named_model = words.pop()
        pieces = [piece for word in words for piece in (pieces_of(word) if self.more["commas"] else [word])]
        before = getattr(namespace, self.dest) if self.more["extend"] else None
        setattr(namespace, self.dest, [*(before or []), *(self._one(piece) for piece in pieces)])

    def _one(self, word: str) -> Any:
        among = self.more["among"]
        try:
            value = self.more["of"](word)
        except ValueError:
            raise argparse.ArgumentError(self, f"invalid {self.more['of'].__name__} value: {word!r}") from None
        if among and value not in among:
            raise argparse.ArgumentError(self, f"invalid choice: {word!r} (choose from {', '.join(among)})")
        return value


def add_list(
    parser: argparse.ArgumentParser, words: Sequence[str], dest: str, help: str, *, nargs: str = "+", **more: Any
) -> None:
    """Add a flag that takes several words.

    Args:
        words: the flag and other ways to write it.
        dest: name of the list among the arguments; None when the flag is not given.
        nargs: ``+``, or ``*`` for none at all.
        more: as of :class:`Flag`: ``metavar``; ``of`` (type), ``among`` (choices), ``extend`` (repeatable), ``fits``;
            ``instead`` (the flag to write today) and ``commas`` (whether they part words).
    """
    metavar = more.pop("metavar", None)
    known = {"of": str, "among": (), "extend": False, "fits": None, "instead": "", "commas": True}
    parser.add_argument(
        *words, dest=dest, help=help, nargs=nargs, metavar=metavar, action=_List, more={**known, **more}
    )


def pieces_of(word: str) -> list[str]:
    """Its parts between commas; a file whose name has a comma stays whole."""
    if "," not in word or os.path.exists(expanded(word)) or is_file(word):
        return [word]
    return [piece for piece in (part.strip() for part in word.split(",")) if piece]

"""``lrc app`` and ``lrc demo``: the app's server, in this process."""

from __future__ import annotations

import argparse
import os

from lrc_core.cli.doctor import starter
from lrc_core.cli.output import note
from lrc_core.errors import LrcError
from lrc_core.paths import READ_ONLY
from lrc_core.serving import serve


def app(arguments: argparse.Namespace) -> int:
    """``lrc app``: fetch what is missing of the starter pack, unless that is not wanted, and serve until Ctrl-C."""
    if arguments.starter and not arguments.classroom:
        try:
            starter(argparse.Namespace(json=False))
        except LrcError as error:
            note(f"{error}\nThe app starts without the starter pack; `lrc starter` fetches the rest later.")
    return serve(arguments)


def classroom(arguments: argparse.Namespace) -> int:
    """``lrc class``: the same as ``lrc demo --class``."""
    arguments.classroom = True
    return serve(arguments)


def demo(arguments: argparse.Namespace) -> int:
    """``lrc demo``: the same app, read-only on the shipped runs."""
    os.environ[READ_ONLY] = "1"
    return serve(arguments)

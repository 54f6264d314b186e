"""How the app's server is started: its flags, and where its pages are. Light: this stands before everything else."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from lrc_core.paths import app_home

HOST = "127.0.0.1"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Where the server listens, and who may come in."""
    parser.add_argument("port", nargs="?", default="", metavar="PORT", help="default: the first free one from 8501")
    parser.add_argument(
        "--host", default=HOST, help="address to listen on; 0.0.0.0 for all networks (default: %(default)s)"
    )
    parser.add_argument(
        "--token", action="store_true", help="ask for a token on this machine too: for a shared computer"
    )
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="another name of this server, as of a proxy"
    )
    parser.add_argument(
        "--class",
        dest="classroom",
        action="store_true",
        help="for a class: on the local network, read-only for everyone, with the QR code of its address",
    )


def serve(options: argparse.Namespace) -> int:
    """Serve in this process until Ctrl-C.

    Installed, the pages belong to no package that others could import: this process alone has their folder on its path.
    It comes first, because the folder that the program is started in may hold pages of another app.

    Args:
        options: what :func:`add_flags` reads.

    Returns:
        The process's exit code.
    """
    sys.path.insert(0, str(app_home()))
    return int(import_module("pages.ui.serve").run(options))

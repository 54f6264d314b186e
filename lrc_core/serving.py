"""How the app's server is started: its flags, and where its pages are. Light: this stands before everything else."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from lrc_core.errors import SettingsError
from lrc_core.paths import app_home
from lrc_core.visitors import Rules

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
        "--base-path", default="", metavar="PATH", help="path that a proxy puts before the app's own, such as lrc"
    )
    parser.add_argument(
        "--profile", default="", metavar="FILE", help="TOML of a cluster that jobs may be sent to; see docs/cluster.md"
    )
    _add_sharing(parser)
    parser.add_argument(
        "--class",
        dest="classroom",
        action="store_true",
        help="for a class: on the local network, read-only for everyone, with the QR code of its address",
    )


def _add_sharing(parser: argparse.ArgumentParser) -> None:
    rules = Rules()
    shared = parser.add_argument_group("for a team or a class that computes")
    shared.add_argument(
        "--shared",
        action="store_true",
        help="everybody with the link is a visitor with runs of their own, who cannot stop or delete those of others, "
        "open a path that is not named, or run a model's own code",
    )
    shared.add_argument(
        "--models", nargs="+", action="extend", default=[], metavar="NAME",
        help="hub ids, data sets, folders and files that visitors may open; without a hub id among them any model of "
        "the hub",
    )  # fmt: skip
    shared.add_argument(
        "--jobs", type=int, default=rules.jobs, metavar="N",
        help="jobs of one visitor that may wait or run (default: %(default)s)",
    )  # fmt: skip
    shared.add_argument(
        "--disk", type=float, default=0.0, metavar="GB",
        help="what runs and caches may take for another job to be started (default: no limit)",
    )  # fmt: skip
    shared.add_argument("--admin", action="store_true", help="visitors may stop and delete what others started")


def rules_of(options: argparse.Namespace) -> Rules | None:
    """The rules for visitors that the flags state; None where the server is not shared.

    Raises:
        SettingsError: rules without ``--shared``, or a number that makes no sense.
    """
    found = Rules(tuple(options.models), options.jobs, int(options.disk * 1e9), options.admin)
    if not options.shared:
        if found != Rules():
            raise SettingsError("--models, --jobs, --disk and --admin are rules of a shared server.", "Add --shared.")
        return None
    if options.classroom:
        raise SettingsError("With --class no visitor computes, with --shared every visitor does.", "Take one of them.")
    if found.jobs < 1 or found.disk_bytes < 0:
        raise SettingsError("--jobs is at least 1, and --disk is not negative.", "Leave them out for the defaults.")
    return found


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

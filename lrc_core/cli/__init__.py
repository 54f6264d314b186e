"""The command line: ``lrc COMMAND``. JSON on standard output, progress and errors on standard error."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from lrc_core.cli.output import note, write_what_the_terminal_can
from lrc_core.cli.parser import build_parser
from lrc_core.errors import CancelledError, LrcError

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: its words, by default those of the process.

    Returns:
        0 when it succeeded, 1 when it failed, 2 when the words make no sense, 130 when it was stopped.
    """
    write_what_the_terminal_can()
    arguments = build_parser().parse_args(argv)
    try:
        _choose_engine(arguments)
        return int(arguments.handler(arguments) or 0)
    except CancelledError as error:
        _failed(str(error))
        return INTERRUPTED
    except LrcError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        _failed("Stopped.")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("LRC_DEBUG"):
            raise
        from lrc_core.runs.recorder import explained

        return _failed(f"{explained(error).message} Set LRC_DEBUG=1 to see where.")


def _choose_engine(arguments: argparse.Namespace) -> None:
    """Read the profile of a command that has one, before anything looks for runs: they may lie on a shared disk."""
    if hasattr(arguments, "on"):
        from lrc_core.jobs.engines.profile import chosen_profile, use_folders

        arguments.engine = chosen_profile(arguments.on, arguments.profile)
        use_folders(arguments.engine)


def _failed(words: str) -> int:
    note("lrc: " + " ".join(words.split()))
    return 1

"""``lrc bench quality`` and ``lrc bench ablation``: jobs like the others, with tables at their end."""

from __future__ import annotations

import argparse
from pathlib import Path

from lrc_core.cli.follow import result_of, start
from lrc_core.cli.jobs import print_result, print_started
from lrc_core.cli.output import note
from lrc_core.errors import RunError
from lrc_core.files import disk_errors
from lrc_core.kinds import KINDS
from lrc_core.quality.tables import rows_csv, to_markdown


def bench(arguments: argparse.Namespace) -> None:
    """The command of either; it always goes on where it stopped."""
    if arguments.detach and (arguments.csv or arguments.markdown):
        raise RunError("--csv and --markdown need the finished table.", "Leave --detach away, or repeat the command.")
    run = start(KINDS[arguments.job].spec_from(arguments), arguments, resume=True)
    if arguments.detach:
        print_started(run, as_json=arguments.json)
        return
    note(f"Run {run.id}")
    result = result_of(run)
    for name, write in ((arguments.csv, rows_csv), (arguments.markdown, to_markdown)):
        if name:
            _write(Path(name), write(result))
    print_result(run, result, as_json=arguments.json)


def _write(path: Path, text: str) -> None:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

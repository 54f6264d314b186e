"""How the numbers were counted, and how to make all of it again: commands, runs, versions, device."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from typing import Any

from lrc_core import __version__
from lrc_core.errors import LrcError
from lrc_core.kinds import command_for
from lrc_core.report.content import Block, Cell, Column, Command, Commands, Fact, Facts, Section, Table, TableRow, Words
from lrc_core.report.measured import spec_of
from lrc_core.report.sections.prose import report_prose
from lrc_core.report.sections.rows import Named
from lrc_core.report.sources import Sources
from lrc_core.results.identity import in_words
from lrc_core.runs.spec import EvaluateSpec, EvaluationSpec, GenerateSpec, UpdateSpec
from lrc_core.runs.store import Run, RunStore
from lrc_core.texts.label import text_labels
from lrc_core.words import duration, listed

PACKAGES = ("torch", "transformers", "safetensors", "lm_eval", "numpy")


def counted(named: Named) -> Section:
    """What the numbers mean, with the settings of these very measurements."""
    specs = [spec_of(run) for run in named.sources.comparisons]
    evaluation = specs[0].evaluation if specs else EvaluationSpec()
    windows = (
        f"{evaluation.max_windows} windows per text at most" if evaluation.max_windows else "all windows of each text"
    )
    calibrations = list(dict.fromkeys(spec.calibration for spec in specs))
    labels = text_labels((*evaluation.texts, *(text for one in calibrations for text in one.texts)))
    texts = listed([labels[text] for text in evaluation.texts])
    blocks: list[Block] = [
        Words(text)
        for text in report_prose(
            "counted",
            window=f"{evaluation.window:,}",
            stride=f", {evaluation.stride:,} tokens apart" if evaluation.stride else " that do not overlap",
            windows=f"{windows}, of {texts}",
            items=_items(evaluation),
            tested="" if named.sources.tested else "Rows were not tested against each other in pairs.",
        )
    ]
    if calibrations:
        each = [
            f"{one.windows} windows of {one.window:,} tokens of {listed([labels[text] for text in one.texts])}, "
            f"seed {one.seed}"
            for one in calibrations
        ]
        blocks.append(Words(f"Decompositions and methods were calibrated on {'; others on '.join(each)}."))
    return Section("counted", "How numbers were counted", tuple(blocks))


def _items(evaluation: EvaluationSpec) -> str:
    if not evaluation.tasks:
        return "no tasks in this comparison"
    each = (
        f"{evaluation.items} items per task at most, drawn with seed {evaluation.seed}"
        if evaluation.items
        else "all items"
    )
    return f"{listed(list(evaluation.tasks))}, {each}"


def reproduce(named: Named, command: str) -> Section:
    """Commands in the order in which they are given, every run behind a number, versions and device."""
    sources = named.sources
    commands = [*_first(sources), *_behind_answers(sources), *_asked(sources)]
    commands.append(Command("Make this report again", command))
    blocks: list[Block] = [*(Words(text) for text in report_prose("reproduce")), Commands(tuple(commands))]
    blocks.append(Facts(_made_with(sources)))
    blocks.append(
        Words(
            "Versions are those of the program that made this report; run folders do not record the versions of their "
            "own time.",
            "note",
        )
    )
    blocks.append(_runs(named))
    return Section("reproduce", "How to reproduce it", tuple(blocks))


def _first(sources: Sources) -> list[Command]:
    """What measured, or the runs behind the plans."""
    commands: dict[str, Command] = {}
    for run in sources.comparisons:
        if isinstance(spec := run.spec, EvaluateSpec):
            for way in _ways_to(spec.plan, sources):
                commands.setdefault(way.id, Command("A plan that is measured", _line(way), way.id))
            commands[run.id] = Command("Measure it", _line(run), run.id)
        else:
            commands[run.id] = Command("Allocate and measure everything", _line(run), run.id)
    if commands:
        return list(commands.values())
    behind = ((shown, sources.archive.folder(shown.source.partition("@")[0])) for shown in sources.plans)
    return [Command(f"The plan {shown.label}", _line(made), made.id) for shown, made in behind if made is not None]


def _behind_answers(sources: Sources) -> list[Command]:
    """The runs whose plans were asked and that nothing before makes: each after the one that it went on from."""
    made = {*_recorded(sources), *(command.source for command in _first(sources))}
    found: dict[str, Run] = {}
    for asked in sources.answers:
        for answer in asked.spec_as(GenerateSpec).answers:
            for run in _ways_to(answer.plan, sources):
                if run.id not in made:
                    found.setdefault(run.id, run)
    return [Command("A plan that answers below", _line(run), run.id) for run in found.values()]


def _ways_to(plan: Mapping[str, Any] | None, sources: Sources) -> list[Run]:
    """The run that a plan came from, and before it those that it went on from, as far as they are there."""
    chain: list[Run] = []
    while plan is not None:
        run = sources.archive.folder(str((plan.get("origin") or {}).get("run_id") or "-"))
        if run is None or run.id in {known.id for known in chain}:
            break
        chain.insert(0, run)
        spec = run.spec
        plan = spec.plan if isinstance(spec, UpdateSpec) else None
    return chain


def _recorded(sources: Sources) -> list[str]:
    """Runs that a comparison's command makes, or that have a command of their own."""
    keys = ("run_id", "allocate_run_id", "update_run_id")
    behind = [str(row[key]) for row in sources.rows for key in keys if row.get(key)]
    return behind + [shown.source.partition("@")[0] for shown in sources.plans]


def _asked(sources: Sources) -> list[Command]:
    return [Command("Ask side by side", _line(run), run.id) for run in sources.answers]


def _line(run: Run) -> str:
    try:
        return command_for(run.spec, RunStore(run.path.parent))
    except LrcError as error:
        return f"# {error.message}"


def _runs(named: Named) -> Table:
    """Every run that a number or picture comes from, with its command."""
    sources = named.sources
    wanted = {run.id: "comparison" for run in sources.comparisons if not isinstance(run.spec, EvaluateSpec)}
    for row in named.rows:
        wanted |= {str(row[key]): named.name(row) for key in ("run_id",) if row.get(key)}
        for key, word in (("allocate_run_id", "plan"), ("update_run_id", "update")):
            if row.get(key):
                wanted.setdefault(str(row[key]), f"{word} of {named.line(row)}")
    wanted |= {
        shown.source.partition("@")[0]: f"plan {shown.label}" for shown in sources.plans if shown.source not in wanted
    }
    wanted |= {command.source: "plan that answers" for command in _behind_answers(sources)}
    wanted |= {run.id: "answers" for run in sources.answers}
    columns = (
        Column("Run", mono=True),
        Column("What"),
        Column("State"),
        Column("Ended"),
        Column("Took", True),
        Column("Command", mono=True),
    )
    lines = [_run_line(run_id, what, sources) for run_id, what in wanted.items()]
    return Table("Every run behind this report", columns, tuple(lines), "Took: computing time of this run alone.")


def _run_line(run_id: str, what: str, sources: Sources) -> TableRow:
    run, first = sources.archive.folder(run_id), (Cell(run_id, run_id), Cell(what, what))
    if run is not None:
        with suppress(LrcError):
            status = run.status()
            ended = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.ended_at)) if status.ended_at else "–"
            took = status.ended_at - status.started_at if status.ended_at and status.started_at else None
            cells = (Cell(status.state, status.state), Cell(ended, status.ended_at), Cell(duration(took), took))
            return TableRow((*first, *cells, Cell(_line(run))))
    gone = "is a file" if "." in run_id else "not on this computer"
    return TableRow((*first, Cell(gone, gone), Cell("–"), Cell("–"), Cell("")), state="missing")


def _made_with(sources: Sources) -> tuple[Fact, ...]:
    card = sources.card
    identity = card.identity
    versions = []
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    revision = f", revision {identity.revision}" if identity.revision else ""
    contents = dict.fromkeys(pair for run in sources.comparisons for pair in in_words(run.spec))
    return (
        Fact(
            "Model",
            card.name,
            f"{identity.source}{revision}; {identity.architecture}; fingerprint {identity.fingerprint[:16]}",
        ),
        *(Fact("Computed from", thing, f"content {digest}") for thing, digest in contents),
        Fact("Device of the runs", card.device, f"weights in {card.dtype}"),
        Fact("Program", f"lrc {__version__}", f"Python {platform.python_version()}; {', '.join(versions)}"),
    )

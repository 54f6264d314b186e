"""The whole content of a report from the runs it is about."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, replace

from lrc_core.budget import size_key
from lrc_core.errors import SettingsError
from lrc_core.names import in_order, method_color, method_label
from lrc_core.plan import split_variant
from lrc_core.quality.card import CURRENCY, PRICE, Wishes
from lrc_core.report.content import Report, Switch
from lrc_core.report.sections.allocation import allocation
from lrc_core.report.sections.answers import samples
from lrc_core.report.sections.cards import card
from lrc_core.report.sections.comparison import comparison
from lrc_core.report.sections.opening import method, question
from lrc_core.report.sections.reproduce import counted, reproduce
from lrc_core.report.sections.rows import Named, target_key
from lrc_core.report.sources import Asked, Sources, find_sources
from lrc_core.results.archive import Archive
from lrc_core.words import listed, removed


@dataclass(frozen=True)
class ReportOptions:
    """What a report is asked for besides its runs.

    Attributes:
        title: "" for one made from the model.
        keep: target that leads; None for 0.8 or the closest that was measured.
        context: tokens that the card counts with; 0 for 2,048 or the most that the model takes.
        sequences: requests at once.
        price: per GB and month.
        currency: its sign.
        made_at: unix seconds, None for now.
    """

    title: str = ""
    keep: float | None = None
    context: int = 0
    sequences: int = 1
    price: float = PRICE
    currency: str = CURRENCY
    made_at: float | None = None


def make_report(asked: Asked, frame: ReportOptions | None = None, found: Archive | None = None) -> Report:
    """The content of a report; nothing is written.

    Args:
        frame: title, and what the card counts with.
        found: where runs are looked up; by default the user's and the samples.

    Raises:
        RunError: a run is unknown, not finished or of the wrong kind, or there is nothing to report on.
        PlanError: a plan is unknown or of another model.
        SettingsError: a setting cannot be.
    """
    wanted = frame or ReportOptions()
    _check(wanted)
    sources = find_sources(asked, found)
    pinned = replace(asked, compare=asked.compare or tuple(run.id for run in sources.comparisons))
    return report_of(sources, wanted, command_of(pinned, wanted))


def _check(frame: ReportOptions) -> None:
    if frame.keep is not None and not 0 < frame.keep <= 1:
        raise SettingsError(f"A share to keep of {frame.keep:g} cannot be.", "Give one above 0 and at most 1.")
    if frame.price < 0:
        raise SettingsError(f"A price of {frame.price:g} cannot be.", "Give 0 or more.")
    if frame.context < 0 or frame.sequences < 1:
        raise SettingsError(f"A context of {frame.context} tokens for {frame.sequences} requests cannot be.")


def report_of(sources: Sources, frame: ReportOptions, command: str) -> Report:
    """The content from runs that were found before."""
    named = Named(sources, frame.keep)
    model = sources.card
    context = frame.context or min(2048, model.max_positions)
    wishes = Wishes(context, frame.sequences, frame.price, frame.currency)
    moment = time.strftime("%d %B %Y", time.localtime(frame.made_at)).lstrip("0")
    about = sources.comparisons[0].id if sources.comparisons else sources.plans[0].source
    return Report(
        title=" ".join(frame.title.split()) or f"Making {model.name} smaller",
        subtitle=_subtitle(named),
        made=moment,
        source=about,
        methods=_methods(named),
        targets=tuple(Switch(target_key(keep), removed(keep)) for keep in _targets(named)),
        sections=(
            question(named),
            method(named),
            allocation(named),
            comparison(named),
            samples(named),
            card(named, wishes),
            counted(named),
            reproduce(named, command),
        ),
        beside=max(0, len(sources.comparisons) - 1),
    )


def _subtitle(named: Named) -> str:
    names = dict.fromkeys(method_label(split_variant(choice.key)[0]) for choice in _methods(named))
    rates = [removed(keep) for keep in _targets(named)]
    words = f"{listed(list(names))} at {listed(rates)} compression"
    return words + ("" if named.sources.comparisons else "; plans only, nothing measured") + (
        "; sample runs shipped with the program" if named.sources.shipped else ""
    )  # fmt: skip


def _methods(named: Named) -> tuple[Switch, ...]:
    names = [str(row["method"]) for row in named.compressed] + [shown.method for shown in named.sources.plans]
    return tuple(Switch(name, method_label(name), method_color(name)) for name in in_order(names))


def _targets(named: Named) -> list[float]:
    found = {*named.targets, *(size_key(shown.keep) for shown in named.sources.plans)}
    return sorted(found, reverse=True)


def command_of(asked: Asked, frame: ReportOptions) -> str:
    """The line that makes this report."""
    words = ["lrc", "report", *([asked.model] if asked.model else [])]
    words += ["--compare", *asked.compare] if asked.compare else []
    words += ["--plans", *asked.plans] if asked.plans else []
    words += ["--answers", *asked.answers] if asked.answers else []
    default = ReportOptions()
    for flag, value, usual in (
        ("--title", frame.title, default.title),
        ("--keep", frame.keep, default.keep),
        ("--context", frame.context, default.context),
        ("--requests", frame.sequences, default.sequences),
        ("--price", frame.price, default.price),
        ("--currency", frame.currency, default.currency),
    ):
        words += [] if value == usual else [flag, f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join([*words, "--html", "report.html", "--pdf", "report.pdf"])

"""What both benches, ``lrc bench quality`` and ``lrc bench ablation``, have in common."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Any

from lrc_core.budget import check_keep
from lrc_core.errors import SettingsError
from lrc_core.kinds import checks
from lrc_core.kinds.words import titles
from lrc_core.kinds.words.choices import add_presets, presets_of, presets_words
from lrc_core.kinds.words.flags import SpecFlags, calibration, evaluation, flags
from lrc_core.quality.presets import PRESETS, bench_preset, method_presets
from lrc_core.runs.store import RunStore

PRESET = "bench"
"""Preset of a bench when none is named."""
HANDLER, SHOW = "lrc_core.cli.jobs:bench", "lrc_core.cli.jobs:print_tables"


@dataclass(frozen=True)
class Size:
    """The bench's own preset, and those of its methods.

    Attributes:
        tasks: whether zero-shot tasks are run when none are named.
    """

    tasks: bool = True

    def add(self, parser: argparse.ArgumentParser, base: Any) -> None:
        """See :class:`~lrc_core.kinds.words.flags.SpecFlags`."""
        words = "size of the bench (default: bench, for two cores), or preset of a method"
        add_presets(parser, PRESETS, "bench|gpu|METHOD=NAME", words)

    def read(self, spec: Any, arguments: argparse.Namespace, store: RunStore) -> Any:
        """See :class:`~lrc_core.kinds.words.flags.SpecFlags`."""
        words = arguments.preset or ()
        size = bench_preset(next((word for word in reversed(words) if word in PRESETS), PRESET))
        of_methods = presets_of([word for word in words if word not in PRESETS], spec.methods)
        return replace(
            spec,
            presets={**method_presets(size, spec.methods), **of_methods},
            calibration=size.calibration,
            evaluation=size.evaluation if self.tasks else replace(size.evaluation, tasks=()),
        )

    def write(self, spec: Any, said: Any, store: RunStore) -> tuple[list[str], Any]:
        """See :class:`~lrc_core.kinds.words.flags.SpecFlags`."""
        return presets_words(spec.presets), replace(said, presets=spec.presets)


def shared(spec: type[Any], *, tasks: bool = True) -> tuple[SpecFlags, ...]:
    """The parts of both, for this class of specs; ``tasks`` as of :class:`Size`."""
    return (
        Size(tasks),
        *flags(spec, "seeds", "task_keeps"),
        *evaluation(spec, "--texts", "--text"),
        *calibration(spec),
        *flags(spec, "share_path"),
    )


def extras(parser: argparse.ArgumentParser) -> None:
    """Where the tables go."""
    parser.add_argument("--csv", metavar="FILE", help="also write every figure to this file")
    parser.add_argument("--markdown", metavar="FILE", help="also write the tables to this file")


def check(spec: Any) -> None:
    """Refuse what no bench can do."""
    for keep in (*spec.keeps, *spec.task_keeps):
        check_keep(keep)
    checks.check_presets(spec.presets, spec.methods, "on the bench")
    if not spec.methods or not spec.keeps or not spec.seeds:
        raise SettingsError("A bench needs at least one method, one share to keep and one seed.")
    for name in ("methods", "keeps", "seeds", "decompositions", "storages", "updates"):
        values = getattr(spec, name, ())
        if repeated := [value for place, value in enumerate(values) if value in values[:place]]:
            raise SettingsError(f"This bench is asked for {repeated[0]} twice, among its {name}.", "Name each once.")


def what(spec: Any) -> str:
    """Methods and sizes."""
    return titles.listed(", ".join(spec.methods), *spec.keeps)

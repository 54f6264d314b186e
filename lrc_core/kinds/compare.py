"""``lrc compare``: methods at the same budgets."""

from __future__ import annotations

import argparse
from dataclasses import replace

from lrc_core.budget import check_keep
from lrc_core.errors import SettingsError
from lrc_core.formats.grids import QUANTISED, check_formats
from lrc_core.kinds import checks
from lrc_core.kinds.kind import Kind
from lrc_core.kinds.words import titles
from lrc_core.kinds.words.choices import add_presets, presets_of, presets_words
from lrc_core.kinds.words.flags import CALIBRATION_SEED, calibration, evaluation, flag, flags
from lrc_core.plan import DEFAULT_STORAGE, PAIR, variant_name
from lrc_core.registry import ALLOCATORS
from lrc_core.runs.spec import CompareSpec, EvaluationSpec
from lrc_core.runs.store import RunStore
from lrc_core.types import Storage
from lrc_core.updates import COMPARED, NO_UPDATE, UPDATES, check_kinds

TASKS = ("arc_easy", "piqa")
"""Zero-shot tasks of a comparison when none are named: two of the starter pack's, so that no network is needed."""


class _Presets:
    """Presets of the methods."""

    def add(self, parser: argparse.ArgumentParser, base: CompareSpec) -> None:
        add_presets(parser, (), "NAME|METHOD=NAME", "preset of all methods, or of one")

    def read(self, spec: CompareSpec, arguments: argparse.Namespace, store: RunStore) -> CompareSpec:
        return replace(spec, presets=presets_of(arguments.preset or (), spec.methods))

    def write(self, spec: CompareSpec, said: CompareSpec, store: RunStore) -> tuple[list[str], CompareSpec]:
        return presets_words(spec.presets), replace(said, presets=spec.presets)


def _check(spec: CompareSpec) -> None:
    for keep in spec.keeps:
        check_keep(keep)
    checks.check_decompositions([spec.decomposition])
    check_formats(spec.formats)
    check_kinds([spec.update] if spec.update != NO_UPDATE else [], COMPARED)
    checks.check_presets(spec.presets, spec.methods, "compared")
    if not spec.methods or not spec.keeps:
        raise SettingsError("A comparison needs at least one method and one share to keep.")


def _title(spec: CompareSpec) -> str:
    what = UPDATES.get(spec.update).compared if spec.update in UPDATES else f"{spec.update} updated"
    updated = "" if spec.update == NO_UPDATE else f" with {what}"
    stored = "" if spec.storage == PAIR else ", stored by pivots"
    return f"Compare at {titles.sizes(spec.keeps)}{updated}{stored}"


def _what(spec: CompareSpec) -> str:
    update = spec.update.removeprefix(NO_UPDATE)
    names = (variant_name(name, update, _storage(name, spec.storage)) for name in spec.methods)
    return titles.listed(", ".join(names), *spec.keeps)


def _storage(method: str, wanted: Storage) -> Storage:
    return (
        ALLOCATORS.get(method).storage(wanted) if method in ALLOCATORS else wanted
    )  # of another version of the program


KIND = Kind(
    CompareSpec(evaluation=EvaluationSpec(tasks=TASKS), formats=QUANTISED, storage=DEFAULT_STORAGE),
    label="Compare",
    help="Compare methods at the same budgets.",
    stage="lrc_core.pipeline.comparison:comparison_run",
    show="lrc_core.cli.jobs:print_comparison",
    page="compare?co_run={id}",
    parts=(
        *flags(CompareSpec, "keeps", "methods", "decomposition"),
        _Presets(),
        flag(CompareSpec, "update", choices=(NO_UPDATE, *COMPARED)),
        *flags(CompareSpec, "formats", "storage", "seed"),
        *evaluation(CompareSpec, "--text"),
        *calibration(CompareSpec, seed=CALIBRATION_SEED),
    ),
    title=_title,
    what=_what,
    check=_check,
)

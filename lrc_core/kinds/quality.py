"""``lrc bench quality``: every method at every target, with tests."""

from __future__ import annotations

from lrc_core.errors import SettingsError
from lrc_core.formats.budgets import byte_budget
from lrc_core.formats.grids import QUANTISED, check_formats
from lrc_core.kinds import bench, checks
from lrc_core.kinds.kind import Kind
from lrc_core.kinds.words import titles
from lrc_core.kinds.words.flags import flag, flags
from lrc_core.plan import split_variant
from lrc_core.quality.presets import bench_preset
from lrc_core.registry import ALLOCATORS
from lrc_core.runs.spec import STORAGES, ModelRef, QualitySpec
from lrc_core.updates import COMPARED, NO_UPDATE, check_kinds


def _check(spec: QualitySpec) -> None:
    bench.check(spec)
    checks.check_decompositions(spec.decompositions)
    for name in spec.baselines:
        method, update, _ = split_variant(name)
        ALLOCATORS.get(method)
        check_kinds([update] if update else [])
    check_formats(spec.formats)
    for budget in spec.budgets:
        byte_budget(budget)
    check_kinds([update for update in spec.updates if update != NO_UPDATE], COMPARED)
    if not spec.updates:
        raise SettingsError("A bench needs at least one kind of update.", f"{NO_UPDATE!r}: plans as allocated.")
    if not spec.storages:
        raise SettingsError("A bench needs at least one way of storing low-rank layers.", "pair, pivoted or both.")
    if not spec.decompositions:
        raise SettingsError("A bench needs at least one decomposition.")


def _check_models(spec: QualitySpec) -> None:
    checks.check_model(spec.model, checks.windows_of(spec), checks.needs_whole(spec))
    for source in spec.references:
        checks.check_model(ModelRef(source), {checks.EVALUATED: spec.evaluation.window})


_SIZE = bench_preset(bench.PRESET)
KIND = Kind(
    QualitySpec(
        methods=ALLOCATORS.names(),
        calibration=_SIZE.calibration,
        evaluation=_SIZE.evaluation,
        formats=QUANTISED,
        storages=STORAGES,
    ),
    label="Bench",
    help="Every method at every target, with tests.",
    stage="lrc_core.pipeline.quality:quality_run",
    show=bench.SHOW,
    page="compare?co_section=Bench&co_run={id}",
    command=("bench", "quality"),
    handler=bench.HANDLER,
    parts=(
        *flags(QualitySpec, "keeps", "methods", "decompositions", "references", "baselines"),
        flag(QualitySpec, "updates", choices=(NO_UPDATE, *COMPARED)),
        *flags(QualitySpec, "formats", "budgets"),
        flag(QualitySpec, "storages", choices=STORAGES),
        *bench.shared(QualitySpec),
    ),
    extras=bench.extras,
    title=lambda spec: f"Bench of {len(spec.methods)} methods at {titles.sizes(spec.keeps)}",
    what=bench.what,
    check=_check,
    check_models=_check_models,
)

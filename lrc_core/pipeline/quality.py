"""The ``quality`` and ``ablation`` jobs: every method on one bench, and what the parts of a method are worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from lrc_core.formats.budgets import BY_BYTES, VARY_WORDS, byte_budget
from lrc_core.formats.grids import METHODS
from lrc_core.pipeline.matrix import BenchLine, Matrix
from lrc_core.pipeline.session import Session
from lrc_core.plan import storage_of, update_words
from lrc_core.quality.rows import baselines, variants_of
from lrc_core.quality.variants import ALL, MIX, Variant, variants
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS, MethodEntry
from lrc_core.runs.spec import AblationSpec, AllocateSpec, CalibrationSpec, QualitySpec
from lrc_core.runs.store import Run
from lrc_core.tune.kinds import NO_UPDATE
from lrc_core.types import Storage

_DENSE_ORDER = {"dense": -9, "reference": -8, **{name: -7 + number for number, name in enumerate(METHODS)}}


def quality_run(run: Run, session: Session) -> dict[str, Any]:
    """Reference models, the dense model, then every method, decomposition and seed; methods that fail are noted."""
    spec = run.spec
    assert isinstance(spec, QualitySpec)
    lines = [
        _method_line(spec, ALLOCATORS.get(method), decomposition, seed, update, storage)
        for seed in spec.seeds
        for storage in spec.storages
        for decomposition in spec.decompositions
        for method in spec.methods
        for update in spec.updates
        if not ALLOCATORS.get(method).structured
        or (decomposition, update, storage) == (spec.decompositions[0], spec.updates[0], spec.storages[0])
    ]
    of_bytes = _lines_of_bytes(spec)
    cells = 1 + len(spec.references) + len(spec.formats) + len(lines) * len(spec.keeps) + len(of_bytes)
    matrix = Matrix(run, session, baselines(spec.baselines), cells)
    for source in spec.references:  # first, while the model itself is not in memory yet
        matrix.reference(source)
    matrix.dense()
    for name in spec.formats:
        matrix.quantised(name)
    for line in lines:
        matrix.line(line)
    for line in of_bytes:
        matrix.within_bytes(line)
    order = {**_DENSE_ORDER, **{method: index for index, method in enumerate(spec.methods)}}
    places = {name: index for index, name in enumerate(spec.decompositions)}
    matrix.sort(
        lambda row: (
            order[row["method"]] >= 0,
            -row["keep_target"],
            places.get(row["decomposition"], -1),
            order[row["method"]],
            row.get("update", ""),
            storage_of(row),
            row.get("seed", -1),
            row.get("variant", ""),
        )
    )
    return matrix.result(baselines=list(spec.baselines))


def ablation_run(run: Run, session: Session) -> dict[str, Any]:
    """The dense model, then every variant of every method."""
    spec = run.spec
    assert isinstance(spec, AblationSpec)
    lines = [
        _variant_line(spec, method, variant, seed)
        for method in spec.methods
        for seed in spec.seeds
        for variant in variants(method, _preset(spec, method), spec.parts, spec.texts)
    ]
    matrix = Matrix(run, session, variants_of((ALL, MIX)), 1 + len(lines) * len(spec.keeps))
    matrix.dense()
    for line in lines:
        matrix.line(line)
    return matrix.result(baselines=["base"])


def _lines_of_bytes(spec: QualitySpec) -> list[BenchLine]:
    """Every budget in bytes, spent on ranks and formats, on formats alone and on ranks alone, by methods that can."""
    found = []
    for seed in spec.seeds:
        for storage in spec.storages:
            for entry in map(ALLOCATORS.get, spec.methods):
                for budget in spec.budgets if entry.by_bytes else ():
                    for vary, words in VARY_WORDS.items():
                        base = _base(spec, entry, _preset(spec, entry.name), BY_BYTES, seed)
                        variant = f"{byte_budget(budget).words}, {words}"
                        line = replace(base, keep=1.0, budget=budget, vary=vary, storage=storage)
                        columns = {"variant": variant, "budget": budget}
                        found.append(BenchLine(line, f"{entry.label}, {variant}", columns))
    return found


def _method_line(
    spec: QualitySpec, entry: MethodEntry, decomposition: str, seed: int, update: str, storage: Storage
) -> BenchLine:
    """A method under a decomposition and a storage law, with an update; what prunes structure knows none of them."""
    base = _base(spec, entry, _preset(spec, entry.name), decomposition, seed)
    if entry.structured:
        return BenchLine(base, _label(spec, entry, "", seed), {"decomposition": ""})
    base = replace(base, storage=storage)
    changed = update_words(update.removeprefix(NO_UPDATE), storage)
    return BenchLine(base, _label(spec, entry, decomposition, seed) + changed, update=update)


def _variant_line(spec: AblationSpec, method: str, variant: Variant, seed: int) -> BenchLine:
    entry = ALLOCATORS.get(method)
    preset = _preset(spec, method)
    base = _base(spec, entry, preset, spec.decomposition, seed, variant.overrides)
    if variant.texts is not None:
        base = replace(base, calibration=replace(base.calibration, texts=variant.texts))
    columns: dict[str, Any] = {"variant": variant.name, "part": variant.part}
    if variant.note:
        columns["note"] = variant.note
    return BenchLine(base, f"{entry.label}, {variant.name}", columns)


def _preset(spec: QualitySpec | AblationSpec, method: str) -> str:
    return spec.presets.get(method, next(iter(ALLOCATORS.get(method).presets)))


def _base(
    spec: QualitySpec | AblationSpec,
    entry: MethodEntry,
    preset: str,
    decomposition: str,
    seed: int,
    overrides: Mapping[str, Any] | None = None,
) -> AllocateSpec:
    """The allocation of a line; the same spec as a comparison or `lrc allocate` makes, so that runs are shared."""
    calibration: CalibrationSpec = replace(spec.calibration, seed=seed)
    settings = asdict(entry.settings(preset, overrides))
    changed = settings != asdict(entry.settings(preset))
    return AllocateSpec(
        model=spec.model,
        method=entry.name,
        decomposition=decomposition,
        preset=preset if not changed else "",
        settings=settings,
        calibration=calibration,
        seed=seed,
    )


def _label(spec: QualitySpec, entry: MethodEntry, decomposition: str, seed: int) -> str:
    words = [entry.label]
    if decomposition and len(spec.decompositions) > 1:
        words.append(DECOMPOSITIONS.get(decomposition).label)
    if len(spec.seeds) > 1:
        words.append(f"seed {seed}")
    return ", ".join(words)

"""The ``quality`` and ``ablation`` jobs: every method on one bench, and what the parts of a method are worth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lrc_core.decompose import TWO_SIDED
from lrc_core.formats.budgets import BITS, VARY_WORDS, byte_budget
from lrc_core.formats.grids import METHODS
from lrc_core.pipeline.matrix import Matrix
from lrc_core.pipeline.session import Session
from lrc_core.plan import storage_of
from lrc_core.quality.rows import baselines, variants_of
from lrc_core.quality.variants import ALL, MIX, Variant, variants
from lrc_core.registry import ALLOCATORS
from lrc_core.results.bench_lines import BenchLine, line_base, preset_of, quality_lines
from lrc_core.runs.spec import AblationSpec, QualitySpec
from lrc_core.runs.store import Run

_DENSE_ORDER = {"dense": -9, "reference": -8, **{name: -7 + number for number, name in enumerate(METHODS)}}


def quality_run(run: Run, session: Session) -> dict[str, Any]:
    """Reference models, the dense model, then every method, decomposition and seed; methods that fail are noted."""
    spec = run.spec_as(QualitySpec)
    lines = quality_lines(spec)
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
    spec = run.spec_as(AblationSpec)
    lines = [
        _variant_line(spec, method, variant, seed)
        for method in spec.methods
        for seed in spec.seeds
        for variant in variants(method, preset_of(spec, method), spec.parts, spec.texts)
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
                        if vary == BITS and entry.learns:  # of formats alone there is nothing to learn
                            continue
                        base = line_base(spec, entry, preset_of(spec, entry.name), TWO_SIDED, seed)
                        variant = f"{byte_budget(budget).words}, {words}"
                        line = replace(base, keep=1.0, budget=budget, vary=vary, storage=storage)
                        columns = {"variant": variant, "budget": budget}
                        found.append(BenchLine(line, f"{entry.label}, {variant}", columns))
    return found


def _variant_line(spec: AblationSpec, method: str, variant: Variant, seed: int) -> BenchLine:
    entry = ALLOCATORS.get(method)
    preset = preset_of(spec, method)
    base = line_base(spec, entry, preset, spec.decomposition, seed, variant.overrides)
    if variant.texts is not None:
        base = replace(base, calibration=replace(base.calibration, texts=variant.texts))
    columns: dict[str, Any] = {"variant": variant.name, "part": variant.part}
    if variant.note:
        columns["note"] = variant.note
    return BenchLine(base, f"{entry.label}, {variant.name}", columns)

"""``lrc bench ablation``: what loss terms and calibration texts are worth."""

from __future__ import annotations

from dataclasses import replace

from lrc_core.errors import SettingsError
from lrc_core.kinds import bench, checks
from lrc_core.kinds.kind import Kind
from lrc_core.kinds.words.flags import flags
from lrc_core.names import method_label
from lrc_core.quality.presets import bench_preset
from lrc_core.quality.variants import PARTS, methods_with_terms, variants
from lrc_core.registry import ALLOCATORS
from lrc_core.runs.spec import AblationSpec


def _check(spec: AblationSpec) -> None:
    bench.check(spec)
    checks.check_decompositions([spec.decomposition])
    if unknown := set(spec.parts) - set(PARTS):
        raise SettingsError(f"There is no ablation {sorted(unknown)[0]!r}.", f"Choose from {', '.join(PARTS)}.")
    for method in spec.methods:
        preset = spec.presets.get(method, next(iter(ALLOCATORS.get(method).presets)))
        variants(method, preset, spec.parts, spec.texts)
    if "texts" in spec.parts:
        checks.check_texts(spec.texts)


_SIZE = bench_preset(bench.PRESET)
KIND = Kind(
    AblationSpec(
        methods=tuple(methods_with_terms()),
        calibration=_SIZE.calibration,
        evaluation=replace(_SIZE.evaluation, tasks=()),
    ),
    label="Ablation",
    help="Loss terms and calibration texts of methods.",
    stage="lrc_core.pipeline.quality:ablation_run",
    show=bench.SHOW,
    page="compare?co_section=Ablations&co_run={id}",
    command=("bench", "ablation"),
    handler=bench.HANDLER,
    parts=(
        *flags(AblationSpec, "keeps", "methods", "decomposition", "parts", "texts"),
        *bench.shared(AblationSpec, tasks=False),
    ),
    extras=bench.extras,
    title=lambda spec: f"Ablation of {', '.join(method_label(name) for name in spec.methods)}",
    what=bench.what,
    check=_check,
)

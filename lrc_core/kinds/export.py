"""``lrc export``: a plan on its model becomes a folder that other software loads."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path

from lrc_core.errors import ModelError, PlanError, ResourceError, SettingsError
from lrc_core.formats.grids import FORMATS
from lrc_core.formats.sizes import layer_bytes, stored_matrices
from lrc_core.kinds import checks
from lrc_core.kinds.kind import Kind
from lrc_core.kinds.plans import PlanFlag
from lrc_core.kinds.words import titles
from lrc_core.kinds.words.flags import CALIBRATION_SEED, calibration, flags
from lrc_core.models.outline import read_outline
from lrc_core.models.preflight import preflight
from lrc_core.models.resources import disk_available
from lrc_core.plan import Plan, update_of
from lrc_core.runs.spec import FORMS, PRECISIONS, ExportSpec, ModelRef
from lrc_core.runs.store import RunStore
from lrc_core.words import data_size

_WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class _PlanWord(PlanFlag):
    """The plan as the first word; where no model is named it is the one that the plan was made for."""

    def add(self, parser: argparse.ArgumentParser, base: ExportSpec) -> None:
        words = "plan file, run id, or RUN@20 for the plan recorded at 20 %% compression"
        parser.add_argument("plan", metavar="RUN|FILE", help=words)

    def read(self, spec: ExportSpec, arguments: argparse.Namespace, store: RunStore) -> ExportSpec:
        found: ExportSpec = super().read(spec, arguments, store)
        if arguments.model or arguments.named_model:
            return found
        known = Plan.from_dict(dict(found.plan)).model
        return replace(found, model=ModelRef(known.source, found.model.revision or known.revision))

    def write(self, spec: ExportSpec, said: ExportSpec, store: RunStore) -> tuple[list[str], ExportSpec]:
        words, said = super().write(spec, said, store)
        return words[1:], said


def _title(spec: ExportSpec) -> str:
    twin = " as a dense twin" if spec.form == "dense" else ""
    return f"Export {titles.plan_title(spec.plan)}{twin}"


def _check(spec: ExportSpec) -> None:
    """Refuse what cannot be written.

    Raises:
        SettingsError, PlanError, ResourceError: names the setting or the folder.
    """
    for name, value, known in (("form", spec.form, FORMS), ("precision", spec.dtype, PRECISIONS)):
        if value not in known:
            raise SettingsError(f"There is no {name} {value!r}.", f"Choose one of {', '.join(known)}.")
    if spec.form == "dense" and spec.plan.get("pruned"):
        raise PlanError(
            "A pruned plan has no dense twin: its layers are smaller, not of low rank.", "Export it as lowrank."
        )
    if spec.to:
        require_place(Path(spec.to))


def require_place(folder: Path) -> None:
    """Refuse a place that holds something else already, or cannot be written.

    Raises:
        SettingsError: it is a file, or a folder that is not empty.
        ResourceError: nothing can be written there.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise SettingsError(f"{folder} is there already and holds something.", "Name a folder that is new or empty.")
    above = folder
    while not above.exists():
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ResourceError(f"Nothing can be written to {above}.", "Name a folder that you may write to.")


def _check_models(spec: ExportSpec) -> None:
    """The model by its headers, and the disk that the folder will take."""
    checks.check_model(spec.model, {}, checks.needs_whole(spec))
    place = Path(spec.to) if spec.to else RunStore().root
    if (needed := _folder_bytes(spec)) > (free := disk_available(place)):
        raise ModelError(
            f"The folder takes {data_size(needed)} on the disk of {place}, which has {data_size(free)} left.",
            "Free some space, or name a folder on another disk.",
        )


def _folder_bytes(spec: ExportSpec) -> int:
    """Bytes of the weights in the folder: packed layers by their formats, everything else in the folder's precision."""
    found, plan = preflight(spec.model), Plan.from_dict(dict(spec.plan))
    plain = found.params * _WIDTHS[spec.dtype] if spec.dtype in _WIDTHS else found.weight_bytes
    if spec.form == "dense":
        return plain
    if not plan.formats:
        return int(plain * plan.keep_whole_model)
    width = plain / found.params
    layers = [layer for layer in plan.stored(read_outline(spec.model).card).layers if layer.name in plan.formats]
    packed = {
        layer.name: (plan.ranks.get(layer.name, layer.full_rank), FORMATS[plan.formats[layer.name]]) for layer in layers
    }
    numbers = sum(rows * columns for layer in layers for rows, columns in stored_matrices(layer, *packed[layer.name]))
    rest = width * (found.params * plan.keep_whole_model - numbers)
    return int(rest) + sum(layer_bytes(layer, *packed[layer.name]) for layer in layers)


KIND = Kind(
    ExportSpec(),
    label="Export",
    help="Write a plan on its model as a folder that other software loads, and check it.",
    stage="lrc_core.pipeline.exporting:export_run",
    show="lrc_core.cli.exports:print_export",
    page="plans",
    first=(_PlanWord(required=True),),
    parts=(*flags(ExportSpec, "to", "form", "dtype"), *calibration(ExportSpec, seed=CALIBRATION_SEED)),
    title=_title,
    what=lambda spec: titles.listed_plan(spec.plan, update_of(spec.plan.get("origin"))),
    check=_check,
    check_models=_check_models,
)

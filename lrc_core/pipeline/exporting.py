"""The ``export`` job: a plan on its model as a folder, loaded again and compared before it gets its name."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrc_core import __version__
from lrc_core.budget import whole_percent
from lrc_core.errors import ExportError, PackError, TextError
from lrc_core.files import disk_errors, folder_size, move, write_atomic
from lrc_core.folders.card import STARTER_SOURCE, CardFacts, card_text, licence_of
from lrc_core.folders.check import READ_BACK, SEVERAL, Check, check_folder, keep_reference
from lrc_core.folders.tensors import Stock, Stored, Wanted, as_stored, densified, stock_of, stored_parts
from lrc_core.folders.ways import ways_to_load
from lrc_core.folders.write import block_of, write_companions, write_config, write_parts, write_shards
from lrc_core.lowrank.rounding import unpack_into
from lrc_core.models import load
from lrc_core.models.device import DTYPES, devices_of
from lrc_core.models.json_files import read_table
from lrc_core.models.load import local_folder
from lrc_core.models.onload.residence import Residence, residence_of
from lrc_core.models.source import find_source, look_through
from lrc_core.models.weights.whole import stored_dtype
from lrc_core.names import method_label
from lrc_core.pipeline.planned import under_plan
from lrc_core.pipeline.session import Session, write_card
from lrc_core.plan import Plan, plan_variant
from lrc_core.quality.footprint import weight_bytes
from lrc_core.results.measured import rows_of_plan
from lrc_core.runs.spec import ExportSpec, ModelRef
from lrc_core.runs.store import Run
from lrc_core.types import ModelCard, Progress, ShouldStop

WINDOWS, WINDOW = 4, 128
"""Texts that the folder is checked on, and their length in tokens."""


@dataclass(frozen=True)
class _Written:
    """What was written, and what is to come of it."""

    weights: int
    layout: Mapping[str, Any]
    dtype: str
    notes: tuple[str, ...]
    licence: str
    base_weights: int


def export_run(run: Run, session: Session) -> dict[str, Any]:
    """The folder, and what was found when it was loaded again.

    It is written beside its place under another name and moved when it has passed; one that fails is removed.
    """
    spec = run.spec_as(ExportSpec)
    result = write_card(run, session)
    plan = Plan.from_dict(dict(spec.plan))
    card, devices = session.loaded.card, devices_of(session.loaded.model)
    device = str(session.loaded.device) if len(devices) == 1 else SEVERAL
    target = Path(spec.to) if spec.to else run.path / _folder_name(spec, plan, card)
    made = target.with_name(f"{target.name}.partial")
    reference = run.path / "checkpoint" / "reference.safetensors"
    for folder in (made, reference.parent):
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    written = _write(run, session, plan, made, reference)
    session.release()
    session.on_progress(Progress("loading the folder in another process"))
    try:
        check = _checked(made, reference, device, exact=spec.form != "dense", should_stop=session.should_stop)
    except ExportError:
        shutil.rmtree(made, ignore_errors=True)
        raise
    facts = _facts(spec, target, plan, card, device, written, check)
    write_atomic(made / "README.md", card_text(facts))
    with disk_errors(target):
        move(made, target)  # an empty folder that is there gives way
    shutil.rmtree(reference.parent, ignore_errors=True)
    return {
        **result,
        "warnings": [*written.notes, *result["warnings"]],
        "plan": plan.to_dict(),
        "folder": str(target),
        "form": spec.form,
        "storage": facts.storage,
        "dtype": written.dtype,
        "weight_bytes": written.weights,
        "folder_bytes": folder_size(target),
        "base_weight_bytes": written.base_weights,
        "check": check.to_dict(),
        "ways": [vars(way) for way in ways_to_load(str(target), spec.form)],
    }


def _folder_name(spec: ExportSpec, plan: Plan, card: ModelCard) -> str:
    """``SmolLM2-135M-Instruct-lagrangian-20``, from the model, the method and the percent removed."""
    parts = [card.name.rpartition("/")[2], plan_variant(plan), str(whole_percent(plan.keep_target))]
    return re.sub(r"[^\w.-]+", "-", "-".join(parts + (["dense"] if spec.form == "dense" else [])))[:200]


def _write(run: Run, session: Session, plan: Plan, made: Path, reference: Path) -> _Written:
    """Everything but the model card; and what the model in memory makes of some windows."""
    spec, loaded = run.spec_as(ExportSpec), session.loaded
    plan.check_model(loaded.card)
    plan.require_files(spec.plan_folder, run.path.parent)
    stock = stock_of(loaded.model)
    base, _ = local_folder(session.ref, session.on_progress, session.should_stop)
    dtype = _dtype(spec, base, loaded.dtype)
    windows, notes = _windows(session, spec)
    if dtype.itemsize > loaded.dtype.itemsize:
        held = str(loaded.dtype).removeprefix("torch.")
        notes = (*notes, f"The model was held as {held} on this machine: the folder has no more digits than that.")
    session.on_progress(Progress("putting the plan on the model"))
    small = spec.form != "dense"

    def make(wanted: Wanted) -> Stored:
        model = loaded.model
        return as_stored(model, stock, plan.storage, wanted) if small else densified(model, stock, wanted)

    with under_plan(session, plan, spec.plan_folder, spec.calibration, run.path.parent, packed=small):
        if (residence := residence_of(loaded.model)) is not None:
            residence.recast(dtype)
            found = _write_parts(made, session, residence, make)
        else:
            load.recast(loaded.model, dtype)
            for module in loaded.model.modules():  # by the one step of rounding that a loader takes
                unpack_into(module)
            keep_reference(loaded.model, windows, reference)
            found = make(lambda _: True)
            write_shards(made, found.tensors, session.on_progress, session.should_stop)
        _require_promised(found, plan, loaded.card, stock, dtype, spec.form)
    name = str(dtype).removeprefix("torch.")
    write_config(made, base, type(loaded.model).__name__, name, block_of(found.layout, _provenance(plan, loaded.card)))
    write_companions(made, loaded.model, loaded.tokenizer)
    plan.save(made / "plan.json")
    base_weights = loaded.card.params_total * dtype.itemsize
    return _Written(found.bytes, found.layout, name, notes, licence_of(base), base_weights)


def _write_parts(made: Path, session: Session, residence: Residence, make: Callable[[Wanted], Stored]) -> Stored:
    """Write a model whose blocks come and go; what comes back has the shapes of all tensors, and no numbers."""
    written: dict[str, Tensor] = {}
    layout: dict[str, Any] = {}

    def parts() -> Iterator[Mapping[str, Tensor]]:
        for part in stored_parts(residence, make):
            for key, value in part.layout.items():
                layout[key] = _joined(layout.get(key), value)
            written.update({name: tensor.to("meta") for name, tensor in part.tensors.items()})
            yield part.tensors

    write_parts(made, parts(), residence.count + 1, session.on_progress, session.should_stop)
    return Stored(written, layout)


def _joined(before: Any, value: Any) -> Any:
    """What two parts of a model say of their layers, together."""
    if isinstance(value, Mapping):
        return {**(before or {}), **value}
    return [*(before or []), *value] if isinstance(value, list) else value


def _checked(made: Path, reference: Path, device: str, *, exact: bool, should_stop: ShouldStop) -> Check:
    """The folder loaded again in another process; one that was written part by part has been read back already."""
    return (
        check_folder(made, reference, device, exact=exact, should_stop=should_stop) if reference.exists() else READ_BACK
    )


def _dtype(spec: ExportSpec, base: Path, held: torch.dtype) -> torch.dtype:
    """The precision asked for; without one that of the model's own files, or of the model in memory if it has less."""
    if spec.dtype in DTYPES:
        return DTYPES[spec.dtype]
    if held != torch.float32:
        return held
    found = stored_dtype(look_through(base, allow_pickle=spec.model.allow_pickle))
    if not isinstance(found, torch.dtype):  # pickled weights have no headers
        config = read_table(base / "config.json")
        found = DTYPES.get(str(config.get("dtype", config.get("torch_dtype"))), torch.float32)
    return found if found in DTYPES.values() else torch.float32


def _windows(session: Session, spec: ExportSpec) -> tuple[Tensor, tuple[str, ...]]:
    """[n, w] token ids of the plan's calibration text; made-up ones where that cannot be read."""
    card = session.loaded.card
    window = min(WINDOW, card.max_positions)
    with suppress(TextError, PackError):
        found = session.windows(spec.calibration, WINDOWS, window, spec.calibration.seed)
        if int(found.max()) < card.vocab_size:
            return found, ()
    generator = torch.Generator().manual_seed(0)
    note = "The folder was checked on random tokens: the calibration text cannot be read."
    return torch.randint(0, card.vocab_size, (WINDOWS, window), generator=generator), (note,)


def _require_promised(found: Stored, plan: Plan, card: ModelCard, stock: Stock, dtype: torch.dtype, form: str) -> None:
    """Refuse weights of another size than the plan promises.

    Raises:
        ExportError: names both sizes.
    """
    promised = weight_bytes(card, plan if form != "dense" else None, dtype.itemsize)
    for name, (rows, _) in (plan.pruned or {}).items():
        promised -= (stock.shapes[name][0] - rows) * (f"{name}.bias" in found.tensors) * dtype.itemsize
    counted = sum(
        tensor.numel() * (dtype.itemsize if tensor.is_floating_point() else 1)
        for tensor in found.tensors.values()
        if tensor.is_floating_point() or tensor.dtype == torch.uint8
    )
    if not promised <= counted <= 1.001 * promised:  # a little more where the model has buffers that are saved
        raise ExportError(
            f"The folder would hold {counted:,} bytes of weights, and the plan promises {promised:,}.",
            "Please report the model's architecture.",
        )


def _provenance(plan: Plan, card: ModelCard) -> dict[str, Any]:
    """What the block says besides the shapes."""
    return {
        "method": plan.method,
        "decomposition": plan.decomposition,
        "update": plan.update,
        "keep": plan.keep_achieved,
        "keep_whole_model": plan.keep_whole_model,
        "base_model": _hub_id(card) or card.name,
        "base_revision": card.identity.revision,
        "base_fingerprint": card.identity.fingerprint,
        # vLLM asks any block for its producer's name.
        "producer": {"name": "low-rank-compression-explorer", "version": __version__},
    }


def _hub_id(card: ModelCard) -> str:
    source = card.identity.source
    if source == "starter":
        return STARTER_SOURCE
    return source if find_source(ModelRef(source)).kind == "hub" else ""


def _facts(
    spec: ExportSpec, target: Path, plan: Plan, card: ModelCard, device: str, written: _Written, check: Check
) -> CardFacts:
    starter = card.identity.source == "starter"
    measured, dense = rows_of_plan(spec)
    runs = {str(plan.origin.get("allocate_run_id", "")): "ranks"}
    runs[str(plan.origin.get("run_id", ""))] = f"factors ({plan.update})" if plan.update else "ranks"
    return CardFacts(
        name=target.name,
        base=card.name,
        hub_id=_hub_id(card),
        revision=card.identity.revision,
        licence="apache-2.0" if starter else written.licence,
        plan=plan,
        method=method_label(plan.method),
        form=spec.form,
        storage=str(written.layout.get("storage", "")),
        dtype=written.dtype,
        weights=written.weights,
        base_weights=written.base_weights,
        check=check.to_dict(),
        device=device,
        measured=measured,
        dense=dense,
        runs={run: what for run, what in runs.items() if run},
        notes=["The starter pack's copy of the original was packed in 5 bits per weight before this."]
        if starter
        else [],
    )

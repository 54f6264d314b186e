"""The ``adopt`` job: another project's compressed folder as a plan with weights on the model that it was made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.budget import is_dense, keep_ratio, stored_card
from lrc_core.decompose.update import named_factors
from lrc_core.errors import ModelError
from lrc_core.files import write_tensors
from lrc_core.folders.foreign import ForeignFactors, read_foreign
from lrc_core.formats.grids import FORMATS
from lrc_core.formats.rounding import on_grid
from lrc_core.models.blocks.linears import get_module, weight_of
from lrc_core.pipeline.session import Session, write_card
from lrc_core.plan import Plan, make_plan
from lrc_core.runs.spec import IMPORTED, AdoptSpec
from lrc_core.runs.store import Run
from lrc_core.types import ModelCard, Progress

WEIGHTS = "weights.safetensors"
_ROUNDING = 1e-2
"""How far a weight that was not compressed may lie from the model's, as a share of its largest: bfloat16 has 0.4 %."""


def adopt_run(run: Run, session: Session) -> dict[str, Any]:
    """``plan.json`` and ``weights.safetensors`` with the folder's factors, which then work like any plan's."""
    spec = run.spec_as(AdoptSpec)
    result = write_card(run, session)
    card, folder = session.loaded.card, Path(spec.folder)
    session.on_progress(Progress("reading the folder"))
    inputs = {layer.name: layer.in_features for layer in card.layers}
    found = read_foreign(folder, inputs, allow_pickle=spec.model.allow_pickle)
    _require_fit(found, card, folder)
    _require_same(found, session.loaded.model, folder)
    weights: dict[str, Tensor] = {}
    for number, (name, (left, right)) in enumerate(sorted(found.factors.items())):
        session.on_progress(Progress("taking the factors over", number, len(found.factors)))
        weights |= named_factors(name, left, right)
    write_tensors(run.path / WEIGHTS, weights)
    plan = _plan(run, card, found, folder)
    plan.save(run.path / "plan.json")
    details = {"layers": len(found.factors), "project": found.project}
    return {**result, "plan": plan.to_dict(), "recorded": [], "details": details}


def _plan(run: Run, card: ModelCard, found: ForeignFactors, folder: Path) -> Plan:
    card = stored_card(card, found.storage)
    ranks = {layer.name: layer.full_rank for layer in card.layers}
    ranks |= {name: left.shape[1] for name, (left, _) in found.factors.items()}
    origin = {"run_id": run.id, IMPORTED: {"project": found.project, "folder": folder.name}}
    keep = keep_ratio(card.layers, ranks)
    made = make_plan(card, ranks, decomposition="svd", method=IMPORTED, keep_target=keep, origin=origin)
    return replace(made, weights_file=WEIGHTS, formats=dict(found.formats)).with_digests(run.path)


def _require_fit(found: ForeignFactors, card: ModelCard, folder: Path) -> None:
    """Refuse factors that cannot be those of the model's layers, and layers that are missing.

    Raises:
        ModelError: names the layer.
    """
    for layer in stored_card(card, found.storage).layers:
        if layer.name not in found.factors:
            if f"{layer.name}.weight" not in found.rest:
                raise ModelError(
                    f"{folder} holds neither a weight nor factors of {layer.name}.", "Name its own base model."
                )
            continue
        left, right = found.factors[layer.name]
        shape, rank = (left.shape[0], right.shape[-1]), left.shape[-1]
        if left.ndim != 2 or right.ndim != 2 or right.shape[0] != rank:
            raise ModelError(f"The two factors of {layer.name} in {folder} do not fit each other.", "Copy it again.")
        if shape != (layer.out_features, layer.in_features):
            raise ModelError(
                f"{layer.name} is {shape[0]} x {shape[1]} in {folder}, and "
                f"{layer.out_features} x {layer.in_features} in {card.name}.",
                "Name the model that the folder was made of.",
            )
        if not (left.is_floating_point() and left.isfinite().all() and right.isfinite().all()):
            raise ModelError(f"The factors of {layer.name} in {folder} are not all finite numbers.", "Copy it again.")
        if is_dense(layer, rank):
            raise ModelError(
                f"The factors of {layer.name} in {folder} have rank {rank} and take more room than the layer itself.",
                "A plan cannot hold them.",
            )


@torch.no_grad()
def _require_same(found: ForeignFactors, model: nn.Module, folder: Path) -> None:
    """Refuse a folder whose other weights are not the model's: a plan changes the low-rank layers alone.

    Raises:
        ModelError: names the first tensor that differs.
    """
    known = model.state_dict()
    for name, tensor in found.rest.items():
        own = known.get(name)
        if own is None or not tensor.numel():
            continue  # buffers that older versions saved, and where stacks of experts were
        if name.endswith(".weight") and name.removesuffix(".weight") in {*found.factors}:
            own = weight_of(get_module(model, name.removesuffix(".weight")))
        elif form := found.formats.get(name.removesuffix(".weight")):
            own = on_grid(weight_of(get_module(model, name.removesuffix(".weight"))), FORMATS[form])
        alike = own.shape == tensor.shape and (
            (own.cpu().float() - tensor.float()).abs().max() <= _ROUNDING * own.float().abs().max().cpu() + 1e-6
        )
        if not alike:
            raise ModelError(
                f"{name} in {folder} is not that of the model.",
                "It was trained further, or the folder was made of another model.",
            )

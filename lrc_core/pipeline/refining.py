"""The part of the ``update`` job that refines a plan block by block; see :mod:`lrc_core.tune.blockwise`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrc_core.decompose.blockfiles import BlockFiles
from lrc_core.decompose.update import component_sizes
from lrc_core.pipeline.session import Session, factors_of
from lrc_core.plan import Plan
from lrc_core.runs.spec import UpdateSpec
from lrc_core.runs.store import Run
from lrc_core.tune.block_training import RefinedBlock
from lrc_core.tune.blockwise import BlockwiseCallbacks, refined_blocks
from lrc_core.tune.settings import BlockwiseSettings

_FIGURES = "block"  # error before, error after, steps, whether the factors are other than before


def refined(
    run: Run, session: Session, plan: Plan, settings: BlockwiseSettings, checkpoint: Path
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Refine the blocks; each is stored when it is finished, so that a stopped run goes on in the one behind.

    Returns:
        ``NAME.left``, ``NAME.right`` and ``NAME.sigma`` of every low-rank layer, and figures for the record.
    """
    spec, card = run.spec, session.loaded.card
    assert isinstance(spec, UpdateSpec)
    seed = spec.calibration.seed
    windows = session.fitting(spec.calibration, settings.documents + settings.check_windows, settings.window, seed + 2)
    done = BlockFiles(checkpoint)
    layers = {layer.name: layer.block for layer in card.layers if layer.name in plan.ranks}
    watch = BlockwiseCallbacks(
        checkpoint,
        finished=[block for block in set(layers.values()) if done.has_block(block)],
        known=lambda name, block: (done.read(block, f"{name}.left"), done.read(block, f"{name}.right")),
        on_progress=session.on_progress,
        should_stop=session.should_stop,
    )
    source = factors_of(session, plan, spec.plan_folder, spec.calibration, run.path.parent)
    for block, found in refined_blocks(session.loaded.model, plan, source, windows, settings, watch, seed=seed):
        done.write(block, _tensors(found))
    weights = {
        f"{name}.{part}": done.read(block, f"{name}.{part}")
        for name, block in layers.items()
        for part in ("left", "right", "sigma")
    }
    return weights, _details(layers, done)


def _tensors(found: RefinedBlock) -> dict[str, Tensor]:
    figures = [found.before, found.after, len(found.losses), found.helped]
    tensors = {_FIGURES: torch.tensor(figures, dtype=torch.float64)}
    for name, (left, right) in found.factors.items():
        tensors |= {f"{name}.left": left, f"{name}.right": right, f"{name}.sigma": component_sizes(left, right)}
    return tensors


def _details(layers: Mapping[str, int], done: BlockFiles) -> dict[str, Any]:
    """Errors of the blocks' outputs as shares of what the dense ones hold, and what was done for it."""
    figures = {block: done.read(block, _FIGURES).tolist() for block in set(layers.values())}
    before, after, steps, _ = (sum(column) for column in zip(*figures.values(), strict=True))
    return {
        "layers": sum(bool(figures[block][3]) for block in layers.values()),
        "blocks": sum(bool(found[3]) for found in figures.values()),
        "steps": int(steps),
        "mean_error_before": before / len(figures),
        "mean_error_after": after / len(figures),
    }

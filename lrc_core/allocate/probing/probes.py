"""Probes of many layers, remembered on disk: what several allocators measure before they choose.

Every probe keeps both the loss and the divergence from the dense model, so that a method that reads the one finds it
where a method that reads the other has been.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property

import torch
from torch import Tensor

from lrc_core.allocate.probing.grid import ProbeText
from lrc_core.allocate.probing.prober import DensePredictions, Effect, LayerProber, checked
from lrc_core.allocate.probing.records import RecordFile
from lrc_core.allocate.protocol import Context
from lrc_core.budget import Ranks, dense_ranks
from lrc_core.errors import CancelledError
from lrc_core.lowrank.apply import compressed
from lrc_core.models.blocks.linears import get_module
from lrc_core.types import LinearShape, Progress

Key = tuple[str, int]
BASE: Key = ("", 0)
"""Key of the model with nothing changed."""


def probe_layers(
    context: Context, text: ProbeText, wanted: Sequence[tuple[LinearShape, int]], base: Ranks | None = None
) -> dict[Key, Effect]:
    """Every wanted layer at its rank, one at a time, everything else dense or as ``base`` says.

    Probes on the dense model lie in ``context.common`` and serve every method and target; probes on a plan lie in
    ``context.checkpoint``. Either way what is already measured is not measured again.

    Args:
        text: what to measure on.
        wanted: layers and ranks, probes of one layer next to each other.
        base: ranks of all layers around the probed one; the dense model by default.

    Returns:
        Effects by layer name and rank, and that of the unchanged model under :data:`BASE`.

    Raises:
        CancelledError: ``context.should_stop`` said so; finished probes are kept.
        NumericalError: a loss is not finite; names the layer.
    """
    folder = context.common if base is None else context.checkpoint
    file = RecordFile(folder / text.file_name, ("layer", "rank", "loss", "divergence"))
    known = {(r["layer"], r["rank"]): Effect(r["loss"], r["divergence"]) for r in file.read()}
    by_key = {(layer.name, rank): layer for layer, rank in wanted}
    missing = [key for key in by_key if key not in known]
    if missing or BASE not in known:
        plans = PlanProber(context, text)
        if BASE not in known:
            known[BASE] = plans.effect(base or dense_ranks(context.layers))
            _write(file, BASE, known[BASE])
        reference, tokens = plans.reference
        dense = {layer.name: get_module(context.model, layer.name) for layer in context.layers}
        with compressed(context.model, context.layers, base, context.source, as_pairs=True) if base else nullcontext():
            prober = LayerProber(context.model, context.source, tokens, dense)
            for done, key in enumerate(missing, start=len(by_key) - len(missing) + 1):
                if context.should_stop():
                    raise CancelledError("Probing was cancelled.", "Resume the run: finished probes are kept.")
                known[key] = found = prober.effect(by_key[key], key[1], reference)
                _write(file, key, found)
                values = {"layer": key[0], "perplexity": math.exp(found.loss), "divergence": found.divergence}
                context.on_progress(Progress("probing layers", done, len(by_key), values))
    return {key: known[key] for key in (BASE, *by_key)}


def _write(file: RecordFile, key: Key, found: Effect) -> None:
    file.append({"layer": key[0], "rank": key[1], "loss": found.loss, "divergence": found.divergence})


class PlanProber:
    """What whole plans do. The dense model runs when the first plan is measured.

    Args:
        text: what to measure on.
    """

    def __init__(self, context: Context, text: ProbeText) -> None:
        self._context, self._text = context, text

    @cached_property
    def reference(self) -> tuple[DensePredictions, Tensor]:
        """The dense model's predictions on the probe windows, and the windows [n, window] on its device."""
        context, text = self._context, self._text
        windows = context.windows(text.windows, text.window, context.seed)
        tokens = windows.to(next(context.model.parameters()).device)
        with torch.no_grad():
            logits = context.model(input_ids=tokens, use_cache=False).logits
        return DensePredictions(logits, tokens, text.temperature, text.skipped), tokens

    @torch.no_grad()
    def effect(self, ranks: Ranks) -> Effect:
        """Loss and divergence of the model under a plan.

        Raises:
            NumericalError: one of them is not finite.
        """
        reference, tokens = self.reference
        context = self._context
        with compressed(context.model, context.layers, ranks, context.source, as_pairs=True):
            logits = context.model(input_ids=tokens, use_cache=False).logits
        return checked(reference.effect(logits), "the whole plan in place")

"""Measuring this program's own speed, as ratios within one run. ``lrc bench NAME``.

Candidate and baseline take turns, so that a machine that slows down slows both; times are medians of the turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.allocate.llrc import ENTRY as LLRC
from lrc_core.allocate.llrc_losses import draw_noise, gumbel_sigmoid, undecided, weighted_logit
from lrc_core.allocate.probing import LayerProber, token_loss
from lrc_core.allocate.teacher import Distiller
from lrc_core.budget import break_even
from lrc_core.decompose.factorise import Factors, Transform, factorise, in_parallel, singular_values
from lrc_core.lowrank.apply import low_rank_layer
from lrc_core.lowrank.masked import masked_layers
from lrc_core.models.linears import get_module, replace_module, weight_of
from lrc_core.models.load import LoadedModel, load_model
from lrc_core.runs.spec import CalibrationSpec, ModelRef
from lrc_core.texts import mixed_windows
from lrc_core.types import LinearShape, OnProgress, Progress, ignore_progress

_PROBED_LAYERS, _PROBED_RATIOS = 12, (0.4, 0.6, 0.8)
_STEP_SHAPE = (4, 256)  # windows and tokens of a probe and of a mask-training step
_TURNS = 5


def spectra(ref: ModelRef, on_progress: OnProgress = ignore_progress) -> dict[str, Any]:
    """Singular values of all block linears: this program's against ``torch.linalg.svd``, layer by layer in float32."""
    loaded = load_model(ref, on_progress=on_progress)
    weights = [weight_of(get_module(loaded.model, layer.name)).float().cpu() for layer in loaded.card.layers]
    reference: list[Tensor] = []

    def baseline() -> None:
        reference[:] = [torch.linalg.svd(weight, full_matrices=False).S for weight in weights]

    found: list[Tensor] = []

    def values() -> None:
        found[:] = in_parallel(lambda weight: singular_values(weight, Transform()), weights)

    def full() -> None:
        in_parallel(lambda weight: factorise(weight, Transform()), weights)

    base, value, factor = _take_turns("spectra", (baseline, values, full), 2, on_progress)
    errors = [_relative_error(mine, theirs) for mine, theirs in zip(found, reference, strict=True)]
    return _report(
        "spectra",
        base,
        value,
        "times faster than torch.linalg.svd (values only)",
        {
            "factors_ratio": base / factor,
            "factors_s": factor,
            "layers": len(weights),
            "max_relative_error": max(errors),
        },
    )


def _relative_error(mine: Tensor, theirs: Tensor) -> float:
    """Largest relative difference among values above a thousandth of the largest."""
    large = theirs > 1e-3 * theirs[0]
    return float(((mine.to(theirs.dtype) - theirs).abs() / theirs)[large].max())


def probe(ref: ModelRef, on_progress: OnProgress = ignore_progress) -> dict[str, Any]:
    """STRS probes of some layers: decomposed once, run from cached states, against decomposing and running it all."""
    loaded = load_model(ref, on_progress=on_progress)
    tokens = _tokens(loaded)
    layers = loaded.card.layers
    chosen = [layers[(2 * i + 1) * len(layers) // (2 * _PROBED_LAYERS)] for i in range(_PROBED_LAYERS)]
    wanted = [(layer, max(1, int(ratio * break_even(layer)))) for layer in chosen for ratio in _PROBED_RATIOS]
    results: dict[str, list[float]] = {}

    def whole() -> None:
        results["whole"] = [_whole_probe(loaded.model, layer, rank, tokens) for layer, rank in wanted]

    known = {layer.name: _factors(loaded.model, layer) for layer in chosen}

    def run_alone() -> None:
        results["alone"] = [_whole_probe(loaded.model, layer, rank, tokens, known) for layer, rank in wanted]

    def partial() -> None:
        source = _InMemory({layer.name: _factors(loaded.model, layer) for layer in chosen})
        prober = LayerProber(loaded.model, source, tokens)
        results["partial"] = [prober.loss(layer, rank) for layer, rank in wanted]

    base, alone, candidate = _take_turns("probe", (whole, run_alone, partial), 2, on_progress)
    difference = max(abs(a - b) for a, b in zip(results["whole"], results["partial"], strict=True))
    detail = {"run_alone_ratio": alone / candidate, "probes": len(wanted), "largest_loss_difference": difference}
    return _report(
        "probe", base, candidate, "times cheaper than decomposing and running the model at every probe", detail
    )


@torch.no_grad()
def _whole_probe(
    model: nn.Module, layer: LinearShape, rank: int, tokens: Tensor, known: Mapping[str, Factors] | None = None
) -> float:
    """The obvious way: decompose the layer, put it in, run the whole model."""
    module = get_module(model, layer.name)
    found = known[layer.name] if known else _factors(model, layer)
    replace_module(model, layer.name, low_rank_layer(module, found, slice(0, rank)))
    try:
        return token_loss(model(input_ids=tokens, use_cache=False).logits, tokens)
    finally:
        replace_module(model, layer.name, module)


def mask_step(ref: ModelRef, on_progress: OnProgress = ignore_progress) -> dict[str, Any]:
    """One LLRC step with full-rank masks against a dense forward and backward pass through activations."""
    loaded = load_model(ref, on_progress=on_progress)
    model, tokens = loaded.model, _tokens(loaded)
    names = [layer.name for layer in loaded.card.layers]
    found = dict(zip(names, in_parallel(lambda layer: _factors(model, layer), loaded.card.layers), strict=True))
    pairs = {
        name: (factors.left.to(loaded.device, loaded.dtype), factors.right.to(loaded.device, loaded.dtype))
        for name, factors in found.items()
    }
    settings = LLRC.settings("standard")
    distiller = Distiller(model, settings.distillation)
    chosen = torch.arange(len(tokens))
    teacher = distiller.teacher(chosen, tokens)
    sizes = [layer.full_rank for layer in loaded.card.layers]
    costs = [layer.out_features + layer.in_features for layer in loaded.card.layers]
    logits = nn.Parameter(torch.full((sum(sizes),), 3.0, device=loaded.device))
    optimizer, generator = torch.optim.Adam([logits], lr=1e-6), torch.Generator().manual_seed(0)

    def dense() -> None:
        embedded = model.get_input_embeddings()(tokens).detach().requires_grad_()
        output = model(inputs_embeds=embedded, use_cache=False).logits[:, :-1]
        loss = nn.functional.cross_entropy(output.float().flatten(0, 1), tokens[:, 1:].flatten())
        torch.autograd.backward(loss, inputs=[embedded])

    def masked() -> None:
        with masked_layers(model, pairs) as modules:
            noise = draw_noise("gumbel", logits.numel(), generator).to(loaded.device)
            mask, probabilities = gumbel_sigmoid(logits, noise, settings.temperature)
            parts = zip(names, mask.split(sizes), undecided(probabilities).split(sizes), strict=True)
            for name, values, trained in parts:
                modules[name].mask, modules[name].trained = values, trained
            loss = distiller.loss(tokens, teacher) + weighted_logit(logits.split(sizes), costs)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    base, candidate = _take_turns("mask-step", (dense, masked), _TURNS, on_progress)
    detail = {"tokens": tokens.numel(), "tokens_per_s": tokens.numel() / candidate, "dtype": str(loaded.dtype)}
    result = _report(
        "mask-step", base, candidate, "times a dense forward and backward pass through activations", detail
    )
    return {**result, "ratio": candidate / base}


class _InMemory:
    """Factors that are already computed."""

    def __init__(self, known: Mapping[str, Factors]) -> None:
        self._known = known

    def factors(self, name: str, _: int) -> Factors:
        return self._known[name]

    def sigma(self, name: str, _: int) -> Tensor:
        return self._known[name].sigma


def _factors(model: nn.Module, layer: LinearShape) -> Factors:
    return factorise(weight_of(get_module(model, layer.name)).detach().cpu(), Transform())


def _tokens(loaded: LoadedModel) -> Tensor:
    windows, window = _STEP_SHAPE
    texts = CalibrationSpec().texts
    found = mixed_windows(texts, loaded.tokenizer, part="calibrate", window=window, count=windows, seed=0)
    return found.to(loaded.device)


def _take_turns(
    name: str, functions: tuple[Callable[[], None], ...], turns: int, on_progress: OnProgress
) -> list[float]:
    """Median seconds of every function over ``turns`` rounds, after one round that is not counted."""
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(turns + 1):
        for function, taken in zip(functions, times, strict=True):
            started = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                taken.append(time.perf_counter() - started)
        on_progress(Progress(f"measuring {name}", turn + 1, turns + 1))
    return [statistics.median(taken) for taken in times]


def _report(name: str, baseline: float, candidate: float, meaning: str, detail: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "ratio": baseline / candidate,
        "meaning": meaning,
        "baseline_s": baseline,
        "candidate_s": candidate,
        "detail": detail,
    }

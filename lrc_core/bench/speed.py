"""``lrc bench spectra``, ``probe`` and ``mask-step``: this program's own speed on a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.allocate.llrc.losses import weighted_logit
from lrc_core.allocate.llrc.method import ENTRY as LLRC
from lrc_core.allocate.masks.gumbel import draw_noise, gumbel_sigmoid, undecided
from lrc_core.allocate.masks.teacher import Distiller
from lrc_core.allocate.probing.prober import LayerProber, token_loss
from lrc_core.bench.side_by_side import report_of, take_turns
from lrc_core.budget import break_even, factor_params
from lrc_core.decompose.factorise import Factors, Transform, factorise, in_parallel, singular_values
from lrc_core.lowrank.apply import low_rank_layer
from lrc_core.lowrank.masked import masked_layers
from lrc_core.models.blocks.linears import get_module, swapped, weight_of
from lrc_core.models.load import LoadedModel, load_model
from lrc_core.runs.spec import CalibrationSpec, ModelRef
from lrc_core.texts.windows import mixed_windows
from lrc_core.types import LinearShape, OnProgress, Progress, ignore_progress

_PROBED_LAYERS, _PROBED_RATIOS = 8, (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # the ratios of STRS's default grid
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

    base, value, factor = take_turns("spectra", (baseline, values, full), 2, on_progress)
    errors = [_relative_error(mine, theirs) for mine, theirs in zip(found, reference, strict=True)]
    return report_of(
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
    """STRS probes of some layers: decomposed once, run from cached states, against decomposing and running it all.

    The obvious way decomposes with ``torch.linalg.svd`` at every probe. The ways take turns layer by layer. Left out
    is the one run of the dense model that fills the cache: STRS makes it once for a thousand probes.
    """
    loaded = load_model(ref, on_progress=on_progress)
    model, tokens, layers = loaded.model, _tokens(loaded), loaded.card.layers
    known: dict[str, Factors] = {}
    prober = LayerProber(model, _InMemory(known), tokens)
    chosen = [layers[(2 * i + 1) * len(layers) // (2 * _PROBED_LAYERS)] for i in range(_PROBED_LAYERS)]
    times, difference = [0.0, 0.0, 0.0], 0.0
    for number, layer in enumerate(chosen):
        found, losses = _factors(model, layer), _ProbeLosses(model, layer, tokens, prober, known)
        ways = (losses.decompose_and_run, lambda: losses.run(found), losses.from_cached)  # noqa: B023 - used at once
        taken = take_turns("probe", ways, 2, ignore_progress)
        times = [total + seconds for total, seconds in zip(times, taken, strict=True)]
        difference = max(difference, losses.largest_difference())
        on_progress(Progress("measuring probe", number + 1, len(chosen)))
    base, alone, candidate = times
    detail = {
        "run_alone_ratio": alone / candidate,
        "probes": len(chosen) * len(_PROBED_RATIOS),
        "largest_loss_difference": difference,
    }
    return report_of(
        "probe", base, candidate, "times cheaper than decomposing and running the model at every probe", detail
    )


class _ProbeLosses:
    """The probes of one layer, made three ways."""

    def __init__(
        self, model: nn.Module, layer: LinearShape, tokens: Tensor, prober: LayerProber, known: dict[str, Factors]
    ) -> None:
        self._model, self._layer, self._tokens, self._prober, self._known = model, layer, tokens, prober, known
        self._ranks = [max(1, int(ratio * break_even(layer))) for ratio in _PROBED_RATIOS]
        self._found: dict[str, list[float]] = {}

    def decompose_and_run(self) -> None:
        """The obvious way."""
        weight = weight_of(get_module(self._model, self._layer.name)).float()
        for rank in self._ranks:
            u, sigma, v = torch.linalg.svd(weight, full_matrices=False)
            _whole_probe(self._model, self._layer, rank, self._tokens, Factors(u * sigma, v, sigma))

    def run(self, found: Factors) -> None:
        """Decomposed beforehand, but the whole model is run."""
        self._found["run"] = [_whole_probe(self._model, self._layer, rank, self._tokens, found) for rank in self._ranks]

    def from_cached(self) -> None:
        """Decomposed once, and only the blocks from the probed one on are run."""
        self._known[self._layer.name] = _factors(self._model, self._layer)
        self._found["cached"] = [self._prober.loss(self._layer, rank) for rank in self._ranks]

    def largest_difference(self) -> float:
        """Between the losses of the last two ways, which use the same factors."""
        return max(abs(a - b) for a, b in zip(self._found["run"], self._found["cached"], strict=True))


@torch.no_grad()
def _whole_probe(model: nn.Module, layer: LinearShape, rank: int, tokens: Tensor, found: Factors) -> float:
    """Put the truncated layer in and run the whole model."""
    truncated = low_rank_layer(get_module(model, layer.name), found, slice(0, rank))
    with swapped(model, [(layer.name, truncated)]):
        return token_loss(model(input_ids=tokens, use_cache=False).logits, tokens)


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
    costs = [factor_params(layer, 1) for layer in loaded.card.layers]
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

    base, candidate = take_turns("mask-step", (dense, masked), _TURNS, on_progress)
    detail = {"tokens": tokens.numel(), "tokens_per_s": tokens.numel() / candidate, "dtype": str(loaded.dtype)}
    result = report_of(
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

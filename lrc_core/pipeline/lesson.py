"""The ``lesson`` job: what the guided path shows of a model that no other run holds.

Its files are pictures, curves and texts; nobody can make a weight out of them:

- ``lesson.json``: ``layers`` (spectra, and errors of weight and outputs at some ranks), ``sensitivity`` (what squeezing
  each layer alone does to the predictions), ``texts`` (what the model then writes);
- ``pictures.npz``: ``<layer>/weight``, ``<layer>/kept`` and ``<layer>/missing``, see
  :class:`~lrc_core.decompose.portrait.Portrait`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from lrc_core.allocate.probing.grid import ProbeText
from lrc_core.allocate.probing.probes import BASE, probe_layers
from lrc_core.allocate.protocol import Context
from lrc_core.budget import break_even, dense_ranks, whole_rank_of_share
from lrc_core.calibrate.moments import block_statistics
from lrc_core.decompose.factorise import Transform, factorise
from lrc_core.decompose.measures import energy_rank
from lrc_core.decompose.portrait import portrait, rank_steps, truncation_errors
from lrc_core.decompose.store import FactorStore
from lrc_core.errors import CancelledError, UnknownNameError
from lrc_core.evaluate.sample import DEFAULT_PROMPT, greedy_sample
from lrc_core.files import write_arrays, write_json
from lrc_core.lowrank.apply import compressed
from lrc_core.models.blocks.linears import get_module, weight_of
from lrc_core.paths import cache_home
from lrc_core.pipeline.session import Session, factors_for, write_card
from lrc_core.runs.spec import LessonSpec
from lrc_core.runs.store import Run
from lrc_core.types import LinearShape, Progress

DECOMPOSITION = "whitened"
RANKS, CELLS = 18, 32
HELD_OUT = 16  # windows that outputs are judged on, none of them whitened with
PROBES = ProbeText(windows=2, window=256)
NEW_TOKENS = 40
WORST, MIDDLE, MILDEST = 5, 3, 4  # layers by sensitivity that texts are written with


def lesson_run(run: Run, session: Session) -> dict[str, Any]:
    """``lesson.json`` and ``pictures.npz``; see the module's description."""
    spec = run.spec_as(LessonSpec)
    result = write_card(run, session)
    store = factors_for(session, DECOMPOSITION, spec.calibration)
    named = _named(session.loaded.card.layers, spec.layers)
    content: dict[str, Any] = {"keep": spec.keep, "layers": [], "sensitivity": {}, "texts": []}
    if "layers" in spec.parts:
        content["layers"] = _layers(run, session, store, named or _telling(session.loaded.card.layers, store))
    if "sensitivity" in spec.parts:
        content["sensitivity"] = _sensitivity(spec, session, store)
    if "text" in spec.parts:
        chosen = named or _spread(session.loaded.card.layers, content["sensitivity"])
        content["texts"] = _texts(spec, session, store, chosen, content["sensitivity"])
    write_json(run.path / "lesson.json", content)
    return {**result, "layers": [entry["name"] for entry in content["layers"]], "texts": content["texts"]}


def _named(layers: Sequence[LinearShape], names: Sequence[str]) -> list[LinearShape]:
    """The layers of those names.

    Raises:
        UnknownNameError: the model has no such layer.
    """
    by_name = {layer.name: layer for layer in layers}
    for name in names:
        if name not in by_name:
            raise UnknownNameError(f"This model has no layer {name!r}.", f"The first one is {layers[0].name}.")
    return [by_name[name] for name in names]


def _telling(layers: Sequence[LinearShape], store: FactorStore) -> list[LinearShape]:
    """Of a block in the middle: the layer that is easiest to squeeze, the hardest, and one between them."""
    middle = layers[-1].block // 2
    inside = [layer for layer in layers if layer.block == middle] or list(layers)
    sigma = {layer.name: store.sigma(layer.name, layer.block).numpy() for layer in inside}
    ordered = sorted(inside, key=lambda layer: energy_rank(sigma[layer.name], 0.95) / break_even(layer))
    return list(dict.fromkeys([ordered[0], ordered[len(ordered) // 2], ordered[-1]]))


def _layers(run: Run, session: Session, store: FactorStore, chosen: Sequence[LinearShape]) -> list[dict[str, Any]]:
    """Curves of the chosen layers; their pictures go into ``pictures.npz``."""
    spec = run.spec_as(LessonSpec)
    moments, tokens = _held_out(spec, session, chosen)
    pictures: dict[str, Any] = {}
    found = []
    for number, layer in enumerate(chosen, start=1):
        _stop_if_asked(session)
        weight = weight_of(get_module(session.loaded.model, layer.name)).detach().cpu()
        ranks = rank_steps(layer.full_rank, RANKS)
        by_name = {"svd": factorise(weight, Transform()), DECOMPOSITION: store.factors(layer.name, layer.block)}
        drawn = portrait(weight, by_name["svd"], ranks, CELLS)
        pictures |= {f"{layer.name}/{part}": getattr(drawn, part) for part in ("weight", "kept", "missing")}
        errors = {name: truncation_errors(weight, each, moments[layer.name], ranks) for name, each in by_name.items()}
        found.append(
            {
                "name": layer.name,
                "ranks": list(ranks),
                "brightest": _rounded(drawn.brightest),
                "sigma": {name: [_rounded(value) for value in each.sigma.tolist()] for name, each in by_name.items()},
                "weight_error": {name: [_rounded(value) for value in each.weight] for name, each in errors.items()},
                "output_error": {name: [_rounded(value) for value in each.output] for name, each in errors.items()},
                "input_energy": _input_energy(moments[layer.name]),
                "tokens": tokens,
            }
        )
        session.on_progress(Progress("drawing layers rank by rank", number, len(chosen)))
    write_arrays(run.path / "pictures.npz", pictures)
    return found


def _held_out(spec: LessonSpec, session: Session, chosen: Sequence[LinearShape]) -> tuple[dict[str, Tensor], int]:
    """Second moment of the inputs of the chosen layers on text that the factors were not made from; and its tokens."""
    calibration, last = spec.calibration, max(layer.block for layer in chosen)
    windows = session.windows(calibration, HELD_OUT, calibration.window, calibration.seed, part="select")
    before = [layer for layer in session.loaded.card.layers if layer.block <= last]
    walk = block_statistics(
        session.loaded.model,
        before,
        windows,
        on_progress=session.on_progress,
        should_stop=session.should_stop,
    )
    moments = {}
    for block, statistics in walk:
        moments.update(
            {layer.name: statistics.of(layer.name).second_moment for layer in chosen if layer.block == block}
        )
    return moments, windows.numel()


def _input_energy(moment: Tensor) -> dict[str, list[Any]]:
    """Share of the inputs' energy in their first so many directions."""
    values = torch.linalg.eigvalsh(moment.double()).clamp_min(0).flip(0)
    shares = values.cumsum(0) / values.sum().clamp_min(torch.finfo(torch.float64).tiny)
    counts = list(rank_steps(len(values), RANKS))
    return {"directions": counts, "share": [_rounded(float(shares[count - 1])) for count in counts]}


def _sensitivity(spec: LessonSpec, session: Session, store: FactorStore) -> dict[str, Any]:
    """Rank, loss and KL divergence with each layer squeezed alone, under its name; the dense loss under ``""``."""
    calibration, layers = spec.calibration, session.loaded.card.layers
    found_text = session.calibrated(calibration)
    key = session.probing_key(found_text, calibration, "common", store.folder.name, calibration.seed)
    folder = cache_home() / "allocators" / f"common-{key}"  # what allocators have probed need not be probed again
    context = Context(
        model=session.loaded.model,
        layers=layers,
        source=store,
        decomposition=DECOMPOSITION,
        windows=lambda count, window, seed: session.windows(calibration, count, window, seed + 1),
        keep=spec.keep,
        seed=calibration.seed,
        checkpoint=folder,
        shared=folder,
        common=folder,
        on_progress=session.on_progress,
        should_stop=session.should_stop,
    )
    wanted = [(layer, whole_rank_of_share(layer, spec.keep)) for layer in layers]
    effects = probe_layers(context, PROBES, wanted)
    found: dict[str, Any] = {"": {"loss": _rounded(effects[BASE].loss)}}
    for layer, rank in wanted:
        effect = effects[layer.name, rank]
        found[layer.name] = {
            "rank": rank,
            "loss": _rounded(effect.loss),
            "divergence": _rounded(effect.divergence),
        }
    return found


def _spread(layers: Sequence[LinearShape], sensitivity: Mapping[str, Any]) -> list[LinearShape]:
    """The worst layers to squeeze, some in the middle, and the mildest, in that order."""
    if not sensitivity:
        return [layers[0], layers[len(layers) // 2], layers[-1]]
    ordered = sorted(layers, key=lambda layer: -sensitivity[layer.name]["divergence"])
    start = max(0, (len(ordered) - MIDDLE) // 2)
    chosen = [*ordered[:WORST], *ordered[start : start + MIDDLE], *ordered[-MILDEST:]]
    return list(dict.fromkeys(chosen))


def _texts(
    spec: LessonSpec,
    session: Session,
    store: FactorStore,
    chosen: Sequence[LinearShape],
    sensitivity: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """What the dense model writes, and the model with each of the chosen layers squeezed alone."""
    model, tokenizer, layers = session.loaded.model, session.loaded.tokenizer, session.loaded.card.layers
    prompt = spec.prompt or DEFAULT_PROMPT
    found: list[dict[str, Any]] = []
    for number, layer in enumerate([None, *chosen], start=1):
        _stop_if_asked(session)
        rank = whole_rank_of_share(layer, spec.keep) if layer else None
        changed = {**dense_ranks(layers), layer.name: rank} if layer and rank else {}
        with compressed(model, layers, changed, store) if changed else nullcontext():
            text = greedy_sample(model, tokenizer, prompt, NEW_TOKENS)
        name = layer.name if layer else None
        divergence = sensitivity.get(name, {}).get("divergence") if name else None
        found.append({"layer": name, "rank": rank, "divergence": divergence, "prompt": prompt, "text": text})
        session.on_progress(Progress("writing with one layer squeezed", number, len(chosen) + 1))
    return found


def _stop_if_asked(session: Session) -> None:
    if session.should_stop():
        raise CancelledError("The lesson was cancelled.", "Resume the run to start it again.")


def _rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")

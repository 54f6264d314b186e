"""From a model and its calibration windows to cached moments, spectra and factors. Each is computed once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.calibrate.gradients import block_gradients
from lrc_core.calibrate.moments import block_statistics
from lrc_core.calibrate.statistics import MomentStore, Notes, Statistics
from lrc_core.calibrate.team import ALONE, Team
from lrc_core.coverage import is_expert
from lrc_core.decompose.blockfiles import BlockFiles
from lrc_core.decompose.factorise import (
    Factors,
    Transform,
    factorise,
    in_parallel,
    output_root,
    singular_values,
)
from lrc_core.decompose.store import FactorStore, disk_cost
from lrc_core.errors import CancelledError, ResourceError
from lrc_core.models.blocks.linears import get_module, weight_of
from lrc_core.models.blocks.partial import require_chain
from lrc_core.models.checks.fit import require_fit
from lrc_core.registry import DecompositionEntry
from lrc_core.types import LinearShape, OnProgress, Progress, ShouldStop, ignore_progress, never_stop

VERSION = 1  # part of every cache key: raise it when the numbers that the code computes change
_EXPERTS = "experts 1"  # the same for models that are mixtures, whose experts were once left out
_PROBE_TOKENS = 8
_WIDE = 4096
_ROOM = 256 * 2**20  # bytes that must stay free on the disk


@dataclass(frozen=True)
class Calibrated:
    """A model, what identifies it, and the text that its statistics come from.

    Attributes:
        model: the dense model.
        layers: its block linears.
        fingerprint: of the weights.
        windows: [n, window] token ids.
        cache: folder of cached moments and factors.
        forward: digest of what the forward pass depends on besides the parameters, see
            :func:`~lrc_core.models.fingerprint.forward_digest`.
    """

    model: nn.Module
    layers: tuple[LinearShape, ...]
    fingerprint: str
    windows: Tensor
    cache: Path
    forward: str = ""

    def key(self, *parts: Any, text: bool = True) -> str:
        """Cache key over everything that changes a result: weights, tokens, precision, code version and ``parts``.

        Plain SVD asks for no text and no forward pass; everything else depends on the configuration as well.
        """
        dtype = str(next(self.model.parameters()).dtype)
        if any(is_expert(layer.kind) for layer in self.layers):
            parts = (*parts, _EXPERTS)
        known = [VERSION, self.fingerprint, dtype, *parts, *([self.forward] if text else [])]
        digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
        if text:
            digest.update(str(tuple(self.windows.shape)).encode() + self.windows.numpy().tobytes())
        return digest.hexdigest()[:20]


def moments(
    calibrated: Calibrated,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
    team: Team = ALONE,
) -> MomentStore:
    """Second moments of every block linear's inputs, computed once for a model and its windows."""
    store = MomentStore(calibrated.cache / "moments" / calibrated.key())
    if _made(store, team):
        return store
    _require_passes(calibrated)
    group_of: dict[str, str] = {}
    tokens_of: dict[str, int] = {}
    tokens = calibrated.windows.numel()
    for block, found in block_statistics(
        calibrated.model,
        calibrated.layers,
        calibrated.windows,
        on_progress=on_progress,
        should_stop=should_stop,
        team=team,
    ):
        if team.rank == 0:
            store.write_statistics(block, found)
        group_of.update(found.group_of)
        tokens_of.update({group: inputs.tokens for group, inputs in found.groups.items() if inputs.tokens != tokens})
        del found  # of wide layers it is a gigabyte, and the next block's are made beside it
    known = {"group_of": group_of, "tokens": tokens, "tokens_of": tokens_of, "fingerprint": calibrated.fingerprint}
    _finish(store, known, team)
    return store


def _made(store: BlockFiles, team: Team) -> bool:
    """Whether a folder is complete, as its writer sees it."""
    return bool(team.told(store.complete)[0])


def _finish(store: BlockFiles, known: dict[str, Any], team: Team) -> None:
    """Mark a folder complete; nobody goes on before it is."""
    if team.rank == 0:
        store.finish(known)
    team.told(None)


def _require_passes(calibrated: Calibrated) -> None:
    """Refuse at once what the walk from block to block cannot do."""
    require_fit(calibrated.model, calibrated.windows)
    require_chain(calibrated.model, calibrated.windows[:1, :_PROBE_TOKENS])


def output_gradients(
    calibrated: Calibrated,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
    team: Team = ALONE,
) -> BlockFiles:
    """Second moments of the gradients at every block linear's outputs, [m, m] by full module name, computed once.

    A gradient costs three times as much as a forward pass, so every other window has to do.
    """
    windows = calibrated.windows[::2]
    store = BlockFiles(calibrated.cache / "moments" / calibrated.key("output gradients"))
    if _made(store, team):
        return store
    _require_passes(calibrated)
    for block, found in block_gradients(
        calibrated.model, calibrated.layers, windows, on_progress=on_progress, should_stop=should_stop, team=team
    ):
        if team.rank == 0:
            store.write(block, found)
        del found  # as above
    _finish(store, {"tokens": windows.numel(), "fingerprint": calibrated.fingerprint}, team)
    return store


def factors(
    calibrated: Calibrated,
    entry: DecompositionEntry,
    settings: Any,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> FactorStore:
    """Factors of every block linear under one decomposition, computed once.

    Raises:
        ResourceError: the disk has no room for them; says how much they need.
    """
    key = calibrated.key(entry.name, entry.version, asdict(settings), text=entry.statistics != "none")
    store = FactorStore(calibrated.cache / "decompositions" / f"{entry.name}-{key}")
    if store.complete:
        return store
    cost = disk_cost(calibrated.layers, store.folder)
    if cost.free < cost.bytes + _ROOM:
        raise ResourceError(
            f"The factors need {cost.bytes / 1e9:.1f} GB on disk, but only {cost.free / 1e9:.1f} GB are free.",
            "Free some space; `lrc doctor --clean` removes cached decompositions.",
        )
    notes = Notes()
    for block, groups in _block_groups(calibrated, entry, settings, notes, (on_progress, should_stop)):
        store.write_factors(block, _each(calibrated, groups, factorise))
        on_progress(Progress(f"decomposing: {entry.label}", block + 1, calibrated.layers[-1].block + 1))
    store.finish({"decomposition": entry.name, "fingerprint": calibrated.fingerprint, **asdict(notes)})
    return store


def output_roots(
    calibrated: Calibrated,
    entry: DecompositionEntry,
    settings: Any,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> Callable[[str], Tensor | None]:
    """R of every layer, by full module name: how a two-sided decomposition weighs outputs. None where all count alike.

    See :func:`~lrc_core.decompose.factorise.output_root`.
    """
    if entry.statistics != "gradients":
        return lambda _: None
    slopes = output_gradients(calibrated, on_progress, should_stop)
    block_of = {layer.name: layer.block for layer in calibrated.layers}
    return lambda name: output_root(slopes.read(block_of[name], name), settings)


def spectra(
    calibrated: Calibrated,
    entry: DecompositionEntry,
    settings: Any,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
    notes: Notes | None = None,
) -> dict[str, Tensor]:
    """Singular values of every block linear under one decomposition, without its factors.

    Args:
        notes: what is to be told of single layers is put there.

    Returns:
        [r] float64 on the CPU, descending, by full module name.
    """
    found: dict[str, Tensor] = {}
    notes = Notes() if notes is None else notes
    for block, groups in _block_groups(calibrated, entry, settings, notes, (on_progress, should_stop)):
        found.update(_each(calibrated, groups, singular_values))
        on_progress(Progress(f"singular values: {entry.label}", block + 1, calibrated.layers[-1].block + 1))
    return found


def block_transforms(
    calibrated: Calibrated,
    entry: DecompositionEntry,
    settings: Any,
    notes: Notes,
    watch: tuple[OnProgress, ShouldStop] = (ignore_progress, never_stop),
) -> Iterator[tuple[int, dict[str, Transform]]]:
    """How a decomposition weighs errors, block by block and by full module name.

    Layers that share their inputs share the transform, unless outputs count as well.
    """
    for block, groups in _block_groups(calibrated, entry, settings, notes, watch):
        by_name = {name: transform for group in groups for name, transform in group.made().items()}
        yield block, {layer.name: by_name[layer.name] for layer in calibrated.layers if layer.block == block}


@dataclass(frozen=True)
class _Group:
    """Layers of a block that share a transform, which is made when it is asked for.

    Attributes:
        layers: in the order of the block.
        make: the transform; new at every call, because of a wide layer it is half a gigabyte.
        notes: told what it says.
    """

    layers: list[LinearShape]
    make: Callable[[], Transform]
    notes: Notes

    def made(self) -> dict[str, Transform]:
        """The transform by every layer's name."""
        found = self.make()
        for layer in self.layers:
            self.notes.add(layer.name, found)
        return {layer.name: found for layer in self.layers}


def _block_groups(
    calibrated: Calibrated, entry: DecompositionEntry, settings: Any, notes: Notes, watch: tuple[OnProgress, ShouldStop]
) -> Iterator[tuple[int, list[_Group]]]:
    """The groups of every block."""
    make = entry.load()
    statistics = _statistics(calibrated, entry, notes, watch)
    for block in sorted({layer.block for layer in calibrated.layers}):
        if watch[1]():
            raise CancelledError("The decomposition was cancelled.")
        members: dict[str, list[LinearShape]] = {}
        for layer in (layer for layer in calibrated.layers if layer.block == block):
            members.setdefault("" if statistics is None else statistics.group(layer), []).append(layer)
        yield (
            block,
            [
                _Group(layers, partial(_transform, make, statistics, layers[0], settings), notes)
                for layers in members.values()
            ],
        )


def _transform(make: Any, statistics: Statistics | None, layer: LinearShape, settings: Any) -> Transform:
    found: Transform = make(None if statistics is None else statistics.of(layer), settings)
    return found


def _statistics(
    calibrated: Calibrated, entry: DecompositionEntry, notes: Notes, watch: tuple[OnProgress, ShouldStop]
) -> Statistics | None:
    """What a decomposition goes by; None where it needs nothing but the weights."""
    if entry.statistics == "none":
        return None
    store = moments(calibrated, *watch)
    slopes = output_gradients(calibrated, *watch) if entry.statistics == "gradients" else None
    return Statistics(calibrated.layers, store, slopes, notes)


def _each(calibrated: Calibrated, groups: Sequence[_Group], function: Any) -> dict[str, Any]:
    """Apply a decomposition to every layer of a block, on the CPU one core a layer.

    Wide layers have all cores and come one after the other: a transform of one takes as much memory as a block.
    """

    def one(item: tuple[str, Transform]) -> Factors | Tensor:
        weight = weight_of(get_module(calibrated.model, item[0])).detach().cpu()
        result: Factors | Tensor = function(weight, item[1])
        return result

    with torch.no_grad():
        if any(max(layer.out_features, layer.in_features) > _WIDE for group in groups for layer in group.layers):
            found: dict[str, Any] = {}
            for group in groups:
                found |= _one_by_one(group, one)
            return found
        items = [item for group in groups for item in group.made().items()]
        return dict(zip((name for name, _ in items), in_parallel(one, items), strict=True))


def _one_by_one(group: _Group, function: Callable[[tuple[str, Transform]], Any]) -> dict[str, Any]:
    """A function of its own, so that nothing holds the group's transform when the next one is made."""
    return {item[0]: function(item) for item in group.made().items()}

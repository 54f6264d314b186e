"""Zero Sum SVD: drop components whose predicted effects on the loss cancel (arXiv 2602.02848).

To first order, dropping component i changes the calibration loss by s_i = -sigma_i u_i^T H v_i, H the gradient of the
loss with respect to the weight in the decomposition's coordinates: minus the derivative with respect to a mask entry.
The loss is the text's own next-token loss. Some components are predicted to raise it and some to lower it; the rule
keeps the running sum of what has been dropped near zero:

1. Every layer offers one candidate, its smallest remaining singular value (``candidates=sigma``, the paper's: each
   layer keeps its first k). With ``candidates=score`` (an ablation in the authors' code) a layer offers the component
   with the smallest |s| instead, and any components may remain.
2. If the running sum is at most 0 the non-negative candidate with the smallest |s| in the whole model is dropped, else
   the negative one; where there is none of that sign, the other. The layer then offers its next candidate.
3. This ends when enough parameters are saved. The running sum never leaves the range of the largest |s| dropped as
   long as both signs are on offer.

What a dropped component saves: nothing while the layer stays above break-even, and m + n parameters below it (the first
step across saves a little less). The scores do not see that, and the rule does not either: drops above break-even
are free of effect until the layer crosses. A layer that ends above break-even is stored dense, as in the authors'
code; what its dropped components had added to the running sum is then void, and ``details`` say how much that was. The
end is exact: what the last drop overshot is given back rank by rank.

The authors' one-shot script takes the gradient from a single window of 2,048 tokens. Their optional correction between
several stages changes weights and is not part of this method.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.budget import check_target, fit_budget, is_dense, keep_ratio, layer_params, rank_of_share
from lrc_core.damage import earlier
from lrc_core.errors import CancelledError, RunError
from lrc_core.files import write_arrays
from lrc_core.registry import ALLOCATORS, MethodEntry
from lrc_core.settings import setting
from lrc_core.types import LinearShape

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]
_TOKENS_AT_ONCE = 1024  # of one backward pass


@dataclass(frozen=True)
class ZeroSumSettings:
    """Settings of Zero Sum SVD."""

    windows: int = setting(
        1, "Windows", "Token windows that the gradient is taken from; the authors' script uses 1.", minimum=1
    )
    window: int = setting(2048, "Window", "Tokens in a window; 2048 in the paper.", minimum=2, maximum=65536)
    candidates: str = setting(
        "sigma",
        "Next to go",
        "What a layer offers next. sigma: its smallest remaining singular value, so that every layer keeps its first "
        "k (the paper's); score: the component with the smallest predicted effect, so that any may remain.",
        choices=("sigma", "score"),
    )
    floor: float = setting(
        0.0,
        "Floor",
        "Smallest share of its break-even rank that a layer keeps, as far as the target allows; the authors use 0, and "
        "0.3 when 60 % is removed.",
        minimum=0,
        maximum=1,
    )


ENTRY = ALLOCATORS.register(
    MethodEntry(
        name="zerosum",
        label="Zero Sum SVD",
        summary="Drops components whose predicted effects on the loss cancel; needs one backward pass.",
        source="arXiv 2602.02848",
        color="#d6604d",
        implementation="lrc_core.allocate.zerosum.method:allocate",
        settings_class=ZeroSumSettings,
        presets={"quick": {"windows": 4, "window": 256}, "standard": {"windows": 32, "window": 512}, "paper": {}},
        tiny={"windows": 3, "window": 12},
    )
)


@dataclass(frozen=True)
class Drop:
    """One step of the rule.

    Attributes:
        layer: name of the layer.
        index: of the dropped component, 0 for the largest singular value.
        score: predicted change of the loss.
    """

    layer: str
    index: int
    score: float


def allocate(context: Context, settings: ZeroSumSettings) -> Allocation:
    """Zero Sum SVD's ranks; see :class:`~lrc_core.allocate.protocol.Allocator`. Scores serve every target."""
    scores = _scores(context, settings)
    drops = choose_drops(context.layers, scores, context.keep, candidates=settings.candidates, floor=settings.floor)
    ranks = ranks_after(context.layers, drops, context.keep)
    order = {layer.name: drop_order(scores[layer.name], settings.candidates) for layer in context.layers}
    kept = {
        layer.name: sorted(order[layer.name][layer.full_rank - ranks[layer.name] :].tolist())
        for layer in context.layers
    }
    return Allocation(
        ranks,
        None if settings.candidates == "sigma" else kept,
        _details(context.layers, scores, drops, ranks, kept),
    )


def drop_order(scores: Array, candidates: str) -> NDArray[np.int64]:
    """Components of one layer in the order in which it offers them, [r]."""
    if candidates == "sigma":
        return np.arange(len(scores))[::-1]
    # Of equal effects the smaller singular value goes first.
    return np.lexsort((-np.arange(len(scores)), np.abs(scores)))


def choose_drops(
    layers: Sequence[LinearShape], scores: Mapping[str, Array], keep: float, *, candidates: str, floor: float = 0.0
) -> list[Drop]:
    """The zero-sum rule.

    Args:
        scores: [r] predicted loss change of dropping each component of every layer.
        candidates: ``sigma`` or ``score``, see :class:`ZeroSumSettings`.
        floor: smallest share of break-even that a layer keeps.

    Returns:
        Drops in the order in which they were made; too few where the floor does not let more go.

    Raises:
        BudgetError: the target is impossible.
    """
    missing = sum(layer.params for layer in layers) - check_target(layers, keep)
    orders = [drop_order(scores[layer.name], candidates) for layer in layers]
    most = [layer.full_rank - max(1, math.ceil(rank_of_share(layer, floor))) for layer in layers]
    gone = [0] * len(layers)
    offered: tuple[list[tuple[float, int]], list[tuple[float, int]]] = ([], [])  # not negative, negative

    def offer(number: int) -> None:
        if gone[number] < most[number]:
            score = float(scores[layers[number].name][orders[number][gone[number]]])
            heapq.heappush(offered[score < 0], (abs(score), number))

    for number in range(len(layers)):
        offer(number)
    drops: list[Drop] = []
    total = 0.0
    while missing > 0 and any(offered):
        wanted = total > 0  # a negative score pulls a positive sum back
        number = heapq.heappop(offered[wanted] or offered[not wanted])[1]
        layer, index = layers[number], int(orders[number][gone[number]])
        drops.append(Drop(layer.name, index, float(scores[layer.name][index])))
        total += drops[-1].score
        rank = layer.full_rank - gone[number]
        missing -= layer_params(layer, rank) - layer_params(layer, rank - 1)
        gone[number] += 1
        offer(number)
    return drops


def ranks_after(layers: Sequence[LinearShape], drops: Sequence[Drop], keep: float) -> dict[str, int]:
    """Whole plan after the drops: layers above break-even dense, the overshoot of the last drop given back."""
    return fit_budget(layers, _remaining(layers, drops), keep)


def _remaining(layers: Sequence[LinearShape], drops: Sequence[Drop]) -> dict[str, int]:
    gone = Counter(drop.layer for drop in drops)
    return {layer.name: layer.full_rank - gone[layer.name] for layer in layers}


def _details(
    layers: Sequence[LinearShape],
    scores: Mapping[str, Array],
    drops: Sequence[Drop],
    ranks: Mapping[str, int],
    kept: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """Figures of the rule: its running sum, and what the stored plan is predicted to change the loss by."""
    sums = np.cumsum([drop.score for drop in drops]) if drops else np.zeros(1)
    dense = {layer.name for layer in layers if is_dense(layer, ranks[layer.name])}
    low = [layer.name for layer in layers if layer.name not in dense]
    return {
        "drops": len(drops),
        "running_sum": float(sums[-1]),
        "largest_running_sum": float(np.abs(sums).max()),
        "largest_score": max((abs(drop.score) for drop in drops), default=0.0),
        "void_drops": sum(drop.layer in dense for drop in drops),
        "void_sum": sum((drop.score for drop in drops if drop.layer in dense), 0.0),
        "predicted_change": sum(
            (float(scores[name].sum() - scores[name][list(kept[name])].sum()) for name in low), 0.0
        ),
        "keep_before_fitting": keep_ratio(layers, _remaining(layers, drops)),
    }


# -- scores ------------------------------------------------------------------------------------------------------------


def _scores(context: Context, settings: ZeroSumSettings) -> dict[str, Array]:
    """Predicted loss change of dropping each component. It does not depend on the target: all targets share a file."""
    path = context.shared / "scores.npz"
    stored = earlier(path, lambda file: _stored(file, context.layers))
    if stored is not None:
        return stored
    from lrc_core.allocate.curves.sensitivity import component_slopes  # torch

    windows = context.windows(settings.windows, settings.window, context.seed)
    batches = windows.split(max(1, _TOKENS_AT_ONCE // settings.window))
    slopes = component_slopes(context, _pairs(context), batches)
    found = {name: -values for name, values in slopes.items()}
    context.shared.mkdir(parents=True, exist_ok=True)
    write_arrays(path, found)
    return found


def _pairs(context: Context) -> dict[str, tuple[Tensor, Tensor]]:
    """Factors of every layer where its weight is and as wide."""
    from lrc_core.lowrank.apply import compute_factors  # torch

    found = {}
    for layer in context.layers:
        if context.should_stop():
            raise CancelledError("Zero Sum SVD was cancelled.", "Resume the run: it starts again.")
        found[layer.name] = compute_factors(context.model, layer, context.source)
    return found


def _stored(path: Path, layers: Sequence[LinearShape]) -> dict[str, Array]:
    """Scores of an earlier run."""
    with np.load(path) as file:
        found = {layer.name: np.asarray(file[layer.name], dtype=np.float64) for layer in layers}
    if any(found[layer.name].shape != (layer.full_rank,) for layer in layers):
        raise RunError("its scores are of other sizes")
    return found

"""A training run as a film: every figure it reported on the way, and its ranks as they changed. No torch.

One JSON-able record serves the live page, the replay, the exported HTML and the GIF. Long runs are thinned evenly, so
that a film stays some hundred kilobytes whatever it shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lrc_core.budget import (
    factor_params,
    largest_low_rank,
    params_per_rank,
    removed_share,
    size_key,
    stored,
)
from lrc_core.charts.theme import GREY
from lrc_core.errors import RunError
from lrc_core.formats.budgets import budget_words
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS
from lrc_core.runs.spec import AllocateSpec
from lrc_core.runs.store import Run
from lrc_core.types import LinearShape, ModelCard
from lrc_core.words import kind_labels, removed

MOST_FRAMES, MOST_TICKS = 240, 400
_MOST_RANKS = 60_000  # numbers in all frames together: models of many layers get fewer frames, but never under 40
_DIGITS = 5  # significant digits of figures
_TASKS = {
    "logits": "KL to the dense model, nats per token",
    "text": "cross-entropy, nats per token",
    "hidden": "squared distance of hidden states, relative",
    "perplexity": "perplexity of a batch",
}
_TERMS = {
    "distill": "Distillation",
    "task": "Task",
    "compression": "Compression loss",
    "budget": "Budget loss",
    "tv": "Total variation",
    "guidance": "Full-rank guidance",
    "align": "Alignment",
    "loss": "All terms together",
}


@dataclass(frozen=True)
class Chart:
    """One line chart over the steps.

    Attributes:
        key: what it is about, and where a page finds it.
        label: its title.
        unit: of its axis.
        format: ``percent`` or ``number``.
        series: names of columns of the film's ticks; none where the run did not record it.
        labels: of the series.
        zero: whether the axis begins at zero.
    """

    key: str
    label: str
    unit: str
    format: str = "number"
    series: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    zero: bool = True


FilmCell = tuple[int, int, int, int, float, int, float]
"""What a player knows of a layer, see :func:`cells_of`."""


@dataclass(frozen=True)
class Film:
    """Everything that is drawn of a run.

    Attributes:
        run: its id.
        title: method and target in words.
        detail: model, decomposition, preset.
        color: of the method.
        target: what it goes to, in words: ``20 %``, ``45 % of the bytes``.
        removed: share of parameters that it is to remove; None where its budget is of another kind.
        live: whether more is to come.
        total: steps that are expected, at least those there are.
        blocks: number of decoder blocks.
        kinds: kinds of layer, the columns of the heatmap.
        cells: of every layer what :func:`cells_of` says.
        ticks: columns of figures, one entry per step: ``step``, ``removed``, ``to_remove``, loss terms and more.
        frames: ``step``, ``removed`` and ``ranks`` (one list per snapshot, in the order of ``cells``).
        charts: what is drawn of the ticks.
        over: a second run that is laid over it, step by step.
    """

    run: str
    title: str
    detail: str
    color: str
    target: str
    removed: float | None
    live: bool
    total: int
    blocks: int
    kinds: tuple[str, ...]
    cells: tuple[FilmCell, ...]
    ticks: Mapping[str, list[Any]]
    frames: Mapping[str, list[Any]]
    charts: tuple[Chart, ...]
    over: Film | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, what the player reads."""
        return asdict(self)

    def kept(self, frame: int) -> list[float]:
        """Share of its parameters that every layer keeps in a frame, in the order of ``cells``."""
        ranks = self.frames["ranks"][frame]
        return [
            1.0 if rank >= dense else rank * price - rank * rank * bend
            for rank, (*_, dense, price, _, bend) in zip(ranks, self.cells, strict=True)
        ]


def film_of(run: Run, *, live: bool = False) -> Film:
    """The film of a run folder.

    Raises:
        RunError: it is no allocation, or its records hold no training.
    """
    spec = run.spec
    if not isinstance(spec, AllocateSpec):
        raise RunError(f"Run {run.id} allocates nothing.", "Name a run of `lrc allocate` with a method that learns.")
    events, snapshots = run.read_events()[0], run.read_ranks()[0]
    if not any(is_tick(event) for event in events):
        raise RunError(
            f"Run {run.id} has recorded no training.",
            "Only methods that learn have a film: " + ", ".join(e.name for e in ALLOCATORS if e.learns) + ".",
        )
    return make_film(run.id, spec, run.card(), events, snapshots, live=live)


def make_film(
    run_id: str,
    spec: AllocateSpec,
    card: ModelCard,
    events: Iterable[Mapping[str, Any]],
    snapshots: Iterable[Mapping[str, Any]],
    *,
    live: bool = False,
) -> Film:
    """A film from records that were read before.

    Args:
        events: of the run; those that are no steps of training are passed over. A step that is reported twice, because
            the run was resumed from an earlier one, counts as reported last.
        snapshots: of the ranks; those that do not fit the card are passed over.
        live: whether more is to come.
    """
    told = list(events)
    ticks = _ticks(told)
    kinds = card.kinds
    entry = ALLOCATORS.get(spec.method) if spec.method in ALLOCATORS else None
    factors = DECOMPOSITIONS.get(spec.decomposition).label if spec.decomposition in DECOMPOSITIONS else ""
    steps = ticks["step"]
    target = budget_words(spec.budget) if spec.budget else removed(spec.keep)
    total = max([int(event["total"]) for event in told[-1:] if is_tick(event)] + [steps[-1] if steps else 0])
    return Film(
        run=run_id,
        title=f"{entry.label if entry else spec.method} to {target}{'' if spec.budget else ' compression'}",
        detail=" · ".join(word for word in (card.name, factors, spec.preset and f"preset {spec.preset}") if word),
        color=entry.color if entry else GREY,
        target=target,
        removed=None if spec.budget else size_key(removed_share(spec.keep)),
        live=live,
        total=total if live or not steps else steps[-1],
        blocks=card.n_blocks,
        kinds=tuple(kind_labels(kinds).values()),
        cells=cells_of(stored(card.layers, spec.storage), kinds),
        ticks=ticks,
        frames=_frames(snapshots, len(card.layers)),
        charts=tuple(chart for chart in _charts(ticks, spec.settings) if chart.series or live),
    )


def is_tick(event: Mapping[str, Any]) -> bool:
    """Whether an event is a step of training that says what was kept."""
    values = event.get("values")
    return isinstance(values, Mapping) and _rounded(values.get("keep")) is not None and "step" in event


def _ticks(events: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    by_step = {int(event["step"]): event["values"] for event in events if is_tick(event)}
    steps = thinned(sorted(by_step), MOST_TICKS)
    names = dict.fromkeys(name for step in steps for name in by_step[step])
    gone = [_rounded(removed_share(by_step[step]["keep"])) for step in steps]
    columns: dict[str, list[Any]] = {"step": steps, "removed": gone}
    for name in names:
        if name == "target":  # an event calls the share to keep so
            columns["to_remove"] = [_removed(by_step[step].get(name)) for step in steps]
        elif name not in ("keep", "eta_s"):
            columns[name] = [_rounded(by_step[step].get(name)) for step in steps]
    return columns


def _frames(snapshots: Iterable[Mapping[str, Any]], layers: int) -> dict[str, list[Any]]:
    by_step = {}
    for snapshot in snapshots:
        ranks = snapshot.get("ranks")
        if isinstance(ranks, list) and len(ranks) == layers and "step" in snapshot and "keep" in snapshot:
            by_step[int(snapshot["step"])] = snapshot
    steps = thinned(sorted(by_step), max(40, min(MOST_FRAMES, _MOST_RANKS // max(1, layers))))
    return {
        "step": steps,
        "removed": [_rounded(removed_share(by_step[step]["keep"])) for step in steps],
        "ranks": [[int(rank) for rank in by_step[step]["ranks"]] for step in steps],
    }


def thinned(entries: Sequence[int], most: int) -> list[int]:
    """At most ``most`` entries, spread evenly, the first and the last always among them."""
    if len(entries) <= most:
        return list(entries)
    return [entries[round(i * (len(entries) - 1) / (most - 1))] for i in range(most)]


def _removed(keep: Any) -> float | None:
    return None if _rounded(keep) is None else _rounded(removed_share(keep))


def _rounded(value: Any) -> float | None:
    """To the digits that a chart can show; None for what is no finite number."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.{_DIGITS}g}")


def cells_of(layers: Sequence[LinearShape], kinds: Sequence[str]) -> tuple[FilmCell, ...]:
    """Where every layer stands, and what a rank of it costs: budget arithmetic, done here once for every player.

    Args:
        kinds: their kinds, the columns of the heatmap.

    Returns:
        Of every layer its block, the index of its kind, its full rank, the rank from which it is stored dense, p, its
        parameters, and b, where k ranks cost the share p k - b k^2 of them.
    """
    return tuple(
        (
            layer.block,
            kinds.index(layer.kind),
            layer.full_rank,
            largest_low_rank(layer) + 1,
            round(params_per_rank(layer, 0) / layer.params, 9),
            layer.params,
            round((params_per_rank(layer, 0) - factor_params(layer, 1)) / layer.params, 12),
        )
        for layer in layers
    )


def _charts(ticks: Mapping[str, list[Any]], settings: Mapping[str, Any]) -> tuple[Chart, ...]:
    def recorded(name: str) -> tuple[str, ...]:
        return (name,) if any(value is not None for value in ticks.get(name, ())) else ()

    goal = recorded("to_remove")  # a budget in bytes or in time is no share of parameters
    unit = "share removed; dashed: target" if goal else "share removed"
    labels = ("achieved", "target")[: 1 + len(goal)]
    found = [Chart("removed", "Compression", unit, "percent", ("removed", *goal), labels)]
    for name, label in _TERMS.items():
        values = [value for value in ticks.get(name, ()) if value]
        if name == "loss" and values and min(values) < 0 < max(values):
            continue  # a budget that presses both ways makes the sum a saw-tooth, which no eye can read
        if values:  # a term that is switched off is zero throughout
            task = str(settings.get("distillation" if name == "distill" else "task", ""))
            unit = _TASKS.get(task, "dimensionless") if name in ("distill", "task") else "dimensionless"
            if name == "loss":
                unit = "weighted; the budget presses both ways"
            found.append(Chart(name, label, unit, series=(name,), labels=(label,), zero=False))
    found += [
        Chart("entropy", "Entropy of the masks", "bits per direction", series=recorded("entropy"), labels=("entropy",)),
        Chart("speed", "Speed", "tokens/s", series=recorded("tokens_per_s"), labels=("speed",)),
        Chart("memory", "Memory", "MB held", series=recorded("memory_mb"), labels=("memory",)),
    ]
    return tuple(found)

"""A plan: which rank every layer keeps. One documented JSON file that every command and page reads and writes.

``plan.json``::

    {"format": "lrc-plan", "version": 2,
     "model": {"source", "revision", "fingerprint", "architecture"},
     "decomposition": "whitened", "method": "llrc",
     "keep_target": 0.8, "keep_achieved": 0.7998, "keep_whole_model": 0.842,
     "storage": "pivoted",      law by which low-rank layers are stored and counted (budget/laws.py)
     "ranks": {"model.layers.0.self_attn.q_proj": 121, ...},     low-rank layers only
     "dense": ["model.layers.0.mlp.up_proj", ...],               every other block linear
     "kept": {"model.layers.0.self_attn.q_proj": [0, 1, 4, ...]} or null: kept indices where they are not the first k
     "weights_file": null,      name of a safetensors file beside the plan with updated weights
     "pruned": {"model.layers.0.mlp.up_proj": [1200, 576], ...},   rows and columns left; absent where none is pruned
     "formats": {"model.layers.0.mlp.up_proj": "Q8_0", ...},    number formats of layers that are not in 16 bits; absent
                                where all are
     "structure_file": null,    name of a safetensors file beside the plan that says which (lowrank/structure.py)
     "digests": {"weights.safetensors": "6f0c...", ...},    SHA-256 of those files; absent where there are none
     "origin": {...}}           how it came about (run id, preset, settings, seed, step, "update" where its factors
                                were updated); never needed to apply it

Version 1 has no ``storage``: its layers are pairs. A plan of pairs is still written as version 1, letter for letter as
it always was, so that earlier programs read it and what was measured of it is found again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Self

from lrc_core.budget import (
    LAWS,
    Ranks,
    Shapes,
    is_dense,
    keep_ratio,
    normalised,
    stored,
    stored_card,
    whole_model_ratio,
)
from lrc_core.coverage import is_expert
from lrc_core.digests import file_digest
from lrc_core.errors import BudgetError, OtherModelError, PlanError, RecordError
from lrc_core.files import json_plain, write_json
from lrc_core.formats.grids import FORMATS, METHODS
from lrc_core.formats.sizes import LayerState, layer_states, whole_bytes
from lrc_core.front import callable_package
from lrc_core.records import Count, Label, Name, Positive, Share, TextLimit, load_record, typed
from lrc_core.types import LinearShape, ModelCard, ModelIdentity, Storage

callable_package(__name__)

FORMAT, VERSIONS = "lrc-plan", (1, 2)
PAIR: Storage = "pair"
"""What records without a law are of."""
DEFAULT_STORAGE: Storage = "pivoted"
"""By what new work is stored unless the user says otherwise: at the same size it loses less (docs/results.md)."""
_SAME_SHARE = 1e-6
"""How far the share that a plan says it keeps may be from what its ranks come to."""
FileName = Annotated[str, TextLimit(r"[^/\\\x00]+", 255, "the name of a file beside the plan")]


OTHER_MODEL = "Allocate again on this model, or load the model that the plan names."
"""What to do where a plan is of another model."""
_REMEDY = "Allocate again, or copy the file once more from the run that made it."


@dataclass(frozen=True)
class _Hand:
    """What the editor remembers of a plan made by hand."""

    name: str = ""
    base: str = ""
    locked: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Origin:
    """The part of a plan's origin that is read again; it may say more."""

    run_id: Label | None = None
    allocate_run_id: Label | None = None
    spectra_run_id: Label | None = None
    recorded_at_step: Count | None = None
    hand: _Hand | None = None
    update: Mapping[str, Any] | None = None
    calibration: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Plan:
    """See the module's description for the meaning of each field."""

    model: ModelIdentity
    decomposition: Name
    method: Name
    keep_target: Share
    keep_achieved: Share
    keep_whole_model: Share
    ranks: Mapping[str, Positive]
    dense: tuple[Label, ...]
    kept: Mapping[str, tuple[Count, ...]] | None = None
    weights_file: FileName | None = None
    structure_file: FileName | None = None
    pruned: Shapes | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, Label] = field(default_factory=dict)
    storage: Storage = "pair"

    @property
    def update(self) -> str:
        """How the factors were updated (``left``, ``blockwise+tuned``, ...); "" where they are as allocated."""
        return update_of(self.origin)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that belong beside the plan."""
        return tuple(name for name in (self.weights_file, self.structure_file) if name)

    def full_ranks(self, layers: Sequence[LinearShape]) -> dict[str, int]:
        """Rank of every layer; dense and pruned ones at full rank, and experts where an earlier version knew of none.

        Raises:
            PlanError: the plan's layers are not the model's.
        """
        names = {layer.name for layer in layers}
        left_out = {layer.name for layer in layers if is_expert(layer.kind)}
        planned = set(self.ranks) | set(self.dense) | set(self.pruned or {})
        if names != planned | (set() if left_out & planned else left_out):
            example = sorted(names ^ planned)[0]
            raise OtherModelError(
                f"The plan does not fit this model: layer {example} is only in one of them.",
                "Use a plan that was made for this model.",
            )
        return {layer.name: self.ranks.get(layer.name, layer.full_rank) for layer in layers}

    def states(self, layers: Sequence[LinearShape]) -> tuple[LayerState, ...]:
        """What the plan makes of every layer of the model.

        Raises:
            PlanError: the plan's layers are not the model's.
        """
        return layer_states(stored(layers, self.storage), self.full_ranks(layers), self.formats, self.pruned)

    def bytes_share(self, layers: Sequence[LinearShape]) -> float:
        """Bytes of the block linears as a share of what they take dense in 16 bits.

        Raises:
            PlanError: the plan's layers are not the model's.
        """
        return sum(state.bytes for state in self.states(layers)) / whole_bytes(layers)

    def stored(self, card: ModelCard) -> ModelCard:
        """The model's card with its layers as this plan stores them: what everything about the plan is counted by."""
        return stored_card(card, self.storage)

    def check_model(self, card: ModelCard) -> None:
        """Refuse a plan of another model.

        Raises:
            PlanError: names both models.
        """
        if self.model.fingerprint != card.identity.fingerprint:
            raise OtherModelError(
                f"This plan was made for {self.model.source} ({self.model.fingerprint[:12]}), "
                f"not for {card.identity.source} ({card.identity.fingerprint[:12]}).",
                OTHER_MODEL,
            )
        self.check_layers(card)

    def check_layers(self, card: ModelCard) -> None:
        """Refuse a plan whose layers are not a model's, or whose figures are not those of its ranks.

        Raises:
            PlanError: names the layer or the figure.
        """
        ranks, layers = self.full_ranks(card.layers), self.stored(card).layers
        try:
            normalised(layers, ranks)
        except BudgetError as error:
            raise PlanError(f"The plan is damaged: {error}") from error
        sizes = {layer.name: (layer.out_features, layer.in_features) for layer in card.layers}
        for name, (rows, columns) in (self.pruned or {}).items():
            if not (1 <= rows <= sizes[name][0] and 1 <= columns <= sizes[name][1]):
                raise PlanError(f"The plan is damaged: {rows} x {columns} cannot be left of {name}.")
        achieved = keep_ratio(layers, ranks, self.pruned)
        if abs(achieved - self.keep_achieved) > _SAME_SHARE:
            raise PlanError(
                f"The plan is damaged: its ranks keep {achieved:.6f} of the block linears, "
                f"but it says keep_achieved {self.keep_achieved:.6f}.",
                _REMEDY,
            )

    def with_digests(self, folder: Path) -> Self:
        """The plan with the digests of its files, which lie in ``folder``."""
        return replace(self, digests={name: file_digest(folder / name) for name in self.files})

    def digest(self, name: str | None) -> str:
        """The recorded SHA-256 of one of the plan's files; "" where none was recorded."""
        return self.digests.get(name or "", "")

    def require_files(self, folder: str, runs: Path) -> None:
        """Refuse a plan whose files are missing, before any work.

        Args:
            folder: where they lie, absolute or relative to ``runs``; "" where it is unknown.

        Raises:
            PlanError: names the file.
        """
        for name in self.files:
            if not folder or not (runs / folder / name).is_file():
                raise PlanError(
                    f"The plan needs the file {name} beside it, which is not in {folder or 'any folder it names'}.",
                    "Name the run that made the plan, or copy the file from that run's folder.",
                )

    def to_dict(self) -> dict[str, Any]:
        """As its file is read, with format and version."""
        data = {**vars(self), "model": asdict(self.model)}
        pruned = data.pop("pruned")
        if pruned is not None:  # left out of other plans, which look as they did before there was pruning
            data["pruned"] = pruned
        for name in ("digests", "formats"):  # of plans without any, and of those that were made before there were any
            if not data[name]:
                del data[name]
        if self.storage == PAIR:
            del data["storage"]
        whole = {"format": FORMAT, "version": 1 if self.storage == PAIR else 2, **data}
        found: dict[str, Any] = json.loads(json.dumps(whole, default=json_plain))
        return found

    @classmethod
    def from_dict(cls, data: Any, where: str = "The plan") -> Self:
        """Inverse of :meth:`to_dict`.

        Raises:
            PlanError: not a plan, of a newer version, or damaged.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise PlanError(f"{where} is not a plan file.", f'A plan is JSON with "format": "{FORMAT}".')
        if (version := data.get("version")) not in VERSIONS or isinstance(version, bool):
            newer = isinstance(version, int) and version > max(VERSIONS)
            raise PlanError(
                f"{where} has version {str(version)[:40]}; this program reads versions 1 and 2.",
                "Update this program: a newer one wrote the file." if newer else _REMEDY,
            )
        if ("storage" in data) != (version == 2):
            raise PlanError(
                f"{where} is damaged: version 2 says how layers are stored, and version 1 does not.", _REMEDY
            )
        try:
            plan = typed(cls, {key: value for key, value in data.items() if key not in ("format", "version")}, where)
            typed(_Origin, plan.origin, f"The origin in {where}", others=True)
        except RecordError as error:
            raise PlanError(error.message, _REMEDY) from error
        named = [*plan.ranks, *plan.dense, *(plan.pruned or {})]
        if len(set(named)) < len(named):
            twice = next(name for name in named if named.count(name) > 1)
            raise PlanError(f"{where} is damaged: it names the layer {twice} twice.", _REMEDY)
        if plan.weights_file and plan.kept:
            # The indices would count the components of one decomposition and the file hold those of another.
            raise PlanError(f"{where} has weights of its own and lists kept components as well; only one can be meant.")
        if (plan.pruned is None) != (plan.structure_file is None) or (plan.pruned is not None and plan.ranks):
            raise PlanError(f"{where} is damaged: a pruned plan names its structure file and no ranks.")
        _check_formats(plan, where)
        if any(Path(name).name != name for name in plan.files):
            raise PlanError(f"{where} is damaged: the files of a plan lie beside it, not at {plan.files[0]!r}.")
        return plan

    def save(self, path: Path) -> None:
        """Write the plan as JSON, replacing the file in one step."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a plan.

        Raises:
            PlanError: no such file, not JSON, not a plan.
        """
        try:
            data = load_record(path, remedy=_REMEDY, strict=True)
        except RecordError as error:
            raise PlanError(error.message, error.remedy) from error
        return cls.from_dict(data, str(path))


def _check_formats(plan: Plan, where: str) -> None:
    """Refuse formats that are not known, and those of layers that have none.

    Raises:
        PlanError: names the layer and the format.
    """
    for name, form in plan.formats.items():
        if form not in FORMATS:
            known = ", ".join(FORMATS)
            raise PlanError(f"{where} stores {name} in a format that is not known: {form[:60]!r}.", f"Known: {known}.")
        if name not in plan.ranks and name not in plan.dense:
            raise PlanError(f"{where} is damaged: it has a format for {name}, which is none of its layers.", _REMEDY)


def update_of(origin: Any) -> str:
    """What :attr:`Plan.update` says, from a plan's origin alone."""
    settings = origin.get("update") if isinstance(origin, Mapping) else None
    kind = str(settings.get("kind", "")) if isinstance(settings, Mapping) else ""
    before = str(origin.get("update_before") or "") if kind else ""
    return f"{before}+{kind}" if before else kind


def storage_of(data: Any) -> str:
    """What :attr:`Plan.storage` says, from the content of a plan file or from a row of a table alone."""
    return str(data.get("storage") or PAIR) if isinstance(data, Mapping) else PAIR


def variant_name(method: str, update: str, storage: str = PAIR) -> str:
    """A method with an update of its factors and with how they are stored: ``llrc``, ``llrc+left+pivoted``."""
    return "+".join(word for word in (method, update, "" if storage == PAIR else storage) if word)


def split_variant(name: str) -> tuple[str, str, str]:
    """Method, update and storage of a name such as ``llrc+left+pivoted``.

    The update is "" where the factors are as allocated, the storage ``pair`` where nothing is said of it.
    """
    method, *rest = name.split("+")
    storage = rest.pop() if rest and rest[-1] in LAWS else PAIR
    return method, "+".join(rest), storage


def plan_variant(plan: Plan) -> str:
    """The variant that a plan is of; one that chose number formats beside ranks goes by ``lagrangian+bits``."""
    return variant_name(plan.method, plan.update or bits_word(plan.method, plan.formats), plan.storage)


def bits_word(method: str, formats: Any) -> str:
    """``bits`` of a plan or row that chose number formats; "" of others, and of formats alone, which name theirs."""
    return "bits" if formats and method not in METHODS else ""


def make_plan(
    card: ModelCard,
    ranks: Ranks,
    *,
    decomposition: str,
    method: str,
    keep_target: float,
    kept: Mapping[str, Sequence[int]] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Plan:
    """A plan from the rank of every layer, with achieved ratios filled in and dense layers listed.

    The card's layers say by which law they are stored; see :func:`lrc_core.budget.stored_card`.
    """
    final = normalised(card.layers, ranks)
    dense = tuple(layer.name for layer in card.layers if is_dense(layer, final[layer.name]))
    achieved = keep_ratio(card.layers, final)
    low = {name: rank for name, rank in final.items() if name not in set(dense)}
    return Plan(
        model=card.identity,
        decomposition=decomposition,
        method=method,
        keep_target=keep_target,
        keep_achieved=achieved,
        keep_whole_model=whole_model_ratio(achieved, card),
        ranks=low,
        dense=dense,
        kept=None if kept is None else {name: tuple(kept[name]) for name in low},
        origin=dict(origin or {}),
        storage=card.layers[0].storage if card.layers else "pair",
    )


def pruned_plan(plan: Plan, card: ModelCard, shapes: Shapes, structure_file: str) -> Plan:
    """A plan that prunes structure, from the dense model's plan of the same origin.

    Args:
        plan: the plan that leaves every layer dense.
        shapes: rows and columns that are left of the layers that lose some.
        structure_file: name of the file beside the plan that says which.
    """
    achieved = keep_ratio(plan.stored(card).layers, plan.full_ranks(card.layers), shapes)
    return replace(
        plan,
        dense=tuple(name for name in plan.dense if name not in shapes),
        pruned=dict(shapes),
        structure_file=structure_file,
        keep_achieved=achieved,
        keep_whole_model=whole_model_ratio(achieved, card),
    )

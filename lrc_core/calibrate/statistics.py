"""What calibration found of every layer, read back from disk; and what stands in for experts that few tokens reached.

The rule for experts of fewer tokens than inputs: the mean over all experts of the same kind in the block, weighed by
their tokens. Their share of the text stays their own, or is one token's where none came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lrc_core.calibrate.moments import BlockStatistics
from lrc_core.coverage import family, is_expert
from lrc_core.decompose.blockfiles import BlockFiles
from lrc_core.decompose.factorise import InputStatistics, Transform
from lrc_core.types import LinearShape
from lrc_core.words import how_many


class MomentStore(BlockFiles):
    """Second moments and mean absolute values of all inputs, one file per block."""

    def write_statistics(self, block: int, found: BlockStatistics) -> None:
        """Store one block's statistics.

        Raises:
            ResourceError: the disk is full.
        """
        tensors = {f"{group}.second": inputs.second_moment for group, inputs in found.groups.items()}
        tensors |= {f"{group}.abs": inputs.abs_mean for group, inputs in found.groups.items()}
        self.write(block, tensors)

    @cached_property
    def group_of(self) -> dict[str, str]:
        """Input group of every layer that any token reached."""
        return dict(self.description["group_of"])

    @cached_property
    def _tokens(self) -> tuple[int, dict[str, int]]:
        described = self.description
        return int(described["tokens"]), described.get("tokens_of", {})

    def tokens(self, layer: LinearShape) -> int:
        """How many tokens reached a layer."""
        total, of_group = self._tokens
        group = self.group_of.get(layer.name)
        return 0 if group is None else of_group.get(group, total)

    def share(self, layer: LinearShape) -> float:
        """Of the text's tokens, those that reached a layer; one token's where none did."""
        total = self._tokens[0]
        return min(1.0, max(1, self.tokens(layer)) / total)

    def statistics(self, layer: LinearShape) -> InputStatistics:
        """Statistics of one layer's inputs, from the tokens that reached it."""
        group = self.group_of[layer.name]
        second, absolute = self.read(layer.block, f"{group}.second"), self.read(layer.block, f"{group}.abs")
        return InputStatistics(second, absolute, self.tokens(layer), share=self.share(layer))


@dataclass
class Notes:
    """What a decomposition should tell of single layers.

    Attributes:
        damped: by how much second moments that were not positive definite were damped.
        unused: why cutting a layer costs nothing on the calibration text.
        shared: experts that take the statistics of their block, and how many tokens reached them.
    """

    damped: dict[str, float] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    shared: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, found: Transform) -> None:
        """Note what a layer's transform says."""
        if found.damping:
            self.damped[name] = found.damping
        if found.unused:
            self.unused[name] = found.unused

    @classmethod
    def of(cls, description: dict[str, Any]) -> Notes:
        """Those of a stored decomposition; one of an earlier version has fewer."""
        return cls(**{name: description.get(name, {}) for name in ("damped", "unused", "shared")})

    def sentences(self) -> list[str]:
        """As warnings."""
        found = []
        if self.damped:
            worst = max(self.damped, key=lambda name: self.damped[name])
            found.append(
                f"The second moments of {how_many(len(self.damped), 'layer')} were not positive definite and were "
                f"damped, most that of {worst} (by {self.damped[worst]:.1e} of the mean input energy). "
                "More calibration text avoids it."
            )
        if self.unused:
            name, why = next(iter(self.unused.items()))
            found.append(
                f"Cutting {len(self.unused)} layers costs nothing on the calibration text, so they may go to rank 1: "
                f"{name} for one ({why})."
            )
        if self.shared:
            name = min(self.shared, key=lambda name: self.shared[name])
            found.append(
                f"{len(self.shared)} linears of experts were reached by fewer tokens than they have inputs and take "
                f"the mean statistics of their block's experts, {name} for one ({self.shared[name]} tokens). "
                "More calibration text avoids it."
            )
        return found


class Statistics:
    """Statistics of all layers of a model, experts that were hardly reached included.

    Args:
        store: moments of their inputs.
        slopes: moments of the gradients at their outputs, where those are wanted.
        notes: told which experts take the statistics of their block.
    """

    def __init__(
        self, layers: Sequence[LinearShape], store: MomentStore, slopes: BlockFiles | None, notes: Notes
    ) -> None:
        self._store, self._slopes, self._notes = store, slopes, notes
        self._alike: dict[tuple[int, str], list[LinearShape]] = {}
        for layer in layers:
            if is_expert(layer.kind):
                self._alike.setdefault((layer.block, family(layer.kind)), []).append(layer)
        self._pooled: tuple[tuple[int, str], InputStatistics] | None = None

    def group(self, layer: LinearShape) -> str:
        """The same for layers that have the same statistics."""
        return layer.name if self._slopes is not None or self._scarce(layer) else self._store.group_of[layer.name]

    def of(self, layer: LinearShape) -> InputStatistics:
        """Statistics of one layer."""
        if self._scarce(layer):
            self._notes.shared[layer.name] = self._store.tokens(layer)
            pooled = self._of_block(layer)
            share = self._store.share(layer)
            slope = pooled.gradient_moment
            return replace(pooled, share=share, gradient_moment=None if slope is None else slope * share)
        found = self._store.statistics(layer)
        if self._slopes is None:
            return found
        return replace(found, gradient_moment=self._slopes.read(layer.block, layer.name))

    def _scarce(self, layer: LinearShape) -> bool:
        return is_expert(layer.kind) and self._store.tokens(layer) < layer.in_features

    def _of_block(self, layer: LinearShape) -> InputStatistics:
        """The mean over all experts of a kind, per token that reached one of them."""
        key = (layer.block, family(layer.kind))
        if self._pooled is None or self._pooled[0] != key:
            self._pooled = key, self._mean(self._alike[key])
        return self._pooled[1]

    def _mean(self, alike: Sequence[LinearShape]) -> InputStatistics:
        shape = alike[0]
        second = torch.zeros(shape.in_features, shape.in_features, dtype=torch.float64)
        absolute = torch.zeros(shape.in_features, dtype=torch.float64)
        slope = torch.zeros(shape.out_features, shape.out_features, dtype=torch.float64)
        reached = [layer for layer in alike if self._store.tokens(layer)]
        tokens, shares = sum(map(self._store.tokens, reached)), sum(map(self._store.share, reached))
        for layer in reached:
            own = self._store.statistics(layer)
            second += own.second_moment.double() * own.tokens
            absolute += own.abs_mean.double() * own.tokens
            if self._slopes is not None and self._slopes.has(layer.block, layer.name):
                slope += self._slopes.read(layer.block, layer.name).double()
        second, absolute = second / max(tokens, 1), absolute / max(tokens, 1)
        return InputStatistics(second.float(), absolute.float(), tokens, self._slope(slope, shares))

    def _slope(self, total: Tensor, shares: float) -> Tensor | None:
        """Gradient moment per token that reached an expert; each layer's counts all tokens of the text."""
        return None if self._slopes is None else (total / max(shares, 1e-12)).float()

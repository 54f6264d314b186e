"""What the tests of the bench share: two methods made for them, and zero-shot outcomes that need no tasks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.allocate.uniform.method import UniformSettings
from lrc_core.budget import fit_budget, uniform_ranks
from lrc_core.errors import BudgetError
from lrc_core.evaluate.zero_shot import TaskScore
from lrc_core.registry import ALLOCATORS, MethodEntry
from lrc_core.runs.spec import EvaluationSpec
from tests.factories.pipeline_helpers import LLRC, only_preset

CALLS: list[tuple[str, float]] = []
"""Which of the two methods was called, and how much it was asked to keep."""


def tilted(context: Context, _: UniformSettings) -> Allocation:
    """Uniform, but the first block gives more."""
    CALLS.append(("tilted", context.keep))
    ranks = uniform_ranks(context.layers, context.keep)
    wanted = {layer.name: max(1, ranks[layer.name] - 3 * (layer.block == 0)) for layer in context.layers}
    return Allocation(fit_budget(context.layers, wanted, context.keep))


def failing(context: Context, _: UniformSettings) -> Allocation:
    """Works at small compression only."""
    CALLS.append(("failing", context.keep))
    if context.keep < 0.75:
        raise BudgetError("The smallest plan of failing keeps 0.75.", "Ask for more.")
    return tilted(context, _)


def set_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register both methods, not called yet, and shorten LLRC."""
    CALLS.clear()
    only_preset(monkeypatch, "llrc", {**LLRC, "settle_steps": 2, "max_steps": 40, "tv_weight": 0.0})
    for name in ("tilted", "failing"):
        function = f"tests.factories.quality_helpers:{name}"
        entry = MethodEntry(name, name.capitalize(), "For tests.", "–", "#123456", function, UniformSettings)
        monkeypatch.setitem(ALLOCATORS._entries, name, entry)


def zero_shot(spec: EvaluationSpec, session: Any) -> dict[str, TaskScore]:
    """Zero-shot outcomes that depend on the model's weights alone."""
    found = {}
    for number, task in enumerate(spec.tasks):
        count = spec.items + 10 * number
        tokens = torch.randint(3, 120, (count, 6), generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            logits = session.loaded.model(input_ids=tokens.to(session.loaded.model.device)).logits[:, -1]
        items = (logits.argmax(-1) % 2).tolist()
        rate = sum(items) / count
        error = math.sqrt(rate * (1 - rate) / (count - 1))
        found[task] = TaskScore(rate, error, rate, error, count, items={"acc": items, "acc_norm": items})
    return found

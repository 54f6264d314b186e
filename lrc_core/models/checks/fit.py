"""Whether token windows fit a model: their length its positions, their ids its vocabulary. Asked before any pass."""

from __future__ import annotations

from itertools import chain

from torch import Tensor, nn

from lrc_core.errors import EvaluationError
from lrc_core.models.checks.positions import Positions, is_table, positions_of, require_length
from lrc_core.models.headers import TensorHeader


def model_positions(model: nn.Module) -> Positions:
    """How long a sequence may be for a loaded model."""
    config = getattr(model, "config", None)
    if config is None:
        return Positions(None, False)
    inner = config.get_text_config() if hasattr(config, "get_text_config") else config
    named = chain(model.named_parameters(), model.named_buffers())
    tables = [TensorHeader(name, tuple(tensor.shape), "", 0) for name, tensor in named if is_table(name)]
    return positions_of(inner.to_dict(), tables)


def require_fit(model: nn.Module, windows: Tensor) -> None:
    """Refuse windows that a model cannot read.

    Args:
        windows: token ids [n, window].

    Raises:
        EvaluationError: they are longer than its positions, or hold ids that its embedding has no row for.
    """
    require_length(model_positions(model), windows.shape[1])
    rows = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    if windows.numel() and (highest := int(windows.max())) >= rows:
        raise EvaluationError(
            f"The tokenizer gives the token id {highest}, but the model's vocabulary ends at {rows - 1}.",
            "The tokenizer belongs to another model; copy the right one into the model's folder.",
        )

"""How long a sequence a model takes, by its configuration and the headers of its weights. No torch.

Learned and tabulated positions end: a longer sequence fails. Rotary and linear biases go on, to where the model was
never trained. Which it is follows from a table of positions among the weights, or else from the type of model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lrc_core.errors import EvaluationError
from lrc_core.models.headers import TensorHeader

_NAMES = (
    "n_positions", "max_position_embeddings", "n_ctx", "max_seq_len", "max_sequence_length", "max_target_positions",
)  # fmt: skip
_TABLE = re.compile(
    r"(?:^|\.)(?:wpe|position_embd|embed_positions|positions_embed|position_embed|position_embeddings?|pos_embed|pos_emb)\.weight"
)
_BLOCK = re.compile(r"\.\d+\.")
_TABULATED = {"codegen": 2048, "ctrl": 256, "gptj": 2048, "mpt": 2048, "roformer": 1536}
"""Types that compute a table of fixed length, and its length where the configuration leaves it out."""
_BEHIND_PADDING = (
    "camembert", "data2vec-text", "esm", "ibert", "longformer", "roberta", "roberta-prelayernorm", "xlm-roberta",
    "xlm-roberta-xl", "xmod",
)  # fmt: skip
"""Types whose first position is the one behind the padding token's id: the rows before it are never used."""


@dataclass(frozen=True)
class Positions:
    """How long a sequence may be.

    Attributes:
        limit: in tokens; None where nothing says.
        ends: a longer sequence fails, instead of being read as well as may be.
    """

    limit: int | None
    ends: bool


def positions_of(config: Mapping[str, Any], tensors: Iterable[TensorHeader] = ()) -> Positions:
    """The positions of a model.

    Args:
        config: of the language model, as config.json has it or with its defaults filled in.
        tensors: what its weight files hold, as far as that is known.
    """
    kind = str(config.get("model_type", ""))
    rows = [tensor.shape[0] for tensor in tensors if len(tensor.shape) == 2 and is_table(tensor.name)]
    named = next((value for name in _NAMES if isinstance(value := config.get(name), int) and value > 0), None)
    known = [size for size in (named, min(rows, default=None)) if size is not None]
    limit = min(known, default=_TABULATED.get(kind))
    if limit is not None and kind in _BEHIND_PADDING:
        padding = config.get("pad_token_id")
        limit -= (padding if isinstance(padding, int) else 1) + 1
    return Positions(limit, bool(rows) or kind in _TABULATED)


def is_table(name: str) -> bool:
    """Whether a weight of that name is a table of the text's positions."""
    return bool(_TABLE.search(name)) and not _BLOCK.search(name) and "vis" not in name and "image" not in name


def require_length(positions: Positions, window: int) -> None:
    """Refuse a window beyond the last position of a model whose positions end.

    Raises:
        EvaluationError: with both numbers.
    """
    if positions.ends and positions.limit is not None and window > positions.limit:
        raise EvaluationError(
            f"A window of {window} tokens is longer than the {positions.limit} positions of the model.",
            f"Ask for a window of at most {positions.limit} tokens.",
        )


def require_lengths(limit: int | None, windows: Mapping[str, int]) -> None:
    """Refuse a job whose windows a model cannot take, all of them at once, each by the word that changes it.

    Args:
        limit: positions of a model whose positions end; None of any other.
        windows: tokens of every window, by what it is called.

    Raises:
        EvaluationError: naming the windows that are too long.
    """
    long = {name: window for name, window in windows.items() if limit is not None and window > limit}
    if long:
        said = " and ".join(f"the {name} of {window} tokens" for name, window in long.items())
        raise EvaluationError(
            f"{said[0].upper()}{said[1:]} {'is' if len(long) == 1 else 'are'} longer than the {limit} positions of the "
            "model.",
            f"Set {'it' if len(long) == 1 else 'each'} to at most {limit}.",
        )


def length_warning(positions: Positions, window: int) -> str:
    """What to say of a window that is longer than a model was made for; "" where there is nothing to say."""
    if positions.limit is None or window <= positions.limit:
        return ""
    return (
        f"Windows of {window} tokens are longer than the {positions.limit} positions that the model was made for: it "
        "is judged by what it never learned."
    )

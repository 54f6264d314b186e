"""The tensors of a model by its configuration alone, for a folder that holds no weights yet."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lrc_core.errors import ModelError
from lrc_core.models.blocks.block_tensors import block_tensors
from lrc_core.models.checks.positions import positions_of
from lrc_core.models.headers import TensorHeader
from lrc_core.models.json_files import read_table
from lrc_core.models.onload.memory import Shapes
from lrc_core.models.outline import first_number, hidden_size, text_config, transposed_kinds
from lrc_core.models.progress_bars import quiet_transformers
from lrc_core.models.source import check_config, check_counts
from lrc_core.types import ignore_progress, never_stop

_BYTES = 2


def only_configured(folder: Path) -> bool:
    """Whether a folder holds a configuration, and neither weights nor an index of any under whatever name."""
    weights = (path for pattern in ("*.safetensors*", "*.bin*", "*.gguf") for path in folder.glob(pattern))
    return (folder / "config.json").is_file() and not any(weights)


def configured_tensors(folder: Path) -> tuple[TensorHeader, ...]:
    """What the weights will hold once they are there, in 16 bits, tied ones once.

    transformers' own class is built on the meta device, so that the shapes are those of the model and nothing is
    allocated; the model's own code is not run.

    Raises:
        ModelError: it is no configuration of a model that transformers knows.
    """
    from lrc_core.models.weights.fit import meta_model  # torch

    config = read_table(folder / "config.json")
    check_config(config, str(folder))
    check_counts(config, 0, str(folder))
    with quiet_transformers("looking at the configuration", ignore_progress, never_stop):
        model = meta_model(folder, trust=False)
    if model is None:
        raise ModelError(
            f"transformers cannot build the model of {folder} from its configuration alone.",
            "Name a folder with weights, or the model on the hub: their headers say the same.",
        )
    return tuple(
        TensorHeader(name, tuple(tensor.shape), "BF16", _BYTES * tensor.numel())
        for name, tensor in model.named_parameters()
    )


def shapes_of_configuration(data: bytes) -> Shapes:
    """Shapes of the model that the contents of a ``config.json`` describe.

    Raises:
        ModelError: it is no configuration of a causal language model that transformers knows.
    """
    with tempfile.TemporaryDirectory(prefix="lrc-config-") as folder:
        path = Path(folder) / "config.json"
        path.write_bytes(data)
        try:
            config, tensors = text_config(read_table(path)), configured_tensors(path.parent)
        except ModelError as error:  # whoever gave the contents knows no folder
            said = error.message.replace(f"{path}", "config.json").replace(folder, "this configuration")
            raise ModelError(said, error.remedy) from error
    blocks = block_tensors(tensors, config)
    if not blocks:
        raise ModelError("It has no numbered decoder blocks.", "Choose a causal language model.")
    return Shapes.of(
        blocks,
        sum(tensor.numel for tensor in tensors),
        width=_BYTES,
        hidden=hidden_size(config),
        vocabulary=first_number(config, ("vocab_size",)),
        positions=positions_of(config, tensors).limit,
        turned=transposed_kinds(str(config.get("model_type", ""))),
    )

"""Where in the files each tensor of a model lies, and reading one from there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from lrc_core.errors import ModelError
from lrc_core.models.headers import TensorHeader, safetensors_header

_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
WHOLE = "Load it whole (`--onload never`), on a machine with enough memory."
"""What to do with a model that cannot be brought in block after block."""
_STEP = 2**26  # bytes read at once


@dataclass(frozen=True)
class Place:
    """A tensor in a file.

    Attributes:
        file: a safetensors file.
        header: its name, shape, type and beginning there.
    """

    file: Path
    header: TensorHeader

    def read(self) -> Tensor:
        """The tensor on the CPU as it is stored, in memory of its own.

        The file is read, not mapped: a mapped one counts as memory in use, and products of weights that lie in it at
        whatever address may differ in the last bit.

        Raises:
            ModelError: the file cannot be read or is cut short.
        """
        found = torch.empty(self.header.shape, dtype=_TYPES[self.header.dtype])
        flat = found.view(-1).view(torch.uint8).numpy().data
        try:
            with self.file.open("rb", buffering=0) as file:
                file.seek(self.header.start)
                for first in range(0, len(flat), _STEP):
                    part = flat[first : first + _STEP]
                    if file.readinto(part) != len(part):
                        raise ModelError(f"{self.file} is cut short within {self.header.name}.", "Copy it again.")
        except OSError as error:
            raise ModelError(f"Cannot read {self.file}: {error.strerror or error}.") from error
        return found


def places_of(model: nn.Module, folder: Path) -> dict[str, Place]:
    """The place of every parameter and saved buffer of a model, by its full name; of tied ones by the first name.

    Args:
        model: of the class that the files were written by; its parameters may be empty.
        folder: holds the safetensors files.

    Raises:
        ModelError: the files name or shape tensors as the model does not (stacked experts, for instance), so that they
            can only be read by transformers, as a whole.
    """
    stored = {header.name: Place(path, header) for path in _files(folder) for header in safetensors_header(path)}
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    found: dict[str, Place] = {}
    for name, tensor in _saved(model):
        place = stored.pop(name, None) or stored.pop(name.removeprefix(prefix), None)
        if place is None or place.header.shape != tuple(tensor.shape) or place.header.dtype not in _TYPES:
            raise _unlike(model, name)
        found[name] = place
    _require_same_copies(found, stored, _tied(model))
    return found


def _files(folder: Path) -> Sequence[Path]:
    return sorted(folder.glob("*.safetensors"))


def _saved(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What the files must hold: parameters once, and buffers that are saved."""
    saved = model.state_dict(keep_vars=True)
    named = chain(model.named_parameters(), ((name, saved[name]) for name, _ in model.named_buffers() if name in saved))
    for name, tensor in named:
        if tensor.ndim > 2:
            raise _unlike(model, name)
        yield name, tensor


def _tied(model: nn.Module) -> dict[str, str]:
    """Second names of tied parameters, and the first one of each."""
    first: dict[int, str] = {}
    named = model.named_parameters(remove_duplicate=False)
    return {name: first[id(tensor)] for name, tensor in named if first.setdefault(id(tensor), name) != name}


def _require_same_copies(found: Mapping[str, Place], rest: Mapping[str, Place], tied: Mapping[str, str]) -> None:
    """Refuse copies of tied tensors that hold something else; what has no use at all is told of elsewhere."""
    for name, place in rest.items():
        other = found.get(tied.get(name, ""))
        if other is not None and not torch.equal(place.read(), other.read()):
            raise ModelError(
                f"config.json ties {name} to another parameter, and {place.file} holds one of its own, so that the "
                "model cannot be brought in block after block.",
                WHOLE,
            )


def _unlike(model: nn.Module, name: str) -> ModelError:
    return ModelError(
        f"{name} of {type(model).__name__} is not stored as the model has it, so that it cannot be brought in block "
        "after block.",
        WHOLE,
    )

"""Factors out of folders that other projects wrote: LEMS, ASVD, Zero Sum SVD, SVD-LLM, and this one.

They differ in names alone. Every left factor is [m, k], every right one [k, n]:

=============  ==========================================  ==========================================
project        left                                        right
=============  ==========================================  ==========================================
LEMS           ``wrapped_model.X.mod_b.weight``            ``wrapped_model.X.mod_a.weight``
ASVD           ``X.ALinear.weight``                        ``X.BLinear.weight``
Zero Sum SVD   ``X.u_proj.weight``                         ``X.v_proj.weight``
SVD-LLM        ``self_attn.q_u_proj.weight`` of q_proj     ``self_attn.q_v_proj.weight``
lowrank        ``X.weight`` (and ``X.pivots``)             ``X.weight_in``
=============  ==========================================  ==========================================
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from lrc_core.errors import ModelError
from lrc_core.formats.grids import FORMATS, QUANTISED
from lrc_core.hf.lowrank import unpack
from lrc_core.models.consent import ALLOW_PICKLE
from lrc_core.models.json_files import read_table
from lrc_core.models.weights.shards import pickle_files, weight_files
from lrc_core.types import Storage

_WRAPPER = "wrapped_model."
_INSIDE = re.compile(r"(?P<owner>.+)\.(?P<part>mod_a|mod_b|ALinear|BLinear|u_proj|v_proj)\.(?P<kind>weight|bias)")
_BESIDE = re.compile(r"(?P<owner>.+)_(?P<part>[uv])_proj\.(?P<kind>weight|bias)")
_SIDES = {"mod_b": "left", "ALinear": "left", "u_proj": "left", "u": "left"}
_PROJECTS = {"mod_a": "LEMS", "BLinear": "ASVD", "v_proj": "Zero Sum SVD", "v": "SVD-LLM"}
OWN = "lowrank"


@dataclass(frozen=True)
class ForeignFactors:
    """What a folder holds.

    Attributes:
        project: whose layout it is.
        factors: left [m, k] and right [k, n] of every layer that has them, by the model's own names.
        rest: every other tensor, by its name.
        storage: how the folder stored them.
        formats: of layers that are dense in it, and were packed in a number format.
    """

    project: str
    factors: Mapping[str, tuple[Tensor, Tensor]]
    rest: Mapping[str, Tensor]
    storage: Storage = "pair"
    formats: Mapping[str, str] = field(default_factory=dict)


def read_foreign(folder: Path, layers: Mapping[str, int], *, allow_pickle: bool) -> ForeignFactors:
    """Read a folder.

    Args:
        folder: with safetensors, or pickled weights.
        layers: full names of the base model's block linears, with how many inputs they have.
        allow_pickle: the user's consent to unpickle tensors.

    Raises:
        ModelError: no weights, none of the known layouts, or half a pair; names the tensor.
    """
    tensors = {key.removeprefix(_WRAPPER): tensor for key, tensor in _tensors(folder, allow_pickle).items()}
    formats = _unpack_own(tensors, folder, layers)
    sides: dict[str, dict[str, Tensor]] = {"left": {}, "right": {}}
    rest: dict[str, Tensor] = {}
    project = ""
    for key, tensor in tensors.items():
        owner, side, told = _place(key, layers)
        if side:
            sides[side][owner] = tensor
            project = told or project
        else:
            rest[f"{owner}.bias" if owner else key] = tensor
    storage = _take_own(sides, rest, layers)
    if not sides["right"]:
        raise ModelError(
            f"{folder} holds no factors of this model's layers.",
            "Name its base model; folders of LEMS, ASVD, Zero Sum SVD, SVD-LLM and `lrc export` are known.",
        )
    if lonely := sorted(sides["left"].keys() ^ sides["right"].keys()):
        raise ModelError(f"{folder} holds only one factor of {lonely[0]}.", "The folder is incomplete; copy it again.")
    factors = {name: (sides["left"][name], right) for name, right in sides["right"].items()}
    dense = {name: form for name, form in formats.items() if name not in factors}
    return ForeignFactors(project or OWN, factors, rest, storage, dense)


def _unpack_own(tensors: dict[str, Tensor], folder: Path, layers: Mapping[str, int]) -> dict[str, str]:
    """Unpack the matrices that this program packed; returns the formats by layer.

    Raises:
        ModelError: they are not what config.json says of them.
    """
    if all(tensor.dtype != torch.uint8 for tensor in tensors.values()):
        return {}
    config = folder / "config.json"
    block = read_table(config).get("quantization_config") if config.is_file() else None
    formats = block.get("packed", {}) if isinstance(block, dict) else {}
    known = isinstance(formats, dict) and all(form in QUANTISED and name in layers for name, form in formats.items())
    if not known:
        raise ModelError(f"{config} names formats or layers that are not known.", "Copy it again.")
    for name, form in formats.items():
        right = f"{name}.weight_in"
        widths = {right: layers[name], f"{name}.weight": len(tensors[right]) if right in tensors else layers[name]}
        for key in widths.keys() & tensors.keys():
            blocks = -(-widths[key] // FORMATS[form].block), FORMATS[form].block_bytes
            if tensors[key].dtype != torch.uint8 or tensors[key].shape[1:] != blocks:
                raise ModelError(f"{key} in {folder} is not packed as {form}.", "Copy it again.")
            tensors[key] = unpack(tensors[key], form, widths[key])
    if bytes_left := [key for key, tensor in tensors.items() if tensor.dtype == torch.uint8]:
        raise ModelError(f"{bytes_left[0]} in {folder} is packed, and config.json does not say how.", "Copy it again.")
    return formats


def _tensors(folder: Path, allow_pickle: bool) -> dict[str, Tensor]:
    files = weight_files(folder)
    pickles = [] if files else pickle_files(folder)
    if not files and not pickles:
        raise ModelError(f"{folder} holds no weights.", "It needs model.safetensors or pytorch_model.bin, or shards.")
    if pickles and not allow_pickle:
        raise ModelError(
            f"The weights in {folder} are pickled ({pickles[0].name}), and loading a pickle can run any code.",
            f"If you trust their origin, allow them: `lrc ... --allow-pickle`, or start the app with {ALLOW_PICKLE}.",
        )
    found: dict[str, Tensor] = {}
    for path in files or pickles:
        try:
            content = load_file(path) if files else torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # safetensors, zip, pickle and torch raise many kinds
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"Cannot read {path}: {reason}", "Save the model's state as safetensors.") from error
        found |= {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    return found


def _place(key: str, layers: Collection[str]) -> tuple[str, str, str]:
    """Whose tensor it is, which side of the pair ("" for a bias or none), and whose layout that is."""
    for pattern, endings in ((_INSIDE, ("",)), (_BESIDE, ("_proj", ""))):
        if match := pattern.fullmatch(key):
            owner = next((name for end in endings if (name := match["owner"] + end) in layers), "")
            if owner and match["kind"] == "bias":
                return owner, "", ""
            if owner:
                return owner, _SIDES.get(match["part"], "right"), _PROJECTS.get(match["part"], "")
    return "", "", ""


def _take_own(sides: dict[str, dict[str, Tensor]], rest: dict[str, Tensor], layers: Collection[str]) -> Storage:
    """Move this program's own factors out of the rest; pivots become the identity's rows of a left factor."""
    storage: Storage = "pair"
    for name in layers:
        if (right := rest.pop(f"{name}.weight_in", None)) is None:
            continue
        left = rest.pop(f"{name}.weight")
        if (pivots := rest.pop(f"{name}.pivots", None)) is not None:
            storage = "pivoted"
            others = torch.ones(len(left) + len(pivots), dtype=torch.bool)
            others[pivots.long()] = False
            whole = left.new_zeros(len(others), len(pivots))
            whole[pivots.long()], whole[others] = torch.eye(len(pivots), dtype=left.dtype), left
            left = whole
        sides["left"][name], sides["right"][name] = left, right
    return storage

"""Low-rank layers for transformers: the format ``"quant_method": "lowrank"`` of config.json.

This one file is both the plug-in (``import lrc_core.hf``) and what an exported folder carries along for
``trust_remote_code=True``. It downloads nothing, runs nothing of the folder and needs torch and transformers only.
Where config.json says ``ranks``, a linear W [m, n] is stored as two thin matrices:

- storage ``pair``: ``weight`` [m, k] and ``weight_in`` [k, n]; W = weight @ weight_in
- storage ``pivoted``: ``weight_in`` [k, n] are the rows ``pivots`` [k] of W, ``weight`` [m-k, k] makes the other rows
  of them: W[pivots] = weight_in, W[others] = weight @ weight_in; layers in ``pairs`` are stored as pairs all the same

Where it says ``pruned``, a linear has fewer rows and columns than the architecture gives it; ``attributes`` are numbers
of modules that change with them. Where it says ``packed``, the matrices of a layer are stored in a block format of
llama.cpp, and are unpacked once they are read: the files are small, and the model in memory is one of ``dtype``.
Everything else of the folder is as transformers saves any model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig
from transformers.pytorch_utils import Conv1D
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
from transformers.utils.quantization_config import QuantizationConfigMixin

METHOD, FORMAT, PACKED_FORMAT = "lowrank", 1, 2
"""Folders with packed layers have a version of their own, which programs that cannot unpack them refuse."""
BLOCK, BLOCK_BYTES = 32, {"Q8_0": 34, "Q5_1": 24, "Q4_0": 18}
"""Numbers that share a scale, and what they take; a row's last block is filled up with zeros."""


def unpack(blocks: Tensor, form: str, width: int) -> Tensor:
    """The numbers [m, width] of a packed matrix, uint8 [m, blocks of a row, bytes of a block]; float32."""
    halves = blocks[..., : 4 if form == "Q5_1" else 2].contiguous().view(torch.float16).float()
    scale, lowest = halves[..., :1], halves[..., 1:]
    if form == "Q8_0":
        numbers = scale * blocks[..., 2:].contiguous().view(torch.int8)
    else:
        levels = torch.cat([blocks[..., -16:] & 15, blocks[..., -16:] >> 4], -1)
        if form == "Q5_1":
            places = torch.arange(8, dtype=torch.uint8, device=blocks.device)
            fifth_bits = (blocks[..., 4:8, None] >> places & 1).flatten(-2)
            numbers = scale * (levels + 16 * fifth_bits) + lowest
        else:
            numbers = scale * (levels.float() - 8)
    return numbers.flatten(1)[:, :width]


def _product(inputs: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """``functional.linear``; one token on a processor as matrix times vector, which in 16 bits is faster."""
    if inputs.numel() != inputs.shape[-1] or inputs.device.type != "cpu":
        return functional.linear(inputs, matrix, bias)
    token = inputs.reshape(-1)
    outputs = torch.mv(matrix, token) if bias is None else torch.addmv(bias, matrix, token)
    return outputs.view(*inputs.shape[:-1], -1)


class FactoredLinear(nn.Module):
    """A linear whose weight is stored as two factors, or as pivot rows and coefficients."""

    pivots: Tensor | None
    places: Tensor | None

    def __init__(self, shape: tuple[int, int], rank: int, pivoted: bool, bias: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features, self.rank = *shape, rank
        self.weight = nn.Parameter(torch.empty(shape[0] - rank * pivoted, rank, dtype=dtype))
        self.weight_in = nn.Parameter(torch.empty(rank, shape[1], dtype=dtype))
        self.bias = nn.Parameter(torch.empty(shape[0], dtype=dtype)) if bias else None
        self.register_buffer("pivots", torch.empty(rank, dtype=torch.int32) if pivoted else None)
        self.register_buffer("places", None, persistent=False)

    def put_in_order(self) -> None:
        """Work out where every row goes, once the pivots are known."""
        if self.pivots is not None:
            others = torch.ones(self.out_features, dtype=torch.bool, device=self.pivots.device)
            others[self.pivots.long()] = False
            self.places = torch.cat([self.pivots.long(), others.nonzero()[:, 0]])

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., n] to [..., m]."""
        hidden = _product(inputs, self.weight_in)
        if self.places is None:
            return _product(hidden, self.weight, self.bias)
        outputs = hidden.new_empty(*hidden.shape[:-1], self.out_features)
        outputs.index_copy_(-1, self.places[: self.rank], hidden)
        outputs.index_copy_(-1, self.places[self.rank :], _product(hidden, self.weight))
        return outputs if self.bias is None else outputs + self.bias

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"


class LowRankConfig(QuantizationConfigMixin):
    """The block ``quantization_config`` of config.json, kept as it is."""

    def __init__(self, quant_method: str = METHOD, format: int = FORMAT, **block: Any) -> None:
        if format not in (FORMAT, PACKED_FORMAT):
            known = f"{FORMAT} and {PACKED_FORMAT}"
            raise ValueError(f"This model has version {format} of the low-rank format, this code reads {known}.")
        self.quant_method, self.format = quant_method, format
        self.ranks: dict[str, int] = {}
        self.pruned: dict[str, tuple[int, int]] = {}
        self.attributes: dict[str, dict[str, int]] = {}
        self.packed: dict[str, str] = {}
        self.pairs: list[str] = []
        self.storage = "pair"
        self.__dict__.update(block)


class LowRankQuantizer(HfQuantizer):
    """Puts layers of the stored shapes into the empty model before its weights are read."""

    requires_calibration = True  # only what was exported can be loaded: nothing is compressed on the fly

    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> Any:
        block = self.quantization_config
        for name, rank in block.ranks.items():
            old, whole, bias = _linear(model, name)
            with old.weight.device:
                pivoted = block.storage == "pivoted" and name not in block.pairs
                new = FactoredLinear(whole, int(rank), pivoted, bias, old.weight.dtype)
                _place(model, name, new)
        for name, (rows, columns) in block.pruned.items():
            old, _whole, bias = _linear(model, name)
            with old.weight.device:
                cut = Conv1D(rows, columns) if isinstance(old, Conv1D) else nn.Linear(columns, rows, bias=bias)
                _place(model, name, cut.to(old.weight.dtype))
        for name, attributes in block.attributes.items():
            for attribute, number in attributes.items():
                setattr(model.get_submodule(own_name(model, name)), attribute, int(number))
        self._packed = [packed for name, form in block.packed.items() for packed in _pack(model, name, form)]
        return model

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        for packed in self._packed:
            packed.unpack()
        self.quantization_config.packed, self.quantization_config.format = {}, FORMAT  # as it would be saved again
        for module in model.modules():
            if isinstance(module, FactoredLinear):
                module.put_in_order()
        return model

    def is_serializable(self) -> bool:
        """It can be saved again as it is."""
        return True

    @property
    def is_trainable(self) -> bool:
        """The factors are ordinary parameters."""
        return True

    @property
    def is_compileable(self) -> bool:
        """Its layers are two matrix products."""
        return True


def own_name(model: Any, name: str) -> str:
    """The name without the causal model's prefix where the model is loaded without its head."""
    prefix = f"{model.base_model_prefix}."
    return name if hasattr(model, model.base_model_prefix) else name.removeprefix(prefix)


def _linear(model: Any, name: str) -> tuple[Any, tuple[int, int], bool]:
    """The layer of that name, its shape as [out, in], and whether it has a bias."""
    old = model.get_submodule(own_name(model, name))
    rows, columns = reversed(old.weight.shape) if isinstance(old, Conv1D) else old.weight.shape
    return old, (rows, columns), getattr(old, "bias", None) is not None


class _Packed:
    """A matrix of a layer while it is packed: a buffer of bytes in the place of a parameter."""

    def __init__(self, layer: nn.Module, part: str, form: str, name: str) -> None:
        self.layer, self.part, self.form, self.name = layer, part, form, name
        self.turned = isinstance(layer, Conv1D)
        self.parameter = layer.get_parameter(part)
        delattr(layer, part)
        rows, self.width = self.parameter.T.shape if self.turned else self.parameter.shape
        shape = (rows, -(-self.width // BLOCK), BLOCK_BYTES[form])
        layer.register_buffer(part, torch.empty(shape, dtype=torch.uint8, device=self.parameter.device))

    def unpack(self) -> None:
        """Put the parameter back, with the numbers that came with the files."""
        numbers = unpack(self.layer.get_buffer(self.part), self.form, self.width)
        delattr(self.layer, self.part)
        if not numbers.isfinite().all():
            raise ValueError(f"{self.name} is damaged: it holds numbers that are not finite. Copy the folder again.")
        numbers = (numbers.T if self.turned else numbers).to(self.parameter.dtype).contiguous()
        setattr(self.layer, self.part, nn.Parameter(numbers))


def _pack(model: Any, name: str, form: str) -> list[_Packed]:
    layer = model.get_submodule(own_name(model, name))
    parts = ("weight", "weight_in") if isinstance(layer, FactoredLinear) else ("weight",)
    return [_Packed(layer, part, form, f"{name}.{part}") for part in parts]


def _place(model: Any, name: str, new: nn.Module) -> None:
    parent, _, leaf = own_name(model, name).rpartition(".")
    model.get_submodule(parent).add_module(leaf, new)


class LowRankAutoConfig:
    """What ``auto_map`` of an exported folder names: loading this file is all there is to do."""

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Nothing: the folder keeps its own ``auto_map``."""

    @classmethod
    def from_pretrained(cls, name: str, **words: Any) -> Any:
        """The base architecture's own configuration."""
        return AutoConfig.from_pretrained(name, **{**words, "trust_remote_code": False})


if METHOD not in AUTO_QUANTIZER_MAPPING:
    register_quantization_config(METHOD)(LowRankConfig)
    register_quantizer(METHOD)(LowRankQuantizer)

"""Low-rank layers for transformers: the format ``"quant_method": "lowrank"`` of config.json.

This one file is both the plug-in (``import lrc_core.hf``) and what an exported folder carries along for
``trust_remote_code=True``. It downloads nothing, runs nothing of the folder and needs torch and transformers only.
Where config.json says ``ranks``, a linear W [m, n] is stored as two thin matrices:

- storage ``pair``: ``weight`` [m, k] and ``weight_in`` [k, n]; W = weight @ weight_in
- storage ``pivoted``: ``weight_in`` [k, n] are the rows ``pivots`` [k] of W, ``weight`` [m-k, k] makes the other rows
  of them: W[pivots] = weight_in, W[others] = weight @ weight_in

Where it says ``pruned``, a linear has fewer rows and columns than the architecture gives it; ``attributes`` are numbers
of modules that change with them. Everything else of the folder is as transformers saves any model.
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

METHOD, FORMAT = "lowrank", 1


class FactoredLinear(nn.Module):
    """A linear whose weight is stored as two factors, or as pivot rows and coefficients."""

    pivots: Tensor | None
    order: Tensor | None

    def __init__(self, shape: tuple[int, int], rank: int, pivoted: bool, bias: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features, self.rank = *shape, rank
        self.weight = nn.Parameter(torch.empty(shape[0] - rank * pivoted, rank, dtype=dtype))
        self.weight_in = nn.Parameter(torch.empty(rank, shape[1], dtype=dtype))
        self.bias = nn.Parameter(torch.empty(shape[0], dtype=dtype)) if bias else None
        self.register_buffer("pivots", torch.empty(rank, dtype=torch.int32) if pivoted else None)
        self.register_buffer("order", None, persistent=False)

    def put_in_order(self) -> None:
        """Work out where every row goes, once the pivots are known."""
        if self.pivots is not None:
            others = torch.ones(self.out_features, dtype=torch.bool, device=self.pivots.device)
            others[self.pivots.long()] = False
            self.order = torch.cat([self.pivots.long(), others.nonzero()[:, 0]]).argsort()

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., n] to [..., m]."""
        hidden = functional.linear(inputs, self.weight_in)
        if self.order is None:
            return functional.linear(hidden, self.weight, self.bias)
        outputs = torch.cat([hidden, functional.linear(hidden, self.weight)], -1).index_select(-1, self.order)
        return outputs if self.bias is None else outputs + self.bias

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"


class LowRankConfig(QuantizationConfigMixin):
    """The block ``quantization_config`` of config.json, kept as it is."""

    def __init__(self, quant_method: str = METHOD, format: int = FORMAT, **block: Any) -> None:
        if format != FORMAT:
            raise ValueError(f"This model has version {format} of the low-rank format, this code reads {FORMAT}.")
        self.quant_method, self.format = quant_method, format
        self.ranks: dict[str, int] = {}
        self.pruned: dict[str, tuple[int, int]] = {}
        self.attributes: dict[str, dict[str, int]] = {}
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
                new = FactoredLinear(whole, int(rank), block.storage == "pivoted", bias, old.weight.dtype)
                _place(model, name, new)
        for name, (rows, columns) in block.pruned.items():
            old, _whole, bias = _linear(model, name)
            with old.weight.device:
                cut = Conv1D(rows, columns) if isinstance(old, Conv1D) else nn.Linear(columns, rows, bias=bias)
                _place(model, name, cut.to(old.weight.dtype))
        for name, attributes in block.attributes.items():
            for attribute, number in attributes.items():
                setattr(model.get_submodule(_own_name(model, name)), attribute, int(number))
        return model

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
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


def _own_name(model: Any, name: str) -> str:
    """The name without the causal model's prefix where the model is loaded without its head."""
    prefix = f"{model.base_model_prefix}."
    return name if hasattr(model, model.base_model_prefix) else name.removeprefix(prefix)


def _linear(model: Any, name: str) -> tuple[Any, tuple[int, int], bool]:
    """The layer of that name, its shape as [out, in], and whether it has a bias."""
    old = model.get_submodule(_own_name(model, name))
    rows, columns = reversed(old.weight.shape) if isinstance(old, Conv1D) else old.weight.shape
    return old, (rows, columns), getattr(old, "bias", None) is not None


def _place(model: Any, name: str, new: nn.Module) -> None:
    parent, _, leaf = _own_name(model, name).rpartition(".")
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

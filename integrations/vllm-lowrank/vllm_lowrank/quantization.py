"""The format as vLLM asks for it: a quantization config, and the method of its linear layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.fused_moe import RoutedExperts
from vllm.model_executor.layers.linear import LinearBase, LinearMethodBase, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization import register_quantization_config
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig, QuantizeMethodBase

from vllm_lowrank.errors import RefusedFolderError
from vllm_lowrank.folder import FolderLayout, names_of
from vllm_lowrank.product import PartwiseProduct

KINDS = ("weight", "weight_in", "pivots")


@register_quantization_config("lowrank")
class LowRankFolderConfig(QuantizationConfig):
    """``"quant_method": "lowrank"`` of config.json."""

    def __init__(self, layout: FolderLayout) -> None:
        super().__init__()
        self.layout = layout

    def get_name(self) -> str:
        """What config.json calls it."""
        return "lowrank"

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        """Whatever the products of torch take."""
        return [torch.float32, torch.bfloat16, torch.float16]

    @classmethod
    def get_min_capability(cls) -> int:
        """Any GPU: there are no kernels of its own."""
        return 0

    @staticmethod
    def get_config_filenames() -> list[str]:
        """None beside config.json."""
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LowRankFolderConfig:
        """Read the block; RefusedFolderError where vLLM cannot run what it asks for."""
        return cls(FolderLayout.from_block(config))

    def apply_vllm_mapper(self, hf_to_vllm_mapper: Any) -> None:
        """Call the layers as vLLM does."""
        self.layout = self.layout.renamed(lambda name: (hf_to_vllm_mapper.apply_list([name]) or [name])[0])

    def get_quant_method(self, layer: nn.Module, prefix: str) -> QuantizeMethodBase | None:
        """The method of one layer; None of those that are not linear.

        Raises:
            RefusedFolderError: it holds experts.
        """
        if isinstance(layer, RoutedExperts):
            raise RefusedFolderError(f"{prefix} holds experts, which vLLM's kernels want stacked and whole.")
        if not isinstance(layer, LinearBase):
            return None
        if self.layout.touches(names_of(prefix, self.packed_modules_mapping)):
            return LowRankLinearMethod(self, prefix)
        return UnquantizedLinearMethod()


@register_quantization_config("lowrank_experts")
class MixtureFolderConfig(LowRankFolderConfig):
    """``"quant_method": "lowrank_experts"``: known, so that its refusal says what is the matter."""

    def get_name(self) -> str:
        """What config.json calls it."""
        return "lowrank_experts"

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LowRankFolderConfig:
        """Always RefusedFolderError."""
        raise RefusedFolderError("The folder is a mixture of experts; vLLM's kernels want them stacked and whole.")


class LowRankLinearMethod(LinearMethodBase):
    """A layer of which at least one part is stored in the folder's own way.

    Args:
        config: of the folder.
        prefix: name of the layer in vLLM.
    """

    def __init__(self, config: LowRankFolderConfig, prefix: str) -> None:
        self.config, self.prefix = config, prefix

    def create_weights(
        self,
        layer: nn.Module,
        input_size_per_partition: int,
        output_partition_sizes: Sequence[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **_: Any,
    ) -> None:
        """Make room for the factors, and a place for every name that comes out of the files.

        Raises:
            RefusedFolderError: the layer is divided among several devices, or otherwise than in the files.
        """
        if input_size_per_partition != input_size or sum(output_partition_sizes) != output_size:
            raise RefusedFolderError(
                f"{self.prefix} is to be divided among devices (tensor parallel), which is not done for layers of low "
                "rank.",
                "Start vLLM with --tensor-parallel-size 1.",
            )
        layout, fused = self.config.layout, self.config.packed_modules_mapping
        parts = layout.parts_of(self.prefix, fused, output_partition_sizes)
        assert parts is not None
        layer.product = product = PartwiseProduct(parts, input_size, params_dtype)
        for kind in KINDS:
            place = nn.Parameter(torch.empty(0, dtype=params_dtype), requires_grad=False)
            place.weight_loader = partial(_load, product, kind)  # type: ignore[attr-defined]
            layer.register_parameter(kind, place)

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        """Check that everything came, and let go of the places."""
        _product_of(layer).finish()
        for kind in KINDS:
            delattr(layer, kind)

    def apply(self, layer: nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """[..., n] to [..., m]."""
        found: Tensor = _product_of(layer)(x, bias)
        return found


def _product_of(layer: nn.Module) -> PartwiseProduct:
    product = layer.product
    assert isinstance(product, PartwiseProduct)
    return product


def _load(product: PartwiseProduct, kind: str, _: nn.Parameter, found: Tensor, shard: str | int | None = None) -> None:
    """How vLLM hands over a tensor: the part is an argument, or said by the tensor itself."""
    product.take(kind, found, getattr(found, "shard_id", None) if shard is None else shard)

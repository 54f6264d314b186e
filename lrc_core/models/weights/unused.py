"""Tensors of model files that no parameter takes and that change nothing, each with the reason. No torch."""

from __future__ import annotations

import re

from lrc_core.models.headers import TensorHeader

_WHOLE = ("I64", "I32", "I16", "I8", "U8", "BOOL")
_SQUARES = (*_WHOLE, "F32", "F16", "BF16")


def recomputed(tensor: TensorHeader) -> str:
    """Why nothing is lost with a tensor that the model does not take: it makes the like itself; "" where not."""
    name, shape = tensor.name, tensor.shape
    if re.search(r"(^|\.)(rotary_emb|rotary|rotary_pos_emb)\.(inv_freq|cos_cached|sin_cached)$", name):
        return "rotary tables, which are computed from the configuration"
    square = len(shape) >= 2 and shape[-1] == shape[-2] and all(size == 1 for size in shape[:-2])
    if square and tensor.dtype in _SQUARES and re.search(r"(attn|attention)\.(bias|causal_mask|mask)$", name):
        return "the causal mask, which the model makes itself"
    if tensor.numel == 1 and re.search(r"(attn|attention)\.masked_bias$", name):
        return "the score of masked positions, which the model sets itself"
    if tensor.dtype in _WHOLE and re.search(r"(^|\.)(position_ids|token_type_ids|num_batches_tracked)$", name):
        return "a count of positions"
    if tensor.numel == 1 and re.search(r"(^|\.)(encoder|decoder)\.version$", name):
        return "the version of the program that wrote the file"
    return ""


def left_out(tensor: TensorHeader) -> str:
    """What a tensor is that the model does not take and text does not need, worth a word; "" where it is none such."""
    name = tensor.name
    if re.search(r"^(v_head|value_head)\.", name):
        return "a head beside the output that estimates rewards in training"
    if re.match(r"(model\.)?(vision_tower|vision_model|visual|audio_tower|multi_modal_projector|embed_vision)\.", name):
        return "a tower for images or sound, which text does not pass"
    return ""


def reason_against(name: str) -> str:
    """What a tensor seems to be that the model would be wrong without, for the error; "" where unknown."""
    for pattern, words in (
        (r"lora_[AB]|lora_embedding|\.lora_", "a low-rank update that was not merged"),
        (r"modules_to_save|base_layer|base_model\.", "a part of an adapter that was not merged"),
        (r"scale|zero_point|absmax|codebook", "a scale that belongs to a quantised weight"),
        (r"(inv_freq|rope|rotary)", "a table of rotary positions that the configuration does not know of"),
        (r"weight_g$|weight_v$|original0$|original1$", "half of a weight that is stored as direction and size"),
        (r"bias$", "a bias that config.json does not switch on, or a part of a block that it does not count"),
        (r"(^|\.)(layers|h|blocks|block)\.\d+\.", "a part of a block that config.json does not count or describe"),
    ):
        if re.search(pattern, name):
            return words
    return ""

"""What is particular about single GGUF architectures: entries beyond sizes and positions. No torch.

Each function adds to a configuration what the keys, or the names of the tensors, say. Each raises ModelError for a
value that transformers' model of the architecture cannot follow.
"""

from __future__ import annotations

from typing import Any

from lrc_core.errors import ModelError
from lrc_core.models.gguf.keys import REMEDY, Keys

Config = dict[str, Any]


def llama(config: Config, keys: Keys, names: set[str]) -> None:
    """Biases where the file has them, and a window."""
    config["attention_bias"] = "blk.0.attn_q.bias" in names
    config["mlp_bias"] = "blk.0.ffn_up.bias" in names
    window = keys.whole("attention.sliding_window", 0)
    if 0 < window < config["max_position_embeddings"]:  # the same model with a window is called Mistral
        config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": window}


def wide_window(config: Config, keys: Keys, _: set[str]) -> None:
    """A window as long as the context changes nothing."""
    window = keys.whole("attention.sliding_window", 0)
    if 0 < window < config["max_position_embeddings"]:
        raise keys.refusal("attention.sliding_window", window)


def _experts(config: Config, keys: Keys, names: set[str]) -> None:
    wide_window(config, keys, names)
    config["num_experts"] = keys.whole("expert_count")
    config["num_experts_per_tok"] = keys.whole("expert_used_count")
    first = "blk.0.ffn_gate_exps.weight"
    if first not in names:
        raise ModelError(f"{keys.where} has no {first}.", REMEDY)
    config["moe_intermediate_size"] = keys.whole("expert_feed_forward_length")


def qwen2moe(config: Config, keys: Keys, names: set[str]) -> None:
    """Routed experts and a shared one, weights as the router gives them."""
    _experts(config, keys, names)
    config["shared_expert_intermediate_size"] = keys.whole("expert_shared_feed_forward_length")
    config["norm_topk_prob"] = False


def qwen3moe(config: Config, keys: Keys, names: set[str]) -> None:
    """Routed experts whose weights add up to one."""
    _experts(config, keys, names)
    keys.value("expert_weights_norm")
    config["norm_topk_prob"] = True  # llama.cpp's reader always does


def phi3(config: Config, keys: Keys, _: set[str]) -> None:
    """A window, and the length that positions were trained with."""
    config["sliding_window"] = keys.whole("attention.sliding_window", 0) or None
    rope = config["rope_parameters"]
    config["original_max_position_embeddings"] = rope.get(
        "original_max_position_embeddings", config["max_position_embeddings"]
    )


def _gemma(config: Config, keys: Keys, largest: int, window: int | None = None) -> None:
    """Scale of the scores, caps and window. Only the largest model scales by the width of the residual stream."""
    width = config["head_dim"]
    if config["num_hidden_layers"] == largest:
        width = config["hidden_size"] / config["num_attention_heads"]
    if scale := keys.number("attention.scale", 0.0):
        width = scale**-2
    config["query_pre_attn_scalar"] = int(width) if width == int(width) else width
    config["sliding_window"] = keys.whole("attention.sliding_window", window)


def gemma2(config: Config, keys: Keys, _: set[str]) -> None:
    """Caps, and every other layer with a window."""
    _gemma(config, keys, 46, 4096)  # the first files left the window to the reader
    for name, default in (("attn_logit_softcapping", 50.0), ("final_logit_softcapping", 30.0)):
        config[name] = keys.number(name, default) or None
    _add_layer_types(config, keys, 2)


def gemma3(config: Config, keys: Keys, _: set[str]) -> None:
    """Five local layers to a global one, with positions of their own."""
    _gemma(config, keys, 62)
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        config[name] = keys.number(name, 0.0) or None
    _add_layer_types(config, keys, 6)
    # Local layers keep their own base, and are not scaled.
    local = {"rope_type": "default", "rope_theta": float(keys.number("rope.freq_base_swa", 10_000.0))}
    config["rope_parameters"] = {"full_attention": config["rope_parameters"], "sliding_attention": local}


def _add_layer_types(config: Config, keys: Keys, period: int) -> None:
    pattern, blocks = keys.value("attention.sliding_window_pattern"), config["num_hidden_layers"]
    if isinstance(pattern, tuple) and len(pattern) == blocks:
        local = [bool(flag) for flag in pattern]
    elif pattern is None or (type(pattern) is int and pattern > 0):
        local = [bool((block + 1) % (pattern or period)) for block in range(blocks)]
    else:
        raise keys.refusal("attention.sliding_window_pattern", pattern)
    config["layer_types"] = ["sliding_attention" if flag else "full_attention" for flag in local]


def stablelm(config: Config, keys: Keys, names: set[str]) -> None:
    """Biases and residuals by the tensors that are there."""
    keys.value("use_parallel_residual")  # converters wrote it wrongly; the second norm tells
    config["use_qkv_bias"] = "blk.0.attn_q.bias" in names
    config["use_parallel_residual"] = "blk.0.ffn_norm.weight" not in names


def starcoder2(config: Config, keys: Keys, names: set[str]) -> None:
    """Biases by the tensors that are there, and a window."""
    config["sliding_window"] = keys.whole("attention.sliding_window", 0) or None
    config["use_bias"] = "blk.0.attn_q.bias" in names


def nemotron(config: Config, _: Keys, names: set[str]) -> None:
    """Biases by the tensors that are there."""
    config["attention_bias"] = "blk.0.attn_q.bias" in names
    config["mlp_bias"] = "blk.0.ffn_up.bias" in names


def falcon(config: Config, keys: Keys, _: set[str]) -> None:
    """The 7B kind: one head of keys and values, attention beside the feed-forward part."""
    if (groups := config.pop("num_kv_heads")) != 1:  # of the larger models, whose fused matrices are laid out anew
        raise keys.refusal("attention.head_count_kv", groups)
    config |= {"multi_query": True, "new_decoder_architecture": False, "parallel_attn": True, "bias": False}


def bloom(config: Config, keys: Keys, _: set[str]) -> None:
    """Slopes instead of positions, and a feed-forward part four times as wide."""
    keys.whole("context_length", 0)  # slopes instead of positions: any length will do
    if (width := keys.whole("feed_forward_length", 4 * config["hidden_size"])) != 4 * config["hidden_size"]:
        raise keys.refusal("feed_forward_length", width)


def mamba(config: Config, keys: Keys, _: set[str]) -> None:
    """The inner width."""
    for name in ("context_length", "feed_forward_length", "attention.head_count"):
        keys.whole(name, 0)
    inner = keys.whole("ssm.inner_size")
    config["expand"], rest = divmod(inner, config["hidden_size"] or 1)
    if rest:
        raise keys.refusal("ssm.inner_size", inner)

"""Tiny GGUF files, as llama.cpp's converter writes them: its keys, its names of tensors, its layouts.

``write_gguf(path, "qwen2")`` writes a random model of that architecture and returns the transformers model that it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

VOCAB, HIDDEN, HEADS, GROUPS, BLOCKS, POSITIONS = 320, 64, 4, 2, 3, 256
_DIMS: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": HIDDEN, "num_hidden_layers": BLOCKS, "num_attention_heads": HEADS,
    "intermediate_size": 2 * HIDDEN, "max_position_embeddings": POSITIONS, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": None,
}  # fmt: skip
_GROUPED = {**_DIMS, "num_key_value_heads": GROUPS}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16}
CONFIGS: dict[str, Callable[..., Any]] = {
    "llama": lambda **more: transformers.LlamaConfig(**{**_GROUPED, "tie_word_embeddings": False, **more}),
    "qwen2": lambda **more: transformers.Qwen2Config(**{**_GROUPED, "tie_word_embeddings": True, **more}),
    "qwen3": lambda **more: transformers.Qwen3Config(**{**_GROUPED, "head_dim": 32, **more}),
    "qwen2moe": lambda **more: transformers.Qwen2MoeConfig(
        **{**_GROUPED, **_EXPERTS, "shared_expert_intermediate_size": 48, **more}
    ),
    "qwen3moe": lambda **more: transformers.Qwen3MoeConfig(
        **{**_GROUPED, **_EXPERTS, "head_dim": 32, "norm_topk_prob": True, **more}
    ),
    "phi3": lambda **more: transformers.Phi3Config(**{**_GROUPED, "sliding_window": 20, **more}),
    "gemma2": lambda **more: transformers.Gemma2Config(
        **{
            **_GROUPED, **_GEMMA, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 2.0, **more,
        }
    ),
    "gemma3": lambda **more: transformers.Gemma3TextConfig(
        **{**_GROUPED, **_GEMMA, "num_hidden_layers": 6, **more}
    ),
    "stablelm": lambda **more: transformers.StableLmConfig(**{**_GROUPED, "use_qkv_bias": True, **more}),
    "starcoder2": lambda **more: transformers.Starcoder2Config(**{**_GROUPED, **more}),
    "nemotron": lambda **more: transformers.NemotronConfig(**{**_GROUPED, **more}),
    "falcon": lambda **more: transformers.FalconConfig(
        **{key: value for key, value in _DIMS.items() if key != "intermediate_size"}, ffn_hidden_size=2 * HIDDEN, **more
    ),
    "gpt2": lambda **more: transformers.GPT2Config(
        vocab_size=VOCAB, n_embd=HIDDEN, n_layer=BLOCKS, n_head=HEADS, n_positions=POSITIONS, n_inner=2 * HIDDEN, **more
    ),
    "bloom": lambda **more: transformers.BloomConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, n_layer=BLOCKS, n_head=HEADS, **more
    ),
    "mamba": lambda **more: transformers.MambaConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, num_hidden_layers=BLOCKS, state_size=8, **more
    ),
}  # fmt: skip
"""Configurations by GGUF's name of the architecture."""


def random_model(config: Any, seed: int = 0) -> Any:
    """A float32 model of about unit gain."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim >= 2 and "A_log" not in name:
                    parameter.normal_(0, parameter.shape[-1] ** -0.5)
                elif "norm" in name or "bias" in name:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    finally:
        torch.set_rng_state(state)
    model.tie_weights()
    return model.eval().requires_grad_(False)


def write_gguf(
    path: Path,
    architecture: str = "llama",
    *,
    keys: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray[Any, Any] | None] | None = None,
    split: int = 0,
    packing: gguf.GGMLQuantizationType | None = None,
    **settings: Any,
) -> Any:
    """Write a random model and return it.

    Args:
        path: of the file.
        architecture: one of :data:`CONFIGS`.
        keys: more keys of the architecture, without its prefix, or with a leading dot for others; None takes one out.
        tensors: more tensors, in GGUF's words; None takes one out.
        split: tensors a part; 0 for one file.
        packing: of the matrices; float32 where it is None.
        settings: of the configuration.
    """
    model = random_model(CONFIGS[architecture](**settings))
    writer = gguf.GGUFWriter(path, architecture, **({"split_max_tensors": split} if split else {}))
    for key, value in {**_keys(model.config, architecture), **(keys or {})}.items():
        if value is not None:
            _add(writer, key[1:] if key.startswith(".") else f"{architecture}.{key}", value)
    add_vocabulary(writer)
    for name, array in {**_tensors(model, architecture), **(tensors or {})}.items():
        if array is None:
            continue
        if packing is not None and array.ndim == 2 and name.startswith("blk."):
            writer.add_tensor(name, gguf.quantize(array, packing), raw_dtype=packing)
        else:
            writer.add_tensor(name, np.ascontiguousarray(array, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def add_vocabulary(writer: Any) -> None:
    """A sentencepiece-like vocabulary: three special tokens, 256 bytes, single characters."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁"]
    tokens += [chr(code) for code in range(33, 33 + VOCAB - len(tokens))]
    plain = len(tokens) - 259
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(i) for i in range(plain)])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * plain)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, list(value))


def _keys(config: Any, architecture: str) -> dict[str, Any]:
    """What llama.cpp's converter writes for a configuration."""
    blocks, hidden = config.num_hidden_layers, config.hidden_size
    found: dict[str, Any] = {"block_count": blocks, "embedding_length": hidden, "vocab_size": VOCAB}
    if architecture == "mamba":
        return found | {
            "context_length": 2**20, "feed_forward_length": 0, "attention.head_count": 0,
            "ssm.conv_kernel": config.conv_kernel, "ssm.inner_size": config.intermediate_size,
            "ssm.state_size": config.state_size, "ssm.time_step_rank": config.time_step_rank,
            "attention.layer_norm_rms_epsilon": config.layer_norm_epsilon,
        }  # fmt: skip
    return _decoder_keys(config, architecture, found)


def _decoder_keys(config: Any, architecture: str, found: dict[str, Any]) -> dict[str, Any]:
    heads, hidden = config.num_attention_heads, config.hidden_size
    found |= {"context_length": POSITIONS, "feed_forward_length": 2 * hidden, "attention.head_count": heads}
    for name in ("rms_norm_eps", "layer_norm_eps", "norm_eps", "norm_epsilon", "layer_norm_epsilon"):
        if (epsilon := getattr(config, name, None)) is not None:
            found["attention.layer_norm_rms_epsilon" if "rms" in name else "attention.layer_norm_epsilon"] = epsilon
    if architecture == "falcon":
        return found | {"attention.head_count_kv": 1, "tensor_data_layout": "jploski"}
    if architecture in ("gpt2", "bloom"):
        return found | ({"feed_forward_length": 4 * hidden} if architecture == "bloom" else {})
    width = getattr(config, "head_dim", None) or hidden // heads
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    found |= {"attention.head_count_kv": config.num_key_value_heads, "rope.freq_base": float(rope["rope_theta"])}
    if architecture in ("llama", "phi3", "stablelm", "nemotron"):
        found["rope.dimension_count"] = int(width * rope.get("partial_rotary_factor", 1.0))
    if architecture in ("qwen3", "qwen3moe", "gemma2", "gemma3", "llama"):
        found |= {"attention.key_length": width, "attention.value_length": width}
    if architecture in ("phi3", "gemma2", "gemma3"):
        found["attention.sliding_window"] = config.sliding_window
    if architecture == "gemma2":
        found |= {name: getattr(config, name) for name in ("attn_logit_softcapping", "final_logit_softcapping")}
    return found | _particular_keys(config, architecture)


def _particular_keys(config: Any, architecture: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if architecture == "stablelm":
        found["use_parallel_residual"] = config.use_parallel_residual
    if architecture.endswith("moe"):
        found |= {
            "expert_count": config.num_experts, "expert_used_count": config.num_experts_per_tok,
            "expert_feed_forward_length": config.moe_intermediate_size,
        }  # fmt: skip
    if architecture == "qwen2moe":
        found["expert_shared_feed_forward_length"] = config.shared_expert_intermediate_size
    return found


def _tensors(model: Any, architecture: str) -> dict[str, np.ndarray[Any, Any]]:
    """Tensors under llama.cpp's names and in its layouts."""
    kind = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    names = gguf.get_tensor_name_map(kind, model.config.num_hidden_layers)
    found = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        array = tensor.numpy()
        if ".experts." in name:
            found |= _stacked(name, array)
            continue
        target = names.get_name(name, (".weight", ".bias")) or names.get_name(
            name.removeprefix("transformer."), (".weight", ".bias")
        )
        assert target is not None, name
        found[target] = _laid_out(target, array, model.config, architecture)
    return found


def _stacked(name: str, array: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    block = name.split(".")[2]
    if name.endswith("down_proj"):
        return {f"blk.{block}.ffn_down_exps.weight": array}
    gate, up = np.split(array, 2, axis=1)
    return {f"blk.{block}.ffn_gate_exps.weight": gate, f"blk.{block}.ffn_up_exps.weight": up}


def _laid_out(target: str, array: np.ndarray[Any, Any], config: Any, architecture: str) -> np.ndarray[Any, Any]:
    if architecture == "llama" and (".attn_q." in target or ".attn_k." in target):  # halves of a head take turns
        heads = config.num_attention_heads if ".attn_q." in target else config.num_key_value_heads
        return array.reshape(heads, 2, array.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(array.shape)
    if architecture in ("gemma2", "gemma3", "nemotron") and target.endswith("norm.weight"):
        return array + 1
    if architecture == "gpt2" and array.ndim == 2 and target.startswith("blk."):
        return array.T
    if architecture == "bloom" and ".attn_qkv." in target:
        heads = config.n_head
        parts = array.reshape(heads, 3, HIDDEN // heads, -1)
        return np.concatenate([parts[:, part].reshape(HIDDEN, -1) for part in range(3)]).reshape(array.shape)
    if target.endswith("ssm_a"):
        return -np.exp(array)
    return array.squeeze(1) if "ssm_conv1d.weight" in target else array.squeeze(0) if "inp_shexp" in target else array

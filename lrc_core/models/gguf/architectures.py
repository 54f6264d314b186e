"""What the keys of a GGUF file mean, architecture by architecture, as a transformers configuration. No torch.

transformers has such a table of its own, which leaves out every key that it does not know; here each is followed or
refused. Where a file leaves something to its reader, the reader is llama.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lrc_core.errors import ModelError
from lrc_core.models.gguf import particulars
from lrc_core.models.gguf.header import GgufHeader
from lrc_core.models.gguf.keys import REMEDY, Keys
from lrc_core.models.gguf.particulars import Config
from lrc_core.models.gguf.rope import ReadTensor, rope_parameters

_DECODER = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
_RMS = {"attention.layer_norm_rms_epsilon": "rms_norm_eps"}
_IDS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "padding_token_id": "pad_token_id"}
_WITHOUT_KEYS = ("general.", "tokenizer.", "split.", "quantize.")
"""Families of keys that say nothing of the forward pass; publishers add more of their own."""
_MEANING = re.compile(r"(^|\.)(rope|attention|adapter|expert\w*|\w*_scale|\w*softcapping|block_count)(\.|$)")


@dataclass(frozen=True)
class Architecture:
    """How the files of one architecture are read.

    Attributes:
        model_type: of transformers.
        model_class: of transformers.
        numbers: entry of the configuration by key; all of them are required.
        more: adds what is particular about the architecture; reads keys and tensor names.
        kv_heads: entry for the number of key/value heads; "" where every head has its own.
        head_dim: the configuration has such an entry.
        rotary: positions are rotated; otherwise they are learnt, or none.
        partial: a part of each head may be left unrotated.
    """

    model_type: str
    model_class: str
    numbers: Mapping[str, str] = field(default_factory=lambda: _DECODER | _RMS)
    more: Callable[[Config, Keys, set[str]], None] = lambda config, keys, names: None
    kv_heads: str = "num_key_value_heads"
    head_dim: bool = True
    rotary: bool = True
    partial: bool = False


def config_of(header: GgufHeader, read: ReadTensor, where: str) -> Config:
    """The transformers configuration of a GGUF file.

    Args:
        header: of the file, or of all its parts.
        read: gives the elements of a small tensor, or None where there is none of that name.
        where: the file's name, for messages.

    Raises:
        ModelError: no language model, an architecture that is not known here, or a key that cannot be followed.
    """
    _check_kind(header, where)
    known = ARCHITECTURES.get(header.architecture)
    if known is None:
        raise ModelError(
            f"{where} is of the architecture {header.architecture[:60] or '(none)'!r}, which cannot be read.",
            REMEDY + f" Known are {', '.join(ARCHITECTURES)}.",
        )
    keys, names = Keys(header, where), {tensor.name for tensor in header.tensors}
    config: Config = {"model_type": known.model_type, "architectures": [known.model_class]}
    for key, entry in known.numbers.items():
        config[entry] = keys.number(key) if "epsilon" in key else keys.whole(key)
    config["vocab_size"] = _vocabulary(header, keys)
    config["tie_word_embeddings"] = "output.weight" not in names
    for key, entry in _IDS.items():
        config[entry] = header.metadata.get(f"tokenizer.ggml.{key}")  # not another model's, which is the default
    if "attention.head_count" in known.numbers:
        _add_heads(config, known, keys, read)
    known.more(config, keys, names)
    keys.require_all_read()
    _check_families(header, where)
    return config


def _check_kind(header: GgufHeader, where: str) -> None:
    kind = header.metadata.get("general.type", "model")
    if kind != "model":
        raise ModelError(
            f"{where} is a GGUF file of the type {str(kind)[:40]!r}, not a model.", "Name the model's file."
        )
    if not header.tensors:
        raise ModelError(f"{where} holds no tensors.", "It may be a vocabulary alone; name the model's file.")


def _check_families(header: GgufHeader, where: str) -> None:
    """Refuse keys beside the architecture's own that look as if they changed the forward pass."""
    others = {*header.metadata, *header.lengths}
    for key in sorted(key for key in others if not key.startswith((*_WITHOUT_KEYS, f"{header.architecture}."))):
        if _MEANING.search(key):
            raise ModelError(f"{where} has the key {key[:80]!r}, whose meaning is not known here.", REMEDY)


def _vocabulary(header: GgufHeader, keys: Keys) -> int:
    """Rows of the embedding, which may be padded beyond the tokens."""
    rows = next((tensor.shape[0] for tensor in header.tensors if tensor.name == "token_embd.weight"), 0)
    said = keys.whole("vocab_size", rows)
    tokens = header.lengths.get("tokenizer.ggml.tokens", rows)
    if not rows or tokens > rows or said > rows:
        raise ModelError(
            f"{keys.where} embeds {rows:,} tokens, and its keys speak of {max(tokens, said):,}.", "Download it again."
        )
    return rows


def _add_heads(config: Config, known: Architecture, keys: Keys, read: ReadTensor) -> None:
    hidden, heads = config.get("hidden_size") or config["n_embd"], config.get("num_attention_heads") or config["n_head"]
    if not heads:
        raise keys.refusal("attention.head_count", heads)
    groups = keys.whole("attention.head_count_kv", heads)
    if known.kv_heads:
        config[known.kv_heads] = groups
    elif groups != heads:
        raise keys.refusal("attention.head_count_kv", groups)
    # Before keys had a length of their own, the number of rotated elements told it.
    rotated = keys.whole("rope.dimension_count", 0)
    inferred = rotated if known.head_dim and not known.partial and rotated else hidden // heads
    width = keys.whole("attention.key_length", inferred)
    if (values := keys.whole("attention.value_length", width)) != width:
        raise keys.refusal("attention.value_length", values)
    if known.head_dim:
        config["head_dim"] = width
    elif width * heads != hidden:
        raise keys.refusal("attention.key_length", width)
    if not known.rotary:
        return
    rotated = rotated or width
    rope = rope_parameters(keys, read, config["max_position_embeddings"], rotated, 10_000.0)
    if rotated != width:
        if not known.partial or not 0 < rotated < width:
            raise keys.refusal("rope.dimension_count", rotated)
        rope["partial_rotary_factor"] = rotated / width
    elif known.partial:
        rope["partial_rotary_factor"] = 1.0
    config["rope_parameters"] = rope


_NORM = "attention.layer_norm_epsilon"
ARCHITECTURES = {
    "llama": Architecture("llama", "LlamaForCausalLM", more=particulars.llama),
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", more=particulars.wide_window),
    "qwen3": Architecture("qwen3", "Qwen3ForCausalLM", more=particulars.wide_window),
    "qwen2moe": Architecture("qwen2_moe", "Qwen2MoeForCausalLM", more=particulars.qwen2moe),
    "qwen3moe": Architecture("qwen3_moe", "Qwen3MoeForCausalLM", more=particulars.qwen3moe),
    "phi3": Architecture("phi3", "Phi3ForCausalLM", more=particulars.phi3, head_dim=False, partial=True),
    "gemma2": Architecture("gemma2", "Gemma2ForCausalLM", more=particulars.gemma2),
    "gemma3": Architecture("gemma3_text", "Gemma3ForCausalLM", more=particulars.gemma3),
    "stablelm": Architecture(
        "stablelm",
        "StableLmForCausalLM",
        _DECODER | {_NORM: "layer_norm_eps"},
        particulars.stablelm,
        head_dim=False,
        partial=True,
    ),
    "starcoder2": Architecture(
        "starcoder2", "Starcoder2ForCausalLM", _DECODER | {_NORM: "norm_epsilon"}, particulars.starcoder2
    ),
    "nemotron": Architecture(
        "nemotron", "NemotronForCausalLM", _DECODER | {_NORM: "norm_eps"}, particulars.nemotron, partial=True
    ),
    "falcon": Architecture(
        "falcon",
        "FalconForCausalLM",
        {**_DECODER, "feed_forward_length": "ffn_hidden_size", _NORM: "layer_norm_epsilon"},
        particulars.falcon,
        kv_heads="num_kv_heads",
        head_dim=False,
    ),
    "gpt2": Architecture(
        "gpt2",
        "GPT2LMHeadModel",
        {
            "context_length": "n_positions",
            "block_count": "n_layer",
            "embedding_length": "n_embd",
            "feed_forward_length": "n_inner",
            "attention.head_count": "n_head",
            _NORM: "layer_norm_epsilon",
        },
        kv_heads="",
        head_dim=False,
        rotary=False,
    ),
    "bloom": Architecture(
        "bloom",
        "BloomForCausalLM",
        {
            "block_count": "n_layer",
            "embedding_length": "hidden_size",
            "attention.head_count": "n_head",
            _NORM: "layer_norm_epsilon",
        },
        particulars.bloom,
        kv_heads="",
        head_dim=False,
        rotary=False,
    ),
    "mamba": Architecture(
        "mamba",
        "MambaForCausalLM",
        {
            "block_count": "num_hidden_layers",
            "embedding_length": "hidden_size",
            "attention.layer_norm_rms_epsilon": "layer_norm_epsilon",
            "ssm.conv_kernel": "conv_kernel",
            "ssm.state_size": "state_size",
            "ssm.time_step_rank": "time_step_rank",
        },
        particulars.mamba,
    ),
}
_NEWER_DECODER = {*_DECODER, *_RMS, "attention.head_count_kv", "vocab_size", "rope.freq_base"}
_QWEN35 = _NEWER_DECODER | {
    "attention.key_length", "attention.value_length", "full_attention_interval", "nextn_predict_layers",
    "rope.dimension_count", "rope.dimension_sections", "ssm.conv_kernel", "ssm.group_count", "ssm.inner_size",
    "ssm.state_size", "ssm.time_step_rank",
}  # fmt: skip
READ_BY_TRANSFORMERS: dict[str, set[str]] = {
    "lfm2": _NEWER_DECODER | {"shortconv.l_cache"},
    "qwen35": _QWEN35,
    "qwen35moe": _QWEN35
    | {"expert_count", "expert_used_count", "expert_feed_forward_length", "expert_shared_feed_forward_length"},
}
"""Architectures that transformers' own newer reader follows, and the keys that it does."""


def check_keys(header: GgufHeader, read: ReadTensor, where: str) -> None:
    """Refuse a GGUF file whose keys cannot all be followed; see :func:`config_of`.

    Raises:
        ModelError: names the key.
    """
    followed = READ_BY_TRANSFORMERS.get(header.architecture)
    if followed is None:
        config_of(header, read, where)
        return
    _check_kind(header, where)
    keys = Keys(header, where)
    for key in followed:
        keys.value(key)
    keys.require_all_read()
    _check_families(header, where)

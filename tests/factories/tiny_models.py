"""Tiny random causal language models of every family the app must handle, and a tokenizer for them.

``tiny_model("llama")`` gives a model in memory, ``save_tiny(folder, "llama")`` a whole folder that loads like a
real one. The vocabulary is one token a character: a text of n printable ASCII characters is exactly n tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

VOCAB, HIDDEN, BLOCKS, POSITIONS = 128, 32, 3, 256
_SPECIALS = ["<unk>", "<s>", "</s>"]
_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
_GROUPED = {"intermediate_size": 48, "num_key_value_heads": 2}


def _gpt2() -> Any:
    return transformers.GPT2Config(
        vocab_size=VOCAB,
        n_embd=HIDDEN,
        n_layer=BLOCKS,
        n_head=4,
        n_positions=POSITIONS,
        bos_token_id=1,
        eos_token_id=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )


def _opt() -> Any:
    return transformers.OPTConfig(**_COMMON, ffn_dim=48, word_embed_proj_dim=HIDDEN, dropout=0.0)


FAMILIES: dict[str, Callable[[], Any]] = {
    # Grouped-query attention and tied embeddings, as the starter model.
    "llama": lambda: transformers.LlamaConfig(**_COMMON, **_GROUPED, tie_word_embeddings=True),
    "mistral": lambda: transformers.MistralConfig(**_COMMON, **_GROUPED, sliding_window=None),
    # Biases on q, k and v.
    "qwen2": lambda: transformers.Qwen2Config(**_COMMON, **_GROUPED),
    "qwen3": lambda: transformers.Qwen3Config(**_COMMON, **_GROUPED, head_dim=8),
    "gemma": lambda: transformers.GemmaConfig(**_COMMON, **_GROUPED, head_dim=8),
    # Norms behind every sublayer, attention and final logits capped.
    "gemma2": lambda: transformers.Gemma2Config(
        **_COMMON, **_GROUPED, head_dim=8, final_logit_softcapping=2.0, attn_implementation="eager"
    ),
    "opt": _opt,
    # Conv1D, fused qkv.
    "gpt2": _gpt2,
    # Fused qkv in a Linear.
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**_COMMON, intermediate_size=48),
    "phi": lambda: transformers.PhiConfig(
        **_COMMON, intermediate_size=48, resid_pdrop=0.0, embd_pdrop=0.0, attention_dropout=0.0
    ),
}

_MIXTURE: dict[str, Any] = {**_COMMON, "intermediate_size": 24, "num_key_value_heads": 2, "num_experts_per_tok": 2}
_VISION = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "image_size": 28, "patch_size": 14}


def _gemma3() -> Any:
    text = transformers.Gemma3TextConfig(
        **_COMMON, **_GROUPED, head_dim=8, sliding_window=16, query_pre_attn_scalar=8
    ).to_dict()
    vision = {**_VISION, "num_hidden_layers": 4}
    tokens = {"mm_tokens_per_image": 4, "image_token_index": 100, "boi_token_index": 101, "eoi_token_index": 102}
    return transformers.Gemma3Config(text_config=text, vision_config=vision, **tokens)


def _git() -> Any:
    vision = {**_VISION, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 4}
    return transformers.GitConfig(**_COMMON, intermediate_size=48, vision_config=vision)


def _jamba() -> Any:
    places = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
    common = {**_MIXTURE, "num_hidden_layers": 4}
    return transformers.JambaConfig(**common, **places, num_experts=4, mamba_d_state=8, use_mamba_kernels=False)


MIXTURES: dict[str, Callable[[], Any]] = {
    "mixtral": lambda: transformers.MixtralConfig(**_MIXTURE, num_local_experts=4),
    # A dense block first, an expert that every token goes through beside those that are chosen.
    "deepseek_v2": lambda: transformers.DeepseekV2Config(
        **{**_MIXTURE, "num_key_value_heads": 4},
        **{"moe_intermediate_size": 24, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1},
        **{"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8},
    ),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
        **_MIXTURE, head_dim=8, num_experts=4, moe_intermediate_size=24, norm_topk_prob=True
    ),
    # The expert that every token goes through has a gate of one output.
    "qwen2_moe": lambda: transformers.Qwen2MoeConfig(
        **_MIXTURE, num_experts=4, moe_intermediate_size=24, shared_expert_intermediate_size=40
    ),
    "olmoe": lambda: transformers.OlmoeConfig(**_MIXTURE, num_experts=4),
    # Stacks [experts, in, out], gate and up row by row in turn, biases.
    "gpt_oss": lambda: transformers.GptOssConfig(**_MIXTURE, head_dim=8, num_local_experts=4, sliding_window=16),
    # Every expert gets all tokens, zeros for those that are not its own.
    "llama4_text": lambda: transformers.Llama4TextConfig(
        **{**_MIXTURE, "num_experts_per_tok": 1}, head_dim=8, num_local_experts=4, intermediate_size_mlp=24
    ),
    # Experts in the attention as well.
    "jetmoe": lambda: transformers.JetMoeConfig(
        **{key: value for key, value in _MIXTURE.items() if key != "num_attention_heads"},
        **{"num_local_experts": 4, "kv_channels": 8},
    ),
    # Experts one below the other in three matrices.
    "dbrx": lambda: transformers.DbrxConfig(
        **{"vocab_size": VOCAB, "d_model": HIDDEN, "n_heads": 4, "n_layers": BLOCKS, "max_seq_len": POSITIONS},
        attn_config={"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        ffn_config={"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2},
    ),
    # Without a gate, between state-space blocks.
    "nemotron_h": lambda: transformers.NemotronHConfig(
        **{
            "vocab_size": VOCAB,
            "hidden_size": HIDDEN,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
        },
        **{"layers_block_type": ["mamba", "moe", "attention"], "ssm_state_size": 8, "mamba_num_heads": 4},
        **{"mamba_head_dim": 16, "n_groups": 2, "chunk_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2},
        **{"moe_intermediate_size": 24, "moe_shared_expert_intermediate_size": 24, "n_group": 1, "topk_group": 1},
    ),
    # Between state-space blocks, whose dt_proj is read by its weight and never called.
    "jamba": _jamba,
}
"""Models with experts."""

UNLIKE: dict[str, Callable[[], Any]] = {
    "mamba": lambda: transformers.MambaConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, num_hidden_layers=BLOCKS, state_size=8
    ),
    "rwkv": lambda: transformers.RwkvConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, num_hidden_layers=4, attention_hidden_size=HIDDEN, rescale_every=2
    ),
    "recurrent_gemma": lambda: transformers.RecurrentGemmaConfig(
        **_COMMON, intermediate_size=48, lru_width=32, attention_window_size=16, num_key_value_heads=1
    ),
    "gpt1": lambda: transformers.OpenAIGPTConfig(
        vocab_size=VOCAB, n_embd=HIDDEN, n_layer=BLOCKS, n_head=4, n_positions=POSITIONS
    ),
    "xlm": lambda: transformers.XLMConfig(
        vocab_size=VOCAB, emb_dim=HIDDEN, n_layers=BLOCKS, n_heads=4, causal=True, n_langs=1
    ),
    "bert": lambda: transformers.BertConfig(**_COMMON, intermediate_size=48),
    "roberta": lambda: transformers.RobertaConfig(**_COMMON, intermediate_size=48),
    "mpt": lambda: transformers.MptConfig(
        vocab_size=VOCAB, d_model=HIDDEN, n_layers=BLOCKS, n_heads=4, max_seq_len=POSITIONS
    ),
    "gptj": lambda: transformers.GPTJConfig(
        vocab_size=VOCAB, n_embd=HIDDEN, n_layer=BLOCKS, n_head=4, n_positions=POSITIONS, rotary_dim=8
    ),
    # A vision tower that is smaller than the language model, and one that is larger.
    "gemma3": _gemma3,
    "git": _git,
}
"""Models that differ from others in more than their layers: recurrent, bidirectional, with a tower for pictures."""


def tiny_model(family: str = "llama", seed: int = 0) -> Any:
    """A random model of that family in float32 on the CPU, in eval mode, its weights drawn from ``seed``.

    Weights are about unit-gain (not the tiny 0.02 of an untrained model), so that layers and losses differ visibly.
    """
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        model = AutoModelForCausalLM.from_config(config_of(family), dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim >= 2:
                    parameter.normal_(0.0, parameter.shape[-1] ** -0.5)
                elif parameter.ndim == 1:
                    parameter.add_(0.05 * torch.randn_like(parameter))
    finally:
        torch.set_rng_state(state)
    model.tie_weights()
    model.eval().requires_grad_(False)
    return model


def config_of(family: str) -> Any:
    """The configuration of a tiny model."""
    return {**FAMILIES, **MIXTURES, **UNLIKE}[family]()


def tiny_tokenizer(*, add_bos: bool = False) -> PreTrainedTokenizerFast:
    """One token a printable ASCII character or newline; anything else is ``<unk>``. Decoding gives the text back.

    Args:
        add_bos: put ``<s>`` before every text, as Llama's and Gemma's tokenizers do.
    """
    symbols = _SPECIALS + ["\n"] + [chr(code) for code in range(32, 127)]
    tokenizer = Tokenizer(models.WordLevel({symbol: i for i, symbol in enumerate(symbols)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    if add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=POSITIONS
    )


def save_tiny(path: Path, family: str = "llama", *, seed: int = 0, add_bos: bool = False) -> Path:
    """Write model and tokenizer as a folder (config.json, model.safetensors, tokenizer files) and return it."""
    path.mkdir(parents=True, exist_ok=True)
    tiny_model(family, seed).save_pretrained(path)
    tiny_tokenizer(add_bos=add_bos).save_pretrained(path)
    return path


def tiny_text(characters: int = 4000, seed: int = 0) -> str:
    """A made-up text of that many printable characters: words and sentences, some much more frequent than others."""
    generator = torch.Generator().manual_seed(seed)
    words = ["the", "rank", "of", "a", "layer", "and", "its", "budget", "model", "small", "keeps", "every", "value"]
    draws = torch.randint(0, len(words), (characters,), generator=generator)
    draws = torch.minimum(draws, torch.randint(0, len(words), (characters,), generator=generator)).tolist()
    text = " ".join(words[i] + ("." if n % 9 == 8 else "") for n, i in enumerate(draws))
    return text[:characters]

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


def tiny_model(family: str = "llama", seed: int = 0) -> Any:
    """A random model of that family in float32 on the CPU, in eval mode, its weights drawn from ``seed``.

    Weights are about unit-gain (not the tiny 0.02 of an untrained model), so that layers and losses differ visibly.
    """
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        model = AutoModelForCausalLM.from_config(FAMILIES[family](), dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.normal_(0.0, parameter.shape[-1] ** -0.5)
                elif parameter.ndim == 1:
                    parameter.add_(0.05 * torch.randn_like(parameter))
    finally:
        torch.set_rng_state(state)
    model.tie_weights()
    model.eval().requires_grad_(False)
    return model


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

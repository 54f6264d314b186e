"""Models of a real one's shape with random weights, written block by block: none of that size need be fetched."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, PreTrainedTokenizerFast

from lrc_core.files import disk_errors, write_json, write_tensors
from lrc_core.types import OnProgress, Progress, ignore_progress


@dataclass(frozen=True)
class LlamaShape:
    """Sizes of a model of Llama's kind.

    Attributes:
        hidden: width of the hidden states.
        inner: width of the MLP.
        heads: of queries.
        groups: heads of keys and values.
        blocks: how many.
        vocabulary: rows of embedding and head, which are not tied.
    """

    hidden: int
    inner: int
    heads: int
    groups: int
    blocks: int
    vocabulary: int

    @property
    def block_params(self) -> int:
        """Parameters of the linears of one block."""
        return sum(math.prod(shape) for shape in self.linears().values())

    @property
    def params(self) -> int:
        """All parameters, norms aside."""
        return self.blocks * self.block_params + 2 * self.vocabulary * self.hidden

    def linears(self) -> dict[str, tuple[int, int]]:
        """[out, in] of a block's linears by their path in it."""
        keys = self.hidden // self.heads * self.groups
        return {
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.k_proj": (keys, self.hidden),
            "self_attn.v_proj": (keys, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_proj": (self.inner, self.hidden),
            "mlp.up_proj": (self.inner, self.hidden),
            "mlp.down_proj": (self.hidden, self.inner),
        }


BILLION = LlamaShape(2048, 8192, 32, 8, 16, 32_000)
"""1.1 billion parameters, 2.2 GB in bfloat16."""
SEVENTY = LlamaShape(8192, 28_672, 64, 8, 2, 128)
"""Two of the 80 blocks of a 70B model, 3.4 GB in bfloat16."""
SMALL = {"memory": LlamaShape(64, 160, 4, 2, 2, 160), "stream": LlamaShape(128, 320, 4, 2, 2, 128)}
"""The same in a few seconds, for tests."""


def write_model(folder: Path, shape: LlamaShape, on_progress: OnProgress = ignore_progress) -> Path:
    """Write config.json, a tokenizer of one token a character, and a safetensors file for each block.

    Raises:
        ResourceError: the disk is full.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    where: dict[str, str] = {}
    for number, tensors in enumerate(_parts(shape, generator)):
        name = f"model-{number + 1:05d}-of-{shape.blocks + 1:05d}.safetensors"
        write_tensors(folder / name, tensors, metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, name)
        on_progress(Progress("writing a random model", number + 1, shape.blocks + 1))
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": where})
    (folder / "config.json").write_text(json.dumps(_config(shape)), encoding="utf-8")
    _tokenizer().save_pretrained(folder)
    return folder


def write_text(path: Path, characters: int) -> Path:
    """A text of random words, one token a character."""
    draws = torch.randint(97, 123, (characters,), generator=torch.Generator().manual_seed(1)).tolist()
    path.write_text("".join(" " if n % 6 == 5 else chr(code) for n, code in enumerate(draws)), encoding="utf-8")
    return path


def _parts(shape: LlamaShape, generator: torch.Generator) -> Iterator[dict[str, Tensor]]:
    def drawn(rows: int, columns: int) -> Tensor:
        return (torch.randn(rows, columns, generator=generator) * columns**-0.5).to(torch.bfloat16)

    ones = torch.ones(shape.hidden, dtype=torch.bfloat16)
    size = (shape.vocabulary, shape.hidden)
    head = {"lm_head.weight": drawn(*size), "model.norm.weight": ones}
    yield {"model.embed_tokens.weight": (drawn(*size) * shape.hidden**0.5).to(torch.bfloat16), **head}
    for number in range(shape.blocks):
        block = f"model.layers.{number}"
        found = {f"{block}.{name}.weight": drawn(*sizes) for name, sizes in shape.linears().items()}
        norms = ("input_layernorm", "post_attention_layernorm")
        yield {**found, **{f"{block}.{name}.weight": ones.clone() for name in norms}}


def _config(shape: LlamaShape) -> dict[str, object]:
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.blocks,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.groups,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
    )
    return {**config.to_dict(), "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}


def _tokenizer() -> PreTrainedTokenizerFast:
    symbols = ["<unk>", "<s>", "</s>", "\n", *map(chr, range(32, 127))]
    found = Tokenizer(models.WordLevel({symbol: number for number, symbol in enumerate(symbols)}, unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    found.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=found, bos_token="<s>", eos_token="</s>", unk_token="<unk>")

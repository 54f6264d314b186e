"""Small folders of the format, written by hand: random factors, and the dense model that they stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

VOCAB = 128
_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,  # heads of 32: the smallest that vLLM has kernels for on the CPU
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
FAMILIES = {
    "llama": lambda: transformers.LlamaConfig(**_COMMON, tie_word_embeddings=True),
    # Biases on queries, keys and values.
    "qwen2": lambda: transformers.Qwen2Config(**_COMMON),
    # One matrix for queries, keys and values, one for gate and up.
    "phi3": lambda: transformers.Phi3Config(**_COMMON),
}


def write_folder(path: Path, family: str, storage: str, *, whole: tuple[str, ...] = (), packed: bool = False) -> Any:
    """Write a folder, and give the dense model in float32 that computes the same.

    Args:
        path: of the folder, which is made.
        family: one of FAMILIES.
        storage: ``pair`` or ``pivoted``.
        whole: ends of names of layers that stay dense.
        packed: store the factors as blocks of Q8_0.
    """
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(FAMILIES[family](), dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.data.normal_(0.0, parameter.shape[-1] ** -0.5) if parameter.ndim > 1 else parameter.data.add_(
            0.1 * torch.randn_like(parameter)
        )
    tensors = {key: tensor.clone() for key, tensor in model.state_dict().items() if key != "lm_head.weight"}
    if not model.config.tie_word_embeddings:
        tensors["lm_head.weight"] = model.lm_head.weight.data.clone()
    block: dict[str, Any] = {"quant_method": "lowrank", "format": 2 if packed else 1, "storage": storage, "ranks": {}}
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and "layers" in name]
    for place, name in enumerate(name for name in names if not name.endswith(whole)):
        weight = model.get_submodule(name).weight
        rank = 9 + 7 * (place % 5)  # not two parts of a fused layer alike
        block["ranks"][name] = rank
        found, weight.data = _stored(weight.data, rank, storage == "pivoted", packed)
        tensors |= {f"{name}.{kind}": tensor for kind, tensor in found.items()}
    if packed:
        block["packed"] = dict.fromkeys(block["ranks"], "Q8_0")
    path.mkdir(parents=True)
    model.config.save_pretrained(path)
    config = {**json.loads((path / "config.json").read_text()), "quantization_config": block}
    config |= {"architectures": [type(model).__name__], "dtype": "float32"}
    (path / "config.json").write_text(json.dumps(config))
    save_file(
        {key: tensor.contiguous() for key, tensor in tensors.items()}, path / "model.safetensors", {"format": "pt"}
    )
    return model


def _stored(weight: Tensor, rank: int, pivoted: bool, packed: bool) -> tuple[dict[str, Tensor], Tensor]:
    """What goes on the disk, and the matrix [m, n] that it stands for."""
    rows, width = weight.shape
    inner = torch.randn(rank, width) * width**-0.5
    outer = torch.randn(rows - rank * pivoted, rank) * rank**-0.5
    files = {"weight": outer, "weight_in": inner}
    if packed:
        files, (outer, inner) = {k: _q8_0(t)[0] for k, t in files.items()}, (_q8_0(t)[1] for t in (outer, inner))
    if not pivoted:
        return files, outer @ inner
    pivots = torch.randperm(rows)[:rank]
    others = torch.tensor([row for row in range(rows) if row not in set(pivots.tolist())])
    found = torch.empty(rows, width)
    found[pivots], found[others] = inner, outer @ inner
    return {**files, "pivots": pivots.int()}, found


def _q8_0(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks of 32 numbers with a scale, bytes [m, blocks, 34], and the numbers that they hold."""
    rows, width = matrix.shape
    blocks = torch.nn.functional.pad(matrix, (0, -width % 32)).view(rows, -1, 32)
    scale = (blocks.abs().amax(-1, keepdim=True) / 127).half()
    levels = (blocks / scale.float()).nan_to_num().round().clamp(-127, 127).to(torch.int8)
    numbers = (levels * scale.float()).flatten(1)[:, :width]
    return torch.cat([scale.view(torch.uint8), levels.view(torch.uint8)], -1), numbers

"""vLLM's own engine on folders of the format, in float32: the distribution of every token is the dense model's.

Run where vLLM is installed: ``python -m pytest integrations/vllm-lowrank/tests``. ``LOWRANK_FOLDERS=A:B`` adds folders
that were exported; they are compared with transformers, which runs the loader that they carry.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

pytest.importorskip("vllm", reason="vLLM is not installed: the engine was NOT run")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # errors come from this process
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

from folders import VOCAB, write_folder
from vllm import LLM, SamplingParams

from vllm_lowrank.errors import RefusedFolderError
from vllm_lowrank.folder import FolderLayout
from vllm_lowrank.quantization import LowRankFolderConfig, LowRankLinearMethod

PROMPTS = [[3, 17, 40, 41, 99, 5, 64], [8], [*range(20, 90, 3)]]
NEW = 12


@contextmanager
def engine(folder: Path, **words: Any) -> Iterator[LLM]:
    """vLLM on a folder; what it holds is let go of at the end."""
    made = LLM(str(folder), **{"dtype": "float32", "max_model_len": 128, "skip_tokenizer_init": True, **words})
    try:
        yield made
    finally:
        del made
        gc.collect()


def continued(model: Any, prompt: list[int]) -> torch.Tensor:
    """A prompt and the NEW likeliest tokens, one after the other, whatever ends a text."""
    written = torch.tensor(prompt)
    for _ in range(NEW):
        written = torch.cat([written, model(written[None]).logits[0, -1:].argmax(-1)])
    return written


@torch.no_grad()
def compare(folder: Path, dense: Any, vocabulary: int = VOCAB, bound: float = 1e-4, **words: Any) -> None:
    """Tokens of greedy writing, and the logarithms of the probabilities of all tokens at every place."""
    shown = min(vocabulary, 50)
    asked = SamplingParams(
        temperature=0, max_tokens=NEW, ignore_eos=True, logprobs=shown, prompt_logprobs=shown, detokenize=False
    )
    with engine(folder, max_logprobs=shown, **words) as made:
        answers = made.generate([{"prompt_token_ids": prompt} for prompt in PROMPTS], asked, use_tqdm=False)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        written = continued(dense, prompt)
        wanted = dense(written[None]).logits[0].log_softmax(-1)
        assert list(answer.outputs[0].token_ids) == written[len(prompt) :].tolist()
        places = [*answer.prompt_logprobs[1:], *answer.outputs[0].logprobs]
        assert len(places) == len(written) - 1
        for place, found in enumerate(places):
            for token, entry in found.items():
                assert abs(entry.logprob - float(wanted[place, token])) < bound, (place, token)


@pytest.mark.parametrize("storage", ["pair", "pivoted"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3"])
def test_it_computes_what_the_dense_model_does(family: str, storage: str, tmp_path: Path) -> None:
    compare(tmp_path / "folder", write_folder(tmp_path / "folder", family, storage), enforce_eager=True)


@pytest.mark.parametrize("storage", ["pair", "pivoted"])
def test_parts_of_a_fused_layer_may_be_dense(storage: str, tmp_path: Path) -> None:
    whole = ("0.self_attn.k_proj", "1.self_attn.q_proj", "1.mlp.gate_proj", "0.mlp.gate_proj", "0.mlp.up_proj")
    compare(tmp_path / "folder", write_folder(tmp_path / "folder", "qwen2", storage, whole=whole), enforce_eager=True)


@pytest.mark.parametrize("storage", ["pair", "pivoted"])
def test_packed_factors_are_unpacked(storage: str, tmp_path: Path) -> None:
    compare(tmp_path / "folder", write_folder(tmp_path / "folder", "llama", storage, packed=True), enforce_eager=True)


def test_it_compiles(tmp_path: Path) -> None:
    compare(tmp_path / "folder", write_folder(tmp_path / "folder", "llama", "pivoted"))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"pruned": {"model.layers.0.mlp.up_proj": [90, 128]}}, "pruned"),
        ({"format": 9}, "version 9"),
        ({"quant_method": "lowrank_experts"}, "experts"),
    ],
    ids=["pruned", "newer", "mixture"],
)
def test_the_engine_refuses_with_a_reason(change: dict[str, Any], word: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", "llama", "pair")
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    config["quantization_config"] |= change
    (tmp_path / "folder" / "config.json").write_text(json.dumps(config))
    with pytest.raises(Exception, match=word), engine(tmp_path / "folder"):
        pass


def test_what_is_divided_among_devices_is_refused() -> None:
    layout = FolderLayout("pair", {"a.down_proj": 4})
    method = LowRankLinearMethod(LowRankFolderConfig(layout), "a.down_proj")
    with pytest.raises(RefusedFolderError):
        method.create_weights(torch.nn.Module(), 64, [32], 128, 32, torch.float32)
    with pytest.raises(RefusedFolderError):
        method.create_weights(torch.nn.Module(), 128, [16], 128, 32, torch.float32)


@pytest.mark.parametrize("folder", [*filter(None, os.environ.get("LOWRANK_FOLDERS", "").split(":"))])
def test_an_exported_folder_is_what_its_own_loader_makes_of_it(folder: str) -> None:
    dense = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32)
    compare(Path(folder), dense.eval(), dense.config.vocab_size, enforce_eager=True)

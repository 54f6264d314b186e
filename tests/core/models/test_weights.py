"""Files and configuration belong together: nothing missing, nothing with a meaning unused, before a weight is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lrc_core.errors import ModelError
from lrc_core.models.load import load_model
from lrc_core.models.preflight import preflight
from lrc_core.paths import cache_home
from lrc_core.runs.spec import ModelRef
from tests.factories.gguf_files import random_model
from tests.factories.tiny_models import BLOCKS, HIDDEN, VOCAB, save_tiny, tiny_model, tiny_tokenizer
from tests.tree import ROOT

Tensors = dict[str, torch.Tensor]
UP = "model.layers.0.mlp.up_proj"
FREQUENCIES = 1 / 10_000 ** (torch.arange(0, HIDDEN // 4, 2) / (HIDDEN // 4))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "tiny")


def saved(folder: Path, model: Any) -> Path:
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def change_weights(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone().contiguous() for name, tensor in change(load_file(path)).items()}
    save_file(tensors, path, {"format": "pt"})


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def problem(folder: Path, **consents: bool) -> str:
    """The problem that the pre-flight finds, which is also the reason for which loading is refused."""
    ref = ModelRef(str(folder), **consents)  # type: ignore[arg-type]
    problems = preflight(ref).problems
    assert len(problems) == 1
    with pytest.raises(ModelError) as caught:
        load_model(ref, device="cpu")
    assert str(caught.value) == problems[0]
    return problems[0]


def loads(folder: Path, **consents: bool) -> Any:
    ref = ModelRef(str(folder), **consents)  # type: ignore[arg-type]
    assert not preflight(ref).problems
    return load_model(ref, device="cpu", dtype="float32")


def quantised(kind: str, tensors: Tensors) -> Tensors:
    """The block linears as that format stores them, config.json saying nothing of it."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        if "proj.weight" not in name:
            made[name] = tensor
            continue
        stem, (rows, columns) = name.removesuffix(".weight"), tensor.shape
        scale = torch.ones(rows, 1)
        words = torch.zeros(columns // 8, rows, dtype=torch.int32)
        made |= {
            f"{stem}{ending}": content
            for ending, content in {
                "gptq": {".qweight": words, ".qzeros": words[:1], ".scales": scale, ".g_idx": words[:, 0]},
                "awq": {".qweight": words.T, ".qzeros": words[:1], ".scales": scale},
                "nf4": {".weight": words.view(torch.uint8), ".weight.absmax": scale, ".weight.quant_map": scale},
                "int8": {".weight": tensor.to(torch.int8), ".SCB": scale},
                "fp8": {".weight": tensor.to(torch.float8_e4m3fn), ".weight_scale_inv": scale},
                "fp8 raw": {".weight": tensor.to(torch.float8_e5m2)},
                "int8 raw": {".weight": tensor.to(torch.int8)},
                "compressed": {".weight_packed": words, ".weight_scale": scale, ".weight_shape": words[0]},
                "mlx": {".weight": words.T.view(torch.uint32), ".scales": scale, ".biases": scale},
                "exl2": {".q_weight": words, ".q_scale": words[:1], ".q_groups": words[0]},
                "fake": {".weight": tensor, ".weight_scale": scale},
            }[kind].items()
        }
    return made


@pytest.mark.parametrize(
    "kind", ["gptq", "awq", "nf4", "int8", "fp8", "fp8 raw", "int8 raw", "compressed", "mlx", "exl2", "fake"]
)
def test_quantised_weights_are_refused_whether_or_not_the_configuration_tells(kind: str, folder: Path) -> None:
    change_weights(folder, lambda tensors: quantised(kind, tensors))
    began = time.process_time()
    assert "quantised" in problem(folder) and "full-precision" in problem(folder)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "settings",
    [
        {"quantization": {"bits": 4, "group_size": 64}},
        {"compression_config": {"format": "pack-quantized"}},
        {"text_config": {"quantization_config": {"quant_method": "fp8"}}},
    ],
)
def test_every_entry_of_a_configuration_that_tells_of_quantisation_counts(settings: Any, folder: Path) -> None:
    change_config(folder, **settings)
    assert "quantised" in problem(folder)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (f"{UP}.lora_A.weight", (4, HIDDEN)),
        (f"{UP}.bias", (48,)),
        (f"{UP}.scale", (1,)),
        (f"{UP}.weight_g", (48, 1)),
        ("model.layers.0.self_attn.q_norm.weight", (8,)),
        ("model.layers.0.self_attn.rotary_emb.long_factors", (4,)),
        (f"model.layers.{BLOCKS}.mlp.up_proj.weight", (48, HIDDEN)),
        ("model.extra", (3,)),
    ],
)
def test_a_tensor_that_the_model_does_not_know_is_a_refusal(name: str, shape: tuple[int, ...], folder: Path) -> None:
    change_weights(folder, lambda tensors: {**tensors, name: torch.ones(shape)})
    assert name in problem(folder)


def test_what_the_model_makes_itself_is_no_loss(folder: Path, tmp_path: Path) -> None:
    plain = load_model(ModelRef(str(folder)), device="cpu").card.identity.fingerprint
    stored = {f"model.layers.{block}.self_attn.rotary_emb.inv_freq": FREQUENCIES.bfloat16() for block in range(BLOCKS)}
    change_weights(folder, lambda tensors: {**tensors, **stored, "model.position_ids": torch.arange(9)[None]})
    found = loads(folder)
    assert found.card.identity.fingerprint == plain and not found.warnings
    gpt2 = saved(tmp_path / "gpt2", tiny_model("gpt2"))
    mask = torch.ones(1, 1, 256, 256, dtype=torch.bool).tril()
    change_weights(gpt2, lambda tensors: {**tensors, "transformer.h.0.attn.bias": mask})
    assert not loads(gpt2).warnings


def test_stored_frequencies_must_be_those_of_the_configuration(folder: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change_weights(folder, lambda tensors: {**tensors, name: FREQUENCIES / 4})
    assert name in problem(folder)
    change_config(folder, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0})
    loads(folder)
    change_weights(
        folder, lambda tensors: {**tensors, name: FREQUENCIES}
    )  # older programs scaled the positions instead
    loads(folder)


def test_what_is_left_out_is_said(folder: Path) -> None:
    change_weights(folder, lambda tensors: {**tensors, "v_head.summary.weight": torch.ones(1, HIDDEN)})
    assert any("v_head" in warning for warning in preflight(ModelRef(str(folder))).warnings)
    assert any("v_head" in warning for warning in loads(folder).warnings)


def test_a_tied_head_may_stand_in_the_file_twice_when_it_is_the_same(folder: Path) -> None:
    change_weights(folder, lambda tensors: {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]})
    assert not loads(folder).warnings
    change_weights(folder, lambda tensors: {**tensors, "lm_head.weight": 2 * tensors["model.embed_tokens.weight"]})
    found, tokens = loads(folder), torch.arange(9)[None]
    assert any("lm_head.weight" in warning for warning in found.warnings)
    model = tiny_model()
    torch.testing.assert_close(found.model(tokens).logits, 2 * model(tokens).logits)
    change_weights(folder, lambda tensors: {k: v for k, v in tensors.items() if k != "model.embed_tokens.weight"})
    loads(folder)  # of two that are tied one suffices


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": BLOCKS + 1},
        {"num_hidden_layers": BLOCKS - 1},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": -1},
        {"num_attention_heads": 10**9},
        {"vocab_size": VOCAB + 1},
        {"intermediate_size": 40},
        {"hidden_size": float("inf")},
        {"hidden_size": "wide"},
        {"model_type": "homemade"},
        {"tie_word_embeddings": False},
        {"transformers_weights": "other.safetensors"},
    ],
    ids=str,
)
def test_a_configuration_of_another_model_is_refused(changes: dict[str, Any], folder: Path) -> None:
    change_config(folder, **changes)
    problem(folder)


def test_a_tensor_under_two_names_is_refused(folder: Path) -> None:
    change_weights(folder, lambda tensors: {**tensors, "layers.0.mlp.up_proj.weight": tensors[f"{UP}.weight"] * 3})
    assert "layers.0.mlp.up_proj.weight" in problem(folder)


@pytest.mark.parametrize(
    "gone", ["layers.1.block_sparse_moe.experts.1.w1", "layers.1.block_sparse_moe.experts.3.w1", "experts.3."]
)
def test_experts_are_complete(gone: str, tmp_path: Path) -> None:
    config = transformers.MixtralConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4,
    )  # fmt: skip
    folder = saved(tmp_path / "mixture", random_model(config))
    loads(folder)
    change_weights(folder, lambda tensors: {name: each for name, each in tensors.items() if gone not in name})
    assert "expert" in problem(folder)


def test_pickles_are_looked_at_before_they_are_loaded(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    loads(folder, allow_pickle=True)
    torch.save({**tensors, f"{UP}.qweight": torch.zeros(2, 2, dtype=torch.int32)}, folder / "pytorch_model.bin")
    assert "quantised" in problem(folder, allow_pickle=True)
    del tensors[f"{UP}.weight"]
    torch.save(tensors, folder / "pytorch_model.bin")
    assert UP in problem(folder, allow_pickle=True)


def test_weights_keep_the_precision_that_they_are_stored_in(folder: Path) -> None:
    before = loads(folder).card.identity.fingerprint
    change_config(folder, dtype="bfloat16")
    assert loads(folder).card.identity.fingerprint == before


def test_an_adapter_beside_a_model_is_not_passed_over(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    assert "adapter" in problem(folder)


def shards(folder: Path, change: Callable[[dict[str, Any], Tensors], None]) -> None:
    """Split the weights in two, and write the index after a change."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index: dict[str, Any] = {}
    for number, names in enumerate((sorted(tensors)[:9], sorted(tensors)[9:])):
        save_file({name: tensors[name] for name in names}, folder / f"part{number}.safetensors", {"format": "pt"})
        index |= dict.fromkeys(names, f"part{number}.safetensors")
    change(index, tensors)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "a\\b", "C:x", "..", "", 5, None, "x" * 300, "a\nb"])
def test_shards_lie_beside_their_index(name: Any, folder: Path) -> None:
    shards(folder, lambda index, _: index.update({"model.norm.weight": name}))
    assert "shard" in problem(folder)


def test_shards_agree_with_their_index(folder: Path, tmp_path: Path) -> None:
    def stale(index: dict[str, Any], tensors: Tensors) -> None:
        save_file({"model.norm.weight": tensors["model.norm.weight"]}, folder / "old.safetensors", {"format": "pt"})
        index["model.norm.weight"] = "old.safetensors"

    shards(folder, stale)
    assert "model.norm.weight" in problem(folder)
    other = save_tiny(tmp_path / "other")
    shards(other, lambda index, _: index.update({"model.nothing": "part0.safetensors"}))
    assert "model.nothing" in problem(other)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json"]
)
@pytest.mark.parametrize("content", ['{"a":' * 100_000, '{"a":' * 500 + "1" + "}" * 500, "[1]", '{"a": 1', "\udcff"])
def test_json_files_are_neither_deep_nor_broken(name: str, content: str, folder: Path) -> None:
    if "index" in name:
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    began = time.process_time()
    assert name in problem(folder)
    assert time.process_time() - began < 2


def test_a_process_without_torch_asks_another_once(folder: Path, tmp_path: Path) -> None:
    """`lrc doctor` says so within seconds, and what was fine is not looked at again."""
    code = (
        "import sys; from lrc_core.models.preflight import preflight; from lrc_core.runs.spec import ModelRef; "
        "print(preflight(ModelRef(sys.argv[1])).problems); assert 'torch' not in sys.modules"
    )

    def ask() -> str:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, env=env, cwd=tmp_path, check=True
        )
        return done.stdout

    assert ask() == "()\n"
    kept = list((cache_home() / "fits").glob("*.json"))
    assert len(kept) == 1
    stamp = kept[0].stat().st_mtime_ns
    assert ask() == "()\n" and kept[0].stat().st_mtime_ns == stamp
    change_weights(folder, lambda tensors: {k: v for k, v in tensors.items() if k != f"{UP}.weight"})
    assert UP in ask()

"""Loading: every family, identity by weights, and a clear refusal of everything that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lrc_core.errors import CancelledError, LrcError, ModelError, NumericalError, ResourceError
from lrc_core.models import load as loading
from lrc_core.models.blocks.block_tensors import block_tensors
from lrc_core.models.blocks.linears import block_linears
from lrc_core.models.fingerprint import fingerprint
from lrc_core.models.gguf.header import gguf_header
from lrc_core.models.headers import safetensors_header
from lrc_core.models.load import load_model
from lrc_core.models.onload.choice import ONLOAD
from lrc_core.models.preflight import preflight
from lrc_core.runs.spec import ModelRef
from lrc_core.types import ModelCard, Progress
from tests.factories.tiny_models import (
    BLOCKS,
    FAMILIES,
    HIDDEN,
    POSITIONS,
    VOCAB,
    save_tiny,
    tiny_model,
    tiny_tokenizer,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "tiny")


def ref(path: Path | str, **consents: bool) -> ModelRef:
    return ModelRef(str(path), **consents)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_as_it_was_saved(family: str, tmp_path: Path) -> None:
    save_tiny(tmp_path / family, family)
    original = tiny_model(family)
    loaded = load_model(ref(tmp_path / family), device="cpu", dtype="float32")
    tokens = torch.arange(20)[None]
    torch.testing.assert_close(loaded.model(tokens).logits, original(tokens).logits, rtol=0, atol=0)
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    card = loaded.card
    assert card.layers == block_linears(original)
    assert (card.n_blocks, card.hidden_size, card.vocab_size, card.max_positions) == (BLOCKS, HIDDEN, VOCAB, POSITIONS)
    assert card.params_total == sum(p.numel() for p in original.parameters())
    assert card.params_linear == sum(layer.params for layer in card.layers)
    assert (card.name, card.dtype, card.dtype_bytes, card.device) == (family, "float32", 4, "cpu")
    assert ModelCard.from_dict(json.loads(json.dumps(card.to_dict()))) == card
    assert card.identity.fingerprint == fingerprint(original)
    # The pre-flight, which reads no weights, agrees.
    before = preflight(ref(tmp_path / family))
    assert not before.problems and before.exists and before.kind == "folder"
    assert (before.n_blocks, before.hidden_size) == (BLOCKS, HIDDEN)
    assert before.architecture == card.identity.architecture
    shapes = [
        sorted(matrix.shape)
        for block in block_tensors(safetensors_header(tmp_path / family / "model.safetensors"), {}).values()
        for matrix in block
    ]
    assert sorted(shapes) == sorted(sorted((layer.out_features, layer.in_features)) for layer in card.layers)


def test_fingerprint_is_of_the_weights_alone(folder: Path, tmp_path: Path) -> None:
    prints = {
        load_model(ref(folder), device="cpu", dtype=name).card.identity.fingerprint for name in ("float32", "bfloat16")
    }
    prints.add(load_model(ref(save_tiny(tmp_path / "copy")), device="cpu").card.identity.fingerprint)
    assert len(prints) == 1
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] += 1e-6
    assert fingerprint(model) not in prints


def test_precision_is_converted_but_rotary_frequencies_are_not(folder: Path) -> None:
    loaded = load_model(ref(folder), device="cpu", dtype="bfloat16")
    assert all(p.dtype is torch.bfloat16 for p in loaded.model.parameters())
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    assert loaded.model.model.rotary_emb.inv_freq.dtype is torch.float32
    assert loaded.card.dtype_bytes == 2 and loaded.dtype is torch.bfloat16


def test_shards_load_like_one_file(folder: Path, tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path / "shards", max_shard_size="30KB")
    tiny_tokenizer().save_pretrained(tmp_path / "shards")
    shards = sorted((tmp_path / "shards").glob("*.safetensors"))
    assert len(shards) > 2
    whole = load_model(ref(folder), device="cpu").card.identity.fingerprint
    assert load_model(ref(tmp_path / "shards"), device="cpu").card.identity.fingerprint == whole
    shards[1].unlink()
    refused(tmp_path / "shards", shards[1].name)


def refused(path: Path | str, message: str, kind: type[LrcError] = ModelError, **consents: bool) -> LrcError:
    """Loading raises that error; the pre-flight, unless it is about values, says the same as a problem."""
    with pytest.raises(kind, match=message) as caught:
        load_model(ref(path, **consents), device="cpu")
    if kind is ModelError:
        problems = preflight(ref(path, **consents)).problems
        assert problems and str(caught.value) == problems[0]
    return caught.value


def test_paths_that_are_no_model(folder: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere")
    refused(tmp_path, "no config.json")
    refused(folder / "tokenizer.json", "not a model")
    refused("two words", "two words")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    refused(tmp_path / "adapter", "adapter")


def test_damaged_configurations(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for changed, message in (
        ({**config, "is_encoder_decoder": True}, "encoder-decoder"),
        ({**config, "quantization_config": {"quant_method": "gptq"}}, "gptq"),
    ):
        (folder / "config.json").write_text(json.dumps(changed))
        refused(folder, message)
    (folder / "config.json").write_text("{half")
    refused(folder, "config.json")


def test_damaged_weights_name_the_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for damaged, message in (
        (whole[:-10], "cut short"),
        (whole[:100], "model.safetensors"),
        (whole[:5], "model.safetensors"),
        (b"\xff" * 200, "model.safetensors"),
        (whole[:8] + b"?" + whole[9:], "header"),
        (b"", "model.safetensors"),
    ):
        path.write_bytes(damaged)
        error = refused(folder, message)
        assert "model.safetensors" in str(error)
    path.unlink()
    refused(folder, "no weights")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    refused(folder, "pickle")


def test_weights_that_are_not_finite_name_the_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    for bad in (float("nan"), float("inf"), float("-inf")):
        weights = load_file(path)
        weights["model.layers.1.mlp.up_proj.weight"][2, 3] = bad
        save_file(weights, path, metadata={"format": "pt"})
        refused(folder, r"model\.layers\.1\.mlp\.up_proj\.weight", NumericalError)


@pytest.mark.parametrize("cut", ["model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight", "half of the file"])
def test_weights_that_were_never_filled_in_are_told(cut: str, folder: Path) -> None:
    """A file of full length whose end, or a part, is zeros loads without complaint and gives a plausible number."""
    assert not load_model(ref(folder), device="cpu").warnings
    path = folder / "model.safetensors"
    if cut == "half of the file":
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    else:
        weights = load_file(path)
        save_file({**weights, cut: torch.zeros_like(weights[cut])}, path, metadata={"format": "pt"})
    empty = [name for name, tensor in load_file(path).items() if tensor.ndim > 1 and not tensor.any()]
    (warning,) = [words for words in load_model(ref(folder), device="cpu").warnings if "zeros" in words]
    assert empty and any(name in warning for name in empty)


def test_missing_tensors(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    # transformers would fill the gap with random numbers.
    del weights["model.layers.2.self_attn.v_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"model\.layers\.2\.self_attn\.v_proj"):
        load_model(ref(folder), device="cpu")


def test_pickles_load_only_with_consent(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    refused(folder, "pickle")
    loaded = load_model(ref(folder, allow_pickle=True), device="cpu")
    assert loaded.card.identity.fingerprint == fingerprint(tiny_model())
    assert not preflight(ref(folder, allow_pickle=True)).problems


def test_own_code_runs_only_with_consent(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "homemade", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('the code has run')")
    with pytest.raises(ModelError, match="own code"):
        load_model(ref(folder), device="cpu")
    assert any("not run" in warning for warning in preflight(ref(folder)).warnings)


def test_a_missing_tokenizer_and_an_unknown_architecture(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        load_model(ref(folder), device="cpu")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "homemade"}))
    with pytest.raises(ModelError, match="LlamaForCausalLM"):
        load_model(ref(folder), device="cpu")


def test_too_little_memory_is_said_as_that(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "cpu_memory_available", lambda: 1000)
    monkeypatch.setenv(ONLOAD, "never")
    refused(folder, "memory", ResourceError)
    monkeypatch.undo()

    def exhausted(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(loading, "move", exhausted)
    refused(folder, "Out of memory", ResourceError)


def test_progress_and_stop(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ticks: list[Progress] = []
    load_model(ref(folder), device="cpu", on_progress=ticks.append)
    assert {"loading the weights", "checking the weights"} <= {tick.phase for tick in ticks}
    output = capfd.readouterr()
    assert output.out == "" and "%|" not in output.err
    with pytest.raises(CancelledError):
        load_model(ref(folder), device="cpu", should_stop=lambda: True)


def write_gguf(path: Path) -> None:
    """The tiny Llama in GGUF's own names and layout, weights in float32."""
    import gguf

    model, tokenizer = tiny_model(), tiny_tokenizer()
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(BLOCKS)
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCAB)
    vocab = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    vocab = ["Ġ" if token == " " else "Ċ" if token == "\n" else token for token in vocab]
    vocab += ["ab"]  # what the one merge makes
    vocab += [f"<unused{i}>" for i in range(VOCAB - len(vocab))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocab)
    writer.add_token_types([3] * 3 + [1] * (VOCAB - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    state = model.state_dict()
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", state["model.norm.weight"].numpy())
    for block in range(BLOCKS):
        for theirs, ours in names.items():
            weight = state[f"model.layers.{block}.{theirs}.weight"].numpy()
            if ours in ("attn_q", "attn_k"):  # GGUF interleaves the two halves of every head
                heads = config.num_attention_heads if ours == "attn_q" else config.num_key_value_heads
                rows, columns = weight.shape
                weight = weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
            writer.add_tensor(f"blk.{block}.{ours}.weight", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gguf_is_unpacked_once_and_is_the_same_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    header = gguf_header(path)
    assert header.architecture == "llama" and header.metadata["llama.block_count"] == BLOCKS
    assert header.lengths["tokenizer.ggml.tokens"] == VOCAB
    before = preflight(ref(path))
    assert not before.problems and (before.kind, before.n_blocks, before.hidden_size) == ("gguf", BLOCKS, HIDDEN)
    assert before.params == sum(p.numel() for p in tiny_model().parameters()) and before.warnings
    loaded = load_model(ref(path), device="cpu", dtype="float32")
    tokens = torch.arange(20)[None]
    torch.testing.assert_close(loaded.model(tokens).logits, tiny_model()(tokens).logits, rtol=1e-5, atol=1e-5)
    assert loaded.card.name == "tiny" and loaded.card.layers == block_linears(tiny_model())
    ticks: list[Progress] = []
    again = load_model(ref(path), device="cpu", dtype="float32", on_progress=ticks.append)
    assert again.card == loaded.card and not any("unpacking" in tick.phase for tick in ticks)
    assert not preflight(ref(path)).warnings
    assert "%|" not in capfd.readouterr().err


def test_damaged_gguf_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    whole = path.read_bytes()
    for damaged in (
        whole[:-50],
        whole[:3000],
        whole[:400],
        whole[:30],
        b"GGUF",
        b"",
        b"nonsense" * 10,
        b"GGUF" + b"\xff" * 90,
    ):
        path.write_bytes(damaged)
        assert "tiny.gguf" in str(refused(path, "GGUF|cut short|damaged|Cannot read"))


@pytest.mark.pack
def test_the_starter_model() -> None:
    loaded = load_model(ModelRef(), device="cpu", dtype="float32")
    assert loaded.card.params_total == 134_515_008 and loaded.card.params_linear == 106_168_320
    before = preflight(ModelRef())
    assert not before.problems and (before.params, before.n_blocks) == (134_515_008, 30)
    tokens = loaded.tokenizer("The capital of France is", return_tensors="pt").input_ids
    assert loaded.tokenizer.decode(loaded.model(tokens).logits[0, -1].argmax()).strip() == "Paris"

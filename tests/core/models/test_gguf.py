"""GGUF files: what is unpacked is the model that was packed, or the file is refused by the name of what is odd."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from lrc_core.errors import ModelError
from lrc_core.models.gguf.header import gguf_header
from lrc_core.models.gguf.split_files import whole_header
from lrc_core.models.load import load_model
from lrc_core.models.preflight import preflight
from lrc_core.runs.spec import ModelRef
from tests.factories.gguf_files import CONFIGS, GROUPS, HEADS, HIDDEN, random_model, write_gguf

TOKENS = torch.randint(3, 300, (2, 60), generator=torch.Generator().manual_seed(0))
BASE = 10_000.0


def refused(path: Path) -> str:
    """What the pre-flight says, which loading says as well; at once."""
    began = time.process_time()
    problems = preflight(ModelRef(str(path))).problems
    assert len(problems) == 1 and time.process_time() - began < 5
    with pytest.raises(ModelError) as caught:
        load_model(ModelRef(str(path)), device="cpu")
    assert str(caught.value) == problems[0]
    return problems[0]


def assert_same(path: Path, model: Any, tolerance: float = 2e-5) -> None:
    assert not preflight(ModelRef(str(path))).problems
    loaded = load_model(ModelRef(str(path)), device="cpu", dtype="float32")
    torch.testing.assert_close(loaded.model(TOKENS).logits, model(TOKENS).logits, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_every_architecture_comes_back_as_it_was(architecture: str, tmp_path: Path) -> None:
    assert_same(tmp_path / "m.gguf", write_gguf(tmp_path / "m.gguf", architecture))


def llama3_factors(dim: int, factor: float, low: float, high: float, original: int) -> np.ndarray[Any, Any]:
    """As llama.cpp's converter computes them from the entries of config.json."""
    found = []
    for frequency in BASE ** -(np.arange(0, dim, 2) / dim):
        length = 2 * np.pi / frequency
        smooth = np.clip((original / length - low) / (high - low), 0, 1)
        found.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(found, np.float32)


SHORT, LONG = np.linspace(1, 1.5, 8, dtype=np.float32), np.linspace(2, 9, 8, dtype=np.float32)
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
DEFAULT = {"rope_type": "default", "rope_theta": BASE}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": BASE}
POSITIONS: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "linear": ("llama", LINEAR, {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {}),
    "a factor alone": ("qwen2", LINEAR, {"rope.scaling.factor": 4.0}, {}),
    "the older key": ("llama", LINEAR, {"rope.scale_linear": 4.0}, {}),
    "switched off": ("llama", DEFAULT, {"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, {}),
    "another base": ("starcoder2", {"rope_type": "default", "rope_theta": 99_999.0}, {}, {}),
    "yarn": (
        "qwen2",
        {"rope_type": "yarn", "factor": 4.0, "rope_theta": BASE, "original_max_position_embeddings": 64},
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64},
        {},
    ),
    "llama3": (
        "llama",
        {"rope_type": "llama3", "rope_theta": BASE, **LLAMA3},
        {},
        {"rope_freqs.weight": llama3_factors(HIDDEN // HEADS, 8.0, 1.0, 4.0, 64)},
    ),
    "longrope": (
        "phi3",
        {
            "rope_type": "longrope", "rope_theta": BASE, "short_factor": SHORT.tolist(), "long_factor": LONG.tolist(),
            "original_max_position_embeddings": 32, "attention_factor": 1.2,
        },
        {"rope.scaling.attn_factor": 1.2, "rope.scaling.original_context_length": 32},
        {"rope_factors_short.weight": SHORT, "rope_factors_long.weight": LONG},
    ),
    "half of a head": ("stablelm", {**DEFAULT, "partial_rotary_factor": 0.5}, {}, {}),
    "global layers alone": (
        "gemma3",
        {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
        },
        {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0, "rope.freq_base_swa": 5000.0},
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", POSITIONS)
def test_positions_are_scaled_as_the_file_says(kind: str, tmp_path: Path) -> None:
    architecture, rope, keys, tensors = POSITIONS[kind]
    more = {"original_max_position_embeddings": 32} if kind == "longrope" else {}
    model = write_gguf(tmp_path / "m.gguf", architecture, keys=keys, tensors=tensors, rope_parameters=rope, **more)
    assert_same(tmp_path / "m.gguf", model)


def test_a_window_of_attention_is_kept(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "m.gguf", keys={"attention.sliding_window": 16})
    entries = {**model.config.to_dict(), "sliding_window": 16}
    entries.pop("model_type")
    from transformers import MistralConfig

    windowed = AutoModelForCausalLM.from_config(MistralConfig(**entries), dtype=torch.float32).eval()
    windowed.load_state_dict(model.state_dict())
    assert not torch.allclose(windowed(TOKENS).logits, model(TOKENS).logits, atol=1e-2)
    assert_same(tmp_path / "m.gguf", windowed)


def test_every_head_has_its_own_keys_where_the_file_does_not_count_them(tmp_path: Path) -> None:
    keys = {"attention.head_count_kv": None}
    assert_same(tmp_path / "m.gguf", write_gguf(tmp_path / "m.gguf", keys=keys, num_key_value_heads=HEADS))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope.scaling.type", "dynamic"),
        ("rope.scaling.yarn_log_multiplier", 0.1),
        ("rope.scaling.something_new", 1.0),
        ("rope.dimension_sections", [4, 2, 2, 0]),
        ("rope.dimension_count", 8),
        ("logit_scale", 2.0),
        ("attention.scale", 0.5),
        ("residual_scale", 0.3),
        ("embedding_scale", 5.0),
        ("expert_count", 8),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
        ("attention.clamp_kqv", 8.0),
        ("attention.causal", False),
        ("attention.value_length", 8),
        ("attention.head_count_kv", [GROUPS] * 3),
        ("attention.layer_norm_rms_epsilon", float("nan")),
        ("attention.layer_norm_rms_epsilon", None),
        ("never_heard_of", 3),
        (".rope.freq_base", 5.0),
        (".adapter.lora.alpha", 16.0),
    ],
)
def test_a_key_that_cannot_be_followed_is_named(key: str, value: Any, tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", keys={key: value})
    assert key.removeprefix(".") in refused(tmp_path / "m.gguf")


def test_keys_that_change_nothing_are_no_obstacle(tmp_path: Path) -> None:
    keys = {
        "expert_count": 0, "logit_scale": 1.0, "rope.scaling.type": "none", "rope.scaling.finetuned": False,
        "attention.sliding_window": 4096, "attention.causal": True, ".publisher.convert_type": "hf",
    }  # fmt: skip
    assert_same(tmp_path / "m.gguf", write_gguf(tmp_path / "m.gguf", keys=keys))


@pytest.mark.parametrize(
    ("name", "array", "keys"),
    [
        ("blk.1.ffn_up.weight", None, {}),
        ("token_embd.weight", None, {}),
        ("blk.1.ffn_up.scale", np.ones(1, np.float32), {}),
        ("blk.1.attn_q_norm.weight", np.ones(16, np.float32), {}),
        ("blk.3.ffn_up.weight", np.ones((128, HIDDEN), np.float32), {}),
        ("rope_freqs.weight", np.ones(5, np.float32), {}),
        ("blk.2.", "beyond", {"block_count": 2}),
        ("model.layers.3", "missing", {"block_count": 4}),
        ("tokens", "vocabulary", {"vocab_size": 999}),
        ("mlp", "size", {"feed_forward_length": 64}),
    ],
)
def test_tensors_and_keys_are_of_one_model(name: str, array: Any, keys: dict[str, Any], tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", keys=keys, tensors={} if isinstance(array, str) else {name: array})
    said = refused(tmp_path / "m.gguf")
    assert (
        name in said or (name.startswith("blk.1.ffn_up.weight") and "layers.1.mlp.up_proj" in said) or "embeds" in said
    )


@pytest.mark.parametrize("kind", ["adapter", "mmproj", "imatrix"])
def test_files_that_are_no_models_say_so(kind: str, tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", keys={".general.type": kind})
    assert kind in refused(tmp_path / "m.gguf")


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")
    data = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(data.replace(b"llama", b"lxxma"))
    assert "lxxma" in refused(tmp_path / "m.gguf")


def test_the_packing_is_told_with_every_result(tmp_path: Path) -> None:
    packing = gguf.GGMLQuantizationType.Q4_1
    write_gguf(tmp_path / "m.gguf", packing=packing)
    ref = ModelRef(str(tmp_path / "m.gguf"))
    assert any("Q4_1" in warning for warning in preflight(ref).warnings)
    loaded = load_model(ref, device="cpu", dtype="float32")
    assert any("Q4_1" in warning for warning in loaded.warnings)
    weight = random_model(CONFIGS["llama"]()).model.layers[0].mlp.up_proj.weight.numpy()
    expected = gguf.dequantize(gguf.quantize(weight, packing), packing)
    assert np.array_equal(loaded.model.model.layers[0].mlp.up_proj.weight.numpy(), expected)
    assert any(
        "Q4_1" in warning for warning in load_model(ref, device="cpu").warnings
    )  # of what lies in the cache, too


def test_parts_are_read_as_one(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "m.gguf", split=12)
    parts = sorted(tmp_path.glob("m-*.gguf"))
    assert len(parts) == 3
    for part in parts:  # whichever is named
        assert_same(part, model)
    assert len(whole_header(parts[0]).tensors) == len(model.state_dict())
    stray = parts[1].rename(tmp_path / "renamed.gguf")
    assert "00003" in refused(stray) or "part" in refused(stray)
    for part in (parts[0], parts[2]):
        assert parts[1].name in refused(part)
    write_gguf(parts[1], split=0)  # of another file
    assert "part" in refused(parts[0])


def header(*keys: bytes, tensors: bytes = b"", n_tensors: int = 0, n_keys: int | None = None) -> bytes:
    count = len(keys) if n_keys is None else n_keys
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, count) + b"".join(keys) + tensors


def text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def whole(key: bytes, value: int) -> bytes:
    return text(key) + struct.pack("<II", 4, value)


def array(key: bytes, kind: int, count: int, content: bytes = b"") -> bytes:
    return text(key) + struct.pack("<IIQ", 9, kind, count) + content


def tensor(name: bytes, *dims: int, kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}QIQ", *dims, kind, offset)


HOSTILE = {
    "a key that is empty": header(whole(b"", 1)),
    "millions of keys": header(n_keys=3_000_000) + b"\0" * 30_000_000,
    "millions of tensors": header(n_tensors=3_000_000) + b"\0" * 30_000_000,
    "a key twice": header(whole(b"a", 1), whole(b"a", 2)),
    "an alignment of 0": header(whole(b"general.alignment", 0)),
    "an odd alignment": header(whole(b"general.alignment", 33)),
    "a long key": header(whole(b"k" * 100_000, 1)),
    "a long text": header(text(b"a") + struct.pack("<I", 8) + text(b"x" * 20_000_000)),
    "an endless text": header(text(b"a") + struct.pack("<IQ", 8, 2**63)),
    "an endless array": header(array(b"a", 4, 2**62)),
    "a long array": header(array(b"a", 0, 11_000_000, b"\0" * 11_000_000)),
    "an array of many texts": header(array(b"a", 8, 4_000_000, b"\0" * 32_000_000)),
    "arrays of arrays": header(array(b"a", 9, 1)),
    "a type of its own": header(text(b"a") + struct.pack("<I", 99)),
    "a tensor of many dimensions": header(tensors=tensor(b"t", *([1] * 60)), n_tensors=1),
    "a tensor of a type of its own": header(tensors=tensor(b"t", 32, kind=777), n_tensors=1),
    "a tensor larger than the file": header(tensors=tensor(b"t", 2**40, 2**40), n_tensors=1),
    "a tensor beyond the file": header(tensors=tensor(b"t", 32, offset=2**60), n_tensors=1),
    "a tensor between the steps": header(tensors=tensor(b"t", 32, offset=7) + b"\0" * 400, n_tensors=1),
    "half a block": header(tensors=tensor(b"t", 33, kind=8) + b"\0" * 400, n_tensors=1),
    "a tensor twice": header(tensors=tensor(b"t", 1) * 2 + b"\0" * 400, n_tensors=2),
    "a tensor without a name": header(tensors=tensor(b"", 1) + b"\0" * 400, n_tensors=1),
    "a tensor with a long name": header(tensors=tensor(b"n" * 5000, 1) + b"\0" * 400, n_tensors=1),
    "a tensor whose name cannot be printed": header(tensors=tensor(b"a\nb", 1) + b"\0" * 400, n_tensors=1),
    "no tensors": header(whole(b"llama.block_count", 1)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_headers_have_limits(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(HOSTILE[kind])
    began = time.process_time()
    problems = preflight(ModelRef(str(path))).problems
    assert len(problems) == 1 and "m.gguf" in problems[0]
    assert time.process_time() - began < 2
    if kind != "no tensors":
        with pytest.raises(ModelError):
            gguf_header(path)

"""What is said of a model before it is there: from its configuration alone, the same as from its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lrc_core.cli import main
from lrc_core.errors import LrcError
from lrc_core.models.load import load_model
from lrc_core.models.onload.memory import Shapes
from lrc_core.models.preflight import preflight
from lrc_core.models.weights.configured import configured_tensors, shapes_of_configuration
from lrc_core.quality.footprint import footprint
from lrc_core.quality.published import FAR, TABLE, closest, published_words
from lrc_core.quality.sizing import (
    CONTEXT,
    MEMORIES,
    RATES,
    Sizing,
    card_of,
    context_of,
    context_words,
    fitting_words,
    sizings,
)
from lrc_core.runs.spec import ModelRef
from tests.factories.tiny_models import save_tiny

pytestmark = pytest.mark.usefixtures("known_speeds")


def bare(folder: Path) -> Path:
    """The configuration of a saved model, alone in a folder."""
    alone = folder.parent / f"{folder.name}-bare"
    alone.mkdir()
    shutil.copy(folder / "config.json", alone / "config.json")
    return alone


def matrices(shapes: Shapes) -> list[list[tuple[int, int]]]:
    """[out, in] of every block; files of mixtures have other names than the program's classes."""
    return [sorted((rows, columns) for _, rows, columns in block) for block in shapes.blocks]


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "qwen3", "mixtral"])
def test_a_configuration_says_what_the_weights_say(family: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / family, family)
    whole, alone = preflight(ModelRef(str(folder))), preflight(ModelRef(str(bare(folder))))
    for name in ("architecture", "params", "n_blocks", "hidden_size", "positions"):
        assert getattr(alone, name) == getattr(whole, name), name
    assert alone.sizes is not None and whole.sizes is not None
    assert matrices(alone.sizes) == matrices(whole.sizes)
    assert alone.sizes.outside == whole.sizes.outside
    assert "no weights" in alone.problems[0] and "configuration" in alone.warnings[0]
    assert not whole.problems
    from_bytes = shapes_of_configuration((folder / "config.json").read_bytes())
    assert (from_bytes.blocks, from_bytes.outside) == (alone.sizes.blocks, alone.sizes.outside)


def test_its_file_stands_for_its_folder_and_it_cannot_be_loaded(tmp_path: Path, capsys: Any) -> None:
    alone = bare(save_tiny(tmp_path / "model"))
    assert preflight(ModelRef(str(alone / "config.json"))).params == preflight(ModelRef(str(alone))).params > 0
    with pytest.raises(LrcError, match="no weights"):
        load_model(ModelRef(str(alone)))
    assert main(["doctor", str(alone / "config.json"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in told["sizes"]] == [
        one.name for one in sizings(preflight(ModelRef(str(alone))).sizes)
    ]
    assert main(["doctor", str(alone)]) == 0
    assert f"{MEMORIES[0]} GB" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "pytorch_model.bin", "other.safetensors"])
def test_damaged_weights_are_not_taken_for_none(name: str, tmp_path: Path) -> None:
    alone = bare(save_tiny(tmp_path / "model"))
    (alone / name).write_text("nonsense")
    assert not preflight(ModelRef(str(alone))).sizes


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"nonsense", b"{}", b'{"model_type": "no-such-model"}',
        b'{"model_type": "llama", "num_hidden_layers": 1000000000}', b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b'{"model_type": "llama", "num_hidden_layers": "many"}', b'{"model_type": "llama", "hidden_size": -4}',
    ],
)  # fmt: skip
def test_what_is_no_configuration_is_one_line(data: bytes) -> None:
    with pytest.raises(LrcError) as caught:
        shapes_of_configuration(data)
    assert "\n" not in str(caught.value) and "lrc-config-" not in str(caught.value)


def test_sizes_are_counted(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    card = load_model(ModelRef(str(folder))).card
    shapes = preflight(ModelRef(str(folder))).sizes
    assert shapes is not None
    found = {one.name: one for one in sizings(shapes)}
    assert len(found) == len(RATES) + 2
    outside = card.params_total - card.params_linear
    assert found["dense, 16 bits"].size.weights == 2 * card.params_total
    assert found["20 % removed"].size.weights == pytest.approx(2 * (outside + 0.8 * card.params_linear), abs=1)
    by_hand = sum(layer.out_features * -(-layer.in_features // 32) * 34 for layer in card.layers)
    assert found["Q8_0, no rank removed"].size.weights == 2 * outside + by_hand
    in_memory = footprint(card, None, context_of(shapes))
    assert in_memory.cache and found["dense, 16 bits"].size.cache == in_memory.cache, "whatever it was loaded in"


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("positions", [64, 512, 2 * CONTEXT])
def test_the_cache_is_of_positions_that_the_model_has(family: str, positions: int, tmp_path: Path, capsys: Any) -> None:
    folder = bare(save_tiny(tmp_path / "model", family))
    config = json.loads((folder / "config.json").read_text())
    config["n_positions" if family == "gpt2" else "max_position_embeddings"] = positions
    (folder / "config.json").write_text(json.dumps(config))
    used = min(CONTEXT, positions)
    shapes = preflight(ModelRef(str(folder))).sizes
    assert shapes is not None and shapes_of_configuration((folder / "config.json").read_bytes()).positions == positions
    by_hand = footprint(card_of(shapes), None, used)
    assert by_hand.cache
    assert {one.size.cache for one in sizings(shapes)} == {by_hand.cache}
    assert f"{used:,} positions" in context_words(shapes)
    assert main(["doctor", str(folder)]) == 0
    printed = capsys.readouterr()
    assert f"{used:,} positions" in printed.out + printed.err


def test_a_card_holds_what_its_bytes_hold() -> None:
    block = (("self_attn.k_proj", 64, 1024), ("self_attn.v_proj", 64, 1024), ("mlp.up_proj", 6144, 1024))
    for blocks, least in ((500, 8), (1000, 16), (9000, None)):
        shapes = Shapes((block,) * blocks, 0, 4, 1024, 1000)
        found = sizings(shapes)
        assert card_of(shapes).params_total == shapes.params
        assert next((memory for memory in MEMORIES if found[0].fits(memory)), None) == least
        for one in found:
            for memory in MEMORIES:
                assert one.fits(memory) is (one.size.total <= memory * 1024**3)
        assert "fit" in fitting_words(found)
    assert isinstance(found[0], Sizing)


@pytest.mark.parametrize(("params", "model"), [(6.9e9, "Llama-2-7B"), (8.03e9, "Llama-3-8B"), (70e9, "Qwen3-8B")])
def test_published_results_are_of_the_nearest_size_and_said_to_be(params: float, model: str) -> None:
    one = closest(round(params))
    assert one is not None and one.model == model
    said = published_words(round(params))
    assert "not measured here" in said and model in said
    assert ("says little" in said) is (params > 3 * 8.2e9)
    assert all(one.methods[-1][1] == min(value for _, value in one.methods) > one.dense for one in TABLE)


@pytest.mark.parametrize("params", [0, 200_000, 135_000_000, 10**12])
def test_what_is_far_from_every_published_size_cites_nothing(params: int) -> None:
    assert closest(params) is None
    said = published_words(params)
    assert "not measured here" in said and str(FAR) in said
    assert not any(one.model in said or one.source in said for one in TABLE)


def test_no_weight_is_made(tmp_path: Path) -> None:
    """Eight billion parameters take 16 GB; shapes take none."""
    config = json.loads((save_tiny(tmp_path / "model") / "config.json").read_text())
    config |= {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
    config |= {"num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False, "head_dim": 128}
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    assert sum(tensor.numel for tensor in configured_tensors(folder)) == 8_030_261_248

"""The vLLM plug-in without vLLM: what it reads of exported folders, what it computes of them, what it refuses.

With vLLM it is run by ``integrations/vllm-lowrank/tests``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

import lrc_core.hf  # noqa: F401 - folders are loaded with the format known
from lrc_core.budget import stored_card
from lrc_core.folders import reload
from lrc_core.formats import rounding
from lrc_core.formats.grids import FORMATS
from lrc_core.models.load import load_model
from lrc_core.plan import make_plan
from lrc_core.runs.spec import CalibrationSpec, ExportSpec, ModelRef
from tests.factories.pipeline_helpers import result_of, run
from tests.factories.tiny_models import save_tiny
from tests.tree import ROOT
from vllm_lowrank.blocks import BLOCK_BYTES, numbers_of
from vllm_lowrank.errors import RefusedFolderError
from vllm_lowrank.folder import FolderLayout, FolderMatrix
from vllm_lowrank.product import PartwiseProduct

PACKAGE = ROOT / "integrations" / "vllm-lowrank"
FUSED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
"""What vLLM's Llama and Qwen2 say of their layers."""


def exported(family: str, storage: Any, form: str, calibration: CalibrationSpec, folder: Path) -> Path:
    """A folder with parts of every kind in one fused layer, where there are formats also packed ones."""
    ref = ModelRef(str(save_tiny(folder / family, family)))
    card = stored_card(load_model(ref).card, storage)
    whole = {layer.name for layer in card.layers if layer.name.endswith(("0.self_attn.k_proj", "1.mlp.gate_proj"))}
    ranks = {
        layer.name: layer.full_rank if layer.name in whole else 3 + place % 5 for place, layer in enumerate(card.layers)
    }
    plan = make_plan(card, ranks, decomposition="svd", method="hand", keep_target=0.5)
    if form:
        plan = replace(plan, formats={layer.name: form for layer in card.layers[::2]} | dict.fromkeys(whole, form))
    return Path(result_of(run(ExportSpec(ref, plan.to_dict(), "", calibration)))["folder"])


def filled(tensors: Mapping[str, Tensor], prefix: str, parts: list[FolderMatrix], columns: int) -> PartwiseProduct:
    """One layer of vLLM with the tensors of the files, handed over in their order."""
    product = PartwiseProduct(parts, columns, torch.float32)
    numbers = {part.name: number for number, part in enumerate(parts)}
    for key, tensor in tensors.items():
        name, _, kind = key.rpartition(".")
        if name in numbers and kind != "bias":
            product.take(kind, tensor, numbers[name] if len(parts) > 1 else None)
    product.finish()
    return product


@pytest.mark.parametrize(
    ("family", "storage", "form"),
    [("llama", "pair", ""), ("qwen2", "pivoted", ""), ("llama", "pivoted", "Q8_0"), ("qwen2", "pair", "Q4_0")],
)
def test_layers_of_an_exported_folder_are_those_of_transformers(
    family: str, storage: str, form: str, calibration: CalibrationSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lrc_core.folders.check._asked", lambda question, _: {**reload.main(question), "alone": True})
    folder = exported(family, storage, form, calibration, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    layout = FolderLayout.from_block(json.loads((folder / "config.json").read_text())["quantization_config"])
    tensors = load_file(folder / "model.safetensors")
    seen = set()
    for block in range(3):
        for path, names in (
            ("self_attn.qkv_proj", FUSED["qkv_proj"]),
            ("mlp.gate_up_proj", FUSED["gate_up_proj"]),
            ("self_attn.o_proj", ["o_proj"]),
            ("mlp.down_proj", ["down_proj"]),
        ):
            prefix = f"model.layers.{block}.{path}"
            modules = [loaded.get_submodule(f"{prefix.rpartition('.')[0]}.{name}") for name in names]
            parts = layout.parts_of(prefix, FUSED, [module.out_features for module in modules])
            assert parts is not None
            product = filled(tensors, prefix, parts, modules[0].in_features)
            biases = [module.bias for module in modules if module.bias is not None]
            inputs = torch.randn(5, modules[0].in_features)
            with torch.no_grad():
                found = product(inputs, torch.cat(biases) if biases else None)
                torch.testing.assert_close(found, torch.cat([module(inputs) for module in modules], -1))
            seen |= {part.name for part in parts}
    assert set(layout.ranks) | set(layout.packed) <= seen


@pytest.mark.parametrize("form", BLOCK_BYTES)
@pytest.mark.parametrize("width", [64, 50])
def test_blocks_hold_the_numbers_that_were_packed(form: str, width: int) -> None:
    matrix = np.random.default_rng(0).standard_normal((6, width)).astype(np.float32)
    packed = rounding.packed(matrix, FORMATS[form])
    found = numbers_of(torch.from_numpy(packed).view(6, -1, BLOCK_BYTES[form]), form, width)
    assert np.array_equal(found.numpy(), rounding.unpacked(packed, FORMATS[form], width))


def test_what_is_one_matrix_in_the_files_may_be_several_in_vllm() -> None:
    layout = FolderLayout("pivoted", {"a.qkv_proj": 4, "a.query_key_value": 4})
    assert layout.parts_of("a.qkv_proj", {"qkv_proj": ["qkv_proj"]}, [16, 8, 8]) == [
        FolderMatrix("a.qkv_proj", 32, 4, pivoted=True)
    ]
    with pytest.raises(RefusedFolderError):  # nothing says in which order its rows are
        layout.parts_of("a.query_key_value", {}, [16, 8, 8])
    assert layout.parts_of("a.o_proj", {}, [16]) is None
    assert layout.renamed(lambda name: f"language.{name}").parts_of("language.a.o_proj", {}, [16]) is None
    assert layout.renamed(lambda name: f"language.{name}").touches(["language.a.qkv_proj"])


BLOCK = {"quant_method": "lowrank", "format": 1, "storage": "pair", "ranks": {"a": 2}}


@pytest.mark.parametrize(
    "more",
    [
        {"format": 3},
        {"format": None},
        {"storage": "tucker"},
        {"pruned": {"a": [4, 4]}},
        {"packed": {"a": "Q2_K"}},
        {"experts": ["a"]},
    ],
    ids=str,
)
def test_what_vllm_cannot_run_is_refused(more: dict[str, Any]) -> None:
    assert FolderLayout.from_block(BLOCK).touches(["a"])
    with pytest.raises(RefusedFolderError):
        FolderLayout.from_block({**BLOCK, **more})


PAIR, PIVOTED = FolderMatrix("a.q", 6, 2), FolderMatrix("a.k", 5, 2, pivoted=True)


def test_tensors_that_do_not_belong_are_refused() -> None:
    product = PartwiseProduct([PAIR, PIVOTED], 8, torch.float32)
    good = {"weight": torch.randn(6, 2), "weight_in": torch.randn(2, 8)}
    wrong: list[tuple[str, Tensor, Any]] = [
        ("weight", torch.randn(6, 8), "q"),  # a dense layer's
        ("weight", torch.zeros(6, 1, 34, dtype=torch.uint8), "q"),
        ("weight_in", torch.randn(2, 9), 1),
        ("pivots", torch.tensor([0, 1]), 0),  # pairs have none
        ("pivots", torch.tensor([3, 3]), 1),
        ("pivots", torch.tensor([0, 5]), 1),
        ("weight", good["weight"], None),
        ("weight", good["weight"], "v"),
        ("weight", good["weight"], 2),
        ("bias", torch.randn(6), 0),
    ]
    for kind, tensor, shard in wrong:
        fresh = PartwiseProduct([PAIR, PIVOTED], 8, torch.float32)
        with pytest.raises(RefusedFolderError):
            fresh.take(kind, tensor, shard)
    for kind, tensor in good.items():
        product.take(kind, tensor, "q")
        with pytest.raises(RefusedFolderError):
            product.take(kind, tensor, "q")
    with pytest.raises(RefusedFolderError, match=r"a\.k\.pivots"):
        product.finish()


def test_it_has_matrices_only_for_what_is_stored() -> None:
    """k(m+n) of a pair, k(m+n-k) of pivots, mn of what is whole; in the precision that vLLM asks for."""
    product = PartwiseProduct([PAIR, PIVOTED, FolderMatrix("a.v", 4)], 8, torch.bfloat16)
    assert sum(parameter.numel() for parameter in product.parameters()) == 2 * (6 + 8) + 2 * (5 + 8 - 2) + 4 * 8
    assert {parameter.dtype for parameter in product.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in product.parameters())


def test_vllm_finds_it_by_its_entry_point() -> None:
    """The package itself does not load vLLM, which asks it in every process that it starts."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["entry-points"]["vllm.general_plugins"]["lowrank"].partition(":")
    assert callable(getattr(import_module(module), function))
    stems = {path.stem for path in (PACKAGE / "vllm_lowrank").glob("*.py")} - {"quantization"}
    imports = "; ".join(f"import vllm_lowrank.{stem}" for stem in sorted(stems))
    subprocess.run(
        [sys.executable, "-c", f"import sys; {imports}; assert 'vllm' not in sys.modules"], check=True, cwd=PACKAGE
    )

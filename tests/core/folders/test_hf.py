"""Exported folders in processes that do not know this program: they load with the folder's own code, or not at all."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lrc_core.errors import ExportError
from lrc_core.folders import reload
from lrc_core.formats.grids import FORMATS, QUANTISED
from lrc_core.formats.rounding import packed, unpacked
from lrc_core.hf import FactoredLinear, LowRankConfig
from lrc_core.hf.lowrank import unpack
from lrc_core.pipeline import exporting
from lrc_core.plan import Plan
from lrc_core.runs.spec import AllocateSpec, CalibrationSpec, ExportSpec, ModelRef
from tests.factories.pipeline_helpers import result_of, run

PROGRAM = """
import json, sys
import torch
from transformers import AutoModel, AutoModelForCausalLM, pipeline
folder, trusted = sys.argv[1], {"trust_remote_code": True}
found = {"known": any(name.startswith("lrc_core") for name in sys.modules)}
for name, words in {"stock": {}, "shim": trusted}.items():
    try:
        model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **words)
        found[name] = {key: len(value) for key, value in info.items() if value and key != "error_msgs"}
    except Exception as error:
        found[name] = type(error).__name__
ids = torch.arange(3, 40)[None]
base = AutoModel.from_pretrained(folder, **trusted)
with torch.no_grad():
    found["headless"] = torch.equal(base(ids)[0], model.base_model(ids)[0])
    found["logits"] = model(ids).logits[0, -1, :5].tolist()
write = pipeline("text-generation", folder, **trusted)
found["text"] = write("the rank", max_new_tokens=6, do_sample=False)[0]["generated_text"]
model.save_pretrained(folder + "-again")
again = AutoModelForCausalLM.from_pretrained(folder + "-again")
with torch.no_grad():
    found["again"] = again(ids).logits[0, -1, :5].tolist() == found["logits"]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def exported(
    model: ModelRef, calibration: CalibrationSpec, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A folder that was written and checked as any user's, in a process of its own."""
    home = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRC_RUNS", str(home / "runs"))
        patch.setenv("LRC_CACHE", str(home / "cache"))
        allocated = run(AllocateSpec(model, keep=0.6, calibration=calibration))
        plan = Plan.load(allocated.path / "plan.json")
        formats = dict(zip([*plan.dense, *plan.ranks][::2], cycle(QUANTISED), strict=False))
        plan = replace(plan, formats=formats)
        spec = ExportSpec(model, plan.to_dict(), "", calibration, to=str(home / "tiny-lowrank"))
        result = result_of(run(spec))
    return home / "tiny-lowrank", result


def test_a_folder_is_checked_by_a_process_of_its_own(exported: tuple[Path, dict[str, Any]]) -> None:
    folder, result = exported
    check = result["check"]
    assert check["equal"] and check["bound"] == 0 and check["perplexity"] == check["expected"]
    assert result["folder"] == str(folder) and not folder.with_name("tiny-lowrank.partial").exists()


def test_it_loads_without_this_program_or_says_so_loudly(exported: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = exported
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path), "PYTHONPATH": ""}
    words = [sys.executable, "-P", "-c", PROGRAM, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["known"]
    assert found["stock"] == "RuntimeError"  # mismatched sizes: no layer is made up
    assert found["shim"] == {}
    assert found["headless"] and found["again"]
    assert found["text"].startswith("the rank") and len(found["text"]) > len("the rank")


def test_other_programs_run_with_the_format_known(
    exported: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``python -m lrc_core.hf MODULE``: the module is run as it would be, and loads the folder without any trust."""
    (tmp_path / "loads.py").write_text(
        "import sys\nfrom transformers import AutoModelForCausalLM as A\n"
        "print(type(A.from_pretrained(sys.argv[1]).model.layers[0].mlp.up_proj).__name__, __name__)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["-", "loads", str(exported[0])])
    runpy.run_module("lrc_core.hf", run_name="__main__")
    assert capsys.readouterr().out.split() == ["FactoredLinear", "__main__"]


def test_a_newer_format_is_refused(exported: tuple[Path, dict[str, Any]]) -> None:
    block = json.loads((exported[0] / "config.json").read_text())["quantization_config"]
    assert LowRankConfig(**block).to_dict() == {**block, "pairs": [], "pruned": {}, "attributes": {}}
    with pytest.raises(ValueError, match="version 3"):
        LowRankConfig(**{**block, "format": 3})


def test_folders_of_the_first_version_are_loaded(exported: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """They had no packed layers: formats stood in them as a remark, and the numbers as they come back."""
    first = AutoModelForCausalLM.from_pretrained(exported[0])
    first.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    block = config["quantization_config"]
    assert block["format"] == 1 and not block.pop("packed")
    old = {**config, "quantization_config": {**block, "formats": dict.fromkeys(block["ranks"], "Q8_0")}}
    (tmp_path / "config.json").write_text(json.dumps(old))
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits, first(ids).logits)


@pytest.mark.parametrize("form", QUANTISED)
@pytest.mark.parametrize("width", [1, 24, 32, 50, 96])
def test_blocks_are_unpacked_as_llama_cpp_does(form: str, width: int) -> None:
    draw = torch.Generator().manual_seed(width)
    matrix = torch.randn(6, width, generator=draw) * torch.logspace(-6, 4, 6)[:, None]
    matrix[3] = 0
    data = packed(matrix.numpy(), FORMATS[form])
    blocks = torch.from_numpy(data).view(6, -1, FORMATS[form].block_bytes)
    assert torch.equal(unpack(blocks, form, width), torch.from_numpy(unpacked(data, FORMATS[form], width)))


def test_damage_of_a_packed_matrix_is_refused(exported: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = shutil.copytree(exported[0], tmp_path / "folder")
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if tensor.dtype == torch.uint8:
            endless = tensor.clone()
            endless[-1, -1, 1] = 0x7C  # the scale's exponent
            for wrong, error in ((endless, name), (tensor[:-1], "size"), (tensor[..., :-2], "size")):
                save_file({**tensors, name: wrong.contiguous()}, folder / "model.safetensors", {"format": "pt"})
                with pytest.raises((ValueError, RuntimeError), match=re.escape(error)):
                    AutoModelForCausalLM.from_pretrained(folder)
            break


def test_factors_of_both_storages_give_the_product() -> None:
    torch.manual_seed(0)
    for bias in (False, True):
        pair = FactoredLinear((7, 5), 3, False, bias, torch.float64)
        pivoted = FactoredLinear((7, 5), 3, True, bias, torch.float64)
        for parameter in (*pair.parameters(), *pivoted.parameters()):
            torch.nn.init.normal_(parameter)
        with torch.no_grad():
            assert pivoted.pivots is not None
            pivoted.pivots.copy_(torch.tensor([5, 0, 2]))
            pivoted.put_in_order()
            weight = torch.empty(7, 5, dtype=torch.float64)
            weight[[5, 0, 2]], weight[[1, 3, 4, 6]] = pivoted.weight_in, pivoted.weight @ pivoted.weight_in
            inputs = torch.randn(2, 4, 5, dtype=torch.float64)
            zero = torch.zeros(7, dtype=torch.float64)
            for layer, whole in ((pair, pair.weight @ pair.weight_in), (pivoted, weight)):
                wanted = inputs @ whole.T + (zero if layer.bias is None else layer.bias)
                torch.testing.assert_close(layer(inputs), wanted)


def test_a_folder_that_is_something_else_is_no_export(
    model: ModelRef, calibration: CalibrationSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that change on their way to the disk fail the run, and nothing is left under the folder's name."""
    allocated = run(AllocateSpec(model, keep=0.6, calibration=calibration))
    plan = Plan.load(allocated.path / "plan.json")
    spec = ExportSpec(model, replace(plan, formats=dict.fromkeys(plan.ranks, "Q4_0")).to_dict(), "", calibration)
    monkeypatch.setattr("lrc_core.folders.check._asked", lambda question, _: reload.main(question))
    written = exporting.write_shards
    for name, wrong in {
        "one value": lambda tensors: {key: _nudged(tensor) for key, tensor in tensors.items()},
        "one packed value": lambda tensors: {
            key: tensor ^ 1 if tensor.dtype == torch.uint8 else tensor for key, tensor in tensors.items()
        },
        "one missing": lambda tensors: dict(list(tensors.items())[:-1]),
    }.items():
        monkeypatch.setattr(
            exporting,
            "write_shards",
            lambda folder, tensors, *rest, wrong=wrong: written(folder, wrong(tensors), *rest),
        )
        with pytest.raises(ExportError):
            run(replace(spec, calibration=replace(calibration, seed=len(name))))
    left = [path.name for path in allocated.path.parent.glob("export-*/*") if path.is_dir()]
    assert set(left) == {"checkpoint"}


def _nudged(tensor: Any) -> Any:
    copy = tensor.clone()
    copy.view(-1)[0] += 1e-3 if copy.is_floating_point() else 0
    return copy

"""The hub, played by a tiny HTTP server on this machine: what is asked, what is fetched, and every way to fail."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest
import torch

from lrc_core.errors import CancelledError, ModelError
from lrc_core.models import preflight as preflight_module
from lrc_core.models.hub import cached_snapshot, fetch_snapshot, hub_errors
from lrc_core.models.load import load_model
from lrc_core.models.preflight import preflight
from lrc_core.runs.spec import ModelRef
from lrc_core.types import Progress, ignore_progress, never_stop
from tests.factories.hub_stand_in import COMMIT, REF, Hub
from tests.factories.tiny_models import BLOCKS, save_tiny, tiny_model


def test_look_download_load_and_reuse(hub: type[Hub], capfd: pytest.CaptureFixture[str]) -> None:
    before = preflight(REF)
    assert not before.problems and before.kind == "hub" and before.revision == COMMIT
    assert (before.n_blocks, before.params) == (BLOCKS, sum(p.numel() for p in tiny_model().parameters()))
    assert any("downloaded" in warning for warning in before.warnings)
    assert not any("GET" in line and line.endswith("onnx/model.safetensors") for line in hub.asked)

    ticks: list[Progress] = []
    loaded = load_model(REF, device="cpu", dtype="float32", on_progress=ticks.append)
    assert loaded.card.identity.revision == COMMIT and loaded.card.name == "someone/tiny"
    tokens = torch.arange(9)[None]
    assert torch.equal(loaded.model(tokens).logits, tiny_model()(tokens).logits)
    size = (hub.folder / "model.safetensors").stat().st_size
    assert max(tick.step for tick in ticks if tick.phase.startswith("downloading")) >= size
    fetched = {line.rpartition("/")[2] for line in hub.asked if line.startswith("GET /someone")}
    assert "model.safetensors" in fetched and not fetched & {"README.md", "code.py"}
    output = capfd.readouterr()
    assert output.out == "" and "%|" not in output.err

    after = preflight(REF)
    assert not (after.problems or after.warnings)
    assert after.revision == COMMIT and after.disk_needed < before.disk_needed
    hub.asked.clear()
    load_model(ModelRef("someone/tiny", revision=COMMIT), device="cpu")
    assert not hub.asked, "a complete commit needs no question to the hub"


def test_offline_uses_what_is_there(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    folder = fetch_snapshot(REF, ignore_progress, never_stop)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert cached_snapshot(REF) == folder == fetch_snapshot(REF, ignore_progress, never_stop)
    with pytest.raises(ModelError, match="cannot be reached"):
        load_model(ModelRef("someone/other"), device="cpu")
    problems = preflight(ModelRef("someone/other")).problems
    assert "starter" in problems[0] and not preflight(ModelRef("someone/other")).exists


def test_unknown_closed_and_wrong_revision(hub: type[Hub]) -> None:
    for ref, message in (
        (ModelRef("someone/misspelt"), "no model someone/misspelt"),
        (ModelRef("someone/gated"), "conditions"),
        (ModelRef("someone/tiny", revision="v9"), "no revision 'v9'"),
        (ModelRef("a/b--c"), "hub id"),
    ):
        with pytest.raises(ModelError, match=message):
            load_model(ref, device="cpu")
        assert message in preflight(ref).problems[0]


def test_pickled_hub_models_need_consent(hub: type[Hub]) -> None:
    (hub.folder / "model.safetensors").unlink()
    torch.save(tiny_model().state_dict(), hub.folder / "pytorch_model.bin")
    assert "pickled" in preflight(REF).problems[0]
    with pytest.raises(ModelError):
        load_model(REF, device="cpu")
    for branch in ("", "main"):
        moving = ModelRef("someone/tiny", branch, allow_pickle=True)
        assert COMMIT in preflight(moving).problems[0]
        with pytest.raises(ModelError, match="commit") as caught:
            load_model(moving, device="cpu")
        assert COMMIT in caught.value.remedy
    allowed = ModelRef("someone/tiny", COMMIT, allow_pickle=True)
    assert not preflight(allowed).problems and preflight(allowed).n_blocks == BLOCKS
    assert load_model(allowed, device="cpu").card.n_blocks == BLOCKS


def test_a_model_without_configuration(hub: type[Hub]) -> None:
    (hub.folder / "config.json").unlink()
    assert "no config.json" in preflight(REF).problems[0]
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_model(REF, device="cpu")


def test_a_download_can_be_stopped(hub: type[Hub]) -> None:
    with pytest.raises(CancelledError):
        fetch_snapshot(REF, ignore_progress, lambda: True)
    assert cached_snapshot(REF) is None


@pytest.mark.parametrize(
    "error", [httpx2.ConnectError("refused"), httpx2.ReadTimeout("slow"), ConnectionError("gone"), TimeoutError("slow")]
)
def test_network_errors_are_translated(error: Exception) -> None:
    with pytest.raises(ModelError, match="someone/tiny") as caught, hub_errors(REF):
        raise error
    assert "network" in caught.value.remedy


def test_preflight_judges_memory_and_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = ModelRef(str(save_tiny(tmp_path / "tiny")))
    monkeypatch.setattr(preflight_module, "gpu_memory_available", lambda: None)
    assert not preflight(ref).problems
    monkeypatch.setattr(preflight_module, "cpu_memory_available", lambda: 500_000_000)
    assert not preflight(ref).problems and "memory" in preflight(ref).warnings[0]
    monkeypatch.setattr(preflight_module, "cpu_memory_available", lambda: 1000)
    assert "memory" in preflight(ref).problems[0]
    monkeypatch.setattr(preflight_module, "disk_available", lambda _: 1000)
    assert any("LRC_CACHE" in problem for problem in preflight(ref).problems)


def test_preflight_of_the_starter_needs_no_pack() -> None:
    found = preflight(ModelRef())
    assert not found.problems and (found.kind, found.n_blocks, found.hidden_size) == ("starter", 30, 576)
    assert "downloaded" in found.warnings[0] and found.disk_needed > 10**9
    assert json.loads(json.dumps(found.to_dict()))["source"] == "starter"

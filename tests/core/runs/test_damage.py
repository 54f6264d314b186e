"""Files of an earlier attempt that cannot be read: set aside and told; a run never fails on them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lrc_core import damage
from lrc_core.allocate.masks.driver import Training
from lrc_core.allocate.masks.training import load_state, save_state
from lrc_core.calibrate.generated import BATCH, Wanted, generated_windows
from lrc_core.decompose.blockfiles import BlockFiles
from lrc_core.errors import CancelledError
from lrc_core.pipeline import streaming
from lrc_core.pipeline.streaming import streamed_spectra_run
from lrc_core.runs.spec import AllocateSpec, CalibrationSpec, ModelRef, SpectraSpec
from lrc_core.runs.store import RunStore
from lrc_core.types import ignore_progress, never_stop
from tests.factories.pipeline_helpers import LLRC, result_of, run
from tests.factories.tiny_models import save_tiny, tiny_model, tiny_tokenizer

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda raw: b"",
    "cut": lambda raw: raw[: len(raw) // 2],
    "zeros": lambda raw: bytes(len(raw)),
    "zeros at the end": lambda raw: raw[: len(raw) // 2] + bytes(len(raw) - len(raw) // 2),
    "something else": lambda raw: b"{]\xff\xfe" + raw[::-1],
}
every_damage = pytest.mark.parametrize("spoil", DAMAGES.values(), ids=DAMAGES)


def test_a_checkpoint_is_whole_or_none(tmp_path: Path) -> None:
    """Single flipped bits too: torch itself would believe nearly all of them."""
    path, state = tmp_path / "masks.pt", {"step": 3, "logits": torch.randn(300), "optimizer": {"state": {0: {"n": 1}}}}
    save_state(path, state)
    raw, chance = path.read_bytes(), random.Random(0)
    for _ in range(150):
        flipped = bytearray(raw)
        flipped[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        found = load_state(path)
        if found is not None:  # between the parts of the file nothing is stored
            assert (found["step"], found["optimizer"]) == (3, state["optimizer"])
            assert torch.equal(found["logits"], state["logits"])


@every_damage
def test_a_damaged_checkpoint_is_set_aside_and_told(
    tmp_path: Path, spoil: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tuning.pt"
    save_state(path, {"losses": [1.0] * 100})
    path.write_bytes(spoiled := spoil(path.read_bytes()))
    with damage.damage_told() as told:
        assert load_state(path) is None
    assert not path.exists()
    assert path.with_name("tuning.pt.damaged").read_bytes() == spoiled
    assert "tuning.pt.damaged" in caplog.text and str(tmp_path) in caplog.text
    (warning,) = told
    assert "tuning.pt.damaged" in warning
    save_state(path, {"losses": []})
    assert load_state(path) == {"losses": []}


def test_what_only_stops_the_reading_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("content")

    def stopped(_: Path) -> None:
        raise CancelledError("Stopped at once.")

    with pytest.raises(CancelledError):
        damage.earlier(path, stopped)
    assert path.read_text() == "content"


@pytest.mark.parametrize(
    ("text", "whole", "aside"),
    [
        (b'{"a": 1}\n{"a": 2}\n', 2, False),
        (b'{"a": 1}\n{"a"', 1, False),  # a kill while the last line was written
        (b'{"a": 1}\n\0\0\0\0\0', 1, True),
        (b"\0" * 60, 0, True),
        (b'{"a": 1}\n\xff\xfe\n{"a": 2}\n', 2, True),
        (b'{"a": 1}\n[1]\n{"b": 1}\n{"a": 2}\n', 2, True),
        (b'{"a": ' + b"[" * 200_000 + b"\n" + b'{"a": 2}\n', 1, True),
        (b"", 0, False),
    ],
    ids=["whole", "half a line", "zeros behind", "zeros", "no text", "no records", "deep", "empty"],
)
def test_lines_that_are_no_records_are_taken_out(tmp_path: Path, text: bytes, whole: int, aside: bool) -> None:
    path = tmp_path / "ranks.jsonl"
    path.write_bytes(text)
    assert len(damage.read_lines(path, lambda record: "a" in record)) == whole
    assert path.with_name("ranks.jsonl.damaged").exists() == aside
    assert [set(json.loads(line)) for line in path.read_text().splitlines()] == [{"a"}] * whole


@every_damage
def test_a_learned_run_goes_on_whatever_a_power_cut_left(
    model: ModelRef,
    calibration: CalibrationSpec,
    spoil: Callable[[bytes], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = AllocateSpec(model, method="llrc", keep=0.9, settings={**LLRC, "max_steps": 20}, calibration=calibration)
    whole = result_of(run(spec))
    monkeypatch.setenv("LRC_RUNS", str(tmp_path / "other-runs"))
    with pytest.raises(CancelledError):
        run(spec, stop_at="training masks", stop_after=9)
    folder = RunStore().create(spec).path
    (folder / "plans").mkdir(exist_ok=True)
    if not any((folder / "plans").iterdir()):
        (folder / "plans" / "01.json").write_text("{}" * 50)
    names = ["checkpoint/masks.pt", "spent.json", f"plans/{min(p.name for p in (folder / 'plans').iterdir())}"]
    for name in (*names, "ranks.jsonl"):
        (folder / name).write_bytes(spoil((folder / name).read_bytes()))
    resumed = run(spec)
    found = result_of(resumed)
    assert found["plan"] == whole["plan"] and found["details"] == whole["details"]
    assert [one["compression"] for one in found["recorded"]] == [one["compression"] for one in whole["recorded"]]
    for name in names[:2]:
        assert (folder / f"{name}.damaged").exists()
        assert any(f"{Path(name).name}.damaged" in warning for warning in found["warnings"])
    for line in (folder / "ranks.jsonl").read_text().splitlines():
        assert len(json.loads(line)["ranks"]) == len(found["card"]["layers"])


@pytest.mark.parametrize("kept", [b"", b"{}", b"[]", b"null", b'{"wall_s": "long", "peak_memory_mb": 3}', b"\xff"])
def test_what_was_spent_is_not_worth_a_failure(
    model: ModelRef, calibration: CalibrationSpec, kept: bytes, tmp_path: Path
) -> None:
    spec = AllocateSpec(model, keep=0.9, calibration=calibration)
    (RunStore().create(spec).path / "spent.json").write_bytes(kept)
    assert result_of(run(spec))["allocation"]["wall_s"] < 60


@every_damage
def test_text_that_a_model_wrote_is_written_anew(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    model, tokenizer, wanted = tiny_model(), tiny_tokenizer(), Wanted(2 * BATCH, 6, 0)
    whole = generated_windows(model, tokenizer, wanted, tmp_path)
    first, second = sorted(tmp_path.rglob("*.npy"))
    first.write_bytes(spoil(first.read_bytes()))
    np.save(second, np.zeros((BATCH, 5), np.int32))  # whole, and of another size
    assert torch.equal(generated_windows(model, tokenizer, wanted, tmp_path), whole)
    assert {path.name for path in tmp_path.rglob("*.damaged")} == {"00000.npy.damaged", "00001.npy.damaged"}


@every_damage
def test_a_stream_reads_a_damaged_matrix_again(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    spec = SpectraSpec(ModelRef(str(save_tiny(tmp_path / "model"))), decompositions=("svd",), stream=True)
    store = RunStore(tmp_path / "runs")
    found = store.create(spec)
    parts = found.path / streaming.PARTS
    with pytest.raises(CancelledError):
        streamed_spectra_run(found, ignore_progress, lambda: parts.exists() and len(list(parts.glob("*.npy"))) >= 4)
    part = min(parts.glob("*.npy"))
    part.write_bytes(spoil(part.read_bytes()))
    streamed_spectra_run(found, ignore_progress, never_stop)
    whole = RunStore(tmp_path / "others").create(spec)
    streamed_spectra_run(whole, ignore_progress, never_stop)
    with np.load(found.path / "spectra.npz") as one, np.load(whole.path / "spectra.npz") as other:
        assert set(one) == set(other)
        assert all(np.array_equal(one[name], other[name]) for name in one)


@every_damage
def test_a_mark_that_cannot_be_read_marks_nothing(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    files = BlockFiles(tmp_path / "decomposition")
    assert not files.complete
    files.write(0, {"layer.left": torch.ones(2, 2)})
    files.finish({"decomposition": "svd", "tokens": 3})
    assert files.complete
    mark, block = files.folder / "complete.json", files.folder / "block-0000.safetensors"
    mark.write_bytes(spoil(mark.read_bytes()))
    assert not files.complete and not files.complete
    block.write_bytes(spoil(block.read_bytes()))
    assert not files.has_block(0)
    files.write(0, {"layer.left": torch.ones(2, 2)})
    files.finish({"decomposition": "svd"})
    assert files.complete and files.has_block(0) and files.description == {"decomposition": "svd"}


class Counting(Training):
    phase = "counting"

    def __init__(self, path: Path) -> None:
        super().__init__(path, ignore_progress, never_stop)
        self.value = torch.zeros(3)

    def _total(self) -> int:
        return 5

    def _state(self) -> dict[str, Any]:
        return {"step": self.step, "value": self.value, "more": 1}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        self.value.copy_(state["value"])
        _ = state["more"]


def test_a_state_that_belongs_to_something_else_is_taken_back(tmp_path: Path) -> None:
    """Every method's own state: see test_allocators. Here is one that breaks in the middle of taking over."""
    path = tmp_path / "counting.pt"
    save_state(path, {"step": 4, "value": torch.ones(3)})
    training = Counting(path)
    assert training._resume() is False
    assert training.step == 0 and not training.value.any()
    assert path.with_name("counting.pt.damaged").exists()

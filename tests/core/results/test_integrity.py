"""Files are the ones that were written, or they are refused by name, or made anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lrc_core.cli import main
from lrc_core.decompose.blockfiles import BlockFiles
from lrc_core.errors import PlanError, RunError
from lrc_core.lowrank.apply import PlanWeights
from lrc_core.lowrank.structure import read_structure, write_structure
from lrc_core.plan import Plan, make_plan
from lrc_core.results.archive import Archive
from lrc_core.results.plans import find_plan, load_plan
from lrc_core.results.spectra import spectra_of
from lrc_core.runs.integrity import arrays_in
from lrc_core.runs.spec import AllocateSpec, SpectraSpec
from lrc_core.runs.store import RunStore
from lrc_core.types import Structure
from tests.factories import run_factory


def flip(path: Path) -> None:
    """One bit near the end, where the data of a safetensors file lies."""
    data = bytearray(path.read_bytes())
    data[-2] ^= 0x40
    path.write_bytes(bytes(data))


def replaced_by_another(path: Path) -> None:
    """A whole file of the same shape with other numbers."""
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)


@pytest.mark.parametrize("damage", [flip, replaced_by_another])
def test_a_damaged_file_of_a_plan_is_refused_by_name(damage: Callable[[Path], None], tmp_path: Path) -> None:
    card = run_factory.make_card()
    plan = replace(run_factory.plan_at(card, 0.8), weights_file="weights.safetensors")
    save_file(
        {"l.left": torch.ones(8, 2), "l.right": torch.ones(2, 8), "l.sigma": torch.ones(2)},
        tmp_path / "weights.safetensors",
    )
    plan = plan.with_digests(tmp_path)
    plan.save(tmp_path / "plan.json")
    digest = Plan.load(tmp_path / "plan.json").digest("weights.safetensors")
    PlanWeights(tmp_path / "weights.safetensors", None, digest)  # type: ignore[arg-type]
    damage(tmp_path / "weights.safetensors")
    with pytest.raises(PlanError, match=r"weights\.safetensors is damaged"):
        PlanWeights(tmp_path / "weights.safetensors", None, digest)  # type: ignore[arg-type]


def test_a_damaged_structure_is_refused_by_name(tmp_path: Path) -> None:
    card = run_factory.make_card()
    path, layer = tmp_path / "structure.safetensors", card.layers[0]
    write_structure(path, Structure(rows={layer.name: (0, 1, 2)}))
    plan = replace(run_factory.pruned_plan_at(card, 0.8), structure_file=path.name).with_digests(tmp_path)
    assert read_structure(path, card.layers, None, plan.digest(path.name))[0].rows[layer.name] == (0, 1, 2)
    write_structure(path, Structure(rows={layer.name: (0, 1, 3)}))
    with pytest.raises(PlanError, match=r"structure\.safetensors is damaged"):
        read_structure(path, card.layers, None, plan.digest(path.name))


@pytest.mark.parametrize("damage", [flip, replaced_by_another, Path.unlink])
def test_a_damaged_block_of_the_cache_is_made_anew(damage: Callable[[Path], None], tmp_path: Path) -> None:
    store = BlockFiles(tmp_path / "factors")
    for block in range(2):
        store.write(block, {"a.sigma": torch.ones(16)})
    assert store.has_block(1)
    store.finish({"decomposition": "svd"})
    assert store.complete
    assert store.description == {"decomposition": "svd"}
    damage(store.folder / "block-0001.safetensors")
    with pytest.raises(RunError, match="block-0001"):
        BlockFiles(store.folder).read(1, "a.sigma")
    assert not BlockFiles(store.folder).complete
    for block in range(2):
        store.write(block, {"a.sigma": torch.ones(16)})
    store.finish({})
    assert store.complete
    assert store.read(1, "a.sigma").sum() == 16


def test_blocks_of_an_unfinished_folder_are_checked_as_well(tmp_path: Path) -> None:
    store = BlockFiles(tmp_path)
    store.write(0, {"a": torch.ones(16)})
    flip(tmp_path / "block-0000.safetensors")
    assert not store.has_block(0)


def test_folders_and_plans_of_older_versions_are_read_as_they_are(tmp_path: Path) -> None:
    store = BlockFiles(tmp_path)
    store.write(0, {"a": torch.ones(4)})
    (tmp_path / "block-0000.sha256").unlink()
    store.finish({})
    assert store.complete
    assert "digests" not in run_factory.plan_at(run_factory.make_card(), 0.8).to_dict()


def test_figures_of_a_finished_run_are_the_ones_it_has_finished_with(tmp_path: Path) -> None:
    store, card = RunStore(tmp_path), run_factory.make_card()
    looked = Archive((store,))
    run = run_factory.allocate_run(store, card)
    spectra = run_factory.spectra_run(store, card)
    view = looked.require(spectra.id, SpectraSpec)
    for path, old, new, read in (
        (run.path / "result.json", '"wall_s": 600.0', '"wall_s": 601.0', run.result),
        (run.path / "card.json", '"hidden_size": 48', '"hidden_size": 49', run.card),
        (run.path / "plan.json", '"llrc"', '"strs"', lambda: find_plan(run.id, store)),
        (run.path / "plans" / "10.json", '"llrc"', '"strs"', lambda: load_plan(run.path / "plans" / "10.json")),
    ):
        read()
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises((RunError, PlanError), match=path.name):
            read()
        path.write_text(text)
        read()
    spectra_of(view)
    shutil.copyfile(spectra.path / "spectra.npz", tmp_path / "aside.npz")
    flip(spectra.path / "spectra.npz")
    with pytest.raises(RunError, match=r"spectra\.npz"):
        spectra_of(view)


@pytest.mark.parametrize("raw", [b"", b"[5]", b"PK" + bytes(200), b"[" * 100_000])
def test_arrays_that_cannot_be_read_are_told_by_the_command_line_as_well(
    raw: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LRC_RUNS", str(tmp_path))
    run = run_factory.spectra_run(RunStore(tmp_path), run_factory.make_card())
    (run.path / "spectra.npz").write_bytes(raw)
    for status in ("with digests", "of an older version"):
        with pytest.raises(RunError, match=r"spectra\.npz is damaged"):
            arrays_in(run.path / "spectra.npz")
        assert main(["runs", "show", run.id]) == 0, status
        said = capsys.readouterr()
        assert "spectra.npz is damaged" in said.out + said.err
        (run.path / "status.json").write_text(
            json.dumps({key: value for key, value in run.status().to_dict().items() if key != "digests"})
        )


def test_a_run_is_what_its_name_says(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    run = store.create(AllocateSpec(seed=1))
    path = run.path / "spec.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 2}))
    (row,) = store.list()
    assert row.state == "damaged"
    assert "was asked for" in row.damaged


def test_a_plan_says_what_its_ranks_keep(tmp_path: Path) -> None:
    card = run_factory.make_card()
    plan = make_plan(
        card, run_factory.plan_at(card, 0.8).full_ranks(card.layers), decomposition="svd", method="x", keep_target=0.8
    )
    plan.check_model(card)
    name = next(iter(plan.ranks))
    for wrong in (replace(plan, keep_achieved=0.5), replace(plan, ranks={**plan.ranks, name: plan.ranks[name] - 1})):
        with pytest.raises(PlanError, match="keep_achieved"):
            wrong.check_model(card)


@pytest.mark.parametrize("state", ["cancelled", "failed", "interrupted", "queued", "running"])
def test_what_is_unfinished_hides_no_finished_run_of_the_same_id(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped, own, card = RunStore(tmp_path / "samples"), RunStore(tmp_path / "runs"), run_factory.make_card()
    sample = run_factory.allocate_run(shipped, card)
    mine = run_factory.allocate_run(own, card, state=state)
    assert mine.id == sample.id
    both = Archive((own, shipped), shipped.root)
    view = both.open(sample.id)
    assert view is not None
    assert view.done
    assert both.folder(sample.id) is not None
    assert both.folder(sample.id).path == sample.path  # type: ignore[union-attr]
    job = both.job(sample.id)
    assert job is not None
    assert job.status.state == state
    monkeypatch.setattr("lrc_core.results.plans.samples_home", lambda: shipped.root)
    assert find_plan(sample.id, own).plan["method"] == "llrc"

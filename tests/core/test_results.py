"""The room of finished runs: precedence, types of specs, contents that belong to whoever asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrc_core.errors import RunError
from lrc_core.results.archive import Archive, asks_for, read_content
from lrc_core.runs.spec import AllocateSpec, ModelRef, SpectraSpec
from lrc_core.runs.store import RunStore


@pytest.fixture
def found(tmp_path: Path) -> Archive:
    own, samples = RunStore(tmp_path / "own"), RunStore(tmp_path / "samples")
    return Archive((own, samples), samples.root)


def test_runs_are_asked_for_by_the_class_of_their_spec(found: Archive) -> None:
    own, samples = found.stores
    run = own.create(AllocateSpec(keep=0.7))
    samples.create(AllocateSpec(keep=0.6))
    samples.create(SpectraSpec())
    assert [(view.spec.keep, view.sample) for view in found.runs(AllocateSpec)] == [(0.7, False), (0.6, True)]
    assert [view.id for view in found.runs(samples=False)] == [run.id]
    assert found.runs(AllocateSpec, ModelRef("owner/other")) == []
    assert found.open(run.id, SpectraSpec) is None and found.open(run.id) is not None
    assert [asks_for(view, SpectraSpec) for view in found.runs()] == [view.kind == "spectra" for view in found.runs()]


def test_the_users_run_hides_the_sample_of_the_same_id(found: Archive) -> None:
    for store in found.stores:
        run = store.create(AllocateSpec())
    view = found.open(run.id, AllocateSpec)
    assert view is not None and not view.sample
    with pytest.raises(RunError, match="gone"):
        found.require("allocate-nothing", AllocateSpec)


def test_damaged_folders_are_left_out_but_can_be_opened_as_folders(found: Archive) -> None:
    run = found.stores[0].create(AllocateSpec())
    (run.path / "status.json").write_text("{")
    assert found.runs() == [] and found.open(run.id) is None
    assert found.folder(run.id) is not None and found.folder("allocate-nothing") is None


def test_a_content_is_read_again_when_its_file_changes_and_never_shared(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("[1]")
    read_content(path).append(2)
    assert read_content(path) == [1]
    path.write_text("[1, 2, 3]")
    assert read_content(path) == [1, 2, 3]
    path.unlink()
    with pytest.raises(RunError, match="missing"):
        read_content(path)

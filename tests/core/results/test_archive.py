"""The room of finished runs: precedence, types of specs, contents that belong to whoever asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lrc_core.errors import RunError
from lrc_core.formats.grids import METHODS, QUANTISED
from lrc_core.quality.rows import mean_loss
from lrc_core.results import comparisons
from lrc_core.results.archive import Archive, asks_for, read_content
from lrc_core.runs.spec import AllocateSpec, EvaluationSpec, ModelRef, SpectraSpec
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


def test_the_best_of_each_method_stands_beside_the_others_whatever_its_decomposition() -> None:
    def row(method: str, decomposition: str, keep: float, value: float) -> comparisons.Row:
        return {"method": method, "decomposition": decomposition, "keep_target": keep,
                "perplexity": {"a": {"value": value}, "b": {"value": 2 * value}}}  # fmt: skip

    form = next(iter(METHODS))
    rows = (
        row("dense", "", 1.0, 10), row(form, "", 1.0, 10.1), row("uniform", "whitened", 0.8, 30),
        row("uniform", "kfac", 0.8, 20), row("llrc", "whitened", 0.8, 15), row("llrc", "whitened", 0.7, 25),
    )  # fmt: skip
    group = comparisons.Group(EvaluationSpec(), rows, 0, (), ())
    found = {str(one["method"]): one for one in group.best_at(0.8)}
    assert set(found) == {"dense", form, "uniform", "llrc"}
    assert found["uniform"]["decomposition"] == "kfac" and found["llrc"]["keep_target"] == 0.8
    assert group.sizes == [0.8, 0.7]
    every = group.at(comparisons.EVERY, None)
    assert [(one["method"], one["keep_target"]) for one in every] == [
        ("dense", 1.0), (form, 1.0), ("uniform", 0.8), ("llrc", 0.8), ("llrc", 0.7)
    ]  # fmt: skip
    assert group.at(comparisons.EVERY, 0.7) == [rows[0], rows[1], rows[5]]
    assert comparisons.keeps_of(group, comparisons.EVERY) == [0.8, 0.7]
    assert mean_loss(rows[0]) == pytest.approx(np.log(10 * 20) / 2)
    assert mean_loss({"perplexity": {}}) == float("inf")


def test_what_is_said_of_several_formats_alike_is_said_once() -> None:
    warned = {name: (f"{name}: the weights are of 5 bits.", "Slow.") for name in QUANTISED}
    rows = [{"method": name, "keep_target": 1.0, "warnings": said} for name, said in warned.items()]
    group = comparisons.Group(EvaluationSpec(), (), 0, (), ())
    said = comparisons.differences(rows, group)
    assert len(said) == 2 and all(name in said[0] for name in QUANTISED) and said[1] == "Slow."

"""Sample runs: what pages read stays, what tells of the machine goes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from lrc_core.kinds import title_of
from lrc_core.kinds.generate import asked_of
from lrc_core.paths import samples_home
from lrc_core.results.archive import archive
from lrc_core.runs.spec import GenerateSpec, SpectraSpec
from lrc_core.runs.store import Run, RunStore
from tests.samples import COMPARISONS, LESSON, MIXTURES, SPECTRA, copy_sample


def finished_run(store: RunStore) -> Run:
    run = store.create(SpectraSpec())
    sigma = np.geomspace(1e3, 1e-3, 50).astype(np.float32)
    np.savez(run.path / "spectra.npz", **{"svd/model.layers.0.q": sigma})
    (run.path / "ranks.jsonl").write_text("".join(json.dumps({"step": i}) + "\n" for i in range(500)), encoding="utf-8")
    run.write_result({"card": {}, "note": f"{Path.home()}/models/secret"})
    run.write_status(replace(run.status(), state="done", pid=4321, host="my-machine"))
    return run


def test_a_sample_is_a_run_that_says_nothing_of_the_machine(tmp_path: Path) -> None:
    run = finished_run(RunStore(tmp_path / "runs"))
    copy_sample(run, tmp_path / "samples")
    copied = RunStore(tmp_path / "samples").open(run.id)
    assert copied.spec == run.spec
    assert copied.status().state == "done"
    assert copied.status().pid is None
    everything = "".join(path.read_text(encoding="utf-8") for path in copied.path.glob("*.json*"))
    assert "my-machine" not in everything
    assert "4321" not in everything
    assert str(Path.home()) not in everything


def test_spectra_keep_their_digits_and_histories_their_ends(tmp_path: Path) -> None:
    run = finished_run(RunStore(tmp_path / "runs"))
    copy_sample(run, tmp_path)
    with np.load(run.path / "spectra.npz") as before, np.load(tmp_path / run.id / "spectra.npz") as after:
        np.testing.assert_allclose(after["svd/model.layers.0.q"], before["svd/model.layers.0.q"], rtol=2e-4)
    steps = [json.loads(line)["step"] for line in (tmp_path / run.id / "ranks.jsonl").read_text().splitlines()]
    assert steps[0] == 0
    assert steps[-1] == 499
    assert len(steps) <= 40


def test_recorded_questions_are_told_apart() -> None:
    """The same prompt was asked of the best plans and of uniform."""
    shipped = archive().runs(GenerateSpec)
    assert len({view.spec.prompt for view in shipped}) < len(shipped)
    assert len({title_of(view.spec) for view in shipped}) == len(shipped)
    assert len({(view.spec.prompt, asked_of(view.spec)) for view in shipped}) == len(shipped)


def test_what_is_said_to_ship_ships_and_no_more_than_eight_megabytes() -> None:
    for spec in (SPECTRA, LESSON, *COMPARISONS, *MIXTURES):
        assert (samples_home() / spec.run_id / "spec.json").is_file(), spec
    assert sum(path.stat().st_size for path in samples_home().rglob("*") if path.is_file()) < 8e6

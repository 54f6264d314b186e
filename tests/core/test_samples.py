"""Sample runs: what pages read stays, what tells of the machine goes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from lrc_core.runs.spec import SpectraSpec
from lrc_core.runs.store import Run, RunStore
from tests.samples import copy_sample


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

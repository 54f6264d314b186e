"""Spectra without loading: headers on the page, results while they come, the memory of a finished run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lrc_core.runs.spec import ModelRef, SpectraSpec
from tests.factories import run_factory
from tests.pages.conftest import text_of
from tests.pages.test_page_spectra import heatmaps

torch = pytest.importorskip("torch")


@pytest.fixture
def model(tmp_path):
    from tests.factories.tiny_models import save_tiny

    return save_tiny(tmp_path / "tiny")


def spec_of(folder) -> SpectraSpec:
    return SpectraSpec(ModelRef(str(folder)), ("svd",), stream=True)


def test_the_headers_come_before_any_weight(open_page, submitted, model):
    app = open_page("spectra", model=str(model))
    words = text_of(app)
    assert "Without loading" in words and "3 × " in words
    table = app.dataframe[0].value.set_index("layer")
    assert table.loc["mlp.up_proj", "break-even rank"] == round(48 * 32 / 80)
    app.button(key="start_stream").click().run()
    assert submitted[0][0] == spec_of(model)


def test_results_appear_as_they_come(open_page, store):
    card = run_factory.make_card("/models/large")
    run = store.create(spec_of("/models/large"))
    (run.path / "card.json").write_text(json.dumps(card.to_dict()), encoding="utf-8")
    (run.path / "parts").mkdir()
    for number, layer in enumerate(card.layers[:5]):
        np.save(run.path / "parts" / f"{number}.npy", run_factory.sigma_of(layer, "svd"))
    run_factory.set_state(run, "running", 5)
    app = open_page("spectra", model="/models/large")
    (grid,) = heatmaps(app)
    assert [cell[3] is not None for cell in grid["cells"]] == [True] * 5 + [False] * 23
    assert "5 of 28 matrices" in text_of(app)
    assert app.button(key=f"cancel_{run.id}").label == "Cancel"


def test_a_finished_stream_shows_its_measured_memory(open_page, store):
    card = run_factory.make_card("/models/large")
    run = store.create(spec_of("/models/large"))
    (run.path / "card.json").write_text(json.dumps(card.to_dict()), encoding="utf-8")
    np.savez(run.path / "spectra.npz", **{f"svd/{la.name}": run_factory.sigma_of(la, "svd") for la in card.layers})
    memory = {"working_bytes": 210e6, "largest_bytes": 100e6, "limit_bytes": 300e6, "process_bytes": 500e6}
    run_factory.finish(run, {"card": card.to_dict(), "decompositions": ["svd"], "stream": memory})
    app = open_page("spectra", model="/models/large")
    assert not app.error
    assert all(figure in text_of(app) for figure in ("**210.0 MB**", "2.1 ×", "(100.0 MB)"))

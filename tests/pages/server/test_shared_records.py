"""What visitors' pages keep of a run is one object for all of them, which no page writes to."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from lrc_core.escape import in_plotly
from lrc_core.results.archive import archive, card_of
from lrc_core.results.spectra import losses_of
from lrc_core.results.starter_tables import BENCH, shipped_table
from lrc_core.runs.spec import AllocateSpec, LessonSpec, SpectraSpec
from pages.ui.learn.lessons import lessons
from pages.ui.watch import film
from tests.factories import run_factory


@pytest.fixture
def runs(store, card):
    run_factory.spectra_run(store, card, decompositions=("svd", "whitened", "kfac"))
    run_factory.allocate_run(store, card)
    return run_factory.lesson_run(store, card)


def kept(ref):
    """What pages keep: asked for anew each time, as every visitor's page does."""
    found = archive()
    return {
        "card": card_of(found.runs(SpectraSpec)[0]),
        "losses": losses_of(found.runs(SpectraSpec)[0]),
        "film": film.film_of(found.runs(AllocateSpec)[0]),
        "lesson": lessons(ref, "layers")[0].content,
        "table": shipped_table(BENCH),
    }


def test_every_visitor_gets_the_same_objects(runs):
    first, second = kept(runs.spec.model), kept(runs.spec.model)
    assert None not in first.values()
    assert [name for name in first if first[name] is not second[name]] == []


def test_a_changed_record_is_read_again(runs, store, card):
    view = archive().runs(LessonSpec)[0]
    before = lessons(runs.spec.model, "layers")[0].content
    path = view.path / "lesson.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "keep": 0.25}), encoding="utf-8")
    run_factory.resealed(runs)
    after = lessons(runs.spec.model, "layers")[0].content
    assert after["keep"] == 0.25 != before["keep"]


@pytest.mark.parametrize(
    ("page", "query"),
    [*(("learn", {"learn_step": str(step)}) for step in range(1, 9)), ("watch", {}), ("plans", {}), ("present", {})],
    ids=lambda value: str(value),
)
def test_no_page_writes_to_them(runs, open_page, page, query):
    before = copy.deepcopy({**kept(runs.spec.model), "table": None})
    app = open_page(page, **query)
    assert not app.exception
    after = {**kept(runs.spec.model), "table": None}
    losses, same = before.pop("losses"), after.pop("losses")
    assert before == after
    assert all(np.array_equal(losses[name], same[name]) for name in losses)


def test_losses_cannot_be_written_to(runs):
    with pytest.raises(ValueError, match="read-only"):
        next(iter(kept(runs.spec.model)["losses"].values()))[0] = 0.0


def test_a_figure_with_nothing_to_escape_stays_what_it_is():
    plain = {"data": [{"name": "llrc", "x": [1, 2]}], "layout": {"title": {"text": "a<br>b"}}}
    assert in_plotly(plain) is plain
    spoiled = {**plain, "data": [{"name": "<a href=x>llrc</a>", "x": (1, 2)}]}
    assert in_plotly(spoiled) is not spoiled
    assert "<" not in in_plotly(spoiled)["data"][0]["name"]

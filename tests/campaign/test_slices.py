"""A little of each campaign with every run of the tests; ``make campaign`` has the rest."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest

from lrc_core.errors import LrcError
from lrc_core.kinds.words.flags import absolute_text, model_source
from lrc_core.kinds.words.lists import pieces_of
from lrc_core.models.preflight import preflight
from lrc_core.models.source import find_source
from lrc_core.results.archive import Archive
from lrc_core.results.plans import find_plan
from lrc_core.runs.spec import ModelRef
from lrc_core.runs.store import RunStore
from tests.campaign import corruptions, fuzz, kills, resumes, servers, sessions
from tests.campaign.tally import Tally


def assert_held(tally: Tally, *, at_least: int) -> None:
    assert not tally.faults, str(tally)
    assert tally.counts["checks"] >= at_least, str(tally)


@pytest.mark.process
@pytest.mark.trained
def test_killed_workers_lose_nothing(tmp_path: Path) -> None:
    ground = kills.Ground.made(tmp_path)
    tally = kills.kill_workers_of(ground, kills.SLICE, seed=1, kills=2, others=False)
    assert_held(tally, at_least=20)
    assert tally.counts["runs resumed to the end"] == 2


@pytest.mark.process
def test_killed_makers_leave_no_graves(tmp_path: Path) -> None:
    tally = kills.kill_makers(tmp_path, seed=1, kills=3)
    assert tally.counts["kills"] == 3
    assert_held(tally, at_least=2)


@pytest.mark.process
def test_killed_servers_and_dispatchers_lose_nothing(tmp_path: Path) -> None:
    tally = servers.kill_servers(tmp_path, seed=1, rounds=1, jobs=3)
    assert_held(tally, at_least=20)
    assert tally.counts["kills"] >= 1


@pytest.mark.process
def test_visitors_of_the_demo_meet_no_error(tmp_path: Path) -> None:
    tally = sessions.visit_demo(tmp_path, seed=1, sessions=3, seconds=5)
    assert_held(tally, at_least=4)
    assert tally.counts["views opened"] >= 3


def test_damaged_records_are_refused_or_mean_the_same(tmp_path: Path) -> None:
    assert_held(corruptions.damage_records(tmp_path, seed=1, times=15), at_least=200)


@pytest.mark.trained
def test_damaged_runs_do_not_fail_twice(tmp_path: Path) -> None:
    methods = kills.SLICE[1:]
    assert_held(resumes.damage_what_is_resumed(tmp_path, seed=1, times=2, methods=methods, others=False), at_least=4)


def test_readers_have_errors_of_their_own(tmp_path: Path) -> None:
    tally = fuzz.feed_readers(tmp_path, seed=1, times=8)
    assert_held(tally, at_least=250)
    assert tally.counts["refused"] > 50 and tally.counts["read"] > 50


def test_a_campaign_sees_what_differs(tmp_path: Path) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    one.write_text(json.dumps({"ranks": [1, 2], "wall_s": 3.0}))
    other.write_text(json.dumps({"ranks": [1, 2], "wall_s": 4.0}))
    assert kills.figures_in(one) == kills.figures_in(other)
    other.write_text(json.dumps({"ranks": [1, 3], "wall_s": 3.0}))
    assert kills.figures_in(one) != kills.figures_in(other)
    tally = Tally("x")
    fuzz._fed("y", lambda: json.loads("{"), tally)
    assert "JSONDecodeError" in str(tally)


@pytest.mark.parametrize(
    "name", ["~nobody-of-that-name/x", "x" * 5000, "/x" * 3000, "a\0b", "~a\0b", "\ud800", "~\ud800"]
)
def test_no_name_is_worse_than_unknown(name: str, tmp_path: Path) -> None:
    """Names that no file can have, and folders of users that are not there."""
    store = RunStore(tmp_path)
    for find in (
        lambda: find_source(ModelRef(name)),
        lambda: find_plan(name, store),
        lambda: store.open(name),
        lambda: absolute_text(name),
    ):
        with suppress(LrcError):  # of some the hub has to say that there are none
            find()
    assert Archive((store,)).folder(name) is None
    assert pieces_of(f"{name},{name}") == [name, name]
    assert model_source(name) == name


@pytest.mark.parametrize("revision", ["\ud800", "main\ud800", "a\0b", "a\nb"])
def test_a_revision_that_cannot_be_sent_is_refused(revision: str) -> None:
    ref = ModelRef("owner/name", revision)
    with pytest.raises(LrcError, match="revision"):
        find_source(ref)
    assert len(preflight(ref).problems) == 1

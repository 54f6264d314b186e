"""Every record is read by one reader: whatever is in a file, the error is the program's own and names the field."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

from lrc_core.charts.film import film_of
from lrc_core.errors import LrcError, PlanError, RecordError
from lrc_core.jobs import manager
from lrc_core.quality.votes import Vote, keep_vote, read_votes
from lrc_core.records import Count, Name, OneOf, Range, load_record, parse, typed
from lrc_core.results.drafts import imported
from lrc_core.runs.process import host_name
from lrc_core.runs.spec import SpectraSpec
from lrc_core.runs.store import RunStore
from lrc_core.runs.transcript import read_answers
from tests.factories import run_factory
from tests.factories.malformed import changed, readers


@dataclass(frozen=True)
class Inner:
    size: Count


@dataclass(frozen=True)
class Record:
    name: Name
    share: Annotated[float, Range(0, 1)]
    parts: tuple[Inner, ...] = ()
    state: Annotated[str, OneOf(("on", "off"))] = "on"
    pid: Annotated[int, Range(1)] | None = None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": 5}, "name"),
        ({"name": "![p](http://x)"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"share": True}, "share"),
        ({"share": math.nan}, "share"),
        ({"share": 10**400}, "share"),
        ({"parts": [{"size": 1}, {"size": -1}]}, "parts.1.size"),
        ({"parts": {}}, "parts"),
        ({"parts": [{"size": 1, "more": 2}]}, "parts.0.more"),
        ({"state": "maybe"}, "state"),
        ({"pid": 0}, "pid"),
        ({"pid": "7"}, "pid"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_its_field(changes: dict[str, Any], field: str) -> None:
    good = {"name": "llrc", "share": 1, "parts": [{"size": 3}], "pid": None}
    assert typed(Record, good, "x.json") == Record("llrc", 1, (Inner(3),))
    with pytest.raises(RecordError, match=r"^x\.json is damaged") as raised:
        typed(Record, good | changes, "x.json")
    assert raised.value.field == field


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "[" * 65 + "]" * 65, '{"a": 1, "a": 2}', '{"a": NaN}', '"\\ud800"', b"\xff\xfe", "", "1" * 5000],
    ids=lambda text: repr(text[:20]),
)
def test_json_beyond_its_limits_is_refused(text: str | bytes, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"x\.json"):
        parse(text, "x.json", strict=True)
    path = tmp_path / "x.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(RecordError, match=str(path)):
        load_record(path, strict=True)


def test_what_is_no_small_regular_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="not a file"):
        load_record(tmp_path)
    (tmp_path / "big").write_text("[" + "1," * 1000 + "1]")
    with pytest.raises(RecordError, match="larger than"):
        load_record(tmp_path / "big", most=1000)


def test_a_thousand_damaged_records_raise_nothing_but_the_programs_own_errors(tmp_path: Path) -> None:
    chance = random.Random(7)
    refused = 0
    for name, (good, read) in readers(tmp_path).items():
        read(good)
        for _ in range(150):
            data = changed(good, chance)
            try:
                read(data)
            except LrcError as error:
                refused += 1
                assert str(error), name
    assert refused > 500


def _lineschanged(path: Path, chance: random.Random) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    place = chance.randrange(len(lines))
    lines[place] = changed(lines[place], chance)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_damaged_lines_are_passed_over(tmp_path: Path) -> None:
    chance, store, card = random.Random(3), RunStore(tmp_path), run_factory.make_card()
    learned, asked = run_factory.allocate_run(store, card), run_factory.generate_run(store, card)
    votes = tmp_path / "votes.jsonl"
    for number in range(5):
        keep_vote(votes, Vote(1.0, f"run-{number}", "starter", "?", ("dense", "llrc"), "dense", 0))
    good = {path: path.read_text() for path in (votes, *learned.path.glob("*.jsonl"), asked.path / "answers.jsonl")}
    for _ in range(60):
        for path, text in good.items():
            path.write_text(text)
            _lineschanged(path, chance)
        run_factory.resealed(learned)
        run_factory.resealed(asked)
        assert len(read_votes(votes)) >= 4
        assert len(read_answers(asked)) >= 2
        assert film_of(learned).ticks["step"]


WRONG_STATUS: dict[str, dict[str, Any]] = {
    "null time": {"created_at": None},
    "far time": {"created_at": 1e300},
    "infinite time": {"updated_at": math.inf},
    "text as pid": {"state": "running", "pid": "x"},
    "negative pid": {"state": "running", "pid": -1},
    "huge pid": {"state": "queued", "pid": 2**70},
    "list as host": {"host": []},
    "true as step": {"step": True},
}
WRONG_SPEC: dict[str, Any] = {
    "model is a list": {"model": []},
    "source is a number": {"model": {"source": 5}},
    "another text": {"calibration": {"texts": ["code"]}},
    "unknown field": {"colour": "red"},
}


@pytest.mark.parametrize("name", [*WRONG_STATUS, *WRONG_SPEC, "deep", "directory", "empty"])
def test_one_damaged_run_hinders_no_other_and_can_be_deleted(name: str, tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    good = run_factory.allocate_run(store, run_factory.make_card())
    bad = store.create(SpectraSpec())
    spec, status = (json.loads((bad.path / f"{part}.json").read_text()) for part in ("spec", "status"))
    if name == "directory":
        (bad.path / "status.json").unlink()
        (bad.path / "status.json").mkdir()
    else:
        texts = {"deep": "[" * 100_000, "empty": ""}
        (bad.path / "spec.json").write_text(texts.get(name) or json.dumps(spec | WRONG_SPEC.get(name, {})))
        if name == "empty":
            (bad.path / "spec.json").write_text("")
        (bad.path / "status.json").write_text(json.dumps(status | {"host": host_name()} | WRONG_STATUS.get(name, {})))
    manager.reconcile(store=store)
    rows = {row.id: row for row in store.list()}
    assert rows[bad.id].state == "damaged"
    assert "json" in rows[bad.id].damaged
    assert rows[good.id].state == "done"
    manager.delete(bad.id, store=store)
    assert store.ids() == [good.id]


def test_a_listing_reads_again_only_what_haschanged(tmp_path: Path) -> None:
    store, card = RunStore(tmp_path), run_factory.make_card()
    runs = [run_factory.allocate_run(store, card, keep=keep) for keep in (0.7, 0.8, 0.9)]
    before = {row.id: row for row in store.list()}
    run_factory.set_state(runs[0], "failed", error="no")
    after = {row.id: row for row in store.list()}
    assert after[runs[0].id].state == "failed"
    assert all(after[run.id] is before[run.id] for run in runs[1:])


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format": "lrc-plan", "format": "x"}', "5", '{"format": "lrc-plan", "version": 1}']
)
def test_an_uploaded_plan_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match=r"mine\.json"):
        imported(text.encode(), run_factory.make_card(), "mine.json")

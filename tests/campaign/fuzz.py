"""Every reader is fed with what is malformed, in this process: only the program's own errors, each within seconds."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lrc_core.charts.film import film_of
from lrc_core.errors import LrcError
from lrc_core.kinds.words.flags import absolute_text, model_source
from lrc_core.kinds.words.lists import pieces_of
from lrc_core.models.hub import cached_snapshot
from lrc_core.models.preflight import preflight
from lrc_core.models.source import find_source, look_through
from lrc_core.names import method_label, model_label
from lrc_core.quality.votes import Vote, keep_vote, read_votes
from lrc_core.results.archive import Archive
from lrc_core.results.drafts import imported
from lrc_core.results.plans import find_plan
from lrc_core.runs.spec import ModelRef
from lrc_core.runs.store import Run, RunStore
from lrc_core.runs.transcript import read_answers
from lrc_core.texts.files import read_file
from tests.campaign.tally import Tally
from tests.factories import run_factory
from tests.factories.gguf_files import write_gguf
from tests.factories.malformed import changed, readers, spoiled
from tests.factories.tiny_models import save_tiny, tiny_text

SLOWEST_S = 5.0
Feed = Callable[[random.Random], Any]
"""Makes one malformed input and gives it to a reader."""


def feed_readers(folder: Path, *, seed: int, times: int) -> Tally:
    """Feed every reader so many times.

    Args:
        folder: for files.
        seed: of what is fed.
        times: inputs for each reader.
    """
    tally, chance = Tally("fuzz"), random.Random(seed)
    feeds = {**_records(folder), **_files(folder), **_models(folder), **_links(folder)}
    for name, feed in feeds.items():
        for number in range(times):
            _fed(f"{name}, {number}", partial(feed, chance), tally)
        tally.count(f"reader: {name}")
        tally.note(name)
    return tally


def _fed(said: str, feed: Callable[[], Any], tally: Tally) -> None:
    began = time.process_time()
    tally.count("inputs")
    try:
        feed()
        tally.count("read")
    except LrcError as error:
        tally.count("refused")
        tally.require(bool(str(error).strip()), f"an error without words: {said}")
    except Exception as error:
        tally.require(False, f"{type(error).__name__}: {str(error)[:100]}: {said}")
    took = time.process_time() - began
    tally.require(took < SLOWEST_S, f"{took:.0f} s: {said}")


def _records(folder: Path) -> dict[str, Feed]:
    """Parsed records with one place changed, and plans as they are uploaded."""
    found: dict[str, Feed] = {
        name: lambda chance, good=good, read=read: read(changed(good, chance))  # type: ignore[misc]
        for name, (good, read) in readers(folder / "records").items()
    }
    card = run_factory.make_card()
    plan = json.dumps(run_factory.plan_at(card, 0.8).to_dict()).encode()
    return found | {"uploaded plan": lambda chance: imported(spoiled(plan, chance)[1], card, "mine.json")}


def _files(folder: Path) -> dict[str, Feed]:
    """Files of run folders, and texts, damaged byte by byte."""
    store, card = RunStore(folder / "runs"), run_factory.make_card()
    learned = run_factory.resealed(run_factory.allocate_run(store, card, state="cancelled"))
    asked = run_factory.generate_run(store, card, state="cancelled")
    votes, text = folder / "votes.jsonl", folder / "text.jsonl"
    for number in range(5):
        keep_vote(votes, Vote(1.0, f"run-{number}", "starter", "?", ("dense", "llrc"), "dense", 0))
    text.write_text("".join(json.dumps({"text": tiny_text(200, seed)}) + "\n" for seed in range(5)))
    return {
        "spec.json": _damaged(learned.path / "spec.json", lambda: Run(learned.path).spec),
        "status.json": _damaged(learned.path / "status.json", learned.status),
        "card.json": _damaged(learned.path / "card.json", learned.card),
        "events.jsonl": _damaged(learned.path / "events.jsonl", lambda: film_of(learned)),
        "ranks.jsonl": _damaged(learned.path / "ranks.jsonl", lambda: film_of(learned)),
        "answers.jsonl": _damaged(asked.path / "answers.jsonl", lambda: read_answers(asked)),
        "votes.jsonl": _damaged(votes, lambda: read_votes(votes)),
        "text file": _damaged(text, lambda: read_file(str(text))),
    }


def _damaged(path: Path, read: Callable[[], Any]) -> Feed:
    good = path.read_bytes()

    def feed(chance: random.Random) -> Any:
        path.write_bytes(spoiled(good, chance)[1])
        try:
            return read()
        finally:
            path.write_bytes(good)

    return feed


def _models(folder: Path) -> dict[str, Feed]:
    """Configurations, indices and headers of weights."""
    model, sharded = save_tiny(folder / "model"), save_tiny(folder / "sharded")
    (sharded / "model.safetensors").rename(sharded / "model-1.safetensors")
    names = json.loads(_header(sharded / "model-1.safetensors"))
    index = sharded / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: "model-1.safetensors" for name in names if name[0] != "_"}}))
    write_gguf(packed := folder / "model.gguf")
    look = partial(look_through, model, allow_pickle=False)
    return {
        "config.json": _damaged(model / "config.json", look),
        "config.json, looked over": _damaged(model / "config.json", lambda: preflight(ModelRef(str(model)))),
        "tokenizer.json": _damaged(model / "tokenizer.json", lambda: preflight(ModelRef(str(model)))),
        "index": _damaged(index, lambda: look_through(sharded, allow_pickle=False)),
        "safetensors": _damaged_header(model / "model.safetensors", look),
        "GGUF": _damaged_beginning(packed, lambda: preflight(ModelRef(str(packed)))),
    }


def _header(path: Path) -> bytes:
    raw = path.read_bytes()
    return raw[8 : 8 + int.from_bytes(raw[:8], "little")]


def _damaged_header(path: Path, read: Callable[[], Any]) -> Feed:
    """With a header that is changed and as long as it says, or as it was."""
    good, header = path.read_bytes(), _header(path)

    def feed(chance: random.Random) -> Any:
        new = spoiled(header, chance)[1]
        length = len(header if chance.random() < 0.2 else new)
        path.write_bytes(length.to_bytes(8, "little") + new + good[8 + len(header) :])
        return read()

    return feed


def _damaged_beginning(path: Path, read: Callable[[], Any]) -> Feed:
    """Numbers and letters in the first kilobytes, where keys, counts and types are."""
    good = path.read_bytes()

    def feed(chance: random.Random) -> Any:
        new = bytearray(good)
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(4, min(len(new), 12_000) - 8)
            width = chance.choice([1, 4, 8])
            new[place : place + width] = chance.choice([bytes(width), b"\xff" * width, chance.randbytes(width)])
        path.write_bytes(new if chance.random() < 0.8 else new[: chance.randrange(len(new))])
        return read()

    return feed


def _links(folder: Path) -> dict[str, Feed]:
    """What links and command lines name: models, revisions, runs, plans, methods."""
    store = RunStore(folder / "linked")
    run = run_factory.allocate_run(store, run_factory.make_card())
    archive = Archive((store,))
    names = ["starter", "owner/name", str(folder / "model"), "~/model", run.id, f"{run.id}@20", "llrc", "llrc+update"]

    def about(read: Callable[[str, str], Any]) -> Feed:
        return lambda chance: read(_name(names, chance), _name(["", "main", "a" * 40], chance))

    return {
        "model name": about(lambda name, revision: find_source(ModelRef(name, revision))),
        "model label": about(lambda name, revision: model_label(ModelRef(name, revision))),
        "model in the cache": about(lambda name, revision: cached_snapshot(ModelRef(name, revision))),
        "model looked over": about(lambda name, revision: preflight(ModelRef(name, revision))),
        "method name": about(lambda name, _: method_label(name)),
        "run id": about(lambda name, _: store.open(name).status()),
        "run in a link": about(lambda name, _: (archive.open(name), archive.job(name), archive.folder(name))),
        "plan name": about(lambda name, _: find_plan(name, store)),
        "text name": about(lambda name, _: absolute_text(name)),
        "listed names": about(lambda name, other: (pieces_of(f"{name},{other}"), model_source(name))),
    }


_ODD = [
    "\0",
    "/",
    "..",
    "\ud800",
    "\n",
    "@",
    "%",
    "~",
    "*",
    "\u202e",
    "\\",
    "x" * 5000,
    "é",
    " ",
    "-",
    "\x7f",
    ":",
    "?",
]


def _name(good: list[str], chance: random.Random) -> str:
    """A name with something odd in it, or nothing but that."""
    name = chance.choice(good)
    for _ in range(chance.randrange(0, 4)):
        place = chance.randrange(len(name) + 1)
        name = name[:place] + chance.choice(_ODD) + name[place + chance.randrange(2) :]
    return name if chance.random() < 0.9 else chance.choice(_ODD) * chance.randrange(1, 9)

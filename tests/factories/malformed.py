"""What is almost right: records with one place changed, bytes that a disk, a transfer or somebody has spoiled."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lrc_core.plan import Plan
from lrc_core.runs.records import Status
from lrc_core.runs.spec import spec_from_dict
from lrc_core.runs.store import RunStore
from lrc_core.types import ModelCard
from tests.factories import run_factory


def changed(value: Any, chance: random.Random) -> Any:
    """The same JSON with one place in it replaced, removed or added."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        if chance.random() < 0.1:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: changed(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.7:
        place = chance.randrange(len(value))
        return [*value[:place], changed(value[place], chance), *value[place + 1 :]]
    return chance.choice(
        [
            None,
            True,
            -1,
            0,
            1.5,
            10**30,
            math.nan,
            math.inf,
            "",
            "x" * 10_000,
            "\ud800",
            "../x",
            [],
            {},
            [[]],
            {"a": {}},
        ]
    )


def readers(root: Path) -> dict[str, tuple[Any, Callable[[Any], Any]]]:
    """A good record of every kind, and what reads it."""
    card = run_factory.make_card()
    store = RunStore(root)
    made = [
        run_factory.allocate_run(store, card),
        run_factory.spectra_run(store, card),
        run_factory.lesson_run(store, card),
        run_factory.generate_run(store, card),
    ]
    found: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "card": (card.to_dict(), ModelCard.from_dict),
        "status": (made[0].status().to_dict(), Status.from_dict),
    }
    for run in made:
        found[f"spec of {run.spec.kind}"] = (run.spec.to_dict(), spec_from_dict)
    for name, plan in {
        "plan": run_factory.plan_at(card, 0.8),
        "pruned plan": run_factory.pruned_plan_at(card, 0.8),
    }.items():
        found[name] = (json.loads(json.dumps(plan.to_dict())), lambda data: Plan.from_dict(data).check_model(card))
    return found


def spoiled(raw: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Bytes damaged in one of several ways, and the way's name."""
    place = chance.randrange(max(1, len(raw)))
    ways: dict[str, Callable[[], bytes]] = {
        "empty": lambda: b"",
        "cut": lambda: raw[:place],
        "zeros": lambda: raw[:place] + bytes(len(raw) - place),
        "a flipped bit": lambda: raw[:place] + bytes([raw[place] ^ 1 << chance.randrange(8)]) + raw[place + 1 :],
        "garbage": lambda: raw[:place] + chance.randbytes(min(64, len(raw) - place)) + raw[place + 64 :],
        "garbage alone": lambda: chance.randbytes(chance.randrange(1, 4096)),
        "twice": lambda: raw + raw,
        "a piece missing": lambda: raw[:place] + raw[place + chance.randrange(1, 64) :],
        "something else": lambda: b"{]\xff\xfe" + raw[::-1],
        "depth": lambda: b"[" * 100_000,
        "wrong types": lambda: _wrong_types(raw, chance),
    }
    name = chance.choice([*ways] if raw else ["empty", "garbage alone", "depth"])
    return name, ways[name]()


def _wrong_types(raw: bytes, chance: random.Random) -> bytes:
    """JSON, or a line of it, with one place changed; other bytes become JSON."""
    lines = raw.split(b"\n")
    place = chance.randrange(len(lines)) if lines[0].endswith(b"}") else None
    try:
        content = json.loads(raw if place is None else lines[place])
    except ValueError:
        return b"[5]"
    new = json.dumps(changed(content, chance)).encode()
    return new if place is None else b"\n".join([*lines[:place], new, *lines[place + 1 :]])

"""Runs of every kind whose names, texts, errors and notes hold every payload."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lrc_core.quality.votes import FILE, Vote
from lrc_core.runs.spec import ModelRef, SpectraSpec
from lrc_core.runs.store import Run, RunStore
from tests.factories import run_factory, table_factory
from tests.factories.payloads import ALL

PAYLOAD = "\n\n".join(ALL)


def poisoned(content: Any, keys: tuple[str, ...]) -> Any:
    """JSON content with the payload as the text under some keys, and as the names of texts."""
    if isinstance(content, dict):
        return {
            (PAYLOAD if key == "gensim" else key): PAYLOAD
            if key in keys and isinstance(value, str)
            else poisoned(value, keys)
            for key, value in content.items()
        }
    return [poisoned(value, keys) for value in content] if isinstance(content, list) else content


def poison(run: Run, *keys: str) -> None:
    """The payload in a finished run, as if its job had written it: digests are those of the poisoned files."""
    for path in run.path.glob("*.json"):
        if path.name not in ("spec.json", "status.json"):
            path.write_text(json.dumps(poisoned(json.loads(path.read_text()), keys)))
    result = run.path / "result.json"
    result.write_text(json.dumps({**json.loads(result.read_text()), "warnings": [PAYLOAD]}))
    run_factory.resealed(run)


def fill(store: RunStore, plans: Path) -> dict[str, str]:
    """Runs of every kind whose names, texts, errors and notes hold every payload; returns ids to open."""
    card = run_factory.make_card()
    named = replace(card, name=PAYLOAD, identity=replace(card.identity, architecture=PAYLOAD))
    run_factory.spectra_run(store, named, decompositions=("svd", "whitened", "kfac"))
    learned = run_factory.allocate_run(store, card)
    poison(learned)
    compared = table_factory.compare_run(store, card)
    for run in (
        compared,
        table_factory.quality_run(store, card),
        table_factory.ablation_run(store, card),
        run_factory.lesson_run(store, card),
    ):
        poison(run, "name", "note", "error", "remedy", "prompt", "text", "variant", "label")
    failed = run_factory.allocate_run(store, card, method="ara", state="running")
    run_factory.set_state(failed, "failed", 3, PAYLOAD, PAYLOAD)
    other = store.create(SpectraSpec(ModelRef(PAYLOAD[:300], PAYLOAD[:200])))
    run_factory.set_state(other, "failed", 0, PAYLOAD, PAYLOAD)
    asked = run_factory.generate_run(store, card, prompt=PAYLOAD)
    vote = Vote(time.time(), asked.id, PAYLOAD, PAYLOAD, (PAYLOAD, "dense"), PAYLOAD, 0)
    (store.root / FILE).write_text(json.dumps(asdict(vote)) + "\n")
    plan = run_factory.plan_at(card, 0.8).to_dict()
    plans.mkdir(parents=True, exist_ok=True)
    (plans / "saved.json").write_text(json.dumps({**plan, "origin": {"name": PAYLOAD, "label": PAYLOAD}}))
    return {
        "failed": failed.id,
        "learned": learned.id,
        "other": other.id,
        "asked": asked.id,
        "compared": compared.id,
    }

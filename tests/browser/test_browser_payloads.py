"""Names from outside in a real browser: whatever they hold, no page runs, frames, links or fetches it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from lrc_core.quality.votes import FILE, Vote
from lrc_core.runs.spec import ModelRef, SpectraSpec
from lrc_core.runs.store import Run, RunStore
from pages.ui.serve import free_port
from tests.browser.conftest import PATIENCE_MS, ROOT, wait_until_healthy
from tests.browser.views import open_folds, stand_still
from tests.factories import run_factory, table_factory
from tests.factories.payloads import ALL, EVIL

pytestmark = pytest.mark.browser
PAYLOAD = "\n\n".join(ALL)

FOUND = """(evil) => ({
  links: [...document.querySelectorAll("a")]
    .map((link) => String(link.getAttribute("href") || link.getAttribute("xlink:href") || ""))
    .filter((href) => href && new URL(href, location.href).origin !== location.origin),
  frames: [...document.querySelectorAll("iframe, object, embed, base, form[action], meta[http-equiv=refresh]")]
    .map((element) => element.outerHTML).filter((text) => text.includes(evil)),
  images: [...document.querySelectorAll("img, image")].map((element) => element.outerHTML)
    .filter((text) => text.includes(evil)),
  ran: window.lrcPwned || 0,
})"""


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
    for path in run.path.glob("*.json"):
        if path.name not in ("spec.json", "status.json"):
            path.write_text(json.dumps(poisoned(json.loads(path.read_text()), keys)))


def fill(store: RunStore, plans: Path) -> dict[str, str]:
    """Runs of every kind whose names, texts, errors and notes hold every payload; returns ids to open."""
    card = run_factory.make_card()
    named = replace(card, name=PAYLOAD, identity=replace(card.identity, architecture=PAYLOAD))
    run_factory.spectra_run(store, named, decompositions=("svd", "whitened", "kfac"))
    learned = run_factory.allocate_run(store, card)
    run_factory.finish(learned, {**(learned.result() or {}), "warnings": [PAYLOAD]})
    for run in (
        table_factory.compare_run(store, card),
        table_factory.quality_run(store, card),
        table_factory.ablation_run(store, card),
        run_factory.lesson_run(store, card),
    ):
        poison(run, "name", "note", "error", "remedy", "prompt", "text", "variant", "label")
        if not isinstance(run.spec, SpectraSpec):
            run_factory.finish(run, {**(run.result() or {}), "warnings": [PAYLOAD]})
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
    return {"failed": failed.id, "learned": learned.id, "other": other.id, "asked": asked.id}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A server on a store full of payloads."""
    folder = tmp_path_factory.mktemp("payloads")
    ids = fill(RunStore(folder / "runs"), folder / "plans")
    port = free_port(range(8900, 9100))
    places = {"LRC_RUNS": "runs", "LRC_CACHE": "cache", "LRC_PLANS": "plans", "LRC_SAMPLES": "samples"}
    environment = {**os.environ, **{name: str(folder / path) for name, path in places.items()}}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pages.ui.serve", str(port)], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    wait_until_healthy(f"http://127.0.0.1:{port}", folder / "log")
    yield f"http://127.0.0.1:{port}", ids
    process.kill()
    process.wait(timeout=30)


def links(ids: dict[str, str]) -> list[str]:
    """Views that show names from outside, and links that bring some along."""
    payload = quote(PAYLOAD[:350])
    return [
        "",
        f"?model={payload}&revision={payload}",
        *(f"learn?learn_step={step}" for step in (3, 5, 6, 7)),
        "spectra",
        "spectra?sp_find=" + payload,
        "allocate",
        f"allocate?al_run={ids['failed']}",
        f"allocate?al_run={payload}&al_learned={payload}",
        f"watch?wa_run={ids['learned']}",
        "plans",
        "compare",
        *(f"compare?co_view={view}" for view in ("Curve", "Zero-shot", "Ranks", "Text", "Size+and+speed")),
        "compare?co_section=Bench",
        "compare?co_section=Ablations",
        f"talk?ta_run={ids['asked']}",
        f"talk?ta_run={payload}",
        "runs",
        *(f"runs?ru_run={ids[name]}" for name in ("failed", "other", "learned", "asked")),
        *(f"present?pr_slide={number}" for number in range(1, 9)),
    ]


PARTS = 4
"""A page with seventy payloads in each name takes its time, so the views are divided among tests."""


@pytest.mark.parametrize("part", range(PARTS))
def test_no_view_takes_a_name_for_more_than_a_name(place: tuple[str, dict[str, str]], browser: Any, part: int) -> None:
    url, ids = place
    context = browser.new_context(viewport={"width": 1360, "height": 1000})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    asked: list[str] = []
    dialogs: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if EVIL in request.url.partition("?")[0] else None)
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    wrong = {}
    for link in links(ids)[part::PARTS]:
        page.goto(f"{url}/{link}")
        page.get_by_role("heading", level=1).first.wait_for()
        stand_still(page)
        open_folds(page)
        found = {kind: what for kind, what in page.evaluate(FOUND, EVIL).items() if what}
        if asked or dialogs:
            found |= {"asked": asked[:], "dialogs": dialogs[:]}
            asked.clear()
        if found:
            wrong[link[:60]] = found
    context.close()
    assert wrong == {}

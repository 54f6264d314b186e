"""Side by side in a real browser, with a real worker and a tiny model: streamed, shared, blind, released."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
import torch
from playwright.sync_api import expect

from lrc_core.evaluate.generate import prompt_ids
from lrc_core.jobs import generator
from lrc_core.models.load import load_model
from lrc_core.pipeline import execute
from lrc_core.runs.recorder import record
from lrc_core.runs.spec import AllocateSpec, CalibrationSpec, ModelRef
from tests.browser.conftest import PATIENCE_MS
from tests.factories.tiny_models import save_tiny, tiny_text

pytestmark = pytest.mark.browser
expect.set_options(timeout=PATIENCE_MS)
LENGTH = 60


@pytest.fixture
def model(start_server, tmp_path, monkeypatch):
    """A server whose user has allocated ranks for a tiny model in a folder."""
    server = start_server()
    monkeypatch.setenv("LRC_CACHE", str(server.runs.parent / "cache"))
    (tmp_path / "text.txt").write_text(tiny_text(6000))
    ref = ModelRef(str(save_tiny(tmp_path / "tiny")))
    calibration = CalibrationSpec((str(tmp_path / "text.txt"),), windows=8, window=48)
    run = server.store.create(AllocateSpec(ref, keep=0.6, calibration=calibration))
    record(run, lambda tick, stop: execute(run, on_progress=tick, should_stop=stop))
    yield server, ref
    generator.release(server.store, at_once=True)


def panel(page):
    return page.locator("[class*=st-key-job_]").first


def greedy(ref: ModelRef, prompt: str) -> str:
    """What transformers itself writes."""
    loaded = load_model(ref)
    ids = prompt_ids(loaded.tokenizer, prompt)
    text = loaded.model.generate(torch.tensor([ids]), max_new_tokens=LENGTH, do_sample=False, pad_token_id=2)
    return loaded.tokenizer.decode(text[0, len(ids) :], skip_special_tokens=True)


def ask(page, prompt):
    page.get_by_role("textbox", name="Prompt").fill(prompt)
    page.get_by_role("button", name="Ask").click()


def test_ask_share_vote_and_release(model, open_tab):
    server, ref = model
    url = f"{server.url}/talk?model={quote(ref.source)}&ta_max_new_tokens={LENGTH}"
    page = open_tab(url)
    expect(page.get_by_text("The generation worker is not running")).to_be_visible()
    ask(page, prompt := "the rank of a layer")
    expect(page).to_have_url(re.compile(r"ta_run=generate-"))
    page.reload()
    expect(panel(page)).to_contain_text("Finished", timeout=4 * PATIENCE_MS)  # torch is imported and a model loaded
    answers = page.locator(".lrc-answer")
    expect(answers).to_have_count(2)
    assert " ".join(answers.first.inner_text().split()) == " ".join(greedy(ref, prompt).split())
    expect(panel(page).get_by_text(re.compile(r"[\d.,]+ tokens/s"))).to_have_count(2)  # the card has speeds as well
    expect(page.get_by_text("lrc generate").first).to_be_visible()
    other = open_tab(page.url, dark=True, width=600)
    expect(other.locator(".lrc-answer").first).to_have_text(answers.first.inner_text())
    assert other.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0

    page.get_by_text("Blind", exact=True).click()
    ask(page, "a budget of ranks")
    expect(page.get_by_role("button", name="Answer B is best")).to_be_visible()
    assert page.get_by_text("tokens/s").count() == 0
    assert page.locator(".lrc-who").filter(has_text="Dense").count() == 0
    page.get_by_role("button", name="Answer B is best").click()
    expect(page.get_by_text("your choice")).to_be_visible()
    expect(page.locator(".lrc-who").filter(has_text="Dense model").first).to_be_visible()
    page.get_by_text("Votes", exact=True).click()
    expect(page.get_by_role("button", name="Votes (CSV)")).to_be_visible()
    page.locator("[data-testid=stStatusWidget]").wait_for(state="detached")  # a press on what is drawn anew is lost
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Votes (CSV)").click()
    assert "a budget of" in waiting.value.path().read_text()

    page.get_by_role("button", name="Release now").click()
    expect(page.get_by_text("The generation worker is not running")).to_be_visible()

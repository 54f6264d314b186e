"""A server with a token in a real browser: its owner, a guest, and a page of another origin."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import expect

from lrc_core.runs.spec import ModelRef, SpectraSpec
from lrc_core.runs.store import RunStore
from pages.ui.serve import free_port
from tests.browser.conftest import PATIENCE_MS, ROOT, wait_until_healthy
from tests.factories import run_factory

pytestmark = pytest.mark.browser
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """A server with a token: its address, the printed link, and the id of a run that only its owner may see."""
    folder = tmp_path_factory.mktemp("token")
    store = RunStore(folder / "runs")
    card = run_factory.make_card("/models/of-the-owner")
    run_factory.spectra_run(store, card)
    secret = store.create(SpectraSpec(ModelRef("owner/secret")))
    run_factory.set_state(secret, "failed", 0, "A secret error.", "")
    port = free_port(range(9100, 9300))
    environment = {**os.environ, "LRC_RUNS": str(store.root), "LRC_CACHE": str(folder / "cache")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pages.ui.serve", str(port), "--token"],
            cwd=ROOT, env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    wait_until_healthy(f"http://127.0.0.1:{port}", folder / "log")
    link = re.search(r"http://\S+", (folder / "log").read_text())
    assert link is not None and "token=" in link[0]
    yield f"http://127.0.0.1:{port}", link[0], secret.id
    process.kill()
    process.wait(timeout=30)


def test_the_link_makes_an_owner_and_its_lack_a_guest(guarded: tuple[str, str, str], open_tab: Any) -> None:
    url, link, secret = guarded
    owner = open_tab(link)
    assert "token" not in owner.url
    expect(owner.get_by_role("link", name="Choose another").or_(owner.get_by_text("Choose a model"))).not_to_have_count(
        0
    )
    expect(owner.get_by_text("Read-only demo")).to_have_count(0)
    owner.goto(f"{url}/runs?ru_run={secret}")
    expect(owner.get_by_text("A secret error.").first).to_be_visible()
    expect(owner.get_by_role("button", name="Delete").first).to_be_visible()

    guest = open_tab(f"{url}/?token=wrong")
    expect(guest.get_by_text("Read-only demo").first).to_be_visible()
    guest.goto(f"{url}/runs?ru_run={secret}")
    expect(guest.get_by_text("Read-only demo").first).to_be_visible()
    guest.locator("[data-testid=stStatusWidget]").wait_for(state="detached")
    assert guest.get_by_role("button", name="Delete").count() == 0
    assert guest.get_by_text("secret").count() == 0
    owner.reload()
    expect(owner.get_by_text("A secret error.").first).to_be_visible()


FOREIGN = """(port) => new Promise((resolve) => {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/_stcore/stream`, ["streamlit"]);
  socket.onopen = () => resolve("open");
  socket.onerror = () => resolve("refused");
})"""


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        port = self.path.lstrip("/")
        self.wfile.write(f"<h1>other</h1><iframe src='http://127.0.0.1:{port}/'></iframe>".encode())

    def log_message(self, *args: Any) -> None:
        pass


def test_a_page_of_another_port_gets_neither_a_socket_nor_a_frame(server: Any, open_tab: Any) -> None:
    port = server.url.rpartition(":")[2]
    other = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    page = open_tab(f"http://127.0.0.1:{other.server_address[1]}/{port}")
    assert page.evaluate(FOREIGN, port) == "refused"
    time.sleep(1)
    frame = page.frames[-1]
    assert frame.locator("[data-testid=stApp]").count() == 0
    own = open_tab(server.url)
    assert own.evaluate(FOREIGN, port) == "open"
    other.shutdown()

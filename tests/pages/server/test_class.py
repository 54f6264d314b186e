"""The class mode: reachable by others, read-only, nothing shared between tabs, and a code that leads to the step."""

from __future__ import annotations

import os

import pytest

from lrc_core.paths import READ_ONLY
from pages.ui import classroom, gate, serve
from tests.factories import run_factory
from tests.pages.conftest import text_of


@pytest.fixture
def started(monkeypatch):
    """What the server was started with, without starting it."""
    seen = []
    monkeypatch.setattr(serve, "serve", lambda door, host, rules, path: seen.append((door, host)))
    monkeypatch.setenv(READ_ONLY, "")
    monkeypatch.setenv(classroom.CLASS, "")
    return seen


def test_a_class_is_served_to_the_network_read_only_and_without_a_token(started, monkeypatch):
    monkeypatch.setattr(classroom, "network_address", lambda: "192.168.7.9")
    monkeypatch.setattr(gate, "own_names", lambda host: frozenset({"127.0.0.1", "192.168.7.9"}))
    assert serve.main(["--class"]) == 0
    ((door, host),) = started
    assert host == "0.0.0.0" and door.token == "" and "192.168.7.9" in door.names
    assert os.environ[READ_ONLY] == "1"
    assert classroom.link("learn", learn_step=4) == f"http://192.168.7.9:{door.port}/learn?learn_step=4"


def test_an_address_that_is_named_is_kept(started):
    assert serve.main(["--class", "--host", "127.0.0.1"]) == 0
    assert started[0][1] == "0.0.0.0", "loopback is no address for a class"
    assert serve.main(["--class", "--host", "localhost"]) == 0
    assert started[1][1] == "localhost" and "localhost" in classroom.address()


def test_the_code_holds_the_link_and_is_black_on_white():
    link = "http://192.168.7.9:8501/learn?learn_step=4"
    drawn = classroom.qr_picture(link)
    assert drawn.startswith("<svg") and "#fff" in drawn and "#000" in drawn and "aria-label" in drawn
    assert drawn != classroom.qr_picture(link + "&x=1")
    assert len(classroom.qr_text(link).splitlines()) > 10


@pytest.mark.parametrize(
    ("url", "reached"),
    [
        ("http://127.0.0.1:8501/learn", False),
        ("http://localhost/", False),
        ("http://192.168.7.9:8501/", True),
        ("http://[::1]/", False),
    ],
)
def test_a_link_that_others_cannot_open_is_not_offered_as_one(url, reached):
    assert classroom.reachable(url) is reached


def test_two_students_share_nothing(open_page, samples, card, monkeypatch):
    """Answers, model and drafts of one tab are in no other one, and nothing is written."""
    run_factory.spectra_run(samples, card)
    monkeypatch.setenv(READ_ONLY, "1")
    monkeypatch.setenv(classroom.CLASS, "http://192.168.7.9:8501")
    one = open_page("learn", learn_step="8")
    one.radio(key="learn_answer_0").set_value(1).run()
    assert "http://192.168.7.9:8501/learn?learn_step=8&model=starter" in text_of(one)
    assert "your own tab" in text_of(one)
    other = open_page("learn", learn_step="8", model="owner/other")
    assert other.radio(key="learn_answer_0").value is None
    assert one.run().query_params["model"] == "starter"

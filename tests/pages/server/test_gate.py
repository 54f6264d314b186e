"""Who reaches the server: names, origins, the token. The middleware is asked, and a real server by handshakes."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pages.ui import gate, health, serve
from tests.browser.conftest import wait_until_healthy
from tests.pages.conftest import ROOT

PORT = 8765
OWN = f"127.0.0.1:{PORT}"
LOCAL = gate.Door(gate.own_names("127.0.0.1"), PORT)
GUARDED = gate.Door(gate.own_names("127.0.0.1"), PORT, "s3cret-" + "x" * 36)
COOKIE = f"{GUARDED.cookie}={GUARDED.token}"
UPLOAD = "/_stcore/upload_file/session/file"


def asked(
    door: gate.Door,
    *headers: tuple[str, str],
    path: str = "/",
    query: str = "",
    kind: str = "http",
    answered: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer; 200 is that of the app behind the gate, 101 of its accepted handshake."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found = [(name.encode(), value.encode()) for name, value in (answered or {}).items()]
        await send({"type": "http.response.start", "status": 200, "headers": found})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": kind,
        "method": "GET",
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
    }
    asyncio.run(gate.Gate(app, door)(scope, None, send))  # type: ignore[arg-type]
    first = sent[0]
    if first["type"] == "websocket.close":
        return 403, {}
    return int(first["status"]), {name.decode(): value.decode() for name, value in first["headers"]}


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Host", f"evil.example:{PORT}")],
        [("Host", f"evil.example:{PORT}"), ("Origin", f"http://evil.example:{PORT}")],
        [("Host", f"127.0.0.1.evil.example:{PORT}")],
        [("Host", f"localhost.evil.example:{PORT}")],
        [("Host", f"127.0.0.1@evil.example:{PORT}")],
        [("Host", f"evil.example@127.0.0.1:{PORT}")],
        [("Host", "127.0.0.1:99999")],
        [("Host", "127.0.0.1/x")],
        [("Host", "2130706433")],
        [("Host", "")],
        [("Host", OWN), ("Host", "evil.example")],
        [("Host", OWN), ("Origin", "http://127.0.0.1:9999")],
        [("Host", OWN), ("Origin", "http://127.0.0.1")],
        [("Host", OWN), ("Origin", f"http://localhost:{PORT}")],
        [("Host", OWN), ("Origin", "https://evil.example")],
        [("Host", OWN), ("Origin", "null")],
        [("Host", OWN), ("Origin", f"file://{OWN}")],
        [("Host", OWN), ("Origin", OWN)],
        [("Host", OWN), ("Origin", f"http://{OWN}"), ("Origin", "http://evil.example")],
    ],
)
def test_foreign_hosts_and_origins_are_refused(headers: list[tuple[str, str]], kind: str) -> None:
    for path in ("/", "/_stcore/stream", UPLOAD, "/media/x.png"):
        assert asked(LOCAL, *headers, path=path, kind=kind)[0] == 403


@pytest.mark.parametrize(
    "headers",
    [
        [("Host", OWN)],
        [("Host", OWN), ("Origin", f"http://{OWN}")],
        [("Host", f"LOCALHOST:{PORT}"), ("Origin", f"http://localhost:{PORT}")],
        [("Host", f"[::1]:{PORT}"), ("Origin", f"http://[::1]:{PORT}")],
        [("Host", "localhost"), ("Origin", "http://localhost:80")],
        [("Host", "localhost:9000"), ("Origin", "http://localhost:9000")],  # a tunnel from another port
    ],
)
def test_the_servers_own_pages_pass(headers: list[tuple[str, str]]) -> None:
    status, answer = asked(LOCAL, *headers, path=UPLOAD)
    assert status == 200
    assert answer["x-frame-options"] == "SAMEORIGIN" and "frame-ancestors" in answer["content-security-policy"]


def test_a_server_for_others_has_their_names_and_those_it_is_told() -> None:
    names = gate.own_names("0.0.0.0")
    assert {socket.gethostname().lower(), "127.0.0.1"} <= names and "evil.example" not in names
    door = serve.door_of(serve.parse(["--host", "0.0.0.0", "--allow-host", "Compress.Example"]), PORT)
    assert asked(door, ("Host", "compress.example"), ("Origin", "https://compress.example"))[0] == 200


def test_a_token_is_asked_for_where_others_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def token(*words: str) -> str:
        return serve.door_of(serve.parse(list(words)), PORT).token

    assert not token() and not token("--host", "localhost")
    assert token("--token") and token("--host", "0.0.0.0") and token("--host", "192.0.2.7") and token("--host", "::")
    assert token("--token") != token("--token")
    monkeypatch.setenv("LRC_READ_ONLY", "1")
    assert not token("--host", "0.0.0.0"), "nothing can be started in the demo"


def test_the_link_becomes_a_cookie_and_leaves_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    status, answer = asked(GUARDED, ("Host", OWN), path="/spectra", query=f"rate=3&token={GUARDED.token}&model=a%2Fb")
    assert status == 303 and answer["location"] == "/spectra?rate=3&model=a%2Fb"
    assert COOKIE in answer["set-cookie"] and "HttpOnly" in answer["set-cookie"]
    assert asked(GUARDED, ("Host", OWN), path="//evil.example", query=f"token={GUARDED.token}")[1]["location"] == (
        "/evil.example"
    )
    for wrong in ("", "wrong", GUARDED.token[:-1], GUARDED.token + "x"):
        assert "set-cookie" not in asked(GUARDED, ("Host", OWN), query=f"token={wrong}")[1]
    assert asked(GUARDED, ("Host", "evil.example"), query=f"token={GUARDED.token}")[0] == 403


def test_uploads_need_the_token() -> None:
    assert asked(GUARDED, ("Host", OWN))[0] == 200, "guests get the demo's pages"
    assert asked(GUARDED, ("Host", OWN), path=UPLOAD)[0] == 403
    assert asked(GUARDED, ("Host", OWN), ("Cookie", f"{GUARDED.cookie}=wrong"), path=UPLOAD)[0] == 403
    assert asked(GUARDED, ("Host", OWN), ("Cookie", f"a=b; {COOKIE}"), path=UPLOAD)[0] == 200
    assert not GUARDED.opened_by({}) and not GUARDED.opened_by({LOCAL.cookie: ""})
    assert LOCAL.opened_by({})


SHARED = gate.Door(gate.own_names("127.0.0.1"), PORT, "t" * 43, shared=True)
PAGE = {"content-type": "text/html; charset=utf-8"}


def test_browsers_of_a_shared_server_are_known_again_by_a_key_that_opens_nothing() -> None:
    status, first = asked(SHARED, ("Host", OWN), answered=PAGE)
    cookie = first["set-cookie"].partition(";")[0]
    assert status == 200 and "HttpOnly" in first["set-cookie"]
    assert "set-cookie" not in asked(SHARED, ("Host", OWN), ("Cookie", cookie), answered=PAGE)[1]
    assert (
        "set-cookie" not in asked(SHARED, ("Host", OWN), path="/x.js", answered={"content-type": "text/javascript"})[1]
    )
    assert "set-cookie" not in asked(GUARDED, ("Host", OWN), answered=PAGE)[1], "one person's server knows nobody"
    name, _, secret = cookie.partition("=")
    key = SHARED.visitor({name: secret})
    assert key == SHARED.visitor({name: secret, "other": "x"}) != SHARED.visitor({name: secret + "x"})
    assert key is not None and secret not in key and not SHARED.opened_by({SHARED.cookie: key})
    assert GUARDED.visitor({name: secret}) is None


def test_a_shared_server_asks_for_a_token_everywhere() -> None:
    assert serve.door_of(serve.parse(["--shared"]), PORT).token
    behind = serve.door_of(serve.parse(["--shared", "--base-path", "lrc"]), PORT)
    assert "/lrc/?" in serve.link_to(behind, "127.0.0.1", "lrc")


def test_whoever_watches_a_server_learns_whether_it_can_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in ("/healthz", "/lrc/healthz/"):
        assert asked(SHARED, ("Host", OWN), path=path)[0] == 200
    assert asked(SHARED, ("Host", "evil.example"), path="/healthz")[0] == 403
    monkeypatch.setattr(health.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    assert asked(SHARED, ("Host", OWN), path="/healthz")[0] == 503


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real server as `make app` starts it."""
    folder: Path = tmp_path_factory.mktemp("gate")
    port = serve.free_port(range(8700, 8900))
    environment = {**os.environ, "LRC_RUNS": str(folder / "runs"), "LRC_CACHE": str(folder / "cache")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pages.ui.serve", str(port)], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    wait_until_healthy(f"http://127.0.0.1:{port}", folder / "log")
    yield port
    process.kill()
    process.wait(timeout=30)


def handshake(port: int, host: str, origin: str, method: str = "GET", path: str = "/_stcore/stream") -> str:
    """The status line of a WebSocket's handshake, or of an upload."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {host}",
        f"Origin: {origin}",
        *(
            ["Content-Length: 0", "Connection: close"]
            if method != "GET"
            else ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}"]
        ),
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: streamlit",
    ]
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return connection.recv(4096).split(b"\r\n")[0].decode()


def test_a_real_server_shakes_hands_with_its_own_pages_alone(port: int) -> None:
    for name in ("127.0.0.1", "localhost"):
        assert " 101 " in handshake(port, f"{name}:{port}", f"http://{name}:{port}")
    for host, origin in (
        (f"evil.example:{port}", f"http://evil.example:{port}"),
        (f"127.0.0.1:{port}", "http://127.0.0.1:9999"),
        (f"127.0.0.1:{port}", "http://evil.example"),
        (f"localhost:{port}", f"http://127.0.0.1:{port}"),
    ):
        assert " 403 " in handshake(port, host, origin)
        assert " 403 " in handshake(port, host, origin, "PUT", UPLOAD)
        assert " 403 " in handshake(port, host, origin, "POST", "/_stcore/health")

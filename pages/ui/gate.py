"""Who may reach the server: an ASGI middleware before everything that Streamlit answers.

A page of another origin must not drive the app. Browsers send the page's own origin along, so it has to be the one
that the request was made for, port included; and a name that points here by somebody else's doing (DNS rebinding) is
none of this server's names. With a token, only a browser that came by the printed link may upload, start or change
anything; others see the read-only demo (:mod:`pages.ui.shared.access`).
"""

from __future__ import annotations

import hashlib
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from pages.ui import health

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN = "token"
"""Query parameter of the printed link."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::", "")
_UPLOADS = "/_stcore/upload_file"
_KNOWN_S = 180 * 24 * 3600
"""How long a browser is known again: a term."""


def new_token() -> str:
    """A token of 256 bits, made at each start."""
    return secrets.token_urlsafe(32)


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches a server on that address."""
    return address in LOOPBACK


def own_names(address: str) -> frozenset[str]:
    """The host names under which a server on that address is reached: by this machine, and by others where it listens.

    Names that only a proxy or a router knows are not among them.
    """
    if is_loopback(address):
        return frozenset(LOOPBACK)
    if address not in EVERYWHERE:
        return frozenset({*LOOPBACK, address})
    import psutil

    addresses = {found.address.partition("%")[0] for card in psutil.net_if_addrs().values() for found in card}
    return frozenset(name.lower() for name in {*LOOPBACK, *addresses, socket.gethostname(), socket.getfqdn()})


@dataclass(frozen=True)
class Door:
    """What a server answers to.

    Attributes:
        names: host names that are its own, in lower case.
        port: that it listens on.
        token: without which nothing may be uploaded, started or changed; empty where none is asked for.
        shared: many people work on it, and each browser is known again.
    """

    names: frozenset[str]
    port: int
    token: str = ""
    shared: bool = False

    @property
    def visitor_cookie(self) -> str:
        """The cookie by which a browser is known again where many share the server."""
        return f"lrc_visitor_{self.port}"

    def visitor(self, cookies: Mapping[str, str]) -> str | None:
        """A key that says which browser this is and opens nothing; None where the server is not shared."""
        if not self.shared:
            return None
        return hashlib.sha256(cookies.get(self.visitor_cookie, "").encode()).hexdigest()[:32]

    @property
    def cookie(self) -> str:
        """The cookie that holds the token. It names the port: browsers share cookies between all ports of a host."""
        return f"lrc_token_{self.port}"

    def opened_by(self, cookies: Mapping[str, str]) -> bool:
        """Whether a browser with these cookies came by the link."""
        return not self.token or self.is_token(cookies.get(self.cookie, ""))

    def is_token(self, given: str) -> bool:
        """Compared in constant time."""
        return bool(self.token) and secrets.compare_digest(given.encode(), self.token.encode())


served: Door | None = None
"""The door of this process's server; None where `streamlit run` started it."""


class Gate:
    """Refuses foreign hosts and origins with 403, and turns the link with the token into a cookie."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app = app
        self.door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope) or (self._admission(scope) if scope["type"] == "http" else None)
        if refusal is None:
            await self._handed_on(scope, receive, _never_framed(send))
        elif scope["type"] == "http":
            await refusal(scope, receive, send)
        else:  # a handshake that is closed before it is accepted is answered with 403
            await send({"type": "websocket.close", "code": 1008})

    async def _handed_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].rstrip("/").endswith(health.PATH):
            await health.answer()(scope, receive, send)
            return
        known = self.door.visitor_cookie in HTTPConnection(scope).cookies
        await self.app(scope, receive, send if known or not self.door.shared else _greeting(send, self.door))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or _host_name(hosts[0]) not in self.door.names:
            return _forbidden("this server does not go by that name. Its owner can add it: --allow-host NAME.")
        if origins and (len(origins) > 1 or not _same(origins[0], hosts[0])):
            return _forbidden("a page of another origin asked.")
        if _UPLOADS in scope["path"] and not self.door.opened_by(HTTPConnection(scope).cookies):
            return _forbidden("only who came by the link with the token may upload.")
        return None

    def _admission(self, scope: Scope) -> Response | None:
        """The way from the printed link to the same address without the token, which the cookie holds from then on."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if not any(name == TOKEN and self.door.is_token(value) for name, value in query):
            return None
        rest = urlencode([(name, value) for name, value in query if name != TOKEN])
        # One leading slash: two would name another host.
        path = "/" + scope["path"].lstrip("/")
        answer = RedirectResponse(f"{path}?{rest}" if rest else path, status_code=303)
        answer.set_cookie(self.door.cookie, self.door.token, httponly=True, samesite="lax", path="/")
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["Referrer-Policy"] = "no-referrer"
        return answer


def _forbidden(why: str) -> Response:
    return PlainTextResponse(f"Refused: {why}\n", status_code=403)


def _host_name(host: str) -> str:
    """The name in a Host header, lower case and without the port; empty for what is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return ""
    if parts.netloc != host or parts.username is not None or parts.path or parts.query or parts.fragment:
        return ""
    return (parts.hostname or "").rstrip(".")


def _same(origin: str, host: str) -> bool:
    """Whether a page of that origin was served under that host and port."""
    scheme, _, netloc = origin.partition("://")
    default = {"http": ":80", "https": ":443"}.get(scheme)
    return default is not None and netloc.lower().removesuffix(default) == host.lower().removesuffix(default)


def _greeting(send: Send, door: Door) -> Send:
    """Give a browser that comes for the first time a cookie of its own, with the first page that it is sent."""
    answer = Response()
    answer.set_cookie(door.visitor_cookie, new_token(), max_age=_KNOWN_S, httponly=True, samesite="lax", path="/")
    cookie = (b"set-cookie", answer.headers["set-cookie"].encode("latin-1"))

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message["headers"])
            if any(name.lower() == b"content-type" and value.startswith(b"text/html") for name, value in headers):
                message = {**message, "headers": [*headers, cookie]}
        await send(message)

    return sending


def _never_framed(send: Send) -> Send:
    """No foreign page may lay the app under a click of its own."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = [(b"x-frame-options", b"SAMEORIGIN"), (b"content-security-policy", b"frame-ancestors 'self'")]
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return sending

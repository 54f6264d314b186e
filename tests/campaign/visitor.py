"""A session with the app without a browser: a WebSocket that asks for pages and presses buttons."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import urlsplit

from streamlit.proto.Alert_pb2 import Alert
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect

PATIENCE_S = 120.0
_ENDED, _AGAIN = ForwardMsg.FINISHED_SUCCESSFULLY, ForwardMsg.FINISHED_EARLY_FOR_RERUN


@dataclass
class Shown:
    """What one run of a page has drawn.

    Attributes:
        seconds: from the question until the page's script had ended.
        buttons: ids of the buttons, by their labels.
        errors: exceptions and red boxes that were drawn, pages that are not there, ends that are none.
    """

    seconds: float = 0.0
    buttons: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


class Visitor:
    """One session; ``async with Visitor(url) as visitor``.

    Args:
        url: of the server.
    """

    def __init__(self, url: str) -> None:
        self._url, self._place = url, ("", "")
        self._socket: ClientConnection | None = None

    async def __aenter__(self) -> Visitor:
        address = f"ws://{urlsplit(self._url).netloc}/_stcore/stream"
        self._socket = await connect(  # messages of a page may be megabytes
            address,
            origin=self._url,  # type: ignore[arg-type]
            subprotocols=["streamlit"],  # type: ignore[list-item]
            max_size=None,
            compression=None,
            open_timeout=PATIENCE_S,
            ping_interval=None,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._socket is not None
        await self._socket.close()

    async def open(self, link: str) -> Shown:
        """Ask for a page, and wait until all of it is there.

        Args:
            link: name of the page and query, ``runs?ru_run=...``.

        Raises:
            OSError, TimeoutError, websockets.ConnectionClosed: the server does not answer, or has gone.
        """
        name, _, query = link.partition("?")
        self._place = name, query
        return await self._ask(BackMsg())

    async def press(self, button: str) -> Shown:
        """Press a button of the page that is open, by its id; as :meth:`open`."""
        ask = BackMsg()
        ask.rerun_script.widget_states.widgets.add(id=button, trigger_value=True)
        return await self._ask(ask)

    async def _ask(self, ask: BackMsg) -> Shown:
        assert self._socket is not None
        ask.rerun_script.page_name, ask.rerun_script.query_string = self._place
        shown, began = Shown(), time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            await self._socket.send(ask.SerializeToString())
            while True:
                message = ForwardMsg.FromString(await self._socket.recv())  # type: ignore[arg-type]
                _note(message, shown)
                if message.WhichOneof("type") == "script_finished" and message.script_finished != _AGAIN:
                    break
        if message.script_finished != _ENDED:
            shown.errors.append(f"the page's script ended with {message.script_finished}")
        shown.seconds = time.monotonic() - began
        return shown


def _note(message: ForwardMsg, shown: Shown) -> None:
    if message.WhichOneof("type") == "page_not_found":
        shown.errors.append("the page was not found")
    element = message.delta.new_element  # an empty one in a message that draws nothing
    kind = element.WhichOneof("type")
    if kind == "exception":
        shown.errors.append(f"{element.exception.type}: {element.exception.message[:200]}")
    elif kind == "alert" and element.alert.format == Alert.ERROR:
        shown.errors.append(f"{element.alert.title}: {element.alert.body[:200]}")
    elif kind == "button":
        shown.buttons[element.button.label] = element.button.id

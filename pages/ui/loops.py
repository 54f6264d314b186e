"""Event loops that open no files before they run.

Streamlit gives every session an event loop of its own, for libraries that ask for one, and hardly any session runs it.
asyncio opens three files for each, so fifty visitors would hold a hundred and fifty. No Streamlit: this is imported
before it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any


class IdleLoop(asyncio.SelectorEventLoop):
    """asyncio's event loop, whose files are opened when something first needs them."""

    def __init__(self) -> None:
        asyncio.BaseEventLoop.__init__(self)  # what is left out is the selector and the socket pair that wakes it

    def __getattr__(self, name: str) -> Any:
        if self._is_open():
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        asked_so_far = {key: value for key, value in self.__dict__.items() if key != "_internal_fds"}
        super().__init__()
        self.__dict__.update(asked_so_far)
        return getattr(self, name)

    def _is_open(self) -> bool:
        return "_selector" in self.__dict__

    def close(self) -> None:
        """As asyncio's; nothing is opened for it."""
        if self._is_open():
            super().close()
        else:
            asyncio.BaseEventLoop.close(self)


def make_loops_idle() -> None:
    """From now on :func:`asyncio.new_event_loop` opens no files, where asyncio lets one choose (below Python 3.14)."""
    if sys.platform != "win32" and sys.version_info < (3, 14):

        class Policy(asyncio.DefaultEventLoopPolicy):
            def new_event_loop(self) -> asyncio.AbstractEventLoop:
                return IdleLoop()

        asyncio.set_event_loop_policy(Policy())

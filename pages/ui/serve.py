"""``python -m pages.ui.serve [PORT]``: start the app's server on this machine and open a browser when it answers.

Streamlit could open the browser itself, but would first ask a newcomer for an e-mail address. In the read-only mode
(``make demo``) nothing that only workers need can be imported.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Iterable
from pathlib import Path

from lrc_core.paths import read_only
from pages.ui import lean

HOST = "127.0.0.1"
FIRST_PORT = 8501
APP = Path(__file__).resolve().parents[2] / "app.py"


def free_port(ports: Iterable[int]) -> int:
    """The first of ``ports`` that nobody listens on.

    Raises:
        OSError: all are taken.
    """
    for port in ports:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((HOST, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port on {HOST}")


def has_screen() -> bool:
    """Whether a person sits in front of this machine, with a terminal and a display."""
    display = sys.platform in ("darwin", "win32") or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))
    return sys.stdout.isatty() and display


def answers(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def open_when_ready(port: int, seconds: float = 60.0) -> None:
    """Open a browser tab as soon as the server answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answers(port):
            webbrowser.open(f"http://{HOST}:{port}")
            return
        time.sleep(0.1)


def _target() -> str:
    return "demo" if read_only() else "app"


def main(arguments: list[str]) -> int:
    """Serve until Ctrl-C; the exit code is Streamlit's."""
    try:
        wanted = [int(arguments[0])] if arguments else range(FIRST_PORT, FIRST_PORT + 50)
        port = free_port(wanted)
    except ValueError:
        print(f"The port must be a number, not {arguments[0]!r}.", file=sys.stderr)  # noqa: T201
        return 2
    except OSError:
        asked = arguments[0] if arguments else FIRST_PORT
        print(f"Port {asked} is taken. Try `make {_target()} PORT=8600`.", file=sys.stderr)  # noqa: T201
        return 1
    if has_screen():
        threading.Thread(target=open_when_ready, args=(port,), daemon=True).start()
    if read_only():
        lean.refuse_heavy_imports()
    lean.warm_up(lambda: answers(port))
    from streamlit.web import cli

    sys.argv = ["streamlit", "run", str(APP), "--server.port", str(port)]
    return int(cli.main(standalone_mode=False) or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

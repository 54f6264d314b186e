"""``lrc app`` and ``lrc demo``: start the app's server and open a browser when it answers.

Only this machine reaches it unless ``--host`` says otherwise. Then, or with ``--token``, the printed link holds a
token, and whoever comes without it sees the read-only demo. With ``--shared`` who comes with it is one of many, bound
by the server's rules (:mod:`lrc_core.visitors`). Streamlit could open the browser itself, but would first
ask a newcomer for an e-mail address. In the read-only mode (``make demo``) nothing that only workers need can be
imported.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Iterable
from contextlib import suppress

from lrc_core.errors import SettingsError
from lrc_core.jobs.engines.profile import offer_profile
from lrc_core.models.consent import ALLOW_PICKLE, TRUST_REMOTE_CODE
from lrc_core.paths import READ_ONLY, app_home, is_clone, read_only, start_command
from lrc_core.serving import HOST, add_flags, rules_of
from lrc_core.visitors import Rules
from pages.ui import classroom, gate, heavy_imports, loops

FIRST_PORT = 8501
APP = app_home() / "app.py"

MOST_FILES = 8192


def allow_many_files() -> None:
    """Raise this process's limit of open files as far as it may go: the usual 256 of macOS are 60 visitors."""
    with suppress(ImportError, OSError, ValueError):  # not on every system
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def free_port(ports: Iterable[int], host: str = HOST) -> int:
    """The first of ``ports`` that nobody listens on.

    Raises:
        OSError: all are taken.
    """
    for port in ports:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port on {host}")


def has_screen() -> bool:
    """Whether a person sits in front of this machine, with a terminal and a display."""
    display = sys.platform in ("darwin", "win32") or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))
    return sys.stdout.isatty() and display


def answers(port: int, host: str = HOST) -> bool:
    """Whether something listens on a port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        return probe.connect_ex((host, port)) == 0


def open_when_ready(link: str, port: int, host: str = HOST, seconds: float = 60.0) -> None:
    """Open a browser tab as soon as the server answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answers(port, host):
            webbrowser.open(link)
            return
        time.sleep(0.1)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line of the server, as ``lrc app`` reads it."""
    parser = argparse.ArgumentParser("python -m pages.ui.serve", description="Start the app's server.")
    add_flags(parser)
    return parser.parse_args(arguments)


def door_of(options: argparse.Namespace, port: int) -> gate.Door:
    """Who may come in: the token is asked for where others can reach the server and something can be started."""
    names = gate.own_names(options.host) | {name.lower() for name in options.allow_host}
    guarded = (options.token or options.shared or not gate.is_loopback(options.host)) and not read_only()
    return gate.Door(names, port, gate.new_token() if guarded else "", shared=options.shared)


def link_to(door: gate.Door, host: str, base: str = "") -> str:
    """What to open; behind a proxy its name takes the place of this one's."""
    shown = socket.gethostname() if host in gate.EVERYWHERE else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{door.port}/{f'{base}/' if base else ''}" + (
        f"?{gate.TOKEN}={door.token}" if door.token else ""
    )


def main(arguments: list[str]) -> int:
    """Serve until Ctrl-C; the exit code is Streamlit's."""
    return run(parse(arguments))


def run(options: argparse.Namespace) -> int:
    """The same with options that were read; 1 where the port is taken, 2 where port or address make no sense."""
    if options.classroom:
        os.environ[READ_ONLY] = "1"
        options.host = "0.0.0.0" if options.host == HOST else options.host
    try:
        rules = rules_of(options)
        if not read_only():
            offer_profile(options.profile)
        elif options.profile:
            raise SettingsError("--profile says where jobs go, and no job can be started here.", "Leave it out.")
        elif options.token:
            raise SettingsError("--token guards what can be started, and nothing can be started here.", "Leave it out.")
    except SettingsError as error:
        print(f"{error.message} {error.remedy}", file=sys.stderr)  # noqa: T201
        return 2
    if rules is not None:  # consents are for whoever gives them, and a visitor's model is nobody's choice
        for consent in (TRUST_REMOTE_CODE, ALLOW_PICKLE):
            os.environ.pop(consent, None)
    try:
        wanted = [int(options.port)] if options.port else range(FIRST_PORT, FIRST_PORT + 50)
        port = free_port(wanted, options.host)
    except (ValueError, OverflowError):
        print(f"The port must be a number, not {options.port!r}.", file=sys.stderr)  # noqa: T201
        return 2
    except socket.gaierror:
        print(f"{options.host!r} is no address of this machine.", file=sys.stderr)  # noqa: T201
        return 2
    except OSError:
        target = "class" if classroom.address() else "demo" if read_only() else "app"
        again = f"{start_command(target)} {'PORT=' if is_clone() else ''}8600"
        print(  # noqa: T201
            f"Port {options.port or FIRST_PORT} of {options.host} is taken. Try `{again}`.", file=sys.stderr
        )
        return 1
    if options.classroom:
        shown = classroom.network_address() if options.host in gate.EVERYWHERE else options.host
        os.environ[classroom.CLASS] = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"
    serve(door_of(options, port), options.host, rules, options.base_path.strip("/"))
    return 0


def serve(door: gate.Door, host: str, rules: Rules | None = None, base: str = "") -> None:
    """Serve until Ctrl-C.

    Args:
        door: who may come in.
        rules: for visitors, where the server is shared.
        base: path that a proxy puts before the app's own.
    """
    allow_many_files()
    loops.make_loops_idle()
    near = HOST if host in gate.EVERYWHERE else host
    link = link_to(door, host, base)
    if has_screen():
        threading.Thread(target=open_when_ready, args=(link, door.port, near), daemon=True).start()
    if read_only():
        heavy_imports.refuse_heavy_imports()
    heavy_imports.warm_up(lambda: answers(door.port, near))
    print(f"\n  Open {link}\n", flush=True)  # noqa: T201
    if lesson := classroom.link("learn"):
        code = classroom.qr_text(lesson)
        print(f"  The class opens {lesson}\n\n{code}\n", flush=True)  # noqa: T201
    import streamlit
    from starlette.middleware import Middleware

    from pages.ui.shared import access

    gate.served = door
    access.install(rules)
    sys.argv = [str(APP)]
    app = streamlit.App(APP, middleware=[Middleware(gate.Gate, door=door)])
    options = {
        "server.port": door.port,
        "server.address": host,
        "server.baseUrlPath": base,
        "server.allowedHosts": sorted(door.names),
        "logger.hideWelcomeMessage": True,  # its link has no token
    }
    # The server raises the signal that stopped it once more, when it is done.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with suppress(KeyboardInterrupt):
        app.run(config=options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

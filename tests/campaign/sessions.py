"""Many visitors of the demo at once: nothing fails, the server's memory stays, and so do its open files.

A visitor opens a view, reads for some seconds, opens the next one, and after a few leaves; another one comes.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from websockets import WebSocketException

from tests.browser.views import VIEWS
from tests.campaign.served import Served
from tests.campaign.tally import Tally
from tests.campaign.visitor import Visitor

LINKS = tuple(view.path for view in VIEWS if not view.needs)
PAUSE_S = (6.0, 14.0)
"""How long a visitor reads."""
VIEWS_EACH = (5, 15)
LOOK_S = 2.0
FILES_A_VISITOR, OTHER_FILES = 2, 100
"""A session has its WebSocket and, for moments, a request for a page, a picture or a download."""
GROWTH, SETTLED = 1.10, 1
"""How far memory may grow after so many minutes, though Streamlit keeps those who left for two."""
SLOW_S = 3.0
"""What nineteen of twenty views are meant to take at most."""


@dataclass
class _Seen:
    seconds: list[float] = field(default_factory=list)
    memory: dict[int, list[int]] = field(default_factory=dict)
    """Resident bytes by minute."""
    files: list[int] = field(default_factory=list)
    load: list[float] = field(default_factory=list)


def visit_demo(folder: Path, *, seed: int, sessions: int, seconds: float) -> Tally:
    """Let so many visitors use the demo for so long.

    Args:
        folder: for the server's log.
        seed: of what they open and how long they read.
        sessions: visitors at any time.
        seconds: until the last view is asked for.
    """
    tally, seen = Tally("sessions"), _Seen()
    server = Served(folder / "server.log", {"LRC_READ_ONLY": "1"})
    try:
        asyncio.run(_crowd(server, seed, sessions, time.monotonic() + seconds, seen, tally))
    finally:
        server.kill()
    for line in (line for line in server.log().splitlines() if "Traceback" in line or "Error" in line):
        tally.require(False, f"the server's log: {line[:200]}")
    _report(seen, sessions, tally)
    return tally


async def _crowd(server: Served, seed: int, sessions: int, end: float, seen: _Seen, tally: Tally) -> None:
    watch = asyncio.create_task(_watch(server.process, seen))
    try:
        chances = [random.Random(f"{seed} {number}") for number in range(sessions)]
        await asyncio.gather(*(_chair(server.url, chance, end, seen, tally) for chance in chances))
    finally:
        watch.cancel()


async def _chair(url: str, chance: random.Random, end: float, seen: _Seen, tally: Tally) -> None:
    """One visitor after the other."""
    await asyncio.sleep(chance.uniform(0, min(PAUSE_S[1], (end - time.monotonic()) / 2)))  # not all at the same moment
    while time.monotonic() < end:
        try:
            await asyncio.to_thread(_first_page, url)
            async with Visitor(url) as visitor:
                tally.count("sessions")
                await _read(visitor, chance, end, seen, tally)
        except (OSError, TimeoutError, WebSocketException) as error:
            tally.require(False, f"a session ended with {type(error).__name__}: {error}")
            await asyncio.sleep(1)


def _first_page(url: str) -> None:
    with urllib.request.urlopen(url, timeout=60) as answer:
        answer.read()


async def _read(visitor: Visitor, chance: random.Random, end: float, seen: _Seen, tally: Tally) -> None:
    for _ in range(chance.randint(*VIEWS_EACH)):
        link = chance.choice(LINKS)
        shown = await visitor.open(link)
        tally.count("views opened")
        tally.require(not shown.errors, f"{link}: {shown.errors}")
        seen.seconds.append(shown.seconds)
        if time.monotonic() > end:
            return
        await asyncio.sleep(chance.uniform(*PAUSE_S))


async def _watch(process: psutil.Process, seen: _Seen) -> None:
    began = time.monotonic()
    while True:
        with process.oneshot():
            minute = int((time.monotonic() - began) / 60)
            seen.memory.setdefault(minute, []).append(process.memory_info().rss)
            seen.files.append(process.num_fds())
        seen.load.append(os.getloadavg()[0])
        await asyncio.sleep(LOOK_S)


def _report(seen: _Seen, sessions: int, tally: Tally) -> None:
    ordered = sorted(seen.seconds)
    minutes = {minute: statistics.median(found) / 1e6 for minute, found in seen.memory.items()}
    tally.say(
        f"a view takes {_percentile(ordered, 50):.2f} s (median), {_percentile(ordered, 95):.2f} s (95th percentile)"
    )
    tally.say(f"the slowest took {ordered[-1]:.2f} s; load average {min(seen.load):.1f} to {max(seen.load):.1f}")
    tally.say("memory by minute, MB: " + " ".join(f"{value:.0f}" for value in minutes.values()))
    tally.say(f"open files: {max(seen.files)} at most")
    most = FILES_A_VISITOR * sessions + OTHER_FILES
    tally.require(max(seen.files) <= most, f"{max(seen.files)} open files, more than {most}")
    if later := [value for minute, value in minutes.items() if minute > SETTLED]:
        grown = max(later) / minutes[SETTLED]
        tally.say(f"memory after minute {SETTLED}: at most {100 * grown - 100:+.1f} %")
        tally.require(grown <= GROWTH, f"memory grows by {100 * grown - 100:.0f} %")
        tally.require(_percentile(ordered, 95) <= SLOW_S, f"one view in twenty takes over {SLOW_S:g} s")


def _percentile(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]

"""An event loop that opens no files before it runs is an event loop like any other."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from pages.ui.loops import IdleLoop

FILES_OF_A_LOOP = 3


@pytest.fixture
def loop() -> Iterator[IdleLoop]:
    loop = IdleLoop()
    yield loop
    loop.close()


def open_files() -> int:
    return psutil.Process().num_fds()


def test_files_are_opened_when_it_runs_and_closed_with_it() -> None:
    before = open_files()
    loop = IdleLoop()
    asyncio.set_event_loop(loop)
    asyncio.set_event_loop(None)
    assert not asyncio.all_tasks(loop)
    assert not loop.is_running()
    assert open_files() == before
    loop.run_until_complete(asyncio.sleep(0))
    assert open_files() == before + FILES_OF_A_LOOP
    loop.close()
    assert open_files() == before


def test_one_that_never_ran_is_closed_without_opening_anything() -> None:
    before, loop = open_files(), IdleLoop()
    loop.close()
    assert loop.is_closed()
    assert "_selector" not in loop.__dict__
    assert open_files() == before
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(print)


def test_what_was_asked_of_it_before_it_ran_is_done(loop: IdleLoop) -> None:
    done: list[str] = []
    loop.set_debug(True)
    loop.call_soon(done.append, "soon")
    loop.call_later(0.001, done.append, "later")
    task = loop.create_task(asyncio.sleep(0.01, "task"))
    assert loop.run_until_complete(task) == "task"
    assert done == ["soon", "later"]
    assert loop.get_debug()


def test_another_thread_wakes_it(loop: IdleLoop) -> None:
    async def answer() -> int:
        return await asyncio.to_thread(os.getpid)

    assert loop.run_until_complete(answer()) == os.getpid()


def test_it_serves_sockets_and_processes(loop: IdleLoop) -> None:
    async def talk() -> bytes:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(b"heard\n")
        heard = await reader.read()
        writer.close()
        server.close()
        return heard

    assert loop.run_until_complete(talk()) == b"heard\n"


def test_attributes_that_no_loop_has_are_missing(loop: IdleLoop) -> None:
    for _ in range(2):  # before and after its files are open
        with pytest.raises(AttributeError, match="no_such_thing"):
            loop.no_such_thing  # noqa: B018


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio lets nobody choose its loops any more")
def test_a_process_that_asked_for_them_gets_them() -> None:
    words = (
        "import asyncio; from pages.ui.loops import IdleLoop, make_loops_idle; make_loops_idle();"
        "assert isinstance(asyncio.new_event_loop(), IdleLoop); print(asyncio.run(asyncio.sleep(0, 'ran')))"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout == "ran\n"
    assert not done.stderr
